/* plan_private.h: what the files of plan/ share. */
#ifndef PLAN_PRIVATE_H
#define PLAN_PRIVATE_H

#include "h5lens/plan.h"

/* What is a file's own of a dataset. A hook's datasets have the same in every layer. */
struct lens_shape {
	bool made, by_rows;
	size_t extent[LENS_MAX_RANK], chunk[LENS_MAX_RANK];
	uint64_t data_bytes, file_bytes;
};
#define LENS_SHAPES ((size_t)LENS_HOOK_COUNT + LENS_TABLE_COUNT + LENS_MOST_OUTCOMES)

/* --- plan.c ------------------------------------------------------------------------- */

/* Of a shard: without batches and shapes. rows must live as long as the plan. */
enum lens_status lens_plan_part(const struct lens_plan *whole, const struct lens_prompts *rows,
				struct lens_plan *out, struct lens_error *err);
/* Positions, extents and tables, when the batches are planned. */
void lens_plan_sizes(struct lens_plan *p);

/* --- chunks.c ------------------------------------------------------------------------ */

enum lens_status lens_median_length(const struct lens_prompts *p, size_t *out,
				    struct lens_error *err);
void lens_plan_blocks(struct lens_plan *p);
/* So many blocks to a batch. */
void lens_plan_batches(struct lens_plan *p, size_t blocks);
/* Rows of activations in the largest batch of batch_rows prompts. */
size_t lens_largest_batch(const struct lens_prompts *p, size_t batch_rows);
/* shape is [LENS_SHAPES]; those of p's datasets are made. */
enum lens_status lens_plan_shapes(const struct lens_plan *p, struct lens_shape *shape,
				  struct lens_error *err);
const struct lens_shape *lens_shape_of(const struct lens_plan *p, const struct lens_planned *d,
				       const struct lens_shape *shape);
/* Gives each dataset its shape, and counts the file. */
void lens_plan_take_shapes(struct lens_plan *p, const struct lens_shape *shape);

/* --- fit.c ----------------------------------------------------------------------------- */

/* Makes batches of so many blocks; shapes, which are made, stay. */
void lens_plan_widen(struct lens_plan *p, size_t blocks);
/*
 * lens_plan_memory, and first as many blocks to a batch as are best and fit.
 */
enum lens_status lens_plan_fit(struct lens_plan *p, size_t threads,
			       const struct lens_available *is, struct lens_memory *m,
			       struct lens_error *err);

/* --- order.c -------------------------------------------------------------------------- */

/* Are rows sorted, in which windows? When the datasets have their shapes. */
void lens_plan_order(struct lens_plan *p);
/* Rows that are in the hands of workers and the writer at most. */
size_t lens_rows_in_hand(const struct lens_plan *p, size_t workers);
/* Of an order, and of what making it takes. */
size_t lens_order_bytes(const struct lens_plan *p);

/* --- tokens.c ------------------------------------------------------------------------- */

/* Is it stored without padding, [token, …]? */
bool lens_by_token(const struct lens_planned *d);
/* Tokens of a prompt that are stored. */
size_t lens_row_tokens(const struct lens_plan *p, size_t row);
/* Of all prompts; 0 where nothing is stored without padding. */
size_t lens_plan_tokens(const struct lens_plan *p);
enum lens_status lens_plan_check_tokens(const struct lens_plan *p, struct lens_error *err);
/* What lens_plan_first_token needs. */
enum lens_status lens_plan_index_tokens(struct lens_plan *p, struct lens_error *err);

/* --- bytes.c -------------------------------------------------------------------------- */

/* Of one prompt's or token's row, where positions, keys and queries are n_pos. */
uint64_t lens_row_bytes(const struct lens_planned *d, const struct lens_sizes *s);
/* What a dataset of that shape holds, and what is written of it. */
void lens_count_bytes(const struct lens_plan *p, const struct lens_planned *d,
		      struct lens_shape *s);
/* The sums over datasets, and the prompts' own. */
void lens_sum_bytes(struct lens_plan *p);

#endif
