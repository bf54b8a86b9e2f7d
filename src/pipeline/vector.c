/*
 * pipeline/vector.c: the vector that steers. In: steer.vector, a file and perhaps a data set
 * in it; out: as many float32 numbers as the hook point is wide, and their digest.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

#define NPY_MOST (LENS_VECTOR_MAX * sizeof(double) + (64u << 10))

enum lens_status lens_vector_file(const char *where, char **file, const char **path,
				  struct lens_error *err)
{
	const char *colon = NULL, *s;

	for (s = where; (s = strstr(s, ":/")) != NULL; s++)
		colon = s;
	*path = colon ? colon + 1 : NULL;
	*file = lens_strdup(where);
	if (!*file)
		return lens_error_nomem(err, strlen(where) + 1, 1);
	if (colon)
		(*file)[colon - where] = '\0';
	return LENS_OK;
}

static enum lens_status read_npy(const char *file, double **v, size_t *n,
				 struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	if (lens_store_is_hdf5(file))
		return lens_error_at(err, LENS_ERR_INVALID, file, 0, 0,
				     "say which data set of this HDF5 file it is, as in "
				     "file.h5:/path/in/it");
	st = lens_file_read(file, NPY_MOST, &b, err);
	if (st == LENS_OK)
		st = lens_npy_vector(file, b.data, b.len, v, n, err);
	lens_buf_release(&b);
	return st;
}

static enum lens_status take(const char *where, const double *v, size_t n, float *out,
			     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < n; i++) {
		out[i] = (float)v[i];
		if (!isfinite(out[i]))
			return lens_error_set(
				err, LENS_ERR_FORMAT,
				"steer.vector: number %zu of %.400s is not finite "
				"as float32: %g",
				i, where, v[i]);
	}
	return LENS_OK;
}

static enum lens_status convert(const char *where, const double *v, size_t n, size_t width,
				struct lens_vector *out, struct lens_error *err)
{
	if (n != width)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "steer.vector: %.400s has %zu numbers; steer.hook is %zu "
				      "wide",
				      where, n, width);
	out->v = lens_alloc_aligned(n, sizeof(float));
	if (!out->v)
		return lens_error_nomem(err, n, sizeof(float));
	LENS_TRY(take(where, v, n, out->v, err));
	return lens_sha256(out->v, n * sizeof(float), out->sha256, err);
}

enum lens_status lens_vector_open(const char *where, size_t width, struct lens_vector *out,
				  struct lens_error *err)
{
	const char *path;
	double *v = NULL;
	char *file;
	enum lens_status st;
	size_t n = 0;

	LENS_TRY(lens_vector_file(where, &file, &path, err));
	st = path ? lens_store_read_vector(file, path, &v, &n, err)
		  : read_npy(file, &v, &n, err);
	if (st != LENS_OK)
		lens_error_add(err, " (steer.vector)");
	else
		st = convert(where, v, n, width, out, err);
	lens_free(v);
	lens_free(file);
	return st;
}
