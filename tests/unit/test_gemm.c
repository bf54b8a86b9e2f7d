/*
 * test_gemm.c: matrix products, run once for each CPU level (H5LENS_TEST_CPU):
 * against a plain float64 computation, and every row's bits against the same
 * row in other company.
 *
 * Tolerances are error bounds, not fitted: u is 2^-24, float32's unit roundoff.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/numbers.h"
#include "support/runs.h"

static struct test_random rnd = { 1 };

#define ROWS 64 /* rows whose products are known */

/* One product's operands, with gaps between rows. */
struct product {
	size_t n, k, lda, ldb, ldc;
	enum lens_trans trans;
	float *a, *b, *bias, *pad;
	float *c; /* [ROWS, n]: a prompt of ROWS rows, alone */
};

/* C of m rows, the gaps of C checked to be as they were. */
static float *multiply(const struct product *p, size_t m, const float *a, int threads)
{
	float *c = test_floats(m * p->ldc, 77.0f), *dense = test_floats(m * p->n, 0);
	const struct lens_gemm_args g = {
		.m = m,
		.n = p->n,
		.k = p->k,
		.a = a,
		.lda = p->lda,
		.b = p->b,
		.ldb = p->ldb,
		.trans = p->trans,
		.bias = p->bias,
		.c = c,
		.ldc = p->ldc,
	};
	size_t i, j;

	lens_gemm(&g, p->pad, threads);
	for (i = 0; i < m; i++) {
		memcpy(dense + i * p->n, c + i * p->ldc, p->n * sizeof(*c));
		for (j = p->n; j < p->ldc; j++)
			assert_true(c[i * p->ldc + j] == 77.0f);
	}
	lens_free(c);
	return dense;
}

static struct product make_product(size_t n, size_t k, enum lens_trans trans, bool bias)
{
	struct product p = { .n = n, .k = k, .lda = k + 3, .ldc = n + 5, .trans = trans };
	bool plain = trans == LENS_B_PLAIN;

	p.ldb = (plain ? n : k) + 1;
	p.a = test_random_floats(&rnd, ROWS * p.lda);
	p.b = test_random_floats(&rnd, (plain ? k : n) * p.ldb);
	p.bias = bias ? test_random_floats(&rnd, n) : NULL;
	/* Exactly what is promised to be enough: ASan sees a float more. */
	p.pad = test_floats(lens_gemm_pad_floats(n, k), NAN);
	p.c = multiply(&p, ROWS, p.a, 1);
	return p;
}

static void release_product(struct product *p)
{
	lens_free(p->a);
	lens_free(p->b);
	lens_free(p->bias);
	lens_free(p->pad);
	lens_free(p->c);
}

/*
 * Blocks of at most 128 products, joined by adding: whatever the order within a
 * block, fused or not, |error| ≤ (128 + blocks + 1)·u·(Σ|a||b| + |bias|)
 * (Higham 2002, §3.1 and §4.2). Returns error² and result² for the RMS.
 */
static void check_product(const struct product *p, size_t rows, double *error2, double *result2)
{
	size_t i, j, k, blocks = (p->k + 127) / 128;

	for (i = 0; i < rows; i++) {
		for (j = 0; j < p->n; j++) {
			double sum = p->bias ? (double)p->bias[j] : 0, size = fabs(sum), is;

			for (k = 0; k < p->k; k++) {
				double b = (double)(p->trans == LENS_B_PLAIN
							    ? p->b[k * p->ldb + j]
							    : p->b[j * p->ldb + k]);

				sum += (double)p->a[i * p->lda + k] * b;
				size += fabs((double)p->a[i * p->lda + k] * b);
			}
			is = (double)p->c[i * p->n + j];
			test_near(is, sum, (double)(128 + blocks + 1) * TEST_U * size, "gemm",
				  (double)(i * p->n + j));
			*error2 += (is - sum) * (is - sum);
			*result2 += sum * sum;
		}
	}
}

/* Rows of other values, of infinities or of NaN: neighbours. */
static float *neighbours(const struct product *p, size_t m, int kind)
{
	if (kind == 0)
		return test_random_floats(&rnd, m * p->lda);
	return test_floats(m * p->lda, kind == 1 ? INFINITY : NAN);
}

/* A prompt of len rows at row `at` of m. */
static void check_prompt(const struct product *p, size_t len, size_t at, size_t m, int kind)
{
	float *a = neighbours(p, m, kind), *c;
	char what[128];

	memcpy(a + at * p->lda, p->a, len * p->lda * sizeof(*a));
	c = multiply(p, m, a, 1);
	snprintf(what, sizeof(what), "n %zu k %zu: %zu rows at %zu of %zu", p->n, p->k, len, at,
		 m);
	test_assert_same(c + at * p->n, p->c, len * p->n, what);
	lens_free(a);
	lens_free(c);
}

/* Every number of rows, alone and among others, where each has the way that it has alone. */
static void check_prompts(const struct product *p)
{
	size_t len, align = lens_row_ways() == 1 ? 1 : 12, step = test_quick() ? 13 : 1;

	for (len = 1; len <= ROWS; len += step) {
		size_t before = align * (len % 5), after = len * 7 % 31;

		check_prompt(p, len, 0, len, 0);
		check_prompt(p, len, before, before + len + after, (int)(len % 3));
	}
}

/* The way of the i-th row of p->a, which is what its place in p->c makes it. */
static size_t way_of(size_t i)
{
	return lens_row_way(i / 6);
}

/* All rows elsewhere, each at any place of its way; `lost` rows of both are others'. */
static void check_moved(const struct product *p, size_t lost, int kind)
{
	struct lens_row_count c = { { 0 } };
	size_t place[ROWS + 64], i, j, all = ROWS + lost, m;
	float *a, *is;

	for (i = 0; i < all; i++) {
		place[i] = lens_row_place(way_of(i), c.n[way_of(i)]++);
		/* Exchanged with an earlier one of its way. */
		for (j = test_random_below(&rnd, i + 1); way_of(j) != way_of(i);)
			j = test_random_below(&rnd, i + 1);
		m = place[i];
		place[i] = place[j];
		place[j] = m;
	}
	m = lens_row_places(&c);
	a = neighbours(p, m, kind);
	for (i = 0; i < ROWS; i++)
		memcpy(a + place[i] * p->lda, p->a + i * p->lda, p->lda * sizeof(*a));
	is = multiply(p, m, a, 1);
	for (i = 0; i < ROWS; i++)
		test_assert_same(is + place[i] * p->n, p->c + i * p->n, p->n, "moved row");
	lens_free(a);
	lens_free(is);
}

/* A row at each place of its way: all get the bits that it has alone. */
static void check_places(const struct product *p)
{
	size_t way, i, n = test_quick() ? 7 : 20;

	for (way = 0; way < lens_row_ways(); way++) {
		size_t row = 6 * way, m = lens_row_place(way, n - 1) + 1;
		float *a = neighbours(p, m, (int)way), *c;

		for (i = 0; i < n; i++)
			memcpy(a + lens_row_place(way, i) * p->lda, p->a + row * p->lda,
			       p->lda * sizeof(*a));
		c = multiply(p, m, a, 1);
		for (i = 0; i < n; i++)
			test_assert_same(c + lens_row_place(way, i) * p->n, p->c + row * p->n,
					 p->n, "a row's place");
		lens_free(a);
		lens_free(c);
	}
	for (i = 0; i < 3; i++)
		check_moved(p, 23 * i, (int)i);
}

static void check_size(size_t n, size_t k, enum lens_trans trans, bool bias)
{
	struct product p = make_product(n, k, trans, bias);
	double error2 = 0, result2 = 0;

	check_product(&p, n * k > 300000 ? 4 : ROWS, &error2, &result2);
	check_prompts(&p);
	check_places(&p);
	release_product(&p);
}

static const size_t small_sizes[][2] = {
	{ 32, 32 }, { 33, 35 }, { 35, 33 },  { 1, 1 },     { 1, 160 },   { 160, 1 },
	{ 7, 130 }, { 64, 64 }, { 96, 160 }, { 128, 129 }, { 130, 256 }, { 300, 32 },
};

static void gemm_small(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(small_sizes) / sizeof(*small_sizes); i++) {
		bool bias = i % 2;

		check_size(small_sizes[i][0], small_sizes[i][1], LENS_B_PLAIN, bias);
		check_size(small_sizes[i][0], small_sizes[i][1], LENS_B_TRANSPOSED, !bias);
	}
}

static void gemm_large(void **state)
{
	static const size_t sizes[][2] = {
		{ 768, 64 },    { 64, 768 },  { 257, 384 }, { 768, 768 },
		{ 1000, 1001 }, { 4097, 33 }, { 9001, 8 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < (test_quick() ? 1 : sizeof(sizes) / sizeof(*sizes)); i++) {
		check_size(sizes[i][0], sizes[i][1], LENS_B_PLAIN, i % 2);
		check_size(sizes[i][0], sizes[i][1], LENS_B_TRANSPOSED, !(i % 2));
	}
}

/* An unembedding's shape: few rows, as wide as GPT-2's vocabulary. */
static void gemm_vocabulary(void **state)
{
	struct product p =
		make_product(test_quick() ? 5021 : 50257, 64, LENS_B_TRANSPOSED, true);
	double error2 = 0, result2 = 0;

	(void)state;
	check_product(&p, 2, &error2, &result2);
	check_prompt(&p, 5, 0, 5, 0);
	check_prompt(&p, 1, 0, 1, 0);
	check_prompt(&p, 30, 24, 61, 2);
	/* Blocks of columns are narrower in products of many rows. */
	check_prompt(&p, 30, 360, 420, 0);
	check_places(&p);
	release_product(&p);
}

/* What accumulating in blocks buys at K = 768: 2.1e-7 measured, 3.5e-7 without. */
static void gemm_rms_error(void **state)
{
	struct product p = make_product(128, 768, LENS_B_PLAIN, false);
	double error2 = 0, result2 = 0;

	(void)state;
	check_product(&p, ROWS, &error2, &result2);
	assert_true(sqrt(error2 / result2) < 2.5e-7);
	release_product(&p);
}

static void gemm_threads(void **state)
{
	static const size_t sizes[][3] = { { 197, 33, 35 }, { 300, 128, 160 }, { 97, 1, 3 },
					   { 96, 40, 40 },  { 1, 8, 8 },       { 0, 8, 8 } };
	size_t i;
	int threads;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct product p = make_product(sizes[i][1], sizes[i][2], LENS_B_PLAIN, true);
		float *a = test_random_floats(&rnd, sizes[i][0] * p.lda);
		float *one = multiply(&p, sizes[i][0], a, 1);

		for (threads = 2; threads <= 3; threads++) {
			float *c = multiply(&p, sizes[i][0], a, threads);

			test_assert_same(c, one, sizes[i][0] * p.n, "threads");
			lens_free(c);
		}
		lens_free(a);
		lens_free(one);
		release_product(&p);
	}
}

/* Each way's places are its own, in order, and as many as are promised fit. */
static void row_places(void **state)
{
	size_t way, i, ways = lens_row_ways(), owner[1200];

	(void)state;
	assert_true(ways == 1 || ways == 2);
	memset(owner, -1, sizeof(owner));
	for (way = 0; way < ways; way++) {
		for (i = 0; i < 300; i++) {
			struct lens_row_count c = { { 0 } };
			size_t place = lens_row_place(way, i), rows;

			c.n[way] = i + 1;
			rows = lens_row_places(&c);
			assert_true(place < rows && rows < 1200);
			assert_true(i == 0 || place > lens_row_place(way, i - 1));
			assert_true(ways == 1 || place / 6 % 2 == way);
			assert_int_equal(owner[place], (size_t)-1);
			owner[place] = way;
			assert_in_range(lens_row_room(rows), i + 1, i + 6);
			assert_true(lens_row_room(rows - 1) <= i);
		}
	}
	for (i = 0; i < 600; i++)
		assert_int_equal(lens_row_way(i), i % ways);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(row_places),     cmocka_unit_test(gemm_small),
		cmocka_unit_test(gemm_large),     cmocka_unit_test(gemm_vocabulary),
		cmocka_unit_test(gemm_rms_error), cmocka_unit_test(gemm_threads),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
