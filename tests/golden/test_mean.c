/*
 * golden/test_mean.c: ablate.value: mean in whole sweeps. The means are those of the
 * activations that the same run stores; runs on any number of threads, in tasks, stopped
 * or harmed end with the same bits, and tell why when they cannot go on yet. Once per CPU
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
#include "support/numbers.h"
#include "support/runs.h"
#include "support/samefile.h"
#include "support/sweeps.h"

#define MODEL "tests/golden/data/gpt2_gelu"
#define ROWS 22 /* shards of 4, 4, 4, 4, 4, 2 */
#define SHARDS 6
#define HOOKS "*hook_z,*hook_attn_out,*hook_mlp_out"

static const struct lens_run_options repair = { .repair = true }, over = { .overwrite = true };
static struct test_sweep s, good;

static void set(const char *key, const char *value)
{
	test_set(&s.e, key, value, NULL);
	test_set(&good.e, key, value, NULL);
}

static int set_up(void **state)
{
	(void)state;
	test_sweep_init(&s, MODEL, ROWS, true);
	test_sweep_init(&good, MODEL, ROWS, true);
	set("cache.hooks", HOOKS);
	set("ablate.grids", "attn_head_out_all_pos,attn_out,mlp_out");
	set("ablate.value", "mean");
	test_sweep_must(&good, NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_sweep_release(&s);
	test_sweep_release(&good);
	return 0;
}

static char *attr(const char *file, const char *name)
{
	struct test_h5 *f = test_h5_open(file);
	char *text = test_h5_attr_str(f, name);

	test_h5_close(f);
	return text;
}

static void expect_attr(const char *file, const char *name, const char *value)
{
	char *text = attr(file, name);

	assert_string_equal(text, value);
	free(text);
}

/* As an undisturbed run, with the same means and nothing else left. */
static void expect_good(void)
{
	char *sha = attr(test_sweep_path(&good, "mean.h5"), "ablate_mean_sha256");

	test_expect_sound(s.output);
	assert_true(test_same_file(good.output, s.output) > 10);
	test_expect_sound(test_sweep_path(&s, "mean.h5"));
	test_same_file(test_sweep_path(&good, "mean.h5"), test_sweep_path(&s, "mean.h5"));
	expect_attr(test_sweep_path(&s, "mean.h5"), "ablate_mean_sha256", sha);
	expect_attr(test_sweep_path(&s, "00002.h5"), "ablate_mean_sha256", sha);
	expect_attr(s.output, "ablate_mean_sha256", sha);
	assert_int_equal(test_sweep_count(&s, ".h5"), SHARDS + 1);
	assert_int_equal(test_sweep_count(&s, ""), SHARDS + 4); /* plan.json, ".", ".." */
	free(sha);
}

/* --- are they the means? ------------------------------------------------------------------ */

/* Over rows of [prompt, pos, width]: NaN past a prompt's end. pos: SIZE_MAX for all. */
static double naive(const struct test_array *a, size_t width, size_t pos, size_t k,
		    double *largest)
{
	size_t i, p, n = 0;
	double sum = 0;

	for (i = 0; i < a->extent[0]; i++) {
		for (p = 0; p < a->extent[1]; p++) {
			double x = a->f64[(i * a->extent[1] + p) * width + k];

			if ((pos != SIZE_MAX && p != pos) || isnan(x))
				continue;
			sum += x;
			*largest = fmax(*largest, fabs(x));
			n++;
		}
	}
	return n ? sum / (double)n : 0;
}

/*
 * Both are sums of at most a few hundred numbers in float64, in two groupings, rounded to
 * float32 once: half a unit of the mean, and 2^-53 · n of the largest number.
 */
static void check_hook(const struct test_h5 *run, const struct test_h5 *mean, const char *hook)
{
	struct test_array x, m;
	char path[128];
	size_t i, k, width, rows;

	snprintf(path, sizeof(path), "/cache/%s", hook);
	test_h5_f64(run, path, &x);
	snprintf(path, sizeof(path), "/mean/%s", hook);
	test_h5_f64(mean, path, &m);
	width = x.n / x.extent[0] / x.extent[1];
	rows = m.n / width;
	assert_true(rows == 1 || rows == x.extent[1]);
	for (i = 0; i < rows; i++) {
		for (k = 0; k < width; k++) {
			double most = 0,
			       want = naive(&x, width, rows == 1 ? SIZE_MAX : i, k, &most);

			test_near(m.f64[i * width + k], want,
				  TEST_U * fabs(want) + 512 * 0x1p-53 * most, hook, (double)k);
		}
	}
	test_array_release(&x);
	test_array_release(&m);
}

static void test_values(void **state)
{
	static const char *const over_what[] = { "prompts", "tokens" };
	static const char *const hooks[] = { "blocks.0.attn.hook_z", "blocks.1.hook_attn_out",
					     "blocks.1.hook_mlp_out" };
	size_t i, k;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct test_h5 *run, *mean;

		test_set(&s.e, "ablate.mean_over", over_what[i], NULL);
		test_sweep_clear(&s);
		test_sweep_must(&s, NULL);
		run = test_h5_open(s.output);
		mean = test_h5_open(test_sweep_path(&s, "mean.h5"));
		for (k = 0; k < 3; k++)
			check_hook(run, mean, hooks[k]);
		assert_int_equal(test_h5_has(mean, "/pos"), i == 0);
		test_h5_close(run);
		test_h5_close(mean);
	}
}

/* One shard keeps its means to itself; its batches are added in their order. */
static void test_one_shard(void **state)
{
	static const char *const threads[] = { "1", "2", "3", "3" };
	char *sha, *first = NULL;
	struct test_sweep one;
	size_t i;

	(void)state;
	test_sweep_init(&one, MODEL, 200, false);
	test_set(&one.e, "ablate.grids", "mlp_out", "ablate.value", "mean", "cache.hooks",
		 "none", NULL);
	for (i = 0; i < 4; i++) {
		test_set(&one.e, "threads", threads[i], NULL);
		test_sweep_must(&one, &over);
		assert_false(lens_file_exists(one.shards));
		test_expect_sound(one.output);
		sha = attr(one.output, "ablate_mean_sha256");
		if (first)
			assert_string_equal(sha, first);
		free(first);
		first = sha;
	}
	free(first);
	test_sweep_release(&one);
}

/* --- the same bits ------------------------------------------------------------------------ */

static void test_threads(void **state)
{
	static const char *const how[][2] = { { "threads", "1" },
					      { "threads", "3" },
					      { "memory", "24M" } };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		test_sweep_clear(&s);
		test_set(&s.e, how[i][0], how[i][1], NULL);
		test_sweep_must(&s, NULL);
		expect_good();
	}
}

/* Stopped before the first sum: nothing is kept, and nothing in the way. */
static void test_stopped(void **state)
{
	(void)state;
	test_sweep_stop_after(&s, 0);
	test_expect_said(s.err.text, "stopped by a signal in the first pass");
	test_expect_said(s.err.text, "0 of 6 shards are kept, and the same command goes on");
	assert_false(lens_file_exists(s.shards));
	test_sweep_stop_after(&s, 4);
	assert_true(lens_file_exists(test_sweep_path(&s, "mean.h5")));
	test_sweep_must(&s, NULL);
	assert_null(strstr(s.notes, "a first pass"));
	expect_good();
}

/* --- tasks ------------------------------------------------------------------------ */

static void waits(size_t task, size_t missing)
{
	char said[64];

	assert_int_equal(test_sweep_task(&s, task - 1, 3), LENS_ERR_UNFINISHED);
	snprintf(said, sizeof(said), "sums of all 6 shards, and those of %zu,", missing);
	test_expect_said(s.err.text, said);
	test_expect_said(s.err.text, "the same command goes on later");
	assert_false(lens_file_exists(test_sweep_path(&s, "mean.h5")));
}

static void ends_as(size_t task, enum lens_run_outcome outcome)
{
	if (test_sweep_task(&s, task - 1, 3) != LENS_OK)
		fail_msg("task %zu/3: %s", task, s.err.text);
	assert_int_equal(s.result.outcome, outcome);
}

static void test_tasks(void **state)
{
	(void)state;
	waits(1, 4);
	waits(1, 4);
	waits(2, 2);
	ends_as(3, LENS_RUN_SHARE_DONE);
	assert_int_equal(test_sweep_count(&s, ".h5"), 2 + SHARDS + 1);
	ends_as(1, LENS_RUN_SHARE_DONE);
	ends_as(2, LENS_RUN_LAST_DONE);
	expect_good();
	/* The rest by everybody, whose sums are there in part. */
	test_sweep_clear(&s);
	waits(2, 4);
	test_sweep_must(&s, NULL);
	expect_good();
	/* Merged by hand, nothing is left either. */
	unlink(s.output);
	assert_int_equal(lens_merge(s.output, NULL, NULL), LENS_OK);
	expect_good();
}

/* --- harm ------------------------------------------------------------------------- */

static void cut(const char *name)
{
	struct stat sb;

	assert_int_equal(stat(test_sweep_path(&s, name), &sb), 0);
	assert_int_equal(truncate(test_sweep_path(&s, name), sb.st_size / 2), 0);
}

/* A bit of the first sum or mean of a hook point is another one. */
static void flip(const char *name, const char *dataset)
{
	struct test_h5 *h = test_h5_open(test_sweep_path(&s, name));
	struct lens_buf b = LENS_BUF_INIT;
	struct test_array a;
	char *at;
	FILE *f;

	test_h5_bytes(h, dataset, &a);
	test_h5_close(h);
	assert_int_equal(lens_file_read(test_sweep_path(&s, name), (size_t)1 << 26, &b, NULL),
			 LENS_OK);
	at = memmem(b.data, b.len, a.bytes, 32);
	assert_non_null(at);
	*at ^= 1;
	f = fopen(test_sweep_path(&s, name), "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	test_array_release(&a);
	lens_buf_release(&b);
}

static void expect_damage(const char *name)
{
	assert_int_equal(test_sweep_run(&s, NULL), LENS_ERR_FORMAT);
	test_expect_said(s.err.file, name);
	test_expect_said(s.err.text, "is damaged (");
	test_expect_said(s.err.text, "`run --repair` computes it again");
	test_sweep_must(&s, &repair);
	test_expect_said(s.notes, "is damaged (");
	expect_good();
}

/* The means, when a shard needs them. */
static void test_harmed_mean(void **state)
{
	size_t kind;

	(void)state;
	test_sweep_must(&s, NULL);
	for (kind = 0; kind < 3; kind++) {
		unlink(s.output);
		unlink(test_sweep_path(&s, "00003.h5"));
		if (kind == 0)
			cut("mean.h5");
		else if (kind == 1)
			flip("mean.h5", "/mean/blocks.1.hook_mlp_out");
		else
			test_copy_file(test_sweep_path(&s, "00001.h5"),
				       test_sweep_path(&s, "mean.h5"));
		expect_damage("mean.h5");
	}
	/* Gone, it is made again. */
	unlink(test_sweep_path(&s, "mean.h5"));
	unlink(test_sweep_path(&s, "00000.h5"));
	test_sweep_must(&s, &repair);
	expect_good();
}

static void test_harmed_sums(void **state)
{
	size_t kind;

	(void)state;
	for (kind = 0; kind < 3; kind++) {
		test_sweep_clear(&s);
		waits(2, 4); /* 1 and 4 */
		if (kind == 0)
			cut("mean-00004.h5");
		else if (kind == 1)
			flip("mean-00004.h5", "/sums/blocks.1.hook_mlp_out");
		else
			test_copy_file(test_sweep_path(&s, "mean-00001.h5"),
				       test_sweep_path(&s, "mean-00004.h5"));
		expect_damage("mean-00004.h5");
	}
	/* Another task's: it is not this one's to make. */
	test_sweep_clear(&s);
	waits(2, 4);
	waits(3, 2);
	cut("mean-00004.h5");
	assert_int_equal(test_sweep_task(&s, 0, 3), LENS_ERR_FORMAT);
	test_expect_said(s.err.file, "mean-00004.h5");
}

/* Sums without a shard are something that was made, like shards. */
static void test_another(void **state)
{
	(void)state;
	waits(2, 4);
	test_set(&s.e, "ablate.mean_over", "tokens", NULL);
	assert_int_equal(test_sweep_run(&s, NULL), LENS_ERR_MISMATCH);
	test_expect_said(s.err.text, "ablate.mean_over: \"prompts\" there, \"tokens\" here");
	test_set(&s.e, "ablate.mean_over", "prompts", NULL);
	test_copy_file(test_sweep_path(&good, "mean.h5"), test_sweep_path(&s, "mean.h5"));
	test_sweep_must(&s, NULL);
	expect_good();
	test_sweep_must(&s, &over);
	expect_good();
	test_set(&s.e, "ablate.value", "zero", NULL);
	test_sweep_must(&s, &over);
	assert_false(lens_file_exists(test_sweep_path(&s, "mean.h5")));
	assert_int_equal(test_sweep_count(&s, ".h5"), SHARDS);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_values), T(test_one_shard),   T(test_threads),     T(test_stopped),
		T(test_tasks),  T(test_harmed_mean), T(test_harmed_sums), T(test_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
