/*
 * test_tables.c: what the tables' rows are to the bit, on the level of
 * H5LENS_TEST_CPU: ties, and rows that do not depend on their neighbours; and what
 * an analysis says of itself: hooks, shapes, memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/tables.h"

enum { V = TEST_D_VOCAB, LAYERS = TEST_LAYERS, BATCH = TEST_BATCH, SOURCES = TEST_SOURCES };

/* Equal logits: strictly larger ones count, and ties leave the rank alone. */
static void ties(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_analysis_options opt = test_all_tables(3, 4, LENS_LENS_RECOMPUTE);
	struct lens_analysis *a;
	struct test_stream s;
	const int32_t *rank, *top;
	const float *diff;
	size_t i, bytes;

	(void)state;
	for (i = 0; i < V; i++)
		m->b_u[i] = i == 5 || i == 9 || i == 30 ? 1000 : 0;
	a = test_create_analysis(m, &opt);
	test_make_stream(&s, 2, 3);
	s.answers[0] = 5, s.answers[1] = 30, s.answers[2] = 9;
	s.answers[3] = 0, s.answers[4] = 9, s.answers[5] = 0;
	test_analyse(a, &s);
	rank = lens_analysis_result(a, test_table_index("answer_rank"), &bytes);
	assert_int_equal(rank[0] + rank[1] + rank[2], 0);
	assert_true(rank[3] >= 3 && rank[3] == rank[5] && rank[4] == 0);
	diff = lens_analysis_result(a, test_table_index("logit_diff"), &bytes);
	assert_true(diff[0] == 0 && diff[1] == 0);
	assert_true(diff[2] < -900 && diff[3] == 0);
	top = lens_analysis_result(a, test_table_index("top_tokens"), &bytes);
	assert_int_equal(top[0], 5);
	assert_int_equal(top[1], 9);
	assert_int_equal(top[2], 30);
	test_release_stream(&s);
	lens_analysis_destroy(a);
	lens_model_destroy(m);
}

/* --- bits -------------------------------------------------------------------------------- */

/* A prompt's rows do not depend on the prompts beside it, nor on which tables there are. */
static void rows_of_their_own(void **state)
{
	struct lens_model *m = test_make_model(false, false);
	struct lens_analysis_options opt = test_all_tables(2, 5, LENS_LENS_RECOMPUTE),
				     few = opt;
	struct lens_analysis *a = test_create_analysis(m, &opt),
			     *alone = test_create_analysis(m, &opt), *b;
	size_t i, t, bytes;
	struct test_stream s;

	(void)state;
	memset(few.wanted, 0, sizeof(few.wanted));
	few.wanted[test_table_index("answer_logit")] = few.wanted[LENS_TABLE_FLAGS] = true;
	b = test_create_analysis(m, &few);
	test_make_stream(&s, BATCH, 2);
	test_analyse(a, &s);
	for (i = 0; i < BATCH; i++) {
		struct test_stream one = s;

		one.n = 1;
		one.length[0] = s.length[i];
		one.offset[0] = s.offset[i];
		one.read_pos[0] = s.read_pos[i];
		memcpy(one.answers, s.answers + 2 * i, 2 * sizeof(*s.answers));
		test_analyse(alone, &one);
		for (t = 0; t < LENS_TABLES; t++) {
			const char *x = lens_analysis_result(a, t, &bytes);
			const char *y = lens_analysis_result(alone, t, &bytes);

			assert_true(!x == !opt.wanted[t]);
			if (!x)
				continue;
			assert_memory_equal(x + i * bytes, y, bytes);
		}
	}
	test_analyse(b, &s);
	t = test_table_index("answer_logit");
	assert_memory_equal(lens_analysis_result(a, t, &bytes),
			    lens_analysis_result(b, t, &bytes), BATCH * bytes);
	assert_null(lens_analysis_result(b, test_table_index("top_tokens"), &bytes));
	test_release_stream(&s);
	lens_analysis_destroy(a);
	lens_analysis_destroy(b);
	lens_analysis_destroy(alone);
	lens_model_destroy(m);
}

/* --- around it --------------------------------------------------------------------------- */

static void hooks_needed(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_analysis_options opt = test_all_tables(2, 5, LENS_LENS_RECOMPUTE);
	struct lens_hook_set s;
	size_t i, n;

	(void)state;
	for (opt.wanted[test_table_index("rank_per_layer")] = false, n = 0; n < 2; n++) {
		size_t wanted = 0;

		opt.wanted[test_table_index("lens_logit")] = n;
		assert_int_equal(lens_hook_set_init(&s, &m->config, NULL, 0, NULL), LENS_OK);
		lens_analysis_hooks(m, &opt, &s);
		for (i = 0; i < LAYERS * LENS_HOOK_COUNT; i++)
			wanted += s.want[i] != 0;
		assert_int_equal(wanted, n ? LAYERS + 1 : 1);
		assert_true(lens_hook_wanted(&s, LENS_HOOK_RESID_POST, LAYERS - 1));
		lens_hook_set_release(&s);
	}
	lens_model_destroy(m);
}

static void descriptors(void **state)
{
	size_t i, k, bytes, n;
	struct lens_model *m = test_make_model(true, false);
	struct lens_analysis_options opt = test_all_tables(3, 7, LENS_LENS_RECOMPUTE);
	struct lens_analysis *a;

	(void)state;
	opt.n_pos = 11;
	a = test_create_analysis(m, &opt);
	assert_string_equal(lens_table(LENS_TABLE_FLAGS)->name, "flags");
	assert_string_equal(lens_table(LENS_TABLE_LOSS)->name, "loss");
	assert_string_equal(lens_table(LENS_TABLE_TOKEN_LOGPROBS)->name, "token_logprobs");
	for (i = 0; i < LENS_TABLES; i++) {
		const struct lens_table *t = lens_table(i);

		assert_true(t->of != LENS_OF_LENS_LAYER || t->axis[0] == LENS_TABLE_LENS_LAYER);
		for (n = lens_table_type_size(t->type), k = 0; k < (size_t)t->n_axes; k++) {
			size_t extent = lens_table_extent(m, &opt, t->axis[k]);

			assert_int_equal(extent, ((const size_t[]){ 3, 2, SOURCES, 7,
								    11 })[t->axis[k]]);
			n *= extent;
		}
		lens_analysis_result(a, i, &bytes);
		assert_int_equal(bytes, n);
	}
	lens_analysis_destroy(a);
	lens_model_destroy(m);
}

static void allocation_failures(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_analysis_options opt = test_all_tables(2, 5, LENS_LENS_RECOMPUTE);
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct lens_analysis *a;

		lens_alloc_fail_at(k);
		st = lens_analysis_create(m, &opt, &a, &err);
		lens_alloc_fail_at(0);
		assert_int_equal(err.code, st);
		assert_true(st == LENS_OK || (st == LENS_ERR_NOMEM && !a));
		lens_analysis_destroy(a);
	}
	assert_true(k > 10);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ties),
		cmocka_unit_test(rows_of_their_own),
		cmocka_unit_test(hooks_needed),
		cmocka_unit_test(descriptors),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
