/*
 * support/joins.c: see joins.h.
 */
#include "support/joins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "store/verify_private.h" /* lens_verify_share */
#include "support/storefile.h"

const size_t test_shard_rows[TEST_SHARDS] = { 5, 3, 4 },
	     test_shard_pos[TEST_SHARDS] = { 3, 7, 2 };
const char *const test_answers[TEST_ANSWERS] = { "right", "wrong" };
const struct lens_join_options test_join_quick = { .quick = true };
char test_shard_file[TEST_SHARDS][192], test_shard_name[TEST_SHARDS][64];
struct lens_shard_file test_shards[TEST_SHARDS];

static char folder[160];

struct test_recipe test_recipe_of(size_t shard)
{
	static const char *const build[] = { "gcc 12", "gcc 12", "clang 14" };
	struct test_recipe r = { .identity = "one",
				 .build = build[shard],
				 .label = "wrong",
				 .number = (int)shard,
				 .total = TEST_SHARDS,
				 .z = LENS_F16,
				 .chunk_rows = 2 };
	size_t i;

	for (i = 0; i < shard; i++)
		r.first_row += test_shard_rows[i];
	return r;
}

float test_stream_value(size_t row, size_t pos, size_t d)
{
	return (float)(1000 * row + 10 * pos + d);
}

/* A dataset [rows, pos, 2] in chunks of [chunk_rows, 2, 2]; chunk (0, 0) of shard 1 is left
 * out. */
static enum lens_status put_cache(struct lens_store *s, const char *path, enum lens_dtype t,
				  size_t shard, const struct test_recipe *r,
				  struct lens_error *err)
{
	size_t rows = test_shard_rows[shard], pos = test_shard_pos[shard], cr = r->chunk_rows,
	       c0, c1, i;
	struct lens_dataset_spec spec = { .path = path,
					  .long_name = "a stream",
					  .units = "1",
					  .dtype = t,
					  .rank = 3,
					  .dim = { "prompt", "pos", "d_model" },
					  .extent = { rows, pos, 2 },
					  .chunk = { cr, 2, 2 } };
	uint16_t half[64];
	float v[64];
	int id;

	LENS_TRY(lens_store_add_dataset(s, &spec, &id, err));
	for (c0 = 0; c0 * cr < rows; c0++) {
		for (c1 = 0; c1 * 2 < pos; c1++) {
			size_t coord[LENS_MAX_RANK] = { c0, c1, 0 }, n = cr * 4;
			uint8_t digest[LENS_XXH3_BYTES];

			if (shard == 1 && !c0 && !c1)
				continue;
			lens_fill(LENS_F32, v, n);
			lens_fill(LENS_F16, half, n);
			for (i = 0; i < n; i++) {
				size_t row = c0 * cr + i / 4, p = c1 * 2 + i / 2 % 2;

				if (row >= rows || p >= pos)
					continue;
				v[i] = test_stream_value(r->first_row + row, p, i % 2);
				half[i] = (uint16_t)(0x3c00 + r->first_row + row);
			}
			n *= lens_dtype_size(t);
			lens_xxh3(t == LENS_F16 ? (void *)half : v, n, digest);
			LENS_TRY(lens_store_write_chunk(
				s, id,
				&(struct lens_store_chunk){
					coord, t == LENS_F16 ? (void *)half : v, n, digest },
				err));
		}
	}
	if (t == LENS_F16)
		LENS_TRY(
			lens_store_attr_i64(s, path, "f16_overflows", (int64_t)shard + 1, err));
	return LENS_OK;
}

/* [rows, width] of int32: 100 row + column, or of float64 when empty. */
static enum lens_status put_table(struct lens_store *s, const char *path, const char *dim,
				  size_t width, size_t shard, const struct test_recipe *r,
				  struct lens_error *err)
{
	size_t rows = test_shard_rows[shard], i;
	struct lens_dataset_spec spec = { .path = path,
					  .dtype = width ? LENS_I32 : LENS_F64,
					  .rank = dim ? 2 : 1,
					  .dim = { "prompt", dim },
					  .extent = { rows, width },
					  .chunk = { rows, width ? width : 1 } };
	int32_t v[64];
	int id;

	LENS_TRY(lens_store_add_dataset(s, &spec, &id, err));
	for (i = 0; i < rows * width; i++)
		v[i] = (int32_t)(100 * (r->first_row + i / width) + i % width);
	return width ? test_put(s, id, 0, 0, v, rows * width * 4, err) : LENS_OK;
}

static enum lens_status put_texts(struct lens_store *s, size_t shard,
				  const struct test_recipe *r, struct lens_error *err)
{
	size_t rows = test_shard_rows[shard], i;
	struct lens_dataset_spec text = { .path = "/prompts/text",
					  .dtype = LENS_STR,
					  .rank = 1,
					  .dim = { "prompt" },
					  .extent = { rows },
					  .chunk = { rows } },
				 pair = { .path = "/prompts/answer_text",
					  .dtype = LENS_STR,
					  .rank = 2,
					  .dim = { "prompt", "answer" },
					  .extent = { rows, TEST_ANSWERS },
					  .chunk = { rows, TEST_ANSWERS } };
	char buf[16][32];
	const char *str[16];
	int id;

	for (i = 0; i < 16; i++) {
		snprintf(buf[i], sizeof(buf[i]), i % 5 ? "Zeile %zu/%zu" : "", r->first_row, i);
		str[i] = buf[i];
	}
	LENS_TRY(lens_store_add_dataset(s, &text, &id, err));
	LENS_TRY(lens_store_write_strings(s, id, 0, rows, str, err));
	LENS_TRY(lens_store_add_dataset(s, &pair, &id, err));
	return lens_store_write_strings(s, id, 0, rows, str, err);
}

static enum lens_status put_attrs(struct lens_store *s, size_t shard,
				  const struct test_recipe *r, struct lens_error *err)
{
	LENS_TRY(lens_store_attr_i64(s, "/", "h5lens_schema", 1, err));
	LENS_TRY(lens_store_attr_str(s, "/", "identity", r->identity, err));
	LENS_TRY(lens_store_attr_str(s, "/", "build", r->build, err));
	LENS_TRY(lens_store_attr_str(s, "/", "experiment", "{\"threads\": 1}", err));
	LENS_TRY(lens_store_attr_i64(s, "/", "rows_flagged", (int64_t)shard, err));
	LENS_TRY(lens_store_attr_i64(s, "/", "rows_skipped", 4, err));
	if (r->number < 0)
		return LENS_OK;
	LENS_TRY(lens_store_attr_i64(s, "/", "shard", r->number, err));
	LENS_TRY(lens_store_attr_i64(s, "/", "n_shards", r->total, err));
	return lens_store_attr_i64(s, "/", "shard_first_row", (int64_t)r->first_row, err);
}

static enum lens_status put_all(struct lens_store *s, size_t shard, const struct test_recipe *r,
				struct lens_error *err)
{
	const char *label[TEST_ANSWERS] = { test_answers[0], r->label };

	LENS_TRY(lens_store_add_dim(s, "prompt", test_shard_rows[shard], NULL, err));
	LENS_TRY(lens_store_add_dim(s, "pos", test_shard_pos[shard], NULL, err));
	LENS_TRY(lens_store_add_dim(s, "answer", TEST_ANSWERS, label, err));
	LENS_TRY(lens_store_add_dim(s, "d_model", 2, NULL, err));
	LENS_TRY(lens_store_add_dim(s, "nothing", 0, NULL, err));
	LENS_TRY(put_cache(s, "/cache/blocks.0.hook_resid_post", LENS_F32, shard, r, err));
	LENS_TRY(put_cache(s, "/cache/blocks.0.attn.hook_z", r->z, shard, r, err));
	LENS_TRY(lens_store_add_link(s, "/cache/blocks.1.hook_resid_pre",
				     "/cache/blocks.0.hook_resid_post", err));
	LENS_TRY(put_table(s, "/prompts/tokens", "pos", test_shard_pos[shard], shard, r, err));
	LENS_TRY(put_table(s, "/prompts/length", NULL, 1, shard, r, err));
	LENS_TRY(put_table(s, "/results/answer_rank", "answer", TEST_ANSWERS, shard, r, err));
	LENS_TRY(put_table(s, "/results/none", "nothing", 0, shard, r, err));
	if (r->counts)
		LENS_TRY(put_table(s, "/prompts/first_token", NULL, 1, shard, r, err));
	if (r->more)
		LENS_TRY(put_table(s, "/results/more", NULL, 1, shard, r, err));
	LENS_TRY(put_texts(s, shard, r, err));
	return put_attrs(s, shard, r, err);
}

void test_write_shard(size_t shard, const struct test_recipe *r)
{
	struct lens_store *s;

	ok(lens_store_create(test_shard_file[shard], &s, err));
	ok(put_all(s, shard, r, err));
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
}

int test_join_setup(void **state)
{
	size_t i;

	if (test_store_setup(state))
		return -1;
	lens_verify_share = 1; /* several processes for small files too */
	snprintf(folder, sizeof(folder), "%s/out.shards", test_dir);
	if (mkdir(folder, 0777))
		return -1;
	for (i = 0; i < TEST_SHARDS; i++) {
		struct test_recipe r = test_recipe_of(i);

		snprintf(test_shard_name[i], sizeof(test_shard_name[i]), "out.shards/%05zu.h5",
			 i);
		snprintf(test_shard_file[i], sizeof(test_shard_file[i]), "%s/%s", test_dir,
			 test_shard_name[i]);
		test_shards[i] = (struct lens_shard_file){ .file = test_shard_file[i],
							   .name = test_shard_name[i] };
		test_write_shard(i, &r);
	}
	return 0;
}

int test_join_teardown(void **state)
{
	size_t i;

	lens_verify_share = (uint64_t)4 << 20;
	lens_sys_fail_at(0, 0, false);
	for (i = 0; i < TEST_SHARDS; i++)
		unlink(test_shard_file[i]);
	rmdir(folder);
	return test_store_teardown(state);
}

void test_see_damage(void *ctx, const char *dataset, const char *what)
{
	struct test_damage *seen = ctx;
	size_t n = strlen(seen->text);

	seen->n++;
	snprintf(seen->text + n, sizeof(seen->text) - n, "%s: %s\n", dataset, what);
}

void test_check_sound(const char *file)
{
	struct test_damage seen = { .n = 0 };
	size_t n, n_bad;

	ok(lens_store_verify(file, test_see_damage, &seen, &n, &n_bad, err));
	if (n_bad)
		fail_msg("%s", seen.text);
	assert_true(n > 6);
	ok(lens_store_verify_parallel(file, &(struct lens_verify_options){ .n_processes = 2 },
				      &n, &n_bad, err));
	assert_int_equal(n_bad, 0);
}
