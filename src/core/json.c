/*
 * core/json.c: JSON through jansson.
 *
 * Where memory is out, jansson 2.14 may call a sound file invalid, leave a
 * value out and say nothing, or read past the end of a token whose buffer could
 * not grow. So it gets allocation functions that remember, and that try once
 * more before they let it know.
 */
#include "core/json.h"

#include <pthread.h>
#include <stdlib.h>

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

enum lens_status lens_json_parse(const char *path, const char *text, size_t len, json_t **out,
				 struct lens_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	enum lens_status st = LENS_OK;
	json_error_t e;

	pthread_once(&once, set_alloc_funcs);
	memory_ran_out = false;
	*out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (memory_ran_out)
		st = lens_error_at(err, LENS_ERR_NOMEM, path, 0, 0, "out of memory");
	else if (!*out)
		st = lens_error_at(err, LENS_ERR_FORMAT, path, e.line > 0 ? e.line : 0,
				   e.column > 0 ? e.column : 0, "not valid JSON: %s", e.text);
	else if (!json_is_object(*out))
		st = lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0, "not a JSON object");
	if (st != LENS_OK) {
		json_decref(*out);
		*out = NULL;
	}
	return st;
}
