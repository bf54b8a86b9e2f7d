/*
 * test_store_rows.c: rows of data sets, read block by block: of one file, and of shards that
 * a joined file shows; what is missing or exchanged is an error, never NaN.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/joins.h"
#include "support/storefile.h"

#define ALL_ROWS (5 + 3 + 4)
#define WIDEST 7
#define STREAM "/cache/blocks.0.hook_resid_post"

static void join(enum lens_join how)
{
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, how, NULL, err));
}

static size_t shard_of(size_t row)
{
	size_t i;

	for (i = 0; row >= test_shard_rows[i]; i++)
		row -= test_shard_rows[i];
	return i;
}

/* A row of the streams, [pos, 2]: NaN past its shard's width, and in what shard 1 left out. */
static void check_row(const double *v, size_t row)
{
	size_t shard = shard_of(row), first = test_recipe_of(shard).first_row, pos, d;

	for (pos = 0; pos < WIDEST; pos++) {
		for (d = 0; d < 2; d++) {
			bool none = pos >= test_shard_pos[shard] ||
				    (shard == 1 && row - first < 2 && pos < 2);

			if (none)
				assert_true(isnan(v[2 * pos + d]));
			else
				assert_true(v[2 * pos + d] ==
					    (double)test_stream_value(row, pos, d));
		}
	}
}

static void check_all(void)
{
	size_t row, n, i, id, extent[LENS_MAX_RANK];
	enum lens_dtype dtype;
	struct lens_cells c;
	struct lens_rows *r;

	ok(lens_rows_open(test_path, &r, err));
	ok(lens_rows_add(r, STREAM, &id, err));
	assert_int_equal(lens_rows_shape(r, id, extent, &dtype), 3);
	assert_int_equal(extent[0], ALL_ROWS);
	assert_int_equal(extent[1], WIDEST);
	for (row = 0; row < ALL_ROWS; row += n) {
		n = lens_rows_block(r, row);
		assert_in_range(n, 1, ALL_ROWS - row);
		ok(lens_rows_read(r, id, row, n, &c, err));
		assert_int_equal(c.width, 2 * WIDEST);
		for (i = 0; i < n; i++)
			check_row(c.real + i * c.width, row + i);
	}
	assert_int_equal(lens_rows_block(r, ALL_ROWS), 0);
	fails(LENS_ERR_FORMAT, lens_rows_read(r, id, ALL_ROWS - 1, 2, &c, err));
	ok(lens_rows_close(r, LENS_OK, err));
}

static void test_blocks(void **state)
{
	(void)state;
	join(LENS_JOIN_PACK);
	check_all();
	join(LENS_JOIN_VIRTUAL);
	check_all();
}

/* Any rows, also from the middle of a chunk. */
static void test_strings(void **state)
{
	size_t first, n, i, id;
	struct lens_cells c;
	struct lens_rows *r;

	(void)state;
	ok(test_write_store(test_path, err));
	ok(lens_rows_open(test_path, &r, err));
	ok(lens_rows_add(r, "/prompts/text", &id, err));
	for (first = 0; first < TEST_ROWS; first++) {
		for (n = 0; n <= TEST_ROWS - first; n++) {
			ok(lens_rows_read(r, id, first, n, &c, err));
			for (i = 0; i < n; i++)
				assert_string_equal(c.text[i], test_texts[first + i]);
		}
	}
	fails(LENS_ERR_FORMAT, lens_rows_add(r, "/none", &id, err));
	ok(lens_rows_close(r, LENS_OK, err));
}

static enum lens_status read_row(size_t row, struct lens_error *err)
{
	struct lens_cells c;
	struct lens_rows *r;
	enum lens_status st;
	size_t id;

	LENS_TRY(lens_rows_open(test_path, &r, err));
	st = lens_rows_add(r, STREAM, &id, err);
	if (st == LENS_OK)
		st = lens_rows_read(r, id, row, 1, &c, err);
	return lens_rows_close(r, st, err);
}

static void test_shards_are_checked(void **state)
{
	struct test_recipe other = test_recipe_of(1);

	(void)state;
	join(LENS_JOIN_VIRTUAL);
	other.build = "another";
	test_write_shard(1, &other);
	ok(read_row(0, err));
	fails(LENS_ERR_FORMAT, read_row(test_shard_rows[0], err));
	assert_int_equal(unlink(test_shard_file[2]), 0);
	fails(LENS_ERR_IO, read_row(ALL_ROWS - 1, err));
	test_write_shard(2, &(struct test_recipe){ .identity = "one",
						   .build = "clang 14",
						   .label = "wrong",
						   .number = 2,
						   .total = TEST_SHARDS,
						   .first_row = 8,
						   .z = LENS_F16,
						   .chunk_rows = 2 });
	ok(read_row(ALL_ROWS - 1, err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_JOIN(test_blocks),
		TEST_JOIN(test_strings),
		TEST_JOIN(test_shards_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
