/*
 * pipeline/weight_chunk.c: pieces of a parameter, in the order of its axes. In: where it
 * is in our model; out: one chunk of it after the other, so that beside the model no more
 * than one chunk is in memory.
 */
#include "pipeline/weights_private.h"

#include <string.h>

#define SQUARE 32

/* [n[0], n[1]] of an array with these strides, to rows of `width`. */
static void copy_rows(const float *src, const size_t *stride, const size_t *n, size_t width,
		      float *dst)
{
	size_t i, j, i0, j0;

	if (stride[1] == 1) {
		for (i = 0; i < n[0]; i++)
			memcpy(dst + i * width, src + i * stride[0], n[1] * sizeof(*dst));
		return;
	}
	/* Transposed, in squares that fit in the first cache. */
	for (i0 = 0; i0 < n[0]; i0 += SQUARE) {
		for (j0 = 0; j0 < n[1]; j0 += SQUARE) {
			for (i = i0; i < lens_min(i0 + SQUARE, n[0]); i++) {
				for (j = j0; j < lens_min(j0 + SQUARE, n[1]); j++)
					dst[i * width + j] = src[i * stride[0] + j * stride[1]];
			}
		}
	}
}

void lens_weight_chunk(const struct lens_weight *w, const size_t *chunk, const size_t *coord,
		       float *out)
{
	/* As if of three dimensions, the first ones 1. */
	size_t size[3] = { 1, 1, 1 }, n[3] = { 1, 1, 1 }, stride[3] = { 0, 0, 0 };
	const float *src = w->data;
	size_t i, total = 1;
	int k, lead = 3 - w->rank;

	for (k = 0; k < w->rank; k++) {
		size_t first = coord[k] * chunk[k];

		size[lead + k] = chunk[k];
		n[lead + k] = lens_min(chunk[k], w->extent[k] - first);
		stride[lead + k] = w->stride[k];
		src += first * w->stride[k];
		total *= chunk[k];
	}
	lens_fill(LENS_F32, out, total);
	for (i = 0; i < n[0]; i++)
		copy_rows(src + i * stride[0], stride + 1, n + 1, size[2],
			  out + i * size[1] * size[2]);
}

bool lens_weight_next(const struct lens_weight *w, const size_t *chunk, size_t *coord)
{
	int k;

	for (k = w->rank - 1; k >= 0; k--) {
		if (++coord[k] * chunk[k] < w->extent[k])
			return true;
		coord[k] = 0;
	}
	return false;
}
