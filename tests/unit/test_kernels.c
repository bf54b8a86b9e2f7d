/*
 * test_kernels.c: the arithmetic but for matrix products (test_gemm.c), run once
 * for each CPU level (H5LENS_TEST_CPU): norms, activations, rotary positions, halves
 * and the readers of logits against a plain float64 computation, and their bits
 * against the same row or element in other company. Attention is in
 * test_attention.c.
 *
 * Tolerances are error bounds, not fitted: u is 2^-24, float32's unit roundoff.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/numbers.h"
#include "support/runs.h"

static struct test_random rnd = { 1 };

/* --- norms ----------------------------------------------------------------------- */

struct norm_case {
	size_t d;
	const float *x, *w, *b;
	double eps;
	bool rms;
};

static void run_norm(const struct norm_case *n, size_t rows, const float *x, float *y,
		     float *scale)
{
	if (n->rms)
		lens_vec()->rms_norm(rows, n->d, x, n->eps, y, scale);
	else
		lens_vec()->layer_norm(rows, n->d, x, n->w, n->b, n->eps, y, scale);
}

/*
 * The sums are float64, whose error in the mean is below d·2^-52·max|x|: with the
 * division by scale that is nothing beside the one rounding to float32, except
 * where x − mean cancels.
 */
static void check_norm_row(const struct norm_case *n, const float *x, const float *y,
			   float scale)
{
	double mean = 0, var = 0, s, most = 0, u = TEST_U * (1 + 1e-6);
	size_t i;

	for (i = 0; i < n->d; i++) {
		mean += n->rms ? 0 : (double)x[i] / (double)n->d;
		most = fmax(most, fabs((double)x[i]));
	}
	for (i = 0; i < n->d; i++)
		var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n->d;
	s = sqrt(var + n->eps);
	test_near((double)scale, s, u * s, "scale", (double)n->d);
	for (i = 0; i < n->d; i++) {
		double w = n->w ? (double)n->w[i] : 1, b = n->b ? (double)n->b[i] : 0;
		double v = ((double)x[i] - mean) / s * w + b;
		double slack =
			(double)n->d * 0x1p-50 * (most / s * fabs(w) + fabs(b)) + 0x1p-149;

		test_near((double)y[i], v, u * fabs(v) + slack, "norm", (double)i);
	}
}

static void check_norm(struct norm_case n)
{
	enum { N = 5 };
	float *x = test_random_floats(&rnd, N * n.d), *y = test_floats(N * n.d + 1, 7),
	      scale[N];
	float *alone = test_floats(n.d, 0), s;
	size_t i;

	for (i = 0; i < n.d; i++) {
		x[2 * n.d + i] = x[2 * n.d + i] * 1e-3f + 1000; /* a large mean */
		x[3 * n.d + i] = 0;
	}
	x[1 * n.d] = NAN;
	run_norm(&n, N, x, y, scale);
	assert_true(y[N * n.d] == 7);
	for (i = 0; i < N; i++) {
		if (i != 1)
			check_norm_row(&n, x + i * n.d, y + i * n.d, scale[i]);
		run_norm(&n, 1, x + i * n.d, alone, &s); /* the row alone: the same bits */
		test_assert_same(alone, y + i * n.d, n.d, "norm of a row alone");
		test_assert_same(&s, &scale[i], 1, "scale of a row alone");
	}
	assert_true(isnan(scale[1]));
	run_norm(&n, N, x, x, scale); /* in place */
	test_assert_same(x, y, N * n.d, "norm in place");
	lens_free(x);
	lens_free(y);
	lens_free(alone);
}

static void norms(void **state)
{
	static const size_t widths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 768, 769 };
	float *w = test_random_floats(&rnd, 800), *b = test_random_floats(&rnd, 800);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(widths) / sizeof(*widths); i++) {
		check_norm((struct norm_case){ .d = widths[i], .eps = 1e-5 });
		check_norm((struct norm_case){ .d = widths[i], .w = w, .b = b, .eps = 1e-5 });
		check_norm((struct norm_case){ .d = widths[i], .w = w, .b = b, .eps = 1e-12 });
		check_norm((struct norm_case){ .d = widths[i], .eps = 1e-6, .rms = true });
	}
	lens_free(w);
	lens_free(b);
}

/* --- activations ------------------------------------------------------------------- */

/* exp(−t) leaves float32's range at t = 88; what is behind it is below 6.1e-39. */
#define EXP_END 6.1e-39

static double exact(enum lens_act act, double x)
{
	double u;

	switch (act) {
	case LENS_ACT_RELU:
		return x < 0 ? 0 : x;
	case LENS_ACT_SILU:
		return x / (1 + exp(-x));
	case LENS_ACT_GELU:
		return x * 0.5 * erfc(-x * M_SQRT1_2); /* 1 + erf, without cancellation */
	default:
		/* 0.5x(1 + tanh u) is x/(1 + exp(−2u)) */
		u = 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
		return x / (1 + exp(-u));
	}
}

/*
 * silu, gelu_new: the exponent t has a relative error of 0 and 4u, so exp(t) has
 * one of 4u|t| more than vexp's own 3u; where exp(t) is small beside 1 that does
 * not count. Two more roundings for 1 + e and the quotient. gelu: computed in
 * float64 from an erfc that is good to 5e-11, and rounded once; nothing is left of
 * it below −14.
 */
static double activation_error(enum lens_act act, double x)
{
	double t = act == LENS_ACT_SILU ? x : 2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
	double y = exact(act, x), weight = 1 / (1 + exp(t));

	if (act == LENS_ACT_RELU)
		return 0;
	if (act == LENS_ACT_GELU)
		return (TEST_U + 5e-11) * fabs(y) + 0x1p-53 * fabs(x) + 0x1p-149;
	return TEST_U * fabs(y) * (3 + weight * (3 + 4 * fmin(fabs(t), 90))) +
	       EXP_END * fmin(fabs(x), 89) + 0x1p-149;
}

static void check_activation(enum lens_act act)
{
	enum { BLOCK = 1021 };
	static const float special[] = {
		0.0f,    -0.0f,    1e-45f, -1e-45f, 1e-38f, -1e-38f, 87.0f, -87.0f,
		88.5f,   -88.5f,   89.0f,  -89.0f,  1e4f,   -1e4f,   1e20f, -1e20f,
		3.4e38f, -3.4e38f, -5.5f,  -13.3f,  -14.1f, 1.0f,
	};
	float x[BLOCK], y[BLOCK];
	uint64_t bits = 0, step = test_quick() ? 0xf1357 : 0x3571;
	size_t i;

	memcpy(x, special, sizeof(special));
	i = sizeof(special) / sizeof(*special);
	while (bits < (uint64_t)1 << 32) {
		for (; i < BLOCK; i++, bits += step) {
			uint32_t u = (uint32_t)bits;

			memcpy(&x[i], &u, sizeof(u));
			if (!isfinite(x[i]))
				x[i] = 0.25f;
		}
		lens_vec()->activation(act, BLOCK, x, y);
		for (i = 0; i < BLOCK; i++)
			test_near((double)y[i], exact(act, (double)x[i]),
				  activation_error(act, (double)x[i]), "activation",
				  (double)x[i]);
		i = 0;
	}
}

static const enum lens_act acts[] = { LENS_ACT_GELU_NEW, LENS_ACT_GELU, LENS_ACT_RELU,
				      LENS_ACT_SILU };

static void activations(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++)
		check_activation(acts[i]);
}

/* x·softmax(x) of a row, in float64 from an exp that is good to 3.2e-13, and rounded once. */
static void solu_rows(void **state)
{
	enum { N = 70 };
	float *x = test_random_floats(&rnd, N), y[N + 1];
	size_t n, i, k;

	(void)state;
	for (k = 0; k < 3; k++) {
		for (i = 0; i < N; i++)
			x[i] *= k == 2 ? 80.0f : 3.0f; /* then some are nothing */
		for (n = 1; n <= N; n++) {
			double max = -INFINITY, sum = 0;

			for (i = 0; i < n; i++)
				max = fmax(max, (double)x[i]);
			for (i = 0; i < n; i++)
				sum += exp((double)x[i] - max);
			y[n] = 42;
			lens_vec()->activation(LENS_ACT_SOLU, n, x, y);
			for (i = 0; i < n; i++) {
				double want = (double)x[i] * exp((double)x[i] - max) / sum;

				test_near((double)y[i], want,
					  (TEST_U + 1e-12) * fabs(want) + 0x1p-149, "solu",
					  (double)x[i]);
			}
			assert_true(y[n] == 42);
		}
	}
	x[3] = NAN;
	lens_vec()->activation(LENS_ACT_SOLU, N, x, y);
	for (i = 0; i < N; i++)
		assert_true(isnan(y[i]));
	lens_free(x);
}

/* NaN stays NaN, ∞ stays ∞, and at −∞ the formula itself has no value but relu's. */
static void activations_not_finite(void **state)
{
	const float x[3] = { NAN, INFINITY, -INFINITY };
	float y[3];
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		lens_vec()->activation(acts[i], 3, x, y);
		assert_true(isnan(y[0]));
		assert_true(isinf(y[1]) && y[1] > 0);
		if (acts[i] == LENS_ACT_RELU)
			assert_true(y[2] == 0);
		else
			assert_true(isnan(y[2]));
	}
}

/* An element's bits do not depend on where in a row it stands. */
static void elementwise_positions(void **state)
{
	enum { N = 70 };
	float *x = test_random_floats(&rnd, N), *y0 = test_random_floats(&rnd, N), whole[N + 1];
	float part[N + 1];
	size_t a, from, n;

	(void)state;
	for (a = 0; a <= 4; a++) {
		for (from = 0; from < N; from += from < 18 ? 1 : 7) {
			for (n = 0; n <= N - from; n++) {
				memcpy(whole, y0, sizeof(*y0) * N);
				memcpy(part, y0 + from, n * sizeof(*part));
				part[n] = 42;
				if (a < 4) {
					lens_vec()->activation(acts[a], N, x, whole);
					lens_vec()->activation(acts[a], n, x + from, part);
				} else {
					lens_vec()->add(N, x, whole);
					lens_vec()->add(n, x + from, part);
				}
				test_assert_same(part, whole + from, n, "part of a row");
				assert_true(part[n] == 42);
			}
		}
	}
	for (n = 0; n < N; n++)
		assert_true(whole[n] == x[n] + y0[n]);
	lens_free(x);
	lens_free(y0);
}

/* --- rotary positions ----------------------------------------------------------------- */

/* Two products and a sum in float64, one rounding; what lies past the pairs stays. */
static void rotations(void **state)
{
	enum { MOST = 40 };
	double cosine[MOST], sine[MOST];
	size_t half, i;

	(void)state;
	for (half = 1; half <= MOST; half++) {
		float *x = test_random_floats(&rnd, 2 * half + 1), *y;

		y = test_floats(2 * half + 1, 0);
		memcpy(y, x, (2 * half + 1) * sizeof(*y));
		for (i = 0; i < half; i++) {
			cosine[i] = cos(0.7 * (double)(i * half));
			sine[i] = sin(0.7 * (double)(i * half));
		}
		lens_vec()->rotate(half, cosine, sine, y);
		for (i = 0; i < half; i++) {
			double a = (double)x[i], b = (double)x[half + i];
			double first = a * cosine[i] - b * sine[i];
			double second = b * cosine[i] + a * sine[i];
			double slack = 0x1p-50 * (fabs(a) + fabs(b));

			test_near((double)y[i], first, TEST_U * fabs(first) + slack, "rotated",
				  (double)i);
			test_near((double)y[half + i], second, TEST_U * fabs(second) + slack,
				  "rotated", (double)i);
		}
		assert_true(test_same(y[2 * half], x[2 * half]));
		lens_free(x);
		lens_free(y);
	}
}

static void products(void **state)
{
	float *x = test_random_floats(&rnd, 100), *y = test_random_floats(&rnd, 100), was[100];
	size_t n, i;

	(void)state;
	for (n = 0; n < 100; n++) {
		memcpy(was, y, sizeof(was));
		lens_vec()->multiply(n, x, y);
		for (i = 0; i < 100; i++)
			assert_true(test_same(y[i], i < n ? was[i] * x[i] : was[i]));
		memcpy(y, was, sizeof(was));
	}
	lens_free(x);
	lens_free(y);
}

/* One rounding, as it is fused; past n nothing is touched. */
static void scaled_sums(void **state)
{
	float *x = test_random_floats(&rnd, 100), *y = test_random_floats(&rnd, 100), was[100];
	size_t n, i;

	(void)state;
	for (n = 0; n < 100; n++) {
		memcpy(was, y, sizeof(was));
		lens_vec()->add_scaled(n, 0.7f, x, y);
		for (i = 0; i < 100; i++)
			assert_true(test_same(y[i], i < n ? fmaf(0.7f, x[i], was[i]) : was[i]));
		memcpy(y, was, sizeof(was));
	}
	lens_free(x);
	lens_free(y);
}

/* In float64: n roundings of partial sums, each at most 2^-53 of Σ|x·y|. */
static void dots(void **state)
{
	float *x = test_random_floats(&rnd, 100), *y = test_random_floats(&rnd, 100);
	double sum = 0, magnitude = 0;
	size_t n;

	(void)state;
	for (n = 0; n < 100; n++) {
		test_near(lens_vec()->dot(n, x, y), sum, (double)n * 0x1p-52 * magnitude, "dot",
			  (double)n);
		sum += (double)x[n] * (double)y[n];
		magnitude += fabs((double)x[n] * (double)y[n]);
	}
	lens_free(x);
	lens_free(y);
}

/* --- halves -------------------------------------------------------------------------- */

static double half_value(uint16_t h)
{
	int exponent = h >> 10 & 31, mantissa = h & 1023;
	double v = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

	if (exponent == 31)
		v = mantissa ? NAN : INFINITY;
	return h & 0x8000 ? -v : v;
}

static uint16_t to_half(float x, size_t *overflows)
{
	uint16_t y;

	*overflows = lens_vec()->to_f16(1, &x, &y);
	return y;
}

static void halves_round_trip(void **state)
{
	float x[256];
	uint16_t y[256];
	uint32_t h;

	(void)state;
	for (h = 0; h < 65536; h++) {
		x[h % 256] = (float)half_value((uint16_t)h);
		if (h % 256 != 255)
			continue;
		assert_int_equal(lens_vec()->to_f16(256, x, y), 0);
		for (uint32_t i = h - 255; i <= h; i++) {
			if (isnan(half_value((uint16_t)i)))
				assert_true(isnan(half_value(y[i % 256])));
			else
				assert_int_equal(y[i % 256], i);
		}
	}
}

/* Between two neighbours: the middle goes to the even one, the rest to the nearer. */
static void halves_rounding(void **state)
{
	uint32_t h, sign;
	size_t over;

	(void)state;
	for (sign = 0; sign <= 0x8000; sign += 0x8000) {
		for (h = 0; h < 0x7bff; h++) {
			float middle = (float)((half_value((uint16_t)(sign | h)) +
						half_value((uint16_t)(sign | (h + 1)))) /
					       2);

			assert_int_equal(to_half(middle, &over), sign | (h + (h & 1)));
			assert_int_equal(to_half(nextafterf(middle, 0), &over), sign | h);
			assert_int_equal(to_half(nextafterf(middle, sign ? -1e9f : 1e9f),
						 &over),
					 sign | (h + 1));
			assert_int_equal(over, 0);
		}
	}
	assert_int_equal(to_half(1e-10f, &over), 0);
	assert_int_equal(to_half(-1e-45f, &over), 0x8000);
}

static void halves_overflow(void **state)
{
	const float big[] = { 65519.996f, 65520.0f, -65520.0f,     1e30f,    INFINITY,
			      -INFINITY,  NAN,      3.4028235e38f, 65504.0f, -3.4028235e38f };
	const uint16_t half[] = { 0x7bff, 0x7c00, 0xfc00, 0x7c00, 0x7c00,
				  0xfc00, 0,      0x7c00, 0x7bff, 0xfc00 };
	const size_t counted[] = { 0, 1, 1, 1, 0, 0, 0, 1, 0, 1 };
	float x[70];
	uint16_t y[71];
	size_t i, n, over;

	(void)state;
	for (i = 0; i < 10; i++) {
		uint16_t is = to_half(big[i], &over);

		assert_int_equal(over, counted[i]);
		if (!isnan(big[i]))
			assert_int_equal(is, half[i]);
	}
	for (n = 0; n <= 70; n++) {
		size_t expected = 0;

		y[n] = 0x1234;
		for (i = 0; i < n; i++) {
			x[i] = big[(i + n) % 10];
			expected += counted[(i + n) % 10];
		}
		assert_int_equal(lens_vec()->to_f16(n, x, y), expected);
		assert_int_equal(y[n], 0x1234);
		for (i = 0; i < n; i++)
			assert_int_equal(y[i], to_half(x[i], &over));
	}
}

/* --- reading logits ---------------------------------------------------------------------- */

static void counts(void **state)
{
	float *x = test_random_floats(&rnd, 100);
	size_t n, i;

	(void)state;
	x[3] = NAN, x[10] = INFINITY, x[11] = -INFINITY, x[40] = x[41] = x[2];
	for (n = 0; n <= 100; n++) {
		float t = n > 3 ? x[2] : 0.1f;
		size_t above = 0;

		for (i = 0; i < n; i++)
			above += x[i] > t;
		assert_int_equal(lens_vec()->count_above(n, x, t), above);
		assert_int_equal(lens_vec()->count_above(n, x, NAN), 0);
		assert_int_equal(lens_vec()->count_above(n, x, INFINITY), 0);
	}
	lens_free(x);
}

static void largest(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	size_t n, i, k;

	(void)state;
	for (n = 1; n <= 70; n++) {
		float *x = test_random_floats(&rnd, n), max = x[0], was;

		for (i = 0; i < n; i++) {
			x[i] -= 50; /* a tail filled with zeros would show */
			max = i && max > x[i] ? max : x[i];
		}
		assert_true(lens_vec()->max_finite(n, x) == max);
		for (k = 0; k < 3; k++) {
			i = test_random_below(&rnd, n);
			was = x[i];
			x[i] = bad[k];
			assert_true(isnan(lens_vec()->max_finite(n, x)));
			x[i] = was;
		}
		lens_free(x);
	}
}

/* vexp by itself: at most 3u from −87.3 to 0, and nothing below. */
static void exponential(void **state)
{
	float x, step = test_quick() ? 1e-2f : 1e-4f;

	(void)state;
	for (x = -87.3f; x <= 0; x += step) {
		double e = exp((double)x);

		test_near(lens_vec()->sum_exp(1, &x, 0), e, 3 * TEST_U * e, "exp", (double)x);
	}
	x = -87.4f;
	assert_true(lens_vec()->sum_exp(1, &x, 0) == 0);
	x = -INFINITY;
	assert_true(lens_vec()->sum_exp(1, &x, 0) == 0);
	x = NAN;
	assert_true(isnan(lens_vec()->sum_exp(1, &x, 0)));
}

static void sums_of_exponentials(void **state)
{
	size_t n, i;

	(void)state;
	for (n = 1; n <= 70; n++) {
		float *x = test_random_floats(&rnd, n), max;
		double sum = 0, error = 0;

		for (i = 0; i < n; i++)
			x[i] = x[i] * 10 + 30;
		max = lens_vec()->max_finite(n, x);
		for (i = 0; i < n; i++) {
			double e = exp((double)x[i] - (double)max);

			sum += e;
			error += e * TEST_U * (4 + 2 * fabs((double)x[i] - (double)max)) +
				 1.2e-38;
		}
		test_near(lens_vec()->sum_exp(n, x, max), sum, error, "sum of exp", (double)n);
		x[n / 2] = NAN;
		assert_true(isnan(lens_vec()->sum_exp(n, x, max)));
		lens_free(x);
	}
}

/*
 * Each exponential is off by 3.2e-13 of itself (Taylor's remainder, r¹¹/11! at r = −0.35
 * beside exp(r)), or below −200 by all of it; x − max, y − shift and the sums are
 * float64's.
 */
static void sums_of_exponentials_f64(void **state)
{
	size_t n, i, k;

	(void)state;
	for (n = 1; n <= 70; n++) {
		float *x = test_random_floats(&rnd, n), *y = test_random_floats(&rnd, n), max;

		for (i = 0; i < n; i++)
			x[i] = x[i] * (i % 5 ? 10 : 200) + 30;
		max = lens_vec()->max_finite(n, x);
		for (k = 0; k < 2; k++) { /* of another row, and of itself */
			const float *of = k ? x : y;
			double shift = k ? (double)max : 0.25, sum[2] = { 0 }, size = 0, is[2];
			double rel = 3.2e-13 + (double)(n + 4) * 0x1p-53;

			for (i = 0; i < n; i++) {
				double e = exp((double)x[i] - (double)max);

				sum[0] += e;
				sum[1] += e * ((double)of[i] - shift);
				size += e * fabs((double)of[i] - shift);
			}
			lens_vec()->exp_sums(n, x, max, of, (float)shift, is);
			test_near(is[0], sum[0], rel * sum[0], "sum of exp", (double)n);
			test_near(is[1], sum[1], rel * size + 1e-80, "sum of exp times y",
				  (double)n);
		}
		lens_free(x);
		lens_free(y);
	}
}

static void opened_once(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_cpu_level is = lens_row_ways() == 1 ? LENS_LEVEL_AVX512 : LENS_LEVEL_AVX2;
	enum lens_cpu_level other = is == LENS_LEVEL_AVX2 ? LENS_LEVEL_AVX512 : LENS_LEVEL_AVX2;

	(void)state;
	assert_int_equal(lens_kernels_open(is, &err), LENS_OK);
	assert_int_equal(lens_kernels_open(other, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, lens_cpu_level_name(is)));
	assert_non_null(strstr(lens_blas_description(), "OpenBLAS"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opened_once),
		cmocka_unit_test(norms),
		cmocka_unit_test(activations),
		cmocka_unit_test(solu_rows),
		cmocka_unit_test(activations_not_finite),
		cmocka_unit_test(elementwise_positions),
		cmocka_unit_test(rotations),
		cmocka_unit_test(products),
		cmocka_unit_test(scaled_sums),
		cmocka_unit_test(dots),
		cmocka_unit_test(halves_round_trip),
		cmocka_unit_test(halves_rounding),
		cmocka_unit_test(halves_overflow),
		cmocka_unit_test(counts),
		cmocka_unit_test(largest),
		cmocka_unit_test(exponential),
		cmocka_unit_test(sums_of_exponentials),
		cmocka_unit_test(sums_of_exponentials_f64),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
