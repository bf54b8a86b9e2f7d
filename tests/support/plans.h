/*
 * support/plans.h: what the tests of the plan share: a model's shapes, prompt
 * sets by their lengths alone, and settings that ask for hook points.
 */
#ifndef LENS_TEST_PLANS_H
#define LENS_TEST_PLANS_H

#include "h5lens/pipeline.h"
#include "support/numbers.h"

/* Shapes only: a plan reads no weights. */
extern const struct lens_model test_shapes;

enum test_kind_of_prompts {
	TEST_SHORT,
	TEST_OUTLIER,
	TEST_EQUAL,
	TEST_MIXED,
	TEST_LONG,
	TEST_KINDS
};

/* Rows without a length yet; lens_prompts_destroy it. */
struct lens_prompts *test_make_prompts(size_t n, size_t n_answers);
/* Row by row, from the first. Any of its positions is the one that is read. */
void test_set_length(struct test_random *r, struct lens_prompts *p, size_t row, size_t length);
/* Lengths of a kind, two answer columns, no tokens. */
struct lens_prompts *test_random_prompts(struct test_random *r, enum test_kind_of_prompts kind,
					 size_t n);

/* Settings of cache.*, with two answer columns. */
struct lens_experiment test_plan_experiment(const char *hooks, const char *positions,
					    const char *dtype);

#endif
