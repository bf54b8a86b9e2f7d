/*
 * analysis.h: the tables: numbers read off the logits at each prompt's read
 * position, of the model itself and of the logit lens; and off the logits at
 * every position.
 *
 * Logit lens (nostalgebraist 2020): the residual stream x of each layer, read
 * as if it were the last.
 * - recompute: ln_final(x)·W_U + b_U, the norm's statistics taken from x. Its
 *   last row is the model itself.
 * - cached_scale_no_bias: a TransformerLens notebook's
 *   cache.accumulated_resid(apply_ln=True) @ W_U: (x − mean x)/s·W_U with s the
 *   model's own ln_final.hook_scale (RMSNorm: x/s), without ln_final's weights
 *   where they are not folded, and without b_U.
 * Lens layers are 0_pre … (n−1)_pre, final_post.
 *
 * Every position: token_logprobs[t] = log P(token t+1 | tokens 0 … t), in nats, at
 * t = 0 … length − 2; NaN from length − 1 on, because the last token's successor is
 * not in the prompt. Its axis is the file's pos, so it stands beside the activations
 * of the token that predicts. It is minus TransformerLens's loss_per_token, whose
 * axis is one shorter. loss is the mean of −token_logprobs over a prompt, NaN for a
 * prompt of one token. log P is logit − max − log Σ exp(logit − max): the exponentials
 * are float32's, the rest is float64, rounded once.
 */
#ifndef H5LENS_ANALYSIS_H
#define H5LENS_ANALYSIS_H

#include "h5lens/experiment.h"
#include "h5lens/forward.h"

enum lens_table_type { LENS_TABLE_F32, LENS_TABLE_I32, LENS_TABLE_U8 };
size_t lens_table_type_size(enum lens_table_type t);

enum lens_table_axis {
	LENS_TABLE_ANSWER,       /* "answer" */
	LENS_TABLE_ANSWER_OTHER, /* "answer_other": all answers but the first */
	LENS_TABLE_LENS_LAYER,   /* "lens_layer" */
	LENS_TABLE_K,            /* "k" */
	LENS_TABLE_POS           /* "pos": as long as the longest prompt */
};
const char *lens_table_axis_name(enum lens_table_axis a);

/* The logits that a table is made of. */
enum lens_table_of {
	LENS_OF_READ_POS,   /* the model's own, at the read position */
	LENS_OF_LENS_LAYER, /* each lens layer's there: the table's first axis */
	LENS_OF_EVERY_POS   /* the model's own, at every position but the last */
};

/* One dataset under /results. The axes follow prompt. */
struct lens_table {
	const char *name;
	const char *group; /* the name in the experiment's `tables` */
	enum lens_table_type type;
	enum lens_table_of of;
	int n_axes;
	enum lens_table_axis axis[2];
	const char *long_name, *units;
};
#define LENS_TABLES 12 /* how many there are */
#define LENS_TABLE_TOKEN_LOGPROBS 9
#define LENS_TABLE_LOSS 10
#define LENS_TABLE_FLAGS 11 /* the one that always comes */
const struct lens_table *lens_table(size_t i);

/* Bits of /results/flags. */
#define LENS_FLAG_NONFINITE 1u     /* a logit at the read position is NaN or infinite */
#define LENS_FLAG_NONFINITE_POS 2u /* one that token_logprobs or loss needed is */
/* What rows_flagged and the exit code count; the other bits tell of the row itself. */
#define LENS_FLAGS_NONFINITE (LENS_FLAG_NONFINITE | LENS_FLAG_NONFINITE_POS)

struct lens_analysis_options {
	bool wanted[LENS_TABLES]; /* by table; flags come with any other */
	size_t n_answers;
	size_t top_k;
	enum lens_lens_mode lens;
	size_t batch_rows; /* prompts of a full batch */
	size_t n_pos;      /* tokens of the longest prompt */
	int threads;       /* that one analysis may use; 0 is 1. No bit depends on it */
};

/* One worker's analysis. */
struct lens_analysis;

enum lens_status lens_analysis_create(const struct lens_model *m,
				      const struct lens_analysis_options *opt,
				      struct lens_analysis **out, struct lens_error *err);
void lens_analysis_destroy(struct lens_analysis *a);
size_t lens_analysis_bytes(const struct lens_model *m, const struct lens_analysis_options *opt);

size_t lens_table_extent(const struct lens_model *m, const struct lens_analysis_options *opt,
			 enum lens_table_axis axis);

/* Adds the hook points that the selected tables need. */
void lens_analysis_hooks(const struct lens_model *m, const struct lens_analysis_options *opt,
			 struct lens_hook_set *hooks);

/*
 * For a visitor: keeps the residual stream at the read positions, and fills the tables
 * of every position when it is shown ln_final's output.
 */
void lens_analysis_begin(struct lens_analysis *a, const int32_t *read_pos);
void lens_analysis_visit(struct lens_analysis *a, const struct lens_batch *b,
			 const struct lens_activation *act);

/*
 * After the pass: fills the tables of the batch's n prompts. answers is
 * [n, n_answers]. *n_flagged counts the prompts with a flag.
 */
void lens_analysis_finish(struct lens_analysis *a, size_t n, const int32_t *answers,
			  size_t *n_flagged);

/* Rows of table i, [n, its axes], until the next batch; NULL if it is not selected. */
const void *lens_analysis_result(const struct lens_analysis *a, size_t i, size_t *row_bytes);

#endif
