/* config_private.h: reading config.json, for model.c. */
#ifndef LENS_MODEL_CONFIG_PRIVATE_H
#define LENS_MODEL_CONFIG_PRIVATE_H

#include "model/model_private.h"

/* Reads config.json, finds its family, and hashes the file into sha if there is one. */
enum lens_status lens_config_read(const char *dir, struct lens_config *c,
				  const struct lens_family **family, struct lens_layout *layout,
				  struct lens_sha256 *sha, struct lens_error *err);

/* Opens a folder's config.json. Close it after an error, too. */
enum lens_status lens_config_open(const char *dir, struct lens_sha256 *sha,
				  struct lens_config_file *f, struct lens_error *err);
void lens_config_close(struct lens_config_file *f);
/* Reads it as one of this family, whatever its model_type is. */
enum lens_status lens_config_as(const struct lens_config_file *f,
				const struct lens_family *family, struct lens_config *c,
				struct lens_layout *layout, struct lens_error *err);

/* The families, in a fixed order; NULL: there is no such. */
const struct lens_family *lens_family_at(size_t i);
const struct lens_family *lens_family_named(const char *model_type);

/*
 * The names and shapes of all tensors that such a checkpoint has, which the caller releases:
 * sorted, of no file (model.c).
 */
enum lens_status lens_list_tensors(const struct lens_family *family,
				   const struct lens_config *c,
				   const struct lens_layout *layout, struct lens_tensors *out,
				   struct lens_error *err);

#define LENS_MOST_TOLD 24 /* of an unknown model: keys, or names of tensors, of a kind */
/* Its tensors beside those of a family, where there are any (unknown_tensors.c). */
enum lens_status lens_unknown_tensors(const char *dir, const struct lens_config_file *f,
				      const struct lens_family *family,
				      struct lens_unknown_model *u, struct lens_error *err);

#endif
