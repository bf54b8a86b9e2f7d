/*
 * support/attrs.h: made-up parts of a residual stream, and a model that has what the
 * attributions read of one: W_O, W_out, ln_final, W_U. A call that fails fails the test.
 */
#ifndef LENS_TEST_ATTRS_H
#define LENS_TEST_ATTRS_H

#include "h5lens/tables.h"
#include "support/batch.h"
#include "support/numbers.h"

enum {
	/* Past 32 the products are of longer blocks, whose rows are less alike. */
	TEST_ATTRS_D_MODEL = 72,
	TEST_ATTRS_D_VOCAB = 37,
	TEST_ATTRS_LAYERS = 3,
	TEST_ATTRS_BATCH = 8,
	TEST_ATTRS_HEADS = 3,
	TEST_ATTRS_D_HEAD = 20,
	TEST_ATTRS_D_MLP = 50,
	TEST_ATTRS_TOP = 4,
	TEST_ATTRS_PARTS = 2 + 2 * TEST_ATTRS_LAYERS /* at the most */
};

/* Learned positions or none; lens_model_destroy it. */
struct lens_model *test_attrs_model(bool folded, bool rms, bool positions);

/* answer_logit, flags, and the tables of attributions. */
struct lens_tables_options test_attrs_options(const struct lens_model *m, size_t n_answers);

/* Activations [n_rows, D] of a batch; the stream is the sum of its parts, in float32. */
struct test_parts {
	struct lens_batch b;
	size_t n_parts;
	struct lens_activation part[TEST_ATTRS_PARTS];
	float *x[TEST_ATTRS_PARTS];     /* their values */
	float *z[TEST_ATTRS_LAYERS];    /* [n_rows, H dh]; attn_out is z·W_O */
	float *post[TEST_ATTRS_LAYERS]; /* [n_rows, F]; mlp_out is post·W_out */
	float *resid;
	int32_t answers[TEST_ATTRS_BATCH * 3];
};

/* n prompts of one token to nine, the first of one. */
void test_make_parts(struct test_parts *s, const struct lens_model *m, size_t n,
		     size_t n_answers);
void test_release_parts(struct test_parts *s);
/* The stream anew, after a part was changed. */
void test_add_parts(struct test_parts *s);
/* The row of a prompt's read position, and where it is in rows [n_rows, D]. */
size_t test_parts_read_row(const struct test_parts *s, size_t prompt);
float *test_part_row(const struct test_parts *s, float *rows, size_t prompt);
/* b: the prompts of s that are shown, with their answers. Returns how many are flagged. */
size_t test_show_parts(struct lens_tables *t, const struct test_parts *s,
		       const struct lens_batch *b, const int32_t *answers);

#endif
