/* interventions_private.h: what the files of interventions/ share. */
#ifndef INTERVENTIONS_PRIVATE_H
#define INTERVENTIONS_PRIVATE_H

#include "h5lens/interventions.h"

#define NOT_ONE SIZE_MAX /* all positions, heads or keys */

/* --- study.c: how a result is measured -----------------------------------------------------
 */

/* Floats of a metric: one for each place of its axis, or one. */
size_t lens_metric_floats(enum lens_table metric, const struct lens_sizes *s);
/* Is the grid's layer asked for? */
bool lens_layer_asked(const struct lens_study *s, size_t layer);

/* --- cells.c: what becomes of a grid's cells ------------------------------------------------
 */

/* What is replaced in a layer: a head of a hook point that has heads, or all of it. */
struct lens_spot {
	size_t layer, head;
};

/* A run in which something is replaced. */
struct lens_cell {
	const struct lens_study_grid *grid;
	size_t pair; /* of the group in hand */
	struct lens_spot spot;
	size_t pos, key; /* of the position, or query, and key that are replaced; NOT_ONE */
	size_t from;     /* the first position that may change */
	float *out;      /* [metric] where its result goes */
};

/* A prompt, as far as cells depend on it. */
struct lens_pair {
	size_t read_pos;
	size_t parting; /* the first position whose tokens differ in base and source */
};
/*
 * Can the logits at the read position change at all? If so, from is the first position
 * whose values may.
 */
bool lens_cell_changes(const struct lens_study *s, const struct lens_pair *p,
		       struct lens_cell *c);

/* Calls fn for each cell of a grid's layer that is asked for, its pair and its place set. */
struct lens_cells {
	const struct lens_study *study;
	const struct lens_sizes *sizes;
	enum lens_status (*fn)(void *ctx, struct lens_cell *c, struct lens_error *err);
	void *ctx;
};
enum lens_status lens_cells_each(const struct lens_cells *l, const struct lens_study_grid *g,
				 size_t layer, struct lens_cell c, size_t length, float *rows,
				 struct lens_error *err);

/* --- record.c: runs that are kept --------------------------------------------------------- */

struct lens_record_size {
	const struct lens_model *model;
	size_t max_prompts, max_rows, max_length;
	const bool *hook; /* [LENS_HOOK_COUNT] which are kept, of every layer */
};
/* What a pass showed at some hook points, in its own rows. */
struct lens_record {
	struct lens_batch batch;
	struct lens_hook_set hooks;
	size_t n_layers, n_heads, max_rows, max_squares;
	size_t width[LENS_HOOK_COUNT];
	float *value[LENS_HOOK_COUNT]; /* [n_layers, max_rows, width]; NULL: not kept */
	size_t *square;                /* [max_prompts] where a prompt's pattern begins */
	const float **keys, **values;  /* [n_layers] as lens_past wants them */
};
enum lens_status lens_record_init(struct lens_record *r, const struct lens_record_size *size,
				  struct lens_error *err);
void lens_record_release(struct lens_record *r);
size_t lens_record_bytes(const struct lens_record_size *size);
/* Floats of a row of all that is kept. */
size_t lens_record_row_floats(const struct lens_model *m, const bool *hook);
/* When its batch is packed. */
void lens_record_begin(struct lens_record *r);
struct lens_visitor lens_record_visitor(struct lens_record *r);
/* A row, [width]; of a pattern: [length] keys of a query. */
const float *lens_recorded(const struct lens_record *r, enum lens_hook hook, size_t layer,
			   size_t prompt, size_t pos);
const float *lens_recorded_square(const struct lens_record *r, size_t layer, size_t prompt,
				  size_t head, size_t query);

/* --- edit.c: replacing ---------------------------------------------------------------------
 */

/* The cells of a batch, and where their values come from. */
struct lens_editor {
	const struct lens_study *study;
	const struct lens_record *record;
	const size_t *run; /* [LENS_RUN_COUNT] which of a pair's runs, of n_runs */
	size_t n_runs;
	struct lens_cell *cell; /* [n] prompt by prompt of the batch */
	size_t n;
	struct lens_hook_set hooks;
};
struct lens_visitor lens_editor_visitor(struct lens_editor *e);

#endif
