/*
 * tables/flags.c: what is odd about a prompt: logits that are not finite, and what the
 * check of the data found.
 */
#include "tables/tables_private.h"

static void read_logits(struct lens_table_view *v, struct lens_logits *l)
{
	uint8_t *flags = lens_table_row(v, l->prompt);

	bool at_read_pos = l->at == LENS_AT_READ_POS || (l->at == LENS_AT_ANSWER && !l->pos);

	if (!l->finite)
		*flags |= at_read_pos ? LENS_FLAG_NONFINITE : LENS_FLAG_NONFINITE_POS;
}

static void add_row_flags(struct lens_table_view *v)
{
	size_t i;

	if (!v->in->flags)
		return;
	for (i = 0; i < v->in->batch->n_prompts; i++)
		v->rows[i] |= v->in->flags[lens_row_of(v->in, i)];
}

static const struct lens_table_ops ops = { .read = read_logits, .finish = add_row_flags };

#define LONG_NAME(needed, tokens)                                                              \
	"bit 0: a logit at the read position is not finite; bit 1: one that " needed           \
	" needed is not; bit 2: the prompt ends in white space and an answer begins with it; " \
	"bit 3: two answers are the same " tokens

static const struct lens_table_type of_any = {
	.dtype = LENS_U8,
	.long_name = LONG_NAME("token_logprobs, loss or an answer's later tokens", "tokens"),
	.logits = LENS_AT_READ_POS,
	.logits_if_made = LENS_AT_NEXT_TOKEN | LENS_AT_EVERY_POS | LENS_AT_ANSWER,
	.ops = &ops,
};

const struct lens_table_type lens_table_flags = {
	.dtype = LENS_U8,
	.long_name = LONG_NAME("token_logprobs or loss", "token"),
	.logits = LENS_AT_READ_POS,
	.logits_if_made = LENS_AT_NEXT_TOKEN | LENS_AT_EVERY_POS | LENS_AT_OTHER_POS,
	.ops = &ops,
	.of_any = &of_any,
};
