/*
 * tokenizer/pretok.c: the chain of pre-tokenizers. In: a text between added tokens; out:
 * words. Each step splits each span that the previous step left; the pattern sees one
 * span at a time, so lookarounds stop at its ends.
 */
#include "tokenizer/pretok_private.h"

#include <string.h>

void lens_pretok_release(struct lens_pretok *p)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		lens_regex_destroy(p->step[i].re);
	lens_free(p->step);
	*p = (struct lens_pretok){ NULL, 0, 0 };
}

enum lens_status lens_pretok_push(struct lens_pretok *p, const struct lens_pretok_step *step,
				  struct lens_error *err)
{
	struct lens_pretok_step *v = lens_grow(p->step, p->n, &p->cap, sizeof(*v), err);

	if (!v) {
		lens_regex_destroy(step->re);
		return LENS_ERR_NOMEM;
	}
	p->step = v;
	p->step[p->n++] = *step;
	return LENS_OK;
}

void lens_pretok_work_release(struct lens_pretok_work *w)
{
	lens_regex_match_destroy(w->match);
	lens_free(w->words.v);
	lens_free(w->input.v);
	lens_free(w->found.v);
	lens_buf_release(&w->marked[0]);
	lens_buf_release(&w->marked[1]);
	lens_origins_release(&w->from[0]);
	lens_origins_release(&w->from[1]);
	*w = (struct lens_pretok_work){ 0 };
}

static enum lens_status push(struct lens_spans *s, size_t from, size_t to, bool match,
			     bool first, struct lens_error *err)
{
	struct lens_span *v = lens_grow(s->v, s->n, &s->cap, sizeof(*v), err);

	if (!v)
		return LENS_ERR_NOMEM;
	s->v = v;
	s->v[s->n++] = (struct lens_span){ from, to - from, match, first };
	return LENS_OK;
}

/* Splits the span into matches and the text between them -> w->found. */
static enum lens_status find(const struct lens_pretok_step *step, struct lens_pretok_work *w,
			     const struct lens_span *span, struct lens_error *err)
{
	const struct lens_text text = { w->text.s + span->offset, span->len, NULL };
	struct lens_hit hit;
	size_t at = 0;

	w->found.n = 0;
	while (at < span->len) {
		LENS_TRY(lens_regex_next(step->re, w->match, text, at, &hit, err));
		if (!hit.found)
			break;
		if (at < hit.start)
			LENS_TRY(push(&w->found, span->offset + at, span->offset + hit.start,
				      step->invert, span->first && at == 0, err));
		LENS_TRY(push(&w->found, span->offset + hit.start, span->offset + hit.end,
			      !step->invert, span->first && hit.start == 0, err));
		at = hit.end;
	}
	if (at < span->len)
		return push(&w->found, span->offset + at, span->offset + span->len,
			    step->invert, span->first && at == 0, err);
	return LENS_OK;
}

/* Does found[i] belong to the same word as found[i - 1]? */
static bool joins(enum lens_split_behavior behavior, const struct lens_spans *found, size_t i)
{
	bool before = found->v[i - 1].match, now = found->v[i].match;

	switch (behavior) {
	case LENS_SPLIT_CONTIGUOUS:
		return before == now;
	case LENS_SPLIT_WITH_PREVIOUS:
		return now && !before;
	case LENS_SPLIT_WITH_NEXT:
		return before && !now;
	default:
		return false;
	}
}

static enum lens_status emit(const struct lens_pretok_step *step, struct lens_pretok_work *w,
			     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < w->found.n; i++) {
		const struct lens_span *f = &w->found.v[i];

		if (step->behavior == LENS_SPLIT_REMOVED && f->match)
			continue;
		if (i && joins(step->behavior, &w->found, i))
			w->words.v[w->words.n - 1].len += f->len;
		else
			LENS_TRY(push(&w->words, f->offset, f->offset + f->len, false, f->first,
				      err));
	}
	return LENS_OK;
}

/* Appends the mark, for bytes at … end − 1 of text or (at == end) for none. */
static enum lens_status append_mark(const char *mark, struct lens_text text, size_t at,
				    size_t end, struct lens_pretok_work *w,
				    struct lens_error *err)
{
	const struct lens_origin part = { (uint32_t)at, (uint32_t)end };
	size_t k = w->to;

	LENS_TRY(lens_buf_append(&w->marked[k], mark, strlen(mark), err));
	return lens_origins_replace(&w->from[k], text, &part, strlen(mark), err);
}

/* Appends the text, with a mark for each space if the step wants that. */
static enum lens_status append_word(const struct lens_pretok_step *step, struct lens_text text,
				    struct lens_pretok_work *w, struct lens_error *err)
{
	size_t at = 0, k = w->to;

	while (at < text.len) {
		const char *space =
			step->to_mark ? memchr(text.s + at, ' ', text.len - at) : NULL;
		size_t end = space ? (size_t)(space - text.s) : text.len;

		LENS_TRY(lens_buf_append(&w->marked[k], text.s + at, end - at, err));
		LENS_TRY(lens_origins_keep(&w->from[k], text, at, end - at, err));
		if (space)
			LENS_TRY(append_mark(step->mark, text, end, end + 1, w, err));
		at = end + 1;
	}
	return LENS_OK;
}

/* Does this word get the prefix? */
static bool prefixed(const struct lens_pretok_step *step, const struct lens_span *s,
		     const char *text, bool continues)
{
	size_t n = strlen(step->mark);

	if (step->prefix == LENS_PREFIX_NEVER || (s->first && continues))
		return false;
	if (step->prefix == LENS_PREFIX_FIRST && !s->first)
		return false;
	if (step->to_mark && *text == ' ')
		return false;
	return s->len < n || memcmp(text, step->mark, n);
}

/* Copies the words into a new text, with marks in place of spaces and in front. */
static enum lens_status put_marks(const struct lens_pretok_step *step,
				  struct lens_pretok_work *w, bool continues,
				  struct lens_error *err)
{
	struct lens_buf *to;
	size_t i;

	w->to = w->text.s == w->marked[0].data;
	to = &w->marked[w->to];
	to->len = w->from[w->to].n = 0;
	for (i = 0; i < w->words.n; i++) {
		struct lens_span *s = &w->words.v[i];
		struct lens_text text = lens_text_part(w->text, s->offset, s->len);
		size_t start = to->len;

		if (prefixed(step, s, text.s, continues))
			LENS_TRY(append_mark(step->mark, text, 0, 0, w, err));
		LENS_TRY(append_word(step, text, w, err));
		s->offset = start;
		s->len = to->len - start;
	}
	if (w->words.n)
		w->text = (struct lens_text){ to->data, to->len,
					      w->text.from ? w->from[w->to].v : NULL };
	return LENS_OK;
}

static enum lens_status run_step(const struct lens_pretok_step *step,
				 struct lens_pretok_work *w, bool continues,
				 struct lens_error *err)
{
	struct lens_spans input;
	size_t i;

	if (step->to_mark || step->prefix != LENS_PREFIX_NEVER)
		LENS_TRY(put_marks(step, w, continues, err));
	if (!step->re)
		return LENS_OK;
	input = w->words;
	w->words = w->input;
	w->input = input;
	w->words.n = 0;
	for (i = 0; i < w->input.n; i++) {
		LENS_TRY(find(step, w, &w->input.v[i], err));
		LENS_TRY(emit(step, w, err));
	}
	return LENS_OK;
}

enum lens_status lens_pretok_run(const struct lens_pretok *p, struct lens_pretok_work *w,
				 bool first, bool continues, struct lens_text text,
				 struct lens_error *err)
{
	size_t i;

	if (!w->match)
		LENS_TRY(lens_regex_match_create(&w->match, err));
	w->text = text;
	w->words.n = 0;
	LENS_TRY(push(&w->words, 0, text.len, false, first, err));
	for (i = 0; i < p->n; i++)
		LENS_TRY(run_step(&p->step[i], w, continues, err));
	return LENS_OK;
}
