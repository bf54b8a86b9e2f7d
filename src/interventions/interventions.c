/*
 * interventions/interventions.c: one worker's interventions. In: rows of a prompt set; out:
 * rows of each outcome. A group of pairs is run once and recorded; then come its cells, a
 * layer at a time, as many in a batch as it holds.
 */
#include "interventions/interventions_private.h"

#include <math.h>
#include <string.h>

/* --- the runs themselves ---------------------------------------------------------------- */

static size_t row_of(const struct lens_interventions *w, size_t pair)
{
	return w->in->row0 + w->first + pair;
}

/* What the tables need to know of a batch's prompt. */
static void describe(struct lens_interventions *w, size_t prompt, size_t pair, bool keep)
{
	const struct lens_prompts *p = w->in->prompts;
	size_t n = p->n_answers, v = w->opt.sizes.d_vocab;

	if (n && !p->answer_offset)
		memcpy(w->answers + prompt * n, p->answers + row_of(w, pair) * n,
		       n * sizeof(*w->answers));
	if (w->logits)
		w->reference[prompt] = w->logits + pair * v;
	w->keep[prompt] = keep;
}

/* As many pairs from w->first on as there is room for; returns how many. */
static size_t pack_group(struct lens_interventions *w)
{
	const struct lens_prompts *p = w->in->prompts;
	struct lens_batch *b = &w->record.batch;
	size_t pair, most = lens_min(w->in->n - w->first, w->most.pairs);
	int run;

	lens_batch_clear(b);
	for (pair = 0; pair < most; pair++) {
		size_t row = row_of(w, pair), length = lens_prompt_length(p, row);

		if (!lens_batch_has_room(b, w->most.runs, length, 0))
			break;
		for (run = 0; run < LENS_RUN_COUNT; run++) {
			if (!w->opt.study->needs[run])
				continue;
			describe(w, b->n_prompts, pair, run == LENS_RUN_CLEAN);
			lens_batch_pack(b, lens_run_tokens(p, (enum lens_run)run, row), length,
					p->read_pos[row], 0);
		}
	}
	lens_record_begin(&w->record);
	return pair;
}

static struct lens_tables_batch tables_batch(const struct lens_interventions *w,
					     const struct lens_batch *b)
{
	return (struct lens_tables_batch){
		.batch = b, .answers = w->answers, .reference = w->reference, .keep = w->keep
	};
}

static struct lens_visitor tables_visitor(struct lens_interventions *w)
{
	return (struct lens_visitor){ .hooks = &w->table_hooks,
				      .visit = lens_tables_visit,
				      .ctx = w->tables };
}

static const float *metric_row(const struct lens_interventions *w, enum lens_table metric,
			       enum lens_run run, size_t pair)
{
	return w->metric[metric] +
	       (pair * w->most.runs + w->run[run]) * lens_metric_floats(metric, &w->opt.sizes);
}

static enum lens_status run_group(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_visitor v[] = { lens_record_visitor(&w->record), tables_visitor(w) };
	const struct lens_visitors visitors = { v, 2 };
	const struct lens_tables_batch in = tables_batch(w, &w->record.batch);
	size_t i, flagged = 0;

	lens_tables_begin(w->tables, &in);
	LENS_TRY(lens_forward_run(w->forward, &w->record.batch, &visitors, err));
	lens_tables_finish(w->tables, &flagged);
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		size_t n = lens_metric_floats((enum lens_table)i, &w->opt.sizes);

		if (w->metric[i])
			memcpy(w->metric[i], lens_tables_rows(w->tables, (enum lens_table)i),
			       w->record.batch.n_prompts * n * sizeof(float));
	}
	return LENS_OK;
}

/* --- cells ------------------------------------------------------------------------------ */

/* The stream before a layer, in the runs that the cells depart from. */
static void gather_starts(struct lens_interventions *w, size_t layer)
{
	const struct lens_batch *b = &w->batch;
	size_t i, pos, d = w->opt.sizes.d_model;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = w->editor.cell[i].from; pos < b->length[i]; pos++)
			memcpy(w->resid + (size_t)lens_batch_row(b, i, pos) * d,
			       lens_recorded(&w->record, LENS_HOOK_RESID_PRE, layer,
					     w->prompt[i], pos),
			       d * sizeof(float));
	}
}

/* From a layer on, where cells are reused; else from the tokens. */
static enum lens_status pass_from(struct lens_interventions *w, size_t layer,
				  const struct lens_visitors *v, struct lens_error *err)
{
	const struct lens_past past = { .batch = &w->record.batch,
					.prompt = w->prompt,
					.keys = w->record.keys,
					.values = w->record.values };
	const struct lens_start start = { .layer = layer, .resid = w->resid, .past = &past };

	if (!w->opt.study->experiment->patch.reuse)
		return lens_forward_run(w->forward, &w->batch, v, err);
	gather_starts(w, layer);
	return lens_forward_from(w->forward, &w->batch, &start, v, err);
}

/* A pass in which what receivers are given is kept, and one in which they have it. */
static enum lens_status pass_paths(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	const struct lens_visitor first[] = { lens_editor_visitor(&w->editor),
					      lens_received_visitor(&w->received) };
	const struct lens_visitor second[] = { lens_received_editor(&w->received),
					       tables_visitor(w) };
	const struct lens_visitor logits[] = { first[0], second[1] };
	const struct lens_visitors v[] = { { first, 2 }, { second, 2 }, { logits, 2 } };
	size_t layer = w->editor.cell[0].spot.layer;
	bool reuse = s->experiment->patch.reuse;
	enum lens_status st;

	w->received.from = reuse ? layer : 0;
	w->editor.frozen = true;
	st = pass_from(w, layer, s->n_receivers ? &v[0] : &v[2], err);
	w->editor.frozen = false;
	if (st == LENS_OK && s->n_receivers)
		st = pass_from(w, lens_first_receiver(s, layer), &v[1], err);
	return st;
}

static enum lens_status pass_cells(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_visitor v[] = { lens_editor_visitor(&w->editor), tables_visitor(w) };
	const struct lens_visitors visitors = { v, 2 };

	if (w->editor.cell[0].grid->source == LENS_RUN_PATH)
		return pass_paths(w, err);
	return pass_from(w, w->editor.cell[0].spot.layer, &visitors, err);
}

/* Of outcome o: where a cell's result goes. */
static float *place_of(const struct lens_interventions *w, const struct lens_cell *c, size_t o)
{
	const struct lens_outcome *out = &w->opt.study->outcome[o];

	return w->rows[o] + (w->first + c->pair) * lens_outcome_floats(out, &w->opt.sizes) +
	       c->at * lens_metric_floats(out->metric, &w->opt.sizes);
}

/* Ranks and tokens of logits that are not finite are −1. */
static bool all_finite(enum lens_dtype dtype, const float *x, size_t n)
{
	int32_t id;
	size_t i;

	for (i = 0; i < n; i++) {
		memcpy(&id, &x[i], sizeof(id));
		if (dtype == LENS_F32 ? !isfinite(x[i]) : id < 0)
			return false;
	}
	return true;
}

/* What became of the answers: the tables' row i. NOT_ONE: nothing, as in the run itself. */
static void put_cell(struct lens_interventions *w, const struct lens_cell *c, size_t i)
{
	const struct lens_study_grid *g = c->grid;
	size_t o;

	for (o = g->outcome; o < g->outcome + g->n_outcomes; o++) {
		enum lens_table metric = w->opt.study->outcome[o].metric;
		size_t n = lens_metric_floats(metric, &w->opt.sizes);
		const float *rows = lens_tables_rows(w->tables, metric);
		const float *row =
			i == NOT_ONE ? metric_row(w, metric, g->base, c->pair) : rows + i * n;

		memcpy(place_of(w, c, o), row, n * sizeof(float));
		if (!all_finite(w->opt.study->outcome[o].dtype, row, n))
			w->nonfinite[w->first + c->pair] = true;
	}
}

/* Runs the cells in hand and hands out what became of the answers. */
static enum lens_status run_cells(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_tables_batch in = tables_batch(w, &w->batch);
	size_t i, flagged = 0;

	if (!w->editor.n)
		return LENS_OK;
	if (w->in->stop && atomic_load(w->in->stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
	lens_tables_begin(w->tables, &in);
	LENS_TRY(pass_cells(w, err));
	lens_tables_finish(w->tables, &flagged);
	for (i = 0; i < w->editor.n; i++)
		put_cell(w, &w->editor.cell[i], i);
	lens_batch_clear(&w->batch);
	w->editor.n = 0;
	return LENS_OK;
}

static enum lens_status add_cell(void *ctx, struct lens_cell *c, struct lens_error *err)
{
	struct lens_interventions *w = ctx;
	const struct lens_prompts *p = w->in->prompts;
	const struct lens_study *s = w->opt.study;
	size_t row = row_of(w, c->pair), length = lens_prompt_length(p, row);
	size_t read_pos = (size_t)p->read_pos[row];
	bool changes = lens_cell_changes(s, read_pos, c);

	if (!s->experiment->patch.reuse) {
		c->from = 0;
	} else if (changes) {
		length = read_pos + 1; /* what follows is not read */
	} else {
		put_cell(w, c, NOT_ONE);
		return LENS_OK;
	}
	if (!lens_batch_has_room(&w->batch, 1, length, c->from))
		LENS_TRY(run_cells(w, err));
	describe(w, w->editor.n, c->pair, false);
	w->prompt[w->editor.n] = c->pair * w->most.runs + w->run[c->grid->base];
	lens_batch_pack(&w->batch, lens_run_tokens(p, c->grid->base, row), length,
			p->read_pos[row], c->from);
	w->editor.cell[w->editor.n++] = *c;
	return LENS_OK;
}

/* Cells of one layer, which start together. */
static enum lens_status run_layer(struct lens_interventions *w, size_t layer, size_t n_pairs,
				  struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	const struct lens_prompts *p = w->in->prompts;
	const struct lens_cells cells = {
		.study = s, .sizes = &w->opt.sizes, .fn = add_cell, .ctx = w
	};
	size_t i, pair;

	for (i = 0; i < s->n_grids; i++) {
		/* Those of paths have batches of their own. */
		if (s->grid[i].source == LENS_RUN_PATH)
			LENS_TRY(run_cells(w, err));
		for (pair = 0; pair < n_pairs; pair++) {
			size_t row = row_of(w, pair);
			const struct lens_cell c = {
				.pair = pair, .parting = lens_parting(s, &s->grid[i], p, row)
			};

			LENS_TRY(lens_cells_each(&cells, &s->grid[i], layer, c,
						 lens_prompt_length(p, row), err));
		}
	}
	return run_cells(w, err);
}

/* --- what follows from them ------------------------------------------------------- */

/* (x − corrupted)/(clean − corrupted); NaN where the two are equal */
static void normalize(struct lens_interventions *w, const struct lens_outcome *o, size_t pair,
		      float *out)
{
	const float *clean = metric_row(w, o->metric, LENS_RUN_CLEAN, pair);
	const float *corrupted = metric_row(w, o->metric, LENS_RUN_CORRUPTED, pair);
	size_t i, n = lens_outcome_floats(o, &w->opt.sizes);
	size_t per_cell = lens_metric_floats(o->metric, &w->opt.sizes);
	const float *x = w->rows[o->cells] + (w->first + pair) * n;

	for (i = 0; i < n; i++) {
		double from = (double)corrupted[i % per_cell];
		double whole = (double)clean[i % per_cell] - from;

		out[i] = whole != 0 ? (float)(((double)x[i] - from) / whole) : NAN;
	}
}

static void finish_pair(struct lens_interventions *w, size_t pair)
{
	const struct lens_study *s = w->opt.study;
	size_t i;

	for (i = 0; i < s->n_outcomes; i++) {
		const struct lens_outcome *o = &s->outcome[i];
		size_t n = lens_outcome_floats(o, &w->opt.sizes);
		float *out = w->rows[i] + (w->first + pair) * n;

		if (o->of == LENS_OUTCOME_RUN)
			memcpy(out, metric_row(w, o->metric, o->run, pair), n * sizeof(float));
		else if (o->of == LENS_OUTCOME_NORMALIZED)
			normalize(w, o, pair, out);
	}
}

static void count_flagged(const struct lens_interventions *w, size_t *n_flagged)
{
	const uint8_t *flags = w->in->flags;
	size_t i;

	for (i = 0; i < w->in->n; i++)
		*n_flagged += w->nonfinite[i] && !(flags && flags[i] & LENS_FLAGS_NONFINITE);
}

enum lens_status lens_interventions_run(struct lens_interventions *w,
					const struct lens_interventions_batch *in,
					size_t *n_flagged, struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	size_t i, n, layer;

	w->in = in;
	memset(w->nonfinite, 0, in->n * sizeof(*w->nonfinite));
	for (i = 0; i < s->n_outcomes; i++)
		lens_fill(s->outcome[i].dtype, w->rows[i],
			  in->n * lens_outcome_floats(&s->outcome[i], &w->opt.sizes));
	for (w->first = 0; w->first < in->n; w->first += n) {
		n = pack_group(w);
		w->editor.prompts = in->prompts;
		w->editor.row0 = in->row0 + w->first;
		LENS_TRY(run_group(w, err));
		for (layer = 0; layer < s->model->config.n_layers; layer++)
			LENS_TRY(run_layer(w, layer, n, err));
		for (i = 0; i < n; i++)
			finish_pair(w, i);
	}
	count_flagged(w, n_flagged);
	return LENS_OK;
}
