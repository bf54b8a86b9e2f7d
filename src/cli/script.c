/*
 * cli/script.c: `h5lens report` and `h5lens plot`: report.py and plot.py beside the program,
 * run by Python with the command's own arguments. The tables of options here are for help,
 * manual page and completion; tests/cli/check_report.py holds them against the scripts' own.
 *
 * The scripts are looked for in $H5LENS_SCRIPTS, else in scripts/ beside the program's folder
 * (a build), else in share/h5lens/python there (an installation); Python is $H5LENS_PYTHON,
 * else the build's own environment, else python3. What Python lacks the scripts say themselves.
 */
#include "cli/cli_private.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

/* --- the script and its Python ----------------------------------------------------------- */

/* The program's folder, with its last slash; "" if that cannot be told. */
static void own_folder(char out[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);

	out[n > 0 ? n : 0] = '\0';
	if (strrchr(out, '/'))
		strrchr(out, '/')[1] = '\0';
}

/* Is there such a file? Its path is in out then. */
static bool there(char out[PATH_MAX], const char *folder, const char *below, const char *name,
		  int mode)
{
	int n = snprintf(out, PATH_MAX, "%s%s%s", folder, below, name);

	return n > 0 && n < PATH_MAX && !access(out, mode);
}

static bool find_script(const char *name, char out[PATH_MAX])
{
	const char *given = getenv("H5LENS_SCRIPTS");
	char own[PATH_MAX];

	if (given && *given)
		return there(out, given, "/", name, R_OK);
	own_folder(own);
	return there(out, own, "../scripts/", name, R_OK) ||
	       there(out, own, "../share/h5lens/python/", name, R_OK);
}

static const char *find_python(char out[PATH_MAX])
{
	const char *given = getenv("H5LENS_PYTHON");
	char own[PATH_MAX];

	if (given && *given)
		return given;
	own_folder(own);
	return there(out, own, "venv/bin/", "python", X_OK) ? out : "python3";
}

/* Does not return when the script runs. */
static int run_script(int argc, char **argv)
{
	char name[32], script[PATH_MAX], own[PATH_MAX];
	const char *python = find_python(own);
	char **args;
	int i;

	snprintf(name, sizeof(name), "%s.py", argv[0]);
	if (!find_script(name, script)) {
		fprintf(stderr,
			"h5lens: %s is not beside the program (../scripts, ../share/h5lens/python) "
			"nor where H5LENS_SCRIPTS says\n",
			name);
		return EXIT_FAILED;
	}
	args = lens_calloc((size_t)argc + 2, sizeof(*args));
	if (!args)
		return EXIT_FAILED;
	args[0] = (char *)python;
	args[1] = script;
	for (i = 1; i < argc; i++)
		args[i + 1] = argv[i];
	execvp(python, args);
	fprintf(stderr, "h5lens: %s needs Python 3 with h5py and matplotlib: %s: %s\n", argv[0],
		python, strerror(errno));
	lens_free(args);
	return EXIT_FAILED;
}

/* --- the commands --------------------------------------------------------------------------
 */

/* Python reads the values. */
static int any_value(void *ctx, const struct option_row *o, char *value)
{
	(void)ctx;
	(void)o;
	(void)value;
	return -1;
}

static int check_and_run(const struct usage *u, int argc, char **argv)
{
	const char *plain[1];
	int n, code = parse_args(u, argc, argv, plain, &n);

	if (code < 0)
		code = check_kind(u, plain[0], false);
	return code < 0 ? run_script(argc, argv) : code;
}

static const struct option_row report_options[] = {
	{ .name = "-o", .shape = "HTML", .help = "the page (default: OUT.html beside OUT.h5)" },
	{ .name = "--prompts",
	  .shape = "LIST",
	  .help = "the prompts whose attention is shown, as in 0,3,17" },
	{ .name = "--by",
	  .shape = "COLUMN",
	  .help = "a panel, a colour or a mean for each value of this CSV column" },
	{ .name = "--list",
	  .shape = "N",
	  .help = "so many rows are in the list of prompts (default 2000)" },
	{ .name = "--title",
	  .shape = "TEXT",
	  .help = "of the page (default: the file's name)" },
	{ .name = "--roles", .shape = "LIST", .help = "as in plot" },
	{ .name = "--head", .shape = "L.H", .help = "the head that is shown large at first" },
	{ .name = "--layer", .shape = "L", .help = "as in plot" },
	{ .name = "--tokenizer", .shape = "DIR", .help = "directory with tokenizer.json" },
};

int cmd_report(int argc, char **argv)
{
	const struct usage u = {
		.synopsis =
			"h5lens report OUT.h5 [-o report.html] [--prompts 0,3,17] [--by COLUMN] "
			"[options]",
		.description =
			"An HTML page of an output, complete in itself: what was run, summaries of "
			"all prompts and\nby column, every picture that the file has data for, a list "
			"of prompts to sort and search,\nand the attention of some: every layer and "
			"head, where each token looks and who looks at\nit. Shown without --prompts: "
			"the first, and those with the lowest, middle and highest\nlogit difference; "
			"and means over prompts of one form. Patterns must be stored\n(--hooks "
			"'*hook_pattern'). It is Python, with h5py and matplotlib.",
		.option = report_options,
		.n_options = sizeof(report_options) / sizeof(*report_options),
		.least = 1,
		.most = 1,
		.take = any_value,
	};

	return check_and_run(&u, argc, argv);
}

static const struct option_row plot_options[] = {
	{ .name = "-o",
	  .shape = "DIR",
	  .help = "where the PNGs go (default: beside the file)" },
	{ .name = "--what",
	  .shape = "LIST",
	  .help = "only these pictures, by name; patch.GRID and ablate.GRID are single grids" },
	{ .name = "--by",
	  .shape = "COLUMN",
	  .help = "a panel or a colour for each value of this CSV column" },
	{ .name = "--roles",
	  .shape = "LIST",
	  .help = "the CSV columns whose texts are the places on the axis of positions" },
	{ .name = "--head", .shape = "L.H", .help = "layer and head of the attention pattern" },
	{ .name = "--layer",
	  .shape = "L",
	  .help = "the layer whose heads' patterns are drawn" },
	{ .name = "--prompt",
	  .shape = "ROW",
	  .help = "row of the pictures of one prompt (default 0)" },
	{ .name = "--tokenizer", .shape = "DIR", .help = "directory with tokenizer.json" },
};

int cmd_plot(int argc, char **argv)
{
	const struct usage u = {
		.synopsis = "h5lens plot OUT.h5 [-o DIR] [--what LIST] [--by COLUMN] [options]",
		.description =
			"Pictures of an output, OUT.NAME.png: what the file has data for. Ranks and "
			"logit differences\nby layer, what components, heads and neurons add to the "
			"answer, what heads look at, patterns\nof attention, what each layer would say "
			"next, the text's log probabilities, interventions.\nTheir names, what each "
			"shows and how its numbers are made tells plot.py --help (in scripts,\n"
			"or PREFIX/share/h5lens/python). It is Python, with h5py and matplotlib.",
		.option = plot_options,
		.n_options = sizeof(plot_options) / sizeof(*plot_options),
		.least = 1,
		.most = 1,
		.take = any_value,
	};

	return check_and_run(&u, argc, argv);
}
