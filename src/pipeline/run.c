/*
 * pipeline/run.c: the page that tells the whole story: an experiment's inputs
 * are opened and checked, the sweep is planned and cut into shards, what an
 * earlier run left is looked at, each missing shard is computed and committed,
 * and the shards are joined to the output.
 */
#include "pipeline/folder.h"

#include <errno.h>
#include <string.h>

/* Everything a run holds; released in one place. */
struct run {
	const struct lens_experiment *experiment;
	const struct lens_run_options *options;
	struct lens_run_result *result;
	struct lens_opened inputs;
	struct lens_plan plan; /* of the whole sweep */
	struct lens_shards shards;
	struct lens_memory memory;
	char *output;               /* the file itself, where the name was a link */
	enum lens_output_kind kind; /* of what is under the output's name */
	struct lens_share share;
	struct lens_folder folder;
	struct lens_claim *claim;
	bool *done;         /* [shards.n] */
	size_t n_committed; /* shards of this run */
};

/* The whole sweep, its shards, and the memory of the hungriest of them. */
static enum lens_status plan(struct run *r, struct lens_error *err)
{
	LENS_TRY(lens_shards_init(&r->shards, &r->plan, err));
	LENS_TRY(lens_shards_count(&r->shards, &r->plan, &r->memory, err));
	r->result->n_shards = r->shards.n;
	r->share = (struct lens_share){ 0, 1 };
	if (r->options->n_tasks)
		r->share = (struct lens_share){ r->options->task, r->options->n_tasks };
	if (r->options->planned)
		r->options->planned(r->options->ctx, &r->plan, &r->shards, &r->memory);
	return LENS_OK;
}

static void note_removed(const struct run *r, const char *kind, size_t n, const char *why)
{
	if (n)
		lens_note(r->options, "%zu %sshard%s of an earlier run %s removed%s", n, kind,
			  n == 1 ? "" : "s", n == 1 ? "was" : "were", why);
}

/*
 * --overwrite of an output that is there, or of another sweep's shards. What the
 * same command began and did not finish is no such thing: it goes on.
 */
static enum lens_status clear(struct run *r, struct lens_error *err)
{
	bool plan = lens_file_exists(r->folder.plan);
	size_t n;

	if (!lens_file_exists(r->output) && lens_folder_is_of(r->output, r->inputs.identity))
		return LENS_OK;
	/* First the file that shows them. One file replaces another at its end. */
	if (lens_file_exists(r->output) && (plan || r->shards.n > 1) &&
	    lens_sys_unlink(r->output))
		return lens_error_sys(err, errno, r->output, "remove");
	LENS_TRY(lens_folder_clean(&r->folder, LENS_CLEAN_EVERYTHING, &n, err));
	note_removed(r, "", n, " (--overwrite)");
	return LENS_OK;
}

/* Another run that ends may remove the folder, empty by then, before we are in it. */
static enum lens_status enter(struct run *r, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = LENS_OK;
	int tries;

	for (tries = 0; tries < 3; tries++) {
		LENS_TRY(lens_folder_make(&r->folder, err));
		why.code = LENS_OK;
		st = lens_claim_take(r->folder.path, &r->share, &r->claim, &why);
		if (st == LENS_OK || lens_folder_exists(r->output))
			break;
	}
	if (st != LENS_OK)
		lens_error_pass(err, &why);
	return st;
}

/* What to do about another's file or plan in the way. */
static enum lens_status in_the_way(const struct run *r, enum lens_status st,
				   struct lens_error *err)
{
	bool hdf5 = !lens_file_exists(r->output) || lens_store_is_hdf5(r->output);

	if (st == LENS_ERR_MISMATCH || st == LENS_ERR_FORMAT)
		lens_error_add(err, "; choose another output%s",
			       r->options->n_tasks > 1 ? ""
			       : hdf5                  ? ", or --overwrite"
						       : "");
	return st;
}

static void count_alive(void *ctx, const struct lens_running *r)
{
	*(size_t *)ctx += r->alive;
}

/* A plan of which nothing was made, and nobody but us is at work on anything. */
static bool is_idle_plan(const struct run *r)
{
	size_t n = 0;

	return lens_folder_is_bare(&r->folder) &&
	       lens_claim_list(r->folder.path, count_alive, &n, NULL) == LENS_OK && n == 1;
}

/* Every shard says itself what it is of: the plan can be written anew. */
static enum lens_status keep_plan(const struct run *r, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = lens_folder_keep_plan(&r->folder, &why);

	if (st == LENS_ERR_MISMATCH && is_idle_plan(r)) {
		lens_sys_unlink(r->folder.plan);
		return lens_folder_keep_plan(&r->folder, err);
	}
	if (st == LENS_ERR_FORMAT && r->options->repair) {
		lens_note(r->options, "the plan is damaged: it is written anew");
		if (lens_sys_unlink(r->folder.plan))
			return lens_error_sys(err, errno, r->folder.plan, "remove");
		return lens_folder_keep_plan(&r->folder, err);
	}
	if (st != LENS_OK)
		lens_error_pass(err, &why);
	return st == LENS_ERR_MISMATCH ? in_the_way(r, st, err) : st;
}

static void note_no_locks(const struct run *r)
{
	int e = lens_claim_no_lock(r->claim);

	if (e)
		lens_note(
			r->options,
			"%s: this file system has no locks (%s): runs are told by their files "
			"there, and one that died on another machine keeps its place for two "
			"minutes",
			r->folder.path, strerror(e));
}

/* A task that starts late, while another joins what all have done, has nothing to do. */
static bool others_finish(const struct run *r)
{
	return r->options->n_tasks > 1 && !r->options->repair && r->shards.n > 1 &&
	       lens_folder_is_of(r->output, r->inputs.identity) &&
	       lens_all_shards_there(&r->folder);
}

/*
 * Takes the output for this run, and clears away what earlier ones left half done.
 * *others: nothing is left to be done but what another run is doing.
 */
static enum lens_status claim(struct run *r, bool *others, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	bool alone = r->share.n_tasks == 1;
	enum lens_status st;
	size_t n;

	*others = false;

	LENS_TRY(lens_folder_init(&r->folder, r->output, r->inputs.identity, &r->shards, err));
	r->folder.share = r->share;
	st = enter(r, &why);
	if (st == LENS_ERR_BUSY && others_finish(r)) {
		*others = true;
		return LENS_OK;
	}
	if (st != LENS_OK)
		return lens_error_pass(err, &why);
	note_no_locks(r);
	if (r->options->overwrite)
		LENS_TRY(clear(r, err));
	LENS_TRY(keep_plan(r, err));
	LENS_TRY(lens_folder_clean(&r->folder, alone ? LENS_CLEAN_HALF_DONE : LENS_CLEAN_SHARE,
				   &n, err));
	note_removed(r, "half-done ", n, "");
	return LENS_OK;
}

static uint64_t missing_bytes(const struct run *r)
{
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < r->shards.n; i++) {
		if (lens_share_has(&r->share, i) && !r->done[i])
			bytes += r->shards.file_bytes[i];
	}
	return bytes;
}

/* Workers report here: to the run's file and to the user. */
static void progress(void *ctx, const struct lens_progress *p)
{
	const struct run *r = ctx;

	lens_claim_update(r->claim, p);
	if (r->options->progress)
		r->options->progress(r->options->ctx, p);
}

static enum lens_status compute(struct run *r, size_t shard, double started,
				struct lens_error *err)
{
	const struct lens_run_options options = { .stop = r->options->stop,
						  .progress = progress,
						  .ctx = r };
	struct lens_shard_job job = {
		.in = &r->inputs.in,
		.options = &options,
		.result = r->result,
		.path = lens_shard_path(&r->folder, shard),
		.index = shard,
		.n_shards = r->shards.n,
		.first_row = r->shards.first[shard],
		.n_rows = r->shards.first[shard + 1] - r->shards.first[shard],
		.started = started,
	};
	enum lens_status st = LENS_OK;

	if (!job.path)
		return lens_error_nomem(err, strlen(r->output), 1);
	r->result->progress.shard = shard;
	st = lens_shard_run(&job, err);
	lens_free((char *)(uintptr_t)job.path);
	r->done[shard] = st == LENS_OK;
	r->n_committed += r->done[shard];
	r->result->n_shards_done += r->done[shard];
	return st;
}

static enum lens_status compute_missing(struct run *r, struct lens_error *err)
{
	double started = lens_now();
	size_t i;

	for (i = 0; i < r->shards.n; i++) {
		if (lens_share_has(&r->share, i) && !r->done[i])
			LENS_TRY(compute(r, i, started, err));
	}
	return LENS_OK;
}

/*
 * What is under the output's name already. A damaged file that shows this
 * sweep's shards is made again under repair.
 */
static enum lens_status look_at_output(struct run *r, bool *finished, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st;

	*finished = false;
	if (r->options->overwrite)
		return LENS_OK;
	st = lens_identity_check(r->output, r->inputs.identity, finished, &why);
	if (st == LENS_OK)
		LENS_TRY(lens_output_look(r->output, &r->kind, err));
	else if (st == LENS_ERR_FORMAT && lens_store_is_hdf5(r->output) &&
		 lens_folder_is_of(r->output, r->inputs.identity))
		r->kind = LENS_OUTPUT_DAMAGED;
	else
		return in_the_way(r, lens_error_pass(err, &why), err);
	if (r->kind == LENS_OUTPUT_DAMAGED && r->options->repair) {
		*finished = false;
		lens_note(r->options, "the output is damaged: it is made again of its shards");
	} else if (st != LENS_OK) {
		lens_error_add(&why, "; `run --repair` makes it again of its shards");
		return lens_error_pass(err, &why);
	} else if (r->kind == LENS_OUTPUT_RENAMED) {
		*finished = false;
		lens_note(r->options, "the output and its shards have another name now: they "
				      "are joined anew");
	}
	return LENS_OK;
}

/* Tasks may begin at any time: one that removes shards removes others' work. */
static enum lens_status check_options(const struct run *r, struct lens_error *err)
{
	if (!r->options->overwrite || r->options->n_tasks < 2)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_INVALID, r->experiment->output, 0, 0,
			     "tasks cannot overwrite: each would remove the others' shards; "
			     "remove the output and its shards first");
}

/* Nothing to do, unless shards that it shows are gone. */
static enum lens_status already_done(struct run *r, struct lens_error *err)
{
	r->result->outcome = LENS_RUN_ALREADY_DONE;
	if (r->kind != LENS_OUTPUT_WHOLE)
		LENS_TRY(lens_join_check(r->output, err));
	/* A run that was killed at its very end left its file. */
	LENS_TRY(lens_folder_start(&r->folder, r->output, err));
	lens_claim_clean(r->folder.path);
	return LENS_OK;
}

/* Shards of two schemas do not go together. */
static enum lens_status of_another_version(const struct run *r, bool finished,
					   struct lens_error *err)
{
	const char *schema = strstr(r->inputs.identity, "\"schema\":");

	return lens_error_at(err, LENS_ERR_MISMATCH, r->output, 0, 0,
			     "was %s by another version of h5lens (its files have schema %d, "
			     "this one's %d): %s with that version, or --overwrite",
			     finished ? "made" : "begun",
			     schema ? atoi(schema + strlen("\"schema\":")) : 0, LENS_SCHEMA,
			     finished ? "repair it" : "finish it");
}

/* What is missing is computed, and all of it joined. */
static enum lens_status complete(struct run *r, struct lens_error *err)
{
	/* Every shard of a task's own share was verified when it was found, or written by it.
	 */
	const struct lens_join_options join = {
		.stop = r->options->stop,
		.identity = r->inputs.identity,
		.quick = r->share.n_tasks == 1,
		.n_processes = lens_thread_count(r->experiment->threads),
	};
	bool last;

	LENS_TRY(lens_shards_look(&r->folder, &r->share, r->options, &r->done, r->result, err));
	lens_claim_update(r->claim, &r->result->progress);
	LENS_TRY(lens_output_check_disk(r->output, missing_bytes(r), err));
	LENS_TRY(compute_missing(r, err));
	if (r->options->n_tasks && (r->shards.n > 1 || !lens_share_has(&r->share, 0))) {
		r->result->outcome = LENS_RUN_SHARE_DONE;
		if (r->shards.n == 1)
			return LENS_OK;
		LENS_TRY(lens_join_if_last(&r->folder, &r->claim, r->options, &join, &last,
					   err));
		r->result->outcome = last ? LENS_RUN_LAST_DONE : LENS_RUN_SHARE_DONE;
		return LENS_OK;
	}
	r->result->outcome = LENS_RUN_DONE;
	return r->shards.n > 1 ? lens_join(&r->folder, r->output, LENS_JOIN_VIRTUAL, &join, err)
			       : LENS_OK;
}

static enum lens_status leave_to_others(struct run *r)
{
	struct lens_progress *p = &r->result->progress;
	size_t i;

	for (i = 0; i < r->shards.n; i++) {
		if (lens_share_has(&r->share, i))
			p->rows_kept += r->shards.first[i + 1] - r->shards.first[i];
	}
	p->rows_total = p->rows_done = p->rows_kept;
	r->result->outcome = LENS_RUN_SHARE_DONE;
	return LENS_OK;
}

static enum lens_status run(struct run *r, struct lens_error *err)
{
	bool finished, others;

	LENS_TRY(check_options(r, err));
	LENS_TRY(lens_output_resolve(r->experiment->output, r->options->overwrite, &r->output,
				     err));
	LENS_TRY(lens_inputs_open(&r->inputs, r->experiment, r->options, r->output, err));
	/* A hook that is none is told as that, not as another experiment. */
	LENS_TRY(lens_plan_init(&r->plan, r->inputs.model, r->inputs.prompts, r->experiment,
				err));
	LENS_TRY(look_at_output(r, &finished, err));
	if (finished && !r->options->repair)
		return already_done(r, err);
	if (r->inputs.older)
		return of_another_version(r, finished, err);
	LENS_TRY(plan(r, err));
	if (r->options->dry_run) {
		r->result->outcome = LENS_RUN_DRY;
		return LENS_OK;
	}
	LENS_TRY(lens_check_address_space(r->memory.workers * r->memory.inner_threads, err));
	LENS_TRY(claim(r, &others, err));
	if (others)
		return leave_to_others(r);
	if (finished && r->kind == LENS_OUTPUT_WHOLE && r->shards.n > 1) {
		LENS_TRY(lens_packed_look(&r->folder, r->options, &finished, err));
		r->result->outcome = LENS_RUN_ALREADY_DONE;
		if (finished)
			return LENS_OK;
	}
	return complete(r, err);
}

/* Of the sweep, not of this run's share: by their names, as they will be found. */
static size_t count_kept(const struct run *r)
{
	size_t i, n = 0;

	for (i = 0; r->folder.path && i < r->shards.n; i++) {
		char *path = lens_shard_path(&r->folder, i);

		n += path && lens_file_exists(path);
		lens_free(path);
	}
	return n;
}

/* A stop is no failure: what is there stays, and the same command goes on. */
static void tell_what_is_kept(const struct run *r, struct lens_error *err)
{
	const struct lens_stopped stopped = { .shards = &r->shards,
					      .prompts = r->inputs.prompts,
					      .progress = &r->result->progress,
					      .n_kept = count_kept(r) };

	if (err->code != LENS_ERR_INTERRUPTED && err->code != LENS_ERR_NOSPACE)
		return;
	if (r->shards.n > 1)
		lens_error_add(err,
			       "; %zu of %zu shards are kept, and the same command goes on",
			       stopped.n_kept, r->shards.n);
	else if (r->shards.n)
		lens_error_add(err, "; nothing is kept, and the same command starts anew");
	else
		lens_error_add(err, "; nothing was changed, and the same command goes on");
	if (err->code == LENS_ERR_INTERRUPTED && !r->n_committed &&
	    stopped.progress->seconds > 0)
		lens_tell_stopped(&stopped, err);
}

/* A plan of which nothing was made would only stand in another's way. */
static void forget_plan(const struct run *r)
{
	if (r->claim && r->share.n_tasks == 1 && !count_kept(r) &&
	    lens_folder_is_of(r->output, r->inputs.identity))
		lens_sys_unlink(r->folder.plan);
}

enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err)
{
	struct run r = { .experiment = e,
			 .options = opt,
			 .result = result,
			 .inputs = { .report = &result->report } };
	enum lens_status st;

	memset(result, 0, sizeof(*result));
	st = run(&r, err);
	if (err)
		tell_what_is_kept(&r, err);
	forget_plan(&r);
	lens_claim_release(r.claim);
	if (r.folder.path)
		lens_folder_remove(&r.folder);
	lens_folder_release(&r.folder);
	lens_shards_release(&r.shards);
	lens_plan_release(&r.plan);
	lens_inputs_close(&r.inputs);
	lens_free(r.output);
	lens_free(r.done);
	return st;
}
