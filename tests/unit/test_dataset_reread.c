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
		{ "prompt,correct,incorrect,x\na, Mary, John,1\nc, Mary, John,2\n", 1 },
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

/* --- some of the rows ------------------------------------------------------------ */

/* A byte order mark, three ends of a line, fields of several lines, rows that are skipped. */
#define MANY_KINDS                                                                             \
	"\xef\xbb\xbfprompt,correct,incorrect,x\r\n"                                           \
	"a, Mary, John,1\r\n"                                                                  \
	"\"b\nof \"\"two\"\" lines\", Mary, John,\"2\r\n\r\n\"\r"                              \
	"\r\n\n, Mary, John,empty\n"                                                           \
	"c, Mary, John,\"3\"\n"                                                                \
	"c, Maryland, John,two tokens\r"                                                       \
	" d , Mary, John,4"

static void expect_part(const struct test_data *f, size_t first, size_t n, const char *want)
{
	const struct lens_prompts part = lens_prompts_part(f->p, first, n);
	struct test_seen_texts s = { .p = &part };
	struct lens_error err = LENS_ERROR_INIT;

	if (lens_prompts_each(&f->opt, &part, test_see_text, &s, &err) != LENS_OK)
		fail_msg("%s", err.text);
	assert_int_equal(s.n, n);
	assert_string_equal(s.text.data, want);
	lens_buf_release(&s.text);
}

static void expect_parts(const struct test_data *f)
{
	static const char *const row[] = { "a| Mary| John|1;",
					   "b\nof \"two\" lines| Mary| John|2\r\n\r\n;",
					   "c| Mary| John|3;", " d | Mary| John|4;" };
	size_t first, n, i;

	for (first = 0; first < 4; first++) {
		for (n = 1; first + n <= 4; n++) {
			char want[256] = "";

			for (i = first; i < first + n; i++)
				strcat(want, row[i]);
			expect_part(f, first, n, want);
		}
	}
}

/* From a saved place, and, when the file's stamp is another, from the beginning. */
static void test_parts(void **state)
{
	struct test_data f = test_data_begin(MANY_KINDS);

	(void)state;
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 4);
	assert_int_equal(f.p->place[1].line, 3);
	assert_int_equal(f.p->place[2].line, 10);
	expect_parts(&f);
	f.p->stamp.modified--;
	expect_parts(&f);
	test_data_end(&f);
}

/* Longer than a block that is read at once. */
static void test_part_of_many(void **state)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;
	char want[64];
	size_t i;

	(void)state;
	lens_buf_printf(&csv, NULL, TEST_HEADER);
	for (i = 0; i < 20000; i++)
		lens_buf_printf(&csv, NULL, "row %zu, Mary, John\n", i);
	f = test_data_begin(csv.data);
	test_load_good(&f);
	for (i = 0; i < 20000; i += 997) {
		snprintf(want, sizeof(want), "row %zu| Mary| John;", i);
		expect_part(&f, i, 1, want);
	}
	expect_part(&f, 19998, 2, "row 19998| Mary| John;row 19999| Mary| John;");
	lens_buf_release(&csv);
	test_data_end(&f);
}

static enum lens_status read_part(const struct test_data *f, size_t first, size_t n,
				  size_t *calls, struct lens_error *err)
{
	const struct lens_prompts part = lens_prompts_part(f->p, first, n);
	struct test_seen_texts s = { .p = &part };
	enum lens_status st = lens_prompts_each(&f->opt, &part, test_see_text, &s, err);

	*calls = s.n;
	lens_buf_release(&s.text);
	return st;
}

/* A change of other rows is noticed by the stamp; one that leaves the stamp, by the row. */
static void test_changed_part(void **state)
{
	struct test_data f = test_data_begin(H "a, Mary, John\nb, Mary, John\nc, Mary, John\n");
	struct test_data now;
	struct lens_error err = LENS_ERROR_INIT;
	size_t calls;

	(void)state;
	test_load_good(&f);
	rewrite(&f, H "a, Mary, John\nb, Mary, John\nd, Mary, John\n");
	assert_int_equal(read_part(&f, 0, 2, &calls, &err), LENS_ERR_FORMAT);
	assert_int_equal(calls, 2);
	assert_non_null(strstr(err.text, "the file changed while it was in use"));
	now = f;
	now.p = NULL;
	test_load_good(&now);
	f.p->stamp = now.p->stamp;
	lens_prompts_destroy(now.p);
	assert_int_equal(read_part(&f, 0, 2, &calls, NULL), LENS_OK);
	assert_int_equal(read_part(&f, 1, 2, &calls, NULL), LENS_ERR_FORMAT);
	assert_int_equal(calls, 1);
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
		cmocka_unit_test(test_changed_file),    cmocka_unit_test(test_callback_stops),
		cmocka_unit_test(test_parts),           cmocka_unit_test(test_part_of_many),
		cmocka_unit_test(test_changed_part),    cmocka_unit_test(test_alloc),
		cmocka_unit_test(test_alloc_of_errors),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
