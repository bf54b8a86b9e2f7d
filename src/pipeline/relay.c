/*
 * pipeline/relay.c: one shard after the other, without a wait between them. In: which
 * shards are missing, how one is computed; out: all of them, or the first error.
 *
 * Two threads compute a shard each. A shard begins when the one before it has handed out
 * its last batch, and its workers take the places of those that end there: so there are
 * never more workers than places. Where memory does not suffice for two, one thread does it.
 */
#include "pipeline/pipeline_private.h"

#include <pthread.h>

struct lens_relay {
	const struct lens_relay_job *job;
	pthread_mutex_t mutex;
	pthread_cond_t moved;
	size_t next;  /* shard */
	size_t taken; /* places */
	bool dry;     /* the shard that began last has no batches left */
	bool failed;
	struct lens_error error;
};

bool lens_relay_take(struct lens_relay *r, struct lens_schedule *s)
{
	bool taken;

	if (!r)
		return true;
	pthread_mutex_lock(&r->mutex);
	while (r->taken >= r->job->places && lens_schedule_left(s))
		pthread_cond_wait(&r->moved, &r->mutex);
	taken = lens_schedule_left(s);
	r->taken += taken;
	pthread_mutex_unlock(&r->mutex);
	return taken;
}

void lens_relay_give(struct lens_relay *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->mutex);
	r->taken--;
	pthread_cond_broadcast(&r->moved);
	pthread_mutex_unlock(&r->mutex);
}

void lens_relay_dry(struct lens_relay *r, const struct lens_compute_job *shard)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->mutex);
	r->dry = r->dry || shard->shard + 1 == r->next;
	pthread_cond_broadcast(&r->moved);
	pthread_mutex_unlock(&r->mutex);
}

bool lens_relay_failed(struct lens_relay *r)
{
	bool failed;

	if (!r)
		return false;
	pthread_mutex_lock(&r->mutex);
	failed = r->failed;
	pthread_mutex_unlock(&r->mutex);
	return failed;
}

/* The next missing shard, when it may begin. False: there is none, or it must not. */
static bool begin_next(struct lens_relay *r, size_t *shard)
{
	const struct lens_relay_job *j = r->job;
	bool given;

	pthread_mutex_lock(&r->mutex);
	while (!r->dry && !r->failed)
		pthread_cond_wait(&r->moved, &r->mutex);
	while (r->next < j->n && !j->is_missing(j->ctx, r->next))
		r->next++;
	given = !r->failed && r->next < j->n;
	if (given) {
		*shard = r->next++;
		r->dry = false;
	}
	pthread_mutex_unlock(&r->mutex);
	return given;
}

static void end(struct lens_relay *r, size_t shard, const struct lens_error *e)
{
	pthread_mutex_lock(&r->mutex);
	if (e->code != LENS_OK && !r->failed) {
		r->failed = true;
		r->error = *e;
	}
	r->dry = r->dry || shard + 1 == r->next;
	pthread_cond_broadcast(&r->moved);
	pthread_mutex_unlock(&r->mutex);
}

static void *run(void *ctx)
{
	struct lens_relay *r = ctx;
	size_t shard;

	while (begin_next(r, &shard)) {
		struct lens_error e = LENS_ERROR_INIT;

		r->job->compute(r->job->ctx, r, shard, &e);
		end(r, shard, &e);
	}
	return NULL;
}

enum lens_status lens_relay_run(const struct lens_relay_job *job, struct lens_error *err)
{
	struct lens_relay r = { .job = job, .dry = true, .error = LENS_ERROR_INIT };
	pthread_t second;
	bool two;

	pthread_mutex_init(&r.mutex, NULL);
	pthread_cond_init(&r.moved, NULL);
	two = job->overlap && !pthread_create(&second, NULL, run, &r);
	run(&r);
	if (two)
		pthread_join(second, NULL);
	pthread_mutex_destroy(&r.mutex);
	pthread_cond_destroy(&r.moved);
	return lens_error_pass(err, &r.error);
}
