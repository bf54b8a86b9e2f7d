/* run_args_private.h: the command line of `h5lens run`. */
#ifndef LENS_CLI_RUN_ARGS_PRIVATE_H
#define LENS_CLI_RUN_ARGS_PRIVATE_H

#include "cli/cli_private.h"

struct run_args {
	const char *yaml;
	bool dry_run, overwrite, quiet, verbose, repair;
	bool is_task; /* of several, with that share; else all of it */
	struct lens_share share;
	const char *key[128], *value[128]; /* settings in the order given */
	size_t n;
	const char *flag_key[32]; /* keys that came by a flag with a value */
	size_t n_flags;
};

extern const struct usage run_usage;

/* −1 to go on, or an exit code. */
int parse_run(struct run_args *a, int argc, char **argv);

#endif
