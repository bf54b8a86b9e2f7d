/*
 * core/json.c: parses JSON with jansson, and makes its errors ours.
 *
 * When memory runs out, jansson 2.14 may call a valid file invalid, silently leave a
 * value out, or read past the end of a token whose buffer could not grow. So it gets
 * allocation functions that record a failure, and try once more before reporting it.
 */
#include "core/json.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local bool memory_ran_out;

static void *json_malloc(size_t n)
{
	void *p = lens_realloc(NULL, n, 1);

	if (p)
		return p;
	memory_ran_out = true;
	return malloc(n);
}

static void set_alloc_funcs(void)
{
	json_set_alloc_funcs(json_malloc, lens_free);
}

/* jansson's result, and its error in *e. */
static json_t *load(const char *text, size_t len, size_t flags, json_error_t *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, set_alloc_funcs);
	memory_ran_out = false;
	memset(e, 0, sizeof(*e));
	return json_loadb(text, len, flags, e);
}

/* Turns jansson's result into ours: *out is the object, or NULL with an error. */
static enum lens_status judge(const char *path, json_t **out, const json_error_t *e,
			      struct lens_error *err)
{
	enum lens_status st = LENS_OK;

	if (memory_ran_out)
		st = lens_error_at(err, LENS_ERR_NOMEM, path, 0, 0, "out of memory");
	else if (!*out)
		st = lens_error_at(err, LENS_ERR_FORMAT, path, e->line > 0 ? e->line : 0,
				   e->column > 0 ? e->column : 0, "not valid JSON: %s",
				   e->text);
	else if (!json_is_object(*out))
		st = lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0, "not a JSON object");
	if (st != LENS_OK) {
		json_decref(*out);
		*out = NULL;
	}
	return st;
}

enum lens_status lens_json_parse(const char *path, const char *text, size_t len, json_t **out,
				 struct lens_error *err)
{
	json_error_t e;

	*out = load(text, len, JSON_REJECT_DUPLICATES, &e);
	return judge(path, out, &e, err);
}

/* The column in the file of a position in its rewritten form; the line is the same. */
static int column_of(const char *text, size_t len, size_t position)
{
	struct lens_json_rewritten r;
	int column = 0;
	size_t i;

	lens_json_rewrite(text, len, position, &r, NULL);
	lens_buf_release(&r.out);
	for (i = r.stopped; i > 0 && text[i - 1] != '\n'; i--)
		column += ((unsigned char)text[i - 1] & 0xc0) != 0x80;
	return column;
}

enum lens_status lens_json_parse_python(const char *path, const char *text, size_t len,
					json_t **out, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_json_rewritten r;
	enum lens_status st;
	json_error_t e;

	*out = load(text, len, JSON_REJECT_DUPLICATES, &e);
	if (*out || memory_ran_out)
		return judge(path, out, &e, err);
	st = lens_json_rewrite(text, len, SIZE_MAX, &r, &why);
	if (st == LENS_OK && r.n_changed && !memory_ran_out) {
		*out = load(r.out.data, r.out.len, 0, &e); /* duplicate keys are marked */
		if (!*out && !memory_ran_out)
			e.column = column_of(text, len, (size_t)e.position);
	}
	if (st == LENS_OK)
		st = judge(path, out, &e, err);
	else
		lens_error_at(err, st, path, 0, 0, "%s", why.text);
	lens_buf_release(&r.out);
	return st;
}

const char *lens_json_unusable(const json_t *value)
{
	return json_string_value(json_object_get(value, LENS_JSON_UNUSABLE));
}

const char *lens_json_unusable_key(const char *key)
{
	static const char mark[] = LENS_JSON_UNUSABLE " ";

	return strncmp(key, mark, sizeof(mark) - 1) ? NULL : key + sizeof(mark) - 1;
}
