/*
 * forward.h: embed → blocks → (final norm, logits), with the hook points.
 *
 * A batch is ragged: the tokens of its prompts are packed, never padded. Each
 * prompt starts at a row that is a multiple of lens_row_align(). Token-wise
 * operations run over all rows at once, attention prompt by prompt. A hook
 * point that nobody wants costs nothing, and no layer past the last wanted
 * hook is computed. In the last block, where only the read positions' values
 * are wanted, only their rows go on after the keys and values: the visitor is
 * then shown a batch of one row a prompt, with read_rows set.
 */
#ifndef H5LENS_FORWARD_H
#define H5LENS_FORWARD_H

#include "h5lens/hooks.h"

/* Consecutive prompts, packed. Owned by the caller. */
struct lens_batch {
	size_t n_prompts;
	const int32_t *const *tokens; /* [n_prompts] */
	const size_t *length;         /* [n_prompts] */
	const size_t *offset;         /* [n_prompts] first row */
	size_t n_rows;                /* rows in all, gaps of the alignment included */
	const int32_t *read_pos;      /* [n_prompts], or NULL: all positions matter */
	bool read_rows;               /* only the read positions' rows are left (see below) */
};

/* A value at a hook point. data may be read until visit returns. */
struct lens_activation {
	enum lens_hook hook;
	size_t layer;
	/*
	 * Token-wise hook points (no query axis): data is [n_rows, width] with
	 * row stride `stride`, packed as the batch is. prompt, head and q0 are 0.
	 * Scores and pattern: data is [nq, n_keys] of one prompt and one head, for
	 * queries q0 … q0 + nq − 1.
	 */
	const float *data;
	size_t width, stride;
	size_t prompt, head, q0, nq;
};

struct lens_visitor {
	/* Which hook points are shown. */
	const struct lens_hook_set *hooks;
	enum lens_status (*visit)(void *ctx, const struct lens_batch *b,
				  const struct lens_activation *a, struct lens_error *err);
	void *ctx;
};

/* One worker's memory: everything is allocated here, nothing in the pass. */
struct lens_forward;

/*
 * Sized for batches of max_rows rows (a multiple of 12) whose longest prompt has
 * max_length tokens, with the hook points in hooks. threads > 1 lets one pass use several
 * threads.
 */
enum lens_status lens_forward_create(const struct lens_model *m,
				     const struct lens_hook_set *hooks, size_t max_rows,
				     size_t max_length, int threads, struct lens_forward **out,
				     struct lens_error *err);
void lens_forward_destroy(struct lens_forward *f);
/* What lens_forward_create would allocate, in bytes. */
size_t lens_forward_bytes(const struct lens_model *m, const struct lens_hook_set *hooks,
			  size_t max_rows, size_t max_length, int threads);

enum lens_status lens_forward_run(struct lens_forward *f, const struct lens_batch *b,
				  const struct lens_visitor *v, struct lens_error *err);

/* ln_final of rows [rows, D] (y may be x); scale is [rows]. */
void lens_final_norm(const struct lens_model *m, size_t rows, const float *x, float *y,
		     float *scale);

#endif
