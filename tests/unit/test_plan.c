/*
 * test_plan.c: the plan: links between hook points, what it refuses, and the
 * memory and workers it comes to. The memory depends on the level
 * (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/pipeline_private.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

#define MIB ((size_t)1 << 20)

static struct test_random rnd = { 5 };

static void links(void **state)
{
	struct lens_experiment e = test_plan_experiment("*,*hook_mlp_in", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	struct lens_plan p;
	size_t i, n = 0;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_links; i++) {
		if (!strcmp(p.link[i].path, "/cache/blocks.1.hook_resid_pre"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_post");
		if (!strcmp(p.link[i].path, "/cache/blocks.0.hook_mlp_in"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_mid");
	}
	assert_int_equal(p.n_links, 3);
	assert_int_equal(n, 2);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	/* without its target an alias is stored for itself */
	e = test_plan_experiment("blocks.1.hook_resid_pre", "all", "f32");
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(p.n_links, 0);
	assert_string_equal(p.dataset[0].path, "/cache/blocks.1.hook_resid_pre");
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void refusals(void **state)
{
	struct lens_experiment e = test_plan_experiment("*", "0,50", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "no prompt has a position 50"));
	lens_experiment_release(&e);
	e = test_plan_experiment("hook_embde", "all", "f32");
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "hook_embed"));
	lens_experiment_release(&e);
	prompts->n_answers = 0;
	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	test_set(&e, "cache.hooks", "none", "tables", "logit_diff", NULL);
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "asks for anything"));
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void allocation_failures(void **state)
{
	struct lens_experiment e = test_plan_experiment("*", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;
	struct lens_plan p;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_plan_init(&p, &test_shapes, prompts, &e, &err);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		assert_int_equal(err.code, st);
	}
	assert_true(k > 5);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void memory(void **state)
{
	struct lens_experiment e = test_plan_experiment("*", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 300);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_memory m, one;
	struct lens_plan p;
	size_t limit;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(lens_plan_memory(&p, 8, MIB, &m, &err), LENS_ERR_NOMEM);
	assert_non_null(strstr(err.text, "one worker needs"));
	assert_non_null(strstr(err.text, "--memory gives 1 MiB"));
	assert_int_equal(lens_plan_memory(&p, 1, 0, &one, NULL), LENS_OK);
	assert_int_equal(one.workers, 1);
	assert_true(one.per_worker > 0 && one.model > 0 && one.buffer > 0);
	m.workers = 0;
	/* from too little to plenty: within the limit, and never fewer workers */
	for (limit = MIB; limit < 2048 * MIB; limit += 7 * MIB) {
		struct lens_memory more;

		if (lens_plan_memory(&p, 8, limit, &more, NULL) != LENS_OK) {
			assert_int_equal(m.workers, 0);
			continue;
		}
		assert_true(more.total <= limit);
		assert_true(more.workers >= m.workers && more.workers <= 8);
		assert_true(more.buffers >= more.workers + 2);
		assert_true(more.workers * more.inner_threads <= 8);
		m = more;
	}
	assert_int_equal(m.workers, 8);
	/* no more workers than batches */
	assert_int_equal(lens_plan_memory(&p, 1000, 0, &m, NULL), LENS_OK);
	assert_true(m.workers <= p.n_batches);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links),
		cmocka_unit_test(refusals),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
