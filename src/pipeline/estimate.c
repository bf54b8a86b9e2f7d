/*
 * pipeline/estimate.c: how long a run would take. In: the parts of a sweep; out: the time of
 * some of its prompts, passes and tables as a worker makes them, and what follows from it
 * for all the arithmetic that is planned. Nothing is written.
 */
#include "pipeline/pipeline_private.h"

#define ENOUGH 0.7 /* seconds of a sample */

struct sample {
	const struct lens_plan *plan;
	struct lens_order order; /* its first batch is the sample */
	struct lens_batch batch;
	struct lens_forward *forward;
	struct lens_tables *tables; /* NULL without any */
	struct lens_visitor visitor[2];
	struct lens_visitors visitors;
};

/* A stored activation must be computed, and that is all. */
static enum lens_status drop(void *ctx, const struct lens_batch *b,
			     const struct lens_activation *a, struct lens_error *err)
{
	(void)ctx;
	(void)b;
	(void)a;
	(void)err;
	return LENS_OK;
}

static enum lens_status sample_init(struct sample *s, size_t threads, struct lens_error *err)
{
	const struct lens_plan *p = s->plan;
	struct lens_tables_options tables = p->tables;
	const struct lens_forward_size size = lens_plan_pass(p, &s->visitors, threads);

	s->visitor[0] = (struct lens_visitor){ .hooks = &p->hooks, .visit = drop };
	s->visitors = (struct lens_visitors){ s->visitor, p->any_table ? 2 : 1 };
	tables.threads = size.threads;
	LENS_TRY(lens_order_make(&s->order, p, err));
	LENS_TRY(lens_batch_init(&s->batch, p->most_prompts, p->most_tokens, p->max_packed,
				 err));
	s->batch.share = p->experiment->share_prefixes;
	if (p->any_table)
		LENS_TRY(lens_tables_create(p->model, &tables, &s->tables, err));
	s->visitor[1] = (struct lens_visitor){ .hooks = &p->table_hooks,
					       .visit = lens_tables_visit,
					       .ctx = s->tables };
	return lens_forward_create(p->model, &size, &s->forward, err);
}

static void sample_release(struct sample *s)
{
	lens_forward_destroy(s->forward);
	lens_tables_destroy(s->tables);
	lens_batch_release(&s->batch);
	lens_order_release(&s->order);
}

/* The first n prompts of the batch; *seconds is what they took. */
static enum lens_status take(struct sample *s, size_t n, double *seconds,
			     struct lens_error *err)
{
	const struct lens_prompts *q = s->plan->prompts;
	const struct lens_tables_batch in = { .batch = &s->batch,
					      .row = s->order.row,
					      .answers = q->answers,
					      .answer_offset = q->answer_offset,
					      .flags = q->flags };
	double start = lens_now();
	size_t i, flagged = 0;

	lens_batch_clear(&s->batch);
	for (i = 0; i < n; i++)
		lens_pack_row(&s->batch, q, s->order.row[i]);
	if (s->tables)
		lens_tables_begin(s->tables, &in);
	LENS_TRY(lens_forward_run(s->forward, &s->batch, &s->visitors, err));
	if (s->tables) {
		LENS_TRY(lens_tables_continue(s->tables, s->forward, err));
		lens_tables_finish(s->tables, &flagged);
	}
	*seconds = lens_now() - start;
	return LENS_OK;
}

/*
 * One prompt, which also brings the weights in, then as many as there is time for: a full
 * batch is faster.
 */
static enum lens_status measure(struct sample *s, struct lens_estimate *out,
				struct lens_error *err)
{
	const size_t most = s->order.first[1];
	double left = ENOUGH, fit; /* seconds; prompts in them */
	bool again = false;
	size_t n = 1;

	for (;; again = true) {
		LENS_TRY(take(s, n, &out->sample_seconds, err));
		out->sample_rows = n;
		left -= out->sample_seconds;
		fit = left / (out->sample_seconds + 1e-6) * (double)n;
		if (left < 0 || (again && (fit < 2 * (double)n || n == most)))
			return LENS_OK;
		n = fit < 1 ? 1 : fit < (double)most ? (size_t)fit : most;
	}
}

/* first: which row of the whole sweep is the plan's first. */
static enum lens_status run_sample(const struct lens_plan *p, size_t threads, size_t first,
				   struct lens_estimate *out, struct lens_error *err)
{
	struct sample s = { .plan = p };
	enum lens_status st = sample_init(&s, threads, err);
	size_t i;

	if (st == LENS_OK)
		st = measure(&s, out, err);
	for (i = 0; st == LENS_OK && i < out->sample_rows; i++)
		out->sample_flop += lens_plan_flop(p->whole, first + s.order.row[i], 1, false);
	sample_release(&s);
	return st;
}

enum lens_status lens_estimate_make(const struct lens_parts *parts,
				    const struct lens_share *task, struct lens_estimate *out,
				    struct lens_error *err)
{
	const struct lens_cut *cut = &parts->cut;
	size_t i, first = cut->n;
	struct lens_plan plan;
	enum lens_status st;

	*out = (struct lens_estimate){ .workers = parts->most.workers };
	for (i = cut->n; i-- > 0;) {
		if (task && !lens_share_has(task, i))
			continue;
		first = i;
		out->flop += lens_plan_flop(parts->whole, cut->first[i],
					    cut->first[i + 1] - cut->first[i], true);
	}
	if (first == cut->n) /* a task without a share */
		return LENS_OK;
	LENS_TRY(lens_parts_plan(parts, first, &plan, err));
	st = run_sample(&plan, parts->most.inner_threads, cut->first[first], out, err);
	lens_plan_release(&plan);
	LENS_TRY(st);
	out->seconds = out->flop / out->sample_flop * out->sample_seconds /
		       (double)lens_max(out->workers, 1);
	return LENS_OK;
}
