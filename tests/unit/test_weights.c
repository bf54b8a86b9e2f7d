/*
 * unit/test_weights.c: weights that cannot be written, as a file and as a folder:
 * allocations and system calls fail in turn, or a signal comes. An error, and under the
 * final name what was there before; nothing leaked (under ASan). Values:
 * tests/cli/check_weights.py and check_weights_folder.py.
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
static enum lens_weights_format format;

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

/* What the folder holds beside config.json and model.safetensors, too. */
static void remove_output(void)
{
	char pattern[80];
	glob_t found;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s/*", output);
	if (!glob(pattern, 0, NULL, &found)) {
		for (i = 0; i < found.gl_pathc; i++)
			unlink(found.gl_pathv[i]);
		globfree(&found);
	}
	unlink(output);
	rmdir(output);
}

static int remove_folder(void **state)
{
	(void)state;
	remove_output();
	return rmdir(folder); /* also: nothing else is left in it */
}

static int choose_file(void **state)
{
	(void)state;
	format = LENS_WEIGHTS_HDF5;
	snprintf(output, sizeof(output), "%s/w.h5", folder);
	return 0;
}

static int choose_folder(void **state)
{
	remove_output();
	choose_file(state);
	format = LENS_WEIGHTS_HOOKED_TRANSFORMER;
	return 0;
}

static enum lens_status try_to_write(const char *weights, const atomic_int *stop)
{
	const struct lens_weights_options opt = { .format = format,
						  .overwrite = true,
						  .stop = stop };
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

/* Of a folder: its weights' and its config's, and every file is there. */
static void look_into_folder(char digest[LENS_SHA256_HEX])
{
	static const char *const name[] = { "model.safetensors", "config.json",
					    "tokenizer.json", "tokenizer_config.json" };
	struct lens_buf all = LENS_BUF_INIT, b = LENS_BUF_INIT;
	uint8_t sha[LENS_SHA256_BYTES];
	char path[96];
	size_t i;

	for (i = 0; i < sizeof(name) / sizeof(*name); i++) {
		snprintf(path, sizeof(path), "%s/%s", output, name[i]);
		assert_int_equal(lens_file_read(path, 1 << 20, &b, NULL), LENS_OK);
		assert_int_equal(lens_buf_append(&all, b.data, b.len, NULL), LENS_OK);
	}
	assert_int_equal(lens_sha256(all.data, all.len, sha, NULL), LENS_OK);
	lens_hex(sha, sizeof(sha), digest);
	lens_buf_release(&all);
	lens_buf_release(&b);
}

/* The digest of what was written, which is there and whole; nothing is beside it. */
static void look(char digest[LENS_SHA256_HEX])
{
	struct lens_shard_facts state;
	char pattern[80];
	glob_t found;

	if (format == LENS_WEIGHTS_HDF5) {
		assert_int_equal(lens_store_check(output, NULL, &state, NULL), LENS_OK);
		memcpy(digest, state.sha256, LENS_SHA256_HEX);
	} else {
		look_into_folder(digest);
	}
	snprintf(pattern, sizeof(pattern), "%s/*", folder);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 1);
	globfree(&found);
}

/* Raw weights are there; processed ones are to replace them. */
static void start(char old[LENS_SHA256_HEX])
{
	remove_output();
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
		cmocka_unit_test_setup(test_allocations, choose_file),
		cmocka_unit_test_setup(test_system_calls, choose_file),
		cmocka_unit_test_setup(test_stop, choose_file),
		cmocka_unit_test_setup(test_allocations, choose_folder),
		cmocka_unit_test_setup(test_system_calls, choose_folder),
		cmocka_unit_test_setup(test_stop, choose_folder),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
