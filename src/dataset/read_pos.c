/*
 * dataset/read_pos.c: which token of a prompt the tables read, and where a text ends. In: a
 * record, and the number, column or text that data.read_pos gave; out: a position, or what
 * is wrong with the row.
 */
#include "dataset/check_private.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The number in the read position's column; false: it is none. */
static bool read_number(const struct lens_row_check *c, const struct lens_csv_record *rec,
			struct lens_row *row, long *pos)
{
	size_t column = c->columns->read_pos;
	const char *s = rec->field[column];
	char q[LENS_QUOTE_SIZE], *end;

	errno = 0;
	*pos = strtol(s, &end, 10);
	if (!errno && end != s && !*end && !isspace((unsigned char)*s))
		return true;
	lens_row_note(&row->bad, c, rec, "read_pos %s (column '%.200s') is not an integer",
		      lens_row_quote(q, s, rec->length[column]), c->columns->name[column]);
	return false;
}

static void take_number(const struct lens_row_check *c, const struct lens_csv_record *rec,
			struct lens_row *row)
{
	long pos = c->opt->read_pos, n = (long)row->tokens.n;

	if (c->columns->read_pos != LENS_NO_COLUMN && !read_number(c, rec, row, &pos))
		return;
	if (pos < -n || pos >= n)
		lens_row_note(&row->bad, c, rec,
			      "read_pos %ld is outside the prompt's %ld tokens%s", pos, n,
			      c->bos >= 0 ? " (BOS included)" : "");
	else
		row->read_pos = (int32_t)(pos < 0 ? pos + n : pos);
}

/* --- by text ------------------------------------------------------------------------- */

struct text {
	const char *s;
	size_t n;
};

/*
 * How often `what` is in `in`, from left to right, each one after the end of the one
 * before; no more are looked for once there are `most`. *end: where the last one ends.
 */
static long count(struct text in, struct text what, long most, size_t *end)
{
	const char *at;
	long n = 0;

	for (*end = 0; n < most; n++) {
		at = memmem(in.s + *end, in.n - *end, what.s, what.n);
		if (!at)
			break;
		*end = (size_t)(at - in.s) + what.n;
	}
	return n;
}

/* Where the text ends that is asked for; false: it is not there. */
static bool find_end(const struct lens_row_check *c, const struct lens_csv_record *rec,
		     const struct lens_search *search, struct lens_row *row, size_t *end)
{
	struct text in = { rec->field[c->columns->prompt], rec->length[c->columns->prompt] };
	bool by_column = search->column != LENS_NO_COLUMN;
	struct text what = { by_column ? rec->field[search->column] : search->text,
			     by_column ? rec->length[search->column] : strlen(search->text) };
	const char *name = by_column ? c->columns->name[search->column] : "";
	const char *start = by_column ? " (column '" : "", *close = by_column ? "')" : "";
	long nth = search->nth, n;
	char q[LENS_QUOTE_SIZE];

	if (!what.n) {
		lens_row_note(&row->bad, c, rec, "%sthe text to find%s%.200s%s is empty",
			      search->key, start, name, close);
		return false;
	}
	n = count(in, what, LONG_MAX, end);
	if (nth < 0)
		nth += n;
	if (nth >= 0 && nth < n) {
		count(in, what, nth + 1, end);
		return true;
	}
	lens_row_quote(q, what.s, what.n);
	if (!n)
		lens_row_note(&row->bad, c, rec, "%sthe text %s%s%.200s%s is not in the prompt",
			      search->key, q, start, name, close);
	else
		lens_row_note(&row->bad, c, rec,
			      "%sthe text %s%s%.200s%s is in the prompt, but only %ld of it: "
			      "there is no nth %ld",
			      search->key, q, start, name, close, n, search->nth);
	return false;
}

/* The token that holds the byte before end. */
static enum lens_status take_token(struct lens_row_check *c, const struct lens_csv_record *rec,
				   size_t end, struct lens_row *row, int32_t *pos,
				   struct lens_error *err)
{
	size_t prompt = c->columns->prompt, length = rec->length[prompt];
	int32_t *place = lens_calloc(length, sizeof(*place)), token;
	enum lens_status st;

	if (!place)
		return lens_error_nomem(err, length, sizeof(*place));
	c->scratch.n = 0;
	st = lens_tokenizer_encode_places(c->opt->tokenizer, rec->field[prompt], length,
					  &c->scratch, place, err);
	token = st == LENS_OK ? place[end - 1] : 0;
	lens_free(place);
	LENS_TRY(st);
	if (token < 0)
		lens_row_note(&row->bad, c, rec,
			      "no token holds the last character of the text that ends at byte "
			      "%zu of the prompt; the tokenizer drops it",
			      end);
	else
		*pos = token + (c->bos >= 0);
	return LENS_OK;
}

enum lens_status lens_row_find(struct lens_row_check *c, const struct lens_csv_record *rec,
			       const struct lens_search *what, struct lens_row *row,
			       int32_t *pos, struct lens_error *err)
{
	size_t end;

	return find_end(c, rec, what, row, &end) ? take_token(c, rec, end, row, pos, err)
						 : LENS_OK;
}

enum lens_status lens_row_check_read_pos(struct lens_row_check *c,
					 const struct lens_csv_record *rec,
					 struct lens_row *row, struct lens_error *err)
{
	const struct lens_search what = {
		.key = "", .text = c->opt->find, .column = c->columns->find, .nth = c->opt->nth
	};

	if (what.text || what.column != LENS_NO_COLUMN)
		return lens_row_find(c, rec, &what, row, &row->read_pos, err);
	take_number(c, rec, row);
	return LENS_OK;
}
