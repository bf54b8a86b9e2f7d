/*
 * forward/rotary.c: rotary positions (Su et al. 2021, RoFormer), in the
 * rotate-half pairing of GPT-NeoX and Llama, or GPT-J's of neighbours. In: the config's
 * frequencies; out: turned queries and keys. Angles are float64: Hugging Face and
 * TransformerLens make them in float32, which is off by 1e-4 at position 2,000.
 */
#include "forward/forward_private.h"

#include <math.h>

/* The pair whose frequency makes so many turns in the original context, as a real number. */
static double pair_of(const struct lens_rotary *r, double turns)
{
	return (double)r->dim * log(r->original_ctx / (turns * 2 * M_PI)) / (2 * log(r->base));
}

/* Fast pairs keep their frequency, slow ones are divided by factor (Peng et al. 2023). */
static double yarn(const struct lens_rotary *r, size_t i, double f)
{
	double low = pair_of(r, r->beta_fast), high = pair_of(r, r->beta_slow), slow;

	if (r->truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, (double)r->dim - 1);
	if (low == high)
		high += 0.001;
	slow = fmin(fmax(((double)i - low) / (high - low), 0), 1);
	return f / r->factor * slow + f * (1 - slow);
}

/*
 * The angle a position adds to pair i. Scaling as in transformers'
 * modeling_rope_utils: linear divides by factor (Chen et al. 2023), llama3 divides
 * low frequencies by it, leaves high ones, and goes over smoothly in between
 * (Llama 3.1).
 */
static double frequency(const struct lens_rotary *r, size_t i)
{
	double f = pow(r->base, -2.0 * (double)i / (double)r->dim), turns, smooth;

	if (r->type == LENS_ROPE_YARN)
		return yarn(r, i, f);
	if (r->type == LENS_ROPE_LONGROPE)
		return f / r->short_factor[i];
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
	double *a, by = r->attention_factor > 0 ? r->attention_factor : 1;

	*out = NULL;
	if (!r->dim)
		return LENS_OK;
	a = n == SIZE_MAX ? NULL : lens_calloc(n, 1);
	if (!a)
		return lens_error_nomem(err, max_length, r->dim * sizeof(double));
	for (i = 0; i < half; i++) {
		double f = frequency(r, i);

		for (pos = 0; pos < max_length; pos++) {
			a[pos * r->dim + i] = by * cos((double)pos * f);
			a[pos * r->dim + half + i] = by * sin((double)pos * f);
		}
	}
	*out = a;
	return LENS_OK;
}

/* Pairs (2i, 2i + 1), GPT-J's way. */
static void rotate_adjacent(size_t half, const double *cosine, const double *sine, float *x)
{
	size_t i;

	for (i = 0; i < half; i++) {
		double a = (double)x[2 * i], b = (double)x[2 * i + 1];

		x[2 * i] = (float)(a * cosine[i] - b * sine[i]);
		x[2 * i + 1] = (float)(b * cosine[i] + a * sine[i]);
	}
}

void lens_rotate(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_batch *b = p->batch;
	size_t turned = c->n_heads + c->n_kv_heads, half = c->rotary.dim / 2;
	size_t width = (turned + c->n_kv_heads) * c->d_head, row, h;
	const double *table =
		p->f->local_angle && c->local[layer] ? p->f->local_angle : p->f->angle;

	void (*rotate)(size_t, const double *, const double *, float *) =
		c->rotary.adjacent ? rotate_adjacent : lens_vec()->rotate;

	if (c->no_rotary[layer])
		return;
	for (row = 0; row < b->n_rows; row++) {
		float *qkv = p->f->qkv + row * width;
		const double *angle;

		if (b->position[row] < 0)
			continue; /* a gap */
		angle = table + (size_t)b->position[row] * c->rotary.dim;
		for (h = 0; h < turned; h++)
			rotate(half, angle, angle + half, qkv + h * c->d_head);
	}
}
