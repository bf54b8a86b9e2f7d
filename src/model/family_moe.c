/*
 * model/family_moe.c: models with experts: MixtralForCausalLM and Qwen3MoeForCausalLM.
 * Mistral's or Qwen3's block, whose MLP is several gated ones and a router. References:
 * TransformerLens's convert_mixtral_weights, and transformers' Qwen3Moe, which
 * TransformerLens 2.16 does not have.
 */
#include "model/model_private.h"

#include <stdio.h>
#include <string.h>

static const struct lens_expert_names mixtral = { "block_sparse_moe", "w1.weight", "w3.weight",
						  "w2.weight" };
static const struct lens_expert_names qwen3 = { "mlp", "gate_proj.weight", "up_proj.weight",
						"down_proj.weight" };

enum lens_status lens_config_experts(const struct lens_config_file *f, const char *experts,
				     const char *per_token, const struct lens_config *c,
				     struct lens_error *err)
{
	if (c->n_experts > LENS_MAX_EXPERTS)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "%s %zu: we run at most %d experts", experts, c->n_experts,
				     LENS_MAX_EXPERTS);
	if (c->experts_per_token > c->n_experts)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "%s %zu is more than %s %zu", per_token,
				     c->experts_per_token, experts, c->n_experts);
	return LENS_OK;
}

enum lens_status lens_find_expert(const struct lens_tensors_at *at, const struct lens_config *c,
				  const struct lens_expert_names *names, struct lens_block64 *b)
{
	size_t d = c->d_model, f = c->d_mlp;

	LENS_TRY(lens_find_linear(at, names->gate, f, d, &b->w_gate));
	LENS_TRY(lens_find_linear(at, names->in, f, d, &b->w_in));
	return lens_find_linear(at, names->out, d, f, &b->w_out);
}

/*
 * n_experts and experts_per_token; transformers 5 writes num_local_experts where earlier ones
 * write num_experts.
 */
static enum lens_status read_experts(const struct lens_config_file *f, const char *key,
				     size_t n, size_t per_token, struct lens_config *c,
				     struct lens_error *err)
{
	const char *other = strcmp(key, "num_experts") ? "num_experts" : "num_local_experts";

	LENS_TRY(lens_config_either(f, key, other, n, &c->n_experts, err));
	LENS_TRY(lens_config_size(f, "num_experts_per_tok", per_token, &c->experts_per_token,
				  err));
	return lens_config_experts(f, key, "num_experts_per_tok", c, err);
}

/* router_jitter_noise, output_router_logits and router_aux_loss_coef are for training. */
static enum lens_status config_mixtral(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_layout *layout, struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 32,
							   .d_model = 4096,
							   .n_heads = 32,
							   .n_kv_heads = 8,
							   .d_mlp = 14336,
							   .n_ctx = 131072,
							   .d_vocab = 32000,
							   .eps_key = "rms_norm_eps",
							   .eps = 1e-5,
							   .base = 1000000,
							   .act_key = "hidden_act",
							   .act = "silu" };

	layout->expert_names = &mixtral;
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	LENS_TRY(read_experts(f, "num_local_experts", 8, 2, c, err));
	c->norm_expert_weights = true;
	return lens_config_window(f, 0, c, err);
}

/* d_mlp is that of every layer, so every layer must have experts. */
static enum lens_status check_sparse(const struct lens_config_file *f,
				     const struct lens_config *c, struct lens_error *err)
{
	const json_t *dense = lens_config_value(f, "mlp_only_layers"), *v;
	size_t i, step;

	LENS_TRY(lens_config_size(f, "decoder_sparse_step", 1, &step, err));
	if (step != 1)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "decoder_sparse_step %zu: we run models with experts in "
				     "every layer (1)",
				     step);
	if (dense && !json_is_null(dense) && !json_is_array(dense))
		return lens_config_wrong(f, "mlp_only_layers", "is not a list of layers", err);
	json_array_foreach (dense, i, v) {
		json_int_t layer = json_integer_value(v);

		if (!json_is_integer(v))
			return lens_config_wrong(f, "mlp_only_layers",
						 "is not a list of layers", err);
		if (layer >= 0 && layer < (json_int_t)c->n_layers)
			return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
					     "mlp_only_layers: layer %lld has no experts; we "
					     "run models with experts in every layer",
					     (long long)layer);
	}
	return LENS_OK;
}

static enum lens_status config_qwen3_moe(const struct lens_config_file *f,
					 struct lens_config *c, struct lens_layout *layout,
					 struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 24,
							   .d_model = 2048,
							   .n_heads = 32,
							   .n_kv_heads = 4,
							   .d_mlp = 6144,
							   .n_ctx = 32768,
							   .d_vocab = 151936,
							   .eps_key = "rms_norm_eps",
							   .eps = 1e-6,
							   .base = 10000,
							   .act_key = "hidden_act",
							   .act = "silu" };
	bool sliding;

	layout->expert_names = &qwen3;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_size(f, "moe_intermediate_size", 768, &c->d_mlp, err));
	LENS_TRY(read_experts(f, "num_experts", 128, 8, c, err));
	LENS_TRY(lens_config_bool(f, "norm_topk_prob", false, &c->norm_expert_weights, err));
	LENS_TRY(check_sparse(f, c, err));
	c->qk_norm = LENS_QK_NORM_HEAD;
	LENS_TRY(lens_config_bool(f, "use_sliding_window", false, &sliding, err));
	return sliding ? lens_config_window(f, 4096, c, err) : LENS_OK;
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);
	char name[64];

	LENS_TRY(lens_llama_load_attention(&at, c, b));
	snprintf(name, sizeof(name), "%s.gate.weight", k->layout.expert_names->mlp);
	return lens_find_matrix(&at, name, c->n_experts, c->d_model, &b->w_router);
}

static enum lens_status find_expert(struct lens_checkpoint *k, const struct lens_config *c,
				    size_t layer, size_t expert, struct lens_block64 *b,
				    struct lens_error *err)
{
	const struct lens_expert_names *n = k->layout.expert_names;
	struct lens_tensors_at at =
		lens_tensors_at(k, err, "layers.%zu.%s.experts.%zu.", layer, n->mlp, expert);

	return lens_find_expert(&at, c, n, b);
}

#define MOE(type, class, read_config)                                                          \
	{                                                                                      \
		.model_type = type, .architecture = class "ForCausalLM",                       \
		.base = class "Model", .prefix = "model.", .embed = "embed_tokens.weight",     \
		.head = "lm_head.weight", .config = read_config, .load_block = load_block,     \
		.find_expert = find_expert, .load_final_norm = lens_llama_load_final_norm,     \
		.ignore = lens_llama_ignore,                                                   \
	}
const struct lens_family lens_family_mixtral = MOE("mixtral", "Mixtral", config_mixtral);
const struct lens_family lens_family_qwen3_moe = MOE("qwen3_moe", "Qwen3Moe", config_qwen3_moe);
