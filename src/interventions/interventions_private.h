/* interventions_private.h: what the files of interventions/ share. */
#ifndef INTERVENTIONS_PRIVATE_H
#define INTERVENTIONS_PRIVATE_H

#include "h5lens/interventions.h"

#define NOT_ONE SIZE_MAX /* all positions, heads or keys */

/* --- study.c: data sets and metrics ----------------------------------------------- */

/* Floats of a metric in one cell. */
size_t lens_metric_floats(enum lens_table metric, const struct lens_sizes *s);
struct lens_outcome *lens_add_outcome(struct lens_study *s, enum lens_outcome_of of,
				      enum lens_table metric);
/* The metric of a grid's cells, put behind their axes. */
struct lens_outcome *lens_add_cells(struct lens_study *s, enum lens_outcome_of of, size_t grid,
				    enum lens_table metric);
/*
 * The cells of the last grid go to a data set for each table of the experiment's that is
 * read at the read position: group/<table>. None is LENS_ERR_INVALID.
 */
enum lens_status lens_add_tables(struct lens_study *s, const char *group,
				 struct lens_error *err);
/* Layers that the model lacks: LENS_ERR_INVALID that names the key. */
enum lens_status lens_check_layers(const struct lens_study *s, const char *key,
				   const long *layer, size_t n, struct lens_error *err);
/* "9.6" → a spot of the model, or LENS_ERR_INVALID that names the key. */
enum lens_status lens_spot_parse(const struct lens_study *s, const char *key, const char *text,
				 struct lens_spot *out, struct lens_error *err);
/* heads → [n_layers, n_heads]; NULL if the list is empty. */
enum lens_status lens_ask_heads(const struct lens_study *s, const char *key,
				const struct lens_strings *heads, bool **out,
				struct lens_error *err);
/* "hook_z": without its block */
const char *lens_hook_leaf(enum lens_hook hook);

/* --- patching.c, ablation.c: what the experiment asks for ------------------------- */

enum lens_status lens_study_add_patching(struct lens_study *s, struct lens_error *err);
enum lens_status lens_study_add_ablation(struct lens_study *s, struct lens_error *err);

/* --- paths.c: path patching ------------------------------------------------------- */

enum lens_status lens_study_add_paths(struct lens_study *s, struct lens_error *err);
/* The first layer that receives what a layer sends; n_layers: none does. */
size_t lens_first_receiver(const struct lens_study *s, size_t sender);

/* What receivers were given in the first of a cell's two passes, in the batch's rows. */
struct lens_received {
	const struct lens_study *study;
	struct lens_hook_set hooks;
	float *value; /* [n_receivers, max_rows, d_head] */
	size_t max_rows;
	size_t from; /* the layer with which the first pass began: those before it are as ever
		      */
};
enum lens_status lens_received_init(struct lens_received *r, const struct lens_study *s,
				    size_t max_rows, struct lens_error *err);
void lens_received_release(struct lens_received *r);
size_t lens_received_bytes(const struct lens_study *s, size_t max_rows);
/* Keeps what receivers are given; puts it there. */
struct lens_visitor lens_received_visitor(struct lens_received *r);
struct lens_visitor lens_received_editor(struct lens_received *r);

/* --- knockout.c, steering.c ------------------------------------------------------- */

enum lens_status lens_study_add_knockout(struct lens_study *s, struct lens_error *err);
enum lens_status lens_study_add_steering(struct lens_study *s, struct lens_error *err);

/* --- cost.c: what a row's cells depend on ------------------------------------------------ */

/* The run whose values a grid's cells are given, if it is one's. */
static inline enum lens_run lens_source_run(const struct lens_study_grid *g)
{
	return g->source == LENS_RUN_PATH ? LENS_RUN_CLEAN : g->source;
}
/* A row's tokens in a run of the prompt set. */
const int32_t *lens_run_tokens(const struct lens_prompts *p, enum lens_run run, size_t row);
/* The first position at which a grid's base and source have different tokens. */
size_t lens_parting(const struct lens_study *s, const struct lens_study_grid *g,
		    const struct lens_prompts *p, size_t row);

/* --- cells.c: what becomes of a grid's cells -------------------------------------- */

bool lens_grid_has(const struct lens_study_grid *g, enum lens_axis axis);

/* A run in which something is replaced. */
struct lens_cell {
	const struct lens_study_grid *grid;
	size_t pair; /* of the group in hand */
	struct lens_spot spot;
	size_t set;      /* which of the grid's spots; NOT_ONE: spot alone */
	size_t pos, key; /* of the position, or query, and key that are replaced; NOT_ONE */
	size_t parting;  /* the first position whose tokens differ in base and source */
	size_t from;     /* the first position that may change */
	size_t scale;    /* of steer.scale */
	size_t at;       /* its place among the cells of the grid */
};

/*
 * Can the logits at the read position change at all? If so, from is the first position
 * whose values may.
 */
bool lens_cell_changes(const struct lens_study *s, size_t read_pos, struct lens_cell *c);

/* Calls fn for each cell that starts in a layer and is asked for; c has pair and parting. */
struct lens_cells {
	const struct lens_study *study;
	const struct lens_sizes *sizes;
	enum lens_status (*fn)(void *ctx, struct lens_cell *c, struct lens_error *err);
	void *ctx;
};
enum lens_status lens_cells_each(const struct lens_cells *l, const struct lens_study_grid *g,
				 size_t layer, struct lens_cell c, size_t length,
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
/* Floats of a row of a token-wise hook point. */
size_t lens_row_width(const struct lens_config *c, enum lens_hook hook);
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

/* --- edit.c: replacing ------------------------------------------------------------ */

/* The cells of a batch, and where their values come from. */
struct lens_editor {
	const struct lens_study *study;
	const struct lens_record *record;
	const struct lens_mean *mean;
	const float *vector;
	const struct lens_prompts *prompts; /* of the batch in hand, … */
	size_t row0;                        /* … and the row of the group's first pair */
	const size_t *run; /* [LENS_RUN_COUNT] which of a pair's runs, of n_runs */
	size_t n_runs;
	struct lens_cell *cell; /* [n] prompt by prompt of the batch */
	bool frozen; /* of paths: heads and MLPs are as in the run that the cell departs from */
	size_t n;
	struct lens_hook_set hooks;
};
struct lens_visitor lens_editor_visitor(struct lens_editor *e);

/* --- setup.c: one worker's -------------------------------------------------------- */

/* How much a worker holds. */
struct lens_capacity {
	size_t runs;        /* of a pair */
	size_t pairs;       /* of a group */
	size_t record_rows; /* of a group */
	size_t cells, cell_rows;
	size_t prompts; /* of either batch */
	bool hook[LENS_HOOK_COUNT];
};

struct lens_interventions {
	struct lens_interventions_options opt;
	struct lens_capacity most;
	size_t run[LENS_RUN_COUNT]; /* which of a pair's runs */
	struct lens_forward *forward;
	struct lens_tables *tables;
	struct lens_hook_set table_hooks;
	struct lens_record record;
	struct lens_editor editor;
	struct lens_received received; /* by paths */
	struct lens_batch batch;       /* of cells */
	float *resid;                  /* [cell_rows, D] from which they start */
	size_t *prompt;                /* [cells] the recorded run that they depart from */
	int32_t *answers;              /* [prompts, n_answers] */
	float *logits;     /* [pairs, V] of the clean runs, for kl_divergence; or NULL */
	float **reference; /* [prompts] which of them is a prompt's */
	bool *keep;        /* [prompts] */
	float *metric[LENS_TABLE_COUNT]; /* [pairs·runs, floats] of the runs themselves */
	float **rows;                    /* [n_outcomes] [batch_rows, floats] */
	const struct lens_interventions_batch *in; /* the rows in hand */
	bool *nonfinite;                           /* [batch_rows] is a result of theirs? */
	size_t first;                              /* the first pair of the group in hand */
};

#endif
