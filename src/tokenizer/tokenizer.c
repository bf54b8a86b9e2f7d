/*
 * tokenizer/tokenizer.c: the public functions. In: texts or ids; out: ids or text.
 * Encoding follows Hugging Face's order: raw added tokens, normalisation, normalised
 * added tokens, pre-tokenizers, BPE.
 */
#include "tokenizer/word_private.h"

/* Everything that one call of encode needs besides the tokenizer. */
struct work {
	bool continues;
	struct lens_pieces raw, normalized;
	struct lens_normal_work normal;
	struct lens_pretok_work pretok;
	struct lens_word_work word;
	struct lens_origins origins; /* of the whole text, where they were asked for */
};

static void work_release(struct work *w)
{
	lens_pieces_release(&w->raw);
	lens_pieces_release(&w->normalized);
	lens_normal_work_release(&w->normal);
	lens_pretok_work_release(&w->pretok);
	lens_word_work_release(&w->word);
	lens_origins_release(&w->origins);
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

		LENS_TRY(lens_word_encode(tok, &w->word,
					  lens_text_part(w->pretok.text, s->offset, s->len),
					  ids, err));
	}
	return LENS_OK;
}

static struct lens_text piece_of(struct lens_text text, const struct lens_piece *p)
{
	return lens_text_part(text, p->offset, p->len);
}

static enum lens_status push_added(struct work *w, struct lens_text text,
				   const struct lens_piece *p, struct lens_ids *ids,
				   struct lens_error *err)
{
	lens_word_place(&w->word, piece_of(text, p), ids->n);
	return lens_ids_push(ids, p->id, err);
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
			LENS_TRY(push_added(w, text, p, ids, err));
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
			LENS_TRY(push_added(w, text, p, ids, err));
		else
			LENS_TRY(encode_between(tok, w, p->offset == 0, piece_of(text, p), ids,
						err));
	}
	return LENS_OK;
}

/* Places for every byte of the text, none of which has a token yet. */
static enum lens_status begin_places(struct work *w, struct lens_text *text, size_t first,
				     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < text->len; i++)
		w->word.place[i] = -1;
	w->word.first = first;
	LENS_TRY(lens_origins_of_text(&w->origins, text->len, err));
	text->from = w->origins.v;
	return LENS_OK;
}

static enum lens_status check_and_encode(const struct lens_tokenizer *tok, struct work *w,
					 struct lens_text text, struct lens_ids *ids,
					 struct lens_error *err)
{
	size_t before = ids->n;
	enum lens_status st = LENS_OK;

	if (text.len > LENS_BPE_MAX_SYMBOLS)
		return lens_error_set(err, LENS_ERR_INVALID, "a text of %zu bytes is too long",
				      text.len);
	if (!lens_utf8_valid(text.s, text.len))
		return lens_error_set(err, LENS_ERR_FORMAT, "the text is not valid UTF-8");
	if (w->word.place)
		st = begin_places(w, &text, before, err);
	if (st == LENS_OK)
		st = encode(tok, w, text, ids, err);
	if (st != LENS_OK)
		ids->n = before;
	work_release(w);
	return st;
}

enum lens_status lens_tokenizer_encode(const struct lens_tokenizer *tok, const char *text,
				       size_t len, struct lens_ids *ids, struct lens_error *err)
{
	struct work w = { .continues = false };

	return check_and_encode(tok, &w, (struct lens_text){ text, len, NULL }, ids, err);
}

enum lens_status lens_tokenizer_encode_continuation(const struct lens_tokenizer *tok,
						    const char *text, size_t len,
						    struct lens_ids *ids,
						    struct lens_error *err)
{
	struct work w = { .continues = true };

	return check_and_encode(tok, &w, (struct lens_text){ text, len, NULL }, ids, err);
}

enum lens_status lens_tokenizer_encode_places(const struct lens_tokenizer *tok,
					      const char *text, size_t len,
					      struct lens_ids *ids, int32_t *place,
					      struct lens_error *err)
{
	struct work w = { .word.place = place };

	return check_and_encode(tok, &w, (struct lens_text){ text, len, NULL }, ids, err);
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
