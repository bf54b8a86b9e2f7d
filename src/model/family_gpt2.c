/*
 * model/family_gpt2.c: GPT-2 (GPT2LMHeadModel). Learned positions, LayerNorm
 * before attention and MLP, plain MLP. Hugging Face's Conv1D stores [in, out],
 * which is our layout; TransformerLens's convert_gpt2_weights is the reference.
 */
#include "model/model_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum lens_status activation(const struct lens_config_file *f, struct lens_config *c,
				   struct lens_error *err)
{
	static const struct {
		const char *name;
		enum lens_act act;
	} known[] = {
		{ "gelu_new", LENS_ACT_GELU_NEW },
		{ "gelu", LENS_ACT_GELU },
		{ "relu", LENS_ACT_RELU },
	};
	const char *name;
	size_t i;

	LENS_TRY(lens_config_text(f, "activation_function", &name, err));
	if (!name)
		name = "gelu_new"; /* GPT2Config's default */
	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!strcmp(known[i].name, name)) {
			c->act = known[i].act;
			snprintf(c->act_name, sizeof(c->act_name), "%s", name);
			return LENS_OK;
		}
	}
	return lens_error_at(
		err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
		"activation_function \"%.60s\": gpt2 has gelu_new, gelu, relu here", name);
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_error *err)
{
	bool cross = false;

	LENS_TRY(lens_config_size(f, "n_layer", 12, &c->n_layers, err));
	LENS_TRY(lens_config_size(f, "n_embd", 768, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "n_head", 12, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "n_positions", 1024, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50257, &c->d_vocab, err));
	if (c->d_model > SIZE_MAX / 4 || c->d_model % c->n_heads)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "n_embd %zu is not a multiple of n_head %zu", c->d_model,
				     c->n_heads);
	LENS_TRY(lens_config_size(f, "n_inner", 4 * c->d_model, &c->d_mlp, err));
	LENS_TRY(lens_config_real(f, "layer_norm_epsilon", 1e-5, &c->eps, err));
	if (c->eps < 0)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "layer_norm_epsilon %g is negative", c->eps);
	LENS_TRY(lens_config_bool(f, "tie_word_embeddings", true, &c->tied_head, err));
	LENS_TRY(lens_config_bool(f, "scale_attn_weights", true, &c->scale_attn, err));
	LENS_TRY(lens_config_bool(f, "scale_attn_by_inverse_layer_idx", false,
				  &c->scale_attn_by_layer, err));
	LENS_TRY(lens_config_bool(f, "add_cross_attention", false, &cross, err));
	if (cross)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "add_cross_attention: we run decoders only");
	c->n_kv_heads = c->n_heads;
	c->d_head = c->d_model / c->n_heads;
	c->norm = LENS_NORM_LN;
	c->learned_positions = true;
	return activation(f, c, err);
}

/* Checkpoints name tensors with and without "transformer." in front. */
static const char *full_name(struct lens_tensors *t, const char *name, char *out, size_t size)
{
	const char *prefix =
		lens_tensors_find(t, "transformer.wte.weight") ? "transformer." : "";

	snprintf(out, size, "%s%s", prefix, name);
	return out;
}

static enum lens_status matrix(struct lens_tensors *t, const char *name, size_t rows,
			       size_t columns, double *out, struct lens_error *err)
{
	const size_t shape[2] = { rows, columns };
	char full[128];

	return lens_tensors_read(t, full_name(t, name, full, sizeof(full)), 2, shape, out, err);
}

static enum lens_status vector(struct lens_tensors *t, const char *name, size_t n, double *out,
			       struct lens_error *err)
{
	char full[128];

	return lens_tensors_read(t, full_name(t, name, full, sizeof(full)), 1, &n, out, err);
}

static enum lens_status load_block(struct lens_tensors *t, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	size_t d = c->d_model, f = c->d_mlp;
	char name[96];

#define NAME(suffix) (snprintf(name, sizeof(name), "h.%zu.%s", layer, suffix), name)
	LENS_TRY(vector(t, NAME("ln_1.weight"), d, b->ln1_w, err));
	LENS_TRY(vector(t, NAME("ln_1.bias"), d, b->ln1_b, err));
	LENS_TRY(matrix(t, NAME("attn.c_attn.weight"), d, 3 * d, b->w_qkv, err));
	LENS_TRY(vector(t, NAME("attn.c_attn.bias"), 3 * d, b->b_qkv, err));
	LENS_TRY(matrix(t, NAME("attn.c_proj.weight"), d, d, b->w_o, err));
	LENS_TRY(vector(t, NAME("attn.c_proj.bias"), d, b->b_o, err));
	LENS_TRY(vector(t, NAME("ln_2.weight"), d, b->ln2_w, err));
	LENS_TRY(vector(t, NAME("ln_2.bias"), d, b->ln2_b, err));
	LENS_TRY(matrix(t, NAME("mlp.c_fc.weight"), d, f, b->w_in, err));
	LENS_TRY(vector(t, NAME("mlp.c_fc.bias"), f, b->b_in, err));
	LENS_TRY(matrix(t, NAME("mlp.c_proj.weight"), f, d, b->w_out, err));
	return vector(t, NAME("mlp.c_proj.bias"), d, b->b_out, err);
#undef NAME
}

static enum lens_status load_embed(struct lens_tensors *t, const struct lens_config *c,
				   double *w_e, double *w_pos, struct lens_error *err)
{
	LENS_TRY(matrix(t, "wte.weight", c->d_vocab, c->d_model, w_e, err));
	return matrix(t, "wpe.weight", c->n_ctx, c->d_model, w_pos, err);
}

static enum lens_status load_head(struct lens_tensors *t, const struct lens_config *c,
				  struct lens_head64 *h, struct lens_error *err)
{
	const size_t shape[2] = { c->d_vocab, c->d_model };
	const char *name = "lm_head.weight"; /* never prefixed */

	LENS_TRY(vector(t, "ln_f.weight", c->d_model, h->ln_final_w, err));
	LENS_TRY(vector(t, "ln_f.bias", c->d_model, h->ln_final_b, err));
	/* A tied head is wte, also where a copy of it is stored. */
	if (c->tied_head)
		return matrix(t, "wte.weight", c->d_vocab, c->d_model, h->w_u, err);
	return lens_tensors_read(t, name, 2, shape, h->w_u, err);
}

/* Causal masks that older checkpoints carry, and the tied copy of wte. */
static bool ignore(const char *name)
{
	size_t n = strlen(name);

	if (!strcmp(name, "lm_head.weight"))
		return true;
	return (n > 10 && !strcmp(name + n - 10, ".attn.bias")) ||
	       (n > 17 && !strcmp(name + n - 17, ".attn.masked_bias"));
}

const struct lens_family lens_family_gpt2 = {
	.model_type = "gpt2",
	.architecture = "GPT2LMHeadModel",
	.config = config,
	.load_block = load_block,
	.load_embed = load_embed,
	.load_head = load_head,
	.ignore = ignore,
};
