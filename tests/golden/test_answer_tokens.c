/*
 * golden/test_answer_tokens.c: answers of any number of tokens, in every golden model:
 * each token's rank, and the sums, against runs whose prompts end before that token;
 * answers of one token, which have the same bits with `any` and without; the same bits
 * in shards, in another order and on other threads. Once per CPU level
 * (H5LENS_TEST_CPU).
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/h5file.h"
#include "support/numbers.h"
#include "support/runs.h"
#include "support/samebits.h"
#include "support/sweeps.h"

enum { ROWS = 40, ANSWERS = 2, MOST_WORDS = 9, MOST_TOKENS = 6 };

static const char *const models[] = { "gpt2_gelu",     "gpt2_unscaled", "gpt_neo",
				      "gpt_neo_local", "gpt_neox",      "gpt_neox_sequential",
				      "llama",         "llama_gqa",     "mistral",
				      "qwen2",         "llama_llama3" };
/* One token each, behind any other. */
static const char *const words[] = { " the", " dog",  " and",  " cat",
				     " to",  " gave", " Mary", " John" };

/* Texts as indices into words; read at the token of word at − 1, BOS being token 0. */
struct row {
	size_t prompt[MOST_WORDS], n, at;
	size_t answer[ANSWERS][MOST_TOKENS], length[ANSWERS];
};
static struct row rows[ROWS];

static int make_rows(void **state)
{
	struct test_random r = { 11 };
	size_t i, k, j;

	(void)state;
	for (i = 0; i < ROWS; i++) {
		rows[i].n = 1 + test_random_below(&r, MOST_WORDS);
		rows[i].at = 1 + test_random_below(&r, rows[i].n);
		for (j = 0; j < rows[i].n; j++)
			rows[i].prompt[j] = test_random_below(&r, 8);
		for (k = 0; k < ANSWERS; k++) {
			rows[i].length[k] = 1 + test_random_below(&r, MOST_TOKENS);
			for (j = 0; j < rows[i].length[k]; j++)
				rows[i].answer[k][j] = test_random_below(&r, 8);
		}
	}
	return 0;
}

static void put_words(FILE *f, const size_t *word, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		fputs(words[word[i]], f);
}

/* The rows first … of the set, with the whole answers or their first `most` tokens. */
static char *write_rows(const char *name, size_t most, bool backwards)
{
	char *path = test_tmp_path(name);
	FILE *f = fopen(path, "w");
	size_t i, k;

	assert_non_null(f);
	fprintf(f, "prompt,correct,incorrect,at\n");
	for (i = 0; i < ROWS; i++) {
		const struct row *r = &rows[backwards ? ROWS - 1 - i : i];

		put_words(f, r->prompt, r->n);
		for (k = 0; k < ANSWERS; k++) {
			fputc(',', f);
			put_words(f, r->answer[k], lens_min(r->length[k], most));
		}
		fprintf(f, ",%zu\n", r->at);
	}
	assert_int_equal(fclose(f), 0);
	return path;
}

/* A row for each token of each answer: the prompt as far as it is read, and those before. */
static char *write_plain(const char *name)
{
	char *path = test_tmp_path(name);
	FILE *f = fopen(path, "w");
	size_t i, k, j;

	assert_non_null(f);
	fprintf(f, "prompt,correct\n");
	for (i = 0; i < ROWS; i++) {
		for (k = 0; k < ANSWERS; k++) {
			for (j = 0; j < rows[i].length[k]; j++) {
				put_words(f, rows[i].prompt, rows[i].at);
				put_words(f, rows[i].answer[k], j);
				fprintf(f, ",%s\n", words[rows[i].answer[k][j]]);
			}
		}
	}
	assert_int_equal(fclose(f), 0);
	return path;
}

static struct lens_experiment experiment(const char *model, const char *csv, const char *output)
{
	struct lens_experiment e;
	char *dir = lens_path_join("tests/golden/data", model);

	test_experiment(&e, dir, csv, output);
	test_set(&e, "cache.hooks", "none", NULL);
	lens_free(dir);
	return e;
}

static char *run(const char *model, const char *csv, const char *name, const char *tables,
		 bool any)
{
	char *output = test_tmp_path(name);
	struct lens_experiment e = experiment(model, csv, output);

	test_set(&e, "tables", tables, NULL);
	if (any)
		test_set(&e, "data.answer_tokens", "any", "data.read_pos", "at", NULL);
	else if (!strstr(csv, "plain"))
		test_set(&e, "data.read_pos", "at", NULL);
	else
		test_set(&e, "data.answers", "correct", NULL);
	test_run(&e);
	lens_experiment_release(&e);
	return output;
}

static void drop(char *path)
{
	unlink(path);
	lens_free(path);
}

static struct test_array read_array(const char *path, const char *name)
{
	struct test_h5 *f = test_h5_open(path);
	struct test_array a;

	test_h5_f64(f, name, &a);
	test_h5_close(f);
	return a;
}

/* --- against prompts that end before each token ----------------------------------------- */

struct outcome {
	struct test_array logprob, diff, rank, tokens;  /* with any */
	struct test_array plain, plain_rank, plain_ids; /* a row a token */
};

static void release(struct outcome *o)
{
	struct test_array *a[] = { &o->logprob, &o->diff,       &o->rank,     &o->tokens,
				   &o->plain,   &o->plain_rank, &o->plain_ids };
	size_t i;

	for (i = 0; i < sizeof(a) / sizeof(*a); i++)
		test_array_release(a[i]);
}

/*
 * One answer, whose tokens' own rows begin at *at: its sum, in float64. The sum was
 * rounded once to float32, each of its parts here too: half a unit in the last place each.
 */
static double check_answer(const struct outcome *o, size_t row, size_t k, size_t *at,
			   double *bound)
{
	size_t width = o->rank.extent[2], j, first = (row * ANSWERS + k) * width;
	double sum = 0, is = o->logprob.f64[row * ANSWERS + k];

	*bound = fabs(is);
	for (j = 0; j < width; j++) {
		if (j >= rows[row].length[k]) {
			assert_true(o->rank.f64[first + j] == -1);
			assert_true(o->tokens.f64[first + j] == -1);
			continue;
		}
		assert_true(o->tokens.f64[first + j] == o->plain_ids.f64[*at]);
		assert_true(o->rank.f64[first + j] == o->plain_rank.f64[*at]);
		sum += o->plain.f64[*at];
		*bound += fabs(o->plain.f64[*at]);
		++*at;
	}
	*bound *= (double)FLT_EPSILON / 2;
	if (rows[row].length[k] == 1)
		assert_true(is == sum);
	assert_true(is < 0 && fabs(is - sum) <= *bound);
	return sum;
}

static void check_outcome(const struct outcome *o)
{
	size_t row, k, at = 0;

	assert_int_equal(o->rank.extent[2], MOST_TOKENS);
	for (row = 0; row < ROWS; row++) {
		double sum[ANSWERS], bound[ANSWERS], diff = o->diff.f64[row];

		for (k = 0; k < ANSWERS; k++)
			sum[k] = check_answer(o, row, k, &at, &bound[k]);
		assert_true(fabs(diff - (sum[0] - sum[1])) <=
			    bound[0] + bound[1] + fabs(diff) * (double)FLT_EPSILON / 2);
	}
	assert_int_equal(at, o->plain.n);
}

static void test_token_by_token(void **state)
{
	char *csv = write_rows("any.csv", MOST_TOKENS, false),
	     *single = write_plain("plain.csv");
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(models) / sizeof(*models); i++) {
		char *any = run(models[i], csv, "any.h5", "default", true);
		char *plain =
			run(models[i], single, "plain.h5", "answer_logprob,answer_rank", false);
		struct outcome o = { read_array(any, "/results/answer_logprob"),
				     read_array(any, "/results/logit_diff"),
				     read_array(any, "/results/answer_token_rank"),
				     read_array(any, "/prompts/answer_tokens"),
				     read_array(plain, "/results/answer_logprob"),
				     read_array(plain, "/results/answer_rank"),
				     read_array(plain, "/prompts/answers") };

		check_outcome(&o);
		release(&o);
		drop(any);
		drop(plain);
	}
	drop(csv);
	drop(single);
}

/* --- answers of one token ----------------------------------------------------------------- */

static void same_values(const char *x, const char *path_x, const char *y, const char *path_y)
{
	struct test_array a = read_array(x, path_x), b = read_array(y, path_y);

	assert_int_equal(a.n, b.n);
	assert_memory_equal(a.f64, b.f64, a.n * sizeof(*a.f64));
	test_array_release(&a);
	test_array_release(&b);
}

static void test_one_token(void **state)
{
	char *csv = write_rows("single.csv", 1, false);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(models) / sizeof(*models); i++) {
		char *any = run(models[i], csv, "any.h5", "default", true);
		char *one = run(models[i], csv, "one.h5", "[default, answer_logprob]", false);
		struct test_h5 *f = test_h5_open(any);

		same_values(any, "/results/answer_logprob", one, "/results/answer_logprob");
		same_values(any, "/results/answer_token_rank", one, "/results/answer_rank");
		same_values(any, "/prompts/answer_tokens", one, "/prompts/answers");
		same_values(any, "/results/top_logits", one, "/results/top_logits");
		same_values(any, "/results/flags", one, "/results/flags");
		assert_false(test_h5_has(f, "/prompts/answers"));
		assert_false(test_h5_has(f, "/results/answer_rank"));
		test_h5_close(f);
		drop(any);
		drop(one);
	}
	drop(csv);
}

/* --- the same bits ---------------------------------------------------------------- */

static void remove_shards(const char *output)
{
	struct lens_buf path = LENS_BUF_INIT;

	assert_int_equal(lens_buf_printf(&path, NULL, "%.*s.shards", (int)strlen(output) - 3,
					 output),
			 LENS_OK);
	test_remove_tree(path.data);
	lens_buf_release(&path);
}

/* The rows in either order, compared with all tables on one thread. */
static void test_same_whatever(void **state)
{
	static const char *const settings[][2] = { { "threads", "3" },
						   { "shards.prompts", "7" },
						   { "tables", "all" },
						   { "tables", "answer_logprob" } };
	static const size_t n[] = { 7, 7, 19, 2 }; /* with the flags */
	char *csv = write_rows("any.csv", MOST_TOKENS, false);
	char *back = write_rows("back.csv", MOST_TOKENS, true);
	char *whole = run("llama_gqa", csv, "whole.h5", "all", true);
	char *other = test_tmp_path("other.h5");
	size_t i, map[ROWS];

	(void)state;
	for (i = 0; i < ROWS; i++)
		map[i] = ROWS - 1 - i;
	for (i = 0; i < 2 * 4; i++) {
		struct lens_experiment e = experiment("llama_gqa", i % 2 ? back : csv, other);
		const struct test_same same = { whole, other, i % 2 ? map : NULL, true };

		test_set(&e, "data.answer_tokens", "any", "data.read_pos", "at",
			 settings[i / 2][0], settings[i / 2][1], NULL);
		test_run(&e);
		assert_int_equal(test_same_bits(&same), n[i / 2]);
		lens_experiment_release(&e);
		unlink(other);
		remove_shards(other);
	}
	drop(whole);
	drop(csv);
	drop(back);
	lens_free(other);
}

/* --- the summary ------------------------------------------------------------------ */

/* Every token of the first answer on top: the greedy continuation of each prompt. */
static void test_summary(void **state)
{
	char *csv = write_rows("any.csv", MOST_TOKENS, false);
	char *any = run("gpt2_gelu", csv, "any.h5", "default", true);
	struct test_array rank = read_array(any, "/results/answer_token_rank");
	struct test_array diff = read_array(any, "/results/logit_diff");
	size_t i, j, top = 0, positive = 0;
	struct lens_summary s;

	(void)state;
	for (i = 0; i < ROWS; i++) {
		for (j = 0; j < rows[i].length[0]; j++) {
			if (rank.f64[i * ANSWERS * MOST_TOKENS + j] > 0)
				break;
		}
		top += j == rows[i].length[0];
		positive += diff.f64[i] > 0;
	}
	assert_int_equal(lens_summary_read(any, &s, NULL), LENS_OK);
	assert_true(s.any_tokens && s.n_answers == ANSWERS);
	assert_true(s.top1 == (double)top / ROWS);
	assert_true(s.logit_diff_positive == (double)positive / ROWS);
	lens_summary_release(&s);
	test_array_release(&rank);
	test_array_release(&diff);
	drop(any);
	drop(csv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_token),
		cmocka_unit_test(test_token_by_token),
		cmocka_unit_test(test_same_whatever),
		cmocka_unit_test(test_summary),
	};

	return cmocka_run_group_tests(tests, make_rows, NULL);
}
