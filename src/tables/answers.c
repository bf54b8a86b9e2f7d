/*
 * tables/answers.c: tables about the answers: logits, probabilities, ranks; at the read
 * position, and of each lens layer there; log probabilities and ranks of answers of any
 * number of tokens.
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

/* --- of any number of tokens ------------------------------------------------------- */

/* The state: the sum of each answer's log P, [batch_rows, n_answers]. */
static size_t sums_bytes(const struct lens_tables_options *opt)
{
	return opt->batch_rows * opt->sizes.n_answers * sizeof(double);
}

static const double *sums(const struct lens_table_view *v, size_t prompt)
{
	return (const double *)v->state + prompt * v->opt->sizes.n_answers;
}

static void add_token(struct lens_table_view *v, struct lens_logits *l)
{
	size_t n = v->opt->sizes.n_answers;

	((double *)v->state)[l->prompt * n + l->of_answer] += lens_log_prob(l, l->next);
}

static void round_sums(struct lens_table_view *v)
{
	size_t i, k;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		float *out = lens_table_row(v, i);

		for (k = 0; k < v->opt->sizes.n_answers; k++)
			out[k] = (float)sums(v, i)[k];
	}
}

static void subtract_sums(struct lens_table_view *v)
{
	size_t i, k;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		float *out = lens_table_row(v, i);

		for (k = 1; k < v->opt->sizes.n_answers; k++)
			out[k - 1] = (float)(sums(v, i)[0] - sums(v, i)[k]);
	}
}

static void read_token_rank(struct lens_table_view *v, struct lens_logits *l)
{
	int32_t *out = lens_table_row(v, l->prompt);

	out[l->of_answer * v->opt->sizes.n_answer_pos + l->pos] = lens_rank(l, l->next);
}

static const struct lens_table_ops logit = { .read = read_logit };
static const struct lens_table_ops diff = { .read = read_diff };
static const struct lens_table_ops prob = { .read = read_prob };
static const struct lens_table_ops logprob = { .read = read_logprob };
static const struct lens_table_ops rank = { .read = read_rank };
static const struct lens_table_ops sum_diff = { .state_bytes = sums_bytes,
						.read = add_token,
						.finish = subtract_sums };
static const struct lens_table_ops sum = { .state_bytes = sums_bytes,
					   .read = add_token,
					   .finish = round_sums };
static const struct lens_table_ops token_rank = { .read = read_token_rank };

static const struct lens_table_type diff_of_any = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER_OTHER },
	.long_name = "log probability of the first answer, the sum over its tokens, minus "
		     "each other answer's",
	.units = "nats",
	.logits = LENS_AT_ANSWER,
	.ops = &sum_diff,
};

static const struct lens_table_type logprob_of_any = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER },
	.long_name = "log probability of each answer behind the read position: the sum over "
		     "its tokens, each given those before it",
	.units = "nats",
	.logits = LENS_AT_ANSWER,
	.ops = &sum,
};

const struct lens_table_type lens_table_answer_token_rank = {
	.dtype = LENS_I32,
	.n_axes = 2,
	.axis = { LENS_AXIS_ANSWER, LENS_AXIS_ANSWER_POS },
	.long_name = "of each token of an answer, given those before it: tokens with a "
		     "strictly larger logit (0 is top; -1: not finite, or past the end)",
	.units = "tokens",
	.logits = LENS_AT_ANSWER,
	.ops = &token_rank,
};

const struct lens_table_type lens_table_logit_diff = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_ANSWER_OTHER },
	.long_name = "logit of the first answer minus each other answer's",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.ops = &diff,
	.of_any = &diff_of_any,
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
	.of_any = &logprob_of_any,
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
