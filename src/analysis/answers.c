/*
 * analysis/answers.c: tables about the answers: logits, probabilities, ranks.
 */
#include "analysis/analysis_private.h"

#include <math.h>

void lens_fill_answer_logit(const struct lens_logits *l, void *out)
{
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		((float *)out)[i] = l->logit[l->answer[i]];
}

void lens_fill_logit_diff(const struct lens_logits *l, void *out)
{
	size_t i;

	for (i = 1; i < l->n_answers; i++)
		((float *)out)[i - 1] = l->logit[l->answer[0]] - l->logit[l->answer[i]];
}

/* softmax in float64: exp(logit − max)/Σ */
static float probability(const struct lens_logits *l, int32_t token)
{
	if (!l->finite)
		return NAN;
	return (float)(exp((double)l->logit[token] - (double)l->max) / l->sum_exp);
}

void lens_fill_answer_prob(const struct lens_logits *l, void *out)
{
	size_t i;

	for (i = 0; i < l->n_answers; i++)
		((float *)out)[i] = probability(l, l->answer[i]);
}

void lens_fill_answer_rank(const struct lens_logits *l, void *out)
{
	size_t i;

	for (i = 0; i < l->n_answers; i++) {
		int32_t rank = -1;

		if (l->finite)
			rank = (int32_t)lens_vec()->count_above(l->d_vocab, l->logit,
								l->logit[l->answer[i]]);
		((int32_t *)out)[i] = rank;
	}
}

void lens_fill_flags(const struct lens_logits *l, void *out)
{
	*(uint8_t *)out = (uint8_t)(l->finite ? 0 : LENS_FLAG_NONFINITE);
}

/* --- the k largest ------------------------------------------------------------ */

/* Inserts token into the sorted ids[0..n), n <= k; equal logits keep their order. */
static size_t insert(const struct lens_logits *l, int32_t *ids, size_t n, int32_t token)
{
	size_t i = n < l->top_k ? n : l->top_k - 1;

	for (; i > 0 && l->logit[ids[i - 1]] < l->logit[token]; i--)
		ids[i] = ids[i - 1];
	ids[i] = token;
	return n < l->top_k ? n + 1 : n;
}

void lens_fill_top_tokens(const struct lens_logits *l, void *out)
{
	int32_t *ids = out;
	size_t i, n = 0;

	for (i = 0; i < l->top_k; i++)
		ids[i] = -1;
	for (i = 0; l->finite && i < l->d_vocab; i++) {
		if (n < l->top_k || l->logit[i] > l->logit[ids[n - 1]])
			n = insert(l, ids, n, (int32_t)i);
	}
}

static float logit(const struct lens_logits *l, int32_t token)
{
	return l->logit[token];
}

/* A value of each of the top tokens; NaN where there is none. */
static void fill_top(const struct lens_logits *l, float *out,
		     float (*value)(const struct lens_logits *l, int32_t token))
{
	int32_t ids[LENS_TOP_K_MAX];
	size_t i;

	lens_fill_top_tokens(l, ids);
	for (i = 0; i < l->top_k; i++)
		out[i] = ids[i] < 0 ? NAN : value(l, ids[i]);
}

void lens_fill_top_logits(const struct lens_logits *l, void *out)
{
	fill_top(l, out, logit);
}

void lens_fill_top_probs(const struct lens_logits *l, void *out)
{
	fill_top(l, out, probability);
}
