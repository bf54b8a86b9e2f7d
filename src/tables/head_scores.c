/*
 * tables/head_scores.c: what kind of head is it? The share of a head's attention that
 * goes to keys of a kind, over all queries of a prompt. In: hook_pattern, which is not
 * stored; out: [layer, head, score].
 *
 * head_scores is TransformerLens's head_detector.detect_head with error_measure "mul":
 * Σ pattern·mask / Σ pattern, sums over queries q and keys k <= q. The masks are 1 at
 *   previous_token   k = q − 1
 *   current_token    k = q
 *   first_token      k = 0
 *   duplicate_token  k < q with the same token as q
 *   induction        a key whose token before it is q's: token[k − 1] = token[q], k >= 1
 * (the last two after Elhage et al. 2021 and Olsson et al. 2022). BOS is a token like any
 * other, and windows do not count: a key outside one is a key without attention.
 *
 * head_scores_mean is the mean over the queries that have such a key of each query's
 * own share; NaN where none has one. Sums are float64, rounded once.
 */
#include "tables/tables_private.h"

/* In the order of the axis's labels (axis.def). */
enum { PREVIOUS, CURRENT, FIRST, DUPLICATE, INDUCTION, N_SCORES };

/* Attention on the keys of each kind, and on all. */
struct attention {
	double on[N_SCORES], all;
};

static struct attention attention_of(const int32_t *token, size_t q, const float *pattern)
{
	struct attention a = {
		.on = { [CURRENT] = (double)pattern[q], [FIRST] = (double)pattern[0] }
	};
	size_t k;

	if (q)
		a.on[PREVIOUS] = (double)pattern[q - 1];
	for (k = 0; k <= q; k++) {
		a.all += (double)pattern[k];
		if (k < q && token[k] == token[q])
			a.on[DUPLICATE] += (double)pattern[k];
		if (k && token[k - 1] == token[q])
			a.on[INDUCTION] += (double)pattern[k];
	}
	return a;
}

/* The state: a struct attention for each [batch_rows, layer, head]. */
static size_t sums_bytes(const struct lens_tables_options *opt)
{
	return opt->batch_rows * opt->sizes.n_layers * opt->sizes.n_heads *
	       sizeof(struct attention);
}

static struct attention *sums_of(const struct lens_table_view *v, size_t prompt)
{
	return (struct attention *)v->state +
	       prompt * v->opt->sizes.n_layers * v->opt->sizes.n_heads;
}

static void want_patterns(const struct lens_model *m, struct lens_hook_set *hooks)
{
	size_t i;

	for (i = 0; i < m->config.n_layers; i++)
		lens_hook_want(hooks, LENS_HOOK_PATTERN, i, LENS_WANT_ALL);
}

/* Adds a block of queries of one head: their attention, or each one's share of its own. */
static void add_queries(struct lens_table_view *v, const struct lens_batch *b,
			const struct lens_activation *a, bool shares)
{
	struct attention *sum =
		sums_of(v, a->prompt) + a->layer * v->opt->sizes.n_heads + a->head;
	size_t q, i;

	for (q = 0; q < a->nq; q++) {
		struct attention of =
			attention_of(b->tokens[a->prompt], a->q0 + q, a->data + q * a->stride);
		double whole = shares ? of.all : 1;

		for (i = 0; i < N_SCORES; i++)
			sum->on[i] += of.on[i] / whole;
		sum->all += of.all;
	}
}

static void visit_sums(struct lens_table_view *v, const struct lens_batch *b,
		       const struct lens_activation *a)
{
	if (a->hook == LENS_HOOK_PATTERN)
		add_queries(v, b, a, false);
}

static void visit_shares(struct lens_table_view *v, const struct lens_batch *b,
			 const struct lens_activation *a)
{
	if (a->hook == LENS_HOOK_PATTERN)
		add_queries(v, b, a, true);
}

/* Each sum over the total, or over the number of queries that it stands for. */
static void divide(struct lens_table_view *v, size_t prompt, const double *queries)
{
	const struct attention *sum = sums_of(v, prompt);
	size_t n = v->opt->sizes.n_layers * v->opt->sizes.n_heads, i, h;
	float *out = lens_table_row(v, prompt);

	for (h = 0; h < n; h++) {
		for (i = 0; i < N_SCORES; i++)
			out[h * N_SCORES + i] =
				(float)(sum[h].on[i] / (queries ? queries[i] : sum[h].all));
	}
}

static void finish_scores(struct lens_table_view *v)
{
	size_t i;

	for (i = 0; i < v->in->batch->n_prompts; i++)
		divide(v, i, NULL);
}

/* 0/0 is the NaN of a score that no query has a key for. */
static void finish_means(struct lens_table_view *v)
{
	size_t i, q, k;

	for (i = 0; i < v->in->batch->n_prompts; i++) {
		size_t n = v->in->batch->length[i];
		const int32_t *token = v->in->batch->tokens[i];
		double queries[N_SCORES] = {
			[PREVIOUS] = (double)n - 1, [CURRENT] = (double)n, [FIRST] = (double)n
		};

		for (q = 1; q < n; q++) {
			for (k = 0; k < q && token[k] != token[q]; k++)
				;
			queries[DUPLICATE] += k < q;
		}
		queries[INDUCTION] = queries[DUPLICATE];
		divide(v, i, queries);
	}
}

static const struct lens_table_ops scores = { .hooks = want_patterns,
					      .state_bytes = sums_bytes,
					      .visit = visit_sums,
					      .finish = finish_scores };
static const struct lens_table_ops means = { .hooks = want_patterns,
					     .state_bytes = sums_bytes,
					     .visit = visit_shares,
					     .finish = finish_means };

const struct lens_table_type lens_table_head_scores = {
	.dtype = LENS_F32,
	.n_axes = 3,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD, LENS_AXIS_SCORE },
	.long_name = "share of a head's attention on the keys of a kind",
	.units = "1",
	.ops = &scores,
};

const struct lens_table_type lens_table_head_scores_mean = {
	.dtype = LENS_F32,
	.n_axes = 3,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD, LENS_AXIS_SCORE },
	.long_name = "the same share of each query that has such a key, averaged over them "
		     "(NaN where none has)",
	.units = "1",
	.ops = &means,
};
