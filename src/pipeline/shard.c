/*
 * pipeline/shard.c: one shard: by its plan, its file is laid out, workers fill it,
 * and it gets its name. A sweep of one shard is this and no
 * more.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

/* Everything a shard holds while it is made; released in one place. */
struct shard {
	const struct lens_compute_job *job;
	struct lens_inputs in; /* the rows of this shard */
	struct lens_plan plan;
	const struct lens_memory *memory;
	struct lens_store *store;
	int *store_id;
	struct lens_writer *writer;
	struct lens_schedule *schedule;
	size_t *overflows;
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
	s->overflows = lens_calloc(s->plan.capture.n_specs, sizeof(*s->overflows));
	if (!s->store_id || !s->overflows)
		return lens_error_nomem(err, n, sizeof(*s->store_id));
	LENS_TRY(lens_store_create(s->job->path, &s->store, err));
	LENS_TRY(lens_layout_create(s->store, &s->plan, s->store_id, err));
	LENS_TRY(lens_layout_attributes(s->store, &s->in, err));
	LENS_TRY(place(s, err));
	return lens_layout_prompts(s->store, &s->plan, &s->in, err);
}

static enum lens_status compute(struct shard *s, struct lens_error *err)
{
	size_t window = LENS_BATCH_WINDOW * s->memory->workers;
	struct lens_work work = {
		.plan = &s->plan,
		.memory = s->memory,
		.options = s->job->options,
		.result = s->job->result,
		.overflows = s->overflows,
		.started = s->job->started,
		.bytes_before = s->job->result->progress.bytes_written,
	};

	LENS_TRY(lens_writer_create(s->store, &s->plan, s->store_id, s->memory, &s->writer,
				    err));
	LENS_TRY(lens_schedule_create(s->plan.n_batches, window, &s->schedule, err));
	work.writer = s->writer;
	work.schedule = s->schedule;
	return lens_work_run(&work, err);
}

/* Halves that overflowed and rows that were flagged are counted where the reader sees it. */
static enum lens_status count(struct shard *s, size_t n_flagged, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < s->plan.capture.n_specs; i++) {
		const struct lens_capture_spec *c = &s->plan.capture.spec[i];

		s->job->result->n_overflows += s->overflows[i];
		if (c->dtype == LENS_F16)
			LENS_TRY(lens_store_attr_i64(s->store, s->plan.dataset[c->dataset].path,
						     "f16_overflows", (int64_t)s->overflows[i],
						     err));
	}
	return lens_store_attr_i64(s->store, "/", "rows_flagged", (int64_t)n_flagged, err);
}

static enum lens_status make(struct shard *s, struct lens_error *err)
{
	const struct lens_compute_job *j = s->job;
	size_t flagged_before = j->result->n_flagged;

	LENS_TRY(lens_parts_plan(j->parts, j->shard, &s->plan, err));
	s->memory = lens_parts_memory(j->parts, j->shard);
	s->in.prompts = s->plan.prompts;
	LENS_TRY(lay_out(s, err));
	LENS_TRY(compute(s, err));
	LENS_TRY(count(s, j->result->n_flagged - flagged_before, err));
	return lens_store_commit(s->store, err);
}

enum lens_status lens_shard_run(const struct lens_compute_job *job, struct lens_error *err)
{
	struct shard s = { .job = job, .in = *job->in };
	enum lens_status st = make(&s, err);

	lens_writer_destroy(s.writer);
	lens_schedule_destroy(s.schedule);
	lens_store_destroy(s.store);
	lens_plan_release(&s.plan);
	lens_free(s.store_id);
	lens_free(s.overflows);
	return st;
}
