/*
 * store/join_attrs.c: the attributes of a joined file: the first shard's; those of the
 * others are added to them, listed, or left out.
 */
#include <stdlib.h>
#include <string.h>

#include "store/join_private.h"

static bool listed(const char *name, const char *const *list)
{
	for (; *list; list++) {
		if (!strcmp(name, *list))
			return true;
	}
	return false;
}

/* Those that belong to one shard alone, and those that the store writes itself. */
static bool skipped(const char *name)
{
	static const char *const list[] = { "sha256",          "digest", "shard", "n_shards",
					    "shard_first_row", "CLASS",  "NAME",  NULL };

	return listed(name, list);
}

static bool summed(const char *name)
{
	static const char *const list[] = { "rows_flagged", "f16_overflows", NULL };

	return listed(name, list);
}

static struct lens_join_attr *find(struct lens_join_attrs *attrs, const char *name)
{
	size_t i;

	for (i = 0; i < attrs->n; i++) {
		if (!strcmp(attrs->v[i].name, name))
			return &attrs->v[i];
	}
	return NULL;
}

static enum lens_status add(struct lens_join_attrs *attrs, const char *name, bool integer,
			    const char *value, struct lens_error *err)
{
	struct lens_join_attr *v;

	v = lens_grow(attrs->v, attrs->n, &attrs->cap, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	attrs->v = v;
	v += attrs->n;
	*v = (struct lens_join_attr){ .is_integer = integer };
	v->name = lens_strdup(name);
	if (!v->name)
		return lens_error_nomem(err, strlen(name) + 1, 1);
	attrs->n++;
	if (integer)
		v->integer = strtoll(value, NULL, 10);
	return lens_buf_append(&v->text, value, strlen(value), err);
}

/* Is value one of "a | b | c"? */
static bool among(const char *text, const char *value)
{
	size_t n = strlen(value);
	const char *at = text;

	while ((at = strstr(at, value)) != NULL) {
		bool begins = at == text || (at - text >= 3 && !memcmp(at - 3, " | ", 3));
		bool ends = !at[n] || !strncmp(at + n, " | ", 3);

		if (begins && ends)
			return true;
		at++;
	}
	return false;
}

/* Multi-line texts and JSON cannot be listed: the first shard's stays. */
static bool can_list(const char *value)
{
	return *value && *value != '{' && *value != '[' && !strchr(value, '\n');
}

static enum lens_status merge(struct lens_join_attr *a, bool integer, const char *value,
			      struct lens_error *err)
{
	if (integer != a->is_integer)
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "the attribute '%s' is of another type than the first "
				      "shard's",
				      a->name);
	if (integer) {
		if (summed(a->name) &&
		    __builtin_add_overflow(a->integer, strtoll(value, NULL, 10), &a->integer))
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "the attribute '%s' cannot be summed", a->name);
		return LENS_OK;
	}
	/* Of what is measured in each shard, the largest. */
	if (!strncmp(a->name, "largest_", 8)) {
		if (strtod(value, NULL) <= strtod(a->text.data, NULL))
			return LENS_OK;
		a->text.len = 0;
		return lens_buf_append(&a->text, value, strlen(value), err);
	}
	/* Readers open what path_… says. */
	if (!strncmp(a->name, "path_", 5) || !can_list(value) || !can_list(a->text.data) ||
	    among(a->text.data, value))
		return LENS_OK;
	return lens_buf_printf(&a->text, err, " | %s", value);
}

struct taking {
	hid_t obj;
	bool first;
	struct lens_join_attrs *attrs;
};

static bool is_integer(hid_t obj, const char *name)
{
	hid_t attr = H5Aopen(obj, name, H5P_DEFAULT), type = H5Aget_type(attr);
	bool yes = H5Tget_class(type) == H5T_INTEGER;

	H5Tclose(type);
	H5Aclose(attr);
	return yes;
}

static enum lens_status take(void *ctx, const char *name, const char *value,
			     struct lens_error *err)
{
	const struct taking *t = ctx;
	bool integer = is_integer(t->obj, name);
	struct lens_join_attr *a;

	/* Single marks look like an integer; the store writes its own. */
	if (skipped(name) || !strcmp(name, "chunk_marks") || !strcmp(name, "_Netcdf4Dimid"))
		return LENS_OK;
	if (t->first)
		return add(t->attrs, name, integer, value, err);
	a = find(t->attrs, name);
	return a ? merge(a, integer, value, err) : LENS_OK;
}

enum lens_status lens_join_take_attrs(const struct lens_h5_file *f, hid_t obj, bool first,
				      struct lens_join_attrs *attrs, struct lens_error *err)
{
	struct taking t = { .obj = obj, .first = first, .attrs = attrs };

	return lens_h5_walk_attrs(f, obj, take, &t, err);
}

enum lens_status lens_join_put_attrs(struct lens_store *s, const char *path,
				     const struct lens_join_attrs *attrs,
				     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < attrs->n; i++) {
		const struct lens_join_attr *a = &attrs->v[i];

		if (a->is_integer)
			LENS_TRY(lens_store_attr_i64(s, path, a->name, a->integer, err));
		else
			LENS_TRY(lens_store_attr_str(s, path, a->name, a->text.data, err));
	}
	return LENS_OK;
}

void lens_join_attrs_release(struct lens_join_attrs *attrs)
{
	while (attrs->n) {
		attrs->n--;
		lens_free(attrs->v[attrs->n].name);
		lens_buf_release(&attrs->v[attrs->n].text);
	}
	lens_free(attrs->v);
	*attrs = (struct lens_join_attrs){ .v = NULL };
}
