/* identity_words.h: how two identities differ, for identity.c. */
#ifndef PIPELINE_IDENTITY_WORDS_H
#define PIPELINE_IDENTITY_WORDS_H

#include "core/json.h"

/* Appends "key: old there, new here" for each leaf that differs, keys with dots. */
enum lens_status lens_identity_differences(const char *prefix, const json_t *was,
					   const json_t *is, struct lens_buf *b,
					   struct lens_error *err);

#endif
