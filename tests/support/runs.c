/*
 * support/runs.c: whole experiments in this process, and CSV files made of
 * another's records.
 */
#include "support/runs.h"

#include <stdarg.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

const char *test_cpu_level(void)
{
	const char *level = getenv("H5LENS_TEST_CPU");

	return level && strcmp(level, "any") != 0 ? level : "auto";
}

bool test_quick(void)
{
	return getenv("H5LENS_TEST_QUICK") != NULL;
}

char *test_tmp_path(const char *name)
{
	const char *tmp = getenv("TMPDIR");
	struct lens_buf path = LENS_BUF_INIT;

	assert_int_equal(lens_buf_printf(&path, NULL, "%s/h5lens-test-%ld-%s",
					 tmp ? tmp : "/tmp", (long)getpid(), name),
			 LENS_OK);
	return path.data;
}

static void must(enum lens_status st, const struct lens_error *err)
{
	char text[2200];

	if (st != LENS_OK)
		fail_msg("%s", lens_error_format(err, text, sizeof(text)));
}

void test_experiment(struct lens_experiment *e, const char *model, const char *csv,
		     const char *output)
{
	struct lens_error err = LENS_ERROR_INIT;

	must(lens_experiment_init(e, &err), &err);
	test_set(e, "model", model, "data.csv", csv, "data.answers", "correct,incorrect",
		 "output", output, "cpu", test_cpu_level(), "threads", "1", NULL);
}

void test_set(struct lens_experiment *e, ...)
{
	struct lens_error err = LENS_ERROR_INIT;
	const char *key;
	va_list args;

	va_start(args, e);
	while ((key = va_arg(args, const char *)))
		must(lens_experiment_set(e, key, va_arg(args, const char *), &err), &err);
	va_end(args);
}

void test_run(const struct lens_experiment *e)
{
	const struct lens_run_options options = { .overwrite = true };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;

	must(lens_experiment_check(e, &err), &err);
	must(lens_run(e, &options, &result, &err), &err);
	assert_int_equal(result.outcome, LENS_RUN_DONE);
}

/* Allocates nothing with lens_alloc: the failing one may be still to come. */
bool test_part_left(const char *output)
{
	const char *slash = strrchr(output, '/'), *base = slash + 1;
	char dir[512], part[256];
	struct dirent *e;
	bool left = false;
	DIR *d;

	assert_non_null(slash);
	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - output), output);
	snprintf(part, sizeof(part), "%s.part", base);
	d = opendir(dir);
	while (d && (e = readdir(d)) != NULL)
		left |= !strncmp(e->d_name, part, strlen(part));
	if (d)
		closedir(d);
	return left;
}

/* --- CSV ------------------------------------------------------------------------- */

static char *copy(const char *s, size_t n)
{
	char *t = lens_calloc(n + 1, 1);

	assert_non_null(t);
	memcpy(t, s, n);
	return t;
}

static void add_record(struct test_csv *csv, char *record)
{
	csv->record = lens_realloc(csv->record, csv->n + 1, sizeof(*csv->record));
	assert_non_null(csv->record);
	csv->record[csv->n++] = record;
}

void test_csv_read(const char *path, struct test_csv *out)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t i, start = 0;
	bool quoted = false;

	*out = (struct test_csv){ 0 };
	assert_int_equal(lens_file_read(path, (size_t)1 << 24, &b, NULL), LENS_OK);
	for (i = 0; i < b.len; i++) {
		quoted ^= b.data[i] == '"';
		if (quoted || b.data[i] != '\n')
			continue;
		if (!out->header)
			out->header = copy(b.data, i);
		else
			add_record(out, copy(b.data + start, i - start));
		start = i + 1;
	}
	assert_int_equal(start, b.len);
	lens_buf_release(&b);
}

void test_csv_release(struct test_csv *csv)
{
	while (csv->n)
		lens_free(csv->record[--csv->n]);
	lens_free(csv->record);
	lens_free(csv->header);
}

void test_csv_add(struct test_csv *csv, const char *prompt, const char *like)
{
	struct lens_buf b = LENS_BUF_INIT;
	const char *c;

	assert_int_equal(lens_buf_printf(&b, NULL, "\"%s\",%s,%s", prompt, like, like),
			 LENS_OK);
	/* prompt, correct and incorrect are a file's first columns. */
	assert_int_equal(strncmp(csv->header, "prompt,correct,incorrect", 24), 0);
	for (c = csv->header + 24; *c; c++) {
		if (*c == ',')
			assert_int_equal(lens_buf_append(&b, ",", 1, NULL), LENS_OK);
	}
	add_record(csv, b.data);
}

void test_csv_write(const struct test_csv *csv, const size_t *order, size_t n, const char *path)
{
	FILE *f = fopen(path, "wb");
	size_t i;

	assert_non_null(f);
	fprintf(f, "%s\n", csv->header);
	for (i = 0; i < n; i++)
		fprintf(f, "%s\n", csv->record[order[i]]);
	assert_int_equal(fclose(f), 0);
}
