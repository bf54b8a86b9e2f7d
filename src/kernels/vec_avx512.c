/* kernels/vec_avx512.c: our kernels for AVX-512 F/BW/DQ/VL. See vec_impl.h. */
#include <immintrin.h>
#include <stdint.h>

#define VL 16
#define VEC lens_vec_avx512

static inline void to_f16_block(__m512 v, uint16_t *y)
{
	_mm256_storeu_si256((__m256i *)(void *)y,
			    _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

#include "kernels/vec_impl.h"
