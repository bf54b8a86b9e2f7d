/*
 * model/refactor.c: TransformerLens's refactor_factored_attn_matrices, which factors a
 * head's W_Q·W_Kᵀ and W_V·W_O anew, by their singular values. In: a head after the rest
 * of the processing; out: the same head, with
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

/* [D, dh] as rows, Aᵀ of the product; with the bias, if there is one, as one more column. */
static void gather(const struct lens_config *c, const double *x, const double *bias, double *t)
{
	size_t i, j, d = c->d_model, m = d + (bias != NULL);

	for (i = 0; i < d; i++) {
		for (j = 0; j < c->d_head; j++)
			t[j * m + i] = x[i * c->d_head + j];
	}
	for (j = 0; bias && j < c->d_head; j++)
		t[j * m + d] = bias[j];
}

/* The reverse of gather; column j is scaled. */
static void scatter(const struct lens_config *c, const double *t, const double *scale,
		    double *x, double *bias)
{
	size_t i, j, d = c->d_model, m = d + (bias != NULL);

	for (i = 0; i < d; i++) {
		for (j = 0; j < c->d_head; j++)
			x[i * c->d_head + j] = t[j * m + i] * scale[j];
	}
	for (j = 0; bias && j < c->d_head; j++)
		bias[j] = t[j * m + d] * scale[j];
}

static enum lens_status refactor(const struct lens_config *c, const struct lens_head_factors *h,
				 struct lens_svd_product *p, struct lens_error *err)
{
	size_t j, dh = c->d_head, d = c->d_model;

	p->m = p->n = d + 1;
	gather(c, h->q, h->b_q, p->at);
	gather(c, h->k, h->b_k, p->bt);
	LENS_TRY(lens_svd_product(p, err));
	for (j = 0; j < dh; j++)
		p->s[j] = sqrt(p->s[j]);
	scatter(c, p->at, p->s, h->q, h->b_q);
	scatter(c, p->bt, p->s, h->k, h->b_k);

	p->m = p->n = d;
	gather(c, h->v, NULL, p->at);
	memcpy(p->bt, h->o, dh * d * sizeof(*h->o));
	LENS_TRY(lens_svd_product(p, err));
	scatter(c, p->at, p->s, h->v, NULL);
	memcpy(h->o, p->bt, dh * d * sizeof(*h->o));
	return LENS_OK;
}

enum lens_status lens_refactor_head(const struct lens_config *c,
				    const struct lens_head_factors *h, struct lens_error *err)
{
	size_t n = (c->d_model + 1) * c->d_head;
	struct lens_svd_product p = {
		.k = c->d_head,
		.at = lens_alloc_aligned(n, sizeof(double)),
		.bt = lens_alloc_aligned(n, sizeof(double)),
		.s = lens_alloc_aligned(c->d_head, sizeof(double)),
	};
	enum lens_status st;

	if (p.at && p.bt && p.s)
		st = refactor(c, h, &p, err);
	else
		st = lens_error_nomem(err, n, sizeof(double));
	lens_free(p.at);
	lens_free(p.bt);
	lens_free(p.s);
	return st;
}

size_t lens_refactor_bytes(const struct lens_config *c)
{
	size_t n = (2 * (c->d_model + 1) + 1) * c->d_head * sizeof(double), svd = 0;

	lens_svd_bytes(c->d_model + 1, c->d_head, &svd);
	return n + svd;
}
