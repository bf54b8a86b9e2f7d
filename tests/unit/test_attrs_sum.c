/*
 * test_attrs_sum.c: logit_attrs adds up to answer_logit: the bound of its deviation, on
 * the models of tests/golden/data, and past it where a stream is not the sum of its
 * parts; on the level of H5LENS_TEST_CPU.
 */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/attrs.h"
#include "support/tables.h"

static struct test_random rnd = { 23 };

static void bound(void **state)
{
	const struct lens_sizes small = { .n_pos_embeds = 1, .n_layers = 12, .d_model = 768 },
				tiny = { .n_layers = 1, .d_model = 16 };

	(void)state;
	test_near(lens_tables_deviation_bound(&small), (27 + 128 + 6 + 4) * TEST_U * sqrt(768),
		  1e-12, "bound", 0);
	test_near(lens_tables_deviation_bound(&tiny), (4 + 16 + 0 + 4) * TEST_U * 4, 1e-15,
		  "bound", 1);
}

/* A stream with something that is in no component; the largest deviation stays. */
static void more_than_its_parts(void **state)
{
	struct lens_model *m = test_attrs_model(true, false, true);
	struct lens_tables_options opt = test_attrs_options(m, 2);
	struct lens_tables *t = test_create_tables(m, &opt);
	double limit = lens_tables_deviation_bound(&opt.sizes), deviation;
	struct test_parts s;

	(void)state;
	test_make_parts(&s, m, 3, 2);
	s.answers[2] = 3;
	test_part_row(&s, s.resid, 1)[4] += 1;
	test_show_parts(t, &s, &s.b, s.answers);
	deviation = lens_tables_deviation(t, LENS_TABLE_logit_attrs);
	assert_true(deviation > 10 * limit && deviation < 1);
	test_add_parts(&s);
	test_show_parts(t, &s, &s.b, s.answers);
	assert_true(lens_tables_deviation(t, LENS_TABLE_logit_attrs) == deviation);
	test_release_parts(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* A whole pass of one model. */
static double deviation_of(const struct lens_model *m, double *limit)
{
	int32_t token[3][20], answers[6];
	const int32_t *tokens[3] = { token[0], token[1], token[2] };
	static const size_t length[3] = { 1, 7, 20 };
	const struct lens_tables_prompts in = { tokens, length, answers, 3 };
	struct lens_tables_options opt = test_attrs_options(m, 2);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tables *t;
	double deviation;
	size_t i;

	for (i = 0; i < 60; i++)
		token[i / 20][i % 20] = (int32_t)test_random_below(&rnd, m->config.d_vocab);
	for (i = 0; i < 6; i++)
		answers[i] = (int32_t)test_random_below(&rnd, m->config.d_vocab);
	if (lens_tables_once(m, &opt, &in, &t, &err) != LENS_OK)
		fail_msg("%s", err.text);
	deviation = lens_tables_deviation(t, LENS_TABLE_logit_attrs);
	*limit = lens_tables_deviation_bound(&opt.sizes);
	lens_tables_destroy(t);
	return deviation;
}

/* Every family, weights as they are and processed. */
static void deviation_of_models(void **state)
{
	double worst = 0;
	glob_t found;
	size_t i;

	(void)state;
	assert_int_equal(glob("tests/golden/data/*", 0, NULL, &found), 0);
	for (i = 0; i < 2 * found.gl_pathc; i++) {
		struct lens_model_options opt = { 0 };
		struct lens_model *m;
		double deviation, limit;

		if (i & 1)
			opt.processing =
				(struct lens_processing){ true, true, true, true, false };
		assert_int_equal(lens_model_open(found.gl_pathv[i / 2], &opt, &m, NULL),
				 LENS_OK);
		deviation = deviation_of(m, &limit);
		if (!(deviation > 0 && deviation <= limit))
			fail_msg("%s: %g, limit %g", found.gl_pathv[i / 2], deviation, limit);
		worst = fmax(worst, deviation / limit);
		lens_model_destroy(m);
	}
	print_message("largest deviation of %zu models: %.2g of the limit\n", found.gl_pathc,
		      worst);
	globfree(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bound),
		cmocka_unit_test(more_than_its_parts),
		cmocka_unit_test(deviation_of_models),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
