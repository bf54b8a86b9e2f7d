/*
 * tokenizer/load_decode.c: tokenizer.json's "decoder". In: JSON; out: the
 * tokenizer's chain of decoders.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

static enum lens_status push(struct lens_tokenizer *tok, struct lens_decode_step *step,
			     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < tok->decoder.n; i++)
		step->fused = step->fused || tok->decoder.step[i].kind == LENS_DECODE_FUSE ||
			      tok->decoder.step[i].kind == LENS_DECODE_BYTE_LEVEL;
	return lens_decoder_push(&tok->decoder, step, err);
}

static enum lens_status replace(struct lens_tokenizer *tok, struct lens_json at,
				struct lens_error *err)
{
	struct lens_decode_step step = { .kind = LENS_DECODE_REPLACE };

	LENS_TRY(lens_load_replace(at, &step.replace, err));
	return push(tok, &step, err);
}

static enum lens_status strip(struct lens_tokenizer *tok, struct lens_json at,
			      struct lens_error *err)
{
	static const char *const keys[] = { "type", "content", "start", "stop", NULL };
	const json_t *start = json_object_get(at.value, "start");
	const json_t *stop = json_object_get(at.value, "stop");
	struct lens_decode_step step = { .kind = LENS_DECODE_STRIP };

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_char(at, "content", step.mark, err));
	if (!json_is_integer(start) || json_integer_value(start) < 0)
		return lens_json_wrong(at, "start", "a number of characters", err);
	if (!json_is_integer(stop) || json_integer_value(stop) < 0)
		return lens_json_wrong(at, "stop", "a number of characters", err);
	/* Hugging Face panics if a piece is shorter. */
	if (json_integer_value(stop))
		return lens_json_unsupported(at, "a Strip with a \"stop\" other than 0", err);
	step.n = (size_t)json_integer_value(start);
	return push(tok, &step, err);
}

static enum lens_status metaspace(struct lens_tokenizer *tok, struct lens_json at,
				  struct lens_error *err)
{
	static const char *const keys[] = { "type",  "replacement", "prepend_scheme",
					    "split", "str_rep",     "add_prefix_space",
					    NULL };
	struct lens_decode_step step = { .kind = LENS_DECODE_METASPACE };
	enum lens_prefix prefix;

	LENS_TRY(lens_json_keys(at, keys, err));
	LENS_TRY(lens_load_char(at, "replacement", step.mark, err));
	LENS_TRY(lens_load_prefix_scheme(at, &prefix, err));
	step.keep_first = prefix == LENS_PREFIX_NEVER;
	return push(tok, &step, err);
}

static enum lens_status decoder(struct lens_tokenizer *tok, struct lens_json at, int depth,
				struct lens_error *err)
{
	static const char *const plain[] = { "type", NULL };
	static const char *const byte_level[] = { "type", "add_prefix_space", "trim_offsets",
						  "use_regex", NULL };
	struct lens_decode_step step = { .kind = LENS_DECODE_BYTE_LEVEL };
	enum lens_status st;
	const char *type = lens_json_type(at, &st, err);

	if (!type)
		return st;
	if (!strcmp(type, "Sequence"))
		return lens_load_sequence(tok, at, "decoders", depth, decoder, err);
	if (!strcmp(type, "Replace"))
		return replace(tok, at, err);
	if (!strcmp(type, "Strip"))
		return strip(tok, at, err);
	if (!strcmp(type, "Metaspace"))
		return metaspace(tok, at, err);
	if (!strcmp(type, "ByteLevel")) {
		LENS_TRY(lens_json_keys(at, byte_level, err));
		return push(tok, &step, err);
	}
	if (!strcmp(type, "ByteFallback"))
		step.kind = LENS_DECODE_BYTE_FALLBACK;
	else if (!strcmp(type, "Fuse"))
		step.kind = LENS_DECODE_FUSE;
	else
		return lens_unsupported_type(at, type, err);
	LENS_TRY(lens_json_keys(at, plain, err));
	return push(tok, &step, err);
}

enum lens_status lens_load_decoder(struct lens_tokenizer *tok, struct lens_json at,
				   struct lens_error *err)
{
	if (!at.value || json_is_null(at.value))
		return lens_json_unsupported(at, "a tokenizer without a decoder", err);
	return decoder(tok, at, 0, err);
}
