/*
 * tokenizer/tokenizer.c: the public face. In: a directory, then texts or ids;
 * out: ids or text. Encoding follows Hugging Face's order: raw added tokens,
 * normalisation, normalised added tokens, pre-tokenizers, BPE.
 */
#include "tokenizer/internal.h"
#include "tokenizer/normal.h"

#include <string.h>

/* All that one call of encode needs besides the tokenizer. */
struct work {
	struct lens_pieces raw, normalized;
	struct lens_buf nfc, word;
	struct lens_pretok_work pretok;
	struct lens_bpe_work bpe;
};

static void work_release(struct work *w)
{
	lens_pieces_release(&w->raw);
	lens_pieces_release(&w->normalized);
	lens_buf_release(&w->nfc);
	lens_buf_release(&w->word);
	lens_pretok_work_release(&w->pretok);
	lens_bpe_work_release(&w->bpe);
}

/* ignore_merges: *id gets the token that is the whole word, or -1. */
static enum lens_status whole_word(const struct lens_tokenizer *tok, struct work *w,
				   const char *word, size_t len, int32_t *id,
				   struct lens_error *err)
{
	size_t i;

	*id = -1;
	if (!tok->ignore_merges || len > tok->vocab.max_len)
		return LENS_OK;
	w->word.len = 0;
	for (i = 0; i < len; i++) {
		char c[2];
		size_t n = lens_bytelevel_put(&tok->bytes, (uint8_t)word[i], c);

		LENS_TRY(lens_buf_append(&w->word, c, n, err));
	}
	*id = lens_vocab_find(&tok->vocab, w->word.data, w->word.len);
	return LENS_OK;
}

static enum lens_status encode_word(const struct lens_tokenizer *tok, struct work *w,
				    const char *word, size_t len, struct lens_ids *ids,
				    struct lens_error *err)
{
	int32_t whole;
	size_t i;

	LENS_TRY(whole_word(tok, w, word, len, &whole, err));
	if (whole >= 0)
		return lens_ids_push(ids, whole, err);
	LENS_TRY(lens_bpe_reserve(&w->bpe, len, err));
	for (i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)word[i];

		/* Hugging Face would drop the byte and say nothing. */
		if (tok->byte_id[byte] < 0)
			return lens_error_set(err, LENS_ERR_UNSUPPORTED,
					      "the tokenizer has no token for the byte 0x%02x",
					      byte);
		w->bpe.symbol[i].id = tok->byte_id[byte];
	}
	return lens_bpe_run(&tok->bpe, &w->bpe, len, ids, err);
}

/* Text that contains no added token any more. */
static enum lens_status encode_plain(const struct lens_tokenizer *tok, struct work *w,
				     const char *text, size_t len, struct lens_ids *ids,
				     struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_pretok_run(&tok->pretok, &w->pretok, text, len, err));
	for (i = 0; i < w->pretok.words.n; i++) {
		const struct lens_span *s = &w->pretok.words.v[i];

		LENS_TRY(encode_word(tok, w, w->pretok.text + s->offset, s->len, ids, err));
	}
	return LENS_OK;
}

/* Text between raw added tokens. */
static enum lens_status encode_between(const struct lens_tokenizer *tok, struct work *w,
				       const char *text, size_t len, struct lens_ids *ids,
				       struct lens_error *err)
{
	size_t i;

	if (tok->nfc) {
		w->nfc.len = 0;
		LENS_TRY(lens_nfc(text, len, &w->nfc, err));
		text = w->nfc.data;
		len = w->nfc.len;
	}
	LENS_TRY(lens_added_split(&tok->added, true, text, len, w->pretok.match, &w->normalized,
				  err));
	for (i = 0; i < w->normalized.n; i++) {
		const struct lens_piece *p = &w->normalized.v[i];

		if (p->id >= 0)
			LENS_TRY(lens_ids_push(ids, p->id, err));
		else
			LENS_TRY(encode_plain(tok, w, text + p->offset, p->len, ids, err));
	}
	return LENS_OK;
}

static enum lens_status encode(const struct lens_tokenizer *tok, struct work *w,
			       const char *text, size_t len, struct lens_ids *ids,
			       struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_regex_match_create(&w->pretok.match, err));
	LENS_TRY(
		lens_added_split(&tok->added, false, text, len, w->pretok.match, &w->raw, err));
	for (i = 0; i < w->raw.n; i++) {
		const struct lens_piece *p = &w->raw.v[i];

		if (p->id >= 0)
			LENS_TRY(lens_ids_push(ids, p->id, err));
		else
			LENS_TRY(encode_between(tok, w, text + p->offset, p->len, ids, err));
	}
	return LENS_OK;
}

enum lens_status lens_tokenizer_encode(const struct lens_tokenizer *tok, const char *text,
				       size_t len, struct lens_ids *ids, struct lens_error *err)
{
	struct work w = { 0 };
	size_t before = ids->n;
	enum lens_status st;

	if (len > LENS_BPE_MAX_SYMBOLS)
		return lens_error_set(err, LENS_ERR_INVALID, "a text of %zu bytes is too long",
				      len);
	if (!lens_utf8_valid(text, len))
		return lens_error_set(err, LENS_ERR_FORMAT, "the text is not valid UTF-8");
	st = encode(tok, &w, text, len, ids, err);
	if (st != LENS_OK)
		ids->n = before;
	work_release(&w);
	return st;
}

/* The bytes that ids[0..n) stand for. Ids without a token give none, as there. */
static enum lens_status decode_bytes(const struct lens_tokenizer *tok, const int32_t *ids,
				     size_t n, struct lens_buf *bytes, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < n; i++) {
		const struct lens_added_token *added = lens_added_by_id(&tok->added, ids[i]);
		const char *text;
		size_t len;

		if (ids[i] < 0)
			return lens_error_set(err, LENS_ERR_INVALID, "%d is not a token id",
					      (int)ids[i]);
		if (added) {
			text = added->content;
			len = added->len;
		} else {
			text = lens_vocab_text(&tok->vocab, ids[i], &len);
		}
		if (text)
			LENS_TRY(lens_bytelevel_bytes(&tok->bytes, text, len, bytes, err));
	}
	return LENS_OK;
}

enum lens_status lens_tokenizer_decode(const struct lens_tokenizer *tok, const int32_t *ids,
				       size_t n, struct lens_buf *out, struct lens_error *err)
{
	struct lens_buf bytes = LENS_BUF_INIT;
	size_t before = out->len;
	enum lens_status st;

	st = decode_bytes(tok, ids, n, &bytes, err);
	if (st == LENS_OK)
		st = lens_utf8_lossy(bytes.data ? bytes.data : "", bytes.len, out, err);
	if (st != LENS_OK)
		out->len = before;
	lens_buf_release(&bytes);
	return st;
}

enum lens_status lens_tokenizer_bos(const struct lens_tokenizer *tok, int32_t *id,
				    struct lens_error *err)
{
	if (tok->bos < 0)
		return lens_error_set(err, LENS_ERR_FORMAT, "%s", tok->no_bos);
	*id = tok->bos;
	return LENS_OK;
}

size_t lens_tokenizer_n_vocab(const struct lens_tokenizer *tok)
{
	return tok->n_vocab;
}

const uint8_t *lens_tokenizer_sha256(const struct lens_tokenizer *tok)
{
	return tok->sha256;
}

void lens_tokenizer_destroy(struct lens_tokenizer *tok)
{
	if (!tok)
		return;
	lens_vocab_release(&tok->vocab);
	lens_bpe_release(&tok->bpe);
	lens_added_release(&tok->added);
	lens_pretok_release(&tok->pretok);
	lens_free(tok->no_bos);
	lens_free(tok);
}
