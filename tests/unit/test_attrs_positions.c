/*
 * test_attrs_positions.c: attributions at every position (attrs.positions: all), on the
 * level of H5LENS_TEST_CPU: at each position the bits of a batch that is read there
 * (test_attrs.c has those beside float64), NaN past a prompt's end, and what one position
 * that is not finite, or not its parts' sum, changes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/attrs.h"
#include "support/tables.h"

enum {
	D = TEST_ATTRS_D_MODEL,
	LAYERS = TEST_ATTRS_LAYERS,
	BATCH = TEST_ATTRS_BATCH,
	HEADS = LAYERS * TEST_ATTRS_HEADS,
	N_POS = 10 /* one more than the longest prompt has */
};

/* The same parts, at the read positions and at all. */
struct both {
	struct lens_model *m;
	struct test_parts s;
	struct lens_tables_options read, all;
	struct lens_tables *at_read, *at_all;
	size_t n, n_answers;
};

static void start(struct both *b, size_t kind, size_t n, size_t n_answers)
{
	b->m = test_attrs_model(kind & 1, kind & 2, kind & 4);
	b->n = n;
	b->n_answers = n_answers;
	b->read = b->all = test_attrs_options(b->m, n_answers);
	b->all.sizes.n_pos = N_POS;
	b->all.attrs_positions = LENS_READ_AT_ALL;
	b->at_read = test_create_tables(b->m, &b->read);
	b->at_all = test_create_tables(b->m, &b->all);
	test_make_parts(&b->s, b->m, n, n_answers);
}

static void finish(struct both *b)
{
	test_release_parts(&b->s);
	lens_tables_destroy(b->at_read);
	lens_tables_destroy(b->at_all);
	lens_model_destroy(b->m);
}

static size_t show(struct both *b, struct lens_tables *t)
{
	return test_show_parts(t, &b->s, &b->s.b, b->s.answers);
}

/* The answers of a part, of `parts`, at a position. */
static const float *all_of(const struct both *b, enum lens_table table, size_t prompt,
			   const size_t at[2])
{
	const float *row = test_table_row(b->at_all, &b->all, table, prompt);

	return row + (at[0] * N_POS + at[1]) * b->n_answers;
}

static size_t parts_of(const struct both *b, enum lens_table table)
{
	return table == LENS_TABLE_head_attrs ? HEADS : b->s.n_parts + 1;
}

/* What a batch that is read there has, to the bit; NaN: what stands past the end. */
static void same_there(const struct both *b, enum lens_table table, size_t prompt, size_t pos)
{
	const float *row = test_table_row(b->at_read, &b->read, table, prompt);
	size_t k, part, n = parts_of(b, table);

	for (part = 0; part < n; part++) {
		const size_t at[2] = { part, pos };
		const float *is = all_of(b, table, prompt, at);

		for (k = 0; k < b->n_answers; k++)
			assert_int_equal(test_bits(is[k]),
					 test_bits(pos < b->s.b.length[prompt]
							   ? row[part * b->n_answers + k]
							   : NAN));
	}
}

/* The components' sum is the answer's logit there. */
static void adds_up(const struct both *b, size_t prompt, size_t pos)
{
	const float *logit =
		test_table_row(b->at_read, &b->read, LENS_TABLE_answer_logit, prompt);
	size_t k, part;

	for (k = 0; k < b->n_answers; k++) {
		double sum = 0, magnitude = 0;

		for (part = 0; part <= b->s.n_parts; part++) {
			const size_t at[2] = { part, pos };
			double x = (double)all_of(b, LENS_TABLE_logit_attrs, prompt, at)[k];

			sum += x;
			magnitude += fabs(x);
		}
		test_near(sum, (double)logit[k],
			  (lens_tables_deviation_bound(&b->all.sizes) + TEST_U) * magnitude,
			  "sum of logit_attrs", (double)pos);
	}
}

/* What is at the read position only does not know of the others. */
static void same_neurons(const struct both *b, size_t prompt)
{
	static const enum lens_table tables[] = {
		LENS_TABLE_neuron_attrs, LENS_TABLE_top_neuron_layer, LENS_TABLE_top_neuron,
		LENS_TABLE_top_neuron_attr, LENS_TABLE_answer_logit
	};
	size_t i;

	for (i = 0; i < sizeof(tables) / sizeof(*tables); i++)
		assert_memory_equal(test_table_row(b->at_all, &b->all, tables[i], prompt),
				    test_table_row(b->at_read, &b->read, tables[i], prompt),
				    lens_table_row_bytes(tables[i], &b->all));
}

static void check_prompts(struct both *b, size_t pos)
{
	size_t i;

	for (i = 0; i < b->n; i++) {
		if (pos < b->s.b.length[i])
			adds_up(b, i, pos);
		same_there(b, LENS_TABLE_logit_attrs, i, pos);
		same_there(b, LENS_TABLE_head_attrs, i, pos);
	}
}

static void check_kind(size_t kind, size_t n, size_t n_answers)
{
	struct both b;
	size_t i, pos;

	start(&b, kind, n, n_answers);
	assert_int_equal(show(&b, b.at_all), 0);
	assert_int_equal(show(&b, b.at_read), 0);
	for (i = 0; i < n; i++) {
		same_neurons(&b, i);
		same_there(&b, LENS_TABLE_logit_attrs, i, (size_t)b.s.b.read_pos[i]);
		same_there(&b, LENS_TABLE_head_attrs, i, (size_t)b.s.b.read_pos[i]);
	}
	for (pos = 0; pos < N_POS; pos++) {
		for (i = 0; i < n; i++) {
			if (pos < b.s.b.length[i])
				b.s.b.read_pos[i] = (int32_t)pos;
		}
		assert_int_equal(show(&b, b.at_read), 0);
		check_prompts(&b, pos);
	}
	finish(&b);
}

/* Every norm, with learned positions and without; one answer to three; ragged prompts. */
static void as_if_read_there(void **state)
{
	size_t kind;

	(void)state;
	for (kind = 0; kind < 8; kind++) {
		check_kind(kind, BATCH, 1 + kind % 3);
		check_kind(kind, 1 + kind % 3, 2);
	}
}

/* --- one position that is odd ------------------------------------------------------------ */

/* A prompt that has a position before the one that is read. */
static size_t long_prompt(struct both *b)
{
	size_t i;

	for (i = 0; i < b->n; i++) {
		if (b->s.b.length[i] > 1) {
			b->s.b.read_pos[i] = (int32_t)b->s.b.length[i] - 1;
			return i;
		}
	}
	fail_msg("no prompt is longer than one token");
	return 0;
}

static float *row_at(struct both *b, float *rows, size_t prompt, size_t pos)
{
	return rows + (size_t)lens_batch_row(&b->s.b, prompt, pos) * D;
}

/* A stream that is not its parts' sum counts, whichever position it is at. */
static void deviation(void **state)
{
	struct both b;
	size_t i;
	double limit;

	(void)state;
	start(&b, 1, BATCH, 2);
	limit = lens_tables_deviation_bound(&b.all.sizes);
	i = long_prompt(&b);
	show(&b, b.at_all);
	assert_true(lens_tables_deviation(b.at_all, LENS_TABLE_logit_attrs) > 0);
	assert_true(lens_tables_deviation(b.at_all, LENS_TABLE_logit_attrs) <= limit);
	row_at(&b, b.s.resid, i, 0)[4] += 1;
	show(&b, b.at_all);
	show(&b, b.at_read);
	assert_true(lens_tables_deviation(b.at_all, LENS_TABLE_logit_attrs) > 10 * limit);
	assert_true(lens_tables_deviation(b.at_read, LENS_TABLE_logit_attrs) <= limit);
	finish(&b);
}

static void expect_nan(const struct both *b, enum lens_table table, size_t prompt, size_t pos)
{
	size_t p, part, k;

	for (p = 0; p < b->s.b.length[prompt]; p++) {
		for (part = 0; part < parts_of(b, table); part++) {
			const size_t at[2] = { part, p };

			for (k = 0; k < b->n_answers; k++)
				assert_true(isnan(all_of(b, table, prompt, at)[k]) ==
					    (p == pos));
		}
	}
}

static unsigned flags_of(const struct both *b, size_t prompt)
{
	return ((const uint8_t *)lens_tables_rows(b->at_all, LENS_TABLE_flags))[prompt];
}

/* It makes its own position NaN, and is flagged. */
static void not_finite(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	size_t k, i;

	(void)state;
	for (k = 0; k < 6; k++) {
		struct both b;

		start(&b, 4 + k / 3, BATCH, 2);
		i = long_prompt(&b);
		row_at(&b, b.s.x[3], i, 0)[5] = bad[k % 3];
		test_add_parts(&b.s);
		assert_int_equal(show(&b, b.at_all), 1);
		assert_int_equal(flags_of(&b, i), LENS_FLAG_NONFINITE_POS);
		expect_nan(&b, LENS_TABLE_logit_attrs, i, 0);
		expect_nan(&b, LENS_TABLE_head_attrs, i, 0);
		assert_true(lens_tables_deviation(b.at_all, LENS_TABLE_logit_attrs) <=
			    lens_tables_deviation_bound(&b.all.sizes));
		finish(&b);
	}
}

/* No answer's: all logits are known at the read position only, and there it counts. */
static void another_logit(void **state)
{
	struct both b;
	size_t i, k;

	(void)state;
	start(&b, 1, BATCH, 2);
	b.m->b_u[36] = INFINITY;
	for (k = 0; k < 2 * b.n; k++)
		b.s.answers[k] = (int32_t)(k % 36);
	i = long_prompt(&b);
	assert_int_equal(show(&b, b.at_all), b.n);
	assert_int_equal(flags_of(&b, i), LENS_FLAG_NONFINITE);
	expect_nan(&b, LENS_TABLE_logit_attrs, i, (size_t)b.s.b.read_pos[i]);
	expect_nan(&b, LENS_TABLE_head_attrs, i, (size_t)b.s.b.read_pos[i]);
	finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_if_read_there),
		cmocka_unit_test(deviation),
		cmocka_unit_test(not_finite),
		cmocka_unit_test(another_logit),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
