/*
 * core/buf.c: growable byte and token-id buffers.
 */
#include "h5lens/core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum lens_status reserve(struct lens_buf *b, size_t extra, struct lens_error *err)
{
	size_t need, cap = b->cap ? b->cap : 64;
	char *data;

	if (!lens_size_add(b->len, extra, &need) || !lens_size_add(need, 1, &need))
		return lens_error_nomem(err, extra, 1);
	if (need <= b->cap)
		return LENS_OK;
	while (cap < need) {
		if (!lens_size_mul(cap, 2, &cap))
			return lens_error_nomem(err, need, 1);
	}
	data = lens_realloc(b->data, cap, 1);
	if (!data)
		return lens_error_nomem(err, cap, 1);
	b->data = data;
	b->cap = cap;
	return LENS_OK;
}

enum lens_status lens_buf_append(struct lens_buf *b, const void *data, size_t n,
				 struct lens_error *err)
{
	LENS_TRY(reserve(b, n, err));
	if (n)
		memcpy(b->data + b->len, data, n);
	b->len += n;
	b->data[b->len] = '\0';
	return LENS_OK;
}

enum lens_status lens_buf_printf(struct lens_buf *b, struct lens_error *err, const char *fmt,
				 ...)
{
	va_list ap, again;
	enum lens_status st;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		st = lens_error_set(err, LENS_ERR_INTERNAL, "vsnprintf failed");
	else
		st = reserve(b, (size_t)n, err);
	if (st == LENS_OK) {
		vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
		b->len += (size_t)n;
	}
	va_end(again);
	return st;
}

void lens_buf_release(struct lens_buf *b)
{
	lens_free(b->data);
	*b = (struct lens_buf)LENS_BUF_INIT;
}

enum lens_status lens_ids_push(struct lens_ids *ids, int32_t id, struct lens_error *err)
{
	int32_t *v = lens_grow(ids->v, ids->n, &ids->cap, sizeof(*v), err);

	if (!v)
		return LENS_ERR_NOMEM;
	ids->v = v;
	ids->v[ids->n++] = id;
	return LENS_OK;
}

enum lens_status lens_ids_append(struct lens_ids *to, const struct lens_ids *from,
				 struct lens_error *err)
{
	size_t i;

	for (i = 0; i < from->n; i++)
		LENS_TRY(lens_ids_push(to, from->v[i], err));
	return LENS_OK;
}

void lens_ids_release(struct lens_ids *ids)
{
	lens_free(ids->v);
	*ids = (struct lens_ids)LENS_IDS_INIT;
}
