/*
 * tables/head_attrs.c: direct logit attribution of each head's result, without b_O
 * (TransformerLens's logit_attrs of stack_head_results), and of each neuron's
 * (get_neuron_results): [layer, head or neuron, answer], in logits, at the read position;
 * of heads with attrs.positions: all [layer, head, pos, answer].
 */
#include "tables/tables_private.h"

/* The answers of part i, of all layers' one after the other, at a position. */
static float *answers_of(const struct lens_table_view *v, size_t prompt, size_t i, size_t pos)
{
	float *row = lens_table_row(v, prompt);

	return row +
	       (i * lens_attrs_places(v) + lens_attrs_place(v, pos)) * v->opt->sizes.n_answers;
}

/* As yet not divided. */
static void keep(struct lens_table_view *v, const struct lens_attribution *a)
{
	size_t i, k, n_answers = v->opt->sizes.n_answers;

	for (i = 0; i < a->n; i++) {
		float *out = answers_of(v, a->prompt, a->layer * a->n + i, a->pos);

		for (k = 0; k < n_answers; k++)
			out[k] = (float)a->value[k * a->n + i];
	}
}

static void divide(struct lens_table_view *v, struct lens_logits *l)
{
	size_t i, k, n_answers = v->opt->sizes.n_answers, pos = lens_attrs_pos(v, l);
	size_t parts = v->row_bytes / sizeof(float) / lens_attrs_places(v) / n_answers;

	for (i = 0; i < parts; i++) {
		float *out = answers_of(v, l->prompt, i, pos);

		if (!l->finite) /* as in logit_attrs */
			lens_fill(LENS_F32, out, n_answers);
		for (k = 0; l->finite && k < n_answers; k++)
			out[k] = (float)((double)out[k] / (double)l->scale);
	}
}

static const struct lens_table_ops ops = { .attribute = keep, .read = divide };

static const struct lens_table_type heads_at_all = {
	.dtype = LENS_F32,
	.n_axes = 4,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD, LENS_AXIS_POS, LENS_AXIS_ANSWER },
	.long_name = "what each head's result, without b_O, adds to each answer's logit at "
		     "every position",
	.units = "logits",
	.logits = LENS_AT_READ_POS | LENS_AT_OTHER_POS,
	.attrs = LENS_ATTRS_HEADS,
	.ops = &ops,
};

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
	.positions_key = LENS_ATTRS_POSITIONS,
	.at_all_pos = &heads_at_all,
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
