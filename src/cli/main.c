/*
 * cli/main.c: the table of commands, and the help made from it.
 */
#include "cli/cli_private.h"

#include <signal.h>
#include <unistd.h>

static int cmd_help(int argc, char **argv);

static const struct command commands[] = {
	{ "run", cmd_run,
	  "run an experiment: CSV of prompts → HDF5 of activations and tables" },
	{ "prompt", cmd_prompt,
	  "one prompt: top tokens; rank, logit and probability of an answer" },
	{ "tokens", cmd_tokens, "the ids and pieces of a text" },
	{ "info", cmd_info, "a model's shapes and hook points; a file's content and results" },
	{ "weights", cmd_weights, "a model's weights: names and shapes, or a file of them" },
	{ "show", cmd_show, "the first prompts of an output, and its results by a column" },
	{ "export", cmd_export, "tables and columns of an output as CSV" },
	{ "status", cmd_status,
	  "how much of an output is done, and which runs are at work on it" },
	{ "merge", cmd_merge,
	  "join the shards that tasks computed (run --task) into the output" },
	{ "pack", cmd_pack, "make one self-contained file from an output and its shards" },
	{ "verify", cmd_verify, "recompute every digest of a file" },
	{ "report", cmd_report,
	  "a page of an output, to look at and to pass on: pictures, prompts, attention" },
	{ "plot", cmd_plot, "pictures of an output" },
	{ "completion", cmd_completion,
	  "a script that completes commands, options, keys, hooks" },
	{ "help", cmd_help, "this help, or a command's; --man: the manual page" },
};
#define N_COMMANDS (sizeof(commands) / sizeof(*commands))

static const struct command *find(const char *name)
{
	size_t i;

	for (i = 0; i < N_COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static void print_help(FILE *out)
{
	size_t i;

	fprintf(out,
		"h5lens %s: interpretability experiments on language models, in bulk\n\n"
		"usage: h5lens COMMAND …        h5lens COMMAND --help\n\n",
		LENS_VERSION);
	for (i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fprintf(out,
		"\n  --version   the build, and what it runs on\n\n"
		"exit codes: 0 done, 1 failed, 2 usage, 75 not finished, or another run is at "
		"work (repeat\nthe command later)\n");
}

static int unknown(const char *name)
{
	const char *names[N_COMMANDS], *near;
	size_t i;

	for (i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	near = lens_nearest(name, names, N_COMMANDS);
	fprintf(stderr, "h5lens: no command '%s'%s%s%s; see h5lens --help\n", name,
		near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
	return EXIT_USAGE;
}

static void (*on_command)(const struct command *c, const struct usage *u);
static const struct command *in_hand;

static void hand_over(const struct usage *u)
{
	on_command(in_hand, u);
}

void each_command(void (*fn)(const struct command *c, const struct usage *u))
{
	char help[] = "--help", name[32], *args[] = { name, help, NULL };
	size_t i;

	on_command = fn;
	usage_seen = hand_over;
	for (i = 0; i < N_COMMANDS; i++) {
		in_hand = &commands[i];
		snprintf(name, sizeof(name), "%s", commands[i].name);
		if (commands[i].run != cmd_help)
			commands[i].run(2, args);
	}
	usage_seen = NULL;
}

static int cmd_help(int argc, char **argv)
{
	char *args[] = { NULL, "--help", NULL };
	const struct command *c = argc > 1 ? find(argv[1]) : NULL;

	if (argc > 1 && !strcmp(argv[1], "--man")) {
		print_man();
		return EXIT_DONE;
	}
	if (c && c->run != cmd_help) {
		args[0] = argv[1];
		return c->run(2, args);
	}
	if (argc > 1 && !c)
		return unknown(argv[1]);
	print_help(stdout);
	return EXIT_DONE;
}

/* Weights are mapped: reading them raises SIGBUS if their file was cut short. */
static void on_bus_error(int sig)
{
	static const char text[] = "h5lens: a file was cut short while it was read, or its "
				   "disk failed\n";

	(void)sig;
	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
	_exit(EXIT_FAILED);
}

int main(int argc, char **argv)
{
	const struct command *c;
	int code;

	signal(SIGBUS, on_bus_error);
	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cmd_help(1, argv);
	if (!strcmp(argv[1], "--version")) {
		print_version();
		return EXIT_DONE;
	}
	c = find(argv[1]);
	if (!c)
		return unknown(argv[1]);
	code = c->run(argc - 1, argv + 1);
	/* If the result could not be printed, the command has failed. */
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "h5lens: cannot write to standard output\n");
		return code ? code : EXIT_FAILED;
	}
	return code;
}
