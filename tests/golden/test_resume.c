/*
 * golden/test_resume.c: what an earlier run left, whole, half, harmed or of
 * another sweep: what is refused, by which name, what is repaired, and that
 * nothing else is touched.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/oldfile.h"
#include "support/runs.h"
#include "support/samefile.h"
#include "support/sweeps.h"

#define MODEL "tests/golden/data/gpt2_unscaled"
#define ROWS 12 /* three shards */

static const struct lens_run_options repair = { .repair = true }, over = { .overwrite = true };
static struct test_sweep s;
static char *good; /* a copy of the joined file's data, packed */

static int set_up(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	test_sweep_init(&s, MODEL, ROWS, true);
	test_set(&s.e, "cache.hooks", "*resid_post", NULL);
	good = lens_path_join(s.dir, "good.h5");
	test_sweep_must(&s, NULL);
	assert_int_equal(lens_pack(s.output, good, false, NULL, &err), LENS_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_sweep_release(&s);
	lens_free(good);
	return 0;
}

static void expect_good(void)
{
	test_expect_sound(s.output);
	test_same_file(good, s.output);
	assert_int_equal(test_sweep_count(&s, ".h5"), 3);
	assert_int_equal(test_sweep_count(&s, ""), 3 + 1 + 2); /* plan.json, ".", ".." */
}

static void expect_refusal(enum lens_status want, const struct lens_run_options *opt,
			   const char *said)
{
	enum lens_status st = test_sweep_run(&s, opt);

	if (st != want)
		fail_msg("status %d, not %d: '%s'", (int)st, (int)want, s.err.text);
	test_expect_said(s.err.text, said);
}

/* --- another experiment --------------------------------------------------------------- */

/* Finished, then unfinished: key: old there, new here. */
static void expect_other(const char *key, const char *was, const char *other, const char *said)
{
	test_set(&s.e, key, other, NULL);
	expect_refusal(LENS_ERR_MISMATCH, NULL, said);
	expect_refusal(LENS_ERR_MISMATCH, &repair, said);
	assert_int_equal(rename(s.output, test_sweep_path(&s, "../kept")), 0);
	expect_refusal(LENS_ERR_MISMATCH, NULL, said);
	assert_int_equal(test_sweep_task(&s, 0, 2), LENS_ERR_MISMATCH);
	assert_int_equal(rename(test_sweep_path(&s, "../kept"), s.output), 0);
	test_set(&s.e, key, was, NULL);
}

static void test_another(void **state)
{
	char *csv = lens_path_join(s.dir, "other.csv");

	(void)state;
	test_copy_file(s.data, csv);
	assert_int_equal(truncate(csv, 0), 0);
	test_copy_file(MODEL "/prompts.csv", csv);
	expect_other("top_k", "10", "7", "top_k: 10 there, 7 here");
	expect_other("cache.dtype", "f32", "f16", "cache.dtype: \"f32\" there, \"f16\" here");
	expect_other("weights.fold_ln", "true", "false", "fold_ln: true there, false here");
	expect_other("shards.prompts", "4", "5", "shards.prompts: 4 there, 5 here");
	expect_other("data.csv", s.data, csv, "data content: ");
	expect_other("model", MODEL, "tests/golden/data/gpt2_relu", "model content: ");
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	expect_good();
	lens_free(csv);
}

/* The level is part of it, where there are two. */
static void test_level(void **state)
{
	enum lens_cpu_level level;
	const char *other;

	(void)state;
	assert_int_equal(lens_cpu_detect(&level, NULL), LENS_OK);
	if (level != LENS_LEVEL_AVX512)
		skip();
	other = strcmp(test_cpu_level(), "avx2") != 0 ? "avx2" : "avx512";
	/* In a child: OpenBLAS's kernels are chosen once per process. */
	if (!fork()) {
		execl("/proc/self/exe", "test_resume", other, s.output, s.data, NULL);
		_exit(9);
	} else {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
}

/* A version up to 0.3 began it: its shards are kept, and joined with ours. */
static void test_old_digests(void **state)
{
	(void)state;
	assert_int_equal(unlink(s.output), 0);
	assert_int_equal(unlink(test_sweep_path(&s, "00001.h5")), 0);
	test_as_sha256(test_sweep_path(&s, "00000.h5"));
	test_as_sha256(test_sweep_path(&s, "00002.h5"));
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.progress.rows_kept, 8);
	expect_good();
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	/* Damage in what is kept is found. */
	assert_int_equal(unlink(s.output), 0);
	test_flip(test_sweep_path(&s, "00000.h5"));
	expect_refusal(LENS_ERR_FORMAT, NULL, "is damaged (/cache/blocks.1.hook_resid_post");
	test_sweep_must(&s, &repair);
	expect_good();
}

/* Threads, memory, paths, another folder: the same sweep. */
static void test_moved(void **state)
{
	struct lens_buf away = LENS_BUF_INIT;
	char *was = s.output;

	(void)state;
	lens_buf_printf(&away, NULL, "%s-moved", s.dir);
	test_remove_tree(away.data);
	assert_int_equal(rename(s.dir, away.data), 0);
	s.output = lens_path_join(away.data, "out.h5");
	test_set(&s.e, "output", s.output, "threads", "3", "memory", "200M", NULL);
	lens_buf_printf(&away, NULL, "/rows.csv");
	test_set(&s.e, "data.csv", away.data, NULL);
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	test_expect_sound(s.output);
	unlink(s.output);
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.progress.rows_kept, ROWS);
	away.data[strlen(away.data) - strlen("/rows.csv")] = '\0';
	assert_int_equal(rename(away.data, s.dir), 0);
	lens_free(s.output);
	s.output = was;
	expect_good();
	lens_buf_release(&away);
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* A comment in the YAML changes nothing. */
static void test_comment(void **state)
{
	static const char *const head[] = { "", "# a night's work\n", "\n\n  # and\n" };
	char *yaml = lens_path_join(s.dir, "e.yaml");
	struct lens_error err = LENS_ERROR_INIT;
	char text[1024], *cwd = realpath(MODEL, NULL);
	size_t i;

	(void)state;
	unlink(s.output);
	test_remove_tree(s.shards);
	for (i = 0; i < 3; i++) {
		lens_experiment_release(&s.e);
		snprintf(
			text, sizeof(text),
			"%smodel: %s\ndata: {csv: rows.csv, answers: [correct, incorrect]}%s\n"
			"cache: {hooks: [\"*resid_post\"]}\nshards: {prompts: 4}\noutput: out.h5\n",
			head[i], cwd, i ? " # rows" : "");
		write_text(yaml, text);
		assert_int_equal(lens_experiment_init(&s.e, &err), LENS_OK);
		if (lens_experiment_load(&s.e, yaml, &err) != LENS_OK)
			fail_msg("%s", err.text);
		test_set(&s.e, "cpu", test_cpu_level(), NULL);
		test_sweep_must(&s, NULL);
		assert_int_equal(s.result.outcome, i ? LENS_RUN_ALREADY_DONE : LENS_RUN_DONE);
	}
	free(cwd);
	lens_free(yaml);
}

/* --- harm -------------------------------------------------------------------------------- */

static void harm(size_t kind, const char *path)
{
	struct stat sb;

	assert_int_equal(stat(path, &sb), 0);
	switch (kind) {
	case 0:
		test_flip(path);
		break;
	case 1:
		assert_int_equal(truncate(path, sb.st_size / 2), 0);
		break;
	case 2:
		assert_int_equal(truncate(path, 0), 0);
		break;
	case 3:
		assert_int_equal(truncate(path, sb.st_size + 1), 0);
		break;
	case 4: /* whole, but another shard */
		test_copy_file(test_sweep_path(&s, "00000.h5"), path);
		break;
	case 5:
		write_text(path, "these are notes\n");
		break;
	default: /* whole, but all of it */
		test_copy_file(good, path);
	}
}
#define HARMS 7
#define HARM_STEP (test_quick() ? 3 : 1)

static bool untouched(const char *name, const struct stat *was)
{
	struct stat sb;

	assert_int_equal(stat(test_sweep_path(&s, name), &sb), 0);
	return sb.st_ino == was->st_ino && sb.st_mtim.tv_nsec == was->st_mtim.tv_nsec &&
	       sb.st_mtim.tv_sec == was->st_mtim.tv_sec;
}

/* Found while the sweep is unfinished, and made again alone when that is asked for. */
static void test_harmed(void **state)
{
	struct stat first, last;
	size_t kind;

	(void)state;
	assert_int_equal(stat(test_sweep_path(&s, "00000.h5"), &first), 0);
	assert_int_equal(stat(test_sweep_path(&s, "00002.h5"), &last), 0);
	for (kind = 0; kind < HARMS; kind += HARM_STEP) {
		const char *path = test_sweep_path(&s, "00001.h5");

		unlink(s.output);
		harm(kind, path);
		expect_refusal(LENS_ERR_FORMAT, NULL, "`run --repair` computes it again");
		test_expect_said(s.err.file, "00001.h5");
		assert_false(lens_file_exists(s.output));
		test_sweep_must(&s, &repair);
		test_expect_said(s.notes, "00001.h5 is damaged (");
		assert_int_equal(s.result.progress.rows_kept, 8);
		assert_true(untouched("00000.h5", &first) && untouched("00002.h5", &last));
		expect_good();
	}
}

/* Found by merge, and in a finished output by repair. */
static void test_harmed_later(void **state)
{
	struct lens_error err;
	size_t kind;

	(void)state;
	for (kind = 0; kind < HARMS; kind += HARM_STEP) {
		harm(kind, test_sweep_path(&s, "00002.h5"));
		memset(&err, 0, sizeof(err));
		assert_int_equal(lens_merge(s.output, NULL, &err), LENS_ERR_FORMAT);
		assert_true(strstr(err.file, "00002.h5") || strstr(err.text, "00002.h5"));
		test_sweep_must(&s, &repair);
		expect_good();
	}
}

static void test_other_sweeps_shard(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct test_sweep other;

	(void)state;
	test_sweep_init(&other, MODEL, ROWS, true);
	test_set(&other.e, "cache.hooks", "*resid_post", "top_k", "3", NULL);
	test_sweep_must(&other, NULL);
	test_copy_file(test_sweep_path(&other, "00001.h5"), test_sweep_path(&s, "00001.h5"));
	assert_int_equal(lens_merge(s.output, NULL, &err), LENS_ERR_MISMATCH);
	test_expect_said(err.file, "00001.h5");
	unlink(s.output);
	expect_refusal(LENS_ERR_MISMATCH, NULL, "top_k: 3 there, 10 here");
	test_sweep_must(&s, &repair);
	test_expect_said(s.notes, "of another experiment");
	expect_good();
	/* All of them another's: the plan decides whose folder it is. */
	test_copy_file(test_sweep_path(&other, "00000.h5"), test_sweep_path(&s, "00000.h5"));
	test_copy_file(test_sweep_path(&other, "00001.h5"), test_sweep_path(&s, "00001.h5"));
	test_copy_file(test_sweep_path(&other, "00002.h5"), test_sweep_path(&s, "00002.h5"));
	memset(&err, 0, sizeof(err));
	assert_int_equal(lens_merge(s.output, NULL, &err), LENS_ERR_MISMATCH);
	test_sweep_release(&other);
}

static void test_output_harmed(void **state)
{
	static const long size[] = { 4000, 20000 };
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		assert_int_equal(truncate(s.output, size[i]), 0);
		expect_refusal(LENS_ERR_FORMAT, NULL,
			       "not an output of h5lens, or a damaged one");
		test_expect_said(s.err.text, "`run --repair` makes it again");
		test_sweep_must(&s, &repair);
		test_expect_said(s.notes, "the output is damaged");
		assert_int_equal(s.result.progress.rows_kept, ROWS);
		expect_good();
	}
	write_text(s.output, "these are notes\n");
	expect_refusal(LENS_ERR_FORMAT, &repair,
		       "not an output of h5lens; choose another output");
	/* Somebody's HDF5 file can be read: it is no damaged output. */
	test_copy_file(MODEL "/truth.h5", s.output);
	expect_refusal(LENS_ERR_MISMATCH, &repair,
		       "not an output of h5lens; choose another output");
}

/* --- things missing, things left -------------------------------------------------- */

static void test_missing(void **state)
{
	(void)state;
	unlink(test_sweep_path(&s, "00001.h5"));
	expect_refusal(LENS_ERR_FORMAT, NULL, "1 of 3 shards is missing: 00001.h5");
	test_sweep_must(&s, &repair);
	expect_good();
	test_remove_tree(s.shards);
	expect_refusal(LENS_ERR_FORMAT, NULL, "3 of 3 shards are missing: 00000.h5");
	test_sweep_must(&s, &repair);
	expect_good();
	/* The plan alone can be had again. */
	unlink(test_sweep_path(&s, "plan.json"));
	test_sweep_must(&s, NULL);
	assert_int_equal(s.result.outcome, LENS_RUN_ALREADY_DONE);
	test_sweep_must(&s, &repair);
	expect_good();
}

static void test_left(void **state)
{
	(void)state;
	unlink(s.output);
	assert_int_equal(rename(test_sweep_path(&s, "00001.h5"),
				test_sweep_path(&s, "00001.h5.part")),
			 0);
	unlink(test_sweep_path(&s, "00002.h5"));
	write_text(test_sweep_path(&s, "00002.h5.part-89abcdef"), "");
	write_text(test_sweep_path(&s, "plan.json.tmp-0123abcd"), "{");
	write_text(test_sweep_path(&s, "elsewhere-1.run"), "");
	test_sweep_must(&s, NULL);
	test_expect_said(s.notes, "2 half-done shards of an earlier run were removed");
	assert_int_equal(s.result.progress.rows_kept, 4);
	unlink(test_sweep_path(&s, "elsewhere-1.run"));
	expect_good();
}

static void test_odd_plan(void **state)
{
	static const char *const plan[] = {
		"",
		"{",
		"[]",
		"{\"identity\": \"x\"}",
		"{\"identity\": \"x\", \"first\": [0, 1]}",
		"{\"identity\": \"x\", \"first\": [0, 4, 4, 12]}",
		"{\"identity\": \"x\", \"first\": [0, -4, 8, 12]}",
		"{\"identity\": 5, \"first\": [0, 4, 8, 12]}",
	};
	struct lens_error err;
	struct lens_sweep_status sweep;
	size_t i;

	(void)state;
	unlink(s.output);
	for (i = 0; i < sizeof(plan) / sizeof(*plan); i++) {
		write_text(test_sweep_path(&s, "plan.json"), plan[i]);
		assert_int_not_equal(test_sweep_run(&s, NULL), LENS_OK);
		test_expect_said(s.err.file, "plan.json");
		memset(&err, 0, sizeof(err));
		assert_int_not_equal(lens_merge(s.output, NULL, &err), LENS_OK);
		assert_int_not_equal(lens_sweep_status_read(s.output, &sweep, NULL, NULL, NULL),
				     LENS_OK);
	}
	/* Overwriting gets past it. */
	test_sweep_must(&s, &over);
	expect_good();
}

static void test_overwrite(void **state)
{
	const struct lens_share half = { 0, 2 };
	const struct lens_run_options task = { .overwrite = true, .task = &half };

	(void)state;
	/* Tasks would remove each other's shards. */
	expect_refusal(LENS_ERR_INVALID, &task, "tasks cannot overwrite");
	test_sweep_must(&s, &over);
	assert_int_equal(s.result.progress.rows_kept, 0);
	expect_good();
	/* What it began itself it goes on with. */
	unlink(s.output);
	unlink(test_sweep_path(&s, "00002.h5"));
	test_sweep_must(&s, &over);
	assert_int_equal(s.result.progress.rows_kept, 8);
	expect_good();
	harm(0, test_sweep_path(&s, "00002.h5"));
	unlink(s.output);
	test_sweep_must(&s, &over);
	expect_good();
	/* By another sweep, and by one that is one shard. */
	test_set(&s.e, "top_k", "7", NULL);
	test_sweep_must(&s, &over);
	test_expect_said(s.notes, "3 shards of an earlier run were removed");
	test_expect_sound(s.output);
	test_set(&s.e, "shards.prompts", "auto", NULL);
	test_sweep_must(&s, &over);
	assert_false(lens_file_exists(s.shards));
	test_expect_sound(s.output);
	test_set(&s.e, "shards.prompts", "4", "top_k", "10", NULL);
	test_sweep_must(&s, &over);
	expect_good();
}

/* --- status ----------------------------------------------------------------------- */

static void expect_sweep(size_t n_done, size_t rows, bool finished)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_sweep_status sweep;

	if (lens_sweep_status_read(s.output, &sweep, NULL, NULL, &err) != LENS_OK)
		fail_msg("%s", err.text);
	assert_int_equal(sweep.n_shards, 3);
	assert_int_equal(sweep.n_done, n_done);
	assert_int_equal(sweep.n_rows, ROWS);
	assert_int_equal(sweep.rows_done, rows);
	assert_int_equal(sweep.finished, finished);
	lens_sweep_status_release(&sweep);
}

static void test_status(void **state)
{
	struct lens_sweep_status sweep;

	(void)state;
	expect_sweep(3, 12, true);
	unlink(test_sweep_path(&s, "00001.h5"));
	expect_sweep(2, 8, true);
	unlink(s.output);
	expect_sweep(2, 8, false);
	test_sweep_clear(&s);
	assert_int_equal(lens_sweep_status_read(s.output, &sweep, NULL, NULL, NULL),
			 LENS_ERR_IO);
	test_sweep_must(&s, NULL);
	test_remove_tree(s.shards);
	expect_sweep(0, 0, true);
}

/* The run of test_level, in a process of its own. */
static int other_level(const char *level, const char *output, const char *data)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result r;
	struct lens_experiment e;

	test_experiment(&e, MODEL, data, output);
	test_set(&e, "cache.hooks", "*resid_post", "shards.prompts", "4", "cpu", level, NULL);
	lens_run(&e, &none, &r, &err);
	lens_experiment_release(&e);
	return err.code != LENS_ERR_MISMATCH || !strstr(err.text, "cpu level: ");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_another, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_level, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_moved, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_old_digests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_comment, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_harmed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_harmed_later, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_sweeps_shard, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_output_harmed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_missing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_left, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_odd_plan, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_overwrite, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_status, set_up, tear_down),
	};

	if (argc == 4)
		return other_level(argv[1], argv[2], argv[3]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
