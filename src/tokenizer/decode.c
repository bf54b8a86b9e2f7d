/*
 * tokenizer/decode.c: the chain of decoders. In: the texts of tokens; out: pieces that
 * concatenate to the text. Each step reads one list and writes the other.
 */
#include "tokenizer/decode_private.h"

#include <string.h>

enum lens_status lens_decoder_push(struct lens_decoder *d, struct lens_decode_step *step,
				   struct lens_error *err)
{
	struct lens_decode_step *v = lens_grow(d->step, d->n, &d->cap, sizeof(*v), err);

	if (!v) {
		lens_replace_release(&step->replace);
		return LENS_ERR_NOMEM;
	}
	d->step = v;
	d->step[d->n++] = *step;
	return LENS_OK;
}

void lens_decoder_release(struct lens_decoder *d)
{
	size_t i;

	for (i = 0; i < d->n; i++)
		lens_replace_release(&d->step[i].replace);
	lens_free(d->step);
	*d = (struct lens_decoder){ NULL, 0, 0 };
}

void lens_decode_work_release(struct lens_decode_work *w)
{
	int i;

	for (i = 0; i < 2; i++) {
		lens_buf_release(&w->list[i].text);
		lens_free(w->list[i].end);
	}
	lens_buf_release(&w->bytes);
	lens_regex_match_destroy(w->match);
	*w = (struct lens_decode_work){ 0 };
}

/* Makes a piece of what was written since the last one. */
static enum lens_status close_piece(struct lens_decode_list *list, struct lens_error *err)
{
	size_t *end = lens_grow(list->end, list->n, &list->cap, sizeof(*end), err);

	if (!end)
		return LENS_ERR_NOMEM;
	list->end = end;
	list->end[list->n++] = list->text.len;
	return LENS_OK;
}

enum lens_status lens_decode_add(struct lens_decode_list *list, const char *text, size_t len,
				 struct lens_error *err)
{
	LENS_TRY(lens_buf_append(&list->text, text, len, err));
	return close_piece(list, err);
}

/* Piece i and its length. */
static const char *piece(const struct lens_decode_list *list, size_t i, size_t *len)
{
	size_t start = i ? list->end[i - 1] : 0;

	*len = list->end[i] - start;
	return list->text.data ? list->text.data + start : "";
}

static enum lens_status byte_level(const struct lens_bytelevel *b, struct lens_buf *bytes,
				   const struct lens_decode_list *in,
				   struct lens_decode_list *out, struct lens_error *err)
{
	size_t i, len;

	bytes->len = 0;
	for (i = 0; i < in->n; i++) {
		const char *text = piece(in, i, &len);

		LENS_TRY(lens_bytelevel_bytes(b, text, len, bytes, err));
	}
	LENS_TRY(lens_utf8_lossy(bytes->data ? bytes->data : "", bytes->len, &out->text, err));
	return close_piece(out, err);
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef0123456789ABCDEF", *at;

	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) % 16 : -1;
}

/* The byte that "<0xAB>" stands for, or -1. Rust's parser also accepts "+5". */
static int fallback_byte(const char *s, size_t len)
{
	int high, low;

	if (len != 6 || memcmp(s, "<0x", 3) || s[5] != '>')
		return -1;
	high = s[3] == '+' ? 0 : hex_digit(s[3]);
	low = hex_digit(s[4]);
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Adds the text of a run of bytes if they are UTF-8, else U+FFFD for each. */
static enum lens_status put_bytes(struct lens_buf *bytes, struct lens_decode_list *out,
				  struct lens_error *err)
{
	size_t i;

	if (!bytes->len)
		return LENS_OK;
	if (lens_utf8_valid(bytes->data, bytes->len)) {
		LENS_TRY(lens_decode_add(out, bytes->data, bytes->len, err));
	} else {
		for (i = 0; i < bytes->len; i++)
			LENS_TRY(lens_decode_add(out, "\xef\xbf\xbd", 3, err));
	}
	bytes->len = 0;
	return LENS_OK;
}

static enum lens_status byte_fallback(struct lens_buf *bytes, const struct lens_decode_list *in,
				      struct lens_decode_list *out, struct lens_error *err)
{
	size_t i, len;

	bytes->len = 0;
	for (i = 0; i < in->n; i++) {
		const char *text = piece(in, i, &len);
		int byte = fallback_byte(text, len);
		char c = (char)byte;

		if (byte >= 0) {
			LENS_TRY(lens_buf_append(bytes, &c, 1, err));
			continue;
		}
		LENS_TRY(put_bytes(bytes, out, err));
		LENS_TRY(lens_decode_add(out, text, len, err));
	}
	return put_bytes(bytes, out, err);
}

static enum lens_status replace(const struct lens_decode_step *step, struct lens_regex_match *m,
				struct lens_text text, struct lens_decode_list *out,
				struct lens_error *err)
{
	LENS_TRY(lens_replace_run(&step->replace, m, text, SIZE_MAX, &out->text, err));
	return close_piece(out, err);
}

static enum lens_status strip(const struct lens_decode_step *step, const char *text, size_t len,
			      struct lens_decode_list *out, struct lens_error *err)
{
	size_t i, from = 0, n = strlen(step->mark);

	for (i = 0; i < step->n && len - from >= n; i++) {
		if (memcmp(text + from, step->mark, n))
			break;
		from += n;
	}
	return lens_decode_add(out, text + from, len - from, err);
}

static enum lens_status metaspace(const struct lens_decode_step *step, bool first,
				  const char *text, size_t len, struct lens_decode_list *out,
				  struct lens_error *err)
{
	size_t at = 0, n = strlen(step->mark), from = 0;

	while (at < len) {
		if (len - at < n || memcmp(text + at, step->mark, n)) {
			at++;
			continue;
		}
		LENS_TRY(lens_buf_append(&out->text, text + from, at - from, err));
		if (!first || step->keep_first)
			LENS_TRY(lens_buf_append(&out->text, " ", 1, err));
		at += n;
		from = at;
	}
	LENS_TRY(lens_buf_append(&out->text, text + from, len - from, err));
	return close_piece(out, err);
}

static enum lens_status each_piece(const struct lens_decode_step *step,
				   struct lens_decode_work *w, bool continues,
				   const struct lens_decode_list *in,
				   struct lens_decode_list *out, struct lens_error *err)
{
	size_t i, len;

	for (i = 0; i < in->n; i++) {
		const char *text = piece(in, i, &len);

		if (step->kind == LENS_DECODE_REPLACE)
			LENS_TRY(replace(step, w->match, (struct lens_text){ text, len, NULL },
					 out, err));
		else if (step->kind == LENS_DECODE_STRIP && continues && step->fused)
			LENS_TRY(lens_decode_add(out, text, len, err));
		else if (step->kind == LENS_DECODE_STRIP)
			LENS_TRY(strip(step, text, len, out, err));
		else
			LENS_TRY(metaspace(step, i == 0 && !continues, text, len, out, err));
	}
	return LENS_OK;
}

static enum lens_status run_step(const struct lens_decode_step *step,
				 const struct lens_bytelevel *b, struct lens_decode_work *w,
				 bool continues, struct lens_error *err)
{
	struct lens_decode_list *in = &w->list[0], *out = &w->list[1];

	switch (step->kind) {
	case LENS_DECODE_BYTE_LEVEL:
		return byte_level(b, &w->bytes, in, out, err);
	case LENS_DECODE_BYTE_FALLBACK:
		return byte_fallback(&w->bytes, in, out, err);
	case LENS_DECODE_FUSE:
		return lens_decode_add(out, in->text.data ? in->text.data : "", in->text.len,
				       err);
	default:
		return each_piece(step, w, continues, in, out, err);
	}
}

enum lens_status lens_decode_run(const struct lens_decoder *d, const struct lens_bytelevel *b,
				 struct lens_decode_work *w, bool continues,
				 struct lens_error *err)
{
	size_t i;

	if (!w->match)
		LENS_TRY(lens_regex_match_create(&w->match, err));
	for (i = 0; i < d->n; i++) {
		struct lens_decode_list done;

		w->list[1].text.len = w->list[1].n = 0;
		LENS_TRY(run_step(&d->step[i], b, w, continues, err));
		done = w->list[1];
		w->list[1] = w->list[0];
		w->list[0] = done;
	}
	return LENS_OK;
}
