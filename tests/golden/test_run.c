/*
 * golden/test_run.c: how a run ends: done, already done, refused, too little
 * memory, stopped; and that no end but the first leaves a file. Once per CPU
 * level (H5LENS_TEST_CPU).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/h5file.h"
#include "support/runs.h"
#include "support/sweeps.h"

#define MODEL "tests/golden/data/gpt2_unscaled"
#define ROWS MODEL "/prompts.csv"

/* A small experiment with an output that is not there yet. */
static int set_up(void **state)
{
	static struct lens_experiment e;
	char *output = test_tmp_path("run.h5");

	unlink(output);
	test_experiment(&e, MODEL, ROWS, output);
	lens_free(output);
	*state = &e;
	return 0;
}

static bool anything_left(const struct lens_experiment *e)
{
	return lens_file_exists(e->output) || test_part_left(e->output);
}

static int tear_down(void **state)
{
	struct lens_experiment *e = *state;
	int left = test_part_left(e->output);

	unlink(e->output);
	lens_experiment_release(e);
	return left;
}

static struct lens_error failure(const struct lens_experiment *e,
				 const struct lens_run_options *options, enum lens_status code)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;

	assert_int_equal(lens_run(e, options, &result, &err), code);
	assert_int_equal(err.code, code);
	assert_true(*err.text != '\0');
	return err;
}

static void expect_text(const struct lens_error *err, const char *part)
{
	if (!strstr(err->text, part))
		fail_msg("\"%s\" is not in: %s", part, err->text);
}

static void expect_no_text(const struct lens_error *err, const char *part)
{
	if (strstr(err->text, part))
		fail_msg("\"%s\" is in: %s", part, err->text);
}

static struct lens_run_result ends_well(const struct lens_experiment *e,
					enum lens_run_outcome outcome)
{
	const struct lens_run_options options = { .overwrite = false };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;

	if (lens_run(e, &options, &result, &err) != LENS_OK)
		fail_msg("%s", err.text);
	assert_int_equal(result.outcome, outcome);
	return result;
}

/* --- the same and another experiment ------------------------------------------------- */

static double summed(const struct lens_times *t)
{
	const double part[] = { t->compute, t->convert, t->digest, t->write, t->wait };
	double sum = 0;
	size_t i;

	for (i = 0; i < 5; i++) {
		assert_true(part[i] >= 0);
		sum += part[i];
	}
	return sum;
}

/* No time is counted twice, none is left out; how long anything takes is not tested. */
static void test_times(void **state)
{
	struct lens_experiment *e = *state;
	struct lens_run_result result;
	const struct lens_run_times *t = &result.times;

	result = ends_well(e, LENS_RUN_DONE);
	assert_true(t->workers.compute > 0);
	assert_true(t->workers.convert > 0);
	assert_true(t->workers.write == 0);
	assert_true(t->writer.write > 0);
	assert_true(t->writer.compute == 0);
	assert_true(t->workers.digest + t->writer.digest > 0);
	/* A whole number of workers, all as long as the writer; the sums' own rounding. */
	assert_true(fabs(remainder(summed(&t->workers), summed(&t->writer))) <
		    1e-9 * summed(&t->workers));
	result = ends_well(e, LENS_RUN_ALREADY_DONE);
	assert_true(summed(&t->workers) + summed(&t->writer) == 0);
}

static void test_already_done(void **state)
{
	struct lens_experiment *e = *state;
	struct lens_run_result result = ends_well(e, LENS_RUN_DONE);
	struct stat before, after;

	assert_int_equal(result.progress.rows_done, 6);
	assert_int_equal(result.progress.rows_total, 6);
	assert_true(result.progress.tokens_done > 6);
	assert_true(result.progress.bytes_written > 0);
	assert_int_equal(result.n_flagged + result.n_overflows + result.report.n_bad, 0);
	assert_int_equal(stat(e->output, &before), 0);
	ends_well(e, LENS_RUN_ALREADY_DONE);
	/* What must not matter. */
	test_set(e, "threads", "2", "memory", "1GiB", NULL);
	ends_well(e, LENS_RUN_ALREADY_DONE);
	assert_int_equal(stat(e->output, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

static void test_mismatch(void **state)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_experiment *e = *state;
	struct stat before, after;
	struct lens_error err;

	ends_well(e, LENS_RUN_DONE);
	assert_int_equal(stat(e->output, &before), 0);
	test_set(e, "cache.dtype", "f16", "weights.fold_ln", "false", "top_k", "7", NULL);
	err = failure(e, &none, LENS_ERR_MISMATCH);
	expect_text(&err, "cache.dtype: \"f32\" there, \"f16\" here");
	expect_text(&err, "weights.fold_ln: true there, false here");
	expect_text(&err, "top_k: 10 there, 7 here");
	expect_no_text(&err, "positions");
	expect_no_text(&err, "content");
	assert_string_equal(err.file, e->output);
	assert_int_equal(stat(e->output, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(before.st_size, after.st_size);
}

/* The content of the inputs counts, not their paths. */
static void test_other_content(void **state)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_experiment *e = *state;
	const size_t order[] = { 0, 1, 2, 3, 5, 4 };
	char *data = test_tmp_path("content.csv");
	struct lens_error err;
	struct test_csv csv;

	test_csv_read(ROWS, &csv);
	ends_well(e, LENS_RUN_DONE);
	test_set(e, "data.csv", data, NULL);
	test_csv_write(&csv, order, 6, data);
	err = failure(e, &none, LENS_ERR_MISMATCH);
	expect_text(&err, "data content: ");
	expect_no_text(&err, "model content");
	assert_int_equal(unlink(data), 0);
	test_csv_write(&csv, (const size_t[]){ 0, 1, 2, 3, 4, 5 }, 6, data);
	ends_well(e, LENS_RUN_ALREADY_DONE);
	test_set(e, "model", "tests/golden/data/gpt2_sharded", NULL);
	err = failure(e, &none, LENS_ERR_MISMATCH);
	expect_text(&err, "model content: ");
	unlink(data);
	lens_free(data);
	test_csv_release(&csv);
}

static void test_overwrite(void **state)
{
	const struct lens_run_options over = { .overwrite = true };
	struct lens_experiment *e = *state;
	struct lens_run_result result;
	struct test_h5 *f;
	struct test_array a;

	ends_well(e, LENS_RUN_DONE);
	test_set(e, "cache.dtype", "f16", NULL);
	assert_int_equal(lens_run(e, &over, &result, NULL), LENS_OK);
	assert_int_equal(result.outcome, LENS_RUN_DONE);
	f = test_h5_open(e->output);
	test_h5_bytes(f, "/cache/hook_embed", &a);
	assert_int_equal(a.size, 2);
	test_array_release(&a);
	test_h5_close(f);
	ends_well(e, LENS_RUN_ALREADY_DONE);
}

/* Whatever bears the output's name and is not ours stays as it is. */
static void test_foreign_file(void **state)
{
	static const char text[] = "my notes";
	const struct lens_run_options none = { .overwrite = false };
	const struct lens_run_options over = { .overwrite = true };
	struct lens_experiment *e = *state;
	struct lens_buf b = LENS_BUF_INIT;
	struct lens_run_result result;
	struct lens_error err;
	FILE *f = fopen(e->output, "wb");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	err = failure(e, &none, LENS_ERR_FORMAT);
	expect_text(&err, "not an output of h5lens");
	assert_int_equal(lens_file_read(e->output, 100, &b, NULL), LENS_OK);
	assert_string_equal(b.data, text);
	lens_buf_release(&b);
	/* An HDF5 file of somebody else's. */
	test_copy_file(MODEL "/truth.h5", e->output);
	err = failure(e, &none, LENS_ERR_MISMATCH);
	expect_text(&err, "not an output of h5lens; choose another output, or --overwrite");
	f = fopen(e->output, "wb");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	/* Notes are not overwritten, not even on demand; what is left of an HDF5 file is. */
	err = failure(e, &over, LENS_ERR_INVALID);
	expect_text(&err, "not an HDF5 file");
	f = fopen(e->output, "wb");
	assert_non_null(f);
	fputs("\x89HDF\r\n\x1a\n", f);
	fclose(f);
	assert_int_equal(lens_run(e, &over, &result, NULL), LENS_OK);
	ends_well(e, LENS_RUN_ALREADY_DONE);
}

/* --- ends without a file --------------------------------------------------------------- */

struct told {
	int planned, progress;
	size_t rows;
	uint64_t file_bytes;
	size_t needed;
	atomic_int *stop; /* set at the first progress */
};

static void on_plan(void *ctx, const struct lens_plan_summary *s)
{
	struct told *t = ctx;

	assert_int_equal(s->cut->n, 1);
	t->planned++;
	t->rows = s->n_prompts;
	t->file_bytes = s->file_bytes;
	t->needed = s->memory->total;
}

static void on_progress(void *ctx, const struct lens_progress *g)
{
	struct told *t = ctx;

	t->progress++;
	t->rows = g->rows_done;
	if (t->stop)
		atomic_store(t->stop, 1);
}

static void test_dry_run(void **state)
{
	struct lens_experiment *e = *state;
	struct told t = { 0 };
	const struct lens_run_options dry = {
		.dry_run = true, .planned = on_plan, .progress = on_progress, .ctx = &t
	};
	struct lens_run_result result;
	struct stat st;

	assert_int_equal(lens_run(e, &dry, &result, NULL), LENS_OK);
	assert_int_equal(result.outcome, LENS_RUN_DRY);
	assert_true(result.estimate.seconds > 0);
	assert_true(result.estimate.flop >= result.estimate.sample_flop);
	assert_in_range(result.estimate.sample_rows, 1, 6);
	assert_int_equal(t.planned, 1);
	assert_int_equal(t.progress, 0);
	assert_int_equal(t.rows, 6);
	assert_false(anything_left(e));
	/* What it foretold is what comes, but for HDF5's own book-keeping. */
	ends_well(e, LENS_RUN_DONE);
	assert_int_equal(stat(e->output, &st), 0);
	assert_true((uint64_t)st.st_size <= t.file_bytes);
	assert_true((uint64_t)st.st_size > t.file_bytes / 2);
	lens_run(e, &dry, &result, NULL);
	assert_int_equal(result.outcome, LENS_RUN_ALREADY_DONE);
}

static void test_too_little_memory(void **state)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_experiment *e = *state;
	struct lens_error err;

	test_set(e, "memory", "1MiB", NULL);
	err = failure(e, &none, LENS_ERR_NOMEM);
	expect_text(&err, "--memory gives 1 MiB");
	expect_text(&err, "one worker needs ");
	expect_no_text(&err, "needs 0 MiB");
	expect_no_text(&err, "needs 1 MiB");
	assert_false(anything_left(e));
}

#define STOPPED 600 /* prompts: several batches for each of three workers */
static void test_stop(void **state)
{
	struct lens_experiment *e = *state;
	atomic_int stop = 1;
	struct told t = { .stop = &stop };
	const struct lens_run_options before = { .stop = &stop };
	const struct lens_run_options during = { .stop = &stop,
						 .progress = on_progress,
						 .ctx = &t };
	char *data = test_tmp_path("stop.csv");
	size_t i, order[STOPPED];
	struct test_csv csv;

	failure(e, &before, LENS_ERR_INTERRUPTED);
	assert_false(anything_left(e));
	test_csv_read(ROWS, &csv);
	for (i = 0; i < STOPPED; i++)
		order[i] = i % csv.n;
	test_csv_write(&csv, order, STOPPED, data);
	test_set(e, "data.csv", data, NULL);
	for (i = 1; i <= 3; i++) {
		char threads[8];

		snprintf(threads, sizeof(threads), "%zu", i);
		test_set(e, "threads", threads, NULL);
		atomic_store(&stop, 0);
		t.progress = 0;
		failure(e, &during, LENS_ERR_INTERRUPTED);
		assert_true(t.progress >= 1);
		assert_true(t.rows < STOPPED);
		assert_false(anything_left(e));
	}
	atomic_store(&stop, 0);
	ends_well(e, LENS_RUN_DONE);
	unlink(data);
	lens_free(data);
	test_csv_release(&csv);
}

static void test_no_folder(void **state)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_experiment *e = *state;
	char *was = lens_strdup(e->output), *output = lens_path_join(was, "run.h5");

	assert_non_null(was);
	test_set(e, "output", output, NULL);
	failure(e, &none, LENS_ERR_IO);
	assert_false(anything_left(e));
	test_set(e, "output", was, NULL);
	lens_free(was);
	lens_free(output);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_already_done), TEST(test_times),
		TEST(test_mismatch),     TEST(test_other_content),
		TEST(test_overwrite),    TEST(test_foreign_file),
		TEST(test_dry_run),      TEST(test_too_little_memory),
		TEST(test_stop),         TEST(test_no_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
