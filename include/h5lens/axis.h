/*
 * axis.h: what the file's data sets are made of: element types, and axes with their
 * names, extents and labels. The list of axes is axis.def.
 */
#ifndef H5LENS_AXIS_H
#define H5LENS_AXIS_H

#include <stdbool.h>
#include <stddef.h>

/* --- element types ------------------------------------------------------------ */

enum lens_dtype {
	LENS_F16, /* IEEE half, little endian; h5py reads float16 */
	LENS_F32,
	LENS_F64,
	LENS_I32,
	LENS_I64,
	LENS_U8,
	LENS_STR /* variable-length UTF-8, rank 1 or 2 (rows of strings) */
};
size_t lens_dtype_size(enum lens_dtype t); /* bytes; 0 for LENS_STR */

/*
 * What stands where nothing was written, and past a chunk's end: NaN for
 * floats, -1 for signed integers, 0 for LENS_U8.
 */
void lens_fill(enum lens_dtype t, void *buf, size_t n_elements);

/* --- axes ---------------------------------------------------------------------- */

#define LENS_MAX_RANK 6 /* of a data set */

enum lens_axis {
#define LENS_AXIS(id, ...) LENS_AXIS_##id,
#define LENS_AXIS_OF LENS_AXIS
#define LENS_AXIS_LIST LENS_AXIS
#include "h5lens/axis.def"
	LENS_AXIS_COUNT
};

/* What the extents and labels of axes depend on: a model, a prompt set, an experiment. */
struct lens_sizes {
	size_t n_pos_embeds; /* 1 with learned positions in the stream, else 0 */
	size_t n_layers, n_heads, n_kv_heads, d_model, d_head, d_mlp;
	size_t n_experts, experts_per_token;
	size_t d_vocab;    /* of logits */
	size_t d_vocab_in; /* of tokens, which W_E has a row for each of */
	bool attn_only;    /* layers are no more than attention: one component each */
	size_t n_prompts;
	size_t n_pos;    /* tokens of the longest prompt */
	size_t n_slots;  /* positions of a prompt that are stored; n_pos for all */
	size_t n_tokens; /* with cache.layout: ragged: stored positions of all prompts */
	size_t n_answers;
	const char *const *answer; /* [n_answers] the columns they come from */
	const char *const *set;    /* [n_sets] of ablate.sets */
	size_t n_sets;
	const double *scale; /* [n_scales] of steer.scale */
	size_t n_scales;
	size_t n_answer_pos; /* tokens of the longest answer; 0: each is one, not counted */
	size_t top_k;
	bool lens_mid; /* has each layer two lens layers, before and behind attention? */
};

const char *lens_axis_name(enum lens_axis axis);
size_t lens_axis_extent(enum lens_axis axis, const struct lens_sizes *s);

/*
 * What place i of an axis is called, in text or elsewhere as long as s lives; NULL for
 * an axis whose places are numbers.
 */
#define LENS_LABEL 32
const char *lens_axis_label(enum lens_axis axis, const struct lens_sizes *s, size_t i,
			    char text[LENS_LABEL]);

#endif
