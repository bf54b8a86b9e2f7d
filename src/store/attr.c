/*
 * store/attr.c: scalar attributes, written and read. Strings are UTF-8 of variable
 * length, so they may be of any length, and h5py returns them as str.
 */
#include <inttypes.h>
#include <string.h>

#include "h5lens/sys.h"
#include "store/store_private.h"

/* An attribute is set once: a replaced string would leave a gap in the heap (gheap.c). */
static enum lens_status write_scalar(struct lens_store *s, hid_t obj, const char *name,
				     hid_t type, const void *value, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	hid_t space, attr;

	if (H5Aexists(obj, name) > 0)
		return lens_error_at(err, LENS_ERR_INTERNAL, s->final, 0, 0,
				     "the attribute '%s' is set twice", name);
	space = H5Screate(H5S_SCALAR);
	attr = H5Acreate2(obj, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
	if (attr < 0 || H5Awrite(attr, type, value) < 0)
		st = lens_h5_fail(s->io, err, "write the attribute '%s'", name);
	H5Aclose(attr);
	H5Sclose(space);
	return st;
}

enum lens_status lens_h5_attr_str(struct lens_store *s, hid_t obj, const char *name,
				  const char *value, struct lens_error *err)
{
	if (!lens_utf8_valid(value, strlen(value)))
		return lens_error_at(err, LENS_ERR_INVALID, s->final, 0, 0,
				     "the attribute '%s' is not valid UTF-8", name);
	return write_scalar(s, obj, name, lens_h5_type(LENS_STR), &value, err);
}

enum lens_status lens_h5_attr_i64(struct lens_store *s, hid_t obj, const char *name,
				  int64_t value, struct lens_error *err)
{
	return write_scalar(s, obj, name, H5T_STD_I64LE, &value, err);
}

static enum lens_status open_object(struct lens_store *s, const char *path, hid_t *out,
				    struct lens_error *err)
{
	lens_h5_begin();
	*out = H5Oopen(s->file, path, H5P_DEFAULT);
	if (*out < 0)
		return lens_h5_fail(s->io, err, "find '%s'", path);
	return LENS_OK;
}

enum lens_status lens_store_attr_str(struct lens_store *s, const char *path, const char *name,
				     const char *value, struct lens_error *err)
{
	enum lens_status st;
	hid_t obj;

	st = open_object(s, path, &obj, err);
	if (st == LENS_OK)
		st = lens_h5_attr_str(s, obj, name, value, err);
	H5Oclose(obj);
	return lens_store_keep(s, st, err);
}

enum lens_status lens_store_attr_i64(struct lens_store *s, const char *path, const char *name,
				     int64_t value, struct lens_error *err)
{
	enum lens_status st;
	hid_t obj;

	st = open_object(s, path, &obj, err);
	if (st == LENS_OK)
		st = lens_h5_attr_i64(s, obj, name, value, err);
	H5Oclose(obj);
	return lens_store_keep(s, st, err);
}

/* --- reading ----------------------------------------------------------------- */

/* Each returns NULL if HDF5 cannot read it, and sets err only if out of memory. */
static char *read_variable(hid_t attr, struct lens_error *err)
{
	hid_t type = H5Aget_type(attr), mem = H5Tcopy(lens_h5_type(LENS_STR));
	char *value = NULL, *copy = NULL;

	/* HDF5 does not convert character sets: read it in the one that it declares. */
	if (H5Tset_cset(mem, H5Tget_cset(type)) >= 0 && H5Aread(attr, mem, &value) >= 0) {
		copy = lens_strdup(value ? value : "");
		if (!copy)
			lens_error_nomem(err, 1, 1);
		H5free_memory(value);
	}
	H5Tclose(mem);
	H5Tclose(type);
	return copy;
}

static char *read_fixed(hid_t attr, hid_t type, struct lens_error *err)
{
	size_t n = H5Tget_size(type);
	char *value = n && n < SIZE_MAX ? lens_calloc(n + 1, 1) : NULL;

	if (!value) {
		lens_error_nomem(err, n, 1);
	} else if (H5Aread(attr, type, value) < 0) {
		lens_free(value);
		return NULL;
	}
	return value;
}

static char *read_integer(hid_t attr, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	int64_t value;

	if (H5Aread(attr, H5T_NATIVE_INT64, &value) < 0 ||
	    lens_buf_printf(&b, err, "%" PRId64, value) != LENS_OK)
		lens_buf_release(&b);
	return b.data;
}

static char *read_text(hid_t attr, hid_t type, struct lens_error *err)
{
	switch (H5Tget_class(type)) {
	case H5T_INTEGER:
		return read_integer(attr, err);
	default:
		return H5Tis_variable_str(type) > 0 ? read_variable(attr, err)
						    : read_fixed(attr, type, err);
	}
}

/* Of an attribute that is there. */
static enum lens_status open_and_read(const struct lens_h5_file *f, hid_t obj, const char *name,
				      char **out, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	hid_t attr = H5Aopen(obj, name, H5P_DEFAULT), type, space;
	H5T_class_t kind;
	bool known = false;

	*out = NULL;
	if (attr < 0)
		return lens_h5_fail(f->io, err, "read the attribute '%s'", name);
	type = H5Aget_type(attr);
	space = H5Aget_space(attr);
	kind = H5Tget_class(type);
	if (H5Sget_simple_extent_npoints(space) == 1 &&
	    (kind == H5T_STRING || kind == H5T_INTEGER)) {
		known = true;
		*out = read_text(attr, type, &why);
	}
	H5Sclose(space);
	H5Tclose(type);
	H5Aclose(attr);
	if (known && why.code != LENS_OK)
		return lens_error_set(err, why.code, "%s", why.text);
	if (known && !*out && f->io->err)
		return lens_h5_fail(f->io, err, "read the attribute '%s'", name);
	if (known && !*out)
		return lens_error_at(err, LENS_ERR_FORMAT, f->io->path, 0, 0,
				     "the attribute '%s' cannot be read", name);
	return LENS_OK;
}

enum lens_status lens_h5_attr_text(const struct lens_h5_file *f, hid_t obj, const char *name,
				   char **out, struct lens_error *err)
{
	htri_t there = H5Aexists(obj, name);

	*out = NULL;
	if (there < 0)
		return lens_h5_fail(f->io, err, "read the attribute '%s'", name);
	return there ? open_and_read(f, obj, name, out, err) : LENS_OK;
}

struct attr_query {
	const char *file, *path, *name;
};

/* Sends "+" and the text, or "-" if there is none. */
static enum lens_status read_in_child(void *ctx, struct lens_buf *out, struct lens_error *err)
{
	const struct attr_query *q = ctx;
	struct lens_h5_file f;
	enum lens_status st;
	char *text = NULL;
	hid_t obj;

	LENS_TRY(lens_h5_open(q->file, &f, err));
	obj = H5Oopen(f.id, q->path, H5P_DEFAULT);
	if (obj < 0)
		st = lens_h5_fail(f.io, err, "find '%s'", q->path);
	else
		st = lens_h5_attr_text(&f, obj, q->name, &text, err);
	H5Oclose(obj);
	st = lens_h5_finish(&f, st, err);
	if (st == LENS_OK)
		st = lens_buf_printf(out, err, "%s%s", text ? "+" : "-", text ? text : "");
	lens_free(text);
	return st;
}

enum lens_status lens_store_read_attr(const char *file, const char *path, const char *name,
				      char **out, struct lens_error *err)
{
	struct attr_query q = { .file = file, .path = path, .name = name };
	const struct lens_child_job job = { .fn = read_in_child, .ctx = &q, .file = file };
	struct lens_buf text = LENS_BUF_INIT;
	enum lens_status st = lens_child_call(&job, &text, err);

	*out = NULL;
	if (st == LENS_OK && text.len && text.data[0] == '+') {
		*out = lens_strdup(text.data + 1);
		if (!*out)
			st = lens_error_nomem(err, text.len, 1);
	}
	lens_buf_release(&text);
	return st;
}

struct attr_walk {
	const struct lens_h5_file *f;
	lens_attr_fn fn;
	void *ctx;
	struct lens_error *err;
	enum lens_status st;
};

static herr_t visit_attr(hid_t obj, const char *name, const H5A_info_t *info, void *ctx)
{
	struct attr_walk *w = ctx;
	char *value;

	(void)info;
	w->st = open_and_read(w->f, obj, name, &value, w->err);
	if (w->st == LENS_OK && value)
		w->st = w->fn(w->ctx, name, value, w->err);
	lens_free(value);
	return w->st == LENS_OK ? 0 : 1;
}

enum lens_status lens_h5_walk_attrs(const struct lens_h5_file *f, hid_t obj, lens_attr_fn fn,
				    void *ctx, struct lens_error *err)
{
	struct attr_walk w = { .f = f, .fn = fn, .ctx = ctx, .err = err, .st = LENS_OK };

	if (H5Aiterate2(obj, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attr, &w) < 0)
		return lens_h5_fail(f->io, err, "list attributes");
	return w.st;
}

enum lens_status lens_store_walk_attrs(const char *file, lens_attr_fn fn, void *ctx,
				       struct lens_error *err)
{
	struct lens_h5_file f;

	LENS_TRY(lens_h5_open(file, &f, err));
	return lens_h5_finish(&f, lens_h5_walk_attrs(&f, f.id, fn, ctx, err), err);
}
