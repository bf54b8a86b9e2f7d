/*
 * test_pipeline.c: the schedule and the writer, driven by several threads: order
 * and window, blocks of rows that come in any order, errors of the disk, a pool
 * of very few buffers. Nothing here uses OpenMP, so that ThreadSanitizer can
 * watch it; the batches themselves are test_plan.c's.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pipeline/pipeline_private.h"
#include "support/numbers.h"
#include "support/runs.h"

#define MOST_THREADS 6

/* --- the schedule ------------------------------------------------------------------------ */

static void schedule_order(void **state)
{
	struct lens_schedule *s;
	size_t batch;

	(void)state;
	assert_int_equal(lens_schedule_create(5, 3, &s, NULL), LENS_OK);
	assert_true(lens_schedule_next(s, &batch) && batch == 0);
	assert_true(lens_schedule_next(s, &batch) && batch == 1);
	assert_true(lens_schedule_next(s, &batch) && batch == 2);
	lens_schedule_done(s, 1); /* 0 is the oldest still */
	lens_schedule_done(s, 0);
	assert_true(lens_schedule_next(s, &batch) && batch == 3);
	assert_true(lens_schedule_next(s, &batch) && batch == 4);
	assert_false(lens_schedule_next(s, &batch));
	lens_schedule_done(s, 4);
	lens_schedule_done(s, 2);
	lens_schedule_done(s, 3);
	assert_false(lens_schedule_next(s, &batch));
	lens_schedule_destroy(s);
	/* none at all; a window of one */
	assert_int_equal(lens_schedule_create(0, 1, &s, NULL), LENS_OK);
	assert_false(lens_schedule_next(s, &batch));
	lens_schedule_destroy(s);
	lens_schedule_destroy(NULL);
}

struct scheduled {
	struct lens_schedule *s;
	pthread_mutex_t mutex;
	size_t n, window, handed, oldest;
	bool done[256];
	bool broken; /* order or window */
};

static void *take_batches(void *arg)
{
	struct scheduled *x = arg;
	size_t batch;

	while (lens_schedule_next(x->s, &batch)) {
		pthread_mutex_lock(&x->mutex);
		x->broken |= batch >= x->n || x->done[batch] || batch >= x->oldest + x->window;
		x->handed++;
		pthread_mutex_unlock(&x->mutex);
		if (batch % 3 == 0)
			sched_yield();
		/* ours first: a batch that the schedule frees may be handed out at once */
		pthread_mutex_lock(&x->mutex);
		x->done[batch] = true;
		while (x->oldest < x->n && x->done[x->oldest])
			x->oldest++;
		pthread_mutex_unlock(&x->mutex);
		lens_schedule_done(x->s, batch);
	}
	return NULL;
}

static void run_threads(size_t n, void *(*fn)(void *), void *arg, size_t size)
{
	pthread_t thread[MOST_THREADS];
	size_t i;

	for (i = 0; i < n; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, fn, (char *)arg + i * size),
				 0);
	for (i = 0; i < n; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
}

static void schedule_threads(void **state)
{
	size_t threads, window;

	(void)state;
	for (threads = 1; threads <= MOST_THREADS; threads++) {
		for (window = 1; window <= 9; window += 4) {
			struct scheduled x = { .n = 200, .window = window };

			pthread_mutex_init(&x.mutex, NULL);
			assert_int_equal(lens_schedule_create(x.n, window, &x.s, NULL),
					 LENS_OK);
			run_threads(threads, take_batches, &x, 0);
			assert_int_equal(x.handed, x.n);
			assert_int_equal(x.oldest, x.n);
			assert_false(x.broken);
			lens_schedule_destroy(x.s);
			pthread_mutex_destroy(&x.mutex);
		}
	}
}

static void *wait_for_a_batch(void *arg)
{
	size_t batch;

	return lens_schedule_next(arg, &batch) ? arg : NULL;
}

/* A stop wakes those who wait at the window's end. */
static void schedule_stop(void **state)
{
	struct lens_schedule *s;
	pthread_t thread[3];
	size_t i, batch;
	void *given;

	(void)state;
	assert_int_equal(lens_schedule_create(9, 1, &s, NULL), LENS_OK);
	assert_true(lens_schedule_next(s, &batch));
	for (i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, wait_for_a_batch, s), 0);
	lens_schedule_stop(s);
	for (i = 0; i < 3; i++) {
		assert_int_equal(pthread_join(thread[i], &given), 0);
		assert_null(given);
	}
	lens_schedule_done(s, batch);
	assert_false(lens_schedule_next(s, &batch));
	lens_schedule_destroy(s);
}

static void schedule_out_of_memory(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_schedule *s;
	unsigned long k;

	(void)state;
	for (k = 1; k <= 2; k++) {
		err = (struct lens_error)LENS_ERROR_INIT;
		lens_alloc_fail_at(k);
		assert_int_equal(lens_schedule_create(9, 1, &s, &err), LENS_ERR_NOMEM);
		lens_alloc_fail_at(0);
		assert_null(s);
		assert_int_equal(err.code, LENS_ERR_NOMEM);
	}
}

/* --- a writer and its file -------------------------------------------------------- */

/*
 * Three datasets over 50 prompts in batches of 4: rows gathered into chunks of
 * three batches, rows of a byte each in one chunk of all prompts, and whole
 * chunks of [4, 2, 3].
 */
enum { ROWS = 50, BATCH = 4, BATCHES = 13, GATHERED = 0, FLAGS, CHUNKED, DATASETS };

static struct lens_planned planned[DATASETS] = {
	{ .path = "/results/gathered",
	  .from = LENS_FROM_TABLE,
	  .dtype = LENS_F32,
	  .rank = 2,
	  .axis = { LENS_AXIS_PROMPT, LENS_AXIS_K },
	  .extent = { ROWS, 5 },
	  .chunk = { 12, 5 } },
	{ .path = "/results/flags",
	  .from = LENS_FROM_TABLE,
	  .dtype = LENS_U8,
	  .rank = 1,
	  .axis = { LENS_AXIS_PROMPT },
	  .extent = { ROWS },
	  .chunk = { ROWS } },
	{ .path = "/cache/chunked",
	  .from = LENS_FROM_HOOK,
	  .dtype = LENS_F32,
	  .rank = 3,
	  .axis = { LENS_AXIS_PROMPT, LENS_AXIS_POS, LENS_AXIS_D_HEAD },
	  .extent = { ROWS, 4, 3 },
	  .chunk = { 4, 2, 3 } },
};

static struct lens_prompts prompts = { .n_rows = ROWS };

static struct lens_plan plan = {
	.prompts = &prompts,
	.dataset = planned,
	.n_datasets = DATASETS,
	.sizes = { .n_prompts = ROWS, .top_k = 5, .n_pos = 4, .d_head = 3 },
};

struct rig {
	char *file;
	struct lens_store *store;
	struct lens_writer *writer;
	int id[DATASETS];
};

static void open_store(struct rig *r)
{
	struct lens_store *s;

	r->file = test_tmp_path("writer.h5");
	assert_int_equal(lens_store_create(r->file, &s, NULL), LENS_OK);
	assert_int_equal(lens_layout_create(s, &plan, r->id, NULL), LENS_OK);
	r->store = s;
}

static void open_rig(struct rig *r, size_t buffers)
{
	const struct lens_memory m = { .buffers = buffers,
				       .buffer = 4 * 4 * 3 * sizeof(float) };

	open_store(r);
	assert_int_equal(lens_writer_create(r->store, &plan, r->id, &m, &r->writer, NULL),
			 LENS_OK);
}

static void close_rig(struct rig *r)
{
	lens_writer_destroy(r->writer);
	lens_store_destroy(r->store);
	unlink(r->file);
	lens_free(r->file);
}

static float value(size_t dataset, size_t element)
{
	return (float)(dataset * 1000 + element % 997);
}

/* One worker: batches first, first + step, … in an order of its own. */
struct pusher {
	struct lens_sink sink;
	size_t first, step;
	bool backwards;
	enum lens_status status;
};

static enum lens_status push_rows(struct pusher *p, size_t dataset, size_t batch)
{
	size_t i, row = dataset == FLAGS ? 1 : 5, left = ROWS - batch * BATCH;
	struct lens_captured c = { .dataset = (int)dataset,
				   .by_rows = true,
				   .row0 = batch * BATCH,
				   .n_rows = left < BATCH ? left : BATCH };

	c.bytes = c.n_rows * row * (dataset == FLAGS ? 1 : sizeof(float));
	LENS_TRY(p->sink.acquire(p->sink.ctx, c.bytes, &c.data, NULL));
	for (i = 0; i < c.n_rows * row; i++) {
		float v = value(dataset, c.row0 * row + i);

		if (dataset == FLAGS)
			((unsigned char *)c.data)[i] = (unsigned char)(int)fmodf(v, 251);
		else
			((float *)c.data)[i] = v;
	}
	return p->sink.submit(p->sink.ctx, &c, NULL);
}

static enum lens_status push_chunk(struct pusher *p, size_t batch, size_t half)
{
	struct lens_captured c = { .dataset = CHUNKED,
				   .coord = { batch, half },
				   .bytes = 4 * 2 * 3 * sizeof(float) };
	size_t r, i;

	LENS_TRY(p->sink.acquire(p->sink.ctx, c.bytes, &c.data, NULL));
	lens_fill(LENS_F32, c.data, 4 * 2 * 3);
	for (r = 0; r < BATCH && batch * BATCH + r < ROWS; r++) {
		for (i = 0; i < 6; i++)
			((float *)c.data)[r * 6 + i] =
				value(CHUNKED, ((batch * BATCH + r) * 4 + half * 2) * 3 + i);
	}
	lens_xxh3(c.data, c.bytes, c.digest);
	return p->sink.submit(p->sink.ctx, &c, NULL);
}

static enum lens_status push_batch(struct pusher *p, size_t batch)
{
	LENS_TRY(push_chunk(p, batch, batch % 2));
	LENS_TRY(push_rows(p, GATHERED, batch));
	LENS_TRY(push_chunk(p, batch, 1 - batch % 2));
	return push_rows(p, FLAGS, batch);
}

static void *push(void *arg)
{
	struct pusher *p = arg;
	size_t n = (BATCHES - p->first + p->step - 1) / p->step, i;

	for (i = 0; p->status == LENS_OK && i < n; i++)
		p->status = push_batch(p, p->first + (p->backwards ? n - 1 - i : i) * p->step);
	return NULL;
}

static void push_all(struct rig *r, size_t threads, struct pusher *p)
{
	size_t i;

	for (i = 0; i < threads; i++)
		p[i] = (struct pusher){ .sink = lens_writer_sink(r->writer),
					.first = i,
					.step = threads,
					.backwards = i % 2 == 0 };
	run_threads(threads, push, p, sizeof(*p));
}

static void check_values(const char *file, size_t dataset)
{
	size_t extent[LENS_MAX_RANK], i, n = 1;
	double *x;
	int rank, k;

	assert_int_equal(lens_store_read_f64(file, planned[dataset].path, &x, &rank, extent,
					     NULL),
			 LENS_OK);
	for (k = 0; k < rank; k++)
		n *= extent[k];
	for (i = 0; i < n; i++) {
		double v = (double)value(dataset, i);

		if (dataset == FLAGS)
			v = fmod(v, 251);
		if (x[i] != v)
			fail_msg("%s[%zu] is %g, not %g", planned[dataset].path, i, x[i], v);
	}
	lens_free(x);
}

static void writer_threads(void **state)
{
	size_t threads, buffers, i, n, bad;

	(void)state;
	for (threads = 1; threads <= MOST_THREADS; threads++) {
		for (buffers = 1; buffers <= 7; buffers += 3) {
			struct pusher p[MOST_THREADS];
			struct rig r;

			open_rig(&r, buffers);
			push_all(&r, threads, p);
			assert_int_equal(lens_writer_finish(r.writer, NULL), LENS_OK);
			for (i = 0; i < threads; i++)
				assert_int_equal(p[i].status, LENS_OK);
			/* chunks as they lie in the file, edges included */
			assert_int_equal(lens_writer_bytes(r.writer),
					 5 * 12 * 5 * 4 + ROWS + 13 * 2 * 4 * 2 * 3 * 4);
			assert_int_equal(lens_store_commit(r.store, NULL), LENS_OK);
			assert_int_equal(lens_store_verify(r.file, NULL, NULL, &n, &bad, NULL),
					 LENS_OK);
			assert_int_equal(bad, 0);
			for (i = 0; i < DATASETS; i++)
				check_values(r.file, i);
			close_rig(&r);
		}
	}
}

/*
 * The disk fills up at the k-th write: workers hear of it from acquire or not at
 * all (HDF5 may write late, at commit), the writer tells its cause, nobody waits
 * for ever, and the final name holds a whole file or does not exist.
 */
static void writer_full_disk(void **state)
{
	unsigned long k;
	size_t good = 0, n, bad;

	(void)state;
	for (k = 1; !good; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct pusher p[3];
		enum lens_status st;
		struct rig r;
		size_t i;

		open_rig(&r, 2);
		lens_store_fail_at(k, ENOSPC);
		push_all(&r, 3, p);
		st = lens_writer_finish(r.writer, &err);
		assert_int_equal(err.code, st);
		for (i = 0; i < 3; i++) {
			assert_true(p[i].status == LENS_OK || p[i].status == LENS_ERR_NOSPACE);
			assert_true(p[i].status == LENS_OK || st == LENS_ERR_NOSPACE);
		}
		if (st == LENS_OK)
			st = lens_store_commit(r.store, NULL);
		assert_true(st == LENS_OK || st == LENS_ERR_NOSPACE);
		good = st == LENS_OK;
		lens_store_fail_at(0, 0);
		assert_true(st != LENS_OK || lens_file_exists(r.file));
		if (lens_file_exists(r.file)) { /* the last k: the folder's fsync failed */
			assert_int_equal(lens_store_verify(r.file, NULL, NULL, &n, &bad, NULL),
					 LENS_OK);
			assert_int_equal(bad, 0);
		}
		close_rig(&r);
	}
	assert_true(k > 2);
}

/* What the store refuses (a chunk written twice) reaches the workers. */
static void writer_error_reaches_workers(void **state)
{
	struct pusher p = { 0 };
	struct lens_error err = LENS_ERROR_INIT;
	struct rig r;
	size_t tries;

	(void)state;
	open_rig(&r, 1);
	p.sink = lens_writer_sink(r.writer);
	assert_int_equal(push_chunk(&p, 0, 0), LENS_OK);
	/* with one buffer, an acquire waits until the buffer before it is written */
	for (tries = 0; tries < 3 && p.status == LENS_OK; tries++)
		p.status = push_chunk(&p, 0, 0);
	assert_true(p.status != LENS_OK);
	assert_int_equal(tries, 2);
	assert_int_equal(lens_writer_finish(r.writer, &err), p.status);
	assert_true(err.text[0] != '\0');
	close_rig(&r);
}

static void *push_until_told(void *arg)
{
	struct pusher *p = arg;
	size_t i;

	for (i = 0; p->status == LENS_OK && i < 1000000; i++) {
		void *data;

		p->status = p->sink.acquire(p->sink.ctx, 8, &data, NULL);
		sched_yield(); /* the buffer is kept: the pool runs dry */
	}
	return NULL;
}

/* A stop wakes those who wait for a buffer. The buffers they hold are theirs. */
static void writer_stop(void **state)
{
	struct pusher p[2] = { { .step = 1 }, { .step = 1 } };
	pthread_t thread[2];
	struct rig r;
	void *kept[2];
	size_t i;

	(void)state;
	open_rig(&r, 2);
	for (i = 0; i < 2; i++) {
		p[i].sink = lens_writer_sink(r.writer);
		assert_int_equal(p[i].sink.acquire(p[i].sink.ctx, 8, &kept[i], NULL), LENS_OK);
	}
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, push_until_told, &p[i]), 0);
	lens_writer_stop(r.writer);
	for (i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(thread[i], NULL), 0);
		assert_int_equal(p[i].status, LENS_ERR_INTERRUPTED);
		lens_free(kept[i]);
	}
	assert_int_equal(lens_writer_finish(r.writer, NULL), LENS_OK);
	close_rig(&r);
}

static void writer_buffer_too_large(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_sink sink;
	struct rig r;
	void *data;

	(void)state;
	open_rig(&r, 2);
	sink = lens_writer_sink(r.writer);
	assert_int_equal(sink.acquire(sink.ctx, 4 * 4 * 3 * sizeof(float) + 1, &data, &err),
			 LENS_ERR_INTERNAL);
	assert_null(data);
	close_rig(&r);
}

/* Each allocation fails in turn: of the writer, of a buffer, of a chunk being gathered. */
static void writer_out_of_memory(void **state)
{
	const struct lens_memory m = { .buffers = 3, .buffer = 4 * 4 * 3 * sizeof(float) };
	unsigned long k, failures = 0;
	enum lens_status st = LENS_ERR_NOMEM;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct pusher p[1] = { { .step = 1 } };
		struct rig r = { 0 };

		open_store(&r);
		lens_alloc_fail_at(k);
		st = lens_writer_create(r.store, &plan, r.id, &m, &r.writer, &err);
		if (st == LENS_OK) {
			push_all(&r, 1, p);
			st = lens_writer_finish(r.writer, &err);
			assert_int_equal(err.code, st);
			assert_true(p->status == LENS_OK || p->status == LENS_ERR_NOMEM);
			if (st == LENS_OK)
				st = p->status;
		}
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		failures += st != LENS_OK;
		close_rig(&r);
	}
	assert_true(failures > 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(schedule_order),
		cmocka_unit_test(schedule_threads),
		cmocka_unit_test(schedule_stop),
		cmocka_unit_test(schedule_out_of_memory),
		cmocka_unit_test(writer_threads),
		cmocka_unit_test(writer_full_disk),
		cmocka_unit_test(writer_error_reaches_workers),
		cmocka_unit_test(writer_stop),
		cmocka_unit_test(writer_buffer_too_large),
		cmocka_unit_test(writer_out_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
