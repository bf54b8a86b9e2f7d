/*
 * unit/test_dataset_ids.c: prompts and answers that are token ids: what is taken, what is not,
 * and that a set of ids needs no tokenizer.
 */
#include "h5lens/dataset.h"
#include "support/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define H TEST_HEADER

static struct test_data begin(const char *csv)
{
	struct test_data f = test_data_begin(csv);

	f.opt.prompt_ids = f.opt.answer_ids = true;
	return f;
}

static void test_ids(void **state)
{
	static const int32_t first[] = { TEST_BOS, 1, 2, 3, 1 }, second[] = { TEST_BOS, 282 };
	struct test_data f = begin(H "1 2 3 1,2,0\n\" 282\t\",282,7\n");

	(void)state;
	test_load_good(&f);
	test_assert_tokens(f.p, 0, 5, first);
	test_assert_tokens(f.p, 1, 2, second);
	assert_int_equal(f.p->answers[0], 2);
	assert_int_equal(f.p->answers[2], 282);
	test_data_end(&f);
}

static void test_no_tokenizer(void **state)
{
	static const int32_t want[] = { 5, 0, 5 };
	struct test_data f = begin(H "5 0 5,0,1\n");

	(void)state;
	f.opt.tokenizer = NULL;
	f.opt.prepend_bos = false;
	test_load_good(&f);
	test_assert_tokens(f.p, 0, 3, want);
	test_data_end(&f);
}

static void test_several_answers(void **state)
{
	struct test_data f = begin(H "5,0 1 2,1\n");

	(void)state;
	f.opt.any_tokens = true;
	test_load_good(&f);
	assert_int_equal(lens_answer_length(f.p, 0, 0), 3);
	test_data_end(&f);
}

static void bad(const char *row, const char *text)
{
	char csv[200] = H;
	struct test_data f;

	strcat(csv, row);
	f = begin(csv);
	test_load_bad(&f, LENS_ERR_FORMAT, text);
	test_data_end(&f);
}

static void test_bad(void **state)
{
	(void)state;
	bad("1 283 2,1,1\n",
	    "token 283, number 2 of '1 283 2'; the model's vocabulary has 283");
	bad("1 x,1,1\n", "column 'prompt' has 'x', which is no token id");
	bad("1 -1,1,1\n", "has '-1', which is no token id");
	bad("1 99999999999999999999,1,1\n", "which is no token id");
	bad("\"1, 2\",1,1\n", "has '1,', which is no token id");
	bad("\" \",1,1\n", "has no tokens");
	bad("1,,1\n", "the answer (column 'correct') is empty");
	bad("1,1 2,1\n", "answer '1 2' (column 'correct') is 2 token ids, not one");
	bad("1,283,1\n", "column 'correct' has token 283");
}

static void test_corrupted(void **state)
{
	struct test_data f = begin("prompt,correct,incorrect,other\n1 2,1,2,1 2 3\n");

	(void)state;
	f.opt.corrupted_column = "other";
	test_load_bad(&f, LENS_ERR_FORMAT, "They part at token 3: its end and 3");
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_no_tokenizer),
		cmocka_unit_test(test_several_answers),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_corrupted),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
