/*
 * support/edits.c: see edits.h.
 */
#include "support/edits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

const char *const test_edited_models[2] = { "tests/golden/data/gpt2_gelu_new",
					    "tests/golden/data/llama_gqa" };

void test_rig_begin(struct test_rig *r, const char *model)
{
	const struct lens_model_options raw = { 0 };
	struct test_prompt p[TEST_EDIT_PROMPTS];
	struct test_random rnd = { 8 };
	size_t i, k;

	r->m = test_open_model(model, &raw);
	for (i = 0; i < TEST_EDIT_PROMPTS; i++) {
		for (k = 0; k < TEST_EDIT_LENGTH; k++)
			r->token[i][k] = (int32_t)test_random_below(&rnd, r->m->config.d_vocab);
		p[i] = (struct test_prompt){ r->token[i], TEST_EDIT_LENGTH - i * 8,
					     (int32_t)(2 + i) };
	}
	test_pack(&r->b, p, TEST_EDIT_PROMPTS);
	test_scatter(&r->b, &rnd);
}

void test_rig_end(struct test_rig *r)
{
	lens_batch_release(&r->b);
	lens_model_destroy(r->m);
}

static enum lens_status change(void *ctx, const struct lens_batch *b,
			       const struct lens_activation *a, float *data,
			       struct lens_error *err)
{
	struct test_edit *e = ctx;
	size_t rows = lens_hook_is_square(a->hook) ? a->nq : b->n_rows, i, k;

	(void)err;
	assert_ptr_equal(data, a->data);
	e->times++;
	for (i = 0; i < rows; i++) {
		for (k = e->from; k < (e->n ? e->from + e->n : a->width); k++) {
			float *x = &data[i * a->stride + k];

			*x = *x * e->factor + e->term;
		}
	}
	return LENS_OK;
}

void test_edit_init(struct test_edit *e, const struct test_rig *r, enum lens_hook hook,
		    size_t layer)
{
	*e = (struct test_edit){ 0 };
	assert_int_equal(lens_hook_set_init(&e->hooks, &r->m->config, NULL, 0, NULL), LENS_OK);
	lens_hook_want(&e->hooks, hook, layer, LENS_WANT_ALL);
}

void test_edit_release(struct test_edit *e)
{
	lens_hook_set_release(&e->hooks);
}

struct lens_visitor test_edit_visitor(struct test_edit *e)
{
	return (struct lens_visitor){ .hooks = &e->hooks, .edit = change, .ctx = e };
}

enum lens_status test_run_visitors(const struct test_rig *r, const struct lens_visitor *v,
				   size_t n)
{
	const struct test_pass pass = { .m = r->m, .b = &r->b, .visitor = v, .n = n };

	return test_run_pass(&pass, NULL);
}

void test_record_pass(const struct test_rig *r, struct test_edit *e, struct test_record *out)
{
	struct lens_visitor v[2];

	test_record_init(out, r->m, &r->b, LENS_WANT_ALL);
	v[0] = test_record_visitor(out);
	if (e)
		v[1] = test_edit_visitor(e);
	assert_int_equal(test_run_visitors(r, v, e ? 2 : 1), LENS_OK);
}

bool test_differ(const struct test_rig *r, const struct test_record *x,
		 const struct test_record *y, enum lens_hook hook, size_t layer)
{
	size_t i, pos, width = x->point[layer * LENS_HOOK_COUNT + (size_t)hook].width;

	for (i = 0; i < TEST_EDIT_PROMPTS; i++) {
		for (pos = 0; pos < r->b.length[i]; pos++) {
			if (memcmp(test_recorded(x, hook, layer, i, pos),
				   test_recorded(y, hook, layer, i, pos),
				   width * sizeof(float)) != 0)
				return true;
		}
	}
	return false;
}
