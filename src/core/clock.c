/*
 * core/clock.c: the clock that runs are timed with.
 */
#include "h5lens/core.h"

#include <time.h>

double lens_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
