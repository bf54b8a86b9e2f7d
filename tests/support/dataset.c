/*
 * support/dataset.c: see dataset.h.
 */
#include "support/dataset.h"
#include "support/cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct lens_dataset_report test_report;

static struct lens_tokenizer *tokenizer;

static const char *const two_answers[] = { "correct", "incorrect" };

int test_data_setup(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	if (lens_tokenizer_open("tests/unit/data/tok_tiny", &tokenizer, &err) == LENS_OK)
		return 0;
	print_error("%s\n", err.text);
	return 1;
}

int test_data_teardown(void **state)
{
	(void)state;
	lens_tokenizer_destroy(tokenizer);
	return 0;
}

struct lens_dataset_options test_data_options(const char *csv)
{
	return (struct lens_dataset_options){ .csv = csv,
					      .separator = ',',
					      .prompt_column = "prompt",
					      .answer_columns = two_answers,
					      .n_answers = 2,
					      .read_pos = -1,
					      .prepend_bos = true,
					      .n_ctx = 32,
					      .d_vocab = TEST_N_VOCAB,
					      .tokenizer = tokenizer };
}

struct test_data test_data_begin_n(const char *csv, size_t n)
{
	struct test_data f = { .path = test_write_file("data.csv", csv, n),
			       .err = LENS_ERROR_INIT };

	f.opt = test_data_options(f.path);
	return f;
}

struct test_data test_data_begin(const char *csv)
{
	return test_data_begin_n(csv, strlen(csv));
}

enum lens_status test_load(struct test_data *f)
{
	lens_prompts_destroy(f->p);
	f->err = (struct lens_error)LENS_ERROR_INIT;
	return lens_prompts_load(&f->opt, &f->p, &test_report, &f->err);
}

void test_load_good(struct test_data *f)
{
	if (test_load(f) != LENS_OK)
		fail_msg("%s", f->err.text);
	assert_non_null(f->p);
}

void test_load_bad(struct test_data *f, enum lens_status want, const char *text)
{
	assert_int_equal(test_load(f), want);
	assert_null(f->p);
	if (!strstr(f->err.text, text))
		fail_msg("expected \"%s\", got \"%s\"", text, f->err.text);
}

void test_data_end(struct test_data *f)
{
	lens_prompts_destroy(f->p);
	remove(f->path);
	lens_free(f->path);
}

void test_assert_tokens(const struct lens_prompts *p, size_t row, size_t n, const int32_t *want)
{
	assert_int_equal(p->offset[row + 1] - p->offset[row], n);
	assert_memory_equal(p->tokens + p->offset[row], want, n * sizeof(*want));
}

enum lens_status test_see_text(void *ctx, const struct lens_prompt_text *t,
			       struct lens_error *err)
{
	struct test_seen_texts *s = ctx;
	size_t i;

	assert_int_equal(t->row, s->n++);
	LENS_TRY(lens_buf_printf(&s->text, err, "%s", t->prompt));
	for (i = 0; i < s->p->n_answers; i++)
		LENS_TRY(lens_buf_printf(&s->text, err, "|%s", t->answer[i]));
	for (i = 0; i < s->p->n_columns; i++)
		LENS_TRY(lens_buf_printf(&s->text, err, "|%s", t->column[i]));
	LENS_TRY(lens_buf_printf(&s->text, err, ";"));
	if (s->reply != LENS_OK)
		return lens_error_set(err, s->reply, "told to stop");
	return LENS_OK;
}

void test_assert_texts(struct test_data *f, const char *want)
{
	struct test_seen_texts s = { .p = f->p };
	struct lens_error err = LENS_ERROR_INIT;

	if (lens_prompts_each(&f->opt, f->p, test_see_text, &s, &err) != LENS_OK)
		fail_msg("%s", err.text);
	assert_int_equal(s.n, f->p->n_rows);
	assert_string_equal(s.text.data, want);
	lens_buf_release(&s.text);
}

void test_check_texts(const char *csv, const char *want)
{
	struct test_data f = test_data_begin(csv);

	test_load_good(&f);
	test_assert_texts(&f, want);
	test_data_end(&f);
}
