/*
 * tokenizer/bytelevel_private.h: GPT-2's way of writing bytes as printable
 * characters, and the way back to text.
 */
#ifndef LENS_TOKENIZER_BYTELEVEL_PRIVATE_H
#define LENS_TOKENIZER_BYTELEVEL_PRIVATE_H

#include "h5lens/core.h"

/* The 188 printable bytes of Latin-1 stand for themselves, the other 68 for U+0100... */
#define LENS_BYTELEVEL_CHARS 324

struct lens_bytelevel {
	uint16_t ch[256];                   /* byte -> code point */
	int16_t byte[LENS_BYTELEVEL_CHARS]; /* code point -> byte or -1 */
};

void lens_bytelevel_init(struct lens_bytelevel *b);
/* Writes the character of a byte as UTF-8; returns its length, 1 or 2. */
size_t lens_bytelevel_put(const struct lens_bytelevel *b, uint8_t byte, char out[2]);
/*
 * Appends the bytes that a token stands for; a token with a character that stands for
 * no byte is appended unchanged.
 */
enum lens_status lens_bytelevel_bytes(const struct lens_bytelevel *b, const char *token,
				      size_t len, struct lens_buf *out, struct lens_error *err);
/* Appends s[0..n) with U+FFFD for each maximal invalid part, as Rust does. */
enum lens_status lens_utf8_lossy(const char *s, size_t n, struct lens_buf *out,
				 struct lens_error *err);

#endif
