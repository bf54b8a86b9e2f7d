/*
 * test_store_join.c: shards joined to one file: every number where it belongs,
 * and who joins hears how far it is and can stop it. Shards that do not fit or
 * are damaged: test_store_join_harm.c; faults: test_store_join_faults.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/joins.h"
#include "support/oldfile.h"
#include "support/storefile.h"

/* --- what is joined is read -------------------------------------------------------- */

static void check_cache(const char *path, bool half)
{
	size_t extent[LENS_MAX_RANK], row, pos, i, shard, first;
	int rank;
	double *v;

	ok(lens_store_read_f64(test_path, path, &v, &rank, extent, err));
	assert_int_equal(rank, 3);
	assert_int_equal(extent[0], 12);
	assert_int_equal(extent[1], 7);
	for (shard = 0, first = 0; shard < TEST_SHARDS; first += test_shard_rows[shard++]) {
		for (i = 0; i < test_shard_rows[shard] * 14; i++) {
			row = first + i / 14;
			pos = i / 2 % 7;
			if (pos >= test_shard_pos[shard] ||
			    (shard == 1 && row - first < 2 && pos < 2))
				assert_true(isnan(v[row * 14 + i % 14]));
			else if (half)
				assert_true(v[row * 14 + i % 14] == 1.0 + (double)row / 1024);
			else
				assert_true(v[row * 14 + i % 14] ==
					    (double)test_stream_value(row, pos, i % 2));
		}
	}
	lens_free(v);
}

static void check_tables(void)
{
	size_t extent[LENS_MAX_RANK], i, n, row, first, shard;
	char **str, want[32];
	double *v;
	int rank;

	ok(lens_store_read_f64(test_path, "/prompts/tokens", &v, &rank, extent, err));
	assert_int_equal(extent[1], 7);
	for (shard = 0, first = 0; shard < TEST_SHARDS; first += test_shard_rows[shard++]) {
		for (i = 0; i < test_shard_rows[shard] * 7; i++) {
			row = first + i / 7;
			assert_true(v[row * 7 + i % 7] == (i % 7 < test_shard_pos[shard]
								   ? (double)(100 * row + i % 7)
								   : -1));
		}
	}
	lens_free(v);
	ok(lens_store_read_f64(test_path, "/results/answer_rank", &v, &rank, extent, err));
	assert_int_equal(extent[0], 12);
	for (i = 0; i < 24; i++)
		assert_true(v[i] == (double)(100 * (i / 2) + i % 2));
	lens_free(v);
	ok(lens_store_read_f64(test_path, "/results/none", &v, &rank, extent, err));
	assert_int_equal(extent[0], 12);
	assert_int_equal(extent[1], 0);
	lens_free(v);
	ok(lens_store_read_strings(test_path, "/prompts/text", &str, &n, err));
	assert_int_equal(n, 12);
	for (shard = 0, first = 0; shard < TEST_SHARDS; first += test_shard_rows[shard++]) {
		for (i = 0; i < test_shard_rows[shard]; i++) {
			snprintf(want, sizeof(want), i % 5 ? "Zeile %zu/%zu" : "", first, i);
			assert_string_equal(str[first + i], want);
			lens_free(str[first + i]);
		}
	}
	lens_free(str);
	ok(lens_store_read_strings(test_path, "/answer", &str, &n, err));
	assert_int_equal(n, TEST_ANSWERS);
	for (i = 0; i < n; i++) {
		assert_string_equal(str[i], test_answers[i]);
		lens_free(str[i]);
	}
	lens_free(str);
}

static void expect_attr(const char *path, const char *name, const char *want)
{
	char *value;

	ok(lens_store_read_attr(test_path, path, name, &value, err));
	if (!want)
		assert_null(value);
	else
		assert_string_equal(value, want);
	lens_free(value);
}

static void check_attrs(void)
{
	expect_attr("/", "identity", "one");
	expect_attr("/", "digest", "xxh3-128");
	expect_attr("/", "build", "gcc 12 | clang 14");
	expect_attr("/", "experiment", "{\"threads\": 1}");
	expect_attr("/", "rows_flagged", "3");
	expect_attr("/", "rows_skipped", "4");
	expect_attr("/", "shard", NULL);
	expect_attr("/", "n_shards", NULL);
	expect_attr("/", "shard_first_row", NULL);
	expect_attr("/cache/blocks.0.attn.hook_z", "f16_overflows", "6");
	expect_attr("/cache/blocks.0.attn.hook_z", "long_name", "a stream");
	expect_attr("/cache/blocks.0.attn.hook_z", "units", "1");
}

static enum lens_status join_info(void *ctx, const struct lens_dataset_info *d,
				  struct lens_error *err)
{
	int i;

	LENS_TRY(lens_buf_printf(ctx, err, "%s %s", d->path, d->dtype));
	for (i = 0; i < d->rank; i++)
		LENS_TRY(lens_buf_printf(ctx, err, " %s:%zu", d->dim[i] ? d->dim[i] : "?",
					 d->extent[i]));
	return lens_buf_printf(ctx, err, " %s\n", d->link_to ? d->link_to : "-");
}

#define SHAPES                                                                                 \
	"/answer string answer:2 -\n"                                                          \
	"/cache/blocks.0.attn.hook_z float16 prompt:12 pos:7 d_model:2 -\n"                    \
	"/cache/blocks.0.hook_resid_post float32 prompt:12 pos:7 d_model:2 -\n"                \
	"/cache/blocks.1.hook_resid_pre float32 prompt:12 pos:7 d_model:2 "                    \
	"/cache/blocks.0.hook_resid_post\n"                                                    \
	"/d_model other d_model:2 -\n"                                                         \
	"/nothing other nothing:0 -\n"                                                         \
	"/pos other pos:7 -\n"                                                                 \
	"/prompt other prompt:12 -\n"                                                          \
	"/prompts/answer_text string prompt:12 answer:2 -\n"                                   \
	"/prompts/length int32 prompt:12 -\n"                                                  \
	"/prompts/text string prompt:12 -\n"                                                   \
	"/prompts/tokens int32 prompt:12 pos:7 -\n"                                            \
	"/results/answer_rank int32 prompt:12 answer:2 -\n"                                    \
	"/results/none float64 prompt:12 nothing:0 -\n"

static void check_shapes(const char *want)
{
	struct lens_buf b = LENS_BUF_INIT;

	ok(lens_store_walk(test_path, join_info, &b, err));
	assert_string_equal(b.data, want);
	lens_buf_release(&b);
}

static void test_pack(void **state)
{
	struct lens_shard_record *e;
	size_t i, n;

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, NULL, err));
	test_check_sound(test_path);
	check_shapes(SHAPES);
	check_cache("/cache/blocks.0.hook_resid_post", false);
	check_cache("/cache/blocks.1.hook_resid_pre", false);
	check_cache("/cache/blocks.0.attn.hook_z", true);
	check_tables();
	check_attrs();
	ok(lens_store_read_shards(test_path, &e, &n, err));
	assert_int_equal(n, 0);
	for (i = 0; i < TEST_SHARDS; i++) /* the packed file needs them no more */
		assert_int_equal(unlink(test_shard_file[i]), 0);
	test_check_sound(test_path);
}

static void test_virtual(void **state)
{
	size_t extent[LENS_MAX_RANK], i, n, first = 0;
	struct lens_shard_record *e;
	struct stat sb;
	double *v;
	int rank;

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL, NULL, err));
	test_check_sound(test_path);
	check_shapes(SHAPES "/shard other shard:3 -\n"
			    "/shards/first_row int64 shard:3 -\n"
			    "/shards/n_rows int64 shard:3 -\n"
			    "/shards/name string shard:3 -\n"
			    "/shards/sha256 string shard:3 -\n"
			    "/shards/size int64 shard:3 -\n");
	check_tables();
	check_attrs();
	/* Our own reader does not go through to other files. */
	fails(LENS_ERR_FORMAT, lens_store_read_f64(test_path, "/cache/blocks.0.attn.hook_z", &v,
						   &rank, extent, err));
	ok(lens_store_read_shards(test_path, &e, &n, err));
	assert_int_equal(n, TEST_SHARDS);
	for (i = 0; i < n; i++) {
		assert_string_equal(e[i].name, test_shard_name[i]);
		assert_int_equal(stat(test_shard_file[i], &sb), 0);
		assert_int_equal(e[i].size, sb.st_size);
		assert_int_equal(e[i].first_row, first);
		assert_int_equal(e[i].n_rows, test_shard_rows[i]);
		first += test_shard_rows[i];
	}
	lens_store_shards_release(e, n);
	fails(LENS_ERR_FORMAT, lens_store_join(&(struct lens_shard_file){ .file = test_path },
					       1, test_part, LENS_JOIN_PACK, NULL, err));
}

/* A sweep that a version up to 0.3 began: its shards are joined with ours. */
static void test_old_shards(void **state)
{
	enum lens_join how[] = { LENS_JOIN_VIRTUAL, LENS_JOIN_PACK };
	struct lens_buf all_new, b;
	size_t i, shard;

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, NULL, err));
	all_new = test_slurp(test_path);
	for (shard = 0; shard < TEST_SHARDS; shard += 2) { /* the first, then the last too */
		test_as_sha256(test_shard_file[shard]);
		for (i = 0; i < 2; i++) {
			ok(lens_store_join(test_shards, TEST_SHARDS, test_path, how[i], NULL,
					   err));
			test_check_sound(test_path);
			check_tables();
			check_attrs();
		}
		b = test_slurp(test_path);
		assert_int_equal(b.len, all_new.len);
		assert_memory_equal(b.data, all_new.data, b.len);
		lens_buf_release(&b);
	}
	lens_buf_release(&all_new);
}

/* The virtual file is the same bytes each time, and the packed one too. */
static void test_same_bytes(void **state)
{
	enum lens_join how[] = { LENS_JOIN_VIRTUAL, LENS_JOIN_PACK };
	struct lens_buf a, b;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		ok(lens_store_join(test_shards, TEST_SHARDS, test_path, how[i],
				   &test_join_quick, err));
		a = test_slurp(test_path);
		ok(lens_store_join(test_shards, TEST_SHARDS, test_path, how[i],
				   &test_join_quick, err));
		b = test_slurp(test_path);
		assert_int_equal(a.len, b.len);
		assert_memory_equal(a.data, b.data, a.len);
		lens_buf_release(&a);
		lens_buf_release(&b);
	}
}

/* A file that is no shard is packed to an equal one. */
static void test_single(void **state)
{
	struct test_recipe r = test_recipe_of(0);
	char *identity;

	(void)state;
	r.number = -1;
	test_write_shard(0, &r);
	ok(lens_store_join(test_shards, 1, test_path, LENS_JOIN_PACK, NULL, err));
	test_check_sound(test_path);
	ok(lens_store_read_attr(test_path, "/", "identity", &identity, err));
	assert_string_equal(identity, "one");
	lens_free(identity);
	fails(LENS_ERR_INVALID,
	      lens_store_join(test_shards, 1, test_shard_file[0], LENS_JOIN_PACK, NULL, err));
	fails(LENS_ERR_INVALID,
	      lens_store_join(test_shards, 0, test_path, LENS_JOIN_PACK, NULL, err));
	r = test_recipe_of(1);
	test_write_shard(1, &r);
	fails(LENS_ERR_FORMAT,
	      lens_store_join(&test_shards[1], 1, test_path, LENS_JOIN_PACK, NULL, err));
}

/* The shards' own chunks are of other shapes than the joined file's. */
static void test_other_chunks(void **state)
{
	struct test_recipe r = test_recipe_of(1);

	(void)state;
	r.chunk_rows = 3; /* the chunk that is left out: three rows of two positions */
	test_write_shard(1, &r);
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, NULL, err));
	test_check_sound(test_path);
	check_tables();
}

/* --- while it runs --------------------------------------------------------------- */

static void test_stop(void **state)
{
	atomic_int stop = 1;
	struct lens_join_options o = { .stop = &stop };
	size_t n, n_bad;

	(void)state;
	fails(LENS_ERR_INTERRUPTED,
	      lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, &o, err));
	o.quick = true;
	fails(LENS_ERR_INTERRUPTED,
	      lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, &o, err));
	assert_false(lens_file_exists(test_path));
	fails(LENS_ERR_INTERRUPTED,
	      lens_store_verify_parallel(test_shard_file[0],
					 &(struct lens_verify_options){ 2, &stop, NULL, NULL },
					 &n, &n_bad, err));
}

struct progress {
	uint64_t last, total;
};

static void see_progress(void *ctx, uint64_t done, uint64_t total)
{
	struct progress *p = ctx;

	assert_true(done >= p->last && done <= total && (!p->total || p->total == total));
	p->last = done;
	p->total = total;
}

static void test_progress(void **state)
{
	struct progress p = { .last = 0 };
	struct lens_join_options o = { .progress = see_progress, .ctx = &p, .n_processes = 2 };

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_PACK, &o, err));
	assert_true(p.last > 0 && p.total > 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST_JOIN(test_pack),       TEST_JOIN(test_virtual),
		TEST_JOIN(test_old_shards), TEST_JOIN(test_same_bytes),
		TEST_JOIN(test_single),     TEST_JOIN(test_other_chunks),
		TEST_JOIN(test_stop),       TEST_JOIN(test_progress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
