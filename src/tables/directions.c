/*
 * tables/directions.c: what a token's logit reads off the residual stream. In: a token;
 * out: the direction whose product with a part of the stream, divided by the model's own
 * ln_final.hook_scale, is what that part adds to the logit.
 *
 * logit = (x − mean x)/scale ∘ w · u + b·u + b_U, with u W_U's column and w, b ln_final's
 * (RMSNorm: no mean, no b). The mean is linear: (x − mean x)·d = x·(d − mean d), d = w∘u.
 */
#include "tables/tables_private.h"

#include <math.h>

void lens_direction(const struct lens_model *m, int32_t token, double *out)
{
	size_t i, d = m->config.d_model;
	const float *u = m->w_u + (size_t)token * d;
	double mean = 0;

	for (i = 0; i < d; i++)
		out[i] = (double)u[i] * (m->ln_final_w ? (double)m->ln_final_w[i] : 1);
	if (lens_final_norm_kind(&m->config) != LENS_NORM_LN)
		return;
	for (i = 0; i < d; i++)
		mean += out[i];
	mean /= (double)d;
	for (i = 0; i < d; i++)
		out[i] -= mean;
}

double lens_capped(const struct lens_model *m, double logit)
{
	double cap = m->config.logit_cap;

	return cap > 0 ? cap * tanh(logit / cap) : logit;
}

double lens_direction_bias(const struct lens_model *m, int32_t token)
{
	size_t i, d = m->config.d_model;
	const float *u = m->w_u + (size_t)token * d;
	double bias = m->b_u ? (double)m->b_u[token] : 0;

	if (m->ln_final_b) {
		for (i = 0; i < d; i++)
			bias += (double)m->ln_final_b[i] * (double)u[i];
	}
	return bias;
}
