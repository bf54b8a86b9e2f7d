/*
 * pipeline/worker.c: batches on all cores. Each worker takes the next batch,
 * runs it with its own memory, and hands what was captured to the writer.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <omp.h>
#include <string.h>

struct worker {
	struct lens_work *work;
	struct lens_sink sink;
	struct lens_forward *forward;
	struct lens_capture *capture;
	struct lens_tables *tables;               /* NULL without any */
	struct lens_interventions *interventions; /* NULL without any */
	struct lens_visitor visitor[2];
	struct lens_visitors visitors;
	struct lens_batch batch; /* in hand */
	size_t overflows[LENS_TABLE_COUNT];
	double busy, convert; /* seconds: of batches; of that, of results */
};

static void worker_release(struct worker *w)
{
	lens_forward_destroy(w->forward);
	lens_capture_destroy(w->capture);
	lens_tables_destroy(w->tables);
	lens_interventions_destroy(w->interventions);
	lens_batch_release(&w->batch);
}

static enum lens_status worker_init(struct worker *w, struct lens_error *err)
{
	struct lens_work *work = w->work;
	const struct lens_plan *p = work->plan;
	struct lens_tables_options tables = p->tables;
	struct lens_interventions_options interventions =
		lens_plan_interventions(p, work->memory->inner_threads);
	struct lens_forward_size size =
		lens_plan_pass(p, &w->visitors, work->memory->inner_threads);

	w->sink = lens_writer_sink(work->writer);
	size.most_threads = (int)work->memory->most_threads;
	tables.threads = size.threads;
	interventions.mean = work->mean;
	interventions.vector = work->vector;
	LENS_TRY(lens_batch_init(&w->batch, p->most_prompts, p->most_tokens, p->max_packed,
				 err));
	w->batch.share = p->experiment->share_prefixes;
	LENS_TRY(lens_capture_create(&p->capture, &w->sink, &w->capture, err));
	if (p->any_table)
		LENS_TRY(lens_tables_create(p->model, &tables, &w->tables, err));
	if (p->study.n_outcomes)
		LENS_TRY(lens_interventions_create(&interventions, &w->interventions, err));
	w->visitor[0] = (struct lens_visitor){ .hooks = &p->hooks,
					       .visit = lens_capture_visit,
					       .ctx = w->capture };
	w->visitor[1] = (struct lens_visitor){ .hooks = &p->table_hooks,
					       .visit = lens_tables_visit,
					       .ctx = w->tables };
	w->visitors = (struct lens_visitors){ w->visitor, p->any_table ? 2 : 1 };
	return lens_forward_create(p->model, &size, &w->forward, err);
}

void lens_pack_row(struct lens_batch *b, const struct lens_prompts *p, size_t row)
{
	lens_batch_pack(b, p->tokens + p->offset[row], lens_prompt_length(p, row),
			p->read_pos[row], 0);
}

/* A batch's rows of a table or an outcome, as it was computed: [n, row bytes]. */
static const char *rows_of(const struct worker *w, const struct lens_planned *d, size_t *row)
{
	enum lens_table table = (enum lens_table)d->source;

	if (d->from == LENS_FROM_TABLE) {
		*row = lens_table_row_bytes(table, &w->work->plan->tables);
		return lens_tables_rows(w->tables, table);
	}
	*row = lens_outcome_floats(&w->work->plan->study.outcome[d->source],
				   &w->work->plan->sizes) *
	       sizeof(float);
	return (const char *)lens_interventions_rows(w->interventions, d->source);
}

/* Rows of a table or an outcome, as they are or as halves. */
static enum lens_status hand_over_rows(struct worker *w, const struct lens_planned *d,
				       struct lens_captured c, size_t first,
				       struct lens_error *err)
{
	size_t row;
	const char *all = rows_of(w, d, &row), *rows = all + first * row;
	size_t bytes = c.n_rows * row, n = bytes / sizeof(float);
	bool halves = d->dtype == LENS_F16;
	double start;

	c.bytes = halves ? n * lens_dtype_size(LENS_F16) : bytes;
	LENS_TRY(w->sink.acquire(w->sink.ctx, c.bytes, &c.data, err));
	start = lens_now();
	if (halves)
		w->overflows[d->source] +=
			lens_vec()->to_f16(n, (const float *)(const void *)rows, c.data);
	else
		memcpy(c.data, rows, bytes);
	w->convert += lens_now() - start;
	return w->sink.submit(w->sink.ctx, &c, err);
}

/* Blocks as large as the pool's buffers. */
static enum lens_status hand_over_results(struct worker *w, const size_t *row, size_t n,
					  struct lens_error *err)
{
	const struct lens_plan *p = w->work->plan;
	size_t i, first;

	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];
		struct lens_captured c = { .dataset = (int)i, .by_rows = true };

		if (d->from == LENS_FROM_HOOK)
			continue;
		for (first = 0; first < n; first += c.n_rows) {
			c.row = row + first;
			c.n_rows = lens_min(lens_min(n - first, p->batch_rows), d->chunk[0]);
			LENS_TRY(hand_over_rows(w, d, c, first, err));
		}
	}
	return LENS_OK;
}

static const size_t *rows_of_batch(const struct lens_work *w, size_t batch, size_t *n)
{
	const size_t *first = w->order->first + batch;

	*n = first[1] - first[0];
	return w->order->row + first[0];
}

static enum lens_status run_batch(struct worker *w, size_t batch, size_t *flagged,
				  struct lens_error *err)
{
	const struct lens_prompts *q = w->work->plan->prompts;
	size_t i, n;
	const size_t *row = rows_of_batch(w->work, batch, &n);
	struct lens_tables_batch in = { .batch = &w->batch,
					.row = row,
					.answers = q->answers,
					.answer_offset = q->answer_offset,
					.flags = q->flags };
	/* Of sorted rows nothing is captured, and nothing intervenes. */
	struct lens_interventions_batch cells = {
		.prompts = q, .row0 = row[0], .n = n, .stop = w->work->watch->stop
	};

	lens_batch_clear(&w->batch);
	for (i = 0; i < n; i++)
		lens_pack_row(&w->batch, q, row[i]);
	lens_capture_begin(w->capture, row[0], lens_plan_first_token(w->work->plan, row[0]));
	if (w->tables)
		lens_tables_begin(w->tables, &in);
	LENS_TRY(lens_forward_run(w->forward, &w->batch, &w->visitors, err));
	if (w->tables) {
		LENS_TRY(lens_tables_continue(w->tables, w->forward, err));
		lens_tables_finish(w->tables, flagged);
		cells.flags = lens_tables_rows(w->tables, LENS_TABLE_flags);
	}
	if (w->interventions)
		LENS_TRY(lens_interventions_run(w->interventions, &cells, flagged, err));
	return hand_over_results(w, row, n, err);
}

/* Under the critical section's lock, as shards may overlap. */
static void count_bytes(struct lens_work *w)
{
	uint64_t written = lens_writer_bytes(w->writer);

	w->watch->progress->bytes_written += written - w->bytes_told;
	w->bytes_told = written;
}

/* Counts a batch as done and tells the user. Under the critical section's lock. */
static void report(struct lens_work *w, size_t batch, size_t flagged)
{
	const struct lens_prompts *q = w->plan->prompts;
	struct lens_progress *g = w->watch->progress;
	size_t i, n;
	const size_t *row = rows_of_batch(w, batch, &n);

	w->counts->n_flagged += flagged;
	g->rows_done += n;
	for (i = 0; i < n; i++)
		g->tokens_done += lens_prompt_length(q, row[i]);
	count_bytes(w);
	g->seconds = lens_now() - w->watch->started;
	w->watch->tell(w->watch->ctx, g);
}

static enum lens_status work_through(struct worker *w, struct lens_error *err)
{
	const atomic_int *stop = w->work->watch->stop;
	size_t batch;

	while (lens_schedule_next(w->work->schedule, &batch)) {
		size_t flagged = 0;
		double start = lens_now();

		if (stop && atomic_load(stop))
			return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
		if (lens_relay_failed(w->work->relay))
			return lens_error_set(err, LENS_ERR_INTERRUPTED,
					      "another shard failed");
		if (!lens_schedule_left(w->work->schedule))
			lens_relay_dry(w->work->relay, w->work->shard);
		LENS_TRY(run_batch(w, batch, &flagged, err));
		w->busy += lens_now() - start;
		lens_schedule_done(w->work->schedule, batch);
#pragma omp critical(lens_work_report)
		report(w->work, batch, flagged);
	}
	return LENS_OK;
}

/* What waiting for buffers took is taken off in the end, when the writer tells it. */
static void add_times(const struct worker *w, struct lens_times *all)
{
	struct lens_times own = { .convert = w->convert };

	if (w->capture)
		lens_capture_add_times(w->capture, &own);
	all->convert += own.convert;
	all->digest += own.digest;
	all->compute += w->busy - own.convert - own.digest;
}

/* Under the critical section's lock. */
static void add_counts(const struct worker *w)
{
	struct lens_counts *c = w->work->counts;
	size_t i;

	add_times(w, &c->times.workers);
	if (w->capture) {
		for (i = 0; i < w->work->plan->capture.n_specs; i++)
			c->overflows[i] += lens_capture_overflows(w->capture, i);
	}
	if (w->tables) {
		for (i = 0; i < LENS_TABLE_COUNT; i++) {
			c->table_overflows[i] += w->overflows[i];
			c->deviations[i] =
				fmax(c->deviations[i],
				     lens_tables_deviation(w->tables, (enum lens_table)i));
		}
	}
}

/* One thread's share, in a place of its own; its error, if it is the first, is the run's. */
static void one_worker(struct lens_work *work, struct lens_error *first)
{
	struct lens_error e = LENS_ERROR_INIT;
	struct worker w = { .work = work };
	enum lens_status st;
	double start;

	if (!lens_relay_take(work->relay, work->schedule))
		return;
	lens_crew_join(work->memory->inner_threads);
	start = lens_now();
	st = worker_init(&w, &e);
	w.busy = lens_now() - start;
	if (st == LENS_OK)
		st = work_through(&w, &e);
	if (st != LENS_OK) {
		lens_schedule_stop(work->schedule);
		lens_writer_stop(work->writer);
	}
#pragma omp critical(lens_work_report)
	{
		if (st != LENS_OK && e.code != LENS_OK && first->code == LENS_OK)
			*first = e;
		add_counts(&w);
	}
	worker_release(&w);
	lens_crew_rest(work->memory->inner_threads);
	lens_relay_give(work->relay);
}

enum lens_status lens_work_run(struct lens_work *w, struct lens_error *err)
{
	struct lens_error first = LENS_ERROR_INIT;
	enum lens_status st;

	omp_set_max_active_levels(2);
#pragma omp parallel num_threads((int)w->memory->workers)
	one_worker(w, &first);
	/* A failure of the writer makes workers fail: tell the cause. */
	st = lens_writer_finish(w->writer, err);
	lens_writer_add_times(w->writer, &w->counts->times);
	if (st == LENS_OK)
		st = lens_error_pass(err, &first);
#pragma omp critical(lens_work_report)
	count_bytes(w);
	w->watch->progress->seconds = lens_now() - w->watch->started;
	return st;
}
