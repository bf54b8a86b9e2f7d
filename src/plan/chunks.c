/*
 * plan/chunks.c: rows → blocks, and every dataset's extent and chunks. In: what the
 * file holds and its rows; out: a shape for each hook point and each table.
 */
#include "plan/plan_private.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_TOKENS 1024   /* packed rows of a block at most, unless one prompt has more */
#define MOST_BLOCK_ROWS 256 /* prompts of a block */
#define MOST_CHUNK ((size_t)4 << 20) /* bytes of a chunk */
/* Blocks share the chunks of datasets to which each adds less than this. */
#define SMALL_BLOCK ((size_t)1 << 20)
/*
 * Of datasets without padding: a batch ends within a chunk, so each has some open at a time,
 * and there may be hundreds of them.
 */
#define TOKEN_CHUNK ((size_t)512 << 10)
#define CHUNKS_TRIED 1024

/* --- blocks ---------------------------------------------------------------------- */

size_t lens_largest_batch(const struct lens_prompts *p, size_t batch_rows)
{
	struct lens_row_count c = { { 0 } };
	size_t i, most = 0;

	for (i = 0; i < p->n_rows; i++) {
		if (i % batch_rows == 0)
			c = (struct lens_row_count){ { 0 } };
		lens_batch_count(&c, lens_prompt_length(p, i), 0);
		most = lens_max(lens_row_places(&c), most);
	}
	return most;
}

/*
 * The largest power of two whose blocks stay within BLOCK_TOKENS; small sets
 * are cut into 16 blocks, so that threads find work. A batch is a block, until
 * lens_plan_fit puts several into one.
 */
void lens_plan_blocks(struct lens_plan *p)
{
	size_t most = lens_max(p->prompts->n_rows / 16, 8);
	size_t rows = MOST_BLOCK_ROWS;

	while (rows > most)
		rows /= 2;
	while (rows > 1 && lens_largest_batch(p->prompts, rows) > BLOCK_TOKENS)
		rows /= 2;
	p->block_rows = rows;
	lens_plan_batches(p, 1);
}

void lens_plan_batches(struct lens_plan *p, size_t blocks)
{
	p->batch_rows = blocks * p->block_rows;
	p->n_batches = (p->prompts->n_rows + p->batch_rows - 1) / p->batch_rows;
	p->max_packed = (lens_largest_batch(p->prompts, p->batch_rows) + 11) / 12 * 12;
}

/* --- positions -------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return x < y ? -1 : x > y;
}

enum lens_status lens_median_length(const struct lens_prompts *p, size_t *out,
				    struct lens_error *err)
{
	size_t i, *length = lens_calloc(p->n_rows, sizeof(*length));

	if (!length)
		return lens_error_nomem(err, p->n_rows, sizeof(*length));
	for (i = 0; i < p->n_rows; i++)
		length[i] = lens_prompt_length(p, i);
	qsort(length, p->n_rows, sizeof(*length), by_size);
	*out = length[p->n_rows / 2];
	lens_free(length);
	return LENS_OK;
}

/*
 * Positions of a chunk: all, unless the longest prompt is far longer than most;
 * then about as many as most have, so that one long row does not fill
 * the file with padding.
 */
static enum lens_status position_chunk(const struct lens_prompts *p, size_t *out,
				       struct lens_error *err)
{
	size_t median;

	*out = p->max_length;
	LENS_TRY(lens_median_length(p, &median, err));
	if (p->max_length > 2 * median)
		*out = (median + 7) / 8 * 8;
	return LENS_OK;
}

/* --- chunks ----------------------------------------------------------------------- */

static size_t product(const size_t *x, int from, int to)
{
	size_t n = 1;

	for (; from < to; from++)
		n *= x[from];
	return n;
}

/* From 1 to most. */
static size_t at_most(size_t n, size_t most)
{
	return n ? lens_min(n, most) : 1;
}

/*
 * Rows of a chunk that blocks share. Of large rows a chunk holds a part of one block: that
 * is block_rows halved, so that no chunk has rows of two blocks.
 */
static size_t shared_rows(const struct lens_plan *p, size_t row_bytes)
{
	size_t blocks = SMALL_BLOCK / (p->block_rows * row_bytes);
	size_t rows = p->block_rows * lens_max(blocks, 1);

	while (rows > 1 && rows * row_bytes > MOST_CHUNK)
		rows /= 2;
	return at_most(rows, p->prompts->n_rows);
}

/* Positions and heads of a chunk: [prompt, head, query, key] … */
static void chunk_square(struct lens_shape *s, size_t pos_chunk, size_t element)
{
	s->chunk[3] = lens_min(pos_chunk, s->extent[3]);
	s->chunk[2] = lens_min(pos_chunk, s->extent[2]);
	s->chunk[1] = at_most(MOST_CHUNK / (s->chunk[2] * s->chunk[3] * element), s->extent[1]);
	if (s->chunk[1] == 1)
		s->chunk[2] = at_most(MOST_CHUNK / (s->chunk[3] * element), s->chunk[2]);
}

/* … or [prompt, pos, …]. */
static void chunk_tokens(struct lens_shape *s, int rank, size_t pos_chunk, size_t element)
{
	size_t width = product(s->extent, 2, rank) * element;

	s->chunk[1] = at_most(MOST_CHUNK / width, lens_min(pos_chunk, s->extent[1]));
}

/* Chunks of a dataset that one block fills whole. */
static void chunk_by_block(const struct lens_plan *p, const struct lens_planned *d,
			   struct lens_shape *s, size_t pos_chunk)
{
	bool square = lens_hook_is_square(p->capture.spec[d->source].hook);
	size_t element = lens_dtype_size(d->dtype), rows = p->block_rows, row;

	if (square)
		chunk_square(s, pos_chunk, element);
	else
		chunk_tokens(s, d->rank, pos_chunk, element);
	row = product(s->chunk, 1, d->rank) * element;
	while (rows > 1 && rows * row > MOST_CHUNK)
		rows /= 2;
	/* Scores and patterns are staged whole: a chunk that cuts a prompt up holds one. */
	if (square && (s->chunk[1] < s->extent[1] || s->chunk[2] < s->extent[2] ||
		       s->chunk[3] < s->extent[3]))
		rows = 1;
	s->chunk[0] = at_most(rows, p->prompts->n_rows);
}

/* Tokens for which the last of n tokens' chunks has room and nothing to hold. */
static size_t left_over(size_t n, size_t chunk)
{
	return (chunk - n % chunk) % chunk;
}

/* [token, …]: of chunks of about the right size those with least room in the last one. */
static void chunk_by_token(struct lens_shape *s, size_t row)
{
	size_t n = lens_max(s->extent[0], 1), most = lens_max(TOKEN_CHUNK / row, 1);
	size_t chunks = (n + most - 1) / most, even = (n + chunks - 1) / chunks;
	size_t best = even, chunk;

	for (chunk = even; chunk > even / 2 && even - chunk < CHUNKS_TRIED; chunk--) {
		if (left_over(n, chunk) < left_over(n, best))
			best = chunk;
	}
	s->chunk[0] = best;
}

static void make_shape(const struct lens_plan *p, const struct lens_planned *d,
		       size_t pos_chunk, struct lens_shape *s)
{
	size_t row = lens_row_bytes(d, &p->sizes);
	int i;

	for (i = 0; i < d->rank; i++)
		s->extent[i] = s->chunk[i] = lens_axis_extent(d->axis[i], &p->sizes);
	s->by_rows = d->from != LENS_FROM_HOOK ||
		     (!lens_by_token(d) && p->block_rows * row <= SMALL_BLOCK);
	if (lens_by_token(d))
		chunk_by_token(s, row);
	else if (s->by_rows)
		s->chunk[0] = shared_rows(p, row);
	else
		chunk_by_block(p, d, s, pos_chunk);
	lens_count_bytes(p, d, s);
	s->made = true;
}

/* --- shapes of all ----------------------------------------------------------------- */

static size_t shape_index(const struct lens_plan *p, const struct lens_planned *d)
{
	if (d->from == LENS_FROM_HOOK)
		return p->capture.spec[d->source].hook;
	return (size_t)LENS_HOOK_COUNT + d->source +
	       (d->from == LENS_FROM_OUTCOME ? (size_t)LENS_TABLE_COUNT : 0);
}

const struct lens_shape *lens_shape_of(const struct lens_plan *p, const struct lens_planned *d,
				       const struct lens_shape *shape)
{
	return &shape[shape_index(p, d)];
}

enum lens_status lens_plan_shapes(const struct lens_plan *p, struct lens_shape *shape,
				  struct lens_error *err)
{
	size_t i, pos_chunk;

	LENS_TRY(position_chunk(p->prompts, &pos_chunk, err));
	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];
		struct lens_shape *s = &shape[shape_index(p, d)];

		if (!s->made)
			make_shape(p, d, pos_chunk, s);
	}
	return LENS_OK;
}

static void take_shape(struct lens_planned *d, const struct lens_shape *s,
		       struct lens_capture_spec *spec)
{
	memcpy(d->extent, s->extent, sizeof(d->extent));
	memcpy(d->chunk, s->chunk, sizeof(d->chunk));
	d->data_bytes = s->data_bytes;
	d->file_bytes = s->file_bytes;
	if (d->from != LENS_FROM_HOOK)
		return;
	spec += d->source;
	memcpy(spec->extent, s->extent, sizeof(spec->extent));
	memcpy(spec->chunk, s->chunk, sizeof(spec->chunk));
	spec->by_rows = s->by_rows;
}

void lens_plan_take_shapes(struct lens_plan *p, const struct lens_shape *shape)
{
	size_t i;

	for (i = 0; i < p->n_datasets; i++) {
		struct lens_planned *d = &p->dataset[i];

		take_shape(d, lens_shape_of(p, d, shape), p->capture.spec);
	}
	lens_sum_bytes(p);
	lens_plan_order(p);
}
