/*
 * pipeline/content.c: what a finished file has for each prompt. In: the file; out: its
 * data sets along the prompts, with the names of their axes and the labels of these, found
 * by the names that a user types.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

static void release_entry(struct lens_content_entry *e)
{
	int i;

	lens_free(e->path);
	for (i = 0; i < LENS_MAX_RANK; i++)
		lens_free(e->dim[i]);
}

void lens_content_release(struct lens_content *c)
{
	size_t i, k;

	for (i = 0; i < c->n; i++)
		release_entry(&c->v[i]);
	for (i = 0; i < c->n_axes; i++) {
		for (k = 0; k < c->axis[i].n; k++)
			lens_free(c->axis[i].label[k]);
		lens_free(c->axis[i].label);
		lens_free(c->axis[i].name);
	}
	lens_free(c->v);
	lens_free(c->axis);
	memset(c, 0, sizeof(*c));
}

/* An axis with labels is a list of strings "/<name>". */
static enum lens_status keep_axis(struct lens_content *c, const char *path,
				  struct lens_error *err)
{
	struct lens_content_axis *a =
		lens_grow(c->axis, c->n_axes, &c->cap_axes, sizeof(*a), err);

	if (!a)
		return LENS_ERR_NOMEM;
	c->axis = a;
	a += c->n_axes;
	*a = (struct lens_content_axis){ .name = lens_strdup(path + 1) };
	if (!a->name)
		return lens_error_nomem(err, strlen(path), 1);
	c->n_axes++;
	return LENS_OK;
}

static enum lens_status keep(void *ctx, const struct lens_dataset_info *d,
			     struct lens_error *err)
{
	const bool text = !strcmp(d->dtype, "string");
	struct lens_content *c = ctx;
	struct lens_content_entry *v;
	int i;

	if (text && d->rank == 1 && strrchr(d->path, '/') == d->path)
		return keep_axis(c, d->path, err);
	if (!strcmp(d->dtype, "other") || !d->rank || !d->dim[0] ||
	    (strcmp(d->dim[0], "prompt") != 0 && strncmp(d->path, "/tokens/", 8) != 0) ||
	    !strcmp(d->path, "/prompt"))
		return LENS_OK;
	v = lens_grow(c->v, c->n, &c->cap, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	c->v = v;
	v += c->n++;
	*v = (struct lens_content_entry){ .rank = d->rank, .text = text };
	memcpy(v->extent, d->extent, sizeof(v->extent));
	v->path = lens_strdup(d->path);
	for (i = 0; i < d->rank; i++)
		v->dim[i] = lens_strdup(d->dim[i] ? d->dim[i] : "?");
	for (i = 0; i < d->rank; i++) {
		if (!v->path || !v->dim[i])
			return lens_error_nomem(err, 1, sizeof(*v));
	}
	if (!strcmp(d->path, "/prompts/length"))
		c->n_prompts = d->extent[0];
	return LENS_OK;
}

enum lens_status lens_content_read(const char *file, struct lens_content *c,
				   struct lens_error *err)
{
	enum lens_status st;
	char path[80];
	size_t i;

	memset(c, 0, sizeof(*c));
	st = lens_store_walk(file, keep, c, err);
	for (i = 0; i < c->n_axes && st == LENS_OK; i++) {
		snprintf(path, sizeof(path), "/%s", c->axis[i].name);
		st = lens_store_read_strings(file, path, &c->axis[i].label, &c->axis[i].n, err);
	}
	if (st == LENS_OK && !lens_content_find(c, "/prompts/", "length"))
		st = lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				   "has no prompts: not an output of h5lens run");
	if (st != LENS_OK)
		lens_content_release(c);
	return st;
}

const struct lens_content_entry *lens_content_find(const struct lens_content *c,
						   const char *group, const char *name)
{
	const size_t n = strlen(group);
	size_t i;

	for (i = 0; i < c->n; i++) {
		if (!strncmp(c->v[i].path, group, n) && !strcmp(c->v[i].path + n, name))
			return &c->v[i];
	}
	return NULL;
}

const char *lens_content_label(const struct lens_content *c, const char *axis, size_t i,
			       char text[LENS_LABEL])
{
	size_t k;

	for (k = 0; k < c->n_axes; k++) {
		if (!strcmp(c->axis[k].name, axis) && i < c->axis[k].n)
			return c->axis[k].label[i];
	}
	snprintf(text, LENS_LABEL, "%zu", i);
	return text;
}

bool lens_content_is_plain(const struct lens_content_entry *e)
{
	int i;

	for (i = 1; i < e->rank; i++) {
		if (strcmp(e->dim[i], "answer") != 0 && strcmp(e->dim[i], "answer_other") != 0)
			return false;
	}
	return true;
}

/* Which cell of /prompts/answer_text a label of its answers is; false: none. */
static bool answer_of(const struct lens_content *c, const char *name, size_t *cell)
{
	const struct lens_content_entry *e = lens_content_find(c, "/prompts/", "answer_text");
	char text[LENS_LABEL];

	for (*cell = 0; e && e->rank == 2 && *cell < e->extent[1]; ++*cell) {
		if (!strcmp(lens_content_label(c, "answer", *cell, text), name))
			return true;
	}
	return false;
}

const struct lens_content_entry *lens_content_column(const struct lens_content *c,
						     const char *name, size_t *cell)
{
	const struct lens_content_entry *e = lens_content_find(c, "/prompts/columns/", name);

	if (!e && answer_of(c, name, cell))
		return lens_content_find(c, "/prompts/", "answer_text");
	*cell = 0;
	if (!e)
		e = lens_content_find(c, "/prompts/", name);
	return e && e->rank == 1 ? e : NULL;
}

/* --- errors that say what there is -------------------------------------------------- */

/* "…; did you mean 'x'? It has: a, b" of the data sets below these groups. */
static enum lens_status unknown(const struct lens_content *c, const char *name,
				const char *what, const char *const *groups,
				struct lens_error *err)
{
	const char **names = lens_calloc(c->n, sizeof(*names)), *near;
	struct lens_buf list = LENS_BUF_INIT;
	enum lens_status st;
	size_t i, n = 0, g;

	if (!names)
		return lens_error_nomem(err, c->n, sizeof(*names));
	for (g = 0; groups[g]; g++) {
		for (i = 0; i < c->n; i++) {
			if (!strncmp(c->v[i].path, groups[g], strlen(groups[g])) &&
			    (g == 0 || (c->v[i].rank == 1 &&
					!strchr(c->v[i].path + strlen(groups[g]), '/'))))
				names[n++] = c->v[i].path + strlen(groups[g]);
		}
	}
	near = lens_nearest(name, names, n);
	for (i = 0; i < n && list.len < 600; i++)
		lens_buf_printf(&list, NULL, "%s%s", i ? ", " : "", names[i]);
	st = lens_error_set(err, LENS_ERR_INVALID, "no %s '%.200s'%s%s%s; there %s: %s%s", what,
			    name, near ? " (did you mean '" : "", near ? near : "",
			    near ? "'?)" : "", n == 1 ? "is" : "are", n ? list.data : "none",
			    i < n ? ", …" : "");
	lens_buf_release(&list);
	lens_free(names);
	return st;
}

enum lens_status lens_content_no_column(const struct lens_content *c, const char *name,
					struct lens_error *err)
{
	static const char *const groups[] = { "/prompts/columns/", "/prompts/", NULL };

	return unknown(c, name, "column", groups, err);
}

enum lens_status lens_content_no_table(const struct lens_content *c, const char *name,
				       struct lens_error *err)
{
	static const char *const groups[] = { "/results/", NULL };
	const struct lens_content_entry *e = lens_content_find(c, "/tokens/", name);

	if (!e && (e = lens_content_find(c, *name == '/' ? "" : "/", name)) &&
	    strncmp(e->path, "/tokens/", 8) != 0)
		e = NULL;
	if (e)
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"'%.200s' has a row a token (cache.layout: ragged), and "
			"CSV files are made of what has a row a prompt: store it with "
			"cache.layout: padded, or read it in Python "
			"(h5lens.open_run(…).by_token)",
			name);
	return unknown(c, name, "table", groups, err);
}
