/*
 * cli/man.c: the manual page, scripts/h5lens.1 (`make man`). In: the commands' usages and the
 * key table, as the help has them; out: roff.
 */
#include "cli/cli_private.h"

#include <utf8proc.h>

static const char about[] =
	"runs experiments on transformer language models kept as Hugging Face directories: prompts "
	"and answers from a CSV file in, activations at TransformerLens's hook points, logit "
	"differences, ranks by layer, attributions, patching and ablation grids out, in one HDF5 "
	"file. The same command goes on where the last one was stopped, whatever stopped it; on a "
	"finished output it does nothing; an output of another experiment is an error that names "
	"what differs.";

static const char codes[] =
	"0 done, 1 failed, 2 usage, 75 later: stopped by a signal or a full disk, another run is at "
	"work on the output, shards are missing (merge, pack), or (status) not finished: free what "
	"is needed and type the same command again.";

static const char *const environment[][2] = {
	{ "SLURM_CPUS_PER_TASK",
	  "the number of threads where --threads does not say; one that is no number from 1 is "
	  "ignored, with a warning. Without it, the CPUs that the process may use." },
	{ "SLURM_ARRAY_TASK_ID",
	  "the share of the shards that this run takes, with SLURM_ARRAY_TASK_MIN, _MAX, _STEP and "
	  "_COUNT, where --task does not say." },
	{ "SLURM_STEP_NUM_TASKS, SLURM_PROCID",
	  "the same of the tasks of srun; in a job array both count." },
	{ "SLURM_MEM_PER_NODE, SLURM_MEM_PER_CPU",
	  "bound the memory (with SLURM_CPUS_ON_NODE and SLURM_STEP_TASKS_PER_NODE), as what is "
	  "free on the machine and in its cgroup does, where --memory does not say." },
	{ "TMPDIR",
	  "where data from standard input or --text are kept while the program runs; else /tmp." },
	{ "H5LENS_SCRIPTS",
	  "the folder with report.py and plot.py, if it is neither share/h5lens/python of the prefix "
	  "nor scripts beside the build." },
	{ "H5LENS_PYTHON", "the Python that runs them, if it is not python3." },
	{ "COLUMNS", "the width of show's tables, where the terminal does not say." },
};

static const char files[] =
	"The layout of the output is described in the project's README.md; the Python reader is "
	"PREFIX/share/h5lens/python/h5lens.py, with plot.py and report.py beside it.";

/* A character beyond ASCII, by its number; returns its last byte. */
static const char *put_wide(const char *s)
{
	utf8proc_int32_t c;
	utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c);

	if (n > 0 && c == 0x2026) /* not in every output device's set */
		printf("\\&...");
	else
		printf("\\[u%04X]", n > 0 ? (unsigned)c : 0xfffdu);
	return n > 0 ? s + n - 1 : s;
}

/* Text for roff: runs of white space are one space, and a hyphen is a minus. */
static void put(const char *s)
{
	bool begins = true, space = false;

	for (; *s; s++) {
		if (*s == ' ' || *s == '\n') {
			space = true;
			continue;
		}
		if (space && !begins)
			putchar(' ');
		if (begins && (*s == '.' || *s == '\''))
			printf("\\&");
		begins = space = false;
		if (*s == '-')
			printf("\\-");
		else if (*s == '\\')
			printf("\\e");
		else if ((unsigned char)*s >= 0x80)
			s = put_wide(s);
		else
			putchar(*s);
	}
}

static void put_option(const char *name, const char *shape, const char *help)
{
	printf(".TP\n\\fB");
	put(name);
	printf("\\fR");
	if (shape) {
		printf(" \\fI");
		put(shape);
		printf("\\fR");
	}
	printf("\n");
	put(help);
	printf("\n");
}

static void put_synopsis(const struct command *c, const struct usage *u)
{
	(void)c;
	printf(".br\n\\fBh5lens\\fR ");
	put(u->synopsis + strlen("h5lens "));
	printf("\n");
}

static void put_command(const struct command *c, const struct usage *u)
{
	size_t i;

	printf(".SS h5lens %s\n", c->name);
	put(u->description);
	printf("\n");
	for (i = 0; i < u->n_options; i++) {
		if (u->option[i].help)
			put_option(u->option[i].name, u->option[i].shape, u->option[i].help);
	}
}

static void put_keys(void)
{
	size_t i, n;
	const struct lens_key *k = lens_keys(&n);

	for (i = 0; i < n; i++) {
		printf(".TP\n\\fB");
		put(k[i].name);
		printf("\\fR");
		if (k[i].flag) {
			printf(" (\\fB");
			put(k[i].flag);
			printf("\\fR%s%s%s)", k[i].short_flag ? ", \\fB" : "",
			       k[i].short_flag ? k[i].short_flag : "",
			       k[i].short_flag ? "\\fR" : "");
		}
		printf("\n");
		put(k[i].help);
		printf("\n.br\n");
		put(k[i].shape);
		if (k[i].deflt) {
			printf("; default ");
			put(k[i].deflt);
		}
		printf("\n");
	}
}

void print_man(void)
{
	size_t i;

	printf(".\\\" made by `make man` from the program's own help; do not edit\n"
	       ".TH H5LENS 1 \"\" \"h5lens %s\"\n"
	       ".SH NAME\nh5lens \\- interpretability experiments on language models, in bulk\n"
	       ".SH SYNOPSIS\n",
	       LENS_VERSION);
	each_command(put_synopsis);
	printf(".SH DESCRIPTION\n.B h5lens\n");
	put(about);
	printf("\n.SH COMMANDS\n");
	each_command(put_command);
	printf(".SH KEYS OF AN EXPERIMENT\nIn its YAML file, by \\fB\\-\\-set\\fR \\fIKEY=VALUE\\fR, "
	       "or by the flag in brackets.\n");
	put_keys();
	printf(".SH EXIT STATUS\n");
	put(codes);
	printf("\n.SH ENVIRONMENT\n");
	for (i = 0; i < sizeof(environment) / sizeof(*environment); i++)
		put_option(environment[i][0], NULL, environment[i][1]);
	printf(".SH FILES\n");
	put(files);
	printf("\n");
}
