/*
 * pipeline.h: one experiment from its inputs to its file.
 */
#ifndef H5LENS_PIPELINE_H
#define H5LENS_PIPELINE_H

#include <stdatomic.h>

#include "h5lens/analysis.h"
#include "h5lens/capture.h"
#include "h5lens/dataset.h"
#include "h5lens/experiment.h"
#include "h5lens/store.h"

/* --- the plan ------------------------------------------------------------------ */

#define LENS_PATH 128

/* One dataset of the file, with where its data come from. */
struct lens_planned {
	struct lens_dataset_spec spec; /* spec.path is path */
	char path[LENS_PATH];
	enum { LENS_FROM_HOOK, LENS_FROM_TABLE } from;
	size_t source;       /* index into capture.spec, or of the table */
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
	const struct lens_prompts *prompts;
	const struct lens_experiment *experiment;
	size_t batch_rows, n_batches;
	size_t max_packed;          /* rows of activations in the largest batch */
	struct lens_hook_set hooks; /* what the forward pass shows */
	struct lens_capture_plan capture;
	struct lens_analysis_options analysis;
	bool analysis_runs; /* any table at all */
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

/* Memory, in bytes: what one worker needs, and the pool's one buffer. */
struct lens_memory {
	size_t model, per_worker, buffer, shared;
	size_t workers, inner_threads, buffers; /* what fits */
	size_t total;
};
/*
 * How many workers and buffers fit in limit bytes (0: three quarters of what is
 * free). Too little for one worker is LENS_ERR_NOMEM with the numbers.
 */
enum lens_status lens_plan_memory(const struct lens_plan *p, size_t threads, size_t limit,
				  struct lens_memory *out, struct lens_error *err);

/* --- a run ---------------------------------------------------------------------- */

struct lens_progress {
	size_t rows_done, rows_total;
	uint64_t tokens_done, bytes_written;
	double seconds;
};

struct lens_run_options {
	bool dry_run, overwrite;
	const atomic_int *stop; /* not 0: end cleanly with LENS_ERR_INTERRUPTED */
	/* Called from any thread, one call at a time, a few times a second at most. */
	void (*progress)(void *ctx, const struct lens_progress *p);
	/* Called once before the first batch (and in a dry run). */
	void (*planned)(void *ctx, const struct lens_plan *p, const struct lens_memory *m);
	void *ctx;
};

enum lens_run_outcome { LENS_RUN_DONE, LENS_RUN_ALREADY_DONE, LENS_RUN_DRY };

struct lens_run_result {
	enum lens_run_outcome outcome;
	struct lens_dataset_report report; /* bad rows and warnings */
	struct lens_progress progress;
	size_t n_flagged;   /* prompts with logits that are not finite */
	size_t n_overflows; /* values that became infinite as halves */
};

/* Runs an experiment that lens_experiment_check accepts. */
enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err);

/* --- what a run and `h5lens prompt` share ----------------------------------------- */

/* auto, avx2 or avx512 → the level, kernels opened. */
enum lens_status lens_open_cpu(enum lens_cpu_choice choice, enum lens_cpu_level *level,
			       struct lens_error *err);
/* --threads, then SLURM_CPUS_PER_TASK, then the affinity mask. */
size_t lens_thread_count(size_t asked);

/* --- reading results back ---------------------------------------------------------- */

/* The table of results that a run ends with. NaN and -1 where there is none. */
struct lens_summary {
	size_t n_prompts, n_answers, n_layers; /* lens layers */
	size_t n_flagged;
	double logit_diff_mean, logit_diff_positive, top1; /* fractions of prompts */
	double *median_rank;                               /* [n_layers] of the first answer */
	char **layer;                                      /* [n_layers] */
};
enum lens_status lens_summary_read(const char *file, struct lens_summary *s,
				   struct lens_error *err);
void lens_summary_release(struct lens_summary *s);

#endif
