/*
 * tables/softmax.c: what is read off one row of logits: probabilities, entropy, ranks, the
 * k largest; and off two, how far apart their distributions are.
 */
#include "tables/tables_private.h"

#include <math.h>

static double sum_exp(struct lens_logits *l)
{
	if (!l->sum_exp)
		l->sum_exp = lens_vec()->sum_exp(l->d_vocab, l->logit, l->max);
	return l->sum_exp;
}

double lens_prob(struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return NAN;
	return exp((double)l->logit[token] - (double)l->max) / sum_exp(l);
}

double lens_log_prob(struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return NAN;
	return (double)l->logit[token] - (double)l->max - log(sum_exp(l));
}

/* Σ e^x and Σ e^x·y of two rows of logits less their largest; of one row: twice the same */
static void exp_sums(const struct lens_logits *x, const struct lens_logits *y, double out[2])
{
	lens_vec()->exp_sums(x->d_vocab, x->logit, x->max, y->logit, y->max, out);
}

double lens_entropy(const struct lens_logits *l)
{
	double s[2];

	if (!l->finite)
		return NAN;
	/* p = e^x/Σ, so −Σ p·log p = log Σ − Σ e^x·x/Σ */
	exp_sums(l, l, s);
	return log(s[0]) - s[1] / s[0];
}

double lens_divergence(const struct lens_logits *p, const struct lens_logits *q)
{
	double pp[2], pq[2], qq[2], kl;

	if (!p->finite || !q->finite)
		return NAN;
	/* Σ p·(log p − log q) with p = e^x/Σ e^x and q = e^y/Σ e^y */
	exp_sums(p, p, pp);
	exp_sums(p, q, pq);
	exp_sums(q, q, qq);
	kl = (pp[1] - pq[1]) / pp[0] - log(pp[0]) + log(qq[0]);
	return kl > 0 ? kl : 0; /* less than 0 is rounding */
}

int32_t lens_argmax(const struct lens_logits *l)
{
	size_t i = 0;

	if (!l->finite)
		return -1;
	while (l->logit[i] < l->max)
		i++;
	return (int32_t)i;
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
