/*
 * unit/test_dataset_places.c: where attention is cut: positions by text, rows that lack it,
 * and queries that would keep no key.
 */
#include "h5lens/dataset.h"
#include "support/cases.h"
#include "support/dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define H TEST_HEADER
#define LIST(...)                                                                              \
	(struct lens_places)                                                                   \
	{                                                                                      \
		.position = (long[]){ __VA_ARGS__ },                                           \
		.n = sizeof((long[]){ __VA_ARGS__ }) / sizeof(long)                            \
	}

static void set(struct test_data *f, const struct lens_places *from,
		const struct lens_places *to)
{
	f->opt.place[0] = from;
	f->opt.place[1] = to;
}

/* As data.read_pos finds it. */
static void test_found(void **state)
{
	const struct lens_places mary = { .find = (char *)" Mary", .nth = -1 };
	const struct lens_places correct = { .find_column = (char *)"correct" };
	struct test_data f = test_data_begin(H "the Mary met Mary or, Mary, John\n"
					       "the John met Mary, John, Mary\n");
	struct lens_prompts part;
	int32_t read_pos[2];

	(void)state;
	f.opt.find = " Mary";
	f.opt.nth = -1;
	test_load_good(&f);
	assert_null(f.p->found[0]);
	assert_null(f.p->found[1]);
	memcpy(read_pos, f.p->read_pos, sizeof(read_pos));
	f.opt.find = NULL;
	set(&f, &correct, &mary);
	test_load_good(&f);
	assert_memory_equal(f.p->found[1], read_pos, sizeof(read_pos));
	assert_true(f.p->found[0][0] < f.p->found[1][0]);
	assert_true(f.p->found[0][1] < f.p->found[1][1]);
	assert_int_equal(f.p->read_pos[1] + 1, lens_prompt_length(f.p, 1));
	part = lens_prompts_part(f.p, 1, 1);
	assert_int_equal(part.found[1][0], read_pos[1]);
	assert_int_equal(part.found[0][0], f.p->found[0][1]);
	set(&f, &LIST(0), &mary);
	test_load_good(&f);
	assert_null(f.p->found[0]);
	assert_memory_equal(f.p->found[1], read_pos, sizeof(read_pos));
	test_data_end(&f);
}

static void test_absent(void **state)
{
	struct lens_places mary = { .find = (char *)" Mary" }, column = { .n = 0 };
	struct test_data f = test_data_begin(
		"prompt,correct,incorrect,subject\nthe Mary met John, Mary, John, John\n"
		"the John met, Mary, John,\n");

	(void)state;
	set(&f, &LIST(0), &mary);
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 2: knockout.to: the text ' Mary' is not in the prompt");
	set(&f, &mary, &LIST(-1));
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 2: knockout.from: the text ' Mary' is not in the prompt");
	mary.nth = 1;
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 1: knockout.from: the text ' Mary' is in "
		      "the prompt, but only 1 of it: there is no nth 1");
	mary.nth = 0;
	column.find_column = (char *)"subject";
	set(&f, &LIST(0), &column);
	test_load_bad(&f, LENS_ERR_FORMAT,
		      "record 2: knockout.to: the text to find (column 'subject') is empty");
	f.opt.skip_bad_rows = true;
	test_load_good(&f);
	assert_int_equal(f.p->n_rows, 1);
	column.find_column = (char *)"subjct";
	test_load_bad(&f, LENS_ERR_FORMAT, "no column 'subjct' (did you mean 'subject'?)");
	test_data_end(&f);
}

#define NOTHING "it would have nothing to attend to"

/* Of a prompt with BOS, whose tokens are at 0, 1, …; a list may name what is not there. */
static void test_no_keys(void **state)
{
	const struct lens_places the = { .find = (char *)"the" };
	struct test_data f = test_data_begin(H "the Mary met John, Mary, John\n");

	(void)state;
	set(&f, &LIST(0), &LIST(0));
	test_load_bad(
		&f, LENS_ERR_FORMAT,
		"record 1: knockout.from has every key that the token at position 0 sees, "
		"and knockout.to has this token: " NOTHING);
	set(&f, &LIST(1, 0, 2, 30), &LIST(2));
	test_load_bad(&f, LENS_ERR_FORMAT, "position 2 sees");
	set(&f, &LIST(0, 1), &LIST(2, 5));
	test_load_good(&f);
	set(&f, &LIST(1, 2, 3), &LIST(1, 2, 3));
	test_load_good(&f);
	f.opt.prepend_bos = false;
	set(&f, &LIST(0, 1, 2), &the);
	test_load_bad(&f, LENS_ERR_FORMAT, NOTHING);
	f.opt.prepend_bos = true;
	test_load_good(&f);
	test_data_end(&f);
}

/* A window hides keys too. */
static void test_window(void **state)
{
	struct test_data f = test_data_begin(H "the Mary met John, Mary, John\n");

	(void)state;
	set(&f, &LIST(3, 4), &LIST(4));
	test_load_good(&f);
	f.opt.window = 2;
	test_load_bad(&f, LENS_ERR_FORMAT, "position 4 sees");
	set(&f, &LIST(3, 4), &LIST(5));
	test_load_good(&f);
	f.opt.window = 1;
	set(&f, &LIST(3), &LIST(3));
	test_load_bad(&f, LENS_ERR_FORMAT, "position 3 sees");
	test_data_end(&f);
}

static enum lens_status load(void *ctx)
{
	struct test_data *f = ctx;

	return test_load(f);
}

static void test_no_memory(void **state)
{
	const struct lens_places correct = { .find_column = (char *)"correct" };
	struct test_data f = test_data_begin(H "the Mary met John, Mary, John\n");

	(void)state;
	set(&f, &correct, &LIST(-1));
	test_alloc_failures(load, &f);
	test_data_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),     cmocka_unit_test(test_absent),
		cmocka_unit_test(test_no_keys),   cmocka_unit_test(test_window),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, test_data_setup, test_data_teardown);
}
