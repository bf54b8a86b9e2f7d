/*
 * support/storefile.c: see storefile.h.
 */
#include "support/storefile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

char test_dir[128], test_path[192], test_part[200];

const char *const test_texts[TEST_ROWS] = { "eins", "", "zwölf Boxkämpfer", "a\nb", "ends" };
const char *const test_labels[TEST_POS] = { "0_pre", "1_pre", "final_post" };

int test_store_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(test_dir, sizeof(test_dir), "%.90s/h5lens-store-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(test_dir))
		return -1;
	snprintf(test_path, sizeof(test_path), "%s/out.h5", test_dir);
	snprintf(test_part, sizeof(test_part), "%s.part", test_path);
	return 0;
}

int test_store_teardown(void **state)
{
	(void)state;
	lens_alloc_fail_at(0);
	lens_store_fail_at(0, 0);
	unlink(test_path);
	unlink(test_part);
	return rmdir(test_dir);
}

enum lens_status test_put(struct lens_store *s, int id, size_t c0, size_t c1, const void *buf,
			  size_t n, struct lens_error *err)
{
	uint8_t digest[LENS_XXH3_BYTES];
	size_t coord[LENS_MAX_RANK] = { c0, c1 };

	lens_xxh3(buf, n, digest);
	return lens_store_write_chunk(s, id,
				      &(struct lens_store_chunk){ coord, buf, n, digest }, err);
}

struct lens_dataset_spec test_spec2(const char *p, enum lens_dtype t)
{
	return (struct lens_dataset_spec){
		.path = p,
		.long_name = "a thing",
		.units = "logit",
		.dtype = t,
		.rank = 2,
		.dim = { "prompt", "pos" },
		.extent = { TEST_ROWS, TEST_POS },
		.chunk = { 2, 2 },
	};
}

struct lens_dataset_spec test_spec_text(const char *p)
{
	return (struct lens_dataset_spec){
		.path = p,
		.dtype = LENS_STR,
		.rank = 1,
		.dim = { "prompt" },
		.extent = { TEST_ROWS },
		.chunk = { 4 },
	};
}

void test_fill_f32(float v[4], size_t c0, size_t c1)
{
	size_t i, row, pos;

	lens_fill(LENS_F32, v, 4);
	for (i = 0; i < 4; i++) {
		row = 2 * c0 + i / 2;
		pos = 2 * c1 + i % 2;
		if (row < TEST_ROWS && pos < TEST_POS)
			v[i] = (float)(10 * row + pos);
	}
}

static enum lens_status add_numbers(struct lens_store *s, struct lens_error *err)
{
	static const uint16_t half[4] = { 0x3c00, 0xfc00, 0x7e00, 0x0001 };
	struct lens_dataset_spec f32 = test_spec2("/cache/blocks.0.hook_resid_post", LENS_F32);
	struct lens_dataset_spec f16 = test_spec2("/cache/blocks.0.attn.hook_z", LENS_F16);
	struct lens_dataset_spec i32 = test_spec2("/prompts/tokens", LENS_I32);
	int a, b, c;
	size_t i;
	float v[4];

	LENS_TRY(lens_store_add_dataset(s, &f32, &a, err));
	LENS_TRY(lens_store_add_dataset(s, &f16, &b, err));
	LENS_TRY(lens_store_add_dataset(s, &i32, &c, err));
	for (i = 0; i < 5; i++) { /* chunk (2, 1) stays unwritten */
		test_fill_f32(v, i / 2, i % 2);
		LENS_TRY(test_put(s, a, i / 2, i % 2, v, sizeof(v), err));
	}
	return test_put(s, b, 0, 0, half, sizeof(half), err);
}

static enum lens_status add_more(struct lens_store *s, struct lens_error *err)
{
	struct lens_dataset_spec text = test_spec_text("/prompts/text");
	struct lens_dataset_spec none = { .path = "/results/none",
					  .dtype = LENS_F64,
					  .rank = 2,
					  .dim = { "prompt", "nothing" },
					  .extent = { TEST_ROWS, 0 },
					  .chunk = { 2, 1 } };
	int id;

	LENS_TRY(lens_store_add_dataset(s, &text, &id, err));
	LENS_TRY(lens_store_write_strings(s, id, 0, 2, test_texts, err));
	LENS_TRY(lens_store_write_strings(s, id, 2, 3, test_texts + 2, err));
	LENS_TRY(lens_store_add_dataset(s, &none, &id, err));
	LENS_TRY(lens_store_add_link(s, "/cache/blocks.1.hook_resid_pre",
				     "/cache/blocks.0.hook_resid_post", err));
	LENS_TRY(lens_store_attr_str(s, "/", "schema", "1", err));
	LENS_TRY(lens_store_attr_i64(s, "/", "n", -7, err));
	return lens_store_attr_i64(s, "/prompts/text", "count", 3, err);
}

enum lens_status test_write_store(const char *final, struct lens_error *err)
{
	struct lens_store *s;
	enum lens_status st;

	LENS_TRY(lens_store_create(final, &s, err));
	st = lens_store_add_dim(s, "prompt", TEST_ROWS, NULL, err);
	if (st == LENS_OK)
		st = lens_store_add_dim(s, "pos", TEST_POS, test_labels, err);
	if (st == LENS_OK)
		st = lens_store_add_dim(s, "nothing", 0, NULL, err);
	if (st == LENS_OK)
		st = add_numbers(s, err);
	if (st == LENS_OK)
		st = add_more(s, err);
	if (st == LENS_OK)
		st = lens_store_commit(s, err);
	lens_store_destroy(s);
	return st;
}

struct lens_buf test_slurp(const char *name)
{
	struct lens_buf b = LENS_BUF_INIT;

	ok(lens_file_read(name, 1 << 24, &b, err));
	return b;
}

void test_check_numbers(const char *name)
{
	size_t extent[LENS_MAX_RANK], i;
	double *v, want;
	int rank;

	ok(lens_store_read_f64(test_path, name, &v, &rank, extent, err));
	assert_int_equal(rank, 2);
	assert_int_equal(extent[0], TEST_ROWS);
	assert_int_equal(extent[1], TEST_POS);
	for (i = 0; i < TEST_ROWS * TEST_POS; i++) {
		want = (double)(10 * (i / TEST_POS) + i % TEST_POS);
		if (i / TEST_POS == 4 && i % TEST_POS == 2)
			assert_true(isnan(v[i]));
		else
			assert_true(v[i] == want);
	}
	lens_free(v);
}
