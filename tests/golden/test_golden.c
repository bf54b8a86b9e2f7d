/*
 * golden/test_golden.c: whole runs on the tiny models of tests/golden/data
 * beside their float64 truth (scripts/make_golden.py), once per CPU level
 * (H5LENS_TEST_CPU). A model is a folder there: every family, variant and kind
 * of file.
 *
 * The six prompts have lengths from 2 to 36 tokens and form one batch. Errors
 * are in units of the RMS of the truth's finite values in a dataset. Two rules
 * hold: the largest error of a dataset keeps a limit that its operation
 * explains, and a family's hook points keep the rule of support/fidelity.h: no
 * further from the truth than TransformerLens is.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/tables.h"
#include "support/h5file.h"
#include "support/runs.h"
#include "support/truth.h"

#define ROOT "tests/golden/data"
#define MOST_MODELS 96
#define FIXED 2 /* tests that are not one model's */

/*
 * What is allowed: about three times the largest error of the GPT-2 models, and
 * no more for the other families (the largest errors on a CPU level are printed
 * at the end of a run). Errors of single
 * operations are near 1e-7; what makes 1e-6 of them is that the largest of some
 * thousand values counts, several times the RMS itself, after two or three
 * blocks.
 */
static struct test_kind kinds[] = {
	/*
	 * The weights themselves: processing is in float64, so one rounding to
	 * float32 (6e-8 of the largest value, 4 RMS) and nothing more.
	 */
	{ .name = "hook_embed", .limit = 3e-7 },
	{ .name = "hook_pos_embed", .limit = 4.5e-7 },
	/*
	 * Sums over d_model of values around zero: the error is that of the residual
	 * stream averaged over its columns, so much less than a column's.
	 */
	{ .name = "ln1.hook_scale", .limit = 6e-7 },
	{ .name = "ln2.hook_scale", .limit = 6e-7 },
	{ .name = "ln_final.hook_scale", .limit = 6e-7 },
	/* Sums of everything that was written before, each with its own error. */
	{ .name = "hook_resid_pre", .limit = 4e-6 },
	{ .name = "hook_resid_mid", .limit = 4e-6 },
	{ .name = "hook_resid_post", .limit = 4e-6 },
	/* The residual stream's error divided by its scale: the same, relatively. */
	{ .name = "ln1.hook_normalized", .limit = 4e-6 },
	{ .name = "ln2.hook_normalized", .limit = 4e-6 },
	{ .name = "ln_final.hook_normalized", .limit = 4e-6 },
	/* One product over d_model (16 to 36 terms) of the above. */
	{ .name = "attn.hook_q", .limit = 4e-6 },
	{ .name = "attn.hook_k", .limit = 4e-6 },
	{ .name = "attn.hook_v", .limit = 4e-6 },
	/* Over d_head, so fewer: a head's scale has more of its queries' error. */
	{ .name = "attn.q_norm.hook_scale", .limit = 2e-6 },
	{ .name = "attn.k_norm.hook_scale", .limit = 2e-6 },
	{ .name = "attn.q_norm.hook_normalized", .limit = 4e-6 },
	{ .name = "attn.k_norm.hook_normalized", .limit = 4e-6 },
	/* Norms of what is added: relative to its scale, as those of the stream. */
	{ .name = "ln1_post.hook_scale", .limit = 2e-6 },
	{ .name = "ln2_post.hook_scale", .limit = 2e-6 },
	{ .name = "ln1_post.hook_normalized", .limit = 4.5e-6 },
	{ .name = "ln2_post.hook_normalized", .limit = 6e-6 },
	/* A rotation adds the errors of two values, and of sine and cosine. */
	{ .name = "attn.hook_rot_q", .limit = 4e-6 },
	{ .name = "attn.hook_rot_k", .limit = 4e-6 },
	/*
	 * A product over d_model and exp of it: a logit's absolute error becomes relative, as
	 * in a pattern, but their RMS is that of a few experts. Which ones are chosen is
	 * exact: in the tiny models no two weights that decide it are near each other.
	 */
	{ .name = "mlp.hook_expert_weights", .limit = 6e-6 },
	{ .name = "mlp.hook_expert_indices", .limit = 0 },
	{ .name = "mlp.hook_pre", .limit = 5e-6 },
	{ .name = "mlp.hook_pre_linear", .limit = 5e-6 },
	/*
	 * x·softmax(x) of a row: exp makes hook_pre's absolute error a relative one, as in a
	 * pattern, and the largest values are most of the RMS.
	 */
	{ .name = "mlp.hook_mid", .limit = 1.6e-5 },
	{ .name = "mlp.ln.hook_scale", .limit = 3e-6 },
	{ .name = "mlp.ln.hook_normalized", .limit = 1.6e-5 },
	/* q·k: the errors of two factors. */
	{ .name = "attn.hook_attn_scores", .limit = 6e-6 },
	/*
	 * exp turns a score's absolute error into a relative one, and the RMS of a
	 * pattern is several times smaller than its largest values.
	 */
	{ .name = "attn.hook_pattern", .limit = 1.4e-5 },
	/*
	 * Pattern and values mixed; a pattern's errors cancel in part, as its rows
	 * sum to one.
	 */
	{ .name = "attn.hook_z", .limit = 4e-6 },
	{ .name = "attn.hook_result", .limit = 6e-6 },
	{ .name = "hook_attn_out", .limit = 4.5e-6 },
	/* The activation passes hook_pre's error on to values whose RMS is smaller. */
	{ .name = "mlp.hook_post", .limit = 8e-6 },
	{ .name = "hook_mlp_out", .limit = 6e-6 },
	/*
	 * One product more over d_model. A difference of two logits that are alike
	 * is smaller than what it is made of.
	 */
	{ .name = "logits", .limit = 6e-6 },
	{ .name = "answer_logit", .limit = 4.5e-6 },
	{ .name = "lens_logit", .limit = 6e-6 },
	{ .name = "top_logits", .limit = 3.5e-6 },
	{ .name = "logit_diff", .limit = 7e-6 },
	/* A logit's error and that of the log of a sum over all tokens. */
	{ .name = "token_logprobs", .limit = 4e-6 },
	{ .name = "loss", .limit = 4e-6 },
	/* A logit's absolute error (logits have an RMS of about 4) becomes relative. */
	{ .name = "answer_prob", .limit = 3e-5 },
	{ .name = "top_probs", .limit = 3e-5 },
	/* The same at every position. */
	{ .name = "pos_top_logits", .limit = 6e-6 },
	{ .name = "pos_top_probs", .limit = 3e-5 },
	/*
	 * A logit's error enters times p·(log p + entropy), which over all tokens is less
	 * than one and a half; the RMS of an entropy is half of a logit's.
	 */
	{ .name = "entropy", .limit = 8e-6 },
	{ .name = "lens_logit_diff", .limit = 7e-6 },
	/*
	 * One product over d_model, in float64 of what is float32, of a component or a
	 * head's result: so their errors (hook_mlp_out, hook_result), relatively, and the
	 * scale's. Where an MLP writes much more than the other components, its error
	 * counts in units of their RMS.
	 */
	{ .name = "logit_attrs", .limit = 8e-6 },
	{ .name = "head_attrs", .limit = 6e-6 },
	/*
	 * One value of mlp.hook_post (8e-6) times what its row of W_out has for the
	 * answer: the largest are three times their RMS.
	 */
	{ .name = "neuron_attrs", .limit = 2.4e-5 },
	{ .name = "top_neuron_attr", .limit = 8e-6 },
	/*
	 * A pattern's errors averaged over a prompt's queries, or over as few as one
	 * for the mean; what is beside a key that counts is of the same sum of one.
	 */
	{ .name = "head_scores", .limit = 2e-6 },
	{ .name = "head_scores_mean", .limit = 3e-6 },
};
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

/*
 * The models of a family have one forward pass; the first prefix that fits.
 * Refactored weights go by themselves: TransformerLens's SVD in float32 is far
 * from the truth.
 */
static struct family {
	const char *name, *prefix;
	struct test_fidelity fidelity;
} families[] = {
	{ "refactored", NULL, { 0 } },
	{ "gpt2", "gpt2", { 0 } },
	{ "gpt_neox", "gpt_neox", { 0 } },
	{ "gpt_neo", "gpt_neo", { 0 } },
	{ "hooked_transformer", "own_", { 0 } },
	{ "gemma, gemma2", "gemma", { 0 } },
	{ "llama, mistral, mixtral, qwen2, qwen3", "", { 0 } },
};
#define N_FAMILIES (sizeof(families) / sizeof(*families))

/* Those that TransformerLens 2.16 does not have, or can't read: beside the truth only. */
static const char *const unknown_there[] = {
	"olmo2",       "gemma3", "granite",    "smollm3",       "starcoder2",    "stablelm",
	"gpt_bigcode", "bloom",  "qwen3_yarn", "llama_dynamic", "phi3_longrope", "qwen3_moe",
};

/*
 * Chance: over 100 random prompts of gpt_neo_local (scripts/fidelity.py --data) the
 * largest error here is 1.06 times TransformerLens's, over its two 1.8 times. Likewise of
 * gemma2 on AVX2: over 100 random prompts ln2_post's is 0.71 and mlp_out's 0.70 times
 * TransformerLens's, over its six 1.7 and 1.6 times.
 */
static const struct test_exception exceptions[] = {
	{ "gpt_neo", "blocks.*.attn.hook_pattern", 9e-6,
	  "unscaled scores: one query for which two keys weigh nearly the same" },
	{ "gemma, gemma2", "blocks.*.ln2_post.hook_normalized", 4e-6,
	  "one position at which the MLP adds little, which the norm makes large" },
	{ "gemma, gemma2", "blocks.*.hook_mlp_out", 4e-6, "the same position" },
};
#define N_EXCEPTIONS (sizeof(exceptions) / sizeof(*exceptions))

static struct test_fidelity *fidelity_of(const char *model, const char *variant)
{
	size_t i;

	for (i = 0; i < sizeof(unknown_there) / sizeof(*unknown_there); i++) {
		if (!strncmp(model, unknown_there[i], strlen(unknown_there[i])))
			return NULL;
	}
	i = 1;
	if (!strcmp(variant, "refactor"))
		return &families[0].fidelity;
	while (strncmp(model, families[i].prefix, strlen(families[i].prefix)) != 0)
		i++;
	return &families[i].fidelity;
}

/* The last one is an attribute only where it is on. */
static const char *const flags[] = { "fold_ln", "center_writing_weights", "center_unembed",
				     "fold_value_biases", "refactor_factored_attn_matrices" };

/* One variant of one model: its settings, ready to run. */
static void set_up(struct lens_experiment *e, const char *dir, const struct test_h5 *truth,
		   const char *variant, const char *name)
{
	char *csv = lens_path_join(dir, "prompts.csv"), *output = test_tmp_path(name);
	char group[64];
	size_t i;

	test_experiment(e, dir, csv, output);
	snprintf(group, sizeof(group), "/%s", variant);
	for (i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		bool on = test_h5_has_attr(truth, group, flags[i]) &&
			  test_h5_attr_int(truth, group, flags[i]);
		char key[64];

		snprintf(key, sizeof(key), "weights.%s", flags[i]);
		test_set(e, key, on ? "true" : "false", NULL);
	}
	lens_free(csv);
	lens_free(output);
}

/* "*" where the truth has everything, else the names that it has. */
static void select_hooks(struct lens_experiment *e, const struct test_h5 *truth,
			 const char *variant)
{
	struct lens_buf list = LENS_BUF_INIT;
	struct test_names names;
	size_t i;

	test_truth_hooks(truth, variant, &names);
	if (test_names_have(&names, "hook_embed")) {
		test_set(e, "cache.hooks", "*,logits,*hook_result", NULL);
	} else {
		for (i = 0; i < names.n; i++)
			assert_int_equal(lens_buf_printf(&list, NULL, "%s%s", i ? "," : "",
							 names.v[i]),
					 LENS_OK);
		test_set(e, "cache.hooks", list.data, NULL);
	}
	lens_buf_release(&list);
	test_names_release(&names);
}

static bool has_table(const struct test_h5 *truth, const char *variant, const char *name)
{
	static const char *const at[] = { "", "recompute/" };
	char path[128];
	size_t i;
	bool has = false;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/%s/tables/%s%s", variant, at[i], name);
		has |= test_h5_has(truth, path);
	}
	return has;
}

/* Beside float64 elsewhere: unit/test_tables_lens.c. */
static bool is_tested_apart(enum lens_table t)
{
	return t == LENS_TABLE_lens_top_token || t == LENS_TABLE_lens_top_prob ||
	       t == LENS_TABLE_lens_entropy || t == LENS_TABLE_lens_kl ||
	       t == LENS_TABLE_answer_logprob || t == LENS_TABLE_answer_token_rank ||
	       t == LENS_TABLE_kl_divergence || t == LENS_TABLE_flags;
}

/* Of a model without MLPs. */
static bool has_no_neurons(const struct test_h5 *truth, const char *group)
{
	return (!strcmp(group, "neuron_attrs") || !strcmp(group, "top_neurons")) &&
	       (test_h5_has(truth, "/processed/1/blocks.0.mlp.hook_expert_weights") ||
		test_h5_has(truth, "/raw/1/blocks.0.mlp.hook_expert_weights") ||
		(test_h5_has(truth, "/raw/1/blocks.0.hook_attn_out") &&
		 !test_h5_has(truth, "/raw/1/blocks.0.hook_mlp_out")));
}

/* Those that the truth has: all, where it has the largest ones. */
static void select_tables(struct lens_experiment *e, const struct test_h5 *truth,
			  const char *variant)
{
	bool all = has_table(truth, variant, "pos_top_tokens");
	struct lens_buf list = LENS_BUF_INIT;
	const char *last = "";
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		enum lens_table t = (enum lens_table)i;
		const char *group = lens_table_group(t);
		bool has = has_table(truth, variant, lens_table_name(t));

		assert_true(has || !all || is_tested_apart(t) || has_no_neurons(truth, group));
		if (!has || !strcmp(group, last))
			continue;
		assert_int_equal(lens_buf_printf(&list, NULL, "%s%s", list.len ? "," : "",
						 group),
				 LENS_OK);
		last = group;
	}
	test_set(e, "tables", list.data, NULL);
	lens_buf_release(&list);
}

/* One lens's tables and, where asked, the hook points. */
static size_t compare_lens(const char *dir, struct test_truth *t, const char *lens, bool hooks)
{
	struct lens_experiment e;
	struct test_h5 *output;
	char label[128];
	size_t bad;

	snprintf(label, sizeof(label), "%s %s %s", strrchr(dir, '/') + 1, t->variant, lens);
	t->label = label;
	set_up(&e, dir, t->truth, t->variant, "golden.h5");
	if (hooks)
		select_hooks(&e, t->truth, t->variant);
	select_tables(&e, t->truth, t->variant);
	test_set(&e, "lens", lens, NULL);
	test_run(&e);
	output = test_h5_open(e.output);
	t->output = output;
	bad = test_compare_prompts(t) + test_compare_tables(t, lens);
	if (hooks)
		bad += test_compare_hooks(t);
	test_h5_close(output);
	unlink(e.output);
	lens_experiment_release(&e);
	return bad;
}

static size_t compare_variant(const char *dir, const struct test_h5 *truth, const char *variant)
{
	struct test_truth t = { .truth = truth,
				.variant = variant,
				.kind = kinds,
				.n_kinds = N_KINDS,
				.fidelity = fidelity_of(strrchr(dir, '/') + 1, variant) };
	char *path = lens_path_join(dir, "fidelity.csv");
	size_t bad;

	if (t.fidelity)
		test_fidelity_read(t.fidelity, path, variant);
	bad = compare_lens(dir, &t, "recompute", true) +
	      compare_lens(dir, &t, "cached_scale_no_bias", false);
	lens_free(path);
	return bad;
}

static struct test_h5 *open_truth(const char *dir)
{
	char *path = lens_path_join(dir, "truth.h5");
	struct test_h5 *truth = test_h5_open(path);

	lens_free(path);
	return truth;
}

static bool is_variant(const char *group)
{
	return strcmp(group, "tokens") != 0;
}

/* Every variant of a model, under both lenses. */
static void test_model(void **state)
{
	const char *dir = *state;
	struct test_h5 *truth = open_truth(dir);
	struct test_names groups;
	size_t i, n = 0, bad = 0;

	test_h5_groups(truth, "/", &groups);
	for (i = 0; i < groups.n; i++) {
		if (!is_variant(groups.v[i]) || (test_quick() && strlen(groups.v[i]) > 9))
			continue; /* in short: raw, processed and refactor */
		n++;
		bad += compare_variant(dir, truth, groups.v[i]);
	}
	test_names_release(&groups);
	test_h5_close(truth);
	assert_true(n > 0);
	assert_int_equal(bad, 0);
}

/* After all models of the family. */
static void test_fidelity(void **state)
{
	const struct family *f = *state;

	if (test_quick())
		skip(); /* too little to judge by */
	assert_true(f->fidelity.n > 0);
	assert_int_equal(test_fidelity_judge(&f->fidelity, f->name, exceptions, N_EXCEPTIONS),
			 0);
}

/* Halves beside the truth: half a unit in the last place more. */
static void test_halves(void **state)
{
	const char *dir = *state, *variant[] = { "processed", "raw" };
	struct test_h5 *truth = open_truth(dir), *output;
	size_t i, bad = 0;

	for (i = 0; i < 2; i++) {
		struct test_truth t = { .truth = truth,
					.variant = variant[i],
					.kind = kinds,
					.n_kinds = N_KINDS,
					.half = true };
		struct lens_experiment e;

		t.label = i ? "raw f16" : "processed f16";
		set_up(&e, dir, truth, variant[i], "half.h5");
		select_hooks(&e, truth, variant[i]);
		test_set(&e, "cache.dtype", "f16", NULL);
		test_run(&e);
		output = test_h5_open(e.output);
		t.output = output;
		bad += test_compare_hooks(&t);
		test_h5_close(output);
		unlink(e.output);
		lens_experiment_release(&e);
	}
	test_h5_close(truth);
	assert_int_equal(bad, 0);
}

/* --- all of them -------------------------------------------------------------------------- */

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static size_t list_models(char **dir, size_t most)
{
	struct dirent **entry;
	int i, n = scandir(ROOT, &entry, visible, alphasort);

	for (i = 0; i < n; i++) {
		if ((size_t)i < most)
			dir[i] = lens_path_join(ROOT, entry[i]->d_name);
		free(entry[i]);
	}
	free(entry);
	return n < 0 ? 0 : (size_t)n;
}

static void print_worst(void)
{
	size_t i;

	print_message("largest errors, in units of the truth's RMS (%s)\n", test_cpu_level());
	for (i = 0; i < N_KINDS; i++) {
		if (kinds[i].worst > 0.0)
			print_message("%-26s %.2e of %.1e  %s\n", kinds[i].name, kinds[i].worst,
				      kinds[i].limit, kinds[i].where);
	}
}

int main(void)
{
	struct CMUnitTest tests[FIXED + MOST_MODELS + N_FAMILIES] = {
		{ "halves, gpt2", test_halves, NULL, NULL, ROOT "/gpt2_gelu_new" },
		{ "halves, llama", test_halves, NULL, NULL, ROOT "/llama" },
	};
	char *dir[MOST_MODELS] = { NULL };
	size_t i, n = list_models(dir, MOST_MODELS);
	int failed;

	if (!n || n > MOST_MODELS) {
		print_error("%zu models in " ROOT "\n", n);
		return 1;
	}
	for (i = 0; i < n; i++)
		tests[FIXED + i] =
			(struct CMUnitTest){ dir[i], test_model, NULL, NULL, dir[i] };
	for (i = 0; i < N_FAMILIES; i++)
		tests[FIXED + n + i] = (struct CMUnitTest){ "fidelity", test_fidelity, NULL,
							    NULL, &families[i] };
	failed = _cmocka_run_group_tests("golden", tests, FIXED + n + N_FAMILIES, NULL, NULL);
	print_worst();
	for (i = 0; i < n; i++)
		lens_free(dir[i]);
	for (i = 0; i < N_FAMILIES; i++)
		test_fidelity_release(&families[i].fidelity);
	return failed;
}
