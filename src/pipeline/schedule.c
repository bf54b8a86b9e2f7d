/*
 * pipeline/schedule.c: which batch is next. Batches start in order and none
 * runs far ahead of an unfinished one, so that the chunks that batches share
 * stay few.
 */
#include "pipeline/pipeline_private.h"

#include <pthread.h>

struct lens_schedule {
	pthread_mutex_t mutex;
	pthread_cond_t moved;
	size_t n, window, next, oldest;
	bool *done; /* [n] */
	bool stopped;
};

enum lens_status lens_schedule_create(size_t n, size_t window, struct lens_schedule **out,
				      struct lens_error *err)
{
	struct lens_schedule *s = lens_calloc(1, sizeof(*s));

	*out = NULL;
	if (s)
		s->done = lens_calloc(n, sizeof(*s->done));
	if (!s || !s->done) {
		lens_free(s);
		return lens_error_nomem(err, n, sizeof(*s));
	}
	s->n = n;
	s->window = window;
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->moved, NULL);
	*out = s;
	return LENS_OK;
}

bool lens_schedule_next(struct lens_schedule *s, size_t *batch)
{
	bool given;

	pthread_mutex_lock(&s->mutex);
	while (!s->stopped && s->next < s->n && s->next >= s->oldest + s->window)
		pthread_cond_wait(&s->moved, &s->mutex);
	given = !s->stopped && s->next < s->n;
	if (given)
		*batch = s->next++;
	pthread_mutex_unlock(&s->mutex);
	return given;
}

bool lens_schedule_left(struct lens_schedule *s)
{
	bool left;

	pthread_mutex_lock(&s->mutex);
	left = !s->stopped && s->next < s->n;
	pthread_mutex_unlock(&s->mutex);
	return left;
}

void lens_schedule_done(struct lens_schedule *s, size_t batch)
{
	pthread_mutex_lock(&s->mutex);
	s->done[batch] = true;
	while (s->oldest < s->n && s->done[s->oldest])
		s->oldest++;
	pthread_cond_broadcast(&s->moved);
	pthread_mutex_unlock(&s->mutex);
}

void lens_schedule_stop(struct lens_schedule *s)
{
	pthread_mutex_lock(&s->mutex);
	s->stopped = true;
	pthread_cond_broadcast(&s->moved);
	pthread_mutex_unlock(&s->mutex);
}

void lens_schedule_destroy(struct lens_schedule *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->mutex);
	pthread_cond_destroy(&s->moved);
	lens_free(s->done);
	lens_free(s);
}
