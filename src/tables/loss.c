/*
 * tables/loss.c: how probable each token of a prompt was, given those before it.
 */
#include "tables/tables_private.h"

/* [n_pos]; NaN from the last token on. */
static void read_token(struct lens_table_view *v, struct lens_logits *l)
{
	((float *)lens_table_row(v, l->prompt))[l->pos] = (float)lens_log_prob(l, l->next);
}

/* The state: the sum of log P over each prompt, [batch_rows]. */
static size_t sums_bytes(const struct lens_tables_options *opt)
{
	return opt->batch_rows * sizeof(double);
}

static void add_token(struct lens_table_view *v, struct lens_logits *l)
{
	((double *)v->state)[l->prompt] += lens_log_prob(l, l->next);
}

static void divide(struct lens_table_view *v)
{
	const double *sum = v->state;
	size_t i;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		size_t n = v->in->batch->length[i] - 1;

		if (n) /* else it stays NaN */
			*(float *)lens_table_row(v, i) = (float)((0 - sum[i]) / (double)n);
	}
}

static const struct lens_table_ops token = { .read = read_token };
static const struct lens_table_ops mean = { .state_bytes = sums_bytes,
					    .read = add_token,
					    .finish = divide };

const struct lens_table_type lens_table_token_logprobs = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_POS },
	.long_name = "log probability of the next token, given the tokens up to this position "
		     "(NaN at the last token and past it)",
	.units = "nats",
	.logits = LENS_AT_NEXT_TOKEN,
	.ops = &token,
};

const struct lens_table_type lens_table_loss = {
	.dtype = LENS_F32,
	.long_name = "mean of -token_logprobs over the prompt's tokens but the first",
	.units = "nats",
	.logits = LENS_AT_NEXT_TOKEN,
	.ops = &mean,
};
