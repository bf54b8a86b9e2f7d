/*
 * test_order.c: which rows are computed together: each once, in batches that hold them,
 * in the file's order or sorted inside windows, and less is computed then. How many rows a
 * batch has depends on the level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/plan.h"
#include "support/batch.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

static struct test_random rnd = { 7 };

/* Of up to `kinds` tokens: the fewer, the more begin alike, or are the same. */
static struct lens_prompts *make_prompts(enum test_kind_of_prompts kind, size_t n, size_t kinds)
{
	struct lens_prompts *p = test_random_prompts(&rnd, kind, n);
	size_t i;

	p->tokens = lens_calloc((size_t)p->offset[n], sizeof(*p->tokens));
	assert_non_null(p->tokens);
	for (i = 0; i < p->offset[n]; i++)
		p->tokens[i] = (int32_t)test_random_below(&rnd, kinds);
	return p;
}

/* What is computed in all; every batch fits into what a worker has. */
static size_t count_rows(const struct lens_plan *p, const struct lens_order *o)
{
	const struct lens_prompts *q = p->prompts;
	bool *seen = lens_calloc(q->n_rows, sizeof(*seen));
	size_t i, k, rows = 0;
	struct lens_batch b;

	assert_non_null(seen);
	/* As much room as an order that is wrong may take. */
	assert_int_equal(lens_batch_init(&b, q->n_rows, (size_t)q->offset[q->n_rows],
					 lens_batch_rows(q->n_rows, q->max_length), NULL),
			 LENS_OK);
	b.share = p->experiment->share_prefixes;
	assert_int_equal(o->first[0], 0);
	assert_int_equal(o->first[o->n_batches], q->n_rows);
	for (i = 0; i < o->n_batches; i++) {
		assert_true(o->first[i] < o->first[i + 1]);
		lens_batch_clear(&b);
		for (k = o->first[i]; k < o->first[i + 1]; k++) {
			size_t row = o->row[k];

			assert_true(row < q->n_rows && !seen[row]);
			seen[row] = true;
			lens_batch_pack(&b, q->tokens + q->offset[row],
					lens_prompt_length(q, row), q->read_pos[row], 0);
		}
		assert_true(b.n_rows <= p->max_packed && b.n_tokens <= p->most_tokens);
		assert_true(b.n_prompts <= p->most_prompts &&
			    b.n_prompts <= p->tables.batch_rows &&
			    b.n_prompts <= lens_row_room(p->max_packed));
		rows += b.n_rows;
	}
	lens_batch_release(&b);
	lens_free(seen);
	return rows;
}

/* Rows of a window come before those of the next, and no batch has rows of two. */
static void check_windows(const struct lens_plan *p, const struct lens_order *o)
{
	size_t i, k, window = p->sort_rows;

	for (i = 0; i < o->n_batches; i++) {
		for (k = o->first[i]; k < o->first[i + 1]; k++) {
			assert_int_equal(o->row[k] / window, k / window);
			assert_int_equal(k / window, o->first[i] / window);
		}
	}
}

static size_t rows_of(const struct lens_plan *p)
{
	struct lens_order o;
	size_t i, rows;

	assert_int_equal(lens_order_make(&o, p, NULL), LENS_OK);
	rows = count_rows(p, &o);
	if (p->sort_rows)
		check_windows(p, &o);
	for (i = 0; !p->sort_rows && i < p->prompts->n_rows; i++)
		assert_int_equal(o.row[i], i);
	lens_order_release(&o);
	return rows;
}

static void check_set(enum test_kind_of_prompts kind, size_t n, size_t kinds)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = make_prompts(kind, n, kinds);
	size_t in_file_order, sorted;
	struct lens_plan p;

	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	sorted = rows_of(&p);
	if (p.sort_rows) {
		p.sort_rows = 1 + test_random_below(&rnd, n);
		rows_of(&p);
		p.sort_rows = 0;
		in_file_order = rows_of(&p);
		/* Fewer, where there is much to share and more than a batch. */
		if (kinds < 4 && n > 100 && (kind == TEST_SHORT || kind == TEST_EQUAL))
			assert_true(sorted < in_file_order);
	}
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void orders(void **state)
{
	static const size_t sizes[] = { 1, 2, 33, 700 };
	size_t i, kind;

	(void)state;
	for (kind = 0; kind < TEST_KINDS; kind++) {
		for (i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			check_set((enum test_kind_of_prompts)kind, sizes[i], 2);
			check_set((enum test_kind_of_prompts)kind, sizes[i], 1500);
		}
	}
	check_set(TEST_EQUAL, 300, 1);
}

/* Where nothing is gained, and where a cache's chunks want rows in the file's order. */
static void what_is_sorted(void **state)
{
	static const struct {
		const char *hooks, *key, *value;
		bool sorted;
	} cases[] = {
		{ "none", "threads", "1", true },
		{ "none", "share_prefixes", "false", false },
		{ "none", "ablate.grids", "attn_out", false },
		{ "*hook_z", "threads", "1", false },
		{ "*hook_z", "tables", "none", false },
	};
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 200);
	struct lens_experiment e;
	struct lens_plan p;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		e = test_plan_experiment(cases[i].hooks, "all", "f32");
		test_set(&e, cases[i].key, cases[i].value, NULL);
		assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
		assert_int_equal(p.sort_rows != 0, cases[i].sorted);
		lens_plan_release(&p);
		lens_experiment_release(&e);
	}
	lens_prompts_destroy(prompts);
}

#define MIB ((size_t)1 << 20)

/* The writer holds two windows of 16 MiB open and chunks at their ends, not the file. */
static void bounded(void **state)
{
	const struct lens_available is = { SIZE_MAX, LENS_MEMORY_GIVEN };
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_EQUAL, 400000);
	struct lens_memory m;
	struct lens_plan p;

	(void)state;
	test_set(&e, "tables", "all", "lens_positions", "all", NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_true(p.sort_rows > p.batch_rows && p.sort_rows < prompts->n_rows / 10);
	assert_int_equal(lens_plan_memory(&p, 4, &is, &m, NULL), LENS_OK);
	assert_true(m.shared < 2 * 16 * MIB + p.n_datasets * 2 * 4 * MIB +
				       prompts->n_rows * 2 * sizeof(size_t) + MIB);
	assert_true(p.file_bytes > 2 * m.shared);
	lens_plan_release(&p);
	lens_prompts_destroy(prompts);
	lens_experiment_release(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(orders),
		cmocka_unit_test(what_is_sorted),
		cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
