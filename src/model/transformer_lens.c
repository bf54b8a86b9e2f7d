/*
 * model/transformer_lens.c: struct lens_config → config.json of TransformerLens's own form,
 * as HookedTransformerConfig(**json) of 2.16 takes it. In: any family's config; out: JSON,
 * or what of it TransformerLens has no word for.
 */
#include "model/model_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_CTX ((size_t)2048)

static size_t first_without_rotary(const struct lens_config *c)
{
	size_t i;

	for (i = 0; i < c->n_layers && !c->no_rotary[i]; i++)
		;
	return i;
}

static const char *rope_name(enum lens_rope_type type)
{
	switch (type) {
	case LENS_ROPE_LINEAR:
		return "linear";
	case LENS_ROPE_YARN:
		return "yarn";
	case LENS_ROPE_LONGROPE:
		return "longrope";
	default:
		return NULL;
	}
}

/* What TransformerLens cannot say of the model, by config.json's own words; "" if it can. */
static void find_missing(const struct lens_config *c, char text[160])
{
	const char *rope = c->rotary.dim ? rope_name(c->rotary.type) : NULL;
	size_t layer = first_without_rotary(c);

	text[0] = '\0';
	if (c->norms_after && !c->norms_before)
		snprintf(text, 160, "norms only behind attention and MLP (ln1_post, ln2_post)");
	else if (c->norms_after && c->norm != LENS_NORM_RMS)
		snprintf(text, 160, "LayerNorm behind attention and MLP");
	else if (c->qk_norm == LENS_QK_NORM_ALL)
		snprintf(text, 160, "one norm of all heads' queries, and one of their keys");
	else if (c->local_rotary.dim)
		snprintf(text, 160, "rope_local_base_freq %g, another one in local layers",
			 c->local_rotary.base);
	else if (rope)
		snprintf(text, 160, "rope_scaling of type \"%s\", factor %g", rope,
			 c->rotary.factor);
	else if (c->alibi && !c->alibi_even && (c->n_heads & (c->n_heads - 1)))
		snprintf(
			text, 160,
			"ALiBi with %zu heads, whose slopes are its own for powers of two only",
			c->n_heads);
	else if (c->n_experts && !c->norm_expert_weights)
		snprintf(text, 160, "norm_topk_prob false: weights that do not add up to 1");
	else if (c->rotary.dim && layer < c->n_layers)
		snprintf(text, 160, "no_rope_layers: layer %zu has no rotary positions", layer);
}

size_t lens_transformer_lens_ctx(const struct lens_config *c)
{
	bool as_it_is = lens_has_w_pos(c) || !strcmp(c->family, LENS_HOOKED_TRANSFORMER);

	return as_it_is ? c->n_ctx : lens_min(c->n_ctx, MOST_CTX);
}

/* A real that is a whole number becomes one: rotary_base is int. True if out of memory. */
static bool make_whole(json_t *j, const char *key)
{
	const json_t *v = json_object_get(j, key);
	double x = json_number_value(v);

	if (!json_is_real(v) || x != floor(x) || fabs(x) > 1e15)
		return false;
	return json_object_set_new(j, key, json_integer((json_int_t)x));
}

/*
 * Less what is no key of HookedTransformerConfig, or is done: W_E holds the embedding's norm.
 * True if out of memory.
 */
static bool adapt(json_t *j, const struct lens_config *c)
{
	json_object_del(j, "center_unembed");
	json_object_del(j, "fold_ln");
	json_object_del(j, "norm_topk_prob");
	json_object_del(j, "post_embedding_ln");
	if (json_object_set_new(j, "n_ctx",
				json_integer((json_int_t)lens_transformer_lens_ctx(c))))
		return true;
	if (!strcmp(c->act_name, "swish") &&
	    json_object_set_new(j, "act_fn", json_string("silu")))
		return true;
	return make_whole(j, "rotary_base") || make_whole(j, "NTK_original_ctx_len");
}

enum lens_status lens_config_transformer_lens(const struct lens_config *c,
					      const struct lens_processing *p, char **out,
					      struct lens_error *err)
{
	char missing[160], *text, *own = NULL;
	enum lens_status st;
	json_t *j;

	*out = NULL;
	find_missing(c, missing);
	if (*missing)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      "model_type %s: %s: TransformerLens's config cannot say "
				      "that, so there is no such folder of it (HDF5 holds any "
				      "model's weights)",
				      c->family, missing);
	LENS_TRY(lens_config_json(c, p, &text, err));
	st = lens_json_parse(NULL, text, strlen(text), &j, err);
	lens_free(text);
	LENS_TRY(st);
	if (!adapt(j, c))
		own = json_dumps(j, JSON_SORT_KEYS | JSON_INDENT(1));
	*out = lens_strdup(own);
	free(own);
	json_decref(j);
	return *out ? LENS_OK : lens_error_nomem(err, 1, 1024);
}
