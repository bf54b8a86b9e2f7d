/* pipeline_private.h: what the files of pipeline/ share. */
#ifndef PIPELINE_PRIVATE_H
#define PIPELINE_PRIVATE_H

#include <stdio.h>
#include <stdlib.h>

#include "h5lens/pipeline.h"

/* Raised when any bit of a result changes on that CPU level. */
#define LENS_NUMERICS(level) ((level) == LENS_LEVEL_AVX2 ? 2 : 1)
#ifndef LENS_BUILD
#define LENS_BUILD "gcc " __VERSION__
#endif

/* --- stopped.c -------------------------------------------------------------------- */

/* How far a run came. */
struct lens_stopped {
	const struct lens_cut *cut; /* of no shards: it is not made yet */
	const struct lens_prompts *prompts;
	const struct lens_progress *progress;
	size_t n_kept, n_committed; /* shards that are there; that this run made */
};
/*
 * A stop is no failure: to the error of a run that was stopped, or whose disk is
 * full, adds what is kept. If its first shard was not finished, also how long one
 * takes, and what to set. No other error is changed.
 */
void lens_tell_stopped(const struct lens_stopped *s, struct lens_error *err);

/* --- vector.c: steer.vector --------------------------------------------------------- */

struct lens_vector {
	float *v; /* as wide as its hook point; NULL: none is asked for */
	uint8_t sha256[LENS_SHA256_BYTES];
};
/* width: how many numbers it must have. The caller frees out->v, even after an error. */
enum lens_status lens_vector_open(const char *where, size_t width, struct lens_vector *out,
				  struct lens_error *err);
/* The file, which the caller frees, and the data set in it, or NULL. */
enum lens_status lens_vector_file(const char *where, char **file, const char **path,
				  struct lens_error *err);

/* --- layout.c: the file before its data ------------------------------------------ */

struct lens_inputs {
	const struct lens_experiment *experiment;
	const struct lens_dataset_options *data;
	const struct lens_prompts *prompts;
	const struct lens_model *model;
	const struct lens_tokenizer *tokenizer;
	const struct lens_vector *vector;
	enum lens_cpu_level level;
	size_t n_skipped;     /* bad rows left out */
	const char *identity; /* lens_identity, or lens_sweep_identity for it */
};
/* --- inputs.c: what owns them ----------------------------------------------------- */

struct lens_opened {
	struct lens_inputs in;              /* shows the rest; valid once all is open */
	struct lens_dataset_report *report; /* the caller's */
	struct lens_dataset_options data;
	struct lens_tokenizer *tokenizer;
	struct lens_prompts *prompts;
	struct lens_model *model;
	struct lens_vector vector;
	struct lens_available memory; /* that may be taken, the model's included */
	char *identity;
};
/*
 * Opens and checks everything the experiment names, with warnings through opt; close
 * it in either case. report is set before.
 */
enum lens_status lens_inputs_open(struct lens_opened *o, const struct lens_experiment *e,
				  const struct lens_run_options *opt, struct lens_error *err);
void lens_inputs_close(struct lens_opened *o);

/* Dimensions, datasets and links; store_id is [n_datasets]. */
enum lens_status lens_layout_create(struct lens_store *s, const struct lens_plan *p,
				    int *store_id, struct lens_error *err);
/* Attributes of any file: of the program that wrote it, and of a model, read from path. */
enum lens_status lens_layout_program(struct lens_store *s, enum lens_cpu_level level,
				     struct lens_error *err);
enum lens_status lens_layout_model(struct lens_store *s, const struct lens_model *m,
				   const char *path, struct lens_error *err);
/* All of a run's file. */
enum lens_status lens_layout_attributes(struct lens_store *s, const struct lens_inputs *in,
					struct lens_error *err);
/* /prompts, whole. */
enum lens_status lens_layout_prompts(struct lens_store *s, const struct lens_plan *p,
				     const struct lens_inputs *in, struct lens_error *err);

/* --- estimate.c ------------------------------------------------------------------- */

/* Runs some prompts, for about a second, and nothing of them is kept. task may be NULL. */
enum lens_status lens_estimate_make(const struct lens_parts *parts,
				    const struct lens_share *task, struct lens_estimate *out,
				    struct lens_error *err);

/* --- machine.c ---------------------------------------------------------------------- */

/* Under `ulimit -v` OpenBLAS would ask for its buffers for ever. */
enum lens_status lens_check_address_space(size_t threads, struct lens_error *err);

/* --- identity.c --------------------------------------------------------------------- */

/* What makes two runs the same: JSON with sorted keys. lens_free it. */
enum lens_status lens_identity(const struct lens_inputs *in, char **out,
			       struct lens_error *err);

/* --- writer.c: the one thread that calls the store ------------------------------------ */

struct lens_writer;
enum lens_status lens_writer_create(struct lens_store *s, const struct lens_plan *p,
				    const int *store_id, const struct lens_memory *m,
				    struct lens_writer **out, struct lens_error *err);
struct lens_sink lens_writer_sink(struct lens_writer *w);
/* Makes acquire fail, so that workers end. */
void lens_writer_stop(struct lens_writer *w);
/* Waits for everything that was submitted; the writer's own error, if it had one. */
enum lens_status lens_writer_finish(struct lens_writer *w, struct lens_error *err);
uint64_t lens_writer_bytes(struct lens_writer *w);
/* After finish: the writer's own, and moves what workers waited for from computing. */
void lens_writer_add_times(const struct lens_writer *w, struct lens_run_times *t);
void lens_writer_destroy(struct lens_writer *w);

struct lens_relay; /* relay.c */
struct lens_compute_job;

/* --- schedule.c: which batch is next --------------------------------------------------- */

struct lens_schedule;
/* Hands out batches 0 … n − 1 in order, none more than window past an unfinished one. */
enum lens_status lens_schedule_create(size_t n, size_t window, struct lens_schedule **out,
				      struct lens_error *err);
/* False when there is none left, or after a stop. May wait. */
bool lens_schedule_next(struct lens_schedule *s, size_t *batch);
/* Are there any that have not been handed out? */
bool lens_schedule_left(struct lens_schedule *s);
void lens_schedule_done(struct lens_schedule *s, size_t batch);
void lens_schedule_stop(struct lens_schedule *s);
void lens_schedule_destroy(struct lens_schedule *s);

/* --- worker.c ------------------------------------------------------------------------- */

/* To the user, always shown; opt->warn may be NULL. */
void lens_run_warn(const struct lens_run_options *opt, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* A run as its workers see it: whether to stop, and where to tell how far they are. */
struct lens_watch {
	const atomic_int *stop; /* or NULL */
	double started;         /* lens_now() when the run began */
	struct lens_progress *progress;
	void (*tell)(void *ctx, const struct lens_progress *p);
	void *ctx;
};

/* What is counted of a shard beside its data. */
struct lens_counts {
	size_t n_flagged; /* prompts with logits that are not finite */
	/* Values that became infinite as halves. */
	size_t *overflows; /* [capture.n_specs] */
	size_t table_overflows[LENS_TABLE_COUNT];
	double deviations[LENS_TABLE_COUNT]; /* of tables that check themselves */
	struct lens_run_times times;
};

struct lens_work {
	const struct lens_plan *plan;
	const struct lens_order *order;
	const struct lens_mean *mean; /* NULL: none is wanted */
	const float *vector;          /* likewise */
	const struct lens_memory *memory;
	struct lens_writer *writer;
	struct lens_schedule *schedule;
	const struct lens_watch *watch;
	struct lens_counts *counts;
	struct lens_relay *relay;             /* or NULL: a shard alone */
	const struct lens_compute_job *shard; /* which one it is there */
	uint64_t bytes_told;                  /* written, and counted in the progress */
};
/* Packs the prompt of a row. */
void lens_pack_row(struct lens_batch *b, const struct lens_prompts *p, size_t row);
/* Runs every batch on memory->workers threads. */
enum lens_status lens_work_run(struct lens_work *w, struct lens_error *err);

/* --- mean_file.c: the first pass's files -------------------------------------------------- */

/* Sums of a shard, or of LENS_ALL_SHARDS with the means that are made of them. */
struct lens_mean_file {
	const struct lens_inputs *in;
	const struct lens_cut *cut;
	const char *path;
	size_t shard;
};
enum lens_status lens_sums_write(const struct lens_mean_file *f, const struct lens_sums *s,
				 struct lens_error *err);
enum lens_status lens_sums_read(const char *path, const struct lens_config *c,
				struct lens_sums *s, struct lens_error *err);
enum lens_status lens_mean_write(const struct lens_mean_file *f, const struct lens_sums *s,
				 const struct lens_mean *m, struct lens_error *err);
enum lens_status lens_mean_read(const char *path, const struct lens_config *c,
				struct lens_mean *m, struct lens_error *err);

/* --- mean.c: the first pass over the data ----------------------------------------- */

struct lens_mean_job {
	const struct lens_inputs *in;
	const struct lens_parts *parts;
	const struct lens_sweep *sweep;
	const atomic_int *stop; /* or NULL */
	/* What it is about to do; or NULL. */
	void (*note)(void *ctx, const char *text);
	void *ctx;
};
/*
 * The means that ablate.value: mean asks for, found or made. LENS_ERR_UNFINISHED: the
 * sums of other tasks' shards are missing. Release them even after an error.
 */
enum lens_status lens_mean_make(const struct lens_mean_job *job, struct lens_mean *out,
				struct lens_error *err);

/* --- mean_sums.c ------------------------------------------------------------------ */

/* A shard's sums, the caller's to release, even after an error. */
enum lens_status lens_shard_sums(const struct lens_mean_job *job, size_t shard,
				 struct lens_sums *sums, struct lens_error *err);
/* LENS_ERR_INTERRUPTED if it is to stop. */
enum lens_status lens_mean_go_on(const struct lens_mean_job *job, struct lens_error *err);

/* --- shard.c: one shard, from its rows to its file ---------------------------------------- */

/* Some rows of the sweep, and the file that they become. */
struct lens_compute_job {
	const struct lens_inputs *in; /* of the whole sweep */
	const struct lens_watch *watch;
	const char *path;
	const struct lens_parts *parts;
	size_t shard;                 /* which of them */
	const struct lens_mean *mean; /* NULL: none is wanted */
	struct lens_relay *relay;
};
/* Computes and commits it, and adds to the result what was counted. */
enum lens_status lens_shard_run(const struct lens_compute_job *job,
				struct lens_run_result *result, struct lens_error *err);

/* --- relay.c: one shard after the other --------------------------------------------------- */

struct lens_relay_job {
	size_t n;      /* shards */
	size_t places; /* workers at a time */
	bool overlap;  /* a shard may begin while the workers of another end */
	bool (*is_missing)(void *ctx, size_t shard);
	/* Computes a shard; two calls at a time. */
	void (*compute)(void *ctx, struct lens_relay *r, size_t shard, struct lens_error *err);
	void *ctx;
};
enum lens_status lens_relay_run(const struct lens_relay_job *job, struct lens_error *err);
/* A worker waits for a place. False: its shard has no batches left meanwhile. */
bool lens_relay_take(struct lens_relay *r, struct lens_schedule *s);
void lens_relay_give(struct lens_relay *r);
/* All batches of that shard are handed out. */
void lens_relay_dry(struct lens_relay *r, const struct lens_compute_job *shard);
/* Has another shard failed? */
bool lens_relay_failed(struct lens_relay *r);

#endif
