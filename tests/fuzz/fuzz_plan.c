/*
 * fuzz/fuzz_plan.c: bytes as plan.json of out.shards and, after a form feed, as
 * the file of a run that is said to be at work in it. `status` reads both,
 * `merge` refuses what has no shards, and a run compares the plan with its own.
 */
#include "fuzz/fuzz.h"

#include "sweep/sweep_private.h"

static void look(void *ctx, const struct lens_running *r)
{
	(void)ctx;
	fuzz_hold(r->pid > 0 && r->share.n_tasks && r->share.task < r->share.n_tasks,
		  "a run has a share");
	fuzz_hold(r->progress.seconds >= 0, "time goes on");
	fuzz_hold(r->progress.rows_done <= r->progress.rows_total, "rows");
	fuzz_hold(r->progress.rows_kept <= r->progress.rows_done, "rows kept");
}

static void check_status(const char *output)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_sweep_status s;
	enum lens_status st = lens_sweep_status_read(output, &s, look, NULL, &err);

	fuzz_check(st, &err);
	if (st == LENS_OK)
		fuzz_hold(s.n_shards && !s.n_done && !s.finished, "nothing is done");
	lens_sweep_status_release(&s);
}

static void check_plan(const char *output)
{
	static const size_t first[] = { 0, 4, 9 };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_folder f;
	enum lens_status st =
		lens_folder_init(&f, output, "{\"model\":\"m\",\"top_k\":10}", 2, first, &err);

	if (st == LENS_OK)
		st = lens_folder_keep_plan(&f, &err);
	fuzz_check(st, &err);
	lens_folder_release(&f);
}

static void check_merge(const char *output)
{
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st = lens_merge(output, NULL, &err);

	fuzz_check(st, &err);
	fuzz_hold(st != LENS_OK, "without shards there is nothing to merge");
}

void fuzz_one(const uint8_t *data, size_t n)
{
	const char *output = fuzz_path("out.h5");
	struct fuzz_part part[2];

	fuzz_make_folder("out.shards");
	fuzz_split(data, n, part, 2);
	fuzz_write("out.shards/plan.json", part[0].data, part[0].n);
	if (part[1].n)
		fuzz_write("out.shards/other-1.run", part[1].data, part[1].n);
	else
		fuzz_remove("out.shards/other-1.run");
	check_status(output);
	check_plan(output);
	check_merge(output);
}
