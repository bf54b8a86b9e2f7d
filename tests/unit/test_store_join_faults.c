/*
 * test_store_join_faults.c: joining when the world fails: memory, system calls,
 * single bits and the processes that read for us.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/joins.h"
#include "support/runs.h"
#include "support/storefile.h"

/* --- faults ------------------------------------------------------------------------ */

/* Every allocation of the beginning, and of the rest every step-th. */
static void test_no_memory(void **state)
{
	enum lens_join how[] = { LENS_JOIN_VIRTUAL, LENS_JOIN_PACK };
	unsigned long k, step = getenv("H5LENS_TEST_QUICK") ? 41 : 11;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		for (k = 1;; k += k < 100 ? 1 : step) {
			struct lens_error err = LENS_ERROR_INIT;
			enum lens_status st;

			lens_alloc_fail_at(k);
			st = lens_store_join(test_shards, TEST_SHARDS, test_path, how[i],
					     &test_join_quick, &err);
			lens_alloc_fail_at(0);
			assert_false(test_part_left(test_path));
			assert_int_equal(err.code, st);
			if (st == LENS_OK)
				break;
			if (st != LENS_ERR_NOMEM)
				fail_msg("%lu: %s", k, err.text);
			assert_false(lens_file_exists(test_path));
		}
		assert_true(k > 300);
		test_check_sound(test_path);
		assert_int_equal(unlink(test_path), 0);
	}
}

static void faults(enum lens_join how, bool for_ever, int errno_, enum lens_status code)
{
	unsigned long k;
	size_t whole = 0;

	for (k = 1;; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		enum lens_status st;

		lens_sys_fail_at(k, errno_, for_ever);
		st = lens_store_join(test_shards, TEST_SHARDS, test_path, how, &test_join_quick,
				     &err);
		lens_sys_fail_at(0, 0, false);
		assert_false(test_part_left(test_path));
		assert_int_equal(err.code, st);
		if (lens_file_exists(test_path)) { /* the last calls sync the folder */
			test_check_sound(test_path);
			assert_int_equal(unlink(test_path), 0);
			whole++;
		}
		if (st == LENS_OK)
			break;
		if (st != code)
			fail_msg("%lu: %d %s", k, (int)st, err.text);
		assert_non_null(strstr(err.text, strerror(errno_)));
	}
	assert_in_range(k, 20, 1000);
	assert_in_range(whole, 1, 3);
}

static void test_faults(void **state)
{
	(void)state;
	faults(LENS_JOIN_VIRTUAL, true, ENOSPC, LENS_ERR_NOSPACE);
	faults(LENS_JOIN_VIRTUAL, false, EIO, LENS_ERR_IO);
	faults(LENS_JOIN_PACK, false, EIO, LENS_ERR_IO);
}

/* An old file stays what it was. */
static void test_replace(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;
	unsigned long k;

	(void)state;
	ok(lens_file_replace(test_path, "old", 3, err));
	for (k = 1;; k++) {
		enum lens_status st;
		bool is_new;

		lens_sys_fail_at(k, EIO, false);
		st = lens_file_replace(test_path, "newer", 5, NULL);
		lens_sys_fail_at(0, 0, false);
		ok(lens_file_read(test_path, 100, &b, err));
		is_new = b.len == 5 && !memcmp(b.data, "newer", 5);
		assert_true(is_new || (b.len == 3 && !memcmp(b.data, "old", 3)));
		if (st == LENS_OK)
			break;
		assert_int_equal(st, LENS_ERR_IO);
		ok(lens_file_replace(test_path, "old", 3, err));
	}
	assert_int_equal(
		k, 8); /* open, write, fsync, close, rename, open and fsync of the folder */
	lens_buf_release(&b);
}

/* --- flipped bits ------------------------------------------------------------------ */

/*
 * One bit of the joined file or of a shard is wrong: found, or it carries
 * nothing; and whatever HDF5 makes of it, this process lives.
 */
static void test_flipped(void **state)
{
	const char *file[] = { test_path, test_shard_file[0], test_shard_file[2] };
	size_t i, n, n_bad, at, found = 0;
	unsigned long seed = 4711;
	struct lens_buf b;

	(void)state;
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL,
			   &test_join_quick, err));
	for (i = 0; i < 90; i++) {
		const char *name = file[i % 3];
		FILE *f;

		b = test_slurp(name);
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		at = (seed >> 20) % b.len;
		while (!b.data[at]) /* most of a small file is a gap */
			at = (at + 1) % b.len;
		b.data[at] = (char)(b.data[at] ^ (1 << (seed >> 60 & 7)));
		f = fopen(name, "r+b");
		assert_non_null(f);
		fseek(f, (long)at, SEEK_SET);
		fputc(b.data[at], f);
		fclose(f);
		found += lens_store_verify_parallel(test_path,
						    &(struct lens_verify_options){
							    .n_processes = 2 },
						    &n, &n_bad, NULL) != LENS_OK ||
			 n_bad;
		b.data[at] = (char)(b.data[at] ^ (1 << (seed >> 60 & 7)));
		f = fopen(name, "r+b");
		assert_non_null(f);
		fseek(f, (long)at, SEEK_SET);
		fputc(b.data[at], f);
		fclose(f);
		lens_buf_release(&b);
	}
	assert_in_range(found, 60, 90);
	test_check_sound(test_path);
}

/* --- children ---------------------------------------------------------------------- */

static enum lens_status crash(void *ctx, struct lens_buf *result, struct lens_error *err)
{
	(void)err, (void)result;
	if (*(int *)ctx == 0)
		return lens_error_at(err, LENS_ERR_MISMATCH, "f", 3, 4, "told");
	signal(*(int *)ctx, SIG_DFL); /* also under a sanitizer */
	raise(*(int *)ctx);
	return LENS_OK;
}

static enum lens_status sleep_long(void *ctx, struct lens_buf *result, struct lens_error *err)
{
	(void)ctx, (void)err;
	for (;;)
		pause();
	return lens_buf_append(result, "x", 1, err);
}

/* A child that a dead disk keeps does not keep its parent. */
static void test_stop(void **state)
{
	struct lens_buf result = LENS_BUF_INIT;
	atomic_int stop = 1;
	const struct lens_child_job job = { .fn = sleep_long, .file = "x.h5", .stop = &stop };
	size_t n, n_bad;

	(void)state;
	fails(LENS_ERR_INTERRUPTED, lens_child_call(&job, &result, err));
	assert_int_equal(result.len, 0);
	fails(LENS_ERR_INTERRUPTED,
	      lens_store_check_all(test_shards, TEST_SHARDS, NULL, &stop, NULL, err));
	fails(LENS_ERR_INTERRUPTED,
	      lens_store_verify_parallel(test_shard_file[0],
					 &(struct lens_verify_options){ 1, &stop, NULL, NULL },
					 &n, &n_bad, err));
	errno = 0;
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
	assert_int_equal(errno, ECHILD);
}

static void test_child(void **state)
{
	struct lens_buf result = LENS_BUF_INIT;
	int sig = SIGSEGV;
	const struct lens_child_job job = { .fn = crash, .ctx = &sig, .file = "x.h5" };
	struct lens_error e = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(lens_child_call(&job, &result, &e), LENS_ERR_FORMAT);
	assert_string_equal(e.file, "x.h5");
	assert_non_null(strstr(e.text, "signal 11"));
	sig = SIGTERM;
	fails(LENS_ERR_INTERRUPTED, lens_child_call(&job, &result, err));
	sig = 0;
	e = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_child_call(&job, &result, &e), LENS_ERR_MISMATCH);
	assert_string_equal(e.text, "told");
	assert_int_equal(e.row, 3);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST_JOIN(test_no_memory), TEST_JOIN(test_faults), TEST_JOIN(test_replace),
		TEST_JOIN(test_flipped),   TEST_JOIN(test_child),  TEST_JOIN(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
