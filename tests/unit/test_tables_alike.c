/*
 * test_tables_alike.c: rows of the stream that several prompts of a batch have alike, those
 * of the last tokens' 0_pre and all of equal prompts, are unembedded once: each prompt's
 * tables are those of the prompt alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/numbers.h"
#include "support/tables.h"

enum { N = 8, LENGTH = 4 };

/* 1, 2: equal last tokens at equal positions; 3: at another one. 5, 7 are equal. */
static const int32_t tokens[N][LENGTH] = { { 3, 5, 9, 7 },   { 4, 5, 9, 7 },
					   { 3, 6, 2, 7 },   { 3, 7 },
					   { 3, 5, 9, 8 },   { 11, 12, 13, 14 },
					   { 11, 12, 9, 7 }, { 11, 12, 13, 14 } };
static const int32_t answers[N][2] = { { 1, 2 }, { 3, 1 }, { 9, 7 }, { 1, 2 },
				       { 1, 2 }, { 1, 2 }, { 5, 6 }, { 8, 4 } };

static void check(const struct lens_model *m, struct lens_tables_options opt)
{
	struct lens_tables *all, *one;
	const int32_t *prompt[N];
	size_t length[N], i, k, compared = 0;

	for (i = 0; i < N; i++) {
		prompt[i] = tokens[i];
		length[i] = i == 3 ? 2 : LENGTH;
	}
	opt.max_rows = N * 24;
	assert_int_equal(lens_tables_once(m, &opt,
					  &(struct lens_tables_prompts){ prompt, length,
									 answers[0], N },
					  &all, NULL),
			 LENS_OK);
	for (i = 0; i < N; i++) {
		const struct lens_tables_prompts alone = { prompt + i, length + i, answers[i],
							   1 };

		assert_int_equal(lens_tables_once(m, &opt, &alone, &one, NULL), LENS_OK);
		for (k = 0; k < LENS_TABLE_COUNT; k++) {
			enum lens_table t = (enum lens_table)k;

			if (!opt.wanted[k])
				continue;
			assert_memory_equal(test_table_row(all, &opt, t, i),
					    test_table_row(one, &opt, t, 0),
					    lens_table_row_bytes(t, &opt));
			compared++;
		}
		lens_tables_destroy(one);
	}
	assert_true(compared >= 10 * N);
	lens_tables_destroy(all);
}

static void alike(void **state)
{
	static const char *const dir[] = { "tests/golden/data/gpt2_gelu",
					   "tests/golden/data/llama_gqa" };
	const struct lens_model_options p = { .processing = { .fold_ln = true } };
	struct lens_model *m;
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(lens_model_open(dir[i], &p, &m, NULL), LENS_OK);
		check(m, test_all_tables(m, 2, 3, LENS_LENS_RECOMPUTE));
		check(m, test_all_tables(m, 2, 3, LENS_LENS_CACHED_SCALE_NO_BIAS));
		lens_model_destroy(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(alike) };

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
