/*
 * sweep.h: an output and its shards, which lie in out.shards beside out.h5 until
 * they are joined and after it: what of them is there, who is at work on them, and
 * what is made of all of them. Nothing here knows how a shard is computed.
 */
#ifndef H5LENS_SWEEP_H
#define H5LENS_SWEEP_H

#include <stdatomic.h>

#include "h5lens/core.h"

/* --- an output's name --------------------------------------------------------------- */

/*
 * The file that path stands for (links are followed; the caller frees *out, also
 * after an error). A folder, a special file, a folder that cannot be written
 * in, and under overwrite anything but HDF5, are errors.
 */
enum lens_status lens_output_resolve(const char *path, bool overwrite, char **out,
				     struct lens_error *err);
/* The same for a folder that is written as a whole; what is in an old one is not looked at. */
enum lens_status lens_output_resolve_folder(const char *path, char **out,
					    struct lens_error *err);
/* Is there room for so many bytes more? */
enum lens_status lens_output_check_disk(const char *path, uint64_t needed,
					struct lens_error *err);

/* --- shares and progress ----------------------------------------------------------- */

/* Shards whose index is task modulo n_tasks; 0 of 1 is all of them. */
struct lens_share {
	size_t task, n_tasks;
};
static inline bool lens_share_has(const struct lens_share *s, size_t shard)
{
	return shard % s->n_tasks == s->task;
}
static inline bool lens_share_is_all(const struct lens_share *s)
{
	return s->n_tasks == 1;
}

struct lens_progress {
	size_t rows_done, rows_total;        /* of this run's share */
	size_t rows_kept;                    /* of rows_done: from an earlier run */
	size_t shard, n_shards;              /* the one being written, of how many */
	uint64_t tokens_done, bytes_written; /* by this run */
	double seconds;
};
/* Prompts a second, of this run. */
static inline double lens_progress_rate(const struct lens_progress *p)
{
	return p->seconds > 0 ? (double)(p->rows_done - p->rows_kept) / p->seconds : 0;
}

/* --- a sweep that a run makes or goes on with ---------------------------------------- */

struct lens_sweep_options {
	bool overwrite; /* what is there is removed first */
	bool repair;    /* what is damaged is made again, not an error */
	/* This run is a task, takes its share, and joins only as the last; NULL: neither. */
	const struct lens_share *task;
	const atomic_int *stop; /* or NULL; not 0: LENS_ERR_INTERRUPTED */
	/* What an earlier run left and was found again or removed; or NULL. */
	void (*note)(void *ctx, const char *text);
	void *ctx;
};

/* What is left to do, and in the end what was done. */
enum lens_sweep_state {
	LENS_SWEEP_OPEN,       /* shards may be missing, and they are not joined */
	LENS_SWEEP_FINISHED,   /* the output is there */
	LENS_SWEEP_SHARE_DONE, /* a task's share is; others are at work on the rest */
	LENS_SWEEP_LAST_DONE   /* so are all others', and this task has joined them */
};

struct lens_sweep;

/* May output be written at all? Asked before anything is read; nothing is touched. */
enum lens_status lens_sweep_create(const char *output, const struct lens_sweep_options *opt,
				   struct lens_sweep **out, struct lens_error *err);
/*
 * What lies under the output's name, for a run of this identity: OPEN or FINISHED.
 * Anything that is not this experiment's, or damaged, is an error that says what to
 * do. Nothing is taken or changed (but beside a finished output, the files of dead
 * runs go), so this is all that a dry run asks.
 */
enum lens_status lens_sweep_look(struct lens_sweep *s, const char *identity,
				 enum lens_sweep_state *state, struct lens_error *err);
/*
 * After the look: the identity as the shards are to say it, in the words of the
 * version of h5lens that began this sweep. The sweep's own.
 */
const char *lens_sweep_identity(const struct lens_sweep *s);
/*
 * Takes this run's share of n shards, first[i] to first[i + 1] − 1, for itself,
 * clears away what earlier runs left half done, and verifies what they finished:
 * progress gets its rows. OPEN; FINISHED: under repair, nothing is damaged;
 * SHARE_DONE: nothing is left but what another task is doing. Another run on the
 * same share is LENS_ERR_BUSY.
 */
enum lens_status lens_sweep_open(struct lens_sweep *s, size_t n, const size_t *first,
				 struct lens_progress *progress, enum lens_sweep_state *state,
				 struct lens_error *err);
/* Is there room for so many bytes more? */
enum lens_status lens_sweep_check_disk(const struct lens_sweep *s, uint64_t bytes,
				       struct lens_error *err);

/* Is it in this run's share? */
bool lens_sweep_is_mine(const struct lens_sweep *s, size_t shard);
/* Is the shard this run's to compute? */
bool lens_sweep_is_missing(const struct lens_sweep *s, size_t shard);
/* The file that it is to become; the caller frees. NULL: memory is out. */
char *lens_sweep_shard_path(const struct lens_sweep *s, size_t shard);
/* Its file is there. */
void lens_sweep_mark_done(struct lens_sweep *s, size_t shard);
/* What `status` shows of this run from now on. */
void lens_sweep_update(struct lens_sweep *s, const struct lens_progress *p);
/* Shards of this run's share that are done; and of the whole sweep, by their names. */
size_t lens_sweep_count_done(const struct lens_sweep *s);
size_t lens_sweep_count_kept(const struct lens_sweep *s);

/*
 * The files of a first pass over the data, for `ablate.value: mean`: each shard's sums,
 * which tasks share as they share the shards, and under LENS_ALL_SHARDS what is made of
 * all of them. A sweep of one shard has none. The sums go when the shards are joined.
 */
#define LENS_ALL_SHARDS SIZE_MAX
/* "out.shards/mean-00003.h5", "out.shards/mean.h5"; lens_free it. NULL: memory is out. */
char *lens_sweep_mean_path(const struct lens_sweep *s, size_t shard);
/* The attribute of / by which it is known. */
#define LENS_FIRST_PASS "first_pass"
const char *lens_first_pass_name(size_t shard);
/*
 * Is it there, of this sweep, with every digest right? One that is damaged is an error
 * that says what to do, or under repair removed if it is this run's to make.
 */
enum lens_status lens_sweep_find_mean(const struct lens_sweep *s, size_t shard, bool *there,
				      struct lens_error *err);
/* A moment, in each process another one: two that keep each other out meet only once. */
void lens_sweep_nap(void);

/*
 * No shard is missing: they are joined, with n_processes that verify; by a task only
 * if it is the last. FINISHED, or of a task SHARE_DONE or LAST_DONE.
 */
enum lens_status lens_sweep_finish(struct lens_sweep *s, size_t n_processes,
				   enum lens_sweep_state *state, struct lens_error *err);
/* Gives its place up. What was begun and is worth nothing goes. */
void lens_sweep_close(struct lens_sweep *s);

/* --- a sweep looked at from outside -------------------------------------------------- */

/* A run at work, or the file of one that died. */
struct lens_running {
	char host[128];
	long pid;
	struct lens_share share;
	struct lens_progress progress;
	bool alive;
};
typedef void (*lens_running_fn)(void *ctx, const struct lens_running *r);

/* A shard's file, by its name. */
enum lens_file_state { LENS_FILE_MISSING, LENS_FILE_WRITING, LENS_FILE_DONE };

struct lens_sweep_status {
	size_t n_shards, n_done, n_rows, rows_done;
	uint64_t bytes;       /* of what is done */
	bool finished;        /* the output itself is there */
	bool damaged;         /* something is there that cannot be read */
	unsigned char *state; /* [n_shards] of enum lens_file_state */
};
/*
 * What there is of an output: its shards by their names (not their content),
 * and, through fn, the runs at work. Nothing is locked; no shard is opened.
 * Nothing at all is an error. A sweep of one shard has n_rows 0.
 */
enum lens_status lens_sweep_status_read(const char *output, struct lens_sweep_status *s,
					lens_running_fn fn, void *ctx, struct lens_error *err);
void lens_sweep_status_release(struct lens_sweep_status *s);

struct lens_merge_options {
	size_t threads;         /* processes that verify; 0: lens_thread_count(0) */
	const atomic_int *stop; /* or NULL */
	/* Bytes of the shards, verified and copied; or NULL. */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};
/*
 * Joins the shards that tasks made to the output; LENS_ERR_UNFINISHED while shards
 * are missing. An output that is one file already, or joined, stays as it is. opt
 * may be NULL.
 */
enum lens_status lens_merge(const char *output, const struct lens_merge_options *opt,
			    struct lens_error *err);
/*
 * One self-contained file of an output and its shards. final must not exist,
 * unless overwrite, and cannot be output.
 */
enum lens_status lens_pack(const char *output, const char *final, bool overwrite,
			   const struct lens_merge_options *opt, struct lens_error *err);

#endif
