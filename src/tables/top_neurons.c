/*
 * tables/top_neurons.c: the k neurons that add most to the first answer's logit minus
 * the second's, or to the first's if it is the only one: by magnitude, ties to the
 * lower layer, then the lower neuron. Places past a model's last neuron stay as filled: −1,
 * −1, NaN.
 */
#include "tables/tables_private.h"

#include <math.h>

/* The state: [batch_rows, top_k], the largest first; layer −1: there is none yet. */
struct neuron {
	double attr; /* not yet divided */
	int32_t layer, neuron;
};

static size_t state_bytes(const struct lens_tables_options *opt)
{
	return opt->batch_rows * opt->sizes.top_k * sizeof(struct neuron);
}

static struct neuron *best_of(const struct lens_table_view *v, size_t prompt)
{
	return (struct neuron *)v->state + prompt * v->opt->sizes.top_k;
}

static void begin(struct lens_table_view *v)
{
	size_t i, n = v->in->batch->n_prompts * v->opt->sizes.top_k;

	for (i = 0; i < n; i++)
		best_of(v, 0)[i] = (struct neuron){ NAN, -1, -1 };
}

/* Is there nothing at a place of the list, or less? */
static bool below(const struct neuron *n, double magnitude)
{
	return n->layer < 0 || fabs(n->attr) < magnitude;
}

static void take(struct lens_table_view *v, const struct lens_attribution *a)
{
	size_t i, at, k = v->opt->sizes.top_k;
	struct neuron *best = best_of(v, a->prompt);

	if (!k)
		return;
	for (i = 0; i < a->n; i++) {
		double x = a->value[i];

		if (v->opt->sizes.n_answers > 1)
			x -= a->value[a->n + i];
		if (!below(&best[k - 1], fabs(x)))
			continue;
		for (at = k - 1; at > 0 && below(&best[at - 1], fabs(x)); at--)
			best[at] = best[at - 1];
		best[at] = (struct neuron){ x, (int32_t)a->layer, (int32_t)i };
	}
}

/* Where a logit is not finite the row stays as filled, as in logit_attrs. */
static size_t n_to_read(const struct lens_table_view *v, const struct lens_logits *l)
{
	return l->finite ? v->opt->sizes.top_k : 0;
}

static void read_layer(struct lens_table_view *v, struct lens_logits *l)
{
	int32_t *out = lens_table_row(v, l->prompt);
	size_t i, n = n_to_read(v, l);

	for (i = 0; i < n; i++)
		out[i] = best_of(v, l->prompt)[i].layer;
}

static void read_neuron(struct lens_table_view *v, struct lens_logits *l)
{
	int32_t *out = lens_table_row(v, l->prompt);
	size_t i, n = n_to_read(v, l);

	for (i = 0; i < n; i++)
		out[i] = best_of(v, l->prompt)[i].neuron;
}

static void read_attr(struct lens_table_view *v, struct lens_logits *l)
{
	float *out = lens_table_row(v, l->prompt);
	size_t i, n = n_to_read(v, l);

	for (i = 0; i < n; i++)
		out[i] = (float)(best_of(v, l->prompt)[i].attr / (double)l->scale);
}

/* The first one selects, the others read what it has. */
static const struct lens_table_ops layer = {
	.state_bytes = state_bytes, .begin = begin, .attribute = take, .read = read_layer
};
static const struct lens_table_ops neuron = { .read = read_neuron };
static const struct lens_table_ops attr = { .read = read_attr };

const struct lens_table_type lens_table_top_neuron_layer = {
	.dtype = LENS_I32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "layers of the neurons that add most, by magnitude, to the first answer's "
		     "logit minus the second's",
	.units = "layer",
	.logits = LENS_AT_READ_POS,
	.attrs = LENS_ATTRS_NEURONS,
	.ops = &layer,
};

const struct lens_table_type lens_table_top_neuron = {
	.dtype = LENS_I32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "their indices in the layer",
	.units = "neuron",
	.logits = LENS_AT_READ_POS,
	.state_of = &lens_table_top_neuron_layer,
	.ops = &neuron,
};

const struct lens_table_type lens_table_top_neuron_attr = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "what they add",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.state_of = &lens_table_top_neuron_layer,
	.ops = &attr,
};
