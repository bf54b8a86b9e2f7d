/*
 * model/config.c: config.json → struct lens_config, by the family that its model_type
 * names; and struct lens_config → JSON with TransformerLens's key names.
 */
#include "model/config_private.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG ((size_t)16 << 20)

/* A new family is one new file and one line here. */
static const struct lens_family *const families[] = {
	&lens_family_gpt2,        &lens_family_gpt_neo,    &lens_family_gpt_neox,
	&lens_family_llama,       &lens_family_mistral,    &lens_family_qwen2,
	&lens_family_qwen3,       &lens_family_olmo2,      &lens_family_granite,
	&lens_family_smollm3,     &lens_family_gemma,      &lens_family_gemma2,
	&lens_family_gemma3_text, &lens_family_phi,        &lens_family_phi3,
	&lens_family_gptj,        &lens_family_opt,        &lens_family_bloom,
	&lens_family_gpt_bigcode, &lens_family_starcoder2, &lens_family_stablelm,
	&lens_family_mixtral,     &lens_family_qwen3_moe,  &lens_family_hooked_transformer,
};
#define N_FAMILIES (sizeof(families) / sizeof(*families))

const struct lens_family *lens_family_at(size_t i)
{
	return i < N_FAMILIES ? families[i] : NULL;
}

const struct lens_family *lens_family_named(const char *model_type)
{
	size_t i;

	for (i = 0; i < N_FAMILIES && strcmp(families[i]->model_type, model_type) != 0; i++)
		;
	return lens_family_at(i);
}

static enum lens_status unknown_family(const char *path, const char *type,
				       struct lens_error *err)
{
	struct lens_buf known = LENS_BUF_INIT;
	size_t i;

	for (i = 0; i < N_FAMILIES; i++)
		lens_buf_printf(&known, NULL, "%s%s", i ? ", " : "", families[i]->model_type);
	lens_error_at(err, LENS_ERR_UNSUPPORTED, path, 0, 0,
		      "model_type \"%.60s\" is an architecture we do not know (we know: %s); "
		      "h5lens info tells what can be told of its folder",
		      type, known.data ? known.data : "");
	lens_buf_release(&known);
	return LENS_ERR_UNSUPPORTED;
}

/*
 * What HookedTransformerConfig.to_dict() always has, and no Hugging Face config. With two of
 * them and a name that only it has, the message is to name the one that is missing.
 */
static bool is_hooked_transformer(const json_t *root)
{
	static const char *const always[] = { "n_layers", "d_model", "d_head", "n_ctx" };
	size_t i, n = 0;

	for (i = 0; i < 4; i++)
		n += json_object_get(root, always[i]) != NULL;
	return n == 4 || (n >= 2 && (json_object_get(root, "act_fn") ||
				     json_object_get(root, "d_vocab")));
}

static enum lens_status find_family(const struct lens_config_file *f,
				    const struct lens_family **out, struct lens_error *err)
{
	const json_t *list = json_object_get(f->root, "architectures");
	const char *type, *architecture;
	const struct lens_family *family;

	LENS_TRY(lens_config_text(f, "model_type", &type, err));
	if (!type && is_hooked_transformer(f->root))
		type = LENS_HOOKED_TRANSFORMER;
	if (!type)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "has no model_type: is it the config of a model?");
	family = lens_family_named(type);
	if (!family)
		return unknown_family(f->path, type, err);
	if (lens_json_unusable(list))
		return lens_config_wrong(f, "architectures", "is not a list", err);
	architecture = json_string_value(json_array_get(list, 0));
	if (architecture && strcmp(architecture, family->architecture) != 0 &&
	    strcmp(architecture, family->base) != 0)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "architecture \"%.60s\": for model_type %s we run %s, or "
				     "%s if it has every tensor",
				     architecture, type, family->architecture, family->base);
	*out = family;
	return LENS_OK;
}

/* quantization_config (transformers), quantization (MLX): weights are not plain numbers. */
static const char *quantised_by(const json_t *root)
{
	const json_t *q = json_object_get(root, "quantization_config");
	const char *method;

	if (!json_is_object(q))
		q = json_object_get(root, "quantization");
	if (!json_is_object(q))
		return NULL;
	method = json_string_value(json_object_get(q, "quant_method"));
	if (method)
		return method;
	return json_object_get(q, "load_in_8bit") || json_object_get(q, "load_in_4bit")
		       ? "bitsandbytes"
		       : "method not named";
}

static enum lens_status check_quantised(const struct lens_config_file *f, const char *dir,
					struct lens_error *err)
{
	char *apart = lens_path_join(dir, "quantize_config.json"); /* AutoGPTQ's */
	const char *method = quantised_by(f->root);

	if (!method && apart && lens_file_exists(apart))
		method = "gptq";
	lens_free(apart);
	if (!method)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
			     "a quantised checkpoint (%.60s): weights are read as F64, F32, "
			     "F16 or BF16 only; use the model that it was made from",
			     method);
}

enum lens_status lens_config_open(const char *dir, struct lens_sha256 *sha,
				  struct lens_config_file *f, struct lens_error *err)
{
	char *path = lens_path_join(dir, "config.json");
	struct lens_buf text = LENS_BUF_INIT;
	json_t *root = NULL;
	enum lens_status st;

	*f = (struct lens_config_file){ .path = path };
	if (!path)
		return lens_error_nomem(err, strlen(dir), 1);
	if (lens_file_exists(path))
		st = lens_file_read(path, MAX_CONFIG, &text, err);
	else
		st = lens_model_folder_error(dir,
					     "is not a model's folder: it has no config.json",
					     false, err);
	if (st == LENS_OK && sha)
		st = lens_sha256_update(sha, text.data, text.len, err);
	if (st == LENS_OK)
		st = lens_json_parse_python(path, text.data, text.len, &root, err);
	f->root = root;
	lens_buf_release(&text);
	return st;
}

void lens_config_close(struct lens_config_file *f)
{
	json_decref((json_t *)f->root);
	lens_free((char *)f->path);
}

enum lens_status lens_config_as(const struct lens_config_file *f,
				const struct lens_family *family, struct lens_config *c,
				struct lens_layout *layout, struct lens_error *err)
{
	memset(c, 0, sizeof(*c));
	memset(layout, 0, sizeof(*layout));
	c->norms_before = true;
	strncpy(c->family, family->model_type, sizeof(c->family) - 1);
	strncpy(c->architecture, family->architecture, sizeof(c->architecture) - 1);
	return family->config(f, c, layout, err);
}

enum lens_status lens_config_read(const char *dir, struct lens_config *c,
				  const struct lens_family **family, struct lens_layout *layout,
				  struct lens_sha256 *sha, struct lens_error *err)
{
	struct lens_config_file f;
	enum lens_status st = lens_config_open(dir, sha, &f, err);

	if (st == LENS_OK)
		st = check_quantised(&f, dir, err);
	if (st == LENS_OK)
		st = find_family(&f, family, err);
	if (st == LENS_OK)
		st = lens_config_as(&f, *family, c, layout, err);
	lens_config_close(&f);
	return st;
}

enum lens_status lens_config_load(const char *dir, struct lens_config *out,
				  struct lens_error *err)
{
	const struct lens_family *family;
	struct lens_layout layout;

	return lens_config_read(dir, out, &family, &layout, NULL, err);
}

const char *lens_normalization_type(const struct lens_config *c, bool fold_ln)
{
	bool pre = fold_ln || c->norms_folded;

	if (c->norm == LENS_NORM_NONE)
		return NULL;
	if (c->norm == LENS_NORM_LN)
		return pre ? "LNPre" : "LN";
	return pre ? "RMSPre" : "RMS";
}

/*
 * Rotary positions, under HookedTransformerConfig's names, which has none for linear
 * scaling. True if out of memory; so too below.
 */
static bool add_rotary(json_t *j, const struct lens_rotary *r)
{
	if (!r->dim)
		return false;
	if (json_object_set_new(j, "rotary_dim", json_integer((json_int_t)r->dim)) ||
	    json_object_set_new(j, "rotary_base", json_real(r->base)) ||
	    json_object_set_new(j, "rotary_adjacent_pairs", json_boolean(r->adjacent)))
		return true;
	if (r->type == LENS_ROPE_DEFAULT)
		return false;
	if (r->type == LENS_ROPE_YARN || r->type == LENS_ROPE_LONGROPE)
		return json_object_set_new(j, "rope_type",
					   json_string(r->type == LENS_ROPE_YARN
							       ? "yarn"
							       : "longrope")) ||
		       json_object_set_new(j, "rope_factor", json_real(r->factor)) ||
		       json_object_set_new(j, "rope_attention_factor",
					   json_real(r->attention_factor)) ||
		       json_object_set_new(j, "rope_original_ctx", json_real(r->original_ctx));
	if (r->type == LENS_ROPE_LINEAR)
		return json_object_set_new(j, "rope_linear_factor", json_real(r->factor));
	return json_object_set_new(j, "use_NTK_by_parts_rope", json_true()) ||
	       json_object_set_new(j, "NTK_by_parts_factor", json_real(r->factor)) ||
	       json_object_set_new(j, "NTK_by_parts_low_freq_factor",
				   json_real(r->low_freq_factor)) ||
	       json_object_set_new(j, "NTK_by_parts_high_freq_factor",
				   json_real(r->high_freq_factor)) ||
	       json_object_set_new(j, "NTK_original_ctx_len", json_real(r->original_ctx));
}

/* Which layers see only a window. */
static bool add_windows(json_t *j, const struct lens_config *c)
{
	json_t *types;
	size_t i;

	if (!c->window)
		return false;
	types = json_array();
	for (i = 0; i < c->n_layers; i++) {
		if (json_array_append_new(types, json_string(c->local[i] ? "local" : "global")))
			break;
	}
	if (i < c->n_layers) {
		json_decref(types);
		return true;
	}
	return json_object_set_new(j, "attn_types", types) ||
	       json_object_set_new(j, "use_local_attn", json_true()) ||
	       json_object_set_new(j, "window_size", json_integer((json_int_t)c->window));
}

/* If given, TransformerLens expects K and V for fewer heads: so only if there are fewer. */
static bool add_kv_heads(json_t *j, const struct lens_config *c)
{
	return c->n_kv_heads != c->n_heads &&
	       json_object_set_new(j, "n_key_value_heads",
				   json_integer((json_int_t)c->n_kv_heads));
}

/*
 * HookedTransformerConfig has no norm_topk_prob: there it is always true. fold_ln, as
 * center_unembed below: what is left out of the processing that is asked for.
 */
static bool add_experts(json_t *j, const struct lens_config *c)
{
	return c->n_experts &&
	       (json_object_set_new(j, "num_experts", json_integer((json_int_t)c->n_experts)) ||
		json_object_set_new(j, "experts_per_token",
				    json_integer((json_int_t)c->experts_per_token)) ||
		json_object_set_new(j, "norm_topk_prob",
				    json_boolean(c->norm_expert_weights)) ||
		json_object_set_new(j, "fold_ln", json_false()));
}

/* As with all that not every model has: only where it is. */
static bool add_rarer(json_t *j, const struct lens_config *c)
{
	if (add_experts(j, c))
		return true;
	if (c->qk_norm && json_object_set_new(j, "use_qk_norm", json_true()))
		return true;
	if (c->norms_after && json_object_set_new(j, "use_normalization_before_and_after",
						  json_boolean(c->norms_before)))
		return true;
	if (c->norms_after && !c->norms_before &&
	    json_object_set_new(j, "use_normalization_after_only", json_true()))
		return true;
	if (c->attn_scale > 0 && json_object_set_new(j, "attn_scale", json_real(c->attn_scale)))
		return true;
	if (c->score_cap > 0 &&
	    json_object_set_new(j, "attn_scores_soft_cap", json_real(c->score_cap)))
		return true;
	if (c->local_rotary.dim &&
	    json_object_set_new(j, "rotary_base_local", json_real(c->local_rotary.base)))
		return true;
	if (c->embed_norm && json_object_set_new(j, "post_embedding_ln", json_true()))
		return true;
	/* Centring W_U over the vocabulary would change what the cap makes of logits. */
	return c->logit_cap > 0 &&
	       (json_object_set_new(j, "output_logits_soft_cap", json_real(c->logit_cap)) ||
		json_object_set_new(j, "center_unembed", json_false()));
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

/* What only TransformerLens's own models have. */
static bool add_own(json_t *j, const struct lens_config *c)
{
	if (c->attn_only && json_object_set_new(j, "attn_only", json_true()))
		return true;
	if (c->attn_only && json_object_set_new(j, "d_mlp", json_null()))
		return true;
	if (c->final_rms && json_object_set_new(j, "final_rms", json_true()))
		return true;
	return c->d_vocab_out &&
	       json_object_set_new(j, "d_vocab_out", json_integer((json_int_t)c->d_vocab_out));
}

static bool add_kinds(json_t *j, const struct lens_config *c, const struct lens_processing *p)
{
	const char *norm = lens_normalization_type(c, p->fold_ln);
	const char *positions = c->learned_positions ? "standard"
				: c->shortformer     ? "shortformer"
				: c->alibi           ? "alibi"
						     : "rotary";

	return json_object_set_new(j, "act_fn",
				   text_or_null(c->attn_only ? NULL : c->act_name)) ||
	       json_object_set_new(j, "eps", json_real(c->eps)) ||
	       json_object_set_new(j, "normalization_type", text_or_null(norm)) ||
	       json_object_set_new(j, "positional_embedding_type", json_string(positions)) ||
	       json_object_set_new(j, "use_attn_scale", json_boolean(c->scale_attn)) ||
	       json_object_set_new(j, "scale_attn_by_inverse_layer_idx",
				   json_boolean(c->scale_attn_by_layer)) ||
	       json_object_set_new(j, "gated_mlp", json_boolean(c->gated_mlp)) ||
	       json_object_set_new(j, "parallel_attn_mlp", json_boolean(c->parallel_block)) ||
	       json_object_set_new(j, "original_architecture", json_string(c->architecture));
}

enum lens_status lens_config_json(const struct lens_config *c, const struct lens_processing *p,
				  char **out, struct lens_error *err)
{
	json_t *j =
		json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "n_layers", (json_int_t)c->n_layers,
			  "d_model", (json_int_t)c->d_model, "n_heads", (json_int_t)c->n_heads,
			  "d_head", (json_int_t)c->d_head, "d_mlp", (json_int_t)c->d_mlp,
			  "d_vocab", (json_int_t)c->d_vocab, "n_ctx", (json_int_t)c->n_ctx);
	char *text = NULL;

	if (j && !add_kv_heads(j, c) && !add_kinds(j, c, p) && !add_rarer(j, c) &&
	    !add_own(j, c) && !add_rotary(j, &c->rotary) && !add_windows(j, c))
		text = json_dumps(j, JSON_SORT_KEYS);
	*out = lens_strdup(text);
	json_decref(j);
	free(text);
	return *out ? LENS_OK : lens_error_nomem(err, 1, 1024);
}
