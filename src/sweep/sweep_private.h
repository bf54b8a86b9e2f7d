/* sweep_private.h: out.shards and who is at work in it; for the files of sweep/. */
#ifndef SWEEP_PRIVATE_H
#define SWEEP_PRIVATE_H

#include <time.h>

#include "h5lens/store.h"
#include "h5lens/sweep.h"

/* --- folder.c -------------------------------------------------------------------- */

struct lens_folder {
	char *output, *path, *plan; /* out.h5, out.shards, out.shards/plan.json */
	char *identity;
	size_t n_shards, *first; /* [n_shards + 1] rows */
	struct lens_share share; /* whose half-done shards are cleaned */
};

/* The paths alone, and all shards. Release it whether or not one of these three succeeds. */
enum lens_status lens_folder_start(struct lens_folder *f, const char *output,
				   struct lens_error *err);
/* What a run is about to do; nothing is touched yet. first: [n_shards + 1]. */
enum lens_status lens_folder_init(struct lens_folder *f, const char *output,
				  const char *identity, size_t n_shards, const size_t *first,
				  struct lens_error *err);
/* What plan.json says. */
enum lens_status lens_folder_load(struct lens_folder *f, const char *output,
				  struct lens_error *err);
void lens_folder_release(struct lens_folder *f);
bool lens_folder_exists(const char *output);

/* Makes the folder, unless it is there. */
enum lens_status lens_folder_make(const struct lens_folder *f, struct lens_error *err);
/* Writes plan.json, or compares: another sweep's is LENS_ERR_MISMATCH, told by its keys. */
enum lens_status lens_folder_keep_plan(const struct lens_folder *f, struct lens_error *err);
/* Is there a plan, and is it of this identity? */
bool lens_folder_is_of(const char *output, const char *identity);
/*
 * Removes the shards and sums that nobody finished and nobody is writing; what is left of
 * the writing of plan, means and output too, unless other tasks may be at it; or all that
 * a sweep makes; or of a joined sweep what it needs no more, the shards' sums. Other files
 * stay. *n counts shards.
 */
enum lens_clean {
	LENS_CLEAN_SHARE,
	LENS_CLEAN_HALF_DONE,
	LENS_CLEAN_EVERYTHING,
	LENS_CLEAN_JOINED
};
enum lens_status lens_folder_clean(const struct lens_folder *f, enum lens_clean how, size_t *n,
				   struct lens_error *err);
/* No shard of any plan is finished there, nor a first pass's file. */
bool lens_folder_is_bare(const struct lens_folder *f);
/* Removes the folder if nothing is left in it. */
void lens_folder_remove(const struct lens_folder *f);

/* "00012.h5", or what it is called until it is finished. */
bool lens_is_shard_name(const char *name, bool *part);
/* "…/mean-00012.h5"; of LENS_ALL_SHARDS "…/mean.h5". */
char *lens_mean_path(const struct lens_folder *f, size_t shard);
/* "out.shards/00003.h5" as the master names it; and its path: a single shard is the output. */
char *lens_shard_name(const struct lens_folder *f, size_t shard);
char *lens_shard_path(const struct lens_folder *f, size_t shard);

/* --- claim.c: one run at a time on one share of the shards --------------------------- */

struct lens_claim;
/*
 * Writes this run's file, <host>-<pid>.run, holds its lock, and keeps it up to
 * date from a thread of its own. Another live run whose share overlaps is
 * LENS_ERR_BUSY, naming its host and pid; files of dead ones are removed.
 */
enum lens_status lens_claim_take(const char *folder, const struct lens_share *share,
				 struct lens_claim **out, struct lens_error *err);
/* What the file says from now on. */
void lens_claim_update(struct lens_claim *c, const struct lens_progress *p);
void lens_claim_release(struct lens_claim *c);
/* 0: it is locked; otherwise the errno that says why there are no locks here. */
int lens_claim_no_lock(const struct lens_claim *c);

/* Removes the files of dead runs. */
void lens_claim_clean(const char *folder);
/* Calls fn for every run's file in the folder. */
enum lens_status lens_claim_list(const char *folder, lens_running_fn fn, void *ctx,
				 struct lens_error *err);

/* --- running.c -------------------------------------------------------------------- */

#define LENS_RUN_BYTES 1024

/* What a run's file calls this host: letters, digits, '.', '-' and '_'. */
void lens_host_name(char *out, size_t size);
/*
 * Each run's file in the folder; one that cannot be read is taken for alive. now:
 * the file system's clock.
 */
typedef void (*lens_each_run_fn)(void *ctx, const char *path, const struct lens_running *r);
enum lens_status lens_each_run(const char *folder, time_t now, lens_each_run_fn fn, void *ctx,
			       struct lens_error *err);

/* --- output.c --------------------------------------------------------------------- */

/* Where the links lead, and no more. */
enum lens_status lens_output_follow(const char *path, char **out, struct lens_error *err);

/* --- identity.c --------------------------------------------------------------------- */

/*
 * Is there a finished output of the same identity? One of another is
 * LENS_ERR_MISMATCH, naming what differs; a file that is not ours, or damaged,
 * LENS_ERR_FORMAT.
 */
enum lens_status lens_identity_check(const char *output, const char *identity, bool *finished,
				     struct lens_error *err);
/*
 * LENS_ERR_MISMATCH, naming what differs between two identities. bos: the attribute
 * of the file that `was` is from, or NULL.
 */
enum lens_status lens_identity_mismatch(const char *output, const char *was, const char *bos,
					const char *is, struct lens_error *err);
/*
 * Are both of one experiment? What an earlier version did not know counts as its
 * default. OLDER: the same results in a file of another schema.
 */
enum lens_identity_match { LENS_IDENTITY_SAME, LENS_IDENTITY_OLDER, LENS_IDENTITY_OTHER };
enum lens_status lens_identity_compare(const char *was, const char *bos, const char *is,
				       enum lens_identity_match *out, struct lens_error *err);
/*
 * An output or a sweep under that name, of the same experiment, keeps its own words
 * for it: *identity (lens_free) becomes them. *older: its schema is another.
 */
enum lens_status lens_identity_adopt(const char *output, char **identity, bool *older,
				     struct lens_error *err);

/* --- joined.c ------------------------------------------------------------------------- */

/*
 * Makes one file of all shards. One that is missing is an error that names it:
 * LENS_ERR_UNFINISHED, unless the output is there, which then has lost it.
 */
enum lens_status lens_join(const struct lens_folder *f, const char *final, enum lens_join how,
			   const struct lens_join_options *opt, struct lens_error *err);
/* Files as the store wants them, with the strings that they are made of. */
struct lens_shard_list {
	struct lens_shard_file *v;
	size_t n;
	char **text; /* [2n] */
};
/* The shards that a joined output names, wherever they are; none for a file of its own. */
enum lens_status lens_joined_shards(const char *output, struct lens_shard_list *out,
				    struct lens_error *err);
void lens_shard_list_release(struct lens_shard_list *l);
/*
 * What is under an output's name. Damaged: nothing can be said of it. Renamed, with
 * its folder: what it shows is not where it says, but in the folder, and joining
 * anew mends it. Data are not looked at.
 */
enum lens_output_kind {
	LENS_OUTPUT_NONE,
	LENS_OUTPUT_WHOLE, /* one file */
	LENS_OUTPUT_JOINED,
	LENS_OUTPUT_RENAMED,
	LENS_OUTPUT_DAMAGED
};
enum lens_status lens_output_look(const char *output, enum lens_output_kind *kind,
				  struct lens_error *err);
/* Are the shards of a finished output there? */
enum lens_status lens_join_check(const char *output, struct lens_error *err);

/* --- status.c ------------------------------------------------------------------------- */

/* LENS_ERR_IO: there is neither an output of that name nor a shard. */
enum lens_status lens_nothing_there(const char *output, struct lens_error *err);

/* --- sweep.c: what a run holds of its sweep ------------------------------------------- */

struct lens_sweep {
	struct lens_sweep_options options;
	struct lens_share share;
	char *output; /* the file itself, where the name was a link */
	/* Once it was looked at: */
	char *identity;
	bool finished;              /* the output is there, of this identity */
	enum lens_output_kind kind; /* of what is under the output's name */
	/* Once it is opened: */
	struct lens_folder folder;
	struct lens_claim *claim;
	bool *done; /* [folder.n_shards], of the share */
};

/* Tells the user, if anybody listens. */
void lens_sweep_note(const struct lens_sweep *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* What to do about another's file or plan in the way: added to that error. */
enum lens_status lens_sweep_in_the_way(const struct lens_sweep *s, enum lens_status st,
				       struct lens_error *err);

/* --- resume.c ------------------------------------------------------------------------- */

struct lens_file_question {
	const char *path, *identity;
	bool may_remake; /* another experiment's counts as damage, else it is an error */
	const atomic_int *stop;
};
/* Is a file of this experiment, and every digest right? If not, damage says what is wrong. */
enum lens_status lens_file_look(const struct lens_file_question *q, char damage[512],
				struct lens_shard_facts *facts, struct lens_error *err);
/* Of a damaged one: an error that says what to do, or it is removed, to be made again. */
enum lens_status lens_file_damaged(const struct lens_sweep *s, const char *path,
				   const char *damage, bool may_remake, struct lens_error *err);

/*
 * Which shards of the share are done: s->done, and their rows. Each is verified; one
 * that is damaged is an error, or under repair removed.
 */
enum lens_status lens_shards_look(struct lens_sweep *s, struct lens_progress *progress,
				  struct lens_error *err);
/*
 * An output that is one file where the folder has shards: packed. *whole: its
 * every digest is right.
 */
enum lens_status lens_packed_look(const struct lens_sweep *s, bool *whole,
				  struct lens_error *err);

/* --- last.c --------------------------------------------------------------------------- */

/* By their names. */
bool lens_all_shards_there(const struct lens_folder *f);
/*
 * Of a task whose share is done: if all others' are too, it joins the shards, or
 * finds that another task does. s->claim is another one afterwards, or NULL.
 */
enum lens_status lens_join_if_last(struct lens_sweep *s, const struct lens_join_options *join,
				   bool *joined, struct lens_error *err);

#endif
