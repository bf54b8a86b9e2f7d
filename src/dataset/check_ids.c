/*
 * dataset/check_ids.c: a field of token ids, "1 2 3", as numbers, or what is wrong with it.
 */
#include "dataset/check_private.h"

#include <string.h>

static const char spaces[] = " \t\r\n";

/* The digits at s[0..n) as an id; −1: they are none. */
static int32_t id_of(const char *s, size_t n)
{
	int64_t id = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9' || id > INT32_MAX / 10)
			return -1;
		id = 10 * id + (s[i] - '0');
	}
	return id <= INT32_MAX ? (int32_t)id : -1;
}

enum lens_status lens_row_take_ids(const struct lens_row_check *c,
				   const struct lens_csv_record *rec, size_t column,
				   struct lens_ids *ids, struct lens_row *row,
				   struct lens_error *err)
{
	const char *s = rec->field[column];
	const size_t before = ids->n;
	char q[LENS_QUOTE_SIZE];
	size_t n;
	int32_t id;

	for (s += strspn(s, spaces); *s; s += n, s += strspn(s, spaces)) {
		n = strcspn(s, spaces);
		id = id_of(s, n);
		if (id < 0) {
			lens_row_note(&row->bad, c, rec,
				      "column '%.200s' has %s, which is no token id; ids are "
				      "numbers with spaces between them, 1 2 3",
				      c->columns->name[column], lens_row_quote(q, s, n));
			return LENS_OK;
		}
		if ((size_t)id >= c->vocab) {
			lens_row_note(&row->bad, c, rec,
				      "column '%.200s' has token %d, number %zu of %s; %s %zu",
				      c->columns->name[column], id, ids->n - before + 1,
				      lens_row_quote(q, rec->field[column],
						     rec->length[column]),
				      lens_row_vocab(c), c->vocab);
			return LENS_OK;
		}
		LENS_TRY(lens_ids_push(ids, id, err));
	}
	return LENS_OK;
}
