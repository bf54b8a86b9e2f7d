/*
 * core/json.h: parsing JSON, for the stages that read it. Not a public header, because
 * it shows jansson's types.
 */
#ifndef CORE_JSON_H
#define CORE_JSON_H

#include <jansson.h>

#include "h5lens/core.h"

/*
 * Parses text[0..len) as a JSON object; duplicate keys and trailing bytes are
 * errors, nesting stops at jansson's 2048 levels. path is for messages.
 */
enum lens_status lens_json_parse(const char *path, const char *text, size_t len, json_t **out,
				 struct lens_error *err);

/*
 * The same for a file that Python's json module may have written. It accepts what is
 * not JSON or does not fit: Infinity, -Infinity, NaN, integers beyond int64, reals
 * beyond double, a NUL or half a surrogate pair in a string, duplicate keys. Such a
 * value becomes an object that lens_json_unusable recognises, so that it is an error
 * only where it is needed.
 */
enum lens_status lens_json_parse_python(const char *path, const char *text, size_t len,
					json_t **out, struct lens_error *err);

/* "holds 1e400" or "appears twice" if value is such an object, else NULL. */
const char *lens_json_unusable(const json_t *value);

/* "holds a NUL" if key is the mark of such a key, else NULL. */
const char *lens_json_unusable_key(const char *key);

/* --- json_python.c, for json.c ---------------------------------------------------- */

/* A text in its rewritten form. */
struct lens_json_rewritten {
	struct lens_buf out;
	size_t n_changed; /* values; more than LENS_JSON_MAX_UNUSABLE are an error */
	size_t stopped;   /* the offset in the text that was reached */
};

/*
 * Copies text[0..len) to r->out, with objects in place of the values that jansson would
 * refuse, until r->out is longer than stop bytes. What is not JSON at all is copied
 * unchanged. The caller releases r->out in any case.
 */
enum lens_status lens_json_rewrite(const char *text, size_t len, size_t stop,
				   struct lens_json_rewritten *r, struct lens_error *err);
#define LENS_JSON_MAX_UNUSABLE 65536
#define LENS_JSON_UNUSABLE "h5lens:unusable"
#define LENS_JSON_TWICE "appears twice"

#endif
