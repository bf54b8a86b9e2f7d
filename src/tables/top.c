/*
 * tables/top.c: the tokens with the largest logits at the read position.
 */
#include "tables/tables_private.h"

#include <string.h>

static void read_tokens(struct lens_table_view *v, struct lens_logits *l)
{
	memcpy(lens_table_row(v, l->prompt), lens_top(v, l), v->row_bytes);
}

static void read_logits(struct lens_table_view *v, struct lens_logits *l)
{
	lens_top_logits(v, l, lens_table_row(v, l->prompt));
}

static void read_probs(struct lens_table_view *v, struct lens_logits *l)
{
	lens_top_probs(v, l, lens_table_row(v, l->prompt));
}

static const struct lens_table_ops tokens = { .read = read_tokens };
static const struct lens_table_ops logits = { .read = read_logits };
static const struct lens_table_ops probs = { .read = read_probs };

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
