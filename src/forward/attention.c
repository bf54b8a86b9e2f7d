/*
 * forward/attention.c: attention, prompt by prompt and head by head, a block of
 * queries at a time, so that its memory grows with the prompt's length only.
 */
#include "forward/forward_private.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static size_t keys_stride(size_t n_pos)
{
	return (n_pos + LENS_KEY_ALIGN - 1) / LENS_KEY_ALIGN * LENS_KEY_ALIGN;
}

static enum lens_status show_square(const struct lens_pass *p, enum lens_hook hook,
				    size_t layer, size_t prompt, size_t head,
				    const struct lens_attention_args *a)
{
	const struct lens_activation v = {
		.hook = hook,
		.layer = layer,
		.data = a->scores,
		.width = a->n_pos,
		.stride = a->ldk,
		.prompt = prompt,
		.head = head,
		.q0 = a->q0,
		.nq = a->nq,
	};

	if (!lens_hook_wanted(p->visitor->hooks, hook, layer))
		return LENS_OK;
	return p->visitor->visit(p->visitor->ctx, p->batch, &v, p->err);
}

/* One head of one prompt; thread numbers the scratch to use. */
static enum lens_status attend_head(const struct lens_pass *p, size_t layer, size_t prompt,
				    size_t head, size_t thread)
{
	const struct lens_forward *f = p->f;
	const struct lens_config *c = &f->model->config;
	const struct lens_block *b = &f->model->block[layer];
	size_t dh = c->d_head, kv = head / (c->n_heads / c->n_kv_heads);
	size_t width = (c->n_heads + 2 * c->n_kv_heads) * dh, row = p->batch->offset[prompt];
	size_t ldk_max = keys_stride(f->max_length);
	const float *qkv = f->qkv + row * width;
	struct lens_attention_args a = {
		.n_pos = p->batch->length[prompt],
		.d_head = dh,
		.q = qkv + head * dh,
		.v = qkv + (c->n_heads + c->n_kv_heads + kv) * dh,
		.ld = width,
		.ldk = keys_stride(p->batch->length[prompt]),
		.scale = b->attn_scale,
		.window = b->window,
		.scores = f->scores + thread * LENS_QUERY_BLOCK * ldk_max,
		.z = f->z + row * c->n_heads * dh + head * dh,
		.ldz = c->n_heads * dh,
	};
	float *kt = f->keys + thread * dh * ldk_max;
	size_t first = 0, end = a.n_pos;

	lens_vec()->transpose_keys(a.n_pos, dh, qkv + (c->n_heads + kv) * dh, width, kt, a.ldk);
	a.kt = kt;
	if (p->read_rows) {
		first = (size_t)p->batch->read_pos[prompt];
		end = first + 1;
	}
	for (a.q0 = first; a.q0 < end; a.q0 += LENS_QUERY_BLOCK) {
		a.nq = end - a.q0 < LENS_QUERY_BLOCK ? end - a.q0 : LENS_QUERY_BLOCK;
		lens_vec()->attention_scores(&a);
		LENS_TRY(show_square(p, LENS_HOOK_ATTN_SCORES, layer, prompt, head, &a));
		lens_vec()->attention_softmax(&a);
		LENS_TRY(show_square(p, LENS_HOOK_PATTERN, layer, prompt, head, &a));
		lens_vec()->attention_mix(&a);
	}
	return LENS_OK;
}

enum lens_status lens_attend(const struct lens_pass *p, size_t layer)
{
	size_t i, heads = p->f->model->config.n_heads, n = p->batch->n_prompts * heads;
	bool shown = lens_hook_wanted(p->visitor->hooks, LENS_HOOK_ATTN_SCORES, layer) ||
		     lens_hook_wanted(p->visitor->hooks, LENS_HOOK_PATTERN, layer);

	if (p->f->threads <= 1 || shown) {
		for (i = 0; i < n; i++)
			LENS_TRY(attend_head(p, layer, i / heads, i % heads, 0));
		return LENS_OK;
	}
	/* Nothing is shown, so nothing can fail. */
#pragma omp parallel for num_threads(p->f->threads) schedule(dynamic)
	for (i = 0; i < n; i++)
		attend_head(p, layer, i / heads, i % heads, (size_t)omp_get_thread_num());
	return LENS_OK;
}
