/*
 * forward/visit.c: the list of visitors: what it wants, and showing it a value. In:
 * visitors with their hook sets; out: calls of edit and visit, and how much of a pass
 * is needed for them.
 */
#include "forward/forward_private.h"

enum lens_want lens_wanted(const struct lens_visitors *v, enum lens_hook hook, size_t layer)
{
	enum lens_want most = LENS_WANT_NOT;
	size_t i;

	for (i = 0; i < v->n; i++) {
		enum lens_want want = lens_hook_wanted(v->visitor[i].hooks, hook, layer);

		most = want > most ? want : most;
	}
	return most;
}

enum lens_status lens_show(const struct lens_pass *p, const struct lens_batch *b,
			   const struct lens_activation *a, float *data)
{
	size_t i;

	for (i = 0; i < p->visitors->n; i++) {
		const struct lens_visitor *v = &p->visitors->visitor[i];

		if (v->edit && lens_hook_wanted(v->hooks, a->hook, a->layer))
			LENS_TRY(v->edit(v->ctx, b, a, data, p->err));
	}
	for (i = 0; i < p->visitors->n; i++) {
		const struct lens_visitor *v = &p->visitors->visitor[i];

		if (v->visit && lens_hook_wanted(v->hooks, a->hook, a->layer))
			LENS_TRY(v->visit(v->ctx, b, a, p->err));
	}
	return LENS_OK;
}

static enum lens_status check_editor(const struct lens_visitor *v, struct lens_error *err)
{
	char name[LENS_HOOK_NAME];
	size_t layer;
	int h;

	for (layer = 0; layer < v->hooks->n_layers; layer++) {
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			enum lens_hook hook = (enum lens_hook)h;

			if (lens_hook_wanted(v->hooks, hook, layer) &&
			    !lens_hook_info(hook)->editable)
				return lens_error_set(err, LENS_ERR_INVALID,
						      "%s cannot be edited",
						      lens_hook_name(hook, layer, name));
		}
	}
	return LENS_OK;
}

enum lens_status lens_check_edits(const struct lens_visitors *v, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < v->n; i++) {
		if (v->visitor[i].edit)
			LENS_TRY(check_editor(&v->visitor[i], err));
	}
	return LENS_OK;
}

/* --- how much of a pass is needed ------------------------------------------------------ */

bool lens_head_wanted(const struct lens_visitors *v)
{
	return lens_wanted(v, LENS_HOOK_LN_FINAL_SCALE, 0) ||
	       lens_wanted(v, LENS_HOOK_LN_FINAL_NORMALIZED, 0) ||
	       lens_wanted(v, LENS_HOOK_LOGITS, 0);
}

size_t lens_blocks_needed(const struct lens_config *c, const struct lens_visitors *v)
{
	size_t n;
	int h;

	if (lens_head_wanted(v))
		return c->n_layers;
	for (n = c->n_layers; n > 0; n--) {
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			if (lens_hook_info((enum lens_hook)h)->per_layer &&
			    lens_wanted(v, (enum lens_hook)h, n - 1))
				return n;
		}
	}
	return 0;
}

bool lens_read_rows_suffice(const struct lens_visitors *v, size_t layer)
{
	int h;

	if (lens_head_wanted(v))
		return false;
	/* In the order in which they arise; those up to the keys are of all rows anyway. */
	for (h = LENS_HOOK_ROT_K + 1; h < LENS_HOOK_COUNT; h++) {
		if (lens_hook_info((enum lens_hook)h)->per_layer &&
		    lens_wanted(v, (enum lens_hook)h, layer) == LENS_WANT_ALL)
			return false;
	}
	return true;
}
