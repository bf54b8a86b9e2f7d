/*
 * test_tables.c: what the tables' rows are to the bit, on the level of
 * H5LENS_TEST_CPU: ties, and rows that do not depend on their neighbours; and what
 * tables say of themselves: names, hooks, shapes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/tables.h"

enum { V = TEST_D_VOCAB, LAYERS = TEST_LAYERS, BATCH = TEST_BATCH };

/* Equal logits: strictly larger ones count, and ties leave the rank alone. */
static void ties(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 3, 4, LENS_LENS_RECOMPUTE);
	struct lens_tables *t;
	struct test_stream s;
	const int32_t *rank, *top;
	const float *diff;
	size_t i;

	(void)state;
	for (i = 0; i < V; i++)
		m->b_u[i] = i == 5 || i == 9 || i == 30 ? 1000 : 0;
	t = test_create_tables(m, &opt);
	test_make_stream(&s, 2, 3);
	s.answers[0] = 5, s.answers[1] = 30, s.answers[2] = 9;
	s.answers[3] = 0, s.answers[4] = 9, s.answers[5] = 0;
	test_show_stream(t, &s);
	rank = lens_tables_rows(t, LENS_TABLE_answer_rank);
	assert_int_equal(rank[0] + rank[1] + rank[2], 0);
	assert_true(rank[3] >= 3 && rank[3] == rank[5] && rank[4] == 0);
	diff = lens_tables_rows(t, LENS_TABLE_logit_diff);
	assert_true(diff[0] == 0 && diff[1] == 0);
	assert_true(diff[2] < -900 && diff[3] == 0);
	top = lens_tables_rows(t, LENS_TABLE_top_tokens);
	assert_int_equal(top[0], 5);
	assert_int_equal(top[1], 9);
	assert_int_equal(top[2], 30);
	test_release_stream(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* --- bits -------------------------------------------------------------------------------- */

/* Prompt i of s alone, in its rows. */
static void show_alone(struct lens_tables *t, const struct test_stream *s, size_t i)
{
	struct test_stream one = *s;

	test_pick(&one.b, &s->b, &i, 1);
	memcpy(one.answers, s->answers + 2 * i, 2 * sizeof(*s->answers));
	test_show_stream(t, &one);
	lens_batch_release(&one.b);
}

/* A prompt's rows do not depend on the prompts beside it, nor on which tables there are. */
static void rows_of_their_own(void **state)
{
	struct lens_model *m = test_make_model(false, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE),
				   few = opt;
	struct lens_tables *all = test_create_tables(m, &opt),
			   *alone = test_create_tables(m, &opt), *some;
	size_t i, bytes;
	struct test_stream s;
	int k;

	(void)state;
	memset(few.wanted, 0, sizeof(few.wanted));
	few.wanted[LENS_TABLE_answer_logit] = few.wanted[LENS_TABLE_flags] = true;
	some = test_create_tables(m, &few);
	test_make_stream(&s, BATCH, 2);
	test_show_stream(all, &s);
	for (i = 0; i < BATCH; i++) {
		show_alone(alone, &s, i);
		for (k = 0; k < LENS_TABLE_COUNT; k++) {
			enum lens_table t = (enum lens_table)k;

			assert_true(!lens_tables_rows(all, t) == !opt.wanted[t]);
			if (!opt.wanted[t])
				continue;
			bytes = lens_table_row_bytes(t, &opt);
			assert_memory_equal(test_table_row(all, &opt, t, i),
					    lens_tables_rows(alone, t), bytes);
		}
	}
	test_show_stream(some, &s);
	bytes = lens_table_row_bytes(LENS_TABLE_answer_logit, &opt);
	assert_memory_equal(lens_tables_rows(all, LENS_TABLE_answer_logit),
			    lens_tables_rows(some, LENS_TABLE_answer_logit), BATCH * bytes);
	assert_null(lens_tables_rows(some, LENS_TABLE_top_tokens));
	test_release_stream(&s);
	lens_tables_destroy(all);
	lens_tables_destroy(some);
	lens_tables_destroy(alone);
	lens_model_destroy(m);
}

/* --- around it --------------------------------------------------------------------------- */

static void hooks_needed(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE);
	struct lens_hook_set s;
	size_t i, n;

	(void)state;
	memset(opt.wanted, 0, sizeof(opt.wanted));
	opt.wanted[LENS_TABLE_answer_logit] = opt.wanted[LENS_TABLE_flags] = true;
	for (n = 0; n < 2; n++) {
		size_t wanted = 0;

		opt.wanted[LENS_TABLE_lens_logit] = n;
		assert_int_equal(lens_hook_set_init(&s, &m->config, NULL, 0, NULL), LENS_OK);
		lens_tables_hooks(m, &opt, &s);
		for (i = 0; i < LAYERS * LENS_HOOK_COUNT; i++)
			wanted += s.want[i] != 0;
		assert_int_equal(wanted, n ? LAYERS + 1 : 1);
		assert_true(lens_hook_wanted(&s, LENS_HOOK_RESID_POST, LAYERS - 1));
		lens_hook_set_release(&s);
	}
	lens_model_destroy(m);
}

/* A name of its own, and axes whose extents make its rows. */
static void check_type(enum lens_table table, const struct lens_tables_options *opt)
{
	const struct lens_table_type *t = lens_table_type(table, opt);
	size_t bytes;
	int i;

	assert_non_null(t);
	assert_true(t->long_name && t->long_name[0] && t->ops);
	assert_in_range(t->n_axes, 0, LENS_TABLE_AXES);
	assert_true(t->n_axes + 1 <= LENS_MAX_RANK);
	assert_true(!(t->logits & LENS_AT_LENS_LAYER) || t->axis[0] == LENS_AXIS_LENS_LAYER);
	for (bytes = lens_dtype_size(t->dtype), i = 0; i < t->n_axes; i++)
		bytes *= lens_axis_extent(t->axis[i], &opt->sizes);
	assert_true(bytes > 0);
	assert_int_equal(lens_table_row_bytes(table, opt), bytes);
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		assert_true((i == (int)table) == !strcmp(lens_table_name((enum lens_table)i),
							 lens_table_name(table)));
		assert_true((i == (int)table) ==
			    (lens_table_type((enum lens_table)i, opt) == t));
	}
}

static bool is_listed(const char *group)
{
#define LENS_TABLE(id, ...) #id,
#define LENS_TABLE_GROUP LENS_TABLE
	static const char *const names[] = {
#include "h5lens/tables.def"
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(names[i], group))
			return true;
	}
	return false;
}

/* A table that is not listed itself comes with one that is, of a group, or with any. */
static void check_group(enum lens_table table)
{
	const char *name = lens_table_name(table), *group = lens_table_group(table);

	if (is_listed(name))
		assert_string_equal(group, name);
	else
		assert_true(is_listed(group) || !strcmp(group, "any") ||
			    !strcmp(group, "interventions"));
}

static void types(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 3, 7, LENS_LENS_RECOMPUTE);
	int i;

	(void)state;
	opt.sizes.n_pos = 11;
	opt.sizes.n_answer_pos = 6;
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		opt.lens_positions = LENS_READ_AT_READ;
		check_type((enum lens_table)i, &opt);
		check_group((enum lens_table)i);
		opt.lens_positions = LENS_READ_AT_ALL;
		check_type((enum lens_table)i, &opt);
		opt.answer_tokens = LENS_ANSWERS_OF_ANY;
		check_type((enum lens_table)i, &opt);
		opt.answer_tokens = LENS_ANSWERS_OF_ONE_TOKEN;
	}
	lens_model_destroy(m);
}

static void allocation_failures(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE);
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		struct lens_tables *t;

		lens_alloc_fail_at(k);
		st = lens_tables_create(m, &opt, &t, &err);
		lens_alloc_fail_at(0);
		assert_int_equal(err.code, st);
		assert_true(st == LENS_OK || (st == LENS_ERR_NOMEM && !t));
		lens_tables_destroy(t);
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
		cmocka_unit_test(types),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
