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
	static const struct lens_config_defaults deflt = { .n_layers = 32,
							   .d_model = 2560,
							   .n_heads = 32,
							   .n_kv_heads = 32,
							   .d_mlp = 6912,
							   .n_ctx = 4096,
							   .d_vocab = 50304,
							   .eps_key = "layer_norm_eps",
							   .eps = 1e-5,
							   .base = 10000,
							   .share = 0.25 };

	LENS_TRY(lens_config_shape(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_d_head(f, "hidden_size", "num_attention_heads", c, err));
	LENS_TRY(lens_config_bool(f, "use_qkv_bias", false, &layout->qkv_biases, err));
	LENS_TRY(lens_config_bool(f, "use_parallel_residual", false, &c->parallel_block, err));
	LENS_TRY(lens_config_must_be(f, "qk_layernorm", false,
				     "we have no LayerNorm of queries and keys", err));
	c->norm = LENS_NORM_LN;
	c->gated_mlp = true;
	c->scale_attn = true;
	LENS_TRY(lens_config_partly_rotary(f, &deflt, c, err));
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
