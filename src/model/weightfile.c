/*
 * model/weightfile.c: the weight file of a folder that people saved themselves, by whatever
 * name torch.save or save_file gave it. In: the folder; out: the file's name.
 */
#include "model/model_private.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static bool is_weights(const char *name)
{
	static const char *const ends[] = { ".safetensors", ".pth", ".pt", ".bin" };
	size_t i;

	for (i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		if (*name != '.' && lens_name_ends(name, ends[i]))
			return true;
	}
	return false;
}

enum lens_status lens_weight_file(const char *dir, char name[LENS_FILE_NAME],
				  struct lens_error *err)
{
	static const char *const known[] = { "model.pth", "state_dict.pth" };
	size_t best = sizeof(known) / sizeof(*known), i;
	char other[LENS_FILE_NAME] = "";
	const struct dirent *entry;
	DIR *d = opendir(dir);

	memset(name, 0, LENS_FILE_NAME);
	while (d && (entry = readdir(d))) {
		for (i = 0; i < best && strcmp(known[i], entry->d_name) != 0; i++)
			;
		if (i < best) {
			best = i;
		} else if (is_weights(entry->d_name)) {
			if (!*name || strcmp(entry->d_name, name) < 0) {
				memcpy(other, name, sizeof(other));
				snprintf(name, LENS_FILE_NAME, "%s", entry->d_name);
			} else if (!*other || strcmp(entry->d_name, other) < 0) {
				snprintf(other, sizeof(other), "%s", entry->d_name);
			}
		}
	}
	if (d)
		closedir(d);
	if (best < sizeof(known) / sizeof(*known))
		snprintf(name, LENS_FILE_NAME, "%s", known[best]);
	else if (*other)
		return lens_error_at(err, LENS_ERR_FORMAT, dir, 0, 0,
				     "holds more than one file of weights (%s, %s): leave one, "
				     "or call it model.safetensors or model.pth",
				     name, other);
	return LENS_OK;
}
