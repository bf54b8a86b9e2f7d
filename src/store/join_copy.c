/*
 * store/join_copy.c: copies numbers from the shards' chunks to the chunks of the joined
 * file. In: surveyed shards. Out: whole chunks with digests. One of them and a few of the
 * shards' are in memory at a time.
 */
#include <string.h>

#include "store/join_private.h"

#define MOST_HELD ((size_t)32 << 20) /* bytes of the shards' chunks, but for a larger one */
#define N_OPEN 4                     /* shards open at once */
#define N_HELD 16

/* A shard and its dataset, open while the dataset is copied. */
struct source {
	bool open;
	size_t shard;
	unsigned long used;
	struct lens_h5_file f;
	struct lens_h5_dataset d;
};

/* A shard's chunk in memory. */
struct held {
	bool there, written;
	size_t shard;
	hsize_t index;
	unsigned long used;
	unsigned char *data; /* kept for the next chunk: most are of the same size */
	size_t size;         /* of data */
};

struct lens_copier {
	const struct lens_joined *j;
	const struct lens_join_dataset *d;
	struct source source[N_OPEN];
	struct held held[N_HELD];
	size_t held_bytes;
	unsigned long clock;
	size_t element;              /* bytes */
	size_t chunk[LENS_MAX_RANK]; /* of the joined dataset */
	size_t chunk_bytes;
	unsigned char *buf;
	size_t buf_size;
	bool filled;               /* buf holds values; else there are none so far */
	size_t low[LENS_MAX_RANK]; /* where buf's chunk begins in the joined dataset */
};

enum lens_status lens_join_advance(struct lens_join_progress *p, uint64_t bytes,
				   struct lens_error *err)
{
	const struct lens_join_options *o = p->opt;

	if (!o)
		return LENS_OK;
	if (o->stop && atomic_load(o->stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED,
				      "stopped while shards were joined");
	p->done = bytes < p->total - p->done ? p->done + bytes : p->total;
	if (o->progress)
		o->progress(o->ctx, p->done, p->total);
	return LENS_OK;
}

/* --- the shards ------------------------------------------------------------------------ */

static void source_close(struct source *s)
{
	if (s->open) {
		lens_h5_dataset_close(&s->d);
		lens_h5_close(&s->f);
	}
	s->open = false;
}

/* The file may have changed since the survey. */
static bool as_surveyed(const struct lens_copier *c, const struct source *s)
{
	int i;

	if (s->d.dtype != (int)c->d->dtype || s->d.rank != c->d->rank)
		return false;
	for (i = 0; i < s->d.rank; i++) {
		if (s->d.extent[i] != lens_join_part(c->j, c->d, s->shard, i))
			return false;
	}
	/* A row of a table is never cut: one chunk may be larger than what else is held. */
	return s->d.grid.chunk_bytes <= lens_max(MOST_HELD, s->f.io->size);
}

static enum lens_status source_open(struct lens_copier *c, size_t shard, struct source *s,
				    struct lens_error *err)
{
	const char *file = c->j->shard[shard].file;
	enum lens_status st;

	LENS_TRY(lens_h5_open(file, &s->f, err));
	st = lens_h5_dataset_open(&s->f, c->d->path, &s->d, err);
	if (st != LENS_OK) {
		lens_h5_close(&s->f);
		return st;
	}
	s->open = true;
	s->shard = shard;
	st = lens_h5_read_grid(&s->f, &s->d, err);
	if (st == LENS_OK && !as_surveyed(c, s))
		st = lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				   "dataset '%.600s': changed meanwhile, or impossible chunks",
				   c->d->path);
	if (st != LENS_OK)
		source_close(s);
	return st;
}

static enum lens_status find_source(struct lens_copier *c, size_t shard, struct source **out,
				    struct lens_error *err)
{
	struct source *oldest = &c->source[0];
	size_t i;

	for (i = 0; i < N_OPEN; i++) {
		struct source *s = &c->source[i];

		if (s->open && s->shard == shard) {
			s->used = ++c->clock;
			*out = s;
			return LENS_OK;
		}
		if (oldest->open && (!s->open || s->used < oldest->used))
			oldest = s;
	}
	source_close(oldest);
	LENS_TRY(source_open(c, shard, oldest, err));
	oldest->used = ++c->clock;
	*out = oldest;
	return LENS_OK;
}

static void held_free(struct lens_copier *c, struct held *h)
{
	c->held_bytes -= h->size;
	lens_free(h->data);
	*h = (struct held){ .there = false };
}

/* The least recently used place, with room for size bytes. */
static enum lens_status held_place(struct lens_copier *c, size_t size, struct held **out,
				   struct lens_error *err)
{
	struct held *h = &c->held[0];
	size_t i;

	for (i = 1; i < N_HELD; i++) {
		if (c->held[i].used < h->used)
			h = &c->held[i];
	}
	h->there = false;
	*out = h;
	if (h->size >= size)
		return LENS_OK;
	held_free(c, h);
	for (i = 0; c->held_bytes + size > MOST_HELD && i < N_HELD; i++)
		held_free(c, &c->held[i]); /* rare: chunks of very different sizes */
	h->data = lens_alloc_aligned(size, 1);
	if (!h->data)
		return lens_error_nomem(err, size, 1);
	h->size = size;
	c->held_bytes += size;
	return LENS_OK;
}

static enum lens_status find_chunk(struct lens_copier *c, struct source *s, hsize_t index,
				   struct held **out, struct lens_error *err)
{
	size_t i, size = (size_t)s->d.grid.chunk_bytes;
	struct held *h;

	for (i = 0; i < N_HELD; i++) {
		h = &c->held[i];
		if (h->there && h->shard == s->shard && h->index == index) {
			h->used = ++c->clock;
			*out = h;
			return LENS_OK;
		}
	}
	LENS_TRY(held_place(c, size, &h, err));
	h->shard = s->shard;
	h->index = index;
	h->used = ++c->clock;
	LENS_TRY(lens_h5_read_chunk(&s->f, &s->d, index, h->data, &h->written, err));
	h->there = true;
	*out = h;
	return LENS_OK;
}

/* --- boxes ------------------------------------------------------------------------------- */

/* Elements [low, high) of each axis, numbered as in the shard. */
struct box {
	size_t low[LENS_MAX_RANK], high[LENS_MAX_RANK];
};

/* Moves at[] to the next place of [low, high) in the first n_axes; false: back at low. */
static bool next_place(size_t *at, const size_t *low, const size_t *high, int n_axes)
{
	int i;

	for (i = n_axes - 1; i >= 0; i--) {
		if (++at[i] < high[i])
			return true;
		at[i] = low[i];
	}
	return false;
}

/* Copies box b, which lies in one chunk of the shard, to its place in buf. */
static void copy_box(struct lens_copier *c, const struct source *s, const unsigned char *chunk,
		     const struct box *b, size_t first_row)
{
	size_t at[LENS_MAX_RANK], from, to, n;
	int i, last = s->d.rank - 1;

	memcpy(at, b->low, sizeof(at));
	n = (b->high[last] - b->low[last]) * c->element;
	do {
		from = to = 0;
		for (i = 0; i <= last; i++) {
			size_t row = at[i] + (i ? 0 : first_row);

			from = from * (size_t)s->d.grid.chunk[i] +
			       at[i] % (size_t)s->d.grid.chunk[i];
			to = to * c->chunk[i] + (row - c->low[i]);
		}
		memcpy(c->buf + to * c->element, chunk + from * c->element, n);
	} while (next_place(at, b->low, b->high, last));
}

/* Rows number their tokens in the shard; then, in the joined file. */
static void count_on(struct lens_copier *c, size_t shard, const struct box *b, size_t first_row)
{
	int64_t *v = (int64_t *)(void *)c->buf + (first_row + b->low[0] - c->low[0]);
	size_t i, first = lens_join_first_token(c->j, shard);

	for (i = 0; i < b->high[0] - b->low[0]; i++)
		v[i] = (int64_t)((uint64_t)v[i] + first);
}

/* The part of box b that is in the shard's chunk at coord. */
static struct box cut(const struct source *s, const struct box *b, const size_t *coord)
{
	struct box part = { { 0 }, { 0 } };
	int i;

	for (i = 0; i < s->d.rank; i++) {
		size_t low = coord[i] * (size_t)s->d.grid.chunk[i];
		size_t high = low + (size_t)s->d.grid.chunk[i];

		part.low[i] = lens_max(b->low[i], low);
		part.high[i] = lens_min(b->high[i], high);
	}
	return part;
}

static enum lens_status copy_from(struct lens_copier *c, size_t shard, const struct box *b,
				  size_t first_row, struct lens_error *err)
{
	size_t first[LENS_MAX_RANK], past[LENS_MAX_RANK], coord[LENS_MAX_RANK];
	struct source *s;
	struct held *h = NULL;
	hsize_t index;
	struct box part;
	int i;

	LENS_TRY(find_source(c, shard, &s, err));
	for (i = 0; i < s->d.rank; i++) {
		first[i] = b->low[i] / (size_t)s->d.grid.chunk[i];
		past[i] = (b->high[i] - 1) / (size_t)s->d.grid.chunk[i] + 1;
		coord[i] = first[i];
	}
	do {
		for (i = 0, index = 0; i < s->d.rank; i++)
			index = index * s->d.grid.n[i] + coord[i];
		LENS_TRY(find_chunk(c, s, index, &h, err));
		if (!h->written)
			continue;
		if (!c->filled)
			lens_fill(c->d->dtype, c->buf, c->chunk_bytes / c->element);
		c->filled = true;
		part = cut(s, b, coord);
		copy_box(c, s, h->data, &part, first_row);
		if (c->d->counts_tokens)
			count_on(c, shard, &part, first_row);
	} while (next_place(coord, first, past, s->d.rank));
	return LENS_OK;
}

/* The box of a shard's elements that belong to the chunk in buf; false: none. */
static bool box_of(const struct lens_copier *c, size_t shard, size_t first_row, struct box *b)
{
	int i;

	for (i = 0; i < c->d->rank; i++) {
		size_t low = c->low[i], high = low + c->chunk[i];
		size_t start = i ? 0 : first_row;
		size_t end = start + lens_join_part(c->j, c->d, shard, i);

		low = lens_max(low, start);
		high = lens_min(high, end);
		if (low >= high)
			return false;
		b->low[i] = low - start;
		b->high[i] = high - start;
	}
	return true;
}

static enum lens_status gather(struct lens_copier *c, struct lens_error *err)
{
	size_t shard, first_row = 0, n = c->d->along ? c->j->n_shards : 1;
	struct box b;

	for (shard = 0; shard < n; shard++) {
		if (box_of(c, shard, first_row, &b))
			LENS_TRY(copy_from(c, shard, &b, first_row, err));
		first_row += lens_join_part(c->j, c->d, shard, 0);
		if (first_row >= c->low[0] + c->chunk[0])
			break;
	}
	return LENS_OK;
}

/* --- one dataset ------------------------------------------------------------------------- */

/* Is there nothing but fill in buf, equal bit by bit? */
static bool only_fill(const struct lens_copier *c)
{
	unsigned char fill[8];

	lens_fill(c->d->dtype, fill, 1);
	return !memcmp(c->buf, fill, c->element) &&
	       !memcmp(c->buf, c->buf + c->element, c->chunk_bytes - c->element);
}

static enum lens_status copy_chunk(struct lens_store *s, struct lens_copier *c,
				   const size_t *coord, struct lens_error *err)
{
	uint8_t digest[LENS_XXH3_BYTES];
	const struct lens_store_chunk chunk = { coord, c->buf, c->chunk_bytes, digest };
	int i;

	for (i = 0; i < c->d->rank; i++)
		c->low[i] = coord[i] * c->chunk[i];
	c->filled = false;
	LENS_TRY(gather(c, err));
	if (!c->filled || only_fill(c))
		return LENS_OK;
	lens_xxh3(c->buf, c->chunk_bytes, digest);
	return lens_store_write_chunk(s, c->d->id, &chunk, err);
}

static enum lens_status copy_all(struct lens_store *s, struct lens_copier *c,
				 struct lens_join_progress *p, struct lens_error *err)
{
	size_t coord[LENS_MAX_RANK] = { 0 }, zero[LENS_MAX_RANK] = { 0 }, grid[LENS_MAX_RANK];
	int i;

	for (i = 0; i < c->d->rank; i++) {
		size_t extent = lens_join_extent(c->j, c->d, i);

		grid[i] = (extent + c->chunk[i] - 1) / c->chunk[i];
		if (!extent)
			return LENS_OK;
	}
	do {
		LENS_TRY(copy_chunk(s, c, coord, err));
		LENS_TRY(lens_join_advance(p, c->chunk_bytes, err));
	} while (next_place(coord, zero, grid, c->d->rank));
	return LENS_OK;
}

static enum lens_status set_chunk(struct lens_copier *c, const size_t *chunk,
				  struct lens_error *err)
{
	int i;

	c->element = c->chunk_bytes = lens_dtype_size(c->d->dtype);
	for (i = 0; i < c->d->rank; i++) {
		c->chunk[i] = chunk[i];
		c->chunk_bytes *= chunk[i];
	}
	if (c->buf_size >= c->chunk_bytes)
		return LENS_OK;
	lens_free(c->buf);
	c->buf = lens_alloc_pages(c->chunk_bytes);
	c->buf_size = c->buf ? c->chunk_bytes : 0;
	return c->buf ? LENS_OK : lens_error_nomem(err, c->chunk_bytes, 1);
}

enum lens_status lens_join_copy(struct lens_copier *c, struct lens_store *s,
				const struct lens_join_dataset *d, const size_t *chunk,
				struct lens_join_progress *p, struct lens_error *err)
{
	enum lens_status st;
	size_t i;

	c->d = d;
	st = set_chunk(c, chunk, err);
	if (st == LENS_OK)
		st = copy_all(s, c, p, err);
	for (i = 0; i < N_OPEN; i++)
		source_close(&c->source[i]);
	for (i = 0; i < N_HELD; i++)
		c->held[i].there = false;
	return st;
}

enum lens_status lens_copier_create(const struct lens_joined *j, struct lens_copier **out,
				    struct lens_error *err)
{
	*out = lens_calloc(1, sizeof(**out));
	if (!*out)
		return lens_error_nomem(err, 1, sizeof(**out));
	(*out)->j = j;
	return LENS_OK;
}

void lens_copier_destroy(struct lens_copier *c)
{
	size_t i;

	if (!c)
		return;
	for (i = 0; i < N_HELD; i++)
		held_free(c, &c->held[i]);
	lens_free(c->buf);
	lens_free(c);
}
