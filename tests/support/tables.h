/*
 * support/tables.h: what the tests of the tables share: a small model that is an
 * unembedding alone, and with it the tables of the residual streams of made-up
 * prompts. A call that fails fails the test.
 */
#ifndef LENS_TEST_TABLES_H
#define LENS_TEST_TABLES_H

#include "h5lens/tables.h"
#include "support/batch.h"
#include "support/numbers.h"

enum {
	TEST_D_MODEL = 20,
	TEST_D_VOCAB = 37,
	TEST_LAYERS = 3,
	TEST_BATCH = 8,
	TEST_SOURCES = TEST_LAYERS + 1 /* of the logit lens */
};

/* Random W_U and b_U behind a LayerNorm without weights; lens_model_destroy it. */
struct lens_model *test_unembedding(struct test_random *r, size_t n_layers, size_t n_ctx);

/*
 * Tokens 5, 9 and 30 have a W_U of zeros and one b_U: their logits tie, to the bit.
 * (Equal rows that are not zero need not: BLAS may sum a product's columns in
 * different orders.)
 */
struct lens_model *test_make_model(bool folded, bool rms);

/* A batch whose rows are scattered. */
struct test_stream {
	struct lens_batch b;
	int32_t answers[TEST_BATCH * 3];
	float *resid[TEST_SOURCES]; /* [n_rows, TEST_D_MODEL] */
};

/* n prompts of random lengths, answers and residual streams. */
void test_make_stream(struct test_stream *s, size_t n, size_t n_answers);
void test_release_stream(struct test_stream *s);
/* A source's row at a prompt's read position. */
float *test_read_row(const struct test_stream *s, size_t source, size_t prompt);
/* Shows one batch; returns how many prompts were flagged. */
size_t test_show_stream(struct lens_tables *t, const struct test_stream *s);

/* The mean of a row of the stream (0 for RMSNorm), and what its norm divides by, in float64. */
double test_moments(const struct lens_model *m, const float *x, double *scale);

struct lens_tables *test_create_tables(const struct lens_model *m,
				       const struct lens_tables_options *opt);
/* A prompt's row of a table that is selected. */
const void *test_table_row(const struct lens_tables *t, const struct lens_tables_options *opt,
			   enum lens_table table, size_t prompt);
/* Every table that is made of logits at the read positions. */
struct lens_tables_options test_all_tables(const struct lens_model *m, size_t n_answers,
					   size_t top_k, enum lens_lens_mode lens);

#endif
