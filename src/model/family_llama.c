/*
 * model/family_llama.c: the Llama line: LlamaForCausalLM (Llama 1 to 3, SmolLM2,
 * TinyLlama), Mistral, Qwen2, Qwen3, OLMo 2, Granite and SmolLM3, which differ only in biases,
 * windows, multipliers and where norms and rotary positions are; and what Gemma
 * (family_gemma.c) has in common with it. RMSNorm, rotary positions, grouped-query attention,
 * gated MLP. TransformerLens's convert_llama_weights, convert_mistral_weights,
 * convert_qwen2_weights and convert_qwen3_weights are the references, transformers' Olmo2 that
 * of OLMo 2, which TransformerLens 2.16 does not have.
 */
#include "model/model_private.h"

#include <stdio.h>
#include <string.h>

enum lens_status lens_llama_config(const struct lens_config_file *f,
				   const struct lens_config_defaults *deflt,
				   struct lens_config *c, struct lens_layout *layout,
				   struct lens_error *err)
{
	double base;

	LENS_TRY(lens_config_shape(f, deflt, c, layout, err));
	LENS_TRY(lens_config_real(f, "rope_theta", deflt->base, &base, err));
	/* If given, d_head need not be d_model / n_heads. */
	LENS_TRY(lens_config_size(f, "head_dim",
				  deflt->d_head ? deflt->d_head
						: (c->d_model + c->n_heads - 1) / c->n_heads,
				  &c->d_head, err));
	c->norm = LENS_NORM_RMS;
	c->gated_mlp = true;
	c->scale_attn = true;
	LENS_TRY(lens_config_rotary(f, base, deflt->share > 0 ? deflt->share : 1, c, err));
	return lens_config_activation(f, deflt->act_key, deflt->act, c, err);
}

/* transformers' LlamaConfig. */
static const struct lens_config_defaults llama = { .n_layers = 32,
						   .d_model = 4096,
						   .n_heads = 32,
						   .d_mlp = 11008,
						   .n_ctx = 2048,
						   .d_vocab = 32000,
						   .eps_key = "rms_norm_eps",
						   .eps = 1e-6,
						   .base = 10000,
						   .act_key = "hidden_act",
						   .act = "silu" };

static enum lens_status config_llama(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_config_bool(f, "mlp_bias", false, &layout->mlp_biases, err));
	c->gate_bias = layout->mlp_biases;
	return lens_llama_config(f, &llama, c, layout, err);
}

/* sliding_window: null, or the number of keys that every layer sees. */
static enum lens_status config_mistral(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_layout *layout, struct lens_error *err)
{
	struct lens_config_defaults deflt = llama;

	deflt.n_kv_heads = 8;
	deflt.d_mlp = 14336;
	deflt.n_ctx = 131072;
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	return lens_config_window(f, 4096, c, err);
}

enum lens_status lens_config_layer_types(const struct lens_config_file *f, const json_t *types,
					 struct lens_config *c, struct lens_error *err)
{
	const json_t *v;
	size_t i;

	if (!json_is_array(types) || json_array_size(types) != c->n_layers)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "layer_types does not name %zu layers", c->n_layers);
	json_array_foreach (types, i, v) {
		const char *name = json_string_value(v);

		c->local[i] = name && !strcmp(name, "sliding_attention");
		if (!c->local[i] && (!name || strcmp(name, "full_attention") != 0))
			return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
					     "layer_types: we have full_attention and "
					     "sliding_attention");
	}
	return LENS_OK;
}

/* The window, if any, starts at layer max_window_layers, where layer_types does not say it. */
static enum lens_status qwen_windows(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_error *err)
{
	const json_t *types = lens_config_value(f, "layer_types");
	const json_t *first = lens_config_value(f, "max_window_layers");
	const json_t *window = lens_config_value(f, "sliding_window");
	bool sliding;
	size_t i;

	LENS_TRY(lens_config_bool(f, "use_sliding_window", false, &sliding, err));
	if (!sliding || (window && json_is_null(window)))
		return LENS_OK;
	LENS_TRY(lens_config_size(f, "sliding_window", 4096, &c->window, err));
	if (types && !json_is_null(types))
		return lens_config_layer_types(f, types, c, err);
	if (first && !json_is_integer(first))
		return lens_config_wrong(f, "max_window_layers", "is not a whole number", err);
	for (i = 0; i < c->n_layers; i++)
		c->local[i] = (json_int_t)i >= (first ? json_integer_value(first) : 28);
	return LENS_OK;
}

/* transformers' Qwen2Config and Qwen3Config. */
static struct lens_config_defaults qwen(void)
{
	struct lens_config_defaults deflt = llama;

	deflt.n_kv_heads = 32;
	deflt.d_mlp = 22016;
	deflt.n_ctx = 32768;
	deflt.d_vocab = 151936;
	return deflt;
}

/* Biases on q, k and v. */
static enum lens_status config_qwen2(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_layout *layout, struct lens_error *err)
{
	const struct lens_config_defaults deflt = qwen();

	layout->qkv_biases = true;
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	return qwen_windows(f, c, err);
}

/* Each head's queries and keys go through a norm of their own. */
static enum lens_status config_qwen3(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_layout *layout, struct lens_error *err)
{
	struct lens_config_defaults deflt = qwen();

	deflt.d_head = 128;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	c->qk_norm = LENS_QK_NORM_HEAD;
	return qwen_windows(f, c, err);
}

/* muP's multipliers, which go into the weights. */
static enum lens_status config_granite(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_layout *layout, struct lens_error *err)
{
	double attention;

	LENS_TRY(config_llama(f, c, layout, err));
	LENS_TRY(lens_config_real(f, "embedding_multiplier", 1, &c->embed_scale, err));
	LENS_TRY(lens_config_real(f, "residual_multiplier", 1, &layout->residual_multiplier,
				  err));
	LENS_TRY(lens_config_real(f, "logits_scaling", 1, &layout->logits_scaling, err));
	LENS_TRY(lens_config_real(f, "attention_multiplier", 1, &attention, err));
	if (!(c->embed_scale > 0 && layout->residual_multiplier > 0 &&
	      layout->logits_scaling > 0 && attention > 0))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "a multiplier is not above 0: embedding_multiplier %g, "
				     "residual_multiplier %g, logits_scaling %g, "
				     "attention_multiplier %g",
				     c->embed_scale, layout->residual_multiplier,
				     layout->logits_scaling, attention);
	c->attn_scale = 1 / attention;
	return LENS_OK;
}

static bool any_local(const struct lens_config *c)
{
	size_t i;

	for (i = 0; i < c->n_layers && !c->local[i]; i++)
		;
	return i < c->n_layers;
}

/*
 * layer_types counts even where use_sliding_window is false, as transformers masks by it;
 * without it, layers without rotary positions have the window.
 */
static enum lens_status smollm3_windows(const struct lens_config_file *f, struct lens_config *c,
					struct lens_error *err)
{
	const json_t *types = lens_config_value(f, "layer_types");
	const json_t *window = lens_config_value(f, "sliding_window");
	bool sliding;

	LENS_TRY(lens_config_bool(f, "use_sliding_window", false, &sliding, err));
	if (!window || json_is_null(window))
		return LENS_OK;
	if (types && !json_is_null(types))
		LENS_TRY(lens_config_layer_types(f, types, c, err));
	else if (sliding)
		memcpy(c->local, c->no_rotary, sizeof(c->local));
	return sliding || any_local(c)
		       ? lens_config_size(f, "sliding_window", 0, &c->window, err)
		       : LENS_OK;
}

/* Layers without rotary positions. */
static enum lens_status config_smollm3(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_layout *layout, struct lens_error *err)
{
	const json_t *rotary = lens_config_value(f, "no_rope_layers");
	struct lens_config_defaults deflt = llama;
	size_t i, every;

	deflt.n_layers = 36;
	deflt.d_model = 2048;
	deflt.n_heads = 16;
	deflt.n_kv_heads = 4;
	deflt.n_ctx = 32768;
	deflt.d_vocab = 128256;
	deflt.base = 2000000;
	deflt.tied = true;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	LENS_TRY(lens_config_bool(f, "mlp_bias", false, &layout->mlp_biases, err));
	c->gate_bias = layout->mlp_biases;
	LENS_TRY(lens_llama_config(f, &deflt, c, layout, err));
	LENS_TRY(lens_config_size(f, "no_rope_layer_interval", 4, &every, err));
	if (rotary && !json_is_null(rotary) &&
	    (!json_is_array(rotary) || json_array_size(rotary) != c->n_layers))
		return lens_config_wrong(f, "no_rope_layers",
					 "is not a list, one for each layer", err);
	for (i = 0; i < c->n_layers; i++) /* 1: this layer has them */
		c->no_rotary[i] = json_is_array(rotary)
					  ? !json_integer_value(json_array_get(rotary, i))
					  : (i + 1) % every == 0;
	return smollm3_windows(f, c, err);
}

/* Norms of what is added to the stream instead of what reads it; all heads' norm in one. */
static enum lens_status config_olmo2(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_layout *layout, struct lens_error *err)
{
	struct lens_config_defaults deflt = llama;

	deflt.d_vocab = 50304;
	deflt.eps = 1e-5;
	LENS_TRY(lens_config_bool(f, "attention_bias", false, &layout->attn_biases, err));
	c->norms_before = false;
	c->norms_after = true;
	c->qk_norm = LENS_QK_NORM_ALL;
	return lens_llama_config(f, &deflt, c, layout, err);
}

/* One of q, k, v, in this order: n columns from `column` on. */
static enum lens_status load_projection(const struct lens_tensors_at *at,
					const struct lens_config *c, const char *which,
					size_t column, size_t n, struct lens_block64 *b)
{
	char name[64];

	snprintf(name, sizeof(name), "self_attn.%s_proj.weight", which);
	LENS_TRY(lens_find_linear(at, name, n, c->d_model, &b->w_qkv));
	if (!at->layout->attn_biases && !at->layout->qkv_biases)
		return LENS_OK;
	snprintf(name, sizeof(name), "self_attn.%s_proj.bias", which);
	return lens_load_vector(at, name, n, lens_at64(b->b_qkv, column));
}

enum lens_status lens_llama_load_qkv(const struct lens_tensors_at *at,
				     const struct lens_config *c, struct lens_block64 *b)
{
	size_t q = c->n_heads * c->d_head, kv = c->n_kv_heads * c->d_head;

	LENS_TRY(load_projection(at, c, "q", 0, q, b));
	LENS_TRY(load_projection(at, c, "k", q, kv, b));
	return load_projection(at, c, "v", q + kv, kv, b);
}

enum lens_status lens_llama_load_mlp(const struct lens_tensors_at *at,
				     const struct lens_config *c, struct lens_block64 *b)
{
	size_t d = c->d_model, f = c->d_mlp;

	LENS_TRY(lens_find_linear(at, "mlp.gate_proj.weight", f, d, &b->w_gate));
	LENS_TRY(lens_find_linear(at, "mlp.up_proj.weight", f, d, &b->w_in));
	LENS_TRY(lens_find_linear(at, "mlp.down_proj.weight", d, f, &b->w_out));
	if (!at->layout->mlp_biases)
		return LENS_OK;
	LENS_TRY(lens_load_vector(at, "mlp.gate_proj.bias", f, b->b_gate));
	LENS_TRY(lens_load_vector(at, "mlp.up_proj.bias", f, b->b_in));
	return lens_load_vector(at, "mlp.down_proj.bias", d, b->b_out);
}

/* A norm's weight. */
static enum lens_status load_gain(const struct lens_tensors_at *at, const char *name, size_t n,
				  double *out)
{
	size_t i;

	LENS_TRY(lens_load_vector(at, name, n, out));
	for (i = 0; out && at->layout->gains_less_one && i < n; i++)
		out[i] += 1;
	return LENS_OK;
}

/* post_attention_layernorm is what it says only where something is normed before it is added.
 */
static enum lens_status load_norms(const struct lens_tensors_at *at,
				   const struct lens_config *c, struct lens_block64 *b)
{
	size_t d = c->d_model;

	if (c->norms_before)
		LENS_TRY(load_gain(at, "input_layernorm.weight", d, b->ln1_w));
	if (!c->norms_after)
		return load_gain(at, "post_attention_layernorm.weight", d, b->ln2_w);
	if (c->norms_before)
		LENS_TRY(load_gain(at, "pre_feedforward_layernorm.weight", d, b->ln2_w));
	LENS_TRY(load_gain(at, "post_attention_layernorm.weight", d, b->ln1_post_w));
	return load_gain(at, "post_feedforward_layernorm.weight", d, b->ln2_post_w);
}

static enum lens_status load_qk_norms(const struct lens_tensors_at *at,
				      const struct lens_config *c, struct lens_block64 *b)
{
	bool all = c->qk_norm == LENS_QK_NORM_ALL;

	if (!c->qk_norm)
		return LENS_OK;
	LENS_TRY(load_gain(at, "self_attn.q_norm.weight", c->d_head * (all ? c->n_heads : 1),
			   b->q_norm_w));
	return load_gain(at, "self_attn.k_norm.weight", c->d_head * (all ? c->n_kv_heads : 1),
			 b->k_norm_w);
}

/* So that attn_out and mlp_out are what is added to the stream. */
static void multiply_residual(const struct lens_config *c, double by, struct lens_block64 *b)
{
	size_t i;

	b->w_o.scale = b->w_out.scale = by;
	for (i = 0; b->b_o && i < c->d_model; i++) {
		b->b_o[i] *= by;
		b->b_out[i] *= by;
	}
}

enum lens_status lens_llama_load_attention(const struct lens_tensors_at *at,
					   const struct lens_config *c, struct lens_block64 *b)
{
	size_t d = c->d_model, q = c->n_heads * c->d_head;

	LENS_TRY(load_norms(at, c, b));
	LENS_TRY(lens_llama_load_qkv(at, c, b));
	LENS_TRY(load_qk_norms(at, c, b));
	LENS_TRY(lens_find_linear(at, "self_attn.o_proj.weight", d, q, &b->w_o));
	return at->layout->attn_biases
		       ? lens_load_vector(at, "self_attn.o_proj.bias", d, b->b_o)
		       : LENS_OK;
}

enum lens_status lens_llama_load_block(struct lens_checkpoint *k, const struct lens_config *c,
				       size_t layer, struct lens_block64 *b,
				       struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "layers.%zu.", layer);

	LENS_TRY(lens_llama_load_attention(&at, c, b));
	LENS_TRY(lens_llama_load_mlp(&at, c, b));
	if (at.layout->residual_multiplier > 0)
		multiply_residual(c, at.layout->residual_multiplier, b);
	return LENS_OK;
}

enum lens_status lens_llama_load_final_norm(struct lens_checkpoint *k,
					    const struct lens_config *c, struct lens_head64 *h,
					    struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return load_gain(&at, "norm.weight", c->d_model, h->ln_final_w);
}

/* Frequencies in older checkpoints. */
bool lens_llama_ignore(const char *name)
{
	return lens_name_ends(name, ".rotary_emb.inv_freq");
}

const struct lens_family lens_family_llama = LENS_LLAMA_LIKE("llama", "Llama", config_llama);
const struct lens_family lens_family_mistral =
	LENS_LLAMA_LIKE("mistral", "Mistral", config_mistral);
const struct lens_family lens_family_qwen2 = LENS_LLAMA_LIKE("qwen2", "Qwen2", config_qwen2);
const struct lens_family lens_family_qwen3 = LENS_LLAMA_LIKE("qwen3", "Qwen3", config_qwen3);
const struct lens_family lens_family_olmo2 = LENS_LLAMA_LIKE("olmo2", "Olmo2", config_olmo2);
const struct lens_family lens_family_granite =
	LENS_LLAMA_LIKE("granite", "Granite", config_granite);
const struct lens_family lens_family_smollm3 =
	LENS_LLAMA_LIKE("smollm3", "SmolLM3", config_smollm3);
