/*
 * tokenizer/normal_private.h: Unicode's four normal forms.
 */
#ifndef LENS_TOKENIZER_NORMAL_PRIVATE_H
#define LENS_TOKENIZER_NORMAL_PRIVATE_H

#include "h5lens/core.h"

enum lens_normal_form { LENS_NFC, LENS_NFD, LENS_NFKC, LENS_NFKD };

/* Appends the normal form of text[0..len) (valid UTF-8) to out. */
enum lens_status lens_normal_form(enum lens_normal_form form, const char *text, size_t len,
				  struct lens_buf *out, struct lens_error *err);

#endif
