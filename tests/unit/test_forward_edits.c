/*
 * test_forward_edits.c: visitors that change a pass: what follows is what a model whose
 * weights do the same gives, or a pass that begins there, to the bit. On the level of
 * H5LENS_TEST_CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/edits.h"

/* A head whose z is zero, and one whose rows of W_O are. */
static void check_head(struct test_rig *r, size_t layer, size_t head)
{
	const struct lens_config *c = &r->m->config;
	float *w_o = r->m->block[layer].w_o + head * c->d_head * c->d_model;
	size_t bytes = c->d_head * c->d_model * sizeof(float);
	struct test_record plain, edited, zeroed;
	void *was = lens_alloc_aligned(bytes, 1);
	struct test_edit e;

	assert_non_null(was);
	test_record_pass(r, NULL, &plain);
	test_edit_init(&e, r, LENS_HOOK_Z, layer);
	e.from = head * c->d_head;
	e.n = c->d_head;
	test_record_pass(r, &e, &edited);
	assert_int_equal(e.times, 1);
	assert_true(test_differ(r, &edited, &plain, LENS_HOOK_LOGITS, 0));
	memcpy(was, w_o, bytes);
	memset(w_o, 0, bytes);
	test_record_pass(r, NULL, &zeroed);
	memcpy(w_o, was, bytes);
	assert_false(test_differ(r, &edited, &zeroed, LENS_HOOK_LOGITS, 0));
	assert_false(test_differ(r, &edited, &zeroed, LENS_HOOK_ATTN_OUT, layer));
	assert_false(test_differ(r, &edited, &plain, LENS_HOOK_RESID_PRE, layer));
	/* z itself: the others' heads are as they were */
	assert_true(test_differ(r, &edited, &plain, LENS_HOOK_Z, layer));
	lens_free(was);
	test_edit_release(&e);
	test_record_release(&plain);
	test_record_release(&edited);
	test_record_release(&zeroed);
}

static void zero_a_head(void **state)
{
	size_t k, layer;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_rig r;

		test_rig_begin(&r, test_edited_models[k]);
		for (layer = 0; layer < r.m->config.n_layers; layer++)
			check_head(&r, layer, layer ? r.m->config.n_heads - 1 : 1);
		test_rig_end(&r);
	}
}

static void assert_zeros(const struct test_rig *r, const struct test_record *t,
			 enum lens_hook hook, size_t layer, bool zero)
{
	size_t i, pos, k, width = t->point[layer * LENS_HOOK_COUNT + (size_t)hook].width;

	for (i = 0; i < TEST_EDIT_PROMPTS; i++) {
		for (pos = 0; pos < r->b.length[i]; pos++) {
			const float *x = test_recorded(t, hook, layer, i, pos);
			size_t zeros = 0;

			for (k = 0; k < width; k++)
				zeros += x[k] == 0;
			assert_true(zero ? zeros == width : zeros < width);
		}
	}
}

/* A pattern of zeros mixes nothing; the scores before it stay. */
static void zero_pattern(void **state)
{
	size_t k;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain, edited;
		struct test_edit e;
		struct test_rig r;

		test_rig_begin(&r, test_edited_models[k]);
		test_record_pass(&r, NULL, &plain);
		test_edit_init(&e, &r, LENS_HOOK_PATTERN, 0);
		test_record_pass(&r, &e, &edited);
		assert_int_equal(e.times, TEST_EDIT_PROMPTS * r.m->config.n_heads);
		assert_zeros(&r, &edited, LENS_HOOK_PATTERN, 0, true);
		assert_zeros(&r, &edited, LENS_HOOK_Z, 0, true);
		assert_zeros(&r, &edited, LENS_HOOK_Z, 1, false);
		assert_zeros(&r, &plain, LENS_HOOK_Z, 0, false);
		assert_false(test_differ(&r, &edited, &plain, LENS_HOOK_ATTN_SCORES, 0));
		test_edit_release(&e);
		test_record_release(&plain);
		test_record_release(&edited);
		test_rig_end(&r);
	}
}

/* Every point that can be edited changes the logits, or is itself what is shown last. */
static void every_point_matters(void **state)
{
	size_t k;
	int h;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain;
		struct test_rig r;

		test_rig_begin(&r, test_edited_models[k]);
		test_record_pass(&r, NULL, &plain);
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			enum lens_hook hook = (enum lens_hook)h;
			struct test_record edited;
			struct test_edit e;

			if (!lens_hook_exists(&r.m->config, hook) ||
			    !lens_hook_info(hook)->editable)
				continue;
			test_edit_init(&e, &r, hook, 0);
			e.factor = 0.5f;
			test_record_pass(&r, &e, &edited);
			if (!test_differ(&r, &edited, &plain, LENS_HOOK_LOGITS, 0))
				fail_msg("%s: an edit does nothing",
					 lens_hook_info(hook)->name);
			test_edit_release(&e);
			test_record_release(&edited);
		}
		test_record_release(&plain);
		test_rig_end(&r);
	}
}

/* The stream before block 1, edited on the way or given. */
static void edit_or_begin_there(void **state)
{
	size_t k, i;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain, edited, given;
		struct lens_visitor v;
		struct test_edit e;
		struct test_rig r;
		float *resid;

		test_rig_begin(&r, test_edited_models[k]);
		test_record_pass(&r, NULL, &plain);
		test_edit_init(&e, &r, LENS_HOOK_RESID_PRE, 1);
		e.factor = 1.25f;
		e.term = 0.75f;
		test_record_pass(&r, &e, &edited);
		resid = test_record_rows(&plain, &r.b, LENS_HOOK_RESID_PRE, 1);
		for (i = 0; i < r.b.n_rows * r.m->config.d_model; i++)
			resid[i] = resid[i] * 1.25f + 0.75f;
		test_record_init(&given, r.m, &r.b, LENS_WANT_ALL);
		v = test_record_visitor(&given);
		assert_int_equal(test_run_pass(&(struct test_pass){ .m = r.m,
								    .b = &r.b,
								    .visitor = &v,
								    .n = 1,
								    .resid = resid,
								    .layer = 1 },
					       NULL),
				 LENS_OK);
		assert_true(test_same_records(&given, &edited, "from block 1") > 0);
		assert_true(test_differ(&r, &edited, &plain, LENS_HOOK_LOGITS, 0));
		test_edit_release(&e);
		lens_free(resid);
		test_record_release(&plain);
		test_record_release(&edited);
		test_record_release(&given);
		test_rig_end(&r);
	}
}

/* In the last block, where the read positions alone go on, and where all do. */
static void edit_at_read_positions(void **state)
{
	size_t k;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record all, read;
		struct lens_visitor v[2];
		struct test_edit e;
		struct test_rig r;

		test_rig_begin(&r, test_edited_models[k]);
		test_edit_init(&e, &r, LENS_HOOK_Z, r.m->config.n_layers - 1);
		e.factor = 0.5f;
		test_record_pass(&r, &e, &all);
		memset(e.hooks.want, 0, e.hooks.n_layers * LENS_HOOK_COUNT);
		lens_hook_want(&e.hooks, LENS_HOOK_Z, r.m->config.n_layers - 1,
			       LENS_WANT_READ_POS);
		test_record_init(&read, r.m, &r.b, LENS_WANT_READ_POS);
		v[0] = test_edit_visitor(&e);
		v[1] = test_record_visitor(&read);
		assert_int_equal(test_run_visitors(&r, v, 2), LENS_OK);
		assert_true(test_same_records(&read, &all, "read positions") > 0);
		assert_null(test_recorded(&read, LENS_HOOK_Z, r.m->config.n_layers - 1, 0, 0));
		assert_non_null(
			test_recorded(&read, LENS_HOOK_Z, r.m->config.n_layers - 1, 0, 2));
		test_edit_release(&e);
		test_record_release(&all);
		test_record_release(&read);
		test_rig_end(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_a_head),
		cmocka_unit_test(zero_pattern),
		cmocka_unit_test(every_point_matters),
		cmocka_unit_test(edit_or_begin_there),
		cmocka_unit_test(edit_at_read_positions),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
