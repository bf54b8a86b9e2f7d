/*
 * forward/rotary.c: rotary positions (Su et al. 2021, RoFormer), in the
 * rotate-half pairing of GPT-NeoX and Llama. In: the config's frequencies; out:
 * turned queries and keys. Angles are float64: Hugging Face and TransformerLens
 * make them in float32, which is off by 1e-4 at position 2,000.
 */
#include "forward/forward_private.h"

#include <math.h>

/*
 * The angle a position adds to pair i. Scaling as in transformers'
 * modeling_rope_utils: linear divides by factor (Chen et al. 2023), llama3 divides
 * low frequencies by it, leaves high ones, and goes over smoothly in between
 * (Llama 3.1).
 */
static double frequency(const struct lens_rotary *r, size_t i)
{
	double f = pow(r->base, -2.0 * (double)i / (double)r->dim), turns, smooth;

	if (r->type == LENS_ROPE_LINEAR)
		return f / r->factor;
	if (r->type != LENS_ROPE_LLAMA3)
		return f;
	turns = r->original_ctx * f / (2 * M_PI); /* in the original context */
	if (turns < r->low_freq_factor)
		return f / r->factor;
	if (turns > r->high_freq_factor)
		return f;
	smooth = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
	return (1 - smooth) * f / r->factor + smooth * f;
}

size_t lens_rotary_bytes(const struct lens_rotary *r, size_t max_length)
{
	size_t n;

	return lens_size_mul(max_length, r->dim, &n) && lens_size_mul(n, sizeof(double), &n)
		       ? n
		       : SIZE_MAX;
}

enum lens_status lens_rotary_table(const struct lens_rotary *r, size_t max_length, double **out,
				   struct lens_error *err)
{
	size_t i, pos, half = r->dim / 2, n = lens_rotary_bytes(r, max_length);
	double *a;

	*out = NULL;
	if (!r->dim)
		return LENS_OK;
	a = n == SIZE_MAX ? NULL : lens_calloc(n, 1);
	if (!a)
		return lens_error_nomem(err, max_length, r->dim * sizeof(double));
	for (i = 0; i < half; i++) {
		double f = frequency(r, i);

		for (pos = 0; pos < max_length; pos++) {
			a[pos * r->dim + i] = cos((double)pos * f);
			a[pos * r->dim + half + i] = sin((double)pos * f);
		}
	}
	*out = a;
	return LENS_OK;
}

void lens_rotate(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_batch *b = p->batch;
	size_t turned = c->n_heads + c->n_kv_heads, half = c->rotary.dim / 2;
	size_t width = (turned + c->n_kv_heads) * c->d_head, row, h;
	const double *table =
		p->f->local_angle && c->local[layer] ? p->f->local_angle : p->f->angle;

	for (row = 0; row < b->n_rows; row++) {
		float *qkv = p->f->qkv + row * width;
		const double *angle;

		if (b->position[row] < 0)
			continue; /* a gap */
		angle = table + (size_t)b->position[row] * c->rotary.dim;
		for (h = 0; h < turned; h++)
			lens_vec()->rotate(half, angle, angle + half, qkv + h * c->d_head);
	}
}
