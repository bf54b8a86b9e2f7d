/* config_private.h: reading config.json, for model.c. */
#ifndef LENS_MODEL_CONFIG_PRIVATE_H
#define LENS_MODEL_CONFIG_PRIVATE_H

#include "model/model_private.h"

/* Reads config.json, finds its family, and hashes the file into sha if there is one. */
enum lens_status lens_config_read(const char *dir, struct lens_config *c,
				  const struct lens_family **family, struct lens_layout *layout,
				  struct lens_sha256 *sha, struct lens_error *err);

#endif
