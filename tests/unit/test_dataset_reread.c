/*
 * test_dataset_reread.c: the second reading of a CSV file: a file that changed,
 * a callback that stops; and allocations that fail in either reading.
 */
#include "support/dataset.h"
#include "support/cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define H TEST_HEADER

static void rewrite(const struct test_data *f, const char *csv)
{
	FILE *file = fopen(f->path, "wb");

	assert_non_null(file);
	assert_true(fputs(csv, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void test_changed_file(void **state)
{
	static const struct {
		const char *csv;
		size_t calls; /* before the change is noticed */
	} now[] = {
		{ "prompt,correct,incorrect,x\na, Mary, John,1\n", 1 },
		{ "prompt,correct,incorrect,y\na, Mary, John,1\nb, Mary, John,2\n", 0 },
		{ "prompt,correct,incorrect\na, Mary, John\nb, Mary, John\n", 0 },
		{ "prompt,correct,incorrect,x\na, Mary, John,1\nc, Mary, John,2\n", 2 },
		{ "prompt,correct,incorrect,x\na, Mary, John,1\nb, Mary, John\n", 1 },
		{ "prompt,correct,incorrect,x\na, Mary, John,1\nb, Mary, John,2\n\n", 2 },
	};
	struct test_data f = test_data_begin(
		"prompt,correct,incorrect,x\na, Mary, John,1\nb, Mary, John,2\n");
	size_t i;

	(void)state;
	test_load_good(&f);
	for (i = 0; i < sizeof(now) / sizeof(now[0]); i++) {
		struct test_seen_texts s = { .p = f.p };
		struct lens_error err = LENS_ERROR_INIT;

		rewrite(&f, now[i].csv);
		assert_int_equal(lens_prompts_each(&f.opt, f.p, test_see_text, &s, &err),
				 LENS_ERR_FORMAT);
		assert_int_equal(s.n, now[i].calls);
		assert_non_null(strstr(err.text, "the file changed while it was in use"));
		lens_buf_release(&s.text);
	}
	rewrite(&f, "");
	assert_int_equal(lens_prompts_each(&f.opt, f.p, test_see_text, NULL, NULL),
			 LENS_ERR_FORMAT);
	remove(f.path);
	assert_int_equal(lens_prompts_each(&f.opt, f.p, test_see_text, NULL, NULL),
			 LENS_ERR_IO);
	test_data_end(&f);
}

static void test_callback_stops(void **state)
{
	struct test_data f = test_data_begin(H "a, Mary, John\nb, Mary, John\n");
	struct test_seen_texts s = { .reply = LENS_ERR_INTERRUPTED };
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	test_load_good(&f);
	s.p = f.p;
	assert_int_equal(lens_prompts_each(&f.opt, f.p, test_see_text, &s, &err),
			 LENS_ERR_INTERRUPTED);
	assert_int_equal(s.n, 1);
	assert_string_equal(err.text, "told to stop");
	lens_buf_release(&s.text);
	test_data_end(&f);
}

/* --- memory ------------------------------------------------------------------ */

static enum lens_status load_again(void *ctx)
{
	struct test_data *f = ctx;
	enum lens_status st = test_load(f);

	assert_int_equal(f->err.code, st);
	assert_true((st == LENS_OK) == (f->p != NULL));
	return st;
}

static enum lens_status read_again(void *ctx)
{
	struct test_data *f = ctx;
	struct test_seen_texts s = { .p = f->p };
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st = lens_prompts_each(&f->opt, f->p, test_see_text, &s, &err);

	lens_buf_release(&s.text);
	assert_int_equal(err.code, st);
	return st;
}

static void test_alloc(void **state)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;
	int i;

	(void)state;
	lens_buf_printf(&csv, NULL, "prompt,correct,incorrect,x,y\n");
	for (i = 0; i < 80; i++) /* so that the arrays grow */
		lens_buf_printf(&csv, NULL, "Hello %d,Mary, John,%d,z\n%s", i, i,
				i % 9 ? "" : "b, Maryland, John,,\n");
	f = test_data_begin(csv.data);
	f.opt.skip_bad_rows = true;
	test_alloc_failures(load_again, &f);
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 80);
	assert_int_equal(test_report.n_bad, 9);
	test_alloc_failures(read_again, &f);
	lens_buf_release(&csv);
	test_data_end(&f);
}

static void test_alloc_of_errors(void **state)
{
	struct test_data f = test_data_begin("promt,x\na,b\n");
	unsigned long k;

	(void)state;
	for (k = 1; k < 40; k++) {
		enum lens_status st;

		lens_alloc_fail_at(k);
		st = test_load(&f);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_ERR_NOMEM || st == LENS_ERR_FORMAT);
	}
	test_load_bad(&f, LENS_ERR_FORMAT, "did you mean 'promt'?");
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changed_file),
		cmocka_unit_test(test_callback_stops),
		cmocka_unit_test(test_alloc),
		cmocka_unit_test(test_alloc_of_errors),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
