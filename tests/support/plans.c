/*
 * support/plans.c: see plans.h.
 */
#include "support/plans.h"

#include "support/runs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

const struct lens_model test_shapes = {
	.config = { .family = "gpt2",
		    .n_layers = 2,
		    .d_model = 256,
		    .n_heads = 4,
		    .n_kv_heads = 4,
		    .d_head = 64,
		    .d_mlp = 1024,
		    .d_vocab = 1500,
		    .n_ctx = 1024,
		    .learned_positions = true },
};

struct lens_prompts *test_make_prompts(size_t n, size_t n_answers)
{
	struct lens_prompts *p = lens_calloc(1, sizeof(*p));

	assert_non_null(p);
	p->n_rows = n;
	p->n_answers = n_answers;
	p->offset = lens_calloc(n + 1, sizeof(*p->offset));
	p->read_pos = lens_calloc(n, sizeof(*p->read_pos));
	p->answers = lens_calloc(n * n_answers, sizeof(*p->answers));
	p->flags = lens_calloc(n, sizeof(*p->flags));
	return p;
}

void test_set_length(struct test_random *r, struct lens_prompts *p, size_t row, size_t length)
{
	p->offset[row + 1] = p->offset[row] + length;
	p->read_pos[row] = (int32_t)test_random_below(r, length);
	p->max_length = length > p->max_length ? length : p->max_length;
}

struct lens_prompts *test_random_prompts(struct test_random *r, enum test_kind_of_prompts kind,
					 size_t n)
{
	struct lens_prompts *p = test_make_prompts(n, 2);
	size_t i, outlier = test_random_below(r, n);

	for (i = 0; i < n; i++) {
		size_t length = 3 + test_random_below(r, 12);

		if (kind == TEST_OUTLIER && i == outlier)
			length = 300 + test_random_below(r, 200);
		else if (kind == TEST_EQUAL)
			length = 16;
		else if (kind == TEST_MIXED)
			length = 1 + test_random_below(r, i % 2 ? 10 : 120);
		else if (kind == TEST_LONG)
			length = 700 + test_random_below(r, 325);
		test_set_length(r, p, i, length);
	}
	return p;
}

struct lens_experiment test_plan_experiment(const char *hooks, const char *positions,
					    const char *dtype)
{
	struct lens_experiment e;

	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	test_set(&e, "data.answers", "a,b", "cache.hooks", hooks, "cache.positions", positions,
		 "cache.dtype", dtype, NULL);
	return e;
}
