/*
 * model/family_rotary.c: rotary positions in config.json: rope_theta, and rope_scaling or
 * rope_parameters, flat or a part for each kind of layers. In: the file, the family's
 * defaults; out: lens_config.rotary, and n_ctx where a scaling limits it.
 */
#include "model/model_private.h"

#include <math.h>
#include <string.h>

/* A number above 0; with deflt 0 it is required. */
static enum lens_status positive(const struct lens_config_file *f, const char *key,
				 double deflt, double *out, struct lens_error *err)
{
	LENS_TRY(lens_config_real(f, key, deflt, out, err));
	if (!(*out > 0) || isinf(*out))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "%s is not a number above 0, or is missing", key);
	return LENS_OK;
}

static double mscale(double factor, double m)
{
	return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* Peng et al. 2023, YaRN; defaults as in transformers' _compute_yarn_parameters. */
static enum lens_status read_yarn(const struct lens_config_file *s, struct lens_rotary *r,
				  struct lens_error *err)
{
	double m, m_all;

	r->type = LENS_ROPE_YARN;
	LENS_TRY(positive(s, "factor", 0, &r->factor, err));
	LENS_TRY(positive(s, "original_max_position_embeddings", r->original_ctx,
			  &r->original_ctx, err));
	LENS_TRY(positive(s, "beta_fast", 32, &r->beta_fast, err));
	LENS_TRY(positive(s, "beta_slow", 1, &r->beta_slow, err));
	LENS_TRY(lens_config_bool(s, "truncate", true, &r->truncate, err));
	LENS_TRY(lens_config_real(s, "mscale", 0, &m, err));
	LENS_TRY(lens_config_real(s, "mscale_all_dim", 0, &m_all, err));
	return positive(s, "attention_factor",
			m != 0 && m_all != 0 ? mscale(r->factor, m) / mscale(r->factor, m_all)
					     : mscale(r->factor, 1),
			&r->attention_factor, err);
}

/*
 * How far LongRoPE goes, and from which length: the config's own, else the scaling's. Where no
 * length is original, factor alone says it; where one is, transformers 4 takes the ratio and
 * transformers 5 factor.
 */
static enum lens_status longrope_factor(const struct lens_config_file *s, struct lens_rotary *r,
					double whole_ctx, double *out, struct lens_error *err)
{
	const json_t *given = lens_config_value(s, "attention_factor");
	size_t original = (size_t)r->original_ctx;
	double ratio;

	if (r->original_ctx >= whole_ctx)
		LENS_TRY(lens_config_size(s, "original_max_position_embeddings", original,
					  &original, err));
	r->original_ctx = (double)original;
	ratio = whole_ctx / r->original_ctx;
	LENS_TRY(lens_config_real(s, "factor", ratio, out, err));
	if (!(ratio > 1) || fabs(*out - ratio) <= 1e-6 * ratio || json_is_number(given))
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, s->path, 0, 0,
			     "longrope's factor %g is not max_position_embeddings / "
			     "original_max_position_embeddings, %g: versions of transformers "
			     "disagree on which counts",
			     *out, ratio);
}

/*
 * Ding et al. 2024, LongRoPE. Prompts up to the original length have short_factor's
 * frequencies; those of longer ones would be long_factor's, so that a token's keys would
 * depend on what follows it: they are refused, n_ctx is the original length.
 */
static enum lens_status read_longrope(const struct lens_config_file *s, struct lens_rotary *r,
				      double whole_ctx, struct lens_error *err)
{
	const json_t *list = lens_config_value(s, "short_factor"), *v;
	double factor;
	size_t i;

	r->type = LENS_ROPE_LONGROPE;
	r->factor = 1;
	LENS_TRY(longrope_factor(s, r, whole_ctx, &factor, err));
	if (!json_is_array(list) || json_array_size(list) > LENS_MOST_LONGROPE)
		return lens_config_wrong(s, "short_factor",
					 "is not a list of at most 256 numbers", err);
	json_array_foreach (list, i, v) {
		r->short_factor[i] = json_number_value(v);
		if (!(r->short_factor[i] > 0))
			return lens_config_wrong(s, "short_factor", "holds what is not above 0",
						 err);
	}
	return positive(s, "attention_factor",
			factor <= 1 ? 1 : sqrt(1 + log(factor) / log(r->original_ctx)),
			&r->attention_factor, err);
}

/* scaling: the object of rope_scaling or rope_parameters. */
static enum lens_status read_scaling(const struct lens_config_file *scaling,
				     struct lens_rotary *r, double whole_ctx,
				     struct lens_error *err)
{
	const char *type, *older;

	LENS_TRY(lens_config_text(scaling, "rope_type", &type, err));
	LENS_TRY(lens_config_text(scaling, "type", &older, err));
	type = type ? type : older ? older : "default";
	/* dynamic changes nothing up to the trained length, and longer prompts are refused. */
	if (!strcmp(type, "default") || !strcmp(type, "dynamic"))
		return LENS_OK;
	if (!strcmp(type, "yarn"))
		return read_yarn(scaling, r, err);
	if (!strcmp(type, "longrope") || !strcmp(type, "su")) /* Phi-3's first name for it */
		return read_longrope(scaling, r, whole_ctx, err);
	if (strcmp(type, "linear") != 0 && strcmp(type, "llama3") != 0)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, scaling->path, 0, 0,
				     "rope_scaling of type \"%.60s\": we have default, linear, "
				     "dynamic, llama3, yarn, longrope",
				     type);
	LENS_TRY(positive(scaling, "factor", 0, &r->factor, err));
	r->type = LENS_ROPE_LINEAR;
	if (!strcmp(type, "linear"))
		return LENS_OK;
	r->type = LENS_ROPE_LLAMA3;
	LENS_TRY(positive(scaling, "low_freq_factor", 0, &r->low_freq_factor, err));
	LENS_TRY(positive(scaling, "high_freq_factor", 0, &r->high_freq_factor, err));
	if (r->high_freq_factor <= r->low_freq_factor)
		return lens_error_at(err, LENS_ERR_FORMAT, scaling->path, 0, 0,
				     "high_freq_factor is not above low_freq_factor");
	return positive(scaling, "original_max_position_embeddings", 0, &r->original_ctx, err);
}

/* A factor for each pair; up to the original length they are the short ones. */
static enum lens_status limit_longrope(const struct lens_config_file *f, struct lens_config *c,
				       struct lens_error *err)
{
	const struct lens_rotary *r = &c->rotary;
	size_t i;

	for (i = 0; i < r->dim / 2 && i < LENS_MOST_LONGROPE && r->short_factor[i] > 0; i++)
		;
	if (i < r->dim / 2)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "short_factor has %zu numbers for %zu pairs", i,
				     r->dim / 2);
	c->n_ctx = lens_min(c->n_ctx, (size_t)r->original_ctx);
	return LENS_OK;
}

/* Its values are numbers, words and lists; a part a kind of layer is f->rope_part's. */
static enum lens_status check_flat(const struct lens_config_file *f, const char *key,
				   const json_t *scaling, struct lens_error *err)
{
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)scaling, name, v) {
		if (json_is_object(v) && !lens_json_unusable(v))
			return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
					     "%s: \"%.60s\" is an object: we read parts, "
					     "full_attention and sliding_attention, of "
					     "gemma3_text only",
					     key, name);
	}
	return LENS_OK;
}

bool lens_rope_parts(const json_t *rope_parameters)
{
	return json_object_get(rope_parameters, "full_attention") ||
	       json_object_get(rope_parameters, "sliding_attention");
}

/* The object of a key, or its part; NULL if there is none. */
static enum lens_status find_scaling(const struct lens_config_file *f, const char *key,
				     const json_t **out, struct lens_error *err)
{
	const json_t *v = lens_config_value(f, key);

	*out = NULL;
	if (!v || json_is_null(v))
		return LENS_OK;
	if (!json_is_object(v) || lens_json_unusable(v))
		return lens_config_wrong(f, key, "is not an object", err);
	if (f->rope_part && lens_rope_parts(v)) {
		v = json_object_get(v, f->rope_part);
		if (!json_is_object(v) || lens_json_unusable(v))
			return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
					     "%s: \"%s\" is not an object, or is missing", key,
					     f->rope_part);
	}
	*out = v;
	return check_flat(f, key, v, err);
}

enum lens_status lens_config_rotary(const struct lens_config_file *f, double base, double share,
				    struct lens_config *c, struct lens_error *err)
{
	static const char *const keys[] = { "rope_scaling", "rope_parameters" };
	struct lens_rotary *r = &c->rotary;
	double dim;
	size_t i, original;

	LENS_TRY(lens_config_size(f, "original_max_position_embeddings", c->n_ctx, &original,
				  err));
	r->original_ctx = (double)original;

	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		struct lens_config_file scaling = { .path = f->path };

		LENS_TRY(find_scaling(f, keys[i], &scaling.root, err));
		if (!scaling.root)
			continue;
		LENS_TRY(lens_config_real(&scaling, "rope_theta", base, &base, err));
		LENS_TRY(lens_config_real(&scaling, "partial_rotary_factor", share, &share,
					  err));
		LENS_TRY(read_scaling(&scaling, r, (double)c->n_ctx, err));
	}
	if (!(base > 0) || isinf(base))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "the base of the rotary positions, %g, is not above 0",
				     base);
	dim = floor((double)c->d_head * share);
	if (!(dim >= 2) || dim > (double)c->d_head || fmod(dim, 2) != 0)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "%g of %zu head dimensions are rotary: not an even number "
				     "from 2",
				     share, c->d_head);
	r->dim = (size_t)dim;
	r->base = base;
	return r->type == LENS_ROPE_LONGROPE ? limit_longrope(f, c, err) : LENS_OK;
}

enum lens_status lens_config_partly_rotary(const struct lens_config_file *f,
					   const struct lens_config_defaults *deflt,
					   struct lens_config *c, struct lens_error *err)
{
	double base, share;

	LENS_TRY(lens_config_real(f, "rope_theta", deflt->base, &base, err));
	LENS_TRY(lens_config_real(f, "partial_rotary_factor", deflt->share, &share, err));
	return lens_config_rotary(f, base, share, c, err);
}
