/*
 * interventions/cost.c: what a row's interventions cost, before anything is computed. In:
 * the study, a row of the prompt set; out: cells that will be run, and their arithmetic.
 */
#include "interventions/interventions_private.h"

const int32_t *lens_run_tokens(const struct lens_prompts *p, enum lens_run run, size_t row)
{
	const int32_t *const tokens[LENS_RUN_COUNT] = { p->tokens, p->corrupted, p->resampled };

	return tokens[run] + p->offset[row];
}

size_t lens_parting(const struct lens_study *s, const struct lens_study_grid *g,
		    const struct lens_prompts *p, size_t row)
{
	const struct lens_experiment *e = s->experiment;
	const int32_t *x = lens_run_tokens(p, g->base, row), *y;
	size_t pos = 0, length = lens_prompt_length(p, row);

	if (g->source == LENS_RUN_CUT)
		return lens_place_first(&e->knockout.to, p->found[1], row, length);
	if (g->source == LENS_RUN_STEERED)
		return lens_place_first(&e->steer.positions, NULL, row, length);
	if (g->source >= LENS_RUN_COUNT && g->source != LENS_RUN_PATH)
		return 0;
	y = lens_run_tokens(p, lens_source_run(g), row);
	while (pos < length && x[pos] == y[pos])
		pos++;
	return pos;
}

/* Of cells that start in a layer and a position: so many. */
static void add(const struct lens_study *s, double n, size_t layer, size_t rows,
		struct lens_study_cost *out)
{
	const struct lens_config *c = &s->model->config;
	double blocks = (double)(c->n_layers - layer) * 2 * (double)lens_block_products(c);

	out->cells += n;
	out->flop += n * (blocks * (double)rows + 2 * (double)(c->d_model * lens_n_logits(c)));
}

/* How many heads, and how many keys of a position, a grid has a cell for. */
static double heads_of(const struct lens_study *s, const struct lens_study_grid *g)
{
	bool heads = lens_grid_has(g, LENS_AXIS_HEAD);

	if (!heads && !lens_grid_has(g, LENS_AXIS_KV_HEAD))
		return 1;
	return (double)(heads ? s->model->config.n_heads : s->model->config.n_kv_heads);
}

static void add_grid(const struct lens_study *s, const struct lens_study_grid *g,
		     const struct lens_prompts *p, size_t row, struct lens_study_cost *out)
{
	bool by_pos = lens_grid_has(g, LENS_AXIS_POS) || lens_grid_has(g, LENS_AXIS_DEST_POS);
	bool by_key = lens_grid_has(g, LENS_AXIS_SRC_POS), reuse = s->experiment->patch.reuse;
	size_t first = reuse ? lens_parting(s, g, p, row) : 0, layer, pos;
	size_t length = lens_prompt_length(p, row);
	size_t end = reuse ? (size_t)p->read_pos[row] + 1 : length;

	for (layer = 0; layer < s->model->config.n_layers; layer++) {
		if (g->patched && s->layer && !s->layer[layer])
			continue;
		for (pos = first; pos < (by_pos ? end : lens_min(first + 1, end)); pos++)
			add(s, heads_of(s, g) * (double)(by_key ? pos + 1 : 1),
			    reuse ? layer : 0, reuse ? end - pos : length, out);
	}
}

static void add_spots(const struct lens_study *s, const struct lens_study_grid *g,
		      const struct lens_prompts *p, size_t row, struct lens_study_cost *out)
{
	bool reuse = s->experiment->patch.reuse;
	size_t k, from = reuse ? lens_parting(s, g, p, row) : 0;
	size_t end = reuse ? (size_t)p->read_pos[row] + 1 : lens_prompt_length(p, row);
	double times =
		lens_grid_has(g, LENS_AXIS_SCALE) ? (double)s->experiment->steer.n_scales : 1;

	for (k = 0; k < g->n_spots && from < end; k++)
		add(s, times, reuse ? g->spots[k].layer : 0, end - from, out);
}

void lens_study_add_cost(const struct lens_study *s, const struct lens_prompts *p, size_t row,
			 struct lens_study_cost *out)
{
	size_t i;

	for (i = 0; i < s->n_grids; i++) {
		if (s->grid[i].spots)
			add_spots(s, &s->grid[i], p, row, out);
		else
			add_grid(s, &s->grid[i], p, row, out);
	}
}
