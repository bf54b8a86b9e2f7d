/*
 * forward/batch.c: what a row of a batch is: the only place that knows how prompts lie
 * in it. In: prompts' tokens; out: which row each position has.
 *
 * On AVX2 the kernels treat the rows of every twelve in two ways, so that a row's bits
 * depend on its place: there a position's row is congruent to it modulo twelve, in any
 * batch, also when the rows before it are absent. Elsewhere the alignment is 1.
 */
#include "forward/forward_private.h"

#include <string.h>

static size_t align_up(size_t n)
{
	size_t align = lens_row_align();

	return (n + align - 1) / align * align;
}

size_t lens_batch_rows(size_t length)
{
	return align_up(length);
}

size_t lens_batch_rows_from(size_t length, size_t from)
{
	return align_up(length - from + from % lens_row_align());
}

size_t lens_batch_bytes(size_t max_prompts, size_t max_tokens, size_t max_rows)
{
	const struct lens_batch *b = NULL;

	return max_prompts * (sizeof(*b->tokens) + sizeof(*b->length) + sizeof(*b->read_pos) +
			      sizeof(*b->first)) +
	       max_tokens * sizeof(*b->row) +
	       max_rows * (sizeof(*b->token) + sizeof(*b->position));
}

enum lens_status lens_batch_init(struct lens_batch *b, size_t max_prompts, size_t max_tokens,
				 size_t max_rows, struct lens_error *err)
{
	*b = (struct lens_batch){ .max_prompts = max_prompts,
				  .max_tokens = max_tokens,
				  .max_rows = max_rows };
	b->tokens = lens_calloc(max_prompts, sizeof(*b->tokens));
	b->length = lens_calloc(max_prompts, sizeof(*b->length));
	b->read_pos = lens_calloc(max_prompts, sizeof(*b->read_pos));
	b->first = lens_calloc(max_prompts, sizeof(*b->first));
	b->row = lens_calloc(max_tokens, sizeof(*b->row));
	b->token = lens_calloc(max_rows, sizeof(*b->token));
	b->position = lens_calloc(max_rows, sizeof(*b->position));
	if (b->tokens && b->length && b->read_pos && b->first && b->row && b->token &&
	    b->position)
		return LENS_OK;
	return lens_error_nomem(err, max_prompts + max_tokens + max_rows, sizeof(size_t));
}

void lens_batch_release(struct lens_batch *b)
{
	lens_free(b->tokens);
	lens_free(b->length);
	lens_free(b->read_pos);
	lens_free(b->first);
	lens_free(b->row);
	lens_free(b->token);
	lens_free(b->position);
	memset(b, 0, sizeof(*b));
}

void lens_batch_clear(struct lens_batch *b)
{
	b->n_prompts = b->n_rows = b->n_tokens = 0;
}

void lens_batch_pack(struct lens_batch *b, const int32_t *tokens, size_t length,
		     int32_t read_pos, size_t from)
{
	size_t prompt = b->n_prompts++, pos, row = b->n_rows + from % lens_row_align();
	int32_t *rows = b->row + b->n_tokens;

	b->tokens[prompt] = tokens;
	b->length[prompt] = length;
	b->read_pos[prompt] = read_pos;
	b->first[prompt] = b->n_tokens;
	b->n_tokens += length;
	for (pos = 0; pos < lens_min(from, length); pos++)
		rows[pos] = -1;
	for (; b->n_rows < row; b->n_rows++)
		b->token[b->n_rows] = b->position[b->n_rows] = -1;
	for (; pos < length; pos++) {
		rows[pos] = (int32_t)b->n_rows;
		b->token[b->n_rows] = tokens[pos];
		b->position[b->n_rows++] = (int32_t)pos;
	}
	for (row = align_up(b->n_rows); b->n_rows < row; b->n_rows++)
		b->token[b->n_rows] = b->position[b->n_rows] = -1;
}

void lens_batch_keep_read(const struct lens_batch *b, size_t *first, struct lens_batch *kept)
{
	size_t i, align = lens_row_align();

	*kept = *b;
	kept->row = NULL;
	kept->token = kept->position = NULL;
	kept->first = first;
	for (i = 0; i < b->n_prompts; i++)
		first[i] = i * align + (size_t)b->read_pos[i] % align;
	kept->n_rows = b->n_prompts * align;
}

void lens_batch_span(const struct lens_batch *b, size_t prompt, size_t *from, size_t *end)
{
	for (*from = 0; *from < b->length[prompt]; ++*from) {
		if (lens_batch_row(b, prompt, *from) >= 0)
			break;
	}
	for (*end = b->length[prompt]; *end > *from; --*end) {
		if (lens_batch_row(b, prompt, *end - 1) >= 0)
			break;
	}
}

bool lens_batch_is_run(const struct lens_batch *b, size_t prompt, size_t from, size_t end)
{
	size_t pos;

	for (pos = from + 1; pos < end; pos++) {
		if (lens_batch_row(b, prompt, pos) != lens_batch_row(b, prompt, pos - 1) + 1)
			return false;
	}
	return lens_batch_row(b, prompt, from) >= 0;
}

void lens_batch_gather(const struct lens_batch *b, const struct lens_rows *r, float *out)
{
	size_t pos;

	for (pos = r->from; pos < r->end; pos++, out += r->width)
		memcpy(out, r->data + (size_t)lens_batch_row(b, r->prompt, pos) * r->stride,
		       r->width * sizeof(*out));
}

void lens_batch_scatter(const struct lens_batch *b, const struct lens_rows *r, const float *in,
			float *data)
{
	size_t pos;

	for (pos = r->from; pos < r->end; pos++, in += r->width)
		memcpy(data + (size_t)lens_batch_row(b, r->prompt, pos) * r->stride, in,
		       r->width * sizeof(*in));
}
