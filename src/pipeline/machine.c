/*
 * pipeline/machine.c: what the machine gives: the CPU level, and room for OpenBLAS's
 * threads.
 */
#include "pipeline/pipeline_private.h"

#include <sys/mman.h>
#include <sys/resource.h>

enum lens_status lens_open_cpu(enum lens_cpu_choice choice, enum lens_cpu_level *level,
			       struct lens_error *err)
{
	if (choice == LENS_CPU_AUTO)
		LENS_TRY(lens_cpu_detect(level, err));
	else
		*level = choice == LENS_CPU_AVX512 ? LENS_LEVEL_AVX512 : LENS_LEVEL_AVX2;
	return lens_kernels_open(*level, err);
}

#define BLAS_BUFFER ((size_t)128 << 20) /* of OpenBLAS, a thread */

enum lens_status lens_check_address_space(size_t threads, struct lens_error *err)
{
	struct rlimit limit;
	void *p;

	if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return LENS_OK;
	p = mmap(NULL, threads * BLAS_BUFFER, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return lens_error_set(err, LENS_ERR_NOMEM,
				      "too little address space (ulimit -v): OpenBLAS takes "
				      "128 MiB of it for each of %zu threads",
				      threads);
	munmap(p, threads * BLAS_BUFFER);
	return LENS_OK;
}
