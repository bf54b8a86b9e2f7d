/*
 * support/capture.h: activations that say where they are from, cut by a capture
 * into the buffers of a sink that puts the dataset together again and fails the
 * test when something is written twice.
 */
#ifndef LENS_TEST_CAPTURE_H
#define LENS_TEST_CAPTURE_H

#include "h5lens/capture.h"

/* One dataset, the prompts, and how the forward pass shows it. */
struct test_layout {
	enum lens_hook hook;
	enum lens_dtype dtype; /* LENS_F32 or LENS_F16 */
	bool by_rows;
	bool by_token; /* without padding; chunk[0] is of tokens */
	size_t chunk[LENS_CAPTURE_RANK];
	size_t n_prompts, batch_rows;
	const size_t *length;
	enum lens_positions_kind kind;
	const long *list;
	size_t n_list;
	size_t queries; /* shown together */
	float factor;   /* values are that times larger */
};

/* The dataset, being put together. */
struct test_collected {
	const struct lens_capture_spec *spec;
	float *value;     /* the extents, as float32 */
	unsigned char *n; /* how often each was written */
	size_t batch_rows, n_buffers, held, fail_at;
	enum lens_status submit_fails;
};

struct test_capture {
	const struct test_layout *l;
	struct lens_capture_spec spec[2]; /* of squares, the other one too */
	struct lens_capture_plan plan;
	struct test_collected got;
	int32_t *read_pos;
	size_t overflows;
};

/* Prompts of 1 to 41 tokens, in batches of 4. */
extern const struct test_layout test_base_layout;

/* Of n factors. */
size_t test_product(const size_t *x, int n);
/* Scores and patterns: a head's positions by positions. */
bool test_square(enum lens_hook h);
/* How many tokens rows 0 … row − 1 have that are stored. */
size_t test_first_token(const struct test_capture *r, size_t row);
/* A finite value of its own for each place; halves hold 0 … 2047 exactly. */
float test_hook_value(const struct test_layout *l, size_t prompt, size_t pos, size_t inner);

/* The sink's two functions; ctx is a struct test_collected. */
enum lens_status test_acquire(void *ctx, size_t bytes, void **out, struct lens_error *err);
enum lens_status test_submit(void *ctx, const struct lens_captured *d, struct lens_error *err);

void test_capture_prepare(struct test_capture *r, const struct test_layout *l);
/* Shows every batch to a capture of its own; test_capture.got is what came out. */
enum lens_status test_capture_all(struct test_capture *r, struct lens_error *err);
void test_capture_release(struct test_capture *r);

#endif
