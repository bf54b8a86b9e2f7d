/* tables_private.h: what a table does, what it sees, and what the files of tables/ share. */
#ifndef TABLES_PRIVATE_H
#define TABLES_PRIVATE_H

#include "h5lens/tables.h"

/*
 * One row of logits: at a prompt's read position, of one lens layer, or at one position;
 * or at one position the answers' alone.
 */
struct lens_logits {
	enum lens_logits_at at;
	size_t prompt;
	size_t layer; /* the lens layer, or 0 */
	/* At every position, and at others: which; of an answer: which of its tokens; or 0. */
	size_t pos;
	int32_t next;     /* at every position, of an answer: the token to come; −1: none, or
			     elsewhere */
	size_t of_answer; /* LENS_AT_ANSWER: which answer */
	const float *logit; /* [d_vocab]; LENS_AT_OTHER_POS: NULL */
	size_t d_vocab;
	const int32_t *answer; /* [n_answers] of the prompt */
	size_t n_answers;
	const double *answer_logit; /* LENS_AT_OTHER_POS: [n_answers]; else NULL */
	bool finite;
	float max;      /* if finite */
	double sum_exp; /* Σ exp(logit − max), if finite; 0: nobody has asked yet */
	float scale;    /* at the read position and others: the model's ln_final.hook_scale */
	const struct lens_logits *model; /* of a lens layer, for LENS_BESIDE_MODEL: its own */
	int32_t *top;                    /* the top_k largest: lens_top */
	bool has_top;
};

/* One of its answers' logits. */
static inline double lens_answer_logit(const struct lens_logits *l, size_t answer)
{
	return l->answer_logit ? l->answer_logit[answer] : (double)l->logit[l->answer[answer]];
}
/* softmax, in float64: exp(logit − max)/Σ; NaN where a logit is not finite */
double lens_prob(struct lens_logits *l, int32_t token);
/* its logarithm */
double lens_log_prob(struct lens_logits *l, int32_t token);
/* −Σ p log p, in nats; float64 */
double lens_entropy(const struct lens_logits *l);
/* KL(p ‖ q) = Σ p·(log p − log q), in nats; float64; 0 of the same logits */
double lens_divergence(const struct lens_logits *p, const struct lens_logits *q);
/* The token with the largest logit, of several the smallest id; −1 as above. */
int32_t lens_argmax(const struct lens_logits *l);
/* Tokens with a strictly larger logit; −1 where a logit is not finite. */
int32_t lens_rank(const struct lens_logits *l, int32_t token);

/*
 * What each part of a layer adds to the answers' logits of a prompt, times hook_scale: at
 * the read position, or of heads with attrs.positions: all at one after the other.
 */
struct lens_attribution {
	enum lens_attrs_of of;
	size_t layer, prompt, pos;
	size_t n;            /* heads, or neurons */
	const double *value; /* [n_answers, n] */
};

/* Which row of the answers and flags is a prompt's. */
static inline size_t lens_row_of(const struct lens_tables_batch *in, size_t prompt)
{
	return in->row ? in->row[prompt] : prompt;
}

/* A prompt's n answers of one token each. */
static inline const int32_t *lens_answers_of(const struct lens_tables_batch *in, size_t n,
					     size_t prompt)
{
	return in->answers + lens_row_of(in, prompt) * n;
}

/* Of a prompt's stream among the batch's: which others are the same. */
struct lens_alike {
	bool repeats; /* that of an earlier prompt */
	size_t next;  /* so many prompts on is the next one; 0: there is none */
};

/* One worker's table. */
struct lens_table_view {
	const struct lens_model *model;
	const struct lens_tables_options *opt;
	enum lens_table table;
	const struct lens_table_type *type;
	const struct lens_tables_batch *in; /* the batch in hand */
	unsigned char *rows;                /* [batch_rows, row_bytes] */
	size_t row_bytes;
	void *state; /* what state_bytes asked for, on 64 bytes, zeros at a batch's begin */
	double deviation; /* the largest so far, of a type that has one */
};

/*
 * What a table does; NULL where it does nothing. Its rows are filled with the type's
 * fill value before each batch.
 */
struct lens_table_ops {
	/* The hook points it wants to be shown; those that logits need are added anyway. */
	void (*hooks)(const struct lens_model *m, struct lens_hook_set *hooks);
	/* Bytes that it keeps during a batch. */
	size_t (*state_bytes)(const struct lens_tables_options *opt);
	/* Before a pass. */
	void (*begin)(struct lens_table_view *v);
	/* Also called at hook points that other tables want. */
	void (*visit)(struct lens_table_view *v, const struct lens_batch *b,
		      const struct lens_activation *a);
	/* Attributions of type->attrs. */
	void (*attribute)(struct lens_table_view *v, const struct lens_attribution *a);
	/* Logits of type->logits, or type->logits_if_made. */
	void (*read)(struct lens_table_view *v, struct lens_logits *l);
	/* After the pass, and all logits. */
	void (*finish)(struct lens_table_view *v);
};

#define LENS_TABLE(id, ...) extern const struct lens_table_type lens_table_##id;
#define LENS_TABLE_ALSO LENS_TABLE
#include "h5lens/tables.def"

/* A prompt's row. */
static inline void *lens_table_row(const struct lens_table_view *v, size_t prompt)
{
	return v->rows + prompt * v->row_bytes;
}

/* The top_k tokens with the largest logits, ties by id; −1 where there is none. */
const int32_t *lens_top(const struct lens_table_view *v, struct lens_logits *l);
/* Their logits and probabilities, [top_k]; what is NaN stays so where there is no token. */
void lens_top_logits(const struct lens_table_view *v, struct lens_logits *l, float *out);
void lens_top_probs(const struct lens_table_view *v, struct lens_logits *l, float *out);

/* --- directions.c ------------------------------------------------------------------ */

/* Of a token's logit: [D], to be divided by ln_final.hook_scale. */
void lens_direction(const struct lens_model *m, int32_t token, double *out);
/* What of the logit is not from the stream: b_U, and an unfolded ln_final's bias. */
double lens_direction_bias(const struct lens_model *m, int32_t token);
/* A logit behind the soft cap, if the model has one. */
double lens_capped(const struct lens_model *m, double logit);

/* --- tables.c, logits.c, positions.c, tile.c ------------------------------------------- */

/* What a slot of the tile holds. */
struct lens_place {
	size_t prompt, of_answer, pos;
	size_t slot;  /* of the tile */
	int32_t next; /* the token to come; −1: none */
	float max;    /* NaN: a logit is not finite */
	double sum_exp;
};

/* attrs.c's, if any table is shown attributions. */
struct lens_attrs_state {
	struct lens_activation waiting; /* z or hook_post whose norm's scale is to come */
	unsigned of;
	size_t *slot; /* [batch_rows, n_answers] of each prompt's answers, … */
	struct lens_row_count used;
	float *direction; /* [slots, D] … their directions */
	float *through;   /* [slots, width] the same through W_O or W_out */
	float *pad;
	double *one;   /* [D] */
	double *value; /* [n_answers, heads or neurons] */
};

/* A prompt's answer, of n tokens. */
struct lens_continued {
	size_t prompt, answer;
	const int32_t *token;
	size_t n;
};
/* continue.c's, if a second pass is needed. */
struct lens_second_pass {
	struct lens_batch batch; /* of the sequences in hand, whose answers are of */
	struct lens_hook_set hooks;
	int32_t *tokens; /* of all its sequences */
	struct lens_continued *of;
};

/* One worker's tables, and what those that read logits share. */
struct lens_tables {
	const struct lens_model *model;
	struct lens_tables_options opt;
	struct lens_table_view *view; /* [n] the selected tables */
	size_t n;
	unsigned logits; /* LENS_AT_…: what the tables need */
	struct lens_tables_batch in;
	size_t n_sources;         /* lens layers, or 1: the final one */
	size_t tile;              /* slots of a tile, a multiple of 12 */
	struct lens_alike *alike; /* [n_sources, batch_rows] of each row of resid */
	float *resid;  /* [n_sources, batch_rows, D] the stream at the read positions */
	float *stream; /* [lens layers, max_rows, D] of all rows; or NULL */
	struct lens_logits *own; /* [n_own] of so many prompts: the model itself; or NULL */
	float *own_logit;        /* [n_own, V] */
	size_t n_own;
	float *normed; /* [tile, D] */
	float *scale;  /* [tile] */
	float *logit;  /* [tile, V] */
	float *pad;
	int32_t top[LENS_TOP_K_MAX];
	struct lens_place
		*place; /* [tile] rows of one, for logits at more than the read position */
	double *answer_logit; /* [n_answers], for LENS_AT_OTHER_POS; or NULL */
	struct lens_attrs_state attrs;
	struct lens_second_pass second;
};

/* Shows logits to the tables that read them there. */
void lens_show_logits(struct lens_tables *t, enum lens_logits_at at, struct lens_logits *l);
/*
 * A row of the stream → what the lens multiplies by W_U, in a slot of normed. last: the
 * row behind the last layer, whose scale the lens takes; NULL: its own ln_final.
 */
void lens_norm_row(struct lens_tables *t, const float *x, const float *last, size_t slot);
/* Does the lens take the model's own scale, and no b_U? */
bool lens_cached_scale(const struct lens_tables *t);
/* Of a row of W_U's product that so many lens layers follow: the way it is computed. */
size_t lens_logits_way(const struct lens_tables *t, size_t layers_after, size_t pos);
/* A tile that holds so many rows: has it no slot for another of that way? */
bool lens_tile_is_full(const struct lens_tables *t, const struct lens_row_count *used,
		       size_t way);
/* logits of a tile's rows, with b_U or without */
void lens_unembed_tile(struct lens_tables *t, const struct lens_row_count *used, bool bias);
/* The lens layer that an activation is; false: none. */
bool lens_layer_of(const struct lens_tables *t, const struct lens_activation *a, size_t *out);

size_t lens_logits_bytes(const struct lens_model *m, const struct lens_tables_options *opt);
enum lens_status lens_logits_create(struct lens_tables *t, struct lens_error *err);
void lens_logits_destroy(struct lens_tables *t);
void lens_logits_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		       struct lens_hook_set *hooks);
/* Keeps the stream at the read positions. */
void lens_logits_visit(struct lens_tables *t, const struct lens_batch *b,
		       const struct lens_activation *a);
/* Reads the streams: shows the logits of the read positions and of the lens layers. */
void lens_logits_read(struct lens_tables *t);
/* Where the model's own logits of more than the read position are needed. */
#define LENS_AT_ALL_POS (LENS_AT_NEXT_TOKEN | LENS_AT_EVERY_POS)
/* Shows the logits of every position; a is ln_final.hook_normalized of all rows. */
void lens_every_pos_read(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a);
/* Shows the answers' logits of every other position; a is the last resid_post, all rows. */
void lens_other_pos_read(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a);
/* Shows those of a lens layer, or keeps it until the last one; a is the stream, all rows. */
void lens_every_pos_lens(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a, size_t layer);

/* A tile that is filled row by row; begins as { at, layer, bias }. */
struct lens_tile {
	enum lens_logits_at at; /* what its logits are shown as, perhaps several */
	size_t layer;
	bool bias;
	struct lens_row_count used;
	size_t n; /* rows in it */
};
/* One more row, of that way: its slot of normed; shows the tile first if it is full. */
size_t lens_tile_add(struct lens_tables *t, struct lens_tile *tile, size_t way,
		     const struct lens_place *place);
/* Shows what is in it, in the order in which it came. */
void lens_tile_flush(struct lens_tables *t, struct lens_tile *tile);

/* --- continue.c ----------------------------------------------------------------------- */

size_t lens_continue_bytes(const struct lens_tables_options *opt);
enum lens_status lens_continue_create(struct lens_tables *t, struct lens_error *err);
void lens_continue_destroy(struct lens_tables *t);
/* Shows a read position's logits as those of each answer's first token. */
void lens_first_tokens(struct lens_tables *t, struct lens_logits *l);

/* --- attrs.c -------------------------------------------------------------------------- */

/* Where a table of attributions looks: at every position, or at the one that is read. */
bool lens_attrs_at_all(const struct lens_table_type *t);
/* The positions of a prompt from which on, and before which. */
struct lens_attrs_span {
	size_t from, end;
};
struct lens_attrs_span lens_attrs_span(const struct lens_batch *b, size_t prompt, bool all);
/* Its places along the axis pos, 1 without one; and a position's. */
size_t lens_attrs_places(const struct lens_table_view *v);
size_t lens_attrs_place(const struct lens_table_view *v, size_t pos);
/* The position that these are the logits of. */
size_t lens_attrs_pos(const struct lens_table_view *v, const struct lens_logits *l);
size_t lens_attrs_bytes(const struct lens_tables_options *opt);
enum lens_status lens_attrs_create(struct lens_tables *t, struct lens_error *err);
void lens_attrs_destroy(struct lens_tables *t);
void lens_attrs_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		      struct lens_hook_set *hooks);
void lens_attrs_begin(struct lens_tables *t);
void lens_attrs_visit(struct lens_tables *t, const struct lens_batch *b,
		      const struct lens_activation *a);

#endif
