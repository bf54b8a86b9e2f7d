/* core/json.h: parsing JSON, for the stages that read it. */
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

#endif
