/*
 * interventions/knockout.c: what `knockout` asks for (attention knockout, Geva et al. 2023):
 * scores of −inf before the softmax, of some queries on some keys, in some layers and
 * heads at once. In: the experiment; out: a grid of one cell.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>

/* --- what is read of the cells
 * ---------------------------------------------------------------- */

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

/* --- the grid
 * --------------------------------------------------------------------------------- */

static enum lens_status check_layers(const struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	long n = (long)s->model->config.n_layers;
	size_t i;

	for (i = 0; i < e->knockout.n_layers; i++) {
		if (e->knockout.layer[i] < 0 || e->knockout.layer[i] >= n)
			return lens_error_set(
				err, LENS_ERR_INVALID,
				"knockout.layers: there is no layer %ld; the model has %ld",
				e->knockout.layer[i], n);
	}
	return LENS_OK;
}

/* Heads of the layers that are asked for. */
static enum lens_status choose_spots(struct lens_study *s, const bool *head,
				     struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	struct lens_spots *cut = &s->cut;
	size_t layer, h;

	cut->spot = lens_calloc(c->n_layers * c->n_heads, sizeof(*cut->spot));
	if (!cut->spot)
		return lens_error_nomem(err, c->n_layers, c->n_heads);
	for (layer = 0; layer < c->n_layers; layer++) {
		for (h = 0; h < c->n_heads; h++) {
			if (lens_experiment_cuts_in(s->experiment, layer) &&
			    (!head || head[layer * c->n_heads + h]))
				cut->spot[cut->n++] = (struct lens_spot){ layer, h };
		}
	}
	if (!cut->n)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "knockout.heads: none of them is in knockout.layers");
	cut->layer = cut->spot[0].layer;
	return LENS_OK;
}

enum lens_status lens_study_add_knockout(struct lens_study *s, struct lens_error *err)
{
	bool *head = NULL;
	enum lens_status st = check_layers(s, err);

	if (st == LENS_OK)
		st = lens_ask_heads(s, "knockout.heads", &s->experiment->knockout.heads, &head,
				    err);
	if (st == LENS_OK)
		st = choose_spots(s, head, err);
	lens_free(head);
	LENS_TRY(st);
	s->grid[s->n_grids++] = (struct lens_study_grid){ .hook = LENS_HOOK_ATTN_SCORES,
							  .base = LENS_RUN_CLEAN,
							  .source = LENS_RUN_CUT,
							  .spots = &s->cut,
							  .n_spots = 1 };
	s->needs[LENS_RUN_CLEAN] = true;
	return lens_add_tables(s, "knockout", err);
}
