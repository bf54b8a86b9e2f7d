/*
 * tables/softmax.c: what is read off one row of logits: probabilities, ranks, the k
 * largest.
 */
#include "tables/tables_private.h"

#include <math.h>

double lens_prob(const struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return NAN;
	return exp((double)l->logit[token] - (double)l->max) / l->sum_exp;
}

double lens_log_prob(const struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return NAN;
	return (double)l->logit[token] - (double)l->max - log(l->sum_exp);
}

double lens_entropy(const struct lens_logits *l)
{
	double sum = 0;
	size_t i;

	if (!l->finite)
		return NAN;
	/* p = e^x/Σ with x = logit − max, so −Σ p·log p = log Σ − Σ x·e^x/Σ */
	for (i = 0; i < l->d_vocab; i++) {
		double x = (double)l->logit[i] - (double)l->max;

		sum += x * exp(x);
	}
	return log(l->sum_exp) - sum / l->sum_exp;
}

int32_t lens_rank(const struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return -1;
	return (int32_t)lens_vec()->count_above(l->d_vocab, l->logit, l->logit[token]);
}

/* Inserts token into the sorted ids[0..n), n <= k; equal logits keep their order. */
static size_t insert(const struct lens_logits *l, size_t k, size_t n, int32_t token)
{
	int32_t *ids = l->top;
	size_t i = lens_min(n, k - 1);

	for (; i > 0 && l->logit[ids[i - 1]] < l->logit[token]; i--)
		ids[i] = ids[i - 1];
	ids[i] = token;
	return lens_min(n + 1, k);
}

const int32_t *lens_top(const struct lens_table_view *v, struct lens_logits *l)
{
	size_t i, n = 0, k = v->opt->sizes.top_k;

	if (l->has_top)
		return l->top;
	l->has_top = true;
	for (i = 0; i < k; i++)
		l->top[i] = -1;
	if (!l->finite || !k)
		return l->top;
	for (i = 0; i < l->d_vocab; i++) {
		if (n < k || l->logit[i] > l->logit[l->top[n - 1]])
			n = insert(l, k, n, (int32_t)i);
	}
	return l->top;
}

void lens_top_logits(const struct lens_table_view *v, struct lens_logits *l, float *out)
{
	const int32_t *top = lens_top(v, l);
	size_t i;

	for (i = 0; i < v->opt->sizes.top_k && top[i] >= 0; i++)
		out[i] = l->logit[top[i]];
}

void lens_top_probs(const struct lens_table_view *v, struct lens_logits *l, float *out)
{
	const int32_t *top = lens_top(v, l);
	size_t i;

	for (i = 0; i < v->opt->sizes.top_k && top[i] >= 0; i++)
		out[i] = (float)lens_prob(l, top[i]);
}
