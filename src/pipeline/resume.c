/*
 * pipeline/resume.c: what is there already, and what is made of it: shards of
 * earlier runs are looked at before they count, and all of them together become
 * the output.
 */
#include "pipeline/folder.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- looking ------------------------------------------------------------------------ */

void lens_note(const struct lens_run_options *opt, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!opt->note)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	opt->note(opt->ctx, text);
}

/* Keeps the first thing that is wrong with a file. */
static void first_damage(void *ctx, const char *dataset, const char *what)
{
	char *text = ctx;

	if (!*text)
		snprintf(text, 512, "%s: %s", dataset, what);
}

/* Of another experiment: which is told by what differs. */
static enum lens_status told_apart(const char *path, const char *identity,
				   struct lens_error *err)
{
	char *was = NULL;
	enum lens_status st = lens_store_read_attr(path, "/", "identity", &was, err);

	if (st == LENS_OK)
		st = lens_identity_mismatch(path, was ? was : "", identity, err);
	lens_free(was);
	return st;
}

/* A whole file under another shard's name is as good as damage. */
static bool is_shard(const struct lens_folder *f, size_t i, const struct lens_shard_state *s)
{
	if (f->n_shards == 1)
		return s->n_shards < 0 && s->n_rows == (int64_t)f->first[1];
	return s->shard == (int64_t)i && s->n_shards == (int64_t)f->n_shards &&
	       s->first_row == (int64_t)f->first[i] &&
	       s->n_rows == (int64_t)(f->first[i + 1] - f->first[i]);
}

/* Is it shard i of this sweep, and whole? damage says what is wrong. */
static enum lens_status look_at(const struct lens_folder *f, size_t i, const char *path,
				const struct lens_run_options *opt, char damage[512],
				struct lens_error *err)
{
	struct lens_error cause = LENS_ERROR_INIT;
	struct lens_shard_state state;
	enum lens_status st = lens_store_check(path, f->identity, &state, &cause);
	size_t n, bad = 0;

	damage[0] = '\0';
	if (st == LENS_ERR_MISMATCH && (opt->repair || opt->overwrite)) {
		snprintf(damage, 512, "of another experiment");
		return LENS_OK;
	}
	if (st == LENS_ERR_MISMATCH)
		return told_apart(path, f->identity, err);
	if (st == LENS_OK && !is_shard(f, i, &state)) {
		snprintf(damage, 512, "it is not shard %zu of %zu", i, f->n_shards);
		return LENS_OK;
	}
	if (st == LENS_OK)
		st = lens_store_verify_parallel(path, lens_thread_count(0), opt->stop,
						first_damage, damage, &n, &bad, &cause);
	if (st == LENS_ERR_FORMAT) {
		snprintf(damage, 512, "%.500s", cause.text);
		return LENS_OK;
	}
	if (st != LENS_OK)
		lens_error_pass(err, &cause);
	return st;
}

/* One finished shard, or one that only looks like it. */
static enum lens_status take(const struct lens_folder *f, size_t i, const char *path,
			     const struct lens_run_options *opt, bool *done,
			     struct lens_error *err)
{
	char damage[512];

	*done = false;
	if (!lens_file_exists(path))
		return LENS_OK;
	LENS_TRY(look_at(f, i, path, opt, damage, err));
	if (!damage[0]) {
		*done = true;
		return LENS_OK;
	}
	if (!opt->repair && !opt->overwrite)
		return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
				     "is damaged (%s); `run --repair` computes it again",
				     damage);
	lens_note(opt, "%s is damaged (%s): it is computed again", path, damage);
	if (lens_sys_unlink(path))
		return lens_error_sys(err, errno, path, "remove the damaged file");
	return LENS_OK;
}

enum lens_status lens_shards_look(const struct lens_folder *f, const struct lens_share *share,
				  const struct lens_run_options *opt, bool **done,
				  struct lens_run_result *result, struct lens_error *err)
{
	struct lens_progress *p = &result->progress;
	enum lens_status st = LENS_OK;
	size_t i;

	p->n_shards = f->n_shards;
	*done = lens_calloc(f->n_shards, sizeof(**done));
	if (!*done)
		return lens_error_nomem(err, f->n_shards, sizeof(**done));
	for (i = 0; st == LENS_OK && i < f->n_shards; i++) {
		size_t rows = f->first[i + 1] - f->first[i];
		char *path;

		if (!lens_share_has(share, i))
			continue;
		path = lens_shard_path(f, i);
		if (!path)
			st = lens_error_nomem(err, strlen(f->path), 1);
		else if (!opt->overwrite || f->n_shards > 1)
			st = take(f, i, path, opt, &(*done)[i], err);
		lens_free(path);
		p->rows_total += rows;
		p->rows_kept += (*done)[i] ? rows : 0;
		result->n_shards_done += (*done)[i];
	}
	p->rows_done = p->rows_kept;
	return st;
}

/* --- joining ------------------------------------------------------------------------- */

void lens_shard_list_release(struct lens_shard *s, size_t n)
{
	size_t i;

	for (i = 0; s && i < n; i++) {
		lens_free((char *)(uintptr_t)s[i].file);
		lens_free((char *)(uintptr_t)s[i].name);
	}
	lens_free(s);
}

static enum lens_status list_shards(const struct lens_folder *f, struct lens_shard **out,
				    struct lens_error *err)
{
	struct lens_shard *s = lens_calloc(f->n_shards, sizeof(*s));
	size_t i;

	*out = s;
	for (i = 0; s && i < f->n_shards; i++) {
		s[i].file = lens_shard_path(f, i);
		s[i].name = lens_shard_name(f, i);
		if (!s[i].file || !s[i].name)
			break;
	}
	return s && i == f->n_shards ? LENS_OK : lens_error_nomem(err, f->n_shards, sizeof(*s));
}

/* "3 of 12 shards are missing: 00002.h5, 00005.h5, …" */
static enum lens_status all_there(const char *where, const struct lens_shard *s, size_t n,
				  struct lens_error *err)
{
	struct lens_buf list = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	size_t i, missing = 0;

	for (i = 0; st == LENS_OK && i < n; i++) {
		const char *slash = strrchr(s[i].name, '/');

		if (lens_file_exists(s[i].file))
			continue;
		if (missing < 10)
			st = lens_buf_printf(&list, err, "%s%s", missing ? ", " : "",
					     slash ? slash + 1 : s[i].name);
		missing++;
	}
	if (st == LENS_OK && missing)
		st = lens_error_at(err, LENS_ERR_FORMAT, where, 0, 0,
				   "%zu of %zu shards are missing: %s%s", missing, n, list.data,
				   missing > 10 ? ", …" : "");
	lens_buf_release(&list);
	return st;
}

enum lens_status lens_join(const struct lens_folder *f, const char *final, enum lens_join how,
			   const struct lens_join_options *opt, struct lens_error *err)
{
	struct lens_shard *s = NULL;
	enum lens_status st = list_shards(f, &s, err);

	if (st == LENS_OK)
		st = all_there(f->path, s, f->n_shards, err);
	if (st == LENS_OK)
		st = lens_store_join(s, f->n_shards, final, how, opt, err);
	lens_shard_list_release(s, f->n_shards);
	return st;
}

/* --- a finished output ------------------------------------------------------------------ */

/* Where the shards are that a joined output names; entries stay the caller's. */
static enum lens_status find_shards(const char *output, const struct lens_shard_entry *e,
				    size_t n, struct lens_shard **out, struct lens_error *err)
{
	struct lens_shard *s = lens_calloc(n + 1, sizeof(*s));
	enum lens_status st = s ? LENS_OK : lens_error_nomem(err, n + 1, sizeof(*s));
	size_t i;

	for (i = 0; st == LENS_OK && i < n; i++) {
		char *path = NULL;

		st = lens_store_shard_path(output, e[i].name, &path, err);
		s[i].file = path;
		s[i].name = lens_strdup(e[i].name);
		if (st == LENS_OK && !s[i].name)
			st = lens_error_nomem(err, strlen(e[i].name), 1);
	}
	if (st != LENS_OK) {
		lens_shard_list_release(s, n);
		s = NULL;
	}
	*out = s;
	return st;
}

enum lens_status lens_joined_shards(const char *output, struct lens_shard **out, size_t *n,
				    struct lens_error *err)
{
	struct lens_shard_entry *e;
	enum lens_status st;

	LENS_TRY(lens_store_read_shards(output, &e, n, err));
	st = find_shards(output, e, *n, out, err);
	lens_store_shards_release(e, *n);
	return st;
}

/*
 * Are the shards the ones that were joined, by size and digest? Cheap: their
 * names and attributes are read, not their data, which is for `verify`.
 */
static enum lens_status as_joined(const struct lens_shard *s, const struct lens_shard_entry *e,
				  size_t n, struct lens_error *err)
{
	struct lens_shard_state is;
	size_t i;

	for (i = 0; i < n; i++) {
		LENS_TRY(lens_store_check(s[i].file, NULL, &is, err));
		if (is.size != e[i].size || strcmp(is.sha256, e[i].sha256) != 0)
			return lens_error_at(err, LENS_ERR_FORMAT, s[i].file, 0, 0,
					     "is not the shard that was joined");
	}
	return LENS_OK;
}

/* It must not be taken for whole when its shards are gone. */
enum lens_status lens_join_check(const char *output, struct lens_error *err)
{
	struct lens_shard_entry *e;
	struct lens_shard *s = NULL;
	enum lens_status st;
	size_t n;

	LENS_TRY(lens_store_read_shards(output, &e, &n, err));
	st = find_shards(output, e, n, &s, err);
	if (st == LENS_OK)
		st = all_there(output, s, n, err);
	if (st == LENS_OK)
		st = as_joined(s, e, n, err);
	if (st == LENS_ERR_FORMAT)
		lens_error_add(err, "; `run --repair` computes what is wrong again");
	lens_shard_list_release(s, n);
	lens_store_shards_release(e, n);
	return st;
}
