/*
 * model/family_opt.c: OPT (OPTForCausalLM): learned positions stored behind two rows that
 * nothing reads, LayerNorm before attention and MLP, ReLU. The 350m, which norms the stream
 * itself and projects its embedding, is refused. TransformerLens's convert_opt_weights is the
 * reference.
 */
#include "model/model_private.h"

#include <stdio.h>

#define OFFSET 2 /* of position 0 */

/* What the 350m alone has, told together. */
static enum lens_status refuse_350m(const struct lens_config_file *f,
				    const struct lens_config *c, struct lens_error *err)
{
	char projected[96] = "";
	bool before;
	size_t width;

	LENS_TRY(lens_config_bool(f, "do_layer_norm_before", true, &before, err));
	LENS_TRY(lens_config_size(f, "word_embed_proj_dim", c->d_model, &width, err));
	if (before && width == c->d_model)
		return LENS_OK;
	if (width != c->d_model)
		snprintf(projected, sizeof(projected),
			 "word_embed_proj_dim %zu is not hidden_size %zu", width, c->d_model);
	if (before)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "%s: we do not project embeddings", projected);
	return lens_error_at(
		err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
		"do_layer_norm_before false%s%s: the stream itself would be normed after each "
		"addition, so that it is no sum of what blocks write, and lenses and "
		"attributions would mean nothing (OPT-350m; OPT's other sizes run)",
		*projected ? ", " : "", projected);
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_layers(f, "num_hidden_layers", 12, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", 768, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "num_attention_heads", 12, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "ffn_dim", 3072, &c->d_mlp, err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", 2048, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50272, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "num_attention_heads", c, err));
	LENS_TRY(lens_config_tied(f, true, &layout->tied_head, err));
	LENS_TRY(refuse_350m(f, c, err));
	LENS_TRY(lens_config_must_be(f, "enable_bias", true, "we read the biases", err));
	LENS_TRY(lens_config_must_be(f, "layer_norm_elementwise_affine", true,
				     "we read the norms' weights", err));
	LENS_TRY(lens_config_must_be(f, "_remove_final_layer_norm", false,
				     "we have ln_final in every model", err));
	layout->qkv_biases = true;
	c->eps = 1e-5;
	c->norm = LENS_NORM_LN;
	c->learned_positions = true;
	c->scale_attn = true;
	return lens_config_activation(f, "activation_function", "relu", c, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "decoder.layers.%zu.", layer);
	size_t d = c->d_model;

	LENS_TRY(lens_load_norm(&at, "self_attn_layer_norm", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "final_layer_norm", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_llama_load_qkv(&at, c, b));
	LENS_TRY(lens_load_affine(&at, "self_attn.out_proj", d, d, &b->w_o, b->b_o));
	LENS_TRY(lens_load_affine(&at, "fc1", c->d_mlp, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "fc2", d, c->d_mlp, &b->w_out, b->b_out);
}

static enum lens_status find_positions(struct lens_checkpoint *k, const struct lens_config *c,
				       struct lens_matrix *w_pos, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");
	const size_t shape[2] = { c->n_ctx + OFFSET, c->d_model };
	const struct lens_matrix_part rows = { .columns = c->d_model,
					       .group = c->d_model,
					       .first_row = OFFSET };

	return lens_find_part(&at, "decoder.embed_positions.weight", shape, &rows, w_pos);
}

static enum lens_status load_final_norm(struct lens_checkpoint *k, const struct lens_config *c,
					struct lens_head64 *h, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return lens_load_norm(&at, "decoder.final_layer_norm", c->d_model, h->ln_final_w,
			      h->ln_final_b);
}

const struct lens_family lens_family_opt = {
	.model_type = "opt",
	.architecture = "OPTForCausalLM",
	.base = "OPTModel",
	.prefix = "model.",
	.embed = "decoder.embed_tokens.weight",
	.head = "lm_head.weight",
	.config = config,
	.load_block = load_block,
	.find_positions = find_positions,
	.load_final_norm = load_final_norm,
};
