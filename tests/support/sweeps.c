/*
 * support/sweeps.c: sweeps in shards in this process.
 */
#include "support/sweeps.h"
#include "support/place.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/h5file.h"
#include "support/runs.h"

#define MOST_ROWS 256

static void write_rows(const char *model, size_t rows, const char *path)
{
	size_t i, order[MOST_ROWS];
	struct test_csv csv;
	char source[256];

	assert_true(rows <= MOST_ROWS);
	snprintf(source, sizeof(source), "%s/prompts.csv", model);
	test_csv_read(source, &csv);
	for (i = 0; i < rows; i++)
		order[i] = (i + i / csv.n) % csv.n;
	test_csv_write(&csv, order, rows, path);
	test_csv_release(&csv);
}

void test_sweep_init(struct test_sweep *s, const char *model, size_t rows, bool sharded)
{
	static unsigned turn;
	char name[32];

	memset(s, 0, sizeof(*s));
	snprintf(name, sizeof(name), "sweep-%u", turn++);
	s->dir = test_tmp_path(name);
	test_remove_tree(s->dir);
	assert_int_equal(mkdir(s->dir, 0777), 0);
	s->data = lens_path_join(s->dir, "rows.csv");
	s->output = lens_path_join(s->dir, "out.h5");
	s->shards = lens_path_join(s->dir, "out.shards");
	write_rows(model, rows, s->data);
	test_experiment(&s->e, model, s->data, s->output);
	if (sharded)
		test_set(&s->e, "shards.prompts", "4", NULL);
}

void test_sweep_release(struct test_sweep *s)
{
	test_remove_tree(s->dir);
	lens_experiment_release(&s->e);
	lens_free(s->dir);
	lens_free(s->data);
	lens_free(s->output);
	lens_free(s->shards);
}

/* --- runs ------------------------------------------------------------------------ */

static void keep(struct test_sweep *s, const char *kind, const char *text)
{
	size_t n = strlen(s->notes);

	snprintf(s->notes + n, sizeof(s->notes) - n, "%s%s\n", kind, text);
}

static void keep_note(void *ctx, const char *text)
{
	keep(ctx, "", text);
}

static void keep_warning(void *ctx, const char *text)
{
	keep(ctx, "warning: ", text);
}

enum lens_status test_sweep_run(struct test_sweep *s, const struct lens_run_options *opt)
{
	struct lens_run_options o = opt ? *opt : (struct lens_run_options){ .stop = NULL };
	enum lens_status st;

	o.note = keep_note;
	o.warn = keep_warning;
	o.ctx = s;
	s->notes[0] = '\0';
	memset(&s->err, 0, sizeof(s->err));
	st = lens_run(&s->e, &o, &s->result, &s->err);
	if (st != s->err.code || (st != LENS_OK && !*s->err.text))
		fail_msg("status %d, but the error is %d, '%s'", (int)st, (int)s->err.code,
			 s->err.text);
	return st;
}

void test_sweep_must(struct test_sweep *s, const struct lens_run_options *opt)
{
	if (test_sweep_run(s, opt) != LENS_OK)
		fail_msg("%s: %s", s->err.file, s->err.text);
}

enum lens_status test_sweep_task(struct test_sweep *s, size_t task, size_t n_tasks)
{
	const struct lens_share share = { task, n_tasks };
	const struct lens_run_options opt = { .task = &share };

	return test_sweep_run(s, &opt);
}

struct stopping {
	struct test_sweep *sweep;
	atomic_int stop;
	size_t rows;
};
static struct stopping stopping;

static void stop_when_enough(void *ctx, const struct lens_progress *p)
{
	(void)ctx;
	if (p->rows_done >= stopping.rows)
		atomic_store(&stopping.stop, 1);
}

static void stop_when_planned(void *ctx, const struct lens_plan_summary *s)
{
	(void)ctx;
	(void)s;
	atomic_store(&stopping.stop, stopping.rows == 0);
}

void test_sweep_stop_after(struct test_sweep *s, size_t rows)
{
	const struct lens_run_options opt = { .stop = &stopping.stop,
					      .planned = stop_when_planned,
					      .progress = stop_when_enough };

	stopping.rows = rows;
	atomic_store(&stopping.stop, 0);
	assert_int_equal(test_sweep_run(s, &opt), LENS_ERR_INTERRUPTED);
	assert_false(lens_file_exists(s->output));
}

/* --- files ----------------------------------------------------------------------- */

const char *test_sweep_path(const struct test_sweep *s, const char *name)
{
	static char ring[4][512];
	static unsigned turn;
	char *out = ring[turn++ % 4];

	snprintf(out, sizeof(ring[0]), "%s/%s", s->shards, name);
	return out;
}

size_t test_sweep_count(const struct test_sweep *s, const char *ending)
{
	return test_count_files(s->shards, ending);
}

size_t test_sweep_parts(const struct test_sweep *s)
{
	DIR *d = opendir(s->shards);
	struct dirent *e;
	size_t n = 0;

	while (d && (e = readdir(d)) != NULL)
		n += strstr(e->d_name, ".part") != NULL;
	if (d)
		closedir(d);
	return n;
}

static int remove_one(const char *path, const struct stat *sb, int what, struct FTW *where)
{
	(void)sb;
	(void)what;
	(void)where;
	return remove(path);
}

void test_remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void test_sweep_clear(const struct test_sweep *s)
{
	unlink(s->output);
	test_remove_tree(s->shards);
}

void test_copy_file(const char *from, const char *to)
{
	struct lens_buf b = LENS_BUF_INIT;
	FILE *f;

	assert_int_equal(lens_file_read(from, (size_t)1 << 26, &b, NULL), LENS_OK);
	f = fopen(to, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	lens_buf_release(&b);
}

/* --- what is there ----------------------------------------------------------------- */

static void tell_bad(void *ctx, const char *dataset, const char *what)
{
	(void)ctx;
	print_error("%s: %s\n", dataset, what);
}

void test_expect_sound(const char *file)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t n = 0, bad = 0;

	if (lens_store_verify(file, tell_bad, NULL, &n, &bad, &err) != LENS_OK)
		fail_msg("%s: %s", file, err.text);
	assert_int_equal(bad, 0);
	assert_true(n > 0);
}

void test_expect_said(const char *text, const char *what)
{
	if (!strstr(text, what))
		fail_msg("no '%s' in '%s'", what, text);
}

/* Flips a bit of the first value of an array, where it lies in the file. */
void test_flip(const char *path)
{
	struct test_h5 *h = test_h5_open(path);
	struct lens_buf b = LENS_BUF_INIT;
	struct test_array a;
	char *at;
	FILE *f;

	test_h5_bytes(h, "/cache/blocks.1.hook_resid_post", &a);
	test_h5_close(h);
	assert_int_equal(lens_file_read(path, (size_t)1 << 26, &b, NULL), LENS_OK);
	at = memmem(b.data, b.len, a.bytes, 32);
	assert_non_null(at);
	*at ^= 1;
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
	assert_int_equal(fclose(f), 0);
	test_array_release(&a);
	lens_buf_release(&b);
}
