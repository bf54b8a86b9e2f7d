/*
 * interventions/cells.c: a grid's cells, one after the other, and from which position on
 * each can change anything. In: a grid, a layer, a prompt; out: cells.
 */
#include "interventions/interventions_private.h"

/* Does a value act on its own position alone, in its layer? */
static bool acts_in_place(enum lens_hook hook)
{
	return hook != LENS_HOOK_RESID_PRE && hook != LENS_HOOK_K && hook != LENS_HOOK_V;
}

/* Is it as if nothing were added? */
static bool is_zero(const struct lens_study *s, const struct lens_cell *c)
{
	return c->grid->source == LENS_RUN_STEERED &&
	       !(s->experiment->steer.scale[c->scale] != 0);
}

bool lens_cell_changes(const struct lens_study *s, size_t read_pos, struct lens_cell *c)
{
	size_t n_layers = s->model->config.n_layers;
	bool last = c->spot.layer + 1 == n_layers;

	c->from = c->parting;
	if (is_zero(s, c))
		return false;
	if (c->grid->source == LENS_RUN_PATH)
		return c->from <= read_pos &&
		       (!s->n_receivers || lens_first_receiver(s, c->spot.layer) < n_layers);
	if (c->pos != NOT_ONE) {
		if (c->pos < c->from || (c->key != NOT_ONE && c->key > c->pos))
			return false;
		c->from = c->pos;
	} else if (last && acts_in_place(c->grid->hook) && c->from < read_pos) {
		c->from = read_pos;
	}
	if (last && acts_in_place(c->grid->hook) && c->from != read_pos)
		return false;
	return c->from <= read_pos;
}

bool lens_grid_has(const struct lens_study_grid *g, enum lens_axis axis)
{
	int i;

	for (i = 0; i < g->n_axes; i++) {
		if (g->axis[i] == axis)
			return true;
	}
	return false;
}

/* How many cells there are in one direction, or one without an index. */
struct range {
	size_t n;
	bool is_axis;
};

static struct range range_of(const struct lens_cells *l, const struct lens_study_grid *g,
			     const enum lens_axis *axis, size_t n_axes)
{
	size_t i;

	for (i = 0; i < n_axes; i++) {
		if (lens_grid_has(g, axis[i]))
			return (struct range){ lens_axis_extent(axis[i], l->sizes), true };
	}
	return (struct range){ 1, false };
}

/* The place of a cell among those of its grid. */
static size_t index_of(const struct lens_cells *l, const struct lens_cell *c)
{
	size_t at = 0;
	int i;

	for (i = 0; i < c->grid->n_axes; i++) {
		enum lens_axis axis = c->grid->axis[i];
		size_t k = c->pos;

		if (axis == LENS_AXIS_LAYER)
			k = c->spot.layer;
		else if (axis == LENS_AXIS_HEAD || axis == LENS_AXIS_KV_HEAD)
			k = c->spot.head;
		else if (axis == LENS_AXIS_SRC_POS)
			k = c->key;
		else if (axis == LENS_AXIS_SET)
			k = c->set;
		else if (axis == LENS_AXIS_SCALE)
			k = c->scale;
		at = at * lens_axis_extent(axis, l->sizes) + k;
	}
	return at;
}

/* Is any query head that reads these keys and values asked for? */
static bool head_asked(const struct lens_cells *l, const struct lens_study_grid *g,
		       const struct lens_spot *spot)
{
	const struct lens_config *c = &l->study->model->config;
	bool kv = lens_grid_has(g, LENS_AXIS_KV_HEAD);
	size_t i, group = kv ? c->n_heads / c->n_kv_heads : 1;

	if (spot->head == NOT_ONE || !g->head)
		return true;
	for (i = 0; i < group; i++) {
		if (g->head[spot->layer * c->n_heads + spot->head * group + i])
			return true;
	}
	return false;
}

static bool position_asked(const struct lens_cells *l, const struct lens_cell *c, size_t length)
{
	const struct lens_experiment *e = l->study->experiment;
	size_t i;

	if (c->pos == NOT_ONE || !c->grid->patched || !e->patch.n_positions)
		return true;
	for (i = 0; i < e->patch.n_positions; i++) {
		long pos = e->patch.position[i];

		if ((long)c->pos == (pos < 0 ? pos + (long)length : pos))
			return true;
	}
	return false;
}

/* The spots whose first layer it is; each with all scales, if there are any. */
static enum lens_status each_spots(const struct lens_cells *l, size_t layer, struct lens_cell c,
				   struct lens_error *err)
{
	const struct lens_study_grid *g = c.grid;
	bool scales = lens_grid_has(g, LENS_AXIS_SCALE);
	size_t i, n = scales ? l->study->experiment->steer.n_scales : 1;

	for (i = 0; i < g->n_spots * n; i++) {
		c.set = i / n;
		c.scale = i % n;
		c.spot = (struct lens_spot){ layer, NOT_ONE };
		c.at = index_of(l, &c);
		if (g->spots[c.set].layer == layer)
			LENS_TRY(l->fn(l->ctx, &c, err));
	}
	return LENS_OK;
}

enum lens_status lens_cells_each(const struct lens_cells *l, const struct lens_study_grid *g,
				 size_t layer, struct lens_cell c, size_t length,
				 struct lens_error *err)
{
	static const enum lens_axis of_pos[] = { LENS_AXIS_POS, LENS_AXIS_DEST_POS };
	static const enum lens_axis of_head[] = { LENS_AXIS_HEAD, LENS_AXIS_KV_HEAD };
	static const enum lens_axis of_key[] = { LENS_AXIS_SRC_POS };
	const struct range pos = range_of(l, g, of_pos, 2), head = range_of(l, g, of_head, 2),
			   key = range_of(l, g, of_key, 1);
	size_t i, n_pos = pos.is_axis ? lens_min(pos.n, length) : 1;
	size_t n_keys = key.is_axis ? lens_min(key.n, length) : 1;

	c.grid = g;
	c.set = c.pos = c.key = NOT_ONE;
	if (g->spots)
		return each_spots(l, layer, c, err);
	if (g->patched && l->study->layer && !l->study->layer[layer])
		return LENS_OK;
	for (i = 0; i < n_pos * head.n * n_keys; i++) {
		c.spot = (struct lens_spot){ layer,
					     head.is_axis ? i / n_keys % head.n : NOT_ONE };
		c.pos = pos.is_axis ? i / n_keys / head.n : NOT_ONE;
		c.key = key.is_axis ? i % n_keys : NOT_ONE;
		c.at = index_of(l, &c);
		if (head_asked(l, g, &c.spot) && position_asked(l, &c, length))
			LENS_TRY(l->fn(l->ctx, &c, err));
	}
	return LENS_OK;
}
