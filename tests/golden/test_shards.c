/*
 * golden/test_shards.c: a sweep in shards gives what one file gives, bit for bit
 * in every dataset, through the joined file and through the packed one: on any
 * number of threads, stopped and gone on with, or in tasks. Once per CPU level
 * (H5LENS_TEST_CPU).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/h5file.h"
#include "support/runs.h"
#include "support/samefile.h"
#include "support/sweeps.h"
#include "sweep/sweep_private.h"

#define MODEL "tests/golden/data/gpt2_gelu"
#define ROWS 22 /* shards of 4, 4, 4, 4, 4, 2 */
#define SHARDS 6

static struct test_sweep whole, sharded;

static void set_both(const char *key, const char *value)
{
	test_set(&whole.e, key, value, NULL);
	test_set(&sharded.e, key, value, NULL);
}

static int set_up(void **state)
{
	(void)state;
	test_sweep_init(&whole, MODEL, ROWS, false);
	test_sweep_init(&sharded, MODEL, ROWS, true);
	set_both("tables", "all");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_sweep_release(&whole);
	test_sweep_release(&sharded);
	return 0;
}

/* Joined and packed: the same as one file. */
static void expect_equal(void)
{
	char *packed = lens_path_join(sharded.dir, "packed.h5");
	struct lens_error err = LENS_ERROR_INIT;
	size_t n;

	assert_int_equal(test_sweep_count(&sharded, ".h5"), SHARDS);
	assert_int_equal(test_sweep_parts(&sharded), 0);
	assert_int_equal(test_sweep_count(&sharded, ".run"), 0);
	test_expect_sound(sharded.output);
	n = test_same_file(whole.output, sharded.output);
	assert_true(n > 20);
	if (lens_pack(sharded.output, packed, true, NULL, &err) != LENS_OK)
		fail_msg("%s: %s", err.file, err.text);
	test_expect_sound(packed);
	assert_int_equal(test_same_file(whole.output, packed), n);
	lens_free(packed);
}

static void test_threads(void **state)
{
	static const char *const threads[] = { "1", "2", "3" };
	size_t i;

	(void)state;
	test_sweep_must(&whole, NULL);
	assert_false(lens_file_exists(whole.shards));
	for (i = test_quick() ? 2 : 0; i < 3; i++) {
		test_sweep_clear(&sharded);
		test_set(&sharded.e, "threads", threads[i], NULL);
		test_sweep_must(&sharded, NULL);
		assert_int_equal(sharded.result.outcome, LENS_RUN_DONE);
		assert_int_equal(sharded.result.n_shards, SHARDS);
		assert_int_equal(sharded.result.n_shards_done, SHARDS);
		expect_equal();
	}
}

/* Every way into the file: halves, one position, an alias, a pos axis that differs by shard. */
static void test_sorts(void **state)
{
	static const char *const set[][2] = {
		{ "cache.dtype", "f16" },
		{ "cache.positions", "last" },
		{ "cache.positions", "[0, -1]" },
		{ "cache.hooks", "*resid_pre,*resid_post,*hook_pattern,*hook_result,logits" },
		{ "cache.hooks", "none" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < (test_quick() ? 2 : sizeof(set) / sizeof(*set)); i++) {
		test_sweep_clear(&whole);
		test_sweep_clear(&sharded);
		set_both(set[i][0], set[i][1]);
		test_sweep_must(&whole, NULL);
		test_sweep_must(&sharded, NULL);
		expect_equal();
	}
}

/* The joined file keeps the two names of one array. */
static void test_alias(void **state)
{
	struct test_h5 *f;

	(void)state;
	test_sweep_must(&sharded, NULL);
	f = test_h5_open(sharded.output);
	assert_true(test_h5_has(f, "/cache/blocks.1.hook_resid_pre"));
	assert_true(test_h5_has(f, "/cache/blocks.0.hook_resid_post"));
	assert_true(test_h5_has(f, "/results/token_logprobs"));
	test_h5_close(f);
}

/* Stopped after each shard in turn, and gone on with on other threads. */
static void test_stopped(void **state)
{
	size_t rows, k, n = test_quick() ? 2 : 5;
	atomic_int stop = 1;
	const struct lens_run_options at_once = { .stop = &stop };

	(void)state;
	test_sweep_must(&whole, NULL);
	assert_int_equal(test_sweep_run(&sharded, &at_once), LENS_ERR_INTERRUPTED);
	test_expect_said(sharded.err.text, "nothing was changed");
	assert_false(lens_file_exists(sharded.shards));
	test_sweep_stop_after(&sharded, 0);
	test_expect_said(sharded.err.text, "0 of 6 shards are kept");
	test_expect_said(sharded.err.text, "did not finish one batch of a shard of 4 prompts");
	for (k = 1; k <= n; k++) {
		char said[40];

		rows = 4 * k;
		test_set(&sharded.e, "threads", k % 2 ? "1" : "3", NULL);
		test_sweep_stop_after(&sharded, rows);
		snprintf(said, sizeof(said), "%zu of 6 shards are kept", k);
		test_expect_said(sharded.err.text, said);
		assert_int_equal(sharded.result.progress.rows_kept, 4 * (k - 1));
	}
	test_set(&sharded.e, "threads", "2", NULL);
	test_sweep_must(&sharded, NULL);
	assert_int_equal(sharded.result.progress.rows_done, ROWS);
	expect_equal();
}

static void expect_merge(enum lens_status want, const char *said)
{
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st = lens_merge(sharded.output, NULL, &err);

	if (st != want)
		fail_msg("merge: status %d, '%s'", (int)st, err.text);
	if (said)
		test_expect_said(err.text, said);
}

static void ends_as(size_t i, size_t n, enum lens_run_outcome outcome)
{
	if (test_sweep_task(&sharded, i - 1, n) != LENS_OK)
		fail_msg("task %zu/%zu: %s", i, n, sharded.err.text);
	assert_int_equal(sharded.result.outcome, outcome);
	assert_int_equal(lens_file_exists(sharded.output), outcome == LENS_RUN_LAST_DONE);
}

static void task(size_t i, size_t n)
{
	ends_as(i, n, LENS_RUN_SHARE_DONE);
}

static void test_tasks(void **state)
{
	(void)state;
	test_sweep_must(&whole, NULL);
	expect_merge(LENS_ERR_IO, "find it or its shards");
	task(2, 3);
	expect_merge(LENS_ERR_UNFINISHED, "4 of 6 shards are missing: "
					  "00000.h5, 00002.h5, 00003.h5, 00005.h5");
	task(3, 3);
	ends_as(1, 3, LENS_RUN_LAST_DONE);
	expect_equal();
	/* One that was killed before it joined them: any task does, and so does merge. */
	assert_int_equal(unlink(sharded.output), 0);
	ends_as(2, 3, LENS_RUN_LAST_DONE);
	expect_equal();
	assert_int_equal(unlink(sharded.output), 0);
	expect_merge(LENS_OK, NULL);
	expect_equal();
	/* All is there: a task, the whole run and merge have nothing to do. */
	assert_int_equal(test_sweep_task(&sharded, 0, 3), LENS_OK);
	assert_int_equal(sharded.result.outcome, LENS_RUN_ALREADY_DONE);
	test_sweep_must(&sharded, NULL);
	assert_int_equal(sharded.result.outcome, LENS_RUN_ALREADY_DONE);
	expect_merge(LENS_OK, NULL);
	expect_equal();
}

/* Another process that holds a share of the folder until it is told to end. */
static pid_t hold(size_t i, size_t n, int *end)
{
	const struct lens_share share = { i - 1, n };
	struct lens_claim *c;
	int told[2], hold[2];
	pid_t pid;
	char byte;

	assert_int_equal(pipe(told), 0);
	assert_int_equal(pipe(hold), 0);
	pid = fork();
	if (!pid) {
		close(hold[1]);
		if (lens_claim_take(sharded.shards, &share, &c, NULL) != LENS_OK ||
		    write(told[1], "", 1) != 1 || read(hold[0], &byte, 1) < 0)
			_exit(1);
		lens_claim_release(c);
		_exit(0);
	}
	close(told[1]);
	close(hold[0]);
	assert_int_equal(read(told[0], &byte, 1), 1);
	close(told[0]);
	*end = hold[1];
	return pid;
}

static void let_go(pid_t pid, int end)
{
	int status;

	close(end);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Who finds another at work leaves the joining to it; who comes while one joins, too. */
static void test_last_of_tasks(void **state)
{
	static const int locks[] = { 0, ENOLCK };
	size_t i;
	pid_t pid;
	int end;

	(void)state;
	test_sweep_must(&whole, NULL);
	for (i = 0; i < 2; i++) {
		test_sweep_clear(&sharded);
		lens_sys_lock_errno(locks[i]);
		task(1, 3);
		task(2, 3);
		pid = hold(1, 3, &end);
		task(3, 3);
		let_go(pid, end);
		pid = hold(1, 1, &end);
		task(3, 3);
		assert_int_equal(sharded.result.progress.rows_kept, 6);
		assert_int_equal(test_sweep_run(&sharded, NULL), LENS_ERR_BUSY);
		let_go(pid, end);
		ends_as(3, 3, LENS_RUN_LAST_DONE);
		lens_sys_lock_errno(0);
		expect_equal();
	}
}

/* A task, then another cut of the rest, then everybody else's at once. */
static void test_other_tasks(void **state)
{
	(void)state;
	test_sweep_must(&whole, NULL);
	task(1, 3); /* 0, 3 */
	test_set(&sharded.e, "threads", "2", NULL);
	task(2, 2); /* 1, 3, 5 */
	assert_int_equal(sharded.result.progress.rows_kept, 4);
	task(40, 40);
	assert_int_equal(sharded.result.progress.rows_total, 0);
	test_sweep_must(&sharded, NULL);
	assert_int_equal(sharded.result.outcome, LENS_RUN_DONE);
	assert_int_equal(sharded.result.progress.rows_kept, 14);
	expect_equal();
}

/* Tasks of a sweep that is one shard: one of them makes it. */
static void test_tasks_of_one(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(test_sweep_task(&whole, 1, 3), LENS_OK);
	assert_int_equal(whole.result.outcome, LENS_RUN_SHARE_DONE);
	assert_false(lens_file_exists(whole.output));
	assert_int_equal(test_sweep_task(&whole, 0, 3), LENS_OK);
	assert_true(lens_file_exists(whole.output));
	assert_int_equal(lens_merge(whole.output, NULL, &err), LENS_OK);
	test_expect_sound(whole.output);
	assert_false(lens_file_exists(whole.shards));
}

/* One file packs to itself, shards without their joined file too; through a link. */
static void test_pack(void **state)
{
	char *packed = lens_path_join(sharded.dir, "packed.h5");
	char *link = lens_path_join(whole.dir, "link.h5");
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	test_sweep_must(&whole, NULL);
	assert_int_equal(lens_pack(whole.output, packed, false, NULL, &err), LENS_OK);
	test_same_file(whole.output, packed);
	assert_int_equal(lens_pack(whole.output, packed, false, NULL, &err), LENS_ERR_INVALID);
	test_sweep_must(&sharded, NULL);
	assert_int_equal(symlink(sharded.output, link), 0);
	memset(&err, 0, sizeof(err));
	assert_int_equal(lens_pack(link, packed, true, NULL, &err), LENS_OK);
	test_same_file(whole.output, packed);
	unlink(sharded.output);
	memset(&err, 0, sizeof(err));
	assert_int_equal(lens_pack(sharded.output, packed, true, NULL, &err), LENS_OK);
	test_same_file(whole.output, packed);
	unlink(test_sweep_path(&sharded, "00003.h5"));
	assert_int_equal(lens_pack(sharded.output, packed, true, NULL, &err),
			 LENS_ERR_UNFINISHED);
	test_expect_said(err.text, "1 of 6 shards is missing: 00003.h5");
	test_expect_sound(packed);
	lens_free(packed);
	lens_free(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sorts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_alias, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stopped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tasks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_last_of_tasks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_tasks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tasks_of_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pack, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
