/*
 * interventions/study.c: what an experiment asks for. In: the experiment, the model; out:
 * grids, and the data sets that they and the runs themselves fill.
 */
#include "interventions/interventions_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- metrics --------------------------------------------------------------------------- */

struct metric {
	enum lens_table table;
	bool has_axis;
	enum lens_axis axis;
	const char *long_name, *units;
};

static const struct metric *metric_of(enum lens_metric m)
{
	static const struct metric metrics[] = {
		[LENS_METRIC_LOGIT_DIFF] = { LENS_TABLE_logit_diff, true,
					     LENS_AXIS_ANSWER_OTHER,
					     "logit of the first answer minus each other answer's",
					     "logits" },
		[LENS_METRIC_ANSWER_LOGIT] = { LENS_TABLE_answer_logit, true, LENS_AXIS_ANSWER,
					       "logit of each answer", "logits" },
		[LENS_METRIC_ANSWER_LOGPROB] = { LENS_TABLE_answer_logprob, true,
						 LENS_AXIS_ANSWER,
						 "log-probability of each answer", "nats" },
		[LENS_METRIC_KL_DIVERGENCE] = { LENS_TABLE_kl_divergence, false, 0,
						"KL(clean run || this run)", "nats" },
	};

	return &metrics[m];
}

size_t lens_metric_floats(enum lens_table table, const struct lens_sizes *s)
{
	int m;

	for (m = LENS_METRIC_LOGIT_DIFF; m < LENS_METRIC_KL_DIVERGENCE; m++) {
		if (metric_of((enum lens_metric)m)->table == table)
			return lens_axis_extent(metric_of((enum lens_metric)m)->axis, s);
	}
	return 1;
}

/* --- data sets ------------------------------------------------------------------------------
 */

static struct lens_outcome *add_outcome(struct lens_study *s, enum lens_outcome_of of,
					const struct metric *m)
{
	struct lens_outcome *o = &s->outcome[s->n_outcomes++];

	o->of = of;
	o->units = m->units;
	return o;
}

static void add_metric_axis(struct lens_outcome *o, const struct metric *m)
{
	if (m->has_axis)
		o->axis[o->n_axes++] = m->axis;
}

static const char *run_name(enum lens_run run)
{
	return run == LENS_RUN_CLEAN ? "clean" : "corrupted";
}

/* What becomes of the answers in each cell; normalized: as a share. */
static void add_cells(struct lens_study *s, size_t grid, enum lens_outcome_of of,
		      const struct metric *m)
{
	struct lens_study_grid *g = &s->grid[grid];
	struct lens_outcome *o = add_outcome(s, of, m);
	bool share = of == LENS_OUTCOME_NORMALIZED;
	char hook[LENS_HOOK_NAME];

	o->grid = grid;
	o->n_axes = g->n_axes;
	memcpy(o->axis, g->axis, sizeof(g->axis));
	add_metric_axis(o, m);
	lens_hook_name(g->info->hook, 0, hook);
	snprintf(o->name, sizeof(o->name), "patch/%s%s", g->info->name,
		 share ? "_normalized" : "");
	snprintf(o->long_name, sizeof(o->long_name), "%s%s: the %s run with %s of the %s run",
		 share ? "(x - corrupted)/(clean - corrupted), x the " : "", m->long_name,
		 run_name(g->base),
		 strchr(hook, '.') ? strchr(strchr(hook, '.') + 1, '.') + 1 : hook,
		 run_name(g->source));
	if (share)
		o->units = NULL;
	else
		g->outcome = s->n_outcomes - 1;
}

static void add_run(struct lens_study *s, enum lens_run run, enum lens_metric metric)
{
	static const char *const names[] = {
		[LENS_METRIC_LOGIT_DIFF] = "logit_diff",
		[LENS_METRIC_ANSWER_LOGIT] = "answer_logit",
		[LENS_METRIC_ANSWER_LOGPROB] = "answer_logprob",
		[LENS_METRIC_KL_DIVERGENCE] = "kl_divergence",
	};
	const struct metric *m = metric_of(metric);
	struct lens_outcome *o = add_outcome(s, LENS_OUTCOME_RUN, m);

	o->run = run;
	o->metric = m->table;
	add_metric_axis(o, m);
	snprintf(o->name, sizeof(o->name), "patch/%s_%s", run_name(run), names[metric]);
	snprintf(o->long_name, sizeof(o->long_name), "%s: the %s run", m->long_name,
		 run_name(run));
}

/* --- what is asked for ---------------------------------------------------------------------
 */

bool lens_layer_asked(const struct lens_study *s, size_t layer)
{
	return !s->layer || s->layer[layer];
}

static enum lens_status ask_layers(struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	long n = (long)s->model->config.n_layers;
	size_t i;

	if (!e->patch.n_layers)
		return LENS_OK;
	s->layer = lens_calloc((size_t)n, sizeof(*s->layer));
	if (!s->layer)
		return lens_error_nomem(err, (size_t)n, sizeof(*s->layer));
	for (i = 0; i < e->patch.n_layers; i++) {
		long layer = e->patch.layer[i];

		if (layer >= n || layer < -n)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "patch.layers: no layer %ld; the model has %ld",
					      layer, n);
		s->layer[layer < 0 ? layer + n : layer] = true;
	}
	return LENS_OK;
}

/* "9.6" → layer and head, whose form the experiment has checked. */
static enum lens_status ask_head(const struct lens_study *s, const char *key, const char *text,
				 bool *asked, struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	char *end;
	unsigned long layer = strtoul(text, &end, 10), head = strtoul(end + 1, NULL, 10);

	if (layer >= c->n_layers || head >= c->n_heads)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "%s: no head %s; the model has %zu layers of %zu heads",
				      key, text, c->n_layers, c->n_heads);
	asked[layer * c->n_heads + head] = true;
	return LENS_OK;
}

static enum lens_status ask_heads(struct lens_study *s, struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	const struct lens_strings *heads = &s->experiment->patch.heads;
	size_t i;

	if (!heads->n)
		return LENS_OK;
	s->head = lens_calloc(c->n_layers * c->n_heads, sizeof(*s->head));
	if (!s->head)
		return lens_error_nomem(err, c->n_layers, c->n_heads);
	for (i = 0; i < heads->n; i++)
		LENS_TRY(ask_head(s, "patch.heads", heads->v[i], s->head, err));
	return LENS_OK;
}

/* Keys and values have heads of their own only where queries are grouped. */
static enum lens_axis axis_of(const struct lens_config *c, enum lens_axis axis)
{
	return axis == LENS_AXIS_KV_HEAD && c->n_kv_heads == c->n_heads ? LENS_AXIS_HEAD : axis;
}

static enum lens_status add_grid(struct lens_study *s, const char *name, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	const struct lens_grid_info *info = NULL;
	const bool noise = e->patch.direction == LENS_NOISE;
	int i;

	for (i = 0; i < LENS_GRID_COUNT; i++) {
		if (!strcmp(lens_grid_info((enum lens_grid)i)->name, name))
			info = lens_grid_info((enum lens_grid)i);
	}
	if (!info)
		return lens_error_set(err, LENS_ERR_INVALID, "patch.grids: no grid '%s'", name);
	if (!lens_hook_exists(&s->model->config, info->hook))
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"patch.grids: this model's parallel blocks have no %s: attention and MLP "
			"read the same stream; resid_pre is there",
			name);
	s->grid[s->n_grids] = (struct lens_study_grid){
		.info = info,
		.n_axes = info->n_axes,
		.base = noise ? LENS_RUN_CLEAN : LENS_RUN_CORRUPTED,
		.source = noise ? LENS_RUN_CORRUPTED : LENS_RUN_CLEAN,
		.metric = metric_of(e->patch.metric)->table,
		.head = s->head,
		.positions_asked = true,
	};
	for (i = 0; i < info->n_axes; i++)
		s->grid[s->n_grids].axis[i] = axis_of(&s->model->config, info->axis[i]);
	s->n_grids++;
	return LENS_OK;
}

static enum lens_status add_patching(struct lens_study *s, struct lens_error *err)
{
	const struct lens_experiment *e = s->experiment;
	const struct metric *m = metric_of(e->patch.metric);
	size_t i;

	LENS_TRY(ask_layers(s, err));
	LENS_TRY(ask_heads(s, err));
	for (i = 0; i < e->patch.grids.n; i++) {
		LENS_TRY(add_grid(s, e->patch.grids.v[i], err));
		add_cells(s, i, LENS_OUTCOME_CELLS, m);
		if (e->patch.normalize)
			add_cells(s, i, LENS_OUTCOME_NORMALIZED, m);
	}
	add_run(s, LENS_RUN_CORRUPTED, e->patch.metric);
	add_run(s, LENS_RUN_CLEAN, e->patch.metric);
	s->needs[LENS_RUN_CLEAN] = s->needs[LENS_RUN_CORRUPTED] = true;
	s->metric[m->table] = true;
	return LENS_OK;
}

enum lens_status lens_study_init(struct lens_study *s, const struct lens_model *m,
				 const struct lens_experiment *e, struct lens_error *err)
{
	enum lens_status st;
	size_t n = e->patch.grids.n;

	*s = (struct lens_study){ .model = m, .experiment = e };
	if (!n)
		return LENS_OK;
	s->grid = lens_calloc(n, sizeof(*s->grid));
	s->outcome = lens_calloc(2 * n + LENS_RUN_COUNT, sizeof(*s->outcome));
	st = s->grid && s->outcome ? add_patching(s, err)
				   : lens_error_nomem(err, n, sizeof(*s->outcome));
	if (st != LENS_OK)
		lens_study_release(s);
	return st;
}

void lens_study_release(struct lens_study *s)
{
	lens_free(s->grid);
	lens_free(s->outcome);
	lens_free(s->layer);
	lens_free(s->head);
	memset(s, 0, sizeof(*s));
}

size_t lens_outcome_floats(const struct lens_outcome *o, const struct lens_sizes *sizes)
{
	size_t n = 1;
	int i;

	for (i = 0; i < o->n_axes; i++)
		n *= lens_axis_extent(o->axis[i], sizes);
	return n;
}

/*
 * Cells of the layer l go through n_layers − l blocks, with the rows of their positions
 * from the replaced one on: at all positions, all; at one, half of them on average. Each
 * cell ends with the product with W_U.
 */
static double grid_flop(const struct lens_study *s, const struct lens_study_grid *g,
			size_t length)
{
	const struct lens_config *c = &s->model->config;
	const struct lens_outcome *o = &s->outcome[g->outcome];
	struct lens_sizes sizes = lens_model_sizes(c);
	double layers = (double)(c->n_layers + 1) / 2, n = (double)length, rows = n;
	double cells;

	sizes.n_pos = length;
	sizes.n_answers = 2;
	cells = (double)lens_outcome_floats(o, &sizes) /
		(double)lens_metric_floats(g->metric, &sizes);
	if (g->info->n_axes > 2 || g->info->axis[1] == LENS_AXIS_POS)
		rows = (n + 1) / 2;
	return cells * (rows * layers * 2 * (double)lens_block_weights(c) +
			2 * (double)(c->d_model * c->d_vocab));
}

double lens_study_flop(const struct lens_study *s, size_t length)
{
	double flop = 0;
	size_t i;

	for (i = 0; i < s->n_grids; i++)
		flop += grid_flop(s, &s->grid[i], length);
	return flop;
}
