/*
 * test_axis.c: element types and the axes of axis.def: sizes and fill values, names,
 * extents and labels.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/axis.h"

static void sizes_of_types(void **state)
{
	(void)state;
	assert_int_equal(lens_dtype_size(LENS_F16), 2);
	assert_int_equal(lens_dtype_size(LENS_F32), 4);
	assert_int_equal(lens_dtype_size(LENS_F64), 8);
	assert_int_equal(lens_dtype_size(LENS_I32), 4);
	assert_int_equal(lens_dtype_size(LENS_I64), 8);
	assert_int_equal(lens_dtype_size(LENS_U8), 1);
	assert_int_equal(lens_dtype_size(LENS_STR), 0);
	assert_int_equal(lens_dtype_size((enum lens_dtype)77), 0);
}

static void fill(void **state)
{
	static const uint8_t half[6] = { 0, 0x7e, 0, 0x7e, 0, 0x7e };
	uint8_t buf[64];
	double d[7];
	float f[7];
	int64_t i;

	(void)state;
	lens_fill(LENS_F16, buf, 3);
	assert_memory_equal(buf, half, 6);
	lens_fill(LENS_F32, f, 7);
	lens_fill(LENS_F64, d, 7);
	for (i = 0; i < 7; i++)
		assert_true(isnan(f[i]) && isnan(d[i]));
	lens_fill(LENS_I64, &i, 1);
	assert_int_equal(i, -1);
	memset(buf, 7, sizeof(buf));
	lens_fill(LENS_U8, buf, 2);
	lens_fill(LENS_I32, buf + 2, 0);
	lens_fill(LENS_STR, buf + 2, 3);
	assert_int_equal(buf[1], 0);
	assert_int_equal(buf[2], 7);
}

static const char *const answers[] = { "correct", "wrong", "other" };

/* Two layers, three answers; no two extents are alike that could be mistaken. */
static const struct lens_sizes sizes = {
	.n_layers = 2,
	.n_heads = 6,
	.n_kv_heads = 7,
	.d_model = 8,
	.d_head = 9,
	.d_mlp = 10,
	.d_vocab = 11,
	.n_prompts = 12,
	.n_pos = 13,
	.n_slots = 14,
	.n_answers = 3,
	.answer = answers,
	.n_answer_pos = 16,
	.top_k = 15,
};

/* Scales are found by name: no two axes may share one. */
static void names(void **state)
{
	size_t i, j;

	(void)state;
	for (i = 0; i < LENS_AXIS_COUNT; i++) {
		const char *name = lens_axis_name((enum lens_axis)i);

		assert_true(name && name[0] && !strchr(name, '/'));
		for (j = 0; j < i; j++)
			assert_string_not_equal(name, lens_axis_name((enum lens_axis)j));
	}
	assert_string_equal(lens_axis_name(LENS_AXIS_PROMPT), "prompt");
	assert_string_equal(lens_axis_name(LENS_AXIS_ANSWER), "answer");
	assert_string_equal(lens_axis_name(LENS_AXIS_ANSWER_OTHER), "answer_other");
	assert_string_equal(lens_axis_name(LENS_AXIS_LENS_LAYER), "lens_layer");
}

static void extents(void **state)
{
	const struct lens_sizes none = { 0 };

	(void)state;
	assert_int_equal(lens_axis_extent(LENS_AXIS_PROMPT, &sizes), 12);
	assert_int_equal(lens_axis_extent(LENS_AXIS_POS, &sizes), 13);
	assert_int_equal(lens_axis_extent(LENS_AXIS_SLOT, &sizes), 14);
	assert_int_equal(lens_axis_extent(LENS_AXIS_KEY, &sizes), 13);
	assert_int_equal(lens_axis_extent(LENS_AXIS_HEAD, &sizes), 6);
	assert_int_equal(lens_axis_extent(LENS_AXIS_KV_HEAD, &sizes), 7);
	assert_int_equal(lens_axis_extent(LENS_AXIS_ONE, &none), 1);
	assert_int_equal(lens_axis_extent(LENS_AXIS_K, &sizes), 15);
	assert_int_equal(lens_axis_extent(LENS_AXIS_ANSWER, &sizes), 3);
	assert_int_equal(lens_axis_extent(LENS_AXIS_ANSWER_OTHER, &sizes), 2);
	assert_int_equal(lens_axis_extent(LENS_AXIS_ANSWER_OTHER, &none), 0);
	assert_int_equal(lens_axis_extent(LENS_AXIS_ANSWER_POS, &sizes), 16);
	assert_int_equal(lens_axis_extent(LENS_AXIS_LENS_LAYER, &sizes), 3);
	assert_int_equal(lens_axis_extent(LENS_AXIS_COUNT, &sizes), 0);
}

static void assert_labels_of(const struct lens_sizes *s, enum lens_axis axis, size_t n,
			     const char *const *want)
{
	char text[LENS_LABEL];
	size_t i;

	assert_int_equal(lens_axis_extent(axis, s), n);
	for (i = 0; i < n; i++)
		assert_string_equal(lens_axis_label(axis, s, i, text), want[i]);
}

static void assert_labels(enum lens_axis axis, size_t n, const char *const *want)
{
	assert_labels_of(&sizes, axis, n, want);
}

static void labels(void **state)
{
	static const char *const layers[] = { "0_pre", "1_pre", "final_post" };
	static const char *const middles[] = { "0_pre", "0_mid", "1_pre", "1_mid",
					       "final_post" };
	struct lens_sizes huge = { .n_layers = SIZE_MAX }, mid = sizes;
	char text[LENS_LABEL];

	(void)state;
	assert_labels(LENS_AXIS_ANSWER, 3, answers);
	assert_labels(LENS_AXIS_ANSWER_OTHER, 2, answers + 1);
	assert_labels(LENS_AXIS_LENS_LAYER, 3, layers);
	mid.lens_mid = true;
	assert_labels_of(&mid, LENS_AXIS_LENS_LAYER, 5, middles);
	/* the longest number has room */
	assert_string_equal(lens_axis_label(LENS_AXIS_LENS_LAYER, &huge, SIZE_MAX - 1, text),
			    "18446744073709551614_pre");
	assert_null(lens_axis_label(LENS_AXIS_POS, &sizes, 0, text));
	assert_null(lens_axis_label(LENS_AXIS_HEAD, &sizes, 0, text));
	assert_null(lens_axis_label(LENS_AXIS_K, &sizes, 0, text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_of_types), cmocka_unit_test(fill),
		cmocka_unit_test(names),          cmocka_unit_test(extents),
		cmocka_unit_test(labels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
