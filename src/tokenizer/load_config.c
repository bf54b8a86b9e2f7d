/*
 * tokenizer/load_config.c: the small files beside the tokenizer. In:
 * tokenizer_config.json, special_tokens_map.json, config.json; out: their JSON,
 * and what they change in a tokenizer.json. What they would change and we do not
 * do is refused by name.
 */
#include "tokenizer/internal.h"

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

/* Does anything go in front of a text? */
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
 * LlamaTokenizer with an add_prefix_space is made anew from tokenizer.model: with
 * a normalizer where it is `legacy`, as it is by default, else with Metaspace.
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

/* --- added tokens ---------------------------------------------------------------------- */

enum lens_status lens_check_added(const struct lens_tokenizer_load *l, struct lens_error *err)
{
	json_t *list = json_object_get(l->config, "added_tokens_decoder");
	struct lens_json config = { l->config, l->config_path, "" };
	const char *key;
	json_t *value;

	if (list && (!json_is_object(list) || lens_json_unusable(list)))
		return lens_json_wrong(config, "added_tokens_decoder", "an object", err);
	json_object_foreach (list, key, value) {
		struct lens_json at = { value, l->config_path, "added_tokens_decoder" };
		const struct lens_added_token *mine;
		struct lens_added_token t = { 0 };

		LENS_TRY(lens_load_added_flags(at, &t, err));
		mine = lens_added_find(&l->tok->added, t.content, t.len);
		if (mine && mine->single_word == t.single_word && mine->lstrip == t.lstrip &&
		    mine->rstrip == t.rstrip &&
		    (mine->normalized == t.normalized || !l->tok->normalizer.n))
			continue;
		return lens_error_at(
			err, LENS_ERR_UNSUPPORTED, l->config_path, 0, 0,
			"added_tokens_decoder: \"%.100s\" (id %.20s) is not an added "
			"token of the tokenizer with the same flags, which is not "
			"supported",
			t.content, key);
	}
	return LENS_OK;
}

/* One that the vocabulary has has to be an added token already. */
static enum lens_status check_special(const struct lens_tokenizer *tok, const char *content,
				      const char *path, const char *key, struct lens_error *err)
{
	size_t len = content ? strlen(content) : 0;

	if (!len || lens_added_find(&tok->added, content, len) ||
	    lens_vocab_find(&tok->vocab, content, len) < 0)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, path, 0, 0,
			     "%s: \"%.100s\" is not an added token of the tokenizer, which is "
			     "not supported",
			     key, content);
}

/* A list of special tokens, or an object of named ones. */
static enum lens_status check_list(const struct lens_tokenizer_load *l, const char *key,
				   struct lens_error *err)
{
	const char *path, *name;
	json_t *list = lens_special_value(l, key, &path), *v;
	size_t i;

	if (!list || json_is_null(list))
		return LENS_OK;
	if (lens_json_unusable(list) || (!json_is_array(list) && !json_is_object(list)))
		return lens_json_wrong((struct lens_json){ list, path, key }, "",
				       "a list of tokens", err);
	json_array_foreach (list, i, v)
		LENS_TRY(check_special(l->tok, lens_special_content(v), path, key, err));
	json_object_foreach (list, name, v)
		LENS_TRY(check_special(l->tok, lens_special_content(v), path, key, err));
	return LENS_OK;
}

/*
 * transformers also makes added tokens of the special tokens that the files and
 * the class name. Only one that the vocabulary has is an id that the model knows.
 */
enum lens_status lens_check_specials(const struct lens_tokenizer_load *l,
				     struct lens_error *err)
{
	const struct lens_tokenizer_class *c = l->class;
	size_t i;

	for (i = 0; i < LENS_N_SPECIAL; i++) {
		struct lens_special s;

		LENS_TRY(lens_special_token(l, i, &s, err));
		LENS_TRY(check_special(l->tok, s.content, s.of_class ? l->dir : s.path, s.key,
				       err));
	}
	for (i = 0; i < sizeof(c->extra) / sizeof(*c->extra); i++)
		LENS_TRY(check_special(l->tok, c->extra[i], l->dir, "additional_special_tokens",
				       err));
	LENS_TRY(check_list(l, "additional_special_tokens", err));
	return check_list(l, "extra_special_tokens", err);
}
