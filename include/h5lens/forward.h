/*
 * forward.h: embed → blocks → (final norm, logits), with the hook points.
 *
 * A batch is ragged: the tokens of its prompts are packed into rows, never padded.
 * Token-wise operations run over all rows at once, attention prompt by prompt. A hook
 * point that nobody wants costs nothing, and no layer past the last wanted hook is
 * computed. In the last block, where only the read positions' values are wanted, only
 * their rows go on after the keys and values.
 */
#ifndef H5LENS_FORWARD_H
#define H5LENS_FORWARD_H

#include "h5lens/hooks.h"

/* --- what a row of a batch is (batch.c) -------------------------------------------- */

/*
 * The rows of a few prompts. A row holds what one token at one position has become; some
 * are gaps. lens_batch_row is the only way from a position to its row, so rows need not be
 * consecutive, and prompts that begin alike may share them: nothing in a row depends on
 * what follows it. One rule holds for any layout: a row is one of lens_row_way of its
 * position, because on AVX2 that decides how the kernels round.
 */
struct lens_batch {
	size_t n_prompts, n_rows;    /* n_rows counts the gaps */
	const int32_t **tokens;      /* [n_prompts] each prompt's, [length] */
	size_t *length;              /* [n_prompts] */
	int32_t *read_pos;           /* [n_prompts] */
	int32_t *token, *position;   /* [n_rows] of each row; -1 in a gap */
	size_t *first;               /* [n_prompts] where a prompt's rows begin in row */
	size_t *own;                 /* [n_prompts] rows before this position are others' too */
	int32_t *row;                /* NULL: each prompt has the row first[i], of read_pos */
	size_t n_tokens, max_tokens; /* of row: the prompts' lengths together */
	size_t max_prompts, max_rows;
	/*
	 * The caller's to set: prompts that begin with the same tokens have the same rows
	 * there. An edit of such a row would change all of them.
	 */
	bool share;
	/* Of shared beginnings: the rows that follow a row, a list; and those that begin. */
	int32_t *next, *beside, begin; /* [max_rows]; −1: none */
	struct lens_row_count used;    /* rows that are no gaps: the first of each way */
};

/*
 * Room for so many prompts, so many tokens of all of them together, and so many rows.
 * lens_batch_release it even after an error.
 */
enum lens_status lens_batch_init(struct lens_batch *b, size_t max_prompts, size_t max_tokens,
				 size_t max_rows, struct lens_error *err);
void lens_batch_release(struct lens_batch *b);
/* What lens_batch_init would allocate. */
size_t lens_batch_bytes(size_t max_prompts, size_t max_tokens, size_t max_rows);
void lens_batch_clear(struct lens_batch *b);
/*
 * One more prompt, for which there must be room: its positions from `from` on get the
 * next rows, those before it have none. Of a batch that shares, a whole prompt (from 0)
 * gets new rows only from where no earlier whole one begins like it. tokens stay the
 * caller's.
 */
void lens_batch_pack(struct lens_batch *b, const int32_t *tokens, size_t length,
		     int32_t read_pos, size_t from);
/* Is there room for n more prompts like that, whatever they share? */
bool lens_batch_has_room(const struct lens_batch *b, size_t n, size_t length, size_t from);
/* The rows that n prompts of that length take. */
size_t lens_batch_rows(size_t n, size_t length);
/* Adds those of one more prompt, from `from` on; lens_row_places tells how many rows it makes.
 */
void lens_batch_count(struct lens_row_count *c, size_t length, size_t from);

/* The row of a prompt's position; -1: it is not in this batch. */
static inline long lens_batch_row(const struct lens_batch *b, size_t prompt, size_t pos)
{
	if (b->row)
		return b->row[b->first[prompt] + pos];
	return (size_t)b->read_pos[prompt] == pos ? (long)b->first[prompt] : -1;
}

/* --- visitors ---------------------------------------------------------------------- */

/*
 * A value at a hook point. data may be read until the visitor returns; hook_z and hook_post
 * until what is made of them, up to hook_attn_out and hook_mlp_out, has been shown.
 */
struct lens_activation {
	enum lens_hook hook;
	size_t layer;
	/*
	 * Token-wise hook points (no query axis): data is [n_rows, width] with
	 * row stride `stride`, in the batch's rows. prompt, head and q0 are 0.
	 * Scores and pattern: data is [nq, n_keys] of one prompt and one head, for
	 * queries q0 … q0 + nq − 1.
	 */
	const float *data;
	size_t width, stride;
	size_t prompt, head, q0, nq;
};

/*
 * What looks at a pass, or changes it. At each hook point the edits come first, in the
 * order of the list, then the visits, which see what goes on. The batch that is shown
 * is the pass's, or behind the keys and values of the last block that of its read
 * positions alone, unless somebody wants all.
 */
struct lens_visitor {
	const struct lens_hook_set *hooks; /* which points it is called at */
	/* Reads a value; or NULL. */
	enum lens_status (*visit)(void *ctx, const struct lens_batch *b,
				  const struct lens_activation *a, struct lens_error *err);
	/*
	 * Changes a value, data being a->data, before anything reads it; or NULL. Points
	 * that are not editable (lens_hook_info) are refused with LENS_ERR_INVALID.
	 */
	enum lens_status (*edit)(void *ctx, const struct lens_batch *b,
				 const struct lens_activation *a, float *data,
				 struct lens_error *err);
	void *ctx;
};
struct lens_visitors {
	const struct lens_visitor *visitor; /* [n] */
	size_t n;
};

/* --- the pass ---------------------------------------------------------------------- */

/* One worker's memory: everything is allocated here, nothing in the pass. */
struct lens_forward;

struct lens_forward_size {
	const struct lens_visitors *visitors; /* whose hook points it will show */
	/*
	 * Rows of the largest batch, a multiple of 12: enough for a row of any one way a
	 * prompt (lens_row_room), even where prompts share rows, because each has a read
	 * position.
	 */
	size_t max_rows;
	size_t max_length; /* tokens of the longest prompt */
	int threads;       /* more than 1: one pass may use several */
	int most_threads;  /* that attention can use with lens_crew_share's; 0: threads */
};
enum lens_status lens_forward_create(const struct lens_model *m,
				     const struct lens_forward_size *size,
				     struct lens_forward **out, struct lens_error *err);
void lens_forward_destroy(struct lens_forward *f);
/* What lens_forward_create would allocate, in bytes. */
size_t lens_forward_bytes(const struct lens_model *m, const struct lens_forward_size *size);

/* Every position of the batch's prompts must have a row. */
enum lens_status lens_forward_run(struct lens_forward *f, const struct lens_batch *b,
				  const struct lens_visitors *v, struct lens_error *err);

/*
 * What an earlier pass made of the positions that have no row, in its own rows: each
 * layer's keys, behind the rotation, and values.
 */
struct lens_past {
	const struct lens_batch *batch; /* the earlier pass's */
	const size_t *prompt;           /* [n_prompts] of each prompt, which it was there */
	const float *const *keys, *const *values; /* [n_layers] of [its n_rows, Hkv·dh] */
};
/* Where a pass begins that does not begin with its tokens. */
struct lens_start {
	size_t layer;                 /* the block; n_layers: the final norm */
	const float *resid;           /* [n_rows, d_model] its resid_pre, in the batch's rows */
	const struct lens_past *past; /* NULL: every position has a row */
};
/*
 * The pass from there on; what comes before is not shown. A prompt's rows are those of
 * its positions from some one on, and the same bits as if all had rows.
 */
enum lens_status lens_forward_from(struct lens_forward *f, const struct lens_batch *b,
				   const struct lens_start *start,
				   const struct lens_visitors *v, struct lens_error *err);

/* --- from the residual stream to logits (unembed.c) ----------------------------------- */

/* x → ln_final(x): [rows, D], y may be x; scale is [rows]. */
void lens_final_norm(const struct lens_model *m, size_t rows, const float *x, float *y,
		     float *scale);
/*
 * ln_final.hook_normalized → ln_final's output, in place. They differ in an unfolded
 * RMSNorm, whose weight comes after the hook point, as in TransformerLens.
 */
void lens_final_weight(const struct lens_model *m, size_t rows, float *y);

struct lens_unembed_args {
	size_t rows;
	const float *normed; /* [rows, D] ln_final's output */
	bool bias;           /* b_U too, and the soft cap on logits if there is one */
	float *logits;       /* [rows, V] */
	float *pad;          /* lens_unembed_pad_floats */
	int threads;
};
/* logits = normed·W_U (+ b_U) */
void lens_unembed(const struct lens_model *m, const struct lens_unembed_args *a);
size_t lens_unembed_pad_floats(const struct lens_config *c);

#endif
