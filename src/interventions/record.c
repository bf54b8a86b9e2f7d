/*
 * interventions/record.c: what a pass showed at some hook points, kept in the pass's own
 * rows. In: activations; out: the streams, keys and values from which cells start, and
 * the values that they are given.
 */
#include "interventions/interventions_private.h"

#include <string.h>

size_t lens_row_width(const struct lens_config *c, enum lens_hook hook)
{
	const struct lens_hook_info *info = lens_hook_info(hook);
	const struct lens_sizes s = lens_model_sizes(c);
	size_t n = 1;
	int i;

	for (i = 1; i < info->n_axes; i++)
		n *= lens_axis_extent(info->axis[i], &s);
	return n;
}

/* Of all prompts together: Σ length² is at most the rows times the longest. */
static size_t most_squares(const struct lens_record_size *s)
{
	return s->model->config.n_heads * s->max_rows * s->max_length;
}

/* Floats of a hook point, in all layers. */
static size_t floats(const struct lens_record_size *s, enum lens_hook hook)
{
	size_t n = lens_hook_is_square(hook)
			   ? most_squares(s)
			   : s->max_rows * lens_row_width(&s->model->config, hook);

	return s->hook[hook] ? n * s->model->config.n_layers : 0;
}

size_t lens_record_row_floats(const struct lens_model *m, const bool *hook)
{
	size_t n = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (hook[h] && !lens_hook_is_square((enum lens_hook)h))
			n += lens_row_width(&m->config, (enum lens_hook)h);
	}
	return n * m->config.n_layers;
}

size_t lens_record_bytes(const struct lens_record_size *s)
{
	size_t n = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		n += floats(s, (enum lens_hook)h);
	return n * sizeof(float) + s->max_prompts * sizeof(size_t) +
	       lens_batch_bytes(s->max_prompts, s->max_rows, s->max_rows);
}

/* Keys as attention reads them. */
static enum lens_hook key_hook(const struct lens_config *c)
{
	return c->rotary.dim ? LENS_HOOK_ROT_K : LENS_HOOK_K;
}

static enum lens_status make_hook(struct lens_record *r, const struct lens_record_size *s,
				  enum lens_hook hook, struct lens_error *err)
{
	size_t layer;

	r->width[hook] =
		lens_hook_is_square(hook) ? 0 : lens_row_width(&s->model->config, hook);
	r->value[hook] = lens_alloc_aligned(floats(s, hook), sizeof(float));
	if (!r->value[hook])
		return lens_error_nomem(err, floats(s, hook), sizeof(float));
	for (layer = 0; layer < r->n_layers; layer++)
		lens_hook_want(&r->hooks, hook, layer, LENS_WANT_ALL);
	return LENS_OK;
}

static void point_at_keys(struct lens_record *r, const struct lens_config *c)
{
	enum lens_hook key = key_hook(c);
	size_t layer;

	for (layer = 0; layer < r->n_layers; layer++) {
		r->keys[layer] = r->value[key] + layer * r->max_rows * r->width[key];
		r->values[layer] =
			r->value[LENS_HOOK_V] + layer * r->max_rows * r->width[LENS_HOOK_V];
	}
}

enum lens_status lens_record_init(struct lens_record *r, const struct lens_record_size *s,
				  struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	int h;

	memset(r, 0, sizeof(*r));
	r->n_layers = c->n_layers;
	r->n_heads = c->n_heads;
	r->max_rows = s->max_rows;
	r->max_squares = most_squares(s);
	r->square = lens_calloc(s->max_prompts, sizeof(*r->square));
	r->keys = lens_calloc(c->n_layers, sizeof(*r->keys));
	r->values = lens_calloc(c->n_layers, sizeof(*r->values));
	if (!r->square || !r->keys || !r->values)
		return lens_error_nomem(err, s->max_prompts, sizeof(*r->square));
	LENS_TRY(lens_hook_set_init(&r->hooks, c, NULL, 0, err));
	LENS_TRY(lens_batch_init(&r->batch, s->max_prompts, s->max_rows, s->max_rows, err));
	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (s->hook[h])
			LENS_TRY(make_hook(r, s, (enum lens_hook)h, err));
	}
	if (r->value[key_hook(c)] && r->value[LENS_HOOK_V])
		point_at_keys(r, c);
	return LENS_OK;
}

void lens_record_release(struct lens_record *r)
{
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		lens_free(r->value[h]);
	lens_free(r->square);
	lens_free(r->keys);
	lens_free(r->values);
	lens_batch_release(&r->batch);
	lens_hook_set_release(&r->hooks);
	memset(r, 0, sizeof(*r));
}

void lens_record_begin(struct lens_record *r)
{
	size_t i, at = 0;

	for (i = 0; i < r->batch.n_prompts; i++) {
		r->square[i] = at;
		at += r->n_heads * r->batch.length[i] * r->batch.length[i];
	}
}

static float *square_of(const struct lens_record *r, size_t layer, size_t prompt, size_t head,
			size_t query)
{
	size_t n = r->batch.length[prompt];

	return r->value[LENS_HOOK_PATTERN] + layer * r->max_squares + r->square[prompt] +
	       (head * n + query) * n;
}

static float *rows_of(const struct lens_record *r, enum lens_hook hook, size_t layer)
{
	return r->value[hook] + layer * r->max_rows * r->width[hook];
}

static enum lens_status visit(void *ctx, const struct lens_batch *b,
			      const struct lens_activation *a, struct lens_error *err)
{
	struct lens_record *r = ctx;
	size_t row, width = a->width;
	float *out;

	(void)err;
	if (lens_hook_is_square(a->hook)) {
		out = square_of(r, a->layer, a->prompt, a->head, a->q0);
		for (row = 0; row < a->nq; row++)
			memcpy(out + row * width, a->data + row * a->stride,
			       width * sizeof(*out));
		return LENS_OK;
	}
	out = rows_of(r, a->hook, a->layer);
	for (row = 0; row < b->n_rows; row++)
		memcpy(out + row * width, a->data + row * a->stride, width * sizeof(*out));
	return LENS_OK;
}

struct lens_visitor lens_record_visitor(struct lens_record *r)
{
	return (struct lens_visitor){ .hooks = &r->hooks, .visit = visit, .ctx = r };
}

const float *lens_recorded(const struct lens_record *r, enum lens_hook hook, size_t layer,
			   size_t prompt, size_t pos)
{
	long row = lens_batch_row(&r->batch, prompt, pos);

	return rows_of(r, hook, layer) + (size_t)row * r->width[hook];
}

const float *lens_recorded_square(const struct lens_record *r, size_t layer, size_t prompt,
				  size_t head, size_t query)
{
	return square_of(r, layer, prompt, head, query);
}
