/*
 * pipeline/mean.c: the first pass over the data, for ablate.value: mean. In: the rows of
 * this run's share; out: the means of all rows, the same bits whoever makes them. Each
 * shard's sums (mean_sums.c) are added in the order of the shards: so they are a function
 * of model, data, experiment and cut.
 *
 * With more than one shard, sums and means are files of the sweep (mean_file.c), each
 * committed like a shard. A run whose means cannot be made yet, because other tasks' sums
 * are missing, ends and comes again.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

#define TRIES 20 /* to write mean.h5 while other tasks do */

static const struct lens_study *study_of(const struct lens_mean_job *job)
{
	return &job->parts->whole->study;
}

static size_t longest_of(const struct lens_mean_job *job)
{
	return job->parts->whole->prompts->max_length;
}

/* --- files ----------------------------------------------------------------------------- */

/* The path is the caller's to free. */
static enum lens_status file_of(const struct lens_mean_job *job, size_t shard, char **path,
				struct lens_mean_file *f, struct lens_error *err)
{
	*path = lens_sweep_mean_path(job->sweep, shard);
	*f = (struct lens_mean_file){
		.in = job->in, .cut = &job->parts->cut, .path = *path, .shard = shard
	};
	return *path ? LENS_OK : lens_error_nomem(err, 1, sizeof(*f));
}

static enum lens_status make_sums(const struct lens_mean_job *job, size_t shard,
				  struct lens_error *err)
{
	struct lens_sums sums = { .count = NULL };
	struct lens_mean_file file;
	char *path;
	enum lens_status st = file_of(job, shard, &path, &file, err);

	if (st == LENS_OK)
		st = lens_shard_sums(job, shard, &sums, err);
	if (st == LENS_OK)
		st = lens_sums_write(&file, &sums, err);
	lens_sums_release(&sums);
	lens_free(path);
	return st;
}

/* A share's sums, each of which may be there already. */
static enum lens_status make_share(const struct lens_mean_job *job, struct lens_error *err)
{
	size_t i;
	bool there;

	for (i = 0; i < job->parts->cut.n; i++) {
		if (!lens_sweep_is_mine(job->sweep, i))
			continue;
		LENS_TRY(lens_mean_go_on(job, err));
		LENS_TRY(lens_sweep_find_mean(job->sweep, i, &there, err));
		if (!there)
			LENS_TRY(make_sums(job, i, err));
	}
	return LENS_OK;
}

/* Other tasks' sums are waited for by coming again. */
static enum lens_status all_there(const struct lens_mean_job *job, struct lens_error *err)
{
	size_t i, missing = 0, n = job->parts->cut.n;

	for (i = 0; i < n; i++) {
		char *path = lens_sweep_mean_path(job->sweep, i);

		missing += !path || !lens_file_exists(path);
		lens_free(path);
	}
	if (!missing)
		return LENS_OK;
	return lens_error_set(
		err, LENS_ERR_UNFINISHED,
		"ablate.value: mean takes the sums of all %zu shards, and those of "
		"%zu, which other tasks make, are missing; this task's are there: "
		"the same command goes on later",
		n, missing);
}

/* --- the means ------------------------------------------------------------------------- */

/* Another shard's, which may be another task's. */
static enum lens_status add_sums(const struct lens_mean_job *job, size_t shard,
				 struct lens_sums *total, struct lens_error *err)
{
	size_t longest = lens_parts_longest(job->parts, shard);
	struct lens_sums sums = { .count = NULL };
	struct lens_mean_file file;
	bool there = true;
	char *path;
	enum lens_status st = file_of(job, shard, &path, &file, err);

	if (st == LENS_OK && !lens_sweep_is_mine(job->sweep, shard))
		st = lens_sweep_find_mean(job->sweep, shard, &there, err);
	if (st == LENS_OK && !there)
		st = all_there(job, err);
	if (st == LENS_OK)
		st = lens_sums_init(&sums, study_of(job), longest, err);
	if (st == LENS_OK)
		st = lens_sums_read(path, &job->in->model->config, &sums, err);
	if (st == LENS_OK)
		lens_sums_add(total, &sums);
	lens_sums_release(&sums);
	lens_free(path);
	return st;
}

/*
 * Several tasks may have come to this point: one of them writes the file, and all have
 * the same means. Two that keep each other out try again.
 */
static enum lens_status keep_mean(const struct lens_mean_job *job,
				  const struct lens_sums *total, const struct lens_mean *m,
				  struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_mean_file file;
	int tries;
	char *path;
	enum lens_status st = file_of(job, LENS_ALL_SHARDS, &path, &file, &why);

	for (tries = 0; st == LENS_OK && !lens_file_exists(path); tries++) {
		st = lens_mean_write(&file, total, m, &why);
		if (st == LENS_ERR_BUSY && tries < TRIES) {
			lens_sweep_nap();
			why = (struct lens_error)LENS_ERROR_INIT;
			st = LENS_OK;
		}
	}
	lens_free(path);
	return st == LENS_OK || st == LENS_ERR_BUSY ? LENS_OK : lens_error_pass(err, &why);
}

static enum lens_status finish(const struct lens_sums *total, struct lens_mean *m,
			       struct lens_error *err)
{
	lens_mean_take(m, total);
	return lens_mean_digest(m, err);
}

static enum lens_status join(const struct lens_mean_job *job, struct lens_sums *total,
			     struct lens_mean *m, struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_sums_init(total, study_of(job), longest_of(job), err));
	for (i = 0; i < job->parts->cut.n; i++) {
		LENS_TRY(lens_mean_go_on(job, err));
		LENS_TRY(add_sums(job, i, total, err));
	}
	LENS_TRY(finish(total, m, err));
	return keep_mean(job, total, m, err);
}

static enum lens_status make_all(const struct lens_mean_job *job, struct lens_mean *m,
				 struct lens_error *err)
{
	struct lens_sums total = { .count = NULL };
	enum lens_status st;

	if (job->parts->cut.n == 1) {
		st = lens_shard_sums(job, 0, &total, err);
		if (st == LENS_OK)
			st = finish(&total, m, err);
	} else {
		st = make_share(job, err);
		if (st == LENS_OK)
			st = all_there(job, err);
		if (st == LENS_OK)
			st = join(job, &total, m, err);
	}
	lens_sums_release(&total);
	return st;
}

/* What an earlier run, or another task, made of all sums. */
static enum lens_status find_mean(const struct lens_mean_job *job, struct lens_mean *m,
				  bool *there, struct lens_error *err)
{
	struct lens_mean_file file;
	char *path;
	enum lens_status st;

	*there = false;
	if (job->parts->cut.n == 1)
		return LENS_OK;
	st = file_of(job, LENS_ALL_SHARDS, &path, &file, err);
	if (st == LENS_OK)
		st = lens_sweep_find_mean(job->sweep, LENS_ALL_SHARDS, there, err);
	if (st == LENS_OK && *there)
		st = lens_mean_read(path, &job->in->model->config, m, err);
	lens_free(path);
	return st;
}

enum lens_status lens_mean_make(const struct lens_mean_job *job, struct lens_mean *out,
				struct lens_error *err)
{
	bool there;

	LENS_TRY(lens_mean_init(out, study_of(job), longest_of(job), err));
	LENS_TRY(find_mean(job, out, &there, err));
	if (there)
		return LENS_OK;
	if (job->note)
		job->note(job->ctx, "ablate.value: mean: a first pass over the data");
	return make_all(job, out, err);
}
