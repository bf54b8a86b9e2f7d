/*
 * test_store_join_harm.c: shards that are missing, damaged or another's give no
 * joined file at all, and what happens to them later is found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/verify_private.h" /* lens_verify_virtual */
#include "support/cases.h"
#include "support/joins.h"
#include "support/runs.h"
#include "support/storefile.h"

/* --- shards that do not fit -------------------------------------------------------- */

static void refuse(enum lens_status code, size_t shard, const char *what)
{
	enum lens_join how[] = { LENS_JOIN_VIRTUAL, LENS_JOIN_PACK };
	char buf[2200], name[64];
	size_t i;

	snprintf(name, sizeof(name), "%05zu.h5", shard);
	for (i = 0; i < 4; i++) {
		struct lens_error err = LENS_ERROR_INIT;

		assert_int_equal(lens_store_join(test_shards, TEST_SHARDS, test_path,
						 how[i % 2], i < 2 ? NULL : &test_join_quick,
						 &err),
				 code);
		lens_error_format(&err, buf, sizeof(buf));
		if (!strstr(buf, name) || !strstr(buf, what))
			fail_msg("'%s' and '%s' are not in: %s", name, what, buf);
		assert_false(lens_file_exists(test_path));
		assert_false(test_part_left(test_path));
	}
}

static void test_mixed(void **state)
{
	struct test_recipe r = test_recipe_of(1);

	(void)state;
	r.identity = "two";
	test_write_shard(1, &r);
	refuse(LENS_ERR_MISMATCH, 1, "another experiment");
	r = test_recipe_of(0), r.counts = true;
	test_write_shard(0, &r);
	refuse(LENS_ERR_FORMAT, 0, "'/prompts/first_token': not a number for each prompt");
	r = test_recipe_of(0);
	test_write_shard(0, &r);
	r = test_recipe_of(1), r.label = "else";
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "labels");
	r = test_recipe_of(1), r.number = 2;
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "is shard 2 of 3");
	r = test_recipe_of(1), r.total = 4;
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "is shard 1 of 4");
	r = test_recipe_of(1), r.first_row = 6;
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "from row 6");
	r = test_recipe_of(1), r.z = LENS_F32;
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "type");
	r = test_recipe_of(1), r.more = true;
	test_write_shard(1, &r);
	refuse(LENS_ERR_FORMAT, 1, "/results/more");
	r = test_recipe_of(1);
	test_write_shard(1, &r);
	r = test_recipe_of(0), r.more = true;
	test_write_shard(0, &r);
	refuse(LENS_ERR_FORMAT, 1, "is missing");
	{
		struct lens_join_options o = { .identity = "three" };

		fails(LENS_ERR_MISMATCH, lens_store_join(test_shards, TEST_SHARDS, test_path,
							 LENS_JOIN_PACK, &o, err));
	}
}

static void damage_file(const char *file, const void *find, size_t n)
{
	struct lens_buf b = test_slurp(file);
	char *at = memmem(b.data, b.len, find, n);
	FILE *f;

	assert_non_null(at);
	at[0] ^= 1;
	f = fopen(file, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	lens_buf_release(&b);
}

/* Row 9, positions 0 and 1: chunk [0,0,0] of shard 2. */
static void damage_cache(void)
{
	const float v[4] = { test_stream_value(9, 0, 0), test_stream_value(9, 0, 1),
			     test_stream_value(9, 1, 0), test_stream_value(9, 1, 1) };

	damage_file(test_shard_file[2], v, sizeof(v));
}

static void test_damaged(void **state)
{
	enum lens_join how[] = { LENS_JOIN_VIRTUAL, LENS_JOIN_PACK };
	char buf[2200];
	size_t i;

	(void)state;
	damage_cache();
	for (i = 0; i < 2; i++) {
		struct lens_error err = LENS_ERROR_INIT;

		assert_int_equal(lens_store_join(test_shards, TEST_SHARDS, test_path, how[i],
						 NULL, &err),
				 LENS_ERR_FORMAT);
		lens_error_format(&err, buf, sizeof(buf));
		assert_non_null(strstr(buf, "out.shards/00002.h5: "
					    "/cache/blocks.0.hook_resid_post: "
					    "chunk [0,0,0] does not match"));
		assert_false(lens_file_exists(test_path));
		assert_false(test_part_left(test_path));
	}
	assert_int_equal(truncate(test_shard_file[2], 4000), 0);
	refuse(LENS_ERR_FORMAT, 2, "");
	assert_int_equal(unlink(test_shard_file[2]), 0);
	refuse(LENS_ERR_IO, 2, "missing");
}

/* --- a joined file whose shards change --------------------------------------------------- */

static void see_label(void *ctx, const char *label, const char *dataset, const char *what)
{
	assert_null(label);
	test_see_damage(ctx, dataset, what);
}

static void expect_found(const char *what)
{
	struct test_damage a = { .n = 0 }, b = { .n = 0 };
	size_t n, n_bad;

	ok(lens_store_verify(test_path, test_see_damage, &a, &n, &n_bad, err));
	assert_true(n_bad > 0 && a.n > 0);
	ok(lens_store_verify_parallel(test_path,
				      &(struct lens_verify_options){ 3, NULL, test_see_damage,
								     &b },
				      &n, &n_bad, err));
	assert_true(n_bad > 0);
	assert_int_equal(a.n, b.n);
	if (!strstr(a.text, what) || !strstr(b.text, what))
		fail_msg("'%s' is not in: %s and %s", what, a.text, b.text);
}

static void test_shards_change(void **state)
{
	struct test_recipe r = test_recipe_of(1);

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL, NULL, err));
	damage_cache();
	expect_found("out.shards/00002.h5: /cache/blocks.0.hook_resid_post: chunk [0,0,0]");
	r.build = "gcc 13"; /* as long, but another file */
	test_write_shard(1, &r);
	expect_found("out.shards/00001.h5: /: it is not the file that was joined");
	assert_int_equal(truncate(test_shard_file[1], 4000), 0);
	expect_found("out.shards/00001.h5: /: the shard has 4000 bytes");
	assert_int_equal(unlink(test_shard_file[1]), 0);
	expect_found("out.shards/00001.h5: /: the shard is missing");
}

/* Mappings lie in the global heap: a name of another file, sealed again, is found. */
static void test_doctored(void **state)
{
	struct lens_shard_file other[TEST_SHARDS];
	char copy[256];

	(void)state;
	/* A master over shards 0, 1, 2 that names them 0, 2, 1. */
	memcpy(other, test_shards, sizeof(other));
	other[1].name = test_shards[2].name;
	other[2].name = test_shards[1].name;
	ok(lens_store_join(other, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL, &test_join_quick,
			   err));
	expect_found("out.shards/00002.h5: /: ");
	{
		struct test_damage seen = { .n = 0 };
		struct lens_verify_sink sink = { .bad = see_label, .ctx = &seen };

		/* Names of the right files, in the wrong places. */
		ok(lens_verify_virtual(test_path, test_shards, TEST_SHARDS, &sink, err));
		assert_int_equal(sink.n_bad, 2);
		assert_non_null(strstr(seen.text, "hook_z: it is not mapped to "
						  "out.shards/00001.h5"));
	}
	/* And one whose mapping has the damage itself. */
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL,
			   &test_join_quick, err));
	snprintf(copy, sizeof(copy), "%s", test_shard_name[1]);
	damage_file(test_path, copy, strlen(copy));
	{
		size_t n, n_bad = 0;
		enum lens_status st = lens_store_verify_parallel(test_path,
								 &(struct lens_verify_options){
									 .n_processes = 1 },
								 &n, &n_bad, NULL);

		assert_true(st != LENS_OK || n_bad > 0);
	}
}

static void test_check(void **state)
{
	struct lens_shard_facts got;

	(void)state;
	ok(lens_store_check(test_shard_file[1], "one", &got, err));
	assert_int_equal(got.shard, 1);
	assert_int_equal(got.n_shards, TEST_SHARDS);
	assert_int_equal(got.first_row, 5);
	assert_int_equal(got.n_rows, 3);
	assert_int_equal(strlen(got.sha256), 64);
	ok(lens_store_check(test_shard_file[1], NULL, NULL, err));
	fails(LENS_ERR_MISMATCH, lens_store_check(test_shard_file[1], "two", NULL, err));
	fails(LENS_ERR_IO, lens_store_check(test_path, NULL, NULL, err));
	assert_int_equal(truncate(test_shard_file[1], got.size + 1), 0);
	fails(LENS_ERR_FORMAT, lens_store_check(test_shard_file[1], NULL, NULL, err));
	assert_int_equal(truncate(test_shard_file[1], got.size - 1), 0);
	fails(LENS_ERR_FORMAT, lens_store_check(test_shard_file[1], NULL, NULL, err));
	damage_file(test_shard_file[2], "clang", 5);
	fails(LENS_ERR_FORMAT, lens_store_check(test_shard_file[2], NULL, NULL, err));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST_JOIN(test_mixed),         TEST_JOIN(test_damaged),
		TEST_JOIN(test_shards_change), TEST_JOIN(test_doctored),
		TEST_JOIN(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
