/*
 * support/samebits.c: comparing two outputs line by line (a line is the last
 * axis), as bytes.
 */
#include "support/samebits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/h5file.h"

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/* Positions are the axes whose extent is the longest prompt of a file. */
static bool counts_positions(const char *path, int axis)
{
	static const struct {
		const char *path;
		int axis;
	} by_pos[] = {
		{ "/prompts/tokens", 1 },         { "/results/token_logprobs", 1 },
		{ "/results/entropy", 1 },        { "/results/pos_top_tokens", 1 },
		{ "/results/pos_top_logits", 1 }, { "/results/pos_top_probs", 1 },
		{ "/results/lens_top_token", 2 }, { "/results/lens_top_prob", 2 },
		{ "/results/lens_entropy", 2 },   { "/results/logit_attrs", 2 },
		{ "/results/head_attrs", 3 },
	};
	size_t i;

	for (i = 0; i < sizeof(by_pos) / sizeof(*by_pos); i++) {
		if (!strcmp(path, by_pos[i].path))
			return axis == by_pos[i].axis;
	}
	if (strncmp(path, "/cache/", 7) != 0)
		return false;
	if (ends_with(path, "hook_pattern") || ends_with(path, "hook_attn_scores"))
		return axis >= 2;
	return axis == 1;
}

/* The fill value: the quiet NaN, −1, or 0. */
static bool padding(const struct test_array *a, const unsigned char *element)
{
	static const unsigned char nan32[] = { 0, 0, 0xc0, 0x7f }, nan16[] = { 0, 0x7e };
	static const unsigned char minus[] = { 255, 255, 255, 255, 255, 255, 255, 255 };

	if (a->floating)
		return !memcmp(element, a->size == 2 ? nan16 : nan32, a->size);
	return !memcmp(element, minus, a->size);
}

/* The two datasets, and where the comparison stands in them. */
struct pair {
	const char *path;
	struct test_array whole, other;
	size_t differing, index[TEST_RANK];
};

static void tell(struct pair *p, size_t column, const char *what, const unsigned char *x,
		 const unsigned char *y)
{
	size_t i;
	int k;

	if (p->differing++)
		return;
	print_error("%s[", p->path);
	for (k = 0; k + 1 < p->other.rank; k++)
		print_error("%zu, ", p->index[k]);
	print_error("%zu]: %s ", column, what);
	for (i = 0; x && i < p->whole.size; i++)
		print_error("%02x", x[p->whole.size - 1 - i]);
	print_error(x && y ? " / " : "");
	for (i = 0; y && i < p->other.size; i++)
		print_error("%02x", y[p->other.size - 1 - i]);
	print_error("\n");
}

/* The line of a at index, row in place of its first; NULL past an extent. */
static const unsigned char *line_of(const struct test_array *a, size_t row, const size_t *index)
{
	size_t at = row;
	int k;

	for (k = 1; k + 1 < a->rank; k++) {
		if (index[k] >= a->extent[k])
			return NULL;
		at = at * a->extent[k] + index[k];
	}
	if (a->rank > 1)
		at *= a->extent[a->rank - 1];
	return a->bytes + at * a->size;
}

static size_t line_length(const struct test_array *a)
{
	return a->rank > 1 ? a->extent[a->rank - 1] : 1;
}

static void compare_line(struct pair *p, const unsigned char *x, const unsigned char *y)
{
	size_t nx = x ? line_length(&p->whole) : 0, ny = y ? line_length(&p->other) : 0, i;
	size_t both = nx < ny ? nx : ny, size = p->other.size;

	for (i = 0; both && memcmp(x, y, both * size) != 0 && i < both; i++) {
		if (memcmp(x + i * size, y + i * size, size) != 0)
			tell(p, i, "bits differ:", x + i * size, y + i * size);
	}
	for (i = both; i < nx; i++) {
		if (!padding(&p->whole, x + i * size))
			tell(p, i, "no padding in the first file:", x + i * size, NULL);
	}
	for (i = both; i < ny; i++) {
		if (!padding(&p->other, y + i * size))
			tell(p, i, "no padding in the second file:", NULL, y + i * size);
	}
}

/* All lines of one row, to the larger extents of both. */
static void compare_row(struct pair *p, size_t whole_row, size_t row)
{
	size_t most[TEST_RANK];
	int k;

	for (k = 1; k + 1 < p->other.rank; k++) {
		p->index[k] = 0;
		most[k] = p->whole.extent[k] > p->other.extent[k] ? p->whole.extent[k]
								  : p->other.extent[k];
	}
	p->index[0] = row;
	do {
		compare_line(p, line_of(&p->whole, whole_row, p->index),
			     line_of(&p->other, row, p->index));
		for (k = p->other.rank - 2; k > 0 && ++p->index[k] == most[k]; k--)
			p->index[k] = 0;
	} while (k > 0);
}

static size_t compare_pair(struct pair *p, const size_t *map)
{
	const struct test_array *x = &p->whole, *y = &p->other;
	size_t row;
	int k;

	if (x->rank != y->rank || x->size != y->size || x->floating != y->floating) {
		print_error("%s: another rank or type\n", p->path);
		return 1;
	}
	for (k = 1; k < x->rank; k++) {
		if (x->extent[k] != y->extent[k] && !counts_positions(p->path, k)) {
			print_error("%s: axis %d has extents %zu / %zu\n", p->path, k,
				    x->extent[k], y->extent[k]);
			return 1;
		}
	}
	for (row = 0; row < y->extent[0]; row++) {
		size_t from = map ? map[row] : row;

		assert_true(from < x->extent[0]);
		compare_row(p, from, row);
	}
	if (p->differing)
		print_error("%s: %zu of %zu values differ\n", p->path, p->differing, y->n);
	return p->differing;
}

static size_t compare_group(const struct test_h5 *whole, const struct test_h5 *other,
			    const struct test_same *s, const char *group, size_t *n_compared)
{
	struct test_names x, y;
	size_t i, bad = 0;

	test_h5_datasets(whole, group, &x);
	test_h5_datasets(other, group, &y);
	if (!s->subset)
		bad += test_names_differ(group, &y, &x);
	for (i = 0; i < y.n; i++) {
		char path[256];
		struct pair p = { .path = path };

		snprintf(path, sizeof(path), "%s/%s", group, y.v[i]);
		if (!test_names_have(&x, y.v[i])) {
			print_error("%s is in the second file only\n", path);
			bad++;
			continue;
		}
		test_h5_bytes(whole, path, &p.whole);
		test_h5_bytes(other, path, &p.other);
		bad += compare_pair(&p, s->map) != 0;
		test_array_release(&p.whole);
		test_array_release(&p.other);
		++*n_compared;
	}
	test_names_release(&x);
	test_names_release(&y);
	return bad;
}

static size_t compare_prompts(const struct test_h5 *whole, const struct test_h5 *other,
			      const struct test_same *s)
{
	static const char *const path[] = { "/prompts/tokens", "/prompts/length",
					    "/prompts/read_pos", "/prompts/answers",
					    "/prompts/answer_tokens" };
	size_t i, bad = 0;

	for (i = 0; i < sizeof(path) / sizeof(*path); i++) {
		struct pair p = { .path = path[i] };

		/* One of the two, or none. */
		if (!strncmp(path[i], "/prompts/answer", 15) && !test_h5_has(whole, path[i]) &&
		    !test_h5_has(other, path[i]))
			continue;
		test_h5_bytes(whole, path[i], &p.whole);
		test_h5_bytes(other, path[i], &p.other);
		bad += compare_pair(&p, s->map) != 0;
		test_array_release(&p.whole);
		test_array_release(&p.other);
	}
	return bad;
}

size_t test_same_bits(const struct test_same *s)
{
	struct test_h5 *whole = test_h5_open(s->whole), *other = test_h5_open(s->other);
	size_t n = 0, bad = compare_prompts(whole, other, s);

	bad += compare_group(whole, other, s, "/cache", &n);
	bad += compare_group(whole, other, s, "/results", &n);
	test_h5_close(whole);
	test_h5_close(other);
	assert_int_equal(bad, 0);
	return n;
}
