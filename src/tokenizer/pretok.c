/*
 * tokenizer/pretok.c: the chain of pre-tokenizers. In: a text between added
 * tokens; out: words. Each step splits each span of the step before; the
 * pattern sees one span at a time, so that lookarounds stop at its ends.
 */
#include "tokenizer/pretok.h"

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
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 4;
		struct lens_pretok_step *v = lens_realloc(p->step, cap, sizeof(*v));

		if (!v) {
			lens_regex_destroy(step->re);
			return lens_error_nomem(err, cap, sizeof(*v));
		}
		p->step = v;
		p->cap = cap;
	}
	p->step[p->n++] = *step;
	return LENS_OK;
}

void lens_pretok_work_release(struct lens_pretok_work *w)
{
	lens_regex_match_destroy(w->match);
	lens_free(w->words.v);
	lens_free(w->input.v);
	lens_free(w->found.v);
	lens_buf_release(&w->prefixed[0]);
	lens_buf_release(&w->prefixed[1]);
	*w = (struct lens_pretok_work){ 0 };
}

static enum lens_status push(struct lens_spans *s, size_t from, size_t to, bool match,
			     struct lens_error *err)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct lens_span *v = lens_realloc(s->v, cap, sizeof(*v));

		if (!v)
			return lens_error_nomem(err, cap, sizeof(*v));
		s->v = v;
		s->cap = cap;
	}
	s->v[s->n++] = (struct lens_span){ from, to - from, match };
	return LENS_OK;
}

/* All of the span as matches and what lies between them -> w->found. */
static enum lens_status find(const struct lens_pretok_step *step, struct lens_pretok_work *w,
			     const struct lens_span *span, struct lens_error *err)
{
	const char *text = w->text + span->offset;
	size_t at = 0, start, end;
	bool found;

	w->found.n = 0;
	while (at < span->len) {
		LENS_TRY(lens_regex_next(step->re, w->match, text, span->len, at, &start, &end,
					 &found, err));
		if (!found)
			break;
		if (at < start)
			LENS_TRY(push(&w->found, span->offset + at, span->offset + start,
				      step->invert, err));
		LENS_TRY(push(&w->found, span->offset + start, span->offset + end,
			      !step->invert, err));
		at = end;
	}
	if (at < span->len)
		return push(&w->found, span->offset + at, span->offset + span->len,
			    step->invert, err);
	return LENS_OK;
}

/* Does found[i] join the word of found[i - 1]? */
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
			LENS_TRY(push(&w->words, f->offset, f->offset + f->len, false, err));
	}
	return LENS_OK;
}

/* Copies the words into a new text with a space before each that has none. */
static enum lens_status prefix_spaces(struct lens_pretok_work *w, struct lens_error *err)
{
	struct lens_buf *to = &w->prefixed[w->text == w->prefixed[0].data];
	size_t i;

	to->len = 0;
	for (i = 0; i < w->words.n; i++) {
		struct lens_span *s = &w->words.v[i];
		const char *text = w->text + s->offset;
		size_t start = to->len;

		if (*text != ' ')
			LENS_TRY(lens_buf_append(to, " ", 1, err));
		LENS_TRY(lens_buf_append(to, text, s->len, err));
		s->offset = start;
		s->len = to->len - start;
	}
	if (w->words.n)
		w->text = to->data;
	return LENS_OK;
}

static enum lens_status run_step(const struct lens_pretok_step *step,
				 struct lens_pretok_work *w, struct lens_error *err)
{
	struct lens_spans input;
	size_t i;

	if (step->prefix_space)
		LENS_TRY(prefix_spaces(w, err));
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
				 const char *text, size_t len, struct lens_error *err)
{
	size_t i;

	if (!w->match)
		LENS_TRY(lens_regex_match_create(&w->match, err));
	w->text = text;
	w->words.n = 0;
	LENS_TRY(push(&w->words, 0, len, false, err));
	for (i = 0; i < p->n; i++)
		LENS_TRY(run_step(&p->step[i], w, err));
	return LENS_OK;
}
