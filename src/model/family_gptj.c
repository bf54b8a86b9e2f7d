/*
 * model/family_gptj.c: GPT-J (GPTJForCausalLM): attention and MLP in parallel behind one norm,
 * rotary positions in pairs of neighbours on the first rotary_dim of each head, a head with a
 * bias. TransformerLens's convert_gptj_weights is the reference; as there, ln1 and ln2 are the
 * same norm.
 */
#include "model/model_private.h"

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	static const struct lens_config_defaults deflt = {
		.n_layers = 28, .d_model = 4096, .n_heads = 16, .n_ctx = 2048, .d_vocab = 50400
	};
	size_t dim;

	LENS_TRY(lens_gpt2_config_shape(f, &deflt, c, layout, err));
	if (json_is_null(lens_config_value(f, "rotary_dim")))
		return lens_error_at(
			err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
			"rotary_dim null: we need the number of dimensions that are turned");
	LENS_TRY(lens_config_size(f, "rotary_dim", 64, &dim, err));
	if (dim > c->d_head || dim % 2)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "rotary_dim %zu is not an even number up to the %zu "
				     "dimensions of a head",
				     dim, c->d_head);
	c->rotary = (struct lens_rotary){ .dim = dim, .base = 10000, .adjacent = true };
	c->norm = LENS_NORM_LN;
	c->parallel_block = true;
	c->scale_attn = true;
	return lens_config_activation(f, "activation_function", "gelu_new", c, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "h.%zu.", layer);
	size_t d = c->d_model;

	LENS_TRY(lens_load_norm(&at, "ln_1", d, b->ln1_w, b->ln1_b));
	LENS_TRY(lens_load_norm(&at, "ln_1", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_find_linear(&at, "attn.q_proj.weight", d, d, &b->w_qkv));
	LENS_TRY(lens_find_linear(&at, "attn.k_proj.weight", d, d, &b->w_qkv));
	LENS_TRY(lens_find_linear(&at, "attn.v_proj.weight", d, d, &b->w_qkv));
	LENS_TRY(lens_find_linear(&at, "attn.out_proj.weight", d, d, &b->w_o));
	LENS_TRY(lens_load_affine(&at, "mlp.fc_in", c->d_mlp, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.fc_out", d, c->d_mlp, &b->w_out, b->b_out);
}

/* Masks and tables in older checkpoints. */
static bool ignore(const char *name)
{
	return lens_gpt2_ignore(name) || lens_name_ends(name, ".attn.embed_positions");
}

const struct lens_family lens_family_gptj = {
	.model_type = "gptj",
	.architecture = "GPTJForCausalLM",
	.base = "GPTJModel",
	.prefix = "transformer.",
	.embed = "wte.weight",
	.head = "lm_head.weight",
	.head_bias = "lm_head.bias",
	.config = config,
	.load_block = load_block,
	.load_final_norm = lens_gpt2_load_final_norm,
	.ignore = ignore,
};
