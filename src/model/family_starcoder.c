/*
 * model/family_starcoder.c: StarCoder and SantaCoder (GPTBigCodeForCausalLM): GPT-2 with one
 * head of keys and values for all; and StarCoder2 (Starcoder2ForCausalLM): rotary positions,
 * grouped queries, a window. TransformerLens's convert_coder_weights is the reference of the
 * first, transformers' own model of the second, which TransformerLens 2.16 does not have.
 */
#include "model/model_private.h"

static enum lens_status config_bigcode(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_layers(f, "n_layer", 12, c, err));
	LENS_TRY(lens_config_size(f, "n_embd", 768, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "n_head", 12, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "n_positions", 1024, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50257, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "n_embd", "n_head", c, err));
	LENS_TRY(lens_config_size(f, "n_inner", 4 * c->d_model, &c->d_mlp, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_epsilon", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, true, &layout->tied_head, err));
	LENS_TRY(lens_config_bool(f, "scale_attn_weights", true, &c->scale_attn, err));
	LENS_TRY(lens_config_must_be(f, "multi_query", true,
				     "we read one head of keys and values", err));
	LENS_TRY(lens_config_must_be(f, "add_cross_attention", false, "we run decoders only",
				     err));
	c->n_kv_heads = 1;
	c->norm = LENS_NORM_LN;
	c->learned_positions = true;
	return lens_config_activation(f, "activation_function", "gelu_pytorch_tanh", c, err);
}

static enum lens_status load_block_bigcode(struct lens_checkpoint *k,
					   const struct lens_config *c, size_t layer,
					   struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "h.%zu.", layer);
	size_t d = c->d_model, width = d + 2 * c->d_head;

	LENS_TRY(lens_load_norm(&at, "ln_1", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "ln_2", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_load_affine(&at, "attn.c_attn", width, d, &b->w_qkv, b->b_qkv));
	LENS_TRY(lens_load_affine(&at, "attn.c_proj", d, d, &b->w_o, b->b_o));
	LENS_TRY(lens_load_affine(&at, "mlp.c_fc", c->d_mlp, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.c_proj", d, c->d_mlp, &b->w_out, b->b_out);
}

/* Masks in older checkpoints. */
static bool ignore(const char *name)
{
	return lens_name_ends(name, ".attn.bias") || lens_name_ends(name, ".attn.masked_bias");
}

const struct lens_family lens_family_gpt_bigcode = {
	.model_type = "gpt_bigcode",
	.architecture = "GPTBigCodeForCausalLM",
	.base = "GPTBigCodeModel",
	.prefix = "transformer.",
	.embed = "wte.weight",
	.head = "lm_head.weight",
	.config = config_bigcode,
	.load_block = load_block_bigcode,
	.find_positions = lens_gpt2_find_positions,
	.load_final_norm = lens_gpt2_load_final_norm,
	.ignore = ignore,
};

/* --- StarCoder2 ------------------------------------------------------------------ */

static enum lens_status config_2(const struct lens_config_file *f, struct lens_config *c,
				 struct lens_layout *layout, struct lens_error *err)
{
	const json_t *window = json_object_get(f->root, "sliding_window");
	double base;
	size_t i;

	LENS_TRY(lens_config_layers(f, "num_hidden_layers", 30, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", 3072, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "num_attention_heads", 24, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "intermediate_size", 12288, &c->d_mlp, err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", 4096, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 49152, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "num_attention_heads", c, err));
	LENS_TRY(lens_config_size(f, "num_key_value_heads", 2, &c->n_kv_heads, err));
	LENS_TRY(lens_config_kv_heads(f, c, err));
	LENS_TRY(lens_config_eps(f, "norm_epsilon", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, true, &layout->tied_head, err));
	LENS_TRY(lens_config_must_be(f, "use_bias", true, "we read the biases", err));
	LENS_TRY(lens_config_real(f, "rope_theta", 10000, &base, err));
	c->norm = LENS_NORM_LN;
	c->scale_attn = true;
	LENS_TRY(lens_config_rotary(f, base, 1, c, err));
	if (window && !json_is_null(window)) {
		LENS_TRY(lens_config_size(f, "sliding_window", 0, &c->window, err));
		for (i = 0; i < c->n_layers; i++)
			c->local[i] = true;
	}
	return lens_config_activation(f, "hidden_act", "gelu_pytorch_tanh", c, err);
}

static enum lens_status load_block_2(struct lens_checkpoint *k, const struct lens_config *c,
				     size_t layer, struct lens_block64 *b,
				     struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model, q = c->n_heads * c->d_head, kv = c->n_kv_heads * c->d_head;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "post_attention_layernorm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_load_affine(&at, "self_attn.q_proj", q, d, &b->w_qkv, b->b_qkv));
	LENS_TRY(lens_load_affine(&at, "self_attn.k_proj", kv, d, &b->w_qkv,
				  lens_at64(b->b_qkv, q)));
	LENS_TRY(lens_load_affine(&at, "self_attn.v_proj", kv, d, &b->w_qkv,
				  lens_at64(b->b_qkv, q + kv)));
	LENS_TRY(lens_load_affine(&at, "self_attn.o_proj", d, q, &b->w_o, b->b_o));
	LENS_TRY(lens_load_affine(&at, "mlp.c_fc", c->d_mlp, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.c_proj", d, c->d_mlp, &b->w_out, b->b_out);
}

enum lens_status lens_load_final_layer_norm(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "norm", c->d_model, h->ln_final_w, h->ln_final_b);
}

const struct lens_family lens_family_starcoder2 = {
	.model_type = "starcoder2",
	.architecture = "Starcoder2ForCausalLM",
	.base = "Starcoder2Model",
	.prefix = "model.",
	.embed = "embed_tokens.weight",
	.head = "lm_head.weight",
	.config = config_2,
	.load_block = load_block_2,
	.load_final_norm = lens_load_final_layer_norm,
	.ignore = lens_llama_ignore,
};
