/*
 * test_unknown.c: what is told of a model whose model_type we do not have, and the tensors
 * that a config.json asks for. Published configs are in tests/cli/check_published.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/model.h"
#include "model/config_private.h"
#include "support/cases.h"

#define PLAIN "tests/unit/data/model/plain"
#define STRANGE "tests/invalid/model/config-model-type" /* a GPT-2 that calls itself mamba */

static void look_at_strange(void **state)
{
	struct lens_unknown_model u;

	(void)state;
	assert_int_equal(lens_unknown_look(STRANGE, &u, NULL), LENS_OK);
	assert_string_equal(u.model_type, "mamba");
	assert_string_equal(u.nearest, "gpt2");
	assert_string_equal(u.shapes.data,
			    "n_layers 1 (n_layer), d_model 4 (n_embd), n_heads 2 (n_head), "
			    "d_mlp 8 (n_inner), d_vocab 6 (vocab_size), n_ctx 4 (n_positions)");
	assert_int_equal(u.n_known, u.n_keys);
	assert_true(u.weights && !u.new_keys.len && !u.others_keys.len && !u.refusal.len);
	assert_true(!u.added.len && !u.lacking.len);
	lens_unknown_release(&u);
}

/* There is nothing to tell of a family that we have, nor of a folder without a model_type. */
static void look_at_known(void **state)
{
	struct lens_unknown_model u;

	(void)state;
	assert_int_equal(lens_unknown_look(PLAIN, &u, NULL), LENS_OK);
	assert_string_equal(u.model_type, "");
	lens_unknown_release(&u);
	assert_int_equal(lens_unknown_look("tests/invalid/model/config-no-model-type", &u,
					   NULL),
			 LENS_OK);
	assert_string_equal(u.model_type, "");
	lens_unknown_release(&u);
	assert_int_not_equal(lens_unknown_look("tests/invalid/model/folder-empty", &u, NULL),
			     LENS_OK);
	lens_unknown_release(&u);
}

static enum lens_status check_listed(void *ctx, const char *name, int rank, const size_t *shape,
				     struct lens_error *err)
{
	struct lens_tensors *files = ctx;
	const struct lens_tensor *t;

	return lens_tensors_use(files, name, rank, shape, &t, err);
}

/* What config.json asks for is what the files of a model hold: every name, every shape. */
static void listed_tensors(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tensors files;

	(void)state;
	assert_int_equal(lens_tensors_open(PLAIN, false, &files, NULL, &err), LENS_OK);
	assert_int_equal(lens_checkpoint_each(PLAIN, check_listed, &files, &err), LENS_OK);
	assert_int_equal(lens_tensors_all_used(&files, NULL, &err), LENS_OK);
	lens_tensors_release(&files);
}

static enum lens_status look(void *ctx)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_unknown_model u;
	enum lens_status st = lens_unknown_look(ctx, &u, &err);

	assert_int_equal(err.code, st);
	lens_unknown_release(&u);
	return st;
}

static enum lens_status nothing(void *ctx, const char *name, int rank, const size_t *shape,
				struct lens_error *err)
{
	(void)ctx;
	(void)name;
	(void)rank;
	(void)shape;
	(void)err;
	return LENS_OK;
}

static enum lens_status list(void *ctx)
{
	return lens_checkpoint_each(ctx, nothing, NULL, NULL);
}

static void allocation_failures(void **state)
{
	char strange[] = STRANGE, plain[] = PLAIN;

	(void)state;
	test_alloc_failures(look, strange);
	test_alloc_failures(list, plain);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(look_at_strange),
		cmocka_unit_test(look_at_known),
		cmocka_unit_test(listed_tensors),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
