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

static inline __m512 larger(__m512 x, __m512 y)
{
	return _mm512_max_ps(x, y);
}

static inline __m512 smaller(__m512 x, __m512 y)
{
	return _mm512_min_ps(x, y);
}

static inline __m512d widen(__m256 v)
{
	return _mm512_cvtps_pd(v);
}

static inline __m256 low_half(__m512 v)
{
	return _mm512_castps512_ps256(v);
}

static inline __m256 high_half(__m512 v)
{
	return _mm512_extractf32x8_ps(v, 1);
}

static inline float largest(__m512 v)
{
	return _mm512_reduce_max_ps(v);
}

#include "kernels/vec_impl.h"
