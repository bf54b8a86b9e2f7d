/*
 * tokenizer/load_json.c: tokenizer.json, as written by Hugging Face's tokenizers
 * library. In: the file; out: a filled struct lens_tokenizer. Features that change ids
 * or text and are not implemented are refused by name; truncation and padding are
 * ignored, because they do not matter without special tokens.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdio.h>
#include <string.h>

enum lens_status lens_load_added_flags(struct lens_json at, struct lens_added_token *t,
				       struct lens_error *err)
{
	const json_t *content = json_object_get(at.value, "content");
	bool special = false;

	if (!json_is_string(content))
		return lens_json_wrong(at, "content", "a string", err);
	t->content = json_string_value(content); /* lens_added_push copies it */
	t->len = json_string_length(content);
	LENS_TRY(lens_json_bool(at, "single_word", true, &t->single_word, err));
	LENS_TRY(lens_json_bool(at, "lstrip", true, &t->lstrip, err));
	LENS_TRY(lens_json_bool(at, "rstrip", true, &t->rstrip, err));
	LENS_TRY(lens_json_bool(at, "normalized", true, &t->normalized, err));
	return lens_json_bool(at, "special", true, &special, err);
}

static enum lens_status added_token(struct lens_tokenizer *tok, struct lens_json at,
				    int32_t *next_id, struct lens_error *err)
{
	static const char *const keys[] = { "id",     "content",    "single_word", "lstrip",
					    "rstrip", "normalized", "special",     NULL };
	struct lens_added_token t = { 0 };
	int32_t id;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_added_flags(at, &t, err));
	if (!lens_json_id(json_object_get(at.value, "id"), &t.id))
		return lens_json_wrong(at, "id", "a token id", err);
	if (lens_added_find(&tok->added, t.content, t.len))
		return lens_json_wrong(at, "content", "a token that appears only once", err);
	/* Hugging Face ignores the id in the file, so it has to agree. */
	id = lens_vocab_find(&tok->vocab, t.content, t.len);
	if (id < 0)
		id = (*next_id)++;
	if (id != t.id)
		return lens_error_at(err, LENS_ERR_FORMAT, at.file, 0, 0,
				     "%s: \"%.100s\" has the id %d; by the vocabulary it is %d",
				     at.where, t.content, (int)t.id, (int)id);
	return lens_added_push(&tok->added, &t, err);
}

/* *next_id is for the next new token. */
static enum lens_status added_tokens(struct lens_tokenizer *tok, struct lens_json at,
				     int32_t *next_id, struct lens_error *err)
{
	size_t i, n = json_array_size(at.value);

	if (at.value && !json_is_array(at.value))
		return lens_json_wrong(at, "", "an array", err);
	LENS_TRY(lens_added_reserve(&tok->added, n, err));
	for (i = 0; i < n; i++) {
		char where[64];
		struct lens_json entry = { json_array_get(at.value, i), at.file, where };

		snprintf(where, sizeof(where), "added_tokens[%zu]", i);
		LENS_TRY(added_token(tok, entry, next_id, err));
	}
	return LENS_OK;
}

/*
 * With prepend_scheme "first", Hugging Face asks where a word was in the text before
 * normalisation, which we do not keep track of.
 */
static enum lens_status check_first(const struct lens_tokenizer *tok, struct lens_json at,
				    struct lens_error *err)
{
	size_t i;

	for (i = 0; i < tok->pretok.n; i++) {
		if (tok->pretok.step[i].prefix == LENS_PREFIX_FIRST && tok->normalizer.n)
			return lens_json_unsupported(
				at, "the prepend_scheme \"first\" with a normalizer", err);
	}
	return LENS_OK;
}

static enum lens_status load(const struct lens_tokenizer_load *l, struct lens_json root,
			     struct lens_error *err)
{
	static const char *const keys[] = {
		"version",       "truncation",     "padding", "added_tokens", "normalizer",
		"pre_tokenizer", "post_processor", "decoder", "model",        NULL
	};
	const json_t *version = json_object_get(root.value, "version");
	struct lens_tokenizer *tok = l->tok;
	struct lens_json pretok;
	const char *type;
	int32_t next_id;

	LENS_TRY(lens_json_keys(root, keys, err));
	if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0")))
		return lens_json_wrong(root, "version", "\"1.0\"", err);
	LENS_TRY(lens_load_decoder(tok, lens_json_child(root, "decoder", "decoder"), err));
	LENS_TRY(lens_load_post_processor(
		tok, lens_json_child(root, "post_processor", "post_processor"), err));
	LENS_TRY(lens_load_normalizer(tok, lens_json_child(root, "normalizer", "normalizer"),
				      err));
	pretok = lens_json_child(root, "pre_tokenizer", "pre_tokenizer");
	LENS_TRY(lens_load_pre_tokenizer(tok, pretok, err));
	type = json_string_value(json_object_get(pretok.value, "type"));
	LENS_TRY(lens_set_prefix_space(l, type && !strcmp(type, "ByteLevel"), err));
	LENS_TRY(check_first(tok, pretok, err));
	LENS_TRY(lens_load_model(tok, lens_json_child(root, "model", "model"), err));
	next_id = (int32_t)tok->vocab.n_tokens;
	LENS_TRY(added_tokens(tok, lens_json_child(root, "added_tokens", "added_tokens"),
			      &next_id, err));
	return lens_load_added(l, next_id, err);
}

enum lens_status lens_load_tokenizer_json(struct lens_tokenizer_load *l, const char *path,
					  struct lens_error *err)
{
	enum lens_status st;
	json_t *root;

	LENS_TRY(lens_json_read(path, "tokenizer.json", l->sha, &root, err));
	st = load(l, (struct lens_json){ root, path, "" }, err);
	json_decref(root);
	return st;
}
