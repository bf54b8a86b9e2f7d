/*
 * tables/logit_attrs.c: direct logit attribution (Elhage et al. 2021; TransformerLens's
 * ActivationCache.logit_attrs of decompose_resid(mode="all")). In: what each component
 * writes into the stream at the read position; out: [component, answer], in logits.
 *
 * Unlike there, ln_final's weight counts where it is not folded, and the last component
 * is what does not come from the stream: b_U, and an unfolded ln_final's bias. So the
 * components' sum is the answer's logit; how far it is off, in units of the sum of
 * their magnitudes, is the table's deviation.
 */
#include "tables/tables_private.h"

#include <math.h>

/* The state: directions [batch_rows, answer, D], then sums [batch_rows, component, answer]. */
static size_t n_components(const struct lens_tables_options *opt)
{
	return lens_axis_extent(LENS_AXIS_COMPONENT, &opt->sizes);
}

static size_t state_bytes(const struct lens_tables_options *opt)
{
	return opt->batch_rows * opt->sizes.n_answers *
	       (opt->sizes.d_model + n_components(opt)) * sizeof(double);
}

static double *direction(const struct lens_table_view *v, size_t prompt, size_t answer)
{
	const struct lens_sizes *s = &v->opt->sizes;

	return (double *)v->state + (prompt * s->n_answers + answer) * s->d_model;
}

static double *sum(const struct lens_table_view *v, size_t prompt, size_t component)
{
	const struct lens_sizes *s = &v->opt->sizes;

	return (double *)v->state + v->opt->batch_rows * s->n_answers * s->d_model +
	       (prompt * n_components(v->opt) + component) * s->n_answers;
}

static void want_components(const struct lens_model *m, struct lens_hook_set *hooks)
{
	size_t i;

	lens_hook_want(hooks, LENS_HOOK_EMBED, 0, LENS_WANT_READ_POS);
	if (m->config.learned_positions)
		lens_hook_want(hooks, LENS_HOOK_POS_EMBED, 0, LENS_WANT_READ_POS);
	for (i = 0; i < m->config.n_layers; i++) {
		lens_hook_want(hooks, LENS_HOOK_ATTN_OUT, i, LENS_WANT_READ_POS);
		lens_hook_want(hooks, LENS_HOOK_MLP_OUT, i, LENS_WANT_READ_POS);
	}
}

static void begin(struct lens_table_view *v)
{
	size_t i, a, n = v->opt->sizes.n_answers;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		for (a = 0; a < n; a++)
			lens_direction(v->model, v->in->answers[i * n + a], direction(v, i, a));
	}
}

/* Its place among the components; false: it is not one. */
static bool component_of(const struct lens_table_view *v, const struct lens_activation *a,
			 size_t *out)
{
	size_t first = 1 + v->opt->sizes.n_pos_embeds;

	*out = 0;
	if (a->hook == LENS_HOOK_POS_EMBED)
		*out = 1;
	else if (a->hook == LENS_HOOK_ATTN_OUT)
		*out = first + 2 * a->layer;
	else if (a->hook == LENS_HOOK_MLP_OUT)
		*out = first + 2 * a->layer + 1;
	else
		return a->hook == LENS_HOOK_EMBED;
	return true;
}

static void visit(struct lens_table_view *v, const struct lens_batch *b,
		  const struct lens_activation *a)
{
	size_t i, k, j, component, n = v->opt->sizes.n_answers;

	if (!component_of(v, a, &component))
		return;
	for (i = 0; i < b->n_prompts; i++) {
		size_t row = (size_t)lens_batch_row(b, i, (size_t)b->read_pos[i]);
		const float *x = a->data + row * a->stride;

		for (k = 0; k < n; k++) {
			const double *d = direction(v, i, k);
			double s = 0;

			for (j = 0; j < a->width; j++)
				s += (double)x[j] * d[j];
			sum(v, i, component)[k] = s;
		}
	}
}

/* One answer's column of a prompt's row. */
static void finish_answer(struct lens_table_view *v, const struct lens_logits *l, size_t answer)
{
	size_t c, n = n_components(v->opt), n_answers = l->n_answers;
	float *out = lens_table_row(v, l->prompt);
	double total = 0, magnitude = 0, off;

	for (c = 0; c < n; c++) {
		double x = c + 1 < n ? sum(v, l->prompt, c)[answer] / (double)l->scale
				     : lens_direction_bias(v->model, l->answer[answer]);

		out[c * n_answers + answer] = (float)x;
		total += x;
		magnitude += fabs(x);
	}
	off = fabs(total - (double)l->logit[l->answer[answer]]) / magnitude;
	if (off > v->deviation)
		v->deviation = off;
}

/* The derivation stands beside the declaration. */
double lens_tables_deviation_bound(const struct lens_sizes *s)
{
	size_t d = s->d_model;
	size_t k = lens_axis_extent(LENS_AXIS_COMPONENT, s) + lens_min(d, 128) + d / 128 + 4;

	return (double)k * 0x1p-24 * sqrt((double)d);
}

/* Where a logit is not finite the row stays NaN: its sum would not be the logit. */
static void read_logits(struct lens_table_view *v, struct lens_logits *l)
{
	size_t a;

	if (!l->finite)
		return;
	for (a = 0; a < l->n_answers; a++)
		finish_answer(v, l, a);
}

static const struct lens_table_ops ops = { .hooks = want_components,
					   .state_bytes = state_bytes,
					   .begin = begin,
					   .visit = visit,
					   .read = read_logits };

const struct lens_table_type lens_table_logit_attrs = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_COMPONENT, LENS_AXIS_ANSWER },
	.long_name = "what each component adds to each answer's logit at the read position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.has_deviation = true,
	.ops = &ops,
};
