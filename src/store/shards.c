/*
 * store/shards.c: what a file says about itself as a shard. In: untrusted files. Out:
 * their places, sizes, digests.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5lens/sys.h"
#include "store/join_private.h"

static enum lens_status number(const struct lens_h5_file *f, const char *name, int64_t *out,
			       struct lens_error *err)
{
	char *text, *end;

	LENS_TRY(lens_h5_attr_text(f, f->id, name, &text, err));
	*out = -1;
	if (text && *text >= '0' && *text <= '9') {
		*out = strtoll(text, &end, 10);
		*out = *end ? -1 : *out;
	}
	lens_free(text);
	return LENS_OK;
}

enum lens_status lens_h5_shard_state(const struct lens_h5_file *f, struct lens_shard_facts *out,
				     struct lens_error *err)
{
	struct lens_h5_dataset d;
	char *text;

	*out = (struct lens_shard_facts){ .size = (int64_t)f->io->size, .n_rows = -1 };
	LENS_TRY(lens_h5_attr_text(f, f->id, "sha256", &text, err));
	snprintf(out->sha256, sizeof(out->sha256), "%s", text ? text : "");
	lens_free(text);
	LENS_TRY(number(f, "shard", &out->shard, err));
	LENS_TRY(number(f, "n_shards", &out->n_shards, err));
	LENS_TRY(number(f, "shard_first_row", &out->first_row, err));
	if (H5Lexists(f->id, "prompt", H5P_DEFAULT) <= 0)
		return LENS_OK;
	LENS_TRY(lens_h5_dataset_open(f, "/prompt", &d, err));
	if (d.rank == 1 && d.extent[0] <= INT32_MAX)
		out->n_rows = (int64_t)d.extent[0];
	lens_h5_dataset_close(&d);
	return LENS_OK;
}

/* A file must end where HDF5 says it ends; HDF5 itself refuses shorter ones. */
static enum lens_status check_end(const struct lens_h5_file *f, struct lens_error *err)
{
	if (f->io->end == f->io->size)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0,
			     "has %llu bytes, not the %llu that were written",
			     (unsigned long long)f->io->size, (unsigned long long)f->io->end);
}

static enum lens_status check_digest(const struct lens_h5_file *f, const char *want,
				     struct lens_error *err)
{
	struct lens_h5_list list = { .v = NULL };
	char hex[LENS_SHA256_HEX];
	enum lens_status st;

	if (!*want)
		return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0,
				     "not a file that h5lens finished: \"/\" has no digest");
	st = lens_h5_list(f, &list, err);
	if (st == LENS_OK)
		st = lens_h5_file_digest(f, &list, hex, err);
	lens_h5_list_release(&list);
	if (st == LENS_OK && strcmp(hex, want) != 0)
		st = lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0,
				   "names or attributes do not match the file's digest");
	return st;
}

static enum lens_status check_identity(const struct lens_h5_file *f, const char *identity,
				       struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	char *text;

	if (!identity)
		return LENS_OK;
	LENS_TRY(lens_h5_attr_text(f, f->id, "identity", &text, err));
	if (!text || strcmp(text, identity) != 0)
		st = lens_error_at(err, LENS_ERR_MISMATCH, f->io->path, 0, 0,
				   "is of another experiment");
	lens_free(text);
	return st;
}

static enum lens_status check(const char *file, const char *identity,
			      struct lens_shard_facts *out, struct lens_error *err)
{
	struct lens_h5_file f;
	enum lens_status st;

	LENS_TRY(lens_h5_open(file, &f, err));
	st = check_end(&f, err);
	if (st == LENS_OK)
		st = lens_h5_read_hash(&f, err);
	if (st == LENS_OK)
		st = lens_h5_shard_state(&f, out, err);
	if (st == LENS_OK)
		st = check_digest(&f, out->sha256, err);
	if (st == LENS_OK)
		st = check_identity(&f, identity, err);
	return lens_h5_finish(&f, st, err);
}

struct checks {
	const struct lens_shard_file *shard;
	size_t n;
	const char *identity;
};

struct checked {
	struct lens_error error;
	struct lens_shard_facts state;
};

static void check_in_child(void *ctx, int fd)
{
	const struct checks *c = ctx;
	struct checked m;
	size_t i;

	for (i = 0; i < c->n; i++) {
		memset(&m, 0, sizeof(m));
		m.error.code = check(c->shard[i].file, c->identity, &m.state, &m.error);
		if (!lens_child_send(fd, &m, sizeof(m)) || m.error.code != LENS_OK)
			return;
	}
}

enum lens_status lens_store_check_all(const struct lens_shard_file *shard, size_t n,
				      const char *identity, const atomic_int *stop,
				      struct lens_shard_facts *out, struct lens_error *err)
{
	struct checks c = { .shard = shard, .n = n, .identity = identity };
	enum lens_status st = LENS_OK;
	struct lens_child child;
	struct checked m;
	size_t i;

	LENS_TRY(lens_child_start(&child, check_in_child, &c, err));
	for (i = 0; i < n && st == LENS_OK; i++) {
		if (!lens_child_take(&child, stop, &m, sizeof(m))) {
			st = lens_child_failed(&child, stop, shard[i].file, err);
			break;
		}
		m.state.sha256[LENS_SHA256_HEX - 1] = '\0';
		st = lens_child_error(&m.error, err);
		if (st == LENS_OK && out)
			out[i] = m.state;
	}
	lens_child_kill(&child);
	return st;
}

enum lens_status lens_store_check(const char *file, const char *identity,
				  struct lens_shard_facts *out, struct lens_error *err)
{
	const struct lens_shard_file one = { .file = file };

	return lens_store_check_all(&one, 1, identity, NULL, out, err);
}
