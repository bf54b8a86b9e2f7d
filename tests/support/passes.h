/*
 * support/passes.h: forward passes over a batch, and all that they show, kept by
 * prompt and position: what must be the same bits however the rows lie. A call that
 * fails fails the test.
 */
#ifndef LENS_TEST_PASSES_H
#define LENS_TEST_PASSES_H

#include "support/batch.h"

/* As lens_model_open, which must succeed. */
struct lens_model *test_open_model(const char *dir, const struct lens_model_options *opt);

struct test_pass {
	const struct lens_model *m;
	const struct lens_batch *b;
	const struct lens_visitor *visitor; /* [n] */
	size_t n;
	int threads, most_threads;
	const float *resid; /* resid_pre of block `layer`, in b's rows; NULL: from the tokens */
	size_t layer;
	const struct lens_past *past; /* with resid: of positions without a row; or NULL */
};
/* A forward pass in memory of its own. */
enum lens_status test_run_pass(const struct test_pass *p, struct lens_error *err);

/* --- what passes show ------------------------------------------------------------------ */

/* Values of one hook point in one layer. */
struct test_point {
	size_t width;        /* floats of a position; of squares [heads, longest] */
	float *value;        /* [n_prompts, longest, width] */
	unsigned char *seen; /* [n_prompts, longest] */
};

struct test_record {
	const struct lens_model *m;
	size_t n_prompts, longest;
	struct lens_hook_set hooks; /* what is shown to it */
	struct test_point *point;   /* [n_layers, LENS_HOOK_COUNT] */
};

/*
 * Of passes over b's prompts. LENS_WANT_ALL: each hook point that the model has, at every
 * position. LENS_WANT_READ_POS: those of the blocks, at the read positions.
 * LENS_WANT_NOT: none yet; lens_hook_want adds to hooks.
 */
void test_record_init(struct test_record *r, const struct lens_model *m,
		      const struct lens_batch *b, enum lens_want want);
void test_record_release(struct test_record *r);
struct lens_visitor test_record_visitor(struct test_record *r);

/* A value; NULL where nothing was shown. Of squares: [heads, longest]. */
const float *test_recorded(const struct test_record *r, enum lens_hook hook, size_t layer,
			   size_t prompt, size_t pos);

/*
 * All that `is` has, `should` has too, to the bit. Returns how many positions of hook
 * points that were, those of all prompts together.
 */
size_t test_same_records(const struct test_record *is, const struct test_record *should,
			 const char *what);

/* b's rows of a token-wise hook point, [n_rows, its width]; lens_free it. */
float *test_record_rows(const struct test_record *r, const struct lens_batch *b,
			enum lens_hook hook, size_t layer);

#endif
