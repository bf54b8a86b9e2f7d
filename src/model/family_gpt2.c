/*
 * model/family_gpt2.c: GPT-2 (GPT2LMHeadModel). Learned positions, LayerNorm
 * before attention and MLP, plain MLP. Hugging Face's Conv1D stores [in, out], like us.
 * TransformerLens's convert_gpt2_weights is the reference.
 */
#include "model/model_private.h"

enum lens_status lens_gpt2_config_shape(const struct lens_config_file *f,
					const struct lens_config_defaults *deflt,
					struct lens_config *c, struct lens_layout *layout,
					struct lens_error *err)
{
	/* The second names are those of transformers' attribute_map. */
	LENS_TRY(lens_config_either(f, "n_layer", "num_hidden_layers", deflt->n_layers,
				    &c->n_layers, err));
	LENS_TRY(lens_config_layers(f, "n_layer", c->n_layers, c, err));
	LENS_TRY(lens_config_either(f, "n_embd", "hidden_size", deflt->d_model, &c->d_model,
				    err));
	LENS_TRY(lens_config_either(f, "n_head", "num_attention_heads", deflt->n_heads,
				    &c->n_heads, err));
	LENS_TRY(lens_config_either(f, "n_positions", "max_position_embeddings", deflt->n_ctx,
				    &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", deflt->d_vocab, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "n_embd", "n_head", c, err));
	LENS_TRY(lens_config_size(f, "n_inner", 4 * c->d_model, &c->d_mlp, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_epsilon", 1e-5, &c->eps, err));
	return lens_config_tied(f, deflt->tied, &layout->tied_head, err);
}

enum lens_status lens_gpt2_config(const struct lens_config_file *f, const char *act,
				  struct lens_config *c, struct lens_layout *layout,
				  struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 12,
							   .d_model = 768,
							   .n_heads = 12,
							   .n_ctx = 1024,
							   .d_vocab = 50257,
							   .tied = true };

	LENS_TRY(lens_gpt2_config_shape(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_bool(f, "scale_attn_weights", true, &c->scale_attn, err));
	LENS_TRY(lens_config_must_be(f, "add_cross_attention", false, "we run decoders only",
				     err));
	c->norm = LENS_NORM_LN;
	c->learned_positions = true;
	return lens_config_activation(f, "activation_function", act, c, err);
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_bool(f, "scale_attn_by_inverse_layer_idx", false,
				  &c->scale_attn_by_layer, err));
	return lens_gpt2_config(f, "gelu_new", c, layout, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "h.%zu.", layer);
	size_t d = c->d_model, f = c->d_mlp;

	LENS_TRY(lens_load_norm(&at, "ln_1", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_find_matrix(&at, "attn.c_attn.weight", d, 3 * d, &b->w_qkv));
	LENS_TRY(lens_load_vector(&at, "attn.c_attn.bias", 3 * d, b->b_qkv));
	LENS_TRY(lens_find_matrix(&at, "attn.c_proj.weight", d, d, &b->w_o));
	LENS_TRY(lens_load_vector(&at, "attn.c_proj.bias", d, b->b_o));
	LENS_TRY(lens_load_norm(&at, "ln_2", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_find_matrix(&at, "mlp.c_fc.weight", d, f, &b->w_in));
	LENS_TRY(lens_load_vector(&at, "mlp.c_fc.bias", f, b->b_in));
	LENS_TRY(lens_find_matrix(&at, "mlp.c_proj.weight", f, d, &b->w_out));
	return lens_load_vector(&at, "mlp.c_proj.bias", d, b->b_out);
}

enum lens_status lens_gpt2_find_positions(struct lens_checkpoint *k,
					  const struct lens_config *c,
					  struct lens_matrix *w_pos, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_find_matrix(&at, "wpe.weight", c->n_ctx, c->d_model, w_pos);
}

enum lens_status lens_gpt2_load_final_norm(struct lens_checkpoint *k,
					   const struct lens_config *c, struct lens_head64 *h,
					   struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "ln_f", c->d_model, h->ln_final_w, h->ln_final_b);
}

/* Causal masks in older checkpoints. */
bool lens_gpt2_ignore(const char *name)
{
	return lens_name_ends(name, ".attn.bias") || lens_name_ends(name, ".attn.masked_bias");
}

const struct lens_family lens_family_gpt2 = {
	.model_type = "gpt2",
	.architecture = "GPT2LMHeadModel",
	.base = "GPT2Model",
	.prefix = "transformer.",
	.embed = "wte.weight",
	.head = "lm_head.weight",
	.config = config,
	.load_block = load_block,
	.find_positions = lens_gpt2_find_positions,
	.load_final_norm = lens_gpt2_load_final_norm,
	.ignore = lens_gpt2_ignore,
};
