/* identity_words.h: how two identities differ, for identity.c. */
#ifndef SWEEP_IDENTITY_WORDS_H
#define SWEEP_IDENTITY_WORDS_H

#include "core/json.h"

/*
 * Appends "key: old there, new here" for each leaf that differs, keys with dots.
 * Nothing of was and is changes but jansson's counts.
 */
enum lens_status lens_identity_differences(const char *prefix, json_t *was, json_t *is,
					   struct lens_buf *b, struct lens_error *err);

#endif
