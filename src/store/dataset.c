/*
 * store/dataset.c: datasets, groups and hard links of a file that is being written.
 * write.c writes the data itself, scale.c the dimensions.
 */
#include <string.h>

#include "store/store_private.h"

/* With a digest of 16 bytes each: 256 MiB. */
#define MAX_CHUNKS ((size_t)1 << 24)

static enum lens_status bug(struct lens_store *s, struct lens_error *err, const char *path,
			    const char *what)
{
	return lens_error_at(err, LENS_ERR_INTERNAL, s->final, 0, 0, "dataset '%.600s': %s",
			     path, what);
}

enum lens_status lens_store_check_path(const char *path, struct lens_error *err)
{
	const char *p = path, *end;
	size_t n;

	if (!lens_utf8_valid(path, strlen(path)))
		return lens_error_set(err, LENS_ERR_INVALID, "an HDF5 path is not UTF-8");
	do {
		if (*p++ != '/')
			break;
		end = strchrnul(p, '/');
		n = (size_t)(end - p);
		if (!n || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			break;
		p = end;
		if (!*p)
			return LENS_OK;
	} while (true);
	return lens_error_set(err, LENS_ERR_INVALID,
			      "'%.600s' cannot be a path in an HDF5 file", path);
}

static enum lens_status make_group(struct lens_store *s, const char *path,
				   struct lens_error *err)
{
	htri_t there = H5Lexists(s->file, path, H5P_DEFAULT);
	enum lens_status st = LENS_OK;
	hid_t gcpl, id = H5I_INVALID_HID;

	if (there > 0)
		return LENS_OK;
	if (there < 0)
		return lens_h5_fail(s->io, err, "look for the group '%s'", path);
	gcpl = H5Pcreate(H5P_GROUP_CREATE);
	if (gcpl >= 0 && H5Pset_obj_track_times(gcpl, 0) >= 0)
		id = H5Gcreate2(s->file, path, H5P_DEFAULT, gcpl, H5P_DEFAULT);
	if (id < 0 || H5Gclose(id) < 0)
		st = lens_h5_fail(s->io, err, "create the group '%s'", path);
	H5Pclose(gcpl);
	return st;
}

enum lens_status lens_store_make_groups(struct lens_store *s, const char *path,
					struct lens_error *err)
{
	char *copy = lens_strdup(path), *slash;
	enum lens_status st = LENS_OK;

	if (!copy)
		return lens_error_nomem(err, strlen(path) + 1, 1);
	slash = strchr(copy + 1, '/');
	while (slash && st == LENS_OK) {
		*slash = '\0';
		st = make_group(s, copy, err);
		*slash = '/';
		slash = strchr(slash + 1, '/');
	}
	lens_free(copy);
	return st;
}

/* Copies axis i of spec to d. Returns what is wrong with it, or NULL. */
static const char *take_axis(const struct lens_store *s, const struct lens_dataset_spec *spec,
			     int i, struct lens_store_dataset *d)
{
	size_t extent = spec->extent[i], chunk = d->virtual ? 1 : spec->chunk[i], j;

	if (chunk < 1 || chunk > (extent ? extent : 1))
		return "chunk larger than the data, or empty";
	for (j = 0; j < s->n_dims; j++) {
		if (spec->dim[i] && !strcmp(s->dims[j].name, spec->dim[i]))
			break;
	}
	if (j == s->n_dims || s->dims[j].extent != extent)
		return "dimension unknown or of another extent";
	d->dim[i] = j;
	d->extent[i] = extent;
	d->chunk[i] = chunk;
	d->grid[i] = extent / chunk + (extent % chunk != 0);
	if (d->virtual)
		return NULL;
	if (!lens_size_mul(d->n_chunks, d->grid[i], &d->n_chunks) || d->n_chunks > MAX_CHUNKS ||
	    !lens_size_mul(d->chunk_bytes, chunk, &d->chunk_bytes) ||
	    d->chunk_bytes > UINT32_MAX)
		return "too many chunks, or too large ones";
	return NULL;
}

/* Copies shape and sizes of spec to d, checking every rule of struct lens_dataset_spec. */
static enum lens_status take_shape(struct lens_store *s, const struct lens_dataset_spec *spec,
				   struct lens_store_dataset *d, struct lens_error *err)
{
	const char *wrong = NULL;
	int i;

	if (spec->rank < 1 || spec->rank > LENS_MAX_RANK ||
	    (spec->dtype == LENS_STR && spec->rank > 2))
		return bug(s, err, spec->path, "impossible rank");
	d->dtype = spec->dtype;
	d->rank = spec->rank;
	d->n_chunks = d->virtual ? 0 : 1;
	d->chunk_bytes = spec->dtype == LENS_STR ? 1 : lens_dtype_size(spec->dtype);
	if (!d->chunk_bytes)
		return bug(s, err, spec->path, "unknown type");
	for (i = 0; i < spec->rank && !wrong; i++)
		wrong = take_axis(s, spec, i, d);
	if (wrong)
		return bug(s, err, spec->path, wrong);
	if (d->virtual && d->dtype == LENS_STR)
		return bug(s, err, spec->path, "strings cannot be virtual");
	if (d->dtype == LENS_STR && d->rank == 2 && d->chunk[1] != d->extent[1])
		return bug(s, err, spec->path, "rows of strings are not cut");
	return LENS_OK;
}

static enum lens_status allocate(const struct lens_dataset_spec *spec,
				 struct lens_store_dataset *d, struct lens_error *err)
{
	d->path = lens_strdup(spec->path);
	if (!d->path)
		return lens_error_nomem(err, strlen(spec->path) + 1, 1);
	if (d->virtual)
		return LENS_OK;
	if (d->dtype == LENS_STR)
		return lens_sha256_create(&d->strings, err);
	d->digests = lens_calloc(d->n_chunks, LENS_XXH3_BYTES);
	d->written = lens_calloc(d->n_chunks, 1);
	if (!d->digests || !d->written)
		return lens_error_nomem(err, d->n_chunks, LENS_XXH3_BYTES + 1);
	return LENS_OK;
}

/* Where the data of a virtual dataset is in other files. */
struct parts {
	const struct lens_store_part *v;
	size_t n;
};

bool lens_h5_mapped_name(const char *name, char out[LENS_MAPPED_NAME])
{
	size_t n = 0;

	for (; *name && n < LENS_MAPPED_NAME - 2; name++) {
		out[n++] = *name;
		if (*name == '%')
			out[n++] = '%';
	}
	out[n] = '\0';
	return !*name;
}

static bool map_part(hid_t dcpl, const struct lens_store_dataset *d,
		     const struct lens_store_part *part)
{
	hsize_t whole[LENS_MAX_RANK], start[LENS_MAX_RANK], count[LENS_MAX_RANK];
	const hsize_t zero[LENS_MAX_RANK] = { 0 };
	char file[LENS_MAPPED_NAME];
	hid_t at, from;
	bool ok;
	int i;

	for (i = 0; i < d->rank; i++) {
		whole[i] = d->extent[i];
		start[i] = part->start[i];
		count[i] = part->extent[i];
		if (!count[i]) /* nothing to map */
			return true;
	}
	at = H5Screate_simple(d->rank, whole, NULL);
	from = H5Screate_simple(d->rank, count, NULL);
	/* Both as boxes: a selection of "all" would not record its size in the file. */
	ok = lens_h5_mapped_name(part->file, file) && at >= 0 && from >= 0 &&
	     H5Sselect_hyperslab(at, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
	     H5Sselect_hyperslab(from, H5S_SELECT_SET, zero, NULL, count, NULL) >= 0 &&
	     H5Pset_virtual(dcpl, at, file, d->path, from) >= 0;
	H5Sclose(from);
	H5Sclose(at);
	return ok;
}

static bool set_layout(hid_t dcpl, const struct lens_store_dataset *d, struct parts parts)
{
	hsize_t chunk[LENS_MAX_RANK];
	size_t k;
	int i;

	if (!d->virtual) {
		for (i = 0; i < d->rank; i++)
			chunk[i] = d->chunk[i];
		return H5Pset_chunk(dcpl, d->rank, chunk) >= 0 &&
		       H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_INCR) >= 0;
	}
	if (H5Pset_layout(dcpl, H5D_VIRTUAL) < 0)
		return false;
	for (k = 0; k < parts.n; k++) {
		if (!map_part(dcpl, d, &parts.v[k]))
			return false;
	}
	return true;
}

static hid_t creation_list(const struct lens_store_dataset *d, struct parts parts)
{
	hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
	uint8_t fill[8];

	lens_fill(d->dtype, fill, 1);
	if (dcpl < 0 || !set_layout(dcpl, d, parts) ||
	    H5Pset_fill_time(dcpl, H5D_FILL_TIME_IFSET) < 0 ||
	    H5Pset_obj_track_times(dcpl, 0) < 0 ||
	    (d->dtype != LENS_STR && H5Pset_fill_value(dcpl, lens_h5_type(d->dtype), fill) < 0))
		return H5I_INVALID_HID;
	return dcpl;
}

/*
 * Numeric chunks bypass the chunk cache (H5Dwrite_chunk), so those datasets have none:
 * with hundreds open, even empty caches would add up.
 */
static enum lens_status create_dataset(struct lens_store *s, struct lens_store_dataset *d,
				       struct parts parts, struct lens_error *err)
{
	hid_t dcpl = creation_list(d, parts), dapl = H5Pcreate(H5P_DATASET_ACCESS), space;
	hsize_t extent[LENS_MAX_RANK];
	enum lens_status st = LENS_OK;
	int i;

	for (i = 0; i < d->rank; i++)
		extent[i] = d->extent[i];
	space = H5Screate_simple(d->rank, extent, NULL);
	if (dcpl >= 0 && dapl >= 0 && space >= 0 &&
	    (d->dtype == LENS_STR || H5Pset_chunk_cache(dapl, 0, 0, 1.0) >= 0))
		d->id = H5Dcreate2(s->file, d->path, lens_h5_type(d->dtype), space, H5P_DEFAULT,
				   dcpl, dapl);
	if (d->id < 0)
		st = lens_h5_fail(s->io, err, "create the dataset '%s'", d->path);
	H5Sclose(space);
	H5Pclose(dapl);
	H5Pclose(dcpl);
	return st;
}

static enum lens_status describe(struct lens_store *s, const struct lens_dataset_spec *spec,
				 hid_t id, struct lens_error *err)
{
	if (spec->long_name)
		LENS_TRY(lens_h5_attr_str(s, id, "long_name", spec->long_name, err));
	if (spec->units)
		LENS_TRY(lens_h5_attr_str(s, id, "units", spec->units, err));
	return LENS_OK;
}

static enum lens_status add_refs(struct lens_store *s, const struct lens_store_dataset *d,
				 size_t index, struct lens_error *err)
{
	struct lens_store_ref *refs;
	struct lens_store_dim *dim;
	int i;

	for (i = 0; i < d->rank; i++) {
		dim = &s->dims[d->dim[i]];
		refs = lens_grow(dim->refs, dim->n_refs, &dim->cap_refs, sizeof(*refs), err);
		if (!refs)
			return LENS_ERR_NOMEM;
		dim->refs = refs;
		refs[dim->n_refs++] = (struct lens_store_ref){ .dataset = index, .axis = i };
	}
	return LENS_OK;
}

static enum lens_status add_dataset(struct lens_store *s, const struct lens_dataset_spec *spec,
				    const struct parts *parts, int *id, struct lens_error *err)
{
	struct lens_store_dataset d = { .id = H5I_INVALID_HID, .virtual = parts }, *v;
	const struct parts none = { .n = 0 };
	enum lens_status st;

	v = lens_grow(s->datasets, s->n_datasets, &s->cap_datasets, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	s->datasets = v;
	LENS_TRY(lens_store_check_path(spec->path, err));
	LENS_TRY(take_shape(s, spec, &d, err));
	st = allocate(spec, &d, err);
	if (st == LENS_OK)
		st = lens_store_make_groups(s, spec->path, err);
	if (st == LENS_OK)
		st = create_dataset(s, &d, parts ? *parts : none, err);
	if (st == LENS_OK)
		st = describe(s, spec, d.id, err);
	if (st == LENS_OK)
		st = add_refs(s, &d, s->n_datasets, err);
	if (st != LENS_OK) {
		lens_store_dataset_release(&d);
		return st;
	}
	*id = (int)s->n_datasets;
	s->datasets[s->n_datasets++] = d;
	return LENS_OK;
}

enum lens_status lens_store_add_dataset(struct lens_store *s,
					const struct lens_dataset_spec *spec, int *id,
					struct lens_error *err)
{
	lens_h5_begin();
	return lens_store_keep(s, add_dataset(s, spec, NULL, id, err), err);
}

enum lens_status lens_store_add_virtual(struct lens_store *s,
					const struct lens_dataset_spec *spec,
					const struct lens_store_part *part, size_t n,
					struct lens_error *err)
{
	struct parts parts = { .v = part, .n = n };
	int id;

	lens_h5_begin();
	return lens_store_keep(s, add_dataset(s, spec, &parts, &id, err), err);
}

void lens_store_dataset_release(struct lens_store_dataset *d)
{
	if (d->id >= 0)
		H5Dclose(d->id);
	lens_sha256_destroy(d->strings);
	lens_free(d->path);
	lens_free(d->digests);
	lens_free(d->written);
}

static enum lens_status add_link(struct lens_store *s, const char *path, const char *target,
				 struct lens_error *err)
{
	LENS_TRY(lens_store_check_path(path, err));
	LENS_TRY(lens_store_make_groups(s, path, err));
	if (H5Lcreate_hard(s->file, target, s->file, path, H5P_DEFAULT, H5P_DEFAULT) < 0)
		return lens_h5_fail(s->io, err, "link '%s' to '%s'", path, target);
	return LENS_OK;
}

enum lens_status lens_store_add_link(struct lens_store *s, const char *path, const char *target,
				     struct lens_error *err)
{
	lens_h5_begin();
	return lens_store_keep(s, add_link(s, path, target, err), err);
}
