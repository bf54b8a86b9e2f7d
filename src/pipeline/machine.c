/*
 * pipeline/machine.c: what the machine gives: CPU level and threads.
 */
#include "pipeline/pipeline_private.h"

#include <sched.h>

enum lens_status lens_open_cpu(enum lens_cpu_choice choice, enum lens_cpu_level *level,
			       struct lens_error *err)
{
	if (choice == LENS_CPU_AUTO)
		LENS_TRY(lens_cpu_detect(level, err));
	else
		*level = choice == LENS_CPU_AVX512 ? LENS_LEVEL_AVX512 : LENS_LEVEL_AVX2;
	return lens_kernels_open(*level, err);
}

size_t lens_thread_count(size_t asked)
{
	const char *slurm = getenv("SLURM_CPUS_PER_TASK");
	cpu_set_t set;

	if (asked)
		return asked;
	if (slurm && strtoul(slurm, NULL, 10) > 0)
		return strtoul(slurm, NULL, 10);
	if (!sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) > 0)
		return (size_t)CPU_COUNT(&set);
	return 1;
}
