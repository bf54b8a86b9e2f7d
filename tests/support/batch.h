/*
 * support/batch.h: prompts packed into a batch, and batches whose rows lie elsewhere
 * or are shared. The only place of the tests that writes where rows are. A call that
 * fails fails the test.
 */
#ifndef LENS_TEST_BATCH_H
#define LENS_TEST_BATCH_H

#include "h5lens/forward.h"
#include "support/numbers.h"

struct test_prompt {
	const int32_t *tokens; /* NULL: zeros */
	size_t length;
	int32_t read_pos;
};

/* All their positions, and spare rows for test_scatter; lens_batch_release it. */
void test_pack(struct lens_batch *b, const struct test_prompt *p, size_t n);
/* The same, in rows that they share where they begin alike. */
void test_pack_shared(struct lens_batch *b, const struct test_prompt *p, size_t n);

/*
 * Puts the rows of a packed batch elsewhere, prompts between each other and gaps
 * everywhere. A row's way stays.
 */
void test_scatter(struct lens_batch *b, struct test_random *r);

/* The first n positions of prompt `to` get the rows of prompt `from`; theirs are gaps. */
void test_share(struct lens_batch *b, size_t from, size_t to, size_t n);

/* Some of b's prompts, in b's rows; lens_batch_release it. */
void test_pick(struct lens_batch *out, const struct lens_batch *b, const size_t *prompt,
	       size_t n);

/* Tokens of all prompts together. */
size_t test_n_positions(const struct lens_batch *b);

#endif
