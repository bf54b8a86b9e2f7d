/*
 * store/scale.c: dimension scales. Each dimension is a dataset "/<name>"; each
 * dataset names its dimensions by reference, as H5DS and netCDF-4 do.
 *
 * H5DSattach_scale rewrites the scale's whole list of references each time, and leaves
 * some padding bytes uninitialised. So we write both lists ourselves, once, at commit, in
 * the form that H5DS uses.
 */
#include <hdf5_hl.h>
#include <stdio.h>
#include <string.h>

#include "store/store_private.h"

static enum lens_status create_scale(struct lens_store *s, struct lens_store_dim *d,
				     bool labelled, struct lens_error *err)
{
	/* netCDF-4's type for a dimension that has no values */
	hid_t type = labelled ? lens_h5_type(LENS_STR) : H5T_IEEE_F32BE;
	hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE), space;
	hsize_t extent = d->extent, one = 1;
	enum lens_status st = LENS_OK;

	space = H5Screate_simple(1, &extent, NULL);
	/* Labels are chunked: their references can be read raw (gheap_private.h). */
	if (dcpl >= 0 && space >= 0 && H5Pset_obj_track_times(dcpl, 0) >= 0 &&
	    (!labelled || H5Pset_chunk(dcpl, 1, extent ? &extent : &one) >= 0))
		d->id = H5Dcreate2(s->file, d->name, type, space, H5P_DEFAULT, dcpl,
				   H5P_DEFAULT);
	if (d->id < 0)
		st = lens_h5_fail(s->io, err, "create the dimension '%s'", d->name);
	H5Sclose(space);
	H5Pclose(dcpl);
	return st;
}

static enum lens_status mark_scale(struct lens_store *s, struct lens_store_dim *d,
				   bool labelled, struct lens_error *err)
{
	int32_t dimid = (int32_t)s->n_dims;
	hid_t space, attr = H5I_INVALID_HID;
	enum lens_status st = LENS_OK;
	char text[96];

	/* netCDF-4's wording, which readers compare. */
	snprintf(text, sizeof(text),
		 "This is a netCDF dimension but not a netCDF variable.%10zu", d->extent);
	if (H5DSset_scale(d->id, labelled ? d->name : text) < 0)
		return lens_h5_fail(s->io, err, "mark the dimension '%s'", d->name);
	space = H5Screate(H5S_SCALAR);
	if (space >= 0)
		attr = H5Acreate2(d->id, "_Netcdf4Dimid", H5T_STD_I32LE, space, H5P_DEFAULT,
				  H5P_DEFAULT);
	if (attr < 0 || H5Awrite(attr, H5T_NATIVE_INT32, &dimid) < 0)
		st = lens_h5_fail(s->io, err, "number the dimension '%s'", d->name);
	H5Aclose(attr);
	H5Sclose(space);
	return st;
}

static enum lens_status write_labels(struct lens_store *s, struct lens_store_dim *d,
				     const char *const *labels, struct lens_error *err)
{
	uint8_t digest[LENS_SHA256_BYTES];
	char hex[LENS_SHA256_HEX];
	struct lens_sha256 *h;
	enum lens_status st;
	size_t i;

	LENS_TRY(lens_sha256_create(&h, err));
	for (i = 0, st = LENS_OK; i < d->extent && st == LENS_OK; i++)
		st = lens_store_hash_string(h, labels[i], err);
	if (st == LENS_OK)
		st = lens_sha256_final(h, digest, err);
	lens_sha256_destroy(h);
	LENS_TRY(st);
	if (d->extent &&
	    H5Dwrite(d->id, lens_h5_type(LENS_STR), H5S_ALL, H5S_ALL, H5P_DEFAULT, labels) < 0)
		return lens_h5_fail(s->io, err, "write the labels of '%s'", d->name);
	lens_hex(digest, sizeof(digest), hex);
	return lens_h5_attr_str(s, d->id, "sha256", hex, err);
}

static enum lens_status add_dim(struct lens_store *s, const char *name, size_t extent,
				const char *const *labels, struct lens_error *err)
{
	struct lens_store_dim d = { .extent = extent, .id = H5I_INVALID_HID }, *v;
	enum lens_status st;

	if (!*name || strchr(name, '/') || !strcmp(name, ".") || strlen(name) > 255 ||
	    !lens_utf8_valid(name, strlen(name)) || extent > INT32_MAX)
		return lens_error_set(err, LENS_ERR_INTERNAL,
				      "impossible dimension '%.255s' of %zu", name, extent);
	v = lens_grow(s->dims, s->n_dims, &s->cap_dims, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	s->dims = v;
	d.name = lens_strdup(name);
	if (!d.name)
		return lens_error_nomem(err, strlen(name) + 1, 1);
	st = create_scale(s, &d, labels != NULL, err);
	if (st == LENS_OK)
		st = mark_scale(s, &d, labels != NULL, err);
	if (st == LENS_OK && labels)
		st = write_labels(s, &d, labels, err);
	if (st != LENS_OK) {
		lens_store_dim_release(&d);
		return st;
	}
	s->dims[s->n_dims++] = d;
	return LENS_OK;
}

enum lens_status lens_store_add_dim(struct lens_store *s, const char *name, size_t extent,
				    const char *const *labels, struct lens_error *err)
{
	lens_h5_begin();
	return lens_store_keep(s, add_dim(s, name, extent, labels, err), err);
}

void lens_store_dim_release(struct lens_store_dim *d)
{
	if (d->id >= 0)
		H5Dclose(d->id);
	lens_free(d->name);
	lens_free(d->refs);
}

/* --- the two lists ------------------------------------------------------------- */

static bool write_list(hid_t obj, const char *name, hid_t type, size_t n, const void *data)
{
	hsize_t extent = n;
	hid_t space = H5Screate_simple(1, &extent, NULL), attr = H5I_INVALID_HID;
	bool ok;

	if (space >= 0)
		attr = H5Acreate2(obj, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
	ok = attr >= 0 && H5Awrite(attr, type, data) >= 0;
	if (!ok) /* the caller reads the error stack, so do not clear it */
		return false;
	return H5Aclose(attr) >= 0 && H5Sclose(space) >= 0;
}

/* DIMENSION_LIST: for each axis the references to its scales, here one. */
static enum lens_status write_dimension_list(struct lens_store *s, struct lens_store_dataset *d,
					     const hobj_ref_t *dim_ref, hid_t type,
					     struct lens_error *err)
{
	hobj_ref_t ref[LENS_MAX_RANK];
	hvl_t list[LENS_MAX_RANK];
	int i;

	for (i = 0; i < d->rank; i++) {
		ref[i] = dim_ref[d->dim[i]];
		list[i] = (hvl_t){ .len = 1, .p = &ref[i] };
	}
	if (!write_list(d->id, "DIMENSION_LIST", type, (size_t)d->rank, list))
		return lens_h5_fail(s->io, err, "attach the dimensions of '%s'", d->path);
	return LENS_OK;
}

/* REFERENCE_LIST: all datasets that use the scale, and for which axis. */
static enum lens_status write_reference_list(struct lens_store *s, struct lens_store_dim *d,
					     const hobj_ref_t *dataset_ref, hid_t type,
					     struct lens_error *err)
{
	struct lens_back_reference *list;
	bool ok;
	size_t i;

	if (!d->n_refs)
		return LENS_OK;
	list = lens_calloc(d->n_refs, sizeof(*list));
	if (!list)
		return lens_error_nomem(err, d->n_refs, sizeof(*list));
	for (i = 0; i < d->n_refs; i++) {
		list[i].dataset = dataset_ref[d->refs[i].dataset];
		list[i].dimension = d->refs[i].axis;
	}
	ok = write_list(d->id, "REFERENCE_LIST", type, d->n_refs, list);
	lens_free(list);
	if (!ok)
		return lens_h5_fail(s->io, err, "list the users of the dimension '%s'",
				    d->name);
	return LENS_OK;
}

static enum lens_status take_references(struct lens_store *s, hobj_ref_t *dim_ref,
					hobj_ref_t *dataset_ref, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->n_dims; i++) {
		if (H5Rcreate(&dim_ref[i], s->dims[i].id, ".", H5R_OBJECT, -1) < 0)
			return lens_h5_fail(s->io, err, "refer to '%s'", s->dims[i].name);
	}
	for (i = 0; i < s->n_datasets; i++) {
		if (H5Rcreate(&dataset_ref[i], s->datasets[i].id, ".", H5R_OBJECT, -1) < 0)
			return lens_h5_fail(s->io, err, "refer to '%s'", s->datasets[i].path);
	}
	return LENS_OK;
}

hid_t lens_h5_back_reference_type(void)
{
	hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(struct lens_back_reference));

	if (H5Tinsert(type, "dataset", HOFFSET(struct lens_back_reference, dataset),
		      H5T_STD_REF_OBJ) < 0 ||
	    H5Tinsert(type, "dimension", HOFFSET(struct lens_back_reference, dimension),
		      H5T_STD_I32LE) < 0)
		return H5I_INVALID_HID;
	return type;
}

enum lens_status lens_store_attach_scales(struct lens_store *s, struct lens_error *err)
{
	hid_t list_type = H5Tvlen_create(H5T_STD_REF_OBJ),
	      back_type = lens_h5_back_reference_type();
	hobj_ref_t *dim_ref = lens_calloc(s->n_dims, sizeof(*dim_ref));
	hobj_ref_t *dataset_ref = lens_calloc(s->n_datasets, sizeof(*dataset_ref));
	enum lens_status st;
	size_t i;

	if (!dim_ref || !dataset_ref)
		st = lens_error_nomem(err, s->n_dims + s->n_datasets, sizeof(*dim_ref));
	else
		st = take_references(s, dim_ref, dataset_ref, err);
	for (i = 0; st == LENS_OK && i < s->n_datasets; i++)
		st = write_dimension_list(s, &s->datasets[i], dim_ref, list_type, err);
	for (i = 0; st == LENS_OK && i < s->n_dims; i++)
		st = write_reference_list(s, &s->dims[i], dataset_ref, back_type, err);
	H5Tclose(list_type);
	H5Tclose(back_type);
	lens_free(dim_ref);
	lens_free(dataset_ref);
	return st;
}
