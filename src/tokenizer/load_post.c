/*
 * tokenizer/load_post.c: tokenizer.json's "post_processor", which adds special tokens
 * around the ids. We never run it, but the output records whether it would put a BOS in
 * front. In: JSON; out: the id that it puts first.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

/* The first id of the special token that a template calls name. */
static enum lens_status special_id(struct lens_json at, const char *name, int32_t *id,
				   struct lens_error *err)
{
	const json_t *all = json_object_get(at.value, "special_tokens");
	const json_t *ids = json_object_get(json_object_get(all, name), "ids");

	if (!json_array_size(ids) || !lens_json_id(json_array_get(ids, 0), id))
		return lens_json_wrong(at, "special_tokens", "ids for each special token", err);
	return LENS_OK;
}

static enum lens_status template_processing(struct lens_tokenizer *tok, struct lens_json at,
					    struct lens_error *err)
{
	static const char *const keys[] = { "type", "single", "pair", "special_tokens", NULL };
	const json_t *single = json_object_get(at.value, "single");
	const json_t *first = json_array_get(single, 0), *special;
	const char *name;

	LENS_TRY(lens_json_keys(at, keys, err));
	special = json_object_get(first, "SpecialToken");
	if (!json_is_array(single) || (!special && !json_object_get(first, "Sequence")))
		return lens_json_wrong(at, "single", "a list of SpecialToken and Sequence",
				       err);
	if (!special)
		return LENS_OK;
	name = json_string_value(json_object_get(special, "id"));
	if (!name)
		return lens_json_wrong(at, "single", "a list of tokens with an \"id\"", err);
	return special_id(at, name, &tok->post_first, err);
}

/* BERT's and RoBERTa's: "cls": ["<s>", 0] goes in front. */
static enum lens_status cls(struct lens_tokenizer *tok, struct lens_json at,
			    struct lens_error *err)
{
	static const char *const keys[] = {
		"type", "sep", "cls", "trim_offsets", "add_prefix_space", NULL
	};
	const json_t *pair = json_object_get(at.value, "cls");

	LENS_TRY(lens_json_keys(at, keys, err));
	if (!lens_json_id(json_array_get(pair, 1), &tok->post_first))
		return lens_json_wrong(at, "cls", "a token and its id", err);
	return LENS_OK;
}

static enum lens_status post_processor(struct lens_tokenizer *tok, struct lens_json at,
				       int depth, struct lens_error *err)
{
	static const char *const byte_level[] = { "type", "add_prefix_space", "trim_offsets",
						  "use_regex", NULL };
	enum lens_status st;
	const char *type = lens_json_type(at, &st, err);

	if (!type)
		return st;
	if (!strcmp(type, "Sequence"))
		return lens_load_sequence(tok, at, "processors", depth, post_processor, err);
	if (!strcmp(type, "ByteLevel")) /* changes offsets only */
		return lens_json_keys(at, byte_level, err);
	if (!strcmp(type, "TemplateProcessing"))
		return template_processing(tok, at, err);
	if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))
		return cls(tok, at, err);
	return lens_unsupported_type(at, type, err);
}

enum lens_status lens_load_post_processor(struct lens_tokenizer *tok, struct lens_json at,
					  struct lens_error *err)
{
	if (!at.value || json_is_null(at.value))
		return LENS_OK;
	return post_processor(tok, at, 0, err);
}
