/*
 * dataset/foreign_private.h: files that are given for a CSV file and are none. Private
 * to the stage.
 */
#ifndef LENS_DATASET_FOREIGN_PRIVATE_H
#define LENS_DATASET_FOREIGN_PRIVATE_H

#include "h5lens/core.h"

/*
 * What a file is that begins with s[0..n), and what to do: "gzip; unpack it
 * first". NULL: nothing speaks against CSV in UTF-8.
 */
const char *lens_foreign_file(const unsigned char *s, size_t n);

#endif
