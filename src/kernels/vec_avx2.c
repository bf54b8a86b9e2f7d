/* kernels/vec_avx2.c: our kernels for AVX2 + FMA + F16C. See vec_impl.h. */
#include <immintrin.h>
#include <stdint.h>

#define VL 8
#define VEC lens_vec_avx2

static inline void to_f16_block(__m256 v, uint16_t *y)
{
	_mm_storeu_si128((__m128i *)(void *)y, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline __m256 larger(__m256 x, __m256 y)
{
	return _mm256_max_ps(x, y);
}

static inline __m256 smaller(__m256 x, __m256 y)
{
	return _mm256_min_ps(x, y);
}

static inline __m256d widen(__m128 v)
{
	return _mm256_cvtps_pd(v);
}

static inline __m128 low_half(__m256 v)
{
	return _mm256_castps256_ps128(v);
}

static inline __m128 high_half(__m256 v)
{
	return _mm256_extractf128_ps(v, 1);
}

static inline float largest(__m256 v)
{
	__m128 x = _mm_max_ps(low_half(v), high_half(v));

	x = _mm_max_ps(x, _mm_movehl_ps(x, x));
	return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

#include "kernels/vec_impl.h"
