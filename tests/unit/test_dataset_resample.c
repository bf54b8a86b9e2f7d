/*
 * test_dataset_resample.c: the other prompt of a row: one of as many tokens and other
 * ones, the same whatever the rows' order; drawn by a seed, or from a column; and rows for
 * which there is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/dataset.h"

static struct test_data begin(const char *csv, long seed)
{
	struct test_data f = test_data_begin(csv);

	f.opt.resample = true;
	f.opt.resample_seed = seed;
	return f;
}

/* Of a row: what it has, and what it gets. */
static const int32_t *own(const struct lens_prompts *p, size_t row)
{
	return p->tokens + p->offset[row];
}

static const int32_t *other(const struct lens_prompts *p, size_t row)
{
	return p->resampled + p->offset[row];
}

static bool same(const struct lens_prompts *p, size_t row, const int32_t *x, const int32_t *y)
{
	return !memcmp(x, y, lens_prompt_length(p, row) * sizeof(*x));
}

/* The row that has these tokens; fails if none has. */
static size_t find(const struct lens_prompts *p, const int32_t *tokens, size_t n)
{
	size_t row;

	for (row = 0; row < p->n_rows; row++) {
		if (lens_prompt_length(p, row) == n &&
		    !memcmp(own(p, row), tokens, n * sizeof(*tokens)))
			return row;
	}
	fail_msg("no prompt has these tokens");
	return 0;
}

#define ROWS_1 "a,x,y\nb,x,y\nab,x,y\nc,x,y\n"
#define ROWS_2 "a,x,y\nba,x,y\nd,x,y\n"

/* Two of length 3, the others of 2; "a" is there twice. */
static void drawn(void **state)
{
	struct test_data f = begin(TEST_HEADER ROWS_1 ROWS_2, 0), g;
	size_t row;

	(void)state;
	test_load_good(&f);
	g = begin(TEST_HEADER ROWS_2 ROWS_1, 0); /* in the same file */
	test_load_good(&g);
	for (row = 0; row < f.p->n_rows; row++) {
		size_t n = lens_prompt_length(f.p, row);
		size_t there = find(g.p, own(f.p, row), n);

		assert_false(same(f.p, row, own(f.p, row), other(f.p, row)));
		find(f.p, other(f.p, row), n);
		assert_true(same(f.p, row, other(f.p, row), other(g.p, there)));
	}
	assert_true(same(f.p, 0, other(f.p, 0), other(f.p, 4)));
	test_data_end(&g);
	test_data_end(&f);
}

/* Some seed draws another one. */
static void seeds(void **state)
{
	struct test_data f = begin(TEST_HEADER ROWS_1 ROWS_2, 0);
	long seed, n = 0;

	(void)state;
	test_load_good(&f);
	for (seed = 1; seed < 20; seed++) {
		struct test_data g = begin(TEST_HEADER ROWS_1 ROWS_2, seed);

		test_load_good(&g);
		n += !same(f.p, 0, other(f.p, 0), other(g.p, 0));
		test_data_end(&g);
	}
	assert_true(n > 0);
	test_data_end(&f);
}

static void from_a_column(void **state)
{
	struct test_data f = begin("prompt,correct,incorrect,else\na,x,y,b\nab,x,y,cd\n", 0);

	(void)state;
	f.opt.resample_column = "else";
	test_load_good(&f);
	assert_int_equal(other(f.p, 0)[1], 'b');
	assert_int_equal(other(f.p, 1)[2], 'd');
	assert_int_equal(f.p->n_columns, 1);
	test_data_end(&f);
	f = begin("prompt,correct,incorrect,else\na,x,y,bc\n", 0);
	f.opt.resample_column = "else";
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "the prompt has 2 tokens and the one to resample (column 'else') 3");
	test_data_end(&f);
}

static void alone(void **state)
{
	struct test_data f = begin(TEST_HEADER "a,x,y\nab,x,y\nb,x,y\nab,x,y\n", 0);

	(void)state;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "needs another prompt of 3 tokens, and there is none");
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drawn),
		cmocka_unit_test(seeds),
		cmocka_unit_test(from_a_column),
		cmocka_unit_test(alone),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
