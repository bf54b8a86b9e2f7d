/*
 * sweep/status.c: a sweep seen from outside, by the names of its files: what is done,
 * and who is at work on it. Nothing is locked, and no shard is opened.
 */
#include "sweep/sweep_private.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum lens_status lens_nothing_there(const char *output, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_IO, output, 0, 0,
			     "cannot find it or its shards: nothing was begun under this name, "
			     "or nothing of it was kept");
}

/* Shard i, if it is there. */
static void count_done(struct lens_sweep_status *s, size_t i, const char *path, size_t rows)
{
	struct stat sb;

	if (stat(path, &sb))
		return;
	s->state[i] = LENS_FILE_DONE;
	s->n_done++;
	s->rows_done += rows;
	s->bytes += (uint64_t)sb.st_size;
}

static enum lens_status look_at_shard(struct lens_sweep_status *s, const struct lens_folder *f,
				      size_t i, struct lens_error *err)
{
	char *path = lens_shard_path(f, i);

	if (!path)
		return lens_error_nomem(err, strlen(f->path), 1);
	count_done(s, i, path, f->first[i + 1] - f->first[i]);
	lens_free(path);
	return LENS_OK;
}

/* Shards that are there under a temporary name only. */
static void look_for_parts(struct lens_sweep_status *s, const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		bool part, shard = lens_is_shard_name(e->d_name, &part);
		unsigned long i = strtoul(e->d_name, NULL, 10);

		if (shard && part && i < s->n_shards && s->state[i] == LENS_FILE_MISSING)
			s->state[i] = LENS_FILE_WRITING;
	}
	if (d)
		closedir(d);
}

static enum lens_status look_at_shards(struct lens_sweep_status *s, const char *output,
				       struct lens_error *err)
{
	struct lens_folder f = { .n_shards = 0 };
	enum lens_status st = lens_folder_load(&f, output, err);
	size_t i;

	s->n_shards = f.n_shards;
	s->state = lens_calloc(f.n_shards, sizeof(*s->state));
	if (st == LENS_OK && !s->state)
		st = lens_error_nomem(err, f.n_shards, sizeof(*s->state));
	for (i = 0; st == LENS_OK && i < f.n_shards; i++)
		st = look_at_shard(s, &f, i, err);
	if (st == LENS_OK) {
		look_for_parts(s, f.path);
		s->n_rows = f.first[f.n_shards];
	}
	lens_folder_release(&f);
	return st;
}

static void nobody(void *ctx, const struct lens_running *r)
{
	(void)ctx;
	(void)r;
}

/* A finished output without a plan beside it: one file, or the shards that it names. */
static enum lens_status look_at_joined(struct lens_sweep_status *s, const char *output,
				       struct lens_error *err)
{
	struct lens_shard_record *e;
	enum lens_status st;
	size_t i, n;

	LENS_TRY(lens_store_read_shards(output, &e, &n, err));
	s->n_shards = n ? n : 1;
	s->state = lens_calloc(s->n_shards, sizeof(*s->state));
	st = s->state ? LENS_OK : lens_error_nomem(err, s->n_shards, sizeof(*s->state));
	for (i = 0; st == LENS_OK && i < n; i++) {
		char *path;

		st = lens_store_shard_path(output, e[i].name, &path, err);
		if (path)
			count_done(s, i, path, e[i].n_rows);
		s->n_rows += e[i].n_rows;
		lens_free(path);
	}
	if (st == LENS_OK && !n)
		count_done(s, 0, output, 0);
	lens_store_shards_release(e, n);
	return st;
}

/* A sweep of one shard has no plan: there is the output, or a run, or nothing. */
static enum lens_status look_at_one(struct lens_sweep_status *s, const char *output,
				    struct lens_error *err)
{
	if (s->finished || s->damaged)
		return look_at_joined(s, output, err);
	if (!lens_folder_exists(output))
		return lens_nothing_there(output, err);
	s->n_shards = 1;
	s->state = lens_calloc(1, sizeof(*s->state));
	return s->state ? LENS_OK : lens_error_nomem(err, 1, sizeof(*s->state));
}

enum lens_status lens_sweep_status_read(const char *output, struct lens_sweep_status *s,
					lens_running_fn fn, void *ctx, struct lens_error *err)
{
	enum lens_output_kind kind = LENS_OUTPUT_NONE;
	struct lens_folder f = { .n_shards = 0 };
	enum lens_status st;
	char *file;

	memset(s, 0, sizeof(*s));
	st = lens_output_follow(output, &file, err);
	if (st == LENS_OK)
		st = lens_folder_start(&f, file, err);
	if (st == LENS_OK)
		st = lens_output_look(file, &kind, err);
	s->finished = kind == LENS_OUTPUT_WHOLE || kind == LENS_OUTPUT_JOINED;
	s->damaged = kind == LENS_OUTPUT_DAMAGED;
	/* Of one file, a folder beside it is another's, or what a repair left. */
	if (st == LENS_OK)
		st = lens_file_exists(f.plan) && kind != LENS_OUTPUT_WHOLE
			     ? look_at_shards(s, file, err)
			     : look_at_one(s, file, err);
	if (st == LENS_OK && lens_folder_exists(file))
		st = lens_claim_list(f.path, fn ? fn : nobody, ctx, err);
	lens_folder_release(&f);
	lens_free(file);
	if (st != LENS_OK)
		lens_sweep_status_release(s);
	return st;
}

void lens_sweep_status_release(struct lens_sweep_status *s)
{
	lens_free(s->state);
	memset(s, 0, sizeof(*s));
}
