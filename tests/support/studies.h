/*
 * support/studies.h: prompts of random tokens for a tiny model, and what an experiment's
 * interventions find of them. A call that fails fails the test.
 */
#ifndef LENS_TEST_STUDIES_H
#define LENS_TEST_STUDIES_H

#include "h5lens/interventions.h"
#include "support/numbers.h"

/* Sets of prompts are N_ROWS of up to MOST_TOKENS, or many short ones, or a few long ones. */
enum { N_ROWS = 5, MOST_TOKENS = 11, N_ANSWERS = 3, MANY_ROWS = 150, LONG_TOKENS = 75 };

extern struct test_random test_rnd;

/* Pairs of random tokens with a common beginning. */
struct test_subject {
	struct lens_model *m;
	struct lens_prompts p;
	float *vector; /* of steering, the test's; or NULL */
	size_t longest;
	uint64_t offset[MANY_ROWS + 1];
	int32_t tokens[MANY_ROWS * MOST_TOKENS], corrupted[MANY_ROWS * MOST_TOKENS];
	struct lens_mean mean; /* made up */
	int32_t read_pos[MANY_ROWS], answers[MANY_ROWS * N_ANSWERS];
};

/* Of a folder of tests/golden/data; lens_model_destroy its m. */
void test_subject_begin(struct test_subject *s, const char *name);
void test_subject_begin_sized(struct test_subject *s, const char *name, size_t n_rows,
			      size_t longest);

/* What a study finds: [n_outcomes] [n_rows, floats]. */
struct test_found {
	size_t n_rows, n_flagged;
	struct lens_study study;
	struct lens_sizes sizes;
	float *rows[LENS_MOST_OUTCOMES];
};

/* In batches of so many rows. */
void test_find(const struct test_subject *s, const struct lens_experiment *e, size_t batch_rows,
	       int threads, struct test_found *f);
void test_found_release(struct test_found *f);
/* Numbers of a prompt. */
size_t test_found_floats(const struct test_found *f, size_t outcome);
const struct lens_outcome *test_outcome(const struct test_found *f, const char *name,
					const float **rows);
/*
 * What test_e finds with reuse in batches of so many rows, in *f; in small batches and by full
 * passes (patch.reuse: false, which it leaves set) it must have equal bits. Returns how
 * many numbers there are.
 */
size_t test_find_all_ways(const struct test_subject *s, size_t batch_rows, const char *what,
			  struct test_found *f);
/* Equal bits; how many numbers there are. */
size_t test_same_found(const struct test_found *x, const struct test_found *y,
		       const char *what);

#endif
