/*
 * forward/buffers.c: a worker's memory, one allocation, sized once.
 */
#include "forward/forward_private.h"

#include <string.h>

/* Hands out parts of an arena; with a NULL base it only counts. */
struct layout {
	float *base;
	size_t used; /* floats */
	bool overflow;
};

static float *take(struct layout *l, size_t rows, size_t width)
{
	size_t n, at = l->used;

	/* Parts start on 64 bytes. */
	if (!lens_size_mul(rows, width, &n) || !lens_size_add(n, 15, &n) ||
	    !lens_size_add(l->used, n / 16 * 16, &l->used)) {
		l->overflow = true;
		return NULL;
	}
	return l->base ? l->base + at : NULL;
}

/* Of the same size. */
static int32_t *take_ints(struct layout *l, size_t rows, size_t width)
{
	void *p = take(l, rows, width);

	return p;
}

static size_t pad_floats(const struct lens_config *c)
{
	size_t d = c->d_model, hd = c->n_heads * c->d_head;
	size_t n = lens_gemm_pad_floats((c->n_heads + 2 * c->n_kv_heads) * c->d_head, d);

	n = lens_max(n, lens_gemm_pad_floats(d, hd));
	n = lens_max(n, lens_gemm_pad_floats(d, c->d_head));
	if (!c->attn_only) {
		n = lens_max(n, lens_gemm_pad_floats(c->d_mlp, d));
		n = lens_max(n, lens_gemm_pad_floats(d, c->d_mlp));
	}
	return lens_max(n, lens_unembed_pad_floats(c));
}

static bool any_layer(const struct lens_visitors *v, enum lens_hook hook, size_t n_layers)
{
	size_t i;

	for (i = 0; i < n_layers; i++) {
		if (lens_wanted(v, hook, i))
			return true;
	}
	return false;
}

static void lay_out(struct lens_forward *f, struct layout *l, const struct lens_visitors *v)
{
	const struct lens_config *c = &f->model->config;
	size_t rows = f->max_rows, d = c->d_model, dh = c->d_head, heads = c->n_heads;
	size_t ldk = (f->max_length + LENS_KEY_ALIGN - 1) / LENS_KEY_ALIGN * LENS_KEY_ALIGN;
	size_t threads = (size_t)f->most_threads;

	f->resid = take(l, rows, d);
	f->branch = take(l, rows, d);
	f->normed = take(l, rows, d);
	f->positions = c->shortformer ? take(l, rows, d) : NULL;
	f->scale = take(l, rows, 1);
	f->qkv = take(l, rows, (heads + 2 * c->n_kv_heads) * dh);
	f->head_scale = c->qk_norm ? take(l, rows, heads) : NULL;
	f->z = take(l, rows, heads * dh);
	f->hidden = take(l, rows, c->d_mlp);
	f->factor = c->gated_mlp ? take(l, rows, c->d_mlp) : NULL;
	if (c->n_experts) {
		f->expert_input = take(l, rows, d);
		f->expert_weights = take(l, rows, c->n_experts);
		f->expert_share = take(l, rows, c->experts_per_token);
		f->expert_index = take_ints(l, rows, c->experts_per_token);
		f->expert_slot = take_ints(l, rows, 1);
	}
	f->result =
		any_layer(v, LENS_HOOK_RESULT, c->n_layers) ? take(l, rows, heads * d) : NULL;
	f->logits =
		lens_wanted(v, LENS_HOOK_LOGITS, 0) ? take(l, rows, lens_n_logits(c)) : NULL;
	f->pad = take(l, 1, pad_floats(c));
	f->keys = take(l, threads * dh, ldk);
	f->scores = take(l, threads * LENS_QUERY_BLOCK, ldk);
	f->gathered = take(l, threads * 3 * f->max_length, dh);
}

static struct lens_forward sized(const struct lens_model *m,
				 const struct lens_forward_size *size)
{
	int threads = size->threads < 1 ? 1 : size->threads;

	return (struct lens_forward){ .model = m,
				      .threads = threads,
				      .most_threads = size->most_threads > threads
							      ? size->most_threads
							      : threads,
				      .max_rows = size->max_rows,
				      .max_length = size->max_length };
}

size_t lens_forward_bytes(const struct lens_model *m, const struct lens_forward_size *size)
{
	struct lens_forward f = sized(m, size);
	struct layout l = { 0 };
	size_t bytes, read_row;

	lay_out(&f, &l, size->visitors);
	if (l.overflow || !lens_size_mul(l.used, sizeof(float), &bytes) ||
	    !lens_size_mul(size->max_rows, sizeof(*f.read_row), &read_row) ||
	    !lens_size_add(bytes, read_row, &bytes) ||
	    !lens_size_add(bytes, lens_rotary_bytes(&m->config.rotary, size->max_length),
			   &bytes) ||
	    !lens_size_add(bytes, lens_rotary_bytes(&m->config.local_rotary, size->max_length),
			   &bytes))
		return SIZE_MAX;
	return bytes;
}

enum lens_status lens_forward_create(const struct lens_model *m,
				     const struct lens_forward_size *size,
				     struct lens_forward **out, struct lens_error *err)
{
	struct lens_forward *f = lens_calloc(1, sizeof(*f));
	struct layout l = { 0 };
	enum lens_status st;

	*out = NULL;
	if (!f)
		return lens_error_nomem(err, 1, sizeof(*f));
	*f = sized(m, size);
	lay_out(f, &l, size->visitors);
	f->arena = l.overflow ? NULL : lens_alloc_aligned(l.used, sizeof(float));
	f->read_row = lens_calloc(size->max_rows, sizeof(*f->read_row));
	if (!f->arena || !f->read_row) {
		lens_forward_destroy(f);
		return lens_error_nomem(err, l.used, sizeof(float));
	}
	/* Rows between prompts are read by nobody, but must not be signalling. */
	memset(f->arena, 0, l.used * sizeof(float));
	l = (struct layout){ .base = f->arena };
	lay_out(f, &l, size->visitors);
	st = lens_rotary_table(&m->config.rotary, size->max_length, &f->angle, err);
	if (st == LENS_OK)
		st = lens_rotary_table(&m->config.local_rotary, size->max_length,
				       &f->local_angle, err);
	if (st == LENS_OK)
		*out = f;
	else
		lens_forward_destroy(f);
	return st;
}

void lens_forward_destroy(struct lens_forward *f)
{
	if (!f)
		return;
	lens_free(f->angle);
	lens_free(f->local_angle);
	lens_free(f->arena);
	lens_free(f->read_row);
	lens_free(f);
}
