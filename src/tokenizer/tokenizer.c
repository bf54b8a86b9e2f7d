/*
 * tokenizer/tokenizer.c: the public functions. In: texts or ids; out: ids or text.
 * Encoding follows Hugging Face's order: raw added tokens, normalisation, normalised
 * added tokens, pre-tokenizers, BPE.
 */
#include "tokenizer/tokenizer_private.h"

#include <utf8proc.h>

/* Everything that one call of encode needs besides the tokenizer. */
struct work {
	bool continues;
	struct lens_pieces raw, normalized;
	struct lens_normal_work normal;
	struct lens_buf word;
	struct lens_pretok_work pretok;
	struct lens_bpe_work bpe;
};

static void work_release(struct work *w)
{
	lens_pieces_release(&w->raw);
	lens_pieces_release(&w->normalized);
	lens_normal_work_release(&w->normal);
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
	if (!tok->byte_level) {
		*id = lens_vocab_find(&tok->vocab, word, len);
		return LENS_OK;
	}
	w->word.len = 0;
	for (i = 0; i < len; i++) {
		char c[2];
		size_t n = lens_bytelevel_put(&tok->bytes, (uint8_t)word[i], c);

		LENS_TRY(lens_buf_append(&w->word, c, n, err));
	}
	*id = lens_vocab_find(&tok->vocab, w->word.data, w->word.len);
	return LENS_OK;
}

/* The symbols of a word by its bytes, one for each. */
static enum lens_status byte_symbols(const struct lens_tokenizer *tok, struct work *w,
				     const char *word, size_t len, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)word[i];

		/* Hugging Face would silently drop the byte. */
		if (tok->byte_id[byte] < 0)
			return lens_error_set(err, LENS_ERR_UNSUPPORTED,
					      "the tokenizer has no token for the byte 0x%02x",
					      byte);
		w->bpe.symbol[i].id = tok->byte_id[byte];
	}
	return LENS_OK;
}

/* byte_fallback: appends the tokens of a character's bytes, if every one has a token. */
static bool fall_back(const struct lens_tokenizer *tok, struct work *w, const char *s, size_t n,
		      size_t *n_symbols)
{
	size_t i;

	if (!tok->byte_fallback)
		return false;
	for (i = 0; i < n; i++) {
		if (tok->byte_id[(uint8_t)s[i]] < 0)
			return false;
	}
	for (i = 0; i < n; i++)
		w->bpe.symbol[(*n_symbols)++].id = tok->byte_id[(uint8_t)s[i]];
	return true;
}

/*
 * The symbols of a word by its characters, at most as many as there are bytes. An
 * unknown one is held back until the next known character or the end: bytes from
 * byte_fallback overtake it, as in Hugging Face.
 */
static enum lens_status char_symbols(const struct lens_tokenizer *tok, struct work *w,
				     const char *word, size_t len, size_t *n_symbols,
				     struct lens_error *err)
{
	bool waiting = false;
	size_t at = 0, n;

	*n_symbols = 0;
	for (; at < len; at += n) {
		int32_t id, c;

		n = (size_t)utf8proc_utf8class[(uint8_t)word[at]];
		id = lens_vocab_find(&tok->vocab, word + at, n);
		if (id < 0 && fall_back(tok, w, word + at, n, n_symbols))
			continue;
		utf8proc_iterate((const utf8proc_uint8_t *)word + at, (utf8proc_ssize_t)n, &c);
		/* Hugging Face would silently drop the character. */
		if (id < 0 && tok->unk < 0)
			return lens_error_set(err, LENS_ERR_UNSUPPORTED,
					      "the tokenizer has no token for the character "
					      "U+%04X",
					      (unsigned)c);
		if (waiting && (id >= 0 || !tok->fuse_unk))
			w->bpe.symbol[(*n_symbols)++].id = tok->unk;
		waiting = id < 0;
		if (id >= 0)
			w->bpe.symbol[(*n_symbols)++].id = id;
	}
	if (waiting)
		w->bpe.symbol[(*n_symbols)++].id = tok->unk;
	return LENS_OK;
}

static enum lens_status encode_word(const struct lens_tokenizer *tok, struct work *w,
				    const char *word, size_t len, struct lens_ids *ids,
				    struct lens_error *err)
{
	size_t n = len;
	int32_t whole;

	LENS_TRY(whole_word(tok, w, word, len, &whole, err));
	if (whole >= 0)
		return lens_ids_push(ids, whole, err);
	LENS_TRY(lens_bpe_reserve(&w->bpe, len, err));
	if (tok->byte_level)
		LENS_TRY(byte_symbols(tok, w, word, len, err));
	else
		LENS_TRY(char_symbols(tok, w, word, len, &n, err));
	return lens_bpe_run(&tok->bpe, &w->bpe, n, ids, err);
}

/* Text without added tokens. first: the whole text begins with it. */
static enum lens_status encode_plain(const struct lens_tokenizer *tok, struct work *w,
				     bool first, struct lens_text text, struct lens_ids *ids,
				     struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_pretok_run(&tok->pretok, &w->pretok, first, w->continues, text, err));
	for (i = 0; i < w->pretok.words.n; i++) {
		const struct lens_span *s = &w->pretok.words.v[i];

		LENS_TRY(encode_word(tok, w, w->pretok.text + s->offset, s->len, ids, err));
	}
	return LENS_OK;
}

static struct lens_text piece_of(struct lens_text text, const struct lens_piece *p)
{
	return (struct lens_text){ text.s + p->offset, p->len };
}

/* Text between raw added tokens. */
static enum lens_status encode_between(const struct lens_tokenizer *tok, struct work *w,
				       bool first, struct lens_text text, struct lens_ids *ids,
				       struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_normalize(&tok->normalizer, &w->normal, first && w->continues, &text,
				err));
	LENS_TRY(lens_added_split(&tok->added, true, text, w->pretok.match, &w->normalized,
				  err));
	for (i = 0; i < w->normalized.n; i++) {
		const struct lens_piece *p = &w->normalized.v[i];

		if (p->id >= 0)
			LENS_TRY(lens_ids_push(ids, p->id, err));
		else
			LENS_TRY(encode_plain(tok, w, first && p->offset == 0,
					      piece_of(text, p), ids, err));
	}
	return LENS_OK;
}

static enum lens_status encode(const struct lens_tokenizer *tok, struct work *w,
			       struct lens_text text, struct lens_ids *ids,
			       struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_regex_match_create(&w->pretok.match, err));
	w->normal.match = w->pretok.match;
	LENS_TRY(lens_added_split(&tok->added, false, text, w->pretok.match, &w->raw, err));
	for (i = 0; i < w->raw.n; i++) {
		const struct lens_piece *p = &w->raw.v[i];

		if (p->id >= 0)
			LENS_TRY(lens_ids_push(ids, p->id, err));
		else
			LENS_TRY(encode_between(tok, w, p->offset == 0, piece_of(text, p), ids,
						err));
	}
	return LENS_OK;
}

static enum lens_status check_and_encode(const struct lens_tokenizer *tok, bool continues,
					 const char *text, size_t len, struct lens_ids *ids,
					 struct lens_error *err)
{
	struct work w = { .continues = continues };
	size_t before = ids->n;
	enum lens_status st;

	if (len > LENS_BPE_MAX_SYMBOLS)
		return lens_error_set(err, LENS_ERR_INVALID, "a text of %zu bytes is too long",
				      len);
	if (!lens_utf8_valid(text, len))
		return lens_error_set(err, LENS_ERR_FORMAT, "the text is not valid UTF-8");
	st = encode(tok, &w, (struct lens_text){ text, len }, ids, err);
	if (st != LENS_OK)
		ids->n = before;
	work_release(&w);
	return st;
}

enum lens_status lens_tokenizer_encode(const struct lens_tokenizer *tok, const char *text,
				       size_t len, struct lens_ids *ids, struct lens_error *err)
{
	return check_and_encode(tok, false, text, len, ids, err);
}

enum lens_status lens_tokenizer_encode_continuation(const struct lens_tokenizer *tok,
						    const char *text, size_t len,
						    struct lens_ids *ids,
						    struct lens_error *err)
{
	return check_and_encode(tok, true, text, len, ids, err);
}

/* The texts of ids[0..n). As in Hugging Face, an id without a token gives none. */
static enum lens_status list_texts(const struct lens_tokenizer *tok, const int32_t *ids,
				   size_t n, struct lens_decode_list *list,
				   struct lens_error *err)
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
			LENS_TRY(lens_decode_add(list, text, len, err));
	}
	return LENS_OK;
}

static enum lens_status decode(const struct lens_tokenizer *tok, bool continues,
			       const int32_t *ids, size_t n, struct lens_buf *out,
			       struct lens_error *err)
{
	struct lens_decode_work w = { .match = NULL };
	enum lens_status st;

	st = list_texts(tok, ids, n, &w.list[0], err);
	if (st == LENS_OK)
		st = lens_decode_run(&tok->decoder, &tok->bytes, &w, continues, err);
	if (st == LENS_OK)
		st = lens_buf_append(out, w.list[0].text.data ? w.list[0].text.data : "",
				     w.list[0].text.len, err);
	lens_decode_work_release(&w);
	return st;
}

enum lens_status lens_tokenizer_decode(const struct lens_tokenizer *tok, const int32_t *ids,
				       size_t n, struct lens_buf *out, struct lens_error *err)
{
	return decode(tok, false, ids, n, out, err);
}

enum lens_status lens_tokenizer_decode_continuation(const struct lens_tokenizer *tok,
						    const int32_t *ids, size_t n,
						    struct lens_buf *out,
						    struct lens_error *err)
{
	return decode(tok, true, ids, n, out, err);
}

enum lens_status lens_tokenizer_bos(const struct lens_tokenizer *tok, int32_t *id,
				    struct lens_error *err)
{
	if (tok->bos < 0)
		return lens_error_set(err, LENS_ERR_FORMAT, "%s", tok->no_bos);
	*id = tok->bos;
	return LENS_OK;
}

bool lens_tokenizer_adds_bos(const struct lens_tokenizer *tok)
{
	return tok->adds_bos;
}

const char *lens_tokenizer_rules(const struct lens_tokenizer *tok)
{
	return tok->rules;
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
	lens_normalizer_release(&tok->normalizer);
	lens_pretok_release(&tok->pretok);
	lens_decoder_release(&tok->decoder);
	lens_free(tok->no_bos);
	lens_free(tok);
}
