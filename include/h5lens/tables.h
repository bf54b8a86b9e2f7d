/*
 * tables.h: the tables: numbers read off the logits at each prompt's read
 * position, of the model itself and of the logit lens; off the logits at every
 * position; and off activations.
 *
 * Logit lens (nostalgebraist 2020): the residual stream x of each layer, read
 * as if it were the last.
 * - recompute: ln_final(x)·W_U + b_U, the norm's statistics taken from x. Its
 *   last row is the model itself.
 * - cached_scale_no_bias: a TransformerLens notebook's
 *   cache.accumulated_resid(apply_ln=True) @ W_U: (x − mean x)/s·W_U with s the
 *   model's own ln_final.hook_scale (RMSNorm: x/s), without ln_final's weights
 *   where they are not folded, and without b_U.
 * Lens layers are 0_pre … (n−1)_pre, final_post; with lens_mid 0_pre, 0_mid, 1_pre, …,
 * final_post. The tables of lens_positions are read at every position where that is
 * all; at the read position their values are the same bits either way. So are those of
 * attrs.positions, each position's stream divided by its own ln_final.hook_scale.
 *
 * Answers of several tokens (data.answer_tokens: any): log P of an answer is the sum of its
 * tokens' log P, each given the prompt up to the read position and the tokens before it.
 *
 * Every position: token_logprobs[t] = log P(token t+1 | tokens 0 … t), in nats, at
 * t = 0 … length − 2; NaN from length − 1 on, because the last token's successor is
 * not in the prompt. Its axis is the file's pos, so it stands beside the activations
 * of the token that predicts. It is minus TransformerLens's loss_per_token, whose
 * axis is one shorter. loss is the mean of −token_logprobs over a prompt, NaN for a
 * prompt of one token. log P is logit − max − log Σ exp(logit − max): the exponentials
 * are float32's, the rest is float64, rounded once.
 */
#ifndef H5LENS_TABLES_H
#define H5LENS_TABLES_H

#include "h5lens/axis.h"
#include "h5lens/experiment.h"
#include "h5lens/forward.h"

/* LENS_TABLE_logit_diff, …: the tables of tables.def, in its order. */
enum lens_table {
#define LENS_TABLE(id, ...) LENS_TABLE_##id,
#define LENS_TABLE_ALSO LENS_TABLE
#include "h5lens/tables.def"
	LENS_TABLE_COUNT
};

/* Where logits are read. */
enum lens_logits_at {
	LENS_AT_READ_POS = 1,   /* the model's own, at the read position */
	LENS_AT_LENS_LAYER = 2, /* each lens layer's there */
	LENS_AT_NEXT_TOKEN = 4, /* the model's own, at every position but the last */
	LENS_AT_EVERY_POS = 8,  /* the model's own, at every position */
	LENS_AT_LENS_POS = 16,  /* each lens layer's, at every position */
	LENS_BESIDE_MODEL = 32, /* with LENS_AT_LENS_LAYER: the model's own beside each */
	LENS_AT_ANSWER = 64,    /* the model's own, before each token of each answer */
	LENS_AT_OTHER_POS = 128 /* the answers' alone, at every position but the read one */
};

/* Whose attributions to the answers' logits. */
enum lens_attrs_of { LENS_ATTRS_HEADS = 1, LENS_ATTRS_NEURONS = 2 };

/* The keys that say where tables look. */
enum lens_positions_key { LENS_LENS_POSITIONS, LENS_ATTRS_POSITIONS };

/* One data set under /results: [prompt, axes]. */
#define LENS_TABLE_AXES 4
struct lens_table_ops;
struct lens_table_type {
	enum lens_dtype dtype;
	int n_axes;
	enum lens_axis axis[LENS_TABLE_AXES];
	const char *long_name, *units; /* units: NULL where there are none */
	unsigned logits;               /* LENS_AT_…: what it must be shown */
	unsigned logits_if_made;       /* LENS_AT_…: what it looks at if others need it */
	unsigned attrs;                /* LENS_ATTRS_…: attributions that it is shown */
	bool cache_dtype;              /* stored as cache.dtype says; else as dtype */
	bool has_deviation;            /* it checks itself: lens_tables_deviation */
	const struct lens_table_ops *ops;
	/* It reads what this one keeps, which comes before it in tables.def; or NULL. */
	const struct lens_table_type *state_of;
	/* Where this key says all, the table is that one; NULL: none changes it. */
	enum lens_positions_key positions_key;
	const struct lens_table_type *at_all_pos;
	/* With answers of any number of tokens, the table is this one; NULL: as it is. */
	const struct lens_table_type *of_any;
};
struct lens_tables_options;
/* What a table is under these options. */
const struct lens_table_type *lens_table_type(enum lens_table t,
					      const struct lens_tables_options *opt);
/* Is it one of those that this key changes? */
bool lens_table_has_positions(enum lens_table t, enum lens_positions_key key);
/* Under /results. */
const char *lens_table_name(enum lens_table t);
/* What `tables` calls it: its own name, or that of the one it comes with; "any". */
const char *lens_table_group(enum lens_table t);

/* Bits of /results/flags. */
#define LENS_FLAG_NONFINITE 1u     /* a logit at the read position is NaN or infinite */
#define LENS_FLAG_NONFINITE_POS 2u /* one that a table of every position needed is */
/* What rows_flagged and the exit code count; the other bits tell of the row itself. */
#define LENS_FLAGS_NONFINITE (LENS_FLAG_NONFINITE | LENS_FLAG_NONFINITE_POS)

struct lens_tables_options {
	bool wanted[LENS_TABLE_COUNT]; /* flags come with any other */
	struct lens_sizes sizes;       /* n_answers, top_k, n_pos, and the model's */
	enum lens_lens_mode lens;
	enum lens_read_at lens_positions, attrs_positions;
	enum lens_answer_tokens answer_tokens;
	size_t batch_rows; /* prompts of a full batch */
	size_t max_rows;   /* rows of activations in the largest batch */
	/*
	 * Tokens of the longest prompt up to its read position, with an answer of several
	 * behind it but for the last one; 0: there is none.
	 */
	size_t max_continued;
	bool share_prefixes; /* in that pass; the bits are the same */
	int threads;         /* that one worker may use; 0 is 1. No bit depends on it */
};

/* One worker's tables. */
struct lens_tables;

enum lens_status lens_tables_create(const struct lens_model *m,
				    const struct lens_tables_options *opt,
				    struct lens_tables **out, struct lens_error *err);
void lens_tables_destroy(struct lens_tables *t);
/* What lens_tables_create would allocate, but for its own few structs. */
size_t lens_tables_bytes(const struct lens_model *m, const struct lens_tables_options *opt);
/* Where the selected tables read logits: LENS_AT_…. */
unsigned lens_tables_logits(const struct lens_tables_options *opt);
/* Rows of the largest batch of the second pass (lens_tables_continue); 0: there is none. */
size_t lens_tables_second_rows(const struct lens_tables_options *opt);
/* Whose attributions they are shown: LENS_ATTRS_…. */
unsigned lens_tables_attrs(const struct lens_tables_options *opt);
/* Bytes of one prompt's row. */
size_t lens_table_row_bytes(enum lens_table t, const struct lens_tables_options *opt);

/* Adds the hook points that the selected tables need. */
void lens_tables_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		       struct lens_hook_set *hooks);

/* What the tables see of a batch besides activations. */
struct lens_tables_batch {
	const struct lens_batch *batch;
	/* [n_prompts] which row of the following is a prompt's; NULL: row i is prompt i's. */
	const size_t *row;
	/* [rows, n_answers]; of any number of tokens: where answer_offset says. */
	const int32_t *answers;
	const uint64_t *answer_offset; /* [rows * n_answers + 1], or NULL */
	const uint8_t *flags; /* [rows] what is odd about the rows themselves; or NULL */
	/*
	 * For kl_divergence: the logits of the other run, [d_vocab], of each prompt. Where
	 * keep is set, it is the other run: its logits are put there. NULL: not wanted.
	 */
	float *const *reference; /* [n_prompts] */
	const bool *keep;        /* [n_prompts] */
};
/* Before a pass. *in is read until lens_tables_finish. */
void lens_tables_begin(struct lens_tables *t, const struct lens_tables_batch *in);
/* For struct lens_visitor; ctx is the tables. */
enum lens_status lens_tables_visit(void *ctx, const struct lens_batch *b,
				   const struct lens_activation *a, struct lens_error *err);
/*
 * After it, before lens_tables_finish: runs what answers of several tokens need besides,
 * on f, which has room for lens_tables_second_rows and max_continued tokens.
 */
enum lens_status lens_tables_continue(struct lens_tables *t, struct lens_forward *f,
				      struct lens_error *err);
/* At the end. Adds to *n_flagged the prompts with logits that are not finite. */
void lens_tables_finish(struct lens_tables *t, size_t *n_flagged);

/*
 * How far a table that checks itself was off at most, in the units that its own file in
 * tables/ states; 0 for the others.
 */
double lens_tables_deviation(const struct lens_tables *t, enum lens_table table);
/*
 * What the deviation of logit_attrs stays below: |Σ components − answer_logit| over
 * Σ |components|, in a model whose components do add up. The attributions are float64
 * products of float32 activations, so what deviates is the logit, by its own roundings
 * (u = 2⁻²⁴ each, D = d_model, n components c of the stream x, s the final scale, d the
 * answer's direction):
 * - n additions make the stream, each rounds what stands there, Σ_c |x_c| at the most;
 * - the norm is float64, rounded once; its weight (RMSNorm) and the scale, once each;
 * - the product with W_U sums D numbers in blocks of K <= 128: no sum is longer than
 *   min(D, 128) + D/128 + 1 additions, b_U being the first.
 * If all of them had one sign, they would add up to k·u of Σ_c Σ_j |x_cj d_j|/s, with
 * k = n + min(D, 128) + D/128 + 4. The magnitude of a component is |Σ_j x_cj d_j|/s, where
 * terms of either sign cancel: of D of them about √D remain. Hence k·u·√D.
 *
 * Roundings are of either sign as well: what is seen is near √k·u, and the rest (√(k·D):
 * 28 for a d_model of 32, 370 for GPT-2 small) is room for answers to which all components
 * add next to nothing. A component too many or too few shows as about 1/n.
 */
double lens_tables_deviation_bound(const struct lens_sizes *s);

/* Prompts from tokens to tables, each read at its last token; answers as above, or NULL. */
struct lens_tables_prompts {
	const int32_t *const *tokens; /* [n] */
	const size_t *length;         /* [n] */
	const int32_t *answers;
	size_t n; /* opt->batch_rows at most */
};
/*
 * One batch, with a forward pass of its own. A logit that is not finite is
 * LENS_ERR_FORMAT; *out is NULL after an error.
 */
enum lens_status lens_tables_once(const struct lens_model *m,
				  const struct lens_tables_options *opt,
				  const struct lens_tables_prompts *in,
				  struct lens_tables **out, struct lens_error *err);

/* The rows of a table, [n_prompts, its axes], until the next batch; NULL: not selected. */
const void *lens_tables_rows(const struct lens_tables *t, enum lens_table table);

#endif
