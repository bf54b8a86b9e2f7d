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
	LENS_TRY(lens_config_must_be(f, "multi_query", true,
				     "we read one head of keys and values", err));
	LENS_TRY(lens_gpt2_config(f, "gelu_pytorch_tanh", c, layout, err));
	c->n_kv_heads = 1;
	return LENS_OK;
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
	.ignore = lens_gpt2_ignore,
};

/* --- StarCoder2 ------------------------------------------------------------------ */

static enum lens_status config_2(const struct lens_config_file *f, struct lens_config *c,
				 struct lens_layout *layout, struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 30,
							   .d_model = 3072,
							   .n_heads = 24,
							   .n_kv_heads = 2,
							   .d_mlp = 12288,
							   .n_ctx = 4096,
							   .d_vocab = 49152,
							   .eps_key = "norm_epsilon",
							   .eps = 1e-5,
							   .base = 10000,
							   .tied = true };
	double base;

	LENS_TRY(lens_config_shape(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_own_d_head(f, c, err));
	LENS_TRY(lens_config_must_be(f, "use_bias", true, "we read the biases", err));
	LENS_TRY(lens_config_real(f, "rope_theta", deflt.base, &base, err));
	layout->qkv_biases = true;
	c->norm = LENS_NORM_LN;
	c->scale_attn = true;
	LENS_TRY(lens_config_rotary(f, base, 1, c, err));
	LENS_TRY(lens_config_window(f, 0, c, err));
	return lens_config_activation(f, "hidden_act", "gelu_pytorch_tanh", c, err);
}

static enum lens_status load_block_2(struct lens_checkpoint *k, const struct lens_config *c,
				     size_t layer, struct lens_block64 *b,
				     struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model, q = c->n_heads * c->d_head;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "post_attention_layernorm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_llama_load_qkv(&at, c, b));
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
