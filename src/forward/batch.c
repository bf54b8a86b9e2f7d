/*
 * forward/batch.c: what a row of a batch is: the only place that knows how prompts lie
 * in it. In: prompts' tokens; out: which row each position has.
 *
 * On AVX2 the kernels compute rows 0–5 and rows 6–11 of every twelve in two ways, so that
 * a row's bits depend on its half. Which half it has must follow from what it is: even
 * positions lie in the first, odd ones in the second, in any batch, also when the rows
 * before them are absent. Each half is filled without gaps, whatever prompts the positions
 * are of; so gaps are only at a batch's end, where one half has fewer rows than the other
 * or the last twelve are not full. Elsewhere there is one way, and rows are consecutive.
 *
 * Prompts that begin alike: the rows of all beginnings are a tree, in which a row's
 * children are the tokens that follow it in some prompt.
 */
#include "forward/forward_private.h"

#include <string.h>

/* Adds the rows of n prompts' positions from … length − 1. */
static void count_rows(struct lens_row_count *c, size_t n, size_t length, size_t from)
{
	size_t way, ways = lens_row_ways();

	for (way = 0; way < ways && from < length; way++)
		c->n[way] +=
			n * ((length + ways - 1 - way) / ways - (from + ways - 1 - way) / ways);
}

void lens_batch_count(struct lens_row_count *c, size_t length, size_t from)
{
	count_rows(c, 1, length, from);
}

size_t lens_batch_rows(size_t n, size_t length)
{
	struct lens_row_count c = { { 0 } };

	count_rows(&c, n, length, 0);
	return lens_row_places(&c);
}

size_t lens_batch_bytes(size_t max_prompts, size_t max_tokens, size_t max_rows)
{
	const struct lens_batch *b = NULL;

	return max_prompts * (sizeof(*b->tokens) + sizeof(*b->length) + sizeof(*b->read_pos) +
			      sizeof(*b->first) + sizeof(*b->own)) +
	       max_tokens * sizeof(*b->row) +
	       max_rows * (sizeof(*b->token) + sizeof(*b->position) + sizeof(*b->next) +
			   sizeof(*b->beside));
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
	b->own = lens_calloc(max_prompts, sizeof(*b->own));
	b->row = lens_calloc(max_tokens, sizeof(*b->row));
	b->token = lens_calloc(max_rows, sizeof(*b->token));
	b->position = lens_calloc(max_rows, sizeof(*b->position));
	b->next = lens_calloc(max_rows, sizeof(*b->next));
	b->beside = lens_calloc(max_rows, sizeof(*b->beside));
	lens_batch_clear(b);
	if (b->tokens && b->length && b->read_pos && b->first && b->own && b->row && b->token &&
	    b->position && b->next && b->beside)
		return LENS_OK;
	return lens_error_nomem(err, max_prompts + max_tokens + max_rows, sizeof(size_t));
}

void lens_batch_release(struct lens_batch *b)
{
	lens_free(b->tokens);
	lens_free(b->length);
	lens_free(b->read_pos);
	lens_free(b->first);
	lens_free(b->own);
	lens_free(b->row);
	lens_free(b->token);
	lens_free(b->position);
	lens_free(b->next);
	lens_free(b->beside);
	memset(b, 0, sizeof(*b));
}

void lens_batch_clear(struct lens_batch *b)
{
	b->n_prompts = b->n_rows = b->n_tokens = 0;
	b->begin = -1;
	b->used = (struct lens_row_count){ { 0 } };
}

bool lens_batch_has_room(const struct lens_batch *b, size_t n, size_t length, size_t from)
{
	struct lens_row_count c = b->used;

	count_rows(&c, n, length, from);
	/* Each has a row of its own where only read positions go on, whatever they share. */
	return b->n_prompts + n <= b->max_prompts &&
	       b->n_prompts + n <= lens_row_room(b->max_rows) &&
	       b->n_tokens + n * length <= b->max_tokens && lens_row_places(&c) <= b->max_rows;
}

/* --- packing --------------------------------------------------------------------------- */

/* The rows of the longest beginning that an earlier prompt has too; returns its length. */
static size_t find_beginning(const struct lens_batch *b, const int32_t *tokens, size_t length,
			     int32_t *rows)
{
	int32_t row = b->begin;
	size_t pos;

	for (pos = 0; pos < length; pos++) {
		while (row >= 0 && b->token[row] != tokens[pos])
			row = b->beside[row];
		if (row < 0)
			break;
		rows[pos] = row;
		row = b->next[row];
	}
	return pos;
}

/* The next row of a position's way. Those that come with it are gaps as yet. */
static int32_t take_row(struct lens_batch *b, int32_t token, size_t pos)
{
	size_t way = lens_row_way(pos), row = lens_row_place(way, b->used.n[way]++);
	size_t n = lens_row_places(&b->used);

	for (; b->n_rows < n; b->n_rows++)
		b->token[b->n_rows] = b->position[b->n_rows] = -1;
	b->token[row] = token;
	b->position[row] = (int32_t)pos;
	return (int32_t)row;
}

/* A new row, which follows another or begins; others may find it. */
static void add_branch(struct lens_batch *b, int32_t row, int32_t *list)
{
	b->next[row] = -1;
	b->beside[row] = *list;
	*list = row;
}

void lens_batch_pack(struct lens_batch *b, const int32_t *tokens, size_t length,
		     int32_t read_pos, size_t from)
{
	size_t prompt = b->n_prompts++, pos, first = lens_min(from, length);
	bool share = b->share && !from;
	int32_t *rows = b->row + b->n_tokens;

	b->tokens[prompt] = tokens;
	b->length[prompt] = length;
	b->read_pos[prompt] = read_pos;
	b->first[prompt] = b->n_tokens;
	b->own[prompt] = 0;
	b->n_tokens += length;
	if (share)
		first = b->own[prompt] = find_beginning(b, tokens, length, rows);
	else
		memset(rows, -1, first * sizeof(*rows));
	for (pos = first; pos < length; pos++) {
		rows[pos] = take_row(b, tokens[pos], pos);
		if (share)
			add_branch(b, rows[pos], pos ? &b->next[rows[pos - 1]] : &b->begin);
	}
}

/* --- reading it ------------------------------------------------------------------------ */

void lens_batch_keep_read(const struct lens_batch *b, size_t *first, struct lens_batch *kept)
{
	struct lens_row_count used = { { 0 } };
	size_t i;

	*kept = *b;
	kept->row = NULL;
	kept->token = kept->position = NULL;
	kept->first = first;
	for (i = 0; i < b->n_prompts; i++) {
		size_t way = lens_row_way((size_t)b->read_pos[i]);

		first[i] = lens_row_place(way, used.n[way]++);
	}
	kept->n_rows = lens_row_places(&used);
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
