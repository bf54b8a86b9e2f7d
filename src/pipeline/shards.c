/*
 * pipeline/shards.c: rows → shards. A pure function of model, data and
 * experiment, so that every task and every later run cuts a sweep alike.
 *
 * A shard ends at shards.bytes of its file, at shards.prompts, or at a fixed amount
 * of compute, so that a night of tables only is committed every few minutes
 * too. Rows far longer than most get shards of their own: they make neither the
 * others' data wider nor their batches smaller.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

/* Multiplications and additions of a shard: six minutes of a core at 50 GFLOP/s. */
#define SHARD_FLOP 1.8e13
#define OUTLIER_FACTOR 8   /* a row longer than so many medians is an outlier … */
#define OUTLIER_TOKENS 256 /* … if it has at least so many tokens */
#define MOST_OUTLIERS 32   /* runs of outliers that get shards of their own */
#define ROUND_ROWS 64      /* where size or compute end a shard */

/* What a row costs, as a function of its length. */
struct cost {
	double bytes, bytes_per_token, bytes_per_token2;
	double flop, flop_per_token, flop_per_token2;
};

static void add_dataset_cost(const struct lens_planned *d, struct cost *c)
{
	double width = (double)lens_dtype_size(d->dtype);
	int i, of_tokens = 0;

	/* Positions, queries and keys count by tokens, everything else by its extent. */
	for (i = 1; i < d->rank; i++) {
		if (d->axis[i] == LENS_AXIS_POS || d->axis[i] == LENS_AXIS_QUERY ||
		    d->axis[i] == LENS_AXIS_KEY)
			of_tokens++;
		else
			width *= (double)d->extent[i];
	}
	*(of_tokens == 2   ? &c->bytes_per_token2
	  : of_tokens == 1 ? &c->bytes_per_token
			   : &c->bytes) += width;
}

static struct cost cost_of(const struct lens_plan *p)
{
	const struct lens_config *c = &p->model->config;
	double d = (double)c->d_model, hd = (double)(c->n_heads * c->d_head);
	double kv = (double)(c->n_kv_heads * c->d_head), v = (double)c->d_vocab;
	double block = d * (2 * hd + 2 * kv) + (c->gated_mlp ? 3 : 2) * d * (double)c->d_mlp;
	unsigned logits = lens_tables_logits(&p->tables);
	struct cost cost = { 0 };
	size_t i;

	cost.flop_per_token = 2 * block * (double)c->n_layers;
	cost.flop_per_token2 = 4 * hd * (double)c->n_layers;
	cost.flop = 2 * d * v;
	if (logits & LENS_AT_LENS_LAYER)
		cost.flop *= (double)(c->n_layers + 1);
	if (logits & (LENS_AT_NEXT_TOKEN | LENS_AT_EVERY_POS))
		cost.flop_per_token += 2 * d * v;
	for (i = 0; i < p->n_datasets; i++)
		add_dataset_cost(&p->dataset[i], &cost);
	return cost;
}

static double poly(double a, double b, double c, double x)
{
	return a + b * x + c * x * x;
}

/* Rows with more tokens than this stand in shards of their own. */
static enum lens_status outlier_limit(const struct lens_prompts *p, size_t *out,
				      struct lens_error *err)
{
	size_t i, limit, runs;

	LENS_TRY(lens_median_length(p, &limit, err));
	limit *= OUTLIER_FACTOR;
	if (limit < OUTLIER_TOKENS)
		limit = OUTLIER_TOKENS;
	do {
		for (i = 0, runs = 0; i < p->n_rows; i++)
			runs += lens_prompt_length(p, i) > limit &&
				(!i || lens_prompt_length(p, i - 1) <= limit);
		limit *= runs > MOST_OUTLIERS ? 2 : 1;
	} while (runs > MOST_OUTLIERS);
	*out = limit;
	return LENS_OK;
}

struct limits {
	size_t outlier, prompts;
	double bytes, flop;
};

/* One pass over the rows; with first NULL it only counts. */
static size_t cut(const struct lens_prompts *p, const struct cost *c,
		  const struct limits *limit, size_t *first)
{
	double bytes = 0, flop = 0, longest = 0;
	size_t row, start = 0, n = 0;

	for (row = 0; row < p->n_rows; row++) {
		double x = (double)lens_prompt_length(p, row);
		bool outlier = lens_prompt_length(p, row) > limit->outlier;
		bool was = row && lens_prompt_length(p, row - 1) > limit->outlier;
		size_t held = row - start;

		if (held && (outlier != was || held == limit->prompts ||
			     ((bytes >= limit->bytes || flop >= limit->flop) &&
			      held % ROUND_ROWS == 0) ||
			     bytes >= 2 * limit->bytes || flop >= 2 * limit->flop)) {
			start = row;
			flop = longest = 0;
		}
		if (row == start) {
			if (first)
				first[n] = row;
			n++;
		}
		/* All rows are as wide as the shard's longest. */
		longest = x > longest ? x : longest;
		bytes = (double)(row + 1 - start) *
			poly(c->bytes, c->bytes_per_token, c->bytes_per_token2, longest);
		flop += poly(c->flop, c->flop_per_token, c->flop_per_token2, x);
	}
	if (first)
		first[n] = p->n_rows;
	return n;
}

enum lens_status lens_shards_init(struct lens_shards *s, const struct lens_plan *p,
				  struct lens_error *err)
{
	const struct lens_experiment *e = p->experiment;
	struct cost cost = cost_of(p);
	struct limits limit = { .prompts = e->shards.prompts ? e->shards.prompts : SIZE_MAX,
				.bytes = (double)e->shards.bytes,
				.flop = SHARD_FLOP };

	memset(s, 0, sizeof(*s));
	LENS_TRY(outlier_limit(p->prompts, &limit.outlier, err));
	for (s->grown = 1;; s->grown *= 2) {
		s->n = cut(p->prompts, &cost, &limit, NULL);
		if (s->n <= LENS_MOST_SHARDS)
			break;
		limit.bytes *= 2;
		limit.flop *= 2;
		limit.prompts = limit.prompts > SIZE_MAX / 2 ? SIZE_MAX : 2 * limit.prompts;
	}
	s->first = lens_calloc(s->n + 1, sizeof(*s->first));
	if (!s->first)
		return lens_error_nomem(err, s->n + 1, sizeof(*s->first));
	cut(p->prompts, &cost, &limit, s->first);
	return LENS_OK;
}

void lens_shards_release(struct lens_shards *s)
{
	lens_free(s->first);
	lens_free(s->file_bytes);
	memset(s, 0, sizeof(*s));
}

/* --- what they cost -------------------------------------------------------------------- */

static enum lens_status part_plan(const struct lens_shards *s, const struct lens_plan *whole,
				  size_t shard, struct lens_prompts *rows, struct lens_plan *p,
				  struct lens_error *err)
{
	*rows = lens_prompts_part(whole->prompts, s->first[shard],
				   s->first[shard + 1] - s->first[shard]);
	return lens_plan_part(p, whole->model, rows, whole->n_whole, whole->experiment, err);
}

enum lens_status lens_shards_count(struct lens_shards *s, struct lens_plan *whole,
				   struct lens_memory *most, struct lens_error *err)
{
	const struct lens_experiment *e = whole->experiment;
	size_t i, k, threads = lens_thread_count(e->threads);

	memset(most, 0, sizeof(*most));
	s->file_bytes = lens_calloc(s->n, sizeof(*s->file_bytes));
	if (!s->file_bytes)
		return lens_error_nomem(err, s->n, sizeof(*s->file_bytes));
	whole->file_bytes = 0;
	for (k = 0; k < whole->n_datasets; k++)
		whole->dataset[k].file_bytes = 0;
	for (i = 0; i < s->n; i++) {
		struct lens_prompts rows;
		struct lens_memory m;
		struct lens_plan p;
		enum lens_status st = part_plan(s, whole, i, &rows, &p, err);

		if (st != LENS_OK)
			return st;
		st = lens_plan_memory(&p, threads, e->memory, &m, err);
		if (st == LENS_OK && m.total > most->total)
			*most = m;
		for (k = 0; k < p.n_datasets; k++)
			whole->dataset[k].file_bytes += p.dataset[k].file_bytes;
		s->file_bytes[i] = p.file_bytes;
		whole->file_bytes += p.file_bytes;
		lens_plan_release(&p);
		LENS_TRY(st);
	}
	return LENS_OK;
}
