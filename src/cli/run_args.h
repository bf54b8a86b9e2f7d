/* run_args.h: the command line of `h5lens run`. */
#ifndef CLI_RUN_ARGS_H
#define CLI_RUN_ARGS_H

#include "cli/cli.h"

struct run_args {
	const char *yaml;
	bool dry_run, overwrite, quiet, repair;
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
