/*
 * interventions/mean.c: means of activations over a data set. In: clean runs, in the
 * order of their rows; out: sums in float64, and the float32 means that ablation puts in
 * an activation's place.
 */
#include "interventions/interventions_private.h"

#include <string.h>

bool lens_study_wants_mean(const struct lens_study *s)
{
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (s->mean[h])
			return true;
	}
	return false;
}

static struct lens_mean_shape shape_of(const struct lens_study *s, size_t longest)
{
	struct lens_mean_shape shape = {
		.per_position = s->experiment->ablate.mean_over == LENS_MEAN_PER_POSITION,
		.n_layers = s->model->config.n_layers,
	};
	int h;

	shape.n_pos = shape.per_position ? longest : 1;
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (s->mean[h])
			shape.width[h] = lens_row_width(&s->model->config, (enum lens_hook)h);
	}
	return shape;
}

static size_t elements(const struct lens_mean_shape *s, int hook)
{
	return s->n_layers * s->n_pos * s->width[hook];
}

static size_t all_elements(const struct lens_mean_shape *s)
{
	size_t n = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		n += elements(s, h);
	return n;
}

/* --- sums --------------------------------------------------------------------------------- */

static enum lens_status sums_of_hook(struct lens_sums *s, enum lens_hook hook,
				     struct lens_error *err)
{
	size_t layer, n = elements(&s->shape, hook);

	s->value[hook] = lens_calloc(n, sizeof(double));
	if (!s->value[hook])
		return lens_error_nomem(err, n, sizeof(double));
	for (layer = 0; layer < s->shape.n_layers; layer++)
		lens_hook_want(&s->hooks, hook, layer, LENS_WANT_ALL);
	return LENS_OK;
}

enum lens_status lens_sums_init(struct lens_sums *s, const struct lens_study *study,
				size_t longest, struct lens_error *err)
{
	int h;

	*s = (struct lens_sums){ .shape = shape_of(study, longest) };
	LENS_TRY(lens_hook_set_init(&s->hooks, &study->model->config, NULL, 0, err));
	s->count = lens_calloc(s->shape.n_pos, sizeof(*s->count));
	if (!s->count)
		return lens_error_nomem(err, s->shape.n_pos, sizeof(*s->count));
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (s->shape.width[h])
			LENS_TRY(sums_of_hook(s, (enum lens_hook)h, err));
	}
	return LENS_OK;
}

void lens_sums_release(struct lens_sums *s)
{
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		lens_free(s->value[h]);
	lens_free(s->count);
	lens_hook_set_release(&s->hooks);
	memset(s, 0, sizeof(*s));
}

size_t lens_sums_bytes(const struct lens_study *study, size_t longest)
{
	const struct lens_mean_shape s = shape_of(study, longest);

	return (all_elements(&s) + s.n_pos) * sizeof(double);
}

void lens_sums_count(struct lens_sums *s, const struct lens_batch *b)
{
	size_t i, pos;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++)
			s->count[s->shape.per_position ? pos : 0]++;
	}
}

/* Prompt by prompt, position by position: not in the order in which their rows lie. */
static enum lens_status visit(void *ctx, const struct lens_batch *b,
			      const struct lens_activation *a, struct lens_error *err)
{
	struct lens_sums *s = ctx;
	double *all = s->value[a->hook] + a->layer * s->shape.n_pos * a->width;
	size_t i, k, pos;

	(void)err;
	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			const float *row =
				a->data + (size_t)lens_batch_row(b, i, pos) * a->stride;
			double *sum = all + (s->shape.per_position ? pos : 0) * a->width;

			for (k = 0; k < a->width; k++)
				sum[k] += (double)row[k];
		}
	}
	return LENS_OK;
}

struct lens_visitor lens_sums_visitor(struct lens_sums *s)
{
	return (struct lens_visitor){ .hooks = &s->hooks, .visit = visit, .ctx = s };
}

void lens_sums_add(struct lens_sums *s, const struct lens_sums *next)
{
	size_t layer, k, n;
	int h;

	for (k = 0; k < next->shape.n_pos; k++)
		s->count[k] += next->count[k];
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		n = next->shape.n_pos * next->shape.width[h];
		for (layer = 0; s->value[h] && layer < s->shape.n_layers; layer++) {
			const double *from = next->value[h] + layer * n;
			double *to = s->value[h] + layer * s->shape.n_pos * s->shape.width[h];

			for (k = 0; k < n; k++)
				to[k] += from[k];
		}
	}
}

/* --- means -------------------------------------------------------------------------------- */

enum lens_status lens_mean_init(struct lens_mean *m, const struct lens_study *study,
				size_t longest, struct lens_error *err)
{
	int h;

	*m = (struct lens_mean){ .shape = shape_of(study, longest) };
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (!m->shape.width[h])
			continue;
		m->value[h] = lens_calloc(elements(&m->shape, h), sizeof(float));
		if (!m->value[h])
			return lens_error_nomem(err, elements(&m->shape, h), sizeof(float));
	}
	return LENS_OK;
}

void lens_mean_release(struct lens_mean *m)
{
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		lens_free(m->value[h]);
	memset(m, 0, sizeof(*m));
}

size_t lens_mean_bytes(const struct lens_study *study, size_t longest)
{
	const struct lens_mean_shape s = shape_of(study, longest);

	return all_elements(&s) * sizeof(float);
}

void lens_mean_take(struct lens_mean *m, const struct lens_sums *s)
{
	size_t i;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		for (i = 0; i < elements(&m->shape, h); i++) {
			double count = s->count[i / m->shape.width[h] % m->shape.n_pos];

			m->value[h][i] = count > 0 ? (float)(s->value[h][i] / count) : 0;
		}
	}
}

enum lens_status lens_mean_digest(struct lens_mean *m, struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	struct lens_sha256 *sha;
	enum lens_status st = lens_sha256_create(&sha, err);
	int h;

	for (h = 0; st == LENS_OK && h < LENS_HOOK_COUNT; h++) {
		if (m->value[h])
			st = lens_sha256_update(sha, m->value[h],
						elements(&m->shape, h) * sizeof(float), err);
	}
	if (st == LENS_OK)
		st = lens_sha256_final(sha, digest, err);
	if (st == LENS_OK)
		lens_hex(digest, sizeof(digest), m->sha256);
	lens_sha256_destroy(sha);
	return st;
}
