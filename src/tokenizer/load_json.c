/*
 * tokenizer/load_json.c: tokenizer.json, as Hugging Face's tokenizers library
 * writes it. In: the file; out: a filled struct lens_tokenizer. What would
 * change ids or text and is not done is refused by name; truncation, padding
 * and post-processors are passed over, because they have no part in ids
 * without special tokens.
 */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <string.h>

static struct lens_json child(struct lens_json at, const char *key, const char *where)
{
	return (struct lens_json){ json_object_get(at.value, key), at.file, where };
}

/* Options of the model that must be off: null, false, "" or 0. */
static enum lens_status refuse_options(struct lens_json model, struct lens_error *err)
{
	static const char *const options[] = { "dropout", "continuing_subword_prefix",
					       "end_of_word_suffix", "byte_fallback" };
	size_t i;

	for (i = 0; i < sizeof(options) / sizeof(*options); i++) {
		const json_t *v = json_object_get(model.value, options[i]);
		const char *s = json_string_value(v);

		if (!v || json_is_null(v) || json_is_false(v) || (s && !*s) ||
		    (json_is_number(v) && !(json_number_value(v) > 0)))
			continue;
		return lens_json_unsupported(model, options[i], err);
	}
	return LENS_OK;
}

/* With a token for every byte that UTF-8 can have, nothing is ever unknown. */
static enum lens_status check_unknown(const struct lens_tokenizer *tok, struct lens_json model,
				      struct lens_error *err)
{
	const json_t *unk = json_object_get(model.value, "unk_token");
	int b;

	if (!unk || json_is_null(unk))
		return LENS_OK; /* encode refuses such a byte when it meets one */
	if (!json_is_string(unk))
		return lens_json_wrong(model, "unk_token", "a string or null", err);
	for (b = 0; b < 256; b++) {
		bool in_utf8 = b != 0xc0 && b != 0xc1 && b < 0xf5;

		if (in_utf8 && tok->byte_id[b] < 0)
			return lens_json_unsupported(model,
						     "an unk_token that is needed (some bytes "
						     "have no token)",
						     err);
	}
	return LENS_OK;
}

/* One entry of "merges": "a b" or ["a", "b"]. */
static enum lens_status merge(struct lens_tokenizer *tok, const json_t *entry,
			      struct lens_error *err)
{
	const char *s, *space;
	size_t n;

	if (json_is_array(entry)) {
		const json_t *l = json_array_get(entry, 0), *r = json_array_get(entry, 1);

		if (json_array_size(entry) != 2 || !json_is_string(l) || !json_is_string(r))
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "must be a pair of strings");
		return lens_load_merge(tok, json_string_value(l), json_string_length(l),
				       json_string_value(r), json_string_length(r), err);
	}
	s = json_string_value(entry);
	if (!s)
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "must be a string or a pair of them");
	n = json_string_length(entry);
	if (n >= 8 && !memcmp(s, "#version", 8))
		return LENS_OK; /* a line of merges.txt that went astray; skipped there too */
	space = memchr(s, ' ', n);
	if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "must be two tokens with one space "
				      "between them");
	return lens_load_merge(tok, s, (size_t)(space - s), space + 1,
			       n - (size_t)(space + 1 - s), err);
}

static enum lens_status merges(struct lens_tokenizer *tok, struct lens_json at,
			       struct lens_error *err)
{
	size_t i, n = json_array_size(at.value);

	if (!json_is_array(at.value))
		return lens_json_wrong(at, "", "an array", err);
	LENS_TRY(lens_bpe_init(&tok->bpe, n, err));
	for (i = 0; i < n; i++) {
		struct lens_error why = LENS_ERROR_INIT;
		const json_t *entry = json_array_get(at.value, i);
		enum lens_status st;

		/* Hugging Face reads all of them in one form or all in the other. */
		if (json_is_array(entry) != json_is_array(json_array_get(at.value, 0)))
			st = lens_error_set(&why, LENS_ERR_FORMAT,
					    "is of another form than the "
					    "first");
		else
			st = merge(tok, entry, &why);
		if (st != LENS_OK)
			return lens_error_at(err, st, at.file, 0, 0, "%s[%zu]: %s", at.where, i,
					     why.text);
	}
	return LENS_OK;
}

static enum lens_status model(struct lens_tokenizer *tok, struct lens_json at,
			      struct lens_error *err)
{
	static const char *const keys[] = { "type",
					    "dropout",
					    "unk_token",
					    "continuing_subword_prefix",
					    "end_of_word_suffix",
					    "fuse_unk",
					    "byte_fallback",
					    "ignore_merges",
					    "vocab",
					    "merges",
					    NULL };
	const json_t *type = json_object_get(at.value, "type");

	if (!json_is_object(at.value))
		return lens_json_wrong(at, "", "an object", err);
	/* Old files leave the type out; their BPE is known by its merges. */
	if (type && !json_is_string(type))
		return lens_json_wrong(at, "type", "a string", err);
	if (type && strcmp(json_string_value(type), "BPE")) {
		char what[128];

		snprintf(what, sizeof(what), "the type \"%.100s\"", json_string_value(type));
		return lens_json_unsupported(at, what, err);
	}
	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(refuse_options(at, err));
	if (!json_is_null(json_object_get(at.value, "ignore_merges")))
		LENS_TRY(lens_json_bool(at, "ignore_merges", false, &tok->ignore_merges, err));
	LENS_TRY(lens_load_vocab(tok, child(at, "vocab", "model.vocab"), err));
	LENS_TRY(check_unknown(tok, at, err));
	return merges(tok, child(at, "merges", "model.merges"), err);
}

enum lens_status lens_load_added_flags(struct lens_json at, struct lens_added_token *t,
				       struct lens_error *err)
{
	const json_t *content = json_object_get(at.value, "content");
	bool special = false;

	if (!json_is_string(content))
		return lens_json_wrong(at, "content", "a string", err);
	t->content = (char *)json_string_value(content); /* lens_added_push copies it */
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
		return lens_json_wrong(at, "content", "a token that is not there twice", err);
	/* Hugging Face does not go by the id in the file, so it has to agree. */
	id = lens_vocab_find(&tok->vocab, t.content, t.len);
	if (id < 0)
		id = (*next_id)++;
	if (id != t.id)
		return lens_error_at(err, LENS_ERR_FORMAT, at.file, 0, 0,
				     "%s: \"%.100s\" has the id %d; by the vocabulary it is %d",
				     at.where, t.content, (int)t.id, (int)id);
	return lens_added_push(&tok->added, &t, err);
}

static enum lens_status added_tokens(struct lens_tokenizer *tok, struct lens_json at,
				     struct lens_error *err)
{
	int32_t next_id = (int32_t)tok->vocab.n_tokens;
	size_t i, n = json_array_size(at.value);

	if (at.value && !json_is_array(at.value))
		return lens_json_wrong(at, "", "an array", err);
	LENS_TRY(lens_added_init(&tok->added, n, err));
	for (i = 0; i < n; i++) {
		char where[64];
		struct lens_json entry = { json_array_get(at.value, i), at.file, where };

		snprintf(where, sizeof(where), "added_tokens[%zu]", i);
		LENS_TRY(added_token(tok, entry, &next_id, err));
	}
	return lens_added_finish(&tok->added, tok->nfc, err);
}

/* The decoder must be ByteLevel; a post-processor must be one without effect. */
static enum lens_status check_rest(struct lens_json root, struct lens_error *err)
{
	struct lens_json decoder = child(root, "decoder", "decoder");
	struct lens_json post = child(root, "post_processor", "post_processor");
	const char *type;
	enum lens_status st;

	if (!decoder.value || json_is_null(decoder.value))
		return lens_json_unsupported(decoder, "a tokenizer without a decoder", err);
	type = lens_json_type(decoder, &st, err);
	if (!type)
		return st;
	if (strcmp(type, "ByteLevel"))
		return lens_json_unsupported(decoder, type, err);
	if (!post.value || json_is_null(post.value))
		return LENS_OK;
	type = lens_json_type(post, &st, err);
	if (!type)
		return st;
	if (strcmp(type, "ByteLevel") && strcmp(type, "TemplateProcessing") &&
	    strcmp(type, "Sequence") && strcmp(type, "RobertaProcessing"))
		return lens_json_unsupported(post, type, err);
	return LENS_OK;
}

static enum lens_status load(struct lens_tokenizer *tok, struct lens_json root,
			     struct lens_error *err)
{
	static const char *const keys[] = {
		"version",       "truncation",     "padding", "added_tokens", "normalizer",
		"pre_tokenizer", "post_processor", "decoder", "model",        NULL
	};
	const json_t *version = json_object_get(root.value, "version");

	LENS_TRY(lens_json_keys(root, keys, err));
	if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0")))
		return lens_json_wrong(root, "version", "\"1.0\"", err);
	LENS_TRY(check_rest(root, err));
	LENS_TRY(lens_load_normalizer(tok, child(root, "normalizer", "normalizer"), err));
	LENS_TRY(lens_load_pre_tokenizer(tok, child(root, "pre_tokenizer", "pre_tokenizer"),
					 err));
	LENS_TRY(model(tok, child(root, "model", "model"), err));
	return added_tokens(tok, child(root, "added_tokens", "added_tokens"), err);
}

enum lens_status lens_load_tokenizer_json(struct lens_tokenizer_load *l, const char *path,
					  struct lens_error *err)
{
	enum lens_status st;
	json_t *root;

	LENS_TRY(lens_json_read(path, "tokenizer.json", l->sha, &root, err));
	st = load(l->tok, (struct lens_json){ root, path, "" }, err);
	json_decref(root);
	return st;
}
