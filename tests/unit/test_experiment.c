/*
 * test_experiment.c: the key table: what is set where nothing is said, good and
 * bad values of every key as --set takes them, which setting wins, and the flags.
 */
#include "h5lens/experiment.h"
#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void set_bad(const char *key, const char *value, const char *text)
{
	test_err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_experiment_set(&test_e, key, value, &test_err), LENS_ERR_INVALID);
	if (!strstr(test_err.text, text))
		fail_msg("%s=%s: expected \"%s\", got \"%s\"", key, value, text, test_err.text);
	assert_int_equal(test_err.row, 0);
	assert_string_equal(test_err.file, "");
}

#define DEFAULT_TABLES                                                                         \
	"logit_diff", "answer_logit", "answer_prob", "answer_rank", "rank_per_layer",          \
		"lens_logit", "top_tokens"

static void test_defaults(void **state)
{
	(void)state;
	assert_null(test_e.model);
	assert_null(test_e.output);
	assert_null(test_e.data.csv);
	assert_true(test_e.weights.fold_ln);
	assert_true(test_e.weights.center_writing_weights);
	assert_true(test_e.weights.center_unembed);
	assert_true(test_e.weights.fold_value_biases);
	assert_false(test_e.weights.refactor_factored_attn_matrices);
	assert_string_equal(test_e.data.prompt, "prompt");
	assert_int_equal(test_e.data.answers.n, 0);
	assert_null(test_e.data.read_pos_column);
	assert_int_equal(test_e.data.read_pos, -1);
	assert_true(test_e.data.prepend_bos);
	assert_string_equal(test_e.data.bos, "auto");
	assert_false(test_e.data.skip_bad_rows);
	assert_int_equal(test_e.data.limit, 0);
	ASSERT_STRINGS(&test_e.cache.hooks, "*");
	assert_int_equal(test_e.cache.positions, LENS_POS_ALL);
	assert_int_equal(test_e.cache.n_positions, 0);
	assert_int_equal(test_e.cache.dtype, LENS_CACHE_F32);
	ASSERT_STRINGS(&test_e.tables, DEFAULT_TABLES);
	assert_false(test_e.tables_listed);
	assert_int_equal(test_e.top_k, 10);
	assert_int_equal(test_e.lens, LENS_LENS_RECOMPUTE);
	assert_int_equal(test_e.cpu, LENS_CPU_AUTO);
	assert_int_equal(test_e.threads, 0);
	assert_int_equal(test_e.memory, 0);
	assert_string_equal(test_e.source, "");
}

/* The second column is what the effective JSON then holds. */
static const struct {
	const char *key, *value, *json;
} good[] = {
	{ "model", "some/dir", "\"model\":\"some/dir\"" },
	{ "model", "a: b # [c]", "\"model\":\"a: b # [c]\"" },
	{ "output", "[x].h5", "\"output\":\"[x].h5\"" },
	{ "output", "null", "\"output\":\"null\"" },
	{ "data.csv", "é.csv", "\"csv\":\"é.csv\"" },
	{ "weights", "raw", "\"fold_ln\":false" },
	{ "weights", "raw", "\"center_writing_weights\":false" },
	{ "weights", "raw", "\"center_unembed\":false" },
	{ "weights", "raw", "\"fold_value_biases\":false" },
	{ "weights", "processed", "\"fold_ln\":true" },
	{ "weights", "{fold_ln: off}", "\"fold_ln\":false" },
	{ "weights.fold_ln", "no", "\"fold_ln\":false" },
	{ "weights.center_writing_weights", "no", "\"center_writing_weights\":false" },
	{ "weights.center_unembed", "OFF", "\"center_unembed\":false" },
	{ "weights.fold_value_biases", "False", "\"fold_value_biases\":false" },
	{ "weights.refactor_factored_attn_matrices", "on",
	  "\"refactor_factored_attn_matrices\":true" },
	{ "data.prompt", "yes", "\"prompt\":\"yes\"" },
	{ "data.answers", "a", "\"answers\":[\"a\"]" },
	{ "data.answers", "a, b ,c", "\"answers\":[\"a\",\"b\",\"c\"]" },
	{ "data.answers", "[a, \"b, c\"]", "\"answers\":[\"a\",\"b, c\"]" },
	{ "data.answers", "[]", "\"answers\":[]" },
	{ "data.answers", "none", "\"answers\":[\"none\"]" },
	{ "data.prepend_bos", "false", "\"prepend_bos\":false" },
	{ "data.bos", "auto", "\"bos\":\"auto\"" },
	{ "data.bos", "5", "\"bos\":5," },
	{ "data.bos", "<|im_end|>", "\"bos\":\"\\\"<|im_end|>\\\"\"" },
	{ "data.bos", "\"5\"", "\"bos\":\"\\\"5\\\"\"" },
	{ "data.bos", "-1", "\"bos\":\"\\\"-1\\\"\"" },
	{ "data", "{bos: 5}", "\"bos\":5," },
	{ "data", "{bos: '5'}", "\"bos\":\"\\\"5\\\"\"" },
	{ "data", "{bos: '\"5\"'}", "\"bos\":\"\\\"5\\\"\"" },
	{ "data", "{bos: \"auto\"}", "\"bos\":\"auto\"" },
	{ "data", "{bos: '\"auto\"'}", "\"bos\":\"\\\"auto\\\"\"" },
	{ "data", "{bos: </s>}", "\"bos\":\"\\\"</s>\\\"\"" },
	{ "data.read_pos", "-3", "\"read_pos\":-3" },
	{ "data.read_pos", "where", "\"read_pos\":\"where\"" },
	{ "data", "{read_pos: '3'}", "\"read_pos\":\"3\"" },
	{ "data.read_pos", "{find: \" Mary\"}", "\"read_pos\":{\"find\":\" Mary\",\"nth\":0}" },
	{ "data.read_pos", "{find: 5, nth: -1}", "\"read_pos\":{\"find\":\"5\",\"nth\":-1}" },
	{ "data", "{read_pos: {nth: 1, find_column: subject}}",
	  "\"read_pos\":{\"find_column\":\"subject\",\"nth\":1}" },
	{ "data.answer_tokens", "any", "\"answer_tokens\":\"any\"" },
	{ "data.answers_as", "ids", "\"answers_as\":\"ids\"" },
	{ "data.tokens", "ids", "\"tokens\":\"ids\"" },
	{ "data.tokens", "none", "\"tokens\":\"none\"" },
	{ "data.on_bad_row", "skip", "\"on_bad_row\":\"skip\"" },
	{ "data.limit", "12", "\"limit\":12" },
	{ "data.limit", "all", "\"limit\":\"all\"" },
	{ "cache.hooks", "*", "\"hooks\":[\"*\"]" },
	{ "cache.hooks", "*.hook_z,logits", "\"hooks\":[\"*.hook_z\",\"logits\"]" },
	{ "cache.hooks", "['*.hook_z']", "\"hooks\":[\"*.hook_z\"]" },
	{ "cache.hooks", "[]", "\"hooks\":[]" },
	{ "cache.hooks", "none", "\"hooks\":[]" },
	{ "cache.positions", "last", "\"positions\":\"last\"" },
	{ "cache.positions", "read", "\"positions\":\"read\"" },
	{ "cache.positions", "-1", "\"positions\":[-1]" },
	{ "cache.positions", "0,-2", "\"positions\":[0,-2]" },
	{ "cache.positions", "[0, -2]", "\"positions\":[0,-2]" },
	{ "cache.dtype", "f16", "\"dtype\":\"f16\"" },
	{ "cache", "{dtype: f16, positions: last}", "\"dtype\":\"f16\"" },
	{ "tables", "none", "\"tables\":[]" },
	{ "tables", "[]", "\"tables\":[]" },
	/* there are no answers */
	{ "tables", "default", "\"tables\":[\"top_tokens\"]" },
	{ "tables", "all",
	  "\"tables\":[\"top_tokens\",\"token_logprobs\",\"loss\",\"pos_top_tokens\","
	  "\"entropy\",\"lens_top_token\",\"lens_top_prob\",\"lens_entropy\",\"lens_kl\"," },
	{ "tables", "[loss, default]", "\"tables\":[\"top_tokens\",\"loss\"]" },
	{ "tables", "token_logprobs", "\"tables\":[\"token_logprobs\"]" },
	{ "tables", "loss,loss", "\"tables\":[\"loss\"]" },
	{ "tables", "top_tokens", "\"tables\":[\"top_tokens\"]" },
	{ "top_k", "1", "\"top_k\":1" },
	{ "lens", "cached_scale_no_bias", "\"lens\":\"cached_scale_no_bias\"" },
	{ "lens_mid", "true", "\"lens_mid\":true" },
	{ "lens_positions", "all", "\"lens_positions\":\"all\"" },
	{ "attrs.positions", "all", "\"attrs\":{\"positions\":\"all\"}" },
	{ "attrs", "{positions: all}", "\"attrs\":{\"positions\":\"all\"}" },
	{ "cpu", "avx2", "\"cpu\":\"avx2\"" },
	{ "threads", "8", "\"threads\":8" },
	{ "threads", "auto", "\"threads\":\"auto\"" },
	{ "memory", "auto", "\"memory\":\"auto\"" },
	{ "memory", "1048576", "\"memory\":1048576" },
	{ "memory", "123B", "\"memory\":123" },
	{ "memory", "800M", "\"memory\":838860800" },
	{ "memory", "800MiB", "\"memory\":838860800" },
	{ "memory", "800 mib", "\"memory\":838860800" },
	{ "memory", "800MB", "\"memory\":800000000" },
	{ "memory", "1.5k", "\"memory\":1536" },
	{ "memory", "4GiB", "\"memory\":4294967296" },
	{ "memory", "2t", "\"memory\":2199023255552" },
};

static void test_good_values(void **state)
{
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char *text;

		test_settings_set(&test_e, good[i].key, good[i].value);
		text = test_settings_json(&test_e, false);
		if (!strstr(text, good[i].json))
			fail_msg("%s=%s: no %s in %s", good[i].key, good[i].value, good[i].json,
				 text);
		lens_free(text);
		test_settings_teardown(state);
		assert_int_equal(test_settings_setup(state), 0);
	}
}

static const struct {
	const char *key, *value, *text;
} bad[] = {
	{ "model", "", "model: no value; expected a folder" },
	{ "weights", "row",
	  "weights: expected raw | processed | {fold_ln: …, …}, not 'row'; did "
	  "you mean 'raw'?" },
	{ "weights", "[fold_ln]", "weights: expected raw | processed" },
	{ "weights.fold_ln", "maybe", "weights.fold_ln: expected true | false, not 'maybe'" },
	{ "weights.fold_ln", "1", "expected true | false" },
	{ "weights.fold_ln", "[true]", "expected true | false, not a list" },
	{ "weights.fold_lm", "true",
	  "unknown key 'weights.fold_lm'; did you mean 'weights.fold_ln'?" },
	{ "data", "x.csv", "data: expected a mapping" },
	{ "data", "{cvs: x}", "unknown key 'data.cvs'; did you mean 'data.csv'?" },
	{ "data", "{csv: x", "not valid YAML" },
	{ "data.prompt", "", "data.prompt: no value" },
	{ "data.answers", "", "data.answers: no value" },
	{ "data.answers", "a,,b", "data.answers: no value" },
	{ "data.answers", "[a, [b]]",
	  "data.answers: expected a column | [column, …], not a list" },
	{ "data.answers", "{a: b}", "not a mapping" },
	{ "data.answer_tokens", "two", "data.answer_tokens: expected one | any, not 'two'" },
	{ "data.read_pos", "[1]",
	  "data.read_pos: expected an integer | a column | {find: text, nth: N} | "
	  "{find_column: a column, nth: N}, not a list" },
	{ "data.read_pos", "{}",
	  "data.read_pos: expected one of find and find_column, not neither" },
	{ "data.read_pos", "{find: a, find_column: b}", "not both" },
	{ "data.read_pos", "{find: ~}", "data.read_pos.find: no value" },
	{ "data.read_pos", "{find: a, nth: 1.5}",
	  "data.read_pos.nth: expected an integer, not '1.5'" },
	{ "data.read_pos.find", "a",
	  "unknown key 'data.read_pos.find'; did you mean 'data.read_pos'?" },
	{ "data.read_pos", "", "data.read_pos: no value" },
	{ "data.bos", "", "data.bos: no value; expected auto | an id | \"a token\"" },
	{ "data.bos", "[1]", "data.bos: expected auto | an id | \"a token\", not a list" },
	{ "data.on_bad_row", "skp", "expected error | skip, not 'skp'; did you mean 'skip'?" },
	{ "data.limit", "-1", "data.limit: expected all | a number of rows from 1, not '-1'" },
	{ "data.limit", "0", "not '0'" },
	{ "data.limit", "1.5", "not '1.5'" },
	{ "data.limit", "ten", "not 'ten'" },
	{ "data.limit", "1K", "not '1K'" },
	{ "data.limit", "99999999999999999999", "not '9999" },
	{ "data.limit", "0x10", "not '0x10'" },
	{ "cache.hooks", "[*]", "(text that begins with * must be in quotes)" },
	{ "cache.hooks", "[*x]", "(text that begins with * must be in quotes)" },
	{ "cache.hooks", "", "cache.hooks: no value" },
	{ "cache.positions", "first",
	  "cache.positions: expected all | last | read | [0, -2, …], not "
	  "'first'" },
	{ "cache.positions", "[]",
	  "the list is empty; to store no activations, set cache.hooks" },
	{ "cache.positions", "[0, last]", "not 'last'" },
	{ "cache.positions", "[0, 1, 0]", "the position 0 is listed twice" },
	{ "cache.positions", "0,1.0", "not '1.0'" },
	{ "cache.positions", "99999999999", "not '99999999999'" },
	{ "cache.dtype", "f64", "cache.dtype: expected f32 | f16, not 'f64'; did you mean" },
	{ "tables", "logits_diff", "not 'logits_diff'; did you mean 'logit_diff'?" },
	{ "tables", "[all, top_tokens]", "not 'all'" },
	{ "tables", "[none, loss]", "not 'none'" },
	{ "tables", "token_logprob", "not 'token_logprob'; did you mean 'token_logprobs'?" },
	{ "tables", "losses", "not 'losses'" },
	{ "tables", "Default", "not 'Default'" },
	{ "top_k", "0", "top_k: expected a number from 1 to 1000, not '0'" },
	{ "top_k", "", "top_k: no value" },
	{ "lens", "raw", "lens: expected recompute | cached_scale_no_bias, not 'raw'" },
	{ "lens_mid", "mid", "lens_mid: expected true | false, not 'mid'" },
	{ "lens_positions", "last", "lens_positions: expected read | all, not 'last'" },
	{ "attrs.positions", "last", "attrs.positions: expected read | all, not 'last'" },
	{ "attrs", "all", "attrs" },
	{ "cpu", "avx-512", "did you mean 'avx512'?" },
	{ "threads", "-2", "threads: expected auto | a number from 1, not '-2'" },
	{ "threads", "0", "not '0'" },
	{ "shards.prompts", "0", "not '0'" },
	{ "threads", "two", "not 'two'" },
	{ "memory", "4Gb/s",
	  "memory: expected auto | a size with its unit (4GiB, 800M), not '4Gb/s'" },
	{ "memory", "0", "not '0'" },
	{ "memory", "4", "not '4'" },
	{ "memory", "1048575", "not '1048575'" },
	{ "data.csv", "~/x.csv", "data.csv: ~ is expanded by a shell only" },
	{ "model", "~me/gpt2", "write the whole path instead of '~me/gpt2'" },
	{ "memory", "GiB", "not 'GiB'" },
	{ "memory", "-1G", "not '-1G'" },
	{ "memory", "1e9", "not '1e9'" },
	{ "memory", "0x10", "not '0x10'" },
	{ "memory", "0.1", "not '0.1'" },
	{ "memory", "1.2.3G", "not '1.2.3G'" },
	{ "memory", "999999999T", "not '999999999T'" },
	{ "memory", "4EiB", "not '4EiB'" },
	{ "hooks", "*", "unknown key 'hooks'; did you mean 'cache.hooks'?" },
	{ "promt", "x", "unknown key 'promt'; did you mean 'data.prompt'?" },
	{ "csv", "x", "did you mean 'data.csv'?" },
	{ "ouput", "x", "did you mean 'output'?" },
	{ "cache.", "x", "unknown key 'cache.'" },
	{ "", "x", "unknown key ''" },
	{ "something else", "x", "unknown key 'something else'" },
	{ "model", "caf\xe9", "not valid UTF-8" },
	{ "cache.dtype", "[", "not valid YAML" },
	{ "cache.dtype", "!!str f16", "not '!!str f16'" },
	{ "cache.hooks", "[!foo x]", "the YAML tag <!foo> is not supported" },
};

static void test_bad_values(void **state)
{
	char *before = test_settings_json(&test_e, false), *after;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		set_bad(bad[i].key, bad[i].value, bad[i].text);
	after = test_settings_json(&test_e, false);
	assert_string_equal(after, before); /* a bad value changes nothing */
	lens_free(before);
	lens_free(after);
}

static void test_precedence(void **state)
{
	(void)state;
	test_settings_load(
		&test_e,
		"data: {answers: [a, b], limit: 5}\ncache: {hooks: [x, y], positions: [1]}\n");
	test_settings_set(&test_e, "data.limit", "6");
	test_settings_set(&test_e, "cache.hooks", "z");
	test_settings_set(&test_e, "cache.positions", "all");
	assert_int_equal(test_e.data.limit, 6);
	ASSERT_STRINGS(&test_e.cache.hooks, "z");
	assert_int_equal(test_e.cache.positions, LENS_POS_ALL);
	assert_int_equal(test_e.cache.n_positions, 0);
	ASSERT_STRINGS(&test_e.data.answers, "a", "b");
	test_settings_set(&test_e, "data.read_pos", "col");
	test_settings_set(&test_e, "data.read_pos", "{find: a, nth: 2}");
	assert_null(test_e.data.read_pos_column);
	test_settings_set(&test_e, "data.read_pos", "{find_column: b}");
	assert_null(test_e.data.find);
	assert_string_equal(test_e.data.find_column, "b");
	assert_int_equal(test_e.data.nth, 0); /* the whole value is replaced */
	test_settings_set(&test_e, "data.read_pos", "2");
	assert_null(test_e.data.find_column);
	assert_int_equal(test_e.data.read_pos, 2);
	test_settings_set(&test_e, "weights", "raw");
	test_settings_set(&test_e, "weights.fold_ln", "true");
	assert_true(test_e.weights.fold_ln);
	assert_false(test_e.weights.center_unembed);
}

static const char *const key_of_flag[][2] = {
	{ "--model", "model" },
	{ "--data", "data.csv" },
	{ "--answers", "data.answers" },
	{ "-o", "output" },
	{ "--output", "output" },
	{ "--hooks", "cache.hooks" },
	{ "--positions", "cache.positions" },
	{ "--dtype", "cache.dtype" },
	{ "--layout", "cache.layout" },
	{ "--limit", "data.limit" },
	{ "--threads", "threads" },
	{ "--memory", "memory" },
	{ "--raw-weights", "weights" },
	{ "--tied-head", "tied_head" },
	{ "--separator", "data.separator" },
	{ "--prompt", "data.prompt" },
	{ "--answer-tokens", "data.answer_tokens" },
	{ "--answers-as", "data.answers_as" },
	{ "--tokens", "data.tokens" },
	{ "--read-pos", "data.read_pos" },
	{ "--on-bad-row", "data.on_bad_row" },
	{ "--tables", "tables" },
	{ "--top-k", "top_k" },
	{ "--lens", "lens" },
	{ "--lens-mid", "lens_mid" },
	{ "--lens-positions", "lens_positions" },
	{ "--attrs-positions", "attrs.positions" },
	{ "--cpu", "cpu" },
	{ "--bos-token", "data.bos" },
	{ "--corrupted", "data.corrupted" },
	{ "--patch", "patch.grids" },
};

static void test_flags(void **state)
{
	const struct lens_key *keys;
	size_t i, n, with_flag = 0;

	(void)state;
	for (i = 0; i < sizeof(key_of_flag) / sizeof(key_of_flag[0]); i++) {
		const struct lens_key *key = lens_key_of_flag(key_of_flag[i][0]);

		assert_non_null(key);
		assert_string_equal(key->name, key_of_flag[i][1]);
		assert_int_equal(key->flag_value != NULL,
				 !strcmp(key->name, "weights") ||
					 !strcmp(key->name, "lens_mid"));
	}
	assert_null(lens_key_of_flag("--nothing"));
	assert_null(lens_key_of_flag(""));
	test_settings_set(&test_e, lens_key_of_flag("--raw-weights")->name,
			  lens_key_of_flag("--raw-weights")->flag_value);
	assert_false(test_e.weights.fold_ln);
	test_settings_set(&test_e, lens_key_of_flag("--lens-mid")->name,
			  lens_key_of_flag("--lens-mid")->flag_value);
	assert_true(test_e.lens_mid);
	keys = lens_keys(&n);
	for (i = 0; i < n; i++) {
		assert_non_null(keys[i].shape);
		assert_non_null(keys[i].help);
		with_flag += keys[i].flag != NULL;
		if (keys[i].deflt) /* a default is a value like any other */
			test_settings_set(&test_e, keys[i].name, keys[i].deflt);
	}
	assert_int_equal(with_flag, 30);
	assert_true(test_e.weights.fold_ln);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_settings_setup, test_settings_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_defaults),   T(test_good_values), T(test_bad_values),
		T(test_precedence), T(test_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
