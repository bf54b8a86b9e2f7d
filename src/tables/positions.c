/*
 * tables/positions.c: the logits at every position; at a prompt's last one, which no token
 * follows, only for tables that want it. In: ln_final.hook_normalized at all rows of a
 * batch; out: logits, shown to the tables that read them.
 *
 * The rows go through the unembedding a tile at a time, so that a batch's
 * logits are never held. A prompt starts at a multiple of lens_row_align() and a
 * tile is a multiple of 12 slots, so each position keeps its place in the
 * twelve and with it its bits, which are those of /cache/logits.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

/* Unembeds the tile's slots and shows each place's logits, in order. */
static void flush(struct lens_tables *t, size_t slots)
{
	size_t i, v = t->model->config.d_vocab;
	int threads = t->opt.threads < 1 ? 1 : t->opt.threads;

	lens_unembed_tile(t, slots, true);
#pragma omp parallel for num_threads(threads) if (threads > 1)
	for (i = 0; i < slots; i++) {
		struct lens_place *p = &t->place[i];

		if (!p->used)
			continue;
		p->max = lens_vec()->max_finite(v, t->logit + i * v);
		p->sum_exp =
			isnan(p->max) ? 0 : lens_vec()->sum_exp(v, t->logit + i * v, p->max);
	}
	for (i = 0; i < slots; i++) {
		const struct lens_place *p = &t->place[i];
		struct lens_logits l = { .prompt = p->prompt,
					 .pos = p->pos,
					 .next = p->next,
					 .logit = t->logit + i * v,
					 .d_vocab = v,
					 .finite = !isnan(p->max),
					 .max = p->max,
					 .sum_exp = p->sum_exp,
					 .top = t->top };

		if (p->used && p->next >= 0)
			lens_show_logits(t, LENS_AT_NEXT_TOKEN, &l);
		if (p->used)
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
