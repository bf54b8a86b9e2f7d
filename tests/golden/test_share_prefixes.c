/*
 * golden/test_share_prefixes.c: what prompts begin with is computed once or for each: the
 * same output, in every dataset, of every family; in caches, tables and interventions, in
 * batches of any size. Once per CPU level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/runs.h"
#include "support/samefile.h"

#define ROWS 300 /* batches of 16 */

/* --- prompts that begin alike ------------------------------------------------------ */

/* Of one token each. */
static const char *const words[] = { " the", " dog", " cat", " red", " John" };

/* Up to some place the words are those of all prompts; at `other` there is another one. */
static void put_prompt(FILE *f, size_t i, size_t other)
{
	size_t k, length = 2 + i * 7 % 13, common = i * 5 % 11;

	putc('"', f);
	for (k = 0; k < length; k++) {
		size_t word = k < common ? k * k : i * 3 + k * 7;

		fputs(words[(word + (k == other)) % 5], f);
	}
	putc('"', f);
}

static char *write_rows(void)
{
	char *path = test_tmp_path("alike.csv");
	FILE *f = fopen(path, "w");
	size_t i;

	assert_non_null(f);
	fputs("prompt,corrupted,correct,incorrect,several\n", f);
	for (i = 0; i < ROWS; i++) {
		size_t like = i % 6 == 5 ? i - 3 : i; /* some are twice in a batch */

		put_prompt(f, like, SIZE_MAX);
		putc(',', f);
		put_prompt(f, like, 1 + like % (1 + like * 7 % 13));
		fprintf(f, ", dog, John,%s\n", i % 2 ? " the dog and the cat" : " the dog");
	}
	assert_int_equal(fclose(f), 0);
	return path;
}

/* --- runs -------------------------------------------------------------------------- */

struct variation {
	const char *name, *rows, *threads;
	const char *setting[14]; /* key, value, … */
	size_t datasets;         /* at least so many are compared */
};

static const struct variation variations[] = {
	{ "everything",
	  "40",
	  "1",
	  { "cache.hooks", "*,logits,*hook_result", "tables", "all", "lens_positions", "all",
	    "attrs.positions", "all" },
	  60 },
	/* Of the last block only read positions go on: here one that prompts share … */
	{ "read positions", "40", "2", { "cache.hooks", "none", "data.read_pos", "2" }, 10 },
	/* … on several threads. */
	{ "a batch on threads", "8", "3", { "cache.hooks", "none", "data.read_pos", "2" }, 10 },
	{ "all positions on threads",
	  "7",
	  "3",
	  { "cache.hooks", "none", "tables", "all", "lens", "cached_scale_no_bias",
	    "lens_positions", "all", "attrs.positions", "all" },
	  30 },
	{ "last, halves",
	  "300",
	  "2",
	  { "cache.hooks", "*", "cache.positions", "last", "cache.dtype", "f16", "tables",
	    "none" },
	  30 },
	{ "halves",
	  "41",
	  "1",
	  { "cache.hooks", "*hook_z,*pattern,*resid_post", "cache.dtype", "f16" },
	  8 },
	{ "tables", "300", "2", { "cache.hooks", "none" }, 10 },
	{ "answers of several tokens",
	  "300",
	  "2",
	  { "cache.hooks", "none", "data.answers", "correct,several", "data.answer_tokens",
	    "any" },
	  8 },
	{ "patching",
	  "20",
	  "2",
	  { "cache.hooks", "none", "data.corrupted", "corrupted", "patch.grids",
	    "resid_pre,attn_head_out_all_pos,attn_head_pattern_all_pos", "data.on_bad_row",
	    "skip" },
	  10 },
	{ "ablation",
	  "40",
	  "2",
	  { "cache.hooks", "none", "ablate.grids", "attn_out,mlp_out", "ablate.value", "mean" },
	  10 },
};
enum { N_VARIATIONS = sizeof(variations) / sizeof(*variations) };

static char *run(const char *model, const char *csv, const struct variation *v,
		 const char *share)
{
	struct lens_experiment e;
	char *output = test_tmp_path(share), dir[128];
	size_t i;

	snprintf(dir, sizeof(dir), "tests/golden/data/%s", model);
	test_experiment(&e, dir, csv, output);
	test_set(&e, "data.limit", v->rows, "threads", v->threads, "share_prefixes", share,
		 NULL);
	for (i = 0; v->setting[i]; i += 2)
		test_set(&e, v->setting[i], v->setting[i + 1], NULL);
	test_run(&e);
	lens_experiment_release(&e);
	return output;
}

static void check_model(void **state)
{
	const char *model = *state;
	char *csv = write_rows();
	size_t i;

	for (i = 0; i < N_VARIATIONS; i++) {
		char *with = run(model, csv, &variations[i], "true");
		char *without = run(model, csv, &variations[i], "false");
		size_t n = test_same_file(with, without);

		if (n < variations[i].datasets)
			fail_msg("%s: only %zu datasets", variations[i].name, n);
		unlink(with);
		unlink(without);
		lens_free(with);
		lens_free(without);
	}
	unlink(csv);
	lens_free(csv);
}

int main(void)
{
	static char model[][32] = { "gpt2_gelu", "gpt_neo_local",
				    "gpt_neox",  "gpt_neox_sequential",
				    "llama_gqa", "mistral",
				    "qwen2" };
	enum { N_MODELS = sizeof(model) / sizeof(*model) };
	struct CMUnitTest tests[N_MODELS];
	size_t i;

	for (i = 0; i < N_MODELS; i++)
		tests[i] = (struct CMUnitTest){ model[i], check_model, NULL, NULL, model[i] };
	return _cmocka_run_group_tests("share_prefixes", tests, test_quick() ? 1 : N_MODELS,
				       NULL, NULL);
}
