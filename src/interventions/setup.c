/*
 * interventions/setup.c: one worker's memory. In: the study, and how long prompts are; out:
 * how much a group of pairs and a batch of cells may hold, and room for it, sized once.
 */
#include "interventions/interventions_private.h"

#include <string.h>

#define GROUP_ROWS 1020                 /* of recorded runs, … */
#define GROUP_PAIRS 64                  /* … of so many pairs at most, … */
#define GROUP_BYTES ((size_t)256 << 20) /* … of so much; at least one pair */
#define CELL_ROWS 1020                  /* of a batch of cells; at least one prompt's */

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
		hook[s->grid[i].hook] |= lens_source_run(&s->grid[i]) < LENS_RUN_COUNT;
	if (s->experiment->path.receivers.n)
		hook[LENS_HOOK_MLP_OUT] = !s->model->config.attn_only;
}

static struct lens_capacity capacity(const struct lens_interventions_options *o)
{
	const struct lens_study *s = o->study;
	const struct lens_config *c = &s->model->config;
	size_t longest = o->sizes.n_pos, row_bytes, i;
	struct lens_capacity most = { .pairs = lens_min(o->batch_rows, GROUP_PAIRS) };

	for (i = 0; i < LENS_RUN_COUNT; i++)
		most.runs += s->needs[i];
	choose_hooks(s, most.hook);
	row_bytes = lens_record_row_floats(s->model, most.hook) * sizeof(float);
	if (most.hook[LENS_HOOK_PATTERN])
		row_bytes += c->n_layers * c->n_heads * o->sizes.n_pos * sizeof(float);
	most.record_rows = lens_min(GROUP_ROWS, GROUP_BYTES / lens_max(row_bytes, 1));
	most.record_rows =
		lens_min(most.record_rows, lens_batch_rows(most.pairs * most.runs, longest));
	most.record_rows =
		round_up(lens_max(most.record_rows, lens_batch_rows(most.runs, longest)));
	most.cell_rows = round_up(lens_max(CELL_ROWS, lens_batch_rows(1, longest)));
	most.cells = lens_row_room(most.cell_rows);
	most.prompts = lens_max(most.cells, most.pairs * most.runs);
	return most;
}

static struct lens_record_size record_size(const struct lens_interventions_options *o,
					   const struct lens_capacity *most)
{
	return (struct lens_record_size){ .model = o->study->model,
					  .max_prompts = most->pairs * most->runs,
					  .max_rows = most->record_rows,
					  .max_length = o->sizes.n_pos,
					  .hook = most->hook };
}

static struct lens_tables_options table_options(const struct lens_interventions_options *o,
						const struct lens_capacity *most)
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
			  const struct lens_capacity *most)
{
	return o->study->metric[LENS_TABLE_kl_divergence] ? most->pairs * o->sizes.d_vocab : 0;
}

size_t lens_interventions_bytes(const struct lens_interventions_options *o)
{
	const struct lens_model *m = o->study->model;
	const struct lens_capacity most = capacity(o);
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
	       lens_received_bytes(o->study, most.cell_rows) + lens_forward_bytes(m, &forward) +
	       lens_tables_bytes(m, &tables) +
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
	const struct lens_capacity *most = &w->most;
	size_t logits = kept_logits(&w->opt, most), resid = most->cell_rows * s->d_model;

	w->resid = lens_alloc_aligned(resid, sizeof(float));
	w->prompt = lens_calloc(most->cells, sizeof(*w->prompt));
	w->editor.cell = lens_calloc(most->cells, sizeof(*w->editor.cell));
	w->answers = lens_calloc(most->prompts, (s->n_answers + 1) * sizeof(*w->answers));
	w->reference = lens_calloc(most->prompts, sizeof(*w->reference));
	w->keep = lens_calloc(most->prompts, sizeof(*w->keep));
	w->nonfinite = lens_calloc(w->opt.batch_rows, sizeof(*w->nonfinite));
	if (logits)
		w->logits = lens_alloc_aligned(logits, sizeof(float));
	if (!w->resid || !w->prompt || !w->editor.cell || !w->answers || !w->reference ||
	    !w->keep || !w->nonfinite || (logits && !w->logits))
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
	e->mean = w->opt.mean;
	e->vector = w->opt.vector;
	e->run = w->run;
	e->n_runs = w->most.runs;
	LENS_TRY(lens_hook_set_init(&e->hooks, &s->model->config, NULL, 0, err));
	for (i = 0; i < s->n_grids; i++) {
		for (layer = 0; layer < s->model->config.n_layers; layer++)
			lens_hook_want(&e->hooks, s->grid[i].hook, layer, LENS_WANT_READ_POS);
	}
	for (layer = 0; s->experiment->path.receivers.n && layer < s->model->config.n_layers;
	     layer++)
		lens_hook_want(&e->hooks, LENS_HOOK_MLP_OUT, layer, LENS_WANT_READ_POS);
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
	/* Not the cells': what is edited is a cell's own. */
	w->record.batch.share = w->opt.study->experiment->share_prefixes;
	LENS_TRY(lens_tables_create(m, &tables, &w->tables, err));
	LENS_TRY(lens_hook_set_init(&w->table_hooks, &m->config, NULL, 0, err));
	lens_tables_hooks(m, &tables, &w->table_hooks);
	LENS_TRY(lens_received_init(&w->received, w->opt.study, w->most.cell_rows, err));
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
	lens_free(w->nonfinite);
	lens_free(w->logits);
	lens_hook_set_release(&w->editor.hooks);
	lens_hook_set_release(&w->table_hooks);
	lens_record_release(&w->record);
	lens_received_release(&w->received);
	lens_batch_release(&w->batch);
	lens_tables_destroy(w->tables);
	lens_forward_destroy(w->forward);
	lens_free(w);
}

const float *lens_interventions_rows(const struct lens_interventions *w, size_t outcome)
{
	return w->rows[outcome];
}
