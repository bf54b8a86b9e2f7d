/*
 * tokenizer/replace_private.h: a step that puts a text for each match of an expression,
 * as normalisers and decoders have it; a text alone is one without expression.
 */
#ifndef LENS_TOKENIZER_REPLACE_PRIVATE_H
#define LENS_TOKENIZER_REPLACE_PRIVATE_H

#include "tokenizer/regex_private.h"

struct lens_replace {
	struct lens_regex *re;
	char *text;
	size_t len;
};

/* Appends text to out, every match replaced. More than most bytes there are INVALID. */
enum lens_status lens_replace_run(const struct lens_replace *r, struct lens_regex_match *m,
				  struct lens_text text, size_t most, struct lens_buf *out,
				  struct lens_error *err);
void lens_replace_release(struct lens_replace *r);

#endif
