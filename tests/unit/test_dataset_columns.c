/*
 * test_dataset_columns.c: the CSV file as a whole: which columns are numbers, what
 * they are called in the output, separators, and files that are not CSV.
 */
#include "support/dataset.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MARY = 259, JOHN = 263 };

/* --- numbers ------------------------------------------------------------------ */

enum { T = LENS_COLUMN_TEXT, I = LENS_COLUMN_INT, R = LENS_COLUMN_REAL };
static const struct {
	const char *value;
	int kind;
} columns[] = { { "1", I },
		{ "0", I },
		{ "-12", I },
		{ "9007199254740993", I },
		{ "9223372036854775807", I },
		{ "-9223372036854775808", I },
		{ "9223372036854775808", T },
		{ "-0", R },
		{ "007", T },
		{ "-07", T },
		{ "00.5", T },
		{ "0.5", R },
		{ "1.0", R },
		{ ".5", R },
		{ "5.", R },
		{ "-1.5e3", R },
		{ "1e-3", R },
		{ "123456789012345.", R },
		{ "1234567890.12345", R },
		{ "1234567890.123456", T },
		{ "0.000000000000001234", R },
		{ "0.30000000000000004", T },
		{ "1234567890123456.", T },
		{ "", R },
		{ "NA", R },
		{ "na", T },
		{ "nan", T },
		{ "inf", T },
		{ "+5", T },
		{ "0x10", T },
		{ " 1", T },
		{ "1 ", T },
		{ "1e999", T },
		{ "1e-999", T },
		{ "1,5", T },
		{ "1e", T },
		{ "1e+", T },
		{ "-", T },
		{ ".", T },
		{ "-.", T },
		{ "1_000", T },
		{ "--1", T },
		{ "1.2.3", T } };

/* What a column of 7, the value and 8 is: no text may lose anything by it. */
static void test_column_kinds(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		char csv[128];
		struct test_data f;

		snprintf(csv, sizeof(csv), "prompt,x\na,7\nb,\"%s\"\nc,8\n", columns[i].value);
		f = test_data_begin(csv);
		f.opt.n_answers = 0;
		test_load_good(&f);
		if ((int)f.p->column_kind[0] != columns[i].kind)
			fail_msg("'%s': %d", columns[i].value, (int)f.p->column_kind[0]);
		test_data_end(&f);
	}
}

/* A wide integer beside a decimal, or beside nothing: float64 would lose it. */
static void test_columns_as_a_whole(void **state)
{
	static const struct {
		const char *first, *second;
		enum lens_column_kind kind;
	} cases[] = { { "9007199254740993", "9007199254740995", LENS_COLUMN_INT },
		      { "9007199254740993", "0.5", LENS_COLUMN_TEXT },
		      { "9007199254740993", "", LENS_COLUMN_TEXT },
		      { "7", "", LENS_COLUMN_REAL },
		      { "007", "010", LENS_COLUMN_TEXT },
		      { "", "", LENS_COLUMN_TEXT },
		      { "NA", "", LENS_COLUMN_TEXT } };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char csv[128];
		struct test_data f;

		snprintf(csv, sizeof(csv), "prompt,x\na,%s\nb,%s\n", cases[i].first,
			 cases[i].second);
		f = test_data_begin(csv);
		f.opt.n_answers = 0;
		test_load_good(&f);
		if (f.p->column_kind[0] != cases[i].kind)
			fail_msg("'%s', '%s'", cases[i].first, cases[i].second);
		test_data_end(&f);
	}
	assert_true(lens_cell_int("9007199254740993") == INT64_C(9007199254740993));
	assert_true(lens_cell_real("-1.5") == -1.5 && isnan(lens_cell_real("")) &&
		    isnan(lens_cell_real("NA")));
}

/* --- separators and names --------------------------------------------------------- */

static void test_separators(void **state)
{
	static const struct {
		const char *csv;
		char separator;
	} cases[] = { { "prompt;correct;incorrect;n\n\"a;b\"; Mary; John;1,5\n", ';' },
		      { "prompt\tcorrect\tincorrect\tn\n\"a\tb\"\t Mary\t John\t1,5\n",
			'\t' } };
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct test_data f = test_data_begin(cases[i].csv);

		test_load_bad(&f, LENS_ERR_FORMAT,
			      i ? "set data.separator: tab" : "set data.separator: semicolon");
		f.opt.separator = cases[i].separator;
		test_load_good(&f);
		assert_int_equal(f.p->answers[0], MARY);
		assert_int_equal(f.p->answers[1], JOHN);
		assert_int_equal(f.p->column_kind[0], LENS_COLUMN_TEXT);
		test_data_end(&f);
	}
}

static void test_stored_names(void **state)
{
	struct test_data f = test_data_begin("prompt,a/b,.,..,c\nx,1,2,3,4\n");
	static const char *const stored[] = { "a_b", "_.", "_..", "c" };
	size_t i;

	(void)state;
	f.opt.n_answers = 0;
	test_load_good(&f);
	for (i = 0; i < 4; i++)
		assert_string_equal(f.p->column_stored[i], stored[i]);
	test_data_end(&f);
	f = test_data_begin("prompt,loss/raw,loss_raw\nx,1,2\n");
	f.opt.n_answers = 0;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "the columns 'loss/raw' and 'loss_raw' would both be 'loss_raw'");
	test_data_end(&f);
}

/* --- files that are not CSV -------------------------------------------------------- */

#define FOREIGN(s, says)                                                                       \
	{                                                                                      \
		s, sizeof(s) - 1, says                                                         \
	}

static void test_foreign_files(void **state)
{
	static const struct {
		const char *s;
		size_t n;
		const char *says;
	} cases[] = {
		FOREIGN("\x1f\x8b\x08\0\0\0\0\0", "gzip; unpack it first"),
		FOREIGN("PK\3\4......[Content_Types].xml", "an Excel workbook (xlsx)"),
		FOREIGN("PK\3\4......p.csv", "zip; unpack it first"),
		FOREIGN("PAR1\x15\x04", "Parquet"),
		FOREIGN("p\0r\0o\0m\0p\0t\0\n\0a\0\n\0", "UTF-16 without BOM"),
		FOREIGN("\0p\0r\0o\0m\0p\0t\0\n\0a\0\n", "UTF-16 without BOM"),
		FOREIGN("\xff\xfep\0", "UTF-16; save it as UTF-8"),
		FOREIGN("\xff\xfe\0\0p\0\0\0", "UTF-32"),
		FOREIGN("sep=;\nprompt;correct\n", "remove that line, and set data.separator: "
						   "semicolon"),
		FOREIGN("\xef\xbb\xbfSEP=,\r\nprompt\r\n", "Excel's sep= line"),
		FOREIGN("{\"prompt\": \"a\"}\n", "JSON lines"),
		FOREIGN("[\n {\"prompt\": \"a\"}]\n", "JSON"),
		FOREIGN("<!DOCTYPE html>\n", "HTML"),
		FOREIGN("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct test_data f = test_data_begin_n(cases[i].s, cases[i].n);

		test_load_bad(&f, LENS_ERR_FORMAT, cases[i].says);
		test_data_end(&f);
	}
}

/* What only resembles them is CSV. */
static void test_not_foreign(void **state)
{
	static const char *const good[] = { "prompt,{x\na,1\n", "sep=x,prompt\n1,a\n",
					    "PARTS,prompt\n1,a\n", "[1],prompt\n1,a\n",
					    "version,prompt\n1,a\n" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct test_data f = test_data_begin(good[i]);

		f.opt.n_answers = 0;
		test_load_good(&f);
		test_data_end(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_column_kinds),  cmocka_unit_test(test_columns_as_a_whole),
		cmocka_unit_test(test_separators),    cmocka_unit_test(test_stored_names),
		cmocka_unit_test(test_foreign_files), cmocka_unit_test(test_not_foreign),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
