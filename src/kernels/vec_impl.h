/*
 * kernels/vec_impl.h: our own kernels, compiled once for each CPU level by
 * vec_avx2.c and vec_avx512.c, which define
 *   VL    floats in a vector (8, 16)
 *   VEC   the name of the table to define
 *   to_f16_block(x, y)   VL floats to IEEE half
 *
 * Written with GCC's vector types: every element takes the same operations in
 * the same order wherever it lies in a row, and a row's sums run over fixed
 * lanes, so that bits depend on the row alone. A multiply-add is fused
 * (-ffp-contract=fast for these two files).
 */
#include "kernels/kernels_private.h"

#include <math.h>
#include <string.h>

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vh __attribute__((vector_size(2 * VL)));  /* half a vector … */
typedef double vd __attribute__((vector_size(4 * VL))); /* … as float64 */

static inline vf load(const float *p)
{
	vf v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store(float *p, vf v)
{
	memcpy(p, &v, sizeof(v));
}

/* The first n floats at p, fill elsewhere; and back. */
static inline vf load_part(const float *p, size_t n, float fill)
{
	vf v = fill - (vf){ 0 };

	memcpy(&v, p, n * sizeof(*p));
	return v;
}

static inline void store_part(float *p, vf v, size_t n)
{
	memcpy(p, &v, n * sizeof(*p));
}

static inline vd load_d(const float *p)
{
	vh v;

	memcpy(&v, p, sizeof(v));
	return __builtin_convertvector(v, vd);
}

static inline void store_d(float *p, vd v)
{
	vh h = __builtin_convertvector(v, vh);

	memcpy(p, &h, sizeof(h));
}

static inline double sum_d(vd v)
{
	double s = 0;
	int i;

	for (i = 0; i < VL / 2; i++)
		s += v[i];
	return s;
}

static inline vf pick(vi mask, vf yes, vf no)
{
	return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/*
 * exp(x), about 1 ulp on [−87.3, 88]; 0 below, ∞ above; NaN stays. The
 * argument is reduced by n·ln 2 in two parts (Cody and Waite), then Taylor to
 * degree 7 on [−0.35, 0.35] (remainder 5e-9).
 */
static inline vf vexp(vf x)
{
	const float ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f, magic = 12582912.0f;
	vf lo = -87.33f - (vf){ 0 }, hi = 88.0f - (vf){ 0 };
	vi under = x<lo, over = x> hi;
	vf y = pick(over, hi, pick(under, lo, x));
	vf t = y * 1.44269504f + magic;
	vf n = t - magic;
	vf r = (y - n * ln2_hi) - n * ln2_lo;
	vf p = r * (1.0f / 5040) + 1.0f / 720;

	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r * r + r + 1.0f;
	/* 2ⁿ by its exponent bits; NaN's n is of no use, and p is NaN then */
	vi e = (__builtin_convertvector(pick(x == x, n, 0 * lo), vi) + 127) << 23;
	return pick(over, INFINITY - (vf){ 0 }, pick(under, (vf){ 0 }, p * (vf)e));
}

/* --- norms --------------------------------------------------------------- */

static double row_sum(size_t d, const float *x)
{
	vd s = { 0 };
	double tail = 0;
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2)
		s += load_d(x + i);
	for (; i < d; i++)
		tail += (double)x[i];
	return sum_d(s) + tail;
}

static double row_sum_squares(size_t d, const float *x, double mean)
{
	vd s = { 0 };
	double tail = 0;
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2) {
		vd c = load_d(x + i) - mean;

		s += c * c;
	}
	for (; i < d; i++)
		tail += ((double)x[i] - mean) * ((double)x[i] - mean);
	return sum_d(s) + tail;
}

static void normalize_row(size_t d, const float *x, double mean, double inverse, const float *w,
			  const float *b, float *y)
{
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2) {
		vd v = (load_d(x + i) - mean) * inverse;

		if (w)
			v *= load_d(w + i);
		if (b)
			v += load_d(b + i);
		store_d(y + i, v);
	}
	for (; i < d; i++) {
		double v = ((double)x[i] - mean) * inverse;

		if (w)
			v *= (double)w[i];
		if (b)
			v += (double)b[i];
		y[i] = (float)v;
	}
}

static void layer_norm(size_t rows, size_t d, const float *x, const float *w, const float *b,
		       double eps, float *y, float *scale)
{
	size_t i;

	for (i = 0; i < rows; i++) {
		double mean = row_sum(d, x + i * d) / (double)d;
		double var = row_sum_squares(d, x + i * d, mean) / (double)d;
		double s = sqrt(var + eps);

		scale[i] = (float)s;
		normalize_row(d, x + i * d, mean, 1.0 / s, w, b, y + i * d);
	}
}

static void rms_norm(size_t rows, size_t d, const float *x, const float *w, double eps,
		     float *y, float *scale)
{
	size_t i;

	for (i = 0; i < rows; i++) {
		double s = sqrt(row_sum_squares(d, x + i * d, 0) / (double)d + eps);

		scale[i] = (float)s;
		normalize_row(d, x + i * d, 0, 1.0 / s, w, NULL, y + i * d);
	}
}

/* --- activations ----------------------------------------------------------- */

/* 0.5x(1 + tanh u) = x/(1 + exp(−2u)), which keeps the relative error small. */
static inline vf gelu_new(vf x)
{
	vf u2 = x * (1.5957691216057308f + 0.07135481282053f * (x * x));

	return x / (1.0f + vexp(-u2));
}

static inline vf silu(vf x)
{
	return x / (1.0f + vexp(-x));
}

static inline vf relu(vf x)
{
	return pick(x < 0.0f, (vf){ 0 }, x); /* NaN stays */
}

static inline vf gelu(vf x)
{
	vf y = { 0 };
	int i;

	for (i = 0; i < VL; i++)
		y[i] = (float)(0.5 * (double)x[i] * (1.0 + erf((double)x[i] * M_SQRT1_2)));
	return y;
}

#define MAP(function)                                                                          \
	do {                                                                                   \
		for (i = 0; i + VL <= n; i += VL)                                              \
			store(y + i, function(load(x + i)));                                   \
		if (i < n)                                                                     \
			store_part(y + i, function(load_part(x + i, n - i, 0)), n - i);        \
	} while (0)

static void activation(enum lens_act act, size_t n, const float *x, float *y)
{
	size_t i;

	switch (act) {
	case LENS_ACT_GELU_NEW:
		MAP(gelu_new);
		break;
	case LENS_ACT_GELU:
		MAP(gelu);
		break;
	case LENS_ACT_RELU:
		MAP(relu);
		break;
	case LENS_ACT_SILU:
		MAP(silu);
		break;
	}
}

static void add(size_t n, const float *x, float *y)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] += x[i];
}

/* --- attention ------------------------------------------------------------- */

static void transpose_keys(size_t n_pos, size_t d_head, const float *k, size_t ld, float *kt,
			   size_t ldk)
{
	size_t d, j;

	for (d = 0; d < d_head; d++) {
		for (j = 0; j < n_pos; j++)
			kt[d * ldk + j] = k[j * ld + d];
		for (; j < ldk; j++)
			kt[d * ldk + j] = 0;
	}
}

#define QB 4       /* queries together */
#define D_BLOCK 16 /* products summed before they join the total: less rounding */

/* The scores of queries q[0..QB) with VL keys. */
static inline void score_block(const struct lens_attention_args *a, const float *const *q,
			       const float *kt, vf *out)
{
	size_t d0, d;
	int i;

	for (i = 0; i < QB; i++)
		out[i] = (vf){ 0 };
	for (d0 = 0; d0 < a->d_head; d0 += D_BLOCK) {
		size_t end = d0 + D_BLOCK < a->d_head ? d0 + D_BLOCK : a->d_head;
		vf part[QB] = { { 0 } };

		for (d = d0; d < end; d++) {
			vf keys = load(kt + d * a->ldk);

			for (i = 0; i < QB; i++)
				part[i] += q[i][d] * keys;
		}
		for (i = 0; i < QB; i++)
			out[i] += part[i];
	}
}

static void mask_row(const struct lens_attention_args *a, size_t pos, float *row)
{
	size_t j, first = a->window && pos + 1 > a->window ? pos + 1 - a->window : 0;

	for (j = 0; j < first; j++)
		row[j] = -INFINITY;
	for (j = pos + 1; j < a->ldk; j++)
		row[j] = -INFINITY;
}

static void attention_scores(const struct lens_attention_args *a)
{
	size_t i0, i, j;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t n = a->nq - i0 < QB ? a->nq - i0 : QB, last = a->q0 + i0 + n - 1;
		const float *q[QB];
		vf s[QB];

		for (i = 0; i < QB; i++)
			q[i] = a->q + (a->q0 + i0 + (i < n ? i : 0)) * a->ld;
		for (j = 0; j <= last; j += VL) {
			score_block(a, q, a->kt + j, s);
			for (i = 0; i < n; i++)
				store(a->scores + (i0 + i) * a->ldk + j, s[i] / a->scale);
		}
		for (i = 0; i < n; i++)
			mask_row(a, a->q0 + i0 + i, a->scores + (i0 + i) * a->ldk);
	}
}

static float row_max(size_t n, const float *x)
{
	vf m = -INFINITY - (vf){ 0 };
	float best = -INFINITY;
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = load(x + i);

		m = pick(v > m, v, m);
	}
	for (i = 0; i < VL; i++)
		best = m[i] > best ? m[i] : best;
	return best;
}

static inline vd low(vf v)
{
	vh h;

	memcpy(&h, &v, sizeof(h));
	return __builtin_convertvector(h, vd);
}

static inline vd high(vf v)
{
	vh h;

	memcpy(&h, (const char *)&v + sizeof(h), sizeof(h));
	return __builtin_convertvector(h, vd);
}

/* Rows are ldk wide, a multiple of VL; past the query they hold −inf. */
static void attention_softmax(const struct lens_attention_args *a)
{
	size_t i, j;

	for (i = 0; i < a->nq; i++) {
		float *row = a->scores + i * a->ldk;
		size_t n = (a->q0 + i + VL) / VL * VL;
		float max = row_max(n, row), inverse;
		vd sum = { 0 };

		for (j = 0; j < n; j += VL) {
			vf e = vexp(load(row + j) - max);

			store(row + j, e);
			sum += low(e) + high(e);
		}
		inverse = (float)(1.0 / sum_d(sum));
		for (j = 0; j < n; j += VL)
			store(row + j, load(row + j) * inverse);
		memset(row + n, 0, (a->ldk - n) * sizeof(*row));
	}
}

#define KEY_BLOCK 32

static inline vf values_of(const struct lens_attention_args *a, size_t key, size_t column,
			   size_t n)
{
	const float *v = a->v + key * a->ld + column;

	return n == VL ? load(v) : load_part(v, n, 0);
}

/* VL (or n < VL) columns of z for up to QB queries, keys 0 … last. */
static void mix_columns(const struct lens_attention_args *a, size_t i0, size_t queries,
			size_t column, size_t n)
{
	size_t k0, k, i, base = a->q0 + i0, last = base + queries - 1;
	const float *p[QB];
	vf total[QB] = { { 0 } };

	for (i = 0; i < QB; i++)
		p[i] = a->scores + (i0 + (i < queries ? i : 0)) * a->ldk;
	for (k0 = 0; k0 <= last; k0 += KEY_BLOCK) {
		size_t end = k0 + KEY_BLOCK < last + 1 ? k0 + KEY_BLOCK : last + 1;
		vf part[QB] = { { 0 } };

		for (k = k0; k < end && k <= base; k++) {
			vf values = values_of(a, k, column, n);

			for (i = 0; i < QB; i++)
				part[i] += p[i][k] * values;
		}
		/* Keys past the first query: 0·∞ must not reach the earlier ones. */
		for (; k < end; k++) {
			vf values = values_of(a, k, column, n);

			for (i = k - base; i < QB; i++)
				part[i] += p[i][k] * values;
		}
		for (i = 0; i < QB; i++)
			total[i] += part[i];
	}
	for (i = 0; i < queries; i++)
		store_part(a->z + (a->q0 + i0 + i) * a->ldz + column, total[i], n);
}

static void attention_mix(const struct lens_attention_args *a)
{
	size_t i0, c;

	for (i0 = 0; i0 < a->nq; i0 += QB) {
		size_t queries = a->nq - i0 < QB ? a->nq - i0 : QB;

		for (c = 0; c < a->d_head; c += VL)
			mix_columns(a, i0, queries, c, a->d_head - c < VL ? a->d_head - c : VL);
	}
}

/* --- reading logits --------------------------------------------------------- */

static size_t to_f16(size_t n, const float *x, uint16_t *y)
{
	vi over = { 0 };
	size_t i, count = 0;

	for (i = 0; i < n; i += VL) {
		size_t m = n - i < VL ? n - i : VL;
		vf v = m == VL ? load(x + i) : load_part(x + i, m, 0);
		vf magnitude = (vf)((vi)v & 0x7fffffff);
		uint16_t half[VL];

		/* 65520 and more round to infinity */
		over -= (magnitude >= 65520.0f) & (magnitude <= 3.402823466e38f);
		to_f16_block(v, half);
		memcpy(y + i, half, m * sizeof(*half));
	}
	for (i = 0; i < VL; i++)
		count += (size_t)over[i];
	return count;
}

static size_t count_above(size_t n, const float *x, float t)
{
	vi count = { 0 };
	size_t i, sum = 0;

	for (i = 0; i + VL <= n; i += VL)
		count -= load(x + i) > t;
	if (i < n)
		count -= load_part(x + i, n - i, -INFINITY) > t;
	for (i = 0; i < VL; i++)
		sum += (size_t)count[i];
	return sum;
}

static float max_finite(size_t n, const float *x)
{
	vf m = -INFINITY - (vf){ 0 }, odd = { 0 };
	float best = -INFINITY;
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, x[0]);

		m = pick(v > m, v, m);
		odd += v - v; /* 0, or NaN for NaN and infinities */
	}
	for (i = 0; i < VL; i++) {
		if (odd[i] != 0)
			return NAN;
		best = m[i] > best ? m[i] : best;
	}
	return best;
}

static double sum_exp(size_t n, const float *x, float max)
{
	vd sum = { 0 };
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, -INFINITY);
		vf e = vexp(v - max);

		sum += low(e) + high(e);
	}
	return sum_d(sum);
}

const struct lens_vec VEC = {
	.layer_norm = layer_norm,
	.rms_norm = rms_norm,
	.activation = activation,
	.add = add,
	.transpose_keys = transpose_keys,
	.attention_scores = attention_scores,
	.attention_softmax = attention_softmax,
	.attention_mix = attention_mix,
	.to_f16 = to_f16,
	.count_above = count_above,
	.max_finite = max_finite,
	.sum_exp = sum_exp,
};
