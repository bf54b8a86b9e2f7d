/*
 * support/cases.h: bad inputs as folders. Each folder of
 * tests/invalid/<kind>/ has an input and expected-error: lines, each of which
 * the error must contain.
 */
#ifndef LENS_TEST_CASES_H
#define LENS_TEST_CASES_H

#include "h5lens/core.h"

/* Reads the input of one folder and appends what the user would be told. */
typedef void (*test_case_fn)(const char *folder, struct lens_buf *told);

/* Runs every folder; fails the test when one is not told what it expects. */
void test_run_cases(const char *root, test_case_fn fn);

/*
 * Makes each allocation of fn fail in turn. fn must return LENS_OK or
 * LENS_ERR_NOMEM, and fail at least once.
 */
void test_alloc_failures(enum lens_status (*fn)(void *ctx), void *ctx);

/* Writes a file below the system's temporary folder; free the path. */
char *test_write_file(const char *name, const void *data, size_t n);

#endif
