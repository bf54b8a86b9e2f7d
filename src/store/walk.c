/*
 * store/walk.c: lists a file: every dataset under every name, sorted, with its dimensions
 * and aliases.
 */
#include <stdlib.h>
#include <string.h>

#include "store/store_private.h"

struct list_visit {
	struct lens_h5_list *list;
	struct lens_error *err;
	enum lens_status st;
};

static enum lens_status list_add(struct lens_h5_list *list, const char *name, haddr_t addr,
				 struct lens_error *err)
{
	struct lens_buf path = LENS_BUF_INIT;
	struct lens_h5_entry *v;

	v = lens_grow(list->v, list->n, &list->cap, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	list->v = v;
	LENS_TRY(lens_buf_printf(&path, err, "/%s", name));
	v[list->n++] = (struct lens_h5_entry){ .path = path.data, .addr = addr };
	return LENS_OK;
}

/* Soft and external links are not ours, and are not followed. */
static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *link, void *ctx)
{
	struct list_visit *v = ctx;
	H5O_info_t info;

	if (link->type != H5L_TYPE_HARD)
		return 0;
	if (H5Oget_info_by_name2(group, name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
		return -1;
	/* All of a group's information, so that damage shows which other readers would meet. */
	if (info.type != H5O_TYPE_DATASET)
		return H5Oget_info_by_name2(group, name, &info, H5O_INFO_ALL, H5P_DEFAULT) < 0
			       ? -1
			       : 0;
	v->st = list_add(v->list, name, info.addr, v->err);
	return v->st == LENS_OK ? 0 : 1;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct lens_h5_entry *)a)->path,
		      ((const struct lens_h5_entry *)b)->path);
}

/* For the search by address; entries with equal addresses are sorted by path. */
static int by_addr(const void *a, const void *b)
{
	const struct lens_h5_entry *x = a, *y = b;

	return x->addr == y->addr ? by_path(a, b) : x->addr < y->addr ? -1 : 1;
}

/* Sets first to the entry with the smallest path at the same address. */
static enum lens_status find_aliases(struct lens_h5_list *list, struct lens_error *err)
{
	struct lens_h5_entry *copy = lens_calloc(list->n, sizeof(*copy));
	size_t i, first = 0;

	if (!copy)
		return lens_error_nomem(err, list->n, sizeof(*copy));
	for (i = 0; i < list->n; i++) {
		list->v[i].first = i;
		copy[i] = list->v[i];
	}
	qsort(copy, list->n, sizeof(*copy), by_addr);
	for (i = 0; i < list->n; i++) {
		if (copy[i].addr != copy[first].addr)
			first = i;
		list->v[copy[i].first].first = copy[first].first;
	}
	list->by_addr = copy;
	return LENS_OK;
}

enum lens_status lens_h5_list(const struct lens_h5_file *f, struct lens_h5_list *list,
			      struct lens_error *err)
{
	struct list_visit v = { .list = list, .err = err, .st = LENS_OK };
	enum lens_status st;

	if (H5Lvisit(f->id, H5_INDEX_NAME, H5_ITER_INC, visit_link, &v) < 0)
		st = lens_h5_fail(f->io, err, "list the file's datasets");
	else
		st = v.st;
	if (st == LENS_OK && list->n) {
		qsort(list->v, list->n, sizeof(*list->v), by_path);
		st = find_aliases(list, err);
	}
	return st;
}

void lens_h5_list_release(struct lens_h5_list *list)
{
	while (list->n)
		lens_free(list->v[--list->n].path);
	lens_free(list->v);
	lens_free(list->by_addr);
	*list = (struct lens_h5_list){ .v = NULL };
}

/* --- dimensions ------------------------------------------------------------------ */

static const char *base_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* The first entry of the object at addr, or NULL. */
static const struct lens_h5_entry *entry_at(const struct lens_h5_list *list, haddr_t addr)
{
	size_t low = 0, high = list->n, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (list->by_addr[mid].addr < addr)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == list->n || list->by_addr[low].addr != addr)
		return NULL;
	return &list->v[list->by_addr[low].first];
}

/* Sets names[entry][axis] of all datasets that use the scale. */
static void take_users(const struct lens_h5_list *list, const struct lens_back_reference *refs,
		       hsize_t n, const char *name, const char *(*names)[LENS_MAX_RANK])
{
	const struct lens_h5_entry *e;
	hsize_t i;

	for (i = 0; i < n; i++) {
		e = entry_at(list, refs[i].dataset);
		if (e && refs[i].dimension >= 0 && refs[i].dimension < LENS_MAX_RANK)
			names[e - list->v][refs[i].dimension] = name;
	}
}

/*
 * The names of dimensions are taken from the scales' lists of their users, which have
 * checksums; the datasets' own lists are in the global heap. If a list is damaged, names
 * stay NULL.
 */
static enum lens_status read_users(const struct lens_h5_file *f,
				   const struct lens_h5_list *list, const char *path,
				   const char *(*names)[LENS_MAX_RANK], struct lens_error *err)
{
	hid_t attr = H5Aopen_by_name(f->id, path, "REFERENCE_LIST", H5P_DEFAULT, H5P_DEFAULT);
	hid_t type = lens_h5_back_reference_type(), space = H5Aget_space(attr);
	hssize_t n = attr < 0 ? 0 : H5Sget_simple_extent_npoints(space);
	struct lens_back_reference *refs = NULL;
	enum lens_status st = LENS_OK;

	if (n > 0 && (uint64_t)n <= f->io->size / sizeof(*refs)) {
		refs = lens_calloc((size_t)n, sizeof(*refs));
		if (!refs)
			st = lens_error_nomem(err, (size_t)n, sizeof(*refs));
		else if (H5Aread(attr, type, refs) >= 0)
			take_users(list, refs, (hsize_t)n, base_name(path), names);
	}
	lens_free(refs);
	H5Sclose(space);
	H5Tclose(type);
	H5Aclose(attr);
	return st;
}

enum lens_status lens_h5_dim_names(const struct lens_h5_file *f,
				   const struct lens_h5_list *list,
				   const char *(*names)[LENS_MAX_RANK], struct lens_error *err)
{
	const char *path;
	size_t i;

	for (i = 0; i < list->n; i++) {
		path = list->v[i].path;
		if (H5Aexists_by_name(f->id, path, "CLASS", H5P_DEFAULT) <= 0)
			continue;
		names[i][0] = base_name(path);
		if (H5Aexists_by_name(f->id, path, "REFERENCE_LIST", H5P_DEFAULT) > 0)
			LENS_TRY(read_users(f, list, path, names, err));
	}
	return LENS_OK;
}

static enum lens_status describe(const struct lens_h5_file *f, const struct lens_h5_list *list,
				 size_t index, struct lens_dataset_info *info,
				 struct lens_error *err)
{
	const struct lens_h5_entry *e = &list->v[index];
	struct lens_h5_dataset d;
	int i;

	LENS_TRY(lens_h5_dataset_open(f, e->path, &d, err));
	*info = (struct lens_dataset_info){
		.path = e->path,
		.is_virtual = lens_h5_is_virtual(d.id),
		.dtype = lens_dtype_name(d.dtype),
		.rank = d.rank,
		.link_to = e->first == index ? NULL : list->v[e->first].path,
	};
	info->stored_bytes = info->is_virtual ? 0 : H5Dget_storage_size(d.id);
	for (i = 0; i < d.rank; i++)
		info->extent[i] = (size_t)d.extent[i];
	lens_h5_dataset_close(&d);
	return LENS_OK;
}

static enum lens_status walk(const struct lens_h5_file *f, const struct lens_h5_list *list,
			     lens_dataset_info_fn fn, void *ctx, struct lens_error *err)
{
	const char *(*names)[LENS_MAX_RANK] = lens_calloc(list->n, sizeof(*names));
	struct lens_dataset_info info;
	enum lens_status st;
	size_t i;
	int axis;

	if (!names)
		return lens_error_nomem(err, list->n, sizeof(*names));
	st = lens_h5_dim_names(f, list, names, err);
	for (i = 0; i < list->n && st == LENS_OK; i++) {
		st = describe(f, list, i, &info, err);
		if (st != LENS_OK)
			break;
		for (axis = 0; axis < info.rank; axis++)
			info.dim[axis] = names[list->v[i].first][axis];
		st = fn(ctx, &info, err);
	}
	lens_free(names);
	return st;
}

enum lens_status lens_store_walk(const char *file, lens_dataset_info_fn fn, void *ctx,
				 struct lens_error *err)
{
	struct lens_h5_list list = { .v = NULL };
	struct lens_h5_file f;
	enum lens_status st;

	LENS_TRY(lens_h5_open(file, &f, err));
	st = lens_h5_list(&f, &list, err);
	if (st == LENS_OK)
		st = walk(&f, &list, fn, ctx, err);
	lens_h5_list_release(&list);
	return lens_h5_finish(&f, st, err);
}
