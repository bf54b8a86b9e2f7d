/*
 * model/family_phi.c: Phi (1, 1.5, 2: PhiForCausalLM): LayerNorm, attention and MLP in
 * parallel behind one norm, rotary positions on a share of each head, biases everywhere; and
 * Phi-3 (Phi3ForCausalLM): Llama with q, k and v in one matrix, gate and up in another.
 * TransformerLens's convert_phi_weights and convert_phi3_weights are the references; as there,
 * ln1 and ln2 of the first are the same norm.
 */
#include "model/model_private.h"

static enum lens_status config_phi(const struct lens_config_file *f, struct lens_config *c,
				   struct lens_layout *layout, struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 24,
							   .d_model = 2048,
							   .n_heads = 32,
							   .d_mlp = 8192,
							   .n_ctx = 2048,
							   .d_vocab = 51200,
							   .eps_key = "layer_norm_eps",
							   .eps = 1e-5,
							   .base = 10000,
							   .share = 0.5 };

	LENS_TRY(lens_config_shape(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_own_d_head(f, c, err));
	LENS_TRY(lens_config_must_be(f, "qk_layernorm", false,
				     "we have no LayerNorm of queries and keys", err));
	layout->qkv_biases = true;
	c->norm = LENS_NORM_LN;
	c->parallel_block = true;
	c->scale_attn = true;
	LENS_TRY(lens_config_partly_rotary(f, &deflt, c, err));
	return lens_config_activation(f, "hidden_act", "gelu_new", c, err);
}

static enum lens_status load_block_phi(struct lens_checkpoint *k, const struct lens_config *c,
				       size_t layer, struct lens_block64 *b,
				       struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model, q = c->n_heads * c->d_head;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_llama_load_qkv(&at, c, b));
	LENS_TRY(lens_load_affine(&at, "self_attn.dense", d, q, &b->w_o, b->b_o));
	LENS_TRY(lens_load_affine(&at, "mlp.fc1", c->d_mlp, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.fc2", d, c->d_mlp, &b->w_out, b->b_out);
}

static enum lens_status load_final_norm_phi(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "final_layernorm", c->d_model, h->ln_final_w, h->ln_final_b);
}

const struct lens_family lens_family_phi = {
	.model_type = "phi",
	.architecture = "PhiForCausalLM",
	.base = "PhiModel",
	.prefix = "model.",
	.embed = "embed_tokens.weight",
	.head = "lm_head.weight",
	.head_bias = "lm_head.bias",
	.config = config_phi,
	.load_block = load_block_phi,
	.load_final_norm = load_final_norm_phi,
	.ignore = lens_llama_ignore,
};

/* --- Phi-3 ----------------------------------------------------------------------- */

static enum lens_status config_phi3(const struct lens_config_file *f, struct lens_config *c,
				    struct lens_layout *layout, struct lens_error *err)
{
	struct lens_config_defaults deflt = { .n_layers = 32,
					      .d_model = 3072,
					      .n_heads = 32,
					      .d_mlp = 8192,
					      .n_ctx = 4096,
					      .d_vocab = 32064,
					      .eps_key = "rms_norm_eps",
					      .eps = 1e-5,
					      .base = 10000,
					      .act_key = "hidden_act",
					      .act = "silu" };
	/* Phi-4-mini: a part of each head. */
	LENS_TRY(lens_config_real(f, "partial_rotary_factor", 1, &deflt.share, err));
	if (!(deflt.share > 0))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "partial_rotary_factor %g is not above 0", deflt.share);
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	return lens_config_window(f, 0, c, err);
}

/* [gate; up], one below the other. */
static enum lens_status find_gate_up(const struct lens_tensors_at *at,
				     const struct lens_config *c, struct lens_block64 *b)
{
	static const char name[] = "mlp.gate_up_proj.weight";
	const size_t shape[2] = { 2 * c->d_mlp, c->d_model };
	struct lens_matrix_part half = { .transposed = true,
					 .columns = c->d_mlp,
					 .group = c->d_mlp };

	LENS_TRY(lens_find_part(at, name, shape, &half, &b->w_gate));
	half.first = c->d_mlp;
	return lens_find_part(at, name, shape, &half, &b->w_in);
}

static enum lens_status load_block_phi3(struct lens_checkpoint *k, const struct lens_config *c,
					size_t layer, struct lens_block64 *b,
					struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	size_t d = c->d_model, q = c->n_heads * c->d_head,
	       width = q + 2 * c->n_kv_heads * c->d_head;

	LENS_TRY(lens_load_vector(&at, "input_layernorm.weight", d, b->ln1_w));
	LENS_TRY(lens_load_vector(&at, "post_attention_layernorm.weight", d, b->ln2_w));
	LENS_TRY(lens_find_linear(&at, "self_attn.qkv_proj.weight", width, d, &b->w_qkv));
	LENS_TRY(lens_find_linear(&at, "self_attn.o_proj.weight", d, q, &b->w_o));
	LENS_TRY(find_gate_up(&at, c, b));
	return lens_find_linear(&at, "mlp.down_proj.weight", d, c->d_mlp, &b->w_out);
}

const struct lens_family lens_family_phi3 = {
	.model_type = "phi3",
	.architecture = "Phi3ForCausalLM",
	.base = "Phi3Model",
	.prefix = "model.",
	.embed = "embed_tokens.weight",
	.head = "lm_head.weight",
	.config = config_phi3,
	.load_block = load_block_phi3,
	.load_final_norm = lens_llama_load_final_norm,
	.ignore = lens_llama_ignore,
};
