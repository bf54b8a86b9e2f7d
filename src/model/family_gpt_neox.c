/*
 * model/family_gpt_neox.c: GPT-NeoX and Pythia (GPTNeoXForCausalLM). Rotary positions on
 * a share of each head, attention and MLP in parallel (or in sequence), exact gelu, an
 * untied head. query_key_value holds q, k and v head by head: rows [H, 3, dh].
 * TransformerLens's convert_neox_weights is the reference.
 */
#include "model/model_private.h"

static enum lens_status rotary(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_error *err)
{
	double base, share;

	LENS_TRY(lens_config_real(f, "rope_theta", 10000, &base, err));
	LENS_TRY(lens_config_real(f, "rotary_emb_base", base, &base, err));
	LENS_TRY(lens_config_real(f, "partial_rotary_factor", 0.25, &share, err));
	LENS_TRY(lens_config_real(f, "rotary_pct", share, &share, err));
	return lens_config_rotary(f, base, share, c, err);
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_layers(f, "num_hidden_layers", 44, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", 6144, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "num_attention_heads", 64, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "intermediate_size", 24576, &c->d_mlp, err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", 2048, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50432, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "num_attention_heads", c, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_eps", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, false, &layout->tied_head, err));
	LENS_TRY(lens_config_bool(f, "use_parallel_residual", true, &c->parallel_block, err));
	LENS_TRY(lens_config_bool(f, "attention_bias", true, &layout->attn_biases, err));
	c->norm = LENS_NORM_LN;
	c->scale_attn = true;
	LENS_TRY(rotary(f, c, err));
	return lens_config_activation(f, "hidden_act", "gelu", c, err);
}

/* The file's rows [H, 3, dh] are columns [3, H, dh]. */
static enum lens_status find_qkv(const struct lens_tensors_at *at, const struct lens_config *c,
				 const char *name, struct lens_matrix *w_qkv)
{
	const size_t shape[2] = { 3 * c->d_model, c->d_model };
	size_t part, dh = c->d_head;
	struct lens_matrix_part p = {
		.transposed = true, .columns = c->d_model, .group = dh, .stride = 3 * dh
	};

	for (part = 0; part < 3; part++) {
		p.first = part * dh;
		LENS_TRY(lens_find_part(at, name, shape, &p, w_qkv));
	}
	return LENS_OK;
}

/* b_qkv NULL: checks only. */
static enum lens_status load_qkv_bias(const struct lens_tensors_at *at,
				      const struct lens_config *c, const char *name,
				      double *b_qkv)
{
	size_t h, part, i, heads = c->n_heads, dh = c->d_head;
	enum lens_status st;
	double *stored;

	if (!b_qkv)
		return lens_load_vector(at, name, 3 * c->d_model, NULL);
	stored = lens_calloc(3 * c->d_model, sizeof(*stored));
	if (!stored)
		return lens_error_nomem(at->err, 3 * c->d_model, sizeof(*stored));
	st = lens_load_vector(at, name, 3 * c->d_model, stored);
	for (h = 0; h < heads; h++) {
		for (part = 0; part < 3; part++) {
			for (i = 0; i < dh; i++)
				b_qkv[(part * heads + h) * dh + i] =
					stored[(h * 3 + part) * dh + i];
		}
	}
	lens_free(stored);
	return st;
}

enum lens_status lens_load_interleaved_qkv(const struct lens_tensors_at *at,
					   const struct lens_config *c, const char *weight,
					   const char *bias, struct lens_block64 *b)
{
	LENS_TRY(find_qkv(at, c, weight, &b->w_qkv));
	return bias ? load_qkv_bias(at, c, bias, b->b_qkv) : LENS_OK;
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model, f = c->d_mlp;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_interleaved_qkv(
		&at, c, "attention.query_key_value.weight",
		at.layout->attn_biases ? "attention.query_key_value.bias" : NULL, b));
	LENS_TRY(lens_find_linear(&at, "attention.dense.weight", d, d, &b->w_o));
	if (at.layout->attn_biases)
		LENS_TRY(lens_load_vector(&at, "attention.dense.bias", d, b->b_o));
	LENS_TRY(lens_load_norm(&at, "post_attention_layernorm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_load_affine(&at, "mlp.dense_h_to_4h", f, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.dense_4h_to_h", d, f, &b->w_out, b->b_out);
}

static enum lens_status load_final_norm(struct lens_checkpoint *k, const struct lens_config *c,
					struct lens_head64 *h, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "final_layer_norm", c->d_model, h->ln_final_w,
			      h->ln_final_b);
}

/* Masks and frequencies in older checkpoints. */
static bool ignore(const char *name)
{
	return lens_name_ends(name, ".attention.bias") ||
	       lens_name_ends(name, ".attention.masked_bias") ||
	       lens_name_ends(name, ".rotary_emb.inv_freq");
}

const struct lens_family lens_family_gpt_neox = {
	.model_type = "gpt_neox",
	.architecture = "GPTNeoXForCausalLM",
	.base = "GPTNeoXModel",
	.prefix = "gpt_neox.",
	.embed = "embed_in.weight",
	.head = "embed_out.weight",
	.config = config,
	.load_block = load_block,
	.load_final_norm = load_final_norm,
	.ignore = ignore,
};
