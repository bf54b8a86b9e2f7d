/* kernels/vec_avx2.c: our kernels for AVX2 + FMA + F16C. See vec_impl.h. */
#include <immintrin.h>
#include <stdint.h>

#define VL 8
#define VEC lens_vec_avx2

static inline void to_f16_block(__m256 v, uint16_t *y)
{
	_mm_storeu_si128((__m128i *)(void *)y, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/vec_impl.h"
