/*
 * interventions/patching.c: what `patch` asks for. In: the experiment; out: a grid of the
 * study for each of its grids, and the data sets of cells, of shares, and of both runs.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>
#include <string.h>

static enum lens_table metric_of(const struct lens_study *s)
{
	static const enum lens_table tables[] = {
		[LENS_METRIC_LOGIT_DIFF] = LENS_TABLE_logit_diff,
		[LENS_METRIC_ANSWER_LOGIT] = LENS_TABLE_answer_logit,
		[LENS_METRIC_ANSWER_LOGPROB] = LENS_TABLE_answer_logprob,
		[LENS_METRIC_KL_DIVERGENCE] = LENS_TABLE_kl_divergence,
	};

	return tables[s->experiment->patch.metric];
}

static const char *run_name(enum lens_run run)
{
	return run == LENS_RUN_CLEAN ? "clean" : "corrupted";
}

/* --- data sets -------------------------------------------------------------------- */

static void add_cells(struct lens_study *s, const char *name)
{
	size_t grid = s->n_grids - 1;
	struct lens_study_grid *g = &s->grid[grid];
	struct lens_outcome *o = lens_add_cells(s, LENS_OUTCOME_CELLS, grid, metric_of(s));

	g->outcome = s->n_outcomes - 1;
	g->n_outcomes = 1;
	snprintf(o->name, sizeof(o->name), "patch/%s", name);
	snprintf(o->long_name, sizeof(o->long_name), "%s of the %s run with %s of the %s run",
		 lens_table_name(o->metric), run_name(g->base), lens_hook_leaf(g->hook),
		 run_name(g->source));
	if (!s->experiment->patch.normalize)
		return;
	o = lens_add_cells(s, LENS_OUTCOME_NORMALIZED, grid, metric_of(s));
	o->cells = g->outcome;
	o->units = NULL;
	snprintf(o->name, sizeof(o->name), "patch/%s_normalized", name);
	snprintf(o->long_name, sizeof(o->long_name),
		 "(x - corrupted)/(clean - corrupted) of %s, NaN where the two are equal",
		 name);
}

static void add_run(struct lens_study *s, enum lens_run run)
{
	struct lens_outcome *o = lens_add_outcome(s, LENS_OUTCOME_RUN, metric_of(s));

	o->run = run;
	snprintf(o->name, sizeof(o->name), "patch/%s_%s", run_name(run),
		 lens_table_name(o->metric));
	snprintf(o->long_name, sizeof(o->long_name), "%s of the %s run",
		 lens_table_name(o->metric), run_name(run));
	s->needs[run] = true;
}

/* --- what is asked for ------------------------------------------------------------ */

static enum lens_status ask_layers(struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	size_t i, n = s->model->config.n_layers;

	if (!e->patch.n_layers)
		return LENS_OK;
	LENS_TRY(lens_check_layers(s, "patch.layers", e->patch.layer, e->patch.n_layers, err));
	s->layer = lens_calloc(n, sizeof(*s->layer));
	if (!s->layer)
		return lens_error_nomem(err, n, sizeof(*s->layer));
	for (i = 0; i < e->patch.n_layers; i++)
		s->layer[e->patch.layer[i]] = true;
	return LENS_OK;
}

/* Keys and values have heads of their own only where queries are grouped. */
static enum lens_axis axis_of(const struct lens_config *c, enum lens_axis axis)
{
	return axis == LENS_AXIS_KV_HEAD && c->n_kv_heads == c->n_heads ? LENS_AXIS_HEAD : axis;
}

static const struct lens_grid_info *grid_named(const char *name)
{
	int i = 0;

	while (i < LENS_GRID_COUNT && strcmp(lens_grid_info((enum lens_grid)i)->name, name))
		i++;
	return i < LENS_GRID_COUNT ? lens_grid_info((enum lens_grid)i) : NULL;
}

static enum lens_status add_grid(struct lens_study *s, const char *name, struct lens_error *err)
{
	const bool noise = s->experiment->patch.direction == LENS_NOISE;
	const struct lens_grid_info *info = grid_named(name);
	struct lens_study_grid *g = &s->grid[s->n_grids];
	int i;

	if (!info)
		return lens_error_set(err, LENS_ERR_INVALID, "patch.grids: no grid '%s'", name);
	if (!lens_hook_exists(&s->model->config, info->hook))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "patch.grids: there is no %s in %s", name,
				      lens_why_no_hook(&s->model->config));
	*g = (struct lens_study_grid){ .hook = info->hook,
				       .n_axes = info->n_axes,
				       .base = noise ? LENS_RUN_CLEAN : LENS_RUN_CORRUPTED,
				       .source = noise ? LENS_RUN_CORRUPTED : LENS_RUN_CLEAN,
				       .head = s->head,
				       .patched = true };
	for (i = 0; i < info->n_axes; i++)
		g->axis[i] = axis_of(&s->model->config, info->axis[i]);
	s->n_grids++;
	add_cells(s, name);
	return LENS_OK;
}

enum lens_status lens_study_add_patching(struct lens_study *s, struct lens_error *err)
{
	const struct lens_strings *grids = &s->experiment->patch.grids;
	size_t i;

	LENS_TRY(ask_layers(s, err));
	LENS_TRY(lens_ask_heads(s, "patch.heads", &s->experiment->patch.heads, &s->head, err));
	for (i = 0; i < grids->n; i++)
		LENS_TRY(add_grid(s, grids->v[i], err));
	add_run(s, LENS_RUN_CORRUPTED);
	add_run(s, LENS_RUN_CLEAN);
	return LENS_OK;
}
