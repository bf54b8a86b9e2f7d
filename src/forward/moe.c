/*
 * forward/moe.c: an MLP of experts. In: rows of the norm's output; out: rows of mlp_out. A
 * router weighs the experts, and each row goes through those of the largest weights alone:
 * its expert's rows are brought together for one product, and what comes out is added up in
 * the experts' order.
 *
 * A row keeps its way (batch.c) among the rows of an expert, so that its bits, also those of
 * what the router says, are its own, whoever shares the expert with it.
 */
#include "forward/forward_private.h"

#include <math.h>
#include <string.h>

/* x·W_router, then its softmax, in float64 and rounded each time. */
static void weigh(const struct lens_config *c, const float *w_router, const float *x,
		  float *weight)
{
	size_t i, n = c->n_experts;
	double sum = 0, max;

	for (i = 0; i < n; i++)
		weight[i] = (float)lens_vec()->dot(c->d_model, x, w_router + i * c->d_model);
	max = (double)lens_vec()->max_finite(n, weight);
	for (i = 0; i < n; i++)
		sum += exp((double)weight[i] - max);
	for (i = 0; i < n; i++)
		weight[i] = (float)(exp((double)weight[i] - max) / sum);
}

static bool is_among(int32_t expert, size_t n, const int32_t *index)
{
	while (n > 0 && index[n - 1] != expert)
		n--;
	return n > 0;
}

/* The largest weight that is not among the first n; of equal ones the first. */
static int32_t next_largest(const struct lens_config *c, const float *weight, size_t n,
			    const int32_t *index)
{
	int32_t i, best = -1;

	for (i = 0; i < (int32_t)c->n_experts; i++) {
		if (!is_among(i, n, index) && (best < 0 || weight[i] > weight[best]))
			best = i;
	}
	return best;
}

/* A row's experts, the largest weight first, and their shares of the output. */
static void choose(const struct lens_forward *f, size_t row)
{
	const struct lens_config *c = &f->model->config;
	size_t i, k = c->experts_per_token;
	const float *weight = f->expert_weights + row * c->n_experts;
	int32_t *index = f->expert_index + row * k;
	double sum = 0;

	for (i = 0; i < k; i++) {
		index[i] = next_largest(c, weight, i, index);
		sum += (double)weight[index[i]];
	}
	for (i = 0; i < k; i++)
		f->expert_share[row * k + i] =
			(float)((double)weight[index[i]] / (c->norm_expert_weights ? sum : 1));
}

/* Gaps have no experts. */
static void choose_all(const struct lens_forward *f, const struct lens_batch *b)
{
	size_t i, k = f->model->config.experts_per_token;

	memset(f->expert_index, -1, b->n_rows * k * sizeof(*f->expert_index));
	for (i = 0; b->position && i < b->n_rows; i++) {
		if (b->position[i] >= 0)
			choose(f, i);
	}
	for (i = 0; !b->position && i < b->n_prompts; i++) /* the read positions alone */
		choose(f, b->first[i]);
}

/* Brings an expert's rows together; returns how many, with the gaps between them. */
static size_t gather(const struct lens_pass *p, int32_t expert)
{
	const struct lens_forward *f = p->f;
	size_t d = f->model->config.d_model, k = f->model->config.experts_per_token;
	size_t slot, n = 0, end = p->batch->n_rows * k;
	struct lens_row_count c = { { 0 } };

	for (slot = 0; slot < end; slot++) {
		size_t way = lens_row_way_at(slot / k), place;

		if (f->expert_index[slot] != expert)
			continue;
		place = lens_row_place(way, c.n[way]++);
		for (; n < lens_row_places(&c); n++)
			f->expert_slot[n] = -1;
		f->expert_slot[place] = (int32_t)slot;
		memcpy(f->expert_input + place * d, f->normed + slot / k * d,
		       d * sizeof(*f->normed));
	}
	return n;
}

/* y = x·w, [m, n]; x is [m, k] */
static void multiply(const struct lens_forward *f, struct lens_gemm_args g)
{
	g.lda = g.k;
	g.ldb = g.ldc = g.n;
	lens_gemm(&g, f->pad, f->threads);
}

/* expert_input → the expert's output, in its place */
static void expert_mlp(const struct lens_forward *f, const struct lens_block *b, size_t expert,
		       size_t rows)
{
	const struct lens_config *c = &f->model->config;
	size_t d = c->d_model, n = c->d_mlp, at = expert * d * n;
	struct lens_gemm_args g = { .m = rows, .n = n, .k = d, .a = f->expert_input };

	g.b = b->w_gate + at;
	g.c = f->hidden;
	multiply(f, g);
	lens_vec()->activation(c->act, rows * n, f->hidden, f->hidden);
	g.b = b->w_in + at;
	g.c = f->factor;
	multiply(f, g);
	lens_vec()->multiply(rows * n, f->factor, f->hidden);
	multiply(f, (struct lens_gemm_args){ .m = rows,
					     .n = d,
					     .k = n,
					     .a = f->hidden,
					     .b = b->w_out + at,
					     .c = f->expert_input });
}

/* Adds it to the rows that it is of. */
static void scatter(const struct lens_forward *f, size_t rows)
{
	size_t d = f->model->config.d_model, k = f->model->config.experts_per_token, i;

	for (i = 0; i < rows; i++) {
		int32_t slot = f->expert_slot[i];

		if (slot >= 0)
			lens_vec()->add_scaled(d, f->expert_share[slot],
					       f->expert_input + i * d,
					       f->branch + (size_t)slot / k * d);
	}
}

enum lens_status lens_go_through_experts(const struct lens_pass *p, size_t layer)
{
	const struct lens_forward *f = p->f;
	const struct lens_config *c = &f->model->config;
	const struct lens_block *b = &f->model->block[layer];
	size_t i, rows = p->batch->n_rows, d = c->d_model;

	for (i = 0; i < rows; i++)
		weigh(c, b->w_router, f->normed + i * d, f->expert_weights + i * c->n_experts);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_EXPERT_WEIGHTS, layer, f->expert_weights,
				c->n_experts));
	choose_all(f, p->batch);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_EXPERT_INDICES, layer, f->expert_index,
				c->experts_per_token));
	memset(f->branch, 0, rows * d * sizeof(*f->branch));
	for (i = 0; i < c->n_experts; i++) {
		rows = gather(p, (int32_t)i);
		if (!rows)
			continue;
		expert_mlp(f, b, i, rows);
		scatter(f, rows);
	}
	return LENS_OK;
}
