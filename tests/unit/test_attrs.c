/*
 * test_attrs.c: attributions of made-up activations, on the level of
 * H5LENS_TEST_CPU: against plain float64 code, their bits, and what stands in them
 * where a number is not finite. Their sums: test_attrs_sum.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/attrs.h"
#include "support/tables.h"

enum {
	D = TEST_ATTRS_D_MODEL,
	V = TEST_ATTRS_D_VOCAB,
	LAYERS = TEST_ATTRS_LAYERS,
	BATCH = TEST_ATTRS_BATCH,
	HEADS = TEST_ATTRS_HEADS,
	D_HEAD = TEST_ATTRS_D_HEAD,
	F = TEST_ATTRS_D_MLP,
	TOP = TEST_ATTRS_TOP,
	Z = HEADS * D_HEAD
};

static size_t show_all(struct lens_tables *t, const struct test_parts *s)
{
	return test_show_parts(t, s, &s->b, s->answers);
}

/* --- the same in float64 ----------------------------------------------------------------- */

static double mean_of(const struct lens_model *m, const double *x)
{
	double mean = 0;
	size_t j;

	for (j = 0; m->config.norm == LENS_NORM_LN && j < D; j++)
		mean += x[j] / D;
	return mean;
}

static double scale_of(const struct lens_model *m, const float *resid)
{
	double x[D], mean, square = 0;
	size_t j;

	for (j = 0; j < D; j++)
		x[j] = (double)resid[j];
	mean = mean_of(m, x);
	for (j = 0; j < D; j++)
		square += (x[j] - mean) * (x[j] - mean) / D;
	return sqrt(square + m->config.eps);
}

/* What x adds to a token's logit: centred, over scale, times w and W_U; *size: Σ |terms|. */
static double added(const struct lens_model *m, const double *x, double scale, int32_t token,
		    double *size)
{
	double mean = mean_of(m, x), sum = 0;
	size_t j;

	for (*size = 0, j = 0; j < D; j++) {
		double u = (double)m->w_u[(size_t)token * D + j] / scale;

		u *= m->ln_final_w ? (double)m->ln_final_w[j] : 1;
		sum += (x[j] - mean) * u;
		*size += (fabs(x[j]) + fabs(mean)) * fabs(u);
	}
	return sum;
}

static double bias(const struct lens_model *m, int32_t token)
{
	double sum = (double)m->b_u[token];
	size_t j;

	for (j = 0; m->ln_final_b && j < D; j++)
		sum += (double)m->ln_final_b[j] * (double)m->w_u[(size_t)token * D + j];
	return sum;
}

/* x·w of n rows of w [n, D], and *size: the same of the products' sizes. */
static void result_of(const float *x, const float *w, size_t n, double *out, double *size)
{
	size_t i, j;

	for (i = 0; i < D; i++) {
		for (out[i] = size[i] = 0, j = 0; j < n; j++) {
			double y = (double)x[j] * (double)w[j * D + i];

			out[i] += y;
			size[i] += fabs(y);
		}
	}
}

/* --- checks ------------------------------------------------------------------------------ */

struct checked {
	const struct lens_model *m;
	const struct test_parts *s;
	const struct lens_tables *t;
	struct lens_tables_options opt;
};

#define ROW(c, table, prompt)                                                                  \
	((const float *)test_table_row((c)->t, &(c)->opt, LENS_TABLE_##table, prompt))

#define TOKENS(c, table, prompt)                                                               \
	((const int32_t *)test_table_row((c)->t, &(c)->opt, LENS_TABLE_##table, prompt))

/* Float64 but for the scale's rounding and the result's. */
static void check_parts(const struct checked *c, size_t prompt, size_t answer, double scale)
{
	size_t n = c->opt.sizes.n_answers, k, j;
	int32_t token = c->s->answers[prompt * n + answer];
	const float *is = ROW(c, logit_attrs, prompt) + answer;
	double sum = 0, magnitude = 0, x[D], size, should, logit;

	for (k = 0; k <= c->s->n_parts; k++) {
		if (k < c->s->n_parts) {
			const float *row = test_part_row(c->s, c->s->x[k], prompt);

			for (j = 0; j < D; j++)
				x[j] = (double)row[j];
			should = added(c->m, x, scale, token, &size);
		} else {
			should = size = bias(c->m, token);
		}
		test_near((double)is[k * n], should, 3 * TEST_U * fabs(size), "logit_attrs",
			  (double)k);
		sum += should;
		magnitude += fabs(should);
	}
	logit = (double)ROW(c, answer_logit, prompt)[answer];
	test_near(sum, logit, lens_tables_deviation_bound(&c->opt.sizes) * magnitude,
		  "sum of logit_attrs", (double)answer);
}

/* What a head or a neuron is made of: n columns of x times n rows of w. */
struct written {
	const float *x, *w;
	size_t n;
};

/* A sum over D of directions through W in float32: D + 4 roundings at the most. */
static void check_written(const struct checked *c, const struct written *p, double is,
			  int32_t token, double scale)
{
	double x[D], sizes[D], size, should;

	result_of(p->x, p->w, p->n, x, sizes);
	should = added(c->m, x, scale, token, &size);
	added(c->m, sizes, scale, token, &size);
	test_near(is, should, (D + 4) * TEST_U * size, "attribution", (double)p->n);
}

static void check_layer(const struct checked *c, size_t prompt, size_t answer, size_t layer,
			double scale)
{
	size_t n = c->opt.sizes.n_answers, row = test_parts_read_row(c->s, prompt), i;
	int32_t token = c->s->answers[prompt * n + answer];
	const float *heads = ROW(c, head_attrs, prompt) + layer * HEADS * n + answer;
	const float *neurons = ROW(c, neuron_attrs, prompt) + layer * F * n + answer;
	const struct lens_block *b = &c->m->block[layer];

	for (i = 0; i < HEADS; i++) {
		struct written p = { c->s->z[layer] + row * Z + i * D_HEAD,
				     b->w_o + i * D_HEAD * D, D_HEAD };

		check_written(c, &p, (double)heads[i * n], token, scale);
	}
	for (i = 0; i < F; i++) {
		struct written p = { c->s->post[layer] + row * F + i, b->w_out + i * D, 1 };

		check_written(c, &p, (double)neurons[i * n], token, scale);
	}
}

/* The difference of the first two answers, which the list is ordered by. */
static double neuron_diff(const struct checked *c, size_t prompt, size_t neuron)
{
	size_t n = c->opt.sizes.n_answers;
	const float *x = ROW(c, neuron_attrs, prompt) + neuron * n;

	return n > 1 ? (double)x[0] - (double)x[1] : (double)x[0];
}

/* Ordered, each what the table of all neurons has, and none left out that is larger. */
static void check_top(const struct checked *c, size_t prompt)
{
	const int32_t *layer = TOKENS(c, top_neuron_layer, prompt);
	const int32_t *neuron = TOKENS(c, top_neuron, prompt);
	const float *attr = ROW(c, top_neuron_attr, prompt);
	bool seen[LAYERS * F] = { false };
	double off = 4 * TEST_U * 100; /* of two roundings of numbers below 100 */
	size_t i, at;

	for (i = 0; i < TOP; i++) {
		assert_in_range(layer[i], 0, LAYERS - 1);
		assert_in_range(neuron[i], 0, F - 1);
		at = (size_t)layer[i] * F + (size_t)neuron[i];
		assert_false(seen[at]);
		seen[at] = true;
		test_near((double)attr[i], neuron_diff(c, prompt, at), off, "top", (double)i);
		assert_true(!i || fabsf(attr[i]) <= fabsf(attr[i - 1]));
	}
	for (at = 0; at < LAYERS * F; at++)
		assert_true(seen[at] || fabs(neuron_diff(c, prompt, at)) <=
						fabs((double)attr[TOP - 1]) + off);
}

static void check_prompt(const struct checked *c, size_t prompt)
{
	double scale = scale_of(c->m, test_part_row(c->s, c->s->resid, prompt));
	size_t a, layer;

	for (a = 0; a < c->opt.sizes.n_answers; a++) {
		check_parts(c, prompt, a, scale);
		for (layer = 0; layer < LAYERS; layer++)
			check_layer(c, prompt, a, layer, scale);
	}
	check_top(c, prompt);
}

static void check_model(const struct lens_model *m, size_t n_answers)
{
	struct lens_tables_options opt = test_attrs_options(m, n_answers);
	struct lens_tables *t = test_create_tables(m, &opt);
	double deviation;
	size_t n, i;

	for (n = BATCH; n > 0; n -= n > 3 ? 3 : 1) {
		struct test_parts s;
		struct checked c = { .m = m, .s = &s, .t = t, .opt = opt };

		test_make_parts(&s, m, n, n_answers);
		assert_int_equal(show_all(t, &s), 0);
		for (i = 0; i < n; i++)
			check_prompt(&c, i);
		test_release_parts(&s);
	}
	deviation = lens_tables_deviation(t, LENS_TABLE_logit_attrs);
	assert_true(deviation > 0 && deviation <= lens_tables_deviation_bound(&opt.sizes));
	assert_true(lens_tables_deviation(t, LENS_TABLE_head_attrs) == 0);
	lens_tables_destroy(t);
}

/* Every norm, with learned positions and without; one answer to three. */
static void against_float64(void **state)
{
	size_t kind, answers;

	(void)state;
	for (kind = 0; kind < 8; kind++) {
		struct lens_model *m = test_attrs_model(kind & 1, kind & 2, kind & 4);

		for (answers = 1; answers <= 3; answers++)
			check_model(m, answers);
		lens_model_destroy(m);
	}
}

/* --- what is not finite ------------------------------------------------------------------ */

static void check_nan(const struct checked *c, size_t prompt, unsigned flags)
{
	size_t i, n = c->opt.sizes.n_answers, parts = (c->s->n_parts + 1) * n;

	for (i = 0; i < parts; i++)
		assert_true(isnan(ROW(c, logit_attrs, prompt)[i]));
	for (i = 0; i < LAYERS * HEADS * n; i++)
		assert_true(isnan(ROW(c, head_attrs, prompt)[i]));
	for (i = 0; i < LAYERS * F * n; i++)
		assert_true(isnan(ROW(c, neuron_attrs, prompt)[i]));
	for (i = 0; i < TOP; i++) {
		assert_int_equal(TOKENS(c, top_neuron_layer, prompt)[i], -1);
		assert_int_equal(TOKENS(c, top_neuron, prompt)[i], -1);
		assert_true(isnan(ROW(c, top_neuron_attr, prompt)[i]));
	}
	assert_int_equal(((const uint8_t *)lens_tables_rows(c->t, LENS_TABLE_flags))[prompt],
			 flags);
}

/* A component that is not finite makes its own prompt's rows NaN, whatever the norm. */
static void not_finite(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	size_t kind, k, i;

	(void)state;
	for (kind = 0; kind < 6; kind++) {
		struct lens_model *m = test_attrs_model(true, kind & 1, true);
		struct lens_tables_options opt = test_attrs_options(m, 2);
		struct lens_tables *t = test_create_tables(m, &opt);
		struct test_parts s;
		struct checked c = { .m = m, .s = &s, .t = t, .opt = opt };

		k = kind / 2;
		test_make_parts(&s, m, 4, 2);
		test_part_row(&s, s.x[3], 2)[5] = bad[k];
		test_add_parts(&s);
		assert_int_equal(show_all(t, &s), 1);
		check_nan(&c, 2, LENS_FLAG_NONFINITE);
		for (i = 0; i < 4; i++) {
			if (i != 2)
				check_prompt(&c, i);
		}
		assert_true(lens_tables_deviation(t, LENS_TABLE_logit_attrs) <=
			    lens_tables_deviation_bound(&opt.sizes));
		test_release_parts(&s);
		lens_tables_destroy(t);
		lens_model_destroy(m);
	}
}

/* One logit of the vocabulary, and no answer's: every row is flagged and NaN. */
static void one_infinite_logit(void **state)
{
	struct lens_model *m = test_attrs_model(true, false, false);
	struct lens_tables_options opt = test_attrs_options(m, 1);
	struct lens_tables *t;
	struct test_parts s;
	struct checked c = { .m = m, .s = &s, .opt = opt };
	size_t i;

	(void)state;
	m->b_u[36] = INFINITY;
	c.t = t = test_create_tables(m, &opt);
	test_make_parts(&s, m, 3, 1);
	s.answers[0] = s.answers[1] = s.answers[2] = 7;
	assert_int_equal(show_all(t, &s), 3);
	for (i = 0; i < 3; i++)
		check_nan(&c, i, LENS_FLAG_NONFINITE);
	assert_true(lens_tables_deviation(t, LENS_TABLE_logit_attrs) == 0);
	test_release_parts(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* --- bits -------------------------------------------------------------------------------- */

static void same_row(const struct lens_tables *a, size_t i, const struct lens_tables *b,
		     size_t k, const struct lens_tables_options *opt)
{
	static const enum lens_table tables[] = {
		LENS_TABLE_logit_attrs,      LENS_TABLE_head_attrs, LENS_TABLE_neuron_attrs,
		LENS_TABLE_top_neuron_layer, LENS_TABLE_top_neuron, LENS_TABLE_top_neuron_attr
	};
	size_t j;

	for (j = 0; j < sizeof(tables) / sizeof(*tables); j++)
		assert_memory_equal(test_table_row(a, opt, tables[j], i),
				    test_table_row(b, opt, tables[j], k),
				    lens_table_row_bytes(tables[j], opt));
}

/* The prompts of s in another order, or some of them, by a worker of some threads. */
static void show_some(struct lens_tables *t, const struct test_parts *s, const size_t *prompt,
		      size_t n, size_t n_answers)
{
	int32_t answers[BATCH * 3];
	struct lens_batch b;
	size_t i;

	test_pick(&b, &s->b, prompt, n);
	for (i = 0; i < n; i++)
		memcpy(answers + i * n_answers, s->answers + prompt[i] * n_answers,
		       n_answers * sizeof(*answers));
	test_show_parts(t, s, &b, answers);
	lens_batch_release(&b);
}

/* A prompt's bits are the same alone, elsewhere in a batch, and whatever the threads. */
static void rows_of_their_own(void **state)
{
	static const size_t backwards[BATCH] = { 7, 6, 5, 4, 3, 2, 1, 0 };
	static const int threads[] = { 1, 2, 5 };
	struct lens_model *m = test_attrs_model(false, false, true);
	struct lens_tables_options opt = test_attrs_options(m, 3);
	struct lens_tables *all = test_create_tables(m, &opt);
	struct test_parts s;
	size_t i, k;

	(void)state;
	test_make_parts(&s, m, BATCH, 3);
	show_all(all, &s);
	for (k = 0; k < 3; k++) {
		struct lens_tables *t;

		opt.threads = threads[k];
		t = test_create_tables(m, &opt);
		show_some(t, &s, backwards, BATCH, 3);
		for (i = 0; i < BATCH; i++)
			same_row(all, i, t, BATCH - 1 - i, &opt);
		for (i = 0; i < BATCH; i++) {
			show_some(t, &s, &i, 1, 3);
			same_row(all, i, t, 0, &opt);
		}
		lens_tables_destroy(t);
	}
	test_release_parts(&s);
	lens_tables_destroy(all);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_float64),
		cmocka_unit_test(not_finite),
		cmocka_unit_test(one_infinite_logit),
		cmocka_unit_test(rows_of_their_own),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
