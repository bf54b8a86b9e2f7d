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
	/* What may make the numbers differ from what the user expects: always shown. */
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

/* Of the shards that a run made, each from its plan to its commit. */
struct lens_run_times {
	struct lens_times workers; /* all of them; waiting for buffers and for the file */
	struct lens_times writer;  /* the one thread that calls the store */
};

struct lens_run_result {
	enum lens_run_outcome outcome;
	struct lens_dataset_report report; /* bad rows and warnings */
	struct lens_progress progress;
	size_t n_flagged;         /* prompts with logits that are not finite */
	size_t n_overflows;       /* values that became infinite as halves */
	double largest_deviation; /* of logit_attrs, in this run's shards */
	struct lens_run_times times;
	size_t n_shards, n_shards_done; /* of the sweep; that are there at the end */
};

/* Runs an experiment that lens_experiment_check accepts. */
enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err);

/* --- what a run and `h5lens prompt` share ----------------------------------------- */

/* auto, avx2 or avx512 → the level, kernels opened. */
enum lens_status lens_open_cpu(enum lens_cpu_choice choice, enum lens_cpu_level *level,
			       struct lens_error *err);

/* --- a model's weights as TransformerLens has them ---------------------------------- */

/* One of TransformerLens's parameters: its name, its shape, and where we have it. */
#define LENS_WEIGHT_RANK 3
struct lens_weight {
	char name[64]; /* "blocks.0.attn.W_Q" */
	int rank;
	enum lens_axis axis[LENS_WEIGHT_RANK];
	size_t extent[LENS_WEIGHT_RANK];
	/* Element [i, j, k] is data[i stride[0] + j stride[1] + k stride[2]]. */
	const float *data; /* NULL: of no model that is loaded */
	size_t stride[LENS_WEIGHT_RANK];
};
typedef enum lens_status (*lens_weight_fn)(void *ctx, const struct lens_weight *w,
					   struct lens_error *err);
/*
 * Calls fn for every parameter that a model of this config has after this processing,
 * in named_parameters' order: embedding, blocks, unembedding. m: where its data are;
 * NULL: names and shapes alone.
 */
enum lens_status lens_weights_each(const struct lens_config *c, const struct lens_processing *p,
				   const struct lens_model *m, lens_weight_fn fn, void *ctx,
				   struct lens_error *err);

struct lens_weights_options {
	bool overwrite;         /* replaces a file of weights */
	const atomic_int *stop; /* or NULL; not 0: LENS_ERR_INTERRUPTED, and no file */
	/* What may make the numbers differ from what the user expects; or NULL. */
	void (*warn)(void *ctx, const char *text);
	void *ctx;
};
struct lens_weights_result {
	size_t n;       /* parameters */
	uint64_t bytes; /* of their values */
};
/*
 * Writes the experiment's model, processed as it says, to its output: /weights/<name>.
 * Nothing else of the experiment counts.
 */
enum lens_status lens_weights_write(const struct lens_experiment *e,
				    const struct lens_weights_options *opt,
				    struct lens_weights_result *result, struct lens_error *err);
/* Is the file one of weights? A damaged one is not. */
enum lens_status lens_weights_is_file(const char *path, bool *is, struct lens_error *err);
/* How the experiment wants its model to be loaded. */
struct lens_model_options lens_model_options_of(const struct lens_experiment *e);

/* --- reading results back ---------------------------------------------------------- */

/* The table of results that a run ends with. NaN and -1 where there is none. */
struct lens_summary {
	size_t n_prompts, n_answers, n_layers; /* lens layers */
	size_t n_flagged;
	bool any_tokens; /* answers are of any number of tokens, differences of log P */
	bool has_loss;
	double loss_mean; /* nats, over prompts */
	/* Fractions of prompts. top1: every token of the first answer has rank 0 */
	double logit_diff_mean, logit_diff_positive, top1;
	double *median_rank; /* [n_layers] of the first answer */
	char **layer;        /* [n_layers] */
};
enum lens_status lens_summary_read(const char *file, struct lens_summary *s,
				   struct lens_error *err);
void lens_summary_release(struct lens_summary *s);

#endif
