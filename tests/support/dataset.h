/*
 * support/dataset.h: what the tests of the prompt set share: the tokenizer
 * tok_tiny, one CSV text with its options and what it gives, loads that must
 * succeed or fail, and the texts of the second reading. A call that fails
 * fails the test.
 */
#ifndef LENS_TEST_DATASET_H
#define LENS_TEST_DATASET_H

#include "h5lens/dataset.h"

enum { TEST_BOS = 282, TEST_N_VOCAB = 283 }; /* of tok_tiny */

/* The columns of test_data_options. */
#define TEST_HEADER "prompt,correct,incorrect\n"

/* cmocka group setup and teardown: the tokenizer that the options name. */
int test_data_setup(void **state);
int test_data_teardown(void **state);

struct lens_dataset_options test_data_options(const char *csv);

/* One CSV text with its options and what it gives. */
struct test_data {
	char *path;
	struct lens_dataset_options opt;
	struct lens_prompts *p;
	struct lens_error err;
};

struct test_data test_data_begin_n(const char *csv, size_t n);
struct test_data test_data_begin(const char *csv);
void test_data_end(struct test_data *f);

/* What the last load reported. */
extern struct lens_dataset_report test_report;

enum lens_status test_load(struct test_data *f);
void test_load_good(struct test_data *f);
/* The error must contain text. */
void test_load_bad(struct test_data *f, enum lens_status want, const char *text);

void test_assert_tokens(const struct lens_prompts *p, size_t row, size_t n,
			const int32_t *want);

/* --- texts, a second time -------------------------------------------------- */

struct test_seen_texts {
	struct lens_buf text; /* "prompt|answers|columns;" a row */
	size_t n;
	const struct lens_prompts *p;
	enum lens_status reply;
};

/* For lens_prompts_each: appends a row to the struct test_seen_texts that ctx is. */
enum lens_status test_see_text(void *ctx, const struct lens_prompt_text *t,
			       struct lens_error *err);
void test_assert_texts(struct test_data *f, const char *want);
/* A CSV text that must load, and its texts. */
void test_check_texts(const char *csv, const char *want);

#endif
