/*
 * core/crew.c: threads that have run out of work help those that have not. In: workers that
 * begin and end; out: how many threads one of them may use at this moment. No result
 * depends on it.
 */
#include "h5lens/core.h"

#include <stdatomic.h>

static atomic_size_t busy, idle; /* workers; threads of workers that have ended */

void lens_crew_begin(size_t workers)
{
	atomic_store(&busy, workers);
	atomic_store(&idle, 0);
}

void lens_crew_rest(size_t threads)
{
	atomic_fetch_sub(&busy, 1);
	atomic_fetch_add(&idle, threads);
}

int lens_crew_share(int own)
{
	size_t n = atomic_load(&busy);

	return own + (n ? (int)(atomic_load(&idle) / n) : 0);
}
