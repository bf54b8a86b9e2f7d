/*
 * dataset/resample.c: for each prompt another one of as many tokens. In: a prompt set and
 * a seed; out: the other prompts' tokens.
 *
 * Prompts of one length are sorted by a hash of the seed and their tokens; each gets the
 * next one of other tokens, the last the first. So what a prompt gets depends on which
 * prompts there are, not on the order of their rows.
 */
#include "dataset/check_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint8_t hash[LENS_SHA256_BYTES];
	size_t length, row;
	const int32_t *tokens;
};

/* By length and hash; equal ones have the same tokens. */
static int compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	return memcmp(x->hash, y->hash, sizeof(x->hash));
}

static enum lens_status hash_tokens(struct entry *e, long seed, struct lens_error *err)
{
	struct lens_sha256 *sha;
	enum lens_status st;
	char text[32];
	int n = snprintf(text, sizeof(text), "%ld:", seed);

	LENS_TRY(lens_sha256_create(&sha, err));
	st = lens_sha256_update(sha, text, (size_t)n, err);
	if (st == LENS_OK)
		st = lens_sha256_update(sha, e->tokens, e->length * sizeof(*e->tokens), err);
	if (st == LENS_OK)
		st = lens_sha256_final(sha, e->hash, err);
	lens_sha256_destroy(sha);
	return st;
}

/* Of entries first … end − 1, which are as long as each other: the next of other tokens. */
static const struct entry *next_of(const struct entry *e, size_t first, size_t end, size_t i)
{
	size_t k = i;

	do {
		k = k + 1 < end ? k + 1 : first;
	} while (k != i && !compare(&e[k], &e[i]));
	return k != i ? &e[k] : NULL;
}

static enum lens_status draw(struct lens_prompts *p, const struct lens_dataset_options *opt,
			     const struct entry *e, struct lens_error *err)
{
	size_t i, first = 0, end = 0;

	for (i = 0; i < p->n_rows; i++) {
		const struct entry *other;

		if (i == end) {
			first = i;
			while (end < p->n_rows && e[end].length == e[first].length)
				end++;
		}
		other = next_of(e, first, end, i);
		if (!other)
			return lens_error_at(err, LENS_ERR_FORMAT, opt->csv,
					     p->place[e[i].row].line, 0,
					     "record %" PRId64 ": ablate.value: resample needs "
					     "another prompt of %zu tokens, and there is none; "
					     "ablate.resample names a column that has one",
					     p->record[e[i].row], e[i].length);
		memcpy(p->resampled + p->offset[e[i].row], other->tokens,
		       other->length * sizeof(*other->tokens));
	}
	return LENS_OK;
}

enum lens_status lens_prompts_resample(struct lens_prompts *p,
				       const struct lens_dataset_options *opt,
				       struct lens_error *err)
{
	struct entry *e = lens_calloc(p->n_rows, sizeof(*e));
	enum lens_status st = LENS_OK;
	size_t i;

	p->resampled = lens_calloc(p->offset[p->n_rows], sizeof(*p->resampled));
	if (!e || !p->resampled)
		st = lens_error_nomem(err, p->n_rows, sizeof(*e));
	for (i = 0; st == LENS_OK && i < p->n_rows; i++) {
		e[i].row = i;
		e[i].length = lens_prompt_length(p, i);
		e[i].tokens = p->tokens + p->offset[i];
		st = hash_tokens(&e[i], opt->resample_seed, err);
	}
	if (st == LENS_OK) {
		qsort(e, p->n_rows, sizeof(*e), compare);
		st = draw(p, opt, e, err);
	}
	lens_free(e);
	return st;
}
