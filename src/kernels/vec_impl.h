/*
 * kernels/vec_impl.h: our own kernels, compiled for each CPU level by vec_avx2.c and
 * vec_avx512.c, which define
 *   VL    floats in a vector (8, 16)
 *   VEC   the name of the table to define
 *   to_f16_block(x, y)   VL floats to IEEE half
 *   widen(x)             VL / 2 floats to float64
 *   low_half(x), high_half(x)   of VL floats
 *   larger(x, y)         of VL floats x > y ? x : y, so y where one is NaN
 *   smaller(x, y)        x < y ? x : y
 *   largest(x)           of VL floats, none of them NaN
 *
 * They use GCC's vector types: every element undergoes the same operations in the same
 * order wherever it is in a row, and a row's sums use fixed lanes, so the bits depend on
 * the row alone. Multiply-adds are fused (-ffp-contract=fast for these two files).
 */
#include "kernels/kernels_private.h"

#include <math.h>
#include <string.h>

#include "kernels/vec_types.h"

/* cap·tanh(x/cap): with e = exp(−2|x|/cap), ±cap·(1 − e)/(1 + e). */
static inline vd soft_cap_d(vd x, double cap)
{
	vd u = pick_d(x < 0, x, -x) * (2 / cap), least = -200.0 - (vd){ 0 }, e, y;

	e = vexp_d(pick_d(u < least, least, u));
	y = cap * (1.0 - e) / (1.0 + e);
	return pick_d(x < 0, -y, y);
}

static inline vf soft_cap_of(vf x, float cap)
{
	vf y;

	store_d((float *)&y, soft_cap_d(low(x), (double)cap));
	store_d((float *)&y + VL / 2, soft_cap_d(high(x), (double)cap));
	return y;
}

#include "kernels/vec_attention.h"

/* --- norms --------------------------------------------------------------- */

static double row_sum(size_t d, const float *x)
{
	vd s = { 0 };
	double tail = 0;
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2)
		s += load_d(x + i);
	for (; i < d; i++)
		tail += (double)x[i];
	return sum_d(s) + tail;
}

static double row_sum_squares(size_t d, const float *x, double mean)
{
	vd s = { 0 };
	double tail = 0;
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2) {
		vd c = load_d(x + i) - mean;

		s += c * c;
	}
	for (; i < d; i++)
		tail += ((double)x[i] - mean) * ((double)x[i] - mean);
	return sum_d(s) + tail;
}

static void normalize_row(size_t d, const float *x, double mean, double inverse, const float *w,
			  const float *b, float *y)
{
	size_t i;

	for (i = 0; i + VL / 2 <= d; i += VL / 2) {
		vd v = (load_d(x + i) - mean) * inverse;

		if (w)
			v *= load_d(w + i);
		if (b)
			v += load_d(b + i);
		store_d(y + i, v);
	}
	for (; i < d; i++) {
		double v = ((double)x[i] - mean) * inverse;

		if (w)
			v *= (double)w[i];
		if (b)
			v += (double)b[i];
		y[i] = (float)v;
	}
}

static void layer_norm(size_t rows, size_t d, const float *x, const float *w, const float *b,
		       double eps, float *y, float *scale)
{
	size_t i;

	for (i = 0; i < rows; i++) {
		double mean = row_sum(d, x + i * d) / (double)d;
		double var = row_sum_squares(d, x + i * d, mean) / (double)d;
		double s = sqrt(var + eps);

		scale[i] = (float)s;
		normalize_row(d, x + i * d, mean, 1.0 / s, w, b, y + i * d);
	}
}

static void rms_norm(size_t rows, size_t d, const float *x, double eps, float *y, float *scale)
{
	size_t i;

	for (i = 0; i < rows; i++) {
		double s = sqrt(row_sum_squares(d, x + i * d, 0) / (double)d + eps);

		scale[i] = (float)s;
		normalize_row(d, x + i * d, 0, 1.0 / s, NULL, NULL, y + i * d);
	}
}

/* --- activations ----------------------------------------------------------- */

/* 0.5x(1 + tanh u) = x/(1 + exp(−2u)), which keeps the relative error small. */
static inline vf gelu_new(vf x)
{
	vf u2 = x * (1.5957691216057308f + 0.07135481282053f * (x * x));

	return x / (1.0f + vexp(-u2));
}

static inline vf silu(vf x)
{
	return x / (1.0f + vexp(-x));
}

static inline vf relu(vf x)
{
	return pick(x < 0.0f, (vf){ 0 }, x); /* NaN stays */
}

/*
 * erfc(z) for z in [0, 10], relative error 5e-11: exp(−z²)·u·P(u), u = 3/(3 + z),
 * P a Chebyshev fit of erfc(z)·exp(z²)/u in u.
 */
static inline vd verfc(vd z)
{
	static const double fit[] = {
		-0.027138669561527152, 0.1821243091617494,   -0.48843239451261722,
		0.66218971018991213,   -0.55461141366656508, 0.40991860144970416,
		-0.059126817720959436, 0.17302258823389521,  0.14708612683497216,
		0.17894650575644599,   0.18795426486816802,  0.18806718894299967,
	};
	vd u = 3.0 / (3.0 + z), p = { 0 };
	size_t i;

	for (i = 0; i < sizeof(fit) / sizeof(*fit); i++)
		p = p * u + fit[i];
	return vexp_d(-(z * z)) * u * p;
}

/* 0.5x(1 + erf(x/√2)) = x·erfc(−x/√2)/2, which keeps the relative error small. */
static inline vd gelu_d(vd x)
{
	vd z = x * M_SQRT1_2, end = 10.0 - (vd){ 0 }, half;

	z = pick_d(z < 0, -z, z);
	half = pick_d(z > end, (vd){ 0 }, 0.5 * verfc(pick_d(z > end, end, z)));
	return x * pick_d(x > 0, 1.0 - half, half);
}

static inline vf gelu(vf x)
{
	vf y;

	store_d((float *)&y, gelu_d(low(x)));
	store_d((float *)&y + VL / 2, gelu_d(high(x)));
	return y;
}

#define MAP(function)                                                                          \
	do {                                                                                   \
		for (i = 0; i + VL <= n; i += VL)                                              \
			store(y + i, function(load(x + i)));                                   \
		if (i < n)                                                                     \
			store_part(y + i, function(load_part(x + i, n - i, 0)), n - i);        \
	} while (0)

/* exp(x) for x <= 0; 0 below −200. */
static inline vd exp_part(vd x)
{
	vd least = -200.0 - (vd){ 0 };
	vl under = x < least;

	return pick_d(under, (vd){ 0 }, vexp_d(pick_d(under, least, x)));
}

/* x·softmax(x) of one row, in float64 and rounded once. */
static void solu(size_t n, const float *x, float *y)
{
	float max = -INFINITY;
	vd sum = { 0 };
	double inverse;
	size_t i;

	for (i = 0; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, -INFINITY);

		sum += exp_part(low(v) - (double)max) + exp_part(high(v) - (double)max);
	}
	inverse = 1.0 / sum_d(sum);
	for (i = 0; i < n; i += VL) {
		size_t m = lens_min(n - i, VL);
		vf v = m == VL ? load(x + i) : load_part(x + i, m, -INFINITY), part;
		vd a = exp_part(low(v) - (double)max), b = exp_part(high(v) - (double)max);

		v = m == VL ? v : load_part(x + i, m, 0);
		store_d((float *)&part, low(v) * a * inverse);
		store_d((float *)&part + VL / 2, high(v) * b * inverse);
		store_part(y + i, part, m);
	}
}

static void activation(enum lens_act act, size_t n, const float *x, float *y)
{
	size_t i;

	switch (act) {
	case LENS_ACT_GELU_NEW:
		MAP(gelu_new);
		break;
	case LENS_ACT_GELU:
		MAP(gelu);
		break;
	case LENS_ACT_RELU:
		MAP(relu);
		break;
	case LENS_ACT_SILU:
		MAP(silu);
		break;
	case LENS_ACT_SOLU:
		solu(n, x, y);
		break;
	}
}

static void soft_cap(size_t n, float cap, float *x)
{
	size_t i;

	for (i = 0; i + VL <= n; i += VL)
		store(x + i, soft_cap_of(load(x + i), cap));
	if (i < n)
		store_part(x + i, soft_cap_of(load_part(x + i, n - i, 0), cap), n - i);
}

static void add(size_t n, const float *x, float *y)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] += x[i];
}

static void add_scaled(size_t n, float factor, const float *x, float *y)
{
	size_t i;

	for (i = 0; i + VL <= n; i += VL)
		store(y + i, load(y + i) + factor * load(x + i));
	if (i < n)
		store_part(y + i,
			   load_part(y + i, n - i, 0) + factor * load_part(x + i, n - i, 0),
			   n - i);
}

static double dot(size_t n, const float *x, const float *y)
{
	vd a = { 0 }, b = { 0 };
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf u = n - i >= VL ? load(x + i) : load_part(x + i, n - i, 0);
		vf v = n - i >= VL ? load(y + i) : load_part(y + i, n - i, 0);

		a += low(u) * low(v);
		b += high(u) * high(v);
	}
	return sum_d(a + b);
}

static void multiply(size_t n, const float *x, float *y)
{
	size_t i;

	for (i = 0; i < n; i++)
		y[i] *= x[i];
}

static void rotate(size_t half, const double *cosine, const double *sine, float *x)
{
	size_t i;

	for (i = 0; i < half; i++) {
		double a = (double)x[i], b = (double)x[half + i];

		x[i] = (float)(a * cosine[i] - b * sine[i]);
		x[half + i] = (float)(b * cosine[i] + a * sine[i]);
	}
}

/* --- conversion to float16, and reductions of logits ------------------------ */

static size_t to_f16(size_t n, const float *x, uint16_t *y)
{
	vi over = { 0 };
	size_t i, count = 0;

	for (i = 0; i < n; i += VL) {
		size_t m = lens_min(n - i, VL);
		vf v = m == VL ? load(x + i) : load_part(x + i, m, 0);
		vf magnitude = (vf)((vi)v & 0x7fffffff);
		uint16_t half[VL];

		/* 65520 and more round to infinity */
		over -= (magnitude >= 65520.0f) & (magnitude <= 3.402823466e38f);
		to_f16_block(v, half);
		memcpy(y + i, half, m * sizeof(*half));
	}
	for (i = 0; i < VL; i++)
		count += (size_t)over[i];
	return count;
}

static size_t count_above(size_t n, const float *x, float t)
{
	vi count = { 0 };
	size_t i, sum = 0;

	for (i = 0; i + VL <= n; i += VL)
		count -= load(x + i) > t;
	if (i < n)
		count -= load_part(x + i, n - i, -INFINITY) > t;
	for (i = 0; i < VL; i++)
		sum += (size_t)count[i];
	return sum;
}

static float max_finite(size_t n, const float *x)
{
	vf m = -INFINITY - (vf){ 0 }, odd = { 0 };
	float best = -INFINITY;
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, x[0]);

		m = larger(v, m);
		odd += v - v; /* 0, or NaN for NaN and infinities */
	}
	for (i = 0; i < VL; i++) {
		if (odd[i] != 0)
			return NAN;
		best = m[i] > best ? m[i] : best;
	}
	return best;
}

static double sum_exp(size_t n, const float *x, float max)
{
	vd sum = { 0 };
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, -INFINITY);
		vf e = vexp(v - max);

		sum += low(e) + high(e);
	}
	return sum_d(sum);
}

static void exp_sums(size_t n, const float *x, float max, const float *y, float shift,
		     double out[2])
{
	vd sum = { 0 }, product = { 0 };
	size_t i;

	for (i = 0; i < n; i += VL) {
		vf v = n - i >= VL ? load(x + i) : load_part(x + i, n - i, -INFINITY);
		vf w = n - i >= VL ? load(y + i) : load_part(y + i, n - i, 0);
		vd a = exp_part(low(v) - (double)max), b = exp_part(high(v) - (double)max);

		sum += a + b;
		product += a * (low(w) - (double)shift);
		product += b * (high(w) - (double)shift);
	}
	out[0] = sum_d(sum);
	out[1] = sum_d(product);
}

const struct lens_vec VEC = {
	.layer_norm = layer_norm,
	.rms_norm = rms_norm,
	.activation = activation,
	.soft_cap = soft_cap,
	.add = add,
	.add_scaled = add_scaled,
	.dot = dot,
	.multiply = multiply,
	.rotate = rotate,
	.transpose_keys = transpose_keys,
	.attention_scores = attention_scores,
	.attention_softmax = attention_softmax,
	.attention_mix = attention_mix,
	.to_f16 = to_f16,
	.count_above = count_above,
	.max_finite = max_finite,
	.sum_exp = sum_exp,
	.exp_sums = exp_sums,
};
