/*
 * tokenizer/load_parts.c: what normalizers, pre-tokenizers, decoders and post-processors
 * have in common in tokenizer.json: types, sequences, patterns, single characters.
 */
#include "tokenizer/tokenizer_private.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#define MAX_DEPTH 16

struct lens_json lens_json_child(struct lens_json at, const char *key, const char *where)
{
	return (struct lens_json){ json_object_get(at.value, key), at.file, where };
}

enum lens_status lens_unsupported_type(struct lens_json at, const char *type,
				       struct lens_error *err)
{
	char what[128];

	snprintf(what, sizeof(what), "the type \"%.100s\"", type);
	return lens_json_unsupported(at, what, err);
}

enum lens_status lens_load_char(struct lens_json at, const char *key, char mark[5],
				struct lens_error *err)
{
	const json_t *value = json_object_get(at.value, key);
	const char *s = json_string_value(value);
	size_t n = json_string_length(value);
	int32_t c;

	if (!s || !n ||
	    utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c) !=
		    (utf8proc_ssize_t)n)
		return lens_json_wrong(at, key, "a string of one character", err);
	memcpy(mark, s, n); /* at most 4 bytes: one character of UTF-8 */
	mark[n] = '\0';
	return LENS_OK;
}

enum lens_status lens_load_regex(const char *pattern, size_t len, bool literal,
				 struct lens_regex **re, struct lens_error *err)
{
	struct lens_buf pcre = LENS_BUF_INIT;
	enum lens_status st;

	if (literal)
		st = lens_regex_literal(pattern, len, &pcre, err);
	else
		st = lens_regex_translate(pattern, len, &pcre, err);
	if (st == LENS_OK)
		st = lens_regex_compile(pcre.data ? pcre.data : "", pcre.len, re, err);
	lens_buf_release(&pcre);
	return st;
}

enum lens_status lens_load_pattern(struct lens_json at, struct lens_regex **re,
				   struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	const json_t *pattern = json_object_get(at.value, "pattern");
	const json_t *text = json_object_get(pattern, "Regex");
	enum lens_status st;

	if (!text)
		text = json_object_get(pattern, "String");
	if (json_object_size(pattern) != 1 || !json_is_string(text))
		return lens_json_wrong(at, "pattern", "{\"Regex\": ...} or {\"String\": ...}",
				       err);
	st = lens_load_regex(json_string_value(text), json_string_length(text),
			     !json_object_get(pattern, "Regex"), re, &why);
	if (st != LENS_OK)
		return lens_error_at(err, st, at.file, 0, 0, "%s: %s", at.where, why.text);
	return LENS_OK;
}

enum lens_status lens_load_text(struct lens_json at, const char *key, struct lens_replace *r,
				struct lens_error *err)
{
	const char *s = json_string_value(json_object_get(at.value, key));

	if (!s)
		return lens_json_wrong(at, key, "a string", err);
	r->len = strlen(s);
	r->text = lens_strdup(s);
	return r->text ? LENS_OK : lens_error_nomem(err, r->len + 1, 1);
}

enum lens_status lens_load_replace(struct lens_json at, struct lens_replace *r,
				   struct lens_error *err)
{
	static const char *const keys[] = { "type", "pattern", "content", NULL };
	enum lens_status st;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_text(at, "content", r, err));
	st = lens_load_pattern(at, &r->re, err);
	if (st != LENS_OK)
		lens_replace_release(r);
	return st;
}

enum lens_status lens_load_sequence(struct lens_tokenizer *tok, struct lens_json at,
				    const char *key, int depth, lens_load_fn fn,
				    struct lens_error *err)
{
	const char *const keys[] = { "type", key, NULL };
	const json_t *list = json_object_get(at.value, key);
	size_t i;

	if (depth == MAX_DEPTH)
		return lens_json_unsupported(at, "a Sequence this deep", err);
	LENS_TRY(lens_json_keys(at, keys, err));
	if (!json_is_array(list))
		return lens_json_wrong(at, key, "an array", err);
	for (i = 0; i < json_array_size(list); i++) {
		at.value = json_array_get(list, i);
		LENS_TRY(fn(tok, at, depth + 1, err));
	}
	return LENS_OK;
}
