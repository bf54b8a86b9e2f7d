/*
 * test_experiment_interventions.c: the keys of patching, ablation, knockout and steering:
 * what they take, what they become, and which of them fit together.
 */
#include "h5lens/experiment.h"
#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void refuse(const char *key, const char *value, const char *text)
{
	test_err = (struct lens_error)LENS_ERROR_INIT;
	if (lens_experiment_set(&test_e, key, value, &test_err) == LENS_OK)
		fail_msg("%s=%s is taken", key, value);
	if (!strstr(test_err.text, text))
		fail_msg("%s=%s: expected \"%s\", got \"%s\"", key, value, text, test_err.text);
}

static void assert_in_json(const char *text)
{
	char *json = test_settings_json(&test_e, true);

	if (!strstr(json, text))
		fail_msg("no %s in %s", text, json);
	lens_free(json);
}

/* --- grids ------------------------------------------------------------------------- */

static void grids(void **state)
{
	(void)state;
	assert_int_equal(test_e.patch.grids.n, 0);
	test_settings_set(&test_e, "patch.grids", "attn_head_out_all_pos,resid_pre,resid_pre");
	ASSERT_STRINGS(&test_e.patch.grids, "resid_pre", "attn_head_out_all_pos");
	test_settings_set(&test_e, "patch.grids", "[mlp_out, block_every]");
	ASSERT_STRINGS(&test_e.patch.grids, "resid_pre", "attn_out", "mlp_out");
	test_settings_set(&test_e, "patch", "{grids: attn_head_by_pos_every}");
	ASSERT_STRINGS(&test_e.patch.grids, "attn_head_out_by_pos", "attn_head_q_by_pos",
		       "attn_head_k_by_pos", "attn_head_v_by_pos", "attn_head_pattern_by_pos");
	test_settings_set(&test_e, "ablate.grids", "attn_head_out_all_pos,mlp_out");
	ASSERT_STRINGS(&test_e.ablate.grids, "mlp_out", "attn_head_out_all_pos");
	test_settings_set(&test_e, "patch.grids", "none");
	test_settings_set(&test_e, "ablate.grids", "[]");
	assert_int_equal(test_e.patch.grids.n + test_e.ablate.grids.n, 0);
}

static void unknown_grids(void **state)
{
	static const struct {
		const char *name, *text;
	} cases[] = {
		{ "resid_per", "there is no grid 'resid_per'; did you mean 'resid_pre'?" },
		{ "block_evry", "did you mean 'block_every'?" },
		{ "get_act_patch_resid_pre",
		  "write 'get_act_patch_resid_pre' without get_act_patch_" },
		{ "hook_q_input", "'hook_q_input' is no grid: attn_head_q_all_pos and" },
		{ "blocks.3.attn.hook_k_input", "attn_head_k_by_pos replace the keys" },
		{ "hook_resid_post", "it is the next layer's resid_pre" },
		{ "hook_z", "it is patched by attn_head_out_all_pos" },
		{ "everything", "expected none | [a grid, …] of: resid_pre resid_mid" },
	};
	size_t i;

	(void)state;
	test_settings_set(&test_e, "patch.grids", "mlp_out");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refuse("patch.grids", cases[i].name, cases[i].text);
	ASSERT_STRINGS(&test_e.patch.grids, "mlp_out");
	refuse("ablate.grids", "resid_pre",
	       "expected none | [a grid, …] of: attn_out mlp_out attn_head_out_all_pos");
	refuse("ablate.grids", "block_every", "expected none");
}

/* --- heads, layers, positions ------------------------------------------------------ */

/* 10.0 and 9.10 are numbers for YAML; their text is a head. */
static void heads(void **state)
{
	size_t layer, head;

	(void)state;
	test_settings_load(&test_e, "patch: {heads: [10.0, 9.10, \"9.1\"]}\n");
	ASSERT_STRINGS(&test_e.patch.heads, "10.0", "9.10", "9.1");
	assert_in_json("\"heads\":[\"10.0\",\"9.10\",\"9.1\"]");
	assert_true(lens_head_parse("9.10", &layer, &head));
	assert_int_equal(layer, 9);
	assert_int_equal(head, 10);
	test_settings_set(&test_e, "patch.heads", "9.6,0.0");
	ASSERT_STRINGS(&test_e.patch.heads, "9.6", "0.0");
	test_settings_set(&test_e, "patch.heads", "all");
	assert_int_equal(test_e.patch.heads.n, 0);
}

static void wrong_heads(void **state)
{
	static const char *const wrong[] = { "9",    "9.",   ".6",    "9.6.1",
					     "09.6", "9.06", "-1.2",  "9,a",
					     "9 .6", "9.6q", "1e3.1", "9.-1",
					     "A.1",  "+9.6", "9.6 ",  "9.1234567" };
	size_t i, layer, head;

	(void)state;
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_false(lens_head_parse(wrong[i], &layer, &head));
		refuse("ablate.heads", wrong[i], "is not a head: write its layer, a dot");
	}
	refuse("ablate.heads", "9.6,9.6", "the head 9.6 is listed twice");
	refuse("ablate.heads", "[]", "the list is empty");
	refuse("ablate.heads", "{a: 9.6}", "not a mapping");
}

static void layers_and_positions(void **state)
{
	(void)state;
	test_settings_set(&test_e, "patch.layers", "[3, 0]");
	assert_int_equal(test_e.patch.n_layers, 2);
	assert_int_equal(test_e.patch.layer[0], 3);
	test_settings_set(&test_e, "patch.positions", "0,-1");
	assert_int_equal(test_e.patch.n_positions, 2);
	assert_int_equal(test_e.patch.position[1], -1);
	assert_in_json("\"layers\":[3,0]");
	assert_in_json("\"positions\":[0,-1]");
	refuse("patch.layers", "-1", "expected all | [0, 1, …], not '-1'");
	refuse("patch.layers", "1,1", "the layer 1 is listed twice");
	refuse("patch.positions", "1,1", "the position 1 is listed twice");
	refuse("patch.positions", "[]", "the list is empty");
	refuse("patch.positions", "last", "expected all");
	assert_int_equal(test_e.patch.n_positions, 2);
	test_settings_set(&test_e, "patch", "{layers: all, positions: all}");
	assert_int_equal(test_e.patch.n_layers + test_e.patch.n_positions, 0);
	assert_null(test_e.patch.layer);
	/* cache.positions has the same lists, and its own words. */
	test_settings_set(&test_e, "cache.positions", "0,-1");
	assert_int_equal(test_e.cache.positions, LENS_POS_LIST);
	test_settings_set(&test_e, "cache.positions", "read");
	assert_int_equal(test_e.cache.n_positions, 0);
}

/* --- sets -------------------------------------------------------------------------- */

static void sets(void **state)
{
	(void)state;
	assert_in_json("\"sets\":{}");
	test_settings_load(&test_e, "ablate:\n  sets:\n    name_movers: [\"9.9\", 9.6, 10.0]\n"
				    "    a: 0.1\n");
	assert_int_equal(test_e.ablate.n_sets, 2);
	assert_string_equal(test_e.ablate.set[0].name, "name_movers");
	ASSERT_STRINGS(&test_e.ablate.set[0].heads, "9.9", "9.6", "10.0");
	assert_string_equal(test_e.ablate.set[1].name, "a");
	assert_in_json("\"sets\":{\"a\":[\"0.1\"],\"name_movers\":[\"9.9\",\"9.6\",\"10.0\"]}");
	refuse("ablate.sets", "{a: []}", "the list is empty");
	refuse("ablate.sets", "{a: [9.9], a: [9.8]}", "the key 'a' appears twice");
	refuse("ablate.sets", "{a: {b: 9.9}}", "not a mapping");
	refuse("ablate.sets", "{a: [b]}", "'b' is not a head");
	refuse("ablate.sets", "{\"\": [9.9]}", "a set has no name");
	refuse("ablate.sets", "[9.9]", "not a list");
	refuse("ablate.sets", "9.9", "expected {a name: [layer.head, …], …}, not '9.9'");
	assert_int_equal(test_e.ablate.n_sets, 2);
	test_settings_set(&test_e, "ablate.sets", "{b: [10.0]}");
	assert_int_equal(test_e.ablate.n_sets, 1);
	assert_string_equal(test_e.ablate.set[0].heads.v[0], "10.0");
}

/* --- places, numbers, a layer --------------------------------------------------------- */

static void places(void **state)
{
	const struct lens_places *from = &test_e.knockout.from;

	(void)state;
	assert_in_json("\"from\":\"none\"");
	test_settings_load(&test_e,
			   "knockout: {from: {find: \" Mary\", nth: -1}, to: [1, -1]}\n");
	assert_string_equal(from->find, " Mary");
	assert_int_equal(from->nth, -1);
	assert_int_equal(test_e.knockout.to.n, 2);
	assert_in_json("\"from\":{\"find\":\" Mary\",\"nth\":-1}");
	assert_in_json("\"to\":[1,-1]");
	refuse("knockout.from", "{find: a, find_column: b}", "not both");
	refuse("knockout.from", "{nth: 1}", "not neither");
	refuse("knockout.from", "{find: a, nht: 1}", "unknown key 'knockout.from.nht'");
	refuse("knockout.from", "{find: a, nth: x}", "knockout.from.nth: expected an integer");
	refuse("knockout.from", "[]", "the list is empty");
	refuse("knockout.from", "1,1", "the position 1 is listed twice");
	refuse("knockout.from", "last", "expected none | [1, -1, …]");
	refuse("knockout.from", "non", "did you mean 'none'?");
	assert_string_equal(from->find, " Mary");
	test_settings_set(&test_e, "knockout.from", "{find_column: subject}");
	assert_null(from->find);
	assert_string_equal(from->find_column, "subject");
	assert_int_equal(from->nth, 0);
	test_settings_set(&test_e, "knockout.from", "0,2");
	assert_null(from->find_column);
	assert_int_equal(from->position[1], 2);
	test_settings_set(&test_e, "knockout", "{from: none, to: none}");
	assert_int_equal(from->n + test_e.knockout.to.n, 0);
}

static void scales(void **state)
{
	static const char *const wrong[] = { "nan", "inf", "1e999", "0x10", "1,2,",  "one",
					     "--1", "1 2", ".",     "e5",   "{a: 1}" };
	size_t i;

	(void)state;
	assert_int_equal(test_e.steer.n_scales, 1);
	assert_true(test_e.steer.scale[0] == 1);
	test_settings_set(&test_e, "steer.scale", "[-4, 0, 2.5e-1, .5]");
	assert_int_equal(test_e.steer.n_scales, 4);
	assert_true(test_e.steer.scale[2] == 0.25);
	assert_in_json("\"scale\":[-4.0,0.0,0.25,0.5]");
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refuse("steer.scale", wrong[i], "steer.scale: ");
	refuse("steer.scale", "1,1.0", "the number 1 is listed twice");
	refuse("steer.scale", "0,-0", "is listed twice");
	refuse("steer.scale", "[]", "the list is empty");
	assert_int_equal(test_e.steer.n_scales, 4);
	test_settings_set(&test_e, "steer.scale", "-3");
	assert_true(test_e.steer.n_scales == 1 && test_e.steer.scale[0] == -3);
}

/* The vector's path is no part of the identity: its content is. */
static void steering(void **state)
{
	char *json;

	(void)state;
	test_settings_load(&test_e, "steer: {hook: z, layer: 6, vector: v.h5:/a}\n");
	assert_int_equal(test_e.steer.hook, LENS_STEER_Z);
	assert_int_equal(test_e.steer.layer, 6);
	assert_string_equal(strrchr(test_e.steer.vector, '/'), "/a");
	assert_in_json("\"steer\":{\"hook\":\"z\",\"layer\":6,\"positions\":\"all\",");
	json = test_settings_json(&test_e, true);
	assert_null(strstr(json, "v.h5"));
	lens_free(json);
	json = test_settings_json(&test_e, false);
	assert_non_null(strstr(json, "v.h5:/a"));
	lens_free(json);
	refuse("steer.hook", "hook_resid_post", "did you mean 'resid_post'?");
	refuse("steer.hook", "pattern", "expected resid_pre | resid_mid");
	refuse("steer.layer", "-1", "expected none | a layer from 0, not '-1'");
	refuse("steer.layer", "6.5", "expected none | a layer from 0");
	test_settings_set(&test_e, "steer.positions", "0,-1");
	assert_int_equal(test_e.steer.positions.n, 2);
	test_settings_set(&test_e, "steer", "{positions: all, vector: none, layer: none}");
	assert_int_equal(test_e.steer.positions.n, 0);
	assert_null(test_e.steer.vector);
	assert_int_equal(test_e.steer.layer, -1);
}

/* --- what fits together ------------------------------------------------------------- */

static void assert_check(const char *text)
{
	test_err = (struct lens_error)LENS_ERROR_INIT;
	if (!text) {
		assert_int_equal(lens_experiment_check(&test_e, &test_err), LENS_OK);
		return;
	}
	assert_int_equal(lens_experiment_check(&test_e, &test_err), LENS_ERR_INVALID);
	if (!strstr(test_err.text, text))
		fail_msg("expected \"%s\", got \"%s\"", text, test_err.text);
}

static void start(const char *yaml)
{
	test_settings_teardown(NULL);
	assert_int_equal(test_settings_setup(NULL), 0);
	test_settings_load(&test_e, yaml);
	test_settings_set(&test_e, "model", "m");
	test_settings_set(&test_e, "output", "o.h5");
	test_settings_set(&test_e, "data.csv", "d.csv");
}

static void patch_fits(void **state)
{
	(void)state;
	start("data: {corrupted: c, answers: [a, b]}\npatch: {grids: resid_pre}\n");
	assert_check(NULL);
	test_settings_set(&test_e, "data.answers", "a");
	assert_check("patch.grids measures logit_diff, which needs 2 answer columns; "
		     "data.answers names 1");
	test_settings_set(&test_e, "patch.metric", "answer_logprob");
	assert_check(NULL);
	test_settings_set(&test_e, "data.answers", "[]");
	assert_check("measures answer_logprob, which needs 1 answer column;");
	test_settings_set(&test_e, "patch.metric", "kl_divergence");
	assert_check(NULL);
	test_settings_set(&test_e, "data.corrupted", "prompt");
	assert_check("data.prompt and data.corrupted are the same column, 'prompt'");
	test_settings_set(&test_e, "data.corrupted", "none");
	assert_check("patch.grids needs corrupted prompts: name their column");
	test_settings_set(&test_e, "patch.grids", "none");
	assert_check("patch.metric is set, but patch.grids lists nothing to patch");
	test_settings_set(&test_e, "patch.metric", "logit_diff");
	assert_check(NULL);
	test_settings_set(&test_e, "patch.reuse", "false");
	assert_check(NULL); /* other interventions heed it, too */
	test_settings_set(&test_e, "data.corrupted", "c");
	assert_check("data.corrupted is set, but nothing uses it");
}

/* Without hooks and tables there is still something to do. */
static void alone(void **state)
{
	(void)state;
	start("data: {corrupted: c}\npatch: {grids: resid_pre, metric: kl_divergence}\n"
	      "tables: none\ncache: {hooks: none}\n");
	assert_check(NULL);
	start("data: {answers: [a, b]}\nablate: {sets: {a: [0.1]}}\n"
	      "tables: none\ncache: {hooks: none}\n");
	assert_check(NULL);
}

static void ablate_fits(void **state)
{
	(void)state;
	start("data: {answers: [a, b]}\nablate: {grids: mlp_out}\n");
	assert_check(NULL);
	test_settings_set(&test_e, "ablate.heads", "9.6");
	assert_check("ablate.heads is for attn_head_out_all_pos, which ablate.grids does not");
	test_settings_set(&test_e, "ablate.grids", "attn_head_out_all_pos");
	assert_check(NULL);
	test_settings_set(&test_e, "data.answers", "a");
	assert_check("ablate.grids measures logit_diff, which needs 2 answer columns");
	test_settings_set(&test_e, "data.answers", "a,b");
	test_settings_set(&test_e, "ablate.mean_over", "tokens");
	assert_check("ablate.mean_over is for ablate.value: mean");
	test_settings_set(&test_e, "ablate.value", "mean");
	assert_check(NULL);
	test_settings_set(&test_e, "ablate.seed", "-7");
	assert_check("ablate.seed is for ablate.value: resample");
	test_settings_set(&test_e, "ablate", "{value: resample, mean_over: prompts}");
	assert_int_equal(test_e.ablate.seed, -7);
	assert_check(NULL);
	refuse("ablate.seed", "x", "expected an integer, not 'x'");
	assert_int_equal(test_e.ablate.seed, -7);
	test_settings_set(&test_e, "ablate.grids", "none");
	assert_check("is set, but neither ablate.grids nor ablate.sets says what to ablate");
}

static void knockout_fits(void **state)
{
	(void)state;
	start("knockout: {from: [0]}\n");
	assert_check("knockout.from is set, but not knockout.to: the queries");
	start("knockout: {to: {find: a}}\n");
	assert_check("knockout.to is set, but not knockout.from: the keys");
	test_settings_set(&test_e, "knockout.from", "{find_column: a}");
	assert_check(NULL);
	test_settings_set(&test_e, "data.answer_tokens", "any");
	assert_check("knockout needs answers of one token; data.answer_tokens is any");
	start("knockout: {layers: [0]}\n");
	assert_check("knockout.layers is set, but knockout.from and knockout.to do not say");
}

static void steer_fits(void **state)
{
	(void)state;
	start("steer: {layer: 1}\n");
	assert_check("steer.layer is set, but steer.vector names no vector to add");
	start("steer: {scale: 2}\n");
	assert_check("steer.scale is set, but steer.vector names");
	start("steer: {vector: v.npy}\n");
	assert_check("steer.vector is set, but not steer.layer");
	test_settings_set(&test_e, "steer.layer", "0");
	assert_check(NULL);
	test_settings_set(&test_e, "data.answer_tokens", "any");
	assert_check("steer needs answers of one token");
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_settings_setup, test_settings_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(grids),
		T(unknown_grids),
		T(heads),
		T(wrong_heads),
		T(layers_and_positions),
		T(sets),
		T(patch_fits),
		T(alone),
		T(ablate_fits),
		T(places),
		T(scales),
		T(steering),
		T(knockout_fits),
		T(steer_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
