/*
 * model/processing.c: which steps of the weight processing go with a model. In: a config,
 * the steps asked for; out: those that have something to do, or why one would make another
 * model of it.
 */
#include "model/model_private.h"

static enum lens_status refuse(const char *key, const char *why, struct lens_error *err)
{
	return lens_error_set(err, LENS_ERR_UNSUPPORTED, "weights.%s: %s", key, why);
}

/* What TransformerLens 2.16 would do all the same, and so change what the model computes. */
static enum lens_status check_own(const struct lens_config *c, const struct lens_processing *p,
				  struct lens_error *err)
{
	if (c->shortformer && p->fold_ln)
		return refuse("fold_ln",
			      "in a shortformer W_pos is added behind the norm, whose weights "
			      "would be folded into what reads both",
			      err);
	if (c->shortformer && lens_center_writing(c, p))
		return refuse("center_writing_weights",
			      "in a shortformer no norm follows W_pos, which would be centred",
			      err);
	if (c->final_rms && p->fold_ln)
		return refuse("fold_ln",
			      "W_U would be centred, and ln_final is RMSNorm (final_rms), "
			      "whose output is not",
			      err);
	if (c->mlp_bias_after && p->fold_ln && c->norm == LENS_NORM_LN)
		return refuse("fold_ln",
			      "ln2's bias would go into b_in, which a gated MLP adds last",
			      err);
	return LENS_OK;
}

enum lens_status lens_processing_fit(const struct lens_config *c, struct lens_processing *p,
				     struct lens_error *err)
{
	/* A soft cap sees what centring takes away; TransformerLens leaves it out, too. */
	if (c->logit_cap > 0)
		p->center_unembed = false;
	if (c->norms_folded || c->norm == LENS_NORM_NONE)
		p->fold_ln = false; /* there is nothing to fold */
	if (c->n_experts)
		p->fold_ln = false; /* TransformerLens, too, folds no norm of such a model */
	LENS_TRY(check_own(c, p, err));
	return p->refactor_factored_attn_matrices ? lens_refactor_check(c, err) : LENS_OK;
}
