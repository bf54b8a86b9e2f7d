/*
 * model/family_gemma.c: Gemma, Gemma 2 and the text models of Gemma 3: Llama's tensors, with
 * gains stored as w − 1, a scaled embedding and a tied head; from Gemma 2 on norms before and
 * after; Gemma 2 has soft caps, Gemma 3 norms of queries and keys and a rotary base of its own
 * for local layers. TransformerLens's convert_gemma_weights is the reference of the first two,
 * transformers' Gemma3TextModel of the third.
 */
#include "model/model_private.h"

#include <math.h>
#include <stdio.h>

/*
 * hidden_activation, else hidden_act, whose "gelu" in the published configs is an older word
 * for the tanh formula: Gemma's makers, TransformerLens and earlier transformers compute that,
 * transformers 4.56 erf.
 */
static enum lens_status activation(const struct lens_config_file *f, struct lens_config *c,
				   struct lens_error *err)
{
	static const char tanh_form[] = "gelu_pytorch_tanh";
	const char *named;

	LENS_TRY(lens_config_text(f, "hidden_activation", &named, err));
	if (named)
		return lens_config_activation(f, "hidden_activation", tanh_form, c, err);
	LENS_TRY(lens_config_activation(f, "hidden_act", tanh_form, c, err));
	if (c->act == LENS_ACT_GELU) {
		c->act = LENS_ACT_GELU_NEW;
		snprintf(c->act_name, sizeof(c->act_name), "%s", tanh_form);
	}
	return LENS_OK;
}

static enum lens_status config_gemma(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_layout *layout, struct lens_error *err)
{
	static const struct lens_config_defaults deflt = { .n_layers = 28,
							   .d_model = 3072,
							   .n_heads = 16,
							   .n_kv_heads = 16,
							   .d_head = 256,
							   .d_mlp = 24576,
							   .n_ctx = 8192,
							   .d_vocab = 256000,
							   .eps_key = "rms_norm_eps",
							   .eps = 1e-6,
							   .base = 10000,
							   .act_key = "hidden_act",
							   .act = "gelu_pytorch_tanh",
							   .tied = true };

	layout->gains_less_one = true;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	c->embed_scale = sqrt((double)c->d_model);
	return activation(f, c, err);
}

/* A cap of null is none. */
static enum lens_status cap(const struct lens_config_file *f, const char *key, double deflt,
			    double *out, struct lens_error *err)
{
	const json_t *v = lens_config_value(f, key);

	if (v && json_is_null(v))
		return LENS_OK;
	LENS_TRY(lens_config_real(f, key, deflt, out, err));
	if (*out < 0 || isinf(*out))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "%s %g is not a number from 0", key, *out);
	return LENS_OK;
}

/* layer_types, or every layer is local but each `pattern`-th. */
static enum lens_status windows(const struct lens_config_file *f, size_t pattern,
				struct lens_config *c, struct lens_error *err)
{
	const json_t *types = lens_config_value(f, "layer_types");
	size_t i;

	LENS_TRY(lens_config_size(f, "sliding_window", 4096, &c->window, err));
	if (types && !json_is_null(types))
		return lens_config_layer_types(f, types, c, err);
	for (i = 0; i < c->n_layers; i++)
		c->local[i] = (i + 1) % pattern;
	return LENS_OK;
}

/* What the second and the third have in common. */
static enum lens_status later(const struct lens_config_file *f, bool third,
			      struct lens_config *c, struct lens_layout *layout,
			      struct lens_error *err)
{
	const struct lens_config_defaults deflt = { .n_layers = 26,
						    .d_model = 2304,
						    .n_heads = 8,
						    .n_kv_heads = 4,
						    .d_head = 256,
						    .d_mlp = 9216,
						    .n_ctx = third ? 131072 : 8192,
						    .d_vocab = third ? 262208 : 256000,
						    .eps_key = "rms_norm_eps",
						    .eps = 1e-6,
						    .base = third ? 1000000 : 10000,
						    .act_key = "hidden_activation",
						    .act = "gelu_pytorch_tanh",
						    .tied = true };
	double scalar;

	layout->gains_less_one = true;
	c->norms_after = true;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_real(f, "query_pre_attn_scalar", 256, &scalar, err));
	if (!(scalar > 0) || isinf(scalar))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "query_pre_attn_scalar %g is not above 0", scalar);
	c->attn_scale = sqrt(scalar);
	c->embed_scale = sqrt((double)c->d_model);
	return LENS_OK;
}

static enum lens_status config_gemma2(const struct lens_config_file *f, struct lens_config *c,
				      struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(later(f, false, c, layout, err));
	LENS_TRY(cap(f, "attn_logit_softcapping", 50, &c->score_cap, err));
	LENS_TRY(cap(f, "final_logit_softcapping", 30, &c->logit_cap, err));
	return windows(f, 2, c, err);
}

/*
 * rope_local_base_freq, and as transformers 5 writes it: rope_parameters with a part for each
 * kind of layers.
 */
static enum lens_status local_rotary(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_error *err)
{
	struct lens_config_file part = *f;
	struct lens_config local = *c;

	local.rotary = (struct lens_rotary){ .dim = c->rotary.dim };
	LENS_TRY(lens_config_real(f, "rope_local_base_freq", 10000, &local.rotary.base, err));
	if (!(local.rotary.base > 0) || isinf(local.rotary.base))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "rope_local_base_freq %g is not above 0",
				     local.rotary.base);
	part.rope_part = "sliding_attention";
	if (lens_rope_parts(lens_config_value(f, "rope_parameters")))
		LENS_TRY(lens_config_rotary(&part, local.rotary.base, 1, &local, err));
	if (local.rotary.type != LENS_ROPE_DEFAULT)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "rope_parameters: sliding_attention is scaled: we have "
				     "rope_type default there");
	c->local_rotary = local.rotary;
	return LENS_OK;
}

/* transformers stores it and does not apply it, so what was trained is in doubt. */
static enum lens_status no_score_cap(const struct lens_config_file *f, struct lens_error *err)
{
	const json_t *v = lens_config_value(f, "attn_logit_softcapping");

	if (!v || json_is_null(v))
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
			     "attn_logit_softcapping is not null: transformers' Gemma 3 does "
			     "not apply it; we run null");
}

static enum lens_status config_gemma3(const struct lens_config_file *f, struct lens_config *c,
				      struct lens_layout *layout, struct lens_error *err)
{
	struct lens_config_file full = *f;
	bool both_ways;
	size_t pattern;

	LENS_TRY(lens_config_bool(f, "use_bidirectional_attention", false, &both_ways, err));
	if (both_ways)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "use_bidirectional_attention: attention looks back only");
	full.rope_part = "full_attention";
	LENS_TRY(later(&full, true, c, layout, err));
	LENS_TRY(no_score_cap(f, err));
	LENS_TRY(cap(f, "final_logit_softcapping", 0, &c->logit_cap, err));
	c->qk_norm = LENS_QK_NORM_HEAD;
	LENS_TRY(local_rotary(f, c, err));
	LENS_TRY(lens_config_size(f, "sliding_window_pattern", 6, &pattern, err));
	return windows(f, pattern, c, err);
}

const struct lens_family lens_family_gemma = LENS_LLAMA_LIKE("gemma", "Gemma", config_gemma);
const struct lens_family lens_family_gemma2 =
	LENS_LLAMA_LIKE("gemma2", "Gemma2", config_gemma2);
const struct lens_family lens_family_gemma3_text = {
	.model_type = "gemma3_text",
	.architecture = "Gemma3ForCausalLM",
	.base = "Gemma3TextModel",
	.prefix = "model.",
	.embed = "embed_tokens.weight",
	.head = "lm_head.weight",
	.config = config_gemma3,
	.load_block = lens_llama_load_block,
	.load_final_norm = lens_llama_load_final_norm,
	.ignore = lens_llama_ignore,
};
