/*
 * plan/tokens.c: cache.layout: ragged: where each prompt's tokens stand in datasets that
 * have no padding. In: a plan's rows and positions; out: how many, and the first of each.
 */
#include "plan/plan_private.h"

bool lens_by_token(const struct lens_planned *d)
{
	return d->axis[0] == LENS_AXIS_TOKEN;
}

size_t lens_row_tokens(const struct lens_plan *p, size_t row)
{
	return lens_slots_held(&p->capture.positions, lens_prompt_length(p->prompts, row),
			       (size_t)p->prompts->read_pos[row]);
}

size_t lens_plan_tokens(const struct lens_plan *p)
{
	const struct lens_prompts *q = p->prompts;
	size_t row, n = 0;

	if (p->experiment->cache.layout != LENS_CACHE_RAGGED)
		return 0;
	if (p->capture.positions.kind != LENS_POS_LIST)
		return lens_plan_first_token(p, q->n_rows);
	for (row = 0; row < q->n_rows; row++)
		n += lens_row_tokens(p, row);
	return n;
}

/* A dimension of a file is no longer than that. */
enum lens_status lens_plan_check_tokens(const struct lens_plan *p, struct lens_error *err)
{
	if (p->sizes.n_tokens <= INT32_MAX)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_INVALID,
			      "cache.layout: ragged is for up to %d tokens, and the prompts "
			      "have %zu; padded has no such limit",
			      INT32_MAX, p->sizes.n_tokens);
}

enum lens_status lens_plan_index_tokens(struct lens_plan *p, struct lens_error *err)
{
	size_t row, n = p->prompts->n_rows;

	if (p->experiment->cache.layout != LENS_CACHE_RAGGED ||
	    p->capture.positions.kind != LENS_POS_LIST)
		return LENS_OK;
	p->first_token = lens_calloc(n + 1, sizeof(*p->first_token));
	if (!p->first_token)
		return lens_error_nomem(err, n + 1, sizeof(*p->first_token));
	for (row = 0; row < n; row++)
		p->first_token[row + 1] = p->first_token[row] + lens_row_tokens(p, row);
	return LENS_OK;
}

size_t lens_plan_first_token(const struct lens_plan *p, size_t row)
{
	switch (p->capture.positions.kind) {
	case LENS_POS_ALL:
		return (size_t)(p->prompts->offset[row] - p->prompts->offset[0]);
	case LENS_POS_LIST:
		return p->first_token ? p->first_token[row] : 0;
	default:
		return row; /* every prompt has one */
	}
}
