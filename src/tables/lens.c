/*
 * tables/lens.c: the logit lens without answers: what each lens layer says at the read
 * position, or with lens_positions: all at every one, and how far that is from
 * what the model says in the end. In: logits of lens layers; out: the tokens with the
 * largest, their probabilities, entropies, divergences.
 */
#include "tables/tables_private.h"

/* Its place in a prompt's row, [lens_layer] or [lens_layer, n_pos]. */
static size_t place(const struct lens_table_view *v, const struct lens_logits *l)
{
	return l->at == LENS_AT_LENS_POS ? l->layer * v->opt->sizes.n_pos + l->pos : l->layer;
}

static void read_token(struct lens_table_view *v, struct lens_logits *l)
{
	((int32_t *)lens_table_row(v, l->prompt))[place(v, l)] = lens_argmax(l);
}

static void read_prob(struct lens_table_view *v, struct lens_logits *l)
{
	((float *)lens_table_row(v, l->prompt))[place(v, l)] =
		(float)lens_prob(l, lens_argmax(l));
}

static void read_entropy(struct lens_table_view *v, struct lens_logits *l)
{
	((float *)lens_table_row(v, l->prompt))[place(v, l)] = (float)lens_entropy(l);
}

static void read_kl(struct lens_table_view *v, struct lens_logits *l)
{
	((float *)lens_table_row(v, l->prompt))[l->layer] = (float)lens_divergence(l->model, l);
}

static const struct lens_table_ops token = { .read = read_token };
static const struct lens_table_ops prob = { .read = read_prob };
static const struct lens_table_ops entropy = { .read = read_entropy };
static const struct lens_table_ops kl = { .read = read_kl };

/* At the read position, or at every one. */
#define AT_READ_POS .n_axes = 1, .axis = { LENS_AXIS_LENS_LAYER }, .logits = LENS_AT_LENS_LAYER
#define AT_ALL_POS                                                                             \
	.n_axes = 2, .axis = { LENS_AXIS_LENS_LAYER, LENS_AXIS_POS }, .logits = LENS_AT_LENS_POS
#define TOKEN                                                                                  \
	.dtype = LENS_I32,                                                                     \
	.long_name =                                                                           \
		"logit lens: the token with the largest logit (ties: smaller id; -1: not "     \
		"finite, or past the prompt's end)",                                           \
	.units = "token id", .ops = &token
#define PROB                                                                                   \
	.dtype = LENS_F32, .long_name = "logit lens: its probability", .units = "1",           \
	.ops = &prob
#define ENTROPY                                                                                \
	.dtype = LENS_F32,                                                                     \
	.long_name = "logit lens: entropy of the distribution over the next token",            \
	.units = "nats", .ops = &entropy

static const struct lens_table_type token_at_all = { TOKEN, AT_ALL_POS };
static const struct lens_table_type prob_at_all = { PROB, AT_ALL_POS };
static const struct lens_table_type entropy_at_all = { ENTROPY, AT_ALL_POS };

const struct lens_table_type lens_table_lens_top_token = {
	TOKEN,
	AT_READ_POS,
	.at_all_pos = &token_at_all,
};

const struct lens_table_type lens_table_lens_top_prob = {
	PROB,
	AT_READ_POS,
	.at_all_pos = &prob_at_all,
};

const struct lens_table_type lens_table_lens_entropy = {
	ENTROPY,
	AT_READ_POS,
	.at_all_pos = &entropy_at_all,
};

const struct lens_table_type lens_table_lens_kl = {
	.dtype = LENS_F32,
	.n_axes = 1,
	.axis = { LENS_AXIS_LENS_LAYER },
	.long_name = "logit lens: KL divergence of its distribution from the model's own, "
		     "sum p*(log p - log p_lens)",
	.units = "nats",
	.logits = LENS_AT_LENS_LAYER | LENS_BESIDE_MODEL,
	.ops = &kl,
};
