/*
 * test_svd.c: the singular value decomposition of a product against its
 * definition, whatever the shapes and ranks, and its bits, on the level of
 * H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/kernels.h"
#include "support/cases.h"
#include "support/numbers.h"

static struct test_random rnd = { 29 };

/* A product, and a copy of what went in. */
struct subject {
	struct lens_svd_product p;
	double *at, *bt;
};

static double *make(size_t n)
{
	double *x = lens_alloc_aligned(n, sizeof(*x));

	assert_non_null(x);
	return x;
}

static struct subject make_subject(size_t m, size_t n, size_t k)
{
	struct subject s = { .p = { m, n, k, make(k * m), make(k * n), make(k) },
			     .at = make(k * m),
			     .bt = make(k * n) };
	size_t i;

	for (i = 0; i < k * m; i++)
		s.at[i] = (double)test_random_float(&rnd);
	for (i = 0; i < k * n; i++)
		s.bt[i] = (double)test_random_float(&rnd);
	return s;
}

static void release(struct subject *s)
{
	lens_free(s->p.at);
	lens_free(s->p.bt);
	lens_free(s->p.s);
	lens_free(s->at);
	lens_free(s->bt);
}

static enum lens_status decompose(struct subject *s, struct lens_error *err)
{
	memcpy(s->p.at, s->at, s->p.k * s->p.m * sizeof(double));
	memcpy(s->p.bt, s->bt, s->p.k * s->p.n * sizeof(double));
	return lens_svd_product(&s->p, err);
}

static double dot(const double *x, const double *y, size_t n)
{
	double sum = 0;
	size_t i;

	for (i = 0; i < n; i++)
		sum += x[i] * y[i];
	return sum;
}

static void check_orthonormal(const double *xt, size_t rows, size_t k, const char *what)
{
	size_t i, j;

	for (i = 0; i < k; i++) {
		for (j = 0; j <= i; j++)
			test_near(dot(xt + i * rows, xt + j * rows, rows), i == j, 1e-13, what,
				  (double)i);
	}
}

/* Element (i, j) of Σ over l of x[l, i]·y[l, j]. */
static double element(const double *xt, const double *yt, const double *scale,
		      const struct lens_svd_product *p, size_t i, size_t j)
{
	double sum = 0;
	size_t l;

	for (l = 0; l < p->k; l++)
		sum += xt[l * p->m + i] * (scale ? scale[l] : 1) * yt[l * p->n + j];
	return sum;
}

static void check_signs(const struct lens_svd_product *p)
{
	size_t i, l;

	for (l = 0; l < p->k; l++) {
		double best = 0;

		for (i = 0; i < p->m; i++) {
			if (fabs(p->at[l * p->m + i]) > fabs(best))
				best = p->at[l * p->m + i];
		}
		assert_true(best > 0);
	}
}

static void check(struct subject *s)
{
	const struct lens_svd_product *p = &s->p;
	struct lens_error err = LENS_ERROR_INIT;
	double size;
	size_t i, j;

	if (decompose(s, &err) != LENS_OK)
		fail_msg("%s", err.text);
	check_orthonormal(p->at, p->m, p->k, "UᵀU");
	check_orthonormal(p->bt, p->n, p->k, "VᵀV");
	check_signs(p);
	for (i = 0; i < p->k; i++)
		assert_true(p->s[i] >= 0 && (!i || p->s[i] <= p->s[i - 1]));
	size = 0; /* errors are relative to the matrices' own size, down to subnormals */
	for (i = 0; i < p->k; i++)
		size += sqrt(dot(s->at + i * p->m, s->at + i * p->m, p->m)) *
			sqrt(dot(s->bt + i * p->n, s->bt + i * p->n, p->n));
	for (i = 0; i < p->m; i++) {
		for (j = 0; j < p->n; j++)
			test_near(element(p->at, p->bt, p->s, p, i, j),
				  element(s->at, s->bt, NULL, p, i, j), 1e-14 * size + 1e-307,
				  "U·S·Vᵀ", (double)i);
	}
}

static void shapes(void **state)
{
	static const size_t shape[][3] = {
		{ 1, 1, 1 },    { 5, 3, 1 },      { 3, 3, 3 },
		{ 9, 9, 4 },    { 25, 24, 8 },    { 24, 40, 8 },
		{ 65, 65, 64 }, { 200, 200, 64 }, { 130, 131, 96 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(shape) / sizeof(*shape); i++) {
		struct subject s = make_subject(shape[i][0], shape[i][1], shape[i][2]);

		check(&s);
		release(&s);
	}
}

/* Zeros, equal columns, a row of zeros, one factor of rank 1, far scales. */
static void ranks(void **state)
{
	enum { M = 33, N = 31, K = 8 };
	struct subject s = make_subject(M, N, K);
	size_t i, l;

	(void)state;
	memcpy(s.at + M, s.at, M * sizeof(double));
	check(&s);
	test_near(s.p.s[K - 1], 0, 1e-13 * s.p.s[0], "the least singular value", K - 1);
	for (l = 0; l < K; l++)
		s.at[l * M + M - 1] = 0; /* no bias */
	check(&s);
	for (l = 0; l < K; l++)
		assert_true(s.p.at[l * M + M - 1] == 0);
	for (l = 0; l < K; l++) {
		for (i = 0; i < N; i++)
			s.bt[l * N + i] = (double)(l + 1) * (double)(i % 3);
	}
	check(&s);
	test_near(s.p.s[1], 0, 1e-13 * s.p.s[0], "the second singular value", 1);
	for (i = 0; i < K * N; i++)
		s.bt[i] *= 0x1p-500;
	check(&s);
	for (i = 0; i < K * M; i++)
		s.at[i] *= 0x1p-500;
	check(&s);
	memset(s.bt, 0, K * N * sizeof(double));
	check(&s);
	for (l = 0; l < K; l++)
		assert_true(s.p.s[l] == 0);
	memset(s.at, 0, K * M * sizeof(double));
	check(&s);
	release(&s);
}

/* A diagonal product: what comes out is known. */
static void known(void **state)
{
	struct subject s = make_subject(4, 3, 3);
	static const double value[3] = { 2, -7, 0.5 };
	size_t l;

	(void)state;
	memset(s.at, 0, 12 * sizeof(double));
	memset(s.bt, 0, 9 * sizeof(double));
	for (l = 0; l < 3; l++) {
		s.at[l * 4 + l] = value[l];
		s.bt[l * 3 + l] = 1;
	}
	check(&s);
	test_near(s.p.s[0], 7, 1e-14, "s", 0);
	test_near(s.p.s[1], 2, 1e-14, "s", 1);
	test_near(s.p.s[2], 0.5, 1e-14, "s", 2);
	test_near(s.p.at[1], 1, 1e-14, "U", 1); /* canonical: the sign goes to V */
	test_near(s.p.bt[1], -1, 1e-14, "V", 1);
	release(&s);
}

/* The same bits again, and from several threads at once. */
static void same_bits(void **state)
{
	enum { COPIES = 12, M = 129, K = 32 };
	struct subject s[COPIES];
	size_t i, bytes = M * K * sizeof(double);
	int failed = 0;

	(void)state;
	s[0] = make_subject(M, M, K);
	for (i = 1; i < COPIES; i++) {
		s[i] = make_subject(M, M, K);
		memcpy(s[i].at, s[0].at, bytes);
		memcpy(s[i].bt, s[0].bt, bytes);
	}
	assert_int_equal(decompose(&s[0], NULL), LENS_OK);
#pragma omp parallel for num_threads(4) schedule(dynamic) reduction(+ : failed)
	for (i = 1; i < COPIES; i++)
		failed += decompose(&s[i], NULL) != LENS_OK;
	assert_int_equal(failed, 0);
	for (i = 1; i < COPIES; i++) {
		assert_memory_equal(s[0].p.at, s[i].p.at, bytes);
		assert_memory_equal(s[0].p.bt, s[i].p.bt, bytes);
		assert_memory_equal(s[0].p.s, s[i].p.s, K * sizeof(double));
	}
	for (i = 0; i < COPIES; i++)
		release(&s[i]);
}

static void refused(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct subject s = make_subject(6, 5, 4);
	size_t i;

	(void)state;
	for (i = 0; i < 24; i++)
		s.at[i] *= 1e200;
	for (i = 0; i < 20; i++)
		s.bt[i] *= 1e200;
	assert_int_equal(decompose(&s, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "not finite"));
	s.bt[0] = NAN;
	assert_int_equal(decompose(&s, NULL), LENS_ERR_INVALID);
	s.p.m = 3;
	assert_int_equal(lens_svd_product(&s.p, NULL), LENS_ERR_INTERNAL);
	s.p.m = 6, s.p.n = 3;
	assert_int_equal(lens_svd_product(&s.p, NULL), LENS_ERR_INTERNAL);
	s.p.n = 5, s.p.k = 0;
	assert_int_equal(lens_svd_product(&s.p, NULL), LENS_ERR_INTERNAL);
	s.p.k = 4;
	release(&s);
}

static enum lens_status once(void *ctx)
{
	return decompose(ctx, NULL);
}

static void allocation_failures(void **state)
{
	struct subject s = make_subject(6, 5, 4);

	(void)state;
	test_alloc_failures(once, &s);
	release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes),  cmocka_unit_test(ranks),
		cmocka_unit_test(known),   cmocka_unit_test(same_bits),
		cmocka_unit_test(refused), cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
