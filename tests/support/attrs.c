/*
 * support/attrs.c: see attrs.h.
 */
#include "support/attrs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum {
	D = TEST_ATTRS_D_MODEL,
	V = TEST_ATTRS_D_VOCAB,
	LAYERS = TEST_ATTRS_LAYERS,
	BATCH = TEST_ATTRS_BATCH,
	HEADS = TEST_ATTRS_HEADS,
	D_HEAD = TEST_ATTRS_D_HEAD,
	F = TEST_ATTRS_D_MLP,
	Z = HEADS * D_HEAD
};

static struct test_random rnd = { 17 };

/* An unembedding whose blocks have W_O and W_out alone. */
struct lens_model *test_attrs_model(bool folded, bool rms, bool positions)
{
	struct lens_model *m = lens_calloc(1, sizeof(*m));
	size_t i;

	assert_non_null(m);
	m->config = (struct lens_config){ .n_layers = LAYERS,
					  .d_model = D,
					  .n_heads = HEADS,
					  .n_kv_heads = HEADS,
					  .d_head = D_HEAD,
					  .d_mlp = F,
					  .d_vocab = V,
					  .n_ctx = 16,
					  .eps = 1e-5,
					  .norm = rms ? LENS_NORM_RMS : LENS_NORM_LN,
					  .learned_positions = positions };
	m->w_u = test_random_floats(&rnd, V * D);
	m->b_u = test_random_floats(&rnd, V);
	m->ln_final_w = folded ? NULL : test_random_floats(&rnd, D);
	m->ln_final_b = folded || rms ? NULL : test_random_floats(&rnd, D);
	m->block = lens_calloc(LAYERS, sizeof(*m->block));
	assert_non_null(m->block);
	for (i = 0; i < LAYERS; i++) {
		m->block[i].w_o = test_random_floats(&rnd, Z * D);
		m->block[i].w_out = test_random_floats(&rnd, F * D);
	}
	return m;
}

/* out [n_rows, D] = x·w of random x [n_rows, n], which it returns. No bias is there. */
static float *write_part(const struct test_parts *s, const float *w, size_t n, float *out)
{
	float *x = test_random_floats(&rnd, s->b.n_rows * n);
	size_t row, i, j;

	for (row = 0; row < s->b.n_rows; row++) {
		for (i = 0; i < D; i++) {
			double sum = 0;

			for (j = 0; j < n; j++)
				sum += (double)x[row * n + j] * (double)w[j * D + i];
			out[row * D + i] = (float)sum;
		}
	}
	return x;
}

static struct lens_activation activation(enum lens_hook hook, size_t layer, const float *x,
					 size_t width)
{
	return (struct lens_activation){
		.hook = hook, .layer = layer, .data = x, .width = width, .stride = width
	};
}

static float *add_part(struct test_parts *s, enum lens_hook hook, size_t layer)
{
	float *x = test_random_floats(&rnd, s->b.n_rows * D);

	s->x[s->n_parts] = x;
	s->part[s->n_parts++] = activation(hook, layer, x, D);
	return x;
}

void test_add_parts(struct test_parts *s)
{
	size_t i, k;

	for (i = 0; i < s->b.n_rows * D; i++) {
		s->resid[i] = s->x[0][i];
		for (k = 1; k < s->n_parts; k++)
			s->resid[i] += s->x[k][i];
	}
}

/* Prompts of one token to nine. */
void test_make_parts(struct test_parts *s, const struct lens_model *m, size_t n,
		     size_t n_answers)
{
	struct test_prompt prompt[BATCH] = { 0 };
	size_t i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < n; i++) {
		prompt[i].length = i ? 1 + test_random_below(&rnd, 9) : 1;
		prompt[i].read_pos = (int32_t)test_random_below(&rnd, prompt[i].length);
	}
	test_pack(&s->b, prompt, n);
	test_scatter(&s->b, &rnd);
	for (i = 0; i < n * n_answers; i++)
		s->answers[i] = (int32_t)test_random_below(&rnd, V);
	add_part(s, LENS_HOOK_EMBED, 0);
	if (m->config.learned_positions)
		add_part(s, LENS_HOOK_POS_EMBED, 0);
	for (i = 0; i < LAYERS; i++) {
		s->z[i] = write_part(s, m->block[i].w_o, Z, add_part(s, LENS_HOOK_ATTN_OUT, i));
		s->post[i] =
			write_part(s, m->block[i].w_out, F, add_part(s, LENS_HOOK_MLP_OUT, i));
	}
	s->resid = test_random_floats(&rnd, s->b.n_rows * D);
	test_add_parts(s);
}

void test_release_parts(struct test_parts *s)
{
	size_t i;

	for (i = 0; i < s->n_parts; i++)
		lens_free(s->x[i]);
	for (i = 0; i < LAYERS; i++) {
		lens_free(s->z[i]);
		lens_free(s->post[i]);
	}
	lens_free(s->resid);
	lens_batch_release(&s->b);
}

/* b: the prompts of s that are shown, with their answers. */
static void visit(struct lens_tables *t, const struct lens_batch *b,
		  const struct lens_activation *a)
{
	assert_int_equal(lens_tables_visit(t, b, a, NULL), LENS_OK);
}

size_t test_show_parts(struct lens_tables *t, const struct test_parts *s,
		       const struct lens_batch *b, const int32_t *answers)
{
	const struct lens_tables_batch in = { .batch = b, .answers = answers };
	struct lens_activation a;
	size_t flagged = 0, i;

	lens_tables_begin(t, &in);
	for (i = 0; i < s->n_parts; i++)
		visit(t, b, &s->part[i]);
	for (i = 0; i < LAYERS; i++) {
		a = activation(LENS_HOOK_Z, i, s->z[i], Z);
		visit(t, b, &a);
		a = activation(LENS_HOOK_MLP_POST, i, s->post[i], F);
		visit(t, b, &a);
	}
	a = activation(LENS_HOOK_RESID_POST, LAYERS - 1, s->resid, D);
	visit(t, b, &a);
	lens_tables_finish(t, &flagged);
	return flagged;
}

struct lens_tables_options test_attrs_options(const struct lens_model *m, size_t n_answers)
{
	struct lens_tables_options o = { .sizes = lens_model_sizes(&m->config),
					 .batch_rows = BATCH };

	o.sizes.n_answers = n_answers;
	o.wanted[LENS_TABLE_answer_logit] = o.wanted[LENS_TABLE_flags] = true;
	o.sizes.top_k = TEST_ATTRS_TOP;
	o.wanted[LENS_TABLE_logit_attrs] = o.wanted[LENS_TABLE_head_attrs] = true;
	o.wanted[LENS_TABLE_neuron_attrs] = o.wanted[LENS_TABLE_top_neuron_layer] = true;
	o.wanted[LENS_TABLE_top_neuron] = o.wanted[LENS_TABLE_top_neuron_attr] = true;
	return o;
}

size_t test_parts_read_row(const struct test_parts *s, size_t prompt)
{
	return (size_t)lens_batch_row(&s->b, prompt, (size_t)s->b.read_pos[prompt]);
}

float *test_part_row(const struct test_parts *s, float *rows, size_t prompt)
{
	return rows + test_parts_read_row(s, prompt) * D;
}
