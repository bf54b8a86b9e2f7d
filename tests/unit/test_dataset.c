/*
 * test_dataset.c: the prompt set: the rows that a CSV file gives, its warnings,
 * bad rows, limits and options.
 */
#include "support/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { BOS = TEST_BOS, MARY = 259, JOHN = 263, BARE_MARY = 266 };

#define H TEST_HEADER

static void assert_no_warning(void)
{
	size_t i;

	for (i = 0; i < LENS_ROW_WARNINGS; i++)
		assert_int_equal(test_report.warning[i].n, 0);
}

static void test_rows(void **state)
{
	struct test_data f = test_data_begin("id,prompt,correct,note,incorrect\n"
					     "1,a Mary, John,x y, Mary\n"
					     "2.5,b, Mary,, John\n");
	static const int32_t answers[] = { JOHN, MARY, MARY, JOHN };

	(void)state;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 2);
	assert_int_equal(f.p->n_answers, 2);
	assert_int_equal(f.p->max_length, 3);
	assert_int_equal(f.p->offset[0], 0);
	test_assert_tokens(f.p, 0, 3, (int32_t[]){ BOS, 'a', MARY });
	test_assert_tokens(f.p, 1, 2, (int32_t[]){ BOS, 'b' });
	assert_memory_equal(f.p->answers, answers, sizeof(answers));
	assert_int_equal(f.p->read_pos[0], 2);
	assert_int_equal(f.p->read_pos[1], 1);
	assert_int_equal(f.p->record[0], 1);
	assert_int_equal(f.p->record[1], 2);
	assert_int_equal(f.p->n_columns, 2);
	assert_string_equal(f.p->column_name[0], "id");
	assert_string_equal(f.p->column_name[1], "note");
	assert_int_equal(f.p->column_kind[0], LENS_COLUMN_REAL);
	assert_int_equal(f.p->column_kind[1], LENS_COLUMN_TEXT);
	assert_int_equal(test_report.n_bad, 0);
	assert_no_warning();
	test_data_end(&f);
}

static void test_no_bos_and_no_answers(void **state)
{
	struct test_data f = test_data_begin("prompt\nMary\n John\n");

	(void)state;
	f.opt.prepend_bos = false;
	f.opt.n_answers = 0;
	f.opt.answer_columns = NULL;
	test_load_good(&f);
	test_assert_tokens(f.p, 0, 1, (int32_t[]){ BARE_MARY });
	test_assert_tokens(f.p, 1, 1, (int32_t[]){ JOHN });
	assert_int_equal(f.p->n_answers, 0);
	assert_int_equal(f.p->n_columns, 0);
	test_data_end(&f);
}

static void test_space_is_not_trimmed(void **state)
{
	struct test_data f = test_data_begin(H "a, Mary,Mary\n");

	(void)state;
	test_load_good(&f);
	assert_int_equal(f.p->answers[0], MARY);
	assert_int_equal(f.p->answers[1], BARE_MARY);
	test_data_end(&f);
}

static void test_warnings(void **state)
{
	struct test_data f = test_data_begin(H "a, Mary,Mary\na, Mary, John\na,., John\n");
	char text[2200];

	(void)state;
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_NO_SPACE].n, 1);
	lens_error_format(&test_report.warning[LENS_ROW_NO_SPACE].first, text, sizeof(text));
	assert_non_null(strstr(text, "data.csv:2: record 1: answer 'Mary' (column 'incorrect') "
				     "has no leading space; ' Mary' is a token too"));
	test_data_end(&f);
}

static void test_second_bos(void **state)
{
	struct test_data f =
		test_data_begin(H "<|endoftext|>a, Mary, John\nb<|endoftext|>, Mary, John\n");
	char text[512];

	(void)state;
	test_load_good(&f);
	test_assert_tokens(f.p, 0, 3, (int32_t[]){ BOS, BOS, 'a' });
	assert_int_equal(test_report.warning[LENS_ROW_SECOND_BOS].n, 1);
	lens_error_format(&test_report.warning[LENS_ROW_SECOND_BOS].first, text, sizeof(text));
	assert_non_null(strstr(text, "record 1"));
	assert_non_null(strstr(text, "begins with the BOS token already"));
	f.opt.prepend_bos = false;
	test_load_good(&f);
	assert_no_warning();
	test_data_end(&f);
}

/* With SentencePiece's kind an answer's space is the token's own, no second one. */
static void test_answers_continue(void **state)
{
	static const char *const dir[] = { "llama", "first", "always", "never" };
	struct test_data f = test_data_begin(H "Mary and John, Mary, John\nMary, John,n\n");
	struct lens_buf text = LENS_BUF_INIT;
	char path[128];
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct lens_tokenizer *tok;

		snprintf(path, sizeof(path), "tests/unit/data/tokenizer_sp/%s", dir[i]);
		assert_int_equal(lens_tokenizer_open(path, &tok, &f.err), LENS_OK);
		f.opt.tokenizer = tok;
		f.opt.d_vocab = lens_tokenizer_n_vocab(tok);
		test_load_good(&f);
		/* " John" is the token that the prompt has. */
		assert_int_equal(f.p->answers[1], f.p->tokens[f.p->offset[1] - 1]);
		assert_int_equal(f.p->answers[1], f.p->answers[2]);
		text.len = 0;
		assert_int_equal(lens_tokenizer_decode_continuation(tok, f.p->answers, 4, &text,
								    NULL),
				 LENS_OK);
		assert_string_equal(text.data, " Mary John Johnn");
		lens_tokenizer_destroy(tok);
	}
	lens_buf_release(&text);
	test_data_end(&f);
}

static void test_warnings_are_counted(void **state)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;
	int i;

	(void)state;
	assert_int_equal(lens_buf_printf(&csv, NULL, H), LENS_OK);
	for (i = 0; i < 30; i++)
		assert_int_equal(lens_buf_printf(&csv, NULL, "a,Mary,John\n"), LENS_OK);
	f = test_data_begin(csv.data);
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_NO_SPACE].n, 30);
	assert_int_equal(test_report.warning[LENS_ROW_NO_SPACE].first.row, 2);
	lens_buf_release(&csv);
	test_data_end(&f);
}

static void test_skip(void **state)
{
	struct test_data f =
		test_data_begin(H "a, Mary, John\n,,\nb, Maryland, John\nc, John, Mary\n");

	(void)state;
	test_load_bad(&f, LENS_ERR_FORMAT, "2 of 4 rows cannot be used; the first: record 2:");
	assert_int_equal(f.err.row, 3);
	assert_int_equal(test_report.n_bad, 2);
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 2);
	assert_int_equal(f.p->record[1], 4);
	assert_int_equal(test_report.n_bad, 2);
	assert_non_null(strstr(test_report.bad[1].text, "' Mary' + 'l' + 'a' + 'n' + 'd'"));
	test_assert_texts(&f, "a| Mary| John;c| John| Mary;");
	test_data_end(&f);

	f = test_data_begin(H ",,\n");
	f.opt.skip_bad_rows = true;
	test_load_bad(&f, LENS_ERR_FORMAT, "1 of 1 rows");
	test_data_end(&f);
}

static void test_limit(void **state)
{
	const char *csv = H "a, Mary, John\n,,\nb, Mary, John\nbad\n\"c";
	struct test_data f = test_data_begin(csv);
	uint8_t want[LENS_SHA256_BYTES];

	(void)state;
	f.opt.limit = 1;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 1);
	assert_int_equal(test_report.n_bad, 0);
	assert_int_equal(lens_sha256(csv, strlen(csv), want, NULL), LENS_OK);
	assert_memory_equal(f.p->sha256, want, sizeof(want));
	test_assert_texts(&f, "a| Mary| John;");
	f.opt.limit = 2;
	test_load_bad(&f, LENS_ERR_FORMAT, "1 of 3 rows");
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	test_assert_texts(&f, "a| Mary| John;b| Mary| John;");
	f.opt.limit = 3;
	test_load_bad(&f, LENS_ERR_FORMAT, "the file ends before the closing one");
	test_data_end(&f);
}

static void test_read_pos(void **state)
{
	struct test_data f =
		test_data_begin("prompt,correct,incorrect,at\nabc, Mary, John,0\n"
				"abc, Mary, John,-1\nabc, Mary, John,-4\nabc, Mary, John,+2\n");
	static const int32_t want[] = { 0, 3, 0, 2 };

	(void)state;
	f.opt.read_pos_column = "at";
	test_load_good(&f);
	assert_memory_equal(f.p->read_pos, want, sizeof(want));
	assert_int_equal(f.p->n_columns, 0);
	f.opt.read_pos_column = NULL;
	f.opt.read_pos = -2;
	test_load_good(&f);
	assert_int_equal(f.p->read_pos[0], 2);
	assert_int_equal(f.p->n_columns, 1);
	assert_int_equal(f.p->column_kind[0], LENS_COLUMN_TEXT); /* +2 is no canonical number */
	f.opt.read_pos = 4;
	test_load_bad(&f, LENS_ERR_FORMAT, "read_pos 4 is outside the prompt's 4 tokens");
	f.opt.read_pos_column = "att";
	test_load_bad(&f, LENS_ERR_FORMAT, "no column 'att' (did you mean 'at'?)");
	test_data_end(&f);
}

/* --- what is odd about a prompt and its answers -------------------------------- */

static void expect_flags(const char *rows, const uint8_t *flags, size_t n)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;

	assert_int_equal(lens_buf_printf(&csv, NULL, H "%s", rows), LENS_OK);
	f = test_data_begin(csv.data);
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, n);
	assert_memory_equal(f.p->flags, flags, n);
	test_data_end(&f);
	lens_buf_release(&csv);
}

static void test_seam(void **state)
{
	static const uint8_t flags[] = { 4, 0, 0, 4, 4, 4, 0 };
	struct test_data f;

	(void)state;
	expect_flags("a , Mary, John\na, Mary, John\na ,Mary,b\na ,Mary, John\n"
		     "\"a\n\", Mary,b\na\xc2\xa0, Mary,b\n\xc3\xa9, Mary,b\n",
		     flags, 7);
	f = test_data_begin(H "a, Mary, John\na , Mary, John\nb , Mary, John\n");
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_SEAM].n, 2);
	assert_int_equal(test_report.warning[LENS_ROW_SEAM].first.row, 3);
	assert_non_null(strstr(test_report.warning[LENS_ROW_SEAM].first.text,
			       "record 2: the prompt (column 'prompt') ends in white space and "
			       "the answer ' Mary' (column 'correct') begins with it"));
	f.opt.read_pos = 0; /* the tables read another token */
	test_load_good(&f);
	assert_no_warning();
	test_data_end(&f);
}

static void test_equal_answers(void **state)
{
	static const uint8_t flags[] = { 8, 0, 12 };
	struct test_data f;

	(void)state;
	expect_flags("a, Mary, Mary\na, Mary, John\na , Mary, Mary\n", flags, 3);
	f = test_data_begin(H "a, Mary, Mary\na, John, John\n");
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_EQUAL_ANSWERS].n, 2);
	assert_non_null(strstr(test_report.warning[LENS_ROW_EQUAL_ANSWERS].first.text,
			       "record 1: the answers in columns 'correct' and 'incorrect' are "
			       "the same token"));
	test_data_end(&f);
}

/* A bad row's value does not count, and neither does one past the limit. */
static void test_numeric_over_good_rows(void **state)
{
	struct test_data f = test_data_begin("prompt,x\na,7\n,text\nb,text\n");

	(void)state;
	f.opt.n_answers = 0;
	f.opt.skip_bad_rows = true;
	f.opt.limit = 1;
	test_load_good(&f);
	assert_int_equal(f.p->column_kind[0], LENS_COLUMN_INT);
	f.opt.limit = 2;
	test_load_good(&f);
	assert_int_equal(f.p->column_kind[0], LENS_COLUMN_TEXT);
	test_data_end(&f);
}

static void test_model_limits(void **state)
{
	struct test_data f = test_data_begin(H "abc, Mary, John\n");

	(void)state;
	f.opt.n_ctx = 4;
	test_load_good(&f);
	f.opt.n_ctx = 3;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "the prompt has 4 tokens with BOS; the model takes 3");
	f.opt.prepend_bos = false;
	test_load_good(&f);
	f.opt.d_vocab = JOHN;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "column 'incorrect' has token 263; the model's vocabulary has 263");
	f.opt.d_vocab = 10;
	test_load_bad(&f, LENS_ERR_FORMAT, "column 'prompt' has token ");
	f.opt.prepend_bos = true;
	test_load_bad(&f, LENS_ERR_FORMAT, "BOS token is 282; the model's vocabulary has 10");
	test_data_end(&f);
}

static void test_options(void **state)
{
	static const char *const twice[] = { "correct", "correct" };
	struct test_data f = test_data_begin(H "a, Mary, Mary\n");

	(void)state;
	test_load_good(&f); /* equal answers are allowed */
	f.opt.answer_columns = twice;
	test_load_bad(&f, LENS_ERR_INVALID, "the answer column 'correct' is named twice");
	f.opt.csv = "tests/no-such.csv";
	test_load_bad(&f, LENS_ERR_IO, "cannot open");
	f.opt.csv = "tests";
	test_load_bad(&f, LENS_ERR_IO, "not a regular file");
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_no_bos_and_no_answers),
		cmocka_unit_test(test_space_is_not_trimmed),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_second_bos),
		cmocka_unit_test(test_answers_continue),
		cmocka_unit_test(test_warnings_are_counted),
		cmocka_unit_test(test_skip),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_read_pos),
		cmocka_unit_test(test_seam),
		cmocka_unit_test(test_equal_answers),
		cmocka_unit_test(test_numeric_over_good_rows),
		cmocka_unit_test(test_model_limits),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
