/*
 * store/gheap_private.h: HDF5's global heap, which holds strings of variable length.
 *
 * The heap has no checksums, and HDF5 1.10.8 trusts it: a flipped bit in a size, an index
 * or a reference makes it read or write out of bounds. So we read the strings of datasets
 * ourselves, and let HDF5 see only collections that are exactly like those we write.
 */
#ifndef LENS_STORE_GHEAP_PRIVATE_H
#define LENS_STORE_GHEAP_PRIVATE_H

#include "store/io_private.h"

#define LENS_GHEAP_REF_BYTES 16 /* of a string in a dataset: length, address, index */

struct lens_gheap; /* a reader that keeps the last collection */

enum lens_status lens_gheap_create(struct lens_io *io, struct lens_gheap **out,
				   struct lens_error *err);
void lens_gheap_destroy(struct lens_gheap *h);

/* The string that ref refers to, NUL-terminated; valid until the next call. */
enum lens_status lens_gheap_string(struct lens_gheap *h,
				   const uint8_t ref[LENS_GHEAP_REF_BYTES], const char **out,
				   struct lens_error *err);

/* May HDF5 read the n bytes at address at? false: a damaged collection. */
bool lens_gheap_admit(struct lens_io *io, uint64_t at, size_t n);

#endif
