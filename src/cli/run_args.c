/*
 * cli/run_args.c: the command line of `h5lens run`: settings by flags, which task of how
 * many, and the help.
 */
#include "cli/run_args_private.h"

#include <strings.h>

static const char synopsis[] =
	"h5lens run [EXPERIMENT.yaml] [--model DIR --data CSV -o OUT.h5] [options]";

static const char description[] =
	"Runs an experiment. Flags override the file. Repeating the command resumes a run that "
	"was\n"
	"stopped; a finished output is left alone, and an output of another experiment is an "
	"error.\n"
	"A sweep larger than one shard goes to OUT.shards/, and OUT.h5 shows all of it. --data - "
	"reads\n"
	"the CSV from standard input.";

static void print_keys(void)
{
	size_t i, n;
	const struct lens_key *k = lens_keys(&n);

	printf("\nkeys (flag: key)\n");
	for (i = 0; i < n; i++) {
		printf("  %s%s%s%s%s\n      %s\n      %s",
		       k[i].short_flag ? k[i].short_flag : "", k[i].short_flag ? ", " : "",
		       k[i].flag ? k[i].flag : "", k[i].flag ? ": " : "", k[i].name, k[i].help,
		       k[i].shape);
		if (k[i].deflt)
			printf("; default %s", k[i].deflt);
		printf("\n");
	}
}

const struct usage run_usage = { .synopsis = synopsis,
				 .description = description,
				 .more = print_keys };

static int add_setting(struct run_args *a, const char *key, const char *value)
{
	if (a->n == sizeof(a->key) / sizeof(*a->key))
		return usage_error(&run_usage, "too many settings");
	a->key[a->n] = key;
	a->value[a->n++] = value;
	return -1;
}

/* For other flags the last one counts, but "--hooks A --hooks B" would lose A. */
static int add_flag(struct run_args *a, const char *flag, const char *key, const char *value)
{
	size_t i;

	for (i = 0; i < a->n_flags; i++) {
		if (a->flag_key[i] == key)
			return usage_error(&run_usage,
					   "%s is given twice; a list is written "
					   "with commas: A,B",
					   flag);
	}
	if (a->n_flags < sizeof(a->flag_key) / sizeof(*a->flag_key))
		a->flag_key[a->n_flags++] = key;
	return add_setting(a, key, value);
}

/* A flag of the key table. */
static int take_key(struct run_args *a, const struct lens_key *k, const char *value)
{
	if (k->flag_value)
		return add_setting(a, k->name, k->flag_value);
	return strchr(k->shape, '[') ? add_flag(a, k->flag, k->name, value)
				     : add_setting(a, k->name, value);
}

/* --set key=value */
static int take_set(struct run_args *a, char *value)
{
	char *equals = strchr(value, '=');

	if (!equals)
		return usage_error(&run_usage, "--set needs key=value, not '%s'", value);
	*equals = '\0';
	return add_setting(a, value, equals + 1);
}

/* "3/8" */
static bool read_task(const char *text, struct run_args *a)
{
	unsigned long task, n;
	char rest;

	if (sscanf(text, "%9lu/%9lu%c", &task, &n, &rest) != 2 || strpbrk(text, "+- ") ||
	    task < 1 || task > n)
		return false;
	a->is_task = true;
	a->share = (struct lens_share){ task - 1, n };
	return true;
}

static int take_task(struct run_args *a, const char *value)
{
	if (!read_task(value, a))
		return usage_error(&run_usage, "--task needs I/N, 1 to N of N, not '%s'",
				   value);
	return -1;
}

static int take_text(struct run_args *a, const char *value)
{
	if (a->n_texts == MOST_TEXTS)
		return usage_error(&run_usage, "more than %d texts: make them a CSV",
				   MOST_TEXTS);
	a->text[a->n_texts++] = (struct typed_text){ .text = value };
	return -1;
}

static int take_answer(struct run_args *a, const char *value)
{
	struct typed_text *t = &a->text[a->n_texts - (a->n_texts > 0)];

	if (!a->n_texts)
		return usage_error(&run_usage,
				   "--answer %s: its --text comes before it (columns "
				   "of a CSV are --answers)",
				   value);
	if (t->n_answers == MOST_ANSWERS)
		return usage_error(&run_usage, "more than %d answers: make them a CSV",
				   MOST_ANSWERS);
	t->answer[t->n_answers++] = value;
	return -1;
}

static int check_texts(const struct run_args *a)
{
	size_t i;

	for (i = 1; i < a->n_texts; i++) {
		if (a->text[i].n_answers != a->text[0].n_answers)
			return usage_error(
				&run_usage,
				"every --text needs as many --answer as the first one: "
				"'%s' has %zu, not %zu",
				visible(a->text[i].text, strlen(a->text[i].text)),
				a->text[i].n_answers, a->text[0].n_answers);
	}
	for (i = 0; a->n_texts && i < a->n; i++) {
		if (!strcmp(a->key[i], "data.csv"))
			return usage_error(&run_usage, "--text or --data, not both");
	}
	return -1;
}

static int take(void *ctx, const struct option_row *o, char *value)
{
	if (!strcmp(o->name, "--text"))
		return take_text(ctx, value);
	if (!strcmp(o->name, "--answer"))
		return take_answer(ctx, value);
	if (!strcmp(o->name, "--task"))
		return take_task(ctx, value);
	if (!strcmp(o->name, "--set"))
		return take_set(ctx, value);
	return take_key(ctx, lens_key_of_flag(o->name), value);
}

/* The value of an environment variable, as a number. */
static bool number_of(const char *name, unsigned long *out)
{
	const char *text = getenv(name);
	char rest;

	return text && sscanf(text, "%9lu%c", out, &rest) == 1 && !strpbrk(text, "+- ");
}

/* In a Slurm job array, ids from min to max in steps say which task this is. */
static int task_of_array(struct run_args *a)
{
	unsigned long id, n, count, min = 0, max = 0, step = 1;

	if (!getenv("SLURM_ARRAY_TASK_ID"))
		return -1;
	if (!number_of("SLURM_ARRAY_TASK_ID", &id) ||
	    !number_of("SLURM_ARRAY_TASK_MIN", &min) ||
	    !number_of("SLURM_ARRAY_TASK_MAX", &max))
		return usage_error(&run_usage, "SLURM_ARRAY_TASK_ID, _MIN and _MAX do not make "
					       "a task; use --task I/N");
	if (getenv("SLURM_ARRAY_TASK_STEP") && !number_of("SLURM_ARRAY_TASK_STEP", &step))
		step = 0;
	if (!step || id < min || id > max || (id - min) % step)
		return usage_error(&run_usage,
				   "SLURM_ARRAY_TASK_ID %lu is none of %lu to %lu "
				   "in steps of %lu; use --task I/N",
				   id, min, max, step);
	n = (max - min) / step + 1;
	/* 1,4,9 is a list, not a range: its tasks cannot be numbered. */
	if (number_of("SLURM_ARRAY_TASK_COUNT", &count) && count != n)
		return usage_error(&run_usage,
				   "the job array has %lu task%s, not the %lu of %lu to %lu "
				   "in steps of %lu: a list; use --task I/N",
				   count, plural(count), n, min, max, step);
	a->is_task = true;
	a->share = (struct lens_share){ (id - min) / step, n };
	return -1;
}

/* `srun -n4` starts four processes, each of which is a task. sbatch -n4 alone does not. */
static int task_of_step(struct run_args *a)
{
	unsigned long id, n;

	if (!getenv("SLURM_STEP_NUM_TASKS"))
		return -1;
	if (!number_of("SLURM_STEP_NUM_TASKS", &n) || !number_of("SLURM_PROCID", &id) ||
	    id >= n)
		return usage_error(&run_usage, "SLURM_PROCID and SLURM_STEP_NUM_TASKS do not "
					       "make a task; use --task I/N");
	a->is_task = a->is_task || n > 1;
	a->share = (struct lens_share){ a->share.task * n + id, a->share.n_tasks * n };
	return -1;
}

/* Each task of a job array can be divided into the tasks of a step. */
static int task_of_slurm(struct run_args *a)
{
	int code;

	if (a->is_task) /* --task */
		return -1;
	code = task_of_array(a);
	return code < 0 ? task_of_step(a) : code;
}

/* "--answers a, b" leaves a second word, which looks like an experiment file. */
static const char *list_hint(const struct run_args *a)
{
	return a->n_flags ? "; a list is written without spaces, A,B" : "";
}

static int check_yaml(const struct run_args *a)
{
	const char *dot = strrchr(a->yaml, '.'), *name = visible(a->yaml, strlen(a->yaml));

	if (dot && !strcasecmp(dot, ".csv"))
		return usage_error(&run_usage,
				   "%s is a CSV file, not an experiment: h5lens run --data %s "
				   "--model DIR -o OUT.h5",
				   name, name);
	if (!lens_file_exists(a->yaml))
		return usage_error(&run_usage, "there is no experiment file %s%s", name,
				   list_hint(a));
	return check_kind(&run_usage, a->yaml, false);
}

#define MOST_OPTIONS 64

/* run's own options, and every flag of the key table. */
static size_t list_options(struct run_args *a, struct option_row row[MOST_OPTIONS])
{
	const struct option_row own[] = {
		{ "--dry-run", &a->dry_run, NULL, NULL,
		  "show bytes per dataset, shards, memory and time; run nothing" },
		{ "--overwrite", &a->overwrite, NULL, NULL,
		  "replace an existing output and its shards" },
		{ "--repair", &a->repair, NULL, NULL,
		  "compute damaged shards again, instead of stopping" },
		{ "--task", NULL, NULL, "I/N",
		  "compute the I-th of N shares of the shards, for clusters; the task that\n"
		  "                         finds all shards done joins them (default: from\n"
		  "                         SLURM_ARRAY_TASK_ID and, under srun, SLURM_PROCID)" },
		{ "--quiet", &a->quiet, NULL, NULL, "print errors and warnings only" },
		{ "--verbose", &a->verbose, NULL, NULL, "print where the time went, too" },
		{ "--text", NULL, NULL, "TEXT", "a prompt, instead of --data; repeatable" },
		{ "--answer", NULL, NULL, "TEXT",
		  "an answer to the --text before it; repeatable: logit_diff is the first\n"
		  "                         minus each other. A space is put in front of one that\n"
		  "                         has none" },
		{ "--no-space", &a->no_space, NULL, NULL,
		  "answers of --answer as they are typed" },
		{ "--set", NULL, NULL, "KEY=VALUE", "set any key below" },
	};
	size_t i, n_keys, n = sizeof(own) / sizeof(*own);
	const struct lens_key *k = lens_keys(&n_keys);

	memcpy(row, own, sizeof(own));
	for (i = 0; i < n_keys && n + 2 <= MOST_OPTIONS; i++) {
		struct option_row r = { .shape = k[i].flag_value ? NULL : k[i].shape };

		r.name = k[i].flag;
		if (r.name)
			row[n++] = r;
		r.name = k[i].short_flag;
		if (r.name)
			row[n++] = r;
	}
	return n;
}

int parse_run(struct run_args *a, int argc, char **argv)
{
	struct option_row row[MOST_OPTIONS];
	struct usage u = run_usage;
	const char *plain[16];
	int n, code;

	u.option = row;
	u.n_options = list_options(a, row);
	u.most = sizeof(plain) / sizeof(*plain);
	u.take = take;
	u.ctx = a;
	code = parse_args(&u, argc, argv, plain, &n);
	if (code >= 0)
		return code;
	if (n > 1)
		return usage_error(&run_usage, "one experiment at a time, not '%s'%s", plain[1],
				   list_hint(a));
	if (a->quiet && a->verbose)
		return usage_error(&run_usage, "--quiet or --verbose, not both");
	a->yaml = n ? plain[0] : NULL;
	code = check_texts(a);
	if (code < 0 && a->yaml)
		code = check_yaml(a);
	return code < 0 ? task_of_slurm(a) : code;
}
