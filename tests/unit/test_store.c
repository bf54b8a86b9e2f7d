/*
 * test_store.c: the HDF5 file: what is written is what is read, and calls that
 * make no sense are refused. Faults and damage: test_store_damage.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/runs.h"
#include "support/storefile.h"

static void test_version(void **state)
{
	(void)state;
	assert_string_equal(lens_store_hdf5_version(), lens_store_hdf5_version());
	assert_int_equal(strncmp(lens_store_hdf5_version(), "1.", 2), 0);
}

/* --- what is written is read --------------------------------------------------- */

static void test_numbers(void **state)
{
	size_t extent[LENS_MAX_RANK], i;
	double *v;
	int rank;

	(void)state;
	ok(test_write_store(test_path, err));
	assert_false(test_part_left(test_path));
	test_check_numbers("/cache/blocks.0.hook_resid_post");
	test_check_numbers("/cache/blocks.1.hook_resid_pre");
	ok(lens_store_read_f64(test_path, "/cache/blocks.0.attn.hook_z", &v, &rank, extent,
			       err));
	assert_true(v[0] == 1.0 && isinf(v[1]) && v[1] < 0 && isnan(v[TEST_POS]) &&
		    isnan(v[2]));
	assert_true(v[TEST_POS + 1] == ldexp(1.0, -24));
	lens_free(v);
	ok(lens_store_read_f64(test_path, "/prompts/tokens", &v, &rank, extent, err));
	for (i = 0; i < TEST_ROWS * TEST_POS; i++)
		assert_true(v[i] == -1.0);
	lens_free(v);
	ok(lens_store_read_f64(test_path, "/results/none", &v, &rank, extent, err));
	assert_int_equal(extent[1], 0);
	lens_free(v);
	fails(LENS_ERR_FORMAT, lens_store_read_f64(test_path, "/no", &v, &rank, extent, err));
	assert_null(v);
	fails(LENS_ERR_FORMAT,
	      lens_store_read_f64(test_path, "/prompts/text", &v, &rank, extent, err));
	fails(LENS_ERR_FORMAT,
	      lens_store_read_f64(test_path, "/cache", &v, &rank, extent, err));
}

static void check_strings(const char *name, const char *const *want, size_t n)
{
	char **str;
	size_t got, i;

	ok(lens_store_read_strings(test_path, name, &str, &got, err));
	assert_int_equal(got, n);
	for (i = 0; i < n; i++) {
		assert_string_equal(str[i], want[i]);
		lens_free(str[i]);
	}
	lens_free(str);
}

static void test_strings(void **state)
{
	char **str;
	size_t n;

	(void)state;
	ok(test_write_store(test_path, err));
	check_strings("/prompts/text", test_texts, TEST_ROWS);
	check_strings("/pos", test_labels, TEST_POS);
	fails(LENS_ERR_FORMAT,
	      lens_store_read_strings(test_path, "/prompts/tokens", &str, &n, err));
	fails(LENS_ERR_FORMAT, lens_store_read_strings(test_path, "/prompts/x", &str, &n, err));
	fails(LENS_ERR_IO, lens_store_read_strings(test_part, "/prompts/text", &str, &n, err));
	assert_null(str);
}

/* Rows that nobody wrote, and rows that a long way apart, are "". */
static void test_string_gaps(void **state)
{
	struct lens_dataset_spec spec = { .path = "/t",
					  .dtype = LENS_STR,
					  .rank = 1,
					  .dim = { "prompt" },
					  .extent = { 3000 },
					  .chunk = { 1000 } };
	static const char *const one[1] = { "x" };
	struct lens_store *s;
	size_t n, n_bad, i;
	char **str;
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", 3000, NULL, err));
	ok(lens_store_add_dataset(s, &spec, &id, err));
	ok(lens_store_write_strings(s, id, 1500, 1, one, err));
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n, 2);
	assert_int_equal(n_bad, 0);
	ok(lens_store_read_strings(test_path, "/t", &str, &n, err));
	assert_int_equal(n, 3000);
	for (i = 0; i < n; i++) {
		assert_string_equal(str[i], i == 1500 ? "x" : "");
		lens_free(str[i]);
	}
	lens_free(str);
}

static void test_attributes(void **state)
{
	size_t n = 200000;
	char *big = malloc(n + 1), *value;
	struct lens_store *s;

	(void)state;
	memset(big, 'q', n);
	big[n] = '\0';
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_attr_str(s, "/", "config", big, err));
	ok(lens_store_attr_str(s, "/", "empty", "", err));
	ok(lens_store_attr_i64(s, "/", "least", INT64_MIN, err));
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
	ok(lens_store_read_attr(test_path, "/", "config", &value, err));
	assert_string_equal(value, big);
	lens_free(value);
	ok(lens_store_read_attr(test_path, "/", "empty", &value, err));
	assert_string_equal(value, "");
	lens_free(value);
	ok(lens_store_read_attr(test_path, "/", "least", &value, err));
	assert_string_equal(value, "-9223372036854775808");
	lens_free(value);
	ok(lens_store_read_attr(test_path, "/", "absent", &value, err));
	assert_null(value);
	fails(LENS_ERR_FORMAT, lens_store_read_attr(test_path, "/no/where", "a", &value, err));
	free(big);
}

static enum lens_status join_attr(void *ctx, const char *name, const char *value,
				  struct lens_error *err)
{
	return lens_buf_printf(ctx, err, "%s=%.8s;", name, value);
}

static void test_walk_attrs(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;

	(void)state;
	ok(test_write_store(test_path, err));
	ok(lens_store_walk_attrs(test_path, join_attr, &b, err));
	assert_int_equal(strncmp(b.data, "digest=xxh3-128;n=-7;schema=1;sha256=", 37), 0);
	lens_buf_release(&b);
}

static enum lens_status join_info(void *ctx, const struct lens_dataset_info *d,
				  struct lens_error *err)
{
	int i;

	LENS_TRY(lens_buf_printf(ctx, err, "%s %s", d->path, d->dtype));
	for (i = 0; i < d->rank; i++)
		LENS_TRY(lens_buf_printf(ctx, err, " %s:%zu", d->dim[i] ? d->dim[i] : "?",
					 d->extent[i]));
	return lens_buf_printf(ctx, err, " %llu %s\n", (unsigned long long)d->stored_bytes,
			       d->link_to ? d->link_to : "-");
}

static enum lens_status stop_info(void *ctx, const struct lens_dataset_info *d,
				  struct lens_error *err)
{
	(void)d;
	++*(int *)ctx;
	return lens_error_set(err, LENS_ERR_INTERRUPTED, "enough");
}

static void test_walk(void **state)
{
	static const char want[] =
		"/cache/blocks.0.attn.hook_z float16 prompt:5 pos:3 8 -\n"
		"/cache/blocks.0.hook_resid_post float32 prompt:5 pos:3 80 -\n"
		"/cache/blocks.1.hook_resid_pre float32 prompt:5 pos:3 80 "
		"/cache/blocks.0.hook_resid_post\n"
		"/nothing other nothing:0 0 -\n"
		"/pos string pos:3 48 -\n"
		"/prompt other prompt:5 0 -\n"
		"/prompts/text string prompt:5 128 -\n"
		"/prompts/tokens int32 prompt:5 pos:3 0 -\n"
		"/results/none float64 prompt:5 nothing:0 0 -\n";
	struct lens_buf b = LENS_BUF_INIT;
	int calls = 0;

	(void)state;
	ok(test_write_store(test_path, err));
	ok(lens_store_walk(test_path, join_info, &b, err));
	assert_string_equal(b.data, want);
	lens_buf_release(&b);
	fails(LENS_ERR_INTERRUPTED, lens_store_walk(test_path, stop_info, &calls, err));
	assert_int_equal(calls, 1);
	fails(LENS_ERR_IO, lens_store_walk(test_part, join_info, &b, err));
}

/* The same calls give the same bytes, whatever lies in fresh memory. */
static void test_same_bytes(void **state)
{
	struct lens_buf a, b;

	(void)state;
	ok(test_write_store(test_path, err));
	a = test_slurp(test_path);
	sleep(1); /* a time stamp would differ */
	ok(test_write_store(test_path, err));
	b = test_slurp(test_path);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	lens_buf_release(&a);
	lens_buf_release(&b);
}

/* --- misuse ---------------------------------------------------------------------- */

static void test_bad_chunks(void **state)
{
	struct lens_dataset_spec spec = test_spec2("/x", LENS_F32), text = test_spec_text("/s");
	struct lens_store *s;
	float v[5] = { 0 };
	int id, sid;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", TEST_ROWS, NULL, err));
	ok(lens_store_add_dim(s, "pos", TEST_POS, NULL, err));
	ok(lens_store_add_dataset(s, &spec, &id, err));
	ok(lens_store_add_dataset(s, &text, &sid, err));
	ok(test_put(s, id, 0, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, 0, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, 0, 1, v, 15, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, 0, 1, v, 20, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, 3, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, 0, 2, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, id, SIZE_MAX, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, 9, 0, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, -1, 0, 0, v, 16, err));
	fails(LENS_ERR_INTERNAL, test_put(s, sid, 0, 0, v, 1, err));
	fails(LENS_ERR_INTERNAL, lens_store_write_strings(s, id, 0, 1, test_texts, err));
	fails(LENS_ERR_INTERNAL, lens_store_write_strings(s, sid, 4, 2, test_texts, err));
	fails(LENS_ERR_INTERNAL,
	      lens_store_write_strings(s, sid, SIZE_MAX, 2, test_texts, err));
	ok(lens_store_write_strings(s, sid, 2, 1, test_texts, err));
	fails(LENS_ERR_INTERNAL, lens_store_write_strings(s, sid, 1, 1, test_texts, err));
	fails(LENS_ERR_INTERNAL, lens_store_commit(s, err)); /* after a failure */
	lens_store_destroy(s);
	assert_false(lens_file_exists(test_path));
	assert_false(test_part_left(test_path));
}

static void test_bad_specs(void **state)
{
	static const char *const bad[] = { "x",       "",     "/",     "//x",    "/a/",
					   "/a/../b", "/./b", "/\xff", "/prompt" };
	struct lens_dataset_spec spec;
	struct lens_store *s;
	size_t i;
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", TEST_ROWS, NULL, err));
	ok(lens_store_add_dim(s, "pos", TEST_POS, NULL, err));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct lens_error err = LENS_ERROR_INIT;

		spec = test_spec2(bad[i], LENS_F32);
		assert_int_not_equal(lens_store_add_dataset(s, &spec, &id, &err), LENS_OK);
		assert_int_equal(err.code, i < 8 ? LENS_ERR_INVALID : LENS_ERR_INTERNAL);
	}
	spec = test_spec2("/x", LENS_F32), spec.rank = 0;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec.rank = LENS_MAX_RANK + 1;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec = test_spec2("/x", LENS_STR);
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec = test_spec2("/x", (enum lens_dtype)77);
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec = test_spec2("/x", LENS_F32), spec.chunk[0] = 0;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec.chunk[0] = TEST_ROWS + 1;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec = test_spec2("/x", LENS_F32), spec.dim[1] = "head";
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec.dim[1] = NULL;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec = test_spec2("/x", LENS_F32), spec.extent[1] = TEST_POS + 1;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	fails(LENS_ERR_INTERNAL, lens_store_add_dim(s, "pos", TEST_POS, NULL, err));
	fails(LENS_ERR_INTERNAL, lens_store_add_dim(s, "a/b", TEST_POS, NULL, err));
	fails(LENS_ERR_INTERNAL, lens_store_add_dim(s, "", TEST_POS, NULL, err));
	fails(LENS_ERR_INTERNAL, lens_store_add_dim(s, "huge", SIZE_MAX, NULL, err));
	lens_store_destroy(s);
}

static void test_too_many_chunks(void **state)
{
	struct lens_dataset_spec spec = test_spec2("/x", LENS_F32);
	struct lens_store *s;
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", 1 << 20, NULL, err));
	ok(lens_store_add_dim(s, "pos", 1 << 20, NULL, err));
	spec.extent[0] = spec.extent[1] = 1 << 20;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	spec.chunk[0] = spec.chunk[1] = 1 << 20;
	fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	lens_store_destroy(s);
}

static void test_bad_text(void **state)
{
	static const char *const bad[1] = { "\xc3(" };
	struct lens_dataset_spec spec = test_spec_text("/t");
	struct lens_store *s;
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", TEST_ROWS, NULL, err));
	ok(lens_store_add_dataset(s, &spec, &id, err));
	fails(LENS_ERR_INVALID, lens_store_write_strings(s, id, 0, 1, bad, err));
	fails(LENS_ERR_INVALID, lens_store_attr_str(s, "/", "a", bad[0], err));
	fails(LENS_ERR_INVALID, lens_store_add_dim(s, "label", 1, bad, err));
	ok(lens_store_attr_i64(s, "/", "twice", 1, err));
	fails(LENS_ERR_INTERNAL, lens_store_attr_str(s, "/", "twice", "2", err));
	fails(LENS_ERR_INTERNAL, lens_store_attr_str(s, "/none", "a", "b", err));
	fails(LENS_ERR_INTERNAL, lens_store_add_link(s, "/l", "/none", err));
	fails(LENS_ERR_INTERNAL, lens_store_add_link(s, "/t", "/t", err));
	fails(LENS_ERR_INVALID, lens_store_add_link(s, "l", "/t", err));
	lens_store_destroy(s);
}

static void test_after_commit(void **state)
{
	struct lens_store *s;
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "prompt", TEST_ROWS, NULL, err));
	ok(lens_store_commit(s, err));
	{
		struct lens_dataset_spec spec = test_spec_text("/t");

		fails(LENS_ERR_INTERNAL, lens_store_add_dataset(s, &spec, &id, err));
	}
	fails(LENS_ERR_INTERNAL, lens_store_commit(s, err));
	lens_store_destroy(s);
	assert_true(lens_file_exists(test_path));
	lens_store_destroy(NULL);
}

/* --- many datasets ------------------------------------------------------------------ */

static enum lens_status skip_info(void *ctx, const struct lens_dataset_info *d,
				  struct lens_error *err)
{
	(void)ctx, (void)d, (void)err;
	return LENS_OK;
}

/* Many datasets of rank 4 share their dimensions. */
static void test_many(void **state)
{
	struct lens_dataset_spec spec = { .dtype = LENS_F32,
					  .rank = 4,
					  .dim = { "prompt", "head", "query", "key" },
					  .extent = { 4, 3, 2, 2 },
					  .chunk = { 4, 3, 2, 2 } };
	struct lens_store *s;
	size_t i, n, n_bad;
	char name[64];
	int id;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	for (i = 0; i < 4; i++)
		ok(lens_store_add_dim(s, spec.dim[i], spec.extent[i], NULL, err));
	for (i = 0; i < 1500; i++) {
		snprintf(name, sizeof(name), "/cache/blocks.%zu.attn.hook_pattern", i);
		spec.path = name;
		ok(lens_store_add_dataset(s, &spec, &id, err));
	}
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n, 1501);
	assert_int_equal(n_bad, 0);
	ok(lens_store_walk(test_path, skip_info, NULL, err));
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_store_setup, test_store_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_version),      T(test_numbers),    T(test_strings),
		T(test_string_gaps),  T(test_attributes), T(test_walk_attrs),
		T(test_walk),         T(test_same_bytes), T(test_bad_chunks),
		T(test_bad_specs),    T(test_bad_text),   T(test_too_many_chunks),
		T(test_after_commit), T(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
