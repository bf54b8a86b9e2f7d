/*
 * forward/forward.c: the forward pass. In: a batch of packed tokens; out: the
 * hook points that the visitor wants, in the order in which they arise.
 *
 * Shapes: T rows of the batch, D d_model, H heads, dh d_head, F d_mlp. Buffers
 * are the worker's own and sized once.
 */
#include "forward/forward_private.h"

#include <string.h>

static bool wanted(const struct lens_pass *p, enum lens_hook hook, size_t layer)
{
	return lens_wanted(p->visitors, hook, layer) != LENS_WANT_NOT;
}

static enum lens_status show(const struct lens_pass *p, enum lens_hook hook, size_t layer,
			     float *data, size_t width, size_t stride)
{
	const struct lens_activation a = {
		.hook = hook, .layer = layer, .data = data, .width = width, .stride = stride
	};

	return wanted(p, hook, layer) ? lens_show(p, p->batch, &a, data) : LENS_OK;
}

enum lens_status lens_show_rows(const struct lens_pass *p, enum lens_hook hook, size_t layer,
				void *data, size_t width)
{
	return show(p, hook, layer, data, width, width);
}

/* A weight matrix, [k, n], and its bias or NULL. ld: 0, or w and y are columns of wider ones.
 */
struct linear {
	const float *w, *b;
	size_t k, n, ld;
};

/* y = b + x·w over all rows of the batch */
static void linear(const struct lens_pass *p, const float *x, struct linear l, float *y)
{
	const struct lens_gemm_args g = {
		.m = p->batch->n_rows,
		.n = l.n,
		.k = l.k,
		.a = x,
		.lda = l.k,
		.b = l.w,
		.ldb = l.ld ? l.ld : l.n,
		.trans = LENS_B_PLAIN,
		.bias = l.b,
		.c = y,
		.ldc = l.ld ? l.ld : l.n,
	};

	lens_gemm(&g, p->f->pad, p->f->threads);
}

/* A norm's place among the hook points. */
struct norm_hooks {
	enum lens_hook scale, normalized;
	size_t layer;
};
static const struct norm_hooks ln_final = { LENS_HOOK_LN_FINAL_SCALE,
					    LENS_HOOK_LN_FINAL_NORMALIZED, 0 };

/*
 * resid → normed. As in TransformerLens, hook_normalized of an unfolded LayerNorm is
 * its output, that of an unfolded RMSNorm what comes before the weight. Without norms
 * before, a block reads the stream as it is.
 */
static enum lens_status norm(const struct lens_pass *p, struct norm_hooks h, const float *w,
			     const float *b)
{
	const struct lens_config *c = &p->f->model->config;
	const bool final = h.scale == ln_final.scale;
	const struct lens_norm_args a = { final ? lens_final_norm_kind(c) : c->norm,
					  p->f->resid, w, b };
	size_t rows = p->batch->n_rows;

	if (!c->norms_before && !final) {
		memcpy(p->f->normed, p->f->resid, rows * c->d_model * sizeof(*p->f->normed));
		return LENS_OK;
	}
	lens_norm_rows(c, rows, &a, p->f->normed, p->f->scale);
	LENS_TRY(lens_show_rows(p, h.scale, h.layer, p->f->scale, 1));
	LENS_TRY(lens_show_rows(p, h.normalized, h.layer, p->f->normed, c->d_model));
	if (a.kind == LENS_NORM_RMS)
		lens_norm_weight(c, rows, w, p->f->normed);
	return LENS_OK;
}

/* branch → what is added to the stream, in place. */
static enum lens_status norm_after(const struct lens_pass *p, struct norm_hooks h,
				   const float *w)
{
	const struct lens_config *c = &p->f->model->config;
	size_t rows = p->batch->n_rows;

	if (!c->norms_after)
		return LENS_OK;
	lens_vec()->rms_norm(rows, c->d_model, p->f->branch, c->eps, p->f->branch, p->f->scale);
	LENS_TRY(lens_show_rows(p, h.scale, h.layer, p->f->scale, 1));
	LENS_TRY(lens_show_rows(p, h.normalized, h.layer, p->f->branch, c->d_model));
	lens_norm_weight(c, rows, w, p->f->branch);
	return LENS_OK;
}

/* The rows of a table; those between prompts are zero. */
static void look_up(const struct lens_pass *p, const float *table, const int32_t *index,
		    float *out)
{
	size_t d = p->f->model->config.d_model, row, n = p->batch->n_rows;

	memset(out, 0, n * d * sizeof(*out));
	for (row = 0; row < n; row++) {
		if (index[row] >= 0)
			memcpy(out + row * d, table + (size_t)index[row] * d, d * sizeof(*out));
	}
}

/* resid = W_E[token] (+ W_pos[position]) */
static enum lens_status embed(const struct lens_pass *p)
{
	const struct lens_model *m = p->f->model;
	size_t d = m->config.d_model;
	float *pos = p->f->positions ? p->f->positions : p->f->branch;

	look_up(p, m->w_e, p->batch->token, p->f->resid);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_EMBED, 0, p->f->resid, d));
	if (!m->w_pos)
		return LENS_OK;
	look_up(p, m->w_pos, p->batch->position, pos);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_POS_EMBED, 0, pos, d));
	if (m->config.learned_positions)
		lens_vec()->add(p->batch->n_rows * d, pos, p->f->resid);
	return LENS_OK;
}

/* hook_result: each head's z·W_O, [T, H, D], without b_O. */
static enum lens_status head_results(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];
	size_t h, dh = c->d_head, d = c->d_model;
	struct lens_gemm_args g = {
		.m = p->batch->n_rows,
		.n = d,
		.k = dh,
		.lda = c->n_heads * dh,
		.ldb = d,
		.trans = LENS_B_PLAIN,
		.ldc = c->n_heads * d,
	};

	if (!wanted(p, LENS_HOOK_RESULT, layer))
		return LENS_OK;
	for (h = 0; h < c->n_heads; h++) {
		g.a = p->f->z + h * dh;
		g.b = b->w_o + h * dh * d;
		g.c = p->f->result + h * d;
		lens_gemm(&g, p->f->pad, p->f->threads);
	}
	return lens_show_rows(p, LENS_HOOK_RESULT, layer, p->f->result, c->n_heads * d);
}

/* Queries or keys in qkv, from a column on; hook_normalized comes before the weight. */
struct qk_norm {
	enum lens_hook scale, normalized;
	size_t column, heads;
	const float *w; /* [dh], or of all heads */
};

/* One norm of all heads is each head's. */
static void norm_row_of_heads(const struct lens_config *c, size_t heads, float *x, float *scale)
{
	bool all = c->qk_norm == LENS_QK_NORM_ALL;
	size_t h;

	lens_vec()->rms_norm(all ? 1 : heads, all ? heads * c->d_head : c->d_head, x, c->eps, x,
			     scale);
	for (h = 1; all && h < heads; h++)
		scale[h] = scale[0];
}

static enum lens_status norm_heads(const struct lens_pass *p, size_t layer, struct qk_norm n)
{
	const struct lens_config *c = &p->f->model->config;
	size_t dh = c->d_head, width = (c->n_heads + 2 * c->n_kv_heads) * dh, row, h;
	float *x = p->f->qkv + n.column;
	bool all = c->qk_norm == LENS_QK_NORM_ALL;

	for (row = 0; row < p->batch->n_rows; row++)
		norm_row_of_heads(c, n.heads, x + row * width,
				  p->f->head_scale + row * n.heads);
	LENS_TRY(lens_show_rows(p, n.scale, layer, p->f->head_scale, n.heads));
	LENS_TRY(show(p, n.normalized, layer, x, n.heads * dh, width));
	for (row = 0; row < p->batch->n_rows; row++) {
		for (h = 0; h < n.heads; h++)
			lens_vec()->multiply(dh, n.w + (all ? h * dh : 0),
					     x + row * width + h * dh);
	}
	return LENS_OK;
}

static enum lens_status norm_qk(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];

	LENS_TRY(norm_heads(p, layer,
			    (struct qk_norm){ LENS_HOOK_Q_NORM_SCALE,
					      LENS_HOOK_Q_NORM_NORMALIZED, 0, c->n_heads,
					      b->q_norm_w }));
	return norm_heads(p, layer,
			  (struct qk_norm){ LENS_HOOK_K_NORM_SCALE, LENS_HOOK_K_NORM_NORMALIZED,
					    c->n_heads * c->d_head, c->n_kv_heads,
					    b->k_norm_w });
}

/* normed → qkv. In a shortformer queries and keys are made of normed and the positions. */
static void make_qkv(const struct lens_pass *p, const struct lens_block *b)
{
	const struct lens_config *c = &p->f->model->config;
	size_t d = c->d_model, kv = c->n_kv_heads * c->d_head;
	size_t qk = c->n_heads * c->d_head + kv, width = qk + kv;
	float *x = p->f->normed, *qkv = p->f->qkv;

	if (!c->shortformer) {
		linear(p, x, (struct linear){ b->w_qkv, b->b_qkv, d, width, 0 }, qkv);
		return;
	}
	linear(p, x, (struct linear){ b->w_qkv + qk, b->b_qkv + qk, d, kv, width }, qkv + qk);
	lens_vec()->add(p->batch->n_rows * d, p->f->positions, x);
	linear(p, x, (struct linear){ b->w_qkv, b->b_qkv, d, qk, width }, qkv);
}

/* normed → queries, keys, values → z, in the rows of p->rest */
static enum lens_status attention(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	size_t q = c->n_heads * c->d_head, kv = c->n_kv_heads * c->d_head, width = q + 2 * kv;
	float *qkv = p->f->qkv;

	make_qkv(p, &p->f->model->block[layer]);
	LENS_TRY(show(p, LENS_HOOK_Q, layer, qkv, q, width));
	LENS_TRY(show(p, LENS_HOOK_K, layer, qkv + q, kv, width));
	LENS_TRY(show(p, LENS_HOOK_V, layer, qkv + q + kv, kv, width));
	if (c->qk_norm)
		LENS_TRY(norm_qk(p, layer));
	if (c->rotary.dim) {
		lens_rotate(p, layer);
		LENS_TRY(show(p, LENS_HOOK_ROT_Q, layer, qkv, q, width));
		LENS_TRY(show(p, LENS_HOOK_ROT_K, layer, qkv + q, kv, width));
	}
	return lens_attend(p, layer);
}

/* SoLU is of a row; the others are of each element. */
static void activate(const struct lens_pass *p, float *x)
{
	const struct lens_config *c = &p->f->model->config;
	size_t row, f = c->d_mlp, rows = p->batch->n_rows;

	if (c->act != LENS_ACT_SOLU) {
		lens_vec()->activation(c->act, rows * f, x, x);
		return;
	}
	for (row = 0; row < rows; row++)
		lens_vec()->activation(c->act, f, x + row * f, x + row * f);
}

/* solu_ln: LayerNorm of what the activation gives. */
static enum lens_status norm_inner(const struct lens_pass *p, size_t layer, float *hidden)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];
	size_t f = c->d_mlp;

	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_MID, layer, hidden, f));
	lens_vec()->layer_norm(p->batch->n_rows, f, hidden, b->mlp_ln_w, b->mlp_ln_b, c->eps,
			       hidden, p->f->scale);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_LN_SCALE, layer, p->f->scale, 1));
	return lens_show_rows(p, LENS_HOOK_MLP_LN_NORMALIZED, layer, hidden, f);
}

/* post = act(x·W_gate) · (x·W_in); TransformerLens's own models add b_in last. */
static enum lens_status gate(const struct lens_pass *p, size_t layer, float *hidden)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];
	size_t f = c->d_mlp, rows = p->batch->n_rows, row;
	const float *bias = c->mlp_bias_after ? NULL : b->b_in;
	float *factor = p->f->factor;

	linear(p, p->f->normed, (struct linear){ b->w_in, bias, c->d_model, f, 0 }, factor);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_PRE_LINEAR, layer, factor, f));
	lens_vec()->multiply(rows * f, factor, hidden);
	for (row = 0; c->mlp_bias_after && row < rows; row++)
		lens_vec()->add(f, b->b_in, hidden + row * f);
	return LENS_OK;
}

/* normed → MLP → branch */
static enum lens_status one_mlp(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];
	size_t d = c->d_model, f = c->d_mlp;
	const struct linear first = { c->gated_mlp ? b->w_gate : b->w_in,
				      c->gated_mlp ? b->b_gate : b->b_in, d, f, 0 };
	float *hidden = p->f->hidden;

	linear(p, p->f->normed, first, hidden);
	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_PRE, layer, hidden, f));
	activate(p, hidden);
	if (c->mlp_norm)
		LENS_TRY(norm_inner(p, layer, hidden));
	if (c->gated_mlp)
		LENS_TRY(gate(p, layer, hidden));
	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_POST, layer, hidden, f));
	linear(p, hidden, (struct linear){ b->w_out, b->b_out, f, d, 0 }, p->f->branch);
	return LENS_OK;
}

/* normed → branch (mlp_out) */
static enum lens_status mlp(const struct lens_pass *p, size_t layer)
{
	const struct lens_model *m = p->f->model;

	LENS_TRY((m->config.n_experts ? lens_go_through_experts : one_mlp)(p, layer));
	LENS_TRY(norm_after(p,
			    (struct norm_hooks){ LENS_HOOK_LN2_POST_SCALE,
						 LENS_HOOK_LN2_POST_NORMALIZED, layer },
			    m->block[layer].ln2_post_w));
	return lens_show_rows(p, LENS_HOOK_MLP_OUT, layer, p->f->branch, m->config.d_model);
}

/*
 * z → branch (attn_out) → MLP → resid_post, on the rows of the batch. The MLP
 * reads the stream behind attention, in a parallel block the one before it; without one
 * resid_post is that stream.
 */
static enum lens_status second_half(const struct lens_pass *p, size_t layer)
{
	const struct lens_config *c = &p->f->model->config;
	const struct lens_block *b = &p->f->model->block[layer];
	const struct linear out = { b->w_o, b->b_o, c->n_heads * c->d_head, c->d_model, 0 };
	size_t n = p->batch->n_rows * c->d_model, d = c->d_model;
	float *resid = p->f->resid;

	LENS_TRY(lens_show_rows(p, LENS_HOOK_Z, layer, p->f->z, out.k));
	LENS_TRY(head_results(p, layer));
	linear(p, p->f->z, out, p->f->branch);
	LENS_TRY(norm_after(p,
			    (struct norm_hooks){ LENS_HOOK_LN1_POST_SCALE,
						 LENS_HOOK_LN1_POST_NORMALIZED, layer },
			    b->ln1_post_w));
	LENS_TRY(lens_show_rows(p, LENS_HOOK_ATTN_OUT, layer, p->f->branch, d));
	if (!c->parallel_block)
		lens_vec()->add(n, p->f->branch, resid);
	if (c->attn_only)
		return lens_show_rows(p, LENS_HOOK_RESID_POST, layer, resid, d);
	if (!c->parallel_block)
		LENS_TRY(lens_show_rows(p, LENS_HOOK_RESID_MID, layer, resid, d));
	LENS_TRY(lens_show_rows(p, LENS_HOOK_MLP_IN, layer, resid, d));
	LENS_TRY(norm(p,
		      (struct norm_hooks){ LENS_HOOK_LN2_SCALE, LENS_HOOK_LN2_NORMALIZED,
					   layer },
		      b->ln2_w, b->ln2_b));
	if (c->parallel_block)
		lens_vec()->add(n, p->f->branch, resid);
	LENS_TRY(mlp(p, layer));
	lens_vec()->add(n, p->f->branch, resid);
	return lens_show_rows(p, LENS_HOOK_RESID_POST, layer, resid, d);
}

/*
 * Moves the rows of the stream that go on to their places in the batch of read positions,
 * where z's are already. They pass through a buffer that is free before the next norm.
 */
static void keep_rest(const struct lens_pass *p)
{
	size_t i, d = p->f->model->config.d_model;
	float *resid = p->f->normed;

	for (i = 0; i < p->rest->n_prompts; i++) {
		size_t pos = (size_t)p->rest->read_pos[i];
		size_t from = (size_t)lens_batch_row(p->batch, i, pos);
		size_t to = (size_t)lens_batch_row(p->rest, i, pos);

		memcpy(resid + to * d, p->f->resid + from * d, d * sizeof(*resid));
	}
	memcpy(p->f->resid, resid, p->rest->n_rows * d * sizeof(*resid));
}

static enum lens_status block(const struct lens_pass *pass, size_t layer, bool at_read_pos)
{
	const struct lens_block *b = &pass->f->model->block[layer];
	struct lens_pass p = *pass, rest = *pass;
	struct lens_batch kept;

	p.rest = p.batch;
	if (at_read_pos) {
		lens_batch_keep_read(p.batch, p.f->read_row, &kept);
		p.rest = &kept;
	}
	LENS_TRY(lens_show_rows(&p, LENS_HOOK_RESID_PRE, layer, p.f->resid,
				p.f->model->config.d_model));
	LENS_TRY(norm(&p,
		      (struct norm_hooks){ LENS_HOOK_LN1_SCALE, LENS_HOOK_LN1_NORMALIZED,
					   layer },
		      b->ln1_w, b->ln1_b));
	LENS_TRY(attention(&p, layer));
	if (at_read_pos)
		keep_rest(&p);
	rest.batch = p.rest;
	return second_half(&rest, layer);
}

/* ln_final, and every position's logits where they are wanted. */
static enum lens_status head(const struct lens_pass *p)
{
	const struct lens_model *m = p->f->model;
	const struct lens_unembed_args a = { .rows = p->batch->n_rows,
					     .normed = p->f->normed,
					     .bias = true,
					     .logits = p->f->logits,
					     .pad = p->f->pad,
					     .threads = p->f->threads };

	LENS_TRY(norm(p, ln_final, m->ln_final_w, m->ln_final_b));
	if (!wanted(p, LENS_HOOK_LOGITS, 0))
		return LENS_OK;
	lens_unembed(m, &a);
	return lens_show_rows(p, LENS_HOOK_LOGITS, 0, p->f->logits, lens_n_logits(&m->config));
}

/* Blocks from `layer` on, and what follows. */
static enum lens_status go_on(const struct lens_pass *p, size_t layer)
{
	size_t n = lens_blocks_needed(&p->f->model->config, p->visitors);

	for (; layer < n; layer++)
		LENS_TRY(block(p, layer,
			       layer + 1 == n && lens_read_rows_suffice(p->visitors, layer)));
	return lens_head_wanted(p->visitors) ? head(p) : LENS_OK;
}

enum lens_status lens_forward_run(struct lens_forward *f, const struct lens_batch *b,
				  const struct lens_visitors *v, struct lens_error *err)
{
	struct lens_pass p = { .f = f, .batch = b, .visitors = v, .err = err };

	LENS_TRY(lens_check_edits(v, err));
	LENS_TRY(embed(&p));
	return go_on(&p, 0);
}

enum lens_status lens_forward_from(struct lens_forward *f, const struct lens_batch *b,
				   const struct lens_start *start,
				   const struct lens_visitors *v, struct lens_error *err)
{
	struct lens_pass p = {
		.f = f, .batch = b, .past = start->past, .visitors = v, .err = err
	};

	LENS_TRY(lens_check_edits(v, err));
	memcpy(f->resid, start->resid,
	       b->n_rows * f->model->config.d_model * sizeof(*start->resid));
	if (f->positions)
		look_up(&p, f->model->w_pos, b->position, f->positions);
	return go_on(&p, start->layer);
}
