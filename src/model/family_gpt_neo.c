/*
 * model/family_gpt_neo.c: GPT-Neo and TinyStories (GPTNeoForCausalLM). Like GPT-2, but
 * with torch's Linear layers ([out, in]), no biases on q, k and v, scores that are not
 * divided by √d_head, and layers that see only a window of keys. Embedding and head have
 * GPT-2's names. TransformerLens's convert_neo_weights is the reference.
 */
#include "model/model_private.h"

#include <stdio.h>
#include <string.h>

static enum lens_status bad_types(const struct lens_config_file *f, const char *what,
				  struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0, "attention_types: %s", what);
}

/* Appends the layers' kinds ("global", "local"), `times` over, from layer *n. */
static enum lens_status add_layers(const struct lens_config_file *f, const json_t *names,
				   json_int_t times, struct lens_config *c, size_t *n,
				   struct lens_error *err)
{
	const json_t *v;
	json_int_t i;
	size_t k;

	if (!json_array_size(names) || times < 1)
		return bad_types(f, "not a list of [names, how often]", err);
	for (i = 0; i < times; i++) {
		json_array_foreach (names, k, v) {
			const char *name = json_string_value(v);
			bool local = name && !strcmp(name, "local");

			if (!local && (!name || strcmp(name, "global") != 0))
				return bad_types(f, "knows only \"global\" and \"local\"", err);
			if (*n == c->n_layers)
				return bad_types(f, "names more layers than there are", err);
			c->local[(*n)++] = local;
		}
	}
	return LENS_OK;
}

/* attention_types: [[["global", "local"], 6]] says how 12 layers alternate. */
static enum lens_status attention_types(const struct lens_config_file *f, struct lens_config *c,
					struct lens_error *err)
{
	const json_t *types = lens_config_value(f, "attention_types"), *v;
	size_t n = 0, i;

	LENS_TRY(lens_config_size(f, "window_size", 256, &c->window, err));
	if (!types || json_is_null(types)) { /* GPTNeoConfig's default */
		for (n = 0; n < c->n_layers; n++)
			c->local[n] = n % 2;
		return LENS_OK;
	}
	if (!json_is_array(types))
		return bad_types(f, "not a list", err);
	json_array_foreach (types, i, v)
		LENS_TRY(add_layers(f, json_array_get(v, 0),
				    json_integer_value(json_array_get(v, 1)), c, &n, err));
	if (n != c->n_layers)
		return bad_types(f, "names fewer layers than there are", err);
	return LENS_OK;
}

/* The same, a name a layer, if it is there. */
static enum lens_status check_layers(const struct lens_config_file *f,
				     const struct lens_config *c, struct lens_error *err)
{
	const json_t *list = lens_config_value(f, "attention_layers");
	bool same = json_array_size(list) == c->n_layers;
	size_t i;

	if (!list || json_is_null(list))
		return LENS_OK;
	for (i = 0; same && i < c->n_layers; i++) {
		const char *name = json_string_value(json_array_get(list, i));

		same = name && !strcmp(name, c->local[i] ? "local" : "global");
	}
	return same ? LENS_OK
		    : lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				    "attention_layers does not say what attention_types says");
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(lens_config_either(f, "num_layers", "num_hidden_layers", 24, &c->n_layers,
				    err));
	LENS_TRY(lens_config_layers(f, "num_layers", c->n_layers, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", 2048, &c->d_model, err));
	LENS_TRY(lens_config_either(f, "num_heads", "num_attention_heads", 16, &c->n_heads,
				    err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", 2048, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", 50257, &c->d_vocab, err));
	LENS_TRY(lens_config_heads(f, "hidden_size", "num_heads", c, err));
	LENS_TRY(lens_config_size(f, "intermediate_size", 4 * c->d_model, &c->d_mlp, err));
	LENS_TRY(lens_config_eps(f, "layer_norm_epsilon", 1e-5, &c->eps, err));
	LENS_TRY(lens_config_tied(f, true, &layout->tied_head, err));
	LENS_TRY(attention_types(f, c, err));
	LENS_TRY(check_layers(f, c, err));
	c->norm = LENS_NORM_LN;
	c->learned_positions = true;
	c->scale_attn = false;
	return lens_config_activation(f, "activation_function", "gelu_new", c, err);
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	static const char *const qkv[] = { "q_proj", "k_proj", "v_proj" };
	struct lens_tensors_at at = lens_tensors_at(k, err, "h.%zu.", layer);
	size_t d = c->d_model, f = c->d_mlp, i;
	char name[64];

	LENS_TRY(lens_load_norm(&at, "ln_1", d, b->ln1_w, b->ln1_b));
	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "attn.attention.%s.weight", qkv[i]);
		LENS_TRY(lens_find_linear(&at, name, d, d, &b->w_qkv));
	}
	LENS_TRY(lens_load_affine(&at, "attn.attention.out_proj", d, d, &b->w_o, b->b_o));
	LENS_TRY(lens_load_norm(&at, "ln_2", d, b->ln2_w, b->ln2_b));
	LENS_TRY(lens_load_affine(&at, "mlp.c_fc", f, d, &b->w_in, b->b_in));
	return lens_load_affine(&at, "mlp.c_proj", d, f, &b->w_out, b->b_out);
}

/* Causal masks in older checkpoints. */
static bool ignore(const char *name)
{
	return lens_name_ends(name, ".attention.bias") ||
	       lens_name_ends(name, ".attention.masked_bias");
}

const struct lens_family lens_family_gpt_neo = {
	.model_type = "gpt_neo",
	.architecture = "GPTNeoForCausalLM",
	.base = "GPTNeoModel",
	.prefix = "transformer.",
	.embed = "wte.weight",
	.head = "lm_head.weight",
	.config = config,
	.load_block = load_block,
	.find_positions = lens_gpt2_find_positions,
	.load_final_norm = lens_gpt2_load_final_norm,
	.ignore = ignore,
};
