/*
 * tokenizer/load_config.c: the small files beside the tokenizer. In:
 * tokenizer_config.json, special_tokens_map.json, config.json; out: their JSON, and
 * add_prefix_space applied to a tokenizer.json. Changes that it would make and we cannot
 * are refused by name.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

static enum lens_status read_optional(struct lens_tokenizer_load *l, const char *name,
				      char **path, struct lens_sha256 *sha, json_t **root,
				      struct lens_error *err)
{
	*path = lens_path_join(l->dir, name);
	if (!*path)
		return lens_error_nomem(err, 1, strlen(l->dir));
	if (!lens_file_exists(*path))
		return LENS_OK;
	return lens_json_read(*path, name, sha, root, err);
}

enum lens_status lens_load_configs(struct lens_tokenizer_load *l, struct lens_error *err)
{
	LENS_TRY(read_optional(l, "tokenizer_config.json", &l->config_path, l->sha, &l->config,
			       err));
	LENS_TRY(read_optional(l, "special_tokens_map.json", &l->special_path, l->sha,
			       &l->special, err));
	return read_optional(l, "config.json", &l->model_path, NULL, &l->model, err);
}

/* --- add_prefix_space ---------------------------------------------------------------- */

/* Is anything put in front of a text? */
static bool has_prefix(const struct lens_tokenizer *tok)
{
	size_t i;

	for (i = 0; i < tok->normalizer.n; i++) {
		if (tok->normalizer.step[i].kind == LENS_NORMAL_PREPEND)
			return true;
	}
	for (i = 0; i < tok->pretok.n; i++) {
		if (tok->pretok.step[i].prefix != LENS_PREFIX_NEVER)
			return true;
	}
	return false;
}

static enum lens_status other_prefix(const struct lens_tokenizer_load *l, const char *why,
				     struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->config_path, 0, 0,
			     "add_prefix_space is not what tokenizer.json says%s, which is not "
			     "supported",
			     why);
}

/*
 * LlamaTokenizer with an add_prefix_space is rebuilt from tokenizer.model: with a
 * normalizer if it is `legacy` (the default), else with Metaspace.
 */
static enum lens_status check_from_slow(const struct lens_tokenizer_load *l, bool space,
					struct lens_error *err)
{
	struct lens_json config = { l->config, l->config_path, "" };
	bool legacy = true;

	if (!json_is_null(json_object_get(l->config, "legacy")))
		LENS_TRY(lens_json_bool(config, "legacy", false, &legacy, err));
	if (space != has_prefix(l->tok))
		return other_prefix(l, "", err);
	if (legacy != (l->tok->normalizer.n > 0))
		return other_prefix(l, legacy ? " of a tokenizer that is legacy" : "", err);
	return LENS_OK;
}

enum lens_status lens_set_prefix_space(const struct lens_tokenizer_load *l, bool top_byte_level,
				       struct lens_error *err)
{
	struct lens_json config = { l->config, l->config_path, "" };
	const json_t *value = json_object_get(l->config, "add_prefix_space");
	bool space = false;

	if (json_is_null(value))
		return LENS_OK;
	LENS_TRY(lens_json_bool(config, "add_prefix_space", false, &space, err));
	if (l->class->from_slow)
		return value ? check_from_slow(l, space, err) : LENS_OK;
	if (top_byte_level)
		l->tok->pretok.step[0].prefix = space ? LENS_PREFIX_ALWAYS : LENS_PREFIX_NEVER;
	else if (l->class->inner_prefix && space && !has_prefix(l->tok))
		return other_prefix(l, "", err);
	return LENS_OK;
}
