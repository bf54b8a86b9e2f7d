/*
 * test_sweep.c: what a run is told of its output before it computes anything:
 * nothing there, begun, begun by others, in the way; and what it leaves behind when
 * it ends without a shard. Shards are empty files here: golden/test_resume.c and
 * golden/test_shards.c have real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/cases.h"
#include "support/place.h"
#include "support/runs.h"
#include "support/sweeps.h"
#include "sweep/sweep_private.h"

#define IDENTITY "{\"schema\":2,\"top_k\":1}"

static const size_t first[] = { 0, 5, 9, 10 }; /* three shards */
static const struct lens_share second = { 1, 2 };
static char *shards;
static char notes[1024];

static int set_up(void **state)
{
	test_place_set_up(state);
	shards = lens_path_join(test_place, "out.shards");
	notes[0] = '\0';
	return 0;
}

static int tear_down(void **state)
{
	lens_free(shards);
	return test_place_tear_down(state);
}

static void note(void *ctx, const char *text)
{
	(void)ctx;
	snprintf(notes + strlen(notes), sizeof(notes) - strlen(notes), "%s\n", text);
}

static bool there(const char *name)
{
	return test_is_there(shards, name);
}

/* The plan of a sweep, as a run that was stopped leaves it. */
static void write_plan(const char *identity)
{
	struct lens_folder f;

	assert_int_equal(lens_folder_init(&f, test_place_output, identity, 3, first, NULL),
			 LENS_OK);
	assert_int_equal(lens_folder_make(&f, NULL), LENS_OK);
	assert_int_equal(lens_folder_keep_plan(&f, NULL), LENS_OK);
	lens_folder_release(&f);
}

/* A run somewhere else that has all shards. */
static void write_rival(void)
{
	test_write_text(
		shards, "nowhere.example-77.run",
		"{\"host\": \"nowhere.example\", \"pid\": 77, \"task\": 0, \"n_tasks\": 1}");
}

struct attempt {
	struct lens_sweep_options options;
	struct lens_sweep *sweep;
	struct lens_progress progress;
	enum lens_sweep_state state;
	struct lens_error err;
};

static enum lens_status look(struct attempt *a)
{
	a->options.note = note;
	LENS_TRY(lens_sweep_create(test_place_output, &a->options, &a->sweep, &a->err));
	return lens_sweep_look(a->sweep, IDENTITY, &a->state, &a->err);
}

static enum lens_status begin(struct attempt *a)
{
	LENS_TRY(look(a));
	return lens_sweep_open(a->sweep, 3, first, &a->progress, &a->state, &a->err);
}

static void expect_refusal(enum lens_status want, const char *text)
{
	struct attempt a = { .state = LENS_SWEEP_OPEN };

	assert_int_equal(begin(&a), want);
	test_expect_said(a.err.text, text);
	lens_sweep_close(a.sweep);
}

/* A look changes nothing; a run that ends without a shard leaves nothing. */
static void test_fresh(void **state)
{
	struct attempt a = { .state = LENS_SWEEP_FINISHED };
	char *path;
	size_t i;

	(void)state;
	assert_int_equal(look(&a), LENS_OK);
	assert_int_equal(a.state, LENS_SWEEP_OPEN);
	assert_string_equal(lens_sweep_identity(a.sweep), IDENTITY);
	assert_false(lens_file_exists(shards));
	assert_int_equal(lens_sweep_open(a.sweep, 3, first, &a.progress, &a.state, NULL),
			 LENS_OK);
	assert_int_equal(a.state, LENS_SWEEP_OPEN);
	assert_int_equal(a.progress.rows_total, 10);
	assert_int_equal(a.progress.rows_done, 0);
	assert_int_equal(a.progress.n_shards, 3);
	for (i = 0; i < 3; i++)
		assert_true(lens_sweep_is_missing(a.sweep, i));
	lens_sweep_mark_done(a.sweep, 1);
	assert_false(lens_sweep_is_missing(a.sweep, 1));
	assert_int_equal(lens_sweep_count_done(a.sweep), 1);
	assert_int_equal(lens_sweep_count_kept(a.sweep), 0); /* no file of that name */
	path = lens_sweep_shard_path(a.sweep, 1);
	assert_string_equal(path + strlen(test_place), "/out.shards/00001.h5");
	lens_free(path);
	assert_true(there("plan.json"));
	lens_sweep_close(a.sweep);
	assert_false(lens_file_exists(shards));
	assert_string_equal(notes, "");
}

/* A task keeps the plan for the others, and leaves their shards alone. */
static void test_task(void **state)
{
	struct attempt a = { .options = { .task = &second } };

	(void)state;
	write_plan(IDENTITY);
	test_write_text(shards, "00000.h5.part-0123abcd", "");
	test_write_text(shards, "00001.h5.part-0123abcd", "");
	assert_int_equal(begin(&a), LENS_OK);
	assert_string_equal(notes, "1 half-done shard of an earlier run was removed\n");
	assert_int_equal(a.progress.rows_total, 4);
	assert_false(lens_sweep_is_missing(a.sweep, 0));
	assert_true(lens_sweep_is_missing(a.sweep, 1));
	assert_false(lens_sweep_is_missing(a.sweep, 2));
	lens_sweep_close(a.sweep);
	assert_true(there("plan.json"));
	assert_true(there("00000.h5.part-0123abcd"));
	assert_false(there("00001.h5.part-0123abcd"));
}

/* Others join what is done: nothing is left for a task that comes late. */
static void test_late(void **state)
{
	struct attempt a = { .options = { .task = &second } };

	(void)state;
	write_plan(IDENTITY);
	write_rival();
	expect_refusal(LENS_ERR_BUSY, "process 77 on nowhere.example");
	test_write_text(shards, "00000.h5", "");
	test_write_text(shards, "00001.h5", "");
	test_write_text(shards, "00002.h5", "");
	assert_int_equal(begin(&a), LENS_OK);
	assert_int_equal(a.state, LENS_SWEEP_SHARE_DONE);
	assert_int_equal(a.progress.rows_total, 4);
	assert_int_equal(a.progress.rows_kept, 4);
	assert_int_equal(a.progress.rows_done, 4);
	assert_int_equal(lens_sweep_count_kept(a.sweep), 3);
	lens_sweep_close(a.sweep);
	expect_refusal(LENS_ERR_BUSY, "process 77 on nowhere.example"); /* no task */
	assert_true(there("plan.json"));
}

static void test_in_the_way(void **state)
{
	struct attempt a = { .options = { .task = &second } };

	(void)state;
	test_write_text(test_place, "out.h5", "notes");
	expect_refusal(LENS_ERR_FORMAT, "is not an output of h5lens; choose another output");
	unlink(test_place_output);
	write_plan("{\"schema\":2,\"top_k\":2}");
	test_write_text(shards, "00000.h5", "");
	expect_refusal(LENS_ERR_MISMATCH,
		       "(top_k: 2 there, 1 here); choose another output, or --overwrite");
	assert_int_equal(begin(&a), LENS_ERR_MISMATCH);
	assert_null(strstr(a.err.text, "--overwrite")); /* tasks cannot */
	lens_sweep_close(a.sweep);
	a = (struct attempt){ .options = { .task = &second, .overwrite = true } };
	assert_int_equal(begin(&a), LENS_ERR_INVALID);
	assert_null(a.sweep);
	test_expect_said(a.err.text, "tasks cannot overwrite");
	a = (struct attempt){ .options = { .overwrite = true } };
	assert_int_equal(begin(&a), LENS_OK);
	assert_string_equal(notes, "1 shard of an earlier run was removed (--overwrite)\n");
	lens_sweep_close(a.sweep);
	assert_false(lens_file_exists(shards));
}

/* Another's plan of which nothing was made is not in the way. */
static void test_idle_plan(void **state)
{
	struct attempt a = { .state = LENS_SWEEP_OPEN };

	(void)state;
	write_plan("{\"schema\":2,\"top_k\":2}");
	assert_int_equal(begin(&a), LENS_OK);
	assert_true(lens_folder_is_of(test_place_output, IDENTITY));
	lens_sweep_close(a.sweep);
	assert_false(lens_file_exists(shards));
}

static void test_damaged_plan(void **state)
{
	struct attempt a = { .options = { .repair = true } };

	(void)state;
	write_plan(IDENTITY);
	test_write_text(shards, "plan.json", "{");
	expect_refusal(LENS_ERR_FORMAT, "`run --repair` writes it anew");
	assert_int_equal(begin(&a), LENS_OK);
	assert_string_equal(notes, "the plan is damaged: it is written anew\n");
	assert_true(lens_folder_is_of(test_place_output, IDENTITY));
	lens_sweep_close(a.sweep);
}

/* An earlier version's sweep goes on in its own words, unless its files are others. */
static void test_versions(void **state)
{
	struct attempt a = { .state = LENS_SWEEP_OPEN };
	static const char numbered[] = "{\"numerics\":1,\"schema\":2,\"top_k\":1}";

	(void)state;
	write_plan(numbered);
	assert_int_equal(begin(&a), LENS_OK);
	assert_string_equal(lens_sweep_identity(a.sweep), numbered);
	lens_sweep_close(a.sweep);
	write_plan("{\"schema\":1,\"top_k\":1}");
	expect_refusal(LENS_ERR_MISMATCH,
		       "was begun by another version of h5lens (its files have schema 1, this "
		       "one's 2): finish it with that version, or --overwrite");
}

static enum lens_status everything(void *ctx)
{
	struct attempt a = { .options = { .task = &second } };
	enum lens_status st = begin(&a);

	(void)ctx;
	lens_sweep_close(a.sweep);
	return st;
}

static void test_alloc(void **state)
{
	(void)state;
	test_alloc_failures(everything, NULL);
	write_plan(IDENTITY);
	test_alloc_failures(everything, NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_fresh),     T(test_task),         T(test_late),     T(test_in_the_way),
		T(test_idle_plan), T(test_damaged_plan), T(test_versions), T(test_alloc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
