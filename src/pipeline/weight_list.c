/*
 * pipeline/weight_list.c: which parameters TransformerLens has of a model, and where
 * they are in ours. In: config, processing, and the weights if they are loaded; out:
 * name, axes and strides of each, so that nobody else knows how we store them.
 */
#include "pipeline/pipeline_private.h"

#include <stddef.h>
#include <string.h>

/* When a model has a parameter. */
enum when {
	ALWAYS,
	NORM,
	NORM_BIAS,
	NORM_FINAL,
	NORM_FINAL_BIAS,
	QK_NORM,
	QK_NORM_ALL,
	POST,
	MLP, /* that is no experts' */
	MLP_NORM,
	MLP_NORM_BIAS,
	MLP_POST,
	INNER,
	GATE,
	GATE_BIAS,
	POSITIONS
};

/* How we hold it: as TransformerLens does; as some heads of QKV's columns; transposed. */
enum how { AS_IT_IS, QUERY, KEY, VALUE, TRANSPOSED };

struct entry {
	const char *name;
	size_t at; /* of the float * in struct lens_model, or struct lens_block */
	enum when when;
	enum how how;
	int rank;
	unsigned char axis[LENS_WEIGHT_RANK]; /* of enum lens_axis */
};

/* The axes, by the letters of model.h. */
enum {
	POS = LENS_AXIS_POS,
	V = LENS_AXIS_D_VOCAB,
	V_IN = LENS_AXIS_D_VOCAB_IN,
	D = LENS_AXIS_D_MODEL,
	DH = LENS_AXIS_D_HEAD,
	F = LENS_AXIS_D_MLP,
	E = LENS_AXIS_EXPERT,
	H = LENS_AXIS_HEAD,
	HKV = LENS_AXIS_KV_HEAD
};

#define ENTRY(name, of, field, when, how, rank, ...)                                           \
	{                                                                                      \
		name, offsetof(struct of, field), when, how, rank,                             \
		{                                                                              \
			__VA_ARGS__                                                            \
		}                                                                              \
	}
#define COUNT(list) (sizeof(list) / sizeof(*(list)))

static const struct entry before[] = {
	ENTRY("embed.W_E", lens_model, w_e, ALWAYS, AS_IT_IS, 2, V_IN, D),
	ENTRY("pos_embed.W_pos", lens_model, w_pos, POSITIONS, AS_IT_IS, 2, POS, D),
};
static const struct entry block[] = {
	ENTRY("ln1.w", lens_block, ln1_w, NORM, AS_IT_IS, 1, D),
	ENTRY("ln1.b", lens_block, ln1_b, NORM_BIAS, AS_IT_IS, 1, D),
	ENTRY("ln1_post.w", lens_block, ln1_post_w, POST, AS_IT_IS, 1, D),
	ENTRY("ln2.w", lens_block, ln2_w, MLP_NORM, AS_IT_IS, 1, D),
	ENTRY("ln2.b", lens_block, ln2_b, MLP_NORM_BIAS, AS_IT_IS, 1, D),
	ENTRY("ln2_post.w", lens_block, ln2_post_w, MLP_POST, AS_IT_IS, 1, D),
	ENTRY("attn.W_Q", lens_block, w_qkv, ALWAYS, QUERY, 3, H, D, DH),
	ENTRY("attn.W_K", lens_block, w_qkv, ALWAYS, KEY, 3, HKV, D, DH),
	ENTRY("attn.W_V", lens_block, w_qkv, ALWAYS, VALUE, 3, HKV, D, DH),
	ENTRY("attn.q_norm.w", lens_block, q_norm_w, QK_NORM, AS_IT_IS, 1, DH),
	ENTRY("attn.k_norm.w", lens_block, k_norm_w, QK_NORM, AS_IT_IS, 1, DH),
	ENTRY("attn.q_norm.w", lens_block, q_norm_w, QK_NORM_ALL, AS_IT_IS, 2, H, DH),
	ENTRY("attn.k_norm.w", lens_block, k_norm_w, QK_NORM_ALL, AS_IT_IS, 2, HKV, DH),
	ENTRY("attn.W_O", lens_block, w_o, ALWAYS, AS_IT_IS, 3, H, DH, D),
	ENTRY("attn.b_Q", lens_block, b_qkv, ALWAYS, QUERY, 2, H, DH),
	ENTRY("attn.b_K", lens_block, b_qkv, ALWAYS, KEY, 2, HKV, DH),
	ENTRY("attn.b_V", lens_block, b_qkv, ALWAYS, VALUE, 2, HKV, DH),
	ENTRY("attn.b_O", lens_block, b_o, ALWAYS, AS_IT_IS, 1, D),
	ENTRY("mlp.W_gate", lens_block, w_gate, GATE, AS_IT_IS, 2, D, F),
	ENTRY("mlp.b_gate", lens_block, b_gate, GATE_BIAS, AS_IT_IS, 1, F),
	ENTRY("mlp.W_in", lens_block, w_in, MLP, AS_IT_IS, 2, D, F),
	ENTRY("mlp.b_in", lens_block, b_in, MLP, AS_IT_IS, 1, F),
	ENTRY("mlp.W_out", lens_block, w_out, MLP, AS_IT_IS, 2, F, D),
	ENTRY("mlp.b_out", lens_block, b_out, MLP, AS_IT_IS, 1, D),
	ENTRY("mlp.ln.w", lens_block, mlp_ln_w, INNER, AS_IT_IS, 1, F),
	ENTRY("mlp.ln.b", lens_block, mlp_ln_b, INNER, AS_IT_IS, 1, F),
};
/* Of an expert: torch's Linears, [out, in]. */
static const struct entry expert[] = {
	ENTRY("W_in.weight", lens_block, w_in, ALWAYS, TRANSPOSED, 2, F, D),
	ENTRY("W_out.weight", lens_block, w_out, ALWAYS, TRANSPOSED, 2, D, F),
	ENTRY("W_gate.weight", lens_block, w_gate, ALWAYS, TRANSPOSED, 2, F, D),
};
static const struct entry router =
	ENTRY("mlp.W_gate.weight", lens_block, w_router, ALWAYS, AS_IT_IS, 2, E, D);
static const struct entry after[] = {
	ENTRY("ln_final.w", lens_model, ln_final_w, NORM_FINAL, AS_IT_IS, 1, D),
	ENTRY("ln_final.b", lens_model, ln_final_b, NORM_FINAL_BIAS, AS_IT_IS, 1, D),
	ENTRY("unembed.W_U", lens_model, w_u, ALWAYS, TRANSPOSED, 2, D, V),
	ENTRY("unembed.b_U", lens_model, b_u, ALWAYS, AS_IT_IS, 1, V),
};

struct list {
	const struct lens_config *config;
	bool folded;
	lens_weight_fn fn;
	void *ctx;
};

static bool is_there(const struct list *l, enum when when)
{
	const struct lens_config *c = l->config;
	bool layer_norm = c->norm == LENS_NORM_LN, norms = !l->folded && c->norms_before;
	bool mlp = !c->attn_only;

	switch (when) {
	case NORM:
		return norms;
	case MLP_NORM:
		return norms && mlp;
	case NORM_FINAL:
		return !l->folded && c->norm != LENS_NORM_NONE;
	case NORM_BIAS:
		return norms && layer_norm;
	case MLP_NORM_BIAS:
		return norms && layer_norm && mlp;
	case NORM_FINAL_BIAS:
		return !l->folded && lens_final_norm_kind(c) == LENS_NORM_LN;
	case INNER:
		return norms && layer_norm && c->mlp_norm;
	case MLP:
		return mlp && !c->n_experts;
	case QK_NORM:
		return c->qk_norm == LENS_QK_NORM_HEAD;
	case QK_NORM_ALL:
		return c->qk_norm == LENS_QK_NORM_ALL;
	case POST:
		return c->norms_after;
	case MLP_POST:
		return c->norms_after && mlp;
	case GATE:
		return c->gated_mlp && !c->n_experts;
	case GATE_BIAS: /* TransformerLens has none: where it is zero it is left out */
		return c->gated_mlp && !c->n_experts && !c->mlp_bias_after &&
		       (c->gate_bias || layer_norm);
	case POSITIONS:
		return lens_has_w_pos(c);
	default:
		return true;
	}
}

/* QKV's columns are [q heads | k heads | v heads]: the first one of this part. */
static size_t first_column(const struct lens_config *c, enum how how)
{
	size_t heads = how == QUERY ? 0 : how == KEY ? c->n_heads : c->n_heads + c->n_kv_heads;

	return heads * c->d_head;
}

/* Sets the strides, and moves data from our array's beginning to the first element. */
static void place(const struct lens_config *c, enum how how, struct lens_weight *w)
{
	size_t n = 1;
	int i;

	for (i = w->rank - 1; i >= 0; i--) {
		w->stride[i] = n;
		n *= w->extent[i];
	}
	if (how == TRANSPOSED) {
		w->stride[0] = 1;
		w->stride[1] = w->extent[0];
	} else if (how != AS_IT_IS) {
		w->stride[0] = c->d_head;
		if (w->rank == 3)
			w->stride[1] = (c->n_heads + 2 * c->n_kv_heads) * c->d_head;
		if (w->data)
			w->data += first_column(c, how);
	}
}

/* The rows of W_E are those of W_U, but where tokens and logits are of different numbers. */
static enum lens_axis axis_of(const struct lens_config *c, unsigned char axis)
{
	return axis == V_IN && lens_n_logits(c) == c->d_vocab ? LENS_AXIS_D_VOCAB
							      : (enum lens_axis)axis;
}

/* base: the model or the block that holds it, or NULL. */
static enum lens_status show(const struct list *l, const struct entry *e, const char *prefix,
			     const void *base, struct lens_error *err)
{
	struct lens_sizes sizes = lens_model_sizes(l->config);
	struct lens_weight w = { .rank = e->rank };
	int i;

	if (!is_there(l, e->when))
		return LENS_OK;
	sizes.n_pos = l->config->n_ctx;
	snprintf(w.name, sizeof(w.name), "%s%s", prefix, e->name);
	for (i = 0; i < e->rank; i++) {
		w.axis[i] = axis_of(l->config, e->axis[i]);
		w.extent[i] = lens_axis_extent(w.axis[i], &sizes);
	}
	if (base)
		memcpy(&w.data, (const char *)base + e->at, sizeof(w.data));
	place(l->config, e->how, &w);
	return l->fn(l->ctx, &w, err);
}

/* Those of a layer's experts, then the router. b: the block, or NULL. */
static enum lens_status show_experts(const struct list *l, size_t layer,
				     const struct lens_block *b, struct lens_error *err)
{
	const struct lens_config *c = l->config;
	struct lens_block one = b ? *b : (struct lens_block){ 0 };
	char prefix[64];
	size_t i, k;

	for (i = 0; i < c->n_experts; i++) {
		snprintf(prefix, sizeof(prefix), "blocks.%zu.mlp.experts.%zu.", layer, i);
		for (k = 0; k < COUNT(expert); k++)
			LENS_TRY(show(l, &expert[k], prefix, b ? &one : NULL, err));
		if (!b)
			continue;
		one.w_gate += c->d_model * c->d_mlp;
		one.w_in += c->d_model * c->d_mlp;
		one.w_out += c->d_model * c->d_mlp;
	}
	snprintf(prefix, sizeof(prefix), "blocks.%zu.", layer);
	return c->n_experts ? show(l, &router, prefix, b, err) : LENS_OK;
}

enum lens_status lens_weights_each(const struct lens_config *c, const struct lens_processing *p,
				   const struct lens_model *m, lens_weight_fn fn, void *ctx,
				   struct lens_error *err)
{
	const struct list l = { .config = c,
				.folded = (p->fold_ln && !c->n_experts) || c->norms_folded,
				.fn = fn,
				.ctx = ctx };
	char prefix[32];
	size_t i, k;

	for (k = 0; k < COUNT(before); k++)
		LENS_TRY(show(&l, &before[k], "", m, err));
	for (i = 0; i < c->n_layers; i++) {
		snprintf(prefix, sizeof(prefix), "blocks.%zu.", i);
		for (k = 0; k < COUNT(block); k++)
			LENS_TRY(show(&l, &block[k], prefix, m ? &m->block[i] : NULL, err));
		LENS_TRY(show_experts(&l, i, m ? &m->block[i] : NULL, err));
	}
	for (k = 0; k < COUNT(after); k++)
		LENS_TRY(show(&l, &after[k], "", m, err));
	return LENS_OK;
}
