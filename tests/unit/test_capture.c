/*
 * test_capture.c: activations that say where they are from, in every layout that
 * plan.c makes: every element is where the file's layout says, NaN stands
 * everywhere else, and nothing is written twice. Halves come from the level of
 * H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/capture.h"
#include "support/numbers.h"

static float as_stored(const struct test_layout *l, float x)
{
	return l->dtype == LENS_F16 && fabsf(x) >= 65520 ? copysignf(INFINITY, x) : x;
}

/* Of [token, …]. */
static float expected_token(const struct test_capture *r, const size_t *at)
{
	const struct test_layout *l = r->l;
	size_t prompt = 0, slot = 0, left, inner = at[1];
	long pos;

	while (test_first_token(r, prompt + 1) <= at[0])
		prompt++;
	left = at[0] - test_first_token(r, prompt);
	do {
		pos = lens_slot_position(&r->plan.positions, slot++, l->length[prompt],
					 (size_t)r->read_pos[prompt]);
	} while (pos < 0 || left--);
	if (r->spec[0].rank == 3)
		inner = at[1] * r->spec[0].extent[2] + at[2];
	return as_stored(l, test_hook_value(l, prompt, (size_t)pos, inner));
}

/* What element `at` of the dataset should be. */
static float expected(const struct test_capture *r, const size_t *at)
{
	const struct test_layout *l = r->l;
	size_t prompt = at[0], slot = test_square(l->hook) ? at[2] : at[1], inner = 0;
	long pos = lens_slot_position(&r->plan.positions, slot, l->length[prompt],
				      (size_t)r->read_pos[prompt]);

	if (pos < 0)
		return NAN;
	if (test_square(l->hook)) {
		if (at[3] >= l->length[prompt])
			return NAN;
		if (at[3] > (size_t)pos)
			return l->hook == LENS_HOOK_PATTERN ? 0 : -INFINITY;
		inner = at[1] * 64 + at[3];
	} else {
		inner = r->spec[0].rank == 4 ? at[2] * r->spec[0].extent[3] + at[3] : at[2];
	}
	return as_stored(l, test_hook_value(l, prompt, (size_t)pos, inner));
}

/* Everything written is right; what was not written holds no data. */
static void check_dataset(const struct test_capture *r)
{
	const struct lens_capture_spec *s = &r->spec[0];
	const struct test_layout *l = r->l;
	size_t i, k, n = test_product(s->extent, s->rank), at[LENS_CAPTURE_RANK], over = 0;

	for (i = 0; i < n; i++) {
		size_t rest = i;
		float should;

		for (k = (size_t)s->rank; k-- > 0; rest /= s->extent[k])
			at[k] = rest % s->extent[k];
		should = l->by_token ? expected_token(r, at) : expected(r, at);
		over += isinf(should) && should > 0;
		if (r->got.n[i] ? test_same(r->got.value[i], should) : isnan(should))
			continue;
		fail_msg("[%zu, %zu, %zu, %zu]: %g, not %g (written %d times)", at[0], at[1],
			 at[2], s->rank == 4 ? at[3] : 0, (double)r->got.value[i],
			 (double)should, r->got.n[i]);
	}
	assert_int_equal(r->overflows, over);
}

static void check(const struct test_layout *l)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct test_capture r;

	test_capture_prepare(&r, l);
	if (test_capture_all(&r, &err) != LENS_OK)
		fail_msg("%s", err.text);
	check_dataset(&r);
	test_capture_release(&r);
}

/* Each way to choose positions, in both types. */
static void check_positions(struct test_layout l)
{
	static const long slots[] = { 0, -1, 3, -3, 40, -40, 8 };
	int half;

	for (half = 0; half < 2; half++) {
		l.dtype = half ? LENS_F16 : LENS_F32;
		l.kind = LENS_POS_ALL;
		check(&l);
		l.kind = LENS_POS_LAST;
		check(&l);
		l.kind = LENS_POS_READ;
		check(&l);
		l.kind = LENS_POS_LIST;
		l.list = slots;
		for (l.n_list = 1; l.n_list <= 7; l.n_list += 3)
			check(&l);
	}
}

/* --- the layouts of plan.c -------------------------------------------------------------- */

static void by_rows(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_EMBED,   LENS_HOOK_LN1_SCALE,
						LENS_HOOK_Q,       LENS_HOOK_MLP_POST,
						LENS_HOOK_RESULT,  LENS_HOOK_LOGITS,
						LENS_HOOK_PATTERN, LENS_HOOK_ATTN_SCORES };
	struct test_layout l = test_base_layout;
	size_t i;

	(void)state;
	l.by_rows = true;
	l.chunk[0] = 8; /* two batches */
	for (i = 0; i < 8; i++) {
		l.hook = hooks[i];
		check_positions(l);
	}
}

/* Batches that hold several whole chunks, and parts of those that they share. */
static void chunks_within_and_across_batches(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_Q, LENS_HOOK_PATTERN };
	struct test_layout l = test_base_layout;
	size_t i;

	(void)state;
	l.by_rows = true;
	for (i = 0; i < 2; i++) {
		l.hook = hooks[i];
		for (l.batch_rows = 4; l.batch_rows <= 16; l.batch_rows += 4) {
			for (l.chunk[0] = 1; l.chunk[0] <= 13; l.chunk[0]++)
				check_positions(l);
		}
	}
}

/* A batch fills one chunk, or two, or four; the last is not full. */
static void chunks_of_batches(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_PRE, LENS_HOOK_Z,
						LENS_HOOK_LN_FINAL_SCALE, LENS_HOOK_PATTERN };
	struct test_layout l = test_base_layout;
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		l.hook = hooks[i];
		for (l.chunk[0] = 1; l.chunk[0] <= 4; l.chunk[0] *= 2)
			check_positions(l);
	}
}

/* Positions in chunks: one outlier of 41 tokens among prompts of 1 to 9. */
static void chunks_of_positions(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_PRE, LENS_HOOK_V,
						LENS_HOOK_RESULT };
	static const size_t positions[] = { 8, 1, 5, 40 };
	struct test_layout l = test_base_layout;
	size_t i, k;

	(void)state;
	for (i = 0; i < 3; i++) {
		l.hook = hooks[i];
		for (k = 0; k < 4; k++) {
			l.chunk[1] = positions[k];
			for (l.chunk[0] = 1; l.chunk[0] <= 4; l.chunk[0] *= 4)
				check_positions(l);
		}
	}
}

static void chunks_of_heads_and_positions(void **state)
{
	struct test_layout l = test_base_layout;

	(void)state;
	l.hook = LENS_HOOK_RESULT;
	l.chunk[0] = 1;
	for (l.chunk[1] = 5; l.chunk[1] <= 41; l.chunk[1] += 36) {
		for (l.chunk[2] = 1; l.chunk[2] <= 2; l.chunk[2]++)
			check_positions(l);
	}
}

/* Scores of one prompt a chunk, cut by head, query and key, shown in blocks. */
static void chunks_of_squares(void **state)
{
	static const size_t cuts[][3] = { { 1, 0, 0 },  { 2, 0, 0 },  { 3, 8, 8 }, { 1, 5, 0 },
					  { 1, 3, 16 }, { 2, 16, 7 }, { 3, 1, 1 } };
	struct test_layout l = test_base_layout;
	size_t i;

	(void)state;
	l.chunk[0] = 1;
	for (l.hook = LENS_HOOK_ATTN_SCORES; l.hook <= LENS_HOOK_PATTERN; l.hook++) {
		for (i = 0; i < 7; i++) {
			memcpy(l.chunk + 1, cuts[i], sizeof(cuts[i]));
			for (l.queries = 1; l.queries <= 64; l.queries *= 8)
				check_positions(l);
		}
	}
}

/* Several prompts a chunk, and queries shown in blocks. */
static void squares_shown_in_blocks(void **state)
{
	struct test_layout l = test_base_layout;
	int rows;

	(void)state;
	l.hook = LENS_HOOK_ATTN_SCORES;
	for (rows = 0; rows < 2; rows++) {
		l.by_rows = rows;
		l.chunk[0] = rows ? 8 : 2;
		for (l.queries = 1; l.queries <= 16; l.queries *= 4)
			check_positions(l);
	}
}

/* Batches end within a chunk, fill it, or several, or are all in one. */
static void chunks_of_tokens(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_PRE, LENS_HOOK_V,
						LENS_HOOK_RESULT, LENS_HOOK_LN1_SCALE };
	static const size_t tokens[] = { 1, 2, 5, 17, 24, 64, 1000 };
	struct test_layout l = test_base_layout;
	size_t i, k;

	(void)state;
	l.by_token = true;
	for (i = 0; i < 4; i++) {
		l.hook = hooks[i];
		for (k = 0; k < 7; k++) {
			l.chunk[0] = tokens[k];
			check_positions(l);
		}
	}
}

static void few_prompts(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_POST, LENS_HOOK_K,
						LENS_HOOK_PATTERN };
	struct test_layout l = test_base_layout;
	size_t i;

	(void)state;
	l.batch_rows = 8;
	for (l.n_prompts = 1; l.n_prompts <= 9; l.n_prompts += 2) {
		for (i = 0; i < 3; i++) {
			l.hook = hooks[i];
			l.by_rows = true;
			l.chunk[0] = 8;
			check_positions(l);
			l.by_rows = false;
			check_positions(l);
			l.chunk[0] = 1;
			check_positions(l);
		}
	}
}

/* 2038 · 64 is past 65504: infinities, each counted, −inf of the mask not. */
static void halves_that_overflow(void **state)
{
	struct test_layout l = test_base_layout;

	(void)state;
	l.factor = 64;
	l.chunk[0] = 4;
	check_positions(l);
	l.hook = LENS_HOOK_ATTN_SCORES;
	l.chunk[0] = 2;
	check_positions(l);
	l.by_rows = true;
	check_positions(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_rows),
		cmocka_unit_test(chunks_within_and_across_batches),
		cmocka_unit_test(chunks_of_batches),
		cmocka_unit_test(chunks_of_positions),
		cmocka_unit_test(chunks_of_heads_and_positions),
		cmocka_unit_test(chunks_of_squares),
		cmocka_unit_test(squares_shown_in_blocks),
		cmocka_unit_test(chunks_of_tokens),
		cmocka_unit_test(few_prompts),
		cmocka_unit_test(halves_that_overflow),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
