/*
 * tokenizer/open.c: opening a directory. In: its path; out: a tokenizer. Reads
 * tokenizer_config.json and special_tokens_map.json where they are, then
 * tokenizer.json or vocab.json + merges.txt, then what gives the BOS token.
 */
#include "tokenizer/internal.h"

#include <string.h>

static void set_n_vocab(struct lens_tokenizer *tok)
{
	size_t i;

	tok->n_vocab = tok->vocab.n_ids;
	for (i = 0; i < tok->added.n; i++) {
		if ((size_t)tok->added.token[i].id >= tok->n_vocab)
			tok->n_vocab = (size_t)tok->added.token[i].id + 1;
	}
}

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

/*
 * transformers lets tokenizer_config.json override add_prefix_space and add
 * tokens of its own; a tokenizer.json that it would change is not taken.
 */
static enum lens_status check_prefix_space(const struct lens_tokenizer_load *l,
					   struct lens_error *err)
{
	struct lens_json config = { l->config, l->config_path, "" };
	bool mine = has_prefix(l->tok), theirs = mine;

	if (!json_is_null(json_object_get(l->config, "add_prefix_space")))
		LENS_TRY(lens_json_bool(config, "add_prefix_space", false, &theirs, err));
	if (mine == theirs)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->config_path, 0, 0,
			     "add_prefix_space is not what tokenizer.json says, which is not "
			     "supported");
}

static enum lens_status check_added(const struct lens_tokenizer_load *l, struct lens_error *err)
{
	const json_t *list = json_object_get(l->config, "added_tokens_decoder");
	const char *key;
	json_t *value;

	if (list && !json_is_object(list))
		return lens_error_at(err, LENS_ERR_FORMAT, l->config_path, 0, 0,
				     "added_tokens_decoder must be an object");
	json_object_foreach ((json_t *)list, key, value) {
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

static enum lens_status check_special(const struct lens_tokenizer *tok, const json_t *value,
				      const char *path, const char *key, struct lens_error *err)
{
	const char *content = lens_special_content(value);
	size_t len = content ? strlen(content) : 0;

	if (!len || lens_added_find(&tok->added, content, len) ||
	    lens_vocab_find(&tok->vocab, content, len) < 0)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, path, 0, 0,
			     "%s: \"%.100s\" is not an added token of the tokenizer, which is "
			     "not supported",
			     key, content);
}

/*
 * transformers also makes added tokens of the special tokens that these files
 * name. Only one that the vocabulary has is an id that the model knows.
 */
static enum lens_status check_specials(const struct lens_tokenizer_load *l,
				       struct lens_error *err)
{
	static const char *const keys[] = { "bos_token",  "eos_token",
					    "unk_token",  "pad_token",
					    "sep_token",  "cls_token",
					    "mask_token", "additional_special_tokens" };
	size_t i, k;

	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const json_t *c = json_object_get(l->config, keys[i]);
		const json_t *s = json_object_get(l->special, keys[i]);

		LENS_TRY(check_special(l->tok, c, l->config_path, keys[i], err));
		LENS_TRY(check_special(l->tok, s, l->special_path, keys[i], err));
		for (k = 0; k < json_array_size(c); k++)
			LENS_TRY(check_special(l->tok, json_array_get(c, k), l->config_path,
					       keys[i], err));
		for (k = 0; k < json_array_size(s); k++)
			LENS_TRY(check_special(l->tok, json_array_get(s, k), l->special_path,
					       keys[i], err));
	}
	return LENS_OK;
}

static enum lens_status load_any(struct lens_tokenizer_load *l, const char *json,
				 const char *vocab, const char *merges, struct lens_error *err)
{
	LENS_TRY(lens_load_configs(l, err));
	if (lens_file_exists(json)) {
		LENS_TRY(lens_load_tokenizer_json(l, json, err));
		LENS_TRY(check_prefix_space(l, err));
	} else if (lens_file_exists(vocab) && lens_file_exists(merges)) {
		LENS_TRY(lens_load_gpt2(l, vocab, merges, err));
	} else {
		return lens_model_folder_error(l->dir,
					       "no tokenizer here: neither tokenizer.json nor "
					       "vocab.json with merges.txt",
					       false, err);
	}
	LENS_TRY(check_added(l, err));
	LENS_TRY(check_specials(l, err));
	set_n_vocab(l->tok);
	LENS_TRY(lens_load_bos(l, err));
	return lens_sha256_final(l->sha, l->tok->sha256, err);
}

static enum lens_status load(struct lens_tokenizer_load *l, struct lens_error *err)
{
	char *json = lens_path_join(l->dir, "tokenizer.json");
	char *vocab = lens_path_join(l->dir, "vocab.json");
	char *merges = lens_path_join(l->dir, "merges.txt");
	enum lens_status st;

	if (!json || !vocab || !merges)
		st = lens_error_nomem(err, 3, strlen(l->dir));
	else
		st = load_any(l, json, vocab, merges, err);
	lens_free(json);
	lens_free(vocab);
	lens_free(merges);
	return st;
}

enum lens_status lens_tokenizer_open(const char *dir, struct lens_tokenizer **out,
				     struct lens_error *err)
{
	struct lens_tokenizer_load l = { .dir = dir };
	enum lens_status st;

	*out = NULL;
	l.tok = lens_calloc(1, sizeof(*l.tok));
	if (!l.tok)
		return lens_error_nomem(err, 1, sizeof(*l.tok));
	lens_bytelevel_init(&l.tok->bytes);
	l.tok->unk = l.tok->post_first = -1;
	st = lens_sha256_create(&l.sha, err);
	if (st == LENS_OK)
		st = load(&l, err);
	lens_sha256_destroy(l.sha);
	json_decref(l.config);
	json_decref(l.special);
	lens_free(l.config_path);
	lens_free(l.special_path);
	if (st == LENS_OK)
		*out = l.tok;
	else
		lens_tokenizer_destroy(l.tok);
	return st;
}
