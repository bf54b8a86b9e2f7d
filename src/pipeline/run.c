/*
 * pipeline/run.c: the page that tells the whole story: an experiment's inputs
 * are opened and checked, the sweep is planned and cut into shards, each shard that
 * is missing is computed and committed, and the shards are joined to the output.
 * What is there already, and whose it is, sweep/ knows.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

/* Everything a run holds; released in one place. */
struct run {
	const struct lens_experiment *experiment;
	const struct lens_run_options *options;
	struct lens_run_result *result;
	struct lens_opened inputs;
	struct lens_plan plan;   /* of the whole sweep */
	struct lens_parts parts; /* of its shards */
	struct lens_sweep *sweep;
	struct lens_mean mean; /* for ablate.value: mean */
	struct lens_watch watch;
	size_t n_committed; /* shards of this run */
};

/* What is under the output's name, before anything else is read. */
static enum lens_status begin(struct run *r, struct lens_error *err)
{
	const struct lens_sweep_options options = {
		.overwrite = r->options->overwrite,
		.repair = r->options->repair,
		.task = r->options->task,
		.stop = r->options->stop,
		.note = r->options->note,
		.ctx = r->options->ctx,
	};

	return lens_sweep_create(r->experiment->output, &options, &r->sweep, err);
}

/* Model, tokenizer and prompts; and may their results go where they are to go? */
static enum lens_status read_inputs(struct run *r, enum lens_sweep_state *state,
				    struct lens_error *err)
{
	LENS_TRY(lens_inputs_open(&r->inputs, r->experiment, r->options, err));
	/* An unknown hook is reported as such, not as another experiment. */
	LENS_TRY(lens_plan_init(&r->plan, r->inputs.model, r->inputs.prompts, r->experiment,
				err));
	LENS_TRY(lens_sweep_look(r->sweep, r->inputs.identity, state, err));
	r->inputs.in.identity = lens_sweep_identity(r->sweep);
	return LENS_OK;
}

static enum lens_status show_plan(const struct run *r, struct lens_error *err)
{
	struct lens_plan_summary summary;
	enum lens_status st;

	if (!r->options->planned)
		return LENS_OK;
	st = lens_plan_summary_make(&summary, &r->parts, err);
	if (st == LENS_OK)
		r->options->planned(r->options->ctx, &summary);
	lens_plan_summary_release(&summary);
	return st;
}

/* The shards, and what memory allows. */
static enum lens_status plan(struct run *r, struct lens_error *err)
{
	LENS_TRY(lens_parts_make(&r->parts, &r->plan, lens_thread_count(r->experiment->threads),
				 &r->inputs.memory, err));
	r->result->n_shards = r->parts.cut.n;
	return show_plan(r, err);
}

static enum lens_status check_disk(const struct run *r, struct lens_error *err)
{
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < r->parts.cut.n; i++)
		bytes += lens_sweep_is_missing(r->sweep, i) ? r->parts.file_bytes[i] : 0;
	return lens_sweep_check_disk(r->sweep, bytes, err);
}

/* The first pass over the data, where a shard that is to be computed needs it. */
static enum lens_status make_mean(struct run *r, struct lens_error *err)
{
	const struct lens_mean_job job = { .in = &r->inputs.in,
					   .parts = &r->parts,
					   .sweep = r->sweep,
					   .stop = r->options->stop,
					   .note = r->options->note,
					   .ctx = r->options->ctx };
	size_t i = 0;

	while (i < r->parts.cut.n && !lens_sweep_is_missing(r->sweep, i))
		i++;
	if (i == r->parts.cut.n || !lens_study_wants_mean(&r->plan.study))
		return LENS_OK;
	return lens_mean_make(&job, &r->mean, err);
}

/* Workers report here: to `status` and to the user. */
static void progress(void *ctx, const struct lens_progress *p)
{
	const struct run *r = ctx;

	lens_sweep_update(r->sweep, p);
	if (r->options->progress)
		r->options->progress(r->options->ctx, p);
}

static bool is_missing(void *ctx, size_t shard)
{
	const struct run *r = ctx;

	return lens_sweep_is_missing(r->sweep, shard);
}

static void compute(void *ctx, struct lens_relay *relay, size_t shard, struct lens_error *err)
{
	struct run *r = ctx;
	char *path = lens_sweep_shard_path(r->sweep, shard);
	const struct lens_compute_job job = {
		.in = &r->inputs.in,
		.watch = &r->watch,
		.path = path,
		.parts = &r->parts,
		.shard = shard,
		.mean = lens_study_wants_mean(&r->plan.study) ? &r->mean : NULL,
		.relay = relay,
	};
	enum lens_status st;

	st = path ? lens_shard_run(&job, r->result, err)
		  : lens_error_nomem(err, strlen(r->experiment->output), 1);
	lens_free(path);
	if (st != LENS_OK)
		return;
#pragma omp critical(lens_work_report)
	{
		lens_sweep_mark_done(r->sweep, shard);
		r->n_committed++;
	}
}

/* A shard begins while the workers of the one before it end. */
static enum lens_status compute_missing(struct run *r, struct lens_error *err)
{
	const struct lens_relay_job job = { .n = r->parts.cut.n,
					    .places = r->parts.most_workers,
					    .overlap = r->parts.overlap,
					    .is_missing = is_missing,
					    .compute = compute,
					    .ctx = r };

	r->watch = (struct lens_watch){ .stop = r->options->stop,
					.started = lens_now(),
					.progress = &r->result->progress,
					.tell = progress,
					.ctx = r };
	return lens_relay_run(&job, err);
}

/* Components that do not add up to the logit are not its components. */
static void check_deviation(const struct run *r)
{
	double bound = lens_tables_deviation_bound(&r->plan.sizes);

	if (r->result->largest_deviation > bound)
		lens_run_warn(r->options,
			      "logit_attrs: the components of an answer's logit add up to it "
			      "but for %.1e of their magnitudes' sum; rounding explains %.1e",
			      r->result->largest_deviation, bound);
}

/* What is missing is computed, and all of it joined. */
static enum lens_status complete(struct run *r, struct lens_error *err)
{
	static const enum lens_run_outcome outcome[] = {
		[LENS_SWEEP_FINISHED] = LENS_RUN_DONE,
		[LENS_SWEEP_SHARE_DONE] = LENS_RUN_SHARE_DONE,
		[LENS_SWEEP_LAST_DONE] = LENS_RUN_LAST_DONE,
	};
	enum lens_sweep_state state;

	LENS_TRY(check_disk(r, err));
	LENS_TRY(make_mean(r, err));
	LENS_TRY(compute_missing(r, err));
	check_deviation(r);
	LENS_TRY(lens_sweep_finish(r->sweep, lens_thread_count(r->experiment->threads), &state,
				   err));
	r->result->outcome = outcome[state];
	return LENS_OK;
}

/* Nothing is left to be done by this run. */
static enum lens_status end(struct run *r, enum lens_run_outcome outcome)
{
	r->result->outcome = outcome;
	return LENS_OK;
}

static enum lens_status run(struct run *r, struct lens_error *err)
{
	const struct lens_memory *most = &r->parts.most;
	enum lens_sweep_state state;

	LENS_TRY(begin(r, err));
	LENS_TRY(read_inputs(r, &state, err));
	if (state == LENS_SWEEP_FINISHED)
		return end(r, LENS_RUN_ALREADY_DONE);
	LENS_TRY(plan(r, err));
	LENS_TRY(lens_check_address_space(most->workers * most->inner_threads, err));
	if (r->options->dry_run) {
		if (r->inputs.model->w_e) /* else there is nothing to measure */
			LENS_TRY(lens_estimate_make(&r->parts, r->options->task,
						    &r->result->estimate, err));
		return end(r, LENS_RUN_DRY);
	}
	LENS_TRY(lens_sweep_open(r->sweep, r->parts.cut.n, r->parts.cut.first,
				 &r->result->progress, &state, err));
	if (state == LENS_SWEEP_FINISHED)
		return end(r, LENS_RUN_ALREADY_DONE);
	if (state == LENS_SWEEP_SHARE_DONE)
		return end(r, LENS_RUN_SHARE_DONE);
	return complete(r, err);
}

static void tell_what_is_kept(const struct run *r, struct lens_error *err)
{
	const struct lens_stopped stopped = {
		.cut = &r->parts.cut,
		.prompts = r->inputs.prompts,
		.progress = &r->result->progress,
		.n_kept = r->sweep ? lens_sweep_count_kept(r->sweep) : 0,
		.n_committed = r->n_committed,
	};

	lens_tell_stopped(&stopped, err);
}

enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err)
{
	struct run r = { .experiment = e,
			 .options = opt,
			 .result = result,
			 .inputs = { .report = &result->report } };
	enum lens_status st;

	memset(result, 0, sizeof(*result));
	st = run(&r, err);
	if (err)
		tell_what_is_kept(&r, err);
	if (r.sweep)
		result->n_shards_done = lens_sweep_count_done(r.sweep);
	lens_sweep_close(r.sweep);
	lens_mean_release(&r.mean);
	lens_parts_release(&r.parts);
	lens_plan_release(&r.plan);
	lens_inputs_close(&r.inputs);
	return st;
}
