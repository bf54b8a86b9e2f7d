/*
 * model/json.c: JSON files and typed access to config.json.
 */
#include "model/model_private.h"

#include <string.h>

enum lens_status lens_json_load(const char *path, size_t max_bytes, json_t **out,
				struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	*out = NULL;
	st = lens_file_read(path, max_bytes, &b, err);
	if (st == LENS_OK)
		st = lens_json_parse_python(path, b.data, b.len, out, err);
	lens_buf_release(&b);
	return st;
}

const json_t *lens_config_value(const struct lens_config_file *f, const char *key)
{
	if (f->asked)
		json_object_set_new(f->asked, key, json_true());
	return json_object_get(f->root, key);
}

static const json_t *value_of(const struct lens_config_file *f, const char *key)
{
	const json_t *v = lens_config_value(f, key);

	return json_is_null(v) ? NULL : v;
}

enum lens_status lens_config_wrong(const struct lens_config_file *f, const char *key,
				   const char *what, struct lens_error *err)
{
	const char *unusable = lens_json_unusable(json_object_get(f->root, key));

	/* Which of two values was meant is not known. */
	if (unusable && !strcmp(unusable, LENS_JSON_TWICE))
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0, "\"%s\" %s", key,
				     unusable);
	return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0, "\"%s\" %s%s%s", key, what,
			     unusable ? ": it " : "", unusable ? unusable : "");
}

enum lens_status lens_config_size(const struct lens_config_file *f, const char *key,
				  size_t deflt, size_t *out, struct lens_error *err)
{
	const json_t *v = value_of(f, key);

	if (!v && !deflt)
		return lens_config_wrong(f, key, "is missing", err);
	if (!v) {
		*out = deflt;
		return LENS_OK;
	}
	if (!json_is_integer(v) || json_integer_value(v) < 1 ||
	    json_integer_value(v) > INT32_MAX)
		return lens_config_wrong(f, key, "is not a whole number from 1 to 2147483647",
					 err);
	*out = (size_t)json_integer_value(v);
	return LENS_OK;
}

enum lens_status lens_config_either(const struct lens_config_file *f, const char *key,
				    const char *other, size_t deflt, size_t *out,
				    struct lens_error *err)
{
	size_t first;

	LENS_TRY(lens_config_size(f, key, deflt, &first, err));
	LENS_TRY(lens_config_size(f, other, first, out, err));
	if (!value_of(f, key) || first == *out)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
			     "%s %zu, but %s %zu: they name the same thing", key, first, other,
			     *out);
}

enum lens_status lens_config_bool(const struct lens_config_file *f, const char *key, bool deflt,
				  bool *out, struct lens_error *err)
{
	const json_t *v = value_of(f, key);

	if (v && !json_is_boolean(v))
		return lens_config_wrong(f, key, "is not true or false", err);
	*out = v ? json_is_true(v) : deflt;
	return LENS_OK;
}

enum lens_status lens_config_real(const struct lens_config_file *f, const char *key,
				  double deflt, double *out, struct lens_error *err)
{
	const json_t *v = value_of(f, key);

	if (v && !json_is_number(v))
		return lens_config_wrong(f, key, "is not a number", err);
	*out = v ? json_number_value(v) : deflt;
	return LENS_OK;
}

enum lens_status lens_config_text(const struct lens_config_file *f, const char *key,
				  const char **out, struct lens_error *err)
{
	const json_t *v = value_of(f, key);

	if (v && !json_is_string(v))
		return lens_config_wrong(f, key, "is not a string", err);
	*out = v ? json_string_value(v) : NULL;
	return LENS_OK;
}
