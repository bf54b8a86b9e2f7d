/*
 * test_batch.c: what a row of a batch is, on the level of H5LENS_TEST_CPU: where
 * prompts are packed, also from a later position on, which rows those that begin alike
 * share, and the batch of read positions that visitors see in the last block.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/cases.h"
#include "support/passes.h"

enum { N_TOKENS = 64, MOST_ROWS = 4096 };

/* The tokens of every prompt: a prefix of these. */
static int32_t tokens[N_TOKENS];

static int setup(void **state)
{
	size_t i;

	for (i = 0; i < N_TOKENS; i++)
		tokens[i] = (int32_t)(1000 + i);
	return test_open_kernels(state);
}

/* --- packing ----------------------------------------------------------------------------- */

/* On AVX2 rows 0–5 of each twelve are computed in one way, 6–11 in another. */
static size_t way_of(size_t row)
{
	return row / 6 % lens_row_ways();
}

/* Positions from `from` on have rows that are theirs; marks them in used. */
static void check_prompt(const struct lens_batch *b, size_t prompt, size_t from, bool *used)
{
	size_t pos;

	for (pos = 0; pos < b->length[prompt]; pos++) {
		long row = lens_batch_row(b, prompt, pos);

		if (pos < from) {
			assert_int_equal(row, -1);
			continue;
		}
		assert_in_range(row, 0, b->n_rows - 1);
		assert_int_equal(way_of((size_t)row), pos % lens_row_ways());
		assert_int_equal(b->token[row], b->tokens[prompt][pos]);
		assert_int_equal(b->position[row], pos);
		assert_false(used[row]);
		used[row] = true;
	}
}

/* from: of each prompt, or NULL: 0. */
static void check_batch(const struct lens_batch *b, const size_t *from)
{
	bool used[MOST_ROWS] = { false };
	size_t i;

	assert_true(b->n_rows <= b->max_rows && b->n_rows <= MOST_ROWS);
	assert_true(b->n_tokens <= b->max_tokens && b->n_prompts <= b->max_prompts);
	assert_true(lens_row_ways() == 1 || b->n_rows % 12 == 0);
	for (i = 0; i < b->n_prompts; i++)
		check_prompt(b, i, from ? from[i] : 0, used);
	for (i = 0; i < b->n_rows; i++) {
		if (!used[i])
			assert_true(b->token[i] == -1 && b->position[i] == -1);
	}
}

/* On AVX2 a batch has as many twelves as the way has sixes of which there are more. */
static void rows_of_a_length(void **state)
{
	size_t n, times, from;

	(void)state;
	for (n = 1; n <= N_TOKENS; n++) {
		for (times = 1; times < 20; times++) {
			size_t most = times * ((n + 1) / 2);

			assert_int_equal(lens_batch_rows(times, n),
					 lens_row_ways() == 1 ? times * n
							      : (most + 5) / 6 * 12);
		}
		for (from = 0; from <= n + 1; from++) {
			struct lens_row_count c = { { 0 } };
			size_t even = 0, odd = 0, pos;

			for (pos = from; pos < n; pos++)
				++*(pos % lens_row_ways() ? &odd : &even);
			lens_batch_count(&c, n, from);
			assert_true(c.n[0] == even && c.n[1] == odd);
		}
	}
}

/* No gap but at the end: none before any way's last row. */
static void check_dense(const struct lens_batch *b)
{
	struct lens_row_count c = { { 0 } };
	size_t row;

	for (row = 0; row < b->n_rows; row++) {
		if (b->position[row] >= 0)
			assert_int_equal(row, lens_row_place(way_of(row), c.n[way_of(row)]++));
	}
	assert_int_equal(b->n_rows, lens_row_places(&c));
}

/* Every length to N_TOKENS in one batch, which has room for them and no more. */
static void whole_prompts(void **state)
{
	struct lens_row_count c = { { 0 } };
	struct lens_batch b;
	size_t i, rows, sum = 0, time;

	(void)state;
	for (i = 1; i <= N_TOKENS; i++) {
		lens_batch_count(&c, i, 0);
		sum += i;
	}
	rows = lens_row_places(&c);
	/* The first positions are one more than the second ones at most. */
	assert_true(rows <= sum + N_TOKENS + 11);
	assert_int_equal(lens_batch_init(&b, N_TOKENS, sum, rows, NULL), LENS_OK);
	for (time = 0; time < 2; time++) {
		lens_batch_clear(&b);
		assert_true(!b.n_prompts && !b.n_rows && !b.n_tokens);
		for (i = 1; i <= N_TOKENS; i++) {
			assert_true(lens_batch_has_room(&b, 1, i, 0));
			lens_batch_pack(&b, tokens, i, (int32_t)(i - 1), 0);
			check_dense(&b);
			assert_ptr_equal(b.tokens[i - 1], tokens);
			assert_int_equal(b.length[i - 1], i);
			assert_int_equal(b.read_pos[i - 1], i - 1);
		}
		assert_true(b.n_rows == rows && b.n_tokens == sum && b.n_prompts == N_TOKENS);
		check_batch(&b, NULL);
	}
	lens_batch_release(&b);
}

/* Without their first positions, from even and odd ones on, behind a whole one. */
static void parts_of_prompts(void **state)
{
	static const size_t lengths[] = { 1, 2, 11, 12, 13, 24, 25, 47, 64 };
	struct lens_batch b;
	size_t i, from;

	(void)state;
	assert_int_equal(lens_batch_init(&b, 3, 3 * N_TOKENS, 3 * 72, NULL), LENS_OK);
	for (i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		for (from = 0; from < lengths[i]; from++) {
			const size_t froms[] = { 0, from, from / 2 };

			lens_batch_clear(&b);
			lens_batch_pack(&b, tokens, 5, 4, 0);
			lens_batch_pack(&b, tokens, lengths[i], 0, from);
			lens_batch_pack(&b, tokens, lengths[i], 0, from / 2);
			assert_true(b.n_rows <= 5 + 2 * lengths[i] - from - from / 2 + 3 + 11);
			check_batch(&b, froms);
			check_dense(&b);
		}
	}
	lens_batch_release(&b);
}

/* Nothing of a prompt is left: it is there, without rows. */
static void no_position(void **state)
{
	static const size_t froms[] = { 7, 0 };
	struct lens_batch b;

	(void)state;
	assert_int_equal(lens_batch_init(&b, 2, 14, 24, NULL), LENS_OK);
	lens_batch_pack(&b, tokens, 7, 6, 7);
	lens_batch_pack(&b, tokens, 7, 6, 0);
	assert_int_equal(b.n_prompts, 2);
	check_batch(&b, froms);
	lens_batch_release(&b);
}

/* --- sharing ----------------------------------------------------------------------------- */

enum { SHARED = 60, SHORT = 40 };

/* Of a prompt and the whole ones before it: the longest beginning, and whose it is. */
static size_t longest_beginning(const struct lens_batch *b, const size_t *from, size_t prompt,
				size_t *whose)
{
	size_t i, pos, most = 0;

	for (i = 0; i < prompt; i++) {
		for (pos = 0; pos < lens_min(b->length[i], b->length[prompt]); pos++) {
			if (b->tokens[i][pos] != b->tokens[prompt][pos])
				break;
		}
		if (from[i] || pos <= most)
			continue;
		most = pos;
		*whose = i;
	}
	return from[prompt] ? 0 : most;
}

/* A prompt's own rows are nobody else's; the others are those of the one like it. */
static void check_sharing(const struct lens_batch *b, const size_t *from)
{
	size_t owned[MOST_ROWS] = { 0 }, i, pos, own;

	for (i = 0; i < b->n_prompts; i++) {
		size_t whose = 0;

		own = longest_beginning(b, from, i, &whose);
		assert_int_equal(b->own[i], own);
		for (pos = from[i]; pos < b->length[i]; pos++) {
			long row = lens_batch_row(b, i, pos);

			assert_in_range(row, 0, b->n_rows - 1);
			assert_int_equal(way_of((size_t)row), pos % lens_row_ways());
			assert_int_equal(b->token[row], b->tokens[i][pos]);
			assert_int_equal(b->position[row], pos);
			if (pos < own)
				assert_int_equal(row, lens_batch_row(b, whose, pos));
			else
				assert_int_equal(owned[row]++, 0);
		}
	}
	for (i = 0; i < b->n_rows; i++)
		assert_int_equal(b->position[i] >= 0, owned[i]);
}

/* Few tokens, so that many begin alike; some without their first positions. */
static void share_random(struct lens_batch *b, struct test_random *r, size_t kinds)
{
	static int32_t text[SHARED][SHORT];
	struct lens_row_count c = { { 0 } };
	size_t i, pos, from[SHARED];

	lens_batch_clear(b);
	for (i = 0; i < SHARED; i++) {
		size_t length = 1 + test_random_below(r, SHORT);

		for (pos = 0; pos < length; pos++)
			text[i][pos] = (int32_t)test_random_below(r, kinds);
		from[i] = test_random_below(r, 4) ? 0 : test_random_below(r, length);
		assert_true(lens_batch_has_room(b, 1, length, from[i]));
		lens_batch_pack(b, text[i], length, 0, from[i]);
		lens_batch_count(&c, length, from[i]);
		assert_true(b->n_rows <= lens_row_places(&c));
		check_dense(b);
	}
	assert_false(lens_batch_has_room(b, 1, 1, 0));
	check_sharing(b, from);
}

static void shared_beginnings(void **state)
{
	struct test_random r = { 9 };
	struct lens_batch b;
	size_t kinds;

	(void)state;
	assert_int_equal(lens_batch_init(&b, SHARED, SHARED * SHORT, SHARED * 48, NULL),
			 LENS_OK);
	b.share = true;
	for (kinds = 1; kinds < 6; kinds++)
		share_random(&b, &r, kinds);
	lens_batch_release(&b);
}

/* Pairs of 16 tokens that part at token 9: the second takes 7 rows. */
static void shared_pairs(void **state)
{
	int32_t other[16];
	struct lens_batch b;
	size_t i, rows = lens_row_ways() == 1 ? 16 + 7 : 24;

	(void)state;
	for (i = 0; i < 16; i++)
		other[i] = tokens[i] + (i >= 9);
	assert_int_equal(lens_batch_init(&b, 3, 48, 72, NULL), LENS_OK);
	b.share = true;
	lens_batch_pack(&b, tokens, 16, 15, 0);
	lens_batch_pack(&b, other, 16, 15, 0);
	assert_int_equal(b.n_rows, rows);
	/* A part of one takes none. */
	lens_batch_pack(&b, other, 12, 11, 0);
	assert_int_equal(b.n_rows, rows);
	lens_batch_release(&b);
}

/* Room is of prompts, of tokens, of rows: each may be what is missing. */
static void room(void **state)
{
	struct lens_batch b;
	size_t n;

	(void)state;
	assert_int_equal(lens_batch_init(&b, 3, 40, 48, NULL), LENS_OK);
	assert_true(lens_batch_has_room(&b, 3, 12, 0));
	assert_false(lens_batch_has_room(&b, 4, 1, 0));
	assert_true(lens_batch_has_room(&b, 2, 20, 0));
	assert_false(lens_batch_has_room(&b, 2, 21, 0));
	lens_batch_pack(&b, tokens, 36, 0, 0);
	assert_true(lens_batch_has_room(&b, 1, 4, 0));
	assert_false(lens_batch_has_room(&b, 1, 5, 0));
	lens_batch_release(&b);
	assert_int_equal(lens_batch_init(&b, 3, 400, 48, NULL), LENS_OK);
	assert_true(lens_batch_has_room(&b, 1, 48, 0));
	assert_false(lens_batch_has_room(&b, 1, 49, 0));
	assert_true(lens_batch_has_room(&b, 1, 60, 12));
	lens_batch_release(&b);
	/* A row each for their read positions, though they share all others. */
	assert_int_equal(lens_batch_init(&b, 99, 999, 48, NULL), LENS_OK);
	b.share = true;
	for (n = 0; lens_batch_has_room(&b, 1, 5, 0); n++)
		lens_batch_pack(&b, tokens, 5, 0, 0);
	assert_int_equal(n, 48 / lens_row_ways());
	lens_batch_release(&b);
}

/* What the tests make of batches keeps the rule too. */
static void elsewhere(void **state)
{
	static const size_t order[] = { 2, 0 };
	const struct test_prompt p[] = { { tokens, 30, 29 },
					 { tokens, 1, 0 },
					 { tokens, 13, 3 } };
	struct test_random r = { 1 };
	struct lens_batch b, some;
	size_t i, pos, time, apart = 0;

	(void)state;
	test_pack(&b, p, 3);
	check_batch(&b, NULL);
	for (time = 0; time < 5; time++) {
		test_scatter(&b, &r);
		check_batch(&b, NULL);
		for (i = 0; i < 3; i++) {
			for (pos = 1; pos < b.length[i]; pos++)
				apart += lens_batch_row(&b, i, pos) !=
					 lens_batch_row(&b, i, pos - 1) + 1;
		}
	}
	assert_true(apart > 100); /* of 5 × 41 */
	test_pick(&some, &b, order, 2);
	for (pos = 0; pos < 13; pos++)
		assert_int_equal(lens_batch_row(&some, 0, pos), lens_batch_row(&b, 2, pos));
	assert_int_equal(lens_batch_row(&some, 1, 29), lens_batch_row(&b, 0, 29));
	test_share(&b, 0, 2, 12);
	assert_int_equal(lens_batch_row(&b, 2, 11), lens_batch_row(&b, 0, 11));
	assert_int_not_equal(lens_batch_row(&b, 2, 12), lens_batch_row(&b, 0, 12));
	lens_batch_release(&some);
	lens_batch_release(&b);
}

static enum lens_status init_once(void *ctx)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_batch b;
	enum lens_status st = lens_batch_init(&b, 3, 40, 48, &err);

	(void)ctx;
	assert_int_equal(err.code, st);
	lens_batch_release(&b);
	return st;
}

static void allocation_failures(void **state)
{
	(void)state;
	test_alloc_failures(init_once, NULL);
}

/* --- the batch of read positions --------------------------------------------------- */

struct seen {
	struct lens_hook_set hooks;
	const struct lens_batch *whole;
	size_t last; /* the last block */
	size_t n_whole, n_read;
};

/* One row a prompt, of its read position alone. */
static void check_read_rows(const struct seen *s, const struct lens_batch *b)
{
	bool used[MOST_ROWS] = { false };
	struct lens_row_count c = { { 0 } };
	size_t i, pos;

	assert_int_equal(b->n_prompts, s->whole->n_prompts);
	for (i = 0; i < b->n_prompts; i++)
		c.n[(size_t)b->read_pos[i] % lens_row_ways()]++;
	assert_int_equal(b->n_rows, lens_row_places(&c));
	for (i = 0; i < b->n_prompts; i++) {
		assert_int_equal(b->length[i], s->whole->length[i]);
		for (pos = 0; pos < b->length[i]; pos++) {
			long row = lens_batch_row(b, i, pos);

			if (pos != (size_t)b->read_pos[i]) {
				assert_int_equal(row, -1);
				continue;
			}
			assert_in_range(row, 0, b->n_rows - 1);
			assert_int_equal(way_of((size_t)row), pos % lens_row_ways());
			assert_false(used[row]);
			used[row] = true;
		}
	}
}

static enum lens_status look(void *ctx, const struct lens_batch *b,
			     const struct lens_activation *a, struct lens_error *err)
{
	struct seen *s = ctx;

	(void)err;
	if (a->layer == s->last && a->hook > LENS_HOOK_PATTERN) {
		check_read_rows(s, b);
		s->n_read++;
	} else if (!lens_hook_is_square(a->hook)) {
		assert_ptr_equal(b, s->whole);
		s->n_whole++;
	} else if (a->layer == s->last) {
		/* only the read position asks */
		assert_int_equal(a->q0, b->read_pos[a->prompt]);
		assert_int_equal(a->nq, 1);
	}
	return LENS_OK;
}

static void read_positions(void **state)
{
	const struct lens_model_options raw = { 0 };
	struct lens_model *m = test_open_model("tests/golden/data/gpt2_gelu_new", &raw);
	int32_t text[40] = { 0 };
	const struct test_prompt p[] = {
		{ text, 40, 17 }, { text, 1, 0 }, { text, 13, 12 }, { text, 12, 0 }
	};
	struct seen s = { .last = m->config.n_layers - 1 };
	const struct lens_visitor v = { .hooks = &s.hooks, .visit = look, .ctx = &s };
	const char *const pattern[] = { "blocks.*" };
	struct lens_batch b;
	size_t i;

	(void)state;
	test_pack(&b, p, 4);
	s.whole = &b;
	assert_int_equal(lens_hook_set_init(&s.hooks, &m->config, pattern, 1, NULL), LENS_OK);
	for (i = 0; i < m->config.n_layers * LENS_HOOK_COUNT; i++)
		s.hooks.want[i] = s.hooks.want[i] ? LENS_WANT_READ_POS : LENS_WANT_NOT;
	assert_int_equal(
		test_run_pass(&(struct test_pass){ .m = m, .b = &b, .visitor = &v, .n = 1 },
			      NULL),
		LENS_OK);
	/* two blocks of 17 points beside scores and pattern, 6 of them up to the values */
	assert_int_equal(s.n_whole, 17 + 6);
	assert_int_equal(s.n_read, 11);
	lens_hook_set_release(&s.hooks);
	lens_batch_release(&b);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_of_a_length),
		cmocka_unit_test(whole_prompts),
		cmocka_unit_test(parts_of_prompts),
		cmocka_unit_test(no_position),
		cmocka_unit_test(shared_beginnings),
		cmocka_unit_test(shared_pairs),
		cmocka_unit_test(room),
		cmocka_unit_test(elsewhere),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(read_positions),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
