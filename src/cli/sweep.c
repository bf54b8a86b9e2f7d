/*
 * cli/sweep.c: `h5lens status`, `merge` and `pack`: a sweep in shards, seen from outside
 * the run that computes it.
 */
#include "cli/cli_private.h"

#include <time.h>
#include <unistd.h>

/* --- status ---------------------------------------------------------------------------- */

struct runs {
	struct lens_running *v;
	size_t n, cap;
};

static void keep_run(void *ctx, const struct lens_running *r)
{
	struct runs *runs = ctx;
	struct lens_running *v = lens_grow(runs->v, runs->n, &runs->cap, sizeof(*v), NULL);

	if (!v)
		return;
	runs->v = v;
	v[runs->n++] = *r;
}

/* Returns whether it is at work. */
static bool print_run(const struct lens_running *r)
{
	const struct lens_progress *p = &r->progress;
	double rate = lens_progress_rate(p);

	if (!r->alive) {
		printf("  process %ld on %s died; repeat its command to resume\n", r->pid,
		       visible(r->host, strlen(r->host)));
		return false;
	}
	printf("  process %ld on %s is at work", r->pid, visible(r->host, strlen(r->host)));
	if (!lens_share_is_all(&r->share))
		printf(", task %zu/%zu", r->share.task + 1, r->share.n_tasks);
	if (p->n_shards > 1)
		printf(", shard %05zu", p->shard);
	if (p->rows_total)
		printf(": %zu of %zu prompt%s", p->rows_done, p->rows_total,
		       plural(p->rows_total));
	else
		printf(": looking for finished shards");
	if (rate > 0)
		printf(", %.1f/s, %.1f MB/s, %.0f s left", rate,
		       (double)p->bytes_written / p->seconds / 1e6,
		       (double)(p->rows_total - p->rows_done) / rate);
	printf("\n");
	return true;
}

/* "00003, 00005 to 00011": the shards in a state. */
static void print_shards(const struct lens_sweep_status *s, enum lens_file_state state,
			 const char *what)
{
	size_t i, end;
	bool any = false;

	for (i = 0; i < s->n_shards; i = end) {
		end = i + 1;
		if (s->state[i] != state)
			continue;
		while (end < s->n_shards && s->state[end] == state)
			end++;
		printf("%s%05zu", any ? ", " : what, i);
		if (end > i + 1)
			printf(" to %05zu", end - 1);
		any = true;
	}
	if (any)
		printf("\n");
}

static void print_sweep(const char *output, const struct lens_sweep_status *s)
{
	char bytes[32];

	if (s->n_shards == 1) {
		printf("%s: %s", output, s->finished ? "finished" : "not finished");
		if (s->finished)
			printf(", %s", human_bytes((double)s->bytes, bytes));
		printf("\n");
		return;
	}
	printf("%s: %zu of %zu shards done, %zu of %zu prompts, %s", output, s->n_done,
	       s->n_shards, s->rows_done, s->n_rows, human_bytes((double)s->bytes, bytes));
	if (s->damaged)
		printf("; the output is damaged: h5lens run … --repair");
	else if (s->finished)
		printf(s->n_done == s->n_shards ? "; finished"
						: "; finished, but shards that it shows are "
						  "gone: h5lens run … --repair");
	else if (s->n_done == s->n_shards)
		printf("; h5lens merge %s", output);
	printf("\n");
	print_shards(s, LENS_FILE_WRITING, "  half done: ");
	print_shards(s, LENS_FILE_MISSING, "  missing: ");
}

/* Who types run's command again and again must know when that does not help. */
static int exit_of(const struct lens_sweep_status *s, bool at_work)
{
	if (s->finished && s->n_done == s->n_shards)
		return EXIT_DONE;
	return (s->finished || s->damaged) && !at_work ? EXIT_FAILED : EXIT_RESUMABLE;
}

/* A shard with its final name is finished; only `verify` says whether it is sound. */
int cmd_status(int argc, char **argv)
{
	const struct usage u = {
		.synopsis = "h5lens status OUT.h5",
		.description =
			"Shows how much of an output is done, and which runs are at work on it, "
			"without\n"
			"disturbing them. Exit code 0: finished; 75: not finished, repeat run's "
			"command to\n"
			"resume; 1: no such output, or finished and damaged.",
		.least = 1,
		.most = 1,
	};
	struct lens_error err = LENS_ERROR_INIT;
	struct runs runs = { NULL, 0, 0 };
	struct lens_sweep_status s;
	const char *plain[1];
	bool any = false;
	size_t i;
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code < 0)
		code = check_kind(&u, plain[0], false);
	if (code >= 0)
		return code;
	if (lens_sweep_status_read(plain[0], &s, keep_run, &runs, &err) != LENS_OK) {
		lens_free(runs.v);
		return fail(&err);
	}
	print_sweep(plain[0], &s);
	for (i = 0; i < runs.n; i++)
		any |= print_run(&runs.v[i]);
	code = exit_of(&s, any);
	lens_sweep_status_release(&s);
	lens_free(runs.v);
	if (!any && code != EXIT_DONE)
		printf("  no run is at work on it\n");
	return code;
}

/* --- what merge and pack show ------------------------------------------------------------- */

struct meter {
	bool terminal;
	double started, last; /* seconds */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void show_bytes(void *ctx, uint64_t done, uint64_t total)
{
	struct meter *m = ctx;
	double t = now(), rate = (double)done / (t - m->started);
	char a[32], b[32];

	if (t - m->last < (m->terminal ? 0.2 : 30))
		return;
	m->last = t;
	fprintf(stderr, "%s%s of %s read, %.1f MB/s, %.0f s left%s", m->terminal ? "\r" : "",
		human_bytes((double)done, a), human_bytes((double)total, b), rate / 1e6,
		rate > 0 && total > done ? (double)(total - done) / rate : 0,
		m->terminal ? "\033[K" : "\n");
}

static struct lens_merge_options merge_options(struct meter *m, size_t threads)
{
	*m = (struct meter){ .terminal = isatty(STDERR_FILENO) };
	m->started = m->last = now();
	return (struct lens_merge_options){
		.threads = threads, .stop = catch_signals(), .progress = show_bytes, .ctx = m
	};
}

static void end_meter(const struct meter *m)
{
	if (m->terminal && m->last > m->started)
		fprintf(stderr, "\r\033[K");
}

#define THREADS_ROW(value)                                                                     \
	{                                                                                      \
		"--threads", NULL, value, "N",                                                 \
			"processes that verify (default: as many as run's threads)"            \
	}

/* --- merge ------------------------------------------------------------------------------ */

int cmd_merge(int argc, char **argv)
{
	const char *plain[1], *threads = NULL;
	const struct option_row options[] = { THREADS_ROW(&threads) };
	const struct usage u = {
		.synopsis = "h5lens merge OUT.h5 [--threads N]",
		.description =
			"Joins the shards in OUT.shards/ that tasks computed (run --task I/N) "
			"into OUT.h5, as\n"
			"the last task does. Checks every digest. Exit code 75: shards are missing "
			"(the error\nnames them), or another run is at work; try again later.",
		.option = options,
		.n_options = 1,
		.least = 1,
		.most = 1,
	};
	struct lens_error err = LENS_ERROR_INIT;
	int n, code = parse_args(&u, argc, argv, plain, &n);
	struct lens_merge_options opt;
	struct lens_summary summary;
	enum lens_status st;
	struct meter meter;
	size_t asked;

	if (code < 0)
		code = check_output(&u, threads, &asked, plain[0]);
	if (code >= 0)
		return code;
	opt = merge_options(&meter, asked);
	st = lens_merge(plain[0], &opt, &err);
	end_meter(&meter);
	if (st != LENS_OK || lens_summary_read(plain[0], &summary, &err) != LENS_OK)
		return fail_output(plain[0], &err);
	printf("%s: %zu prompt%s\n", plain[0], summary.n_prompts, plural(summary.n_prompts));
	print_summary(&summary);
	lens_summary_release(&summary);
	return EXIT_DONE;
}

/* --- pack -------------------------------------------------------------------------------- */

static int pack(const char *output, const char *final, bool overwrite, size_t threads)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct meter meter;
	const struct lens_merge_options opt = merge_options(&meter, threads);
	enum lens_status st = lens_pack(output, final, overwrite, &opt, &err);

	end_meter(&meter);
	if (st != LENS_OK)
		return fail_output(output, &err);
	printf("%s: packed from %s\n", final, output);
	return EXIT_DONE;
}

int cmd_pack(int argc, char **argv)
{
	const char *final = NULL, *threads = NULL, *plain[1];
	bool overwrite = false;
	const struct option_row options[] = {
		{ "-o", NULL, &final, "ONE.h5", "the file to write" },
		{ "--overwrite", &overwrite, NULL, NULL, "replace it if it exists" },
		THREADS_ROW(&threads),
	};
	const struct usage u = {
		.synopsis = "h5lens pack OUT.h5 -o ONE.h5 [--overwrite] [--threads N]",
		.description =
			"Writes one self-contained file from OUT.h5 and the shards that it shows, "
			"and checks\n"
			"every digest. OUT.h5 and its shards are kept.",
		.option = options,
		.n_options = 3,
		.least = 1,
		.most = 1,
	};
	int n, code = parse_args(&u, argc, argv, plain, &n);
	size_t asked;

	if (code >= 0)
		return code;
	if (!final)
		return usage_error(&u, "-o ONE.h5 is missing");
	code = check_output(&u, threads, &asked, plain[0]);
	if (code < 0)
		code = check_kind(&u, final, false);
	return code < 0 ? pack(plain[0], final, overwrite, asked) : code;
}
