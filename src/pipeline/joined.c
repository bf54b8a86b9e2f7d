/*
 * pipeline/joined.c: all shards of a sweep together: what is made of them, and
 * whether a finished output still has those that it shows.
 */
#include "pipeline/folder.h"

#include <string.h>

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

/* "3 of 12 shards are missing: 00002.h5, 00005.h5, …": code. */
static enum lens_status all_there(const char *where, const struct lens_shard *s, size_t n,
				  enum lens_status code, struct lens_error *err)
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
		st = lens_error_at(err, code, where, 0, 0, "%zu of %zu shards %s missing: %s%s",
				   missing, n, missing == 1 ? "is" : "are", list.data,
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
		st = all_there(f->path, s, f->n_shards,
			       lens_file_exists(f->output) ? LENS_ERR_FORMAT
							   : LENS_ERR_UNFINISHED,
			       err);
	if (st == LENS_OK)
		st = lens_store_join(s, f->n_shards, final, how, opt, err);
	if (st == LENS_ERR_MISMATCH)
		lens_error_add(err, "; `run --repair` computes it again");
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
	struct lens_shard_state *is = lens_calloc(n + 1, sizeof(*is));
	enum lens_status st = is ? lens_store_check_all(s, n, NULL, NULL, is, err)
				 : lens_error_nomem(err, n + 1, sizeof(*is));
	size_t i;

	for (i = 0; st == LENS_OK && i < n; i++) {
		if (is[i].size != e[i].size || strcmp(is[i].sha256, e[i].sha256) != 0)
			st = lens_error_at(err, LENS_ERR_FORMAT, s[i].file, 0, 0,
					   "is not the shard that was joined");
	}
	lens_free(is);
	return st;
}

/* Do the folder's own shards stand for those that the output names and that are gone? */
static bool all_in_folder(const char *output, const struct lens_shard *s, size_t n)
{
	struct lens_folder f = { .n_shards = 0 };
	bool all = n && !lens_file_exists(s[0].file) &&
		   lens_folder_load(&f, output, NULL) == LENS_OK && f.n_shards == n;
	size_t i;

	for (i = 0; all && i < n; i++) {
		char *path = lens_shard_path(&f, i);

		all = path && lens_file_exists(path);
		lens_free(path);
	}
	lens_folder_release(&f);
	return all;
}

enum lens_status lens_output_look(const char *output, enum lens_output_kind *kind,
				  struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_shard *s;
	enum lens_status st;
	size_t n;

	*kind = LENS_OUTPUT_NONE;
	if (!lens_file_exists(output))
		return LENS_OK;
	st = lens_joined_shards(output, &s, &n, &why);
	if (st == LENS_ERR_FORMAT) {
		*kind = LENS_OUTPUT_DAMAGED;
		return LENS_OK;
	}
	if (st != LENS_OK)
		return lens_error_pass(err, &why);
	*kind = !n                            ? LENS_OUTPUT_WHOLE
		: all_in_folder(output, s, n) ? LENS_OUTPUT_RENAMED
					      : LENS_OUTPUT_JOINED;
	lens_shard_list_release(s, n);
	return LENS_OK;
}

/* It must not be taken for whole when its shards are gone. */
enum lens_status lens_join_check(const char *output, struct lens_error *err)
{
	struct lens_shard_entry *e;
	struct lens_shard *s = NULL;
	enum lens_status st;
	size_t n;

	st = lens_store_read_shards(output, &e, &n, err);
	if (st == LENS_ERR_FORMAT)
		lens_error_add(err, "; `run --repair` makes it again of its shards");
	LENS_TRY(st);
	st = find_shards(output, e, n, &s, err);
	if (st == LENS_OK)
		st = all_there(output, s, n, LENS_ERR_FORMAT, err);
	if (st == LENS_OK)
		st = as_joined(s, e, n, err);
	if (st == LENS_ERR_FORMAT && all_in_folder(output, s, n))
		lens_error_add(err,
			       "; they have another name now: `h5lens merge %s` joins "
			       "them anew",
			       output);
	else if (st == LENS_ERR_FORMAT)
		lens_error_add(err, "; `run --repair` computes what is wrong again");
	lens_shard_list_release(s, n);
	lens_store_shards_release(e, n);
	return st;
}
