/*
 * pipeline/writer.c: the one thread that calls the store. Workers fill buffers
 * of a bounded pool; the writer puts whole chunks into the file as they come,
 * and gathers the blocks of rows of datasets whose chunks span batches.
 *
 * The queue holds at most as many entries as there are buffers, so submit never
 * waits; acquire waits for a free buffer. A worker holds one buffer at a time.
 */
#include "pipeline/pipeline_private.h"

#include <pthread.h>
#include <string.h>

/* A chunk that is being gathered. */
struct open_chunk {
	size_t index, rows; /* place in the grid; rows that have come */
	unsigned char *data;
	struct open_chunk *next;
};

struct gathered {
	size_t row_bytes, chunk_rows, n_rows;
	enum lens_dtype dtype;
	struct open_chunk *open, *spare;
};

struct lens_writer {
	struct lens_store *store;
	const struct lens_plan *plan;
	const int *store_id;
	struct gathered *gathered; /* [n_datasets] */
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t queued, freed;
	size_t n_buffers, buffer_bytes, n_free, n_made;
	void **free;                 /* [n_buffers] */
	struct lens_captured *queue; /* ring of n_buffers */
	size_t head, n_queued;
	bool running, finishing, stopped;
	struct lens_error error;
	_Atomic uint64_t bytes;  /* read by workers, for the progress */
	struct lens_times times; /* the thread's own */
	double waited;           /* seconds that workers waited for buffers */
};

/* --- the writer's side ------------------------------------------------------------ */

static struct open_chunk *find_open(struct gathered *g, size_t index, struct lens_error *err)
{
	size_t bytes = g->chunk_rows * g->row_bytes;
	struct open_chunk *c;

	for (c = g->open; c; c = c->next) {
		if (c->index == index)
			return c;
	}
	c = g->spare;
	if (c) {
		g->spare = c->next;
	} else {
		c = lens_calloc(1, sizeof(*c));
		if (c)
			c->data = lens_alloc_pages(bytes);
		if (!c || !c->data) {
			lens_free(c);
			lens_error_nomem(err, bytes, 1);
			return NULL;
		}
	}
	lens_fill(g->dtype, c->data, bytes / lens_dtype_size(g->dtype));
	c->index = index;
	c->rows = 0;
	c->next = g->open;
	g->open = c;
	return c;
}

static enum lens_status write_chunk(struct lens_writer *w, int dataset,
				    const struct lens_store_chunk *c, struct lens_error *err)
{
	double start = lens_now();
	enum lens_status st;

	lens_store_lock();
	st = lens_store_write_chunk(w->store, w->store_id[dataset], c, err);
	lens_store_unlock();
	w->times.write += lens_now() - start;
	w->bytes += c->nbytes;
	return st;
}

static enum lens_status write_gathered(struct lens_writer *w, int dataset, struct open_chunk *c,
				       struct lens_error *err)
{
	struct gathered *g = &w->gathered[dataset];
	size_t coord[LENS_MAX_RANK] = { c->index }, bytes = g->chunk_rows * g->row_bytes;
	uint8_t digest[LENS_XXH3_BYTES];
	struct open_chunk **link = &g->open;
	double start = lens_now();

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	c->next = g->spare;
	g->spare = c;
	lens_xxh3(c->data, bytes, digest);
	w->times.digest += lens_now() - start;
	return write_chunk(w, dataset,
			   &(struct lens_store_chunk){ coord, c->data, bytes, digest }, err);
}

/* How many of a block's rows from i on stand one after the other in one chunk. */
static size_t run_of(const struct gathered *g, const struct lens_captured *c, size_t i)
{
	size_t n = 1, row = c->row ? c->row[i] : c->row0 + i;
	size_t most = lens_min(c->n_rows - i, g->chunk_rows - row % g->chunk_rows);

	while (n < most && (!c->row || c->row[i + n] == row + n))
		n++;
	return n;
}

/* Rows of one chunk, one after the other. */
static enum lens_status gather_run(struct lens_writer *w, int dataset, size_t row, size_t n,
				   const unsigned char *data, struct lens_error *err)
{
	struct gathered *g = &w->gathered[dataset];
	size_t index = row / g->chunk_rows, at = row % g->chunk_rows;
	size_t expected = g->n_rows - index * g->chunk_rows;
	struct open_chunk *open = find_open(g, index, err);

	if (!open)
		return LENS_ERR_NOMEM;
	memcpy(open->data + at * g->row_bytes, data, n * g->row_bytes);
	open->rows += n;
	if (open->rows < lens_min(expected, g->chunk_rows))
		return LENS_OK;
	return write_gathered(w, dataset, open, err);
}

static enum lens_status gather(struct lens_writer *w, const struct lens_captured *c,
			       struct lens_error *err)
{
	const struct gathered *g = &w->gathered[c->dataset];
	double start = lens_now(), before = w->times.digest + w->times.write;
	size_t i, n;

	for (i = 0; i < c->n_rows; i += n) {
		n = run_of(g, c, i);
		LENS_TRY(gather_run(w, c->dataset, c->row ? c->row[i] : c->row0 + i, n,
				    (const unsigned char *)c->data + i * g->row_bytes, err));
	}
	w->times.convert += lens_now() - start - (w->times.digest + w->times.write - before);
	return LENS_OK;
}

static enum lens_status put(struct lens_writer *w, const struct lens_captured *c,
			    struct lens_error *err)
{
	size_t coord[LENS_MAX_RANK] = { 0 };

	if (c->by_rows)
		return gather(w, c, err);
	memcpy(coord, c->coord, sizeof(c->coord));
	return write_chunk(w, c->dataset,
			   &(struct lens_store_chunk){ coord, c->data, c->bytes, c->digest },
			   err);
}

static void *writer_main(void *arg)
{
	struct lens_writer *w = arg;

	pthread_mutex_lock(&w->mutex);
	for (;;) {
		struct lens_captured c;
		bool broken = w->error.code != LENS_OK;
		struct lens_error e = LENS_ERROR_INIT;

		while (!w->n_queued && !w->finishing)
			pthread_cond_wait(&w->queued, &w->mutex);
		if (!w->n_queued)
			break;
		c = w->queue[w->head];
		w->head = (w->head + 1) % w->n_buffers;
		w->n_queued--;
		pthread_mutex_unlock(&w->mutex);
		if (!broken)
			put(w, &c, &e);
		pthread_mutex_lock(&w->mutex);
		if (e.code != LENS_OK && w->error.code == LENS_OK)
			w->error = e;
		w->free[w->n_free++] = c.data;
		pthread_cond_broadcast(&w->freed);
	}
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

/* --- the workers' side -------------------------------------------------------------- */

/* Under the lock. */
static void wait_for_buffer(struct lens_writer *w)
{
	double start = lens_now();

	while (!w->n_free && w->n_made == w->n_buffers && !w->stopped && !w->error.code)
		pthread_cond_wait(&w->freed, &w->mutex);
	w->waited += lens_now() - start;
}

static enum lens_status acquire(void *ctx, size_t bytes, void **out, struct lens_error *err)
{
	struct lens_writer *w = ctx;
	enum lens_status st = LENS_OK;

	*out = NULL;
	if (bytes > w->buffer_bytes)
		return lens_error_set(err, LENS_ERR_INTERNAL, "a buffer of %zu bytes, not %zu",
				      bytes, w->buffer_bytes);
	pthread_mutex_lock(&w->mutex);
	if (!w->n_free)
		wait_for_buffer(w);
	if (w->error.code != LENS_OK || w->stopped) {
		st = w->error.code ? w->error.code : LENS_ERR_INTERRUPTED;
	} else if (w->n_free) {
		*out = w->free[--w->n_free];
	} else {
		*out = lens_alloc_pages(w->buffer_bytes);
		w->n_made += *out != NULL;
		if (!*out)
			st = lens_error_nomem(err, w->buffer_bytes, 1);
	}
	pthread_mutex_unlock(&w->mutex);
	return st;
}

static enum lens_status submit(void *ctx, const struct lens_captured *c, struct lens_error *err)
{
	struct lens_writer *w = ctx;

	(void)err;
	pthread_mutex_lock(&w->mutex);
	w->queue[(w->head + w->n_queued++) % w->n_buffers] = *c;
	pthread_cond_signal(&w->queued);
	pthread_mutex_unlock(&w->mutex);
	return LENS_OK;
}

struct lens_sink lens_writer_sink(struct lens_writer *w)
{
	return (struct lens_sink){ .acquire = acquire, .submit = submit, .ctx = w };
}

void lens_writer_stop(struct lens_writer *w)
{
	pthread_mutex_lock(&w->mutex);
	w->stopped = true;
	pthread_cond_broadcast(&w->freed);
	pthread_mutex_unlock(&w->mutex);
}

enum lens_status lens_writer_finish(struct lens_writer *w, struct lens_error *err)
{
	if (w->running) {
		pthread_mutex_lock(&w->mutex);
		w->finishing = true;
		pthread_cond_signal(&w->queued);
		pthread_mutex_unlock(&w->mutex);
		pthread_join(w->thread, NULL);
		w->running = false;
	}
	return lens_error_pass(err, &w->error);
}

uint64_t lens_writer_bytes(struct lens_writer *w)
{
	return w->bytes;
}

void lens_writer_add_times(const struct lens_writer *w, struct lens_run_times *t)
{
	t->writer.convert += w->times.convert;
	t->writer.digest += w->times.digest;
	t->writer.write += w->times.write;
	t->workers.compute -= w->waited;
}

/* --- life ---------------------------------------------------------------------------- */

static enum lens_status prepare(struct lens_writer *w, struct lens_error *err)
{
	size_t i, n = w->plan->n_datasets;
	int k;

	w->gathered = lens_calloc(n, sizeof(*w->gathered));
	w->free = lens_calloc(w->n_buffers, sizeof(*w->free));
	w->queue = lens_calloc(w->n_buffers, sizeof(*w->queue));
	if (!w->gathered || !w->free || !w->queue)
		return lens_error_nomem(err, n, sizeof(*w->gathered));
	for (i = 0; i < n; i++) {
		const struct lens_planned *d = &w->plan->dataset[i];
		struct gathered *g = &w->gathered[i];

		g->dtype = d->dtype;
		g->n_rows = d->extent[0];
		g->chunk_rows = d->chunk[0];
		g->row_bytes = lens_dtype_size(d->dtype);
		for (k = 1; k < d->rank; k++)
			g->row_bytes *= d->extent[k];
	}
	if (pthread_create(&w->thread, NULL, writer_main, w))
		return lens_error_set(err, LENS_ERR_NOMEM, "cannot start the writer's thread");
	w->running = true;
	return LENS_OK;
}

enum lens_status lens_writer_create(struct lens_store *s, const struct lens_plan *p,
				    const int *store_id, const struct lens_memory *m,
				    struct lens_writer **out, struct lens_error *err)
{
	struct lens_writer *w = lens_calloc(1, sizeof(*w));
	enum lens_status st;

	*out = NULL;
	if (!w)
		return lens_error_nomem(err, 1, sizeof(*w));
	w->store = s;
	w->plan = p;
	w->store_id = store_id;
	w->n_buffers = m->buffers;
	w->buffer_bytes = m->buffer;
	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->queued, NULL);
	pthread_cond_init(&w->freed, NULL);
	st = prepare(w, err);
	if (st == LENS_OK)
		*out = w;
	else
		lens_writer_destroy(w);
	return st;
}

static void release_chunks(struct open_chunk *c)
{
	while (c) {
		struct open_chunk *next = c->next;

		lens_free(c->data);
		lens_free(c);
		c = next;
	}
}

void lens_writer_destroy(struct lens_writer *w)
{
	size_t i;

	if (!w)
		return;
	lens_writer_finish(w, NULL);
	if (w->gathered) {
		for (i = 0; i < w->plan->n_datasets; i++) {
			release_chunks(w->gathered[i].open);
			release_chunks(w->gathered[i].spare);
		}
	}
	for (i = 0; i < w->n_free; i++)
		lens_free(w->free[i]);
	pthread_mutex_destroy(&w->mutex);
	pthread_cond_destroy(&w->queued);
	pthread_cond_destroy(&w->freed);
	lens_free(w->gathered);
	lens_free(w->free);
	lens_free(w->queue);
	lens_free(w);
}
