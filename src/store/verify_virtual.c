/*
 * store/verify_virtual.c: checks that the virtual datasets of a joined file are what its
 * shards imply. In: the file and its shards. Out: findings. A manipulated mapping would
 * show data of other rows or files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/join_private.h"
#include "store/verify_private.h"

struct virtual_check {
	struct lens_joined j;
	struct lens_h5_file f;
	struct lens_verify_sink *sink;
};

static void bad(struct virtual_check *v, const char *path, const char *what)
{
	lens_verify_bad(v->sink, NULL, path, what);
}

/* Is this name of a mapping as wanted? Its length is not trusted. */
static bool same_name(hid_t dcpl, size_t i, ssize_t (*get)(hid_t, size_t, char *, size_t),
		      const char *want)
{
	char name[LENS_MAPPED_NAME], mapped[LENS_MAPPED_NAME];
	ssize_t size = get(dcpl, i, NULL, 0);

	return lens_h5_mapped_name(want, mapped) && size >= 0 &&
	       (size_t)size == strlen(mapped) && get(dcpl, i, name, sizeof(name)) == size &&
	       !strcmp(name, mapped);
}

/*
 * Does space have these extents, and select exactly the box at start? That is, as many
 * elements as the box has, and none outside it.
 */
static bool same_box(hid_t space, int rank, const size_t *extent, const size_t *start,
		     const size_t *count)
{
	hsize_t dims[LENS_MAX_RANK], low[LENS_MAX_RANK], high[LENS_MAX_RANK], n = 1;
	int i;

	if (space < 0 || H5Sget_simple_extent_ndims(space) != rank ||
	    H5Sget_simple_extent_dims(space, dims, NULL) != rank ||
	    H5Sget_select_bounds(space, low, high) < 0)
		return false;
	for (i = 0; i < rank; i++) {
		size_t first = start ? start[i] : 0;

		if (dims[i] != extent[i] || low[i] != first || high[i] != first + count[i] - 1)
			return false;
		if (__builtin_mul_overflow(n, count[i], &n))
			return false;
	}
	return H5Sget_select_npoints(space) == (hssize_t)n;
}

static bool same_mapping(hid_t dcpl, size_t i, const struct lens_joined *j,
			 const struct lens_join_dataset *d, const struct lens_store_part *part)
{
	size_t extent[LENS_MAX_RANK];
	hid_t at, from;
	bool same;
	int axis;

	for (axis = 0; axis < d->rank; axis++)
		extent[axis] = lens_join_extent(j, d, axis);
	at = H5Pget_virtual_vspace(dcpl, i);
	from = H5Pget_virtual_srcspace(dcpl, i);
	same = same_name(dcpl, i, H5Pget_virtual_filename, part->file) &&
	       same_name(dcpl, i, H5Pget_virtual_dsetname, d->path) &&
	       same_box(at, d->rank, extent, part->start, part->extent) &&
	       same_box(from, d->rank, part->extent, NULL, part->extent);
	H5Sclose(at);
	H5Sclose(from);
	return same;
}

static bool same_shape(const struct lens_joined *j, const struct lens_join_dataset *d,
		       const struct lens_h5_dataset *h)
{
	int i;

	if (h->dtype != (int)d->dtype || h->rank != d->rank)
		return false;
	for (i = 0; i < d->rank; i++) {
		if (h->extent[i] != lens_join_extent(j, d, i))
			return false;
	}
	return true;
}

/* Where a shard has no data, readers must see fill, not some number. */
static bool same_fill(hid_t dcpl, enum lens_dtype t)
{
	unsigned char fill[8], want[8];

	lens_fill(t, want, 1);
	return H5Pget_fill_value(dcpl, lens_h5_type(t), fill) >= 0 &&
	       !memcmp(fill, want, lens_dtype_size(t));
}

static void check_mappings(struct virtual_check *v, const struct lens_join_dataset *d, hid_t id)
{
	hid_t dcpl = H5Dget_create_plist(id);
	struct lens_store_part part;
	size_t shard, n = 0, count = 0;
	char what[300];

	if (dcpl < 0 || H5Pget_virtual_count(dcpl, &count) < 0) {
		bad(v, d->path, "its mappings cannot be read");
		H5Pclose(dcpl);
		return;
	}
	for (shard = 0; shard < v->j.n_shards; shard++) {
		if (!lens_join_mapping(&v->j, d, shard, &part))
			continue;
		if (n < count && same_mapping(dcpl, n, &v->j, d, &part)) {
			n++;
			continue;
		}
		snprintf(what, sizeof(what), "it is not mapped to %.200s as it should be",
			 part.file);
		bad(v, d->path, what);
		H5Pclose(dcpl);
		return;
	}
	if (n != count)
		bad(v, d->path, "it is mapped to more than its shards");
	else if (!same_fill(dcpl, d->dtype))
		bad(v, d->path, "its fill value is wrong");
	H5Pclose(dcpl);
}

static enum lens_status check_dataset(struct virtual_check *v,
				      const struct lens_join_dataset *d, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_store_part part;
	struct lens_h5_dataset h;
	enum lens_status st;
	size_t shard;

	v->sink->n_datasets++;
	if (v->sink->begin)
		v->sink->begin(v->sink->ctx, NULL, d->path);
	st = lens_h5_dataset_open(&v->f, d->path, &h, &why);
	if (st != LENS_OK && st != LENS_ERR_FORMAT)
		return lens_error_pass(err, &why);
	if (st != LENS_OK) {
		bad(v, d->path, why.text);
		return LENS_OK;
	}
	for (shard = 0; shard < v->j.n_shards; shard++) {
		if (lens_join_mapping(&v->j, d, shard, &part))
			break;
	}
	if (!same_shape(&v->j, d, &h))
		bad(v, d->path, "its shape is not that of its shards together");
	else if (lens_h5_is_virtual(h.id))
		check_mappings(v, d, h.id);
	else if (shard < v->j.n_shards) /* without elements it need not be virtual */
		bad(v, d->path, "it is not virtual");
	lens_h5_dataset_close(&h);
	return LENS_OK;
}

static int by_path(const void *key, const void *entry)
{
	return strcmp(key, ((const struct lens_join_entry *)entry)->path);
}

/* Virtual datasets that no shard has. */
static enum lens_status check_others(struct virtual_check *v, struct lens_error *err)
{
	struct lens_h5_list list = { .v = NULL };
	enum lens_status st = lens_h5_list(&v->f, &list, err);
	const struct lens_join_entry *e;
	size_t i;
	hid_t id;

	for (i = 0; i < list.n && st == LENS_OK; i++) {
		if (list.v[i].first != i)
			continue;
		id = H5Dopen2(v->f.id, list.v[i].path, H5P_DEFAULT);
		e = bsearch(list.v[i].path, v->j.entry, v->j.n_entries, sizeof(*e), by_path);
		if (id >= 0 && lens_h5_is_virtual(id) &&
		    (!e || e->kind != LENS_JOIN_DATASET || !v->j.dataset[e->index].virtual))
			bad(v, list.v[i].path, "it is virtual, and no shard has it");
		H5Dclose(id);
	}
	lens_h5_list_release(&list);
	return st;
}

static enum lens_status check_all(struct virtual_check *v, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	size_t i;

	for (i = 0; i < v->j.n_datasets && st == LENS_OK; i++) {
		if (v->j.dataset[i].virtual)
			st = check_dataset(v, &v->j.dataset[i], err);
	}
	return st == LENS_OK ? check_others(v, err) : st;
}

enum lens_status lens_verify_virtual(const char *file, const struct lens_shard_file *shard,
				     size_t n, struct lens_verify_sink *sink,
				     struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct virtual_check v = { .sink = sink };
	enum lens_status st;
	char what[2100];

	if (sink->begin)
		sink->begin(sink->ctx, NULL, "/shards");
	st = lens_join_survey(shard, n, NULL, &v.j, &why);
	if (st == LENS_OK) {
		st = lens_h5_open(file, &v.f, err);
		if (st == LENS_OK) {
			st = lens_h5_finish(&v.f, check_all(&v, err), err);
		}
	} else if (st != LENS_ERR_FORMAT && st != LENS_ERR_MISMATCH) {
		lens_error_pass(err, &why);
	} else {
		sink->n_datasets++;
		bad(&v, "/shards", lens_error_format(&why, what, sizeof(what)));
		st = LENS_OK;
	}
	lens_joined_release(&v.j);
	return st;
}
