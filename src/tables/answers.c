/*
 * tables/answers.c: tables about the answers: logits, probabilities, ranks; at the read
 * position, and of each lens layer there.
 */
#include "tables/tables_private.h"

/* A prompt's row, or a lens layer's part of it: [n_answers]. */
static void *part(const struct lens_table_view *v, const struct lens_logits *l)
{
	return (char *)lens_table_row(v, l->prompt) +
	       l->layer * l->n_answers * lens_dtype_size(v->type->dtype);
}

static void read_logit(struct lens_table_view *v, struct lens_logits *l)
{
	float *out = part(v, l);
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		out[i] = l->logit[l->answer[i]];
}

/* [n_answers − 1], of each lens layer or alone */
static void read_diff(struct lens_table_view *v, struct lens_logits *l)
{
	float *out = (float *)lens_table_row(v, l->prompt) + l->layer * (l->n_answers - 1);
	size_t i;

	for (i = 1; i < l->n_answers; i++)
		out[i - 1] = l->logit[l->answer[0]] - l->logit[l->answer[i]];
}

static void read_prob(struct lens_table_view *v, struct lens_logits *l)
{
	float *out = part(v, l);
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		out[i] = (float)lens_prob(l, l->answer[i]);
}

static void read_logprob(struct lens_table_view *v, struct lens_logits *l)
{
	float *out = part(v, l);
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		out[i] = (float)lens_log_prob(l, l->answer[i]);
}

static void read_rank(struct lens_table_view *v, struct lens_logits *l)
{
	int32_t *out = part(v, l);
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		out[i] = lens_rank(l, l->answer[i]);
}

static const struct lens_table_ops logit = { .read = read_logit };
static const struct lens_table_ops diff = { .read = read_diff };
static const struct lens_table_ops prob = { .read = read_prob };
static const struct lens_table_ops logprob = { .read = read_logprob };
static const struct lens_table_ops rank = { .read = read_rank };

const struct lens_table_type lens_table_logit_diff = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER_OTHER },
	.long_name = "logit of the first answer minus each other answer's",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.ops = &diff,
};

const struct lens_table_type lens_table_answer_logit = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER },
	.long_name = "logit of each answer at the read position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.ops = &logit,
};

const struct lens_table_type lens_table_answer_prob = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER },
	.long_name = "probability of each answer at the read position",
	.units = "1",
	.logits = LENS_AT_READ_POS,
	.ops = &prob,
};

const struct lens_table_type lens_table_answer_logprob = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER },
	.long_name = "log probability of each answer at the read position",
	.units = "nats",
	.logits = LENS_AT_READ_POS,
	.ops = &logprob,
};

const struct lens_table_type lens_table_answer_rank = {
	.dtype = LENS_I32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER },
	.long_name = "tokens with a strictly larger logit (0 is top; -1: logits not finite)",
	.units = "tokens",
	.logits = LENS_AT_READ_POS,
	.ops = &rank,
};

const struct lens_table_type lens_table_rank_per_layer = {
	.dtype = LENS_I32,
	.n_axes = 2,
	.axis = { LENS_AXIS_LENS_LAYER, LENS_AXIS_ANSWER },
	.long_name = "logit lens: tokens with a strictly larger logit (-1: not finite)",
	.units = "tokens",
	.logits = LENS_AT_LENS_LAYER,
	.ops = &rank,
};

const struct lens_table_type lens_table_lens_logit = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_LENS_LAYER, LENS_AXIS_ANSWER },
	.long_name = "logit lens: logit of each answer",
	.units = "logits",
	.logits = LENS_AT_LENS_LAYER,
	.ops = &logit,
};

const struct lens_table_type lens_table_lens_logit_diff = {
	.dtype = LENS_F32,
	.n_axes = 2,
	.axis = { LENS_AXIS_LENS_LAYER, LENS_AXIS_ANSWER_OTHER },
	.long_name = "logit lens: logit of the first answer minus each other answer's",
	.units = "logits",
	.logits = LENS_AT_LENS_LAYER,
	.ops = &diff,
};
