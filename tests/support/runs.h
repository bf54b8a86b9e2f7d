/*
 * support/runs.h: whole experiments in this process: settings, a run that must
 * succeed, prompts picked out of a CSV. A call that fails fails the test.
 */
#ifndef LENS_TEST_RUNS_H
#define LENS_TEST_RUNS_H

#include "h5lens/pipeline.h"

/* Runs of this process: OpenBLAS's kernels are chosen once. From H5LENS_TEST_CPU. */
const char *test_cpu_level(void);
/* H5LENS_TEST_QUICK: less of the same, for slow tools. */
bool test_quick(void);

/* A path of this process's own below the system's temporary folder; free it. */
char *test_tmp_path(const char *name);

/* Model, data with the columns prompt, correct, incorrect, and the CPU level. */
void test_experiment(struct lens_experiment *e, const char *model, const char *csv,
		     const char *output);
/* "key", "value", …, NULL */
void test_set(struct lens_experiment *e, ...) __attribute__((sentinel));

/* Replaces the output. */
void test_run(const struct lens_experiment *e);

/* Is anything there that an output of that name was called while it was written? */
bool test_part_left(const char *output);

/* --- a CSV's records, as they stand --------------------------------------------- */

struct test_csv {
	char *header;
	char **record; /* without line ends */
	size_t n;
};
void test_csv_read(const char *path, struct test_csv *out);
void test_csv_release(struct test_csv *csv);
/* A record of its own kind: adds "prompt",answer,answer and empty columns. */
void test_csv_add(struct test_csv *csv, const char *prompt, const char *like);
/* Header and the records order[0..n). */
void test_csv_write(const struct test_csv *csv, const size_t *order, size_t n,
		    const char *path);

#endif
