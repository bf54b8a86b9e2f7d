/*
 * core/threads.c: how many threads a command uses. In: what was asked for, Slurm's
 * environment, the affinity mask. Out: a number from 1.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "h5lens/core.h"

/* More threads than this only cost memory. */
static size_t at_most(size_t threads)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	return lens_min(threads, 16 * (size_t)(online > 0 ? online : 1));
}

size_t lens_slurm_cpus(void)
{
	const char *text = getenv("SLURM_CPUS_PER_TASK");

	return text && strspn(text, "0123456789") == strlen(text) ? strtoul(text, NULL, 10) : 0;
}

size_t lens_thread_count(size_t asked)
{
	size_t slurm = lens_slurm_cpus();
	cpu_set_t set;

	if (asked)
		return at_most(asked);
	if (slurm)
		return at_most(slurm);
	if (!sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > 0)
		return (size_t)CPU_COUNT(&set);
	return 1;
}
