/*
 * tokenizer/load_parts.c: tokenizer.json's "normalizer" and "pre_tokenizer".
 * In: JSON; out: the tokenizer's nfc flag and its chain of splits.
 */
#include "tokenizer/internal.h"

#include <stdio.h>
#include <string.h>

#define MAX_DEPTH 16

static enum lens_status unsupported_type(struct lens_json at, const char *type,
					 struct lens_error *err)
{
	char what[128];

	snprintf(what, sizeof(what), "the type \"%.100s\"", type);
	return lens_json_unsupported(at, what, err);
}

static enum lens_status normalizer(struct lens_tokenizer *tok, struct lens_json at, int depth,
				   struct lens_error *err)
{
	static const char *const nfc_keys[] = { "type", NULL };
	static const char *const sequence_keys[] = { "type", "normalizers", NULL };
	const char *type;
	enum lens_status st;
	json_t *list;
	size_t i;

	if (json_is_null(at.value))
		return LENS_OK;
	type = lens_json_type(at, &st, err);
	if (!type)
		return st;
	if (!strcmp(type, "NFC")) {
		tok->nfc = true;
		return lens_json_keys(at, nfc_keys, err);
	}
	if (strcmp(type, "Sequence") || depth == MAX_DEPTH)
		return unsupported_type(at, type, err);
	LENS_TRY(lens_json_keys(at, sequence_keys, err));
	list = json_object_get(at.value, "normalizers");
	if (!json_is_array(list))
		return lens_json_wrong(at, "normalizers", "an array", err);
	for (i = 0; i < json_array_size(list); i++) {
		at.value = json_array_get(list, i);
		LENS_TRY(normalizer(tok, at, depth + 1, err));
	}
	return LENS_OK;
}

enum lens_status lens_load_normalizer(struct lens_tokenizer *tok, struct lens_json at,
				      struct lens_error *err)
{
	return at.value ? normalizer(tok, at, 0, err) : LENS_OK;
}

/* Translates (or takes literally) and compiles a pattern into step->re. */
static enum lens_status compile(struct lens_pretok_step *step, const char *pattern, size_t len,
				bool literal, struct lens_error *err)
{
	struct lens_buf pcre = LENS_BUF_INIT;
	enum lens_status st;

	if (literal)
		st = lens_regex_literal(pattern, len, &pcre, err);
	else
		st = lens_regex_translate(pattern, len, &pcre, err);
	if (st == LENS_OK)
		st = lens_regex_compile(pcre.data ? pcre.data : "", pcre.len, &step->re, err);
	lens_buf_release(&pcre);
	return st;
}

enum lens_status lens_load_byte_level(struct lens_tokenizer *tok, bool prefix_space,
				      bool use_regex, struct lens_error *err)
{
	struct lens_pretok_step step = { .prefix_space = prefix_space };

	if (use_regex)
		LENS_TRY(compile(&step, LENS_GPT2_PATTERN, strlen(LENS_GPT2_PATTERN), false,
				 err));
	return lens_pretok_push(&tok->pretok, &step, err);
}

static enum lens_status byte_level(struct lens_tokenizer *tok, struct lens_json at,
				   struct lens_error *err)
{
	static const char *const keys[] = { "type", "add_prefix_space", "trim_offsets",
					    "use_regex", NULL };
	bool prefix_space = false, trim_offsets = false, use_regex = true;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_json_bool(at, "add_prefix_space", true, &prefix_space, err));
	LENS_TRY(lens_json_bool(at, "trim_offsets", false, &trim_offsets, err));
	LENS_TRY(lens_json_bool(at, "use_regex", false, &use_regex, err));
	return lens_load_byte_level(tok, prefix_space, use_regex, err);
}

static enum lens_status digits(struct lens_tokenizer *tok, struct lens_json at,
			       struct lens_error *err)
{
	static const char *const keys[] = { "type", "individual_digits", NULL };
	struct lens_pretok_step step = { .behavior = LENS_SPLIT_CONTIGUOUS };
	bool individual = false;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_json_bool(at, "individual_digits", true, &individual, err));
	if (individual)
		step.behavior = LENS_SPLIT_ISOLATED;
	LENS_TRY(compile(&step, "\\p{N}", 5, false, err));
	return lens_pretok_push(&tok->pretok, &step, err);
}

static enum lens_status split_behavior(struct lens_json at, enum lens_split_behavior *out,
				       struct lens_error *err)
{
	static const char *const name[] = { "Isolated", "Removed", "Contiguous",
					    "MergedWithPrevious", "MergedWithNext" };
	const char *s = json_string_value(json_object_get(at.value, "behavior"));
	size_t i;

	for (i = 0; s && i < sizeof(name) / sizeof(*name); i++) {
		if (!strcmp(name[i], s)) {
			*out = (enum lens_split_behavior)i; /* the enum's order */
			return LENS_OK;
		}
	}
	return lens_json_wrong(at, "behavior",
			       "Isolated, Removed, Contiguous, MergedWithPrevious or "
			       "MergedWithNext",
			       err);
}

static enum lens_status split(struct lens_tokenizer *tok, struct lens_json at,
			      struct lens_error *err)
{
	static const char *const keys[] = { "type", "pattern", "behavior", "invert", NULL };
	struct lens_pretok_step step = { .re = NULL };
	struct lens_error why = LENS_ERROR_INIT;
	const json_t *pattern, *text;
	enum lens_status st;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_json_bool(at, "invert", true, &step.invert, err));
	LENS_TRY(split_behavior(at, &step.behavior, err));
	pattern = json_object_get(at.value, "pattern");
	text = json_object_get(pattern, "Regex");
	if (!text)
		text = json_object_get(pattern, "String");
	if (json_object_size(pattern) != 1 || !json_is_string(text))
		return lens_json_wrong(at, "pattern", "{\"Regex\": ...} or {\"String\": ...}",
				       err);
	st = compile(&step, json_string_value(text), json_string_length(text),
		     !json_object_get(pattern, "Regex"), &why);
	if (st != LENS_OK)
		return lens_error_at(err, st, at.file, 0, 0, "%s: %s", at.where, why.text);
	return lens_pretok_push(&tok->pretok, &step, err);
}

static enum lens_status pre_tokenizer(struct lens_tokenizer *tok, struct lens_json at,
				      int depth, bool *byte_levels, struct lens_error *err)
{
	static const char *const keys[] = { "type", "pretokenizers", NULL };
	enum lens_status st;
	const char *type = lens_json_type(at, &st, err);
	json_t *list;
	size_t i;

	if (!type)
		return st;
	/* After ByteLevel the text is bytes in disguise; nothing is split there. */
	if (*byte_levels)
		return lens_json_unsupported(at, "a pre-tokenizer after ByteLevel", err);
	if (!strcmp(type, "ByteLevel")) {
		*byte_levels = true;
		return byte_level(tok, at, err);
	}
	if (!strcmp(type, "Digits"))
		return digits(tok, at, err);
	if (!strcmp(type, "Split"))
		return split(tok, at, err);
	if (strcmp(type, "Sequence") || depth == MAX_DEPTH)
		return unsupported_type(at, type, err);
	LENS_TRY(lens_json_keys(at, keys, err));
	list = json_object_get(at.value, "pretokenizers");
	if (!json_is_array(list))
		return lens_json_wrong(at, "pretokenizers", "an array", err);
	for (i = 0; i < json_array_size(list); i++) {
		at.value = json_array_get(list, i);
		LENS_TRY(pre_tokenizer(tok, at, depth + 1, byte_levels, err));
	}
	return LENS_OK;
}

enum lens_status lens_load_pre_tokenizer(struct lens_tokenizer *tok, struct lens_json at,
					 struct lens_error *err)
{
	bool byte_levels = false;

	if (at.value && !json_is_null(at.value))
		LENS_TRY(pre_tokenizer(tok, at, 0, &byte_levels, err));
	if (!byte_levels)
		return lens_json_unsupported(at, "a tokenizer without ByteLevel", err);
	return LENS_OK;
}
