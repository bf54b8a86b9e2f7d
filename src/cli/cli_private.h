/* cli_private.h: what the commands share. Only this folder prints. */
#ifndef LENS_CLI_PRIVATE_H
#define LENS_CLI_PRIVATE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "h5lens/pipeline.h"

/* Exit codes: the contract of DESIGN and README. */
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
int cmd_status(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_pack(int argc, char **argv);
int cmd_verify(int argc, char **argv);

/* One option of a command: a flag, or with text where value is not NULL; else see take. */
struct option_row {
	const char *name; /* "--answer" */
	bool *flag;
	const char **value;
	const char *shape, *help; /* for --help */
};

struct usage {
	const char *synopsis;
	const char *description;
	const struct option_row *option;
	size_t n_options;
	int least, most;    /* plain arguments */
	void (*help)(void); /* prints --help; NULL: it is made of the above */
	/*
	 * Gets the options that are neither flag nor value, in the order given; value is
	 * NULL where shape is. −1 to go on, or an exit code.
	 */
	int (*take)(void *ctx, const struct option_row *o, char *value);
	void *ctx;
};

/*
 * Takes the options out of argv; plain[] gets the rest, n_plain of them. Returns
 * −1 to go on, or an exit code (after --help, or a usage error that was told).
 */
int parse_args(const struct usage *u, int argc, char **argv, const char **plain, int *n_plain);
int usage_error(const struct usage *u, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The value of --threads, or NULL: 0. An exit code, or −1 to go on. */
int parse_threads(const struct usage *u, const char *text, size_t *out);

/*
 * A model is a folder, all else a file: an exit code when path is the other kind
 * (told), −1 to go on. What is not there at all is told by who opens it.
 */
int check_kind(const struct usage *u, const char *path, bool folder);

/* Both, for a command that reads an output with so many threads. */
int check_output(const struct usage *u, const char *threads, size_t *n_threads,
		 const char *output);

/* read_file(path) in a child process: a crash there becomes an error. */
int guarded(int (*read_file)(const char *path), const char *path);

/* Prints "h5lens: …" and gives the exit code that belongs to the error. */
int fail(const struct lens_error *err);
/* The same of an output that could not be read: perhaps it is not finished. */
int fail_output(const char *output, struct lens_error *err);
int exit_code(enum lens_status st);
/* The tokenizer's BOS is appended, and a warning shown where others have another one. */
enum lens_status push_bos(struct lens_tokenizer *tok, const char *choice, struct lens_ids *ids,
			  struct lens_error *err);

/* From now on SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP set what it returns. */
const atomic_int *catch_signals(void);

/* "" or "s" */
const char *plural(size_t n);
/* 1536 → "1.5 KiB"; buf of 32 */
const char *human_bytes(double n, char *buf);
/* s with control characters shown as escapes, into a static ring of buffers. */
const char *visible(const char *s, size_t n);
void print_summary(const struct lens_summary *s);
void print_version(void);

#endif
