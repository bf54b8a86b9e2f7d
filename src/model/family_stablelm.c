/*
 * model/family_stablelm.c: StableLM (StableLmForCausalLM): LayerNorm with a gated MLP, rotary
 * positions on a share of each head, attention and MLP one after the other, or in parallel
 * behind one norm, which is ln1 and ln2 then. TransformerLens 2.16 does not have it;
 * transformers' own model is the reference.
 */
#include "model/model_private.h"

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	double base, share;

	LENS_TRY(lens_config_layers(f, "num_hidden_layers", 32, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", 2560, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "num_attention_heads", 32, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "intermediate_size", 6912, &c->d_mlp, err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", 4096, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50304, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "num_attention_heads", c, err));
	LENS_TRY(lens_config_size(f, "num_key_value_heads", 32, &c->n_kv_heads, err));
	LENS_TRY(lens_config_kv_heads(f, c, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_eps", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, false, &layout->tied_head, err));
	LENS_TRY(lens_config_bool(f, "use_qkv_bias", false, &layout->qkv_biases, err));
	LENS_TRY(lens_config_bool(f, "use_parallel_residual", false, &c->parallel_block, err));
	LENS_TRY(lens_config_must_be(f, "qk_layernorm", false,
				     "we have no LayerNorm of queries and keys", err));
	LENS_TRY(lens_config_real(f, "rope_theta", 10000, &base, err));
	LENS_TRY(lens_config_real(f, "partial_rotary_factor", 0.25, &share, err));
	c->norm = LENS_NORM_LN;
	c->gated_mlp = true;
	c->scale_attn = true;
	LENS_TRY(lens_config_rotary(f, base, share, c, err));
	return lens_config_activation(f, "hidden_act", "silu", c, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at,
				c->parallel_block ? "input_layernorm"
						  : "post_attention_layernorm",
				d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_llama_load_qkv(&at, c, b));
	LENS_TRY(lens_find_linear(&at, "self_attn.o_proj.weight", d, d, &b->w_o));
	return lens_llama_load_mlp(&at, c, b);
}

const struct lens_family lens_family_stablelm = {
	.model_type = "stablelm",
	.architecture = "StableLmForCausalLM",
	.base = "StableLmModel",
	.prefix = "model.",
	.embed = "embed_tokens.weight",
	.head = "lm_head.weight",
	.config = config,
	.load_block = load_block,
	.load_final_norm = lens_load_final_layer_norm,
	.ignore = lens_llama_ignore,
};
