/*
 * test_experiment_json.c: what is made of the settings: the effective JSON, the
 * identity of an experiment, and the check before a run.
 */
#include "h5lens/experiment.h"
#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* --- JSON --------------------------------------------------------------------- */

static void test_json(void **state)
{
	char *text;

	(void)state;
	test_settings_load(
		&test_e,
		"model: /m\noutput: /o.h5\ndata: {csv: /d.csv, answers: [a, b]}\nthreads: 3\n");
	text = test_settings_json(&test_e, false);
	assert_string_equal(
		text,
		"{\"ablate\":{\"grids\":[],\"heads\":\"all\",\"mean_over\":\"prompts\","
		"\"resample\":\"drawn\",\"seed\":0,\"sets\":{},\"value\":\"zero\"},"
		"\"attrs\":{\"positions\":\"read\"},"
		"\"cache\":{\"dtype\":\"f32\",\"hooks\":[\"*\"],\"layout\":\"padded\","
		"\"positions\":\"all\"},"
		"\"cpu\":\"auto\","
		"\"data\":{\"answer_tokens\":\"one\",\"answers\":[\"a\",\"b\"],"
		"\"answers_as\":\"text\",\"bos\":\"auto\","
		"\"corrupted\":\"none\",\"csv\":\"/d.csv\",\"limit\":\"all\","
		"\"on_bad_row\":\"error\",\"prepend_bos\":true,\"prompt\":\"prompt\","
		"\"read_pos\":-1,\"separator\":\"comma\",\"tokens\":\"none\"},"
		"\"knockout\":{\"from\":\"none\",\"heads\":\"all\",\"layers\":\"all\","
		"\"to\":\"none\"},"
		"\"lens\":\"recompute\",\"lens_mid\":false,\"lens_positions\":\"read\","
		"\"memory\":\"auto\",\"model\":\"/m\",\"output\":\"/o.h5\","
		"\"patch\":{\"direction\":\"denoise\",\"grids\":[],\"heads\":\"all\","
		"\"layers\":\"all\",\"metric\":\"logit_diff\",\"normalize\":false,"
		"\"positions\":\"all\",\"reuse\":true},"
		"\"path\":{\"receivers\":[],\"senders\":\"all\"},"
		"\"shards\":{\"bytes\":1073741824,\"prompts\":\"auto\"},"
		"\"share_prefixes\":true,"
		"\"steer\":{\"hook\":\"resid_post\",\"layer\":\"none\","
		"\"positions\":\"all\",\"scale\":[1.0],\"vector\":\"none\"},"
		"\"tables\":[\"logit_diff\",\"answer_logit\",\"answer_prob\",\"answer_rank\","
		"\"rank_per_layer\",\"lens_logit\",\"top_tokens\"],"
		"\"threads\":3,\"tied_head\":\"auto\",\"top_k\":10,"
		"\"weights\":{\"center_unembed\":true,\"center_writing_weights\":true,"
		"\"fold_ln\":true,\"fold_value_biases\":true,"
		"\"refactor_factored_attn_matrices\":false}}");
	lens_free(text);
	text = test_settings_json(&test_e, true);
	assert_null(strstr(text, "/m"));
	assert_null(strstr(text, "/d.csv"));
	assert_null(strstr(text, "output"));
	/* at its default it is no part of the identity, as before there was such a key */
	assert_null(strstr(text, "layout"));
	assert_null(strstr(text, "threads"));
	assert_null(strstr(text, "share_prefixes"));
	assert_null(strstr(text, "memory"));
	assert_non_null(strstr(text, "\"top_k\":10"));
	lens_free(text);
}

static void test_identity(void **state)
{
	static const char *const same[] = {
		"data: {answers: [a, b]}\ntables: [top_tokens, logit_diff]\n",
		"# a comment\ntables: [logit_diff,  top_tokens, top_tokens]  # another\n"
		"data:\n  answers:\n  - a\n  - \"b\"\n",
		"data: {answers: [a, b], csv: x}\ntables: [logit_diff, top_tokens]\n"
		"threads: 7\nmemory: 1G\nmodel: other\noutput: o.h5\ntop_k: 10\n"
	};
	char *first = NULL;
	size_t i;

	for (i = 0; i < 3; i++) {
		char *text;

		test_settings_load(&test_e, same[i]);
		text = test_settings_json(&test_e, true);
		if (first)
			assert_string_equal(text, first);
		first = first ? first : lens_strdup(text);
		lens_free(text);
		test_settings_teardown(state);
		assert_int_equal(test_settings_setup(state), 0);
	}
	lens_free(first);
}

static const char *const identity_keys[][2] = {
	{ "weights", "raw" },
	{ "weights.fold_ln", "no" },
	{ "data.prompt", "x" },
	{ "data.answers", "a,b" },
	{ "data.answer_tokens", "any" },
	{ "data.answers_as", "ids" },
	{ "data.tokens", "x" },
	{ "data.prepend_bos", "no" },
	{ "data.separator", "tab" },
	{ "tied_head", "tied" },
	{ "data.read_pos", "0" },
	{ "data.read_pos", "{find: a}" },
	{ "data.on_bad_row", "skip" },
	{ "data.limit", "1" },
	{ "cache.hooks", "none" },
	{ "cache.positions", "last" },
	{ "cache.dtype", "f16" },
	{ "cache.layout", "ragged" },
	{ "tables", "none" },
	{ "top_k", "1" },
	{ "lens", "cached_scale_no_bias" },
	{ "lens_mid", "true" },
	{ "lens_positions", "all" },
	{ "attrs.positions", "all" },
	{ "data.corrupted", "x" },
	{ "patch.grids", "resid_pre" },
	{ "patch.direction", "noise" },
	{ "patch.metric", "kl_divergence" },
	{ "patch.normalize", "true" },
	{ "patch.layers", "1" },
	{ "patch.heads", "9.6" },
	{ "patch.positions", "-1" },
	{ "ablate.grids", "mlp_out" },
	{ "ablate.value", "mean" },
	{ "ablate.mean_over", "tokens" },
	{ "ablate.resample", "x" },
	{ "ablate.seed", "1" },
	{ "ablate.heads", "9.6" },
	{ "ablate.sets", "{a: [9.6]}" },
	{ "path.receivers", "[9.9.q]" },
	{ "path.senders", "9.6" },
	{ "knockout.from", "[0]" },
	{ "knockout.to", "[-1]" },
	{ "knockout.layers", "1" },
	{ "knockout.heads", "9.6" },
	{ "steer.hook", "z" },
	{ "steer.layer", "1" },
	{ "steer.scale", "2" },
	{ "steer.positions", "-1" },
	{ "shards.bytes", "1M" },
	{ "shards.prompts", "5" },
};
/*
 * The CPU level, the BOS token and the vector that were chosen are in the identity, not how
 * (identity.c).
 */
static const char *const neutral_keys[][2] = {
	{ "model", "x" },           { "data.csv", "x" },     { "output", "x" },
	{ "threads", "2" },         { "memory", "1G" },      { "cpu", "avx2" },
	{ "data.bos", "0" },        { "patch.reuse", "no" }, { "steer.vector", "x.npy" },
	{ "share_prefixes", "no" },
};

/* Each key that is in the identity changes it; the others do not. */
static void test_identity_of_each_key(void **state)
{
	char *base = test_settings_json(&test_e, true), *text;
	size_t i;

	for (i = 0; i < sizeof(identity_keys) / sizeof(identity_keys[0]); i++) {
		test_settings_set(&test_e, identity_keys[i][0], identity_keys[i][1]);
		text = test_settings_json(&test_e, true);
		if (!strcmp(text, base))
			fail_msg("%s does not change the identity", identity_keys[i][0]);
		lens_free(text);
		test_settings_teardown(state);
		assert_int_equal(test_settings_setup(state), 0);
	}
	for (i = 0; i < sizeof(neutral_keys) / sizeof(neutral_keys[0]); i++)
		test_settings_set(&test_e, neutral_keys[i][0], neutral_keys[i][1]);
	text = test_settings_json(&test_e, true);
	assert_string_equal(text, base);
	lens_free(text);
	lens_free(base);
}

/* --- check -------------------------------------------------------------------- */

static void assert_check(enum lens_status want, const char *text)
{
	test_err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_experiment_check(&test_e, &test_err), want);
	if (text && !strstr(test_err.text, text))
		fail_msg("expected \"%s\", got \"%s\"", text, test_err.text);
}

static void test_check(void **state)
{
	(void)state;
	assert_check(LENS_ERR_INVALID, "no model is given");
	test_settings_set(&test_e, "model", "m");
	assert_check(LENS_ERR_INVALID, "set it with --data");
	test_settings_set(&test_e, "data.csv", "d.csv");
	assert_check(LENS_ERR_INVALID, "no output is given");
	test_settings_set(&test_e, "output", "d.csv");
	assert_check(LENS_ERR_INVALID, "output and data.csv are the same file");
	test_settings_set(&test_e, "output", "o.h5");
	assert_check(LENS_OK, NULL);
	assert_true(lens_experiment_wants_table(&test_e, "top_tokens"));
	assert_false(lens_experiment_wants_table(&test_e, "answer_rank"));
	test_settings_set(&test_e, "tables", "answer_rank");
	assert_check(LENS_ERR_INVALID,
		     "the table answer_rank needs 1 answer column; data.answers names 0");
	test_settings_set(&test_e, "data.answers", "a");
	assert_check(LENS_OK, NULL);
	assert_true(lens_experiment_wants_table(&test_e, "answer_rank"));
	assert_false(lens_experiment_wants_table(&test_e, "top_tokens"));
	test_settings_set(&test_e, "tables", "logit_diff,top_tokens");
	assert_check(LENS_ERR_INVALID, "the table logit_diff needs 2 answer columns");
	test_settings_set(&test_e, "tables", "default,loss");
	assert_check(LENS_OK, NULL);
	assert_false(lens_experiment_wants_table(&test_e, "logit_diff"));
	assert_true(lens_experiment_wants_table(&test_e, "loss"));
	assert_false(lens_experiment_wants_table(&test_e, "token_logprobs"));
	test_settings_set(&test_e, "tables", "all");
	assert_check(LENS_OK, NULL);
	assert_true(lens_experiment_wants_table(&test_e, "token_logprobs"));
	assert_false(lens_experiment_wants_table(&test_e, "logit_diff"));
	assert_true(lens_experiment_wants_table(&test_e, "lens_logit"));
	test_settings_set(&test_e, "data.answers", "a,b");
	assert_true(lens_experiment_wants_table(&test_e, "logit_diff"));
	assert_false(lens_experiment_wants_table(&test_e, "nothing"));
	test_settings_set(&test_e, "cache.hooks", "none");
	assert_check(LENS_OK, NULL);
	test_settings_set(&test_e, "tables", "none");
	assert_check(LENS_ERR_INVALID, "nothing to do");
}

/* `default` follows data.answer_tokens; a table that is named and does not is refused. */
static void test_answer_tokens(void **state)
{
	static const char *const single[] = {
		"answer_logit",    "answer_prob", "answer_rank", "rank_per_layer", "lens_logit",
		"lens_logit_diff", "logit_attrs", "head_attrs",  "neuron_attrs",   "top_neurons"
	};
	char *text, want[200];
	size_t i;

	(void)state;
	test_settings_load(&test_e,
			   "model: /m\noutput: /o.h5\n"
			   "data: {csv: /d.csv, answers: [a, b], answer_tokens: any}\n");
	text = test_settings_json(&test_e, true);
	assert_non_null(strstr(text, "\"tables\":[\"logit_diff\",\"top_tokens\","
				     "\"answer_logprob\",\"answer_token_rank\"]"));
	lens_free(text);
	for (i = 0; i < sizeof(single) / sizeof(*single); i++) {
		test_settings_set(&test_e, "tables", single[i]);
		snprintf(want, sizeof(want),
			 "the table %s needs answers of one token; data.answer_tokens is any",
			 single[i]);
		assert_check(LENS_ERR_INVALID, want);
		assert_false(lens_experiment_wants_table(&test_e, single[i]));
	}
	test_settings_set(&test_e, "tables", "answer_token_rank,lens_kl,loss,head_scores");
	assert_check(LENS_OK, NULL);
	assert_false(lens_experiment_wants_table(&test_e, "answer_logprob"));
	test_settings_set(&test_e, "data.answer_tokens", "one");
	assert_check(LENS_ERR_INVALID,
		     "the table answer_token_rank needs data.answer_tokens: any");
	test_settings_set(&test_e, "tables", "all");
	assert_check(LENS_OK, NULL);
	assert_false(lens_experiment_wants_table(&test_e, "answer_token_rank"));
	test_settings_set(&test_e, "tables", "none");
	test_settings_set(&test_e, "data.answer_tokens", "any");
	assert_false(lens_experiment_wants_table(&test_e, "answer_token_rank"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_settings_setup, test_settings_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_json),  T(test_identity),      T(test_identity_of_each_key),
		T(test_check), T(test_answer_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
