/*
 * plan.h: rows → batches, chunks, shards, bytes and memory.
 *
 * What is planned is a pure function of model, data and experiment, never of threads,
 * memory or time, so that the files are not either. Only batches and lens_plan_memory
 * are told what the machine has: how much work is best, and fits, at a time.
 */
#ifndef H5LENS_PLAN_H
#define H5LENS_PLAN_H

#include "h5lens/capture.h"
#include "h5lens/dataset.h"
#include "h5lens/experiment.h"
#include "h5lens/interventions.h"
#include "h5lens/tables.h"

/* --- a file ---------------------------------------------------------------------- */

#define LENS_PATH 128

/* One dataset of the file, and where its data come from. */
struct lens_planned {
	char path[LENS_PATH];
	const char *long_name, *units; /* or NULL */
	enum lens_dtype dtype;
	int rank;
	enum lens_axis axis[LENS_MAX_RANK];
	size_t extent[LENS_MAX_RANK], chunk[LENS_MAX_RANK];
	enum { LENS_FROM_HOOK, LENS_FROM_TABLE, LENS_FROM_OUTCOME } from;
	size_t source;       /* index into capture.spec; enum lens_table; index of an outcome */
	uint64_t data_bytes; /* values of real tokens */
	uint64_t file_bytes; /* chunks that will be written, padding included */
};

struct lens_planned_link {
	char path[LENS_PATH], target[LENS_PATH];
};

/*
 * One file: of a whole sweep, or of a shard. Rows → blocks of block_rows prompts, which is
 * a multiple of the rows of every chunk that one block fills: the chunks' shapes come of it.
 * A batch is what a worker runs at a time, one block or more, and leaves no trace in a file.
 */
struct lens_plan {
	const struct lens_plan
		*whole; /* of a shard: the sweep's, whose hooks and links are used */
	const struct lens_model *model;
	const struct lens_prompts *prompts; /* the rows of this plan */
	const struct lens_experiment *experiment;
	struct lens_sizes sizes;
	size_t block_rows, batch_rows, n_batches;
	size_t max_packed; /* rows of activations in the largest batch */
	/*
	 * Where prompts are sorted (order.c): in windows of so many rows, which are cut into
	 * batches of their own, of up to most_prompts and most_tokens. Else sort_rows is 0,
	 * and the batches are as above.
	 */
	size_t sort_rows, most_prompts, most_tokens;
	struct lens_hook_set hooks;       /* what is stored */
	struct lens_hook_set table_hooks; /* what the tables need */
	struct lens_capture_plan capture;
	struct lens_tables_options tables;
	bool any_table;
	struct lens_study study; /* interventions */
	struct lens_planned *dataset;
	size_t n_datasets;
	struct lens_planned_link *link;
	size_t n_links;
	size_t *first_token;             /* [n_rows + 1], or NULL: follows from lengths */
	uint64_t data_bytes, file_bytes; /* sums, the prompts' own included */
};

/* The plan of all rows. It refers to all that it is made of. */
enum lens_status lens_plan_init(struct lens_plan *p, const struct lens_model *m,
				const struct lens_prompts *prompts,
				const struct lens_experiment *e, struct lens_error *err);
void lens_plan_release(struct lens_plan *p);

/* --- the order of the rows -------------------------------------------------------- */

/* How many batches for each worker may run ahead of the slowest one. */
#define LENS_BATCH_WINDOW 2

/* Batch i computes the rows row[first[i]] … row[first[i + 1] − 1]. */
struct lens_order {
	size_t n_batches;
	size_t *first; /* [n_batches + 1] */
	size_t *row;   /* [n_rows] */
};
enum lens_status lens_order_make(struct lens_order *o, const struct lens_plan *p,
				 struct lens_error *err);
void lens_order_release(struct lens_order *o);

/* --- passes ----------------------------------------------------------------------- */

/* Of the largest pass that a worker runs: over a batch, or its prompts with answers. */
struct lens_forward_size lens_plan_pass(const struct lens_plan *p,
					const struct lens_visitors *visitors, size_t threads);

/*
 * With cache.layout: ragged: which token of the file is a row's first, as its prompts'
 * stored positions follow each other; of n_rows: how many there are.
 */
size_t lens_plan_first_token(const struct lens_plan *p, size_t row);

/* What a worker's interventions need to know. */
struct lens_interventions_options lens_plan_interventions(const struct lens_plan *p,
							  size_t threads);

/* --- memory ----------------------------------------------------------------------- */

/* Memory, in bytes, and how much work fits in it. */
struct lens_memory {
	size_t model, per_worker, buffer, shared;
	size_t mean; /* of ablate.value: mean, which the workers share; 0: none is wanted */
	size_t workers, inner_threads, buffers; /* what fits */
	size_t most_threads; /* a worker's own and those that others have left, in attention */
	size_t total, limit;
	enum lens_memory_from from; /* the limit: all of it if given, else three quarters */
};
/*
 * How many workers and buffers fit in what there is. Too little for one worker is
 * LENS_ERR_NOMEM with the numbers.
 */
enum lens_status lens_plan_memory(const struct lens_plan *p, size_t threads,
				  const struct lens_available *is, struct lens_memory *out,
				  struct lens_error *err);

/*
 * How many of *threads can load the model at a time: weights, and what each thread holds
 * beside them. Too little for one is LENS_ERR_NOMEM.
 */
enum lens_status lens_plan_loading(const struct lens_config *c, const struct lens_processing *p,
				   const struct lens_available *is, size_t *threads,
				   struct lens_error *err);

/* --- shards ------------------------------------------------------------------------ */

/*
 * The rows of each shard, first[i] to first[i + 1] − 1: the same for every task
 * and every later run. A sweep of one shard is one file. HDF5 opens every file of a
 * virtual dataset, so there are LENS_MOST_SHARDS at most: past that, what ends a
 * shard is doubled.
 */
#define LENS_MOST_SHARDS 500
struct lens_cut {
	size_t n;
	size_t grown;  /* times what shards.prompts and shards.bytes say */
	size_t *first; /* [n + 1] */
};
enum lens_status lens_cut_make(struct lens_cut *c, const struct lens_plan *p,
			       struct lens_error *err);
void lens_cut_release(struct lens_cut *c);

/* Every shard's plan. What shards have in common, the whole plan holds, once. */
struct lens_parts {
	const struct lens_plan *whole;
	struct lens_cut cut;
	uint64_t *file_bytes;    /* [cut.n] of a shard's file */
	struct lens_memory most; /* of the shard that needs most, or of two that overlap */
	size_t most_workers;     /* of a shard */
	bool overlap;            /* there is memory for two shards at a time */
	struct lens_part *part;  /* [cut.n] what is a shard's own */
};
/* Cuts the sweep and plans each shard. */
enum lens_status lens_parts_make(struct lens_parts *s, const struct lens_plan *whole,
				 size_t threads, const struct lens_available *is,
				 struct lens_error *err);
void lens_parts_release(struct lens_parts *s);

/* A shard's plan, put together from what was counted; and its memory. Release the plan. */
enum lens_status lens_parts_plan(const struct lens_parts *s, size_t shard,
				 struct lens_plan *out, struct lens_error *err);
/* Tokens of its longest prompt. */
size_t lens_parts_longest(const struct lens_parts *s, size_t shard);
const struct lens_memory *lens_parts_memory(const struct lens_parts *s, size_t shard);

/* What a core is taken to compute in a second, to plan with and to tell of. */
#define LENS_CORE_FLOPS 5e10
/* Multiplications and additions that end a shard: six minutes of a core. */
#define LENS_SHARD_FLOP (360 * LENS_CORE_FLOPS)

/*
 * Multiplications and additions of n rows from first on: of their passes, and of their
 * interventions if these are meant, too.
 */
double lens_plan_flop(const struct lens_plan *p, size_t first, size_t n, bool interventions);

/* --- what a plan comes to, to be shown ----------------------------------------------- */

struct lens_dataset_summary {
	const char *path;
	int rank;
	const size_t *extent;            /* [rank] in the whole sweep */
	uint64_t data_bytes, file_bytes; /* of all shards */
};
struct lens_plan_summary {
	size_t n_prompts, max_length, n_layers;
	size_t batch_rows, n_batches; /* of a sweep of one shard */
	size_t sorted;                /* prompts of a batch at most, if they are sorted; or 0 */
	struct lens_dataset_summary *dataset;
	size_t n_datasets;
	const struct lens_planned_link *link;
	size_t n_links;
	uint64_t file_bytes; /* of all, the prompts' own included */
	const struct lens_cut *cut;
	size_t asked_prompts;        /* shards.prompts; 0: not set */
	const uint64_t *shard_bytes; /* [cut->n] */
	const struct lens_memory *memory;
	bool overlap;                         /* it is that of two shards */
	struct lens_study_cost interventions; /* of all rows; of cells 0: there are none … */
	struct lens_study_cost largest;       /* … of the row that takes longest, … */
	size_t largest_row;                   /* … and which it is */
};
/* Refers to the parts. */
enum lens_status lens_plan_summary_make(struct lens_plan_summary *out,
					const struct lens_parts *s, struct lens_error *err);
void lens_plan_summary_release(struct lens_plan_summary *s);

#endif
