/*
 * test_attrs_sum.c: logit_attrs adds up to answer_logit, at every position to the logits
 * there: the bound of its deviation, on the models of tests/golden/data, and past it where
 * a stream is not the sum of its parts; on the level of H5LENS_TEST_CPU.
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

enum { PROMPTS = 3, MOST = 20 }; /* tokens of the longest */
static const size_t length[PROMPTS] = { 1, 7, MOST };

/* Random prompts of one model, and its tables. */
struct whole {
	const struct lens_model *m;
	int32_t token[PROMPTS][MOST], answers[2 * PROMPTS];
	struct lens_tables_options opt, all;
	struct lens_tables *t, *at_all;
};

/* Each a pass of its own: at the read positions alone, the last block is of fewer rows. */
static struct lens_tables *pass(const struct whole *w, const struct lens_tables_options *opt)
{
	const int32_t *tokens[PROMPTS] = { w->token[0], w->token[1], w->token[2] };
	const struct lens_tables_prompts in = { tokens, length, w->answers, PROMPTS };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tables *t;

	if (lens_tables_once(w->m, opt, &in, &t, &err) != LENS_OK)
		fail_msg("%s", err.text);
	return t;
}

static void start(struct whole *w, const struct lens_model *m)
{
	size_t i;

	w->m = m;
	for (i = 0; i < PROMPTS * MOST; i++)
		w->token[i / MOST][i % MOST] =
			(int32_t)test_random_below(&rnd, m->config.d_vocab);
	for (i = 0; i < 2 * PROMPTS; i++)
		w->answers[i] = (int32_t)test_random_below(&rnd, lens_n_logits(&m->config));
	w->opt = w->all = test_attrs_options(m, 2);
	w->t = pass(w, &w->opt);
	w->all.attrs_positions = LENS_READ_AT_ALL;
	w->all.sizes.n_pos = MOST;
	w->all.sizes.top_k = lens_n_logits(&m->config); /* so these are all logits */
	w->all.wanted[LENS_TABLE_pos_top_tokens] = w->all.wanted[LENS_TABLE_pos_top_logits] =
		true;
	w->all.wanted[LENS_TABLE_top_neuron_layer] = w->all.wanted[LENS_TABLE_top_neuron] =
		w->all.wanted[LENS_TABLE_top_neuron_attr] = false;
	w->at_all = pass(w, &w->all);
}

/* A token's at a position, as pos_top_logits has it. */
static double logit_at(const struct whole *w, size_t prompt, size_t pos, int32_t token)
{
	size_t i, k = w->all.sizes.top_k;
	const int32_t *id =
		test_table_row(w->at_all, &w->all, LENS_TABLE_pos_top_tokens, prompt);
	const float *logit =
		test_table_row(w->at_all, &w->all, LENS_TABLE_pos_top_logits, prompt);

	for (i = 0; i < k; i++) {
		if (id[pos * k + i] == token)
			return (double)logit[pos * k + i];
	}
	fail_msg("token %d has no logit", (int)token);
	return 0;
}

static void check_sum(const struct whole *w, size_t prompt, size_t pos, size_t answer)
{
	const float *row = test_table_row(w->at_all, &w->all, LENS_TABLE_logit_attrs, prompt);
	size_t c, n = lens_axis_extent(LENS_AXIS_COMPONENT, &w->all.sizes);
	double x, sum = 0, magnitude = 0;

	for (c = 0; c < n; c++) {
		x = (double)row[(c * MOST + pos) * 2 + answer];
		sum += x;
		magnitude += fabs(x);
	}
	if (w->m->config.logit_cap > 0) /* the sum is the logit before it */
		sum = w->m->config.logit_cap * tanh(sum / w->m->config.logit_cap);
	/* each component is rounded as well */
	test_near(sum, logit_at(w, prompt, pos, w->answers[2 * prompt + answer]),
		  (lens_tables_deviation_bound(&w->all.sizes) + TEST_U) * magnitude,
		  "sum of logit_attrs", (double)pos);
}

static void same_as_read(const struct whole *w, enum lens_table table, size_t prompt)
{
	const float *is = test_table_row(w->at_all, &w->all, table, prompt);
	const float *read = test_table_row(w->t, &w->opt, table, prompt);
	size_t i, n = lens_table_row_bytes(table, &w->opt) / sizeof(float);

	for (i = 0; i < n; i++)
		assert_int_equal(test_bits(is[(i / 2 * MOST + length[prompt] - 1) * 2 + i % 2]),
				 test_bits(read[i]));
}

static void check_positions(const struct whole *w)
{
	size_t i, pos;

	for (i = 0; i < PROMPTS; i++) {
		same_as_read(w, LENS_TABLE_logit_attrs, i);
		same_as_read(w, LENS_TABLE_head_attrs, i);
		for (pos = 0; pos < length[i]; pos++) {
			check_sum(w, i, pos, 0);
			check_sum(w, i, pos, 1);
		}
	}
}

/* Whole passes of one model. */
static double deviation_of(const struct lens_model *m, double *limit)
{
	double deviation, of_all;
	struct whole w;

	start(&w, m);
	check_positions(&w);
	deviation = lens_tables_deviation(w.t, LENS_TABLE_logit_attrs);
	of_all = lens_tables_deviation(w.at_all, LENS_TABLE_logit_attrs);
	assert_true(of_all >= deviation);
	*limit = lens_tables_deviation_bound(&w.opt.sizes);
	lens_tables_destroy(w.t);
	lens_tables_destroy(w.at_all);
	return of_all;
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
		enum lens_status st;

		if (i & 1)
			opt.processing =
				(struct lens_processing){ true, true, true, true, false };
		st = lens_model_open(found.gl_pathv[i / 2], &opt, &m, NULL);
		/* Some of TransformerLens's own are another model once processed. */
		if ((i & 1) && st == LENS_ERR_UNSUPPORTED &&
		    strstr(found.gl_pathv[i / 2], "/own_"))
			continue;
		assert_int_equal(st, LENS_OK);
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
