/*
 * capture/ragged.c: token-wise activations without padding, [token, …]. A batch's tokens
 * are consecutive, but begin and end anywhere in a chunk: chunks that it fills are handed
 * over whole, and what it has of the first and the last one as rows, to be gathered.
 */
#include "capture/capture_private.h"

/* The next place of a batch to be looked at. */
struct place {
	size_t prompt, slot;
};

static size_t slots_of(const struct lens_capture *c, size_t length)
{
	const struct lens_positions *p = &c->plan->positions;

	return p->kind == LENS_POS_ALL ? length : p->n_slots;
}

/* The values of the next token that is stored. There must be one. */
static const float *next_token(const struct lens_capture *c, const struct lens_batch *b,
			       const struct lens_activation *a, struct place *at)
{
	for (;; at->prompt++, at->slot = 0) {
		size_t length = b->length[at->prompt], n = slots_of(c, length);

		while (at->slot < n) {
			long pos = lens_slot_position(&c->plan->positions, at->slot++, length,
						      (size_t)b->read_pos[at->prompt]);

			if (pos >= 0)
				return lens_capture_row(b, a, at->prompt, pos);
		}
	}
}

static size_t tokens_of(const struct lens_capture *c, const struct lens_batch *b)
{
	size_t i, n = 0;

	for (i = 0; i < b->n_prompts; i++)
		n += lens_slots_held(&c->plan->positions, b->length[i], (size_t)b->read_pos[i]);
	return n;
}

/* What a buffer gets: n tokens, of rows rows. */
struct piece {
	size_t n, rows, width;
};

static void fill(struct lens_capture *c, const struct lens_capture_spec *s,
		 const struct lens_batch *b, const struct lens_activation *a,
		 const struct piece *p, struct place *at, void *buf)
{
	double start = lens_now();
	size_t i;

	for (i = 0; i < p->n; i++)
		lens_copy_values(c, s, buf, i * p->width, next_token(c, b, a, at), p->width);
	lens_fill_places(s, buf, p->n * p->width, (p->rows - p->n) * p->width);
	c->convert += lens_now() - start;
}

enum lens_status lens_cut_by_token(struct lens_capture *c, const struct lens_capture_spec *s,
				   const struct lens_batch *b, const struct lens_activation *a,
				   struct lens_error *err)
{
	size_t chunk = s->chunk[0], t = c->token0, end = t + tokens_of(c, b);
	struct piece p = { .width = lens_spec_bytes(s, 1) / lens_dtype_size(s->dtype) };
	struct place at = { 0, 0 };

	for (; t < end; t += p.n) {
		size_t first = t / chunk * chunk, past = lens_min(first + chunk, s->extent[0]);
		struct lens_captured done = { .dataset = s->dataset,
					      .coord = { t / chunk },
					      .row0 = t };

		p.n = done.n_rows = lens_min(end, past) - t;
		done.by_rows = t > first || t + p.n < past;
		p.rows = done.by_rows ? p.n : chunk;
		done.bytes = lens_spec_bytes(s, p.rows);
		LENS_TRY(c->sink->acquire(c->sink->ctx, done.bytes, &done.data, err));
		fill(c, s, b, a, &p, &at, done.data);
		LENS_TRY(lens_capture_submit(c, &done, err));
	}
	return LENS_OK;
}
