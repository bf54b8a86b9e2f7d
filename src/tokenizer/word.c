/*
 * tokenizer/word.c: one word → tokens. In: a word as the pre-tokenizers left it; out:
 * its ids and, where asked for, which of them each byte of the text went into.
 */
#include "tokenizer/word_private.h"

#include <utf8proc.h>

enum { WAITING = -1 }; /* the symbol of a byte whose unknown token is still to come */

void lens_word_work_release(struct lens_word_work *w)
{
	lens_buf_release(&w->bytes);
	lens_bpe_work_release(&w->bpe);
	lens_ids_release(&w->symbol);
	lens_ids_release(&w->token);
}

/* Byte i of text went into ids[token]; a run of bytes of one origin is said once. */
static void place_byte(struct lens_word_work *w, struct lens_text text, size_t i, int32_t token)
{
	const struct lens_origin *from = &text.from[i];
	int32_t mine = token - (int32_t)w->first;
	size_t k;

	for (k = from->from; k < from->to; k++) {
		if (w->place[k] < mine)
			w->place[k] = mine;
	}
}

/* Characters that are of several bytes come from the same place. */
static bool as_before(const struct lens_origin *from, size_t i)
{
	return i && from[i].from == from[i - 1].from && from[i].to == from[i - 1].to;
}

void lens_word_place(struct lens_word_work *w, struct lens_text text, size_t token)
{
	size_t i;

	for (i = 0; w->place && i < text.len; i++) {
		if (!as_before(text.from, i))
			place_byte(w, text, i, (int32_t)token);
	}
}

/* The same after BPE of n symbols, whose tokens were appended to ids from `token` on. */
static enum lens_status place_symbols(struct lens_word_work *w, struct lens_text word, size_t n,
				      size_t token, struct lens_error *err)
{
	const struct lens_bpe_symbol *symbol = w->bpe.symbol;
	const int32_t *of = w->symbol.v;
	int32_t i = 0;
	size_t at, end;

	w->token.n = 0;
	for (; i >= 0; i = symbol[i].next, token++) {
		/* Those up to the next one were merged into it. */
		end = symbol[i].next < 0 ? n : (size_t)symbol[i].next;
		while (w->token.n < end)
			LENS_TRY(lens_ids_push(&w->token, (int32_t)token, err));
	}
	for (at = 0; at < word.len; at++) {
		if (!as_before(word.from, at) || of[at] != of[at - 1])
			place_byte(w, word, at, w->token.v[of[at]]);
	}
	return LENS_OK;
}

/* n bytes more of the word are (of) that symbol. */
static enum lens_status note_symbol(struct lens_word_work *w, size_t n, int32_t symbol,
				    struct lens_error *err)
{
	for (; w->place && n; n--)
		LENS_TRY(lens_ids_push(&w->symbol, symbol, err));
	return LENS_OK;
}

/* ignore_merges: *id gets the token that is the whole word, or -1. */
static enum lens_status whole_word(const struct lens_tokenizer *tok, struct lens_word_work *w,
				   struct lens_text word, int32_t *id, struct lens_error *err)
{
	size_t i;

	*id = -1;
	if (!tok->ignore_merges || word.len > tok->vocab.max_len)
		return LENS_OK;
	if (!tok->byte_level) {
		*id = lens_vocab_find(&tok->vocab, word.s, word.len);
		return LENS_OK;
	}
	w->bytes.len = 0;
	for (i = 0; i < word.len; i++) {
		char c[2];
		size_t n = lens_bytelevel_put(&tok->bytes, (uint8_t)word.s[i], c);

		LENS_TRY(lens_buf_append(&w->bytes, c, n, err));
	}
	*id = lens_vocab_find(&tok->vocab, w->bytes.data, w->bytes.len);
	return LENS_OK;
}

/* The symbols of a word of bytes in disguise; as many as there are bytes. */
static enum lens_status byte_symbols(const struct lens_tokenizer *tok, struct lens_word_work *w,
				     struct lens_text word, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < word.len; i++) {
		uint8_t byte = (uint8_t)word.s[i];

		/* Hugging Face would drop the byte and say nothing. */
		if (tok->byte_id[byte] < 0)
			return lens_error_set(err, LENS_ERR_UNSUPPORTED,
					      "the tokenizer has no token for the byte 0x%02x",
					      byte);
		w->bpe.symbol[i].id = tok->byte_id[byte];
		LENS_TRY(note_symbol(w, 1, (int32_t)i, err));
	}
	return LENS_OK;
}

/* byte_fallback: are there tokens of all of a character's bytes? */
static bool falls_back(const struct lens_tokenizer *tok, const char *s, size_t n)
{
	size_t i;

	if (!tok->byte_fallback)
		return false;
	for (i = 0; i < n; i++) {
		if (tok->byte_id[(uint8_t)s[i]] < 0)
			return false;
	}
	return true;
}

static enum lens_status put_bytes(const struct lens_tokenizer *tok, struct lens_word_work *w,
				  struct lens_text character, size_t *n_symbols,
				  struct lens_error *err)
{
	size_t i;

	for (i = 0; i < character.len; i++) {
		LENS_TRY(note_symbol(w, 1, (int32_t)*n_symbols, err));
		w->bpe.symbol[(*n_symbols)++].id = tok->byte_id[(uint8_t)character.s[i]];
	}
	return LENS_OK;
}

/* The bytes that waited become one unknown token; others may have overtaken them. */
static void put_unknown(const struct lens_tokenizer *tok, struct lens_word_work *w,
			size_t waiting, size_t *n_symbols)
{
	size_t i = w->symbol.n;

	while (waiting && i) {
		if (w->symbol.v[--i] != WAITING)
			continue;
		w->symbol.v[i] = (int32_t)*n_symbols;
		waiting--;
	}
	w->bpe.symbol[(*n_symbols)++].id = tok->unk;
}

/* Hugging Face would drop the character and say nothing. */
static enum lens_status no_token(struct lens_text character, struct lens_error *err)
{
	int32_t c;

	utf8proc_iterate((const utf8proc_uint8_t *)character.s, (utf8proc_ssize_t)character.len,
			 &c);
	return lens_error_set(err, LENS_ERR_UNSUPPORTED,
			      "the tokenizer has no token for the character U+%04X",
			      (unsigned)c);
}

/*
 * The symbols of a word of characters, at most as many as there are bytes. An
 * unknown one waits for the next known character or the end: bytes that
 * byte_fallback gives overtake it, as in Hugging Face.
 */
static enum lens_status char_symbols(const struct lens_tokenizer *tok, struct lens_word_work *w,
				     struct lens_text word, size_t *n_symbols,
				     struct lens_error *err)
{
	size_t at = 0, n, waiting = 0; /* bytes */

	*n_symbols = 0;
	for (; at < word.len; at += n) {
		int32_t id;

		n = (size_t)utf8proc_utf8class[(uint8_t)word.s[at]];
		id = lens_vocab_find(&tok->vocab, word.s + at, n);
		if (id < 0 && falls_back(tok, word.s + at, n)) {
			LENS_TRY(
				put_bytes(tok, w, lens_text_part(word, at, n), n_symbols, err));
			continue;
		}
		if (id < 0 && tok->unk < 0)
			return no_token(lens_text_part(word, at, n), err);
		if (waiting && (id >= 0 || !tok->fuse_unk)) {
			put_unknown(tok, w, waiting, n_symbols);
			waiting = 0;
		}
		LENS_TRY(note_symbol(w, n, id < 0 ? WAITING : (int32_t)*n_symbols, err));
		if (id < 0)
			waiting += n;
		else
			w->bpe.symbol[(*n_symbols)++].id = id;
	}
	if (waiting)
		put_unknown(tok, w, waiting, n_symbols);
	return LENS_OK;
}

enum lens_status lens_word_encode(const struct lens_tokenizer *tok, struct lens_word_work *w,
				  struct lens_text word, struct lens_ids *ids,
				  struct lens_error *err)
{
	size_t n = word.len, before = ids->n;
	int32_t whole;

	LENS_TRY(whole_word(tok, w, word, &whole, err));
	if (whole >= 0) {
		lens_word_place(w, word, before);
		return lens_ids_push(ids, whole, err);
	}
	LENS_TRY(lens_bpe_reserve(&w->bpe, n, err));
	w->symbol.n = 0;
	if (tok->byte_level)
		LENS_TRY(byte_symbols(tok, w, word, err));
	else
		LENS_TRY(char_symbols(tok, w, word, &n, err));
	LENS_TRY(lens_bpe_run(&tok->bpe, &w->bpe, n, ids, err));
	return w->place ? place_symbols(w, word, n, before, err) : LENS_OK;
}
