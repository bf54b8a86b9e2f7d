/*
 * interventions/interventions.c: one worker's interventions. In: rows of a prompt set; out:
 * rows of each outcome. A group of pairs is run once and recorded; then come its cells, a
 * layer at a time, as many in a batch as it holds.
 */
#include "interventions/interventions_private.h"

#include <math.h>
#include <string.h>

#define GROUP_ROWS 1020                 /* of recorded runs, … */
#define GROUP_PAIRS 64                  /* … of so many pairs at most, … */
#define GROUP_BYTES ((size_t)256 << 20) /* … of so much; at least one pair */
#define CELL_ROWS 1020                  /* of a batch of cells; at least one prompt's */

/* How much a worker holds. */
struct capacity {
	size_t runs;        /* of a pair */
	size_t pairs;       /* of a group */
	size_t record_rows; /* of a group */
	size_t cells, cell_rows;
	size_t prompts; /* of either batch */
	bool hook[LENS_HOOK_COUNT];
};

struct lens_interventions {
	struct lens_interventions_options opt;
	struct capacity most;
	size_t run[LENS_RUN_COUNT]; /* which of a pair's runs */
	struct lens_forward *forward;
	struct lens_tables *tables;
	struct lens_hook_set table_hooks;
	struct lens_record record;
	struct lens_editor editor;
	struct lens_batch batch; /* of cells */
	float *resid;            /* [cell_rows, D] from which they start */
	size_t *prompt;          /* [cells] the recorded run that they depart from */
	int32_t *answers;        /* [prompts, n_answers] */
	float *logits;           /* [pairs, V] of the clean runs, for kl_divergence; or NULL */
	float **reference;       /* [prompts] which of them is a prompt's */
	bool *keep;              /* [prompts] */
	float *metric[LENS_TABLE_COUNT]; /* [pairs·runs, floats] of the runs themselves */
	float **rows;                    /* [n_outcomes] [batch_rows, floats] */
	const struct lens_interventions_batch *in; /* the rows in hand */
	size_t first;                              /* the first pair of the group in hand */
};

/* --- memory ---------------------------------------------------------------------------- */

static size_t round_up(size_t n)
{
	return (n + 11) / 12 * 12;
}

static void choose_hooks(const struct lens_study *s, bool *hook)
{
	size_t i;

	hook[LENS_HOOK_RESID_PRE] = hook[LENS_HOOK_V] = true;
	hook[s->model->config.rotary.dim ? LENS_HOOK_ROT_K : LENS_HOOK_K] = true;
	for (i = 0; i < s->n_grids; i++)
		hook[s->grid[i].info->hook] |= s->grid[i].source < LENS_RUN_COUNT;
}

static struct capacity capacity(const struct lens_interventions_options *o)
{
	const struct lens_study *s = o->study;
	const struct lens_config *c = &s->model->config;
	size_t longest = lens_batch_rows(o->sizes.n_pos), row_bytes, i;
	struct capacity most = { .pairs = lens_min(o->batch_rows, GROUP_PAIRS) };

	for (i = 0; i < LENS_RUN_COUNT; i++)
		most.runs += s->needs[i];
	choose_hooks(s, most.hook);
	row_bytes = lens_record_row_floats(s->model, most.hook) * sizeof(float);
	if (most.hook[LENS_HOOK_PATTERN])
		row_bytes += c->n_layers * c->n_heads * o->sizes.n_pos * sizeof(float);
	most.record_rows = lens_min(GROUP_ROWS, GROUP_BYTES / lens_max(row_bytes, 1));
	most.record_rows = lens_min(most.record_rows, most.pairs * most.runs * longest);
	most.record_rows = round_up(lens_max(most.record_rows, most.runs * longest));
	most.cell_rows = round_up(lens_max(CELL_ROWS, longest));
	most.cells = most.cell_rows / lens_row_align();
	most.prompts = lens_max(most.cells, most.pairs * most.runs);
	return most;
}

static struct lens_record_size record_size(const struct lens_interventions_options *o,
					   const struct capacity *most)
{
	return (struct lens_record_size){ .model = o->study->model,
					  .max_prompts = most->pairs * most->runs,
					  .max_rows = most->record_rows,
					  .max_length = o->sizes.n_pos,
					  .hook = most->hook };
}

static struct lens_tables_options table_options(const struct lens_interventions_options *o,
						const struct capacity *most)
{
	struct lens_tables_options t = { .sizes = o->sizes,
					 .batch_rows = most->prompts,
					 .max_rows =
						 lens_max(most->record_rows, most->cell_rows),
					 .threads = o->threads };

	memcpy(t.wanted, o->study->metric, sizeof(t.wanted));
	return t;
}

static size_t floats_of_rows(const struct lens_interventions_options *o)
{
	size_t i, n = 0;

	for (i = 0; i < o->study->n_outcomes; i++)
		n += o->batch_rows * lens_outcome_floats(&o->study->outcome[i], &o->sizes);
	return n;
}

static size_t kept_logits(const struct lens_interventions_options *o,
			  const struct capacity *most)
{
	return o->study->metric[LENS_TABLE_kl_divergence] ? most->pairs * o->sizes.d_vocab : 0;
}

size_t lens_interventions_bytes(const struct lens_interventions_options *o)
{
	const struct lens_model *m = o->study->model;
	const struct capacity most = capacity(o);
	const struct lens_record_size record = record_size(o, &most);
	const struct lens_tables_options tables = table_options(o, &most);
	struct lens_visitors none = { NULL, 0 };
	const struct lens_forward_size forward = { .visitors = &none,
						   .max_rows = tables.max_rows,
						   .max_length = o->sizes.n_pos,
						   .threads = o->threads };
	size_t floats =
		floats_of_rows(o) + kept_logits(o, &most) + most.cell_rows * o->sizes.d_model;

	return floats * sizeof(float) + lens_record_bytes(&record) +
	       lens_forward_bytes(m, &forward) + lens_tables_bytes(m, &tables) +
	       lens_batch_bytes(most.cells, most.cells * o->sizes.n_pos, most.cell_rows) +
	       most.cells * (sizeof(struct lens_cell) + sizeof(size_t)) +
	       most.prompts * (o->sizes.n_answers * sizeof(int32_t) + sizeof(float *) + 1);
}

/* --- a worker's ------------------------------------------------------------------------- */

static enum lens_status make_rows(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	const struct lens_sizes *sizes = &w->opt.sizes;
	size_t i;

	w->rows = lens_calloc(s->n_outcomes, sizeof(*w->rows));
	if (!w->rows)
		return lens_error_nomem(err, s->n_outcomes, sizeof(*w->rows));
	for (i = 0; i < s->n_outcomes; i++) {
		size_t n = w->opt.batch_rows * lens_outcome_floats(&s->outcome[i], sizes);

		w->rows[i] = lens_alloc_aligned(n, sizeof(float));
		if (!w->rows[i])
			return lens_error_nomem(err, n, sizeof(float));
	}
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		size_t n = w->most.pairs * w->most.runs *
			   lens_metric_floats((enum lens_table)i, sizes);

		if (s->metric[i])
			w->metric[i] = lens_alloc_aligned(n, sizeof(float));
		if (s->metric[i] && !w->metric[i])
			return lens_error_nomem(err, n, sizeof(float));
	}
	return LENS_OK;
}

static enum lens_status make_buffers(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_sizes *s = &w->opt.sizes;
	const struct capacity *most = &w->most;
	size_t logits = kept_logits(&w->opt, most), resid = most->cell_rows * s->d_model;

	w->resid = lens_alloc_aligned(resid, sizeof(float));
	w->prompt = lens_calloc(most->cells, sizeof(*w->prompt));
	w->editor.cell = lens_calloc(most->cells, sizeof(*w->editor.cell));
	w->answers = lens_calloc(most->prompts, (s->n_answers + 1) * sizeof(*w->answers));
	w->reference = lens_calloc(most->prompts, sizeof(*w->reference));
	w->keep = lens_calloc(most->prompts, sizeof(*w->keep));
	if (logits)
		w->logits = lens_alloc_aligned(logits, sizeof(float));
	if (!w->resid || !w->prompt || !w->editor.cell || !w->answers || !w->reference ||
	    !w->keep || (logits && !w->logits))
		return lens_error_nomem(err, logits + resid, sizeof(float));
	/* Rows between prompts are read by nobody, but must not be signalling. */
	memset(w->resid, 0, resid * sizeof(float));
	return LENS_OK;
}

/* What edits change, at whatever layer; in the last, the read position's is enough. */
static enum lens_status make_editor(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	struct lens_editor *e = &w->editor;
	size_t i, layer;

	e->study = s;
	e->record = &w->record;
	e->run = w->run;
	e->n_runs = w->most.runs;
	LENS_TRY(lens_hook_set_init(&e->hooks, &s->model->config, NULL, 0, err));
	for (i = 0; i < s->n_grids; i++) {
		for (layer = 0; layer < s->model->config.n_layers; layer++)
			lens_hook_want(&e->hooks, s->grid[i].info->hook, layer,
				       LENS_WANT_READ_POS);
	}
	return LENS_OK;
}

static enum lens_status make_passes(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_model *m = w->opt.study->model;
	const struct lens_record_size record = record_size(&w->opt, &w->most);
	const struct lens_tables_options tables = table_options(&w->opt, &w->most);
	const struct lens_visitors none = { NULL, 0 };
	const struct lens_forward_size forward = { .visitors = &none,
						   .max_rows = tables.max_rows,
						   .max_length = w->opt.sizes.n_pos,
						   .threads = w->opt.threads };

	LENS_TRY(lens_record_init(&w->record, &record, err));
	LENS_TRY(lens_tables_create(m, &tables, &w->tables, err));
	LENS_TRY(lens_hook_set_init(&w->table_hooks, &m->config, NULL, 0, err));
	lens_tables_hooks(m, &tables, &w->table_hooks);
	LENS_TRY(lens_batch_init(&w->batch, w->most.cells, w->most.cells * w->opt.sizes.n_pos,
				 w->most.cell_rows, err));
	return lens_forward_create(m, &forward, &w->forward, err);
}

enum lens_status lens_interventions_create(const struct lens_interventions_options *opt,
					   struct lens_interventions **out,
					   struct lens_error *err)
{
	struct lens_interventions *w = lens_calloc(1, sizeof(*w));
	enum lens_status st;
	size_t i, n = 0;

	*out = NULL;
	if (!w)
		return lens_error_nomem(err, 1, sizeof(*w));
	w->opt = *opt;
	w->most = capacity(opt);
	for (i = 0; i < LENS_RUN_COUNT; i++)
		w->run[i] = opt->study->needs[i] ? n++ : 0;
	st = make_rows(w, err);
	if (st == LENS_OK)
		st = make_buffers(w, err);
	if (st == LENS_OK)
		st = make_editor(w, err);
	if (st == LENS_OK)
		st = make_passes(w, err);
	if (st == LENS_OK)
		*out = w;
	else
		lens_interventions_destroy(w);
	return st;
}

void lens_interventions_destroy(struct lens_interventions *w)
{
	size_t i;

	if (!w)
		return;
	for (i = 0; w->rows && i < w->opt.study->n_outcomes; i++)
		lens_free(w->rows[i]);
	for (i = 0; i < LENS_TABLE_COUNT; i++)
		lens_free(w->metric[i]);
	lens_free(w->rows);
	lens_free(w->resid);
	lens_free(w->prompt);
	lens_free(w->editor.cell);
	lens_free(w->answers);
	lens_free(w->reference);
	lens_free(w->keep);
	lens_free(w->logits);
	lens_hook_set_release(&w->editor.hooks);
	lens_hook_set_release(&w->table_hooks);
	lens_record_release(&w->record);
	lens_batch_release(&w->batch);
	lens_tables_destroy(w->tables);
	lens_forward_destroy(w->forward);
	lens_free(w);
}

const float *lens_interventions_rows(const struct lens_interventions *w, size_t outcome)
{
	return w->rows[outcome];
}

/* --- the runs themselves ---------------------------------------------------------------- */

static size_t row_of(const struct lens_interventions *w, size_t pair)
{
	return w->in->row0 + w->first + pair;
}

static const int32_t *tokens_of(const struct lens_interventions *w, enum lens_run run,
				size_t pair)
{
	const struct lens_prompts *p = w->in->prompts;
	const int32_t *tokens = run == LENS_RUN_CORRUPTED ? p->corrupted : p->tokens;

	return tokens + p->offset[row_of(w, pair)];
}

/* What the tables need to know of a batch's prompt. */
static void describe(struct lens_interventions *w, size_t prompt, size_t pair, bool keep)
{
	const struct lens_prompts *p = w->in->prompts;
	size_t n = p->n_answers, v = w->opt.sizes.d_vocab;

	if (n)
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

		if (b->n_rows + w->most.runs * lens_batch_rows(length) > w->most.record_rows)
			break;
		for (run = 0; run < LENS_RUN_COUNT; run++) {
			if (!w->opt.study->needs[run])
				continue;
			describe(w, b->n_prompts, pair, run == LENS_RUN_CLEAN);
			lens_batch_pack(b, tokens_of(w, (enum lens_run)run, pair), length,
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

static enum lens_status pass_cells(struct lens_interventions *w, struct lens_error *err)
{
	const struct lens_visitor v[] = { lens_editor_visitor(&w->editor), tables_visitor(w) };
	const struct lens_visitors visitors = { v, 2 };
	const struct lens_past past = { .batch = &w->record.batch,
					.prompt = w->prompt,
					.keys = w->record.keys,
					.values = w->record.values };
	const struct lens_start start = { .layer = w->editor.cell[0].spot.layer,
					  .resid = w->resid,
					  .past = &past };

	if (!w->opt.study->experiment->patch.reuse)
		return lens_forward_run(w->forward, &w->batch, &visitors, err);
	gather_starts(w, start.layer);
	return lens_forward_from(w->forward, &w->batch, &start, &visitors, err);
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
	for (i = 0; i < w->editor.n; i++) {
		const struct lens_cell *c = &w->editor.cell[i];
		size_t n = lens_metric_floats(c->grid->metric, &w->opt.sizes);
		const float *rows = lens_tables_rows(w->tables, c->grid->metric);

		memcpy(c->out, rows + i * n, n * sizeof(float));
	}
	lens_batch_clear(&w->batch);
	w->editor.n = 0;
	return LENS_OK;
}

/* The first position at which the runs of a cell have different tokens. */
static size_t parting(const struct lens_interventions *w, const struct lens_cell *c,
		      size_t length)
{
	const int32_t *x = tokens_of(w, c->grid->base, c->pair), *y;
	size_t pos = 0;

	if (c->grid->source >= LENS_RUN_COUNT)
		return 0;
	y = tokens_of(w, c->grid->source, c->pair);
	while (pos < length && x[pos] == y[pos])
		pos++;
	return pos;
}

static enum lens_status add_cell(void *ctx, struct lens_cell *c, struct lens_error *err)
{
	struct lens_interventions *w = ctx;
	const struct lens_prompts *p = w->in->prompts;
	const struct lens_study *s = w->opt.study;
	size_t row = row_of(w, c->pair), length = lens_prompt_length(p, row);
	const struct lens_pair pair = { .read_pos = (size_t)p->read_pos[row],
					.parting = parting(w, c, length) };
	bool changes = lens_cell_changes(s, &pair, c);

	if (!s->experiment->patch.reuse) {
		c->from = 0;
	} else if (changes) {
		length = pair.read_pos + 1; /* what follows is not read */
	} else {
		memcpy(c->out, metric_row(w, c->grid->metric, c->grid->base, c->pair),
		       lens_metric_floats(c->grid->metric, &w->opt.sizes) * sizeof(float));
		return LENS_OK;
	}
	if (w->editor.n == w->most.cells ||
	    w->batch.n_rows + lens_batch_rows_from(length, c->from) > w->most.cell_rows)
		LENS_TRY(run_cells(w, err));
	describe(w, w->editor.n, c->pair, false);
	w->prompt[w->editor.n] = c->pair * w->most.runs + w->run[c->grid->base];
	lens_batch_pack(&w->batch, tokens_of(w, c->grid->base, c->pair), length,
			p->read_pos[row], c->from);
	w->editor.cell[w->editor.n++] = *c;
	return LENS_OK;
}

/* Cells of one layer, which start together. */
static enum lens_status run_layer(struct lens_interventions *w, size_t layer, size_t n_pairs,
				  struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	const struct lens_cells cells = {
		.study = s, .sizes = &w->opt.sizes, .fn = add_cell, .ctx = w
	};
	size_t i, pair;

	for (i = 0; i < s->n_grids; i++) {
		const struct lens_study_grid *g = &s->grid[i];
		size_t n = lens_outcome_floats(&s->outcome[g->outcome], &w->opt.sizes);

		for (pair = 0; pair < n_pairs; pair++)
			LENS_TRY(lens_cells_each(
				&cells, g, layer, (struct lens_cell){ .pair = pair },
				lens_prompt_length(w->in->prompts, row_of(w, pair)),
				w->rows[g->outcome] + (w->first + pair) * n, err));
	}
	return run_cells(w, err);
}

/* --- what follows from them ----------------------------------------------------------------
 */

/* (x − corrupted)/(clean − corrupted); NaN where the two are equal */
static void normalize(struct lens_interventions *w, const struct lens_outcome *o, size_t pair,
		      float *out)
{
	const struct lens_study_grid *g = &w->opt.study->grid[o->grid];
	const float *clean = metric_row(w, g->metric, LENS_RUN_CLEAN, pair);
	const float *corrupted = metric_row(w, g->metric, LENS_RUN_CORRUPTED, pair);
	size_t i, n = lens_outcome_floats(o, &w->opt.sizes);
	size_t per_cell = lens_metric_floats(g->metric, &w->opt.sizes);
	const float *x = w->rows[g->outcome] + (w->first + pair) * n;

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

enum lens_status lens_interventions_run(struct lens_interventions *w,
					const struct lens_interventions_batch *in,
					struct lens_error *err)
{
	const struct lens_study *s = w->opt.study;
	size_t i, n, layer;

	w->in = in;
	for (i = 0; i < s->n_outcomes; i++)
		lens_fill(LENS_F32, w->rows[i],
			  in->n * lens_outcome_floats(&s->outcome[i], &w->opt.sizes));
	for (w->first = 0; w->first < in->n; w->first += n) {
		n = pack_group(w);
		LENS_TRY(run_group(w, err));
		for (layer = 0; layer < s->model->config.n_layers; layer++) {
			if (lens_layer_asked(s, layer))
				LENS_TRY(run_layer(w, layer, n, err));
		}
		for (i = 0; i < n; i++)
			finish_pair(w, i);
	}
	return LENS_OK;
}
