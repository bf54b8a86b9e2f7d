/*
 * model/family.c: what the families share: reading tensors whose names begin alike, and
 * the parts of config.json that several families have.
 */
#include "model/model_private.h"

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
