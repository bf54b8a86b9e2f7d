/*
 * tables/top.c: what the model says, at the read position or at every one: the tokens
 * with the largest logits, and how sure it is.
 */
#include "tables/tables_private.h"

#include <string.h>

/* A prompt's row, [top_k], or of [n_pos, top_k] the part of one position. */
static void *part(const struct lens_table_view *v, const struct lens_logits *l)
{
	return (char *)lens_table_row(v, l->prompt) +
	       l->pos * v->opt->sizes.top_k * lens_dtype_size(v->type->dtype);
}

static void read_tokens(struct lens_table_view *v, struct lens_logits *l)
{
	memcpy(part(v, l), lens_top(v, l), v->opt->sizes.top_k * sizeof(int32_t));
}

static void read_logits(struct lens_table_view *v, struct lens_logits *l)
{
	lens_top_logits(v, l, part(v, l));
}

static void read_probs(struct lens_table_view *v, struct lens_logits *l)
{
	lens_top_probs(v, l, part(v, l));
}

static void read_entropy(struct lens_table_view *v, struct lens_logits *l)
{
	((float *)lens_table_row(v, l->prompt))[l->pos] = (float)lens_entropy(l);
}

static const struct lens_table_ops tokens = { .read = read_tokens };
static const struct lens_table_ops logits = { .read = read_logits };
static const struct lens_table_ops probs = { .read = read_probs };
static const struct lens_table_ops entropy = { .read = read_entropy };

const struct lens_table_type lens_table_top_tokens = {
	.dtype = LENS_I32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "the tokens with the largest logits (ties: smaller id first)",
	.units = "token id",
	.logits = LENS_AT_READ_POS,
	.ops = &tokens,
};

const struct lens_table_type lens_table_top_logits = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "their logits",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.ops = &logits,
};

const struct lens_table_type lens_table_top_probs = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_K },
	.long_name = "their probabilities",
	.units = "1",
	.logits = LENS_AT_READ_POS,
	.ops = &probs,
};

const struct lens_table_type lens_table_pos_top_tokens = {
	.dtype = LENS_I32,
	.n_axes = 2,
	.axis = { LENS_AXIS_POS, LENS_AXIS_K },
	.long_name = "the tokens with the largest logits at each position (ties: smaller id "
		     "first; -1 past the prompt's end)",
	.units = "token id",
	.logits = LENS_AT_EVERY_POS,
	.ops = &tokens,
};

const struct lens_table_type lens_table_pos_top_logits = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_POS, LENS_AXIS_K },
	.long_name = "their logits",
	.units = "logits",
	.logits = LENS_AT_EVERY_POS,
	.ops = &logits,
};

const struct lens_table_type lens_table_pos_top_probs = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_POS, LENS_AXIS_K },
	.long_name = "their probabilities",
	.units = "1",
	.logits = LENS_AT_EVERY_POS,
	.ops = &probs,
};

const struct lens_table_type lens_table_entropy = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_POS },
	.long_name = "entropy of the model's distribution over the next token at each position",
	.units = "nats",
	.logits = LENS_AT_EVERY_POS,
	.ops = &entropy,
};
