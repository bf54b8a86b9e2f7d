/*
 * plan/parts.c: every shard's plan. In: the plan of the whole sweep and the memory
 * there is; out: the cut, and for each shard its rows, batches, shapes, bytes and
 * memory, counted once. Paths, axes and hooks, which are the same for all, stay with
 * the whole plan: 500 shards of a large model would fill 200 MB with them.
 */
#include "plan/plan_private.h"

#include <string.h>

struct lens_part {
	struct lens_prompts prompts;
	size_t block_rows, batch_rows, n_batches, max_packed;
	struct lens_shape shape[LENS_SHAPES];
	struct lens_memory memory;
};

static enum lens_status count_part(struct lens_parts *s, size_t shard, size_t threads,
				   const struct lens_available *is, struct lens_error *err)
{
	struct lens_part *part = &s->part[shard];
	size_t first = s->cut.first[shard];
	enum lens_status st;
	struct lens_plan p;

	part->prompts =
		lens_prompts_part(s->whole->prompts, first, s->cut.first[shard + 1] - first);
	LENS_TRY(lens_plan_part(s->whole, &part->prompts, &p, err));
	lens_plan_blocks(&p);
	lens_plan_sizes(&p);
	st = lens_plan_shapes(&p, part->shape, err);
	if (st == LENS_OK) {
		lens_plan_take_shapes(&p, part->shape);
		st = lens_plan_fit(&p, threads, is, &part->memory, err);
	}
	part->block_rows = p.block_rows;
	part->batch_rows = p.batch_rows;
	part->n_batches = p.n_batches;
	part->max_packed = p.max_packed;
	s->file_bytes[shard] = p.file_bytes;
	lens_plan_release(&p);
	return st;
}

/* Shards that follow each other are held together: model and means once. */
static void plan_overlap(struct lens_parts *s)
{
	size_t i, both, most = 0;

	for (i = 1; i < s->cut.n; i++) {
		const struct lens_memory *a = &s->part[i - 1].memory, *b = &s->part[i].memory;

		both = a->total + b->total - b->model - b->mean;
		most = lens_max(most, both);
	}
	s->overlap = s->cut.n > 1 && most <= s->most.limit;
	if (s->overlap)
		s->most.total = lens_max(s->most.total, most);
}

enum lens_status lens_parts_make(struct lens_parts *s, const struct lens_plan *whole,
				 size_t threads, const struct lens_available *is,
				 struct lens_error *err)
{
	size_t i;

	*s = (struct lens_parts){ .whole = whole };
	LENS_TRY(lens_cut_make(&s->cut, whole, err));
	s->file_bytes = lens_calloc(s->cut.n, sizeof(*s->file_bytes));
	s->part = lens_calloc(s->cut.n, sizeof(*s->part));
	if (!s->file_bytes || !s->part)
		return lens_error_nomem(err, s->cut.n, sizeof(*s->part));
	for (i = 0; i < s->cut.n; i++) {
		LENS_TRY(count_part(s, i, threads, is, err));
		if (s->part[i].memory.total > s->most.total)
			s->most = s->part[i].memory;
		s->most_workers = lens_max(s->most_workers, s->part[i].memory.workers);
	}
	plan_overlap(s);
	return LENS_OK;
}

void lens_parts_release(struct lens_parts *s)
{
	lens_cut_release(&s->cut);
	lens_free(s->file_bytes);
	lens_free(s->part);
	memset(s, 0, sizeof(*s));
}

enum lens_status lens_parts_plan(const struct lens_parts *s, size_t shard,
				 struct lens_plan *out, struct lens_error *err)
{
	const struct lens_part *part = &s->part[shard];
	enum lens_status st;

	LENS_TRY(lens_plan_part(s->whole, &part->prompts, out, err));
	out->block_rows = part->block_rows;
	out->batch_rows = part->batch_rows;
	out->n_batches = part->n_batches;
	out->max_packed = part->max_packed;
	lens_plan_sizes(out);
	lens_plan_take_shapes(out, part->shape);
	st = lens_plan_index_tokens(out, err);
	if (st != LENS_OK)
		lens_plan_release(out);
	return st;
}

size_t lens_parts_longest(const struct lens_parts *s, size_t shard)
{
	return s->part[shard].prompts.max_length;
}

const struct lens_memory *lens_parts_memory(const struct lens_parts *s, size_t shard)
{
	return &s->part[shard].memory;
}

/* --- to be shown ---------------------------------------------------------------------- */

/* In the whole sweep; but what is written of it is written to the shards. */
static struct lens_dataset_summary show(const struct lens_parts *s,
					const struct lens_planned *d)
{
	struct lens_dataset_summary out = { .path = d->path,
					    .rank = d->rank,
					    .extent = d->extent,
					    .data_bytes = d->data_bytes };
	size_t i;

	for (i = 0; i < s->cut.n; i++)
		out.file_bytes += lens_shape_of(s->whole, d, s->part[i].shape)->file_bytes;
	return out;
}

static void add_interventions(struct lens_plan_summary *out, const struct lens_plan *p)
{
	size_t row;

	for (row = 0; row < p->prompts->n_rows; row++) {
		struct lens_study_cost cost = { 0, 0 };

		lens_study_add_cost(&p->study, p->prompts, row, &cost);
		out->interventions.cells += cost.cells;
		out->interventions.flop += cost.flop;
		if (cost.flop > out->largest.flop) {
			out->largest = cost;
			out->largest_row = row;
		}
	}
}

enum lens_status lens_plan_summary_make(struct lens_plan_summary *out,
					const struct lens_parts *s, struct lens_error *err)
{
	const struct lens_plan *p = s->whole;
	size_t i;

	*out = (struct lens_plan_summary){
		.n_prompts = p->prompts->n_rows,
		.max_length = p->prompts->max_length,
		.n_layers = p->model->config.n_layers,
		.batch_rows = s->part[0].batch_rows,
		.n_batches = s->part[0].n_batches,
		.sorted = p->sort_rows ? p->most_prompts : 0,
		.n_datasets = p->n_datasets,
		.link = p->link,
		.n_links = p->n_links,
		.cut = &s->cut,
		.asked_prompts = p->experiment->shards.prompts,
		.shard_bytes = s->file_bytes,
		.memory = &s->most,
		.overlap = s->overlap,
	};
	out->dataset = lens_calloc(p->n_datasets, sizeof(*out->dataset));
	if (!out->dataset)
		return lens_error_nomem(err, p->n_datasets, sizeof(*out->dataset));
	for (i = 0; i < p->n_datasets; i++)
		out->dataset[i] = show(s, &p->dataset[i]);
	for (i = 0; i < s->cut.n; i++)
		out->file_bytes += s->file_bytes[i];
	add_interventions(out, p);
	return LENS_OK;
}

void lens_plan_summary_release(struct lens_plan_summary *s)
{
	lens_free(s->dataset);
	memset(s, 0, sizeof(*s));
}
