/*
 * capture/square.c: scores and patterns. They come one head of one prompt and a
 * block of queries at a time; a stage of the worker's own gathers what one row
 * of chunks needs, [rows, heads, slots, keys], and is cut when it is complete.
 */
#include "capture/capture_private.h"

#include <string.h>

/* Heads of a stage; its rows are lens_most_rows. */
static size_t stage_heads(const struct lens_capture_spec *s)
{
	return s->by_rows ? s->extent[1] : s->chunk[1];
}

size_t lens_stage_floats(const struct lens_capture_plan *plan)
{
	size_t i, most = 0;

	for (i = 0; i < plan->n_specs; i++) {
		const struct lens_capture_spec *s = &plan->spec[i];
		size_t n;

		if (!lens_hook_is_square(s->hook))
			continue;
		n = lens_most_rows(plan, s) * stage_heads(s) * s->extent[2] * s->extent[3];
		most = lens_max(n, most);
	}
	return most;
}

/* Copies the wanted queries of one visit to their place in the stage. */
static void stage_queries(const struct lens_capture *c, const struct lens_capture_spec *s,
			  const struct lens_batch *b, const struct lens_activation *a, size_t r,
			  float *stage)
{
	size_t heads = stage_heads(s), slots = s->extent[2], keys = s->extent[3], slot;
	size_t h = a->head % heads;
	float *head = stage + (r * heads + h) * slots * keys;

	for (slot = 0; slot < slots; slot++) {
		long pos = lens_slot_position(&c->plan->positions, slot, b->length[a->prompt],
					      (size_t)b->read_pos[a->prompt]);

		if (pos < (long)a->q0 || pos >= (long)(a->q0 + a->nq))
			continue;
		memcpy(head + slot * keys, a->data + ((size_t)pos - a->q0) * a->stride,
		       b->length[a->prompt] * sizeof(float));
	}
}

/* A cut: rows r0 … of the batch, queries q0 … and keys k0 … of each. */
struct cut {
	size_t r0, rows, q0, queries, k0, keys;
};

/* Does any of its prompts have a query and a key in the cut? */
static bool holds_data(const struct lens_capture *c, const struct lens_batch *b,
		       const struct cut *k)
{
	size_t r, q, slots = c->plan->positions.n_slots;

	for (r = k->r0; r < lens_min(k->r0 + k->rows, b->n_prompts); r++) {
		for (q = k->q0; q < lens_min(k->q0 + k->queries, slots); q++) {
			if (k->k0 < b->length[r] &&
			    lens_slot_position(&c->plan->positions, q, b->length[r],
					       (size_t)b->read_pos[r]) >= 0)
				return true;
		}
	}
	return false;
}

/* One chunk [rows, heads, queries, keys] out of the stage. */
static void fill(struct lens_capture *c, const struct lens_capture_spec *s, const float *stage,
		 const struct cut *k, void *buf)
{
	size_t slots = s->extent[2], keys = s->extent[3], h, q, at = 0;
	size_t n = lens_min(keys - k->k0, k->keys), heads = k->rows * stage_heads(s);
	double start = lens_now();

	for (h = 0; h < heads; h++) {
		for (q = k->q0; q < k->q0 + k->queries; q++, at += k->keys) {
			size_t filled = q < slots ? n : 0;

			if (filled)
				lens_copy_values(c, s, buf, at,
						 stage + (h * slots + q) * keys + k->k0, n);
			lens_fill_places(s, buf, at + filled, k->keys - filled);
		}
	}
	c->convert += lens_now() - start;
}

static enum lens_status cut_stage(struct lens_capture *c, const struct lens_capture_spec *s,
				  const struct lens_batch *b, const struct lens_activation *a,
				  const struct lens_piece *p, const float *stage,
				  struct lens_error *err)
{
	struct cut k = { .r0 = p->r0,
			 .rows = p->rows,
			 .queries = s->by_rows ? s->extent[2] : s->chunk[2],
			 .keys = s->by_rows ? s->extent[3] : s->chunk[3] };
	void *buf;

	for (; k.q0 < s->extent[2]; k.q0 += k.queries) {
		for (k.k0 = 0; k.k0 < s->extent[3]; k.k0 += k.keys) {
			const size_t coord[LENS_CAPTURE_RANK] = { p->chunk,
								  a->head / stage_heads(s),
								  k.q0 / k.queries,
								  k.k0 / k.keys };

			if (!s->by_rows && !holds_data(c, b, &k))
				continue;
			LENS_TRY(c->sink->acquire(c->sink->ctx, lens_spec_bytes(s, k.rows),
						  &buf, err));
			fill(c, s, stage, &k, buf);
			LENS_TRY(lens_hand_over(c, s, p, coord, buf, err));
		}
	}
	return LENS_OK;
}

enum lens_status lens_cut_square(struct lens_capture *c, const struct lens_capture_spec *s,
				 const struct lens_batch *b, const struct lens_activation *a,
				 struct lens_error *err)
{
	const struct lens_piece p = lens_piece_of(c, s, a->prompt, b->n_prompts);
	size_t heads = stage_heads(s);
	float *stage = c->stage[a->hook == LENS_HOOK_PATTERN];
	struct lens_capture_spec full = *s;

	full.dtype = LENS_F32; /* the stage is */
	if (a->prompt == p.r0 && a->head % heads == 0 && a->q0 == 0)
		lens_fill_places(&full, stage, 0, p.rows * heads * s->extent[2] * s->extent[3]);
	stage_queries(c, s, b, a, a->prompt - p.r0, stage);
	if (a->q0 + a->nq < b->length[a->prompt])
		return LENS_OK;
	if ((a->head + 1) % heads && a->head + 1 < s->extent[1])
		return LENS_OK;
	if (a->prompt + 1 < p.end)
		return LENS_OK;
	return cut_stage(c, s, b, a, &p, stage, err);
}
