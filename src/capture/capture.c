/*
 * capture/capture.c: a worker's capture: which dataset an activation belongs
 * to, and the cutting of token-wise activations. Scores and patterns, which
 * come head by head, are in square.c, what is stored without padding in ragged.c.
 */
#include "capture/capture_private.h"

#include <string.h>

long lens_slot_position(const struct lens_positions *p, size_t slot, size_t length,
			size_t read_pos)
{
	long pos, n = (long)length;

	switch (p->kind) {
	case LENS_POS_LAST:
		return n - 1;
	case LENS_POS_READ:
		return (long)read_pos;
	case LENS_POS_LIST:
		pos = p->list[slot] < 0 ? p->list[slot] + n : p->list[slot];
		break;
	default:
		pos = (long)slot;
	}
	return pos >= 0 && pos < n ? pos : -1;
}

size_t lens_slots_held(const struct lens_positions *p, size_t length, size_t read_pos)
{
	size_t slot, n = 0;

	if (p->kind == LENS_POS_ALL)
		return length;
	for (slot = 0; slot < p->n_slots; slot++)
		n += lens_slot_position(p, slot, length, read_pos) >= 0;
	return n;
}

size_t lens_spec_bytes(const struct lens_capture_spec *s, size_t rows)
{
	size_t n = rows * lens_dtype_size(s->dtype);
	int i;

	for (i = 1; i < s->rank; i++)
		n *= s->by_rows ? s->extent[i] : s->chunk[i];
	return n;
}

size_t lens_most_rows(const struct lens_capture_plan *plan, const struct lens_capture_spec *s)
{
	return s->by_rows ? lens_min(plan->batch_rows, s->chunk[0]) : s->chunk[0];
}

struct lens_piece lens_piece_of(const struct lens_capture *c, const struct lens_capture_spec *s,
				size_t prompt, size_t n_prompts)
{
	size_t at = (c->row0 + prompt) % s->chunk[0], left = s->chunk[0] - at;
	struct lens_piece p = { .r0 = prompt - lens_min(at, prompt) };

	p.end = lens_min(prompt + left, n_prompts);
	p.chunk = (c->row0 + p.r0) / s->chunk[0];
	p.rows = p.end - p.r0;
	p.whole = !s->by_rows;
	if (s->by_rows && s->chunk[0] <= c->plan->batch_rows)
		p.whole = (c->row0 + p.r0) % s->chunk[0] == 0 &&
			  (p.rows == s->chunk[0] || c->row0 + p.end == s->extent[0]);
	if (p.whole)
		p.rows = s->chunk[0];
	return p;
}

size_t lens_capture_buffer_bytes(const struct lens_capture_plan *plan)
{
	size_t i, most = 0;

	for (i = 0; i < plan->n_specs; i++) {
		const struct lens_capture_spec *s = &plan->spec[i];

		most = lens_max(lens_spec_bytes(s, lens_most_rows(plan, s)), most);
	}
	return most;
}

size_t lens_capture_bytes(const struct lens_capture_plan *plan)
{
	return 2 * lens_stage_floats(plan) * sizeof(float);
}

enum lens_status lens_capture_create(const struct lens_capture_plan *plan,
				     const struct lens_sink *sink, struct lens_capture **out,
				     struct lens_error *err)
{
	struct lens_capture *c = lens_calloc(1, sizeof(*c));
	size_t i, floats = lens_stage_floats(plan);
	size_t n = plan->config->n_layers * LENS_HOOK_COUNT;

	*out = NULL;
	if (!c)
		return lens_error_nomem(err, 1, sizeof(*c));
	c->plan = plan;
	c->sink = sink;
	c->by_hook = lens_calloc(n, sizeof(*c->by_hook));
	c->overflows = lens_calloc(plan->n_specs, sizeof(*c->overflows));
	c->stage[0] = lens_alloc_aligned(floats, sizeof(float));
	c->stage[1] = lens_alloc_aligned(floats, sizeof(float));
	if (!c->by_hook || !c->overflows || !c->stage[0] || !c->stage[1]) {
		lens_capture_destroy(c);
		return lens_error_nomem(err, n + 2 * floats, sizeof(float));
	}
	for (i = 0; i < plan->n_specs; i++) {
		const struct lens_capture_spec *s = &plan->spec[i];

		c->by_hook[s->layer * LENS_HOOK_COUNT + (size_t)s->hook] = s;
	}
	*out = c;
	return LENS_OK;
}

void lens_capture_destroy(struct lens_capture *c)
{
	if (!c)
		return;
	lens_free(c->by_hook);
	lens_free(c->overflows);
	lens_free(c->stage[0]);
	lens_free(c->stage[1]);
	lens_free(c);
}

void lens_capture_begin(struct lens_capture *c, size_t row0, size_t token0)
{
	c->row0 = row0;
	c->token0 = token0;
}

size_t lens_capture_overflows(const struct lens_capture *c, size_t spec)
{
	return c->overflows[spec];
}

void lens_capture_add_times(const struct lens_capture *c, struct lens_times *t)
{
	t->convert += c->convert;
	t->digest += c->digest;
}

/* --- filling a buffer -------------------------------------------------------- */

void lens_fill_places(const struct lens_capture_spec *s, void *buf, size_t at, size_t n)
{
	lens_fill(s->dtype, (char *)buf + at * lens_dtype_size(s->dtype), n);
}

void lens_copy_values(struct lens_capture *c, const struct lens_capture_spec *s, void *buf,
		      size_t at, const float *x, size_t n)
{
	if (s->dtype == LENS_F16)
		c->overflows[s - c->plan->spec] +=
			lens_vec()->to_f16(n, x, (uint16_t *)buf + at);
	else
		memcpy((float *)buf + at, x, n * sizeof(*x)); /* or int32's bits */
}

enum lens_status lens_capture_submit(struct lens_capture *c, struct lens_captured *done,
				     struct lens_error *err)
{
	double start = lens_now();

	if (!done->by_rows)
		lens_xxh3(done->data, done->bytes, done->digest);
	c->digest += lens_now() - start;
	return c->sink->submit(c->sink->ctx, done, err);
}

enum lens_status lens_hand_over(struct lens_capture *c, const struct lens_capture_spec *s,
				const struct lens_piece *p, const size_t *coord, void *buf,
				struct lens_error *err)
{
	struct lens_captured done = {
		.dataset = s->dataset,
		.by_rows = !p->whole,
		.row0 = c->row0 + p->r0,
		.n_rows = p->rows,
		.data = buf,
		.bytes = lens_spec_bytes(s, p->rows),
	};

	memcpy(done.coord, coord, sizeof(done.coord));
	return lens_capture_submit(c, &done, err);
}

/* --- token-wise activations -------------------------------------------------- */

/* A cut: rows r0 … of the batch, slots p0 …, first inner axis from a0. */
struct cut {
	size_t r0, rows, p0, slots, a0, a_chunk;
	size_t a_extent, b; /* a slot holds [a_extent, b] */
};

static long position(const struct lens_capture *c, const struct lens_batch *b, size_t prompt,
		     size_t slot)
{
	if (prompt >= b->n_prompts || slot >= c->plan->positions.n_slots)
		return -1;
	return lens_slot_position(&c->plan->positions, slot, b->length[prompt],
				  (size_t)b->read_pos[prompt]);
}

static bool holds_data(const struct lens_capture *c, const struct lens_batch *b,
		       const struct cut *k)
{
	size_t r, p;

	for (r = 0; r < k->rows; r++) {
		for (p = 0; p < k->slots; p++) {
			if (position(c, b, k->r0 + r, k->p0 + p) >= 0)
				return true;
		}
	}
	return false;
}

const float *lens_capture_row(const struct lens_batch *b, const struct lens_activation *a,
			      size_t prompt, long pos)
{
	return a->data + (size_t)lens_batch_row(b, prompt, (size_t)pos) * a->stride;
}

static void fill(struct lens_capture *c, const struct lens_capture_spec *s,
		 const struct lens_batch *b, const struct lens_activation *a,
		 const struct cut *k, void *buf)
{
	size_t r, p, at = 0, whole = k->a_chunk * k->b;
	size_t left = lens_min(k->a_extent - k->a0, k->a_chunk);
	size_t n = left * k->b;
	double start = lens_now();

	for (r = 0; r < k->rows; r++) {
		for (p = 0; p < k->slots; p++, at += whole) {
			long pos = position(c, b, k->r0 + r, k->p0 + p);
			size_t filled = pos >= 0 ? n : 0;

			if (filled)
				lens_copy_values(c, s, buf, at,
						 lens_capture_row(b, a, k->r0 + r, pos) +
							 k->a0 * k->b,
						 n);
			lens_fill_places(s, buf, at + filled, whole - filled);
		}
	}
	c->convert += lens_now() - start;
}

static enum lens_status cut_tokens(struct lens_capture *c, const struct lens_capture_spec *s,
				   const struct lens_batch *b, const struct lens_activation *a,
				   struct lens_error *err)
{
	bool two = s->rank == 4; /* [prompt, slot, a, b]; else [prompt, slot, b] */
	struct lens_piece piece = { .end = 0 };
	struct cut k = {
		.slots = s->by_rows ? s->extent[1] : s->chunk[1],
		.a_extent = two ? s->extent[2] : 1,
		.a_chunk = !two         ? 1
			   : s->by_rows ? s->extent[2]
					: s->chunk[2],
		.b = s->extent[s->rank - 1],
	};
	void *buf;

	while (piece.end < b->n_prompts) {
		piece = lens_piece_of(c, s, piece.end, b->n_prompts);
		k.r0 = piece.r0;
		k.rows = piece.rows;
		for (k.p0 = 0; k.p0 < s->extent[1]; k.p0 += k.slots) {
			if (!s->by_rows && !holds_data(c, b, &k))
				continue; /* a chunk of padding only is never written */
			for (k.a0 = 0; k.a0 < k.a_extent; k.a0 += k.a_chunk) {
				const size_t coord[LENS_CAPTURE_RANK] = { piece.chunk,
									  k.p0 / k.slots,
									  k.a0 / k.a_chunk, 0 };

				LENS_TRY(c->sink->acquire(c->sink->ctx,
							  lens_spec_bytes(s, k.rows), &buf,
							  err));
				fill(c, s, b, a, &k, buf);
				LENS_TRY(lens_hand_over(c, s, &piece, coord, buf, err));
			}
		}
	}
	return LENS_OK;
}

enum lens_status lens_capture_visit(void *ctx, const struct lens_batch *b,
				    const struct lens_activation *a, struct lens_error *err)
{
	struct lens_capture *c = ctx;
	const struct lens_capture_spec *s =
		c->by_hook[a->layer * LENS_HOOK_COUNT + (size_t)a->hook];

	if (!s)
		return LENS_OK;
	if (lens_hook_is_square(a->hook))
		return lens_cut_square(c, s, b, a, err);
	if (s->by_token)
		return lens_cut_by_token(c, s, b, a, err);
	return cut_tokens(c, s, b, a, err);
}
