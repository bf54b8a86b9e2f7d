/*
 * store/verify.c: the digests of a finished file, recomputed from the bytes on
 * the disk. What cannot be read counts as bad; the rest is still checked.
 */
#include <string.h>

#include "store_private.h"

/* As in dataset.c: no file of ours has more. */
#define MAX_CHUNKS ((hsize_t)1 << 24)

struct verify {
	struct lens_h5_file f;
	lens_verify_fn fn;
	void *ctx;
	size_t *n_datasets, *n_bad;
};

static void bad(struct verify *v, const char *path, const char *what)
{
	++*v->n_bad;
	if (v->fn)
		v->fn(v->ctx, path, what);
}

/* --- numbers --------------------------------------------------------------------- */

struct grid {
	hsize_t chunk[LENS_MAX_RANK], n[LENS_MAX_RANK], n_chunks;
	hsize_t chunk_bytes;
};

static enum lens_status odd(const struct lens_h5_file *f, struct lens_error *err,
			    const char *what)
{
	return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0, "%s", what);
}

static enum lens_status take_grid(const struct lens_h5_file *f, const struct lens_h5_dataset *d,
				  struct grid *g, struct lens_error *err)
{
	hid_t dcpl = H5Dget_create_plist(d->id);
	bool chunked = dcpl >= 0 && H5Pget_layout(dcpl) == H5D_CHUNKED &&
		       H5Pget_chunk(dcpl, LENS_MAX_RANK, g->chunk) == d->rank &&
		       H5Pget_nfilters(dcpl) == 0;
	int i;

	H5Pclose(dcpl);
	if (!chunked || d->dtype < 0 || d->dtype == LENS_STR || d->rank < 1)
		return odd(f, err, "not plain chunks of a type that we know");
	g->n_chunks = 1;
	g->chunk_bytes = lens_dtype_size((enum lens_dtype)d->dtype);
	for (i = 0; i < d->rank; i++) {
		if (!g->chunk[i])
			return odd(f, err, "empty chunks");
		g->n[i] = d->extent[i] / g->chunk[i] + (d->extent[i] % g->chunk[i] != 0);
		if (__builtin_mul_overflow(g->n_chunks, g->n[i], &g->n_chunks) ||
		    g->n_chunks > MAX_CHUNKS ||
		    __builtin_mul_overflow(g->chunk_bytes, g->chunk[i], &g->chunk_bytes) ||
		    g->chunk_bytes > UINT32_MAX)
			return odd(f, err, "impossible chunks");
	}
	return LENS_OK;
}

/* The digest of chunk number index, zeros when it was never written. */
static enum lens_status chunk_digest(const struct lens_h5_file *f,
				     const struct lens_h5_dataset *d, const struct grid *g,
				     hsize_t index, struct lens_buf *buf, uint8_t *digest,
				     struct lens_error *err)
{
	hsize_t offset[LENS_MAX_RANK], stored = 0;
	uint32_t filters = 0;
	int i;

	for (i = d->rank - 1; i >= 0; i--) {
		offset[i] = index % g->n[i] * g->chunk[i];
		index /= g->n[i];
	}
	memset(digest, 0, LENS_SHA256_BYTES);
	/*
	 * HDF5 1.10 fails for a chunk that was never written. A failure with
	 * another cause is not lost: the digest of zeros will not match.
	 */
	if (H5Dget_chunk_storage_size(d->id, offset, &stored) < 0)
		stored = 0;
	if (f->io->err)
		return lens_h5_fail(f->io, err, "find a chunk");
	if (!stored)
		return LENS_OK;
	if (stored != g->chunk_bytes || stored > f->io->size)
		return odd(f, err, "a chunk of the wrong size");
	if (H5Dread_chunk(d->id, H5P_DEFAULT, offset, &filters, buf->data) < 0)
		return lens_h5_fail(f->io, err, "read a chunk");
	return lens_sha256(buf->data, (size_t)stored, digest, err);
}

static enum lens_status hash_numbers(const struct lens_h5_file *f,
				     const struct lens_h5_dataset *d, struct lens_sha256 *h,
				     struct lens_error *err)
{
	struct lens_buf buf = LENS_BUF_INIT;
	uint8_t digest[LENS_SHA256_BYTES];
	enum lens_status st = LENS_OK;
	struct grid g;
	hsize_t i;

	LENS_TRY(take_grid(f, d, &g, err));
	/* A chunk larger than the file cannot have been written. */
	if (g.chunk_bytes <= f->io->size) {
		buf.data = lens_alloc_aligned((size_t)g.chunk_bytes, 1);
		if (!buf.data)
			return lens_error_nomem(err, (size_t)g.chunk_bytes, 1);
	}
	f->io->chunk_max = (size_t)g.chunk_bytes;
	for (i = 0; i < g.n_chunks && st == LENS_OK; i++) {
		st = chunk_digest(f, d, &g, i, &buf, digest, err);
		if (st == LENS_OK)
			st = lens_sha256_update(h, digest, sizeof(digest), err);
	}
	f->io->chunk_max = 0;
	lens_buf_release(&buf);
	return st;
}

/* --- one dataset ------------------------------------------------------------------- */

static enum lens_status hash_row(void *ctx, const char *str, struct lens_error *err)
{
	return lens_store_hash_string(ctx, str, err);
}

static enum lens_status recompute(const struct lens_h5_file *f, const struct lens_h5_dataset *d,
				  char hex[LENS_SHA256_HEX], struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	struct lens_sha256 *h;
	enum lens_status st;

	LENS_TRY(lens_sha256_create(&h, err));
	if (d->dtype == LENS_STR)
		st = lens_h5_strings(f, d, hash_row, h, err);
	else
		st = hash_numbers(f, d, h, err);
	if (st == LENS_OK)
		st = lens_sha256_final(h, digest, err);
	lens_sha256_destroy(h);
	if (st == LENS_OK)
		lens_hex(digest, sizeof(digest), hex);
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
				   const struct lens_h5_dataset *d, struct lens_error *err)
{
	char hex[LENS_SHA256_HEX], *want;
	enum lens_status st = LENS_OK;
	bool bare = false;

	LENS_TRY(lens_h5_attr_text(&v->f, d->id, "sha256", &want, err));
	if (!want)
		LENS_TRY(is_bare_scale(v, d->id, &bare, err));
	if (bare)
		return LENS_OK;
	++*v->n_datasets;
	if (!want) {
		bad(v, path, "it has no digest");
		return LENS_OK;
	}
	st = recompute(&v->f, d, hex, err);
	if (st == LENS_OK && strcmp(hex, want) != 0)
		bad(v, path, "its data does not match its digest");
	lens_free(want);
	return st;
}

/* Only lack of memory stops the verification. */
static enum lens_status check(struct verify *v, const char *path, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_h5_dataset d;
	size_t counted = *v->n_datasets;
	enum lens_status st;

	st = lens_h5_dataset_open(&v->f, path, &d, &why);
	if (st == LENS_OK) {
		st = check_open(v, path, &d, &why);
		lens_h5_dataset_close(&d);
	}
	if (st == LENS_ERR_NOMEM)
		return lens_error_set(err, st, "%s", why.text);
	if (st != LENS_OK) {
		*v->n_datasets = counted + 1;
		bad(v, path, why.text);
		v->f.io->err = 0; /* of this dataset only */
	}
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
	size_t i;

	LENS_TRY(lens_sha256_create(&a.h, err));
	st = lens_h5_walk_attrs(f, f->id, hash_attr, &a, err);
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
	++*v->n_datasets;
	st = lens_h5_file_digest(&v->f, list, hex, &why);
	if (st == LENS_OK && strcmp(hex, want) != 0)
		bad(v, "/", "names or attributes do not match the file's digest");
	lens_free(want);
	if (st == LENS_ERR_NOMEM)
		return lens_error_set(err, st, "%s", why.text);
	if (st != LENS_OK)
		bad(v, "/", why.text);
	return LENS_OK;
}

enum lens_status lens_store_verify(const char *file, lens_verify_fn fn, void *ctx,
				   size_t *n_datasets, size_t *n_bad, struct lens_error *err)
{
	struct verify v = { .fn = fn, .ctx = ctx, .n_datasets = n_datasets, .n_bad = n_bad };
	struct lens_h5_list list = { .v = NULL };
	enum lens_status st;
	size_t i;

	*n_datasets = *n_bad = 0;
	LENS_TRY(lens_h5_open(file, &v.f, err));
	st = lens_h5_list(&v.f, &list, err);
	if (st == LENS_OK)
		st = check_file(&v, &list, err);
	for (i = 0; i < list.n && st == LENS_OK; i++) {
		if (list.v[i].first == i)
			st = check(&v, list.v[i].path, err);
	}
	lens_h5_list_release(&list);
	lens_h5_close(&v.f);
	return st;
}
