/*
 * support/sweeps.h: sweeps in shards in this process, each in a temporary
 * folder of its own: runs that may fail, shards that are harmed, notes.
 */
#ifndef LENS_TEST_SWEEPS_H
#define LENS_TEST_SWEEPS_H

#include "h5lens/pipeline.h"

struct test_sweep {
	struct lens_experiment e;
	char *dir, *data, *output, *shards; /* …/out.h5, …/out.shards */
	/* of the last run */
	struct lens_run_result result;
	struct lens_error err;
	char notes[4096]; /* notes and warnings, a line each */
};

/* rows prompts of a golden model's CSV, its records over and over; one file, or shards of 4. */
void test_sweep_init(struct test_sweep *s, const char *model, size_t rows, bool sharded);
/* Removes the folder and all that is in it. */
void test_sweep_release(struct test_sweep *s);

/* opt may be NULL. */
enum lens_status test_sweep_run(struct test_sweep *s, const struct lens_run_options *opt);
/* Must succeed. */
void test_sweep_must(struct test_sweep *s, const struct lens_run_options *opt);
enum lens_status test_sweep_task(struct test_sweep *s, size_t task, size_t n_tasks);
/* Stops before more than so many rows are done. */
void test_sweep_stop_after(struct test_sweep *s, size_t rows);

/* ".../out.shards/<name>", in a static buffer of four. */
const char *test_sweep_path(const struct test_sweep *s, const char *name);
/* Files in out.shards that a name ends like this. */
size_t test_sweep_count(const struct test_sweep *s, const char *ending);
/* Files there that are being written, or were. */
size_t test_sweep_parts(const struct test_sweep *s);
/* Removes out.h5 and out.shards. */
void test_sweep_clear(const struct test_sweep *s);
void test_copy_file(const char *from, const char *to);
void test_remove_tree(const char *path);

/* One bit of the file's cache of blocks.1.hook_resid_post is another one. */
void test_flip(const char *path);

/* Every digest of the file is right. */
void test_expect_sound(const char *file);
/* Does the error, or do the notes, say it? */
void test_expect_said(const char *text, const char *what);

#endif
