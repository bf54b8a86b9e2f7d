/*
 * pipeline/shard.c: one shard: its file is laid out by its plan, workers fill it, and it
 * gets its name. A sweep of one shard is this and no more.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

/* Everything a shard holds while it is made; released in one place. */
struct shard {
	const struct lens_compute_job *job;
	struct lens_inputs in; /* the rows of this shard */
	struct lens_plan plan;
	struct lens_order order;
	const struct lens_memory *memory;
	struct lens_store *store;
	int *store_id;
	struct lens_writer *writer;
	struct lens_schedule *schedule;
	struct lens_counts counts;
};

static enum lens_status place(struct shard *s, struct lens_error *err)
{
	const struct lens_compute_job *j = s->job;
	const struct lens_cut *cut = &j->parts->cut;

	if (cut->n == 1)
		return LENS_OK;
	LENS_TRY(lens_store_attr_i64(s->store, "/", "shard", (int64_t)j->shard, err));
	LENS_TRY(lens_store_attr_i64(s->store, "/", "n_shards", (int64_t)cut->n, err));
	return lens_store_attr_i64(s->store, "/", "shard_first_row",
				   (int64_t)cut->first[j->shard], err);
}

static enum lens_status lay_out(struct shard *s, struct lens_error *err)
{
	size_t n = s->plan.n_datasets;

	s->store_id = lens_calloc(n, sizeof(*s->store_id));
	s->counts.overflows =
		lens_calloc(s->plan.capture.n_specs, sizeof(*s->counts.overflows));
	if (!s->store_id || !s->counts.overflows)
		return lens_error_nomem(err, n, sizeof(*s->store_id));
	LENS_TRY(lens_store_create(s->job->path, &s->store, err));
	LENS_TRY(lens_layout_create(s->store, &s->plan, s->store_id, err));
	LENS_TRY(lens_layout_attributes(s->store, &s->in, err));
	if (s->job->mean)
		LENS_TRY(lens_store_attr_str(s->store, "/", "ablate_mean_sha256",
					     s->job->mean->sha256, err));
	LENS_TRY(place(s, err));
	return lens_layout_prompts(s->store, &s->plan, &s->in, err);
}

static enum lens_status compute(struct shard *s, struct lens_error *err)
{
	size_t window = LENS_BATCH_WINDOW * s->memory->workers;
	struct lens_work work = {
		.plan = &s->plan,
		.order = &s->order,
		.mean = s->job->mean,
		.vector = s->in.vector->v,
		.memory = s->memory,
		.watch = s->job->watch,
		.counts = &s->counts,
		.relay = s->job->relay,
		.shard = s->job,
	};

	LENS_TRY(lens_writer_create(s->store, &s->plan, s->store_id, s->memory, &s->writer,
				    err));
	LENS_TRY(lens_order_make(&s->order, &s->plan, err));
	LENS_TRY(lens_schedule_create(s->order.n_batches, window, &s->schedule, err));
	work.writer = s->writer;
	work.schedule = s->schedule;
	return lens_work_run(&work, err);
}

static enum lens_status count_hooks(const struct shard *s, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->plan.capture.n_specs; i++) {
		const struct lens_capture_spec *c = &s->plan.capture.spec[i];

		if (c->dtype == LENS_F16)
			LENS_TRY(lens_store_attr_i64(s->store, s->plan.dataset[c->dataset].path,
						     "f16_overflows",
						     (int64_t)s->counts.overflows[i], err));
	}
	return LENS_OK;
}

/* As text, which every reader of the schema counts in a file's digest. */
static enum lens_status store_deviation(const struct shard *s, const struct lens_planned *d,
					struct lens_error *err)
{
	char text[32];

	snprintf(text, sizeof(text), "%.3e", s->counts.deviations[d->source]);
	return lens_store_attr_str(s->store, d->path, "largest_deviation", text, err);
}

static enum lens_status count_tables(const struct shard *s, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->plan.n_datasets; i++) {
		const struct lens_planned *d = &s->plan.dataset[i];

		if (d->from != LENS_FROM_TABLE)
			continue;
		if (d->dtype == LENS_F16)
			LENS_TRY(lens_store_attr_i64(
				s->store, d->path, "f16_overflows",
				(int64_t)s->counts.table_overflows[d->source], err));
		if (lens_table_type((enum lens_table)d->source, &s->plan.tables)->has_deviation)
			LENS_TRY(store_deviation(s, d, err));
	}
	return LENS_OK;
}

/* What is odd is counted where the reader sees it. */
static enum lens_status finish(struct shard *s, struct lens_error *err)
{
	LENS_TRY(count_hooks(s, err));
	LENS_TRY(count_tables(s, err));
	LENS_TRY(lens_store_attr_i64(s->store, "/", "rows_flagged",
				     (int64_t)s->counts.n_flagged, err));
	return lens_store_finish(s->store, err);
}

static enum lens_status make(struct shard *s, struct lens_error *err)
{
	const struct lens_compute_job *j = s->job;
	double *write = &s->counts.times.writer.write, start = lens_now();
	enum lens_status st;

	LENS_TRY(lens_parts_plan(j->parts, j->shard, &s->plan, err));
	s->memory = lens_parts_memory(j->parts, j->shard);
	s->in.prompts = s->plan.prompts;
	lens_store_lock();
	st = lay_out(s, err);
	lens_store_unlock();
	LENS_TRY(st);
	*write += lens_now() - start;
	LENS_TRY(compute(s, err));
	start = lens_now();
	lens_store_lock();
	st = finish(s, err);
	lens_store_unlock();
	if (st == LENS_OK)
		st = lens_store_commit(s->store, err);
	*write += lens_now() - start;
	return st;
}

static void add_up(struct lens_times *all, const struct lens_times *t, double seconds)
{
	all->compute += t->compute;
	all->convert += t->convert;
	all->digest += t->digest;
	all->write += t->write;
	all->wait += seconds - (t->compute + t->convert + t->digest + t->write);
}

/* Under the critical section's lock. Shards follow each other, or overlap: no gap, none twice.
 */
static void add_counts(const struct shard *s, double start, struct lens_run_result *result)
{
	size_t i;
	double end = lens_now(),
	       seconds = end - (result->times.until ? result->times.until : start);

	result->times.until = end;
	/* While a shard ends, the next has some of the places, however many it has itself. */
	add_up(&result->times.workers, &s->counts.times.workers,
	       seconds * (double)s->job->parts->most_workers);
	add_up(&result->times.writer, &s->counts.times.writer, seconds);

	result->n_flagged += s->counts.n_flagged;
	for (i = 0; i < LENS_TABLE_COUNT; i++)
		result->n_overflows += s->counts.table_overflows[i];
	result->largest_deviation =
		fmax(result->largest_deviation, s->counts.deviations[LENS_TABLE_logit_attrs]);
	if (!s->counts.overflows)
		return;
	for (i = 0; i < s->plan.capture.n_specs; i++)
		result->n_overflows += s->counts.overflows[i];
}

enum lens_status lens_shard_run(const struct lens_compute_job *job,
				struct lens_run_result *result, struct lens_error *err)
{
	struct shard s = { .job = job, .in = *job->in };
	double start = lens_now();
	enum lens_status st;

#pragma omp critical(lens_work_report)
	job->watch->progress->shard = job->shard;
	st = make(&s, err);

#pragma omp critical(lens_work_report)
	add_counts(&s, start, result);
	lens_writer_destroy(s.writer);
	lens_schedule_destroy(s.schedule);
	lens_store_lock();
	lens_store_destroy(s.store);
	lens_store_unlock();
	lens_order_release(&s.order);
	lens_plan_release(&s.plan);
	lens_free(s.store_id);
	lens_free(s.counts.overflows);
	return st;
}
