/*
 * interventions.h: runs in which an activation is replaced, and what becomes of the
 * answers.
 *
 * Activation patching (Meng et al. 2022, Wang et al. 2022; TransformerLens's module
 * `patching`): a prompt's run, with one activation from the run of another one of the same
 * token count; a grid has a cell for each layer, position, head. Ablation: the same with
 * zeros, a mean, or another prompt's. Queries and keys are replaced before the rotary
 * embedding, heads' outputs at hook_z.
 *
 * Exact reuse: causality says that nothing before the replaced layer and position changes,
 * and a row's bits are its own. So a cell starts at its layer, with the rows of its
 * positions from the first that may change on; the keys and values before them, and the
 * stream that it starts from, are those of the run that it departs from. Cells of one
 * layer, of many prompts and grids, share a batch. Cells in which nothing can change are
 * not run at all. The bits are those of full passes (reuse: false), which the tests check.
 */
#ifndef H5LENS_INTERVENTIONS_H
#define H5LENS_INTERVENTIONS_H

#include <stdatomic.h>

#include "h5lens/dataset.h"
#include "h5lens/tables.h"

/* --- grids ----------------------------------------------------------------------------- */

/* LENS_GRID_resid_pre, …: those of grids.def, in its order. */
enum lens_grid {
#define LENS_GRID(id, ...) LENS_GRID_##id,
#include "h5lens/grids.def"
	LENS_GRID_COUNT
};

#define LENS_GRID_AXES 4
struct lens_grid_info {
	const char *name;
	enum lens_hook hook; /* what is replaced */
	int n_axes;
	enum lens_axis axis[LENS_GRID_AXES];
};
const struct lens_grid_info *lens_grid_info(enum lens_grid g);

/* --- what an experiment asks for ---------------------------------------------------------- */

/* Whose activations. */
enum lens_run { LENS_RUN_CLEAN, LENS_RUN_CORRUPTED, LENS_RUN_COUNT, LENS_RUN_ZERO };

/* A grid, with what replaces what. */
struct lens_study_grid {
	const struct lens_grid_info *info;
	int n_axes; /* those of info, but for positions where all are replaced at once */
	enum lens_axis axis[LENS_GRID_AXES];
	enum lens_run base, source;
	enum lens_table metric;
	size_t outcome;       /* where its cells go */
	const bool *head;     /* [n_layers, n_heads] which are asked for; NULL: all */
	bool positions_asked; /* patch.positions holds for it */
};

/* One data set under /results: [prompt, axes] of float32; there are so many at most. */
#define LENS_MOST_OUTCOMES 64
#define LENS_OUTCOME_AXES (LENS_GRID_AXES + 1)
#define LENS_OUTCOME_NAME 64
enum lens_outcome_of { LENS_OUTCOME_CELLS, LENS_OUTCOME_NORMALIZED, LENS_OUTCOME_RUN };
struct lens_outcome {
	char name[LENS_OUTCOME_NAME]; /* "patch/resid_pre" */
	char long_name[192];
	const char *units;
	int n_axes;
	enum lens_axis axis[LENS_OUTCOME_AXES];
	enum lens_outcome_of of;
	size_t grid;            /* of cells, normalized: of the study */
	enum lens_run run;      /* of a run itself */
	enum lens_table metric; /* of a run itself */
};

/* Refers to the model and the experiment; immutable. n_outcomes 0: no interventions. */
struct lens_study {
	const struct lens_model *model;
	const struct lens_experiment *experiment;
	struct lens_study_grid *grid;
	size_t n_grids;
	struct lens_outcome *outcome;
	size_t n_outcomes;
	bool needs[LENS_RUN_COUNT];    /* runs that cells depart from, or take values of */
	bool metric[LENS_TABLE_COUNT]; /* tables that say what became of the answers */
	bool *layer, *head; /* [n_layers], [n_layers, n_heads] of patch.layers, .heads */
};
/*
 * What `patch` asks for. A grid that the model lacks, a layer or a head that does not exist:
 * LENS_ERR_INVALID by name.
 */
enum lens_status lens_study_init(struct lens_study *s, const struct lens_model *m,
				 const struct lens_experiment *e, struct lens_error *err);
void lens_study_release(struct lens_study *s);

/* Floats of one prompt's row of an outcome. */
size_t lens_outcome_floats(const struct lens_outcome *o, const struct lens_sizes *sizes);
/* Multiplications and additions for a prompt of that length at the most. */
double lens_study_flop(const struct lens_study *s, size_t length);

/* --- one worker's ------------------------------------------------------------------------- */

struct lens_interventions;

struct lens_interventions_options {
	const struct lens_study *study;
	struct lens_sizes sizes; /* n_pos: tokens of the longest prompt */
	size_t batch_rows;       /* prompts of a full batch */
	int threads;             /* that one worker may use. No bit depends on it */
};
enum lens_status lens_interventions_create(const struct lens_interventions_options *opt,
					   struct lens_interventions **out,
					   struct lens_error *err);
void lens_interventions_destroy(struct lens_interventions *w);
/* What lens_interventions_create would allocate, but for its own few structs. */
size_t lens_interventions_bytes(const struct lens_interventions_options *opt);

/* Rows row0 … row0 + n − 1 of a prompt set. *stop, if it is there: LENS_ERR_INTERRUPTED. */
struct lens_interventions_batch {
	const struct lens_prompts *prompts;
	size_t row0, n;
	const atomic_int *stop;
};
enum lens_status lens_interventions_run(struct lens_interventions *w,
					const struct lens_interventions_batch *in,
					struct lens_error *err);
/* The rows of an outcome, [n, its axes], until the next batch. */
const float *lens_interventions_rows(const struct lens_interventions *w, size_t outcome);

#endif
