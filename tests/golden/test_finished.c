/*
 * test_finished.c: an output that was finished, and then: given another name
 * with its folder, or replaced by the file that was packed of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/runs.h"
#include "support/samefile.h"
#include "support/sweeps.h"

#define MODEL "tests/golden/data/gpt2_unscaled"
#define ROWS 12 /* three shards */

static const struct lens_run_options repair = { .repair = true };
static struct test_sweep s;
static char *good; /* what was packed of it */

static int set_up(void **state)
{
	(void)state;
	test_sweep_init(&s, MODEL, ROWS, true);
	test_set(&s.e, "cache.hooks", "*resid_post", NULL);
	good = lens_path_join(s.dir, "good.h5");
	test_sweep_must(&s, NULL);
	assert_int_equal(lens_pack(s.output, good, false, NULL, NULL), LENS_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_sweep_release(&s);
	lens_free(good);
	return 0;
}

static void expect_good(const char *output)
{
	test_expect_sound(output);
	test_same_file(good, output);
}

/* --- another name -------------------------------------------------------------------- */

/* Output and folder, of the experiment too; from and to without their endings. */
static void rename_both(const char *from, const char *to)
{
	static const char *const ending[] = { ".h5", ".shards" };
	char was[256], is[256];
	size_t i;

	for (i = 0; i < 2; i++) {
		snprintf(was, sizeof(was), "%s/%s%s", s.dir, from, ending[i]);
		snprintf(is, sizeof(is), "%s/%s%s", s.dir, to, ending[i]);
		assert_int_equal(rename(was, is), 0);
	}
	is[strlen(is) - strlen("shards")] = '\0';
	strcat(is, "h5");
	test_set(&s.e, "output", is, NULL);
}

static bool is_finished(const char *output)
{
	struct lens_sweep_status sweep;
	bool is;

	assert_int_equal(lens_sweep_status_read(output, &sweep, NULL, NULL, NULL), LENS_OK);
	assert_int_equal(sweep.n_done, 3);
	is = sweep.finished;
	lens_sweep_status_release(&sweep);
	return is;
}

static void test_run_again(void **state)
{
	(void)state;
	rename_both("out", "other");
	assert_false(is_finished(s.e.output));
	test_sweep_must(&s, NULL);
	test_expect_said(s.notes, "have another name now");
	assert_int_equal(s.result.outcome, LENS_RUN_DONE);
	assert_int_equal(s.result.progress.rows_kept, ROWS);
	assert_true(is_finished(s.e.output));
	expect_good(s.e.output);
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
}

/* HDF5 reads "%b" in the name of a mapping's file as a number. */
static void test_percent(void **state)
{
	static const char *const name[] = { "out", "a%bx 100%", "a%%b", "%20" };
	size_t i;

	(void)state;
	for (i = 1; i < sizeof(name) / sizeof(name[0]); i++) {
		rename_both(name[i - 1], name[i]);
		test_sweep_must(&s, NULL);
		assert_int_equal(s.result.progress.rows_kept, ROWS);
		expect_good(s.e.output);
	}
}

static void test_merge_again(void **state)
{
	char *packed = lens_path_join(s.dir, "packed.h5");
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	rename_both("out", "other");
	assert_int_equal(lens_pack(s.e.output, packed, false, NULL, &err), LENS_ERR_FORMAT);
	test_expect_said(err.text, "`h5lens merge ");
	assert_int_equal(lens_merge(s.e.output, NULL, NULL), LENS_OK);
	assert_true(is_finished(s.e.output));
	expect_good(s.e.output);
	lens_free(packed);
}

/* With a shard less it is no question of names. */
static void test_shard_less(void **state)
{
	(void)state;
	unlink(test_sweep_path(&s, "00001.h5"));
	rename_both("out", "other");
	assert_int_equal(test_sweep_run(&s, NULL), LENS_ERR_FORMAT);
	test_expect_said(s.err.text, "3 of 3 shards are missing");
	test_expect_said(s.err.text, "`run --repair`");
	test_sweep_must(&s, &repair);
	assert_int_equal(s.result.progress.rows_kept, 8);
	expect_good(s.e.output);
}

/* --- damaged ------------------------------------------------------------------------- */

/* The list of shards: 0, 4, 8 becomes 0, 5, 8. */
static void test_list(void **state)
{
	static const int64_t first[] = { 0, 4, 8 };
	struct lens_buf b = LENS_BUF_INIT;
	char *at;
	FILE *f;

	(void)state;
	assert_int_equal(lens_file_read(s.output, (size_t)1 << 26, &b, NULL), LENS_OK);
	at = memmem(b.data, b.len, first, sizeof(first));
	assert_non_null(at);
	at[8] ^= 1;
	f = fopen(s.output, "wb");
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	lens_buf_release(&b);
	assert_int_equal(test_sweep_run(&s, NULL), LENS_ERR_FORMAT);
	test_expect_said(s.err.text, "`run --repair` makes it again of its shards");
	test_sweep_must(&s, &repair);
	test_expect_said(s.notes, "is made again of its shards");
	assert_int_equal(s.result.progress.rows_kept, ROWS);
	expect_good(s.output);
}

/* What only HDF5's own listing of a file reads: it holds no data, but h5py stops there. */
static void test_free_space(void **state)
{
	const char *path = test_sweep_path(&s, "00001.h5"), *at;
	struct lens_buf b = LENS_BUF_INIT;
	size_t n, n_bad, found = 0;
	FILE *f;

	(void)state;
	assert_int_equal(lens_file_read(path, (size_t)1 << 26, &b, NULL), LENS_OK);
	for (at = b.data; (at = memmem(at, b.len - (size_t)(at - b.data), "FSHD", 4)); at++) {
		b.data[at - b.data + 10] ^= 1;
		f = fopen(path, "wb");
		assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
		assert_int_equal(fclose(f), 0);
		b.data[at - b.data + 10] ^= 1;
		assert_true(lens_store_verify_parallel(
				    path, &(struct lens_verify_options){ .n_processes = 1 }, &n,
				    &n_bad, NULL) == LENS_ERR_FORMAT ||
			    n_bad);
		found++;
	}
	assert_true(found > 1);
	lens_buf_release(&b);
}

static void test_plan(void **state)
{
	FILE *f = fopen(test_sweep_path(&s, "plan.json"), "wb");

	(void)state;
	assert_int_equal(fclose(f), 0);
	unlink(s.output);
	assert_int_equal(test_sweep_run(&s, NULL), LENS_ERR_FORMAT);
	test_expect_said(s.err.text, "`run --repair` writes it anew");
	test_sweep_must(&s, &repair);
	test_expect_said(s.notes, "the plan is damaged: it is written anew");
	assert_int_equal(s.result.progress.rows_kept, ROWS);
	expect_good(s.output);
}

/* --- packed --------------------------------------------------------------------------- */

static void test_packed(void **state)
{
	(void)state;
	test_copy_file(good, s.output);
	test_remove_tree(s.shards);
	test_sweep_must(&s, &repair);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	assert_false(lens_file_exists(s.shards));
	test_flip(s.output);
	test_sweep_must(&s,
			NULL); /* as for every finished output, `verify` is asked for that */
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	test_sweep_must(&s, &repair);
	assert_int_equal(s.result.outcome, LENS_RUN_DONE);
	test_expect_said(s.notes, "it is made again, in shards");
	expect_good(s.output);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_run_again), T(test_merge_again), T(test_percent), T(test_shard_less),
		T(test_list),      T(test_free_space),  T(test_plan),    T(test_packed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
