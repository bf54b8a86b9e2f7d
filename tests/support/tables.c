/*
 * support/tables.c: see tables.h.
 */
#include "support/tables.h"

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

size_t test_table_index(const char *name)
{
	size_t i;

	for (i = 0; i < LENS_TABLES; i++) {
		if (!strcmp(lens_table(i)->name, name))
			return i;
	}
	fail_msg("no table is called %s", name);
	return 0;
}

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
	size_t i;

	memset(s, 0, sizeof(*s));
	s->n = n;
	for (i = 0; i < n; i++) {
		s->offset[i] = s->rows;
		s->length[i] = 1 + test_random_below(&rnd, 9);
		s->read_pos[i] = (int32_t)test_random_below(&rnd, s->length[i]);
		s->rows += (s->length[i] + 11) / 12 * 12;
	}
	for (i = 0; i < n * n_answers; i++)
		s->answers[i] = (int32_t)test_random_below(&rnd, V);
	s->answers[0] = 9; /* one of those that tie */
	for (i = 0; i < SOURCES; i++)
		s->resid[i] = test_random_floats(&rnd, s->rows * D);
}

void test_release_stream(struct test_stream *s)
{
	size_t i;

	for (i = 0; i < SOURCES; i++)
		lens_free(s->resid[i]);
}

size_t test_analyse(struct lens_analysis *a, const struct test_stream *s)
{
	const struct lens_batch b = {
		.n_prompts = s->n, .length = s->length, .offset = s->offset, .n_rows = s->rows
	};
	struct lens_activation act = { .width = D, .stride = D };
	const struct lens_activation other = { .hook = LENS_HOOK_MLP_OUT };
	size_t flagged = 0, i;

	lens_analysis_begin(a, s->read_pos);
	for (i = 0; i < SOURCES; i++) {
		act.hook = i < LAYERS ? LENS_HOOK_RESID_PRE : LENS_HOOK_RESID_POST;
		act.layer = i < LAYERS ? i : LAYERS - 1;
		act.data = s->resid[i];
		lens_analysis_visit(a, &b, &act);
	}
	lens_analysis_visit(a, &b, &other);
	lens_analysis_finish(a, s->n, s->answers, &flagged);
	return flagged;
}

/* --- an analysis ------------------------------------------------------------------------ */

struct lens_analysis *test_create_analysis(const struct lens_model *m,
					   const struct lens_analysis_options *opt)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_analysis *a;

	if (lens_analysis_create(m, opt, &a, &err) != LENS_OK)
		fail_msg("%s", err.text);
	return a;
}

struct lens_analysis_options test_all_tables(size_t n_answers, size_t top_k,
					     enum lens_lens_mode lens)
{
	struct lens_analysis_options o = {
		.n_answers = n_answers, .top_k = top_k, .lens = lens, .batch_rows = BATCH
	};
	size_t i;

	for (i = 0; i < LENS_TABLES; i++)
		o.wanted[i] =
			lens_table(i)->of != LENS_OF_EVERY_POS; /* test_token_logprobs.c */
	o.wanted[test_table_index("logit_diff")] = n_answers > 1;
	return o;
}
