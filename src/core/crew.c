/*
 * core/crew.c: threads that have run out of work help those that have not. In: workers that
 * begin and end; out: how many threads one of them may use at this moment. No result
 * depends on it.
 */
#include "h5lens/core.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t busy, idle; /* workers; threads of workers that have ended */

void lens_crew_join(size_t threads)
{
	pthread_mutex_lock(&mutex);
	busy++;
	idle -= lens_min(idle, threads);
	pthread_mutex_unlock(&mutex);
}

void lens_crew_rest(size_t threads)
{
	pthread_mutex_lock(&mutex);
	idle = --busy ? idle + threads : 0;
	pthread_mutex_unlock(&mutex);
}

int lens_crew_share(int own)
{
	size_t share;

	pthread_mutex_lock(&mutex);
	share = busy ? idle / busy : 0;
	pthread_mutex_unlock(&mutex);
	return own + (int)share;
}
