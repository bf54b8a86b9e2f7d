/*
 * forward/attention.c: attention, prompt by prompt and head by head, a block of
 * queries at a time, so that its memory grows with the prompt's length only.
 */
#include "forward/forward_private.h"

#include <math.h>

#ifdef _OPENMP
#include <omp.h>
#endif

static size_t keys_stride(size_t n_pos)
{
	return (n_pos + LENS_KEY_ALIGN - 1) / LENS_KEY_ALIGN * LENS_KEY_ALIGN;
}

/* Which head of which prompt, and whose scratch. */
struct head {
	size_t layer, prompt, head, thread;
};

/* A block of queries of one head: scores, or what softmax made of them. */
static enum lens_status show_square(const struct lens_pass *p, enum lens_hook hook,
				    const struct head *h, const struct lens_attention_args *a)
{
	const struct lens_activation v = {
		.hook = hook,
		.layer = h->layer,
		.data = a->scores,
		.width = a->n_pos,
		.stride = a->ldk,
		.prompt = h->prompt,
		.head = h->head,
		.q0 = a->q0,
		.nq = a->nq,
	};

	if (!lens_wanted(p->visitors, hook, h->layer))
		return LENS_OK;
	return lens_show(p, p->batch, &v, a->scores);
}

static bool squares_shown(const struct lens_pass *p, size_t layer)
{
	return lens_wanted(p->visitors, LENS_HOOK_ATTN_SCORES, layer) ||
	       lens_wanted(p->visitors, LENS_HOOK_PATTERN, layer);
}

/*
 * The positions that ask: those that go on behind the keys and values. In rows that are an
 * earlier prompt's too, that one asks, unless each prompt's scores are to be shown.
 */
static void find_queries(const struct lens_pass *p, const struct head *h, size_t *from,
			 size_t *end)
{
	lens_batch_span(p->rest, h->prompt, from, end);
	if (p->rest == p->batch && !squares_shown(p, h->layer))
		*from = lens_max(*from, p->batch->own[h->prompt]);
}

static enum lens_status ask(const struct lens_pass *p, const struct head *h,
			    struct lens_attention_args a)
{
	size_t from, end;

	find_queries(p, h, &from, &end);
	for (a.q0 = from; a.q0 < end; a.q0 += LENS_QUERY_BLOCK) {
		a.nq = lens_min(end - a.q0, LENS_QUERY_BLOCK);
		lens_vec()->attention_scores(&a);
		LENS_TRY(show_square(p, LENS_HOOK_ATTN_SCORES, h, &a));
		lens_vec()->attention_softmax(&a);
		LENS_TRY(show_square(p, LENS_HOOK_PATTERN, h, &a));
		lens_vec()->attention_mix(&a);
	}
	return LENS_OK;
}

/* Queries, keys and values are read where they are, z is written to its place. */
static enum lens_status attend_in_place(const struct lens_pass *p, const struct head *h,
					struct lens_attention_args a, float *kt)
{
	const struct lens_forward *f = p->f;
	const struct lens_config *c = &f->model->config;
	size_t dh = c->d_head, kv = h->head / (c->n_heads / c->n_kv_heads);
	size_t row = (size_t)lens_batch_row(p->batch, h->prompt, 0);
	float *qkv;

	a.ld = (c->n_heads + 2 * c->n_kv_heads) * dh;
	a.ldz = c->n_heads * dh;
	qkv = f->qkv + row * a.ld;
	lens_vec()->transpose_keys(a.n_pos, dh, qkv + (c->n_heads + kv) * dh, a.ld, kt, a.ldk);
	a.q = qkv + h->head * dh;
	a.v = qkv + (c->n_heads + c->n_kv_heads + kv) * dh;
	a.z = f->z + row * a.ldz + h->head * dh;
	return ask(p, h, a);
}

/*
 * Keys or values of one head, all positions: those without a row are in the past's,
 * [rows, Hkv·dh]; the others are r's.
 */
static void gather_all(const struct lens_pass *p, struct lens_rows r, const float *past,
		       size_t head, float *out)
{
	size_t dh = r.width, at = r.prompt, end;

	lens_batch_span(p->batch, r.prompt, &r.from, &end);
	lens_batch_gather(p->batch, &r, out + r.from * dh);
	if (!r.from)
		return;
	r.end = r.from;
	r.from = 0;
	r.prompt = p->past->prompt[at];
	r.stride = p->f->model->config.n_kv_heads * dh;
	r.data = past + head * dh;
	lens_batch_gather(p->past->batch, &r, out);
}

/*
 * The rows are not consecutive, or not all there, or z's are others: they are brought
 * together, and z is brought to its place.
 */
static enum lens_status attend_gathered(const struct lens_pass *p, const struct head *h,
					struct lens_attention_args a, float *kt)
{
	const struct lens_forward *f = p->f;
	const struct lens_config *c = &f->model->config;
	size_t dh = c->d_head, kv = h->head / (c->n_heads / c->n_kv_heads);
	size_t most = f->max_length * dh;
	float *q = f->gathered + h->thread * 3 * most, *v = q + most, *z = v + most;
	struct lens_rows r = { .prompt = h->prompt,
			       .end = a.n_pos,
			       .width = dh,
			       .stride = (c->n_heads + 2 * c->n_kv_heads) * dh };

	r.data = f->qkv + (c->n_heads + kv) * dh;
	gather_all(p, r, p->past ? p->past->keys[h->layer] : NULL, kv, z);
	lens_vec()->transpose_keys(a.n_pos, dh, z, dh, kt, a.ldk);
	r.data = f->qkv + (c->n_heads + c->n_kv_heads + kv) * dh;
	gather_all(p, r, p->past ? p->past->values[h->layer] : NULL, kv, v);
	r.data = f->qkv + h->head * dh;
	find_queries(p, h, &r.from, &r.end);
	lens_batch_gather(p->batch, &r, q + r.from * dh);
	a.q = q;
	a.v = v;
	a.z = z;
	a.ld = a.ldz = dh;
	LENS_TRY(ask(p, h, a));
	r.stride = c->n_heads * dh;
	lens_batch_scatter(p->rest, &r, z + r.from * dh, f->z + h->head * dh);
	return LENS_OK;
}

/*
 * ALiBi's slopes: 2^(−8k/n), k from 1, for n heads; where n is no power of two, those of the
 * next smaller one, then every other one of the next larger (transformers'
 * build_alibi_tensor), or the same again (TransformerLens's create_alibi_multipliers).
 */
static float alibi_slope(const struct lens_config *c, size_t head)
{
	size_t n_heads = c->n_heads, n = c->alibi_even ? n_heads : 1;

	while (2 * n <= n_heads)
		n *= 2;
	return (float)(head < n ? exp2(-8.0 * (double)(head + 1) / (double)n)
				: exp2(-4.0 * (double)(2 * (head - n) + 1) / (double)n));
}

static enum lens_status attend_head(const struct lens_pass *p, const struct head *h)
{
	const struct lens_forward *f = p->f;
	const struct lens_block *b = &f->model->block[h->layer];
	size_t dh = f->model->config.d_head, ldk_max = keys_stride(f->max_length);
	size_t n = p->batch->length[h->prompt], from, end;
	float *kt = f->keys + h->thread * dh * ldk_max;
	const struct lens_attention_args a = {
		.n_pos = n,
		.d_head = dh,
		.kt = kt,
		.ldk = keys_stride(n),
		.scale = b->attn_scale,
		.window = b->window,
		.cap = (float)f->model->config.score_cap,
		.slope = f->model->config.alibi ? alibi_slope(&f->model->config, h->head) : 0,
		.scores = f->scores + h->thread * LENS_QUERY_BLOCK * ldk_max,
	};

	find_queries(p, h, &from, &end);
	if (from >= end)
		return LENS_OK;
	return p->rest == p->batch && lens_batch_is_run(p->batch, h->prompt, 0, n)
		       ? attend_in_place(p, h, a, kt)
		       : attend_gathered(p, h, a, kt);
}

/* Products of queries and keys from which it pays to start threads that others have left. */
#define WORTH_HELP ((size_t)1 << 18)

static int threads_for(const struct lens_pass *p)
{
	size_t i, products = 0;
	int share;

	for (i = 0; i < p->batch->n_prompts; i++)
		products += p->batch->length[i] * p->batch->length[i];
	if (products < WORTH_HELP / p->f->model->config.n_heads)
		return p->f->threads;
	share = lens_crew_share(p->f->threads);
	return share < p->f->most_threads ? share : p->f->most_threads;
}

enum lens_status lens_attend(const struct lens_pass *p, size_t layer)
{
	size_t i, heads = p->f->model->config.n_heads, n = p->batch->n_prompts * heads;
	int threads = threads_for(p);

	if (threads <= 1 || squares_shown(p, layer)) {
		for (i = 0; i < n; i++)
			LENS_TRY(attend_head(p,
					     &(struct head){ layer, i / heads, i % heads, 0 }));
		return LENS_OK;
	}
	/* Nothing is shown, so nothing can fail. */
#pragma omp parallel for num_threads(threads) schedule(dynamic)
	for (i = 0; i < n; i++)
		attend_head(p, &(struct head){ layer, i / heads, i % heads,
					       (size_t)omp_get_thread_num() });
	return LENS_OK;
}
