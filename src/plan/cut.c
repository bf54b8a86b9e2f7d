/*
 * plan/cut.c: rows → shards. In: the plan of all rows; out: the first row of each
 * shard. A pure function of model, data and experiment, so that every task and every
 * later run cuts a sweep alike.
 *
 * A shard ends at shards.bytes of its file, at shards.prompts, or at a fixed amount
 * of compute, so that a night of tables only is committed every few minutes
 * too. Rows far longer than most get shards of their own: they make neither the
 * others' data wider nor their batches smaller.
 */
#include "plan/plan_private.h"

#include <string.h>

#define OUTLIER_FACTOR 8   /* a row longer than so many medians is an outlier … */
#define OUTLIER_TOKENS 256 /* … if it has at least so many tokens */
#define MOST_OUTLIERS 32   /* runs of outliers that get shards of their own */
#define ROUND_ROWS 64      /* where size or compute end a shard */

/* What a row costs, as a function of its length: constant, linear and quadratic. */
struct polynomial {
	double c[3];
};
struct cost {
	struct polynomial bytes, flop;
	double token_bytes;             /* of each token, where no padding is stored */
	struct polynomial block;        /* operations of the blocks alone */
	double unembed;                 /* of one row's logits */
	bool second;                    /* are prompts run with their answers, too? */
	const struct lens_study *study; /* interventions: as each row's tokens have it */
};

static double at(const struct polynomial *p, double x)
{
	return p->c[0] + p->c[1] * x + p->c[2] * x * x;
}

/* Of a row in a file whose longest prompt has n_pos tokens. */
static double file_bytes(const struct lens_plan *p, size_t n_pos)
{
	struct lens_sizes s = p->sizes;
	uint64_t sum = 0;
	size_t i;

	s.n_pos = n_pos;
	for (i = 0; i < p->n_datasets; i++)
		sum += lens_by_token(&p->dataset[i]) ? 0 : lens_row_bytes(&p->dataset[i], &s);
	return (double)sum;
}

static double token_bytes(const struct lens_plan *p)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < p->n_datasets; i++)
		sum += lens_by_token(&p->dataset[i]) ? lens_row_bytes(&p->dataset[i], &p->sizes)
						     : 0;
	return (double)sum;
}

/* Datasets have two axes of positions at most, so three lengths tell of all. */
static struct polynomial bytes_of(const struct lens_plan *p)
{
	double y0 = file_bytes(p, 0), y1 = file_bytes(p, 1), y2 = file_bytes(p, 2);
	double square = (y2 - 2 * y1 + y0) / 2;

	return (struct polynomial){ { y0, y1 - y0 - square, square } };
}

/* Of a prompt, and of each position at which they are made. */
static void add_attrs(const struct lens_plan *p, struct polynomial *flop)
{
	const struct lens_sizes *s = &p->sizes;
	unsigned of = lens_tables_attrs(&p->tables);
	double each = 2 * (double)s->n_answers, layers = (double)s->n_layers;
	double heads = of & LENS_ATTRS_HEADS ? (double)(s->n_heads * s->d_head) * layers : 0;
	double neurons = of & LENS_ATTRS_NEURONS ? (double)s->d_mlp * layers : 0;
	double components = (double)lens_axis_extent(LENS_AXIS_COMPONENT, s);
	double d = (double)s->d_model;
	bool all = p->tables.attrs_positions == LENS_READ_AT_ALL;

	if (!p->tables.wanted[LENS_TABLE_logit_attrs])
		components = 0;
	/* Directions go through W_O and W_out once; then each part's products are summed. */
	flop->c[0] += each * (d * (heads + neurons) + neurons);
	flop->c[all ? 1 : 0] += each * (d * components + heads);
}

static struct cost cost_of(const struct lens_plan *p)
{
	const struct lens_config *c = &p->model->config;
	double layers = (double)c->n_layers;
	double unembed = 2 * (double)c->d_model * (double)lens_n_logits(c);
	double lens_layers = (double)lens_axis_extent(LENS_AXIS_LENS_LAYER, &p->sizes);
	unsigned logits = lens_tables_logits(&p->tables);
	const struct polynomial block = { { 0, 2 * (double)lens_block_products(c) * layers,
					    4 * (double)(c->n_heads * c->d_head) * layers } };
	struct cost cost = { .bytes = bytes_of(p),
			     .token_bytes = token_bytes(p),
			     .flop = block,
			     .block = block,
			     .unembed = unembed,
			     .second = logits & LENS_AT_ANSWER,
			     .study = &p->study };

	cost.flop.c[0] = unembed;
	if (logits & LENS_AT_LENS_LAYER)
		cost.flop.c[0] *= lens_layers;
	if (logits & (LENS_AT_NEXT_TOKEN | LENS_AT_EVERY_POS))
		cost.flop.c[1] += unembed;
	if (logits & LENS_AT_LENS_POS)
		cost.flop.c[1] += unembed * lens_layers;
	add_attrs(p, &cost.flop);
	return cost;
}

/* Of a row: its pass, and those of its prompt with each answer of several tokens. */
static double pass_flop(const struct cost *c, const struct lens_prompts *p, size_t row)
{
	double sum = at(&c->flop, (double)lens_prompt_length(p, row));
	size_t i;

	for (i = 0; c->second && i < p->n_answers; i++)
		sum += at(&c->block, (double)lens_continued_length(p, row, i)) +
		       c->unembed * (double)(lens_answer_length(p, row, i) - 1);
	return sum;
}

/* The same, and its cells. */
static double row_flop(const struct cost *c, const struct lens_prompts *p, size_t row)
{
	struct lens_study_cost cells = { 0, 0 };

	lens_study_add_cost(c->study, p, row, &cells);
	return pass_flop(c, p, row) + cells.flop;
}

double lens_plan_flop(const struct lens_plan *p, size_t first, size_t n, bool interventions)
{
	const struct cost cost = cost_of(p);
	double sum = 0;
	size_t row;

	for (row = first; row < first + n; row++)
		sum += interventions ? row_flop(&cost, p->prompts, row)
				     : pass_flop(&cost, p->prompts, row);
	return sum;
}

/* Rows with more tokens than this stand in shards of their own. */
static enum lens_status outlier_limit(const struct lens_prompts *p, size_t *out,
				      struct lens_error *err)
{
	size_t i, limit, runs;

	LENS_TRY(lens_median_length(p, &limit, err));
	limit *= OUTLIER_FACTOR;
	limit = lens_max(limit, OUTLIER_TOKENS);
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
static size_t cut(const struct lens_plan *plan, const struct cost *c,
		  const struct limits *limit, size_t *first)
{
	const struct lens_prompts *p = plan->prompts;
	double bytes = 0, flop = 0, longest = 0, tokens = 0;
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
			flop = longest = tokens = 0;
		}
		if (row == start) {
			if (first)
				first[n] = row;
			n++;
		}
		/* All rows are as wide as the shard's longest. */
		longest = x > longest ? x : longest;
		tokens += c->token_bytes > 0 ? (double)lens_row_tokens(plan, row) : 0;
		bytes = (double)(row + 1 - start) * at(&c->bytes, longest) +
			tokens * c->token_bytes;
		flop += row_flop(c, p, row);
	}
	if (first)
		first[n] = p->n_rows;
	return n;
}

enum lens_status lens_cut_make(struct lens_cut *c, const struct lens_plan *p,
			       struct lens_error *err)
{
	const struct lens_experiment *e = p->experiment;
	const struct cost cost = cost_of(p);
	struct limits limit = { .prompts = e->shards.prompts ? e->shards.prompts : SIZE_MAX,
				.bytes = (double)e->shards.bytes,
				.flop = LENS_SHARD_FLOP };

	memset(c, 0, sizeof(*c));
	LENS_TRY(outlier_limit(p->prompts, &limit.outlier, err));
	for (c->grown = 1;; c->grown *= 2) {
		c->n = cut(p, &cost, &limit, NULL);
		if (c->n <= LENS_MOST_SHARDS)
			break;
		limit.bytes *= 2;
		limit.flop *= 2;
		limit.prompts = limit.prompts > SIZE_MAX / 2 ? SIZE_MAX : 2 * limit.prompts;
	}
	c->first = lens_calloc(c->n + 1, sizeof(*c->first));
	if (!c->first)
		return lens_error_nomem(err, c->n + 1, sizeof(*c->first));
	cut(p, &cost, &limit, c->first);
	return LENS_OK;
}

void lens_cut_release(struct lens_cut *c)
{
	lens_free(c->first);
	memset(c, 0, sizeof(*c));
}
