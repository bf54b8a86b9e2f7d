/*
 * store/vector.c: a vector from a stranger's HDF5 file, as h5py and others write them. In: a
 * file, a data set in it; out: its numbers as float64. HDF5 reads it in a child process.
 */
#include <string.h>

#include "h5lens/sys.h"
#include "store/store_private.h"

#define LARGEST_READ ((size_t)64 << 20) /* a chunk that the vector is in */

struct query {
	const char *file, *path;
};

static enum lens_status odd(const struct query *q, const char *what, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, q->file, 0, 0, "dataset '%.600s': %s",
			     q->path, what);
}

/* Are its numbers real ones, and in this file? HDF5 would open any other that it names. */
static enum lens_status check_kind(const struct query *q, hid_t dataset, struct lens_error *err)
{
	hid_t type = H5Dget_type(dataset), dcpl = H5Dget_create_plist(dataset);
	bool real = H5Tget_class(type) == H5T_FLOAT;
	bool here = dcpl >= 0 && H5Pget_layout(dcpl) != H5D_VIRTUAL &&
		    (H5Pget_layout(dcpl) != H5D_CONTIGUOUS || !H5Pget_external_count(dcpl));

	H5Tclose(type);
	H5Pclose(dcpl);
	if (!real)
		return odd(q, "not floating-point numbers", err);
	return here ? LENS_OK : odd(q, "its data are in other files", err);
}

/* [n] or [1, n], not too long */
static enum lens_status check_shape(const struct query *q, const struct lens_h5_dataset *d,
				    struct lens_error *err)
{
	if (d->rank < 1 || d->rank > 2 || (d->rank == 2 && d->extent[0] != 1))
		return odd(q, "not a vector: its shape must be [n] or [1, n]", err);
	return d->extent[d->rank - 1] <= LENS_VECTOR_MAX ? LENS_OK : odd(q, "too long", err);
}

static enum lens_status read_numbers(const struct query *q, struct lens_h5_file *f,
				     const struct lens_h5_dataset *d, struct lens_buf *out,
				     struct lens_error *err)
{
	size_t n;
	double *v;
	enum lens_status st;

	LENS_TRY(check_kind(q, d->id, err));
	LENS_TRY(check_shape(q, d, err));
	n = (size_t)d->extent[d->rank - 1];
	v = lens_calloc(n, sizeof(*v));
	if (!v)
		return lens_error_nomem(err, n, sizeof(*v));
	f->io->chunk_max = LARGEST_READ;
	if (n && H5Dread(d->id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) < 0)
		st = lens_h5_fail(f->io, err, "read '%s'", q->path);
	else
		st = lens_buf_append(out, v, n * sizeof(*v), err);
	f->io->chunk_max = 0;
	lens_free(v);
	return st;
}

static enum lens_status read_in_child(void *ctx, struct lens_buf *out, struct lens_error *err)
{
	const struct query *q = ctx;
	struct lens_h5_dataset d;
	struct lens_h5_file f;
	enum lens_status st;

	LENS_TRY(lens_h5_open(q->file, &f, err));
	st = lens_h5_dataset_open(&f, q->path, &d, err);
	if (st == LENS_OK) {
		st = read_numbers(q, &f, &d, out, err);
		lens_h5_dataset_close(&d);
	}
	return lens_h5_finish(&f, st, err);
}

enum lens_status lens_store_read_vector(const char *file, const char *path, double **out,
					size_t *n, struct lens_error *err)
{
	struct query q = { file, path };
	const struct lens_child_job job = { .fn = read_in_child, .ctx = &q, .file = file };
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = lens_child_call(&job, &b, err);

	*out = NULL;
	*n = b.len / sizeof(**out);
	if (st == LENS_OK) {
		*out = lens_calloc(*n, sizeof(**out));
		if (!*out)
			st = lens_error_nomem(err, *n, sizeof(**out));
		else if (*n)
			memcpy(*out, b.data, *n * sizeof(**out));
	}
	lens_buf_release(&b);
	return st;
}
