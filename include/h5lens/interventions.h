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

/* Whose activations: a prompt's own run, another's of as many tokens, or no run's at all. */
enum lens_run {
	LENS_RUN_CLEAN,
	LENS_RUN_CORRUPTED,
	LENS_RUN_OTHER, /* resampled: of another row */
	LENS_RUN_COUNT,
	LENS_RUN_ZERO,
	LENS_RUN_MEAN,    /* the data set's */
	LENS_RUN_CUT,     /* scores of −inf: attention that is cut */
	LENS_RUN_STEERED, /* its own, and a multiple of a vector */
	LENS_RUN_PATH     /* of the clean run, by one path alone */
};

/* What a sender's change reaches: a query, key or value head. */
struct lens_receiver {
	enum lens_hook hook;
	size_t layer, head;
};

/* What is replaced in a layer: a head of a hook point that has heads; SIZE_MAX: all of it. */
struct lens_spot {
	size_t layer, head;
};

/* What is replaced together. */
struct lens_spots {
	struct lens_spot *spot;
	size_t n;
	size_t layer; /* the first of theirs */
};

/* Cells, and what replaces what in them. */
struct lens_study_grid {
	enum lens_hook hook;
	int n_axes;
	enum lens_axis axis[LENS_GRID_AXES];
	enum lens_run base, source;
	size_t outcome, n_outcomes;     /* the first of those that its cells go to */
	const bool *head;               /* [n_layers, n_heads] which are asked for; NULL: all */
	const struct lens_spots *spots; /* [n_spots] a cell each; NULL: by the axes */
	size_t n_spots;
	bool patched; /* patch.layers and patch.positions hold for it */
};

/* One data set under /results: [prompt, axes]; there are so many at most. */
#define LENS_MOST_OUTCOMES 64
#define LENS_OUTCOME_AXES (LENS_GRID_AXES + 1)
#define LENS_OUTCOME_NAME 64
enum lens_outcome_of { LENS_OUTCOME_CELLS, LENS_OUTCOME_NORMALIZED, LENS_OUTCOME_RUN };
struct lens_outcome {
	char name[LENS_OUTCOME_NAME]; /* "patch/resid_pre" */
	char long_name[192];
	const char *units;
	enum lens_dtype dtype; /* of 4 bytes */
	int n_axes;
	enum lens_axis axis[LENS_OUTCOME_AXES]; /* the grid's, the metric's */
	enum lens_outcome_of of;
	enum lens_table metric; /* what is read off the logits */
	size_t cells;           /* of normalized: the outcome that it is a share of */
	enum lens_run run;      /* of a run itself */
};

/* Refers to the model and the experiment; immutable. n_outcomes 0: no interventions. */
struct lens_study {
	const struct lens_model *model;
	const struct lens_experiment *experiment;
	struct lens_study_grid *grid;
	size_t n_grids;
	struct lens_outcome *outcome;
	size_t n_outcomes;
	struct lens_spots *set; /* [n_sets] */
	const char **set_name;
	size_t n_sets;
	struct lens_spots cut, steered; /* of knockout and steer; spot NULL: not asked for */
	struct lens_receiver *receiver; /* [n_receivers] of path; none: the logits */
	size_t n_receivers;
	bool *sender;                  /* [n_layers, n_heads] path.senders */
	bool needs[LENS_RUN_COUNT];    /* runs that cells depart from, or take values of */
	bool metric[LENS_TABLE_COUNT]; /* tables that say what became of the answers */
	bool mean[LENS_HOOK_COUNT];    /* whose means are wanted */
	bool *layer;                   /* [n_layers] patch.layers; NULL: all */
	bool *head, *ablated_head;     /* [n_layers, n_heads] patch.heads, ablate.heads */
};
/*
 * What `patch`, `ablate`, `knockout`, `steer` and `path` ask for. A grid that the model lacks,
 * a layer or a head that does not exist: LENS_ERR_INVALID by name.
 */
enum lens_status lens_study_init(struct lens_study *s, const struct lens_model *m,
				 const struct lens_experiment *e, struct lens_error *err);
void lens_study_release(struct lens_study *s);

/* The hook point of steer.hook; and how wide it is. */
enum lens_hook lens_steer_hook(const struct lens_experiment *e);
size_t lens_steer_width(const struct lens_config *c, const struct lens_experiment *e);
/* Numbers of one prompt's row of an outcome, of 4 bytes each. */
size_t lens_outcome_floats(const struct lens_outcome *o, const struct lens_sizes *sizes);
/* Cells that have to be run, and their multiplications and additions; heads are not told apart.
 */
struct lens_study_cost {
	double cells, flop;
};
/* Adds a row's. */
void lens_study_add_cost(const struct lens_study *s, const struct lens_prompts *p, size_t row,
			 struct lens_study_cost *out);

/* --- means over a data set -------------------------------------------------------- */

/* Are there any, for `ablate.value: mean`? */
bool lens_study_wants_mean(const struct lens_study *s);

/* Of sums and means of the hook points of study->mean. */
struct lens_mean_shape {
	bool per_position; /* ablate.mean_over: prompts */
	size_t n_layers;
	size_t n_pos;                  /* 1 unless per_position */
	size_t width[LENS_HOOK_COUNT]; /* 0: not wanted */
};

/*
 * Sums of the clean runs' activations over some rows, in the order of the rows, in
 * float64: so they depend on nothing but the rows.
 */
struct lens_sums {
	struct lens_mean_shape shape;
	double *value[LENS_HOOK_COUNT]; /* [n_layers, n_pos, width]; NULL: not wanted */
	double *count;                  /* [n_pos] tokens that were added */
	struct lens_hook_set hooks;
};
/* longest: tokens of the rows' longest prompt. Release it even after an error. */
enum lens_status lens_sums_init(struct lens_sums *s, const struct lens_study *study,
				size_t longest, struct lens_error *err);
void lens_sums_release(struct lens_sums *s);
size_t lens_sums_bytes(const struct lens_study *study, size_t longest);
/* The next rows: a batch in which every position has its row. Before it is run. */
void lens_sums_count(struct lens_sums *s, const struct lens_batch *b);
struct lens_visitor lens_sums_visitor(struct lens_sums *s);
/*
 * Those of the rows that come next. A sweep's sums are its shards', added in this way:
 * their rounding is a function of the cut, which is one of model, data and experiment.
 */
void lens_sums_add(struct lens_sums *s, const struct lens_sums *next);

/* Of the clean runs' activations, for `ablate.value: mean`. */
struct lens_mean {
	struct lens_mean_shape shape;
	float *value[LENS_HOOK_COUNT]; /* [n_layers, n_pos, width]; NULL: not wanted */
	char sha256[LENS_SHA256_HEX];  /* of the values, hook by hook as they are listed */
};
/* Zeros. Release it even after an error. */
enum lens_status lens_mean_init(struct lens_mean *m, const struct lens_study *study,
				size_t longest, struct lens_error *err);
void lens_mean_release(struct lens_mean *m);
size_t lens_mean_bytes(const struct lens_study *study, size_t longest);
/* sum/count, of sums of the same shape; 0 at a position that no prompt has. */
void lens_mean_take(struct lens_mean *m, const struct lens_sums *s);
/* Once the values are there. */
enum lens_status lens_mean_digest(struct lens_mean *m, struct lens_error *err);

/* --- one worker's ------------------------------------------------------------------------- */

struct lens_interventions;

struct lens_interventions_options {
	const struct lens_study *study;
	struct lens_sizes sizes; /* n_pos: tokens of the longest prompt */
	size_t batch_rows;       /* prompts of a full batch */
	int threads;             /* that one worker may use. No bit depends on it */
	/* What replaces, where it is not another run's; NULL: not wanted, or only sizes are. */
	const struct lens_mean *mean;
	const float *vector; /* steer.vector, as wide as its hook point */
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
	const uint8_t *flags; /* [n] the rows' /results/flags, or NULL */
	const atomic_int *stop;
};
/* Adds to *n_flagged the rows with a result that is not finite, and no such flag yet. */
enum lens_status lens_interventions_run(struct lens_interventions *w,
					const struct lens_interventions_batch *in,
					size_t *n_flagged, struct lens_error *err);
/* The rows of an outcome, [n, its axes], until the next batch. */
const float *lens_interventions_rows(const struct lens_interventions *w, size_t outcome);

#endif
