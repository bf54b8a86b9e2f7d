/*
 * model/family_bloom.c: BLOOM (BloomForCausalLM): no positions but a bias of the scores that
 * falls with the distance (ALiBi), a LayerNorm of the embedding, which becomes part of W_E
 * since it depends on the token alone. TransformerLens's convert_bloom_weights is the
 * reference, but for the slopes where the number of heads is no power of two, which are
 * transformers'.
 */
#include "model/model_private.h"

/* Then transformers computes the attention's and the MLP's outputs without their biases. */
static enum lens_status check_slices(const struct lens_config_file *f, struct lens_error *err)
{
	size_t n;
	bool slow;

	LENS_TRY(lens_config_size(f, "pretraining_tp", 1, &n, err));
	LENS_TRY(lens_config_bool(f, "slow_but_exact", false, &slow, err));
	if (!slow || n == 1)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
			     "slow_but_exact true with pretraining_tp %zu: we add the biases, "
			     "as with false",
			     n);
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(check_slices(f, err));
	LENS_TRY(lens_config_either(f, "n_layer", "num_hidden_layers", 2, &c->n_layers, err));
	LENS_TRY(lens_config_layers(f, "num_hidden_layers", c->n_layers, c, err));
	LENS_TRY(lens_config_either(f, "n_embed", "hidden_size", 64, &c->d_model, err));
	LENS_TRY(lens_config_either(f, "n_head", "num_attention_heads", 8, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "seq_length", 2048, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 250880, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "n_head", c, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_epsilon", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, true, &layout->tied_head, err));
	LENS_TRY(lens_config_must_be(f, "apply_residual_connection_post_layernorm", false,
				     "we add to the stream itself", err));
	c->d_mlp = 4 * c->d_model;
	c->norm = LENS_NORM_LN;
	c->alibi = true;
	c->embed_norm = true;
	c->scale_attn = true;
	return lens_config_activation(f, "hidden_act", "gelu_fast", c, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "h.%zu.", layer);
	size_t d = c->d_model, f = c->d_mlp;

	LENS_TRY(lens_load_norm(&at, "input_layernorm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "post_attention_layernorm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_load_interleaved_qkv(&at, c, "self_attention.query_key_value.weight",
					   "self_attention.query_key_value.bias", b));
	LENS_TRY(lens_load_affine(&at, "self_attention.dense", d, d, &b->w_o, b->b_o));
	LENS_TRY(lens_load_affine(&at, "mlp.dense_h_to_4h", f, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.dense_4h_to_h", d, f, &b->w_out, b->b_out);
}

static enum lens_status load_embed_norm(struct lens_checkpoint *k, const struct lens_config *c,
					double *w, double *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "word_embeddings_layernorm", c->d_model, w, b);
}

const struct lens_family lens_family_bloom = {
	.model_type = "bloom",
	.architecture = "BloomForCausalLM",
	.base = "BloomModel",
	.prefix = "transformer.",
	.embed = "word_embeddings.weight",
	.head = "lm_head.weight",
	.config = config,
	.load_block = load_block,
	.load_embed_norm = load_embed_norm,
	.load_final_norm = lens_gpt2_load_final_norm,
};
