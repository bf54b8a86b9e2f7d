/*
 * cli/run.c: `h5lens run`: the experiment from file and flags, a progress line,
 * the results.
 */
#include "cli/run_args_private.h"

#include <unistd.h>

/* --- what the user sees ----------------------------------------------------------- */

struct screen {
	bool quiet, verbose, terminal, dry_run;
	const struct lens_share *task; /* or NULL */
	double last;                   /* seconds at the last line */
};

static void show_progress(void *ctx, const struct lens_progress *p)
{
	struct screen *s = ctx;
	double left, rate = lens_progress_rate(p);

	if (s->quiet || p->seconds - s->last < (s->terminal ? 0.2 : 30))
		return;
	s->last = p->seconds;
	left = rate > 0 ? (double)(p->rows_total - p->rows_done) / rate : 0;
	fprintf(stderr, "%s%zu/%zu prompt%s, %.1f/s, %.0f tokens/s, %.1f MB/s, %.0f s left%s",
		s->terminal ? "\r" : "", p->rows_done, p->rows_total, plural(p->rows_total),
		rate, p->seconds > 0 ? (double)p->tokens_done / p->seconds : 0,
		p->seconds > 0 ? (double)p->bytes_written / p->seconds / 1e6 : 0, left,
		s->terminal ? "\033[K" : "\n");
}

static void show_note(void *ctx, const char *text)
{
	const struct screen *s = ctx;

	if (!s->quiet)
		fprintf(stderr, "h5lens: %s\n", text);
}

/* Printed even with --quiet. */
static void show_warning(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "h5lens: warning: %s\n", text);
}

static void show_plan(void *ctx, const struct lens_plan_summary *p)
{
	const struct screen *s = ctx;

	if (!s->quiet)
		print_plan(p, s->dry_run, s->task);
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

/* Prints the first warning of each kind, and how many there are. */
static void show_warnings(const struct lens_dataset_report *r)
{
	char text[3072];
	size_t i;

	for (i = 0; i < LENS_ROW_WARNINGS; i++) {
		if (!r->warning[i].n)
			continue;
		fprintf(stderr, "h5lens: warning: %s",
			lens_error_format(&r->warning[i].first, text, sizeof(text)));
		if (r->warning[i].n > 1)
			fprintf(stderr, " (and %zu more row%s like it)", r->warning[i].n - 1,
				plural(r->warning[i].n - 1));
		fprintf(stderr, "\n");
	}
}

static void show_done(const struct lens_experiment *e, const struct lens_run_result *r)
{
	const struct lens_progress *p = &r->progress;
	size_t n = p->rows_done - p->rows_kept;
	uint64_t bytes = 0;
	struct lens_sweep_status sweep;
	char text[32];

	if (lens_sweep_status_read(e->output, &sweep, NULL, NULL, NULL) == LENS_OK) {
		bytes = sweep.bytes;
		lens_sweep_status_release(&sweep);
	}
	printf("%s: %zu prompt%s in %.1f s (%.1f/s), %s", e->output, n, plural(n), p->seconds,
	       lens_progress_rate(p), human_bytes((double)bytes, text));
	if (r->n_shards > 1)
		printf(" in %zu shards", r->n_shards);
	if (p->rows_kept)
		printf("; %zu prompt%s there already", p->rows_kept,
		       p->rows_kept == 1 ? " was" : "s were");
	printf("\n");
}

static void show_share(const struct lens_experiment *e, const struct lens_run_result *r)
{
	const struct lens_progress *p = &r->progress;
	size_t n = p->rows_done - p->rows_kept;

	if (r->n_shards == 1) {
		printf("%s: a sweep of one shard, which task 1 computes: nothing to do, and "
		       "nothing to merge\n",
		       e->output);
		return;
	}
	printf("%s: this task's share is done: %zu prompt%s in %.1f s, %zu %s there already; ",
	       e->output, n, plural(n), p->seconds, p->rows_kept,
	       p->rows_kept == 1 ? "was" : "were");
	if (r->outcome == LENS_RUN_LAST_DONE)
		printf("all %zu shards are done and joined\n", r->n_shards);
	else if (lens_file_exists(e->output))
		printf("another task has joined them all\n");
	else
		printf("the last task joins them all (or h5lens merge %s)\n", e->output);
}

static void show_time(const char *who, const struct lens_times *t)
{
	const struct {
		const char *what;
		double seconds;
	} kind[] = { { "compute", t->compute },
		     { "convert", t->convert },
		     { "digest", t->digest },
		     { "write", t->write },
		     { "wait", t->wait } };
	double all = t->compute + t->convert + t->digest + t->write + t->wait;
	const char *sign = ":";
	size_t i;

	printf("%s, %.2f s", who, all);
	for (i = 0; i < sizeof(kind) / sizeof(*kind); i++) {
		if (kind[i].seconds == 0)
			continue;
		printf("%s %s %.1f %%", sign, kind[i].what, 100 * kind[i].seconds / all);
		sign = ",";
	}
	printf("\n");
}

/* Of the shards that this run made, if any. */
static void show_times(const struct lens_run_times *t)
{
	if (t->writer.write == 0)
		return;
	show_time("workers", &t->workers);
	show_time("writer", &t->writer);
}

static int show_result(const struct lens_experiment *e, const struct lens_run_result *r,
		       const struct screen *s)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_summary summary;
	int code;

	if (r->outcome == LENS_RUN_DRY && !s->quiet)
		print_estimate(&r->estimate);
	if (r->outcome == LENS_RUN_DRY)
		return EXIT_DONE;
	if (r->outcome >= LENS_RUN_SHARE_DONE && !s->quiet)
		show_share(e, r);
	if (r->outcome == LENS_RUN_SHARE_DONE)
		return EXIT_DONE;
	if (r->outcome == LENS_RUN_ALREADY_DONE && !s->quiet)
		printf("%s is finished: the same experiment, nothing to do\n", e->output);
	else if (r->outcome == LENS_RUN_DONE && !s->quiet)
		show_done(e, r);
	if (lens_summary_read(e->output, &summary, &err) != LENS_OK)
		return fail(&err);
	if (!s->quiet)
		print_summary(&summary);
	if (r->n_overflows)
		fprintf(stderr,
			"h5lens: warning: %zu value%s overflowed f16 (attribute "
			"f16_overflows of each dataset)\n",
			r->n_overflows, plural(r->n_overflows));
	if (summary.n_flagged)
		fprintf(stderr,
			"h5lens: %zu prompt%s logits that are not finite "
			"(/results/flags)\n",
			summary.n_flagged, summary.n_flagged == 1 ? " has" : "s have");
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
	lens_experiment_meet_model(e);
	LENS_TRY(spool_data(a, e, err));
	return lens_experiment_check(e, err);
}

static void name_errors(const struct lens_experiment *e, struct lens_run_result *r,
			struct lens_error *err)
{
	size_t i;

	spool_name(e, err);
	for (i = 0; i < LENS_BAD_ROWS_LISTED; i++)
		spool_name(e, &r->report.bad[i]);
	for (i = 0; i < LENS_ROW_WARNINGS; i++)
		spool_name(e, &r->report.warning[i].first);
}

static int run_experiment(const struct run_args *a, const struct lens_experiment *e)
{
	struct screen screen = { .quiet = a->quiet,
				 .verbose = a->verbose,
				 .dry_run = a->dry_run,
				 .task = a->is_task ? &a->share : NULL,
				 .terminal = isatty(STDERR_FILENO) };
	const struct lens_run_options opt = {
		.dry_run = a->dry_run,
		.overwrite = a->overwrite,
		.repair = a->repair,
		.task = screen.task,
		.stop = catch_signals(),
		.progress = show_progress,
		.planned = show_plan,
		.note = show_note,
		.warn = show_warning,
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
	name_errors(e, result, &err);
	show_warnings(&result->report);
	show_errors(e->data.skip_bad_rows ? "skipped: " : "", result->report.bad,
		    result->report.n_bad);
	code = st == LENS_OK ? show_result(e, result, &screen) : fail(&err);
	if (screen.verbose)
		show_times(&result->times);
	lens_free(result);
	return code;
}

/* Slurm itself sets it correctly; a script may not. This must not end the run. */
static void warn_of_slurm(const struct lens_experiment *e)
{
	const char *text = getenv("SLURM_CPUS_PER_TASK");

	if (!e->threads && text && !lens_slurm_cpus())
		fprintf(stderr,
			"h5lens: warning: SLURM_CPUS_PER_TASK is '%s', not a number from 1: "
			"it is ignored\n",
			visible(text, strlen(text)));
}

static int check_paths(const struct lens_experiment *e)
{
	int code = check_kind(&run_usage, e->model, true);

	return code < 0 ? check_kind(&run_usage, e->data.csv, false) : code;
}

int cmd_run(int argc, char **argv)
{
	struct run_args a = { .share = { 0, 1 } };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_experiment e;
	int code = parse_run(&a, argc, argv);

	if (code >= 0)
		return code;
	if (build_experiment(&a, &e, &err) != LENS_OK)
		code = fail(&err);
	else
		code = check_paths(&e);
	if (code < 0) {
		warn_of_slurm(&e);
		code = run_experiment(&a, &e);
	}
	lens_experiment_release(&e);
	return code;
}
