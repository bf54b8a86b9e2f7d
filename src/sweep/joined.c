/*
 * sweep/joined.c: all shards of a sweep together: what is made of them, and
 * whether a finished output still has those that it shows.
 */
#include "sweep/sweep_private.h"

#include <string.h>

void lens_shard_list_release(struct lens_shard_list *l)
{
	size_t i;

	if (l->text) {
		for (i = 0; i < 2 * l->n; i++)
			lens_free(l->text[i]);
	}
	lens_free(l->text);
	lens_free(l->v);
	memset(l, 0, sizeof(*l));
}

/* Room for n. */
static enum lens_status list_init(struct lens_shard_list *l, size_t n, struct lens_error *err)
{
	memset(l, 0, sizeof(*l));
	l->v = lens_calloc(n + 1, sizeof(*l->v));
	l->text = lens_calloc(2 * n + 1, sizeof(*l->text));
	if (!l->v || !l->text) {
		lens_shard_list_release(l);
		return lens_error_nomem(err, n + 1, sizeof(*l->v));
	}
	l->n = n;
	return LENS_OK;
}

/* Takes file and name over; NULL: memory was out. */
static bool list_set(struct lens_shard_list *l, size_t i, char *file, char *name)
{
	l->v[i] = (struct lens_shard_file){ .file = file, .name = name };
	l->text[2 * i] = file;
	l->text[2 * i + 1] = name;
	return file && name;
}

static enum lens_status list_shards(const struct lens_folder *f, struct lens_shard_list *l,
				    struct lens_error *err)
{
	size_t i;

	LENS_TRY(list_init(l, f->n_shards, err));
	for (i = 0; i < f->n_shards; i++) {
		if (!list_set(l, i, lens_shard_path(f, i), lens_shard_name(f, i))) {
			lens_shard_list_release(l);
			return lens_error_nomem(err, f->n_shards, sizeof(*l->v));
		}
	}
	return LENS_OK;
}

/* "3 of 12 shards are missing: 00002.h5, 00005.h5, …": code. */
static enum lens_status all_there(const char *where, const struct lens_shard_list *l,
				  enum lens_status code, struct lens_error *err)
{
	const struct lens_shard_file *s = l->v;
	struct lens_buf list = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	size_t i, missing = 0;

	for (i = 0; st == LENS_OK && i < l->n; i++) {
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
				   missing, l->n, missing == 1 ? "is" : "are", list.data,
				   missing > 10 ? ", …" : "");
	lens_buf_release(&list);
	return st;
}

enum lens_status lens_join(const struct lens_folder *f, const char *final, enum lens_join how,
			   const struct lens_join_options *opt, struct lens_error *err)
{
	struct lens_shard_list l;
	enum lens_status st = list_shards(f, &l, err);
	size_t n;

	if (st == LENS_OK)
		st = all_there(f->path, &l,
			       lens_file_exists(f->output) ? LENS_ERR_FORMAT
							   : LENS_ERR_UNFINISHED,
			       err);
	if (st == LENS_OK)
		st = lens_store_join(l.v, l.n, final, how, opt, err);
	if (st == LENS_ERR_MISMATCH)
		lens_error_add(err, "; `run --repair` computes it again");
	if (st == LENS_OK && how == LENS_JOIN_VIRTUAL)
		lens_folder_clean(f, LENS_CLEAN_JOINED, &n, NULL);
	lens_shard_list_release(&l);
	return st;
}

/* --- a finished output ------------------------------------------------------------------ */

/* Where the shards are that a joined output names; entries stay the caller's. */
static enum lens_status find_shards(const char *output, const struct lens_shard_record *e,
				    size_t n, struct lens_shard_list *l, struct lens_error *err)
{
	enum lens_status st = list_init(l, n, err);
	size_t i;

	for (i = 0; st == LENS_OK && i < n; i++) {
		char *path = NULL;

		st = lens_store_shard_path(output, e[i].name, &path, err);
		if (!list_set(l, i, path, lens_strdup(e[i].name)) && st == LENS_OK)
			st = lens_error_nomem(err, n, sizeof(*l->v));
	}
	if (st != LENS_OK)
		lens_shard_list_release(l);
	return st;
}

enum lens_status lens_joined_shards(const char *output, struct lens_shard_list *out,
				    struct lens_error *err)
{
	struct lens_shard_record *e;
	enum lens_status st;
	size_t n;

	memset(out, 0, sizeof(*out));
	LENS_TRY(lens_store_read_shards(output, &e, &n, err));
	st = find_shards(output, e, n, out, err);
	lens_store_shards_release(e, n);
	return st;
}

/*
 * Are the shards the ones that were joined, by size and digest? Cheap: their
 * names and attributes are read, not their data, which is for `verify`.
 */
static enum lens_status as_joined(const struct lens_shard_list *l,
				  const struct lens_shard_record *e, struct lens_error *err)
{
	struct lens_shard_facts *is = lens_calloc(l->n + 1, sizeof(*is));
	enum lens_status st = is ? lens_store_check_all(l->v, l->n, NULL, NULL, is, err)
				 : lens_error_nomem(err, l->n + 1, sizeof(*is));
	size_t i;

	for (i = 0; st == LENS_OK && i < l->n; i++) {
		if (is[i].size != e[i].size || strcmp(is[i].sha256, e[i].sha256) != 0)
			st = lens_error_at(err, LENS_ERR_FORMAT, l->v[i].file, 0, 0,
					   "is not the shard that was joined");
	}
	lens_free(is);
	return st;
}

/* Does the folder have all the shards, where those that the output names are gone? */
static bool all_in_folder(const char *output, const struct lens_shard_list *l)
{
	struct lens_folder f = { .n_shards = 0 };
	bool all = l->n && !lens_file_exists(l->v[0].file) &&
		   lens_folder_load(&f, output, NULL) == LENS_OK && f.n_shards == l->n &&
		   lens_all_shards_there(&f);

	lens_folder_release(&f);
	return all;
}

enum lens_status lens_output_look(const char *output, enum lens_output_kind *kind,
				  struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_shard_list l;
	enum lens_status st;

	*kind = LENS_OUTPUT_NONE;
	if (!lens_file_exists(output))
		return LENS_OK;
	st = lens_joined_shards(output, &l, &why);
	if (st == LENS_ERR_FORMAT) {
		*kind = LENS_OUTPUT_DAMAGED;
		return LENS_OK;
	}
	if (st != LENS_OK)
		return lens_error_pass(err, &why);
	*kind = !l.n                        ? LENS_OUTPUT_WHOLE
		: all_in_folder(output, &l) ? LENS_OUTPUT_RENAMED
					    : LENS_OUTPUT_JOINED;
	lens_shard_list_release(&l);
	return LENS_OK;
}

/* An output must not be taken for whole when its shards are gone. */
enum lens_status lens_join_check(const char *output, struct lens_error *err)
{
	struct lens_shard_record *e;
	struct lens_shard_list l;
	enum lens_status st;
	size_t n;

	st = lens_store_read_shards(output, &e, &n, err);
	if (st == LENS_ERR_FORMAT)
		lens_error_add(err, "; `run --repair` makes it again of its shards");
	LENS_TRY(st);
	st = find_shards(output, e, n, &l, err);
	if (st == LENS_OK)
		st = all_there(output, &l, LENS_ERR_FORMAT, err);
	if (st == LENS_OK)
		st = as_joined(&l, e, err);
	if (st == LENS_ERR_FORMAT && all_in_folder(output, &l))
		lens_error_add(err,
			       "; they have another name now: `h5lens merge %s` joins "
			       "them anew",
			       output);
	else if (st == LENS_ERR_FORMAT)
		lens_error_add(err, "; `run --repair` computes what is wrong again");
	lens_shard_list_release(&l);
	lens_store_shards_release(e, n);
	return st;
}
