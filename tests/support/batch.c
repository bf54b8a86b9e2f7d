/*
 * support/batch.c: see batch.h.
 */
#include "support/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SPARE_ROWS = 24, MOST_TOKENS = 2048 };

void test_pack(struct lens_batch *b, const struct test_prompt *p, size_t n)
{
	static const int32_t zeros[MOST_TOKENS];
	struct lens_row_count c = { { 0 } };
	size_t i, tokens = 0, rows;

	for (i = 0; i < n; i++) {
		assert_true(p[i].tokens || p[i].length <= MOST_TOKENS);
		tokens += p[i].length;
		lens_batch_count(&c, p[i].length, 0);
	}
	rows = (lens_row_places(&c) + SPARE_ROWS + 11) / 12 * 12;
	assert_int_equal(lens_batch_init(b, n, tokens, rows, NULL), LENS_OK);
	for (i = 0; i < n; i++)
		lens_batch_pack(b, p[i].tokens ? p[i].tokens : zeros, p[i].length,
				p[i].read_pos, 0);
}

void test_pack_shared(struct lens_batch *b, const struct test_prompt *p, size_t n)
{
	size_t i;

	test_pack(b, p, n);
	lens_batch_clear(b);
	b->share = true;
	for (i = 0; i < n; i++)
		lens_batch_pack(b, p[i].tokens, p[i].length, p[i].read_pos, 0);
}

/* place[i]: where the i-th row of a way goes. */
static void shuffle(size_t *place, size_t n, struct test_random *r)
{
	size_t i;

	for (i = 0; i < n; i++)
		place[i] = i;
	for (i = n - 1; i > 0; i--) {
		size_t j = test_random_below(r, i + 1), was = place[i];

		place[i] = place[j];
		place[j] = was;
	}
}

void test_scatter(struct lens_batch *b, struct test_random *r)
{
	size_t n = lens_row_room(b->max_rows), i, way;
	size_t *place = lens_calloc(n, sizeof(*place));
	int32_t *to = lens_calloc(b->max_rows, sizeof(*to));
	int32_t *token = lens_calloc(b->max_rows, sizeof(*token));
	int32_t *position = lens_calloc(b->max_rows, sizeof(*position));

	assert_true(place && to && token && position);
	for (way = 0; way < lens_row_ways(); way++) {
		shuffle(place, n, r);
		for (i = 0; i < n; i++)
			to[lens_row_place(way, i)] = (int32_t)lens_row_place(way, place[i]);
	}
	for (; b->n_rows < b->max_rows; b->n_rows++)
		b->token[b->n_rows] = b->position[b->n_rows] = -1;
	for (i = 0; i < b->n_rows; i++) {
		token[to[i]] = b->token[i];
		position[to[i]] = b->position[i];
	}
	memcpy(b->token, token, b->n_rows * sizeof(*token));
	memcpy(b->position, position, b->n_rows * sizeof(*position));
	for (i = 0; i < b->n_tokens; i++)
		b->row[i] = b->row[i] < 0 ? -1 : to[b->row[i]];
	lens_free(place);
	lens_free(to);
	lens_free(token);
	lens_free(position);
}

void test_share(struct lens_batch *b, size_t from, size_t to, size_t n)
{
	size_t pos;

	for (pos = 0; pos < n; pos++) {
		long with = lens_batch_row(b, from, pos), was = lens_batch_row(b, to, pos);

		assert_true(with >= 0 && was >= 0);
		assert_int_equal(b->token[with], b->token[was]);
		b->row[b->first[to] + pos] = (int32_t)with;
		b->token[was] = b->position[was] = -1;
	}
}

void test_pick(struct lens_batch *out, const struct lens_batch *b, const size_t *prompt,
	       size_t n)
{
	size_t i;

	assert_int_equal(lens_batch_init(out, n, b->n_tokens, b->max_rows, NULL), LENS_OK);
	memcpy(out->token, b->token, b->n_rows * sizeof(*b->token));
	memcpy(out->position, b->position, b->n_rows * sizeof(*b->position));
	memcpy(out->row, b->row, b->n_tokens * sizeof(*b->row));
	for (i = 0; i < n; i++) {
		out->tokens[i] = b->tokens[prompt[i]];
		out->length[i] = b->length[prompt[i]];
		out->read_pos[i] = b->read_pos[prompt[i]];
		out->first[i] = b->first[prompt[i]];
	}
	out->n_prompts = n;
	out->n_rows = b->n_rows;
	out->n_tokens = b->n_tokens;
}

size_t test_n_positions(const struct lens_batch *b)
{
	size_t i, n = 0;

	for (i = 0; i < b->n_prompts; i++)
		n += b->length[i];
	return n;
}
