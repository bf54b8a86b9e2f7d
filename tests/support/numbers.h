/*
 * support/numbers.h: what tests of numbers share: the kernels of the level
 * under test, repeatable random values, and comparison of bits.
 */
#ifndef LENS_TEST_NUMBERS_H
#define LENS_TEST_NUMBERS_H

#include "h5lens/kernels.h"

#define TEST_U 0x1p-24 /* unit roundoff of float32 */

/* cmocka group setup: opens the level that H5LENS_TEST_CPU names, or the best. */
int test_open_kernels(void **state);

/* A repeatable sequence. */
struct test_random {
	uint64_t s;
};
uint64_t test_random(struct test_random *r);
size_t test_random_below(struct test_random *r, size_t n);
/* Roughly normal, standard deviation 1. */
float test_random_float(struct test_random *r);
/* n of them; lens_free it. */
float *test_random_floats(struct test_random *r, size_t n);
/* n floats on a 64-byte boundary, all of them value; lens_free it. */
float *test_floats(size_t n, float value);

/* Fails if they are further apart than tolerance; `at` says where that was. */
void test_near(double is, double should, double tolerance, const char *what, double at);

uint32_t test_bits(float x);
/* The same bits, or both NaN. */
bool test_same(float a, float b);
/* Prints the first difference and fails. */
void test_assert_same(const float *a, const float *b, size_t n, const char *what);

#endif
