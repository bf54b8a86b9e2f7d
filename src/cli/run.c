/*
 * cli/run.c: `h5lens run`: the experiment from file and flags, a progress line,
 * the results.
 */
#include "cli/cli.h"

#include <unistd.h>

static const char synopsis[] =
	"h5lens run [EXPERIMENT.yaml] [--model DIR --data CSV -o OUT.h5] [options]";

static void print_run_help(void)
{
	size_t i, n;
	const struct lens_key *k = lens_keys(&n);

	printf("usage: %s\n\n"
	       "Runs an experiment. Flags override the file. The same command again goes on\n"
	       "where the last one was stopped; an output that is finished is left as it is,\n"
	       "one of another experiment is an error. A sweep larger than one shard goes to\n"
	       "OUT.shards/, and OUT.h5 shows all of it.\n\n"
	       "  --dry-run              show bytes per dataset, memory and batches; run "
	       "nothing\n"
	       "  --overwrite            replace an existing output and its shards\n"
	       "  --repair               compute damaged shards again, instead of stopping\n"
	       "  --task I/N             the I-th of N shares of the shards, for job arrays\n"
	       "                         (default: from SLURM_ARRAY_TASK_ID); then h5lens merge\n"
	       "  --quiet                no progress, no results; errors only\n"
	       "  --set KEY=VALUE        any key below\n"
	       "\nkeys (flag: key)\n",
	       synopsis);
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

struct run_args {
	const char *yaml;
	bool dry_run, overwrite, quiet, repair;
	size_t task, n_tasks;              /* from 0; 0 of 0: no tasks */
	const char *key[128], *value[128]; /* settings in the order given */
	size_t n;
	const char *flag_key[32]; /* keys that came by a flag with a value */
	size_t n_flags;
};

static const struct usage run_usage = { .synopsis = synopsis };

static int add_setting(struct run_args *a, const char *key, const char *value)
{
	if (a->n == sizeof(a->key) / sizeof(*a->key))
		return usage_error(&run_usage, "too many settings");
	a->key[a->n] = key;
	a->value[a->n++] = value;
	return -1;
}

/* Of other flags the last one counts, but "--hooks A --hooks B" would lose A. */
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

/* --set key=value, or a flag of the key table. */
static int take_setting(struct run_args *a, int argc, char **argv, int *i)
{
	char *equals = strncmp(argv[*i], "--", 2) ? NULL : strchr(argv[*i], '=');
	const struct lens_key *k;
	char *value;

	if (equals)
		*equals = '\0';
	k = lens_key_of_flag(argv[*i]);
	if (!k && strcmp(argv[*i], "--set") != 0)
		return usage_error(&run_usage, "unknown option '%s'", argv[*i]);
	if (k && k->flag_value)
		return equals ? usage_error(&run_usage, "%s takes no value", argv[*i])
			      : add_setting(a, k->name, k->flag_value);
	if (!equals && *i + 1 >= argc)
		return usage_error(&run_usage, "%s needs a value", argv[*i]);
	value = equals ? equals + 1 : argv[++*i];
	if (k)
		return strchr(k->shape, '[') ? add_flag(a, k->flag, k->name, value)
					     : add_setting(a, k->name, value);
	equals = strchr(value, '=');
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
	a->task = task - 1;
	a->n_tasks = n;
	return true;
}

static int take_task(struct run_args *a, int argc, char **argv, int *i)
{
	const char *value = argv[*i][6] ? argv[*i] + 7 : *i + 1 < argc ? argv[++*i] : NULL;

	if (!value || !read_task(value, a))
		return usage_error(&run_usage, "--task needs I/N, 1 to N of N, not '%s'",
				   value ? value : "");
	return -1;
}

static bool number_of(const char *name, unsigned long *out)
{
	const char *text = getenv(name);
	char rest;

	return text && sscanf(text, "%9lu%c", out, &rest) == 1 && !strpbrk(text, "+- ");
}

/* A Slurm job array says which task this is: ids from min to max in steps. */
static int task_of_slurm(struct run_args *a)
{
	unsigned long id, n, count, min = 0, max = 0, step = 1;

	if (a->n_tasks || !getenv("SLURM_ARRAY_TASK_ID"))
		return -1;
	if (!number_of("SLURM_ARRAY_TASK_ID", &id) ||
	    !number_of("SLURM_ARRAY_TASK_MIN", &min) ||
	    !number_of("SLURM_ARRAY_TASK_MAX", &max))
		return usage_error(&run_usage, "SLURM_ARRAY_TASK_ID, _MIN and _MAX do not make "
					       "a task; say --task I/N");
	if (getenv("SLURM_ARRAY_TASK_STEP") && !number_of("SLURM_ARRAY_TASK_STEP", &step))
		step = 0;
	if (!step || id < min || id > max || (id - min) % step)
		return usage_error(&run_usage,
				   "SLURM_ARRAY_TASK_ID %lu is none of %lu to %lu "
				   "in steps of %lu; say --task I/N",
				   id, min, max, step);
	n = (max - min) / step + 1;
	/* 1,4,9 is a list, not a range: nobody says which of its tasks this is. */
	if (number_of("SLURM_ARRAY_TASK_COUNT", &count) && count != n)
		return usage_error(&run_usage,
				   "the job array has %lu tasks, not the %lu of %lu to %lu in "
				   "steps of %lu: a list; say --task I/N",
				   count, n, min, max, step);
	a->task = (id - min) / step;
	a->n_tasks = n;
	return -1;
}

static int parse_run(struct run_args *a, int argc, char **argv)
{
	int i, code;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_run_help();
			return EXIT_DONE;
		} else if (!strcmp(argv[i], "--dry-run")) {
			a->dry_run = true;
		} else if (!strcmp(argv[i], "--overwrite")) {
			a->overwrite = true;
		} else if (!strcmp(argv[i], "--quiet")) {
			a->quiet = true;
		} else if (!strcmp(argv[i], "--repair")) {
			a->repair = true;
		} else if (!strncmp(argv[i], "--task", 6) &&
			   (!argv[i][6] || argv[i][6] == '=')) {
			code = take_task(a, argc, argv, &i);
			if (code >= 0)
				return code;
		} else if (argv[i][0] == '-' && argv[i][1]) {
			code = take_setting(a, argc, argv, &i);
			if (code >= 0)
				return code;
		} else if (a->yaml) {
			return usage_error(&run_usage, "one experiment at a time, not '%s'",
					   argv[i]);
		} else {
			a->yaml = argv[i];
		}
	}
	return task_of_slurm(a);
}

/* --- what the user sees ----------------------------------------------------------- */

struct screen {
	bool quiet, terminal, dry_run;
	double last; /* seconds at the last line */
};

static void show_progress(void *ctx, const struct lens_progress *p)
{
	struct screen *s = ctx;
	double left, rate = lens_progress_rate(p);

	if (s->quiet || p->seconds - s->last < (s->terminal ? 0.2 : 30))
		return;
	s->last = p->seconds;
	left = rate > 0 ? (double)(p->rows_total - p->rows_done) / rate : 0;
	fprintf(stderr, "%s%zu/%zu prompts, %.1f/s, %.0f tokens/s, %.1f MB/s, %.0f s left%s",
		s->terminal ? "\r" : "", p->rows_done, p->rows_total, rate,
		p->seconds > 0 ? (double)p->tokens_done / p->seconds : 0,
		p->seconds > 0 ? (double)p->bytes_written / p->seconds / 1e6 : 0, left,
		s->terminal ? "\033[K" : "\n");
}

static void show_note(void *ctx, const char *text)
{
	const struct screen *s = ctx;

	if (!s->quiet)
		fprintf(stderr, "h5lens: %s\n", text);
}

static void show_datasets(const struct lens_plan *p)
{
	char data[32], padding[32];
	size_t i;
	int k;

	printf("%-44s %-24s %12s %12s\n", "dataset", "shape", "data", "padding");
	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];
		char shape[96];
		int at = 0;

		for (k = 0; k < d->spec.rank; k++)
			at += snprintf(shape + at, sizeof(shape) - (size_t)at, "%s%zu",
				       k ? "×" : "", d->spec.extent[k]);
		/* × is two bytes wide and one column */
		printf("%-44s %-*s %12s %12s\n", d->path, 24 + d->spec.rank - 1, shape,
		       human_bytes((double)d->data_bytes, data),
		       human_bytes((double)(d->file_bytes - d->data_bytes), padding));
	}
	for (i = 0; i < p->n_links; i++)
		printf("%-44s is %s\n", p->link[i].path, p->link[i].target);
}

static void show_plan(void *ctx, const struct lens_plan *p, const struct lens_shards *shards,
		      const struct lens_memory *m)
{
	const struct screen *s = ctx;
	uint64_t padding = 0;
	char a[32], b[32], c[32];
	size_t i;

	if (s->quiet)
		return;
	for (i = 0; i < p->n_datasets; i++)
		padding += p->dataset[i].file_bytes > p->dataset[i].data_bytes
				   ? p->dataset[i].file_bytes - p->dataset[i].data_bytes
				   : 0;
	if (s->dry_run)
		show_datasets(p);
	printf("plan: %zu prompts of up to %zu tokens, ", p->prompts->n_rows,
	       p->prompts->max_length);
	if (shards->n == 1)
		printf("%zu batches of %zu; ", p->n_batches, p->batch_rows);
	else
		printf("%zu shards; ", shards->n);
	printf("file%s %s, %s of it padding\n", shards->n == 1 ? "" : "s",
	       human_bytes((double)p->file_bytes, a), human_bytes((double)padding, b));
	printf("memory: %s: model %s, ", human_bytes((double)m->total, a),
	       human_bytes((double)m->model, b));
	printf("%zu worker%s of %s, ", m->workers, m->workers > 1 ? "s" : "",
	       human_bytes((double)m->per_worker, c));
	printf("%zu buffers of %s, open chunks %s\n", m->buffers,
	       human_bytes((double)m->buffer, a), human_bytes((double)m->shared, b));
	fflush(stdout);
}

static void show_errors(const char *what, const struct lens_error *list, size_t n)
{
	char text[3072];
	size_t i;

	for (i = 0; i < n && i < LENS_BAD_ROWS_LISTED; i++)
		fprintf(stderr, "h5lens: %s%s\n", what,
			lens_error_format(&list[i], text, sizeof(text)));
	if (n > LENS_BAD_ROWS_LISTED)
		fprintf(stderr, "h5lens: %s… %zu in all\n", what, n);
}

static void show_done(const struct lens_experiment *e, const struct lens_run_result *r)
{
	const struct lens_progress *p = &r->progress;
	size_t n = p->rows_done - p->rows_kept;
	uint64_t bytes = 0;
	struct lens_sweep sweep;
	char text[32];

	if (lens_sweep_read(e->output, &sweep, NULL, NULL, NULL) == LENS_OK) {
		bytes = sweep.bytes;
		lens_sweep_release(&sweep);
	}
	printf("%s: %zu prompts in %.1f s (%.1f/s), %s", e->output, n, p->seconds,
	       lens_progress_rate(p), human_bytes((double)bytes, text));
	if (r->n_shards > 1)
		printf(" in %zu shards", r->n_shards);
	if (p->rows_kept)
		printf("; %zu prompts were there already", p->rows_kept);
	printf("\n");
}

static int show_share(const struct lens_experiment *e, const struct lens_run_result *r,
		      const struct screen *s)
{
	const struct lens_progress *p = &r->progress;

	if (!s->quiet && r->n_shards == 1)
		printf("%s: a sweep of one shard, which task 1 computes: nothing to do, and "
		       "nothing to merge\n",
		       e->output);
	else if (!s->quiet)
		printf("%s: this task's share is done: %zu prompts in %.1f s, %zu were there "
		       "already; when all tasks are: h5lens merge %s\n",
		       e->output, p->rows_done - p->rows_kept, p->seconds, p->rows_kept,
		       e->output);
	return EXIT_DONE;
}

static int show_result(const struct lens_experiment *e, const struct lens_run_result *r,
		       const struct screen *s)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_summary summary;
	int code;

	if (r->outcome == LENS_RUN_DRY)
		return EXIT_DONE;
	if (r->outcome == LENS_RUN_SHARE_DONE)
		return show_share(e, r, s);
	if (r->outcome == LENS_RUN_ALREADY_DONE && !s->quiet)
		printf("%s is finished: the same experiment, nothing to do\n", e->output);
	else if (!s->quiet)
		show_done(e, r);
	if (lens_summary_read(e->output, &summary, &err) != LENS_OK)
		return fail(&err);
	if (!s->quiet)
		print_summary(&summary);
	if (r->n_overflows)
		fprintf(stderr,
			"h5lens: warning: %zu values overflowed f16 (attribute "
			"f16_overflows of each dataset)\n",
			r->n_overflows);
	if (summary.n_flagged)
		fprintf(stderr,
			"h5lens: %zu prompts have logits that are not finite "
			"(/results/flags)\n",
			summary.n_flagged);
	code = summary.n_flagged ? EXIT_FAILED : EXIT_DONE;
	lens_summary_release(&summary);
	return code;
}

static enum lens_status build_experiment(const struct run_args *a, struct lens_experiment *e,
					 struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_experiment_init(e, err));
	if (a->yaml)
		LENS_TRY(lens_experiment_load(e, a->yaml, err));
	for (i = 0; i < a->n; i++)
		LENS_TRY(lens_experiment_set(e, a->key[i], a->value[i], err));
	return lens_experiment_check(e, err);
}

static int run_experiment(const struct run_args *a, const struct lens_experiment *e)
{
	struct screen screen = { .quiet = a->quiet,
				 .dry_run = a->dry_run,
				 .terminal = isatty(STDERR_FILENO) };
	const struct lens_run_options opt = {
		.dry_run = a->dry_run,
		.overwrite = a->overwrite,
		.repair = a->repair,
		.task = a->task,
		.n_tasks = a->n_tasks,
		.stop = catch_signals(),
		.progress = show_progress,
		.planned = show_plan,
		.note = show_note,
		.ctx = &screen,
	};
	struct lens_run_result *result = lens_calloc(1, sizeof(*result));
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st;
	int code;

	if (!result)
		return EXIT_FAILED;
	st = lens_run(e, &opt, result, &err);
	if (screen.terminal && screen.last > 0)
		fprintf(stderr, "\r\033[K");
	show_errors("warning: ", result->report.warning, result->report.n_warnings);
	show_errors(e->data.skip_bad_rows ? "skipped: " : "", result->report.bad,
		    result->report.n_bad);
	code = st == LENS_OK ? show_result(e, result, &screen) : fail(&err);
	lens_free(result);
	return code;
}

int cmd_run(int argc, char **argv)
{
	struct run_args a = { .yaml = NULL };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_experiment e;
	int code = parse_run(&a, argc, argv);

	if (code >= 0)
		return code;
	if (build_experiment(&a, &e, &err) != LENS_OK)
		code = fail(&err);
	else
		code = run_experiment(&a, &e);
	lens_experiment_release(&e);
	return code;
}
