/*
 * pipeline.h: one experiment from its inputs to its file.
 */
#ifndef H5LENS_PIPELINE_H
#define H5LENS_PIPELINE_H

#include <stdatomic.h>

#include "h5lens/dataset.h"
#include "h5lens/experiment.h"
#include "h5lens/plan.h"
#include "h5lens/store.h"
#include "h5lens/sweep.h"

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
	void (*planned)(void *ctx, const struct lens_plan_summary *s);
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
