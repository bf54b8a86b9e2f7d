/*
 * tokenizer/origins.c: where the bytes of a changed text come from. In: what a step
 * keeps of its text and what it replaces; out: an origin a byte.
 */
#include "tokenizer/origins_private.h"

#include <string.h>

void lens_origins_release(struct lens_origins *o)
{
	lens_free(o->v);
	*o = (struct lens_origins){ NULL, 0, 0 };
}

static enum lens_status reserve(struct lens_origins *o, size_t more, struct lens_error *err)
{
	size_t cap = lens_max(o->cap, 64);
	struct lens_origin *v;

	if (more <= o->cap - o->n)
		return LENS_OK;
	while (cap < o->n + more)
		cap *= 2;
	v = lens_realloc(o->v, cap, sizeof(*v));
	if (!v)
		return lens_error_nomem(err, cap, sizeof(*v));
	o->v = v;
	o->cap = cap;
	return LENS_OK;
}

enum lens_status lens_origins_of_text(struct lens_origins *o, size_t len,
				      struct lens_error *err)
{
	LENS_TRY(reserve(o, len, err));
	for (o->n = 0; o->n < len; o->n++)
		o->v[o->n] = (struct lens_origin){ (uint32_t)o->n, (uint32_t)o->n + 1 };
	return LENS_OK;
}

enum lens_status lens_origins_keep(struct lens_origins *o, struct lens_text text, size_t at,
				   size_t n, struct lens_error *err)
{
	if (!text.from || !n)
		return LENS_OK;
	LENS_TRY(reserve(o, n, err));
	memcpy(o->v + o->n, text.from + at, n * sizeof(*o->v));
	o->n += n;
	return LENS_OK;
}

/* Together; what was put in by an earlier step comes from nowhere and adds nothing. */
static struct lens_origin together(struct lens_text text, const struct lens_origin *part)
{
	struct lens_origin all = { 0, 0 };
	size_t i;

	for (i = part->from; i < part->to; i++) {
		const struct lens_origin *one = &text.from[i];

		if (one->from == one->to)
			continue;
		if (all.from == all.to)
			all = *one;
		all.from = one->from < all.from ? one->from : all.from;
		all.to = one->to > all.to ? one->to : all.to;
	}
	return all;
}

enum lens_status lens_origins_replace(struct lens_origins *o, struct lens_text text,
				      const struct lens_origin *part, size_t n,
				      struct lens_error *err)
{
	struct lens_origin all;

	if (!text.from || !n)
		return LENS_OK;
	LENS_TRY(reserve(o, n, err));
	for (all = together(text, part); n; n--)
		o->v[o->n++] = all;
	return LENS_OK;
}
