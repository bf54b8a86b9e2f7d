/*
 * pipeline/export.c: results as CSV. In: a finished file, which tables, columns and rows;
 * out: text, a block of rows at a time, so that memory does not grow with the file.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

#define PIECE ((size_t)1 << 16)
#define NO_LENGTH SIZE_MAX

/* A cell of each row, with the name that heads its column. */
struct cell {
	const struct lens_content_entry *e;
	size_t id, index; /* in lens_rows; which cell of its row */
	char *name;
};

/* One CSV file. */
struct sheet {
	const struct lens_content *c;
	const struct lens_export_options *opt;
	struct lens_rows *rows;
	struct cell *cell; /* columns first, then tables */
	size_t n, cap, n_lead;
	struct lens_cells *block; /* [data sets in rows] */
	size_t n_ids;
	const struct lens_content_entry *t; /* in a long form, else NULL */
	size_t t_id, length_id;
	struct lens_buf out;
};

/* --- text --------------------------------------------------------------------------- */

const char *lens_real_text(double v, bool single, char text[LENS_NUMBER_TEXT])
{
	int digits, last = single ? 9 : 17;

	if (isnan(v))
		return "NaN";
	if (isinf(v))
		return v < 0 ? "-inf" : "inf";
	for (digits = single ? 6 : 15; digits <= last; digits++) {
		snprintf(text, LENS_NUMBER_TEXT, "%.*g", digits, v);
		if (single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
			break;
	}
	/* Or a reader would take a column of such for integers, and lose the sign of -0. */
	if (!strpbrk(text, ".e"))
		memcpy(text + strlen(text), ".0", 3);
	return text;
}

static enum lens_status put(struct sheet *s, const char *text, struct lens_error *err)
{
	return lens_buf_append(&s->out, text, strlen(text), err);
}

/* As RFC 4180 has it; spaces at the ends are data, and some readers trim them. */
static enum lens_status put_text(struct sheet *s, const char *text, struct lens_error *err)
{
	const size_t n = strlen(text);
	const char *quote;

	if (!strpbrk(text, ",\"\r\n") &&
	    !(n && (text[0] == ' ' || text[n - 1] == ' ' || text[0] == '\t')))
		return put(s, text, err);
	LENS_TRY(put(s, "\"", err));
	while ((quote = strchr(text, '"'))) {
		LENS_TRY(lens_buf_append(&s->out, text, (size_t)(quote - text) + 1, err));
		LENS_TRY(put(s, "\"", err));
		text = quote + 1;
	}
	LENS_TRY(put(s, text, err));
	return put(s, "\"", err);
}

static enum lens_status put_value(struct sheet *s, const struct lens_cells *b, size_t i,
				  struct lens_error *err)
{
	char text[LENS_NUMBER_TEXT];

	if (b->text)
		return put_text(s, b->text[i], err);
	if (b->integer) {
		snprintf(text, sizeof(text), "%lld", (long long)b->integer[i]);
		return put(s, text, err);
	}
	return put(s, lens_real_text(b->real[i], b->dtype != LENS_F64, text), err);
}

static enum lens_status flush(struct sheet *s, size_t least, struct lens_error *err)
{
	enum lens_status st;

	if (s->out.len < least || !s->out.len)
		return LENS_OK;
	st = s->opt->write(s->opt->ctx, s->out.data, s->out.len, err);
	s->out.len = 0;
	return st;
}

/* --- which columns ------------------------------------------------------------------ */

const struct lens_content_entry *lens_export_table(const struct lens_content *c,
						   const char *name)
{
	static const char *const group[] = { "/results/", "/prompts/", "/cache/" };
	const struct lens_content_entry *e = NULL;
	size_t i;

	if (*name == '/')
		return lens_content_find(c, "/", name + 1);
	for (i = 0; i < sizeof(group) / sizeof(*group) && !e; i++)
		e = lens_content_find(c, group[i], name);
	return e;
}

/* The data set's place in s->rows, added when it is new. */
static enum lens_status add_id(struct sheet *s, const struct lens_content_entry *e, size_t *id,
			       struct lens_error *err)
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

static bool taken(const struct sheet *s, const char *name)
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
static enum lens_status add_cell(struct sheet *s, const struct lens_content_entry *e,
				 size_t index, const char *name, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	struct cell *v = lens_grow(s->cell, s->n, &s->cap, sizeof(*v), err);
	size_t k;

	if (!v)
		return LENS_ERR_NOMEM;
	s->cell = v;
	v += s->n;
	*v = (struct cell){ .e = e, .index = index };
	LENS_TRY(add_id(s, e, &v->id, err));
	LENS_TRY(lens_buf_printf(&b, err, "%s", name));
	for (k = 1; taken(s, b.data); k++) {
		b.len = 0;
		LENS_TRY(lens_buf_printf(&b, err, "%s.%zu", name, k));
	}
	v->name = b.data;
	s->n++;
	return LENS_OK;
}

/* "logit_diff"; of several answers "answer_rank_correct", … */
static enum lens_status add_table(struct sheet *s, const struct lens_content_entry *e,
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

static enum lens_status add_columns(struct sheet *s, struct lens_error *err)
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

static enum lens_status add_tables(struct sheet *s, struct lens_error *err)
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
static enum lens_status choose(struct sheet *s, struct lens_error *err)
{
	size_t n_tables, i;
	struct cell *v;

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
	s->length_id = NO_LENGTH;
	if (s->t)
		LENS_TRY(add_id(s, lens_content_find(s->c, "/prompts/", "length"),
				&s->length_id, err));
	s->block = lens_calloc(s->n_ids, sizeof(*s->block));
	return s->block ? LENS_OK : lens_error_nomem(err, s->n_ids, sizeof(*s->block));
}

/* --- rows --------------------------------------------------------------------------- */

static enum lens_status put_head(struct sheet *s, struct lens_error *err)
{
	size_t i;
	int axis;

	LENS_TRY(put(s, "prompt", err));
	for (i = 0; i < s->n; i++) {
		LENS_TRY(put(s, ",", err));
		LENS_TRY(put_text(s, s->cell[i].name, err));
	}
	for (axis = 1; s->t && axis < s->t->rank; axis++) {
		LENS_TRY(put(s, ",", err));
		LENS_TRY(put_text(s, s->t->dim[axis], err));
	}
	return put(s, s->t ? ",value\n" : "\n", err);
}

/* Row first + i, whose block has been read: its number and cells. */
static enum lens_status put_row(struct sheet *s, size_t first, size_t i, struct lens_error *err)
{
	size_t k;

	LENS_TRY(lens_buf_printf(&s->out, err, "%zu", first + i));
	for (k = 0; k < s->n; k++) {
		const struct lens_cells *b = &s->block[s->cell[k].id];

		LENS_TRY(put(s, ",", err));
		LENS_TRY(put_value(s, b, i * b->width + s->cell[k].index, err));
	}
	return LENS_OK;
}

static bool counts_tokens(const char *axis)
{
	static const char *const name[] = { "pos", "query", "key", "dest_pos", "src_pos" };
	size_t i;

	for (i = 0; i < sizeof(name) / sizeof(*name); i++) {
		if (!strcmp(axis, name[i]))
			return true;
	}
	return false;
}

/* Where cell number i of a row of t is; false: past the end of a prompt of that length. */
static bool place_of(const struct lens_content_entry *t, size_t i, size_t length, size_t *place)
{
	bool in = true;
	int axis;

	for (axis = t->rank - 1; axis > 0; axis--) {
		place[axis] = i % t->extent[axis];
		i /= t->extent[axis];
		in = in && (place[axis] < length || !counts_tokens(t->dim[axis]));
	}
	return in;
}

/* The cells of the long form's table in row first + i. */
static enum lens_status put_cells(struct sheet *s, size_t first, size_t i,
				  struct lens_error *err)
{
	const struct lens_cells *b = &s->block[s->t_id];
	const int64_t length = s->block[s->length_id].integer[i];
	size_t k, lead = s->out.len, n_lead, place[LENS_MAX_RANK];
	char label[LENS_LABEL], *copy;
	enum lens_status st = LENS_OK;
	int axis;

	/* What stands before each cell is the same for all of them. */
	LENS_TRY(put_row(s, first, i, err));
	n_lead = s->out.len - lead;
	copy = lens_strdup(s->out.data + lead);
	if (!copy)
		return lens_error_nomem(err, n_lead, 1);
	s->out.len = lead;
	for (k = 0; k < b->width && st == LENS_OK; k++) {
		if (!place_of(s->t, k, (size_t)length, place))
			continue;
		st = lens_buf_append(&s->out, copy, n_lead, err);
		for (axis = 1; axis < s->t->rank && st == LENS_OK; axis++) {
			st = put(s, ",", err);
			if (st == LENS_OK)
				st = put_text(s,
					      lens_content_label(s->c, s->t->dim[axis],
								 place[axis], label),
					      err);
		}
		if (st == LENS_OK)
			st = put(s, ",", err);
		if (st == LENS_OK)
			st = put_value(s, b, i * b->width + k, err);
		if (st == LENS_OK)
			st = put(s, "\n", err);
		if (st == LENS_OK)
			st = flush(s, PIECE, err);
	}
	lens_free(copy);
	return st;
}

static enum lens_status put_block(struct sheet *s, size_t first, size_t n,
				  struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->n_ids; i++)
		LENS_TRY(lens_rows_read(s->rows, i, first, n, &s->block[i], err));
	if (s->length_id != NO_LENGTH && !s->block[s->length_id].integer)
		return lens_error_set(err, LENS_ERR_FORMAT, "/prompts/length: not integers");
	for (i = 0; i < n; i++) {
		if (s->t) {
			LENS_TRY(put_cells(s, first, i, err));
		} else {
			LENS_TRY(put_row(s, first, i, err));
			LENS_TRY(put(s, "\n", err));
		}
		LENS_TRY(flush(s, PIECE, err));
	}
	return LENS_OK;
}

static enum lens_status put_sheet(struct sheet *s, struct lens_error *err)
{
	const struct lens_export_options *o = s->opt;
	size_t row, n;

	LENS_TRY(choose(s, err));
	LENS_TRY(put_head(s, err));
	for (row = o->first; row < o->first + o->n; row += n) {
		n = lens_min(s->n_ids ? lens_rows_block(s->rows, row) : PIECE,
			     o->first + o->n - row);
		LENS_TRY(put_block(s, row, n, err));
	}
	return flush(s, 0, err);
}

enum lens_status lens_export(const char *file, const struct lens_content *c,
			     const struct lens_export_options *opt, struct lens_error *err)
{
	struct sheet s = { .c = c, .opt = opt };
	enum lens_status st;

	LENS_TRY(lens_rows_open(file, &s.rows, err));
	st = lens_rows_close(s.rows, put_sheet(&s, err), err);
	while (s.n)
		lens_free(s.cell[--s.n].name);
	lens_free(s.cell);
	lens_free(s.block);
	lens_buf_release(&s.out);
	return st;
}
