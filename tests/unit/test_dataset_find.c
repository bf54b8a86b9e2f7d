/*
 * unit/test_dataset_find.c: read positions by text: which match, which token, and rows
 * that lack it.
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

/* The text of the token that row reads, and of all up to it. */
static void assert_reads(const struct test_data *f, size_t row, const char *token,
			 const char *before)
{
	const struct lens_tokenizer *tok = f->opt.tokenizer;
	const int32_t *ids = f->p->tokens + f->p->offset[row];
	size_t bos = f->opt.prepend_bos, at = (size_t)f->p->read_pos[row];
	struct lens_buf one = LENS_BUF_INIT, all = LENS_BUF_INIT;

	assert_in_range(at, bos, lens_prompt_length(f->p, row) - 1);
	assert_int_equal(lens_tokenizer_decode_continuation(tok, ids + at, 1, &one, NULL),
			 LENS_OK);
	assert_int_equal(lens_tokenizer_decode(tok, ids + bos, at - bos, &all, NULL), LENS_OK);
	assert_string_equal(one.data, token);
	assert_string_equal(all.len ? all.data : "", before);
	lens_buf_release(&one);
	lens_buf_release(&all);
}

static void find(struct test_data *f, const char *text, long nth)
{
	f->opt.find = text;
	f->opt.nth = nth;
	test_load_good(f);
}

static void test_nth(void **state)
{
	struct test_data f = test_data_begin(H "the Mary met Mary or Mary, Mary, John\n");

	(void)state;
	find(&f, " Mary", 0);
	assert_reads(&f, 0, " Mary", "the");
	find(&f, " Mary", 1);
	assert_reads(&f, 0, " Mary", "the Mary met");
	find(&f, " Mary", -1);
	assert_reads(&f, 0, " Mary", "the Mary met Mary or");
	find(&f, " Mary", -3);
	assert_reads(&f, 0, " Mary", "the");
	find(&f, "Mar", 2); /* within a token */
	assert_reads(&f, 0, " Mary", "the Mary met Mary or");
	f.opt.prepend_bos = false;
	find(&f, " Mary", 0);
	assert_reads(&f, 0, " Mary", "the");
	f.opt.nth = 3;
	test_load_bad(&f, LENS_ERR_FORMAT, "only 3 of it: there is no nth 3");
	f.opt.nth = -4;
	test_load_bad(&f, LENS_ERR_FORMAT, "only 3 of it: there is no nth -4");
	f.opt.find = " John";
	test_load_bad(&f, LENS_ERR_FORMAT, "record 1: the text ' John' is not in the prompt");
	test_data_end(&f);
}

/* Left to right, without overlaps. */
static void test_overlaps(void **state)
{
	struct test_data f = test_data_begin(H "aaaaa, Mary, John\n");

	(void)state;
	find(&f, "aa", 1);
	assert_reads(&f, 0, "a", "aaa");
	f.opt.nth = 2;
	test_load_bad(&f, LENS_ERR_FORMAT, "only 2 of it");
	find(&f, "aaaaa", 0);
	assert_reads(&f, 0, "a", "aaaa");
	f.opt.find = "aaaaaa";
	test_load_bad(&f, LENS_ERR_FORMAT, "is not in the prompt");
	test_data_end(&f);
}

/* A column of texts stays one of the others; one that is something else already may be it. */
static void test_column(void **state)
{
	struct test_data f = test_data_begin("prompt,correct,incorrect,subject\n"
					     "the Mary met John, Mary, John, John\n"
					     "the Mary met John, Mary, John,the\n"
					     "the Mary met John, Mary, John, Alice\n");

	(void)state;
	f.opt.find_column = "subject";
	test_load_bad(&f, LENS_ERR_FORMAT, "1 of 3 rows");
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	assert_int_equal(test_report.n_bad, 1);
	assert_int_equal(f.p->n_rows, 2);
	assert_reads(&f, 0, " John", "the Mary met");
	assert_int_equal(f.p->read_pos[1], 1 + strlen("the") - 1);
	assert_int_equal(f.p->n_columns, 1);
	assert_string_equal(f.p->column_name[0], "subject");
	test_assert_texts(&f, "the Mary met John| Mary| John| John;"
			      "the Mary met John| Mary| John|the;");
	f.opt.find_column = "correct";
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 3);
	assert_reads(&f, 2, " Mary", "the");
	f.opt.find_column = "subjct";
	test_load_bad(&f, LENS_ERR_FORMAT, "no column 'subjct' (did you mean 'subject'?)");
	test_data_end(&f);
}

/* What a normaliser changes is found as it is written; what it drops is no position. */
static void test_normalised(void **state)
{
	struct test_data f = test_data_begin(H "a cafe\xcc\x81 b , Mary, John\n");
	struct lens_tokenizer *tok = NULL;

	(void)state;
	assert_int_equal(lens_tokenizer_open("tests/unit/data/tokenizer_sp/nfkc", &tok, NULL),
			 LENS_OK);
	f.opt.tokenizer = tok;
	f.opt.n_answers = 0;
	f.opt.d_vocab = lens_tokenizer_n_vocab(tok);
	find(&f, "e\xcc\x81", 0);
	assert_int_equal(f.p->tokens[f.p->read_pos[0]], 3 + 0xa9); /* of é's bytes the last */
	find(&f, "e", 0); /* its accent goes where it goes */
	assert_int_equal(f.p->tokens[f.p->read_pos[0]], 3 + 0xa9);
	f.opt.find = "b ";
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "no token holds the last character of the text that ends at byte 11");
	test_data_end(&f);
	lens_tokenizer_destroy(tok);
}

static enum lens_status load(void *ctx)
{
	struct test_data *f = ctx;

	return test_load(f);
}

static void test_no_memory(void **state)
{
	struct test_data f = test_data_begin(H "the Mary met John, Mary, John\n");

	(void)state;
	f.opt.find_column = "correct";
	test_alloc_failures(load, &f);
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nth),       cmocka_unit_test(test_overlaps),
		cmocka_unit_test(test_column),    cmocka_unit_test(test_normalised),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
