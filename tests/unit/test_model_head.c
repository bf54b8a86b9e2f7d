/*
 * test_model_head.c: which tensors W_E and W_U are read from, base models among
 * them, and what a name is told that is no folder.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/model.h"
#include "support/passes.h"
#include "support/numbers.h"

#define VALID "tests/unit/data/model/"

static const struct lens_model_options raw;

static void assert_head(const char *dir, enum lens_tied_head choice, const char *w_e,
			const char *w_u, bool warns)
{
	struct lens_model_options opt = { .tied_head = choice };
	struct lens_model *m = test_open_model(dir, &opt);

	assert_string_equal(m->tensor_w_e, w_e);
	assert_string_equal(m->tensor_w_u, w_u);
	assert_true((m->warning != NULL) == warns);
	if (warns) {
		assert_non_null(strstr(m->warning, "transformers 4"));
		assert_non_null(strstr(m->warning, "transformers 5"));
		assert_non_null(strstr(m->warning, "tied_head: stored"));
	}
	lens_model_destroy(m);
}

/* auto is config.json's word, as in TransformerLens 2.16; a copy is no second reading. */
static void which_head(void **state)
{
	static const char wte[] = "transformer.wte.weight", head[] = "lm_head.weight";

	(void)state;
	assert_head(VALID "plain", LENS_HEAD_AUTO, wte, wte, false);
	assert_head(VALID "plain", LENS_HEAD_TIED, wte, wte, false);
	assert_head(VALID "tied-apart", LENS_HEAD_AUTO, wte, wte, true);
	assert_head(VALID "tied-apart", LENS_HEAD_TIED, wte, wte, false);
	assert_head(VALID "tied-apart", LENS_HEAD_STORED, wte, head, false);
	assert_head(VALID "untied", LENS_HEAD_AUTO, wte, head, false);
	assert_head(VALID "untied-null", LENS_HEAD_AUTO, wte, head, false);
	assert_head(VALID "untied", LENS_HEAD_TIED, wte, wte, false);
	assert_head(VALID "untied", LENS_HEAD_STORED, wte, head, false);
	assert_head(VALID "tied-copy", LENS_HEAD_AUTO, "wte.weight", "wte.weight", false);
	assert_head(VALID "tied-copy", LENS_HEAD_STORED, "wte.weight", head, false);
	assert_head(VALID "tied-moved", LENS_HEAD_AUTO, head, head, false);
	assert_head(VALID "base", LENS_HEAD_AUTO, "wte.weight", "wte.weight", false);
}

/* The values that each choice takes: plain's embedding, and a head one element on. */
static void head_values(void **state)
{
	const struct lens_model_options stored = { .tied_head = LENS_HEAD_STORED };
	struct lens_model *plain = test_open_model(VALID "plain", &raw);
	struct lens_model *tied = test_open_model(VALID "tied-apart", &raw);
	struct lens_model *apart = test_open_model(VALID "tied-apart", &stored);
	struct lens_model *moved = test_open_model(VALID "tied-moved", &raw);
	struct lens_model *base = test_open_model(VALID "base", &raw);
	size_t n = plain->config.d_vocab * plain->config.d_model, i;

	(void)state;
	test_assert_same(tied->w_u, plain->w_u, n, "tied");
	test_assert_same(moved->w_e, plain->w_e, n, "moved, W_E");
	test_assert_same(moved->w_u, plain->w_u, n, "moved, W_U");
	test_assert_same(base->w_u, plain->w_u, n, "base");
	test_assert_same(base->block->w_in, plain->block->w_in,
			 plain->config.d_model * plain->config.d_mlp, "base, W_in");
	test_assert_same(apart->w_e, plain->w_e, n, "apart, W_E");
	for (i = 0; i < n; i++)
		assert_true(apart->w_u[i] == plain->w_u[(i + 1) % n]);
	lens_model_destroy(plain);
	lens_model_destroy(tied);
	lens_model_destroy(apart);
	lens_model_destroy(moved);
	lens_model_destroy(base);
}

/* Nothing is there to be taken. */
static void stored_head_missing(void **state)
{
	const struct lens_model_options stored = { .tied_head = LENS_HEAD_STORED };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;

	(void)state;
	assert_int_equal(lens_model_open(VALID "plain", &stored, &m, &err), LENS_ERR_FORMAT);
	assert_non_null(strstr(err.text, "tensor \"lm_head.weight\" is missing, and tied_head "
					 "is stored"));
}

/* A name that is no folder: a hub id is told from a path, also behind an experiment's folder.
 */
static void no_folder(void **state)
{
	static const char *const cases[][2] = {
		{ "gpt2", "gpt2 DIR" },
		{ "openai-community/gpt2", "openai-community/gpt2 DIR" },
		{ "tests/unit/gpt2", ".py gpt2 DIR" },
		{ "tests/unit/openai-community/gpt2", ".py openai-community/gpt2 DIR" },
		{ "tests/unit/../unit/gpt2", ".py gpt2 DIR" },
		{ "https://huggingface.co/openai-community/gpt2",
		  ".py openai-community/gpt2 DIR" },
		{ "tests/hf.co/gpt2", ".py gpt2 DIR" },
		{ "../no/such/folder", NULL },
		{ "/no/such/folder", NULL },
		{ "README.md/gpt2", NULL },
		{ "no where", NULL },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct lens_config c;

		assert_int_equal(lens_config_load(cases[i][0], &c, &err), LENS_ERR_IO);
		assert_non_null(strstr(err.text, "there is no such folder"));
		if (cases[i][1] ? !strstr(err.text, cases[i][1])
				: strstr(err.text, "get_model") != NULL)
			fail_msg("%s: %s", cases[i][0], err.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(which_head),
		cmocka_unit_test(head_values),
		cmocka_unit_test(stored_head_missing),
		cmocka_unit_test(no_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
