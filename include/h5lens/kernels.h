/*
 * kernels.h: the arithmetic. Matrices are row-major float32 unless stated otherwise.
 *
 * A row's bits are its own. On one CPU level, row i of every result below is a
 * function of row i of the input alone, whatever the other rows are and however many,
 * given one rule for lens_gemm (see lens_row_ways). That is what makes results
 * independent of batch, order, threads and shards.
 */
#ifndef H5LENS_KERNELS_H
#define H5LENS_KERNELS_H

#include "h5lens/core.h"

/* The instruction set that fixes BLAS's kernels and our own. */
enum lens_cpu_level { LENS_LEVEL_AVX2 = 0, LENS_LEVEL_AVX512 = 1 };

const char *lens_cpu_level_name(enum lens_cpu_level level);

/* The best level that this machine can run; LENS_ERR_UNSUPPORTED without AVX2, FMA, F16C. */
enum lens_status lens_cpu_detect(enum lens_cpu_level *level, struct lens_error *err);

/*
 * Opens OpenBLAS with level's core (HASWELL, SKYLAKEX) and one thread, and selects our
 * own kernels. Must be called before any of the functions below and before threads
 * start. Calling it again with the same level does nothing; with another level it is
 * LENS_ERR_INVALID, because OpenBLAS chooses its kernels when it loads.
 */
enum lens_status lens_kernels_open(enum lens_cpu_level level, struct lens_error *err);

/* "OpenBLAS 0.3.21 SkylakeX", once open. */
const char *lens_blas_description(void);

/*
 * In how many ways rows of a product are computed: 1 on AVX-512; 2 on AVX2, where
 * OpenBLAS's kernels treat rows 0–5 and 6–11 of every twelve differently. A row's way must
 * follow from what the row is, never from its neighbours; its place among those of its
 * way does not matter.
 */
#define LENS_MOST_ROW_WAYS 2
size_t lens_row_ways(void);

/* Rows of each way; of one way alone, the first. */
struct lens_row_count {
	size_t n[LENS_MOST_ROW_WAYS];
};
/* The way of a row that has this number: a position, a layer, a token; all that is even alike.
 */
size_t lens_row_way(size_t number);
/* Where the i-th row of a way is. */
size_t lens_row_place(size_t way, size_t i);
/* The way of the row at a place: of rows that are brought together each keeps its own. */
size_t lens_row_way_at(size_t place);
/* How many rows a matrix has that holds so many of each way, gaps included. */
size_t lens_row_places(const struct lens_row_count *c);
/* How many of any one way fit into so many rows. */
size_t lens_row_room(size_t rows);

/* How B of a product is stored: as [K, N], or transposed, as [N, K]. */
enum lens_trans { LENS_B_PLAIN, LENS_B_TRANSPOSED };

struct lens_gemm_args {
	size_t m, n, k;
	const float *a; /* [m, k], row stride lda */
	size_t lda;
	const float *b; /* [k, n] or [n, k], row stride ldb */
	size_t ldb;
	enum lens_trans trans;
	const float *bias; /* [n], or NULL: C starts at bias */
	float *c;          /* [m, n], row stride ldc */
	size_t ldc;
};

/*
 * C = bias + A·B. K is summed in blocks of at most 128, which reduces the error from
 * 3.5e-7 to 2.1e-7 of the result's scale at K = 768; for K up to 32 in blocks of 8, and
 * up to 256 in blocks of 16, which reduces it to about 0.7 of that of a single sum. pad
 * is scratch of at least lens_gemm_pad_floats(n, k) floats, in which products too small
 * for the kernels that keep a row's bits are padded with zero rows. Tiles of rows are
 * shared out to threads, the caller's own and those that lens_crew_share adds to a large
 * product; the bits do not depend on it.
 */
void lens_gemm(const struct lens_gemm_args *args, float *pad, int threads);
size_t lens_gemm_pad_floats(size_t n, size_t k);

/*
 * The thin singular value decomposition of a product, in float64: A·Bᵀ =
 * U·diag(s)·Vᵀ with A [m, k], B [n, k], k <= m and n. s descends and is not
 * negative; the columns of U and V are orthonormal even where s is 0. In each column
 * of U the element of largest magnitude (the first of several) is positive. at and bt
 * are aligned to 64 bytes (lens_alloc_aligned). May be called from several threads at
 * once. Needs the LAPACK that OpenBLAS is usually built with; LENS_ERR_UNSUPPORTED
 * without it.
 */
struct lens_svd_product {
	size_t m, n, k;
	double *at; /* Aᵀ [k, m], becomes Uᵀ */
	double *bt; /* Bᵀ [k, n], becomes Vᵀ */
	double *s;  /* [k] */
};
enum lens_status lens_svd_product(const struct lens_svd_product *p, struct lens_error *err);
/* Bytes that it takes beside them; false if that overflows. */
bool lens_svd_bytes(size_t rows, size_t k, size_t *out);

/* Activation functions, named as by Hugging Face. */
enum lens_act {
	LENS_ACT_GELU_NEW, /* 0.5x(1+tanh(√(2/π)(x+0.044715x³))) */
	LENS_ACT_GELU,     /* 0.5x(1+erf(x/√2)) */
	LENS_ACT_RELU,
	LENS_ACT_SILU,
	LENS_ACT_SOLU /* x·softmax(x) over the row (Elhage et al. 2022) */
};

/* One attention head of one prompt. */
struct lens_attention_args {
	size_t n_pos, d_head;
	size_t q0, nq;   /* the queries asked for: q0 … q0+nq-1 */
	const float *q;  /* row stride ld; row i is position i */
	const float *kt; /* keys, transposed: [d_head, ldk] (lens_transpose_keys) */
	const float *v;  /* row stride ld */
	size_t ld, ldk;
	float scale;   /* scores are q·k / scale */
	size_t window; /* keys that a query sees, its own included; 0: all */
	float slope;   /* scores have slope·(key − query) added; 0: not */
	float cap;     /* scores become cap·tanh(scores/cap) before the mask; 0: not */
	float *scores; /* [nq, ldk]: scores, then the pattern */
	float *z;      /* row stride ldz, row i is position i */
	size_t ldz;
};

/* Our own kernels for one level. Lengths need not be multiples of anything. */
struct lens_vec {
	/*
	 * LayerNorm of each row: scale[i] = √(var + eps), y = (x − mean)/scale,
	 * then ·w + b where w, b are not NULL. Sums in float64. y may be x.
	 */
	void (*layer_norm)(size_t rows, size_t d, const float *x, const float *w,
			   const float *b, double eps, float *y, float *scale);
	/* RMSNorm without a weight: scale = √(mean x² + eps), y = x/scale. */
	void (*rms_norm)(size_t rows, size_t d, const float *x, double eps, float *y,
			 float *scale);
	/* y = act(x), n elements; for SoLU, n elements of one row */
	void (*activation)(enum lens_act act, size_t n, const float *x, float *y);
	/* y += x */
	void (*add)(size_t n, const float *x, float *y);
	/* x = cap·tanh(x/cap), in float64 and rounded once */
	void (*soft_cap)(size_t n, float cap, float *x);
	/* y += factor·x */
	void (*add_scaled)(size_t n, float factor, const float *x, float *y);
	/* Σ x·y, in float64 */
	double (*dot)(size_t n, const float *x, const float *y);
	/* y *= x */
	void (*multiply)(size_t n, const float *x, float *y);
	/*
	 * Rotary embedding of one head at one position (Su et al. 2021), in the
	 * rotate-half pairing: (x[i], x[half + i]) is rotated by the i-th angle.
	 * Computed in float64 and rounded once.
	 */
	void (*rotate)(size_t half, const double *cosine, const double *sine, float *x);
	/* kt[d, j] = k[j, d]; ldk is n_pos rounded up to LENS_KEY_ALIGN, zero-filled. */
	void (*transpose_keys)(size_t n_pos, size_t d_head, const float *k, size_t ld,
			       float *kt, size_t ldk);
	/* scores = q·k/scale, −inf where masked (causal, window), up to column ldk. */
	void (*attention_scores)(const struct lens_attention_args *a);
	/* scores → pattern in place (softmax over the keys) */
	void (*attention_softmax)(const struct lens_attention_args *a);
	/* z = pattern · v */
	void (*attention_mix)(const struct lens_attention_args *a);
	/* IEEE half, round to nearest even; returns how many finite values overflowed. */
	size_t (*to_f16)(size_t n, const float *x, uint16_t *y);
	/* How many of x are strictly larger than t (NaN is not). */
	size_t (*count_above)(size_t n, const float *x, float t);
	/* The largest element; NaN if any is NaN or infinite. */
	float (*max_finite)(size_t n, const float *x);
	/* Σ exp(x − max), in float64 */
	double (*sum_exp)(size_t n, const float *x, float max);
	/* out = Σ e, Σ e·(y − shift) with e = exp(x − max); all in float64, e too. */
	void (*exp_sums)(size_t n, const float *x, float max, const float *y, float shift,
			 double out[2]);
};
#define LENS_KEY_ALIGN 16

const struct lens_vec *lens_vec(void);

#endif
