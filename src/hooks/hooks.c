/*
 * hooks/hooks.c: the table of hook points and the questions asked of it.
 */
#include "h5lens/hooks.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* clang-format off */
#define BLOCK "blocks.%zu."
#define RESID    2, { LENS_AXIS_POS, LENS_AXIS_D_MODEL }
#define SCALE    2, { LENS_AXIS_POS, LENS_AXIS_ONE }
#define MLP      2, { LENS_AXIS_POS, LENS_AXIS_D_MLP }
#define VOCAB    2, { LENS_AXIS_POS, LENS_AXIS_D_VOCAB }
#define HEADS    3, { LENS_AXIS_POS, LENS_AXIS_HEAD, LENS_AXIS_D_HEAD }
#define KV_HEADS 3, { LENS_AXIS_POS, LENS_AXIS_KV_HEAD, LENS_AXIS_D_HEAD }
#define RESULT   3, { LENS_AXIS_POS, LENS_AXIS_HEAD, LENS_AXIS_D_MODEL }
#define SCALES    3, { LENS_AXIS_POS, LENS_AXIS_HEAD, LENS_AXIS_ONE }
#define KV_SCALES 3, { LENS_AXIS_POS, LENS_AXIS_KV_HEAD, LENS_AXIS_ONE }
#define EXPERTS  2, { LENS_AXIS_POS, LENS_AXIS_EXPERT }
#define CHOSEN   2, { LENS_AXIS_POS, LENS_AXIS_EXPERT_K }
#define SQUARE   3, { LENS_AXIS_HEAD, LENS_AXIS_QUERY, LENS_AXIS_KEY }

static const struct lens_hook_info table[LENS_HOOK_COUNT] = {
	/*                                                                 layer  "*"    edit   axes      long name */
	[LENS_HOOK_EMBED] =               { "hook_embed",                  false, true,  true,  RESID,    "token embedding" },
	[LENS_HOOK_POS_EMBED] =           { "hook_pos_embed",              false, true,  true,  RESID,    "positional embedding" },
	[LENS_HOOK_RESID_PRE] =           { BLOCK "hook_resid_pre",        true,  true,  true,  RESID,    "residual stream before the block" },
	[LENS_HOOK_LN1_SCALE] =           { BLOCK "ln1.hook_scale",        true,  true,  false, SCALE,    "norm before attention: what it divides by" },
	[LENS_HOOK_LN1_NORMALIZED] =      { BLOCK "ln1.hook_normalized",   true,  true,  true,  RESID,    "norm before attention: its output" },
	[LENS_HOOK_Q] =                   { BLOCK "attn.hook_q",           true,  true,  true,  HEADS,    "queries" },
	[LENS_HOOK_K] =                   { BLOCK "attn.hook_k",           true,  true,  true,  KV_HEADS, "keys" },
	[LENS_HOOK_V] =                   { BLOCK "attn.hook_v",           true,  true,  true,  KV_HEADS, "values" },
	[LENS_HOOK_Q_NORM_SCALE] =        { BLOCK "attn.q_norm.hook_scale",      true, true, false, SCALES,    "norm of the queries: what it divides by" },
	[LENS_HOOK_Q_NORM_NORMALIZED] =   { BLOCK "attn.q_norm.hook_normalized", true, true, true,  HEADS,     "norm of the queries: its output before its weight" },
	[LENS_HOOK_K_NORM_SCALE] =        { BLOCK "attn.k_norm.hook_scale",      true, true, false, KV_SCALES, "norm of the keys: what it divides by" },
	[LENS_HOOK_K_NORM_NORMALIZED] =   { BLOCK "attn.k_norm.hook_normalized", true, true, true,  KV_HEADS,  "norm of the keys: its output before its weight" },
	[LENS_HOOK_ROT_Q] =               { BLOCK "attn.hook_rot_q",       true,  true,  true,  HEADS,    "queries after the rotary embedding" },
	[LENS_HOOK_ROT_K] =               { BLOCK "attn.hook_rot_k",       true,  true,  true,  KV_HEADS, "keys after the rotary embedding" },
	[LENS_HOOK_ATTN_SCORES] =         { BLOCK "attn.hook_attn_scores", true,  true,  true,  SQUARE,   "attention scores before softmax (-inf where masked)" },
	[LENS_HOOK_PATTERN] =             { BLOCK "attn.hook_pattern",     true,  true,  true,  SQUARE,   "attention pattern" },
	[LENS_HOOK_Z] =                   { BLOCK "attn.hook_z",           true,  true,  true,  HEADS,    "values mixed by the pattern" },
	[LENS_HOOK_RESULT] =              { BLOCK "attn.hook_result",      true,  false, false, RESULT,   "each head's part of attn_out, without b_O" },
	[LENS_HOOK_LN1_POST_SCALE] =      { BLOCK "ln1_post.hook_scale",   true,  true,  false, SCALE,    "norm after attention: what it divides by" },
	[LENS_HOOK_LN1_POST_NORMALIZED] = { BLOCK "ln1_post.hook_normalized", true, true, true, RESID,    "norm after attention: its output before its weight" },
	[LENS_HOOK_ATTN_OUT] =            { BLOCK "hook_attn_out",         true,  true,  true,  RESID,    "output of attention" },
	[LENS_HOOK_RESID_MID] =           { BLOCK "hook_resid_mid",        true,  true,  true,  RESID,    "residual stream between attention and MLP" },
	[LENS_HOOK_MLP_IN] =              { BLOCK "hook_mlp_in",           true,  false, false, RESID,    "what the MLP's norm reads" },
	[LENS_HOOK_LN2_SCALE] =           { BLOCK "ln2.hook_scale",        true,  true,  false, SCALE,    "norm before the MLP: what it divides by" },
	[LENS_HOOK_LN2_NORMALIZED] =      { BLOCK "ln2.hook_normalized",   true,  true,  true,  RESID,    "norm before the MLP: its output" },
	[LENS_HOOK_EXPERT_WEIGHTS] =      { BLOCK "mlp.hook_expert_weights", true, true, true,  EXPERTS,  "softmax over all experts, before the largest are taken" },
	[LENS_HOOK_EXPERT_INDICES] =      { BLOCK "mlp.hook_expert_indices", true, true, false, CHOSEN,   "experts that a token goes through, the largest weight first" },
	[LENS_HOOK_MLP_PRE] =             { BLOCK "mlp.hook_pre",          true,  true,  true,  MLP,      "MLP before its activation function" },
	[LENS_HOOK_MLP_PRE_LINEAR] =      { BLOCK "mlp.hook_pre_linear",   true,  true,  true,  MLP,      "gated MLP: what the activation is multiplied by" },
	[LENS_HOOK_MLP_MID] =             { BLOCK "mlp.hook_mid",          true,  true,  true,  MLP,      "MLP after its activation function, before its norm" },
	[LENS_HOOK_MLP_LN_SCALE] =        { BLOCK "mlp.ln.hook_scale",     true,  true,  false, SCALE,    "norm within the MLP: what it divides by" },
	[LENS_HOOK_MLP_LN_NORMALIZED] =   { BLOCK "mlp.ln.hook_normalized", true, true,  true,  MLP,      "norm within the MLP: its output" },
	[LENS_HOOK_MLP_POST] =            { BLOCK "mlp.hook_post",         true,  true,  true,  MLP,      "MLP after its activation function (and product, if gated)" },
	[LENS_HOOK_LN2_POST_SCALE] =      { BLOCK "ln2_post.hook_scale",   true,  true,  false, SCALE,    "norm after the MLP: what it divides by" },
	[LENS_HOOK_LN2_POST_NORMALIZED] = { BLOCK "ln2_post.hook_normalized", true, true, true, RESID,    "norm after the MLP: its output before its weight" },
	[LENS_HOOK_MLP_OUT] =             { BLOCK "hook_mlp_out",          true,  true,  true,  RESID,    "output of the MLP" },
	[LENS_HOOK_RESID_POST] =          { BLOCK "hook_resid_post",       true,  true,  true,  RESID,    "residual stream after the block" },
	[LENS_HOOK_LN_FINAL_SCALE] =      { "ln_final.hook_scale",         false, true,  false, SCALE,    "final norm: what it divides by" },
	[LENS_HOOK_LN_FINAL_NORMALIZED] = { "ln_final.hook_normalized",    false, true,  true,  RESID,    "final norm: its output" },
	[LENS_HOOK_LOGITS] =              { "logits",                      false, false, true,  VOCAB,    "logits" },
};
/* clang-format on */

const struct lens_hook_info *lens_hook_info(enum lens_hook hook)
{
	return &table[hook];
}

bool lens_hook_is_square(enum lens_hook hook)
{
	return table[hook].n_axes == 3 && table[hook].axis[1] == LENS_AXIS_QUERY;
}

size_t lens_hook_heads(const struct lens_config *c, enum lens_hook hook)
{
	const struct lens_hook_info *h = &table[hook];
	bool heads = h->n_axes > 1 && !lens_hook_is_square(hook);

	if (heads && h->axis[1] == LENS_AXIS_HEAD)
		return c->n_heads;
	return heads && h->axis[1] == LENS_AXIS_KV_HEAD ? c->n_kv_heads : 1;
}

enum lens_dtype lens_hook_dtype(enum lens_hook hook)
{
	return hook == LENS_HOOK_EXPERT_INDICES ? LENS_I32 : LENS_F32;
}

/* They follow each other in a pass. */
static bool is_of_mlp(enum lens_hook hook)
{
	return hook >= LENS_HOOK_RESID_MID && hook <= LENS_HOOK_MLP_OUT;
}

bool lens_hook_exists(const struct lens_config *c, enum lens_hook hook)
{
	if (c->attn_only && is_of_mlp(hook))
		return false;
	switch (hook) {
	case LENS_HOOK_POS_EMBED:
		return lens_has_w_pos(c);
	case LENS_HOOK_LN1_SCALE:
	case LENS_HOOK_LN1_NORMALIZED:
	case LENS_HOOK_LN2_SCALE:
	case LENS_HOOK_LN2_NORMALIZED:
		return c->norms_before;
	case LENS_HOOK_Q_NORM_SCALE:
	case LENS_HOOK_Q_NORM_NORMALIZED:
	case LENS_HOOK_K_NORM_SCALE:
	case LENS_HOOK_K_NORM_NORMALIZED:
		return c->qk_norm;
	case LENS_HOOK_ROT_Q:
	case LENS_HOOK_ROT_K:
		return c->rotary.dim > 0;
	case LENS_HOOK_LN1_POST_SCALE:
	case LENS_HOOK_LN1_POST_NORMALIZED:
	case LENS_HOOK_LN2_POST_SCALE:
	case LENS_HOOK_LN2_POST_NORMALIZED:
		return c->norms_after;
	case LENS_HOOK_RESID_MID:
		return !c->parallel_block;
	case LENS_HOOK_EXPERT_WEIGHTS:
	case LENS_HOOK_EXPERT_INDICES:
		return c->n_experts > 0;
	case LENS_HOOK_MLP_PRE:
	case LENS_HOOK_MLP_POST:
		return !c->n_experts;
	case LENS_HOOK_MLP_PRE_LINEAR:
		return c->gated_mlp && !c->n_experts;
	case LENS_HOOK_MLP_MID:
	case LENS_HOOK_MLP_LN_SCALE:
	case LENS_HOOK_MLP_LN_NORMALIZED:
		return c->mlp_norm;
	case LENS_HOOK_LN_FINAL_SCALE:
	case LENS_HOOK_LN_FINAL_NORMALIZED:
		return c->norm != LENS_NORM_NONE;
	default:
		return true;
	}
}

const char *lens_why_no_hook(const struct lens_config *c)
{
	if (c->attn_only)
		return "this model, whose layers are attention alone (attn_only)";
	if (c->parallel_block)
		return "this model's parallel blocks, where attention and MLP both read "
		       "resid_pre";
	return "this model";
}

const char *lens_hook_name(enum lens_hook hook, size_t layer, char out[LENS_HOOK_NAME])
{
	if (table[hook].per_layer)
		snprintf(out, LENS_HOOK_NAME, BLOCK "%s", layer,
			 table[hook].name + strlen(BLOCK));
	else
		snprintf(out, LENS_HOOK_NAME, "%s", table[hook].name);
	return out;
}

bool lens_hook_alias(const struct lens_config *c, enum lens_hook hook, size_t layer,
		     enum lens_hook *target, size_t *target_layer)
{
	if (hook == LENS_HOOK_MLP_IN && !c->parallel_block) {
		*target = LENS_HOOK_RESID_MID;
		*target_layer = layer;
		return true;
	}
	if (hook == LENS_HOOK_MLP_IN)
		hook = LENS_HOOK_RESID_PRE;
	else if (hook != LENS_HOOK_RESID_PRE || layer == 0)
		return false;
	*target = layer ? LENS_HOOK_RESID_POST : LENS_HOOK_RESID_PRE;
	*target_layer = layer ? layer - 1 : 0;
	return true;
}

struct lens_sizes lens_model_sizes(const struct lens_config *c)
{
	return (struct lens_sizes){
		.n_pos_embeds = c->learned_positions,
		.n_layers = c->n_layers,
		.n_heads = c->n_heads,
		.n_kv_heads = c->n_kv_heads,
		.d_model = c->d_model,
		.d_head = c->d_head,
		.d_mlp = c->d_mlp,
		.d_vocab = lens_n_logits(c),
		.d_vocab_in = c->d_vocab,
		.attn_only = c->attn_only,
		.n_experts = c->n_experts,
		.experts_per_token = c->experts_per_token,
	};
}

/* --- selection ------------------------------------------------------------- */

static enum lens_status no_match(const struct lens_config *c, const char *pattern,
				 struct lens_error *err)
{
	char name[LENS_HOOK_COUNT][LENS_HOOK_NAME];
	const char *names[LENS_HOOK_COUNT], *near;
	size_t n = 0, layer = 0;
	int h;

	if (strstr(pattern, "hook_attn_in") || strstr(pattern, "hook_q_input") ||
	    strstr(pattern, "hook_k_input") || strstr(pattern, "hook_v_input"))
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      "%s is resid_pre repeated once per head, a point for "
				      "interventions; store hook_resid_pre instead",
				      pattern);
	if (c->n_experts && (strstr(pattern, "mlp.hook_p") || strstr(pattern, "mlp.experts")))
		return lens_error_set(
			err, LENS_ERR_UNSUPPORTED,
			"%s: the MLP is %zu experts, whose insides are not shown; "
			"mlp.hook_expert_weights, mlp.hook_expert_indices and "
			"hook_mlp_out are",
			pattern, c->n_experts);
	/* Names of the layer that the pattern speaks of, if it does. */
	if (sscanf(pattern, "blocks.%zu.", &layer) == 1 && layer >= c->n_layers)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "no hook point matches '%s': the model has %zu layers, "
				      "0 to %zu",
				      pattern, c->n_layers, c->n_layers - 1);
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (!lens_hook_exists(c, (enum lens_hook)h))
			continue;
		names[n] = lens_hook_name((enum lens_hook)h, layer, name[n]);
		n++;
	}
	near = lens_nearest(pattern, names, n);
	for (h = 0; !near && h < (int)n; h++) /* a shorthand: "resid_post" */
		near = strstr(names[h], pattern) ? names[h] : NULL;
	return lens_error_set(err, LENS_ERR_INVALID, "no hook point matches '%s'%s%s%s",
			      pattern, near ? "; did you mean '" : "", near ? near : "",
			      near ? "'?" : "");
}

/* Wants what pattern matches; *matched says whether anything did. */
static void want_matching(struct lens_hook_set *s, const struct lens_config *c,
			  const char *pattern, bool *matched)
{
	bool defaults_only = strcmp(pattern, "*") == 0;
	char name[LENS_HOOK_NAME];
	size_t layer;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		size_t layers = table[h].per_layer ? c->n_layers : 1;

		if (!lens_hook_exists(c, (enum lens_hook)h) ||
		    (defaults_only && !table[h].by_default))
			continue;
		for (layer = 0; layer < layers; layer++) {
			if (fnmatch(pattern, lens_hook_name((enum lens_hook)h, layer, name), 0))
				continue;
			lens_hook_want(s, (enum lens_hook)h, layer, LENS_WANT_ALL);
			*matched = true;
		}
	}
}

enum lens_status lens_hook_set_init(struct lens_hook_set *s, const struct lens_config *c,
				    const char *const *pattern, size_t n_patterns,
				    struct lens_error *err)
{
	size_t i;

	s->n_layers = c->n_layers;
	s->want = lens_calloc(c->n_layers, LENS_HOOK_COUNT * sizeof(*s->want));
	if (!s->want)
		return lens_error_nomem(err, c->n_layers, LENS_HOOK_COUNT);
	for (i = 0; i < n_patterns; i++) {
		bool matched = false;

		want_matching(s, c, pattern[i], &matched);
		if (!matched)
			return no_match(c, pattern[i], err);
	}
	return LENS_OK;
}

void lens_hook_set_release(struct lens_hook_set *s)
{
	lens_free(s->want);
	s->want = NULL;
}
