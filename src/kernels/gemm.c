/*
 * kernels/gemm.c: matrix products in which a row's bits are its own.
 *
 * What was measured on OpenBLAS 0.3.21, and what we do about it (the tests check it):
 * - SKYLAKEX: a row's bits depend on nothing but the row, except in the small-matrix
 *   kernels, which run if M·N·K <= 10⁶. Products that small are padded with zero rows
 *   beyond that limit.
 * - HASWELL: rows 0–5 and 6–11 of every twelve are computed in two ways, and those of an
 *   incomplete last twelve in others. Within its half a row's place does not matter, nor
 *   what the others hold. Whoever lays out rows gives each the half that follows from
 *   what it is (lens_row_way), and M is padded to a multiple of twelve. A column's bits
 *   depend on its place in the product, so blocks of columns are those of N alone.
 * - Two threads change bits, so BLAS gets one. Our threads share out tiles of rows of a
 *   fixed size.
 *
 * Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ: BLAS's M is our n, its N our m.
 */
#include "kernels/kernels_private.h"

#include <string.h>

#define K_BLOCK 128
#define WIDE 4096         /* columns; cutting narrower products gains nothing */
#define LEAST_COLUMNS 256 /* of a block of a wide product … */
#define MOST_COLUMNS 2048
#define C_BLOCK 81920   /* … whose sums stay in the second-level cache over the blocks of K */
#define COLUMN_ALIGN 16 /* a block's columns are a multiple of that, but for the last's */
#define SMALL_MNK 1000000 /* BLAS's limit for its small-matrix kernels */
#define TILE_ROWS 96      /* a multiple of TWELVE; what threads share is cut there */
#define TWELVE 12
#define HALF 6

size_t lens_row_ways(void)
{
	return lens_open_level() == LENS_LEVEL_AVX512 ? 1 : 2;
}

size_t lens_row_way(size_t number)
{
	return number % lens_row_ways();
}

size_t lens_row_place(size_t way, size_t i)
{
	return lens_row_ways() == 1 ? i : i / HALF * TWELVE + way * HALF + i % HALF;
}

size_t lens_row_way_at(size_t place)
{
	return lens_row_ways() == 1 ? 0 : place / HALF % 2;
}

size_t lens_row_places(const struct lens_row_count *c)
{
	size_t most = lens_max(c->n[0], c->n[1]);

	return lens_row_ways() == 1 ? c->n[0] : (most + HALF - 1) / HALF * TWELVE;
}

size_t lens_row_room(size_t rows)
{
	return lens_row_ways() == 1 ? rows : rows / TWELVE * HALF;
}

/* The size of blocks of at most `most` that are about equal, so that none is much smaller. */
static size_t block_of(size_t n, size_t most)
{
	size_t blocks = (n + most - 1) / most;

	return (n + blocks - 1) / blocks;
}

/*
 * Over K, sums of sums of √K products round least. A short K can afford them; for a long
 * one they take too much time.
 */
static size_t k_block(size_t k)
{
	return block_of(k, k <= 32 ? 8 : k <= 256 ? 16 : K_BLOCK);
}

/* Blocks of columns are about equal: the i-th of so many begins here. */
static size_t first_column(size_t n, size_t i, size_t blocks)
{
	return i == blocks ? n : n * i / blocks / COLUMN_ALIGN * COLUMN_ALIGN;
}

/* The last block of K can be shorter, and the smallest blocks determine the padding. */
static size_t smallest(size_t n, size_t n_blocks, size_t k)
{
	size_t kb = k_block(k), columns = n / n_blocks;

	return (n_blocks > 1 ? columns - COLUMN_ALIGN + 1 : columns) * (k % kb ? k % kb : kb);
}

/* Where the blocks may depend on M, as few as it takes, and none too small. */
static size_t n_blocks(size_t m, size_t n, size_t k)
{
	size_t columns = lens_max(C_BLOCK / m, LEAST_COLUMNS), most, blocks;

	if (n <= WIDE)
		return 1;
	if (lens_row_ways() > 1)
		return (n + LEAST_COLUMNS - 1) / LEAST_COLUMNS;
	most = (n + MOST_COLUMNS - 1) / MOST_COLUMNS;
	blocks = lens_max((n + columns - 1) / columns, most);
	return m * smallest(n, blocks, k) > SMALL_MNK ? blocks : most;
}

/* The least number of rows to give BLAS; a multiple of 12. */
static size_t least_rows(size_t n, size_t k)
{
	size_t nk = smallest(n, n <= WIDE ? 1 : (n + MOST_COLUMNS - 1) / MOST_COLUMNS, k);

	return lens_row_ways() == 1 ? (SMALL_MNK / nk + 1 + 11) / 12 * 12 : TWELVE;
}

size_t lens_gemm_pad_floats(size_t n, size_t k)
{
	size_t rows = least_rows(n, k);

	/* The scratch holds so many rows of A and of C: no tail is longer. */
	return rows * (n + k);
}

/* Some rows of A and the corresponding rows of C, in the product itself or the scratch. */
struct rows {
	size_t m;
	const float *a;
	size_t lda;
	float *c;
	size_t ldc;
};

/* The columns n0 … n0 + n − 1 of these rows = bias + A·B, block by block of K */
static void blas_columns(const struct lens_gemm_args *g, const struct rows *r, size_t n0,
			 size_t n)
{
	const float one = 1.0f, zero = 0.0f;
	int bm = (int)n, bn = (int)r->m;
	int blda = (int)r->lda, bldb = (int)g->ldb, bldc = (int)r->ldc;
	size_t i, k0, kb = k_block(g->k);

	for (i = 0; g->bias && i < r->m; i++)
		memcpy(r->c + i * r->ldc + n0, g->bias + n0, n * sizeof(*r->c));
	for (k0 = 0; k0 < g->k; k0 += kb) {
		int bk = (int)lens_min(g->k - k0, kb);
		const float *b = g->trans == LENS_B_PLAIN ? g->b + k0 * g->ldb + n0
							  : g->b + n0 * g->ldb + k0;
		const float *beta = k0 || g->bias ? &one : &zero;

		lens_sgemm(g->trans == LENS_B_PLAIN ? "N" : "T", "N", &bm, &bn, &bk, &one, b,
			   &bldb, r->a + k0, &blda, beta, r->c + n0, &bldc);
	}
}

/* C's rows = bias + A's rows · B */
static void multiply(const struct lens_gemm_args *g, const struct rows *r)
{
	size_t i, blocks = n_blocks(r->m, g->n, g->k);

	for (i = 0; i < blocks; i++) {
		size_t n0 = first_column(g->n, i, blocks);

		blas_columns(g, r, n0, first_column(g->n, i + 1, blocks) - n0);
	}
}

/* Computes rows, at most least_rows, in the scratch. */
static void padded(const struct lens_gemm_args *g, size_t row, size_t rows, float *pad)
{
	size_t i, m = least_rows(g->n, g->k);
	float *a = pad, *c = pad + m * g->k;

	for (i = 0; i < rows; i++)
		memcpy(a + i * g->k, g->a + (row + i) * g->lda, g->k * sizeof(*a));
	memset(a + rows * g->k, 0, (m - rows) * g->k * sizeof(*a));
	multiply(g, &(struct rows){ m, a, g->k, c, g->n });
	for (i = 0; i < rows; i++)
		memcpy(g->c + (row + i) * g->ldc, c + i * g->n, g->n * sizeof(*c));
}

static void rows_of(const struct lens_gemm_args *g, size_t row, size_t rows, float *pad)
{
	size_t whole = lens_row_ways() == 1 ? rows : rows / TWELVE * TWELVE;

	if (whole < least_rows(g->n, g->k))
		whole = 0;
	if (whole)
		multiply(g, &(struct rows){ whole, g->a + row * g->lda, g->lda,
					    g->c + row * g->ldc, g->ldc });
	while (whole < rows) {
		size_t n = lens_min(rows - whole, least_rows(g->n, g->k));

		padded(g, row + whole, n, pad);
		whole += n;
	}
}

/* Multiplications from which it pays to start threads that are not the caller's own. */
#define WORTH_HELP ((size_t)1 << 26)

void lens_gemm(const struct lens_gemm_args *g, float *pad, int threads)
{
	size_t t, tiles = (g->m + TILE_ROWS - 1) / TILE_ROWS, each;

	if (g->m * g->n >= WORTH_HELP / lens_max(g->k, 1))
		threads = lens_crew_share(threads);
	if (threads <= 1 || tiles < 2) {
		rows_of(g, 0, g->m, pad);
		return;
	}
	/* BLAS packs B once a piece: large ones, but two for each thread. */
	each = TILE_ROWS * lens_max(tiles / (2 * (size_t)threads), 1);
	tiles = (g->m + each - 1) / each;
	/*
	 * The scratch serves one piece at a time: the last, which may be short, or every
	 * piece if BLAS must get more rows than it has.
	 */
#pragma omp parallel for num_threads(threads) schedule(dynamic)
	for (t = 0; t < tiles; t++) {
		size_t row = t * each;
		size_t rows = lens_min(g->m - row, each);

		if (t + 1 < tiles && each >= least_rows(g->n, g->k)) {
			rows_of(g, row, rows, NULL);
		} else {
#pragma omp critical(lens_gemm_pad)
			rows_of(g, row, rows, pad);
		}
	}
}
