/*
 * tables/tile.c: rows of the product with W_U, as many as logits are held of at once. In:
 * rows of the stream and what each is; out: logits, shown to the tables.
 *
 * On AVX2 a row's bits depend on its way, which follows from its lens layer and position
 * (lens_logits_way), never from the tile.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

bool lens_cached_scale(const struct lens_tables *t)
{
	return t->opt.lens == LENS_LENS_CACHED_SCALE_NO_BIAS;
}

/*
 * (x − mean)/scale (RMSNorm: x/scale), in float64; by the other norms' kind, as in
 * TransformerLens, where ln_final is RMSNorm and they are not (final_rms)
 */
static void scale_row(const struct lens_config *c, const float *x, float scale, float *y)
{
	double mean = 0;
	size_t i;

	if (c->norm == LENS_NORM_LN) {
		for (i = 0; i < c->d_model; i++)
			mean += (double)x[i];
	}
	mean /= (double)c->d_model;
	for (i = 0; i < c->d_model; i++)
		y[i] = (float)(((double)x[i] - mean) / (double)scale);
}

void lens_norm_row(struct lens_tables *t, const float *x, const float *last, size_t slot)
{
	float *y = t->normed + slot * t->model->config.d_model;

	lens_final_norm(t->model, 1, last ? last : x, y, t->scale + slot);
	if (last)
		scale_row(&t->model->config, x, t->scale[slot], y);
}

/*
 * The last layer's is the position's, as in /cache/logits. A layer's read position and a
 * position's layers have both ways by turns, resid_pre and resid_mid of a layer both, and
 * it does not matter whether resid_mid is read too.
 */
size_t lens_logits_way(const struct lens_tables *t, size_t layers_after, size_t pos)
{
	bool mid = t->opt.sizes.lens_mid;
	size_t n = mid ? (layers_after + 1) / 2 + layers_after % 2 : layers_after;

	return lens_row_way(n + pos);
}

bool lens_tile_is_full(const struct lens_tables *t, const struct lens_row_count *used,
		       size_t way)
{
	return used->n[way] == lens_row_room(t->tile);
}

/* Slots that no row takes are multiplied too. */
static size_t clear_gaps(struct lens_tables *t, const struct lens_row_count *used)
{
	size_t way, i, slot, slots = lens_row_places(used), d = t->model->config.d_model;

	for (way = 0; way < lens_row_ways(); way++) {
		for (i = used->n[way]; (slot = lens_row_place(way, i)) < slots; i++)
			memset(t->normed + slot * d, 0, d * sizeof(*t->normed));
	}
	return slots;
}

void lens_unembed_tile(struct lens_tables *t, const struct lens_row_count *used, bool bias)
{
	const struct lens_unembed_args a = { .rows = clear_gaps(t, used),
					     .normed = t->normed,
					     .bias = bias,
					     .logits = t->logit,
					     .pad = t->pad,
					     .threads = t->opt.threads };

	lens_unembed(t->model, &a);
}

/* The largest logit of each place, and Σ exp. */
static void measure(struct lens_tables *t, size_t n)
{
	size_t i, v = lens_n_logits(&t->model->config);
	int threads = lens_crew_share(t->opt.threads < 1 ? 1 : t->opt.threads);

#pragma omp parallel for num_threads(threads) if (threads > 1)
	for (i = 0; i < n; i++) {
		struct lens_place *p = &t->place[i];
		const float *logit = t->logit + p->slot * v;

		p->max = lens_vec()->max_finite(v, logit);
		p->sum_exp = isnan(p->max) ? 0 : lens_vec()->sum_exp(v, logit, p->max);
	}
}

static struct lens_logits logits_of(struct lens_tables *t, const struct lens_place *p)
{
	size_t v = lens_n_logits(&t->model->config);

	return (struct lens_logits){ .prompt = p->prompt,
				     .of_answer = p->of_answer,
				     .pos = p->pos,
				     .next = p->next,
				     .logit = t->logit + p->slot * v,
				     .d_vocab = v,
				     .finite = !isnan(p->max),
				     .max = p->max,
				     .sum_exp = p->sum_exp,
				     .top = t->top };
}

void lens_tile_flush(struct lens_tables *t, struct lens_tile *tile)
{
	size_t i;

	if (!tile->n)
		return;
	lens_unembed_tile(t, &tile->used, tile->bias);
	measure(t, tile->n);
	for (i = 0; i < tile->n; i++) {
		struct lens_logits l = logits_of(t, &t->place[i]);

		l.layer = tile->layer;
		if (tile->at & LENS_AT_NEXT_TOKEN && l.next >= 0)
			lens_show_logits(t, LENS_AT_NEXT_TOKEN, &l);
		if (tile->at != LENS_AT_NEXT_TOKEN)
			lens_show_logits(t, tile->at & ~(unsigned)LENS_AT_NEXT_TOKEN, &l);
	}
	tile->used = (struct lens_row_count){ { 0 } };
	tile->n = 0;
}

size_t lens_tile_add(struct lens_tables *t, struct lens_tile *tile, size_t way,
		     const struct lens_place *place)
{
	struct lens_place *p;

	if (lens_tile_is_full(t, &tile->used, way))
		lens_tile_flush(t, tile);
	p = &t->place[tile->n++];
	*p = *place;
	p->slot = lens_row_place(way, tile->used.n[way]++);
	return p->slot;
}
