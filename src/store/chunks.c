/*
 * store/chunks.c: the chunks of a numeric dataset, as stored. In: an open dataset of an
 * untrusted file. Out: its chunk grid, checked, the bytes of one chunk, and how the file's
 * chunks are hashed.
 */

#include <string.h>

#include "store/store_private.h"

/* As in dataset.c: our files have no more. */
#define MAX_CHUNKS ((hsize_t)1 << 24)

static enum lens_status odd(const struct lens_h5_file *f, struct lens_error *err,
			    const char *what)
{
	return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0, "%s", what);
}

enum lens_status lens_h5_read_grid(const struct lens_h5_file *f, struct lens_h5_dataset *d,
				   struct lens_error *err)
{
	struct lens_h5_grid *g = &d->grid;
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

void lens_h5_chunk_coord(const struct lens_h5_dataset *d, hsize_t index, hsize_t *coord)
{
	int i;

	for (i = d->rank - 1; i >= 0; i--) {
		coord[i] = index % d->grid.n[i];
		index /= d->grid.n[i];
	}
}

enum lens_status lens_h5_read_chunk(const struct lens_h5_file *f,
				    const struct lens_h5_dataset *d, hsize_t index, void *buf,
				    bool *written, struct lens_error *err)
{
	const struct lens_h5_grid *g = &d->grid;
	hsize_t offset[LENS_MAX_RANK], stored = 0;
	enum lens_status st = LENS_OK;
	uint32_t filters = 0;
	int i;

	lens_h5_chunk_coord(d, index, offset);
	for (i = 0; i < d->rank; i++)
		offset[i] *= g->chunk[i];
	f->io->chunk_max = (size_t)g->chunk_bytes;
	/*
	 * HDF5 1.10 fails for a chunk that was never written. A failure for another
	 * reason is noticed all the same: the digest of zeros will not match.
	 */
	if (H5Dget_chunk_storage_size(d->id, offset, &stored) < 0)
		stored = 0;
	*written = stored != 0;
	if (f->io->err)
		st = lens_h5_fail(f->io, err, "find a chunk");
	else if (stored && (stored != g->chunk_bytes || stored > f->io->size))
		st = odd(f, err, "a chunk of the wrong size");
	else if (stored && H5Dread_chunk(d->id, H5P_DEFAULT, offset, &filters, buf) < 0)
		st = lens_h5_fail(f->io, err, "read a chunk");
	f->io->chunk_max = 0;
	return st;
}

/* --- how chunks are hashed --------------------------------------------------------- */

static enum lens_status xxh3(const void *data, size_t n, uint8_t *out, struct lens_error *err)
{
	(void)err;
	lens_xxh3(data, n, out);
	return LENS_OK;
}

const struct lens_chunk_hash lens_chunk_xxh3 = { "xxh3-128", LENS_XXH3_BYTES, xxh3 };
static const struct lens_chunk_hash sha256 = { "sha256", LENS_SHA256_BYTES, lens_sha256 };

enum lens_status lens_h5_read_hash(struct lens_h5_file *f, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	char *name;

	LENS_TRY(lens_h5_attr_text(f, f->id, "digest", &name, err));
	if (!name || !strcmp(name, sha256.name)) /* files of schema 1 do not say */
		f->hash = &sha256;
	else if (!strcmp(name, lens_chunk_xxh3.name))
		f->hash = &lens_chunk_xxh3;
	else
		st = lens_error_at(err, LENS_ERR_UNSUPPORTED, f->io->path, 0, 0,
				   "its digests are '%.60s'; this version of h5lens knows %s "
				   "and %s",
				   name, lens_chunk_xxh3.name, sha256.name);
	lens_free(name);
	return st;
}

/* --- marks ------------------------------------------------------------------------- */

size_t lens_marks_step(size_t n_chunks)
{
	return n_chunks ? (n_chunks - 1) / LENS_MAX_MARKS + 1 : 1;
}

enum lens_status lens_marks_of(const uint8_t *digests, size_t n_chunks, uint32_t *marks,
			       size_t *n_marks, struct lens_error *err)
{
	size_t i, n, step = lens_marks_step(n_chunks);
	uint8_t sum[LENS_SHA256_BYTES];

	*n_marks = 0;
	for (i = 0; i < n_chunks; i += n) {
		n = lens_min(n_chunks - i, step);
		LENS_TRY(lens_sha256(digests + i * LENS_XXH3_BYTES, n * LENS_XXH3_BYTES, sum,
				     err));
		marks[(*n_marks)++] = (uint32_t)sum[0] << 24 | (uint32_t)sum[1] << 16 |
				      (uint32_t)sum[2] << 8 | sum[3];
	}
	return LENS_OK;
}
