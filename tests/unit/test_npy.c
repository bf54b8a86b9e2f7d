/*
 * unit/test_npy.c: vectors of NumPy's files: types, shapes, and files that are damaged or
 * lie about their lengths.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/core.h"

#define F4 "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"

/* A file: version, header, data; its header's length may lie. */
static struct lens_buf file_of(int version, size_t length, const char *header, const void *data,
			       size_t n)
{
	const unsigned char head[12] = { 0x93,
					 'N',
					 'U',
					 'M',
					 'P',
					 'Y',
					 (unsigned char)version,
					 0,
					 (unsigned char)length,
					 (unsigned char)(length >> 8),
					 (unsigned char)(length >> 16),
					 (unsigned char)(length >> 24) };
	struct lens_buf b = LENS_BUF_INIT;

	assert_int_equal(lens_buf_append(&b, head, version == 1 ? 10 : 12, NULL), LENS_OK);
	assert_int_equal(lens_buf_append(&b, header, strlen(header), NULL), LENS_OK);
	assert_int_equal(lens_buf_append(&b, data, n, NULL), LENS_OK);
	return b;
}

/* A block of exactly its size, so that a sanitizer sees what is read past it. */
static enum lens_status parse(const char *bytes, size_t n, double **v, size_t *n_out,
			      struct lens_error *err)
{
	char *exact = malloc(n ? n : 1);
	enum lens_status st;

	assert_non_null(exact);
	memcpy(exact, bytes, n);
	st = lens_npy_vector("v.npy", exact, n, v, n_out, err);
	free(exact);
	return st;
}

static void assert_vector(int version, const char *header, const void *data, size_t bytes,
			  const double *want, size_t n)
{
	struct lens_buf b = file_of(version, strlen(header), header, data, bytes);
	struct lens_error err = LENS_ERROR_INIT;
	size_t n_out = 0;
	double *v;

	if (parse(b.data, b.len, &v, &n_out, &err) != LENS_OK)
		fail_msg("%s: %s", header, err.text);
	assert_int_equal(n_out, n);
	assert_memory_equal(v, want, n * sizeof(*want));
	lens_free(v);
	lens_buf_release(&b);
}

static void assert_refused(int version, size_t length, const char *header, size_t bytes,
			   const char *text)
{
	const char data[64] = { 0 };
	struct lens_buf b = file_of(version, length, header, data, bytes);
	struct lens_error err = LENS_ERROR_INIT;
	size_t n_out;
	double *v;

	assert_int_not_equal(parse(b.data, b.len, &v, &n_out, &err), LENS_OK);
	assert_null(v);
	assert_string_equal(err.file, "v.npy");
	if (!strstr(err.text, text))
		fail_msg("%s: expected \"%s\", got \"%s\"", header, text, err.text);
	lens_buf_release(&b);
}

static void test_types(void **state)
{
	const float f4[] = { 1, -2.5f, 3e30f };
	const double f8[] = { 1, -2.5, 3e300 }, as_f4[] = { 1, -2.5, (double)3e30f };
	/* 1, −2.5, the largest, the smallest, −0 */
	const unsigned char f2[] = { 0, 0x3c, 0, 0xc1, 0xff, 0x7b, 1, 0, 0, 0x80 };
	const double as_f2[] = { 1, -2.5, 65504, 0x1p-24, -0.0 };

	(void)state;
	assert_vector(1, F4, f4, sizeof(f4), as_f4, 3);
	assert_vector(2, F4 "      \n", f4, sizeof(f4), as_f4, 3);
	assert_vector(1, "{'shape': (1, 3), 'fortran_order': True, 'descr': '<f8'}\n", f8,
		      sizeof(f8), f8, 3);
	assert_vector(1, "{'descr':'<f2','fortran_order':False,'shape':(5,)}", f2, sizeof(f2),
		      as_f2, 5);
	assert_vector(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }", f4, 0, f8,
		      0);
}

/* What is not finite is told by who uses it. */
static void test_not_finite(void **state)
{
	const unsigned char f2[] = { 0, 0x7c, 0, 0xfc, 0, 0x7e };
	static const char header[] = "{'descr': '<f2', 'fortran_order': False, 'shape': (3,)}";
	struct lens_buf b = file_of(1, strlen(header), header, f2, sizeof(f2));
	size_t n_out;
	double *v;

	(void)state;
	assert_int_equal(parse(b.data, b.len, &v, &n_out, NULL), LENS_OK);
	assert_true(v[0] > 1e308 && v[1] < -1e308 && isnan(v[2]));
	lens_free(v);
	lens_buf_release(&b);
}

static void test_headers(void **state)
{
	static const struct {
		const char *header, *text;
	} cases[] = {
		{ "", "no dictionary" },
		{ "[]", "no dictionary" },
		{ "{", "unknown key" },
		{ "{}", "a key is missing" },
		{ "{'descr': '<f4', 'fortran_order': False}", "a key is missing" },
		{ "{'descr': '<f4', 'shape': (3,)}", "a key is missing" },
		{ "{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}", "little-endian" },
		{ "{'descr': '<i4', 'fortran_order': False, 'shape': (3,)}", "little-endian" },
		{ "{'descr': [('a', '<f4')], 'shape': (3,)}", "little-endian" },
		{ "{'descr': '<f4', 'fortran_order': Flase, 'shape': (3,)}", "fortran_order" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': ()}", "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1)}", "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 3)}",
		  "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}", "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (3", "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551619,)}",
		  "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387907,)}",
		  "not a vector" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (1048577,)}", "damaged" },
		{ "{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}",
		  "says 4 numbers of 4" },
		{ "{'descr': '<f4', 'descr': '<f4', 'shape': (3,)}", "little-endian" },
		{ "{'shape': (3,), 'shape': (3,)}", "not a vector" },
		{ "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}", "its header" },
		{ "{'descr': '<f4', 'more': 1}", "unknown key" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_refused(1, strlen(cases[i].header), cases[i].header, 12, cases[i].text);
}

static void test_lengths(void **state)
{
	(void)state;
	assert_refused(1, strlen(F4), F4, 11,
		       "11 bytes of data; its shape says 3 numbers of 4");
	assert_refused(1, strlen(F4), F4, 13, "13 bytes of data");
	assert_refused(1, 65535, F4, 12, "longer than the file");
	assert_refused(2, 0xffffffff, F4, 12, "longer than the file");
	assert_refused(2, strlen(F4) + 13, F4, 12, "longer than the file");
	assert_refused(1, 0, F4, 12, "no dictionary");
	assert_refused(1, 10, F4, 12, "little-endian");
	assert_refused(3, strlen(F4), F4, 12, "of version 3.0; 1.0 and 2.0 are read");
}

/* Whatever a byte becomes, and wherever the file ends: an answer or an error. */
static void test_damage(void **state)
{
	const float f4[] = { 1, 2, 3 };
	struct lens_buf b = file_of(2, strlen(F4), F4, f4, sizeof(f4));
	size_t i, n_out, refused = 0;
	unsigned byte;
	double *v;

	(void)state;
	for (i = 0; i < b.len; i++) {
		assert_int_not_equal(parse(b.data, i, &v, &n_out, NULL), LENS_OK);
		for (byte = 0; byte < 256; byte++) {
			struct lens_error err = LENS_ERROR_INIT;
			char was = b.data[i];

			b.data[i] = (char)byte;
			if (parse(b.data, b.len, &v, &n_out, &err) != LENS_OK)
				refused++;
			else
				assert_in_range(n_out, 1, 6);
			assert_true(!v == (err.code != LENS_OK));
			lens_free(v);
			b.data[i] = was;
		}
	}
	assert_true(refused > 255 * strlen(F4) / 2);
	lens_buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),   cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_headers), cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
