/*
 * interventions/steering.c: what `steer` asks for (activation addition, Turner et al. 2023):
 * multiples of a vector added to an activation. In: the experiment; out: a grid with a
 * cell for each scale.
 */
#include "interventions/interventions_private.h"

static enum lens_status check(const struct lens_study *s, enum lens_hook hook,
			      struct lens_error *err)
{
	LENS_TRY(lens_check_layers(s, "steer.layer", &s->experiment->steer.layer, 1, err));
	if (!lens_hook_exists(&s->model->config, hook))
		return lens_error_set(err, LENS_ERR_INVALID, "steer.hook: there is no %s in %s",
				      lens_hook_leaf(hook),
				      lens_why_no_hook(&s->model->config));
	return LENS_OK;
}

enum lens_hook lens_steer_hook(const struct lens_experiment *e)
{
	static const enum lens_hook hooks[] = {
		[LENS_STEER_RESID_PRE] = LENS_HOOK_RESID_PRE,
		[LENS_STEER_RESID_MID] = LENS_HOOK_RESID_MID,
		[LENS_STEER_RESID_POST] = LENS_HOOK_RESID_POST,
		[LENS_STEER_ATTN_OUT] = LENS_HOOK_ATTN_OUT,
		[LENS_STEER_MLP_OUT] = LENS_HOOK_MLP_OUT,
		[LENS_STEER_Z] = LENS_HOOK_Z,
	};

	return hooks[e->steer.hook];
}

size_t lens_steer_width(const struct lens_config *c, const struct lens_experiment *e)
{
	return lens_row_width(c, lens_steer_hook(e));
}

enum lens_status lens_study_add_steering(struct lens_study *s, struct lens_error *err)
{
	enum lens_hook hook = lens_steer_hook(s->experiment);

	LENS_TRY(check(s, hook, err));
	s->steered.spot = lens_calloc(1, sizeof(*s->steered.spot));
	if (!s->steered.spot)
		return lens_error_nomem(err, 1, sizeof(*s->steered.spot));
	s->steered.n = 1;
	s->steered.layer = (size_t)s->experiment->steer.layer;
	s->steered.spot[0] = (struct lens_spot){ s->steered.layer, NOT_ONE };
	s->grid[s->n_grids++] = (struct lens_study_grid){ .hook = hook,
							  .n_axes = 1,
							  .axis = { LENS_AXIS_SCALE },
							  .base = LENS_RUN_CLEAN,
							  .source = LENS_RUN_STEERED,
							  .spots = &s->steered,
							  .n_spots = 1 };
	s->needs[LENS_RUN_CLEAN] = true;
	return lens_add_tables(s, "steer", err);
}
