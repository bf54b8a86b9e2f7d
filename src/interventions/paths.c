/*
 * interventions/paths.c: path patching (Wang et al. 2022, appendix B): what a head of the
 * clean run changes in the corrupted one by its direct paths to some receivers alone. In:
 * the experiment; out: a grid with a cell for each sender, and what the two passes of a
 * cell hand on.
 *
 * In the first pass a sender's z is the clean run's, and every other head's z and every
 * MLP's output stay as they are in the corrupted run: what reaches a receiver is the
 * sender's direct effect. In the second the receivers have what they were given, and
 * nothing else is held. Where the logits receive, the first pass is all.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what the experiment asks for ------------------------------------------------- */

/* "9.9.q", whose form the experiment has checked. */
static enum lens_status parse(const struct lens_study *s, const char *text,
			      struct lens_receiver *out, struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	const char *last = strrchr(text, '.');
	struct lens_spot spot;

	LENS_TRY(lens_spot_parse(s, "path.receivers", text, &spot, err));
	out->layer = spot.layer;
	out->head = spot.head;
	out->hook = last[1] == 'q' ? LENS_HOOK_Q : last[1] == 'k' ? LENS_HOOK_K : LENS_HOOK_V;
	if (out->hook != LENS_HOOK_Q && out->head >= c->n_kv_heads)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "path.receivers: %s: keys and values have %zu heads",
				      text, c->n_kv_heads);
	return LENS_OK;
}

static enum lens_status take_receivers(struct lens_study *s, struct lens_error *err)
{
	const struct lens_strings *list = &s->experiment->path.receivers;
	size_t i;

	if (list->n == 1 && !strcmp(list->v[0], "logits"))
		return LENS_OK;
	s->receiver = lens_calloc(list->n, sizeof(*s->receiver));
	if (!s->receiver)
		return lens_error_nomem(err, list->n, sizeof(*s->receiver));
	for (i = 0; i < list->n; i++)
		LENS_TRY(parse(s, list->v[i], &s->receiver[s->n_receivers++], err));
	return LENS_OK;
}

size_t lens_first_receiver(const struct lens_study *s, size_t sender)
{
	size_t i, first = s->model->config.n_layers;

	for (i = 0; i < s->n_receivers; i++) {
		if (s->receiver[i].layer > sender)
			first = lens_min(first, s->receiver[i].layer);
	}
	return first;
}

enum lens_status lens_study_add_paths(struct lens_study *s, struct lens_error *err)
{
	struct lens_study_grid *g = &s->grid[s->n_grids];
	struct lens_outcome *o;

	LENS_TRY(take_receivers(s, err));
	LENS_TRY(lens_ask_heads(s, "path.senders", &s->experiment->path.senders, &s->sender,
				err));
	*g = (struct lens_study_grid){ .hook = LENS_HOOK_Z,
				       .n_axes = 2,
				       .axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD },
				       .base = LENS_RUN_CORRUPTED,
				       .source = LENS_RUN_PATH,
				       .outcome = s->n_outcomes,
				       .n_outcomes = 1,
				       .head = s->sender };
	s->n_grids++;
	s->needs[LENS_RUN_CLEAN] = s->needs[LENS_RUN_CORRUPTED] = true;
	o = lens_add_cells(s, LENS_OUTCOME_CELLS, s->n_grids - 1, LENS_TABLE_logit_diff);
	snprintf(o->name, sizeof(o->name), "path/logit_diff");
	snprintf(o->long_name, sizeof(o->long_name),
		 "logit_diff of the corrupted run with hook_z of the clean run by its direct "
		 "paths to path.receivers");
	return LENS_OK;
}

/* --- between the passes ----------------------------------------------------------- */

enum lens_status lens_received_init(struct lens_received *r, const struct lens_study *s,
				    size_t max_rows, struct lens_error *err)
{
	size_t i, n = s->n_receivers * max_rows * s->model->config.d_head;

	*r = (struct lens_received){ .study = s, .max_rows = max_rows };
	LENS_TRY(lens_hook_set_init(&r->hooks, &s->model->config, NULL, 0, err));
	if (!n)
		return LENS_OK;
	r->value = lens_alloc_aligned(n, sizeof(float));
	if (!r->value)
		return lens_error_nomem(err, n, sizeof(float));
	for (i = 0; i < s->n_receivers; i++)
		lens_hook_want(&r->hooks, s->receiver[i].hook, s->receiver[i].layer,
			       LENS_WANT_ALL);
	return LENS_OK;
}

void lens_received_release(struct lens_received *r)
{
	lens_free(r->value);
	lens_hook_set_release(&r->hooks);
}

size_t lens_received_bytes(const struct lens_study *s, size_t max_rows)
{
	return s->n_receivers * max_rows * s->model->config.d_head * sizeof(float);
}

/* The i-th receiver's values in a row. */
static float *received(const struct lens_received *r, size_t i, size_t row)
{
	return r->value + (i * r->max_rows + row) * r->study->model->config.d_head;
}

static bool is_of(const struct lens_receiver *r, const struct lens_activation *a)
{
	return r->hook == a->hook && r->layer == a->layer;
}

static enum lens_status keep(void *ctx, const struct lens_batch *b,
			     const struct lens_activation *a, struct lens_error *err)
{
	struct lens_received *r = ctx;
	size_t i, row, dh = r->study->model->config.d_head;

	(void)err;
	for (i = 0; i < r->study->n_receivers; i++) {
		const struct lens_receiver *to = &r->study->receiver[i];

		for (row = 0; is_of(to, a) && row < b->n_rows; row++)
			memcpy(received(r, i, row), a->data + row * a->stride + to->head * dh,
			       dh * sizeof(float));
	}
	return LENS_OK;
}

static enum lens_status put(void *ctx, const struct lens_batch *b,
			    const struct lens_activation *a, float *data,
			    struct lens_error *err)
{
	struct lens_received *r = ctx;
	size_t i, row, dh = r->study->model->config.d_head;

	(void)err;
	for (i = 0; i < r->study->n_receivers; i++) {
		const struct lens_receiver *to = &r->study->receiver[i];

		if (to->layer < r->from)
			continue;
		for (row = 0; is_of(to, a) && row < b->n_rows; row++)
			memcpy(data + row * a->stride + to->head * dh, received(r, i, row),
			       dh * sizeof(float));
	}
	return LENS_OK;
}

struct lens_visitor lens_received_visitor(struct lens_received *r)
{
	return (struct lens_visitor){ .hooks = &r->hooks, .visit = keep, .ctx = r };
}

struct lens_visitor lens_received_editor(struct lens_received *r)
{
	return (struct lens_visitor){ .hooks = &r->hooks, .edit = put, .ctx = r };
}
