/*
 * plan/fit.c: blocks → batches. In: a plan with its shapes, the threads and the memory
 * there are; out: how many blocks a worker runs at a time, and what that takes. A product
 * packs its weights once, however many rows it has, so that batches of few rows pack for
 * much of their time; but with fewer batches than fit the workers, some would wait for the
 * last.
 */
#include "plan/plan_private.h"

#define WIDE_TOKENS 1024 /* packed rows of a batch that is more than one block */
/* Packing takes as long as so many rows' products: 8 % of a batch of 256. */
#define PACKING_ROWS 20

/* Rows that the workers run one after the other, the busiest of them; packing counted. */
static size_t longest_way(const struct lens_prompts *q, size_t batch_rows, size_t *load,
			  size_t workers)
{
	size_t row = 0, i, most = 0;

	for (i = 0; i < workers; i++)
		load[i] = 0;
	while (row < q->n_rows) {
		size_t end = lens_min(row + batch_rows, q->n_rows), *least = load;

		for (i = 1; i < workers; i++)
			least = load[i] < *least ? load + i : least;
		for (*least += PACKING_ROWS; row < end; row++)
			*least += lens_prompt_length(q, row);
		most = lens_max(most, *least);
	}
	return most;
}

/* Interventions make batches of their own of what they run, and so does order.c. */
static enum lens_status best_blocks(const struct lens_plan *p, size_t threads, size_t *best,
				    struct lens_error *err)
{
	size_t blocks = 1, workers = lens_min(threads, p->n_batches), least, way;
	size_t *load = lens_calloc(workers, sizeof(*load));

	*best = 1;
	if (!load)
		return lens_error_nomem(err, workers, sizeof(*load));
	least = p->study.n_outcomes || p->sort_rows
			? 0
			: longest_way(p->prompts, p->block_rows, load, workers);
	while (least && (blocks + 1) * workers <= p->n_batches + workers - 1 &&
	       lens_largest_batch(p->prompts, (blocks + 1) * p->block_rows) <= WIDE_TOKENS) {
		way = longest_way(p->prompts, ++blocks * p->block_rows, load, workers);
		if (way < least) {
			least = way;
			*best = blocks;
		}
	}
	lens_free(load);
	return LENS_OK;
}

void lens_plan_widen(struct lens_plan *p, size_t blocks)
{
	lens_plan_batches(p, blocks);
	lens_plan_sizes(p);
	lens_plan_order(p);
}

enum lens_status lens_plan_fit(struct lens_plan *p, size_t threads,
			       const struct lens_available *is, struct lens_memory *m,
			       struct lens_error *err)
{
	size_t blocks;

	lens_plan_widen(p, 1);
	LENS_TRY(best_blocks(p, threads, &blocks, err));
	for (; blocks > 1; blocks /= 2) {
		lens_plan_widen(p, blocks);
		if (lens_plan_memory(p, threads, is, m, NULL) == LENS_OK &&
		    m->workers == lens_min(threads, p->n_batches))
			return LENS_OK;
	}
	lens_plan_widen(p, 1);
	return lens_plan_memory(p, threads, is, m, err);
}
