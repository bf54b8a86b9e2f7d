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
	double until;              /* lens_now() when the last shard that is counted ended */
};

/*
 * How long a run would take, from some of its prompts, run on one worker's threads. Neither
 * writing nor hashing is in it, nor other programs, nor how workers slow each other down.
 */
struct lens_estimate {
	double seconds; /* 0: there is none */
	double flop;    /* of the run (of a task: of its share), interventions included */
	double sample_seconds; /* of the prompts that were run … */
	size_t sample_rows;    /* … so many … */
	double sample_flop;
	size_t workers; /* … as if on so many workers at once */
};

struct lens_run_result {
	enum lens_run_outcome outcome;
	struct lens_dataset_report report; /* bad rows and warnings */
	struct lens_progress progress;
	size_t n_flagged;         /* prompts with logits that are not finite */
	size_t n_overflows;       /* values that became infinite as halves */
	double largest_deviation; /* of logit_attrs, in this run's shards */
	struct lens_run_times times;
	struct lens_estimate estimate;  /* of a dry run */
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

enum lens_weights_format {
	LENS_WEIGHTS_HDF5,
	LENS_WEIGHTS_HOOKED_TRANSFORMER /* a folder in TransformerLens's own form */
};
struct lens_weights_options {
	enum lens_weights_format format;
	bool overwrite;         /* replaces a file of weights, or a folder that we wrote */
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
 * Writes the experiment's model, processed as it says, to its output: /weights/<name>, or
 * config.json, model.safetensors and the tokenizer's files.
 * Nothing else of the experiment counts.
 */
enum lens_status lens_weights_write(const struct lens_experiment *e,
				    const struct lens_weights_options *opt,
				    struct lens_weights_result *result, struct lens_error *err);
/* Is the file one of weights? A damaged one is not. */
enum lens_status lens_weights_is_file(const char *path, bool *is, struct lens_error *err);
/* How the experiment wants its model to be loaded. */
/*
 * Fills in what depends on the model: of TransformerLens's own the weights are used as
 * stored. A model that cannot be read is left to whoever opens it.
 */
void lens_experiment_meet_model(struct lens_experiment *e);

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

/* A file's data sets along the prompts, and the axes that have labels. */
struct lens_content_entry {
	char *path;
	int rank;
	size_t extent[LENS_MAX_RANK];
	char *dim[LENS_MAX_RANK]; /* dim[0] is "prompt", below /tokens "token" */
	bool text;                /* strings; else numbers */
};
struct lens_content_axis {
	char *name, **label;
	size_t n;
};
struct lens_content {
	size_t n_prompts;
	struct lens_content_entry *v;
	size_t n, cap;
	struct lens_content_axis *axis;
	size_t n_axes, cap_axes;
};
enum lens_status lens_content_read(const char *file, struct lens_content *c,
				   struct lens_error *err);
void lens_content_release(struct lens_content *c);
/* The data set <group><name>, or NULL; group ends with a slash. */
const struct lens_content_entry *lens_content_find(const struct lens_content *c,
						   const char *group, const char *name);
/*
 * A column of one value a prompt: one of the CSV, an answer's text by the answer's label,
 * or text, id, length, … of /prompts. *cell: which cell of the data set's rows. NULL: none.
 */
const struct lens_content_entry *lens_content_column(const struct lens_content *c,
						     const char *name, size_t *cell);
/* Place i of an axis: its label, or its number, written to text. */
const char *lens_content_label(const struct lens_content *c, const char *axis, size_t i,
			       char text[LENS_LABEL]);
/* Has it one value a prompt, or one an answer? Then it goes into a prompt's row. */
bool lens_content_is_plain(const struct lens_content_entry *e);
/* Errors that say which there are. Never LENS_OK. */
enum lens_status lens_content_no_column(const struct lens_content *c, const char *name,
					struct lens_error *err);
enum lens_status lens_content_no_table(const struct lens_content *c, const char *name,
				       struct lens_error *err);

/*
 * Rows, tables and columns of a file as CSV. Tables of one value a prompt or an answer
 * stand side by side, a row a prompt; of any other only one can be asked for, and is
 * written in a long form, a row a cell: prompt, columns, one column an axis, value.
 */
struct lens_export_options {
	const char *const
		*table; /* names as in /results or /prompts, or paths; NULL: plain ones */
	size_t n_tables;
	const char *const *column; /* of lens_content_column; NULL: all, none in a long form */
	size_t n_columns;
	size_t first, n; /* rows of the file */
	/* Is given the text, in pieces of some 64 KiB. */
	enum lens_status (*write)(void *ctx, const char *text, size_t n,
				  struct lens_error *err);
	void *ctx;
};
enum lens_status lens_export(const char *file, const struct lens_content *c,
			     const struct lens_export_options *opt, struct lens_error *err);
/* The data set of a table's name; NULL: none with a row a prompt. */
const struct lens_content_entry *lens_export_table(const struct lens_content *c,
						   const char *name);
/* Results of the prompts that have one value of a column. NaN: there is none. */
struct lens_group {
	char *value;
	size_t n;
	size_t n_diff, positive;   /* with a logit difference; with one above 0 */
	double diff_mean, diff_sd; /* n − 1 in the divisor */
	double diff_half;          /* mean ± this: 95 %, Student's t; NaN for fewer than two */
	size_t n_rank, top1;       /* with finite logits; whose first answer has rank 0 */
	double median_rank;        /* of the first answer; of several tokens its worst one's */
};
struct lens_groups {
	bool any_tokens; /* differences of log probabilities */
	struct lens_group *v;
	size_t n, cap; /* by value, numbers by their size */
};
#define LENS_MOST_GROUPS 10000
enum lens_status lens_groups_read(const char *file, const struct lens_content *c,
				  const char *column, struct lens_groups *g,
				  struct lens_error *err);
void lens_groups_release(struct lens_groups *g);

/*
 * A number as text that reads back to the same bits, the shortest such, for float32 (single)
 * or float64: "0.1", "3.0", "NaN", "-inf".
 */
#define LENS_NUMBER_TEXT 32
const char *lens_real_text(double v, bool single, char text[LENS_NUMBER_TEXT]);

#endif
