/*
 * pipeline/groups.c: results by a column. In: a finished file and a column's name; out: for
 * each value of the column how many prompts have it, and what their results are.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

/* The data sets that are read, NULL: not there; and their places in lens_rows. */
struct sources {
	const struct lens_content_entry *by, *diff, *rank;
	size_t by_cell, by_id, diff_id, rank_id;
	struct lens_cells by_block, diff_block, rank_block;
};

/* What is kept of each row until its group's median is taken. */
struct ranks {
	size_t *group; /* [n_prompts] */
	double *rank;  /* [n_prompts] −1: none */
	double *sorted;
};

void lens_groups_release(struct lens_groups *g)
{
	while (g->n)
		lens_free(g->v[--g->n].value);
	lens_free(g->v);
	memset(g, 0, sizeof(*g));
}

/*
 * t with 97.5 % of Student's distribution below it: a table, then an expansion about the
 * normal quantile (Abramowitz and Stegun 26.7.5), good to four digits from there on.
 */
static double student(size_t freedom)
{
	static const double t[] = { 12.7062, 4.3027, 3.1824, 2.7764, 2.5706,
				    2.4469,  2.3646, 2.3060, 2.2622, 2.2281 };
	const double z = 1.959964, n = (double)freedom, z3 = z * z * z, z5 = z3 * z * z;

	if (freedom <= sizeof(t) / sizeof(*t))
		return t[freedom - 1];
	return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n);
}

static int compare(const char *a, const char *b, bool numbers)
{
	double x, y;

	if (!numbers)
		return strcmp(a, b);
	x = strtod(a, NULL);
	y = strtod(b, NULL);
	if (isnan(x) || isnan(y)) /* last */
		return (int)isnan(x) - (int)isnan(y);
	return x < y ? -1 : x > y ? 1 : strcmp(a, b);
}

/* The place of value among the sorted groups; *found: it is there. */
static size_t search(const struct lens_groups *g, const char *value, bool numbers, bool *found)
{
	size_t low = 0, high = g->n, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (compare(g->v[mid].value, value, numbers) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*found = low < g->n && !compare(g->v[low].value, value, numbers);
	return low;
}

static enum lens_status add_value(struct lens_groups *g, const char *value, bool numbers,
				  struct lens_error *err)
{
	struct lens_group *v;
	bool found;
	size_t at = search(g, value, numbers, &found);

	if (found)
		return LENS_OK;
	if (g->n == LENS_MOST_GROUPS)
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"the column has more than %d values, too many to group by",
			LENS_MOST_GROUPS);
	v = lens_grow(g->v, g->n, &g->cap, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	g->v = v;
	memmove(&v[at + 1], &v[at], (g->n - at) * sizeof(*v));
	v[at] = (struct lens_group){ .value = lens_strdup(value) };
	g->n++;
	return v[at].value ? LENS_OK : lens_error_nomem(err, strlen(value) + 1, 1);
}

static const char *value_of(const struct lens_cells *b, size_t i, char text[LENS_NUMBER_TEXT])
{
	if (b->text)
		return b->text[i];
	if (b->integer)
		snprintf(text, LENS_NUMBER_TEXT, "%lld", (long long)b->integer[i]);
	else if (isnan(b->real[i]))
		return "NaN";
	else
		snprintf(text, LENS_NUMBER_TEXT, "%.15g", b->real[i]);
	return text;
}

/* Of the first answer: its rank or, where each token has one, the largest of them. */
static double rank_of(const struct lens_content_entry *e, const struct lens_cells *b, size_t i)
{
	const int64_t *v = b->integer + i * b->width;
	size_t k, n = e->rank == 3 ? e->extent[2] : 1;
	int64_t worst = -1;

	for (k = 0; k < n; k++)
		worst = v[k] > worst ? v[k] : worst;
	return (double)worst;
}

/* Welford's way: diff_sd holds the sum of squares about the mean until the end. */
static void count_diff(struct lens_group *v, double d)
{
	double off = d - v->diff_mean;

	if (isnan(d))
		return;
	v->n_diff++;
	v->positive += d > 0;
	v->diff_mean += off / (double)v->n_diff;
	v->diff_sd += off * (d - v->diff_mean);
}

static void count_rank(struct lens_group *v, double rank)
{
	v->n_rank += rank >= 0;
	v->top1 += rank == 0;
}

static enum lens_status read_blocks(struct lens_rows *r, const struct lens_content *c,
				    struct sources *s,
				    enum lens_status (*fn)(void *, size_t, size_t,
							   const struct sources *,
							   struct lens_error *),
				    void *ctx, struct lens_error *err)
{
	size_t row, n, i;

	for (row = 0; row < c->n_prompts; row += n) {
		n = lens_min(lens_rows_block(r, row), c->n_prompts - row);
		LENS_TRY(lens_rows_read(r, s->by_id, row, n, &s->by_block, err));
		if (s->diff)
			LENS_TRY(lens_rows_read(r, s->diff_id, row, n, &s->diff_block, err));
		if (s->rank)
			LENS_TRY(lens_rows_read(r, s->rank_id, row, n, &s->rank_block, err));
		for (i = 0; i < n; i++)
			LENS_TRY(fn(ctx, row, i, s, err));
	}
	return LENS_OK;
}

struct pass {
	struct lens_groups *g;
	struct ranks *ranks;
};

static enum lens_status collect(void *ctx, size_t first, size_t i, const struct sources *s,
				struct lens_error *err)
{
	const struct lens_cells *b = &s->by_block;
	struct pass *p = ctx;
	char text[LENS_NUMBER_TEXT];

	(void)first;
	return add_value(p->g, value_of(b, i * b->width + s->by_cell, text), !b->text, err);
}

static enum lens_status count(void *ctx, size_t first, size_t i, const struct sources *s,
			      struct lens_error *err)
{
	const struct lens_cells *b = &s->by_block;
	struct pass *p = ctx;
	char text[LENS_NUMBER_TEXT];
	struct lens_group *v;
	bool found;
	size_t at =
		search(p->g, value_of(b, i * b->width + s->by_cell, text), !b->text, &found);

	(void)err;
	v = &p->g->v[at];
	v->n++;
	if (s->diff && s->diff_block.real)
		count_diff(v, s->diff_block.real[i * s->diff_block.width]);
	p->ranks->group[first + i] = at;
	p->ranks->rank[first + i] =
		s->rank && s->rank_block.integer ? rank_of(s->rank, &s->rank_block, i) : -1;
	count_rank(v, p->ranks->rank[first + i]);
	return LENS_OK;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Sorts the ranks group by group, and takes each one's median. */
static enum lens_status medians(struct lens_groups *g, const struct ranks *r, size_t n,
				struct lens_error *err)
{
	size_t i, *at = lens_calloc(g->n + 1, sizeof(*at)), k;

	if (!at)
		return lens_error_nomem(err, g->n + 1, sizeof(*at));
	for (i = 0; i < g->n; i++)
		at[i + 1] = at[i] + g->v[i].n_rank;
	for (i = 0; i < n; i++) {
		if (r->rank[i] >= 0)
			r->sorted[at[r->group[i]]++] = r->rank[i];
	}
	for (i = 0; i < g->n; i++) {
		double *v = r->sorted + at[i] - g->v[i].n_rank;

		k = g->v[i].n_rank;
		qsort(v, k, sizeof(*v), ascending);
		g->v[i].median_rank = !k      ? NAN
				      : k % 2 ? v[k / 2]
					      : (v[k / 2 - 1] + v[k / 2]) / 2;
	}
	lens_free(at);
	return LENS_OK;
}

static void finish(struct lens_group *v)
{
	const double n = (double)v->n_diff;

	v->diff_sd = v->n_diff > 1 ? sqrt(v->diff_sd / (n - 1)) : NAN;
	v->diff_half = v->n_diff > 1 ? student(v->n_diff - 1) * v->diff_sd / sqrt(n) : NAN;
	if (!v->n_diff)
		v->diff_mean = NAN;
}

static enum lens_status open_sources(struct lens_rows *r, const struct lens_content *c,
				     const char *column, struct sources *s,
				     struct lens_error *err)
{
	s->by = lens_content_column(c, column, &s->by_cell);
	s->diff = lens_content_find(c, "/results/", "logit_diff");
	s->rank = lens_content_find(c, "/results/", "answer_rank");
	if (!s->rank)
		s->rank = lens_content_find(c, "/results/", "answer_token_rank");
	if (!s->by)
		return lens_content_no_column(c, column, err);
	if (s->diff && (s->diff->rank != 2 || !s->diff->extent[1]))
		s->diff = NULL;
	if (s->rank && (s->rank->rank < 2 || !s->rank->extent[1]))
		s->rank = NULL;
	LENS_TRY(lens_rows_add(r, s->by->path, &s->by_id, err));
	if (s->diff)
		LENS_TRY(lens_rows_add(r, s->diff->path, &s->diff_id, err));
	if (s->rank)
		LENS_TRY(lens_rows_add(r, s->rank->path, &s->rank_id, err));
	return LENS_OK;
}

/* The values first, so that a group keeps its place while it is counted. */
static enum lens_status group(struct lens_rows *r, const struct lens_content *c,
			      const char *column, struct pass *p, struct lens_error *err)
{
	struct sources s = { .by = NULL };
	size_t i;

	LENS_TRY(open_sources(r, c, column, &s, err));
	LENS_TRY(read_blocks(r, c, &s, collect, p, err));
	LENS_TRY(read_blocks(r, c, &s, count, p, err));
	p->g->any_tokens = lens_content_find(c, "/prompts/", "answer_tokens") != NULL;
	for (i = 0; i < p->g->n; i++)
		finish(&p->g->v[i]);
	return medians(p->g, p->ranks, c->n_prompts, err);
}

enum lens_status lens_groups_read(const char *file, const struct lens_content *c,
				  const char *column, struct lens_groups *g,
				  struct lens_error *err)
{
	struct ranks ranks = { lens_calloc(c->n_prompts, sizeof(*ranks.group)),
			       lens_calloc(c->n_prompts, sizeof(*ranks.rank)),
			       lens_calloc(c->n_prompts, sizeof(*ranks.sorted)) };
	struct pass p = { g, &ranks };
	struct lens_rows *r = NULL;
	enum lens_status st;

	memset(g, 0, sizeof(*g));
	if (!ranks.group || !ranks.rank || !ranks.sorted)
		st = lens_error_nomem(err, c->n_prompts, sizeof(double));
	else
		st = lens_rows_open(file, &r, err);
	if (st == LENS_OK)
		st = lens_rows_close(r, group(r, c, column, &p, err), err);
	if (st != LENS_OK)
		lens_groups_release(g);
	lens_free(ranks.group);
	lens_free(ranks.rank);
	lens_free(ranks.sorted);
	return st;
}
