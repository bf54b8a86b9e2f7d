/*
 * test_capture_plan.c: the questions around a capture, on the level of
 * H5LENS_TEST_CPU: which position a slot is, a sink or an allocation that fails,
 * and the memory that a plan asks for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/capture.h"
#include "support/numbers.h"

static void slots(void **state)
{
	static const long list[] = { 0, 4, -1, -5, -6, 5 };
	struct lens_positions p = { LENS_POS_LIST, list, 6 };

	(void)state;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 0);
	assert_int_equal(lens_slot_position(&p, 1, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 2, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 3, 5, 2), 0);
	assert_int_equal(lens_slot_position(&p, 4, 5, 2), -1);
	assert_int_equal(lens_slot_position(&p, 5, 5, 2), -1);
	p.kind = LENS_POS_ALL;
	assert_int_equal(lens_slot_position(&p, 4, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 5, 5, 2), -1);
	p.kind = LENS_POS_LAST;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 4);
	p.kind = LENS_POS_READ;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 2);
}

/* A sink that ends: the status comes back, and nothing is held. */
static void sink_errors(void **state)
{
	struct test_layout l = test_base_layout;
	struct lens_error err = LENS_ERROR_INIT;
	struct test_capture r;

	(void)state;
	l.chunk[0] = 1;
	for (l.hook = LENS_HOOK_Q; l.hook <= LENS_HOOK_PATTERN; l.hook++) {
		test_capture_prepare(&r, &l);
		r.got.fail_at = 3;
		assert_int_equal(test_capture_all(&r, &err), LENS_ERR_INTERRUPTED);
		assert_int_equal(r.got.held, 0);
		test_capture_release(&r);
		test_capture_prepare(&r, &l);
		r.got.submit_fails = LENS_ERR_NOSPACE;
		err = (struct lens_error)LENS_ERROR_INIT;
		assert_int_equal(test_capture_all(&r, &err), LENS_ERR_NOSPACE);
		test_capture_release(&r);
		err = (struct lens_error)LENS_ERROR_INIT;
	}
}

static void allocation_failures(void **state)
{
	struct test_layout l = test_base_layout;
	struct lens_capture *c;
	const struct lens_sink sink = { test_acquire, test_submit, NULL };
	struct test_capture r;
	unsigned long k;
	enum lens_status st = LENS_ERR_NOMEM;

	(void)state;
	l.hook = LENS_HOOK_PATTERN;
	test_capture_prepare(&r, &l);
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_capture_create(&r.plan, &sink, &c, &err);
		lens_alloc_fail_at(0);
		assert_int_equal(err.code, st);
		assert_true(st == LENS_OK || (st == LENS_ERR_NOMEM && !c));
		lens_capture_destroy(c);
	}
	assert_true(k > 4);
	test_capture_release(&r);
}

/* What it says to need is what it asks for. */
static void sizes(void **state)
{
	struct test_layout l = test_base_layout;
	struct test_capture r;

	(void)state;
	l.hook = LENS_HOOK_PATTERN;
	l.chunk[0] = 2;
	test_capture_prepare(&r, &l);
	/* two stages of [2 prompts, 3 heads, 41, 41] */
	assert_int_equal(lens_capture_bytes(&r.plan), 2 * 4 * 2 * 3 * 41 * 41);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 4 * 2 * 3 * 41 * 41);
	test_capture_release(&r);
	l.by_rows = true;
	l.chunk[0] = 8; /* batches of 4 */
	l.dtype = LENS_F16;
	test_capture_prepare(&r, &l);
	assert_int_equal(lens_capture_bytes(&r.plan), 2 * 4 * 4 * 3 * 41 * 41);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 2 * 4 * 3 * 41 * 41);
	test_capture_release(&r);
	l.chunk[0] = 2;
	test_capture_prepare(&r, &l);
	assert_int_equal(lens_capture_bytes(&r.plan), 2 * 4 * 2 * 3 * 41 * 41);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 2 * 2 * 3 * 41 * 41);
	test_capture_release(&r);
	l.hook = LENS_HOOK_Q;
	l.by_rows = false;
	l.chunk[1] = 8;
	test_capture_prepare(&r, &l);
	assert_int_equal(lens_capture_bytes(&r.plan), 0);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 2 * 2 * 8 * 3 * 2);
	test_capture_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots),
		cmocka_unit_test(sink_errors),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(sizes),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
