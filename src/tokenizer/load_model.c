/*
 * tokenizer/load_model.c: tokenizer.json's "model". In: JSON of a BPE model; out:
 * vocabulary, merges, and the treatment of unknown characters.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

/* Options of the model that must be off: null, false, "" or 0. */
static enum lens_status refuse_options(struct lens_json model, struct lens_error *err)
{
	static const char *const options[] = { "dropout", "continuing_subword_prefix",
					       "end_of_word_suffix" };
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

/* A flag that may be absent or null. */
static enum lens_status flag(struct lens_json at, const char *key, bool *out,
			     struct lens_error *err)
{
	if (json_is_null(json_object_get(at.value, key)))
		return LENS_OK;
	return lens_json_bool(at, key, false, out, err);
}

/* With a token for every byte that occurs in UTF-8, nothing is ever unknown. */
static enum lens_status check_bytes(const struct lens_tokenizer *tok, struct lens_json model,
				    struct lens_error *err)
{
	int b;

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

/* What to do with text that has no token; if nothing is said, encode refuses it. */
static enum lens_status unknown(struct lens_tokenizer *tok, struct lens_json at,
				struct lens_error *err)
{
	const json_t *unk = json_object_get(at.value, "unk_token");

	LENS_TRY(flag(at, "byte_fallback", &tok->byte_fallback, err));
	LENS_TRY(flag(at, "fuse_unk", &tok->fuse_unk, err));
	if (tok->byte_level && tok->byte_fallback)
		return lens_json_unsupported(at, "byte_fallback with ByteLevel", err);
	if (!unk || json_is_null(unk))
		return LENS_OK;
	if (!json_is_string(unk))
		return lens_json_wrong(at, "unk_token", "a string or null", err);
	if (tok->byte_level)
		return check_bytes(tok, at, err);
	tok->unk =
		lens_vocab_find(&tok->vocab, json_string_value(unk), json_string_length(unk));
	if (tok->unk < 0)
		return lens_json_wrong(at, "unk_token", "a token of the vocabulary", err);
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
		return LENS_OK; /* a stray first line of merges.txt, which Hugging Face skips
				   too */
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

		/* Hugging Face reads all entries in one form or all in the other. */
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

enum lens_status lens_load_model(struct lens_tokenizer *tok, struct lens_json at,
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

	if (!json_is_object(at.value) || lens_json_unusable(at.value))
		return lens_json_wrong(at, "", "an object", err);
	/* Old files omit the type; merges show that it is BPE. */
	if (type && !json_is_string(type))
		return lens_json_wrong(at, "type", "a string", err);
	if (type && strcmp(json_string_value(type), "BPE"))
		return lens_unsupported_type(at, json_string_value(type), err);
	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(refuse_options(at, err));
	LENS_TRY(flag(at, "ignore_merges", &tok->ignore_merges, err));
	LENS_TRY(lens_load_vocab(tok, lens_json_child(at, "vocab", "model.vocab"), err));
	LENS_TRY(unknown(tok, at, err));
	return merges(tok, lens_json_child(at, "merges", "model.merges"), err);
}
