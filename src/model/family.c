/*
 * model/family.c: what the families share: reading tensors whose names begin alike, and
 * the parts of config.json that several families have.
 */
#include "model/model_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- tensors ------------------------------------------------------------------ */

struct full_name {
	char text[256];
};

static const char *full_name(const struct lens_tensors_at *at, const char *name,
			     struct full_name *out)
{
	snprintf(out->text, sizeof(out->text), "%s%s", at->prefix, name);
	return out->text;
}

enum lens_status lens_load_vector(const struct lens_tensors_at *at, const char *name, size_t n,
				  double *out)
{
	struct full_name full = { "" };

	return lens_tensors_read(at->t, full_name(at, name, &full), 1, &n, out, at->err);
}

enum lens_status lens_find_part(const struct lens_tensors_at *at, const char *name,
				const size_t *shape, const struct lens_matrix_part *part,
				struct lens_matrix *out)
{
	struct full_name full = { "" };

	return lens_matrix_add(out, at->t, full_name(at, name, &full), shape, part, at->err);
}

enum lens_status lens_find_matrix(const struct lens_tensors_at *at, const char *name,
				  size_t rows, size_t columns, struct lens_matrix *out)
{
	const struct lens_matrix_part all = { .columns = columns, .group = columns };
	const size_t shape[2] = { rows, columns };

	return lens_find_part(at, name, shape, &all, out);
}

enum lens_status lens_find_linear(const struct lens_tensors_at *at, const char *name,
				  size_t n_out, size_t n_in, struct lens_matrix *out)
{
	const struct lens_matrix_part all = { .transposed = true,
					      .columns = n_out,
					      .group = n_out };
	const size_t shape[2] = { n_out, n_in };

	return lens_find_part(at, name, shape, &all, out);
}

enum lens_status lens_load_norm(const struct lens_tensors_at *at, const char *name, size_t n,
				double *w, double *b)
{
	char full[96];

	snprintf(full, sizeof(full), "%s.weight", name);
	LENS_TRY(lens_load_vector(at, full, n, w));
	snprintf(full, sizeof(full), "%s.bias", name);
	return lens_load_vector(at, full, n, b);
}

enum lens_status lens_load_affine(const struct lens_tensors_at *at, const char *name,
				  size_t n_out, size_t n_in, struct lens_matrix *w, double *b)
{
	char full[96];

	snprintf(full, sizeof(full), "%s.weight", name);
	LENS_TRY(lens_find_linear(at, full, n_out, n_in, w));
	snprintf(full, sizeof(full), "%s.bias", name);
	return lens_load_vector(at, full, n_out, b);
}

bool lens_name_ends(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n >= m && !strcmp(name + n - m, end);
}

/* --- config.json --------------------------------------------------------------- */

enum lens_status lens_config_layers(const struct lens_config_file *f, const char *key,
				    size_t deflt, struct lens_config *c, struct lens_error *err)
{
	LENS_TRY(lens_config_size(f, key, deflt, &c->n_layers, err));
	if (c->n_layers > LENS_MAX_LAYERS)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
				     "%s %zu: we run at most %d layers", key, c->n_layers,
				     LENS_MAX_LAYERS);
	return LENS_OK;
}

enum lens_status lens_config_tied(const struct lens_config_file *f, bool deflt, bool *out,
				  struct lens_error *err)
{
	const json_t *v = lens_config_value(f, "tie_word_embeddings");

	return lens_config_bool(f, "tie_word_embeddings", deflt && !json_is_null(v), out, err);
}

enum lens_status lens_config_d_head(const struct lens_config_file *f, const char *d_model,
				    const char *n_heads, struct lens_config *c,
				    struct lens_error *err)
{
	if (c->d_model % c->n_heads)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "%s %zu is not a multiple of %s %zu", d_model, c->d_model,
				     n_heads, c->n_heads);
	c->d_head = c->d_model / c->n_heads;
	return LENS_OK;
}

enum lens_status lens_config_own_d_head(const struct lens_config_file *f, struct lens_config *c,
					struct lens_error *err)
{
	const json_t *given = lens_config_value(f, "head_dim");

	if (!given || json_is_null(given))
		return lens_config_d_head(f, "hidden_size", "num_attention_heads", c, err);
	return lens_config_size(f, "head_dim", 0, &c->d_head, err);
}

enum lens_status lens_config_heads(const struct lens_config_file *f, const char *d_model,
				   const char *n_heads, struct lens_config *c,
				   struct lens_error *err)
{
	c->n_kv_heads = c->n_heads;
	return lens_config_d_head(f, d_model, n_heads, c, err);
}

enum lens_status lens_config_shape(const struct lens_config_file *f,
				   const struct lens_config_defaults *deflt,
				   struct lens_config *c, struct lens_layout *layout,
				   struct lens_error *err)
{
	const json_t *kv = lens_config_value(f, "num_key_value_heads"); /* null: n_heads */

	LENS_TRY(lens_config_layers(f, "num_hidden_layers", deflt->n_layers, c, err));
	LENS_TRY(lens_config_size(f, "hidden_size", deflt->d_model, &c->d_model, err));
	LENS_TRY(lens_config_size(f, "num_attention_heads", deflt->n_heads, &c->n_heads, err));
	LENS_TRY(lens_config_size(f, "num_key_value_heads",
				  deflt->n_kv_heads && !json_is_null(kv) ? deflt->n_kv_heads
									 : c->n_heads,
				  &c->n_kv_heads, err));
	LENS_TRY(lens_config_size(f, "intermediate_size", deflt->d_mlp, &c->d_mlp, err));
	LENS_TRY(lens_config_size(f, "max_position_embeddings", deflt->n_ctx, &c->n_ctx, err));
	LENS_TRY(lens_config_size(f, "vocab_size", deflt->d_vocab, &c->d_vocab, err));
	LENS_TRY(lens_config_eps(f, deflt->eps_key, deflt->eps, &c->eps, err));
	LENS_TRY(lens_config_tied(f, deflt->tied, &layout->tied_head, err));
	return lens_config_kv_heads(f, c, err);
}

enum lens_status lens_config_window(const struct lens_config_file *f, size_t deflt,
				    struct lens_config *c, struct lens_error *err)
{
	const json_t *window = lens_config_value(f, "sliding_window");

	if (window ? json_is_null(window) : !deflt)
		return LENS_OK;
	memset(c->local, true, c->n_layers * sizeof(*c->local));
	return lens_config_size(f, "sliding_window", deflt, &c->window, err);
}

enum lens_status lens_config_kv_heads(const struct lens_config_file *f,
				      const struct lens_config *c, struct lens_error *err)
{
	if (c->n_heads % c->n_kv_heads)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "num_attention_heads %zu is not a multiple of "
				     "num_key_value_heads %zu",
				     c->n_heads, c->n_kv_heads);
	return LENS_OK;
}

enum lens_status lens_config_must_be(const struct lens_config_file *f, const char *key,
				     bool value, const char *what, struct lens_error *err)
{
	bool is;

	LENS_TRY(lens_config_bool(f, key, value, &is, err));
	if (is == value)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0, "%s %s: %s", key,
			     is ? "true" : "false", what);
}

enum lens_status lens_config_eps(const struct lens_config_file *f, const char *key,
				 double deflt, double *out, struct lens_error *err)
{
	LENS_TRY(lens_config_real(f, key, deflt, out, err));
	if (*out < 0)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0, "%s %g is negative",
				     key, *out);
	return LENS_OK;
}

enum lens_status lens_config_activation(const struct lens_config_file *f, const char *key,
					const char *deflt, struct lens_config *c,
					struct lens_error *err)
{
	static const struct {
		const char *name;
		enum lens_act act;
	} known[] = {
		{ "gelu_new", LENS_ACT_GELU_NEW },
		{ "gelu_fast", LENS_ACT_GELU_NEW }, /* the same formula */
		{ "gelu_pytorch_tanh", LENS_ACT_GELU_NEW },
		{ "gelu", LENS_ACT_GELU },
		{ "relu", LENS_ACT_RELU },
		{ "silu", LENS_ACT_SILU },
		{ "swish", LENS_ACT_SILU },
	};
	const char *name;
	size_t i;

	LENS_TRY(lens_config_text(f, key, &name, err));
	if (!name)
		name = deflt;
	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!strcmp(known[i].name, name)) {
			c->act = known[i].act;
			snprintf(c->act_name, sizeof(c->act_name), "%s", name);
			return LENS_OK;
		}
	}
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, f->path, 0, 0,
			     "%s \"%.60s\": we have gelu_new (gelu_fast, gelu_pytorch_tanh), "
			     "gelu, relu, silu (swish)",
			     key, name);
}

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

/* --- rotary positions ------------------------------------------------------------ */

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
	return json_object_get(rope_parameters, "full_attention") || json_object_get(rope_parameters, "sliding_attention");
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
					     "%s: \"%s\" is not an object, or is missing",
					     key, f->rope_part);
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
