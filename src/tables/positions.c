/*
 * tables/positions.c: the logits at every position: the model's own, and each lens
 * layer's. In: ln_final.hook_normalized, or the stream, at all rows of a batch; out:
 * logits, shown to the tables that read them. And the answers' logits alone, which need no
 * product with W_U.
 *
 * The rows go through the unembedding a tile at a time, so that a batch's
 * logits are never held. For the model's own a prompt starts at a multiple of
 * lens_row_align() and a tile is a multiple of 12 slots, so each position keeps its
 * place in the twelve and with it its bits, which are those of /cache/logits. A prompt's
 * last one, which predicts nothing that is there, is only for tables that want it.
 *
 * A lens layer's rows lie in the slots that logits.c uses, lens_row_slot(0), …, so that
 * the read position's logits are the same bits as there. On AVX2 these are half the
 * slots, the product takes twice the time, and the last lens layer's bits are those
 * of /cache/logits at half the positions only.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

/* The largest logit of each place, and Σ exp. */
static void measure(struct lens_tables *t, size_t slots)
{
	size_t i, v = t->model->config.d_vocab;
	int threads = t->opt.threads < 1 ? 1 : t->opt.threads;

#pragma omp parallel for num_threads(threads) if (threads > 1)
	for (i = 0; i < slots; i++) {
		struct lens_place *p = &t->place[i];

		if (!p->used)
			continue;
		p->max = lens_vec()->max_finite(v, t->logit + i * v);
		p->sum_exp =
			isnan(p->max) ? 0 : lens_vec()->sum_exp(v, t->logit + i * v, p->max);
	}
}

static struct lens_logits logits_of(struct lens_tables *t, size_t slot)
{
	const struct lens_place *p = &t->place[slot];
	size_t v = t->model->config.d_vocab;

	return (struct lens_logits){ .prompt = p->prompt,
				     .of_answer = p->of_answer,
				     .pos = p->pos,
				     .next = p->next,
				     .logit = t->logit + slot * v,
				     .d_vocab = v,
				     .finite = !isnan(p->max),
				     .max = p->max,
				     .sum_exp = p->sum_exp,
				     .top = t->top };
}

/* --- the model's own ----------------------------------------------------------- */

/* Unembeds the tile's slots and shows each place's logits, in order. */
static void flush(struct lens_tables *t, size_t slots)
{
	size_t i;

	lens_unembed_tile(t, slots, true);
	measure(t, slots);
	for (i = 0; i < slots; i++) {
		struct lens_logits l = logits_of(t, i);

		if (t->place[i].used && l.next >= 0)
			lens_show_logits(t, LENS_AT_NEXT_TOKEN, &l);
		if (t->place[i].used)
			lens_show_logits(t, LENS_AT_EVERY_POS, &l);
	}
}

/* An empty slot: its row of the product is read by nobody. */
static void leave_gap(struct lens_tables *t, size_t slot)
{
	size_t d = t->model->config.d_model;

	memset(t->normed + slot * d, 0, d * sizeof(*t->normed));
	t->place[slot].used = false;
}

static void take_row(struct lens_tables *t, const float *row, size_t slot)
{
	size_t d = t->model->config.d_model;

	memcpy(t->normed + slot * d, row, d * sizeof(*row));
	lens_final_weight(t->model, 1, t->normed + slot * d);
}

void lens_every_pos_read(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a)
{
	size_t i, pos, slot = 0, last = t->logits & LENS_AT_EVERY_POS ? 0 : 1;

	for (i = 0; i < b->n_prompts; i++) {
		for (; slot % lens_row_align(); slot++)
			leave_gap(t, slot);
		for (pos = 0; pos + last < b->length[i]; pos++) {
			size_t row = (size_t)lens_batch_row(b, i, pos);

			if (slot == t->tile) {
				flush(t, slot);
				slot = 0;
			}
			take_row(t, a->data + row * a->stride, slot);
			t->place[slot++] = (struct lens_place){
				.prompt = i,
				.pos = pos,
				.used = true,
				.next = pos + 1 < b->length[i] ? b->tokens[i][pos + 1] : -1
			};
		}
	}
	if (slot)
		flush(t, slot);
}

/* --- the answers' alone --------------------------------------------------------- */

/* A token's logit of ln_final's output; float64 of what is float32. */
static double logit_of(const struct lens_model *m, const float *y, int32_t token)
{
	size_t j, d = m->config.d_model;
	const float *u = m->w_u + (size_t)token * d;
	double sum = m->b_u ? (double)m->b_u[token] : 0;

	for (j = 0; j < d; j++)
		sum += (double)y[j] * (double)u[j];
	return sum;
}

static void show_answers(struct lens_tables *t, const float *x, size_t prompt, size_t pos)
{
	size_t k, n = t->opt.sizes.n_answers;
	struct lens_logits l = { .prompt = prompt,
				 .pos = pos,
				 .next = -1,
				 .answer = lens_answers_of(&t->in, n, prompt),
				 .n_answers = n,
				 .answer_logit = t->answer_logit,
				 .finite = true };

	lens_final_norm(t->model, 1, x, t->normed, t->scale);
	l.scale = t->scale[0];
	for (k = 0; k < n; k++) {
		t->answer_logit[k] = logit_of(t->model, t->normed, l.answer[k]);
		l.finite &= isfinite(t->answer_logit[k]) != 0;
	}
	lens_show_logits(t, LENS_AT_OTHER_POS, &l);
}

void lens_other_pos_read(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a)
{
	size_t i, pos;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			if (pos == (size_t)b->read_pos[i])
				continue;
			show_answers(t, a->data + (size_t)lens_batch_row(b, i, pos) * a->stride,
				     i, pos);
		}
	}
}

/* --- the lens ------------------------------------------------------------------ */

/* A lens layer at all rows of the batch. */
struct stream {
	size_t layer;
	const float *x, *last; /* [n_rows, stride]; last: the last layer, or NULL */
	size_t stride;
};

static void clear_tile(struct lens_tables *t)
{
	memset(t->normed, 0, t->tile * t->model->config.d_model * sizeof(*t->normed));
	memset(t->place, 0, t->tile * sizeof(*t->place));
}

void lens_tile_flush(struct lens_tables *t, struct lens_tile *tile)
{
	size_t i, slots = lens_row_slots(tile->n);

	if (!tile->n)
		return;
	lens_unembed_tile(t, slots, tile->bias);
	measure(t, slots);
	for (i = 0; i < tile->n; i++) {
		struct lens_logits l = logits_of(t, lens_row_slot(i));

		l.layer = tile->layer;
		lens_show_logits(t, tile->at, &l);
	}
	tile->n = 0;
}

void lens_tile_add(struct lens_tables *t, struct lens_tile *tile, const float *x,
		   const float *last, const struct lens_place *place)
{
	size_t slot;

	if (tile->n == lens_tile_rows(t))
		lens_tile_flush(t, tile);
	if (!tile->n)
		clear_tile(t);
	slot = lens_row_slot(tile->n++);
	lens_norm_row(t, x, last, slot);
	t->place[slot] = *place;
	t->place[slot].used = true;
}

static void read_layer(struct lens_tables *t, const struct lens_batch *b,
		       const struct stream *s)
{
	struct lens_tile tile = { .at = LENS_AT_LENS_POS,
				  .layer = s->layer,
				  .bias = !lens_cached_scale(t) };
	size_t i, pos;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			size_t at = (size_t)lens_batch_row(b, i, pos) * s->stride;

			lens_tile_add(t, &tile, s->x + at, s->last ? s->last + at : NULL,
				      &(struct lens_place){
					      .prompt = i, .pos = pos, .next = -1 });
		}
	}
	lens_tile_flush(t, &tile);
}

/* The scale is known when the last layer is: until then the streams are kept. */
static void keep_layer(struct lens_tables *t, const struct lens_batch *b,
		       const struct lens_activation *a, size_t layer)
{
	size_t row, k, d = t->model->config.d_model, each = t->opt.max_rows * d;
	size_t n = lens_axis_extent(LENS_AXIS_LENS_LAYER, &t->opt.sizes);

	for (row = 0; row < b->n_rows; row++)
		memcpy(t->stream + layer * each + row * d, a->data + row * a->stride,
		       d * sizeof(*t->stream));
	if (layer + 1 < n)
		return;
	for (k = 0; k < n; k++)
		read_layer(t, b,
			   &(struct stream){ k, t->stream + k * each, t->stream + layer * each,
					     d });
}

void lens_every_pos_lens(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a, size_t layer)
{
	if (lens_cached_scale(t))
		keep_layer(t, b, a, layer);
	else
		read_layer(t, b, &(struct stream){ layer, a->data, NULL, a->stride });
}
