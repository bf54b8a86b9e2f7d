/*
 * tables/positions.c: the logits at every position: the model's own, and each lens
 * layer's. In: ln_final.hook_normalized, or the stream, at all rows of a batch; out:
 * logits, shown to the tables that read them. And the answers' logits alone, which need no
 * product with W_U.
 *
 * The rows go through the unembedding a tile at a time, so that a batch's
 * logits are never held. Their ways are those that the read position has too (lens_logits_way):
 * so its logits are the same bits as in logits.c, and the model's own and
 * those of the last lens layer are the bits of /cache/logits. A prompt's last one, which
 * predicts nothing that is there, is only for tables that want it.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

/* --- the model's own ----------------------------------------------------------- */

/* ln_final.hook_normalized → ln_final's output, in a slot. */
static void take_row(struct lens_tables *t, const float *row, size_t slot)
{
	size_t d = t->model->config.d_model;

	memcpy(t->normed + slot * d, row, d * sizeof(*row));
	lens_final_weight(t->model, 1, t->normed + slot * d);
}

void lens_every_pos_read(struct lens_tables *t, const struct lens_batch *b,
			 const struct lens_activation *a)
{
	struct lens_tile tile = { .at = LENS_AT_ALL_POS, .bias = true };
	size_t i, pos, last = t->logits & LENS_AT_EVERY_POS ? 0 : 1;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos + last < b->length[i]; pos++) {
			size_t row = (size_t)lens_batch_row(b, i, pos);
			const struct lens_place place = {
				.prompt = i,
				.pos = pos,
				.next = pos + 1 < b->length[i] ? b->tokens[i][pos + 1] : -1
			};

			take_row(t, a->data + row * a->stride,
				 lens_tile_add(t, &tile, lens_logits_way(t, 0, pos), &place));
		}
	}
	lens_tile_flush(t, &tile);
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
		t->answer_logit[k] =
			lens_capped(t->model, logit_of(t->model, t->normed, l.answer[k]));
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

static void read_layer(struct lens_tables *t, const struct lens_batch *b,
		       const struct stream *s)
{
	struct lens_tile tile = { .at = LENS_AT_LENS_POS,
				  .layer = s->layer,
				  .bias = !lens_cached_scale(t) };
	size_t n = lens_axis_extent(LENS_AXIS_LENS_LAYER, &t->opt.sizes), i, pos;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			size_t at = (size_t)lens_batch_row(b, i, pos) * s->stride;
			size_t way = lens_logits_way(t, n - 1 - s->layer, pos);
			const struct lens_place place = { .prompt = i, .pos = pos, .next = -1 };

			lens_norm_row(t, s->x + at, s->last ? s->last + at : NULL,
				      lens_tile_add(t, &tile, way, &place));
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
