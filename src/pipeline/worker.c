/*
 * pipeline/worker.c: batches on all cores. Each worker takes the next batch,
 * runs it with its own memory, and hands what was captured to the writer.
 */
#include "pipeline/pipeline_private.h"

#include <omp.h>
#include <string.h>
#include <time.h>

struct worker {
	struct lens_work *work;
	struct lens_sink sink;
	struct lens_forward *forward;
	struct lens_capture *capture;
	struct lens_analysis *analysis; /* NULL without tables */
	/* the batch in hand */
	const int32_t **tokens;
	size_t *length, *offset;
};

double lens_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void worker_release(struct worker *w)
{
	lens_forward_destroy(w->forward);
	lens_capture_destroy(w->capture);
	lens_analysis_destroy(w->analysis);
	lens_free(w->tokens);
	lens_free(w->length);
	lens_free(w->offset);
}

static enum lens_status worker_init(struct worker *w, struct lens_work *work,
				    struct lens_error *err)
{
	const struct lens_plan *p = work->plan;
	struct lens_analysis_options tables = p->analysis;
	size_t n = p->batch_rows;

	memset(w, 0, sizeof(*w));
	w->work = work;
	w->sink = lens_writer_sink(work->writer);
	w->tokens = lens_calloc(n, sizeof(*w->tokens));
	w->length = lens_calloc(n, sizeof(*w->length));
	w->offset = lens_calloc(n, sizeof(*w->offset));
	if (!w->tokens || !w->length || !w->offset)
		return lens_error_nomem(err, n, sizeof(*w->tokens));
	LENS_TRY(lens_forward_create(p->model, &p->hooks, p->max_packed, p->prompts->max_length,
				     (int)work->memory->inner_threads, &w->forward, err));
	LENS_TRY(lens_capture_create(&p->capture, &w->sink, &w->capture, err));
	if (!p->analysis_runs)
		return LENS_OK;
	tables.threads = (int)work->memory->inner_threads;
	return lens_analysis_create(p->model, &tables, &w->analysis, err);
}

static enum lens_status visit(void *ctx, const struct lens_batch *b,
			      const struct lens_activation *a, struct lens_error *err)
{
	struct worker *w = ctx;

	if (w->analysis)
		lens_analysis_visit(w->analysis, b, a);
	return lens_capture_visit(w->capture, b, a, err);
}

/* Packs prompts row0 … row0 + n − 1. */
static struct lens_batch pack(struct worker *w, size_t row0, size_t n)
{
	const struct lens_prompts *p = w->work->plan->prompts;
	struct lens_batch b = { .n_prompts = n,
				.tokens = w->tokens,
				.length = w->length,
				.offset = w->offset,
				.read_pos = p->read_pos + row0 };
	size_t i;

	for (i = 0; i < n; i++) {
		uint64_t at = p->offset[row0 + i];

		w->tokens[i] = p->tokens + at;
		w->length[i] = lens_prompt_length(p, row0 + i);
		w->offset[i] = b.n_rows;
		b.n_rows += lens_packed_length(w->length[i]);
	}
	return b;
}

/* What the check found odd about the rows themselves. */
static void add_row_flags(unsigned char *flags, const uint8_t *of_rows, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		flags[i] |= of_rows[i];
}

static enum lens_status hand_over_tables(struct worker *w, size_t row0, size_t n,
					 struct lens_error *err)
{
	const struct lens_plan *p = w->work->plan;
	size_t i;

	for (i = 0; i < p->n_datasets; i++) {
		struct lens_captured c = {
			.dataset = (int)i, .by_rows = true, .row0 = row0, .n_rows = n
		};
		const void *rows;

		if (p->dataset[i].from != LENS_FROM_TABLE)
			continue;
		rows = lens_analysis_result(w->analysis, p->dataset[i].source, &c.bytes);
		c.bytes *= n;
		LENS_TRY(w->sink.acquire(w->sink.ctx, c.bytes, &c.data, err));
		memcpy(c.data, rows, c.bytes);
		if (p->dataset[i].source == LENS_TABLE_FLAGS)
			add_row_flags(c.data, p->prompts->flags + row0, n);
		LENS_TRY(w->sink.submit(w->sink.ctx, &c, err));
	}
	return LENS_OK;
}

static enum lens_status run_batch(struct worker *w, size_t batch, size_t *flagged,
				  struct lens_error *err)
{
	const struct lens_plan *p = w->work->plan;
	const struct lens_prompts *q = p->prompts;
	size_t row0 = batch * p->batch_rows;
	size_t n = q->n_rows - row0 < p->batch_rows ? q->n_rows - row0 : p->batch_rows;
	const struct lens_visitor v = { .hooks = &p->hooks, .visit = visit, .ctx = w };
	struct lens_batch b = pack(w, row0, n);

	lens_capture_begin(w->capture, row0, q->read_pos + row0);
	if (w->analysis)
		lens_analysis_begin(w->analysis, q->read_pos + row0);
	LENS_TRY(lens_forward_run(w->forward, &b, &v, err));
	if (!w->analysis)
		return LENS_OK;
	lens_analysis_finish(w->analysis, n, q->answers + row0 * q->n_answers, flagged);
	return hand_over_tables(w, row0, n, err);
}

/* Counts a batch as done and tells the user. Under the critical section's lock. */
static void report(struct lens_work *w, size_t batch, size_t flagged)
{
	const struct lens_prompts *q = w->plan->prompts;
	struct lens_progress *g = &w->result->progress;
	size_t row0 = batch * w->plan->batch_rows, end = row0 + w->plan->batch_rows;

	end = end < q->n_rows ? end : q->n_rows;
	w->result->n_flagged += flagged;
	g->rows_done += end - row0;
	g->tokens_done += q->offset[end] - q->offset[row0];
	g->bytes_written = w->bytes_before + lens_writer_bytes(w->writer);
	g->seconds = lens_now() - w->started;
	if (w->options->progress)
		w->options->progress(w->options->ctx, g);
}

static enum lens_status work_through(struct worker *w, struct lens_error *err)
{
	const atomic_int *stop = w->work->options->stop;
	size_t batch;

	while (lens_schedule_next(w->work->schedule, &batch)) {
		size_t flagged = 0;

		if (stop && atomic_load(stop))
			return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
		LENS_TRY(run_batch(w, batch, &flagged, err));
		lens_schedule_done(w->work->schedule, batch);
#pragma omp critical(lens_work_report)
		report(w->work, batch, flagged);
	}
	return LENS_OK;
}

/* One thread's share; its error, if it is the first, becomes the run's. */
static void one_worker(struct lens_work *work, struct lens_error *first)
{
	struct lens_error e = LENS_ERROR_INIT;
	struct worker w;
	enum lens_status st = worker_init(&w, work, &e);
	size_t i;

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
		for (i = 0; w.capture && i < work->plan->capture.n_specs; i++)
			work->overflows[i] += lens_capture_overflows(w.capture, i);
	}
	worker_release(&w);
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
	if (st == LENS_OK)
		st = lens_error_pass(err, &first);
	w->result->progress.bytes_written = w->bytes_before + lens_writer_bytes(w->writer);
	w->result->progress.seconds = lens_now() - w->started;
	return st;
}
