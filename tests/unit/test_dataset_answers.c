/*
 * unit/test_dataset_answers.c: answers of any number of tokens: their ids and places,
 * parts of a set, what does not fit into the context, what is odd.
 */
#include "h5lens/dataset.h"
#include "support/cases.h"
#include "support/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define H TEST_HEADER

static struct test_data begin(const char *csv)
{
	struct test_data f = test_data_begin(csv);

	f.opt.any_tokens = true;
	return f;
}

/* An answer's ids are those of its text. */
static void assert_answer(const struct test_data *f, const struct lens_prompts *p, size_t row,
			  size_t answer, const char *text)
{
	const int32_t *ids = p->answers + p->answer_offset[row * p->n_answers + answer];
	size_t n = lens_answer_length(p, row, answer);
	struct lens_buf b = LENS_BUF_INIT;

	assert_int_equal(lens_tokenizer_decode_continuation(f->opt.tokenizer, ids, n, &b, NULL),
			 LENS_OK);
	assert_string_equal(b.data, text);
	lens_buf_release(&b);
}

static void test_places(void **state)
{
	struct test_data f = begin(H "a, Mary, John\nb, Mary John Mary, Mary\n"
				     "c, John, Mary John\n");
	struct lens_prompts part;

	(void)state;
	test_load_good(&f);
	assert_int_equal(f.p->n_answer_pos, 3);
	assert_int_equal(f.p->answer_offset[6], 9);
	assert_answer(&f, f.p, 0, 1, " John");
	assert_answer(&f, f.p, 1, 0, " Mary John Mary");
	assert_answer(&f, f.p, 1, 1, " Mary");
	assert_int_equal(lens_continued_length(f.p, 1, 0), f.p->read_pos[1] + 3);
	assert_int_equal(lens_continued_length(f.p, 1, 1), 0);
	/* As wide as the whole. */
	part = lens_prompts_part(f.p, 2, 1);
	assert_int_equal(part.n_answer_pos, 3);
	assert_answer(&f, &part, 0, 0, " John");
	assert_answer(&f, &part, 0, 1, " Mary John");
	test_data_end(&f);
}

/* Without any_tokens nothing is kept of it. */
static void test_one(void **state)
{
	struct test_data f = test_data_begin(H "a, Mary, John\n");

	(void)state;
	test_load_good(&f);
	assert_null(f.p->answer_offset);
	assert_int_equal(f.p->n_answer_pos, 0);
	assert_int_equal(lens_answer_length(f.p, 0, 1), 1);
	test_data_end(&f);
	f = test_data_begin(H "a, Mary John, John\n");
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "is 2 tokens, not one: ' Mary' + ' John'; "
		      "data.answer_tokens: any takes several");
	test_data_end(&f);
}

/* BOS, three tokens of a prompt, and all of an answer but its last. */
static void test_room(void **state)
{
	struct test_data f = begin(H " Mary Mary Mary, Mary Mary Mary Mary, John\n");

	(void)state;
	f.opt.n_ctx = 7;
	test_load_good(&f);
	assert_int_equal(lens_continued_length(f.p, 0, 0), 7);
	test_data_end(&f);
	f = begin(H " Mary Mary Mary, Mary Mary Mary Mary, John\n");
	f.opt.n_ctx = 6;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 1: answer ' Mary Mary Mary Mary' (column 'correct') is 4 tokens; "
		      "with the prompt's 4 before it the model would read 7 and takes 6");
	test_data_end(&f);
	/* Read earlier, there is room; one token is read off the prompt itself. */
	f = begin(H " Mary Mary Mary, Mary Mary Mary Mary, John\n");
	f.opt.n_ctx = 6;
	f.opt.read_pos = 2;
	test_load_good(&f);
	test_data_end(&f);
	f = begin(H " Mary Mary Mary, Mary, John\n");
	f.opt.n_ctx = 4;
	test_load_good(&f);
	test_data_end(&f);
}

static void expect_warning(const char *row, enum lens_row_warning kind, const char *want)
{
	struct lens_buf csv = LENS_BUF_INIT;
	struct test_data f;
	char text[2200];

	assert_int_equal(lens_buf_printf(&csv, NULL, H "%s\n", row), LENS_OK);
	f = begin(csv.data);
	test_load_good(&f);
	assert_int_equal(test_report.warning[kind].n, want != NULL);
	lens_error_format(&test_report.warning[kind].first, text, sizeof(text));
	if (want && !strstr(text, want))
		fail_msg("expected \"%s\", got \"%s\"", want, text);
	test_data_end(&f);
	lens_buf_release(&csv);
}

static void test_warnings(void **state)
{
	(void)state;
	expect_warning("a, Mary John, Mary John", LENS_ROW_EQUAL_ANSWERS,
		       "the answers in columns 'correct' and 'incorrect' are the same tokens");
	expect_warning("a, Mary, Mary", LENS_ROW_EQUAL_ANSWERS, "are the same token, ");
	expect_warning("a, Mary John, Mary", LENS_ROW_EQUAL_ANSWERS, NULL);
	expect_warning("a,Mary John, Mary", LENS_ROW_NO_SPACE,
		       "answer 'Mary John' (column 'correct') has no leading space; "
		       "' Mary John' is 2 tokens, without it are 2");
	expect_warning("a,John, Mary", LENS_ROW_NO_SPACE, "' John' is ");
	expect_warning("a , Mary John, John", LENS_ROW_SEAM, "together they have it twice");
	expect_warning("a, Mary John, John Mary", LENS_ROW_NO_SPACE, NULL);
}

static void test_empty(void **state)
{
	struct test_data f = begin(H "a,, John\n");

	(void)state;
	test_load_bad(&f, LENS_ERR_FORMAT, "the answer (column 'correct') is empty");
	test_data_end(&f);
}

static void test_allocation_failures(void **state)
{
	struct test_data f = begin(H "a, Mary John, John\n");
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		f.err = (struct lens_error)LENS_ERROR_INIT;
		lens_alloc_fail_at(k);
		st = lens_prompts_load(&f.opt, &f.p, &test_report, &f.err);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
	}
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places), cmocka_unit_test(test_one),
		cmocka_unit_test(test_room),   cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_empty),  cmocka_unit_test(test_allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
