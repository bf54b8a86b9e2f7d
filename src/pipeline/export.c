/*
 * pipeline/export.c: results as CSV. In: a finished file, which tables, columns and rows;
 * out: text, a block of rows at a time, so that memory does not grow with the file.
 */
#include "pipeline/export_private.h"

#include <math.h>
#include <string.h>

#define PIECE ((size_t)1 << 16)

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

static enum lens_status put(struct lens_sheet *s, const char *text, struct lens_error *err)
{
	return lens_buf_append(&s->out, text, strlen(text), err);
}

/* As RFC 4180 has it; spaces at the ends are data, and some readers trim them. */
static enum lens_status put_text(struct lens_sheet *s, const char *text, struct lens_error *err)
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

static enum lens_status put_value(struct lens_sheet *s, const struct lens_cells *b, size_t i,
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

static enum lens_status flush(struct lens_sheet *s, size_t least, struct lens_error *err)
{
	enum lens_status st;

	if (s->out.len < least || !s->out.len)
		return LENS_OK;
	st = s->opt->write(s->opt->ctx, s->out.data, s->out.len, err);
	s->out.len = 0;
	return st;
}

/* --- rows --------------------------------------------------------------------------- */

static enum lens_status put_head(struct lens_sheet *s, struct lens_error *err)
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
static enum lens_status put_row(struct lens_sheet *s, size_t first, size_t i,
				struct lens_error *err)
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
static enum lens_status put_cells(struct lens_sheet *s, size_t first, size_t i,
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

static enum lens_status put_block(struct lens_sheet *s, size_t first, size_t n,
				  struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->n_ids; i++)
		LENS_TRY(lens_rows_read(s->rows, i, first, n, &s->block[i], err));
	if (s->length_id != LENS_NO_LENGTH && !s->block[s->length_id].integer)
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

static enum lens_status put_sheet(struct lens_sheet *s, struct lens_error *err)
{
	const struct lens_export_options *o = s->opt;
	size_t row, n;

	LENS_TRY(lens_sheet_choose(s, err));
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
	struct lens_sheet s = { .c = c, .opt = opt };
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
