/*
 * tokenizer/replace_private.h: a step of normalisers and decoders that replaces each
 * match of a regular expression by a text; re is NULL where the text alone is used.
 */
#ifndef LENS_TOKENIZER_REPLACE_PRIVATE_H
#define LENS_TOKENIZER_REPLACE_PRIVATE_H

#include "tokenizer/regex_private.h"

struct lens_replace {
	struct lens_regex *re;
	char *text;
	size_t len;
};

/* Appends text to out with every match replaced; LENS_ERR_INVALID if out exceeds most bytes. */
enum lens_status lens_replace_run(const struct lens_replace *r, struct lens_regex_match *m,
				  struct lens_text text, size_t most, struct lens_buf *out,
				  struct lens_error *err);
void lens_replace_release(struct lens_replace *r);

#endif
