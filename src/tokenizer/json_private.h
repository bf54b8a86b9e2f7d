/*
 * tokenizer/json_private.h: JSON files of a tokenizer's directory, with errors that
 * name the file and the place in it.
 */
#ifndef LENS_TOKENIZER_JSON_PRIVATE_H
#define LENS_TOKENIZER_JSON_PRIVATE_H

#include "core/json.h"

#include "h5lens/core.h"

#define LENS_TOKENIZER_MAX_FILE ((size_t)128 << 20)

/* A JSON value and, for errors, its file and place ("model.merges"). */
struct lens_json {
	json_t *value; /* borrowed from the document's root */
	const char *file, *where;
};

/*
 * Reads the file at path, which Python may have written, and adds its name and
 * contents to sha (or NULL). The caller json_decrefs *root.
 */
enum lens_status lens_json_read(const char *path, const char *name, struct lens_sha256 *sha,
				json_t **root, struct lens_error *err);
/* Adds one file to the tokenizer's digest: name, NUL, length, contents. */
enum lens_status lens_digest_file(struct lens_sha256 *sha, const char *name,
				  const struct lens_buf *contents, struct lens_error *err);

/* "where.key must be <what>", as LENS_ERR_FORMAT. */
enum lens_status lens_json_wrong(struct lens_json at, const char *key, const char *what,
				 struct lens_error *err);
/* "where: <what> is not supported". */
enum lens_status lens_json_unsupported(struct lens_json at, const char *what,
				       struct lens_error *err);
/* Every key must be in known (NULL-terminated); any other is unsupported. */
enum lens_status lens_json_keys(struct lens_json at, const char *const *known,
				struct lens_error *err);
/* A boolean. If the key is absent, *out stays, or it is an error if required. */
enum lens_status lens_json_bool(struct lens_json at, const char *key, bool required, bool *out,
				struct lens_error *err);
/* The object's "type" string, or NULL with an error set in *st. */
const char *lens_json_type(struct lens_json at, enum lens_status *st, struct lens_error *err);
/* A token id, 0 <= id < LENS_VOCAB_MAX_IDS. */
bool lens_json_id(const json_t *value, int32_t *id);

#endif
