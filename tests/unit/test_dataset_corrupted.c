/*
 * test_dataset_corrupted.c: pairs of prompts: the tokens of the corrupted ones, what makes
 * a pair bad, what is warned of, and their texts.
 */
#include "support/cases.h"
#include "support/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { BOS = TEST_BOS, MARY = 259, JOHN = 263 };

#define PAIRS "prompt,corrupted,correct,incorrect,note\n"

static struct test_data begin(const char *csv)
{
	struct test_data f = test_data_begin(csv);

	f.opt.corrupted_column = "corrupted";
	return f;
}

static void assert_corrupted(const struct lens_prompts *p, size_t row, size_t n,
			     const int32_t *want)
{
	assert_int_equal(lens_prompt_length(p, row), n);
	assert_memory_equal(p->corrupted + p->offset[row], want, n * sizeof(*want));
}

/* Packed with the prompts' offsets, and no column besides. */
static void pairs(void **state)
{
	struct test_data f = begin(PAIRS "a Mary b,a John b, Mary, John,x\n"
					 " Mary, John, Mary, John,y\n");
	struct lens_prompts part;

	(void)state;
	test_load_good(&f);
	test_assert_tokens(f.p, 0, 5, (int32_t[]){ BOS, 'a', MARY, ' ', 'b' });
	assert_corrupted(f.p, 0, 5, (int32_t[]){ BOS, 'a', JOHN, ' ', 'b' });
	assert_corrupted(f.p, 1, 2, (int32_t[]){ BOS, JOHN });
	assert_int_equal(f.p->n_columns, 1);
	assert_string_equal(f.p->column_name[0], "note");
	part = lens_prompts_part(f.p, 1, 1);
	assert_corrupted(&part, 0, 2, (int32_t[]){ BOS, JOHN });
	f.opt.prepend_bos = false;
	test_load_good(&f);
	assert_corrupted(f.p, 1, 1, (int32_t[]){ JOHN });
	f.opt.corrupted_column = NULL;
	test_load_good(&f);
	assert_null(f.p->corrupted);
	assert_int_equal(f.p->n_columns, 2);
	test_data_end(&f);
}

static void bad(const char *row, const char *text)
{
	char csv[256], told[2200];
	struct test_data f;

	snprintf(csv, sizeof(csv), PAIRS " Mary, John, Mary, John,\n%s, Mary, John,\n", row);
	f = begin(csv);
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 1);
	assert_int_equal(test_report.n_bad, 1);
	lens_error_format(&test_report.bad[0], told, sizeof(told));
	if (!strstr(told, text))
		fail_msg("%s: expected \"%s\", got \"%s\"", row, text, told);
	test_data_end(&f);
}

static void bad_pairs(void **state)
{
	(void)state;
	bad("a Mary b,a John",
	    "data.csv:3: record 2: the prompt has 5 tokens and the corrupted one (column "
	    "'corrupted') 3 (BOS included); they must be as many. They part at token 2: ' Mary' "
	    "and ' John'");
	bad("a Mary,a Mary b", "They part at token 3: its end and ' '");
	bad("a Mary b,a Mary", "They part at token 3: ' ' and its end");
	bad("a,", "the corrupted prompt (column 'corrupted') is empty");
	bad(",a", "the prompt (column 'prompt') is empty");
	bad("a,a", "the corrupted prompt (column 'corrupted') has the prompt's tokens");
	bad("a,bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
	    "the corrupted prompt has 39 tokens with BOS; the model takes 32");
}

static void missing_column(void **state)
{
	struct test_data f = begin("prompt,corupted,correct,incorrect\na,b, Mary, John\n");

	(void)state;
	test_load_bad(&f, LENS_ERR_FORMAT, "no column 'corrupted' (did you mean 'corupted'?)");
	test_data_end(&f);
}

/* What differs only behind the token that is read changes nothing there. */
static void parts_late(void **state)
{
	struct test_data f = begin(PAIRS "ab,ac, Mary, John,\nab,cb, Mary, John,\n");
	const struct lens_error *first = &test_report.warning[LENS_ROW_PARTS_LATE].first;

	(void)state;
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_PARTS_LATE].n, 0);
	f.opt.read_pos = 1;
	test_load_good(&f);
	assert_int_equal(test_report.warning[LENS_ROW_PARTS_LATE].n, 1);
	assert_int_equal(first->row, 2);
	assert_non_null(strstr(first->text, "differs from the prompt from token 2 on, and the "
					    "tables read token 1"));
	test_data_end(&f);
}

/* The text to find is the clean prompt's. */
static void read_at_the_clean_one(void **state)
{
	struct test_data f = begin(PAIRS "a Mary b,a John b, Mary, John,\n");

	(void)state;
	f.opt.find = " Mary";
	test_load_good(&f);
	assert_int_equal(f.p->read_pos[0], 2);
	f.opt.find = " John";
	test_load_bad(&f, LENS_ERR_FORMAT, "the text ' John' is not in the prompt");
	test_data_end(&f);
}

/* --- texts ------------------------------------------------------------------------- */

static enum lens_status see_corrupted(void *ctx, const struct lens_prompt_text *t,
				      struct lens_error *err)
{
	return lens_buf_printf(ctx, err, "%s|%s;", t->prompt,
			       t->corrupted ? t->corrupted : "none");
}

static void texts(void **state)
{
	struct test_data f = begin(PAIRS "ab,\"a\"\"\", Mary, John,\nb,c, Mary, John,\n");
	struct lens_buf seen = LENS_BUF_INIT;
	FILE *file;

	(void)state;
	test_load_good(&f);
	assert_int_equal(lens_prompts_each(&f.opt, f.p, see_corrupted, &seen, NULL), LENS_OK);
	assert_string_equal(seen.data, "ab|a\";b|c;");
	/* Only the corrupted prompt of a row is another one. */
	file = fopen(f.path, "wb");
	assert_non_null(file);
	assert_true(fputs(PAIRS "ab,\"ad\", Mary, John,\nb,c, Mary, John,\n", file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(lens_prompts_each(&f.opt, f.p, see_corrupted, &seen, &f.err),
			 LENS_ERR_FORMAT);
	assert_non_null(strstr(f.err.text, "the file changed while it was in use"));
	/* Options that name the column, and a set that was read without it. */
	f.opt.corrupted_column = NULL;
	test_load_good(&f);
	seen.len = 0;
	assert_int_equal(lens_prompts_each(&f.opt, f.p, see_corrupted, &seen, NULL), LENS_OK);
	assert_string_equal(seen.data, "ab|none;b|none;");
	f.opt.corrupted_column = "corrupted";
	assert_int_equal(lens_prompts_each(&f.opt, f.p, see_corrupted, &seen, NULL),
			 LENS_ERR_FORMAT);
	lens_buf_release(&seen);
	test_data_end(&f);
}

static enum lens_status load(void *ctx)
{
	struct test_data *f = ctx;

	return test_load(f);
}

static void allocations(void **state)
{
	struct test_data f = begin(PAIRS "ab,cd, Mary, John,\n");

	(void)state;
	test_alloc_failures(load, &f);
	test_data_end(&f);
	f = begin(PAIRS "ab,cd, Mary, John,\na Mary b,a John, Mary, John,\n");
	f.opt.skip_bad_rows = true;
	test_alloc_failures(load, &f);
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pairs),
		cmocka_unit_test(bad_pairs),
		cmocka_unit_test(missing_column),
		cmocka_unit_test(parts_late),
		cmocka_unit_test(read_at_the_clean_one),
		cmocka_unit_test(texts),
		cmocka_unit_test(allocations),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
