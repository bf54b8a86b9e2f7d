/*
 * model/values.c: what a tensor of a mapped file holds. In: its type, shape and strides;
 * out: its elements in float64, all of them or some.
 */
#include "model/model_private.h"

#include <math.h>
#include <string.h>

/* The least number that float32 rounds to infinity: halfway past its largest one. */
#define BEYOND_FLOAT 0x1.ffffffp127

static double half_to_double(uint16_t h)
{
	int exponent = h >> 10 & 31, mantissa = h & 1023;
	double v;

	if (exponent == 31)
		v = mantissa ? NAN : INFINITY;
	else if (exponent)
		v = ldexp(1024 + mantissa, exponent - 25);
	else
		v = ldexp(mantissa, -24);
	return h & 0x8000 ? -v : v;
}

static inline __attribute__((always_inline)) double value_at(enum lens_tensor_type type,
							     const unsigned char *data,
							     size_t i)
{
	uint32_t bits;
	uint16_t half;
	double d;
	float f;

	switch (type) {
	case LENS_T_F64:
		memcpy(&d, data + 8 * i, sizeof(d));
		return d;
	case LENS_T_F32:
		memcpy(&f, data + 4 * i, sizeof(f));
		return (double)f;
	case LENS_T_F16:
		memcpy(&half, data + 2 * i, sizeof(half));
		return half_to_double(half);
	default:
		memcpy(&half, data + 2 * i, sizeof(half));
		bits = (uint32_t)half << 16;
		memcpy(&f, &bits, sizeof(f));
		return (double)f;
	}
}

static double element(const struct lens_tensor *t, size_t i)
{
	return value_at(t->type, t->data, i);
}

/* Compiled once a type. Whether all of them are finite numbers in float32, too. */
static inline __attribute__((always_inline)) bool values_of(enum lens_tensor_type type,
							    const unsigned char *data,
							    const struct lens_run_of *r,
							    double *out, size_t out_step)
{
	bool finite = true;
	size_t i;

	for (i = 0; i < r->n; i++) {
		double v = value_at(type, data, r->at + i * r->step);

		finite &= fabs(v) < BEYOND_FLOAT;
		out[i * out_step] = v;
	}
	return finite;
}

bool lens_tensor_values(const struct lens_tensor *t, const struct lens_run_of *r, double *out,
			size_t out_step)
{
	switch (t->type) {
	case LENS_T_F64:
		return values_of(LENS_T_F64, t->data, r, out, out_step);
	case LENS_T_F32:
		return values_of(LENS_T_F32, t->data, r, out, out_step);
	case LENS_T_F16:
		return values_of(LENS_T_F16, t->data, r, out, out_step);
	default:
		return values_of(LENS_T_BF16, t->data, r, out, out_step);
	}
}

/* The position of an element in a traversal in row-major order. */
struct walk {
	size_t at[LENS_TENSOR_RANK];
	size_t place; /* offset from the tensor's data, in elements */
};

static void step(const struct lens_tensor *t, struct walk *w)
{
	int d;

	for (d = t->rank - 1; d >= 0; d--) {
		w->place += t->stride[d];
		if (++w->at[d] < t->shape[d])
			return;
		w->place -= t->shape[d] * t->stride[d];
		w->at[d] = 0;
	}
}

enum lens_status lens_tensor_not_finite(const struct lens_tensors *ts,
					const struct lens_tensor *t, struct lens_error *err)
{
	struct walk w = { .place = 0 };
	double v = 0;
	size_t i;

	for (i = 0; i < t->n_elements; i++) {
		v = element(t, t->strided ? w.place : i);
		if (!(fabs(v) < BEYOND_FLOAT))
			break;
		if (t->strided)
			step(t, &w);
	}
	return lens_error_at(err, LENS_ERR_FORMAT, ts->file[t->file].path, 0, 0,
			     "tensor \"%s\" holds %s at element %zu", t->name,
			     isnan(v)   ? "a NaN"
			     : isinf(v) ? "an infinity"
					: "a number beyond float32's range",
			     i);
}

enum lens_status lens_tensors_read(struct lens_tensors *ts, const char *name, int rank,
				   const size_t *shape, double *out, struct lens_error *err)
{
	struct walk w = { .place = 0 };
	const struct lens_tensor *t;
	bool finite = true;
	size_t i;

	LENS_TRY(lens_tensors_use(ts, name, rank, shape, &t, err));
	if (!out)
		return LENS_OK;
	for (i = 0; t->strided && i < t->n_elements; i++, step(t, &w)) {
		out[i] = element(t, w.place);
		finite = finite && fabs(out[i]) < BEYOND_FLOAT;
	}
	if (!t->strided)
		finite = lens_tensor_values(t, &(struct lens_run_of){ 0, 1, t->n_elements },
					    out, 1);
	return finite ? LENS_OK : lens_tensor_not_finite(ts, t, err);
}

bool lens_tensors_equal(const struct lens_tensor *a, const struct lens_tensor *b)
{
	struct walk in_a = { .place = 0 }, in_b = { .place = 0 };
	size_t i;

	if (a->rank != b->rank || a->type == LENS_T_OTHER || b->type == LENS_T_OTHER ||
	    memcmp(a->shape, b->shape, (size_t)a->rank * sizeof(*a->shape)) != 0)
		return false;
	if (a->data == b->data && a->type == b->type && !a->strided && !b->strided)
		return true; /* torch.save stores shared data once */
	for (i = 0; i < a->n_elements; i++) {
		if (element(a, a->strided ? in_a.place : i) !=
		    element(b, b->strided ? in_b.place : i))
			return false;
		if (a->strided)
			step(a, &in_a);
		if (b->strided)
			step(b, &in_b);
	}
	return true;
}
