/*
 * store/shard_list.c: the shards that a joined file names. In: an untrusted file. Out:
 * names that are safe to open, sizes, digests.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5lens/sys.h"
#include "store/join_private.h"

#define MAX_SHARDS ((size_t)1 << 20)

static enum lens_status odd(const char *file, const char *what, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0, "/shards: %s", what);
}

/* Is it relative, without "", "." and ".." between the slashes? */
static bool safe_name(const char *name)
{
	const char *p = name, *end;
	size_t n;

	do {
		end = strchrnul(p, '/');
		n = (size_t)(end - p);
		if (!n || n > NAME_MAX || (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p = end + 1;
	} while (*end);
	return true;
}

static bool safe_digest(const char *hex)
{
	return strlen(hex) == LENS_SHA256_HEX - 1 &&
	       strspn(hex, "0123456789abcdef") == LENS_SHA256_HEX - 1;
}

static enum lens_status take_strings(const char *file, struct lens_shard_record *e, size_t n,
				     struct lens_error *err)
{
	char **name, **digest = NULL;
	enum lens_status st;
	size_t i, n_names, n_digests = 0;

	LENS_TRY(lens_store_read_strings(file, "/shards/name", &name, &n_names, err));
	st = lens_store_read_strings(file, "/shards/sha256", &digest, &n_digests, err);
	if (st == LENS_OK && (n_names != n || n_digests != n))
		st = odd(file, "its datasets are of different lengths", err);
	for (i = 0; st == LENS_OK && i < n; i++) {
		e[i].name = name[i];
		name[i] = NULL;
		if (!safe_name(e[i].name) || !safe_digest(digest[i]))
			st = odd(file, "an impossible name or digest", err);
		else
			memcpy(e[i].sha256, digest[i], LENS_SHA256_HEX);
	}
	while (n_names)
		lens_free(name[--n_names]);
	while (n_digests)
		lens_free(digest[--n_digests]);
	lens_free(name);
	lens_free(digest);
	return st;
}

/* Reads n numbers below 2^53. */
static enum lens_status read_numbers(const char *file, const char *path, size_t n, double **out,
				     struct lens_error *err)
{
	size_t extent[LENS_MAX_RANK], i;
	int rank;

	LENS_TRY(lens_store_read_f64(file, path, out, &rank, extent, err));
	if (rank != 1 || extent[0] != n)
		return odd(file, "its datasets are of different lengths", err);
	for (i = 0; i < n; i++) {
		if (!((*out)[i] >= 0 && (*out)[i] < 9007199254740992.0))
			return odd(file, "an impossible size or row", err);
	}
	return LENS_OK;
}

static enum lens_status take_numbers(const char *file, struct lens_shard_record *e, size_t n,
				     struct lens_error *err)
{
	double *size = NULL, *first = NULL, *rows = NULL;
	enum lens_status st;
	size_t i, row = 0;

	st = read_numbers(file, "/shards/size", n, &size, err);
	if (st == LENS_OK)
		st = read_numbers(file, "/shards/first_row", n, &first, err);
	if (st == LENS_OK)
		st = read_numbers(file, "/shards/n_rows", n, &rows, err);
	for (i = 0; st == LENS_OK && i < n; i++) {
		e[i].size = (int64_t)size[i];
		e[i].first_row = (size_t)first[i];
		e[i].n_rows = (size_t)rows[i];
		if (e[i].first_row != row || rows[i] > INT32_MAX)
			st = odd(file, "the shards' rows do not follow each other", err);
		row += e[i].n_rows;
	}
	lens_free(size);
	lens_free(first);
	lens_free(rows);
	return st;
}

/* *n is -1 if there is no group of shards. */
static enum lens_status count_shards(const char *file, int64_t *n, struct lens_error *err)
{
	struct lens_h5_dataset d;
	struct lens_h5_file f;
	enum lens_status st = LENS_OK;

	*n = -1;
	LENS_TRY(lens_h5_open(file, &f, err));
	if (H5Lexists(f.id, "shards", H5P_DEFAULT) > 0) {
		st = lens_h5_dataset_open(&f, "/shards/name", &d, err);
		if (st == LENS_OK) {
			if (d.rank == 1 && d.extent[0] && d.extent[0] <= MAX_SHARDS &&
			    d.extent[0] <= f.io->size / 16)
				*n = (int64_t)d.extent[0];
			else
				st = odd(file, "an impossible number of shards", err);
			lens_h5_dataset_close(&d);
		}
	}
	return lens_h5_finish(&f, st, err);
}

enum lens_status lens_h5_read_shards(const char *file, struct lens_shard_record **out,
				     size_t *n, struct lens_error *err)
{
	struct lens_shard_record *e;
	enum lens_status st;
	int64_t count;

	*out = NULL;
	*n = 0;
	LENS_TRY(count_shards(file, &count, err));
	if (count < 0)
		return LENS_OK;
	e = lens_calloc((size_t)count, sizeof(*e));
	if (!e)
		return lens_error_nomem(err, (size_t)count, sizeof(*e));
	st = take_strings(file, e, (size_t)count, err);
	if (st == LENS_OK)
		st = take_numbers(file, e, (size_t)count, err);
	if (st != LENS_OK) {
		lens_store_shards_release(e, (size_t)count);
		return st;
	}
	*out = e;
	*n = (size_t)count;
	return LENS_OK;
}

void lens_store_shards_release(struct lens_shard_record *e, size_t n)
{
	size_t i;

	if (!e)
		return;
	for (i = 0; i < n; i++)
		lens_free(e[i].name);
	lens_free(e);
}

/* --- read in a child ---------------------------------------------------------------- */

struct list_query {
	const char *file;
};

struct list_head {
	struct lens_error error;
	size_t n;
};

struct list_row {
	struct lens_shard_record entry; /* but for its name */
	char name[4096];
};

static void send_list(void *ctx, int fd)
{
	const struct list_query *q = ctx;
	struct list_head head = { .error = LENS_ERROR_INIT };
	struct lens_shard_record *e;
	static struct list_row row;
	size_t i;

	head.error.code = lens_h5_read_shards(q->file, &e, &head.n, &head.error);
	if (!lens_child_send(fd, &head, sizeof(head)))
		return;
	for (i = 0; i < head.n; i++) {
		row.entry = e[i];
		snprintf(row.name, sizeof(row.name), "%s", e[i].name);
		if (!lens_child_send(fd, &row, sizeof(row)))
			return;
	}
	lens_store_shards_release(e, head.n);
}

static enum lens_status take_row(struct lens_child *c, const atomic_int *stop,
				 struct lens_shard_record *e, bool *came,
				 struct lens_error *err)
{
	static struct list_row row; /* the store requires one call at a time */

	*came = lens_child_take(c, stop, &row, sizeof(row));
	if (!*came)
		return LENS_OK;
	row.name[sizeof(row.name) - 1] = '\0';
	row.entry.sha256[LENS_SHA256_HEX - 1] = '\0';
	*e = row.entry;
	e->name = lens_strdup(row.name);
	return e->name ? LENS_OK : lens_error_nomem(err, sizeof(row.name), 1);
}

static enum lens_status take_list(struct lens_child *c, const atomic_int *stop,
				  struct lens_shard_record **e, size_t *n, bool *came,
				  struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	struct list_head head;
	size_t i;

	*came = lens_child_take(c, stop, &head, sizeof(head));
	if (!*came)
		return LENS_OK;
	LENS_TRY(lens_child_error(&head.error, err));
	if (!head.n)
		return LENS_OK;
	*e = lens_calloc(head.n, sizeof(**e));
	if (!*e)
		return lens_error_nomem(err, head.n, sizeof(**e));
	*n = head.n;
	for (i = 0; i < head.n && *came && st == LENS_OK; i++)
		st = take_row(c, stop, &(*e)[i], came, err);
	return st;
}

enum lens_status lens_h5_list_shards(const char *file, const atomic_int *stop,
				     struct lens_shard_record **e, size_t *n,
				     struct lens_error *err)
{
	struct list_query q = { file };
	enum lens_status st;
	struct lens_child c;
	bool came;

	*e = NULL;
	*n = 0;
	LENS_TRY(lens_child_start(&c, send_list, &q, err));
	st = take_list(&c, stop, e, n, &came, err);
	if (st == LENS_OK && !came)
		st = lens_child_failed(&c, stop, file, err);
	lens_child_kill(&c);
	if (st == LENS_OK)
		return LENS_OK;
	lens_store_shards_release(*e, *n);
	*e = NULL;
	*n = 0;
	return st;
}

enum lens_status lens_store_read_shards(const char *file, struct lens_shard_record **out,
					size_t *n, struct lens_error *err)
{
	return lens_h5_list_shards(file, NULL, out, n, err);
}

/* --- where they are ------------------------------------------------------------------ */

enum lens_status lens_store_shard_path(const char *file, const char *name, char **out,
				       struct lens_error *err)
{
	char *dir = lens_path_folder(file), *real, *other;

	*out = dir ? lens_path_join(dir, name) : NULL;
	lens_free(dir);
	if (!*out)
		return lens_error_nomem(err, strlen(file) + strlen(name) + 2, 1);
	if (lens_file_exists(*out))
		return LENS_OK;
	/* HDF5 looks there too: the file may be a link to the real one. */
	real = realpath(file, NULL);
	dir = real ? lens_path_folder(real) : NULL;
	other = dir ? lens_path_join(dir, name) : NULL;
	free(real);
	lens_free(dir);
	if (other && lens_file_exists(other)) {
		lens_free(*out);
		*out = other;
		return LENS_OK;
	}
	lens_free(other);
	return LENS_OK;
}
