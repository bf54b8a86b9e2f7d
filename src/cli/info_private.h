/* info_private.h: what the files of `h5lens info` share. */
#ifndef LENS_CLI_INFO_PRIVATE_H
#define LENS_CLI_INFO_PRIVATE_H

#include "cli/cli_private.h"

/* tensors: only those that its files must hold. The exit code (info_model.c). */
int info_model(const char *dir, bool tensors);

struct info_dataset {
	char *path, *type; /* "float32 [prompt 40, pos 54]" */
	char *link_to;     /* another name of the same, or NULL */
	uint64_t bytes;
	bool is_virtual, printed;
};

struct info_list {
	struct info_dataset *v;
	size_t n, cap;
};

enum lens_status keep_dataset(struct info_list *l, const struct lens_dataset_info *d,
			      struct lens_error *err);
/* One line for a run of layers whose data sets are alike. */
void print_datasets(struct info_list *l);
void release_datasets(struct info_list *l);

#endif
