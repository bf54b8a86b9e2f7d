/*
 * store/write.c: writes data to datasets, whole chunks and rows of strings, and the
 * digests of it.
 */
#include <string.h>

#include "store/store_private.h"

static enum lens_status refuse(const struct lens_store *s, const char *path, const char *what,
			       struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_INTERNAL, s->final, 0, 0, "dataset '%.600s': %s",
			     path, what);
}

static struct lens_store_dataset *dataset_of(struct lens_store *s, int id)
{
	return id >= 0 && (size_t)id < s->n_datasets ? &s->datasets[id] : NULL;
}

static enum lens_status write_chunk(struct lens_store *s, struct lens_store_dataset *d,
				    const struct lens_store_chunk *c, struct lens_error *err)
{
	hsize_t offset[LENS_MAX_RANK];
	size_t at = 0;
	int i;

	for (i = 0; i < d->rank; i++) {
		if (c->coord[i] >= d->grid[i])
			return refuse(s, d->path, "a chunk outside the grid", err);
		at = at * d->grid[i] + c->coord[i];
		offset[i] = (hsize_t)c->coord[i] * d->chunk[i];
	}
	if (d->written[at])
		return refuse(s, d->path, "a chunk written twice", err);
	if (H5Dwrite_chunk(d->id, H5P_DEFAULT, 0, offset, d->chunk_bytes, c->buf) < 0)
		return lens_h5_fail(s->io, err, "write a chunk of '%s'", d->path);
	memcpy(d->digests + at * LENS_XXH3_BYTES, c->digest, LENS_XXH3_BYTES);
	d->written[at] = 1;
	return LENS_OK;
}

enum lens_status lens_store_write_chunk(struct lens_store *s, int id,
					const struct lens_store_chunk *chunk,
					struct lens_error *err)
{
	struct lens_store_dataset *d = dataset_of(s, id);
	enum lens_status st;

	lens_h5_begin();
	if (!d || s->file < 0)
		st = refuse(s, "?", "no such dataset, or the file is finished", err);
	else if (d->virtual)
		st = refuse(s, d->path, "its data are in other files", err);
	else if (d->dtype == LENS_STR)
		st = refuse(s, d->path, "strings are not written as chunks", err);
	else if (chunk->nbytes != d->chunk_bytes)
		st = refuse(s, d->path, "the buffer is not exactly one chunk", err);
	else
		st = write_chunk(s, d, chunk, err);
	return lens_store_keep(s, st, err);
}

/* --- strings ------------------------------------------------------------------- */

enum lens_status lens_store_hash_string(struct lens_sha256 *h, const char *str,
					struct lens_error *err)
{
	if (!str)
		str = "";
	if (!lens_utf8_valid(str, strlen(str)))
		return lens_error_set(err, LENS_ERR_INVALID, "a string is not valid UTF-8");
	return lens_sha256_update(h, str, strlen(str) + 1, err);
}

static size_t row_strings(const struct lens_store_dataset *d)
{
	return d->rank == 2 ? d->extent[1] : 1;
}

static enum lens_status put_rows(struct lens_store *s, struct lens_store_dataset *d, size_t n,
				 const char *const *str, struct lens_error *err)
{
	hsize_t start[2] = { d->next_row, 0 }, count[2] = { n, row_strings(d) };
	enum lens_status st = LENS_OK;
	hid_t mem, space;
	size_t i;

	for (i = 0; i < n * row_strings(d); i++)
		LENS_TRY(lens_store_hash_string(d->strings, str[i], err));
	mem = H5Screate_simple(d->rank, count, NULL);
	space = H5Dget_space(d->id);
	if (mem < 0 || space < 0 ||
	    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
	    H5Dwrite(d->id, lens_h5_type(LENS_STR), mem, space, H5P_DEFAULT, str) < 0)
		st = lens_h5_fail(s->io, err, "write strings of '%s'", d->path);
	H5Sclose(space);
	H5Sclose(mem);
	if (st == LENS_OK)
		d->next_row += n;
	return st;
}

/* Writes "" for rows that were left out, so that all are in the file. */
static enum lens_status pad_rows(struct lens_store *s, struct lens_store_dataset *d,
				 size_t until, struct lens_error *err)
{
	size_t i, width = row_strings(d);
	const char **empty = lens_calloc(width, sizeof(*empty));
	enum lens_status st = LENS_OK;

	if (!empty)
		return lens_error_nomem(err, width, sizeof(*empty));
	for (i = 0; i < width; i++)
		empty[i] = "";
	while (st == LENS_OK && d->next_row < until)
		st = put_rows(s, d, 1, empty, err);
	lens_free(empty);
	return st;
}

static enum lens_status write_strings(struct lens_store *s, struct lens_store_dataset *d,
				      size_t row0, size_t n, const char *const *str,
				      struct lens_error *err)
{
	if (row0 < d->next_row || row0 > d->extent[0] || n > d->extent[0] - row0)
		return refuse(s, d->path, "rows out of order or past the end", err);
	LENS_TRY(pad_rows(s, d, row0, err));
	return n ? put_rows(s, d, n, str, err) : LENS_OK;
}

enum lens_status lens_store_write_strings(struct lens_store *s, int id, size_t row0, size_t n,
					  const char *const *str, struct lens_error *err)
{
	struct lens_store_dataset *d = dataset_of(s, id);
	enum lens_status st;

	lens_h5_begin();
	if (!d || s->file < 0)
		st = refuse(s, "?", "no such dataset, or the file is finished", err);
	else if (d->dtype != LENS_STR)
		st = refuse(s, d->path, "not a dataset of strings", err);
	else
		st = write_strings(s, d, row0, n, str, err);
	return lens_store_keep(s, st, err);
}

/* --- digests --------------------------------------------------------------------- */

static enum lens_status write_marks(struct lens_store *s, struct lens_store_dataset *d,
				    struct lens_error *err)
{
	uint32_t *marks = lens_calloc(LENS_MAX_MARKS, sizeof(*marks));
	hid_t space = H5I_INVALID_HID, attr = H5I_INVALID_HID;
	enum lens_status st;
	hsize_t extent;
	size_t n = 0;

	if (!marks)
		return lens_error_nomem(err, LENS_MAX_MARKS, sizeof(*marks));
	st = lens_marks_of(d->digests, d->n_chunks, marks, &n, err);
	extent = n;
	if (st == LENS_OK && n) {
		space = H5Screate_simple(1, &extent, NULL);
		attr = H5Acreate2(d->id, "chunk_marks", H5T_STD_U32LE, space, H5P_DEFAULT,
				  H5P_DEFAULT);
		if (attr < 0 || H5Awrite(attr, H5T_NATIVE_UINT32, marks) < 0)
			st = lens_h5_fail(s->io, err, "write the marks of '%s'", d->path);
		H5Aclose(attr);
		H5Sclose(space);
	}
	lens_free(marks);
	return st;
}

static enum lens_status write_digest(struct lens_store *s, struct lens_store_dataset *d,
				     struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	char hex[LENS_SHA256_HEX];

	if (d->virtual)
		return LENS_OK;
	if (d->dtype == LENS_STR) {
		LENS_TRY(pad_rows(s, d, d->extent[0], err));
		LENS_TRY(lens_sha256_final(d->strings, digest, err));
	} else {
		LENS_TRY(lens_sha256(d->digests, d->n_chunks * LENS_XXH3_BYTES, digest, err));
		LENS_TRY(write_marks(s, d, err));
	}
	lens_hex(digest, sizeof(digest), hex);
	return lens_h5_attr_str(s, d->id, "sha256", hex, err);
}

enum lens_status lens_store_write_digests(struct lens_store *s, struct lens_error *err)
{
	struct lens_h5_file f = { .io = s->io, .id = s->file };
	struct lens_h5_list list = { .v = NULL };
	char hex[LENS_SHA256_HEX];
	enum lens_status st;
	size_t i;

	for (i = 0; i < s->n_datasets; i++)
		LENS_TRY(write_digest(s, &s->datasets[i], err));
	LENS_TRY(lens_store_attr_str(s, "/", "digest", lens_chunk_xxh3.name, err));
	st = lens_h5_list(&f, &list, err);
	if (st == LENS_OK)
		st = lens_h5_file_digest(&f, &list, hex, err);
	if (st == LENS_OK)
		st = lens_store_attr_str(s, "/", "sha256", hex, err);
	lens_h5_list_release(&list);
	return st;
}
