/*
 * golden/test_faults.c: a run whose allocations fail, one after the other, or
 * whose disk is full from some call on: an error, no file, nothing leaked
 * (under ASan). Once per CPU level (H5LENS_TEST_CPU).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/runs.h"

#define MODEL "tests/golden/data/gpt2_unscaled"

/* A small experiment with an output that is not there yet. */
static int set_up(void **state)
{
	static struct lens_experiment e;
	char *output = test_tmp_path("faults.h5");

	unlink(output);
	test_experiment(&e, MODEL, MODEL "/prompts.csv", output);
	test_set(&e, "data.limit", "3", NULL);
	lens_free(output);
	*state = &e;
	return 0;
}

static int tear_down(void **state)
{
	struct lens_experiment *e = *state;

	unlink(e->output);
	lens_experiment_release(e);
	return 0;
}

static enum lens_status run_over(const struct lens_experiment *e)
{
	const struct lens_run_options over = { .overwrite = true };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;
	enum lens_status st = lens_run(e, &over, &result, &err);

	assert_int_equal(st, err.code);
	assert_true(st == LENS_OK || *err.text);
	return st;
}

/* What is run, and what is looked at afterwards, with allocations that work. */
struct subject {
	enum lens_status (*run)(const struct lens_experiment *e);
	void (*look)(const struct lens_experiment *e, enum lens_status st);
	char digest[LENS_SHA256_HEX]; /* of the first output */
};
static struct subject subject;

/* How many allocations one run makes. */
static unsigned long count_allocations(const struct lens_experiment *e)
{
	const unsigned long far = 1ul << 20;
	unsigned long left = 0;
	void *p = NULL;

	lens_alloc_fail_at(far);
	assert_int_equal(subject.run(e), LENS_OK);
	do {
		lens_free(p);
		p = lens_calloc(1, 1);
		left++;
	} while (p && left < far);
	lens_alloc_fail_at(0);
	assert_true(left < far);
	subject.look(e, LENS_OK);
	return far - left;
}

/*
 * Allocations fail in turn: some of those that read the inputs, which have
 * tests of their own, and all of the last, which make the file.
 */
static void sweep(const struct lens_experiment *e)
{
	unsigned long k, n = count_allocations(e), step, failures = 0, runs = 0;
	unsigned long last = test_quick() ? 40 : 120;

	for (k = 1; k <= n; k += step) {
		enum lens_status st;

		step = k + last < n ? n / last + 1 : 1;
		lens_alloc_fail_at(k);
		st = subject.run(e);
		lens_alloc_fail_at(0);
		if (st != LENS_OK && st != LENS_ERR_NOMEM)
			fail_msg("allocation %lu of %lu: status %d", k, n, (int)st);
		subject.look(e, st);
		failures += st != LENS_OK;
		runs++;
	}
	print_message("%lu allocations, %lu made to fail, %lu errors\n", n, runs, failures);
	assert_true(failures > runs / 4);
}

/*
 * No file, or the whole of it: what bears a failed allocation must not lose
 * anything by it. The digest of "/" covers all data and attributes.
 */
static void look_at_file(const struct lens_experiment *e, enum lens_status st)
{
	char *digest;

	assert_false(test_part_left(e->output));
	assert_int_equal(lens_file_exists(e->output), st == LENS_OK);
	if (st != LENS_OK)
		return;
	assert_int_equal(lens_store_read_attr(e->output, "/", "sha256", &digest, NULL),
			 LENS_OK);
	assert_non_null(digest);
	if (!*subject.digest)
		snprintf(subject.digest, sizeof(subject.digest), "%s", digest);
	assert_string_equal(digest, subject.digest);
	lens_free(digest);
	unlink(e->output);
}

static void test_alloc(void **state)
{
	subject = (struct subject){ run_over, look_at_file, "" };
	sweep(*state);
}

/* The same, asked for again: a finished file is looked at, another's refused. */
static enum lens_status run_again(const struct lens_experiment *e)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;
	enum lens_status st = lens_run(e, &none, &result, &err);

	assert_int_equal(st, err.code);
	assert_true(st != LENS_ERR_MISMATCH || strstr(err.text, "top_k: 10 there, 7 here"));
	return st == LENS_ERR_MISMATCH ? LENS_OK : st;
}

static void look_at_nothing(const struct lens_experiment *e, enum lens_status st)
{
	(void)st;
	assert_true(lens_file_exists(e->output));
}

static void test_alloc_again(void **state)
{
	struct lens_experiment *e = *state;

	subject = (struct subject){ run_again, look_at_nothing, "" };
	assert_int_equal(run_over(e), LENS_OK);
	sweep(e);
	test_set(e, "top_k", "7", NULL);
	sweep(e);
}

static void expect_sound(const char *file)
{
	size_t n, bad;

	assert_int_equal(lens_store_verify(file, NULL, NULL, &n, &bad, NULL), LENS_OK);
	assert_int_equal(bad, 0);
	assert_true(n > 0);
}

/*
 * A disk that is full from the k-th call on. The last call of all syncs the
 * folder of a file that is whole by then.
 */
static void test_full_disk(void **state)
{
	struct lens_experiment *e = *state;
	unsigned long k, step = test_quick() ? 17 : 5;
	size_t whole = 0;

	for (k = 1;; k += step) {
		enum lens_status st;

		lens_store_fail_at(k, ENOSPC);
		st = run_over(e);
		lens_store_fail_at(0, 0);
		assert_false(test_part_left(e->output));
		if (lens_file_exists(e->output)) {
			expect_sound(e->output);
			whole++;
		}
		unlink(e->output);
		if (st == LENS_OK)
			break;
		assert_int_equal(st, LENS_ERR_NOSPACE);
	}
	assert_true(k > step);
	assert_true(whole >= 1 && whole <= 2);
}

/* The same with chunks that go past the page cache, of a hundred prompts. */
static void test_full_disk_large(void **state)
{
	struct lens_experiment *e = *state;
	char *data = test_tmp_path("faults.csv");
	size_t i, order[100];
	struct test_csv csv;

	test_csv_read(MODEL "/prompts.csv", &csv);
	for (i = 0; i < 100; i++)
		order[i] = i % csv.n;
	test_csv_write(&csv, order, 100, data);
	test_set(e, "data.csv", data, "data.limit", "100", "cache.hooks", "*mlp.hook_post",
		 NULL);
	test_full_disk(state);
	unlink(data);
	lens_free(data);
	test_csv_release(&csv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alloc, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_alloc_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_disk_large, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
