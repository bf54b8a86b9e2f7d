/*
 * pipeline.h: one experiment from its inputs to its file.
 */
#ifndef H5LENS_PIPELINE_H
#define H5LENS_PIPELINE_H

#include <stdatomic.h>

#include "h5lens/capture.h"
#include "h5lens/dataset.h"
#include "h5lens/experiment.h"
#include "h5lens/store.h"
#include "h5lens/sweep.h"
#include "h5lens/tables.h"

/* --- the plan ------------------------------------------------------------------ */

#define LENS_PATH 128

/* One dataset of the file, with where its data come from. */
struct lens_planned {
	char path[LENS_PATH];
	const char *long_name, *units; /* or NULL */
	enum lens_dtype dtype;
	int rank;
	enum lens_axis axis[LENS_MAX_RANK];
	size_t extent[LENS_MAX_RANK], chunk[LENS_MAX_RANK];
	enum { LENS_FROM_HOOK, LENS_FROM_TABLE } from;
	size_t source;       /* index into capture.spec, or enum lens_table */
	uint64_t data_bytes; /* values of real tokens */
	uint64_t file_bytes; /* chunks that will be written, padding included */
};

struct lens_planned_link {
	char path[LENS_PATH], target[LENS_PATH];
};

/*
 * A pure function of model, data and experiment; never of threads or memory.
 * Rows → batches of batch_rows prompts, a multiple of every chunk's rows that
 * one batch fills.
 */
struct lens_plan {
	const struct lens_model *model;
	const struct lens_prompts *prompts; /* the rows of this plan */
	size_t n_whole;                     /* rows of the whole sweep */
	const struct lens_experiment *experiment;
	struct lens_sizes sizes;
	size_t batch_rows, n_batches;
	size_t max_packed;                /* rows of activations in the largest batch */
	struct lens_hook_set hooks;       /* what is stored */
	struct lens_hook_set table_hooks; /* what the tables are made of */
	struct lens_capture_plan capture;
	struct lens_tables_options tables;
	bool any_table;
	struct lens_planned *dataset;
	size_t n_datasets;
	struct lens_planned_link *link;
	size_t n_links;
	uint64_t data_bytes, file_bytes; /* sums, the prompts' own included */
};

enum lens_status lens_plan_init(struct lens_plan *p, const struct lens_model *m,
				const struct lens_prompts *prompts,
				const struct lens_experiment *e, struct lens_error *err);
void lens_plan_release(struct lens_plan *p);

/*
 * The rows of each shard, first[i] to first[i + 1] − 1: the same for every task
 * and every later run. A sweep of one shard is one file. HDF5 opens every file of a
 * virtual dataset, so there are LENS_MOST_SHARDS at most: past that, what ends a
 * shard is doubled.
 */
#define LENS_MOST_SHARDS 500
struct lens_shards {
	size_t n;
	size_t grown;         /* times what shards.prompts and shards.bytes say */
	size_t *first;        /* [n + 1] */
	uint64_t *file_bytes; /* [n], once counted */
};
enum lens_status lens_shards_init(struct lens_shards *s, const struct lens_plan *p,
				  struct lens_error *err);
void lens_shards_release(struct lens_shards *s);

/* Memory, in bytes: what one worker needs, and the pool's one buffer. */
struct lens_memory {
	size_t model, per_worker, buffer, shared;
	size_t workers, inner_threads, buffers; /* what fits */
	size_t total, limit;
	enum lens_memory_from from; /* the limit: all of it if given, else three quarters */
};
/*
 * How many workers and buffers fit in limit bytes (0: three quarters of what
 * lens_memory_available says). Too little for one worker is LENS_ERR_NOMEM with the numbers.
 */
enum lens_status lens_plan_memory(const struct lens_plan *p, size_t threads, size_t limit,
				  struct lens_memory *out, struct lens_error *err);

/* --- a run ---------------------------------------------------------------------- */

struct lens_run_options {
	bool dry_run, overwrite;
	bool repair; /* damaged shards are computed again, not an error */
	/* This run is a task, takes its share, and joins only as the last; NULL: neither. */
	const struct lens_share *task;
	const atomic_int *stop; /* not 0: end cleanly with LENS_ERR_INTERRUPTED */
	/* Called from any thread, one call at a time, a few times a second at most. */
	void (*progress)(void *ctx, const struct lens_progress *p);
	/* Called once before the first batch (and in a dry run). */
	void (*planned)(void *ctx, const struct lens_plan *p, const struct lens_shards *s,
			const struct lens_memory *m);
	/* What an earlier run left and was found again, removed or computed again. */
	void (*note)(void *ctx, const char *text);
	/* What could make the numbers other ones than the user thinks: always shown. */
	void (*warn)(void *ctx, const char *text);
	void *ctx;
};

/*
 * SHARE_DONE: a task's share is there, and others are still at work. LAST_DONE: so
 * are all others', and this task has joined them to the output.
 */
enum lens_run_outcome {
	LENS_RUN_DONE,
	LENS_RUN_ALREADY_DONE,
	LENS_RUN_SHARE_DONE,
	LENS_RUN_LAST_DONE,
	LENS_RUN_DRY
};

struct lens_run_result {
	enum lens_run_outcome outcome;
	struct lens_dataset_report report; /* bad rows and warnings */
	struct lens_progress progress;
	size_t n_flagged;               /* prompts with logits that are not finite */
	size_t n_overflows;             /* values that became infinite as halves */
	size_t n_shards, n_shards_done; /* of the sweep; that are there at the end */
};

/* Runs an experiment that lens_experiment_check accepts. */
enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err);

/* --- what a run and `h5lens prompt` share ----------------------------------------- */

/* auto, avx2 or avx512 → the level, kernels opened. */
enum lens_status lens_open_cpu(enum lens_cpu_choice choice, enum lens_cpu_level *level,
			       struct lens_error *err);
/* --- reading results back ---------------------------------------------------------- */

/* The table of results that a run ends with. NaN and -1 where there is none. */
struct lens_summary {
	size_t n_prompts, n_answers, n_layers; /* lens layers */
	size_t n_flagged;
	bool has_loss;
	double loss_mean;                                  /* nats, over prompts */
	double logit_diff_mean, logit_diff_positive, top1; /* fractions of prompts */
	double *median_rank;                               /* [n_layers] of the first answer */
	char **layer;                                      /* [n_layers] */
};
enum lens_status lens_summary_read(const char *file, struct lens_summary *s,
				   struct lens_error *err);
void lens_summary_release(struct lens_summary *s);

#endif
