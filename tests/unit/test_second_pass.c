/*
 * unit/test_second_pass.c: the second pass of answers of several tokens: the same bits
 * however many sequences are run together and on however many threads; logits that are
 * not finite; allocation failures. On the level of H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/batch.h"
#include "support/cases.h"
#include "support/passes.h"
#include "support/tables.h"

enum { N = 3, ANSWERS = 2, MOST = 4, CAT = 270 };

/* Ids of the golden models' tokenizer; none of the prompts holds CAT. */
static const int32_t prompts[N][5] = { { 258, 287, 273 }, { 259, 258, 277, 287, 11 }, { 258 } };
static const struct test_prompt packed[N] = { { prompts[0], 3, 2 },
					      { prompts[1], 5, 3 },
					      { prompts[2], 1, 0 } };
static const int32_t answers[] = { 258, 287, CAT, 258, 273, 258, 259, CAT, 287 };
static const uint64_t offset[N * ANSWERS + 1] = { 0, 1, 4, 6, 7, 8, 9 };

struct subject {
	struct lens_model *m;
	struct lens_tables_options opt;
	struct lens_tables *t;
	size_t flagged;
};

static struct lens_tables_options options(const struct lens_model *m)
{
	struct lens_tables_options o = { .sizes = lens_model_sizes(&m->config),
					 .answer_tokens = LENS_ANSWERS_OF_ANY,
					 .batch_rows = N,
					 .max_rows = 60,
					 .max_continued = 5 };

	o.sizes.n_answers = ANSWERS;
	o.sizes.n_answer_pos = MOST;
	o.wanted[LENS_TABLE_answer_logprob] = o.wanted[LENS_TABLE_answer_token_rank] = true;
	o.wanted[LENS_TABLE_logit_diff] = o.wanted[LENS_TABLE_flags] = true;
	return o;
}

/* Runs both passes; the forward's room is that of the larger one. */
static void run(struct subject *s)
{
	struct lens_hook_set hooks;
	struct lens_visitor visitor = { .hooks = &hooks, .visit = lens_tables_visit };
	const struct lens_visitors all = { &visitor, 1 };
	struct lens_forward_size size = { .visitors = &all, .threads = s->opt.threads };
	struct lens_tables_batch in = { .answers = answers, .answer_offset = offset };
	struct lens_forward *f;
	struct lens_batch b;

	assert_int_equal(lens_hook_set_init(&hooks, &s->m->config, NULL, 0, NULL), LENS_OK);
	lens_tables_hooks(s->m, &s->opt, &hooks);
	test_pack(&b, packed, N);
	in.batch = &b;
	size.max_rows = lens_max((b.max_rows + 11) / 12 * 12, lens_tables_second_rows(&s->opt));
	size.max_length = 6;
	s->t = visitor.ctx = test_create_tables(s->m, &s->opt);
	assert_int_equal(lens_forward_create(s->m, &size, &f, NULL), LENS_OK);
	lens_tables_begin(s->t, &in);
	assert_int_equal(lens_forward_run(f, &b, &all, NULL), LENS_OK);
	assert_int_equal(lens_tables_continue(s->t, f, NULL), LENS_OK);
	s->flagged = 0;
	lens_tables_finish(s->t, &s->flagged);
	lens_forward_destroy(f);
	lens_batch_release(&b);
	lens_hook_set_release(&hooks);
}

static struct subject begin(void)
{
	static const struct lens_model_options plain = { .tied_head = LENS_HEAD_AUTO };
	struct subject s = { .m = test_open_model("tests/golden/data/gpt2_gelu", &plain) };

	s.opt = options(s.m);
	return s;
}

static void end(struct subject *s)
{
	lens_tables_destroy(s->t);
	lens_model_destroy(s->m);
}

static void same_tables(const struct subject *x, const struct subject *y)
{
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		enum lens_table t = (enum lens_table)i;

		if (x->opt.wanted[i])
			assert_memory_equal(lens_tables_rows(x->t, t),
					    lens_tables_rows(y->t, t),
					    N * lens_table_row_bytes(t, &x->opt));
	}
}

/* From one sequence at a time to all. */
static void test_room(void **state)
{
	static const size_t rows[] = { 0, 12, 24, 120 };
	struct subject first = begin();
	size_t i;

	(void)state;
	run(&first);
	assert_int_equal(first.flagged, 0);
	for (i = 0; i < 2 * sizeof(rows) / sizeof(*rows); i++) {
		struct subject s = begin();

		s.opt.max_rows = rows[i / 2];
		s.opt.threads = i % 2 ? 2 : 1;
		run(&s);
		same_tables(&first, &s);
		end(&s);
	}
	end(&first);
}

/* CAT's embedding is infinite: what follows it is not finite, but for what precedes it. */
static void test_not_finite(void **state)
{
	struct subject s = begin(), sound = begin();
	size_t d = s.m->config.d_model, i;
	const float *logprob, *other;
	const int32_t *rank, *was;
	const uint8_t *flags;

	(void)state;
	for (i = 0; i < d; i++)
		s.m->w_e[CAT * d + i] = INFINITY;
	run(&s);
	run(&sound);
	logprob = lens_tables_rows(s.t, LENS_TABLE_answer_logprob);
	other = lens_tables_rows(sound.t, LENS_TABLE_answer_logprob);
	rank = lens_tables_rows(s.t, LENS_TABLE_answer_token_rank);
	was = lens_tables_rows(sound.t, LENS_TABLE_answer_token_rank);
	flags = lens_tables_rows(s.t, LENS_TABLE_flags);
	/* Prompt 0's second answer has it before its last token; of the last two it is the
	 * last. */
	for (i = 0; i < N * ANSWERS; i++)
		assert_true(i == 1 ? isnan(logprob[i]) : logprob[i] == other[i]);
	for (i = 0; i < N * ANSWERS * MOST; i++)
		assert_int_equal(rank[i], i == MOST + 2 ? -1 : was[i]);
	assert_true(isnan(((const float *)lens_tables_rows(s.t, LENS_TABLE_logit_diff))[0]));
	assert_int_equal(flags[0], LENS_FLAG_NONFINITE_POS);
	assert_int_equal(flags[1] | flags[2], 0);
	assert_int_equal(s.flagged, 1);
	end(&s);
	end(&sound);
}

static void test_allocation_failures(void **state)
{
	struct subject s = begin();
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_tables_create(s.m, &s.opt, &s.t, &err);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || (st == LENS_ERR_NOMEM && !s.t));
	}
	assert_true(k > 15);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_not_finite),
		cmocka_unit_test(test_allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
