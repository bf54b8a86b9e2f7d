/*
 * test_plan_fit.c: how many blocks a batch has: enough to pack the weights seldom, not so
 * many that a worker waits for the others, and fewer where memory is short. The rows of a
 * batch depend on the level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "plan/plan_private.h"
#include "support/plans.h"
#include "support/runs.h"

#define PLENTY ((size_t)64 << 30)
#define MOST_ROWS 1024

static struct test_random rnd = { 5 };

/* A plan of n prompts of so many tokens each, cache of everything or nothing. */
struct fixture {
	struct lens_experiment e;
	struct lens_prompts *prompts;
	struct lens_plan p;
};

static void start(struct fixture *f, const char *hooks, size_t n, size_t length)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	f->e = test_plan_experiment(hooks, "all", "f32");
	f->prompts = test_make_prompts(n, 2);
	for (i = 0; i < n; i++)
		test_set_length(&rnd, f->prompts, i, length);
	if (lens_plan_init(&f->p, &test_shapes, f->prompts, &f->e, &err) != LENS_OK)
		fail_msg("%s", err.text);
}

static void finish(struct fixture *f)
{
	lens_plan_release(&f->p);
	lens_experiment_release(&f->e);
	lens_prompts_destroy(f->prompts);
}

static struct lens_memory fit(struct fixture *f, size_t threads, size_t bytes)
{
	const struct lens_available is = { bytes, LENS_MEMORY_GIVEN };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_memory m;

	if (lens_plan_fit(&f->p, threads, &is, &m, &err) != LENS_OK)
		fail_msg("%s", err.text);
	return m;
}

/* 128 prompts are 16 blocks of 8: as many batches as workers, if those are not too large. */
static void wide_batches(void **state)
{
	size_t threads;
	struct fixture f;

	(void)state;
	start(&f, "*", 128, 12);
	assert_int_equal(f.p.block_rows, 8);
	for (threads = 1; threads <= 20; threads++) {
		struct lens_memory m = fit(&f, threads, PLENTY);

		assert_int_equal(m.workers, lens_min(threads, f.p.n_batches));
		assert_int_equal(f.p.block_rows, 8);
		assert_int_equal(f.p.batch_rows % 8, 0);
		assert_true(lens_batch_rows(f.p.batch_rows, 12) <= MOST_ROWS);
		assert_true(f.p.max_packed >= lens_batch_rows(f.p.batch_rows, 12));
		assert_int_equal(f.p.tables.batch_rows, f.p.batch_rows);
		assert_int_equal(f.p.capture.batch_rows, f.p.batch_rows);
	}
	/* 16 blocks on two workers: 8 each; on four, 4 each */
	fit(&f, 2, PLENTY);
	assert_int_equal(f.p.n_batches, 2);
	fit(&f, 4, PLENTY);
	assert_int_equal(f.p.n_batches, 4);
	/* on three 6, 6 and 4, or 3 batches of 2 for each and one: more packing, no sooner */
	fit(&f, 3, PLENTY);
	assert_int_equal(f.p.n_batches, 3);
	finish(&f);
}

/* Three blocks on two workers: one of them has two to do, together or not. */
static void uneven(void **state)
{
	struct fixture f;

	(void)state;
	start(&f, "*", 20, 30);
	fit(&f, 2, PLENTY);
	/* 8 and 4 rows beside 8 */
	assert_int_equal(f.p.n_batches, 3);
	finish(&f);
}

/* From too little for all to plenty: never fewer workers, the blocks stay what they are. */
static void small_memory(void **state)
{
	const struct lens_available plenty = { PLENTY, LENS_MEMORY_GIVEN };
	struct lens_memory least, all, m;
	size_t bytes, rows = 0;
	struct fixture f;

	(void)state;
	start(&f, "*", 128, 12);
	assert_int_equal(f.p.batch_rows, 8);
	assert_int_equal(lens_plan_memory(&f.p, 1, &plenty, &least, NULL), LENS_OK);
	all = fit(&f, 2, PLENTY);
	assert_int_equal(f.p.batch_rows, 64);
	for (bytes = least.total; bytes < all.total; bytes += 1 << 20) {
		m = fit(&f, 2, bytes);
		assert_true(m.total <= bytes);
		assert_int_equal(f.p.block_rows, 8);
		if (m.workers < 2)
			assert_int_equal(f.p.batch_rows, 8);
		assert_true(f.p.batch_rows >= rows);
		rows = f.p.batch_rows;
	}
	assert_int_equal(rows, 64);
	finish(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wide_batches),
		cmocka_unit_test(uneven),
		cmocka_unit_test(small_memory),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
