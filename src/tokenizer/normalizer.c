/*
 * tokenizer/normalizer.c: the chain of normalisers. In: a text between added tokens;
 * out: the text that the pre-tokenizers get. Each step reads what the previous one
 * wrote.
 */
#include "tokenizer/normalizer_private.h"

#include <utf8proc.h>

/* Replacements can make a text longer at each step; a longer one is refused. */
#ifndef LENS_MAX_NORMALIZED /* `make fuzz` makes it smaller, for speed */
#define LENS_MAX_NORMALIZED ((size_t)1 << 25)
#endif

enum lens_status lens_normalizer_push(struct lens_normalizer *n, struct lens_normal_step *step,
				      struct lens_error *err)
{
	struct lens_normal_step *v = lens_grow(n->step, n->n, &n->cap, sizeof(*v), err);

	if (!v) {
		lens_replace_release(&step->replace);
		return LENS_ERR_NOMEM;
	}
	n->step = v;
	n->step[n->n++] = *step;
	return LENS_OK;
}

void lens_normalizer_release(struct lens_normalizer *n)
{
	size_t i;

	for (i = 0; i < n->n; i++)
		lens_replace_release(&n->step[i].replace);
	lens_free(n->step);
	*n = (struct lens_normalizer){ NULL, 0, 0 };
}

void lens_normal_work_release(struct lens_normal_work *w)
{
	lens_buf_release(&w->buf[0]);
	lens_buf_release(&w->buf[1]);
	lens_origins_release(&w->from[0]);
	lens_origins_release(&w->from[1]);
}

size_t lens_char_before(const char *text, size_t at)
{
	do
		at--;
	while (at && ((unsigned char)text[at] & 0xc0) == 0x80);
	return at;
}

size_t lens_spaces_before(const char *text, size_t at)
{
	while (at) {
		size_t p = lens_char_before(text, at);
		int32_t c;

		utf8proc_iterate((const utf8proc_uint8_t *)text + p, (utf8proc_ssize_t)(at - p),
				 &c);
		if (!lens_white_space(c))
			break;
		at = p;
	}
	return at;
}

size_t lens_spaces_after(const char *text, size_t len, size_t at)
{
	while (at < len) {
		int32_t c;
		utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
						      (utf8proc_ssize_t)(len - at), &c);

		if (n <= 0 || !lens_white_space(c))
			break;
		at += (size_t)n;
	}
	return at;
}

/* Where the text comes from that lens_replace_run makes. */
static enum lens_status replace_origins(const struct lens_replace *r,
					struct lens_regex_match *m, struct lens_text text,
					struct lens_origins *from, struct lens_error *err)
{
	struct lens_hit hit;
	size_t at = 0;

	while (text.from && at < text.len) {
		LENS_TRY(lens_regex_next(r->re, m, text, at, &hit, err));
		if (!hit.found)
			break;
		LENS_TRY(lens_origins_keep(from, text, at, hit.start - at, err));
		LENS_TRY(lens_origins_replace(from, text,
					      &(struct lens_origin){ (uint32_t)hit.start,
								     (uint32_t)hit.end },
					      r->len, err));
		at = hit.end;
	}
	return lens_origins_keep(from, text, at, text.len - at, err);
}

static enum lens_status run_step(const struct lens_normal_step *step,
				 struct lens_regex_match *m, struct lens_text text,
				 struct lens_buf *out, struct lens_origins *origins,
				 struct lens_error *err)
{
	static const struct lens_origin nothing = { 0, 0 };
	size_t from = 0, to = text.len;

	switch (step->kind) {
	case LENS_NORMAL_FORM:
		return lens_normal_form(step->form, text, out, origins, err);
	case LENS_NORMAL_PREPEND:
		LENS_TRY(lens_buf_append(out, step->replace.text, step->replace.len, err));
		LENS_TRY(lens_origins_replace(origins, text, &nothing, step->replace.len, err));
		break;
	case LENS_NORMAL_REPLACE:
		LENS_TRY(replace_origins(&step->replace, m, text, origins, err));
		return lens_replace_run(&step->replace, m, text, LENS_MAX_NORMALIZED, out, err);
	case LENS_NORMAL_STRIP:
		if (step->left)
			from = lens_spaces_after(text.s, text.len, 0);
		if (step->right)
			to = lens_max(from, lens_spaces_before(text.s, text.len));
		break;
	}
	LENS_TRY(lens_origins_keep(origins, text, from, to - from, err));
	return lens_buf_append(out, text.s + from, to - from, err);
}

enum lens_status lens_normalize(const struct lens_normalizer *n, struct lens_normal_work *w,
				bool continues, struct lens_text *text, struct lens_error *err)
{
	size_t i, k = 0;

	/* No step makes anything out of an empty text. */
	for (i = 0; i < n->n && text->len; i++) {
		const struct lens_normal_step *step = &n->step[i];
		struct lens_buf *to = &w->buf[k];

		if (continues && step->kind == LENS_NORMAL_PREPEND)
			continue;
		to->len = w->from[k].n = 0;
		LENS_TRY(run_step(step, w->match, *text, to, &w->from[k], err));
		*text = (struct lens_text){ to->data ? to->data : "", to->len,
					    text->from ? w->from[k].v : NULL };
		k = !k;
	}
	return LENS_OK;
}
