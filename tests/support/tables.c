/*
 * support/tables.c: see tables.h.
 */
#include "support/tables.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
	D = TEST_D_MODEL,
	V = TEST_D_VOCAB,
	LAYERS = TEST_LAYERS,
	BATCH = TEST_BATCH,
	SOURCES = TEST_SOURCES
};

static struct test_random rnd = { 3 };

/* --- a model ----------------------------------------------------------------------------- */

struct lens_model *test_unembedding(struct test_random *r, size_t n_layers, size_t n_ctx)
{
	struct lens_model *m = lens_calloc(1, sizeof(*m));

	assert_non_null(m);
	m->config = (struct lens_config){ .n_layers = n_layers,
					  .d_model = D,
					  .n_heads = 2,
					  .n_kv_heads = 2,
					  .d_head = 10,
					  .d_mlp = 40,
					  .d_vocab = V,
					  .n_ctx = n_ctx,
					  .eps = 1e-5,
					  .norm = LENS_NORM_LN };
	m->w_u = test_random_floats(r, V * D);
	m->b_u = test_random_floats(r, V);
	return m;
}

struct lens_model *test_make_model(bool folded, bool rms)
{
	struct lens_model *m = test_unembedding(&rnd, LAYERS, 16);
	size_t i;

	m->config.norm = rms ? LENS_NORM_RMS : LENS_NORM_LN;
	for (i = 0; i < V; i++) {
		if (i != 5 && i != 9 && i != 30)
			continue;
		memset(m->w_u + i * D, 0, D * sizeof(float));
		m->b_u[i] = 0.5f;
	}
	if (!folded) {
		m->ln_final_w = test_random_floats(&rnd, D);
		m->ln_final_b = rms ? NULL : test_random_floats(&rnd, D);
	}
	return m;
}

/* --- a batch's residual streams ---------------------------------------------------------- */

void test_make_stream(struct test_stream *s, size_t n, size_t n_answers)
{
	struct test_prompt prompt[BATCH] = { 0 };
	size_t i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < n; i++) {
		prompt[i].length = 1 + test_random_below(&rnd, 9);
		prompt[i].read_pos = (int32_t)test_random_below(&rnd, prompt[i].length);
	}
	test_pack(&s->b, prompt, n);
	test_scatter(&s->b, &rnd);
	for (i = 0; i < n * n_answers; i++)
		s->answers[i] = (int32_t)test_random_below(&rnd, V);
	s->answers[0] = 9; /* one of those that tie */
	for (i = 0; i < SOURCES; i++)
		s->resid[i] = test_random_floats(&rnd, s->b.n_rows * D);
}

void test_release_stream(struct test_stream *s)
{
	size_t i;

	for (i = 0; i < SOURCES; i++)
		lens_free(s->resid[i]);
	lens_batch_release(&s->b);
}

float *test_read_row(const struct test_stream *s, size_t source, size_t prompt)
{
	size_t pos = (size_t)s->b.read_pos[prompt];

	return s->resid[source] + (size_t)lens_batch_row(&s->b, prompt, pos) * D;
}

size_t test_show_stream(struct lens_tables *t, const struct test_stream *s)
{
	const struct lens_tables_batch in = { .batch = &s->b, .answers = s->answers };
	struct lens_activation act = { .width = D, .stride = D };
	const struct lens_activation other = { .hook = LENS_HOOK_MLP_OUT };
	size_t flagged = 0, i;

	lens_tables_begin(t, &in);
	for (i = 0; i < SOURCES; i++) {
		act.hook = i < LAYERS ? LENS_HOOK_RESID_PRE : LENS_HOOK_RESID_POST;
		act.layer = i < LAYERS ? i : LAYERS - 1;
		act.data = s->resid[i];
		assert_int_equal(lens_tables_visit(t, &s->b, &act, NULL), LENS_OK);
	}
	assert_int_equal(lens_tables_visit(t, &s->b, &other, NULL), LENS_OK);
	lens_tables_finish(t, &flagged);
	return flagged;
}

/* --- tables ------------------------------------------------------------------------------ */

double test_moments(const struct lens_model *m, const float *x, double *scale)
{
	double mean = 0, var = 0;
	size_t j;

	for (j = 0; m->config.norm == LENS_NORM_LN && j < D; j++)
		mean += (double)x[j] / D;
	for (j = 0; j < D; j++)
		var += ((double)x[j] - mean) * ((double)x[j] - mean) / D;
	*scale = sqrt(var + m->config.eps);
	return mean;
}

struct lens_tables *test_create_tables(const struct lens_model *m,
				       const struct lens_tables_options *opt)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tables *t;

	if (lens_tables_create(m, opt, &t, &err) != LENS_OK)
		fail_msg("%s", err.text);
	return t;
}

const void *test_table_row(const struct lens_tables *t, const struct lens_tables_options *opt,
			   enum lens_table table, size_t prompt)
{
	const unsigned char *rows = lens_tables_rows(t, table);

	assert_non_null(rows);
	return rows + prompt * lens_table_row_bytes(table, opt);
}

struct lens_tables_options test_all_tables(const struct lens_model *m, size_t n_answers,
					   size_t top_k, enum lens_lens_mode lens)
{
	struct lens_tables_options o = { .sizes = lens_model_sizes(&m->config),
					 .lens = lens,
					 .batch_rows = BATCH };
	size_t i;

	o.sizes.n_answers = n_answers;
	o.sizes.top_k = top_k;
	for (i = 0; i < LENS_TABLE_COUNT; i++) /* the others: test_token_logprobs.c */
		o.wanted[i] = lens_table_type((enum lens_table)i, &o)->logits &
			      (LENS_AT_READ_POS | LENS_AT_LENS_LAYER);
	o.wanted[LENS_TABLE_logit_diff] = o.wanted[LENS_TABLE_lens_logit_diff] = n_answers > 1;
	o.wanted[LENS_TABLE_kl_divergence] = false; /* of another run's logits */
	/* of activations, too */
	o.wanted[LENS_TABLE_logit_attrs] = o.wanted[LENS_TABLE_head_attrs] = false;
	o.wanted[LENS_TABLE_neuron_attrs] = o.wanted[LENS_TABLE_top_neuron_layer] =
		o.wanted[LENS_TABLE_top_neuron] = o.wanted[LENS_TABLE_top_neuron_attr] = false;
	return o;
}
