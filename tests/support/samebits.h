/*
 * support/samebits.h: are two outputs the same, bit for bit, where they hold
 * the same prompts?
 */
#ifndef LENS_TEST_SAMEBITS_H
#define LENS_TEST_SAMEBITS_H

#include <stdbool.h>
#include <stddef.h>

struct test_same {
	const char *whole; /* the file to compare with */
	const char *other;
	const size_t *map; /* row i of other is row map[i] of whole; NULL: row i */
	bool subset;       /* other may lack datasets of whole */
};

/*
 * Compares every dataset under /cache and /results, and the prompts' numbers
 * but for their ids. Where the longest prompts differ, what only one file
 * has room for must be padding. Returns how many datasets were compared and
 * fails the test with the place of each dataset's first difference.
 */
size_t test_same_bits(const struct test_same *s);

#endif
