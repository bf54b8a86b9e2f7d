/*
 * forward/unembed.c: from the residual stream to logits: the final norm, and the
 * products with W_U. In: rows of the stream; out: rows of logits.
 */
#include "forward/forward_private.h"

#include <string.h>

void lens_norm_rows(const struct lens_config *c, size_t rows, const struct lens_norm_args *a,
		    float *y, float *scale)
{
	size_t i;

	switch (a->kind) {
	case LENS_NORM_LN:
		lens_vec()->layer_norm(rows, c->d_model, a->x, a->w, a->b, c->eps, y, scale);
		break;
	case LENS_NORM_RMS:
		lens_vec()->rms_norm(rows, c->d_model, a->x, c->eps, y, scale);
		break;
	case LENS_NORM_NONE:
		memmove(y, a->x, rows * c->d_model * sizeof(*y));
		for (i = 0; i < rows; i++)
			scale[i] = 1;
	}
}

void lens_norm_weight(const struct lens_config *c, size_t rows, const float *w, float *y)
{
	size_t i;

	for (i = 0; w && i < rows; i++)
		lens_vec()->multiply(c->d_model, w, y + i * c->d_model);
}

void lens_final_weight(const struct lens_model *m, size_t rows, float *y)
{
	if (lens_final_norm_kind(&m->config) == LENS_NORM_RMS)
		lens_norm_weight(&m->config, rows, m->ln_final_w, y);
}

void lens_final_norm(const struct lens_model *m, size_t rows, const float *x, float *y,
		     float *scale)
{
	const struct lens_norm_args a = { lens_final_norm_kind(&m->config), x, m->ln_final_w,
					  m->ln_final_b };

	lens_norm_rows(&m->config, rows, &a, y, scale);
	lens_final_weight(m, rows, y);
}

size_t lens_unembed_pad_floats(const struct lens_config *c)
{
	return lens_gemm_pad_floats(lens_n_logits(c), c->d_model);
}

void lens_unembed(const struct lens_model *m, const struct lens_unembed_args *a)
{
	const struct lens_gemm_args g = {
		.m = a->rows,
		.n = lens_n_logits(&m->config),
		.k = m->config.d_model,
		.a = a->normed,
		.lda = m->config.d_model,
		.b = m->w_u,
		.ldb = m->config.d_model,
		.trans = LENS_B_TRANSPOSED,
		.bias = a->bias ? m->b_u : NULL,
		.c = a->logits,
		.ldc = lens_n_logits(&m->config),
	};

	lens_gemm(&g, a->pad, a->threads);
	if (a->bias && m->config.logit_cap > 0)
		lens_vec()->soft_cap(a->rows * g.n, (float)m->config.logit_cap, a->logits);
}
