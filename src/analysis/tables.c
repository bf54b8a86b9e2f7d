/*
 * analysis/tables.c: the descriptors. A new table is one function and one line.
 */
#include "analysis/analysis_private.h"

#include <string.h>

/* clang-format off */
#define ANSWERS { LENS_TABLE_ANSWER }
#define OTHERS { LENS_TABLE_ANSWER_OTHER }
#define BY_LAYER { LENS_TABLE_LENS_LAYER, LENS_TABLE_ANSWER }
#define TOP { LENS_TABLE_K }
#define BY_POS { LENS_TABLE_POS }

static const struct lens_table_row rows[LENS_TABLES] = {
	{ { "logit_diff", "logit_diff", LENS_TABLE_F32, LENS_OF_READ_POS, 1, OTHERS,
	    "logit of the first answer minus each other answer's", "logits" },
	  lens_fill_logit_diff },
	{ { "answer_logit", "answer_logit", LENS_TABLE_F32, LENS_OF_READ_POS, 1, ANSWERS,
	    "logit of each answer at the read position", "logits" },
	  lens_fill_answer_logit },
	{ { "answer_prob", "answer_prob", LENS_TABLE_F32, LENS_OF_READ_POS, 1, ANSWERS,
	    "probability of each answer at the read position", "1" },
	  lens_fill_answer_prob },
	{ { "answer_rank", "answer_rank", LENS_TABLE_I32, LENS_OF_READ_POS, 1, ANSWERS,
	    "tokens with a strictly larger logit (0 is top; -1: logits not finite)", "tokens" },
	  lens_fill_answer_rank },
	{ { "rank_per_layer", "rank_per_layer", LENS_TABLE_I32, LENS_OF_LENS_LAYER, 2, BY_LAYER,
	    "logit lens: tokens with a strictly larger logit (-1: not finite)", "tokens" },
	  lens_fill_answer_rank },
	{ { "lens_logit", "lens_logit", LENS_TABLE_F32, LENS_OF_LENS_LAYER, 2, BY_LAYER,
	    "logit lens: logit of each answer", "logits" },
	  lens_fill_answer_logit },
	{ { "top_tokens", "top_tokens", LENS_TABLE_I32, LENS_OF_READ_POS, 1, TOP,
	    "the tokens with the largest logits (ties: smaller id first)", "token id" },
	  lens_fill_top_tokens },
	{ { "top_logits", "top_tokens", LENS_TABLE_F32, LENS_OF_READ_POS, 1, TOP,
	    "their logits", "logits" },
	  lens_fill_top_logits },
	{ { "top_probs", "top_tokens", LENS_TABLE_F32, LENS_OF_READ_POS, 1, TOP,
	    "their probabilities", "1" },
	  lens_fill_top_probs },
	{ { "token_logprobs", "token_logprobs", LENS_TABLE_F32, LENS_OF_EVERY_POS, 1, BY_POS,
	    "log probability of the next token, given the tokens up to this position "
	    "(NaN at the last token and past it)", "nats" },
	  NULL },
	{ { "loss", "loss", LENS_TABLE_F32, LENS_OF_EVERY_POS, 0, { 0 },
	    "mean of -token_logprobs over the prompt's tokens but the first", "nats" },
	  NULL },
	{ { "flags", "flags", LENS_TABLE_U8, LENS_OF_READ_POS, 0, { 0 },
	    "bit 0: a logit at the read position is not finite; bit 1: one that "
	    "token_logprobs or loss needed is not; bit 2: the prompt ends in white space "
	    "and an answer begins with it; bit 3: two answers are the same token", NULL },
	  lens_fill_flags },
};
/* clang-format on */

const struct lens_table_row *lens_table_rows(void)
{
	return rows;
}

const struct lens_table *lens_table(size_t i)
{
	return &rows[i].table;
}

size_t lens_table_type_size(enum lens_table_type t)
{
	return t == LENS_TABLE_U8 ? 1 : 4;
}

const char *lens_table_axis_name(enum lens_table_axis a)
{
	static const char *const name[] = { "answer", "answer_other", "lens_layer", "k",
					    "pos" };

	return name[a];
}
