/*
 * support/cases.c: the drivers of data-driven bad-input tests and of injected
 * allocation failures.
 */
#include "support/cases.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Allocations that a library bears (it retries with less) end no sweep. */
enum { ENOUGH_GOOD_RUNS = 40 };

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* Returns how many of the expected lines are missing. */
static int compare(const char *folder, const char *told)
{
	char *path = lens_path_join(folder, "expected-error"), *line, *save = NULL;
	struct lens_buf want = LENS_BUF_INIT;
	int missing = 0, lines = 0;

	assert_int_equal(lens_file_read(path, 65536, &want, NULL), LENS_OK);
	for (line = strtok_r(want.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		lines++;
		if (strstr(told, line))
			continue;
		print_error("%s: expected \"%s\", told:\n%s\n", folder, line, told);
		missing++;
	}
	lens_buf_release(&want);
	lens_free(path);
	return lines ? missing : 1;
}

void test_run_cases(const char *root, test_case_fn fn)
{
	struct dirent **entry;
	int i, n = scandir(root, &entry, visible, alphasort), bad = 0;

	assert_true(n > 0);
	for (i = 0; i < n; i++) {
		char *folder = lens_path_join(root, entry[i]->d_name);
		struct lens_buf told = LENS_BUF_INIT;

		assert_int_equal(lens_buf_append(&told, "", 0, NULL), LENS_OK);
		fn(folder, &told);
		bad += compare(folder, told.data);
		lens_buf_release(&told);
		lens_free(folder);
		free(entry[i]);
	}
	free(entry);
	assert_int_equal(bad, 0);
}

void test_alloc_failures(enum lens_status (*fn)(void *ctx), void *ctx)
{
	unsigned long k, failures = 0;
	int good = 0;

	for (k = 1; good < ENOUGH_GOOD_RUNS; k++) {
		enum lens_status st;

		lens_alloc_fail_at(k);
		st = fn(ctx);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		good = st == LENS_OK ? good + 1 : 0;
		failures += st != LENS_OK;
	}
	assert_true(failures > 0);
}

char *test_write_file(const char *name, const void *data, size_t n)
{
	const char *tmp = getenv("TMPDIR");
	struct lens_buf path = LENS_BUF_INIT;
	FILE *f;

	assert_int_equal(lens_buf_printf(&path, NULL, "%s/h5lens-test-%ld-%s",
					 tmp ? tmp : "/tmp", (long)getpid(), name),
			 LENS_OK);
	f = fopen(path.data, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	return path.data;
}
