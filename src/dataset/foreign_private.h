/*
 * dataset/foreign_private.h: files that are given as CSV and are something else.
 */
#ifndef LENS_DATASET_FOREIGN_PRIVATE_H
#define LENS_DATASET_FOREIGN_PRIVATE_H

#include "h5lens/core.h"

/*
 * What a file that begins with s[0..n) is, and what to do: "gzip; unpack it first".
 * NULL: it may well be CSV in UTF-8.
 */
const char *lens_foreign_file(const unsigned char *s, size_t n);

#endif
