/*
 * golden/test_head_scores.c: head_scores and head_scores_mean in the file, by the
 * definition spelled out in masks: beside the stored patterns, beside the float64
 * truth's, without storing any, in shards, and of prompts of one token. Once per CPU
 * level (H5LENS_TEST_CPU).
 */
#include <glob.h>
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

enum { PREVIOUS, CURRENT, FIRST, DUPLICATE, INDUCTION, N_SCORES };

static const char *const labels[] = { "previous_token", "current_token", "first_token",
				      "duplicate_token", "induction" };

/* Layer norm; windows; grouped queries and rotary positions. */
static const char *const models[] = { "gpt2_gelu_new", "gpt_neo_local", "llama_gqa" };

/* A prompt's patterns, and its tokens. */
struct prompt {
	const double *token, *pattern; /* [length], [head, n_pos, n_pos] */
	size_t length, n_pos;
};

static bool is_on(const struct prompt *p, int score, size_t q, size_t k)
{
	switch (score) {
	case PREVIOUS:
		return k + 1 == q;
	case CURRENT:
		return k == q;
	case FIRST:
		return k == 0;
	case DUPLICATE:
		return k < q && p->token[k] == p->token[q];
	default:
		return k >= 1 && k <= q && p->token[k - 1] == p->token[q];
	}
}

/* Both tables' values of one head, from the definition. */
static void define(const struct prompt *p, size_t head, int score, double *share, double *mean)
{
	const double *a = p->pattern + head * p->n_pos * p->n_pos;
	double on = 0, all = 0, shares = 0;
	size_t q, k, queries = 0;

	for (q = 0; q < p->length; q++) {
		double row_on = 0, row_all = 0;
		bool any = false;

		for (k = 0; k <= q; k++) {
			double x = a[q * p->n_pos + k];

			row_all += x;
			row_on += is_on(p, score, q, k) ? x : 0;
			any |= is_on(p, score, q, k);
		}
		on += row_on;
		all += row_all;
		shares += any ? row_on / row_all : 0;
		queries += any;
	}
	*share = on / all;
	*mean = queries ? shares / (double)queries : NAN;
}

/* A file's tables. */
struct scores {
	struct test_array share, mean, token, length;
};

static void read_scores(const struct test_h5 *f, struct scores *s)
{
	test_h5_f64(f, "/results/head_scores", &s->share);
	test_h5_f64(f, "/results/head_scores_mean", &s->mean);
	test_h5_f64(f, "/prompts/tokens", &s->token);
	test_h5_f64(f, "/prompts/length", &s->length);
	assert_int_equal(s->share.rank, 4);
	assert_int_equal(s->share.extent[3], N_SCORES);
	assert_true(s->share.floating && s->share.size == 4);
	assert_memory_equal(s->share.extent, s->mean.extent, sizeof(s->share.extent));
}

static void release_scores(struct scores *s)
{
	test_array_release(&s->share);
	test_array_release(&s->mean);
	test_array_release(&s->token);
	test_array_release(&s->length);
}

static void near_or_nan(double is, double should, double tolerance)
{
	assert_true(isnan(is) == isnan(should));
	if (!isnan(should))
		test_near(is, should, tolerance, "head score", 0);
}

/* One layer of one prompt. Returns how many scores are no NaN. */
static size_t compare(const struct scores *s, size_t row, size_t layer, const double *pattern,
		      size_t n_pos, double tolerance)
{
	size_t heads = s->share.extent[2], head, n = 0;
	const struct prompt p = { .token = s->token.f64 + row * s->token.extent[1],
				  .pattern = pattern,
				  .length = (size_t)s->length.f64[row],
				  .n_pos = n_pos };
	int score;

	for (head = 0; head < heads; head++) {
		for (score = 0; score < N_SCORES; score++) {
			size_t at =
				((row * s->share.extent[1] + layer) * heads + head) * N_SCORES +
				(size_t)score;
			double share, mean;

			define(&p, head, score, &share, &mean);
			near_or_nan(s->share.f64[at], share, tolerance);
			near_or_nan(s->mean.f64[at], mean, tolerance);
			n += (size_t)!isnan(mean);
		}
	}
	return n;
}

/*
 * Beside the patterns of the same run: both sum the same float32 values in float64,
 * and the file rounds once, a value of at most 1.
 */
static void beside_patterns(const struct test_h5 *f, const struct scores *s)
{
	size_t layer, row, n = 0;

	for (layer = 0; layer < s->share.extent[1]; layer++) {
		struct test_array a;
		char path[80];

		snprintf(path, sizeof(path), "/cache/blocks.%zu.attn.hook_pattern", layer);
		test_h5_f64(f, path, &a);
		for (row = 0; row < s->length.n; row++)
			n += compare(s, row, layer, a.f64 + row * a.n / a.extent[0],
				     a.extent[2], 2 * TEST_U);
		test_array_release(&a);
	}
	assert_true(n > 0);
}

/* Beside the float64 truth's: 1e-5, what the tables promise. */
static void beside_truth(const char *model, const struct scores *s)
{
	static const size_t rows[] = { 1, 2 }; /* whose patterns it keeps */
	char path[120];
	struct test_h5 *truth;
	size_t layer, i, n = 0;

	snprintf(path, sizeof(path), "tests/golden/data/%s/truth.h5", model);
	truth = test_h5_open(path);
	for (i = 0; i < 2; i++) {
		for (layer = 0; layer < s->share.extent[1]; layer++) {
			struct test_array a;

			snprintf(path, sizeof(path),
				 "/processed/%zu/blocks.%zu.attn.hook_pattern", rows[i], layer);
			if (!test_h5_has(truth, path))
				continue;
			test_h5_f64(truth, path, &a);
			n += compare(s, rows[i], layer, a.f64, a.extent[1], 1e-5);
			test_array_release(&a);
		}
	}
	assert_true(n > 0);
	test_h5_close(truth);
}

static void run(const char *model, const char *output, const char *hooks, const char *shards)
{
	char dir[120], csv[140];
	struct lens_experiment e;

	snprintf(dir, sizeof(dir), "tests/golden/data/%s", model);
	snprintf(csv, sizeof(csv), "%s/prompts.csv", dir);
	test_experiment(&e, dir, csv, output);
	test_set(&e, "tables", "head_scores,head_scores_mean", "cache.hooks", hooks,
		 "shards.prompts", shards, NULL);
	test_run(&e);
	lens_experiment_release(&e);
}

/* out.h5 and what lies in out.shards. */
static void remove_sweep(const char *output)
{
	char pattern[300];
	glob_t found;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%.*s.shards", (int)(strlen(output) - 3), output);
	unlink(output);
	strcat(pattern, "/*");
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	for (i = 0; i < found.gl_pathc; i++)
		unlink(found.gl_pathv[i]);
	globfree(&found);
	pattern[strlen(pattern) - 2] = '\0';
	assert_int_equal(rmdir(pattern), 0);
}

static void by_definition(void **state)
{
	char *whole = test_tmp_path("scores.h5"), *part = test_tmp_path("parts.h5");
	const struct test_same same = { whole, part, NULL, true };
	size_t m;
	int i;

	(void)state;
	for (m = 0; m < sizeof(models) / sizeof(*models); m++) {
		struct test_names found;
		struct scores s;
		struct test_h5 *f;

		run(models[m], whole, "*hook_pattern", "auto");
		f = test_h5_open(whole);
		read_scores(f, &s);
		beside_patterns(f, &s);
		beside_truth(models[m], &s);
		test_h5_strings(f, "/score", &found);
		assert_int_equal(found.n, N_SCORES);
		for (i = 0; i < N_SCORES; i++)
			assert_string_equal(found.v[i], labels[i]);
		test_names_release(&found);
		release_scores(&s);
		test_h5_close(f);
		/* without storing them, in shards: the same bits, flags too */
		run(models[m], part, "none", "2");
		assert_int_equal(test_same_bits(&same), 3);
		unlink(whole);
		remove_sweep(part);
	}
	lens_free(whole);
	lens_free(part);
}

/* A query of its own: nothing before it. TransformerLens's detect_head refuses it. */
static void one_token(void **state)
{
	static const double share[] = { 0, 1, 1, 0, 0 }, mean[] = { NAN, 1, 1, NAN, NAN };
	char *csv = test_tmp_path("one.csv"), *output = test_tmp_path("one.h5");
	struct lens_experiment e;
	struct scores s;
	struct test_h5 *f;
	FILE *out = fopen(csv, "w");
	size_t i;

	(void)state;
	assert_non_null(out);
	fputs("prompt\n the\n", out);
	fclose(out);
	test_experiment(&e, "tests/golden/data/gpt2_gelu_new", csv, output);
	test_set(&e, "tables", "head_scores,head_scores_mean", "cache.hooks", "none",
		 "data.answers", "[]", "data.prepend_bos", "false", NULL);
	test_run(&e);
	lens_experiment_release(&e);
	f = test_h5_open(output);
	read_scores(f, &s);
	for (i = 0; i < s.share.n; i++) {
		near_or_nan(s.share.f64[i], share[i % N_SCORES], 0);
		near_or_nan(s.mean.f64[i], mean[i % N_SCORES], 0);
	}
	assert_true(s.share.n > 0);
	release_scores(&s);
	test_h5_close(f);
	unlink(csv);
	unlink(output);
	lens_free(csv);
	lens_free(output);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_definition),
		cmocka_unit_test(one_token),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
