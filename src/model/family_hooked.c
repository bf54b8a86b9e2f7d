/*
 * model/family_hooked.c: TransformerLens's own models (HookedTransformer), which people train
 * themselves: config.json holds HookedTransformerConfig's keys, and the tensors have the
 * names and shapes of its state_dict. Heads are apart: W_Q [H, D, dh], W_O [H, dh, D].
 * HookedTransformerConfig and components/ of TransformerLens 2.16 are the reference.
 */
#include "model/model_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- config.json: HookedTransformerConfig.to_dict() ------------------------------------ */

/* Every key of TransformerLens 2.16: what it changes is read below, or is nothing. */
static const char *const known_keys[] = {
	"n_layers", "d_model", "n_ctx", "d_head", "n_heads", "d_mlp", "d_vocab", "d_vocab_out",
	"act_fn", "eps", "use_attn_scale", "attn_scale", "scale_attn_by_inverse_layer_idx",
	"use_qk_norm", "use_local_attn", "window_size", "attn_types", "normalization_type",
	"final_rms", "attention_dir", "attn_only", "positional_embedding_type", "rotary_dim",
	"rotary_base", "rotary_adjacent_pairs", "use_NTK_by_parts_rope",
	"NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor", "NTK_by_parts_factor",
	"NTK_original_ctx_len", "parallel_attn_mlp", "gated_mlp", "n_key_value_heads",
	"post_embedding_ln", "use_normalization_before_and_after", "attn_scores_soft_cap",
	"output_logits_soft_cap", "num_experts", "experts_per_token", "load_in_4bit",
	/* Which hook points it computes, and how; ours are all there. */
	"use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in",
	"use_hook_tokens", "ungroup_grouped_query_attention",
	/* Where a model comes from, and where it was run. */
	"model_name", "original_architecture", "from_checkpoint", "checkpoint_index",
	"checkpoint_label_type", "checkpoint_value", "tokenizer_name", "device", "n_devices",
	"seed", "init_mode", "initializer_range", "init_weights", "n_params", "dtype",
	"trust_remote_code",
	/* How texts become tokens: data.prepend_bos says it here. */
	"default_prepend_bos", "tokenizer_prepends_bos",
	/* T5's */
	"relative_attention_max_distance", "relative_attention_num_buckets",
	"decoder_start_token_id", "tie_word_embeddings",
	/* Ours */
	"model_type", "architectures"
};

static enum lens_status check_keys(const struct lens_config_file *f, struct lens_error *err)
{
	const size_t n = sizeof(known_keys) / sizeof(*known_keys);
	const json_t *value;
	const char *key, *odd;
	size_t i;

	json_object_foreach ((json_t *)f->root, key, value) {
		for (i = 0; i < n && strcmp(known_keys[i], key) != 0; i++)
			;
		/* What is not there, or is off, changes nothing. */
		if (i < n || json_is_null(value) || json_is_false(value))
			continue;
		odd = lens_json_unusable_key(key);
		if (odd) /* "holds a NUL (1)", of which the number tells such keys apart */
			return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0, "a key %.*s",
					     (int)strcspn(odd, "(") - 1, odd);
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "key \"%.60s\" is none of HookedTransformerConfig's in "
				     "TransformerLens 2.16, and may change what the model "
				     "computes",
				     key);
	}
	return LENS_OK;
}

static enum lens_status refuse(const struct lens_config_file *f, const char *key,
			       const char *value, const char *why, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0, "%s \"%.60s\": %s", key,
			     value, why);
}

/* Keys whose null is not their default: to TransformerLens it is false, or an error. */
static const char *const never_null[] = { "n_heads",
					  "d_vocab_out",
					  "eps",
					  "use_attn_scale",
					  "attn_scale",
					  "attention_dir",
					  "positional_embedding_type",
					  "rotary_base",
					  "attn_scores_soft_cap",
					  "output_logits_soft_cap" };

static enum lens_status check_nulls(const struct lens_config_file *f, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < sizeof(never_null) / sizeof(*never_null); i++) {
		if (json_is_null(json_object_get(f->root, never_null[i])))
			return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
					     "%s null: TransformerLens does not take this for "
					     "the default; leave the key out, or give a value",
					     never_null[i]);
	}
	return LENS_OK;
}

/* A size whose default stands for -1, as HookedTransformerConfig has it. */
static enum lens_status size_or(const struct lens_config_file *f, const char *key, size_t deflt,
				size_t *out, struct lens_error *err)
{
	const json_t *v = json_object_get(f->root, key);

	if (json_is_integer(v) && json_integer_value(v) == -1 && deflt) {
		*out = deflt;
		return LENS_OK;
	}
	return lens_config_size(f, key, deflt, out, err);
}

static enum lens_status read_shape(const struct lens_config_file *f, struct lens_config *c,
				   struct lens_error *err)
{
	LENS_TRY(lens_config_layers(f, "n_layers", 0, c, err));
	LENS_TRY(lens_config_size(f, "d_model", 0, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "n_ctx", 0, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "d_head", 0, &c->d_head, err));
	LENS_TRY(size_or(f, "n_heads", c->d_model / c->d_head, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "n_key_value_heads", c->n_heads, &c->n_kv_heads, err));
	LENS_TRY(lens_config_size(f, "d_vocab", 0, &c->d_vocab, err));
	LENS_TRY(size_or(f, "d_vocab_out", c->d_vocab, &c->d_vocab_out, err));
	LENS_TRY(lens_config_bool(f, "attn_only", false, &c->attn_only, err));
	if (!c->attn_only)
		LENS_TRY(lens_config_size(f, "d_mlp", 4 * c->d_model, &c->d_mlp, err));
	if (c->n_heads % c->n_kv_heads)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "n_heads %zu is not a multiple of n_key_value_heads %zu",
				     c->n_heads, c->n_kv_heads);
	return lens_config_eps(f, "eps", 1e-5, &c->eps, err);
}

static enum lens_status read_norm(const struct lens_config_file *f, struct lens_config *c,
				  struct lens_error *err)
{
	const json_t *stated = json_object_get(f->root, "normalization_type");
	const char *type;
	size_t n;

	LENS_TRY(lens_config_text(f, "normalization_type", &type, err));
	if (!type && !stated)
		type = "LN";
	n = type ? strlen(type) : 0;
	c->norms_folded = n > 3 && !strcmp(type + n - 3, "Pre");
	if (!type)
		c->norm = LENS_NORM_NONE;
	else if (!strcmp(type, "LN") || !strcmp(type, "LNPre"))
		c->norm = LENS_NORM_LN;
	else if (!strcmp(type, "RMS") || !strcmp(type, "RMSPre"))
		c->norm = LENS_NORM_RMS;
	else
		return refuse(f, "normalization_type", type,
			      "it is LN, LNPre, RMS, RMSPre or null", err);
	c->norms_before = c->norm != LENS_NORM_NONE;
	LENS_TRY(lens_config_bool(f, "final_rms", false, &c->final_rms, err));
	c->final_rms = c->final_rms && c->norm == LENS_NORM_LN;
	LENS_TRY(lens_config_bool(f, "use_normalization_before_and_after", false,
				  &c->norms_after, err));
	if (c->norms_after && c->norm == LENS_NORM_LN)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "use_normalization_before_and_after true with "
				     "normalization_type %s: TransformerLens has it for RMS",
				     type);
	c->norms_after = c->norms_after && c->norm == LENS_NORM_RMS;
	return LENS_OK;
}

/* Other families do without the two that are not. */
static enum lens_status elementwise(const struct lens_config_file *f, const char *act,
				    struct lens_config *c, struct lens_error *err)
{
	enum lens_status st = lens_config_activation(f, "act_fn", act, c, err);

	if (st == LENS_ERR_UNSUPPORTED)
		lens_error_add(err, ", solu, solu_ln");
	return st;
}

static enum lens_status read_mlp(const struct lens_config_file *f, struct lens_config *c,
				 struct lens_error *err)
{
	const char *act;

	LENS_TRY(lens_config_bool(f, "parallel_attn_mlp", false, &c->parallel_block, err));
	if (c->attn_only && c->parallel_block)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "parallel_attn_mlp true: with attn_only there is no MLP");
	if (c->attn_only)
		return LENS_OK;
	LENS_TRY(lens_config_bool(f, "gated_mlp", false, &c->gated_mlp, err));
	c->mlp_bias_after = c->gated_mlp;
	LENS_TRY(lens_config_text(f, "act_fn", &act, err));
	if (!act)
		return lens_config_wrong(f, "act_fn", "is missing, and attn_only is not true",
					 err);
	c->mlp_norm = !strcmp(act, "solu_ln");
	if (c->mlp_norm && c->gated_mlp)
		return refuse(f, "act_fn", act,
			      "with gated_mlp TransformerLens leaves W_in and b_in out", err);
	if (strcmp(act, "solu") != 0 && !c->mlp_norm)
		return elementwise(f, act, c, err);
	c->act = LENS_ACT_SOLU;
	snprintf(c->act_name, sizeof(c->act_name), "%s", act);
	return LENS_OK;
}

static enum lens_status read_rotary(const struct lens_config_file *f, struct lens_config *c,
				    struct lens_error *err)
{
	struct lens_rotary *r = &c->rotary;
	size_t original;
	bool by_parts;

	LENS_TRY(lens_config_size(f, "rotary_dim", c->d_head, &r->dim, err));
	LENS_TRY(lens_config_real(f, "rotary_base", 10000, &r->base, err));
	LENS_TRY(lens_config_bool(f, "rotary_adjacent_pairs", false, &r->adjacent, err));
	LENS_TRY(lens_config_bool(f, "use_NTK_by_parts_rope", false, &by_parts, err));
	if (r->dim % 2 || r->dim > c->d_head)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "rotary_dim %zu is not an even number up to d_head %zu",
				     r->dim, c->d_head);
	if (!(r->base > 0) || isinf(r->base))
		return lens_config_wrong(f, "rotary_base", "is not above 0", err);
	if (!by_parts)
		return LENS_OK;
	r->type = LENS_ROPE_LLAMA3;
	LENS_TRY(lens_config_real(f, "NTK_by_parts_factor", 8, &r->factor, err));
	LENS_TRY(lens_config_real(f, "NTK_by_parts_low_freq_factor", 1, &r->low_freq_factor,
				  err));
	LENS_TRY(lens_config_real(f, "NTK_by_parts_high_freq_factor", 4, &r->high_freq_factor,
				  err));
	LENS_TRY(lens_config_size(f, "NTK_original_ctx_len", 8192, &original, err));
	r->original_ctx = (double)original;
	if (!(r->factor > 0 && r->low_freq_factor > 0 &&
	      r->high_freq_factor > r->low_freq_factor))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "NTK_by_parts_factor %g, low_freq_factor %g, "
				     "high_freq_factor %g are not above 0, the last one above "
				     "the one before it",
				     r->factor, r->low_freq_factor, r->high_freq_factor);
	return LENS_OK;
}

static enum lens_status read_positions(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_error *err)
{
	const char *type;

	LENS_TRY(lens_config_text(f, "positional_embedding_type", &type, err));
	type = type ? type : "standard";
	c->learned_positions = !strcmp(type, "standard");
	c->shortformer = !strcmp(type, "shortformer");
	c->alibi = c->alibi_even = !strcmp(type, "alibi");
	if (!strcmp(type, "rotary"))
		return read_rotary(f, c, err);
	if (!c->learned_positions && !c->shortformer && !c->alibi)
		return refuse(f, "positional_embedding_type", type,
			      "we have standard, shortformer, rotary, alibi", err);
	return LENS_OK;
}

/* -1 is √d_head; TransformerLens divides by any other number, whatever its sign. */
static enum lens_status read_scale(const struct lens_config_file *f, struct lens_config *c,
				   struct lens_error *err)
{
	double scale;

	LENS_TRY(lens_config_bool(f, "use_attn_scale", true, &c->scale_attn, err));
	if (!c->scale_attn)
		return LENS_OK;
	LENS_TRY(lens_config_real(f, "attn_scale", -1, &scale, err));
	if (isinf(scale))
		return lens_config_wrong(f, "attn_scale", "is not a finite number", err);
	if (!(scale > 0) && scale != -1)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "attn_scale %g: we have numbers above 0, and -1, which is "
				     "the square root of d_head",
				     scale);
	/* to_dict() spells the default out. */
	if (scale != -1 && (float)scale != (float)sqrt((double)c->d_head))
		c->attn_scale = scale;
	return LENS_OK;
}

/* A number, or what stands for none: -1, or any that is not above 0. */
static enum lens_status positive_or_none(const struct lens_config_file *f, const char *key,
					 double *out, struct lens_error *err)
{
	LENS_TRY(lens_config_real(f, key, -1, out, err));
	if (isinf(*out))
		return lens_config_wrong(f, key, "is not a finite number", err);
	*out = fmax(*out, 0);
	return LENS_OK;
}

static enum lens_status read_windows(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_error *err)
{
	const json_t *types = json_object_get(f->root, "attn_types"), *v;
	bool local;
	size_t i;

	LENS_TRY(lens_config_bool(f, "use_local_attn", false, &local, err));
	if (!local)
		return LENS_OK;
	LENS_TRY(lens_config_size(f, "window_size", 0, &c->window, err));
	if (!json_is_array(types) || json_array_size(types) < c->n_layers)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "attn_types does not name %zu layers", c->n_layers);
	for (i = 0; i < c->n_layers; i++) {
		const char *name;

		v = json_array_get(types, i);
		name = json_string_value(v);
		c->local[i] = name && !strcmp(name, "local");
		if (!c->local[i] && (!name || strcmp(name, "global") != 0))
			return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
					     "attn_types knows only \"global\" and \"local\"");
	}
	return LENS_OK;
}

static enum lens_status read_attention(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_error *err)
{
	const char *direction;
	bool qk_norm;

	LENS_TRY(lens_config_text(f, "attention_dir", &direction, err));
	if (direction && strcmp(direction, "causal") != 0)
		return refuse(f, "attention_dir", direction,
			      "we have causal: a position must not depend on what follows it",
			      err);
	LENS_TRY(read_scale(f, c, err));
	LENS_TRY(lens_config_bool(f, "scale_attn_by_inverse_layer_idx", false,
				  &c->scale_attn_by_layer, err));
	LENS_TRY(lens_config_bool(f, "use_qk_norm", false, &qk_norm, err));
	c->qk_norm = qk_norm ? LENS_QK_NORM_HEAD : LENS_QK_NORM_NONE;
	LENS_TRY(positive_or_none(f, "attn_scores_soft_cap", &c->score_cap, err));
	if (c->alibi && c->score_cap > 0)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "attn_scores_soft_cap %g with alibi: TransformerLens caps "
				     "before it adds the slopes",
				     c->score_cap);
	LENS_TRY(positive_or_none(f, "output_logits_soft_cap", &c->logit_cap, err));
	return read_windows(f, c, err);
}

/* Experts, whose activation is of each element and whose weights add up to 1. */
static enum lens_status read_experts(const struct lens_config_file *f, struct lens_config *c,
				     struct lens_error *err)
{
	const json_t *n = lens_config_value(f, "num_experts");
	const json_t *each = lens_config_value(f, "experts_per_token");

	if ((!n || json_is_null(n)) && each && !json_is_null(each))
		return lens_config_wrong(f, "num_experts",
					 "is missing, and experts_per_token is there", err);
	if (c->attn_only || !n || json_is_null(n))
		return LENS_OK;
	LENS_TRY(lens_config_size(f, "num_experts", 0, &c->n_experts, err));
	LENS_TRY(lens_config_size(f, "experts_per_token", 0, &c->experts_per_token, err));
	LENS_TRY(lens_config_experts(f, "num_experts", "experts_per_token", c, err));
	if (c->act == LENS_ACT_SOLU)
		return refuse(f, "act_fn", c->act_name, "not with experts (num_experts)", err);
	c->gated_mlp = c->norm_expert_weights = true;
	c->mlp_bias_after = false;
	return LENS_OK;
}

static enum lens_status config(const struct lens_config_file *f, struct lens_config *c,
			       struct lens_layout *layout, struct lens_error *err)
{
	LENS_TRY(check_keys(f, err));
	LENS_TRY(check_nulls(f, err));
	LENS_TRY(lens_config_must_be(f, "load_in_4bit", false,
				     "weights are read as F64, F32, F16 or BF16 only", err));
	LENS_TRY(read_shape(f, c, err));
	LENS_TRY(read_norm(f, c, err));
	LENS_TRY(read_positions(f, c, err));
	LENS_TRY(read_attention(f, c, err));
	LENS_TRY(read_mlp(f, c, err));
	LENS_TRY(read_experts(f, c, err));
	layout->kv_apart = json_is_integer(json_object_get(f->root, "n_key_value_heads"));
	return lens_config_bool(f, "post_embedding_ln", false, &c->embed_norm, err);
}

/* --- tensors ----------------------------------------------------------------------------- */

/* W and b of queries, keys or values: n heads, whose columns begin at `column`. */
static enum lens_status load_heads(const struct lens_tensors_at *at,
				   const struct lens_config *c, const char *which, size_t n,
				   struct lens_block64 *b)
{
	const size_t shape[3] = { n, c->d_model, c->d_head };
	const size_t bias[2] = { n, c->d_head };
	const struct lens_matrix_part part = { .columns = n * c->d_head,
					       .heads = LENS_HEADS_ACROSS };
	size_t column = b->w_qkv.columns;
	const char *kv = at->layout->kv_apart && *which != 'Q' ? "_" : "";
	char name[128];

	snprintf(name, sizeof(name), "attn.%sW_%s", kv, which);
	LENS_TRY(lens_find_part(at, name, shape, &part, &b->w_qkv));
	snprintf(name, sizeof(name), "%sattn.%sb_%s", at->prefix, kv, which);
	return lens_tensors_read(at->t, name, 2, bias, lens_at64(b->b_qkv, column), at->err);
}

static enum lens_status load_attention(const struct lens_tensors_at *at,
				       const struct lens_config *c, struct lens_block64 *b)
{
	const size_t shape[3] = { c->n_heads, c->d_head, c->d_model };
	const struct lens_matrix_part part = { .columns = c->d_model,
					       .group = c->d_model,
					       .heads = LENS_HEADS_DOWN };

	LENS_TRY(load_heads(at, c, "Q", c->n_heads, b));
	LENS_TRY(load_heads(at, c, "K", c->n_kv_heads, b));
	LENS_TRY(load_heads(at, c, "V", c->n_kv_heads, b));
	if (c->qk_norm) {
		LENS_TRY(lens_load_vector(at, "attn.q_norm.w", c->d_head, b->q_norm_w));
		LENS_TRY(lens_load_vector(at, "attn.k_norm.w", c->d_head, b->k_norm_w));
	}
	LENS_TRY(lens_find_part(at, "attn.W_O", shape, &part, &b->w_o));
	return lens_load_vector(at, "attn.b_O", c->d_model, b->b_o);
}

/* A norm of n elements, as far as it has weights. */
static enum lens_status load_norm(const struct lens_tensors_at *at, enum lens_norm kind,
				  const char *name, size_t n, double *w, double *b)
{
	char full[32];

	if (kind == LENS_NORM_NONE)
		return LENS_OK;
	snprintf(full, sizeof(full), "%s.w", name);
	LENS_TRY(lens_load_vector(at, full, n, w));
	if (kind == LENS_NORM_RMS)
		return LENS_OK;
	snprintf(full, sizeof(full), "%s.b", name);
	return lens_load_vector(at, full, n, b);
}

static enum lens_status load_mlp(const struct lens_tensors_at *at, const struct lens_config *c,
				 struct lens_block64 *b)
{
	size_t d = c->d_model, f = c->d_mlp;

	if (c->n_experts)
		return lens_find_matrix(at, "mlp.W_gate.weight", c->n_experts, d, &b->w_router);
	if (c->gated_mlp)
		LENS_TRY(lens_find_matrix(at, "mlp.W_gate", d, f, &b->w_gate));
	LENS_TRY(lens_find_matrix(at, "mlp.W_in", d, f, &b->w_in));
	LENS_TRY(lens_load_vector(at, "mlp.b_in", f, b->b_in));
	LENS_TRY(lens_find_matrix(at, "mlp.W_out", f, d, &b->w_out));
	LENS_TRY(lens_load_vector(at, "mlp.b_out", d, b->b_out));
	/* Unless the others are LayerNorms with weights it has none. */
	if (c->mlp_norm && c->norm == LENS_NORM_LN && !c->norms_folded)
		LENS_TRY(load_norm(at, LENS_NORM_LN, "mlp.ln", f, b->mlp_ln_w, b->mlp_ln_b));
	return LENS_OK;
}

static enum lens_status load_block(struct lens_checkpoint *k, const struct lens_config *c,
				   size_t layer, struct lens_block64 *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "blocks.%zu.", layer);
	enum lens_norm kind = c->norms_folded ? LENS_NORM_NONE : c->norm;
	size_t d = c->d_model;

	LENS_TRY(load_norm(&at, kind, "ln1", d, b->ln1_w, b->ln1_b));
	if (c->norms_after)
		LENS_TRY(lens_load_vector(&at, "ln1_post.w", d, b->ln1_post_w));
	LENS_TRY(load_attention(&at, c, b));
	if (c->attn_only)
		return LENS_OK;
	LENS_TRY(load_norm(&at, kind, "ln2", d, b->ln2_w, b->ln2_b));
	if (c->norms_after)
		LENS_TRY(lens_load_vector(&at, "ln2_post.w", d, b->ln2_post_w));
	return load_mlp(&at, c, b);
}

static enum lens_status find_expert(struct lens_checkpoint *k, const struct lens_config *c,
				    size_t layer, size_t expert, struct lens_block64 *b,
				    struct lens_error *err)
{
	static const struct lens_expert_names names = { "mlp", "W_gate.weight", "W_in.weight",
							"W_out.weight" };
	struct lens_tensors_at at =
		lens_tensors_at(k, err, "blocks.%zu.mlp.experts.%zu.", layer, expert);

	return lens_find_expert(&at, c, &names, b);
}

/* With ALiBi TransformerLens has W_pos, too, and leaves it unused. */
static enum lens_status find_positions(struct lens_checkpoint *k, const struct lens_config *c,
				       struct lens_matrix *w_pos, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");
	struct lens_tensor *unused = lens_tensors_find(&k->tensors, "pos_embed.W_pos");

	if (lens_has_w_pos(c))
		return lens_find_matrix(&at, "pos_embed.W_pos", c->n_ctx, c->d_model, w_pos);
	if (c->alibi && unused)
		unused->used = true;
	return LENS_OK;
}

static enum lens_status load_final_norm(struct lens_checkpoint *k, const struct lens_config *c,
					struct lens_head64 *h, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return load_norm(&at, c->norms_folded ? LENS_NORM_NONE : lens_final_norm_kind(c),
			 "ln_final", c->d_model, h->ln_final_w, h->ln_final_b);
}

static enum lens_status load_embed_norm(struct lens_checkpoint *k, const struct lens_config *c,
					double *w, double *b, struct lens_error *err)
{
	struct lens_tensors_at at = lens_tensors_at(k, err, "%s", "");

	return load_norm(&at, LENS_NORM_LN, "embed.ln", c->d_model, w, b);
}

/* Buffers that follow from the config. */
static bool ignore(const char *name)
{
	return lens_name_ends(name, ".attn.mask") || lens_name_ends(name, ".attn.IGNORE") ||
	       lens_name_ends(name, ".attn.rotary_sin") ||
	       lens_name_ends(name, ".attn.rotary_cos");
}

const struct lens_family lens_family_hooked_transformer = {
	.model_type = LENS_HOOKED_TRANSFORMER,
	.architecture = "HookedTransformer",
	.base = "HookedTransformer",
	.prefix = "",
	.embed = "embed.W_E",
	.head = "unembed.W_U",
	.head_bias = "unembed.b_U",
	.head_transposed = true,
	.any_file_name = true,
	.config = config,
	.load_block = load_block,
	.find_expert = find_expert,
	.find_positions = find_positions,
	.load_final_norm = load_final_norm,
	.load_embed_norm = load_embed_norm,
	.ignore = ignore,
};
