/*
 * dataset/check_places.c: where attention is cut in a prompt. In: a record, and the lists or
 * texts of options.place; out: the position at which each text ends, or what is wrong with
 * the row: a text that is not there, a query that would keep no key.
 */
#include "dataset/check_private.h"

#include <stdio.h>
#include <string.h>

bool lens_place_has(const struct lens_places *l, const int32_t *found, size_t row,
		    size_t length, size_t pos)
{
	size_t i;

	if (found)
		return (size_t)found[row] == pos;
	for (i = 0; i < l->n; i++) {
		long at = l->position[i];

		if ((at < 0 ? at + (long)length : at) == (long)pos)
			return true;
	}
	return !l->n;
}

size_t lens_place_first(const struct lens_places *l, const int32_t *found, size_t row,
			size_t length)
{
	size_t pos = 0;

	while (pos < length && !lens_place_has(l, found, row, length, pos))
		pos++;
	return pos;
}

/* Is a position of the row among those of options.place[k]? */
static bool has(const struct lens_row_check *c, const struct lens_row *row, int k, size_t pos)
{
	const struct lens_places *l = c->opt->place[k];

	return lens_place_has(l, l->n ? NULL : &row->found[k], 0, row->tokens.n, pos);
}

/* A softmax over no key at all is not a number. */
static void check_keys(const struct lens_row_check *c, const struct lens_csv_record *rec,
		       struct lens_row *row)
{
	size_t window = c->opt->window, cut = 0, pos;

	for (pos = 0; pos < row->tokens.n; pos++) {
		size_t seen = window ? lens_min(window, pos + 1) : pos + 1;

		cut = has(c, row, 0, pos) ? cut + 1 : 0; /* keys in a row, up to this one */
		if (cut < seen || !has(c, row, 1, pos))
			continue;
		lens_row_note(&row->bad, c, rec,
			      "knockout.from has every key that the token at position %zu "
			      "sees, and knockout.to has this token: it would have nothing "
			      "to attend to (the prompt has %zu tokens%s)",
			      pos, row->tokens.n, c->bos >= 0 ? ", BOS included" : "");
		return;
	}
}

enum lens_status lens_row_check_places(struct lens_row_check *c,
				       const struct lens_csv_record *rec, struct lens_row *row,
				       struct lens_error *err)
{
	static const char *const keys[] = { "knockout.from: ", "knockout.to: " };
	int k;

	for (k = 0; k < 2; k++) {
		const struct lens_places *l = c->opt->place[k];
		const struct lens_search what = { .key = keys[k],
						  .text = l ? l->find : NULL,
						  .column = c->columns->place[k],
						  .nth = l ? l->nth : 0 };

		row->found[k] = 0;
		if (what.text || what.column != LENS_NO_COLUMN)
			LENS_TRY(lens_row_find(c, rec, &what, row, &row->found[k], err));
		if (row->bad.code != LENS_OK)
			return LENS_OK;
	}
	if (c->opt->place[0] && c->opt->place[1])
		check_keys(c, rec, row);
	return LENS_OK;
}
