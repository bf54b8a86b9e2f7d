/*
 * store/read.c: opens a file and reads whole datasets back. Nothing in a file is trusted:
 * ranks, extents and types are checked before use.
 */
#include <string.h>

#include "store/gheap_private.h"
#include "store/store_private.h"

/* lens_store_read_f64 is for tables and tests, not for whole caches. */
#define MAX_ELEMENTS ((hsize_t)1 << 31)
#define MOST_UNSTORED ((hsize_t)1 << 22) /* elements that need not be stored at all */

enum lens_status lens_h5_open(const char *path, struct lens_h5_file *f, struct lens_error *err)
{
	enum lens_status st;
	hid_t fapl;

	lens_h5_begin();
	LENS_TRY(lens_io_open(path, &f->io, err));
	fapl = lens_h5_fapl(f->io);
	f->id = fapl < 0 ? H5I_INVALID_HID : H5Fopen(path, H5F_ACC_RDONLY, fapl);
	if (f->id < 0) {
		if (!lens_h5_system_failed(f->io) && !lens_store_is_hdf5(path))
			st = lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
					   "is not an HDF5 file, or its beginning is damaged");
		else
			st = lens_h5_fail(f->io, err, "open it as an HDF5 file");
		H5Pclose(fapl);
		lens_io_release(f->io);
		return st;
	}
	H5Pclose(fapl);
	return LENS_OK;
}

void lens_h5_close(struct lens_h5_file *f)
{
	H5Fclose(f->id);
	lens_io_release(f->io);
}

enum lens_status lens_h5_finish(struct lens_h5_file *f, enum lens_status st,
				struct lens_error *err)
{
	if (lens_h5_system_failed(f->io)) {
		if (err)
			err->code = LENS_OK;
		st = lens_error_sys(err, f->io->err, f->io->path, f->io->op);
	}
	lens_h5_close(f);
	return st;
}

static enum lens_status odd(const struct lens_h5_file *f, const char *path, const char *what,
			    struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0, "dataset '%.600s': %s",
			     path, what);
}

enum lens_status lens_h5_dataset_open(const struct lens_h5_file *f, const char *path,
				      struct lens_h5_dataset *d, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	hid_t type;

	*d = (struct lens_h5_dataset){ .space = H5I_INVALID_HID, .dtype = -1 };
	d->id = H5Dopen2(f->id, path, H5P_DEFAULT);
	if (d->id < 0)
		return lens_h5_fail(f->io, err, "open the dataset '%s'", path);
	type = H5Dget_type(d->id);
	d->space = H5Dget_space(d->id);
	if (type < 0 || d->space < 0)
		st = lens_h5_fail(f->io, err, "read the shape of '%s'", path);
	if (st == LENS_OK) {
		d->dtype = lens_h5_dtype(type);
		d->rank = H5Sget_simple_extent_ndims(d->space);
		if (d->rank < 0 || d->rank > LENS_MAX_RANK)
			st = odd(f, path, "more axes than we know", err);
	}
	if (st == LENS_OK && H5Sget_simple_extent_dims(d->space, d->extent, NULL) < 0)
		st = lens_h5_fail(f->io, err, "read the shape of '%s'", path);
	H5Tclose(type);
	if (st != LENS_OK)
		lens_h5_dataset_close(d);
	return st;
}

void lens_h5_dataset_close(struct lens_h5_dataset *d)
{
	H5Sclose(d->space);
	H5Dclose(d->id);
}

static H5D_layout_t layout_of(hid_t dataset)
{
	hid_t dcpl = H5Dget_create_plist(dataset);
	H5D_layout_t layout = dcpl < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(dcpl);

	H5Pclose(dcpl);
	return layout;
}

bool lens_h5_is_virtual(hid_t dataset)
{
	return layout_of(dataset) == H5D_VIRTUAL;
}

static enum lens_status read_f64(const struct lens_h5_file *f, const char *path,
				 const struct lens_h5_dataset *d, double **out,
				 struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	hsize_t n = 1;
	int i;

	if (d->dtype < 0 || d->dtype == LENS_STR)
		return odd(f, path, "not numbers of a type that we know", err);
	/* HDF5 would open any file that it names, and fill in what is missing. */
	if (layout_of(d->id) == H5D_VIRTUAL)
		return odd(f, path, "its data are in the shards", err);
	if (layout_of(d->id) != H5D_CHUNKED)
		return odd(f, path, "not chunks as h5lens writes them", err);
	for (i = 0; i < d->rank; i++) {
		if (__builtin_mul_overflow(n, d->extent[i], &n) || n > MAX_ELEMENTS)
			return odd(f, path, "too large to be read at once", err);
	}
	/* Only chunks of padding are not stored, so a much larger extent must be wrong. */
	if (n > MOST_UNSTORED && n / 256 > H5Dget_storage_size(d->id))
		return odd(f, path, "far larger than what is stored of it", err);
	*out = lens_calloc((size_t)n, sizeof(**out));
	if (!*out)
		return lens_error_nomem(err, (size_t)n, sizeof(**out));
	f->io->chunk_max = SIZE_MAX;
	if (n && H5Dread(d->id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, *out) < 0)
		st = lens_h5_fail(f->io, err, "read '%s'", path);
	f->io->chunk_max = 0;
	return st;
}

enum lens_status lens_store_read_f64(const char *file, const char *path, double **out,
				     int *rank, size_t *extent, struct lens_error *err)
{
	struct lens_h5_dataset d;
	struct lens_h5_file f;
	enum lens_status st;
	int i;

	*out = NULL;
	LENS_TRY(lens_h5_open(file, &f, err));
	st = lens_h5_dataset_open(&f, path, &d, err);
	if (st == LENS_OK) {
		st = read_f64(&f, path, &d, out, err);
		*rank = d.rank;
		for (i = 0; i < d.rank; i++)
			extent[i] = (size_t)d.extent[i];
		lens_h5_dataset_close(&d);
	}
	st = lens_h5_finish(&f, st, err);
	if (st != LENS_OK) {
		lens_free(*out);
		*out = NULL;
	}
	return st;
}

/* Where strings come from, and where they go. */
struct string_flow {
	struct lens_gheap *heap;
	lens_h5_string_fn fn;
	void *ctx;
};

/* The rows of one chunk, whose references are in refs. */
static enum lens_status chunk_strings(const struct string_flow *s, const uint8_t *refs,
				      hsize_t n, struct lens_error *err)
{
	const char *str;
	hsize_t i;

	for (i = 0; i < n; i++, refs += LENS_GHEAP_REF_BYTES) {
		LENS_TRY(lens_gheap_string(s->heap, refs, &str, err));
		LENS_TRY(s->fn(s->ctx, str, err));
	}
	return LENS_OK;
}

/* Of the chunks that rows[0] … rows[0] + rows[1] − 1 lie in, those rows. */
static enum lens_status all_strings(const struct lens_h5_file *f,
				    const struct lens_h5_dataset *d, const hsize_t *chunk,
				    const hsize_t *rows, const struct string_flow *s,
				    struct lens_error *err)
{
	hsize_t row[2] = { rows[0] - rows[0] % chunk[0], 0 }, end = rows[0] + rows[1], n, skip,
		stored, bytes = chunk[0] * chunk[1] * LENS_GHEAP_REF_BYTES;
	uint8_t *refs = lens_calloc((size_t)bytes, 1);
	enum lens_status st = LENS_OK;
	uint32_t filters;

	if (!refs)
		return lens_error_nomem(err, (size_t)bytes, 1);
	for (; row[0] < end && st == LENS_OK; row[0] += chunk[0]) {
		n = end - row[0] < chunk[0] ? end - row[0] : chunk[0];
		skip = row[0] < rows[0] ? rows[0] - row[0] : 0;
		if (H5Dget_chunk_storage_size(d->id, row, &stored) < 0 || stored != bytes ||
		    H5Dread_chunk(d->id, H5P_DEFAULT, row, &filters, refs) < 0)
			st = lens_h5_fail(f->io, err, "read strings");
		else
			st = chunk_strings(s, refs + skip * chunk[1] * LENS_GHEAP_REF_BYTES,
					   (n - skip) * chunk[1], err);
	}
	lens_free(refs);
	return st;
}

/*
 * Our files store all rows, so extents and chunks that do not fit in the file must be
 * wrong.
 */
enum lens_status lens_h5_string_rows(const struct lens_h5_file *f,
				     const struct lens_h5_dataset *d, const hsize_t rows[2],
				     struct lens_h5_string_sink to, struct lens_error *err)
{
	hid_t dcpl = H5Dget_create_plist(d->id);
	hsize_t chunk[2] = { 0, 1 }, most = f->io->size / LENS_GHEAP_REF_BYTES;
	struct string_flow s = { .fn = to.fn, .ctx = to.ctx };
	enum lens_status st;
	bool plain;

	plain = d->dtype == LENS_STR && (d->rank == 1 || d->rank == 2) && dcpl >= 0 &&
		H5Pget_layout(dcpl) == H5D_CHUNKED && H5Pget_nfilters(dcpl) == 0 &&
		H5Pget_chunk(dcpl, d->rank, chunk) == d->rank &&
		(d->rank == 1 || chunk[1] == d->extent[1]);
	H5Pclose(dcpl);
	if (plain && !rows[1])
		return LENS_OK;
	if (!plain || !chunk[0] || !chunk[1] || chunk[0] > most / chunk[1] ||
	    d->extent[0] > most)
		return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0,
				     "not a list of strings as h5lens writes them");
	LENS_TRY(lens_gheap_create(f->io, &s.heap, err));
	f->io->chunk_max = (size_t)(chunk[0] * chunk[1]) * LENS_GHEAP_REF_BYTES;
	st = all_strings(f, d, chunk, rows, &s, err);
	f->io->chunk_max = 0;
	lens_gheap_destroy(s.heap);
	return st;
}

enum lens_status lens_h5_strings(const struct lens_h5_file *f, const struct lens_h5_dataset *d,
				 lens_h5_string_fn fn, void *ctx, struct lens_error *err)
{
	const hsize_t all[2] = { 0, d->rank > 0 ? d->extent[0] : 0 };

	return lens_h5_string_rows(f, d, all, (struct lens_h5_string_sink){ fn, ctx }, err);
}

struct string_list {
	char **v;
	size_t n;
};

static enum lens_status keep_string(void *ctx, const char *str, struct lens_error *err)
{
	struct string_list *list = ctx;

	list->v[list->n] = lens_strdup(str);
	if (!list->v[list->n])
		return lens_error_nomem(err, strlen(str) + 1, 1);
	list->n++;
	return LENS_OK;
}

static enum lens_status read_strings(const struct lens_h5_file *f, const char *path,
				     struct string_list *list, struct lens_error *err)
{
	struct lens_h5_dataset d;
	enum lens_status st;

	LENS_TRY(lens_h5_dataset_open(f, path, &d, err));
	if (d.rank != 1 || d.extent[0] > f->io->size / 16) {
		st = odd(f, path, "not a list of strings", err);
	} else {
		list->v = lens_calloc((size_t)d.extent[0], sizeof(*list->v));
		if (!list->v)
			st = lens_error_nomem(err, (size_t)d.extent[0], sizeof(*list->v));
		else
			st = lens_h5_strings(f, &d, keep_string, list, err);
	}
	lens_h5_dataset_close(&d);
	return st;
}

enum lens_status lens_store_read_strings(const char *file, const char *path, char ***out,
					 size_t *n, struct lens_error *err)
{
	struct string_list list = { .v = NULL };
	struct lens_h5_file f;
	enum lens_status st;

	*out = NULL;
	*n = 0;
	LENS_TRY(lens_h5_open(file, &f, err));
	st = lens_h5_finish(&f, read_strings(&f, path, &list, err), err);
	if (st == LENS_OK) {
		*out = list.v;
		*n = list.n;
		return LENS_OK;
	}
	while (list.n)
		lens_free(list.v[--list.n]);
	lens_free(list.v);
	return st;
}
