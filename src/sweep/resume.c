/*
 * sweep/resume.c: what is there already: shards of earlier runs, and a file
 * that was packed of them, are looked at before they count.
 */
#include "sweep/sweep_private.h"

#include <stdarg.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "h5lens/sys.h"

/* Keeps the first thing that is wrong with a file. */
static void first_damage(void *ctx, const char *dataset, const char *what)
{
	char *text = ctx;

	if (!*text)
		snprintf(text, 512, "%s: %s", dataset, what);
}

/* It is of another experiment: says what differs. */
static enum lens_status told_apart(const char *path, const char *identity,
				   struct lens_error *err)
{
	char *was = NULL;
	enum lens_status st = lens_store_read_attr(path, "/", "identity", &was, err);

	if (st == LENS_OK)
		st = lens_identity_mismatch(path, was ? was : "", NULL, identity, err);
	if (st == LENS_ERR_MISMATCH)
		lens_error_add(err, "; `run --repair` computes it again");
	lens_free(was);
	return st;
}

/* A whole file under another shard's name is as good as damage. */
static bool is_shard(const struct lens_folder *f, size_t i, const struct lens_shard_facts *s)
{
	if (f->n_shards == 1)
		return s->n_shards < 0 && s->n_rows == (int64_t)f->first[1];
	return s->shard == (int64_t)i && s->n_shards == (int64_t)f->n_shards &&
	       s->first_row == (int64_t)f->first[i] &&
	       s->n_rows == (int64_t)(f->first[i + 1] - f->first[i]);
}

enum lens_status lens_file_look(const struct lens_file_question *q, char damage[512],
				struct lens_shard_facts *facts, struct lens_error *err)
{
	struct lens_error cause = LENS_ERROR_INIT;
	enum lens_status st = lens_store_check(q->path, q->identity, facts, &cause);
	size_t n, bad = 0;

	damage[0] = '\0';
	if (st == LENS_ERR_MISMATCH && q->may_remake) {
		snprintf(damage, 512, "of another experiment");
		return LENS_OK;
	}
	if (st == LENS_ERR_MISMATCH)
		return told_apart(q->path, q->identity, err);
	if (st == LENS_OK)
		st = lens_store_verify_parallel(q->path,
						&(struct lens_verify_options){
							lens_thread_count(0), q->stop,
							first_damage, damage },
						&n, &bad, &cause);
	if (st == LENS_ERR_FORMAT) {
		snprintf(damage, 512, "%.500s", cause.text);
		return LENS_OK;
	}
	if (st != LENS_OK)
		lens_error_pass(err, &cause);
	return st;
}

/* Is it shard i of this sweep, and whole? damage says what is wrong. */
static enum lens_status look_at(const struct lens_folder *f, size_t i, const char *path,
				const struct lens_sweep_options *opt, char damage[512],
				struct lens_error *err)
{
	const struct lens_file_question q = { .path = path,
					      .identity = f->identity,
					      .may_remake = opt->repair || opt->overwrite,
					      .stop = opt->stop };
	struct lens_shard_facts facts;

	LENS_TRY(lens_file_look(&q, damage, &facts, err));
	if (!damage[0] && !is_shard(f, i, &facts))
		snprintf(damage, 512, "it is not shard %zu of %zu", i, f->n_shards);
	return LENS_OK;
}

enum lens_status lens_file_damaged(const struct lens_sweep *s, const char *path,
				   const char *damage, bool may_remake, struct lens_error *err)
{
	if (!may_remake)
		return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
				     "is damaged (%s); `run --repair` computes it again",
				     damage);
	lens_sweep_note(s, "%s is damaged (%s): it is computed again", path, damage);
	if (lens_sys_unlink(path))
		return lens_error_sys(err, errno, path, "remove the damaged file");
	return LENS_OK;
}

/* One finished shard, or one that only looks like it. */
static enum lens_status take(struct lens_sweep *s, size_t i, const char *path,
			     struct lens_error *err)
{
	const struct lens_sweep_options *opt = &s->options;
	char damage[512];

	if (!lens_file_exists(path))
		return LENS_OK;
	LENS_TRY(look_at(&s->folder, i, path, opt, damage, err));
	s->done[i] = !damage[0];
	return damage[0]
		       ? lens_file_damaged(s, path, damage, opt->repair || opt->overwrite, err)
		       : LENS_OK;
}

enum lens_status lens_shards_look(struct lens_sweep *s, struct lens_progress *p,
				  struct lens_error *err)
{
	const struct lens_folder *f = &s->folder;
	enum lens_status st = LENS_OK;
	size_t i;

	p->n_shards = f->n_shards;
	s->done = lens_calloc(f->n_shards, sizeof(*s->done));
	if (!s->done)
		return lens_error_nomem(err, f->n_shards, sizeof(*s->done));
	for (i = 0; st == LENS_OK && i < f->n_shards; i++) {
		size_t rows = f->first[i + 1] - f->first[i];
		char *path;

		if (!lens_share_has(&s->share, i))
			continue;
		path = lens_shard_path(f, i);
		if (!path)
			st = lens_error_nomem(err, strlen(f->path), 1);
		else if (!s->options.overwrite || f->n_shards > 1)
			st = take(s, i, path, err);
		lens_free(path);
		p->rows_total += rows;
		p->rows_kept += s->done[i] ? rows : 0;
	}
	p->rows_done = p->rows_kept;
	return st;
}

enum lens_status lens_packed_look(const struct lens_sweep *s, bool *whole,
				  struct lens_error *err)
{
	const struct lens_folder *f = &s->folder;
	size_t rows[] = { 0, f->first[f->n_shards] };
	struct lens_folder one = *f;
	char damage[512];

	one.n_shards = 1;
	one.first = rows;
	LENS_TRY(look_at(&one, 0, f->output, &s->options, damage, err));
	*whole = !damage[0];
	if (damage[0])
		lens_sweep_note(s, "%s is damaged (%s): it is made again, in shards", f->output,
				damage);
	return LENS_OK;
}
