/*
 * experiment.h: what the user asked for, by a YAML file, --set and flags, which one
 * key table serves, with every default filled in.
 */
#ifndef H5LENS_EXPERIMENT_H
#define H5LENS_EXPERIMENT_H

#include "h5lens/core.h"

enum lens_cache_dtype { LENS_CACHE_F32, LENS_CACHE_F16 };
/* Of token-wise activations: [prompt, pos, …] with padding, or [token, …] without. */
enum lens_cache_layout { LENS_CACHE_PADDED, LENS_CACHE_RAGGED };
enum lens_cpu_choice { LENS_CPU_AUTO, LENS_CPU_AVX2, LENS_CPU_AVX512 };
enum lens_lens_mode {
	LENS_LENS_RECOMPUTE,           /* ln_final recomputed at each layer, with b_U */
	LENS_LENS_CACHED_SCALE_NO_BIAS /* a TransformerLens notebook's numbers */
};
/* At the read position, or at every one: lens_positions, attrs.positions. */
enum lens_read_at { LENS_READ_AT_READ, LENS_READ_AT_ALL };
enum lens_answer_tokens { LENS_ANSWERS_OF_ONE_TOKEN, LENS_ANSWERS_OF_ANY };
enum lens_answers_as { LENS_ANSWERS_AS_TEXT, LENS_ANSWERS_AS_IDS };
enum lens_separator { LENS_SEPARATOR_COMMA, LENS_SEPARATOR_SEMICOLON, LENS_SEPARATOR_TAB };
enum lens_head_choice { LENS_HEAD_IS_AUTO, LENS_HEAD_IS_TIED, LENS_HEAD_IS_STORED };
enum lens_positions_kind { LENS_POS_ALL, LENS_POS_LAST, LENS_POS_READ, LENS_POS_LIST };
enum lens_direction {
	LENS_DENOISE, /* the corrupted run with an activation of the clean one */
	LENS_NOISE    /* the clean run with an activation of the corrupted one */
};
enum lens_metric {
	LENS_METRIC_LOGIT_DIFF,
	LENS_METRIC_ANSWER_LOGIT,
	LENS_METRIC_ANSWER_LOGPROB,
	LENS_METRIC_KL_DIVERGENCE
};
enum lens_ablation { LENS_ABLATE_ZERO, LENS_ABLATE_MEAN, LENS_ABLATE_RESAMPLE };
enum lens_mean_over {
	LENS_MEAN_PER_POSITION,  /* a mean over the prompts for each position */
	LENS_MEAN_OVER_POSITIONS /* one mean over all tokens */
};

/* What a vector is added to. */
enum lens_steer_at {
	LENS_STEER_RESID_PRE,
	LENS_STEER_RESID_MID,
	LENS_STEER_RESID_POST,
	LENS_STEER_ATTN_OUT,
	LENS_STEER_MLP_OUT,
	LENS_STEER_Z
};

#define LENS_TOP_K_MAX 1000 /* largest top_k */

struct lens_strings {
	char **v;
	size_t n;
};

struct lens_named_list {
	char *name;
	struct lens_strings heads;
};

/* Positions of a prompt: a list, negative from its end; or where a text ends. */
struct lens_places {
	long *position; /* [n] */
	size_t n;
	char *find, *find_column; /* at most one is not NULL, and then n is 0 */
	long nth;                 /* from 0; negative: from the last */
};

/* Owned strings throughout; lens_experiment_release frees them. */
struct lens_experiment {
	char *model;  /* Hugging Face directory */
	char *output; /* the .h5 file */
	struct {
		bool fold_ln, center_writing_weights, center_unembed, fold_value_biases,
			refactor_factored_attn_matrices;
		unsigned named; /* a bit for each of them that the user gave, in this order */
	} weights;
	enum lens_head_choice tied_head;
	struct {
		char *csv, *prompt;
		char *spool;  /* where the CSV is, if csv is no path but "-", …; else NULL */
		char *tokens; /* the column of the prompts as ids, or NULL: prompt has them */
		char *corrupted; /* the column of the corrupted prompts, or NULL */
		enum lens_separator separator;
		struct lens_strings answers;
		enum lens_answer_tokens answer_tokens; /* how many an answer may have */
		enum lens_answers_as answers_as;
		char *read_pos_column; /* at most one of these three is not NULL */
		char *find, *find_column;
		long nth;      /* of what is found, from 0; negative: from the last */
		long read_pos; /* without any of them; -1: the last token */
		char *bos;     /* "auto", an id's digits, or a token in double quotes */
		bool prepend_bos, skip_bad_rows;
		size_t limit; /* 0: all */
	} data;
	struct {
		struct lens_strings hooks; /* names or globs */
		enum lens_positions_kind positions;
		long *position; /* [n_positions], for LENS_POS_LIST */
		size_t n_positions;
		enum lens_cache_dtype dtype;
		enum lens_cache_layout layout;
	} cache;
	struct lens_strings tables; /* in the order of the key table, no duplicates */
	bool tables_listed;         /* by name: one that cannot be made is an error */
	size_t top_k;               /* tokens in top_tokens */
	enum lens_lens_mode lens;
	bool lens_mid; /* the stream between attention and MLP is a lens layer, too */
	enum lens_read_at lens_positions;
	struct {
		enum lens_read_at positions; /* of logit_attrs and head_attrs */
	} attrs;
	struct {
		struct lens_strings grids; /* in the order of grids.def, no duplicates */
		enum lens_direction direction;
		enum lens_metric metric;
		bool normalize, reuse;
		struct lens_strings heads; /* "9.6": layer, head; none: all, as below */
		long *layer;               /* [n_layers] */
		size_t n_layers;
		long *position; /* [n_positions], negative from the prompt's end */
		size_t n_positions;
	} patch;
	struct {
		struct lens_strings grids; /* as above */
		enum lens_ablation value;
		enum lens_mean_over mean_over;
		char *resample; /* a column, or NULL: drawn by the seed */
		long seed;
		struct lens_strings heads;
		struct lens_named_list *set; /* [n_sets] in the order written */
		size_t n_sets;
	} ablate;
	struct {
		long *layer; /* [n_layers]; none: all, as below */
		size_t n_layers;
		struct lens_strings heads;
		struct lens_places from, to; /* keys, queries */
	} knockout;
	struct {
		enum lens_steer_at hook;
		long layer;    /* -1: not given */
		char *vector;  /* file.h5:/path or file.npy; NULL: nothing is steered */
		double *scale; /* [n_scales] */
		size_t n_scales;
		struct lens_places positions; /* none: all */
	} steer;
	struct {
		struct lens_strings
			receivers;           /* "9.9.q", "8.6.v" or "logits"; none: no paths */
		struct lens_strings senders; /* heads; none: all */
	} path;
	bool share_prefixes; /* tokens with which prompts begin are computed once a batch */
	enum lens_cpu_choice cpu;
	struct {
		size_t bytes, prompts; /* what ends a shard; prompts 0: no limit */
	} shards;
	size_t threads; /* 0: from the environment */
	size_t memory;  /* bytes; 0: a share of what is free */
	char *source;   /* the YAML as written; "" without a file */
};

/* Sets every key to its default; required keys stay unset. */
enum lens_status lens_experiment_init(struct lens_experiment *e, struct lens_error *err);
void lens_experiment_release(struct lens_experiment *e);

/*
 * Reads a YAML file over the present values. Relative paths in it are relative to
 * the file's own folder. The error for an unknown key suggests the nearest known one;
 * errors carry line and column.
 */
enum lens_status lens_experiment_load(struct lens_experiment *e, const char *path,
				      struct lens_error *err);

/*
 * Sets one key ("cache.positions") or group ("cache") from text: a scalar verbatim,
 * without YAML's quotes ("last", "*"); a list with commas ("0,-2") or as YAML
 * ("[0, -2]"); a group as YAML ("{dtype: f16}"). For --set key=value and the flags;
 * relative paths stay relative to the current directory.
 */
enum lens_status lens_experiment_set(struct lens_experiment *e, const char *key,
				     const char *value, struct lens_error *err);

/*
 * For models whose weights are used as they are stored: of weights.*, what the user did not
 * name is off.
 */
void lens_experiment_as_stored(struct lens_experiment *e);

/* Are all required keys set, and are the values consistent? */
enum lens_status lens_experiment_check(const struct lens_experiment *e, struct lens_error *err);

/*
 * Is this table to be made, that is, listed, with enough answers in data.answers, of as
 * many tokens as it can take? Without answers, only the default tables that need none are
 * made.
 */
bool lens_experiment_wants_table(const struct lens_experiment *e, const char *table);

/* Answer columns that a metric needs at the least. */
size_t lens_metric_answers(enum lens_metric m);
/* "9.6" → 9 and 6; false: that is no head. */
bool lens_head_parse(const char *text, size_t *layer, size_t *head);

/* The column with the prompts, as text or as ids. */
static inline const char *lens_prompt_column(const struct lens_experiment *e)
{
	return e->data.tokens ? e->data.tokens : e->data.prompt;
}

static inline bool lens_places_given(const struct lens_places *l)
{
	return l->n || l->find || l->find_column;
}

/* Is attention cut? */
static inline bool lens_experiment_cuts(const struct lens_experiment *e)
{
	return lens_places_given(&e->knockout.from);
}

/* In this layer, in any head? */
bool lens_experiment_cuts_in(const struct lens_experiment *e, size_t layer);

/* Does an ablation take its values from other prompts? */
static inline bool lens_experiment_resamples(const struct lens_experiment *e)
{
	return e->ablate.value == LENS_ABLATE_RESAMPLE &&
	       (e->ablate.grids.n || e->ablate.n_sets);
}

/*
 * The effective experiment as JSON (sorted keys, every default), for the file's
 * attribute and for its identity. identity_only leaves out what must not matter
 * (output, threads, memory, and the paths of model and data). The caller frees it
 * with lens_free.
 */
enum lens_status lens_experiment_json(const struct lens_experiment *e, bool identity_only,
				      char **out, struct lens_error *err);

/* One row of the key table, for --help and the README. */
struct lens_key {
	const char *name;  /* "cache.positions" */
	const char *flag;  /* "--positions", or NULL */
	const char *shape; /* "all | last | read | [0, -2, …]" */
	const char *deflt; /* the default as text, or NULL when required */
	const char *help;
	const char *short_flag; /* "-o", or NULL */
	const char *flag_value; /* what the flag alone sets ("raw"); NULL: it takes a value */
};
const struct lens_key *lens_keys(size_t *n);
/* The key that a flag ("--hooks", "-o") sets, or NULL. */
const struct lens_key *lens_key_of_flag(const char *flag);

#endif
