/*
 * kernels/cpu.c: which instruction set this machine has, and which of our own kernels
 * are in use.
 */
#include "kernels/kernels_private.h"

#include <cpuid.h>

const char *lens_cpu_level_name(enum lens_cpu_level level)
{
	return level == LENS_LEVEL_AVX512 ? "avx512" : "avx2";
}

/* Not every __builtin_cpu_supports knows it (clang 14 does not). */
static bool has_f16c(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

enum lens_status lens_cpu_detect(enum lens_cpu_level *level, struct lens_error *err)
{
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
		return lens_error_set(
			err, LENS_ERR_UNSUPPORTED,
			"this processor lacks AVX2, FMA or F16C, which h5lens needs");
	*level = LENS_LEVEL_AVX2;
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
		*level = LENS_LEVEL_AVX512;
	return LENS_OK;
}

static const struct lens_vec *vec;

void lens_vec_select(enum lens_cpu_level level)
{
	vec = level == LENS_LEVEL_AVX512 ? &lens_vec_avx512 : &lens_vec_avx2;
}

const struct lens_vec *lens_vec(void)
{
	return vec;
}
