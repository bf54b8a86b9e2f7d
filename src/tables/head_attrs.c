/*
 * tables/head_attrs.c: direct logit attribution of each head's result, without b_O
 * (TransformerLens's logit_attrs of stack_head_results), and of each neuron's
 * (get_neuron_results): [layer, head or neuron, answer], in logits.
 */
#include "tables/tables_private.h"

/* A prompt's row, and its part of a layer: [n, n_answers], as yet not divided. */
static void keep(struct lens_table_view *v, const struct lens_attribution *a)
{
	size_t i, k, n_answers = v->opt->sizes.n_answers;
	float *out = (float *)lens_table_row(v, a->prompt) + a->layer * a->n * n_answers;

	for (i = 0; i < a->n; i++) {
		for (k = 0; k < n_answers; k++)
			out[i * n_answers + k] = (float)a->value[k * a->n + i];
	}
}

static void divide(struct lens_table_view *v, struct lens_logits *l)
{
	size_t i, n = v->row_bytes / sizeof(float);
	float *out = lens_table_row(v, l->prompt);

	if (!l->finite) { /* as in logit_attrs */
		lens_fill(LENS_F32, out, n);
		return;
	}
	for (i = 0; i < n; i++)
		out[i] = (float)((double)out[i] / (double)l->scale);
}

static const struct lens_table_ops ops = { .attribute = keep, .read = divide };

const struct lens_table_type lens_table_head_attrs = {
	.dtype = LENS_F32,
	.n_axes = 3,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD, LENS_AXIS_ANSWER },
	.long_name = "what each head's result, without b_O, adds to each answer's logit at "
		     "the read position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.attrs = LENS_ATTRS_HEADS,
	.ops = &ops,
};

const struct lens_table_type lens_table_neuron_attrs = {
	.dtype = LENS_F32,
	.cache_dtype = true,
	.n_axes = 3,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_NEURON, LENS_AXIS_ANSWER },
	.long_name = "what each neuron, without b_out, adds to each answer's logit at the read "
		     "position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.attrs = LENS_ATTRS_NEURONS,
	.ops = &ops,
};
