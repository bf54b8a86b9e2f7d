/* run_args_private.h: the command line of `h5lens run`. */
#ifndef LENS_CLI_RUN_ARGS_PRIVATE_H
#define LENS_CLI_RUN_ARGS_PRIVATE_H

#include "cli/cli_private.h"

#define MOST_TEXTS 256
#define MOST_ANSWERS 8

/* --text, and the --answer after it. */
struct typed_text {
	const char *text, *answer[MOST_ANSWERS];
	size_t n_answers;
};

struct run_args {
	const char *yaml;
	struct typed_text text[MOST_TEXTS];
	size_t n_texts;
	bool no_space; /* answers as they are typed */
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

/* The plan, with each data set of it if these are wanted; task: or NULL. plan.c */
void print_plan(const struct lens_plan_summary *p, bool datasets,
		const struct lens_share *task);
/* After the plan of a dry run. */
void print_estimate(const struct lens_estimate *t);

/*
 * Sets the experiment's data to what was typed (--text) or comes from standard input
 * (--data -), which is kept in a file without a name. Does nothing if neither was asked for.
 */
enum lens_status spool_data(const struct run_args *a, struct lens_experiment *e,
			    struct lens_error *err);
/* An error in the data names them as the user does, not the file without a name. */
void spool_name(const struct lens_experiment *e, struct lens_error *err);

#endif
