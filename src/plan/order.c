/*
 * plan/order.c: the order in which rows become batches. In: the plan and its rows' tokens;
 * out: which rows each batch computes.
 *
 * Prompts that begin alike share rows only inside a batch. So where no cache is stored,
 * rows are sorted by their tokens, in windows: the writer holds the chunks of a window's
 * results until they are whole, and those of all windows together would be a whole file.
 * A batch takes rows until what is new in it fills it. Results go to the rows' own places:
 * which row is in which batch shows nowhere in the file.
 */
#include "plan/plan_private.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW_BYTES ((size_t)16 << 20) /* of a window's results */
#define MORE_PROMPTS 2   /* times the prompts of a batch in file order, where they share rows */
#define LEAST_BATCHES 16 /* of a window that is large enough, so that threads find work */

/* --- the windows ------------------------------------------------------------------- */

static size_t results_bytes(const struct lens_plan *p)
{
	size_t i, sum = 0;

	for (i = 0; i < p->n_datasets; i++)
		sum += (size_t)lens_row_bytes(&p->dataset[i], &p->sizes);
	return sum;
}

/*
 * Interventions run most of their passes from what was recorded, where nothing is left to
 * be shared; and a row alone has nobody to share with.
 */
static bool pays(const struct lens_plan *p)
{
	return p->experiment->share_prefixes && p->any_table && !p->capture.n_specs &&
	       !p->study.n_outcomes && p->prompts->n_rows > 1;
}

void lens_plan_order(struct lens_plan *p)
{
	size_t window = WINDOW_BYTES / lens_max(results_bytes(p), 1);

	p->sort_rows = 0;
	p->most_prompts = p->batch_rows;
	p->most_tokens = p->max_packed;
	if (pays(p) && window >= MORE_PROMPTS * p->batch_rows) {
		p->sort_rows = lens_min(window, p->prompts->n_rows);
		p->most_prompts *= MORE_PROMPTS;
		p->most_tokens *= MORE_PROMPTS;
	}
	p->tables.batch_rows = p->most_prompts;
}

size_t lens_rows_in_hand(const struct lens_plan *p, size_t workers)
{
	size_t rows = LENS_BATCH_WINDOW * workers * p->most_prompts;
	size_t windows = p->sort_rows ? (rows + p->sort_rows - 1) / p->sort_rows + 1 : 0;

	return p->sort_rows ? windows * p->sort_rows : rows;
}

/* --- sorting ----------------------------------------------------------------------- */

struct row {
	const int32_t *tokens;
	size_t length, row;
};

size_t lens_order_bytes(const struct lens_plan *p)
{
	/* A row of a sorted window may be a batch. */
	return p->prompts->n_rows * 2 * sizeof(size_t) + p->sort_rows * sizeof(struct row);
}

/* Tokens with which both begin. */
static size_t common(const struct row *a, const struct row *b)
{
	size_t i = 0, n = lens_min(a->length, b->length);

	while (i < n && a->tokens[i] == b->tokens[i])
		i++;
	return i;
}

static int by_tokens(const void *x, const void *y)
{
	const struct row *a = x, *b = y;
	size_t i = common(a, b);

	if (i < a->length && i < b->length)
		return a->tokens[i] < b->tokens[i] ? -1 : 1;
	if (a->length != b->length)
		return a->length < b->length ? -1 : 1;
	return a->row < b->row ? -1 : 1;
}

static void sort(const struct lens_prompts *q, size_t first, size_t n, struct row *out)
{
	size_t i;

	for (i = 0; i < n; i++)
		out[i] = (struct row){ .tokens = q->tokens + q->offset[first + i],
				       .length = lens_prompt_length(q, first + i),
				       .row = first + i };
	qsort(out, n, sizeof(*out), by_tokens);
}

/* --- batches ------------------------------------------------------------------------ */

/* A batch that is being filled. */
struct filling {
	size_t prompts, tokens;
	struct lens_row_count rows;
	size_t share; /* of the window's rows, in which no beginning counts twice */
};

/* Rows of activations that a prompt adds behind the one before it; without one: all. */
static size_t new_rows(const struct row *r, const struct row *before)
{
	return r->length - (before ? common(r, before) : 0);
}

/* Each has a row of its own where only read positions go on, whatever they share. */
static bool has_room(const struct lens_plan *p, const struct filling *f, const struct row *r,
		     size_t new)
{
	struct lens_row_count rows = f->rows;

	lens_batch_count(&rows, r->length, r->length - new);
	return f->prompts < p->most_prompts && f->tokens + r->length <= p->most_tokens &&
	       lens_row_places(&rows) <= p->max_packed &&
	       f->prompts + 1 <= lens_row_room(p->max_packed);
}

/* A batch's share of a window's rows of activations, so that all are about equal. */
static size_t fair_share(const struct lens_plan *p, const struct row *r, size_t n)
{
	size_t i, batches, least = (n + p->batch_rows - 1) / p->batch_rows, rows = 0;

	for (i = 0; i < n; i++)
		rows += new_rows(&r[i], i ? &r[i - 1] : NULL);
	batches = (rows + p->max_packed - 1) / p->max_packed;
	batches = lens_max(batches, lens_min(least, LEAST_BATCHES));
	return (rows + batches - 1) / batches;
}

/* The rows r, which are at `at` in the order, become batches. */
static void cut_window(struct lens_order *o, const struct lens_plan *p, const struct row *r,
		       size_t at, size_t n)
{
	size_t i, full = fair_share(p, r, n);
	struct filling f = { 0 };

	for (i = 0; i < n; i++) {
		size_t share = new_rows(&r[i], i ? &r[i - 1] : NULL), new = share;

		if (!i || f.share >= full || !has_room(p, &f, &r[i], new)) {
			o->first[o->n_batches++] = at + i;
			new = new_rows(&r[i], NULL);
			f = (struct filling){ 0 };
		}
		f.prompts++;
		f.tokens += r[i].length;
		lens_batch_count(&f.rows, r[i].length, r[i].length - new);
		f.share += share;
		o->row[at + i] = r[i].row;
	}
}

static enum lens_status sorted(struct lens_order *o, const struct lens_plan *p,
			       struct lens_error *err)
{
	size_t at, n, n_rows = p->prompts->n_rows;
	struct row *r = lens_calloc(p->sort_rows, sizeof(*r));

	if (!r)
		return lens_error_nomem(err, p->sort_rows, sizeof(*r));
	for (at = 0; at < n_rows; at += n) {
		n = lens_min(p->sort_rows, n_rows - at);
		sort(p->prompts, at, n, r);
		cut_window(o, p, r, at, n);
	}
	lens_free(r);
	return LENS_OK;
}

static void in_file_order(struct lens_order *o, const struct lens_plan *p)
{
	size_t i;

	for (i = 0; i < p->prompts->n_rows; i++) {
		if (i % p->batch_rows == 0)
			o->first[o->n_batches++] = i;
		o->row[i] = i;
	}
}

enum lens_status lens_order_make(struct lens_order *o, const struct lens_plan *p,
				 struct lens_error *err)
{
	size_t n = p->prompts->n_rows;
	enum lens_status st = LENS_OK;

	*o = (struct lens_order){ .first = lens_calloc(n + 1, sizeof(*o->first)),
				  .row = lens_calloc(n, sizeof(*o->row)) };
	if (!o->first || !o->row)
		st = lens_error_nomem(err, n, sizeof(*o->row));
	else if (p->sort_rows)
		st = sorted(o, p, err);
	else
		in_file_order(o, p);
	if (st == LENS_OK)
		o->first[o->n_batches] = n;
	else
		lens_order_release(o);
	return st;
}

void lens_order_release(struct lens_order *o)
{
	lens_free(o->first);
	lens_free(o->row);
	memset(o, 0, sizeof(*o));
}
