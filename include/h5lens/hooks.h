/*
 * hooks.h: the one table of hook points. Names, shapes, HDF5 paths and scales,
 * globs, --dry-run, `info` and the docs come from it. Names and shapes are
 * TransformerLens 2.x's, without the batch dimension.
 */
#ifndef H5LENS_HOOKS_H
#define H5LENS_HOOKS_H

#include "h5lens/axis.h"
#include "h5lens/model.h"

enum lens_hook {
	LENS_HOOK_EMBED,
	LENS_HOOK_POS_EMBED,
	LENS_HOOK_RESID_PRE,
	LENS_HOOK_LN1_SCALE,
	LENS_HOOK_LN1_NORMALIZED,
	LENS_HOOK_Q,
	LENS_HOOK_K,
	LENS_HOOK_V,
	LENS_HOOK_Q_NORM_SCALE,
	LENS_HOOK_Q_NORM_NORMALIZED,
	LENS_HOOK_K_NORM_SCALE,
	LENS_HOOK_K_NORM_NORMALIZED,
	LENS_HOOK_ROT_Q,
	LENS_HOOK_ROT_K,
	LENS_HOOK_ATTN_SCORES,
	LENS_HOOK_PATTERN,
	LENS_HOOK_Z,
	LENS_HOOK_RESULT,
	LENS_HOOK_LN1_POST_SCALE,
	LENS_HOOK_LN1_POST_NORMALIZED,
	LENS_HOOK_ATTN_OUT,
	LENS_HOOK_RESID_MID,
	LENS_HOOK_MLP_IN,
	LENS_HOOK_LN2_SCALE,
	LENS_HOOK_LN2_NORMALIZED,
	LENS_HOOK_EXPERT_WEIGHTS,
	LENS_HOOK_EXPERT_INDICES,
	LENS_HOOK_MLP_PRE,
	LENS_HOOK_MLP_PRE_LINEAR,
	LENS_HOOK_MLP_MID,
	LENS_HOOK_MLP_LN_SCALE,
	LENS_HOOK_MLP_LN_NORMALIZED,
	LENS_HOOK_MLP_POST,
	LENS_HOOK_LN2_POST_SCALE,
	LENS_HOOK_LN2_POST_NORMALIZED,
	LENS_HOOK_MLP_OUT,
	LENS_HOOK_RESID_POST,
	LENS_HOOK_LN_FINAL_SCALE,
	LENS_HOOK_LN_FINAL_NORMALIZED,
	LENS_HOOK_LOGITS,
	LENS_HOOK_COUNT
};

#define LENS_HOOK_AXES 3

struct lens_hook_info {
	const char *name; /* "blocks.%zu.attn.hook_q" or "hook_embed" */
	bool per_layer;
	bool by_default; /* does a lone "*" select it? */
	/*
	 * Can a visitor change it? Not what is computed beside the stream, where an
	 * edit would have no effect, nor what two names share, where it would affect both.
	 */
	bool editable;
	int n_axes; /* after prompt: */
	enum lens_axis axis[LENS_HOOK_AXES];
	const char *long_name;
};

const struct lens_hook_info *lens_hook_info(enum lens_hook hook);

/* Scores and patterns: [head, query, key], shown head by head. */
bool lens_hook_is_square(enum lens_hook hook);

/* Heads that a row of a token-wise hook point holds, one behind the other; 1: none. */
size_t lens_hook_heads(const struct lens_config *c, enum lens_hook hook);

/* What its values are: float32, or int32, whose bits stand in the floats. */
enum lens_dtype lens_hook_dtype(enum lens_hook hook);

/* Does a model of this kind have the hook point at all? */
bool lens_hook_exists(const struct lens_config *c, enum lens_hook hook);

/* In messages about one that does not exist: "this model, which …". */
const char *lens_why_no_hook(const struct lens_config *c);

#define LENS_HOOK_NAME 64
/* Writes the full name ("blocks.3.attn.hook_q"); layer is ignored where there is none. */
const char *lens_hook_name(enum lens_hook hook, size_t layer, char out[LENS_HOOK_NAME]);

/*
 * Where a hook point's data is the same as another's, the other: resid_pre of
 * layer i is resid_post of layer i − 1, hook_mlp_in is resid_mid (resid_pre in
 * parallel blocks). Returns false when it stands for itself.
 */
bool lens_hook_alias(const struct lens_config *c, enum lens_hook hook, size_t layer,
		     enum lens_hook *target, size_t *target_layer);

/* What axes depend on, as far as the model says it; the rest is 0. */
struct lens_sizes lens_model_sizes(const struct lens_config *c);

/*
 * Which hook points were asked for, and where: want[layer][hook], layer 0 for those
 * without one. Patterns are names or globs (*, ?, […]); "*" alone means the
 * defaults. A pattern that matches nothing is LENS_ERR_INVALID with the nearest
 * name; hook_attn_in and hook_{q,k,v}_input are refused with the reason.
 */
enum lens_want { LENS_WANT_NOT = 0, LENS_WANT_READ_POS, LENS_WANT_ALL };
struct lens_hook_set {
	size_t n_layers;
	unsigned char *want; /* [n_layers, LENS_HOOK_COUNT] of enum lens_want */
};
enum lens_status lens_hook_set_init(struct lens_hook_set *s, const struct lens_config *c,
				    const char *const *pattern, size_t n_patterns,
				    struct lens_error *err);
void lens_hook_set_release(struct lens_hook_set *s);
static inline enum lens_want lens_hook_wanted(const struct lens_hook_set *s, enum lens_hook h,
					      size_t layer)
{
	return (enum lens_want)s->want[layer * LENS_HOOK_COUNT + (size_t)h];
}
/* At every position, or at least at the read positions. */
static inline void lens_hook_want(struct lens_hook_set *s, enum lens_hook h, size_t layer,
				  enum lens_want want)
{
	unsigned char *now = &s->want[layer * LENS_HOOK_COUNT + (size_t)h];

	*now = (unsigned char)(*now > want ? *now : want);
}

#endif
