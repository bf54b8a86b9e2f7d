/* cli_private.h: what the commands share. Only this folder prints. */
#ifndef LENS_CLI_PRIVATE_H
#define LENS_CLI_PRIVATE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5lens/pipeline.h"

/* Exit codes, as documented in the README. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_RESUMABLE = 75 };

struct command {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the command's name */
	const char *summary;
};

int cmd_run(int argc, char **argv);
int cmd_prompt(int argc, char **argv);
int cmd_tokens(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_weights(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_plot(int argc, char **argv);
int cmd_completion(int argc, char **argv);
/* The manual page, as roff. */
void print_man(void);
/* Calls fn for each word that a value of that shape may be ("auto | avx2": auto, avx2). */
void each_word(const char *shape, void (*fn)(const char *word, size_t n));

/* An option of a command: sets flag, or value if that is not NULL; else see usage.take. */
struct option_row {
	const char *name; /* "--answer" */
	bool *flag;
	const char **value;
	const char *shape, *help; /* for --help; help NULL: told elsewhere (a key's flag) */
};

struct usage {
	const char *synopsis;
	const char *description;
	const struct option_row *option;
	size_t n_options;
	int least, most;    /* plain arguments */
	void (*more)(void); /* prints what follows in the help, or NULL */
	/*
	 * Called for each option without flag and value, in the order given; value is NULL
	 * if shape is. Returns −1 to go on, or an exit code.
	 */
	int (*take)(void *ctx, const struct option_row *o, char *value);
	void *ctx;
};

/*
 * Handles the options in argv; plain[] gets the other arguments, n_plain of them. Returns
 * −1 to go on, or an exit code (after --help, or a usage error that was printed).
 */
int parse_args(const struct usage *u, int argc, char **argv, const char **plain, int *n_plain);
/* While this is set, a command that is asked for its help hands it over instead. */
extern void (*usage_seen)(const struct usage *u);
/* Calls fn for each command and its usage, in the order of the help. */
void each_command(void (*fn)(const struct command *c, const struct usage *u));
int usage_error(const struct usage *u, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Parses the value of --threads; NULL gives 0. Returns −1 to go on, or an exit code. */
int parse_threads(const struct usage *u, const char *text, size_t *out);

/*
 * A model is a folder, everything else a file. Prints an error and returns an exit code if
 * path is of the wrong kind, else −1. A path that does not exist is reported when it is
 * opened.
 */
int check_kind(const struct usage *u, const char *path, bool folder);

/* Both checks, for a command that reads an output with --threads. */
int check_output(const struct usage *u, const char *threads, size_t *n_threads,
		 const char *output);

/* Calls read_file(path, args) in a child process, where a crash becomes an error. */
int guarded(int (*read_file)(const char *path, const void *args), const char *path,
	    const void *args);

/* "A:B", "A:", ":B" or "A": rows first … first + n − 1 of n_rows; NULL: all of them. */
int parse_rows(const struct usage *u, const char *text, size_t n_rows, size_t *first,
	       size_t *n);

/* Prints "h5lens: …" and returns the error's exit code. */
int fail(const struct lens_error *err);
/* The same for an output that could not be read, perhaps because it is not finished. */
int fail_output(const char *output, struct lens_error *err);
int exit_code(enum lens_status st);
/* answer, after the space that test_prompt puts in front of one that has none. */
enum lens_status spaced(const char *answer, bool as_it_is, struct lens_buf *out,
			struct lens_error *err);
/* Appends the tokenizer's BOS, and prints a warning if others would use another one. */
enum lens_status push_bos(struct lens_tokenizer *tok, const char *choice, struct lens_ids *ids,
			  struct lens_error *err);

/* Returns a flag that SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP set from now on. */
const atomic_int *catch_signals(void);

/* "" or "s" */
const char *plural(size_t n);
/* 1536 → "1.5 KiB"; buf of 32 */
const char *human_bytes(double n, char *buf);
/* "95 s", "5 min", "2.5 h"; buf is [32]. */
const char *human_time(double seconds, char *buf);
/* s with control characters as escapes, in one of a few static buffers. */
const char *visible(const char *s, size_t n);
void print_summary(const struct lens_summary *s);
void print_version(void);

#endif
