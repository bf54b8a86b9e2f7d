/*
 * capture/square.c: scores and patterns. They come one head of one prompt and a
 * block of queries at a time; a stage of the worker's own gathers what one row
 * of chunks needs, [rows, heads, slots, keys], and is cut when it is complete.
 */
#include "capture/capture_private.h"

#include <string.h>

/* Rows and heads of a stage. */
static size_t stage_rows(const struct lens_capture_plan *plan,
			 const struct lens_capture_spec *s)
{
	return s->by_rows ? plan->batch_rows : s->chunk[0];
}

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
		n = stage_rows(plan, s) * stage_heads(s) * s->extent[2] * s->extent[3];
		most = n > most ? n : most;
	}
	return most;
}

/* Copies the wanted queries of one visit to their place in the stage. */
static void stage_queries(const struct lens_capture *c, const struct lens_capture_spec *s,
			  const struct lens_batch *b, const struct lens_activation *a,
			  float *stage)
{
	size_t heads = stage_heads(s), slots = s->extent[2], keys = s->extent[3], slot;
	size_t r = a->prompt % stage_rows(c->plan, s), h = a->head % heads;
	float *head = stage + (r * heads + h) * slots * keys;

	for (slot = 0; slot < slots; slot++) {
		long pos = lens_slot_position(&c->plan->positions, slot, b->length[a->prompt],
					      (size_t)c->read_pos[a->prompt]);

		if (pos < (long)a->q0 || pos >= (long)(a->q0 + a->nq))
			continue;
		memcpy(head + slot * keys, a->data + ((size_t)pos - a->q0) * a->stride,
		       b->length[a->prompt] * sizeof(float));
	}
}

/* Does any prompt of the stage reach query chunk from q0 and key k0? */
static bool holds_data(const struct lens_capture *c, const struct lens_batch *b, size_t r0,
		       size_t rows, size_t q0, size_t queries, size_t k0)
{
	size_t r, q;

	for (r = r0; r < r0 + rows && r < b->n_prompts; r++) {
		for (q = q0; q < q0 + queries && q < c->plan->positions.n_slots; q++) {
			if (k0 < b->length[r] &&
			    lens_slot_position(&c->plan->positions, q, b->length[r],
					       (size_t)c->read_pos[r]) >= 0)
				return true;
		}
	}
	return false;
}

/* One chunk [rows, heads, cq, ck] out of the stage. */
static void fill(struct lens_capture *c, const struct lens_capture_spec *s, const float *stage,
		 size_t rows, size_t q0, size_t k0, void *buf)
{
	size_t cq = s->by_rows ? s->extent[2] : s->chunk[2];
	size_t ck = s->by_rows ? s->extent[3] : s->chunk[3];
	size_t slots = s->extent[2], keys = s->extent[3];
	size_t n = keys - k0 < ck ? keys - k0 : ck, heads = rows * stage_heads(s), h, q, at = 0;

	for (h = 0; h < heads; h++) {
		for (q = q0; q < q0 + cq; q++, at += ck) {
			size_t filled = q < slots ? n : 0;

			if (filled)
				lens_copy_values(c, s, buf, at,
						 stage + (h * slots + q) * keys + k0, n);
			lens_fill_nan(s, buf, at + filled, ck - filled);
		}
	}
}

static enum lens_status cut_stage(struct lens_capture *c, const struct lens_capture_spec *s,
				  const struct lens_batch *b, const struct lens_activation *a,
				  const float *stage, struct lens_error *err)
{
	size_t whole = stage_rows(c->plan, s), r0 = a->prompt / whole * whole, q0, k0;
	size_t rows = s->by_rows ? b->n_prompts : whole;
	size_t cq = s->by_rows ? s->extent[2] : s->chunk[2];
	size_t ck = s->by_rows ? s->extent[3] : s->chunk[3];
	void *buf;

	for (q0 = 0; q0 < s->extent[2]; q0 += cq) {
		for (k0 = 0; k0 < s->extent[3]; k0 += ck) {
			const size_t coord[LENS_CAPTURE_RANK] = { (c->row0 + r0) / s->chunk[0],
								  a->head / stage_heads(s),
								  q0 / cq, k0 / ck };

			if (!s->by_rows && !holds_data(c, b, r0, rows, q0, cq, k0))
				continue;
			LENS_TRY(c->sink->acquire(c->sink->ctx, lens_spec_bytes(s, rows), &buf,
						  err));
			fill(c, s, stage, rows, q0, k0, buf);
			LENS_TRY(lens_hand_over(c, s, coord, rows, buf, err));
		}
	}
	return LENS_OK;
}

enum lens_status lens_cut_square(struct lens_capture *c, const struct lens_capture_spec *s,
				 const struct lens_batch *b, const struct lens_activation *a,
				 struct lens_error *err)
{
	size_t rows = stage_rows(c->plan, s), heads = stage_heads(s);
	float *stage = c->stage[a->hook == LENS_HOOK_PATTERN];
	struct lens_capture_spec full = *s;

	full.half = false; /* the stage is float32 */
	if (a->prompt % rows == 0 && a->head % heads == 0 && a->q0 == 0)
		lens_fill_nan(&full, stage, 0, rows * heads * s->extent[2] * s->extent[3]);
	stage_queries(c, s, b, a, stage);
	if (a->q0 + a->nq < b->length[a->prompt])
		return LENS_OK;
	if ((a->head + 1) % heads && a->head + 1 < s->extent[1])
		return LENS_OK;
	if ((a->prompt + 1) % rows && a->prompt + 1 < b->n_prompts)
		return LENS_OK;
	return cut_stage(c, s, b, a, stage, err);
}
