/*
 * test_relay.c: shards that follow each other: in order, the next from the moment at which
 * the one before has handed out its last batch, never more workers than places, and none
 * after a failure.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/pipeline_private.h"

enum { SHARDS = 9, MISSING = 7, WORKERS = 3, BATCHES = 5 };

struct sweep {
	struct lens_relay *relay;
	bool overlap;
	size_t fails; /* the shard that does; SHARDS: none */
	atomic_size_t at_work, most_at_work, shards, most_shards;
	pthread_mutex_t mutex;
	pthread_cond_t moved;
	size_t begun[SHARDS], n_begun; /* in order */
	size_t batches[SHARDS];
};

struct shard {
	struct sweep *sweep;
	struct lens_schedule *schedule;
	struct lens_compute_job job;
};

/* The second and the last but one are there already. */
static bool is_missing(void *ctx, size_t shard)
{
	(void)ctx;
	return shard != 1 && shard != SHARDS - 2;
}

static void count_up(atomic_size_t *n, atomic_size_t *most)
{
	size_t now = atomic_fetch_add(n, 1) + 1, was = atomic_load(most);

	while (now > was && !atomic_compare_exchange_weak(most, &was, now))
		;
}

static void *work(void *ctx)
{
	struct shard *s = ctx;
	struct sweep *w = s->sweep;
	size_t batch;

	if (!lens_relay_take(w->relay, s->schedule))
		return NULL;
	count_up(&w->at_work, &w->most_at_work);
	while (lens_schedule_next(s->schedule, &batch)) {
		pthread_mutex_lock(&w->mutex);
		w->batches[s->job.shard]++;
		pthread_mutex_unlock(&w->mutex);
		lens_schedule_done(s->schedule, batch);
	}
	atomic_fetch_sub(&w->at_work, 1);
	lens_relay_dry(w->relay, &s->job);
	lens_relay_give(w->relay);
	return NULL;
}

static void run_workers(struct shard *s)
{
	pthread_t thread[WORKERS];
	size_t i;

	for (i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work, s), 0);
	for (i = 0; i < WORKERS; i++)
		pthread_join(thread[i], NULL);
}

/* Where shards overlap, this one does not end before the next has begun. */
static void wait_for_next(struct sweep *w, size_t begun)
{
	pthread_mutex_lock(&w->mutex);
	while (w->overlap && w->fails == SHARDS && begun < MISSING && w->n_begun == begun)
		pthread_cond_wait(&w->moved, &w->mutex);
	pthread_mutex_unlock(&w->mutex);
}

static void compute(void *ctx, struct lens_relay *r, size_t shard, struct lens_error *err)
{
	struct sweep *w = ctx;
	struct shard s = { .sweep = w, .job = { .shard = shard } };
	size_t begun;

	count_up(&w->shards, &w->most_shards);
	pthread_mutex_lock(&w->mutex);
	w->relay = r;
	w->begun[w->n_begun++] = shard;
	begun = w->n_begun;
	pthread_cond_broadcast(&w->moved);
	pthread_mutex_unlock(&w->mutex);
	assert_int_equal(lens_schedule_create(BATCHES, BATCHES, &s.schedule, NULL), LENS_OK);
	run_workers(&s);
	if (shard == w->fails)
		lens_error_set(err, LENS_ERR_IO, "shard %zu", shard);
	else
		wait_for_next(w, begun);
	lens_schedule_destroy(s.schedule);
	atomic_fetch_sub(&w->shards, 1);
}

static enum lens_status run(struct sweep *w, struct lens_error *err)
{
	const struct lens_relay_job job = { .n = SHARDS,
					    .places = WORKERS,
					    .overlap = w->overlap,
					    .is_missing = is_missing,
					    .compute = compute,
					    .ctx = w };
	enum lens_status st;

	pthread_mutex_init(&w->mutex, NULL);
	pthread_cond_init(&w->moved, NULL);
	st = lens_relay_run(&job, err);
	pthread_mutex_destroy(&w->mutex);
	pthread_cond_destroy(&w->moved);
	return st;
}

static void all_in_order(void **state)
{
	static const size_t expected[] = { 0, 2, 3, 4, 5, 6, 8 };
	size_t overlap, i;

	(void)state;
	for (overlap = 0; overlap < 2; overlap++) {
		struct sweep w = { .overlap = overlap, .fails = SHARDS };

		assert_int_equal(run(&w, NULL), LENS_OK);
		assert_int_equal(w.n_begun, MISSING);
		assert_memory_equal(w.begun, expected, sizeof(expected));
		for (i = 0; i < SHARDS; i++)
			assert_int_equal(w.batches[i], is_missing(NULL, i) ? BATCHES : 0);
		assert_true(w.most_at_work <= WORKERS);
		assert_int_equal(w.most_shards, 1 + overlap);
	}
}

/* One shard alone ends there; another that has begun may go on. */
static void a_failure(void **state)
{
	size_t overlap;

	(void)state;
	for (overlap = 0; overlap < 2; overlap++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct sweep w = { .overlap = overlap, .fails = 3 };

		assert_int_equal(run(&w, &err), LENS_ERR_IO);
		assert_string_equal(err.text, "shard 3");
		assert_true(overlap ? w.n_begun >= 3 : w.n_begun == 3);
		assert_int_equal(w.begun[2], 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_in_order),
		cmocka_unit_test(a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
