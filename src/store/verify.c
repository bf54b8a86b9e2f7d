/*
 * store/verify.c: recomputes the digests of a finished file from the bytes on the disk.
 * What cannot be read counts as bad; the rest is still checked.
 */
#include <stdio.h>
#include <string.h>

#include "store/verify_private.h"

struct verify {
	struct lens_h5_file f;
	const struct lens_verify_file *vf;
	struct lens_verify_sink *sink;
	bool joined;
};

void lens_verify_bad(struct lens_verify_sink *sink, const char *label, const char *dataset,
		     const char *what)
{
	sink->n_bad++;
	if (sink->bad)
		sink->bad(sink->ctx, label, dataset, what);
}

static void bad(struct verify *v, const char *path, const char *what)
{
	lens_verify_bad(v->sink, v->vf->label, path, what);
}

static enum lens_status odd(const struct lens_h5_file *f, struct lens_error *err,
			    const char *what)
{
	return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0, "%s", what);
}

/* --- numbers --------------------------------------------------------------------- */

/* Computed for a dataset: its digest, and marks that show where it differs. */
struct found {
	char hex[LENS_SHA256_HEX];
	uint32_t *marks; /* [2 * most_marks]; the second half is for the stored ones */
	size_t n_marks, most_marks; /* 0: strings */
};

/* A dataset of numbers while it is hashed. */
struct hashing {
	const struct lens_h5_file *f;
	const struct lens_h5_dataset *d;
	struct found *found;
	struct lens_sha256 *h;
	void *buf; /* room for a chunk */
};

/* The digest of chunk number index; zeros if it was never written. */
static enum lens_status chunk_digest(const struct hashing *w, hsize_t index, uint8_t *digest,
				     struct lens_error *err)
{
	const struct lens_chunk_hash *hash = w->f->hash;
	bool written;

	memset(digest, 0, hash->bytes);
	LENS_TRY(lens_h5_read_chunk(w->f, w->d, index, w->buf, &written, err));
	return written ? hash->of(w->buf, (size_t)w->d->grid.chunk_bytes, digest, err)
		       : LENS_OK;
}

/* Adds the digests of the chunks that share one mark to h and to the marks. */
static enum lens_status hash_group(const struct hashing *w, hsize_t first, hsize_t n,
				   struct lens_error *err)
{
	size_t bytes = w->f->hash->bytes;
	uint8_t *digests = lens_calloc((size_t)n, bytes), sum[LENS_SHA256_BYTES];
	enum lens_status st = LENS_OK;
	uint32_t mark = 0;
	hsize_t i;

	if (!digests)
		return lens_error_nomem(err, (size_t)n, bytes);
	for (i = 0; i < n && st == LENS_OK; i++)
		st = chunk_digest(w, first + i, digests + i * bytes, err);
	if (st == LENS_OK)
		st = lens_sha256_update(w->h, digests, (size_t)n * bytes, err);
	if (st == LENS_OK)
		st = lens_sha256(digests, (size_t)n * bytes, sum, err);
	if (st == LENS_OK) {
		for (i = 0; i < 4; i++)
			mark = mark << 8 | sum[i];
		w->found->marks[w->found->n_marks++] = mark;
	}
	lens_free(digests);
	return st;
}

static enum lens_status hash_numbers(const struct lens_h5_file *f, struct lens_h5_dataset *d,
				     struct found *found, struct lens_sha256 *h,
				     struct lens_error *err)
{
	struct hashing w = { .f = f, .d = d, .found = found, .h = h };
	const struct lens_h5_grid *g = &d->grid;
	enum lens_status st = LENS_OK;
	hsize_t i, n;
	size_t step;

	LENS_TRY(lens_h5_read_grid(f, d, err));
	step = lens_marks_step((size_t)g->n_chunks);
	found->most_marks = (size_t)(g->n_chunks + step - 1) / step;
	found->marks = lens_calloc(2 * found->most_marks, sizeof(*found->marks));
	if (!found->marks)
		return lens_error_nomem(err, 2 * found->most_marks, sizeof(*found->marks));
	/* A chunk larger than the file cannot have been written. */
	if (g->chunk_bytes <= f->io->size) {
		w.buf = lens_alloc_aligned((size_t)g->chunk_bytes, 1);
		if (!w.buf)
			return lens_error_nomem(err, (size_t)g->chunk_bytes, 1);
	}
	for (i = 0; i < g->n_chunks && st == LENS_OK; i += n) {
		n = g->n_chunks - i < step ? g->n_chunks - i : step;
		st = hash_group(&w, i, n, err);
	}
	lens_free(w.buf);
	return st;
}

/* --- one dataset ------------------------------------------------------------------- */

static enum lens_status hash_row(void *ctx, const char *str, struct lens_error *err)
{
	if (!lens_utf8_valid(str, strlen(str)))
		return lens_error_set(err, LENS_ERR_FORMAT, "a string is not valid UTF-8");
	return lens_store_hash_string(ctx, str, err);
}

static enum lens_status recompute(const struct lens_h5_file *f, struct lens_h5_dataset *d,
				  struct found *found, struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	struct lens_sha256 *h;
	enum lens_status st;

	LENS_TRY(lens_sha256_create(&h, err));
	if (d->dtype == LENS_STR)
		st = lens_h5_strings(f, d, hash_row, h, err);
	else
		st = hash_numbers(f, d, found, h, err);
	if (st == LENS_OK)
		st = lens_sha256_final(h, digest, err);
	lens_sha256_destroy(h);
	if (st == LENS_OK)
		lens_hex(digest, sizeof(digest), found->hex);
	return st;
}

/* Reads the stored marks; false unless there are n of them. */
static bool stored_marks(hid_t id, uint32_t *marks, size_t n)
{
	hid_t attr = H5I_INVALID_HID, space, type;
	bool ok;

	if (!n || H5Aexists(id, "chunk_marks") <= 0)
		return false;
	attr = H5Aopen(id, "chunk_marks", H5P_DEFAULT);
	space = H5Aget_space(attr);
	type = H5Aget_type(attr);
	ok = attr >= 0 && H5Sget_simple_extent_npoints(space) == (hssize_t)n &&
	     H5Tequal(type, H5T_STD_U32LE) > 0 && H5Aread(attr, H5T_NATIVE_UINT32, marks) >= 0;
	H5Tclose(type);
	H5Sclose(space);
	H5Aclose(attr);
	return ok;
}

static void format_coord(const struct lens_h5_dataset *d, hsize_t index, char *out, size_t size)
{
	hsize_t coord[LENS_MAX_RANK];
	size_t at = 0;
	int i;

	lens_h5_chunk_coord(d, index, coord);
	for (i = 0; i < d->rank && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%llu", i ? "," : "[",
				       (unsigned long long)coord[i]);
	if (at < size)
		snprintf(out + at, size - at, "]");
}

#define MOST_CHUNKS_NAMED 8

/* Reports each chunk that differs; none if the marks do not show it. */
static size_t report_chunks(struct verify *v, const char *path, const struct lens_h5_dataset *d,
			    const struct found *found, const uint32_t *stored)
{
	hsize_t step = lens_marks_step((size_t)d->grid.n_chunks), last;
	char first_chunk[120], last_chunk[120], what[400];
	size_t i, n = 0;

	for (i = 0; i < found->n_marks; i++) {
		if (stored[i] == found->marks[i] || n++ >= MOST_CHUNKS_NAMED)
			continue;
		last = i * step + step < d->grid.n_chunks ? i * step + step : d->grid.n_chunks;
		format_coord(d, i * step, first_chunk, sizeof(first_chunk));
		format_coord(d, last - 1, last_chunk, sizeof(last_chunk));
		snprintf(what, sizeof(what), "chunk %s%s%s does not match its digest",
			 first_chunk, step > 1 ? " to " : "", step > 1 ? last_chunk : "");
		if (v->sink->bad)
			v->sink->bad(v->sink->ctx, v->vf->label, path, what);
	}
	if (n > MOST_CHUNKS_NAMED && v->sink->bad) {
		snprintf(what, sizeof(what), "%zu more chunks do not match their digests",
			 n - MOST_CHUNKS_NAMED);
		v->sink->bad(v->sink->ctx, v->vf->label, path, what);
	}
	v->sink->n_bad += n > 0; /* datasets are counted */
	return n;
}

static enum lens_status compare(struct verify *v, const char *path, struct lens_h5_dataset *d,
				const char *want, struct lens_error *err)
{
	struct found found = { .marks = NULL };
	enum lens_status st = recompute(&v->f, d, &found, err);
	uint32_t *stored = found.marks ? found.marks + found.most_marks : NULL;

	if (st == LENS_OK && strcmp(found.hex, want) != 0 &&
	    (!stored_marks(d->id, stored, found.n_marks) ||
	     !report_chunks(v, path, d, &found, stored)))
		bad(v, path, "its data does not match its digest");
	lens_free(found.marks);
	return st;
}

/* Is it a scale of a dimension without labels, which holds no data? */
static enum lens_status is_bare_scale(struct verify *v, hid_t id, bool *yes,
				      struct lens_error *err)
{
	char *class;

	LENS_TRY(lens_h5_attr_text(&v->f, id, "CLASS", &class, err));
	*yes = class && !strcmp(class, "DIMENSION_SCALE");
	lens_free(class);
	return LENS_OK;
}

static enum lens_status check_open(struct verify *v, const char *path,
				   struct lens_h5_dataset *d, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	bool bare = false;
	char *want;

	if (lens_h5_is_virtual(d->id)) {
		if (!v->joined) {
			v->sink->n_datasets++;
			bad(v, path, "it is virtual, and the file names no shards");
		}
		return LENS_OK;
	}

	LENS_TRY(lens_h5_attr_text(&v->f, d->id, "sha256", &want, err));
	if (!want)
		LENS_TRY(is_bare_scale(v, d->id, &bare, err));
	if (bare)
		return LENS_OK;
	v->sink->n_datasets++;
	if (!want) {
		bad(v, path, "it has no digest");
		return LENS_OK;
	}
	st = compare(v, path, d, want, err);
	lens_free(want);
	return st;
}

/* An error that is not damage ends the verification. */
static enum lens_status check(struct verify *v, const char *path, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_h5_dataset d;
	size_t counted = v->sink->n_datasets;
	enum lens_status st;

	if (v->sink->begin)
		v->sink->begin(v->sink->ctx, v->vf->label, path);
	st = lens_h5_dataset_open(&v->f, path, &d, &why);
	if (st == LENS_OK) {
		st = check_open(v, path, &d, &why);
		lens_h5_dataset_close(&d);
	}
	if (lens_h5_system_failed(v->f.io) || st == LENS_OK)
		return LENS_OK; /* lens_h5_finish reports it */
	if (st != LENS_ERR_FORMAT)
		return lens_error_pass(err, &why);
	v->sink->n_datasets = counted + 1;
	bad(v, path, why.text);
	return LENS_OK;
}

/* --- the file ------------------------------------------------------------------------ */

struct attr_hash {
	struct lens_sha256 *h;
	bool root;
};

static enum lens_status hash_attr(void *ctx, const char *name, const char *value,
				  struct lens_error *err)
{
	struct attr_hash *a = ctx;

	if (a->root && !strcmp(name, "sha256"))
		return LENS_OK;
	LENS_TRY(lens_sha256_update(a->h, name, strlen(name) + 1, err));
	return lens_sha256_update(a->h, value, strlen(value) + 1, err);
}

static enum lens_status hash_entry(const struct lens_h5_file *f,
				   const struct lens_h5_list *list, size_t i,
				   struct lens_sha256 *h, struct lens_error *err)
{
	const char *path = list->v[i].path, *first = list->v[list->v[i].first].path;
	struct attr_hash a = { .h = h, .root = false };
	enum lens_status st;
	hid_t id;

	LENS_TRY(lens_sha256_update(h, path, strlen(path) + 1, err));
	LENS_TRY(lens_sha256_update(h, first, strlen(first) + 1, err));
	if (list->v[i].first != i)
		return LENS_OK;
	id = H5Oopen(f->id, path, H5P_DEFAULT);
	if (id < 0)
		return lens_h5_fail(f->io, err, "open '%s'", path);
	st = lens_h5_walk_attrs(f, id, hash_attr, &a, err);
	H5Oclose(id);
	return st;
}

enum lens_status lens_h5_file_digest(const struct lens_h5_file *f,
				     const struct lens_h5_list *list, char hex[LENS_SHA256_HEX],
				     struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	struct attr_hash a = { .root = true };
	enum lens_status st;
	H5O_info_t info;
	size_t i;

	LENS_TRY(lens_sha256_create(&a.h, err));
	/* For the others, the list has done this. */
	st = H5Oget_info2(f->id, &info, H5O_INFO_ALL) < 0
		     ? lens_h5_fail(f->io, err, "look at '/'")
		     : lens_h5_walk_attrs(f, f->id, hash_attr, &a, err);
	for (i = 0; i < list->n && st == LENS_OK; i++)
		st = hash_entry(f, list, i, a.h, err);
	if (st == LENS_OK)
		st = lens_sha256_final(a.h, digest, err);
	lens_sha256_destroy(a.h);
	if (st == LENS_OK)
		lens_hex(digest, sizeof(digest), hex);
	return st;
}

static enum lens_status check_file(struct verify *v, const struct lens_h5_list *list,
				   struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	char hex[LENS_SHA256_HEX], *want;
	enum lens_status st;
	hid_t root;

	root = H5Gopen2(v->f.id, "/", H5P_DEFAULT);
	st = lens_h5_attr_text(&v->f, root, "sha256", &want, err);
	H5Gclose(root);
	LENS_TRY(st);
	if (!want)
		return odd(&v->f, err, "not a file that h5lens finished: \"/\" has no digest");
	v->sink->n_datasets++;
	st = lens_h5_file_digest(&v->f, list, hex, &why);
	if (st == LENS_OK && strcmp(hex, want) != 0)
		bad(v, "/", "names or attributes do not match the file's digest");
	else if (st == LENS_OK && v->vf->sha256 && strcmp(want, v->vf->sha256) != 0)
		bad(v, "/", "it is not the file that was joined");
	lens_free(want);
	if (st != LENS_OK && st != LENS_ERR_FORMAT)
		return lens_error_pass(err, &why);
	if (st != LENS_OK)
		bad(v, "/", why.text);
	return LENS_OK;
}

enum lens_status lens_verify_part(const struct lens_verify_file *vf, size_t part,
				  size_t n_parts, struct lens_verify_sink *sink,
				  struct lens_error *err)
{
	struct verify v = { .vf = vf, .sink = sink };
	struct lens_h5_list list = { .v = NULL };
	enum lens_status st;
	size_t i;

	if (sink->begin)
		sink->begin(sink->ctx, vf->label, "/");
	LENS_TRY(lens_h5_open(vf->file, &v.f, err));
	v.joined = !vf->label && H5Lexists(v.f.id, "shards", H5P_DEFAULT) > 0;
	sink->joined = sink->joined || v.joined;
	st = lens_h5_read_hash(&v.f, err);
	if (st == LENS_OK)
		st = lens_h5_list(&v.f, &list, err);
	if (st == LENS_OK && part == 0)
		st = check_file(&v, &list, err);
	for (i = part; i < list.n && st == LENS_OK && !v.f.io->err; i += n_parts) {
		if (list.v[i].first == i)
			st = check(&v, list.v[i].path, err);
	}
	lens_h5_list_release(&list);
	return lens_h5_finish(&v.f, st, err);
}
