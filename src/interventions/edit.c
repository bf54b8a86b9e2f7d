/*
 * interventions/edit.c: the visitor that replaces. In: the cells of a batch, whose i-th
 * prompt is cell i, and the recorded runs; out: changed activations.
 */
#include "interventions/interventions_private.h"

#include <math.h>
#include <string.h>

/* The recorded prompt whose values a cell is given; and that which it departs from. */
static size_t source_prompt(const struct lens_editor *e, const struct lens_cell *c)
{
	return c->pair * e->n_runs + e->run[lens_source_run(c->grid)];
}

static size_t base_prompt(const struct lens_editor *e, const struct lens_cell *c)
{
	return c->pair * e->n_runs + e->run[c->grid->base];
}

/* What a position is given, [width]; NULL: zeros. */
static const float *value_of(const struct lens_editor *e, const struct lens_cell *c,
			     const struct lens_activation *a, size_t pos)
{
	const struct lens_mean *mean = e->mean;

	switch (c->grid->source) {
	case LENS_RUN_ZERO:
		return NULL;
	case LENS_RUN_MEAN:
		return mean->value[a->hook] +
		       (a->layer * mean->shape.n_pos + (mean->shape.per_position ? pos : 0)) *
			       a->width;
	default:
		return lens_recorded(e->record, a->hook, a->layer, source_prompt(e, c), pos);
	}
}

static void add_vector(const struct lens_editor *e, const struct lens_cell *c, size_t width,
		       float *row)
{
	double scale = e->study->experiment->steer.scale[c->scale];
	size_t i;

	for (i = 0; i < width; i++)
		row[i] = (float)((double)row[i] + scale * (double)e->vector[i]);
}

/* Of a cell, at which positions? */
static bool is_replaced(const struct lens_editor *e, const struct lens_cell *c, size_t pos)
{
	const struct lens_experiment *x = e->study->experiment;
	size_t row = e->row0 + c->pair;

	if (c->grid->source == LENS_RUN_STEERED)
		return lens_place_has(&x->steer.positions, NULL, row,
				      lens_prompt_length(e->prompts, row), pos);
	return c->pos == NOT_ONE || c->pos == pos;
}

/* One position: of one head, or all. */
static void put_row(const struct lens_editor *e, const struct lens_cell *c, size_t head,
		    const struct lens_activation *a, size_t pos, float *row)
{
	size_t heads = lens_hook_heads(&e->study->model->config, a->hook);
	size_t width = head == NOT_ONE ? a->width : a->width / heads;
	size_t from = head == NOT_ONE ? 0 : head * width;
	const float *value;

	if (c->grid->source == LENS_RUN_STEERED) {
		add_vector(e, c, a->width, row);
		return;
	}
	value = value_of(e, c, a, pos);
	if (value)
		memcpy(row + from, value + from, width * sizeof(*row));
	else
		memset(row + from, 0, width * sizeof(*row));
}

static void put_rows(const struct lens_editor *e, size_t prompt, size_t head,
		     const struct lens_batch *b, const struct lens_activation *a, float *data)
{
	const struct lens_cell *c = &e->cell[prompt];
	size_t pos = c->pos == NOT_ONE ? c->from : c->pos;
	size_t end = c->pos == NOT_ONE ? b->length[prompt] : c->pos + 1;

	for (; pos < end; pos++) {
		long row = lens_batch_row(b, prompt, pos);

		if (row >= 0 && is_replaced(e, c, pos))
			put_row(e, c, head, a, pos, data + (size_t)row * a->stride);
	}
}

/* Scores of the queries `to` on the keys `from`. */
static void cut(const struct lens_editor *e, const struct lens_activation *a, float *data)
{
	const struct lens_experiment *x = e->study->experiment;
	const struct lens_prompts *p = e->prompts;
	size_t row = e->row0 + e->cell[a->prompt].pair, length = lens_prompt_length(p, row);
	size_t i, key;

	for (i = 0; i < a->nq; i++) {
		if (!lens_place_has(&x->knockout.to, p->found[1], row, length, a->q0 + i))
			continue;
		for (key = 0; key <= a->q0 + i; key++) {
			if (lens_place_has(&x->knockout.from, p->found[0], row, length, key))
				data[i * a->stride + key] = -INFINITY;
		}
	}
}

/* Queries of one prompt and head: all keys up to each, or one. */
static void put_pattern(const struct lens_editor *e, const struct lens_activation *a,
			float *data)
{
	const struct lens_cell *c = &e->cell[a->prompt];
	size_t i;

	for (i = 0; i < a->nq; i++) {
		size_t query = a->q0 + i;
		const float *from = lens_recorded_square(e->record, a->layer,
							 source_prompt(e, c), a->head, query);
		float *to = data + i * a->stride;

		if (c->pos != NOT_ONE && c->pos != query)
			continue;
		if (c->key == NOT_ONE)
			memcpy(to, from, (query + 1) * sizeof(*to));
		else
			to[c->key] = from[c->key];
	}
}

/* Heads and MLPs of the cells' rows as in the runs that they depart from. */
static void freeze(const struct lens_editor *e, const struct lens_batch *b,
		   const struct lens_activation *a, float *data)
{
	size_t i, pos;

	for (i = 0; i < e->n; i++) {
		const struct lens_cell *c = &e->cell[i];

		for (pos = c->from; pos < b->length[i]; pos++) {
			long row = lens_batch_row(b, i, pos);

			if (row >= 0)
				memcpy(data + (size_t)row * a->stride,
				       lens_recorded(e->record, a->hook, a->layer,
						     base_prompt(e, c), pos),
				       a->width * sizeof(*data));
		}
	}
}

static enum lens_status edit(void *ctx, const struct lens_batch *b,
			     const struct lens_activation *a, float *data,
			     struct lens_error *err)
{
	const struct lens_editor *e = ctx;
	bool square = lens_hook_is_square(a->hook);
	size_t i, k;

	(void)err;
	if (e->frozen && (a->hook == LENS_HOOK_Z || a->hook == LENS_HOOK_MLP_OUT))
		freeze(e, b, a, data);
	for (i = square ? a->prompt : 0; i < (square ? a->prompt + 1 : e->n); i++) {
		const struct lens_cell *c = &e->cell[i];
		const struct lens_spots own = { &e->cell[i].spot, 1, 0 };
		const struct lens_spots *at =
			c->set == NOT_ONE ? &own : &c->grid->spots[c->set];

		for (k = 0; k < at->n && c->grid->hook == a->hook; k++) {
			if (at->spot[k].layer != a->layer ||
			    (square && at->spot[k].head != a->head))
				continue;
			if (c->grid->source == LENS_RUN_CUT)
				cut(e, a, data);
			else if (square)
				put_pattern(e, a, data);
			else
				put_rows(e, i, at->spot[k].head, b, a, data);
		}
	}
	return LENS_OK;
}

struct lens_visitor lens_editor_visitor(struct lens_editor *e)
{
	return (struct lens_visitor){ .hooks = &e->hooks, .edit = edit, .ctx = e };
}
