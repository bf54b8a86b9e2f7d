/*
 * tokenizer/json.c: checked access to JSON. In: a file; out: values of the type asked
 * for, or an error that says where.
 */
#include "tokenizer/json_private.h"
#include "tokenizer/vocab_private.h"

#include <string.h>

enum lens_status lens_digest_file(struct lens_sha256 *sha, const char *name,
				  const struct lens_buf *contents, struct lens_error *err)
{
	uint8_t size[8];
	size_t i;

	for (i = 0; i < sizeof(size); i++)
		size[i] = (uint8_t)((uint64_t)contents->len >> 8 * i);
	LENS_TRY(lens_sha256_update(sha, name, strlen(name) + 1, err));
	LENS_TRY(lens_sha256_update(sha, size, sizeof(size), err));
	return lens_sha256_update(sha, contents->data, contents->len, err);
}

enum lens_status lens_json_read(const char *path, const char *name, struct lens_sha256 *sha,
				json_t **root, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	*root = NULL;
	st = lens_file_read(path, LENS_TOKENIZER_MAX_FILE, &b, err);
	if (st == LENS_OK && sha)
		st = lens_digest_file(sha, name, &b, err);
	if (st == LENS_OK)
		st = lens_json_parse_python(path, b.data, b.len, root, err);
	lens_buf_release(&b);
	return st;
}

enum lens_status lens_json_wrong(struct lens_json at, const char *key, const char *what,
				 struct lens_error *err)
{
	const json_t *value = *key ? json_object_get(at.value, key) : at.value;
	const char *unusable = lens_json_unusable(value);

	return lens_error_at(err, LENS_ERR_FORMAT, at.file, 0, 0, "%s%s%s must be %s%s%s",
			     at.where, *at.where && *key ? "." : "", key, what,
			     unusable ? "; it " : "", unusable ? unusable : "");
}

enum lens_status lens_json_unsupported(struct lens_json at, const char *what,
				       struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, at.file, 0, 0,
			     "%s: %s is not supported", at.where, what);
}

enum lens_status lens_json_keys(struct lens_json at, const char *const *known,
				struct lens_error *err)
{
	const char *key;
	json_t *value;

	if (!json_is_object(at.value) || lens_json_unusable(at.value))
		return lens_json_wrong(at, "", "an object", err);
	json_object_foreach (at.value, key, value) {
		const char *const *k;

		for (k = known; *k && strcmp(*k, key); k++)
			;
		if (!*k)
			return lens_error_at(err, LENS_ERR_UNSUPPORTED, at.file, 0, 0,
					     "%s%sthe key \"%.100s\" is not supported",
					     at.where, *at.where ? ": " : "", key);
	}
	return LENS_OK;
}

enum lens_status lens_json_bool(struct lens_json at, const char *key, bool required, bool *out,
				struct lens_error *err)
{
	const json_t *value = json_object_get(at.value, key);

	if (!value && !required)
		return LENS_OK;
	if (!json_is_boolean(value))
		return lens_json_wrong(at, key, "true or false", err);
	*out = json_is_true(value);
	return LENS_OK;
}

const char *lens_json_type(struct lens_json at, enum lens_status *st, struct lens_error *err)
{
	const char *type;

	*st = LENS_OK;
	if (!json_is_object(at.value) || lens_json_unusable(at.value))
		*st = lens_json_wrong(at, "", "an object", err);
	else if (!(type = json_string_value(json_object_get(at.value, "type"))))
		*st = lens_json_wrong(at, "type", "a string", err);
	else
		return type;
	return NULL;
}

bool lens_json_id(const json_t *value, int32_t *id)
{
	json_int_t i = json_integer_value(value);

	if (!json_is_integer(value) || i < 0 || i >= (json_int_t)LENS_VOCAB_MAX_IDS)
		return false;
	*id = (int32_t)i;
	return true;
}
