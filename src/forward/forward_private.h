/* forward_private.h: a worker's buffers and one pass over them. */
#ifndef FORWARD_PRIVATE_H
#define FORWARD_PRIVATE_H

#include "h5lens/forward.h"

#define LENS_QUERY_BLOCK 64 /* queries of one head that are computed together */

struct lens_forward {
	const struct lens_model *model;
	int threads, most_threads;
	size_t max_rows, max_length;
	size_t *read_row;    /* [max_rows] the rows of a batch of read positions */
	double *angle;       /* [max_length][2][rotary.dim / 2] cosines, sines; or NULL */
	double *local_angle; /* the same of local layers, where they have a base of their own */
	float *arena;        /* holds all of the following */
	float *resid;        /* [T, D] */
	float *branch;       /* [T, D] attn_out, then mlp_out */
	float *normed;       /* [T, D] */
	float *positions;    /* [T, D] hook_pos_embed of a shortformer, or NULL */
	float *scale;        /* [T] */
	float *qkv;          /* [T, (H + 2 Hkv) dh] */
	float *head_scale;   /* [T, H] the norm of each head's queries, or keys; or NULL */
	float *z;            /* [T, H dh] */
	float *hidden;       /* [T, F] */
	float *factor;       /* [T, F] hook_pre_linear, or NULL */
	/* Of experts, else NULL: */
	float *expert_weights; /* [T, E] */
	int32_t *expert_index; /* [T, k] each row's, … */
	float *expert_share;   /* [T, k] … and by what their outputs are multiplied */
	float *expert_input;   /* [T, D] of one of them, then its output */
	int32_t *expert_slot;  /* [T] whose they are, of [T, k]; −1 in a gap */
	float *result;         /* [T, H, D], or NULL */
	float *logits;         /* [T, V], or NULL */
	float *pad;            /* gemm's scratch */
	float *keys;           /* [most_threads][dh, ldk] */
	float *scores;         /* [most_threads][LENS_QUERY_BLOCK, ldk] */
	float *gathered;       /* [most_threads][3, max_length, dh] q, v, z of scattered rows */
};

struct lens_pass {
	struct lens_forward *f;
	const struct lens_batch *batch;
	/* What goes on behind a block's keys and values: batch, or its read positions. */
	const struct lens_batch *rest;
	const struct lens_past *past; /* of positions without a row; or NULL */
	const struct lens_visitors *visitors;
	struct lens_error *err;
};

/* --- batch.c: the rest of it ------------------------------------------------------ */

/* The batch of b's read positions, whose rows are put in first, [n_prompts]. */
void lens_batch_keep_read(const struct lens_batch *b, size_t *first, struct lens_batch *kept);
/* The first of a prompt's positions with a row, and the one past the last. */
void lens_batch_span(const struct lens_batch *b, size_t prompt, size_t *from, size_t *end);
/* Are the rows of positions from … end − 1 there, one after the other? */
bool lens_batch_is_run(const struct lens_batch *b, size_t prompt, size_t from, size_t end);

/* Positions from … end − 1 of a prompt: width floats of each row of data. */
struct lens_rows {
	size_t prompt, from, end;
	const float *data;
	size_t width, stride;
};
/* data's rows → out, [end − from, width]. */
void lens_batch_gather(const struct lens_batch *b, const struct lens_rows *r, float *out);
/* And back, to data; r's own is not looked at. */
void lens_batch_scatter(const struct lens_batch *b, const struct lens_rows *r, const float *in,
			float *data);

/* --- visit.c ------------------------------------------------------------------------ */

/* What any visitor wants of a point. */
enum lens_want lens_wanted(const struct lens_visitors *v, enum lens_hook hook, size_t layer);
/* Edits, then shows; a->data may be changed. b: the batch whose rows they are. */
enum lens_status lens_show(const struct lens_pass *p, const struct lens_batch *b,
			   const struct lens_activation *a, float *data);
/* LENS_ERR_INVALID if a point is to be edited that cannot be. */
enum lens_status lens_check_edits(const struct lens_visitors *v, struct lens_error *err);
/* Blocks to compute: up to the last with a wanted hook point. */
size_t lens_blocks_needed(const struct lens_config *c, const struct lens_visitors *v);
/* Is anything wanted past the last block? */
bool lens_head_wanted(const struct lens_visitors *v);
/*
 * May a block go on with the read positions' rows alone after its keys and values?
 * Then nothing from there on is wanted at other positions.
 */
bool lens_read_rows_suffice(const struct lens_visitors *v, size_t layer);

/* --- unembed.c ----------------------------------------------------------------------- */

struct lens_norm_args {
	enum lens_norm kind;
	const float *x, *w, *b; /* w, b: LayerNorm's, or NULL */
};
/* x → y, [rows, D]: LayerNorm, RMSNorm without its weight, or x itself with scale 1. */
void lens_norm_rows(const struct lens_config *c, size_t rows, const struct lens_norm_args *a,
		    float *y, float *scale);
/* w NULL or RMSNorm's weight, which comes after its hook point. */
void lens_norm_weight(const struct lens_config *c, size_t rows, const float *w, float *y);

/* --- forward.c ------------------------------------------------------------------------ */

/* Shows a token-wise value of width elements a row, without gaps, if somebody wants it. */
enum lens_status lens_show_rows(const struct lens_pass *p, enum lens_hook hook, size_t layer,
				void *data, size_t width);

/* --- moe.c ----------------------------------------------------------------------------- */

/* normed → branch, by way of each row's experts. */
enum lens_status lens_go_through_experts(const struct lens_pass *p, size_t layer);

/* --- rotary.c, attention.c ------------------------------------------------------------- */

/* The cosines and sines of max_length positions. */
enum lens_status lens_rotary_table(const struct lens_rotary *r, size_t max_length, double **out,
				   struct lens_error *err);
size_t lens_rotary_bytes(const struct lens_rotary *r, size_t max_length);
/* Turns the queries and keys in qkv, in place. */
void lens_rotate(const struct lens_pass *p, size_t layer);

/* qkv → z, showing scores and patterns on the way. */
enum lens_status lens_attend(const struct lens_pass *p, size_t layer);

#endif
