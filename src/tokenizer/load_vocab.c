/*
 * tokenizer/load_vocab.c: the BPE model's tables, from either file format. In: a JSON
 * object of tokens, and pairs of texts; out: vocab, byte ids, merges.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdio.h>
#include <string.h>

/* Checks the object and finds the sizes that lens_vocab_init needs. */
static enum lens_status measure(struct lens_json at, size_t *n_ids, size_t *n_bytes,
				struct lens_error *err)
{
	const char *key;
	json_t *value;

	*n_ids = *n_bytes = 0;
	if (!json_is_object(at.value) || lens_json_unusable(at.value))
		return lens_json_wrong(at, "", "an object of token ids", err);
	json_object_foreach (at.value, key, value) {
		const char *odd = lens_json_unusable_key(key);
		int32_t id;

		if (odd)
			return lens_error_at(err, LENS_ERR_FORMAT, at.file, 0, 0,
					     "%s: a token %s, as no input text can", at.where,
					     odd);
		if (!lens_json_id(value, &id))
			return lens_error_at(
				err, LENS_ERR_FORMAT, at.file, 0, 0,
				"%s: the id of \"%.100s\" must be an integer from 0 "
				"to %zu%s%s",
				at.where, key, LENS_VOCAB_MAX_IDS - 1,
				lens_json_unusable(value) ? "; it " : "",
				lens_json_unusable(value) ? lens_json_unusable(value) : "");
		if ((size_t)id >= *n_ids)
			*n_ids = (size_t)id + 1;
		*n_bytes += strlen(key); /* bounded by the file's size */
	}
	return LENS_OK;
}

static void set_byte_ids(struct lens_tokenizer *tok)
{
	char c[8];
	int i;

	for (i = 0; i < 256; i++) {
		size_t n = tok->byte_level ? lens_bytelevel_put(&tok->bytes, (uint8_t)i, c)
					   : (size_t)snprintf(c, sizeof(c), "<0x%02X>", i);

		tok->byte_id[i] = lens_vocab_find(&tok->vocab, c, n);
	}
}

enum lens_status lens_load_vocab(struct lens_tokenizer *tok, struct lens_json at,
				 struct lens_error *err)
{
	size_t n_ids, n_bytes;
	const char *key;
	json_t *value;

	LENS_TRY(measure(at, &n_ids, &n_bytes, err));
	LENS_TRY(lens_vocab_init(&tok->vocab, json_object_size(at.value), n_ids, n_bytes, err));
	json_object_foreach (at.value, key, value) {
		struct lens_error why = LENS_ERROR_INIT;
		enum lens_status st;

		st = lens_vocab_add(&tok->vocab, key, strlen(key),
				    (int32_t)json_integer_value(value), &why);
		if (st != LENS_OK)
			return lens_error_at(err, st, at.file, 0, 0, "%s: \"%.100s\": %s",
					     at.where, key, why.text);
	}
	set_byte_ids(tok);
	return LENS_OK;
}

static enum lens_status find(const struct lens_tokenizer *tok, const char *s, size_t n,
			     int32_t *id, struct lens_error *err)
{
	*id = lens_vocab_find(&tok->vocab, s, n);
	if (*id >= 0)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_FORMAT,
			      "the merge names \"%.*s\", which is not in the vocabulary",
			      (int)lens_min(n, 100), s);
}

enum lens_status lens_load_merge(struct lens_tokenizer *tok, const char *left, size_t n_left,
				 const char *right, size_t n_right, struct lens_error *err)
{
	struct lens_buf both = LENS_BUF_INIT;
	int32_t l, r, merged = -1;
	enum lens_status st;

	LENS_TRY(find(tok, left, n_left, &l, err));
	LENS_TRY(find(tok, right, n_right, &r, err));
	st = lens_buf_append(&both, left, n_left, err);
	if (st == LENS_OK)
		st = lens_buf_append(&both, right, n_right, err);
	if (st == LENS_OK)
		st = find(tok, both.data, both.len, &merged, err);
	lens_buf_release(&both);
	if (st == LENS_OK)
		lens_bpe_add(&tok->bpe, l, r, merged);
	return st;
}
