/*
 * pipeline/summary.c: the results of a finished file in a few numbers. They are
 * read back from the file, so that what is told is what is stored.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

/* A dataset of the file, or nothing where it has none. */
struct table {
	double *v;
	size_t extent[LENS_MAX_RANK];
	int rank;
};

/* What is absent, of another rank or empty leaves t empty: no file has every table. */
static enum lens_status read_table(const char *file, const char *path, int rank,
				   struct table *t, struct lens_error *err)
{
	enum lens_status st;
	bool odd;
	int i;

	memset(t, 0, sizeof(*t));
	st = lens_store_read_f64(file, path, &t->v, &t->rank, t->extent, err);
	odd = t->rank != rank;
	for (i = 0; i < t->rank; i++)
		odd = odd || !t->extent[i];
	if (st != LENS_OK || odd) {
		lens_free(t->v);
		memset(t, 0, sizeof(*t));
	}
	return st;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Median of v[0], v[stride], … (n of them), −1 (not finite) left out; NaN if none is left. */
static double median(const double *v, size_t n, size_t stride, double *scratch)
{
	size_t i, kept = 0;

	for (i = 0; i < n; i++) {
		if (v[i * stride] >= 0)
			scratch[kept++] = v[i * stride];
	}
	if (!kept)
		return NAN;
	qsort(scratch, kept, sizeof(*scratch), ascending);
	return kept % 2 ? scratch[kept / 2] : (scratch[kept / 2 - 1] + scratch[kept / 2]) / 2;
}

static void summarize_diff(const struct table *t, struct lens_summary *s)
{
	size_t i, others = t->extent[1], positive = 0, n = 0;
	double sum = 0;

	/* Against the first other answer. */
	for (i = 0; i < t->extent[0]; i++) {
		double d = t->v[i * others];

		if (isnan(d))
			continue;
		sum += d;
		positive += d > 0;
		n++;
	}
	s->logit_diff_mean = n ? sum / (double)n : NAN;
	s->logit_diff_positive = n ? (double)positive / (double)t->extent[0] : NAN;
}

static void summarize_top(const struct table *rank, struct lens_summary *s)
{
	size_t i, top = 0;

	s->n_answers = rank->extent[1];
	for (i = 0; i < rank->extent[0]; i++)
		top += rank->v[i * rank->extent[1]] == 0;
	s->top1 = rank->extent[0] ? (double)top / (double)rank->extent[0] : NAN;
}

/* The same of answers of any number of tokens, [prompt, answer, answer_pos]; −1: no token. */
static void summarize_tokens(const struct table *tokens, const struct table *rank,
			     struct lens_summary *s)
{
	size_t i, k, width = tokens->extent[2], stride = tokens->extent[1] * width, top = 0;

	s->any_tokens = true;
	s->n_answers = tokens->extent[1];
	s->top1 = NAN;
	if (memcmp(tokens->extent, rank->extent, sizeof(rank->extent)) != 0)
		return;
	for (i = 0; i < rank->extent[0]; i++) {
		for (k = 0; k < width && tokens->v[i * stride + k] >= 0; k++) {
			if (rank->v[i * stride + k] != 0)
				break;
		}
		top += k == width || tokens->v[i * stride + k] < 0;
	}
	s->top1 = (double)top / (double)rank->extent[0];
}

/* Over the prompts that have one: more than one token, finite logits. */
static void summarize_loss(const struct table *t, struct lens_summary *s)
{
	size_t i, n = 0;
	double sum = 0;

	for (i = 0; i < t->extent[0]; i++) {
		if (isnan(t->v[i]))
			continue;
		sum += t->v[i];
		n++;
	}
	s->has_loss = t->v != NULL;
	s->loss_mean = n ? sum / (double)n : NAN;
}

static enum lens_status summarize_ranks(const char *file, const struct table *t,
					struct lens_summary *s, struct lens_error *err)
{
	size_t i, n, stride;
	double *scratch;

	if (!t->v)
		return LENS_OK;
	s->n_layers = t->extent[1];
	stride = t->extent[1] * t->extent[2];
	s->median_rank = lens_calloc(s->n_layers, sizeof(*s->median_rank));
	scratch = lens_calloc(t->extent[0], sizeof(*scratch));
	if (!s->median_rank || !scratch) {
		lens_free(scratch);
		return lens_error_nomem(err, t->extent[0], sizeof(*scratch));
	}
	for (i = 0; i < s->n_layers; i++)
		s->median_rank[i] =
			median(t->v + i * t->extent[2], t->extent[0], stride, scratch);
	lens_free(scratch);
	LENS_TRY(lens_store_read_strings(file, "/lens_layer", &s->layer, &n, err));
	return n == s->n_layers ? LENS_OK
				: lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
						"/lens_layer does not fit rank_per_layer");
}

enum lens_status lens_summary_read(const char *file, struct lens_summary *s,
				   struct lens_error *err)
{
	struct table diff, rank, tokens, token_rank, layers, loss, flags, length;
	enum lens_status st;
	size_t i;

	memset(s, 0, sizeof(*s));
	/* This one is in every file of ours: without it the file cannot be read. */
	LENS_TRY(read_table(file, "/prompts/length", 1, &length, err));
	read_table(file, "/results/logit_diff", 2, &diff, NULL);
	read_table(file, "/results/answer_rank", 2, &rank, NULL);
	read_table(file, "/prompts/answer_tokens", 3, &tokens, NULL);
	read_table(file, "/results/answer_token_rank", 3, &token_rank, NULL);
	read_table(file, "/results/rank_per_layer", 3, &layers, NULL);
	read_table(file, "/results/loss", 1, &loss, NULL);
	read_table(file, "/results/flags", 1, &flags, NULL);
	s->n_prompts = length.extent[0];
	summarize_diff(&diff, s);
	summarize_loss(&loss, s);
	if (tokens.v)
		summarize_tokens(&tokens, &token_rank, s);
	else
		summarize_top(&rank, s);
	for (i = 0; i < flags.extent[0]; i++)
		s->n_flagged += ((unsigned)flags.v[i] & LENS_FLAGS_NONFINITE) != 0;
	st = summarize_ranks(file, &layers, s, err);
	lens_free(length.v);
	lens_free(diff.v);
	lens_free(rank.v);
	lens_free(tokens.v);
	lens_free(token_rank.v);
	lens_free(layers.v);
	lens_free(loss.v);
	lens_free(flags.v);
	if (st != LENS_OK)
		lens_summary_release(s);
	return st;
}

void lens_summary_release(struct lens_summary *s)
{
	size_t i;

	if (s->layer) {
		for (i = 0; i < s->n_layers; i++)
			lens_free(s->layer[i]);
	}
	lens_free(s->layer);
	lens_free(s->median_rank);
	memset(s, 0, sizeof(*s));
}
