/*
 * tokenizer/normal.h: the normalisation of text before it is split.
 */
#ifndef LENS_TOKENIZER_NORMAL_H
#define LENS_TOKENIZER_NORMAL_H

#include "h5lens/core.h"

/* Appends the NFC form of text[0..len) (valid UTF-8) to out. */
enum lens_status lens_nfc(const char *text, size_t len, struct lens_buf *out,
			  struct lens_error *err);

#endif
