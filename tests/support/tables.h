/*
 * support/tables.h: what the tests of the tables share: a small model that is an
 * unembedding alone, and with it an analysis of the residual streams of made-up
 * prompts. A call that fails fails the test.
 */
#ifndef LENS_TEST_TABLES_H
#define LENS_TEST_TABLES_H

#include "h5lens/analysis.h"
#include "support/numbers.h"

enum {
	TEST_D_MODEL = 20,
	TEST_D_VOCAB = 37,
	TEST_LAYERS = 3,
	TEST_BATCH = 8,
	TEST_SOURCES = TEST_LAYERS + 1 /* of the logit lens */
};

/* The index of a table's name. */
size_t test_table_index(const char *name);

/* Random W_U and b_U behind a LayerNorm without weights; lens_model_destroy it. */
struct lens_model *test_unembedding(struct test_random *r, size_t n_layers, size_t n_ctx);

/*
 * Tokens 5, 9 and 30 have a W_U of zeros and one b_U: their logits tie, to the bit.
 * (Equal rows that are not zero need not: BLAS may sum a product's columns in
 * different orders.)
 */
struct lens_model *test_make_model(bool folded, bool rms);

struct test_stream {
	size_t n, length[TEST_BATCH], offset[TEST_BATCH], rows;
	int32_t read_pos[TEST_BATCH], answers[TEST_BATCH * 3];
	float *resid[TEST_SOURCES]; /* [rows, TEST_D_MODEL] */
};

/* n prompts of random lengths, answers and residual streams. */
void test_make_stream(struct test_stream *s, size_t n, size_t n_answers);
void test_release_stream(struct test_stream *s);
/* Shows one batch; returns how many prompts were flagged. */
size_t test_analyse(struct lens_analysis *a, const struct test_stream *s);

struct lens_analysis *test_create_analysis(const struct lens_model *m,
					   const struct lens_analysis_options *opt);
/* Every table that has one row for a prompt's read position. */
struct lens_analysis_options test_all_tables(size_t n_answers, size_t top_k,
					     enum lens_lens_mode lens);

#endif
