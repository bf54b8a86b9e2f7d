/*
 * interventions/study.c: what an experiment asks for. In: the experiment, the model; out:
 * grids, and the data sets that their cells and the runs themselves fill.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- data sets ---------------------------------------------------------------------------- */

static const struct lens_table_type *type_of(enum lens_table metric)
{
	return lens_table_type(metric, &(struct lens_tables_options){ .batch_rows = 0 });
}

size_t lens_metric_floats(enum lens_table metric, const struct lens_sizes *s)
{
	const struct lens_table_type *t = type_of(metric);
	size_t n = 1;
	int i;

	for (i = 0; i < t->n_axes; i++)
		n *= lens_axis_extent(t->axis[i], s);
	return n;
}

size_t lens_outcome_floats(const struct lens_outcome *o, const struct lens_sizes *sizes)
{
	size_t n = 1;
	int i;

	for (i = 0; i < o->n_axes; i++)
		n *= lens_axis_extent(o->axis[i], sizes);
	return n;
}

struct lens_outcome *lens_add_outcome(struct lens_study *s, enum lens_outcome_of of,
				      enum lens_table metric)
{
	struct lens_outcome *o = &s->outcome[s->n_outcomes++];
	const struct lens_table_type *t = type_of(metric);

	o->of = of;
	o->metric = metric;
	o->units = t->units;
	o->dtype = t->dtype;
	o->n_axes = t->n_axes;
	memcpy(o->axis, t->axis, (size_t)t->n_axes * sizeof(*o->axis));
	s->metric[metric] = true;
	return o;
}

struct lens_outcome *lens_add_cells(struct lens_study *s, enum lens_outcome_of of, size_t grid,
				    enum lens_table metric)
{
	const struct lens_study_grid *g = &s->grid[grid];
	struct lens_outcome *o = lens_add_outcome(s, of, metric);

	memmove(o->axis + g->n_axes, o->axis, (size_t)o->n_axes * sizeof(*o->axis));
	memcpy(o->axis, g->axis, (size_t)g->n_axes * sizeof(*o->axis));
	o->n_axes += g->n_axes;
	return o;
}

enum lens_status lens_add_tables(struct lens_study *s, const char *group,
				 struct lens_error *err)
{
	const struct lens_tables_options opt = { .batch_rows = 0 };
	size_t grid = s->n_grids - 1;
	struct lens_study_grid *g = &s->grid[grid];
	int i;

	g->outcome = s->n_outcomes;
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		enum lens_table t = (enum lens_table)i;
		const struct lens_table_type *type = lens_table_type(t, &opt);
		struct lens_outcome *o;

		if (type->logits != LENS_AT_READ_POS || type->attrs || type->has_deviation ||
		    lens_dtype_size(type->dtype) != sizeof(float) ||
		    !lens_experiment_wants_table(s->experiment, lens_table_group(t)))
			continue;
		o = lens_add_cells(s, LENS_OUTCOME_CELLS, grid, t);
		snprintf(o->name, sizeof(o->name), "%s/%s", group, lens_table_name(t));
		snprintf(o->long_name, sizeof(o->long_name), "%.150s: %s", type->long_name,
			 group);
	}
	g->n_outcomes = s->n_outcomes - g->outcome;
	return g->n_outcomes
		       ? LENS_OK
		       : lens_error_set(err, LENS_ERR_INVALID,
					"%s changes tables of the read position (logit_diff, "
					"answer_logit, …, top_tokens), and tables lists none",
					group);
}

/* --- layers and heads ----------------------------------------------------------------- */

enum lens_status lens_check_layers(const struct lens_study *s, const char *key,
				   const long *layer, size_t n, struct lens_error *err)
{
	long n_layers = (long)s->model->config.n_layers;
	size_t i;

	for (i = 0; i < n; i++) {
		if (layer[i] < 0 || layer[i] >= n_layers)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "%s: there is no layer %ld; the model has %ld",
					      key, layer[i], n_layers);
	}
	return LENS_OK;
}

enum lens_status lens_spot_parse(const struct lens_study *s, const char *key, const char *text,
				 struct lens_spot *out, struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	char *end;

	/* The form, "layer.head", is checked with the experiment. */
	out->layer = strtoul(text, &end, 10);
	out->head = *end == '.' ? strtoul(end + 1, NULL, 10) : SIZE_MAX;
	if (out->layer < c->n_layers && out->head < c->n_heads)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_INVALID,
			      "%s: there is no head %s; the model has %zu layers of %zu heads",
			      key, text, c->n_layers, c->n_heads);
}

enum lens_status lens_ask_heads(const struct lens_study *s, const char *key,
				const struct lens_strings *heads, bool **out,
				struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	struct lens_spot spot;
	size_t i;

	if (!heads->n)
		return LENS_OK;
	*out = lens_calloc(c->n_layers * c->n_heads, sizeof(**out));
	if (!*out)
		return lens_error_nomem(err, c->n_layers, c->n_heads);
	for (i = 0; i < heads->n; i++) {
		LENS_TRY(lens_spot_parse(s, key, heads->v[i], &spot, err));
		(*out)[spot.layer * c->n_heads + spot.head] = true;
	}
	return LENS_OK;
}

const char *lens_hook_leaf(enum lens_hook hook)
{
	const char *name = lens_hook_info(hook)->name;
	const char *last = strrchr(name, '.');

	return last ? last + 1 : name;
}

/* --- the whole -------------------------------------------------------------------- */

enum lens_status lens_study_init(struct lens_study *s, const struct lens_model *m,
				 const struct lens_experiment *e, struct lens_error *err)
{
	size_t n = e->patch.grids.n + e->ablate.grids.n + (e->ablate.n_sets > 0) +
		   lens_experiment_cuts(e) + (e->steer.vector != NULL) +
		   (e->path.receivers.n > 0);
	enum lens_status st;

	*s = (struct lens_study){ .model = m, .experiment = e };
	if (!n)
		return LENS_OK;
	s->grid = lens_calloc(n, sizeof(*s->grid));
	s->outcome = lens_calloc(LENS_MOST_OUTCOMES, sizeof(*s->outcome));
	st = s->grid && s->outcome ? LENS_OK : lens_error_nomem(err, n, sizeof(*s->grid));
	if (st == LENS_OK && e->patch.grids.n)
		st = lens_study_add_patching(s, err);
	if (st == LENS_OK && (e->ablate.grids.n || e->ablate.n_sets))
		st = lens_study_add_ablation(s, err);
	if (st == LENS_OK && lens_experiment_cuts(e))
		st = lens_study_add_knockout(s, err);
	if (st == LENS_OK && e->steer.vector)
		st = lens_study_add_steering(s, err);
	if (st == LENS_OK && e->path.receivers.n)
		st = lens_study_add_paths(s, err);
	if (st != LENS_OK)
		lens_study_release(s);
	return st;
}

void lens_study_release(struct lens_study *s)
{
	size_t i;

	for (i = 0; i < s->n_sets; i++)
		lens_free(s->set[i].spot);
	lens_free(s->set);
	lens_free(s->cut.spot);
	lens_free(s->steered.spot);
	lens_free(s->receiver);
	lens_free(s->sender);
	lens_free(s->set_name);
	lens_free(s->grid);
	lens_free(s->outcome);
	lens_free(s->layer);
	lens_free(s->head);
	lens_free(s->ablated_head);
	memset(s, 0, sizeof(*s));
}
