/*
 * tokenizer/load_normal.c: tokenizer.json's "normalizer". In: JSON; out: the
 * tokenizer's chain of normalisers.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

static enum lens_status prepend(struct lens_tokenizer *tok, struct lens_json at,
				struct lens_error *err)
{
	static const char *const keys[] = { "type", "prepend", NULL };
	struct lens_normal_step step = { .kind = LENS_NORMAL_PREPEND };

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_text(at, "prepend", &step.replace, err));
	return lens_normalizer_push(&tok->normalizer, &step, err);
}

static enum lens_status replace(struct lens_tokenizer *tok, struct lens_json at,
				struct lens_error *err)
{
	struct lens_normal_step step = { .kind = LENS_NORMAL_REPLACE };

	LENS_TRY(lens_load_replace(at, &step.replace, err));
	return lens_normalizer_push(&tok->normalizer, &step, err);
}

static enum lens_status strip(struct lens_tokenizer *tok, struct lens_json at,
			      struct lens_error *err)
{
	static const char *const keys[] = { "type", "strip_left", "strip_right", NULL };
	struct lens_normal_step step = { .kind = LENS_NORMAL_STRIP };

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_json_bool(at, "strip_left", true, &step.left, err));
	LENS_TRY(lens_json_bool(at, "strip_right", true, &step.right, err));
	return lens_normalizer_push(&tok->normalizer, &step, err);
}

static enum lens_status normalizer(struct lens_tokenizer *tok, struct lens_json at, int depth,
				   struct lens_error *err)
{
	static const char *const keys[] = { "type", NULL };
	static const char *const form[] = { "NFC", "NFD", "NFKC", "NFKD" };
	struct lens_normal_step step = { .kind = LENS_NORMAL_FORM };
	enum lens_status st;
	const char *type = lens_json_type(at, &st, err);
	int i;

	if (!type)
		return st;
	if (!strcmp(type, "Sequence"))
		return lens_load_sequence(tok, at, "normalizers", depth, normalizer, err);
	if (!strcmp(type, "Prepend"))
		return prepend(tok, at, err);
	if (!strcmp(type, "Replace"))
		return replace(tok, at, err);
	if (!strcmp(type, "Strip"))
		return strip(tok, at, err);
	for (i = 0; i < 4 && strcmp(form[i], type); i++)
		;
	if (i == 4)
		return lens_unsupported_type(at, type, err);
	step.form = (enum lens_normal_form)i; /* the enum's order */
	LENS_TRY(lens_json_keys(at, keys, err));
	return lens_normalizer_push(&tok->normalizer, &step, err);
}

enum lens_status lens_load_normalizer(struct lens_tokenizer *tok, struct lens_json at,
				      struct lens_error *err)
{
	if (!at.value || json_is_null(at.value))
		return LENS_OK;
	return normalizer(tok, at, 0, err);
}
