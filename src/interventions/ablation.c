/*
 * interventions/ablation.c: what `ablate` asks for: the clean run with heads, attention or
 * MLPs replaced at all positions. In: the experiment; out: grids of the study, sets of
 * heads, and the data sets of cells.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>
#include <string.h>

static enum lens_run source_of(const struct lens_experiment *e)
{
	static const enum lens_run runs[] = { [LENS_ABLATE_ZERO] = LENS_RUN_ZERO,
					      [LENS_ABLATE_MEAN] = LENS_RUN_MEAN,
					      [LENS_ABLATE_RESAMPLE] = LENS_RUN_OTHER };

	return runs[e->ablate.value];
}

static const char *source_name(enum lens_run source)
{
	return source == LENS_RUN_ZERO   ? "zero"
	       : source == LENS_RUN_MEAN ? "the data set's mean"
					 : "another prompt's";
}

/* A grid of axes that replaces a hook point, and its cells. */
static void add_grid(struct lens_study *s, const char *name, struct lens_study_grid grid)
{
	struct lens_study_grid *g = &s->grid[s->n_grids++];
	struct lens_outcome *o;

	*g = grid;
	g->base = LENS_RUN_CLEAN;
	g->source = source_of(s->experiment);
	g->head = s->ablated_head;
	g->outcome = s->n_outcomes;
	g->n_outcomes = 1;
	s->needs[LENS_RUN_CLEAN] = true;
	if (g->source < LENS_RUN_COUNT)
		s->needs[g->source] = true;
	s->mean[g->hook] |= g->source == LENS_RUN_MEAN;
	o = lens_add_cells(s, LENS_OUTCOME_CELLS, s->n_grids - 1, LENS_TABLE_logit_diff);
	snprintf(o->name, sizeof(o->name), "ablate/%s", name);
	snprintf(o->long_name, sizeof(o->long_name),
		 "%s of the clean run with %s replaced by %s", lens_table_name(o->metric),
		 lens_hook_leaf(g->hook), source_name(g->source));
}

static enum lens_status add_named(struct lens_study *s, const char *name,
				  struct lens_error *err)
{
	static const struct {
		const char *name;
		struct lens_study_grid grid;
	} grids[] = {
		{ "attn_head_out_all_pos",
		  { .hook = LENS_HOOK_Z,
		    .n_axes = 2,
		    .axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD } } },
		{ "attn_out",
		  { .hook = LENS_HOOK_ATTN_OUT, .n_axes = 1, .axis = { LENS_AXIS_LAYER } } },
		{ "mlp_out",
		  { .hook = LENS_HOOK_MLP_OUT, .n_axes = 1, .axis = { LENS_AXIS_LAYER } } },
	};
	size_t i;

	for (i = 0; i < sizeof(grids) / sizeof(*grids); i++) {
		if (!strcmp(grids[i].name, name)) {
			if (!lens_hook_exists(&s->model->config, grids[i].grid.hook))
				break;
			add_grid(s, name, grids[i].grid);
			return LENS_OK;
		}
	}
	return lens_error_set(err, LENS_ERR_INVALID, "ablate.grids: there is no %s in %s", name,
			      lens_why_no_hook(&s->model->config));
}

static enum lens_status parse_set(struct lens_study *s, const struct lens_named_list *list,
				  struct lens_spots *out, struct lens_error *err)
{
	char key[128];
	size_t i;

	snprintf(key, sizeof(key), "ablate.sets.%.100s", list->name);
	out->spot = lens_calloc(list->heads.n, sizeof(*out->spot));
	if (!out->spot)
		return lens_error_nomem(err, list->heads.n, sizeof(*out->spot));
	out->n = list->heads.n;
	out->layer = s->model->config.n_layers;
	for (i = 0; i < out->n; i++) {
		LENS_TRY(lens_spot_parse(s, key, list->heads.v[i], &out->spot[i], err));
		out->layer = lens_min(out->layer, out->spot[i].layer);
	}
	return LENS_OK;
}

static enum lens_status add_sets(struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	size_t n = e->ablate.n_sets;

	s->set = lens_calloc(n, sizeof(*s->set));
	s->set_name = lens_calloc(n, sizeof(*s->set_name));
	if (!s->set || !s->set_name)
		return lens_error_nomem(err, n, sizeof(*s->set));
	while (s->n_sets < n) {
		const struct lens_named_list *list = &e->ablate.set[s->n_sets];

		s->set_name[s->n_sets] = list->name;
		LENS_TRY(parse_set(s, list, &s->set[s->n_sets++], err));
	}
	add_grid(s, "sets",
		 (struct lens_study_grid){ .hook = LENS_HOOK_Z,
					   .n_axes = 1,
					   .axis = { LENS_AXIS_SET },
					   .spots = s->set,
					   .n_spots = s->n_sets });
	return LENS_OK;
}

enum lens_status lens_study_add_ablation(struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	size_t i;

	LENS_TRY(lens_ask_heads(s, "ablate.heads", &e->ablate.heads, &s->ablated_head, err));
	for (i = 0; i < e->ablate.grids.n; i++)
		LENS_TRY(add_named(s, e->ablate.grids.v[i], err));
	return e->ablate.n_sets ? add_sets(s, err) : LENS_OK;
}
