/*
 * test_folder.c: the folder of a sweep's shards: its plan, what is cleaned away
 * and what is not; lack of memory, and of room on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/cases.h"
#include "support/place.h"
#include "support/runs.h"
#include "support/sweeps.h"
#include "sweep/sweep_private.h"

static const size_t rows[] = { 0, 5, 9, 10 }; /* three shards */

static void start(struct lens_folder *f, const char *identity)
{
	assert_int_equal(lens_folder_init(f, test_place_output, identity, 3, rows, NULL),
			 LENS_OK);
	assert_int_equal(lens_folder_make(f, NULL), LENS_OK);
}

/* --- names and the plan --------------------------------------------------------------- */

static void test_names(void **state)
{
	static const char *const pair[][2] = {
		{ "out.h5", "out.shards" },        { "a/b.c/out.hdf5", "a/b.c/out.shards" },
		{ "out.nc", "out.shards" },        { "out", "out.shards" },
		{ "a.h5/out", "a.h5/out.shards" }, { "a/.h5", "a/.h5.shards" },
		{ ".h5", ".h5.shards" },           { "a.h5.h5", "a.h5.shards" },
	};
	struct lens_folder f;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(pair) / sizeof(*pair); i++) {
		assert_int_equal(lens_folder_start(&f, pair[i][0], NULL), LENS_OK);
		assert_string_equal(f.path, pair[i][1]);
		lens_folder_release(&f);
	}
}

static void test_plan(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_folder f, g, read;
	char *name, *path;

	(void)state;
	start(&f, "{\"top_k\":1}");
	assert_int_equal(lens_folder_keep_plan(&f, NULL), LENS_OK);
	assert_int_equal(lens_folder_keep_plan(&f, NULL), LENS_OK);
	assert_int_equal(lens_folder_load(&read, test_place_output, NULL), LENS_OK);
	assert_int_equal(read.n_shards, 3);
	assert_memory_equal(read.first, rows, sizeof(rows));
	assert_string_equal(read.identity, f.identity);
	name = lens_shard_name(&read, 2);
	path = lens_shard_path(&read, 2);
	assert_string_equal(name, "out.shards/00002.h5");
	assert_string_equal(path + strlen(test_place), "/out.shards/00002.h5");
	lens_free(name);
	lens_free(path);
	lens_folder_release(&read);
	assert_true(lens_folder_is_of(test_place_output, "{\"top_k\":1}"));
	assert_false(lens_folder_is_of(test_place_output, "{\"top_k\":2}"));
	start(&g, "{\"top_k\":2}");
	assert_int_equal(lens_folder_keep_plan(&g, &err), LENS_ERR_MISMATCH);
	assert_non_null(strstr(err.text, "top_k: 1 there, 2 here"));
	lens_folder_release(&g);
	/* The same sweep, cut otherwise: of another version of the program. */
	start(&g, "{\"top_k\":1}");
	g.first[1]++;
	memset(&err, 0, sizeof(err));
	assert_int_equal(lens_folder_keep_plan(&g, &err), LENS_ERR_FORMAT);
	assert_non_null(strstr(err.text, "cuts the same sweep differently"));
	lens_folder_release(&g);
	lens_folder_release(&f);
}

static void test_in_the_way(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_folder f;

	(void)state;
	test_write_text(test_place, "out.shards", "notes");
	assert_int_equal(lens_folder_init(&f, test_place_output, "{}", 3, rows, NULL), LENS_OK);
	assert_int_equal(lens_folder_make(&f, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "is in the way"));
	lens_folder_release(&f);
}

/* --- cleaning --------------------------------------------------------------------- */

static const char *const names[] = { "00000.h5",
				     "00001.h5.part-0123abcd",
				     "00002.h5.part",
				     "notes.txt",
				     "0001.h5",
				     "00001.h5.bak",
				     "plan.json",
				     "x00001.h5",
				     "plan.json.tmp-0011aaff",
				     "mean-00001.h5",
				     "mean-00002.h5.part-0123abcd",
				     "mean.h5",
				     "mean.h5.part-0123abcd",
				     "mean-0001.h5" };
#define NAMES (sizeof(names) / sizeof(*names))

static void test_clean(void **state)
{
	static const struct {
		enum lens_clean how;
		const char *left;
		size_t n;
	} row[] = { { LENS_CLEAN_SHARE, "y.nyyyyyyynyyy", 1 },
		    { LENS_CLEAN_HALF_DONE, "y.nyyyyynynyny", 1 },
		    { LENS_CLEAN_EVERYTHING, "n.nyyynynnnnny", 2 },
		    { LENS_CLEAN_JOINED, "y.yyyyyyynnyyy", 0 } };
	struct lens_folder f;
	size_t i, k, n;
	int fd;

	(void)state;
	start(&f, "{}");
	for (i = 0; i < 4; i++) {
		char *path = lens_path_join(f.path, names[1]);

		for (k = 0; k < NAMES; k++)
			test_write_text(f.path, names[k], "");
		/* One is being written. */
		fd = open(path, O_RDWR);
		assert_int_equal(flock(fd, LOCK_EX), 0);
		assert_int_equal(lens_folder_clean(&f, row[i].how, &n, NULL), LENS_OK);
		assert_int_equal(n, row[i].n);
		for (k = 0; k < NAMES; k++)
			assert_int_equal(test_is_there(f.path, names[k]),
					 row[i].left[k] != 'n');
		close(fd);
		lens_free(path);
	}
	lens_folder_remove(&f);
	assert_true(test_is_there(f.path, "notes.txt"));
	lens_folder_release(&f);
	test_remove_tree(test_place);
	assert_int_equal(mkdir(test_place, 0777), 0);
	start(&f, "{}");
	lens_folder_remove(&f);
	assert_false(lens_folder_exists(test_place_output));
	lens_folder_release(&f);
}

/* --- memory and disk -------------------------------------------------------------- */

static enum lens_status everything(void *ctx)
{
	const struct lens_share all = { 0, 1 };
	struct lens_claim *c = NULL;
	struct lens_folder f, read;
	enum lens_status st;
	size_t n;

	(void)ctx;
	memset(&read, 0, sizeof(read));
	st = lens_folder_init(&f, test_place_output, "{\"a\":1}", 3, rows, NULL);
	if (st == LENS_OK)
		st = lens_folder_make(&f, NULL);
	if (st == LENS_OK)
		st = lens_claim_take(f.path, &all, &c, NULL);
	if (st == LENS_OK)
		st = lens_folder_keep_plan(&f, NULL);
	if (st == LENS_OK)
		st = lens_folder_clean(&f, LENS_CLEAN_HALF_DONE, &n, NULL);
	if (st == LENS_OK)
		st = lens_folder_load(&read, test_place_output, NULL);
	lens_claim_release(c);
	lens_folder_release(&read);
	lens_folder_release(&f);
	return st;
}

static void test_alloc(void **state)
{
	(void)state;
	test_alloc_failures(everything, NULL);
	assert_int_equal(test_count_files(test_place, ".run"), 0);
}

/* A plan is there whole or not at all. */
static void test_disk(void **state)
{
	struct lens_folder f;
	unsigned long k;
	size_t n;

	(void)state;
	for (k = 1;; k++) {
		enum lens_status st;

		start(&f, "{\"a\":1}");
		lens_sys_fail_at(k, ENOSPC, false);
		st = lens_folder_keep_plan(&f, NULL);
		lens_sys_fail_at(0, 0, false);
		if (test_is_there(f.path, "plan.json"))
			assert_true(lens_folder_is_of(test_place_output, "{\"a\":1}"));
		else
			assert_int_equal(st, LENS_ERR_NOSPACE);
		assert_int_equal(lens_folder_clean(&f, LENS_CLEAN_EVERYTHING, &n, NULL),
				 LENS_OK);
		lens_folder_remove(&f);
		assert_false(lens_folder_exists(test_place_output));
		lens_folder_release(&f);
		if (st == LENS_OK)
			break;
	}
	assert_true(k > 5);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, test_place_set_up, test_place_tear_down)
	const struct CMUnitTest tests[] = {
		T(test_names), T(test_plan),  T(test_in_the_way),
		T(test_clean), T(test_alloc), T(test_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
