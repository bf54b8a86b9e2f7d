/*
 * test_store_join_large.c: results with large rows: copied or left in the shards, and
 * packed whatever their size. The rest of joining: test_store_join.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/joins.h"
#include "support/storefile.h"

#define LARGE_ROW 65536 /* bytes: a larger row stays in the shards */

/* /results/wide, [rows, width] in chunks of one row, its values their row: nothing more. */
static void write_wide(size_t shard, size_t width, bool alone)
{
	size_t rows = test_shard_rows[shard], first = test_recipe_of(shard).first_row, i, k;
	struct lens_dataset_spec spec = { .path = "/results/wide",
					  .dtype = LENS_F32,
					  .rank = 2,
					  .dim = { "prompt", "wide" },
					  .extent = { alone ? 1 : rows, width },
					  .chunk = { 1, width } };
	float *v = lens_calloc(width, sizeof(*v));
	struct lens_store *s;
	int id;

	assert_non_null(v);
	ok(lens_store_create(test_shard_file[shard], &s, err));
	ok(lens_store_add_dim(s, "prompt", spec.extent[0], NULL, err));
	ok(lens_store_add_dim(s, "wide", width, NULL, err));
	ok(lens_store_add_dataset(s, &spec, &id, err));
	for (i = 0; i < spec.extent[0]; i++) {
		for (k = 0; k < width; k++)
			v[k] = (float)(first + i + 1);
		ok(test_put(s, id, i, 0, v, width * sizeof(*v), err));
	}
	ok(lens_store_attr_str(s, "/", "identity", "one", err));
	if (!alone) {
		ok(lens_store_attr_i64(s, "/", "shard", (int64_t)shard, err));
		ok(lens_store_attr_i64(s, "/", "n_shards", TEST_SHARDS, err));
		ok(lens_store_attr_i64(s, "/", "shard_first_row", (int64_t)first, err));
	}
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
	lens_free(v);
}

static void check_wide(size_t rows, size_t width)
{
	size_t extent[LENS_MAX_RANK], i;
	double *v;
	int rank;

	ok(lens_store_read_f64(test_path, "/results/wide", &v, &rank, extent, err));
	assert_int_equal(extent[0], rows);
	assert_int_equal(extent[1], width);
	for (i = 0; i < rows * width; i++)
		assert_true(v[i] == (double)(i / width + 1));
	lens_free(v);
}

static size_t n_bad(const char *file, struct test_damage *seen)
{
	size_t n, bad;

	*seen = (struct test_damage){ .n = 0 };
	ok(lens_store_verify(file, test_see_damage, seen, &n, &bad, err));
	return bad;
}

static void flip_middle(const char *file)
{
	struct lens_buf b = test_slurp(file);
	FILE *f = fopen(file, "wb");

	b.data[b.len / 2] ^= 1;
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	lens_buf_release(&b);
}

/* Copied up to LARGE_ROW bytes a row, virtual past it; packed in any case. */
static void test_large_rows(void **state)
{
	size_t width = LARGE_ROW / sizeof(float), shard, extra, extent[LENS_MAX_RANK];
	struct test_damage seen;
	double *v;
	int rank;

	(void)state;
	for (extra = 0; extra < 2; extra++) {
		for (shard = 0; shard < TEST_SHARDS; shard++)
			write_wide(shard, width + extra, false);
		ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, NULL,
				   err));
		check_wide(12, width + extra);
		ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL, NULL,
				   err));
		assert_int_equal(n_bad(test_path, &seen), 0);
		if (!extra)
			check_wide(12, width);
	}
	fails(LENS_ERR_FORMAT,
	      lens_store_read_f64(test_path, "/results/wide", &v, &rank, extent, err));
	flip_middle(test_shard_file[1]);
	assert_int_equal(n_bad(test_path, &seen), 1);
	assert_non_null(strstr(seen.text, "00001.h5: /results/wide"));
}

/* One row is one chunk, of any size: larger than what else is held while it is copied. */
static void test_large_chunk(void **state)
{
	size_t width = ((size_t)8 << 20) + 5;
	struct test_damage seen;

	(void)state;
	write_wide(0, width, true);
	ok(lens_store_join(test_shards, 1, test_path, LENS_JOIN_PACK, NULL, err));
	assert_int_equal(n_bad(test_path, &seen), 0);
	check_wide(1, width);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST_JOIN(test_large_rows),
		TEST_JOIN(test_large_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
