/*
 * tokenizer/load_pretok.c: tokenizer.json's "pre_tokenizer". In: JSON; out: the
 * tokenizer's chain of splits.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

enum lens_status lens_load_byte_level(struct lens_tokenizer *tok, bool prefix_space,
				      bool use_regex, struct lens_error *err)
{
	struct lens_pretok_step step = { .mark = " " };

	tok->byte_level = true;
	if (prefix_space)
		step.prefix = LENS_PREFIX_ALWAYS;
	if (use_regex)
		LENS_TRY(lens_load_regex(LENS_GPT2_PATTERN, strlen(LENS_GPT2_PATTERN), false,
					 &step.re, err));
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
	LENS_TRY(lens_load_regex("\\p{N}", 5, false, &step.re, err));
	return lens_pretok_push(&tok->pretok, &step, err);
}

static enum lens_status split_behavior(struct lens_json at, enum lens_split_behavior *out,
				       struct lens_error *err)
{
	static const char *const name[] = { "Isolated", "Removed", "Contiguous",
					    "MergedWithPrevious", "MergedWithNext" };
	const char *s = json_string_value(json_object_get(at.value, "behavior"));
	size_t i;

	if (s) {
		for (i = 0; i < sizeof(name) / sizeof(*name); i++) {
			if (!strcmp(name[i], s)) {
				*out = (enum lens_split_behavior)i; /* the enum's order */
				return LENS_OK;
			}
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

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_json_bool(at, "invert", true, &step.invert, err));
	LENS_TRY(split_behavior(at, &step.behavior, err));
	LENS_TRY(lens_load_pattern(at, &step.re, err));
	return lens_pretok_push(&tok->pretok, &step, err);
}

/* Old files say add_prefix_space instead; if false, it must agree with the scheme. */
enum lens_status lens_load_prefix_scheme(struct lens_json at, enum lens_prefix *out,
					 struct lens_error *err)
{
	static const char *const name[] = { "never", "first", "always" };
	const json_t *value = json_object_get(at.value, "prepend_scheme");
	const char *s = value ? json_string_value(value) : "always";
	bool legacy = true;
	int i;

	for (i = 0; i < 3; i++) {
		if (s && !strcmp(name[i], s))
			break;
	}
	if (i == 3)
		return lens_json_wrong(at, "prepend_scheme", "always, first or never", err);
	*out = (enum lens_prefix)i; /* the enum's order */
	if (!json_is_null(json_object_get(at.value, "add_prefix_space")))
		LENS_TRY(lens_json_bool(at, "add_prefix_space", false, &legacy, err));
	if (!legacy && *out != LENS_PREFIX_NEVER)
		return lens_json_wrong(at, "prepend_scheme",
				       "never where add_prefix_space is false", err);
	return LENS_OK;
}

static enum lens_status metaspace(struct lens_tokenizer *tok, struct lens_json at,
				  struct lens_error *err)
{
	static const char *const keys[] = { "type",  "replacement", "prepend_scheme",
					    "split", "str_rep",     "add_prefix_space",
					    NULL };
	struct lens_pretok_step step = { .to_mark = true, .behavior = LENS_SPLIT_WITH_NEXT };
	bool split = true;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_char(at, "replacement", step.mark, err));
	LENS_TRY(lens_load_prefix_scheme(at, &step.prefix, err));
	if (!json_is_null(json_object_get(at.value, "split")))
		LENS_TRY(lens_json_bool(at, "split", false, &split, err));
	if (split)
		LENS_TRY(lens_load_regex(step.mark, strlen(step.mark), true, &step.re, err));
	return lens_pretok_push(&tok->pretok, &step, err);
}

static enum lens_status pre_tokenizer(struct lens_tokenizer *tok, struct lens_json at,
				      int depth, struct lens_error *err)
{
	enum lens_status st;
	const char *type = lens_json_type(at, &st, err);

	if (!type)
		return st;
	if (!strcmp(type, "Sequence"))
		return lens_load_sequence(tok, at, "pretokenizers", depth, pre_tokenizer, err);
	/* After ByteLevel, characters stand for bytes, which we do not split. */
	if (tok->byte_level)
		return lens_json_unsupported(at, "a pre-tokenizer after ByteLevel", err);
	if (!strcmp(type, "ByteLevel"))
		return byte_level(tok, at, err);
	if (!strcmp(type, "Digits"))
		return digits(tok, at, err);
	if (!strcmp(type, "Split"))
		return split(tok, at, err);
	if (!strcmp(type, "Metaspace"))
		return metaspace(tok, at, err);
	return lens_unsupported_type(at, type, err);
}

enum lens_status lens_load_pre_tokenizer(struct lens_tokenizer *tok, struct lens_json at,
					 struct lens_error *err)
{
	if (!at.value || json_is_null(at.value))
		return LENS_OK;
	return pre_tokenizer(tok, at, 0, err);
}
