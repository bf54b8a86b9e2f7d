/*
 * model/refactor.c: TransformerLens's refactor_factored_attn_matrices, which factors a
 * head's W_Q·W_Kᵀ and W_V·W_O anew, by their singular values. In: a block after the rest
 * of the processing; out: the same heads, with
 *   [W_Q; b_Q] = U·√S,  [W_K; b_K] = V·√S    of [W_Q; b_Q]·[W_K; b_K]ᵀ = U·S·Vᵀ
 *   W_V = U·S,  W_O = Vᵀ                     of W_V·W_O = U·S·Vᵀ
 * so that columns are orthogonal, those of W_Q and W_K have equal norms, and W_O's rows
 * are orthonormal. The bias counts as one more row, the weight of an input that is always
 * 1. b_V is in b_O already. Signs are canonical: in each column of U the element of
 * largest magnitude (the first of several) is positive.
 *
 * Source: HookedTransformer.refactor_factored_attn_matrices, FactoredMatrix.svd and
 * .make_even of TransformerLens 2.16, which computes in float32 and leaves the signs as
 * they come.
 */
#include "model/model_private.h"

#include <math.h>
#include <string.h>

#define KEY "weights.refactor_factored_attn_matrices"

enum lens_status lens_refactor_check(const struct lens_config *c, struct lens_error *err)
{
	if (c->rotary.dim)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      KEY ": %s has rotary positions, with which W_Q·W_K of a "
					  "head depends on where query and key are",
				      c->family);
	if (c->n_kv_heads != c->n_heads)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      KEY
				      ": %zu heads share %zu keys and values (grouped-query "
				      "attention), so W_K and W_V are not one head's own",
				      c->n_heads, c->n_kv_heads);
	if (c->d_head > c->d_model)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      KEY ": d_head %zu is larger than d_model %zu", c->d_head,
				      c->d_model);
	return LENS_OK;
}

/* dh columns of w_qkv from column `first`, as rows; bias: with their biases at the end. */
static void gather(const struct lens_config *c, const struct lens_block64 *b, size_t first,
		   bool bias, double *t)
{
	size_t i, j, d = c->d_model, width = 3 * c->n_heads * c->d_head, m = d + bias;

	for (i = 0; i < d; i++) {
		for (j = 0; j < c->d_head; j++)
			t[j * m + i] = b->w_qkv[i * width + first + j];
	}
	if (bias) {
		for (j = 0; j < c->d_head; j++)
			t[j * m + d] = b->b_qkv[first + j];
	}
}

/* The reverse of gather; column j is scaled. */
static void scatter(const struct lens_config *c, const double *t, const double *scale,
		    size_t first, bool bias, struct lens_block64 *b)
{
	size_t i, j, d = c->d_model, width = 3 * c->n_heads * c->d_head, m = d + bias;

	for (i = 0; i < d; i++) {
		for (j = 0; j < c->d_head; j++)
			b->w_qkv[i * width + first + j] = t[j * m + i] * scale[j];
	}
	if (bias) {
		for (j = 0; j < c->d_head; j++)
			b->b_qkv[first + j] = t[j * m + d] * scale[j];
	}
}

static enum lens_status refactor_head(const struct lens_config *c, size_t head,
				      struct lens_block64 *b, struct lens_svd_product *p,
				      struct lens_error *err)
{
	size_t j, dh = c->d_head, d = c->d_model, q = head * dh;
	size_t k = q + c->n_heads * dh, v = k + c->n_heads * dh;
	double *w_o = b->w_o + head * dh * d;

	p->m = p->n = d + 1;
	gather(c, b, q, true, p->at);
	gather(c, b, k, true, p->bt);
	LENS_TRY(lens_svd_product(p, err));
	for (j = 0; j < dh; j++)
		p->s[j] = sqrt(p->s[j]);
	scatter(c, p->at, p->s, q, true, b);
	scatter(c, p->bt, p->s, k, true, b);

	p->m = p->n = d;
	gather(c, b, v, false, p->at);
	memcpy(p->bt, w_o, dh * d * sizeof(*w_o));
	LENS_TRY(lens_svd_product(p, err));
	scatter(c, p->at, p->s, v, false, b);
	memcpy(w_o, p->bt, dh * d * sizeof(*w_o));
	return LENS_OK;
}

enum lens_status lens_refactor_block(const struct lens_config *c, struct lens_block64 *b,
				     struct lens_error *err)
{
	size_t i, n = (c->d_model + 1) * c->d_head;
	struct lens_svd_product p = {
		.k = c->d_head,
		.at = lens_alloc_aligned(n, sizeof(double)),
		.bt = lens_alloc_aligned(n, sizeof(double)),
		.s = lens_alloc_aligned(c->d_head, sizeof(double)),
	};
	enum lens_status st = LENS_OK;

	if (!p.at || !p.bt || !p.s)
		st = lens_error_nomem(err, n, sizeof(double));
	for (i = 0; st == LENS_OK && i < c->n_heads; i++)
		st = refactor_head(c, i, b, &p, err);
	lens_free(p.at);
	lens_free(p.bt);
	lens_free(p.s);
	return st;
}
