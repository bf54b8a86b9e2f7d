/*
 * test_forward_visitors.c: the list of visitors: in which order they are called, what
 * cannot be edited, and errors. On the level of H5LENS_TEST_CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/edits.h"

/* --- the list --------------------------------------------------- */

static void assert_changed(const struct test_rig *r, const struct test_record *is,
			   const struct test_record *plain, float factor, float term)
{
	size_t pos, k;

	for (pos = 0; pos < TEST_EDIT_LENGTH; pos++) {
		const float *x = test_recorded(is, LENS_HOOK_MLP_OUT, 0, 0, pos);
		const float *was = test_recorded(plain, LENS_HOOK_MLP_OUT, 0, 0, pos);

		for (k = 0; k < r->m->config.d_model; k++)
			assert_int_equal(test_bits(x[k]), test_bits(was[k] * factor + term));
	}
}

/*
 * Two edits, the first before the second, with a visit first, between or last: it sees
 * mlp_out·factor + term.
 */
static void check_order(const struct test_rig *r, struct test_edit *first,
			struct test_edit *second, float factor, float term)
{
	struct test_record plain, seen;
	size_t at, i;

	test_record_pass(r, NULL, &plain);
	for (at = 0; at < 3; at++) {
		struct test_edit *edit[] = { first, second };
		struct lens_visitor v[3];

		test_record_init(&seen, r->m, &r->b, LENS_WANT_ALL);
		for (i = 0; i < 2; i++)
			v[i < at ? i : i + 1] = test_edit_visitor(edit[i]);
		v[at] = test_record_visitor(&seen);
		assert_int_equal(test_run_visitors(r, v, 3), LENS_OK);
		assert_changed(r, &seen, &plain, factor, term);
		test_record_release(&seen);
	}
	test_record_release(&plain);
}

/* Edits come before visits, in their own order, wherever they stand in the list. */
static void order(void **state)
{
	struct test_edit twice, more;
	struct test_rig r;

	(void)state;
	test_rig_begin(&r, test_edited_models[0]);
	test_edit_init(&twice, &r, LENS_HOOK_MLP_OUT, 0);
	twice.factor = 2;
	test_edit_init(&more, &r, LENS_HOOK_MLP_OUT, 0);
	more.factor = 1;
	more.term = 3;
	check_order(&r, &twice, &more, 2, 3);
	check_order(&r, &more, &twice, 2, 6); /* (x + 3)·2 is x·2 + 6 to the bit */
	test_edit_release(&twice);
	test_edit_release(&more);
	test_rig_end(&r);
}

/* Two visits see the same, with an edit between them. */
static void two_visits(void **state)
{
	struct test_record first, second;
	struct lens_visitor v[3];
	struct test_edit e;
	struct test_rig r;

	(void)state;
	test_rig_begin(&r, test_edited_models[1]);
	test_edit_init(&e, &r, LENS_HOOK_PATTERN, 1);
	e.factor = 0.5f;
	test_record_init(&first, r.m, &r.b, LENS_WANT_ALL);
	test_record_init(&second, r.m, &r.b, LENS_WANT_ALL);
	v[0] = test_record_visitor(&first);
	v[1] = test_edit_visitor(&e);
	v[2] = test_record_visitor(&second);
	assert_int_equal(test_run_visitors(&r, v, 3), LENS_OK);
	assert_true(test_same_records(&first, &second, "two visits") > 0);
	test_edit_release(&e);
	test_record_release(&first);
	test_record_release(&second);
	test_rig_end(&r);
}

/* --- what cannot be edited --------------------------------------------------- */

/* Refused by name, before anything is edited: from the tokens, or from a block on. */
static void check_refused(const struct test_rig *r, enum lens_hook hook, const char *name,
			  const float *resid)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct test_edit e;
	struct lens_visitor v;
	const struct test_pass pass = {
		.m = r->m, .b = &r->b, .visitor = &v, .n = 1, .resid = resid
	};

	test_edit_init(&e, r, hook, lens_hook_info(hook)->per_layer);
	lens_hook_want(&e.hooks, LENS_HOOK_Z, 1, LENS_WANT_ALL);
	v = test_edit_visitor(&e);
	assert_int_equal(test_run_pass(&pass, &err), LENS_ERR_INVALID);
	if (!strstr(err.text, name))
		fail_msg("no %s in: %s", name, err.text);
	assert_int_equal(e.times, 0);
	test_edit_release(&e);
}

static void not_editable(void **state)
{
	static const struct {
		enum lens_hook hook;
		const char *name;
	} fixed[] = {
		{ LENS_HOOK_LN1_SCALE, "blocks.1.ln1.hook_scale" },
		{ LENS_HOOK_RESULT, "blocks.1.attn.hook_result" },
		{ LENS_HOOK_MLP_IN, "blocks.1.hook_mlp_in" },
		{ LENS_HOOK_LN2_SCALE, "blocks.1.ln2.hook_scale" },
		{ LENS_HOOK_LN_FINAL_SCALE, "ln_final.hook_scale" },
	};
	struct test_rig r;
	float *resid;
	size_t i;

	(void)state;
	test_rig_begin(&r, test_edited_models[0]);
	resid = test_floats(r.b.n_rows * r.m->config.d_model, 1);
	for (i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
		check_refused(&r, fixed[i].hook, fixed[i].name, NULL);
		check_refused(&r, fixed[i].hook, fixed[i].name, resid);
	}
	lens_free(resid);
	test_rig_end(&r);
}

/* An edit's error ends the pass: no visit sees the point. */
static enum lens_status refuse(void *ctx, const struct lens_batch *b,
			       const struct lens_activation *a, float *data,
			       struct lens_error *err)
{
	(void)ctx;
	(void)b;
	(void)a;
	(void)data;
	return lens_error_set(err, LENS_ERR_INTERRUPTED, "as asked");
}

static void errors(void **state)
{
	static const enum lens_hook at[] = { LENS_HOOK_EMBED, LENS_HOOK_Q, LENS_HOOK_PATTERN,
					     LENS_HOOK_MLP_PRE, LENS_HOOK_LOGITS };
	struct test_rig r;
	size_t i;

	(void)state;
	test_rig_begin(&r, test_edited_models[0]);
	for (i = 0; i < 5; i++) {
		struct test_edit e;
		struct lens_visitor v[2];
		struct test_record seen;

		test_edit_init(&e, &r, at[i], 0);
		test_record_init(&seen, r.m, &r.b, LENS_WANT_NOT);
		lens_hook_want(&seen.hooks, at[i], 0, LENS_WANT_ALL);
		v[0] = test_record_visitor(&seen);
		v[1] = (struct lens_visitor){ .hooks = &e.hooks, .edit = refuse };
		assert_int_equal(test_run_visitors(&r, v, 2), LENS_ERR_INTERRUPTED);
		assert_null(test_recorded(&seen, at[i], 0, 0, 0));
		test_edit_release(&e);
		test_record_release(&seen);
	}
	test_rig_end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order),
		cmocka_unit_test(two_visits),
		cmocka_unit_test(not_editable),
		cmocka_unit_test(errors),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
