/*
 * test_csv.c: CSV files as such: the forms a file may have, records over the
 * borders of blocks, records that are too large, and what files are refused for
 * (tests/invalid/csv).
 */
#include "support/dataset.h"
#include "support/cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { BOS = TEST_BOS };

#define H TEST_HEADER

static void test_csv_forms(void **state)
{
	(void)state;
	test_check_texts(H "a, Mary, John\n", "a| Mary| John;");
	test_check_texts(H "a, Mary, John", "a| Mary| John;");
	test_check_texts(H "\"a\",\" Mary\",\" John\"", "a| Mary| John;");
	test_check_texts("\xef\xbb\xbf" H "a, Mary, John\n", "a| Mary| John;");
	test_check_texts("\xef\xbb\xbf\"prompt\",correct,incorrect\n\"a\", Mary, John\n",
			 "a| Mary| John;");
	test_check_texts("prompt,correct,incorrect\r\na, Mary, John\r\n", "a| Mary| John;");
	test_check_texts("prompt,correct,incorrect\ra, Mary, John\r", "a| Mary| John;");
	test_check_texts(H "\n\r\na, Mary, John\n\n\n", "a| Mary| John;");
	test_check_texts(H "  a \t, Mary, John\n", "  a \t| Mary| John;");
	test_check_texts(H "\"l1\nl2\r\nl3\", Mary, John\n", "l1\nl2\r\nl3| Mary| John;");
	test_check_texts(H "\"say \"\"hi\"\", you\", Mary, John\n",
			 "say \"hi\", you| Mary| John;");
	test_check_texts(H "\"\"\"\", Mary, John\n", "\"| Mary| John;");
	test_check_texts(H "été 日本, Mary, John\n", "été 日本| Mary| John;");
	test_check_texts("note," H ",a, Mary, John\nz,b, John, Mary\n",
			 "a| Mary| John|;b| John| Mary|z;");
}

/* Fields and quotes over the border of the 64 KiB blocks, at every offset. */
static void test_block_borders(void **state)
{
	size_t shift;

	(void)state;
	for (shift = 0; shift < 40; shift++) {
		struct lens_buf csv = LENS_BUF_INIT;
		struct test_data f;

		lens_buf_printf(&csv, NULL,
				"prompt,note\r\n\"a\",\"%*s\"\r\n\"b\"\"\r\n\xc3\xa9\",n\r\n",
				(int)(65536 - 50 + shift), "x");
		f = test_data_begin(csv.data);
		f.opt.n_answers = 0;
		test_load_good(&f);
		assert_int_equal(f.p->n_rows, 2);
		test_assert_tokens(f.p, 1, 7,
				   (int32_t[]){ BOS, 'b', '"', '\r', '\n', 0xc3, 0xa9 });
		f.opt.n_ctx = 6;
		test_load_bad(&f, LENS_ERR_FORMAT, "record 2: the prompt has 7 tokens");
		assert_int_equal(f.err.row, 3);
		lens_buf_release(&csv);
		test_data_end(&f);
	}
}

static void test_huge_record(void **state)
{
	size_t n = ((size_t)16 << 20) + 100, head = strlen(H);
	char *csv = lens_calloc(n, 1);
	struct test_data f;

	(void)state;
	assert_non_null(csv);
	memset(csv, 'x', n);
	memcpy(csv, H, head);
	memcpy(csv + head, "\na,\"", 4);
	f = test_data_begin_n(csv, n);
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 1: longer than 16 MiB; field 2 begins on line 3: is its closing");
	test_data_end(&f);
	lens_free(csv);
}

static void test_many_fields(void **state)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;
	int i;

	(void)state;
	lens_buf_printf(&csv, NULL, "prompt\n");
	for (i = 0; i < 20000; i++)
		lens_buf_append(&csv, ",", 1, NULL);
	f = test_data_begin(csv.data);
	f.opt.n_answers = 0;
	test_load_bad(&f, LENS_ERR_FORMAT, "20001 fields; the header has 1");
	test_data_end(&f);
	f = test_data_begin(csv.data + 7);
	test_load_bad(&f, LENS_ERR_FORMAT, "20001 columns; at most 16384");
	test_data_end(&f);
	lens_buf_release(&csv);
}

/* --- tests/invalid/csv ------------------------------------------------------- */

static void add(struct lens_buf *told, const struct lens_error *e)
{
	char text[2200];

	if (e->code != LENS_OK)
		lens_buf_printf(told, NULL, "%s\n", lens_error_format(e, text, sizeof(text)));
}

static void tell(const char *folder, struct lens_buf *told)
{
	char *path = lens_path_join(folder, "input.csv");
	struct lens_dataset_options opt = test_data_options(path);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_prompts *p = NULL;
	size_t i;

	if (strstr(folder, "/corrupted"))
		opt.corrupted_column = "corrupted";
	if (strstr(folder, "/read-pos"))
		opt.read_pos_column = "read_pos";
	if (strstr(folder, "/find-column"))
		opt.find_column = "subject";
	else if (strstr(folder, "/find-"))
		opt.find = " Mary";
	opt.nth = strstr(folder, "-nth-1") ? 1 : 0;
	assert_int_equal(lens_prompts_load(&opt, &p, &test_report, &err), LENS_ERR_FORMAT);
	assert_null(p);
	assert_int_equal(err.code, LENS_ERR_FORMAT);
	add(told, &err);
	for (i = 0; i < LENS_BAD_ROWS_LISTED; i++) {
		assert_int_equal(test_report.bad[i].code != LENS_OK, i < test_report.n_bad);
		add(told, &test_report.bad[i]);
	}
	lens_free(path);
}

static void test_invalid(void **state)
{
	(void)state;
	test_run_cases("tests/invalid/csv", tell);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_csv_forms),   cmocka_unit_test(test_block_borders),
		cmocka_unit_test(test_huge_record), cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_invalid),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
