/*
 * support/numbers.c: see numbers.h.
 */
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/runs.h"

int test_open_kernels(void **state)
{
	const char *name = test_cpu_level();
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_cpu_level level;
	enum lens_status st = LENS_OK;

	(void)state;
	if (!strcmp(name, "auto"))
		st = lens_cpu_detect(&level, &err);
	else
		level = !strcmp(name, "avx512") ? LENS_LEVEL_AVX512 : LENS_LEVEL_AVX2;
	if (st == LENS_OK)
		st = lens_kernels_open(level, &err);
	if (st != LENS_OK)
		print_error("%s\n", err.text);
	return st == LENS_OK ? 0 : -1;
}

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t test_random(struct test_random *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

size_t test_random_below(struct test_random *r, size_t n)
{
	return (size_t)(test_random(r) % n);
}

float test_random_float(struct test_random *r)
{
	double sum = 0;
	int i;

	for (i = 0; i < 4; i++)
		sum += (double)(test_random(r) >> 11) * 0x1p-53 - 0.5;
	return (float)(sum * 1.7320508075688772);
}

float *test_floats(size_t n, float value)
{
	float *x = lens_alloc_aligned(n, sizeof(*x));
	size_t i;

	assert_non_null(x);
	for (i = 0; i < n; i++)
		x[i] = value;
	return x;
}

float *test_random_floats(struct test_random *r, size_t n)
{
	float *x = test_floats(n, 0);
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = test_random_float(r);
	return x;
}

void test_near(double is, double should, double tolerance, const char *what, double at)
{
	if (isnan(should) ? isnan(is) : is == should || fabs(is - should) <= tolerance)
		return;
	fail_msg("%s at %.9g: %.9g, not %.9g (off by %.3g, allowed %.3g)", what, at, is, should,
		 fabs(is - should), tolerance);
}

uint32_t test_bits(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

bool test_same(float a, float b)
{
	return test_bits(a) == test_bits(b) || (isnan(a) && isnan(b));
}

void test_assert_same(const float *a, const float *b, size_t n, const char *what)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!test_same(a[i], b[i]))
			fail_msg("%s: element %zu of %zu is %a, not %a", what, i, n,
				 (double)a[i], (double)b[i]);
	}
}
