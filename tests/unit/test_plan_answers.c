/*
 * unit/test_plan_answers.c: the plan of answers of any number of tokens: axes and bytes,
 * the memory of the larger of two passes, shards that are cut earlier.
 */
#include "h5lens/plan.h"
#include "support/cases.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 4000, LONG = 40 };

static struct test_random rnd = { 8 };

/* Two answers a row: one of a token, one of `length`; in one row of LONG. */
static struct lens_prompts *make_prompts(size_t length)
{
	struct lens_prompts *p = test_random_prompts(&rnd, TEST_EQUAL, ROWS);
	size_t row;

	p->answer_offset = lens_calloc(2 * ROWS + 1, sizeof(*p->answer_offset));
	assert_non_null(p->answer_offset);
	for (row = 0; row < ROWS; row++) {
		size_t n = row == ROWS / 2 ? LONG : length;

		p->answer_offset[2 * row + 1] = p->answer_offset[2 * row] + 1;
		p->answer_offset[2 * row + 2] = p->answer_offset[2 * row + 1] + n;
	}
	p->n_answer_pos = LONG;
	return p;
}

static struct lens_experiment make_experiment(const char *tables)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");

	test_set(&e, "data.answer_tokens", "any", "tables", tables, NULL);
	return e;
}

static void test_bytes(void **state)
{
	struct lens_experiment e = make_experiment("default");
	struct lens_prompts *prompts = make_prompts(3);
	size_t i, found = 0;
	struct lens_plan p;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_datasets; i++) {
		const struct lens_planned *d = &p.dataset[i];

		if (strcmp(d->path, "/results/answer_token_rank") != 0)
			continue;
		assert_int_equal(d->rank, 3);
		assert_int_equal(d->extent[1], 2);
		assert_int_equal(d->extent[2], LONG);
		assert_int_equal(d->data_bytes, 4 * prompts->answer_offset[2 * ROWS]);
		assert_true(d->file_bytes >= 4 * (uint64_t)ROWS * 2 * LONG);
		found++;
	}
	assert_int_equal(found, 1);
	/* /prompts/answer_tokens is in the sum: tables of it and the rank are as wide. */
	assert_true(p.file_bytes >= 2 * 4 * (uint64_t)ROWS * 2 * LONG);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static struct lens_memory memory_of(const struct lens_plan *p)
{
	const struct lens_available is = { (size_t)1 << 40, LENS_MEMORY_GIVEN };
	struct lens_memory m;

	assert_int_equal(lens_plan_memory(p, 1, &is, &m, NULL), LENS_OK);
	return m;
}

/* Only what needs the second pass makes room for it. */
static void test_pass(void **state)
{
	struct lens_experiment with = make_experiment("answer_logprob"),
			       without = make_experiment("loss");
	struct lens_prompts *prompts = make_prompts(3);
	struct lens_plan p, q;
	struct lens_forward_size a, b;
	size_t longest = (size_t)prompts->read_pos[ROWS / 2] + LONG;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &with, NULL), LENS_OK);
	assert_int_equal(lens_plan_init(&q, &test_shapes, prompts, &without, NULL), LENS_OK);
	a = lens_plan_pass(&p, NULL, 1);
	b = lens_plan_pass(&q, NULL, 1);
	assert_int_equal(a.max_length, longest);
	assert_true(a.max_rows >= lens_batch_rows(1, longest) && a.max_rows >= p.max_packed &&
		    a.max_rows % 12 == 0);
	assert_int_equal(b.max_length, prompts->max_length);
	assert_int_equal(b.max_rows, q.max_packed);
	assert_int_equal(lens_tables_second_rows(&q.tables), 0);
	assert_true(memory_of(&p).per_worker > memory_of(&q).per_worker);
	lens_plan_release(&p);
	lens_plan_release(&q);
	lens_experiment_release(&with);
	lens_experiment_release(&without);
	lens_prompts_destroy(prompts);
}

static size_t shards(const struct lens_model *m, const char *tables, size_t length)
{
	struct lens_experiment e = make_experiment(tables);
	struct lens_prompts *prompts = make_prompts(length);
	struct lens_plan p;
	struct lens_cut cut;
	size_t n;

	assert_int_equal(lens_plan_init(&p, m, prompts, &e, NULL), LENS_OK);
	assert_int_equal(lens_cut_make(&cut, &p, NULL), LENS_OK);
	n = cut.n;
	lens_cut_release(&cut);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
	return n;
}

/* What the second pass costs ends a shard earlier. */
static void test_cut(void **state)
{
	struct lens_model m = test_shapes;

	(void)state;
	m.config.n_layers = 48;
	m.config.n_heads = m.config.n_kv_heads = 12;
	m.config.d_head = 64;
	m.config.d_model = 12 * 64;
	m.config.d_mlp = 4096;
	m.config.d_vocab = 50000;
	assert_int_equal(shards(&m, "loss", 3), shards(&m, "loss", 30));
	assert_int_equal(shards(&m, "loss,answer_logprob", 1), shards(&m, "loss", 3));
	assert_true(shards(&m, "loss,answer_logprob", 3) > shards(&m, "loss", 3));
	assert_true(shards(&m, "loss,answer_logprob", 30) >
		    shards(&m, "loss,answer_logprob", 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_pass),
		cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
