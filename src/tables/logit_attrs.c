/*
 * tables/logit_attrs.c: direct logit attribution (Elhage et al. 2021; TransformerLens's
 * ActivationCache.logit_attrs of decompose_resid(mode="all")). In: what each component
 * writes into the stream at the read position; out: [component, answer], in logits; with
 * attrs.positions: all at every position, [component, pos, answer], each position's own
 * stream by its own scale.
 *
 * Unlike there, ln_final's weight counts where it is not folded, and the last component
 * is what does not come from the stream: b_U, and an unfolded ln_final's bias. So the
 * components' sum is the answer's logit, before a soft cap; how far it is off, in units of the
 * sum of their magnitudes, is the table's deviation.
 */
#include "tables/tables_private.h"

#include <math.h>

/*
 * The state: directions [batch_rows, answer, D], then sums
 * [batch_rows, component, places, answer].
 */
static size_t n_components(const struct lens_tables_options *opt)
{
	return lens_axis_extent(LENS_AXIS_COMPONENT, &opt->sizes);
}

static size_t bytes_of(const struct lens_tables_options *opt, size_t places)
{
	return opt->batch_rows * opt->sizes.n_answers *
	       (opt->sizes.d_model + n_components(opt) * places) * sizeof(double);
}

static size_t bytes_at_read(const struct lens_tables_options *opt)
{
	return bytes_of(opt, 1);
}

static size_t bytes_at_all(const struct lens_tables_options *opt)
{
	return bytes_of(opt, opt->sizes.n_pos);
}

static double *direction(const struct lens_table_view *v, size_t prompt, size_t answer)
{
	const struct lens_sizes *s = &v->opt->sizes;

	return (double *)v->state + (prompt * s->n_answers + answer) * s->d_model;
}

/* Where the answers of a component at a position stand in a row. */
static size_t place(const struct lens_table_view *v, size_t component, size_t pos)
{
	return (component * lens_attrs_places(v) + lens_attrs_place(v, pos)) *
	       v->opt->sizes.n_answers;
}

/* Laid out as the row. */
static double *sums(const struct lens_table_view *v, size_t prompt)
{
	const struct lens_sizes *s = &v->opt->sizes;

	return (double *)v->state + v->opt->batch_rows * s->n_answers * s->d_model +
	       prompt * n_components(v->opt) * lens_attrs_places(v) * s->n_answers;
}

static void want_components(const struct lens_model *m, struct lens_hook_set *hooks,
			    enum lens_want want)
{
	size_t i;

	lens_hook_want(hooks, LENS_HOOK_EMBED, 0, want);
	if (m->config.learned_positions)
		lens_hook_want(hooks, LENS_HOOK_POS_EMBED, 0, want);
	for (i = 0; i < m->config.n_layers; i++) {
		lens_hook_want(hooks, LENS_HOOK_ATTN_OUT, i, want);
		if (!m->config.attn_only)
			lens_hook_want(hooks, LENS_HOOK_MLP_OUT, i, want);
	}
}

static void want_at_read(const struct lens_model *m, struct lens_hook_set *hooks)
{
	want_components(m, hooks, LENS_WANT_READ_POS);
}

static void want_at_all(const struct lens_model *m, struct lens_hook_set *hooks)
{
	want_components(m, hooks, LENS_WANT_ALL);
}

static void begin(struct lens_table_view *v)
{
	size_t i, a, n = v->opt->sizes.n_answers;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		const int32_t *answer = lens_answers_of(v->in, n, i);

		for (a = 0; a < n; a++)
			lens_direction(v->model, answer[a], direction(v, i, a));
	}
}

/* Its place among the components; false: it is not one. */
static bool component_of(const struct lens_table_view *v, const struct lens_activation *a,
			 size_t *out)
{
	size_t first = 1 + v->opt->sizes.n_pos_embeds;
	size_t each = v->opt->sizes.attn_only ? 1 : 2;

	*out = 0;
	if (a->hook == LENS_HOOK_POS_EMBED && v->opt->sizes.n_pos_embeds)
		*out = 1;
	else if (a->hook == LENS_HOOK_ATTN_OUT)
		*out = first + each * a->layer;
	else if (a->hook == LENS_HOOK_MLP_OUT)
		*out = first + each * a->layer + 1;
	else
		return a->hook == LENS_HOOK_EMBED;
	return true;
}

/* The products of a row with each answer's direction. */
static void multiply(const struct lens_table_view *v, const float *x, size_t prompt,
		     double *out)
{
	size_t j, k, d = v->opt->sizes.d_model;

	for (k = 0; k < v->opt->sizes.n_answers; k++) {
		const double *toward = direction(v, prompt, k);
		double s = 0;

		for (j = 0; j < d; j++)
			s += (double)x[j] * toward[j];
		out[k] = s;
	}
}

static void visit(struct lens_table_view *v, const struct lens_batch *b,
		  const struct lens_activation *a)
{
	size_t i, pos, component;

	if (!component_of(v, a, &component))
		return;
	for (i = 0; i < b->n_prompts; i++) {
		struct lens_attrs_span span = lens_attrs_span(b, i, lens_attrs_at_all(v->type));

		for (pos = span.from; pos < span.end; pos++) {
			size_t row = (size_t)lens_batch_row(b, i, pos);

			multiply(v, a->data + row * a->stride, i,
				 sums(v, i) + place(v, component, pos));
		}
	}
}

/* One answer's column of a prompt's row, at one position. */
static void finish_answer(struct lens_table_view *v, const struct lens_logits *l, size_t answer)
{
	size_t c, n = n_components(v->opt), pos = lens_attrs_pos(v, l);
	float *out = (float *)lens_table_row(v, l->prompt) + answer;
	const double *sum = sums(v, l->prompt) + answer;
	double total = 0, magnitude = 0, off;

	for (c = 0; c < n; c++) {
		size_t at = place(v, c, pos);
		double x = c + 1 < n ? sum[at] / (double)l->scale
				     : lens_direction_bias(v->model, l->answer[answer]);

		out[at] = (float)x;
		total += x;
		magnitude += fabs(x);
	}
	/* The components' sum is the logit before the cap, where logits have one. */
	off = fabs(lens_capped(v->model, total) - lens_answer_logit(l, answer)) / magnitude;
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

/* Where a logit is not finite the row's position stays NaN: its sum would not be the logit. */
static void read_logits(struct lens_table_view *v, struct lens_logits *l)
{
	size_t a;

	if (!l->finite)
		return;
	for (a = 0; a < l->n_answers; a++)
		finish_answer(v, l, a);
}

static const struct lens_table_ops at_read = { .hooks = want_at_read,
					       .state_bytes = bytes_at_read,
					       .begin = begin,
					       .visit = visit,
					       .read = read_logits };
static const struct lens_table_ops at_all = { .hooks = want_at_all,
					      .state_bytes = bytes_at_all,
					      .begin = begin,
					      .visit = visit,
					      .read = read_logits };

static const struct lens_table_type type_at_all = {
	.dtype = LENS_F32,
	.n_axes = 3,
	.axis = { LENS_AXIS_COMPONENT, LENS_AXIS_POS, LENS_AXIS_ANSWER },
	.long_name = "what each component adds to each answer's logit at every position",
	.units = "logits",
	.logits = LENS_AT_READ_POS | LENS_AT_OTHER_POS,
	.has_deviation = true,
	.ops = &at_all,
};

const struct lens_table_type lens_table_logit_attrs = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_COMPONENT, LENS_AXIS_ANSWER },
	.long_name = "what each component adds to each answer's logit at the read position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.has_deviation = true,
	.ops = &at_read,
	.positions_key = LENS_ATTRS_POSITIONS,
	.at_all_pos = &type_at_all,
};
