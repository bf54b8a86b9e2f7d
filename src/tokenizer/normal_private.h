/*
 * tokenizer/normal_private.h: Unicode's four normal forms.
 */
#ifndef LENS_TOKENIZER_NORMAL_PRIVATE_H
#define LENS_TOKENIZER_NORMAL_PRIVATE_H

#include "tokenizer/origins_private.h"

enum lens_normal_form { LENS_NFC, LENS_NFD, LENS_NFKC, LENS_NFKD };

/* Appends the text's normal form to out, and where it comes from to from. */
enum lens_status lens_normal_form(enum lens_normal_form form, struct lens_text text,
				  struct lens_buf *out, struct lens_origins *from,
				  struct lens_error *err);

#endif
