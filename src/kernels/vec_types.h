/*
 * kernels/vec_types.h: vectors of VL floats and of VL / 2 float64: loads, stores,
 * selection, exponentials. Part of vec_impl.h.
 */
typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vh __attribute__((vector_size(2 * VL)));  /* half a vector … */
typedef double vd __attribute__((vector_size(4 * VL))); /* … as float64 */
typedef int64_t vl __attribute__((vector_size(4 * VL)));

static inline vf load(const float *p)
{
	vf v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store(float *p, vf v)
{
	memcpy(p, &v, sizeof(v));
}

/* The first n floats at p, fill elsewhere; and back. */
static inline vf load_part(const float *p, size_t n, float fill)
{
	vf v = fill - (vf){ 0 };

	memcpy(&v, p, n * sizeof(*p));
	return v;
}

static inline void store_part(float *p, vf v, size_t n)
{
	memcpy(p, &v, n * sizeof(*p));
}

static inline vd load_d(const float *p)
{
	vh v;

	memcpy(&v, p, sizeof(v));
	return (vd)widen(v);
}

static inline void store_d(float *p, vd v)
{
	vh h = __builtin_convertvector(v, vh);

	memcpy(p, &h, sizeof(h));
}

static inline vd low(vf v)
{
	return (vd)widen(low_half(v));
}

static inline vd high(vf v)
{
	return (vd)widen(high_half(v));
}

static inline double sum_d(vd v)
{
	double s = 0;
	int i;

	for (i = 0; i < VL / 2; i++)
		s += v[i];
	return s;
}

static inline vf pick(vi mask, vf yes, vf no)
{
	return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/*
 * exp(x), about 1 ulp on [−87.3, 88]; 0 below, ∞ above; NaN stays NaN. The argument is
 * reduced by n·ln 2 in two parts (Cody and Waite), then a Taylor polynomial of degree 7
 * on [−0.35, 0.35] (remainder 5e-9).
 */
static inline vf vexp(vf x)
{
	const float ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f, magic = 12582912.0f;
	vf lo = -87.33f - (vf){ 0 }, hi = 88.0f - (vf){ 0 };
	vi under = x<lo, over = x> hi;
	vf y = smaller(hi, larger(lo, x)); /* NaN stays */
	vf t = y * 1.44269504f + magic;
	vf n = t - magic;
	vf r = (y - n * ln2_hi) - n * ln2_lo;
	vf p = r * (1.0f / 5040) + 1.0f / 720;

	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = p * r * r + r + 1.0f;
	/* 2ⁿ from its exponent bits; for NaN n is replaced, and p is NaN anyway */
	vi e = (__builtin_convertvector(pick(x == x, n, 0 * lo), vi) + 127) << 23;
	return pick(over, INFINITY - (vf){ 0 }, pick(under, (vf){ 0 }, p * (vf)e));
}

static inline vd pick_d(vl mask, vd yes, vd no)
{
	return (vd)(((vl)yes & mask) | ((vl)no & ~mask));
}

/*
 * exp(x) for x in [−200, 0]: as vexp, to degree 10. Relative error 3.2e-13, of which
 * Taylor's remainder, r¹¹/11! at r = −0.35, is all but nothing.
 */
static inline vd vexp_d(vd x)
{
	static const double inverse_factorial[] = { 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
						    1.0 / 5040,    1.0 / 720,    1.0 / 120,
						    1.0 / 24,      1.0 / 6,      0.5 };
	const double magic = 6755399441055744.0;
	vd t = x * 1.4426950408889634 + magic, n = t - magic, r, p = { 0 };
	size_t i;

	r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
	for (i = 0; i < sizeof(inverse_factorial) / sizeof(*inverse_factorial); i++)
		p = p * r + inverse_factorial[i];
	p = p * r * r + r + 1.0;
	return p * (vd)(((vl)t + 1023) << 52); /* n is in t's low bits */
}
