/*
 * pipeline/export_columns.c: the columns of a CSV file of results. In: what a file has, which
 * tables and columns of it are wanted; out: their cells, with names that are all different.
 */
#include "pipeline/export_private.h"

#include <string.h>

const struct lens_content_entry *lens_export_table(const struct lens_content *c,
						   const char *name)
{
	static const char *const group[] = { "/results/", "/prompts/", "/cache/", "/" };
	const struct lens_content_entry *e = NULL;
	size_t i;

	if (*name == '/')
		e = lens_content_find(c, "/", name + 1);
	for (i = 0; i < sizeof(group) / sizeof(*group) && !e; i++)
		e = lens_content_find(c, group[i], name);
	return e && !strcmp(e->dim[0], "prompt") ? e : NULL;
}

/* The data set's place in s->rows, added when it is new. */
static enum lens_status add_id(struct lens_sheet *s, const struct lens_content_entry *e,
			       size_t *id, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->n; i++) {
		if (s->cell[i].e == e) {
			*id = s->cell[i].id;
			return LENS_OK;
		}
	}
	LENS_TRY(lens_rows_add(s->rows, e->path, id, err));
	s->n_ids = *id + 1;
	return LENS_OK;
}

static bool taken(const struct lens_sheet *s, const char *name)
{
	size_t i;

	if (!strcmp(name, "prompt") || (s->t && !strcmp(name, "value")))
		return true;
	for (i = 1; s->t && i < (size_t)s->t->rank; i++) {
		if (!strcmp(name, s->t->dim[i]))
			return true;
	}
	for (i = 0; i < s->n; i++) {
		if (s->cell[i].name && !strcmp(name, s->cell[i].name))
			return true;
	}
	return false;
}

/* A name that is taken gets ".1", ".2", … as pandas does it. */
static enum lens_status free_name(const struct lens_sheet *s, const char *name,
				  struct lens_buf *out, struct lens_error *err)
{
	size_t k;

	LENS_TRY(lens_buf_printf(out, err, "%s", name));
	for (k = 1; taken(s, out->data); k++) {
		out->len = 0;
		LENS_TRY(lens_buf_printf(out, err, "%s.%zu", name, k));
	}
	return LENS_OK;
}

static enum lens_status add_cell(struct lens_sheet *s, const struct lens_content_entry *e,
				 size_t index, const char *name, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	struct lens_sheet_cell *v = lens_grow(s->cell, s->n, &s->cap, sizeof(*v), err);
	enum lens_status st;

	if (!v)
		return LENS_ERR_NOMEM;
	s->cell = v;
	v += s->n;
	*v = (struct lens_sheet_cell){ .e = e, .index = index };
	LENS_TRY(add_id(s, e, &v->id, err));
	st = free_name(s, name, &b, err);
	if (st != LENS_OK) {
		lens_buf_release(&b);
		return st;
	}
	v->name = b.data;
	s->n++;
	return LENS_OK;
}

/* "logit_diff"; of several answers "answer_rank_correct", … */
static enum lens_status add_table(struct lens_sheet *s, const struct lens_content_entry *e,
				  struct lens_error *err)
{
	const char *name = strchr(e->path + 1, '/') + 1;
	size_t i, cells = 1, rest, place, each;
	enum lens_status st = LENS_OK;
	char label[LENS_LABEL];
	int axis;

	for (axis = 1; axis < e->rank; axis++)
		cells *= e->extent[axis];
	for (i = 0; i < cells && st == LENS_OK; i++) {
		struct lens_buf b = LENS_BUF_INIT;

		st = lens_buf_printf(&b, err, "%s", name);
		for (rest = i, each = cells, axis = 1; axis < e->rank; axis++) {
			each /= e->extent[axis];
			place = rest / each;
			rest %= each;
			if (e->extent[axis] > 1 && st == LENS_OK)
				st = lens_buf_printf(&b, err, "_%s",
						     lens_content_label(s->c, e->dim[axis],
									place, label));
		}
		if (st == LENS_OK)
			st = add_cell(s, e, i, b.data, err);
		lens_buf_release(&b);
	}
	return st;
}

static enum lens_status add_columns(struct lens_sheet *s, struct lens_error *err)
{
	const struct lens_export_options *o = s->opt;
	const struct lens_content_entry *e;
	char label[LENS_LABEL];
	size_t i, cell;

	for (i = 0; o->column && i < o->n_columns; i++) {
		e = lens_content_column(s->c, o->column[i], &cell);
		if (!e)
			return lens_content_no_column(s->c, o->column[i], err);
		LENS_TRY(add_cell(s, e, cell, o->column[i], err));
	}
	if (o->column || s->t)
		return LENS_OK;
	e = lens_content_find(s->c, "/prompts/", "text");
	if (e)
		LENS_TRY(add_cell(s, e, 0, "text", err));
	e = lens_content_find(s->c, "/prompts/", "answer_text");
	for (i = 0; e && i < e->extent[1]; i++)
		LENS_TRY(add_cell(s, e, i, lens_content_label(s->c, "answer", i, label), err));
	for (i = 0; i < s->c->n; i++) {
		e = &s->c->v[i];
		if (!strncmp(e->path, "/prompts/columns/", 17) && e->rank == 1)
			LENS_TRY(add_cell(s, e, 0, e->path + 17, err));
	}
	return LENS_OK;
}

static enum lens_status add_tables(struct lens_sheet *s, struct lens_error *err)
{
	const struct lens_export_options *o = s->opt;
	const struct lens_content_entry *e;
	size_t i;

	for (i = 0; o->table && i < o->n_tables; i++) {
		e = lens_export_table(s->c, o->table[i]);
		if (!e)
			return lens_content_no_table(s->c, o->table[i], err);
		if (lens_content_is_plain(e)) {
			LENS_TRY(add_table(s, e, err));
			continue;
		}
		if (o->n_tables > 1)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "%s has axes of its own, and is written a row a "
					      "cell: in a file by itself",
					      o->table[i]);
		s->t = e;
		LENS_TRY(add_id(s, e, &s->t_id, err));
	}
	for (i = 0; !o->table && i < s->c->n; i++) {
		e = &s->c->v[i];
		if (!strncmp(e->path, "/results/", 9) && lens_content_is_plain(e))
			LENS_TRY(add_table(s, e, err));
	}
	return LENS_OK;
}

/* Tables come first, so that they keep their names; then they go behind the columns. */
enum lens_status lens_sheet_choose(struct lens_sheet *s, struct lens_error *err)
{
	size_t n_tables, i;
	struct lens_sheet_cell *v;

	LENS_TRY(add_tables(s, err));
	n_tables = s->n;
	LENS_TRY(add_columns(s, err));
	s->n_lead = s->n - n_tables;
	v = lens_calloc(s->n, sizeof(*v));
	if (!v)
		return lens_error_nomem(err, s->n, sizeof(*v));
	for (i = 0; i < s->n; i++)
		v[i < n_tables ? i + s->n_lead : i - n_tables] = s->cell[i];
	lens_free(s->cell);
	s->cell = v;
	s->length_id = LENS_NO_LENGTH;
	if (s->t)
		LENS_TRY(add_id(s, lens_content_find(s->c, "/prompts/", "length"),
				&s->length_id, err));
	s->block = lens_calloc(s->n_ids, sizeof(*s->block));
	return s->block ? LENS_OK : lens_error_nomem(err, s->n_ids, sizeof(*s->block));
}
