/*
 * tokenizer/origins_private.h: where the bytes of a text that was changed come from.
 * Kept beside the text only where it was asked for (lens_text.from).
 */
#ifndef LENS_TOKENIZER_ORIGINS_PRIVATE_H
#define LENS_TOKENIZER_ORIGINS_PRIVATE_H

#include "tokenizer/regex_private.h"

struct lens_origins {
	struct lens_origin *v;
	size_t n, cap;
};

void lens_origins_release(struct lens_origins *o);
/* A text as it was given: byte i comes from byte i. */
enum lens_status lens_origins_of_text(struct lens_origins *o, size_t len,
				      struct lens_error *err);

/*
 * Text that is put at the end of another one; each does nothing if text.from is NULL.
 * keep: bytes at … at + n of text, as they are; replace: n bytes for those at … end of
 * text, all of which each of them stands for (at == end: for nothing).
 */
enum lens_status lens_origins_keep(struct lens_origins *o, struct lens_text text, size_t at,
				   size_t n, struct lens_error *err);
enum lens_status lens_origins_replace(struct lens_origins *o, struct lens_text text,
				      const struct lens_origin *part, size_t n,
				      struct lens_error *err);

#endif
