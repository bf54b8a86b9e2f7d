/*
 * sweep/folder.c: out.shards, the folder beside out.h5: a sweep's shards, its
 * plan (plan.json, so that a task, `status` and `merge` need no inputs), and a
 * file for each run that is at work (claim.c).
 */
#include "sweep/sweep_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "h5lens/sys.h"

#define MAX_PLAN ((size_t)16 << 20)
#define MEAN "mean.h5"
#define SUMS "mean-" /* and a shard's name */

/* --- names --------------------------------------------------------------------- */

/* "dir/out.h5" → "dir/out.shards" */
static char *folder_path(const char *output)
{
	static const char *const endings[] = { ".h5", ".hdf5", ".nc" };
	size_t n = strlen(output), i;
	struct lens_buf b = LENS_BUF_INIT;

	for (i = 0; i < sizeof(endings) / sizeof(*endings); i++) {
		size_t m = strlen(endings[i]);

		if (n > m && output[n - m - 1] != '/' && !strcmp(output + n - m, endings[i])) {
			n -= m;
			break;
		}
	}
	if (lens_buf_printf(&b, NULL, "%.*s.shards", (int)n, output) != LENS_OK)
		lens_buf_release(&b);
	return b.data;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *lens_shard_name(const struct lens_folder *f, size_t shard)
{
	struct lens_buf b = LENS_BUF_INIT;

	if (lens_buf_printf(&b, NULL, "%s/%05zu.h5", base_name(f->path), shard) != LENS_OK)
		lens_buf_release(&b);
	return b.data;
}

char *lens_shard_path(const struct lens_folder *f, size_t shard)
{
	struct lens_buf b = LENS_BUF_INIT;

	if (f->n_shards == 1)
		return lens_strdup(f->output);
	if (lens_buf_printf(&b, NULL, "%s/%05zu.h5", f->path, shard) != LENS_OK)
		lens_buf_release(&b);
	return b.data;
}

char *lens_mean_path(const struct lens_folder *f, size_t shard)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	if (shard == LENS_ALL_SHARDS)
		return lens_path_join(f->path, MEAN);
	st = lens_buf_printf(&b, NULL, "%s/" SUMS "%05zu.h5", f->path, shard);
	if (st != LENS_OK)
		lens_buf_release(&b);
	return b.data;
}

/* --- plan.json ------------------------------------------------------------------- */

#define REMEDY "; `run --repair` writes it anew"

static enum lens_status bad_plan(const char *path, const char *what, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
			     "is not a plan of h5lens, or is damaged: %s" REMEDY, what);
}

/* first: [0, …, n_rows], ascending */
static enum lens_status take_rows(struct lens_folder *f, const char *path, const json_t *first,
				  struct lens_error *err)
{
	size_t i, n = json_array_size(first);

	if (n < 3)
		return bad_plan(path, "it has no shards", err);
	f->first = lens_calloc(n, sizeof(*f->first));
	if (!f->first)
		return lens_error_nomem(err, n, sizeof(*f->first));
	for (i = 0; i < n; i++) {
		const json_t *v = json_array_get(first, i);

		if (!json_is_integer(v) || json_integer_value(v) < 0 ||
		    (i ? (size_t)json_integer_value(v) <= f->first[i - 1]
		       : json_integer_value(v) != 0))
			return bad_plan(path, "its rows do not ascend", err);
		f->first[i] = (size_t)json_integer_value(v);
	}
	f->n_shards = n - 1;
	return LENS_OK;
}

static enum lens_status read_plan(struct lens_folder *f, const char *path,
				  struct lens_error *err)
{
	struct lens_buf text = LENS_BUF_INIT;
	enum lens_status st = lens_file_read(path, MAX_PLAN, &text, err);
	const char *identity;
	json_t *root = NULL;

	if (st == LENS_OK)
		st = lens_json_parse(path, text.data, text.len, &root, err);
	if (st == LENS_ERR_FORMAT)
		lens_error_add(err, REMEDY);
	identity = json_string_value(json_object_get(root, "identity"));
	if (st == LENS_OK && !identity)
		st = bad_plan(path, "it has no identity", err);
	if (st == LENS_OK)
		st = take_rows(f, path, json_object_get(root, "first"), err);
	if (st == LENS_OK) {
		f->identity = lens_strdup(identity);
		if (!f->identity)
			st = lens_error_nomem(err, strlen(identity), 1);
	}
	json_decref(root);
	lens_buf_release(&text);
	return st;
}

static enum lens_status write_plan(const struct lens_folder *f, const char *path,
				   struct lens_error *err)
{
	json_t *j = json_pack("{s:i,s:s,s:s,s:[]}", "schema", LENS_SCHEMA, "output",
			      base_name(f->output), "identity", f->identity, "first");
	json_t *first = json_object_get(j, "first");
	char *text = NULL;
	enum lens_status st;
	size_t i;

	for (i = 0; i <= f->n_shards; i++) {
		if (json_array_append_new(first, json_integer((json_int_t)f->first[i])))
			break;
	}
	if (i > f->n_shards)
		text = json_dumps(j, JSON_SORT_KEYS | JSON_INDENT(1));
	st = text ? lens_file_replace(path, text, strlen(text), err)
		  : lens_error_nomem(err, f->n_shards, 32);
	free(text);
	json_decref(j);
	return st;
}

/* --- the folder -------------------------------------------------------------------- */

enum lens_status lens_folder_start(struct lens_folder *f, const char *output,
				   struct lens_error *err)
{
	memset(f, 0, sizeof(*f));
	f->share.n_tasks = 1;
	f->output = lens_strdup(output);
	f->path = folder_path(output);
	if (f->path)
		f->plan = lens_path_join(f->path, "plan.json");
	return f->output && f->plan ? LENS_OK : lens_error_nomem(err, strlen(output), 1);
}

enum lens_status lens_folder_load(struct lens_folder *f, const char *output,
				  struct lens_error *err)
{
	LENS_TRY(lens_folder_start(f, output, err));
	return read_plan(f, f->plan, err);
}

bool lens_folder_is_of(const char *output, const char *identity)
{
	struct lens_folder f = { .n_shards = 0 };
	bool is =
		lens_folder_load(&f, output, NULL) == LENS_OK && !strcmp(f.identity, identity);

	lens_folder_release(&f);
	return is;
}

bool lens_folder_exists(const char *output)
{
	char *path = folder_path(output);
	struct stat sb;
	bool is = path && !stat(path, &sb) && S_ISDIR(sb.st_mode);

	lens_free(path);
	return is;
}

enum lens_status lens_folder_init(struct lens_folder *f, const char *output,
				  const char *identity, size_t n_shards, const size_t *first,
				  struct lens_error *err)
{
	LENS_TRY(lens_folder_start(f, output, err));
	f->identity = lens_strdup(identity);
	f->n_shards = n_shards;
	f->first = lens_calloc(n_shards + 1, sizeof(*f->first));
	if (!f->identity || !f->first)
		return lens_error_nomem(err, n_shards, sizeof(*f->first));
	memcpy(f->first, first, (n_shards + 1) * sizeof(*f->first));
	return LENS_OK;
}

enum lens_status lens_folder_make(const struct lens_folder *f, struct lens_error *err)
{
	struct stat sb;
	int e = lens_sys_mkdir(f->path, 0777) ? errno : 0;

	if (!e)
		return LENS_OK;
	if (e != EEXIST)
		return lens_error_sys(err, e, f->path, "make the folder of the shards");
	if (stat(f->path, &sb) || !S_ISDIR(sb.st_mode))
		return lens_error_at(err, LENS_ERR_INVALID, f->path, 0, 0,
				     "is in the way: the shards go into a folder of that name");
	return LENS_OK;
}

enum lens_status lens_folder_keep_plan(const struct lens_folder *f, struct lens_error *err)
{
	struct lens_folder was = { .n_shards = 0 };
	enum lens_status st = LENS_OK;

	if (!lens_file_exists(f->plan))
		return f->n_shards > 1 ? write_plan(f, f->plan, err) : LENS_OK;
	st = read_plan(&was, f->plan, err);
	if (st == LENS_OK && strcmp(was.identity, f->identity) != 0)
		st = lens_identity_mismatch(f->path, was.identity, NULL, f->identity, err);
	else if (st == LENS_OK &&
		 (was.n_shards != f->n_shards ||
		  memcmp(was.first, f->first, (f->n_shards + 1) * sizeof(*f->first)) != 0))
		st = bad_plan(f->plan, "it cuts the same sweep differently", err);
	lens_folder_release(&was);
	return st;
}

/* The store locks what it is writing. What cannot be asked is left alone. */
static bool is_being_written(const char *path)
{
	int fd = lens_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	enum lens_lock lock;

	if (fd < 0)
		return errno != ENOENT;
	lock = lens_sys_lock(fd, LOCK_SH | LOCK_NB);
	lens_sys_close(fd);
	return lock == LENS_LOCK_HELD || lock == LENS_LOCK_FAILED;
}

bool lens_is_shard_name(const char *name, bool *part)
{
	size_t digits = strspn(name, "0123456789");

	*part = lens_store_is_part(name + digits, ".h5");
	return digits >= 5 && (*part || !strcmp(name + digits, ".h5"));
}

/* What a sweep makes, or the beginning of it: part. */
enum kind { FOREIGN, SHARD, SHARD_SUMS, MEANS, PLAN };
static enum kind kind_of(const char *name, bool *part, size_t *shard)
{
	bool sums = !strncmp(name, SUMS, strlen(SUMS));
	const char *number = name + (sums ? strlen(SUMS) : 0);

	if (lens_is_shard_name(number, part)) {
		*shard = strtoul(number, NULL, 10);
		return sums ? SHARD_SUMS : SHARD;
	}
	*shard = 0;
	*part = lens_store_is_part(name, MEAN);
	if (*part || !strcmp(name, MEAN))
		return MEANS;
	*part = !strncmp(name, "plan.json.tmp-", 14);
	return *part || !strcmp(name, "plan.json") ? PLAN : FOREIGN;
}

/* Does a file go? Where locks do not reach, another task's cannot be told from a dead run's. */
static bool goes(const struct lens_folder *f, enum lens_clean how, const char *name, bool *part,
		 bool *is_shard)
{
	size_t shard;
	enum kind kind = kind_of(name, part, &shard);
	bool shared = kind == SHARD || kind == SHARD_SUMS;

	*is_shard = kind == SHARD;
	if (kind == FOREIGN)
		return false;
	if (how == LENS_CLEAN_JOINED)
		return kind == SHARD_SUMS;
	if (shared && !lens_share_has(&f->share, shard))
		return false;
	return how == LENS_CLEAN_EVERYTHING ||
	       (*part && (shared || how == LENS_CLEAN_HALF_DONE));
}

enum lens_status lens_folder_clean(const struct lens_folder *f, enum lens_clean how, size_t *n,
				   struct lens_error *err)
{
	DIR *d = opendir(f->path);
	struct dirent *e;

	*n = 0;
	if (!d)
		return lens_error_sys(err, errno, f->path, "read the folder");
	while ((e = readdir(d)) != NULL) {
		bool part, shard;
		char *path;

		if (!goes(f, how, e->d_name, &part, &shard))
			continue;
		path = lens_path_join(f->path, e->d_name);
		/* A half-done one that somebody is writing stays. */
		if (path && !(part && is_being_written(path)) && !unlink(path))
			*n += shard;
		lens_free(path);
	}
	closedir(d);
	if (how == LENS_CLEAN_HALF_DONE || how == LENS_CLEAN_EVERYTHING)
		lens_store_drop_parts(f->output);
	return LENS_OK;
}

bool lens_folder_is_bare(const struct lens_folder *f)
{
	DIR *d = opendir(f->path);
	struct dirent *e;
	bool bare = d != NULL, part;

	while (d && (e = readdir(d)) != NULL) {
		size_t shard;
		enum kind kind = kind_of(e->d_name, &part, &shard);

		bare = bare && (part || kind == FOREIGN || kind == PLAN);
	}
	if (d)
		closedir(d);
	return bare;
}

void lens_folder_remove(const struct lens_folder *f)
{
	rmdir(f->path); /* fails while anything is in it */
}

void lens_folder_release(struct lens_folder *f)
{
	lens_free(f->output);
	lens_free(f->path);
	lens_free(f->plan);
	lens_free(f->identity);
	lens_free(f->first);
	memset(f, 0, sizeof(*f));
}
