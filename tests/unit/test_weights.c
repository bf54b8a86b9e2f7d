/*
 * unit/test_weights.c: a file of weights that cannot be written: allocations and
 * system calls fail in turn, or a signal comes. An error, and under the final name
 * what was there before; nothing leaked (under ASan). Values: tests/cli/check_weights.py.
 */
#include <errno.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/pipeline.h"
#include "h5lens/sys.h"

#define MODEL "tests/golden/data/llama_gqa"

static char folder[] = "/tmp/h5lens-weights-XXXXXX";
static char output[64];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(output, sizeof(output), "%s/w.h5", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(output);
	return rmdir(folder); /* also: nothing else is left in it */
}

static enum lens_status try_to_write(const char *weights, const atomic_int *stop)
{
	const struct lens_weights_options opt = { .overwrite = true, .stop = stop };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_weights_result result;
	struct lens_experiment e;
	enum lens_status st = lens_experiment_init(&e, &err);

	if (st == LENS_OK)
		st = lens_experiment_set(&e, "model", MODEL, &err);
	if (st == LENS_OK)
		st = lens_experiment_set(&e, "output", output, &err);
	if (st == LENS_OK)
		st = lens_experiment_set(&e, "weights", weights, &err);
	if (st == LENS_OK)
		st = lens_weights_write(&e, &opt, &result, &err);
	lens_experiment_release(&e);
	assert_int_equal(st, err.code);
	assert_true(st == LENS_OK || *err.text);
	return st;
}

/* The digest of the file, which is there and whole; nothing is beside it. */
static void look(char digest[LENS_SHA256_HEX])
{
	struct lens_shard_facts state;
	char pattern[80];
	glob_t found;

	assert_int_equal(lens_store_check(output, NULL, &state, NULL), LENS_OK);
	memcpy(digest, state.sha256, LENS_SHA256_HEX);
	snprintf(pattern, sizeof(pattern), "%s/*", folder);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 1);
	globfree(&found);
}

/* Raw weights are there; processed ones are to replace them. */
static void start(char old[LENS_SHA256_HEX])
{
	unlink(output);
	assert_int_equal(try_to_write("raw", NULL), LENS_OK);
	look(old);
}

#define STEP 7

/*
 * The k-th allocation fails; false: it was not reached, but the one STEP before it was. One
 * that fails in a child process is not counted here, but the error is told.
 */
static bool fail_allocation(unsigned long k, enum lens_status *st)
{
	bool reached = true;
	int i;

	lens_alloc_fail_at(k);
	*st = try_to_write("processed", NULL);
	for (i = 0; i < STEP; i++) {
		void *p = lens_calloc(1, 1);

		reached = reached && p;
		lens_free(p);
	}
	lens_alloc_fail_at(0);
	return reached || *st != LENS_OK;
}

/* Some only: what reads a model and what writes a file have tests of their own. */
static void test_allocations(void **state)
{
	char old[LENS_SHA256_HEX], now[LENS_SHA256_HEX], new[LENS_SHA256_HEX];
	unsigned long k, failures = 0;
	enum lens_status st;

	(void)state;
	start(old);
	assert_int_equal(try_to_write("processed", NULL), LENS_OK);
	look(new);
	start(old);
	for (k = 1; fail_allocation(k, &st); k += STEP) {
		if (st != LENS_OK && st != LENS_ERR_NOMEM)
			fail_msg("allocation %lu: status %d", k, (int)st);
		failures += st != LENS_OK;
		look(now);
		assert_string_equal(now, st == LENS_OK ? new : old);
		if (st == LENS_OK)
			start(old);
	}
	print_message("%lu allocations, %lu errors\n", k, failures);
	assert_true(failures > 100);
}

static void test_system_calls(void **state)
{
	char old[LENS_SHA256_HEX], now[LENS_SHA256_HEX];
	unsigned long k, n, before;

	(void)state;
	start(old);
	before = lens_sys_calls();
	assert_int_equal(try_to_write("processed", NULL), LENS_OK);
	n = lens_sys_calls() - before;
	assert_true(n > 30);
	for (k = 1; k <= n; k++) {
		enum lens_status st;

		start(old);
		lens_sys_fail_at(k, ENOSPC, true);
		st = try_to_write("processed", NULL);
		lens_sys_fail_at(0, 0, false);
		assert_int_not_equal(st, LENS_OK);
		look(now);
		/* Only once it has its name, and the folder's fsync fails, it is the new one.
		 */
		assert_true(strcmp(now, old) == 0 || k + 2 >= n);
	}
	print_message("%lu system calls\n", n);
}

static void test_stop(void **state)
{
	char old[LENS_SHA256_HEX], now[LENS_SHA256_HEX];
	atomic_int stop = 1;

	(void)state;
	start(old);
	assert_int_equal(try_to_write("processed", &stop), LENS_ERR_INTERRUPTED);
	look(now);
	assert_string_equal(now, old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocations),
		cmocka_unit_test(test_system_calls),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
