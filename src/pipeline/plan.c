/*
 * pipeline/plan.c: rows → batches, and every dataset of the file: its shape, its
 * chunks, its bytes. Nothing here depends on threads, memory or time, so that
 * the file does not either.
 */
#include "pipeline/pipeline_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_TOKENS 1024            /* packed rows of a batch, at most, but for one prompt */
#define MOST_BATCH_ROWS 256          /* prompts of a batch */
#define MOST_CHUNK ((size_t)4 << 20) /* bytes of a chunk */
#define SMALL_BATCH                                                                            \
	((size_t)1 << 20) /* datasets with less a batch share chunks over batches              \
			   */

/* --- batches --------------------------------------------------------------------- */

static size_t largest_batch(const struct lens_prompts *p, size_t batch_rows)
{
	size_t i, sum = 0, most = 0;

	for (i = 0; i < p->n_rows; i++) {
		sum = (i % batch_rows ? sum : 0) + lens_batch_rows(lens_prompt_length(p, i));
		most = sum > most ? sum : most;
	}
	return most;
}

/*
 * The largest power of two whose batches stay within BATCH_TOKENS; small sets
 * are cut into 16 batches, so that threads find work.
 */
static void plan_batches(struct lens_plan *p)
{
	size_t most = p->prompts->n_rows / 16 > 8 ? p->prompts->n_rows / 16 : 8;
	size_t rows = MOST_BATCH_ROWS;

	while (rows > most)
		rows /= 2;
	while (rows > 1 && largest_batch(p->prompts, rows) > BATCH_TOKENS)
		rows /= 2;
	p->batch_rows = rows;
	p->n_batches = (p->prompts->n_rows + rows - 1) / rows;
	p->max_packed = (largest_batch(p->prompts, rows) + 11) / 12 * 12;
}

/* --- cache datasets ---------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;

	return x < y ? -1 : x > y;
}

enum lens_status lens_median_length(const struct lens_prompts *p, size_t *out,
				    struct lens_error *err)
{
	size_t i, *length = lens_calloc(p->n_rows, sizeof(*length));

	if (!length)
		return lens_error_nomem(err, p->n_rows, sizeof(*length));
	for (i = 0; i < p->n_rows; i++)
		length[i] = lens_prompt_length(p, i);
	qsort(length, p->n_rows, sizeof(*length), by_size);
	*out = length[p->n_rows / 2];
	lens_free(length);
	return LENS_OK;
}

/*
 * Positions of a chunk: all, unless the longest prompt is far longer than most;
 * then about as many as most have, so that one long row does not fill
 * the file with padding.
 */
static enum lens_status position_chunk(const struct lens_prompts *p, size_t *out,
				       struct lens_error *err)
{
	size_t median;

	*out = p->max_length;
	LENS_TRY(lens_median_length(p, &median, err));
	if (p->max_length > 2 * median)
		*out = (median + 7) / 8 * 8;
	return LENS_OK;
}

static size_t product(const size_t *x, int from, int to)
{
	size_t n = 1;

	for (; from < to; from++)
		n *= x[from];
	return n;
}

static size_t at_most(size_t n, size_t most)
{
	return n < 1 ? 1 : n < most ? n : most;
}

/* Chunks of a dataset that one batch fills whole. */
static void chunk_by_batch(const struct lens_plan *p, struct lens_capture_spec *s,
			   size_t pos_chunk)
{
	size_t element = lens_dtype_size(s->dtype);
	size_t rows, row;

	if (lens_hook_is_square(s->hook)) {
		/* [prompt, head, query, key] */
		if (pos_chunk < s->extent[3])
			s->chunk[3] = pos_chunk;
		if (pos_chunk < s->extent[2])
			s->chunk[2] = pos_chunk;
		s->chunk[1] = at_most(MOST_CHUNK / (s->chunk[2] * s->chunk[3] * element),
				      s->extent[1]);
		if (s->chunk[1] == 1)
			s->chunk[2] =
				at_most(MOST_CHUNK / (s->chunk[3] * element), s->chunk[2]);
	} else {
		/* [prompt, pos, …] */
		size_t width = product(s->extent, 2, s->rank) * element;

		if (pos_chunk < s->extent[1])
			s->chunk[1] = pos_chunk;
		s->chunk[1] = at_most(MOST_CHUNK / width, s->chunk[1]);
	}
	row = product(s->chunk, 1, s->rank) * element;
	for (rows = p->batch_rows; rows > 1 && rows * row > MOST_CHUNK; rows /= 2)
		;
	/* Scores and patterns are staged whole: a chunk that cuts a prompt up holds one. */
	if (lens_hook_is_square(s->hook) &&
	    (s->chunk[1] < s->extent[1] || s->chunk[2] < s->extent[2] ||
	     s->chunk[3] < s->extent[3]))
		rows = 1;
	s->chunk[0] = at_most(rows, p->prompts->n_rows);
}

static void plan_chunks(const struct lens_plan *p, struct lens_capture_spec *s,
			size_t pos_chunk)
{
	size_t row = product(s->extent, 1, s->rank) * lens_dtype_size(s->dtype);

	memcpy(s->chunk, s->extent, sizeof(s->chunk));
	s->by_rows = p->batch_rows * row <= SMALL_BATCH;
	if (s->by_rows)
		s->chunk[0] = lens_shared_chunk_rows(p, row);
	else
		chunk_by_batch(p, s, pos_chunk);
}

size_t lens_shared_chunk_rows(const struct lens_plan *p, size_t row_bytes)
{
	size_t batches = SMALL_BATCH / (p->batch_rows * row_bytes);

	return at_most(p->batch_rows * (batches ? batches : 1), p->prompts->n_rows);
}

/* Of some positions, positions and queries are slots; keys are kept. */
static enum lens_axis stored_axis(const struct lens_plan *p, enum lens_axis axis)
{
	bool sliced = axis == LENS_AXIS_POS || axis == LENS_AXIS_QUERY;

	return sliced && p->capture.positions.kind != LENS_POS_ALL ? LENS_AXIS_SLOT : axis;
}

static void shape_spec(const struct lens_plan *p, struct lens_capture_spec *s)
{
	const struct lens_hook_info *h = lens_hook_info(s->hook);
	int i;

	s->rank = h->n_axes + 1;
	s->extent[0] = p->prompts->n_rows;
	for (i = 0; i < h->n_axes; i++)
		s->extent[i + 1] = lens_axis_extent(stored_axis(p, h->axis[i]), &p->sizes);
}

static void describe(const struct lens_plan *p, const struct lens_capture_spec *s,
		     struct lens_planned *d)
{
	const struct lens_hook_info *h = lens_hook_info(s->hook);
	char name[LENS_HOOK_NAME];
	int i;

	snprintf(d->path, sizeof(d->path), "/cache/%s",
		 lens_hook_name(s->hook, s->layer, name));
	d->from = LENS_FROM_HOOK;
	d->long_name = h->long_name;
	d->dtype = s->dtype;
	d->rank = s->rank;
	d->axis[0] = LENS_AXIS_PROMPT;
	for (i = 0; i < s->rank; i++) {
		if (i)
			d->axis[i] = stored_axis(p, h->axis[i - 1]);
		d->extent[i] = s->extent[i];
		d->chunk[i] = s->chunk[i];
	}
}

static struct lens_planned *next_dataset(struct lens_plan *p)
{
	return &p->dataset[p->n_datasets++];
}

static void add_hook(struct lens_plan *p, enum lens_hook hook, size_t layer, size_t pos_chunk)
{
	struct lens_capture_spec *s = &p->capture.spec[p->capture.n_specs];
	struct lens_planned *d = next_dataset(p);

	*s = (struct lens_capture_spec){
		.dataset = (int)(d - p->dataset),
		.hook = hook,
		.layer = layer,
		.dtype = p->experiment->cache.dtype == LENS_CACHE_F16 ? LENS_F16 : LENS_F32,
	};
	shape_spec(p, s);
	plan_chunks(p, s, pos_chunk);
	describe(p, s, d);
	d->source = p->capture.n_specs++;
	lens_count_hook_bytes(p, s, d);
	lens_hook_want(&p->hooks, hook, layer, LENS_WANT_ALL);
}

static void add_link(struct lens_plan *p, enum lens_hook hook, size_t layer,
		     enum lens_hook target, size_t target_layer)
{
	struct lens_planned_link *l = &p->link[p->n_links++];
	char name[LENS_HOOK_NAME];

	snprintf(l->path, sizeof(l->path), "/cache/%s", lens_hook_name(hook, layer, name));
	snprintf(l->target, sizeof(l->target), "/cache/%s",
		 lens_hook_name(target, target_layer, name));
}

static enum lens_status add_cache(struct lens_plan *p, const struct lens_hook_set *selected,
				  struct lens_error *err)
{
	size_t layer, pos_chunk, target_layer;
	enum lens_hook target;
	int h;

	LENS_TRY(position_chunk(p->prompts, &pos_chunk, err));
	for (layer = 0; layer < selected->n_layers; layer++) {
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			enum lens_hook hook = (enum lens_hook)h;

			if (!lens_hook_wanted(selected, hook, layer))
				continue;
			/* A link, where what it is an alias of is stored too. */
			if (lens_hook_alias(&p->model->config, hook, layer, &target,
					    &target_layer) &&
			    lens_hook_wanted(selected, target, target_layer))
				add_link(p, hook, layer, target, target_layer);
			else
				add_hook(p, hook, layer, pos_chunk);
		}
	}
	return LENS_OK;
}

/* --- tables ------------------------------------------------------------------------ */

/* What a table says of real tokens: all of it, or with an axis of positions less. */
static uint64_t table_data_bytes(const struct lens_plan *p, const struct lens_table_type *t,
				 size_t row_bytes)
{
	uint64_t pairs = p->prompts->offset[p->prompts->n_rows] - p->prompts->offset[0] -
			 p->prompts->n_rows;

	if (t->n_axes && t->axis[0] == LENS_AXIS_POS)
		return pairs * lens_dtype_size(t->dtype);
	return (uint64_t)row_bytes * p->prompts->n_rows;
}

static void add_table(struct lens_plan *p, enum lens_table table)
{
	const struct lens_table_type *t = lens_table_type(table);
	struct lens_planned *d = next_dataset(p);
	size_t row = lens_table_row_bytes(table, &p->sizes);
	int i;

	snprintf(d->path, sizeof(d->path), "/results/%s", lens_table_name(table));
	d->from = LENS_FROM_TABLE;
	d->source = table;
	d->long_name = t->long_name;
	d->units = t->units;
	d->dtype = t->dtype;
	d->rank = t->n_axes + 1;
	d->axis[0] = LENS_AXIS_PROMPT;
	d->extent[0] = p->prompts->n_rows;
	d->chunk[0] = lens_shared_chunk_rows(p, row);
	for (i = 0; i < t->n_axes; i++) {
		d->axis[i + 1] = t->axis[i];
		d->extent[i + 1] = d->chunk[i + 1] = lens_axis_extent(t->axis[i], &p->sizes);
	}
	d->data_bytes = table_data_bytes(p, t, row);
	d->file_bytes =
		(p->prompts->n_rows + d->chunk[0] - 1) / d->chunk[0] * d->chunk[0] * row;
}

static void plan_tables(struct lens_plan *p)
{
	const struct lens_experiment *e = p->experiment;
	int i;

	p->tables = (struct lens_tables_options){ .sizes = p->sizes,
						  .lens = e->lens,
						  .batch_rows = p->batch_rows };
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		p->tables.wanted[i] =
			lens_experiment_wants_table(e, lens_table_group((enum lens_table)i));
		p->any_table |= p->tables.wanted[i];
	}
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (!strcmp(lens_table_group((enum lens_table)i), "any"))
			p->tables.wanted[i] = p->any_table;
		if (p->tables.wanted[i])
			add_table(p, (enum lens_table)i);
	}
	if (p->any_table)
		lens_tables_hooks(p->model, &p->tables, &p->table_hooks);
}

static enum lens_status check_positions(const struct lens_plan *p, struct lens_error *err)
{
	size_t i, row, n = p->experiment->cache.n_positions;

	for (i = 0; i < n; i++) {
		for (row = 0; row < p->prompts->n_rows; row++) {
			if (lens_slot_position(&p->capture.positions, i,
					       lens_prompt_length(p->prompts, row), 0) >= 0)
				break;
		}
		if (row == p->prompts->n_rows)
			return lens_error_set(
				err, LENS_ERR_INVALID,
				"cache.positions: no prompt has a position %ld; the "
				"longest has %zu tokens",
				p->experiment->cache.position[i], p->prompts->max_length);
	}
	return LENS_OK;
}

static enum lens_status fill_plan(struct lens_plan *p, const struct lens_hook_set *selected,
				  struct lens_error *err)
{
	size_t i, most = p->model->config.n_layers * LENS_HOOK_COUNT;

	p->dataset = lens_calloc(most + LENS_TABLE_COUNT, sizeof(*p->dataset));
	p->link = lens_calloc(most, sizeof(*p->link));
	p->capture.spec = lens_calloc(most, sizeof(*p->capture.spec));
	if (!p->dataset || !p->link || !p->capture.spec)
		return lens_error_nomem(err, most, sizeof(*p->dataset));
	if (p->prompts->n_rows == p->n_whole)
		LENS_TRY(check_positions(p, err));
	LENS_TRY(add_cache(p, selected, err));
	plan_tables(p);
	lens_count_prompt_bytes(p);
	for (i = 0; i < p->n_datasets; i++) {
		p->data_bytes += p->dataset[i].data_bytes;
		p->file_bytes += p->dataset[i].file_bytes;
	}
	if (!p->n_datasets)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "neither cache.hooks nor tables asks for anything%s",
				      p->prompts->n_answers ? ""
							    : " (without data.answers, tables "
							      "about answers have no content)");
	return LENS_OK;
}

enum lens_status lens_plan_init(struct lens_plan *p, const struct lens_model *m,
				const struct lens_prompts *prompts,
				const struct lens_experiment *e, struct lens_error *err)
{
	return lens_plan_part(p, m, prompts, prompts->n_rows, e, err);
}

static void size_up(struct lens_plan *p)
{
	const struct lens_experiment *e = p->experiment;

	p->sizes = lens_model_sizes(&p->model->config);
	p->sizes.n_prompts = p->prompts->n_rows;
	p->sizes.n_pos = p->prompts->max_length;
	p->sizes.n_slots = p->capture.positions.n_slots;
	p->sizes.n_answers = p->prompts->n_answers;
	p->sizes.answer = (const char *const *)e->data.answers.v;
	p->sizes.top_k = lens_min(lens_min(e->top_k, LENS_TOP_K_MAX), p->sizes.d_vocab);
}

enum lens_status lens_plan_part(struct lens_plan *p, const struct lens_model *m,
				const struct lens_prompts *prompts, size_t n_whole,
				const struct lens_experiment *e, struct lens_error *err)
{
	struct lens_hook_set selected = { 0 };
	enum lens_status st;

	memset(p, 0, sizeof(*p));
	p->model = m;
	p->prompts = prompts;
	p->n_whole = n_whole;
	p->experiment = e;
	plan_batches(p);
	p->capture.config = &m->config;
	p->capture.n_pos = prompts->max_length;
	p->capture.batch_rows = p->batch_rows;
	p->capture.positions = (struct lens_positions){
		.kind = e->cache.positions,
		.list = e->cache.position,
		.n_slots = e->cache.positions == LENS_POS_ALL    ? prompts->max_length
			   : e->cache.positions == LENS_POS_LIST ? e->cache.n_positions
								 : 1,
	};
	size_up(p);
	st = lens_hook_set_init(&selected, &m->config, (const char *const *)e->cache.hooks.v,
				e->cache.hooks.n, err);
	if (st == LENS_OK)
		st = lens_hook_set_init(&p->hooks, &m->config, NULL, 0, err);
	if (st == LENS_OK)
		st = lens_hook_set_init(&p->table_hooks, &m->config, NULL, 0, err);
	if (st == LENS_OK)
		st = fill_plan(p, &selected, err);
	lens_hook_set_release(&selected);
	if (st != LENS_OK)
		lens_plan_release(p);
	return st;
}

void lens_plan_release(struct lens_plan *p)
{
	lens_hook_set_release(&p->hooks);
	lens_hook_set_release(&p->table_hooks);
	lens_free(p->capture.spec);
	lens_free(p->dataset);
	lens_free(p->link);
	memset(p, 0, sizeof(*p));
}
