/*
 * interventions/knockout.c: what `knockout` asks for (attention knockout, Geva et al. 2023):
 * scores of −inf before the softmax, of some queries on some keys, in some layers and
 * heads at once. In: the experiment; out: a grid of one cell.
 */
#include "interventions/interventions_private.h"

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
	const struct lens_experiment *e = s->experiment;
	bool *head = NULL;
	enum lens_status st = lens_check_layers(s, "knockout.layers", e->knockout.layer,
						e->knockout.n_layers, err);

	if (st == LENS_OK)
		st = lens_ask_heads(s, "knockout.heads", &e->knockout.heads, &head, err);
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
