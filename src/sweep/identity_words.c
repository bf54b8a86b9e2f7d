/*
 * sweep/identity_words.c: how two identities differ, in the user's words. In:
 * both as JSON; out: text, lists as one types them.
 */
#include "sweep/identity_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN 60 /* bytes of a value */

/* A list as one types it: a,b; none. */
static enum lens_status show_list(struct lens_buf *b, const json_t *list,
				  struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	const json_t *v;
	size_t i;

	if (!json_array_size(list))
		return lens_buf_printf(b, err, "none");
	json_array_foreach (list, i, v) {
		const char *comma = i ? "," : "";

		if (st == LENS_OK && json_is_string(v))
			st = lens_buf_printf(b, err, "%s%s", comma, json_string_value(v));
		else if (st == LENS_OK)
			st = lens_buf_printf(b, err, "%s%.10g", comma, json_number_value(v));
	}
	return st;
}

static enum lens_status show_value(struct lens_buf *b, const json_t *v, struct lens_error *err)
{
	char *text = v && !json_is_null(v)
			     ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS)
			     : NULL;
	size_t n = text ? strlen(text) : 0;
	enum lens_status st;

	if (n <= SHOWN) {
		st = lens_buf_printf(b, err, "%s", text ? text : v ? "none" : "nothing");
	} else {
		for (n = SHOWN; n && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
			;
		st = lens_buf_printf(b, err, "%.*s…%s", (int)n, text,
				     json_is_string(v) ? "\"" : "");
	}
	free(text);
	return st;
}

/* What list x has and y has not. */
static json_t *only_in(const json_t *x, const json_t *y)
{
	json_t *only = json_array(), *v, *w;
	size_t i, k;

	json_array_foreach (x, i, v) {
		bool in_both = false;

		json_array_foreach (y, k, w)
			in_both = in_both || json_equal(v, w);
		if (!in_both && json_array_append(only, v))
			break;
	}
	return only;
}

/* Long lists are told by what only one of them has. */
static enum lens_status list_difference(const json_t *x, const json_t *y, struct lens_buf *b,
					struct lens_error *err)
{
	struct lens_buf was = LENS_BUF_INIT, is = LENS_BUF_INIT;
	json_t *only_x = only_in(x, y), *only_y = only_in(y, x);
	enum lens_status st = show_list(&was, x, err);

	if (st == LENS_OK)
		st = show_list(&is, y, err);
	if (st == LENS_OK && !json_array_size(only_x) && !json_array_size(only_y)) {
		st = lens_buf_printf(b, err, "in another order");
	} else if (st == LENS_OK && was.len <= SHOWN && is.len <= SHOWN) {
		st = lens_buf_printf(b, err, "%s there, %s here", was.data, is.data);
	} else if (st == LENS_OK) {
		was.len = is.len = 0;
		st = show_list(&was, only_x, err);
		if (st == LENS_OK)
			st = show_list(&is, only_y, err);
		if (st == LENS_OK && json_array_size(only_x))
			st = lens_buf_printf(b, err, "only there %.400s", was.data);
		if (st == LENS_OK && json_array_size(only_y))
			st = lens_buf_printf(b, err, "%sonly here %.400s",
					     json_array_size(only_x) ? ", " : "", is.data);
	}
	json_decref(only_x);
	json_decref(only_y);
	lens_buf_release(&was);
	lens_buf_release(&is);
	return st;
}

static enum lens_status difference(const json_t *x, const json_t *y, struct lens_buf *b,
				   struct lens_error *err)
{
	if (json_is_array(x) && json_is_array(y))
		return list_difference(x, y, b, err);
	LENS_TRY(show_value(b, x, err));
	LENS_TRY(lens_buf_printf(b, err, " there, "));
	LENS_TRY(show_value(b, y, err));
	return lens_buf_printf(b, err, " here");
}

enum lens_status lens_identity_differences(const char *prefix, json_t *was, json_t *is,
					   struct lens_buf *b, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	json_t *both = json_copy(was), *unused;
	const char *key;

	if (!both || json_object_update_missing(both, is))
		st = lens_error_nomem(err, 1, 4096);
	json_object_foreach (both, key, unused) {
		json_t *x = json_object_get(was, key), *y = json_object_get(is, key);
		char name[160];

		if (st != LENS_OK || json_equal(x, y))
			continue;
		snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_is_object(x) && json_is_object(y)) {
			st = lens_identity_differences(name, x, y, b, err);
			continue;
		}
		st = lens_buf_printf(b, err, "%s%s: ", b->len ? "; " : "", name);
		if (st == LENS_OK)
			st = difference(x, y, b, err);
	}
	json_decref(both);
	return st;
}
