/*
 * pipeline/run.c: the page that tells the whole story: an experiment's inputs
 * are opened and checked, the plan is made, the file is laid out, workers fill
 * it, and it gets its name.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

/* Everything a run holds; released in one place. */
struct run {
	const struct lens_experiment *experiment;
	const struct lens_run_options *options;
	struct lens_run_result *result;
	struct lens_inputs in;
	struct lens_dataset_options data;
	struct lens_tokenizer *tokenizer;
	struct lens_prompts *prompts;
	struct lens_model *model;
	struct lens_plan plan;
	struct lens_memory memory;
	char *output; /* the file itself, where the name was a link */
	char *identity;
	struct lens_store *store;
	int *store_id;
	struct lens_writer *writer;
	struct lens_schedule *schedule;
	size_t *overflows;
};

static struct lens_dataset_options dataset_options(const struct lens_experiment *e,
						   const struct lens_config *c,
						   const struct lens_tokenizer *tokenizer)
{
	return (struct lens_dataset_options){
		.csv = e->data.csv,
		.prompt_column = e->data.prompt,
		.answer_columns = (const char *const *)e->data.answers.v,
		.n_answers = e->data.answers.n,
		.read_pos_column = e->data.read_pos_column,
		.read_pos = e->data.read_pos,
		.prepend_bos = e->data.prepend_bos,
		.skip_bad_rows = e->data.skip_bad_rows,
		.limit = e->data.limit,
		.n_ctx = c->n_ctx,
		.d_vocab = c->d_vocab,
		.tokenizer = tokenizer,
	};
}

static struct lens_processing processing(const struct lens_experiment *e)
{
	return (struct lens_processing){
		.fold_ln = e->weights.fold_ln,
		.center_writing_weights = e->weights.center_writing_weights,
		.center_unembed = e->weights.center_unembed,
		.fold_value_biases = e->weights.fold_value_biases,
		.refactor_factored_attn_matrices = e->weights.refactor_factored_attn_matrices,
	};
}

/* The cheap inputs come first: a bad row is found before the weights are read. */
static enum lens_status open_inputs(struct run *r, struct lens_error *err)
{
	const struct lens_experiment *e = r->experiment;
	const struct lens_processing p = processing(e);
	struct lens_config config;

	LENS_TRY(lens_open_cpu(e->cpu, &r->in.level, err));
	LENS_TRY(lens_config_load(e->model, &config, err));
	LENS_TRY(lens_tokenizer_open(e->model, &r->tokenizer, err));
	r->data = dataset_options(e, &config, r->tokenizer);
	LENS_TRY(lens_prompts_load(&r->data, &r->prompts, &r->result->report, err));
	LENS_TRY(lens_model_open(e->model, &p, &r->model, err));
	r->in.experiment = e;
	r->in.data = &r->data;
	r->in.prompts = r->prompts;
	r->in.model = r->model;
	r->in.tokenizer = r->tokenizer;
	r->in.n_skipped = r->result->report.n_bad;
	return lens_identity(&r->in, &r->identity, err);
}

static enum lens_status lay_out(struct run *r, struct lens_error *err)
{
	size_t n = r->plan.n_datasets;

	r->store_id = lens_calloc(n, sizeof(*r->store_id));
	r->overflows = lens_calloc(r->plan.capture.n_specs, sizeof(*r->overflows));
	if (!r->store_id || !r->overflows)
		return lens_error_nomem(err, n, sizeof(*r->store_id));
	LENS_TRY(lens_store_create(r->output, &r->store, err));
	LENS_TRY(lens_layout_create(r->store, &r->plan, r->store_id, err));
	LENS_TRY(lens_layout_attributes(r->store, &r->in, err));
	return lens_layout_prompts(r->store, &r->plan, &r->in, err);
}

static enum lens_status compute(struct run *r, struct lens_error *err)
{
	size_t window = LENS_BATCH_WINDOW * r->memory.workers;
	struct lens_work work = {
		.plan = &r->plan,
		.memory = &r->memory,
		.options = r->options,
		.result = r->result,
		.overflows = r->overflows,
	};

	LENS_TRY(lens_writer_create(r->store, &r->plan, r->store_id, &r->memory, &r->writer,
				    err));
	LENS_TRY(lens_schedule_create(r->plan.n_batches, window, &r->schedule, err));
	work.writer = r->writer;
	work.schedule = r->schedule;
	return lens_work_run(&work, err);
}

/* Halves that overflowed are counted where the reader will see it. */
static enum lens_status record_overflows(struct run *r, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < r->plan.capture.n_specs; i++) {
		const struct lens_capture_spec *s = &r->plan.capture.spec[i];

		r->result->n_overflows += r->overflows[i];
		if (s->half)
			LENS_TRY(lens_store_attr_i64(r->store, r->plan.dataset[s->dataset].path,
						     "f16_overflows", (int64_t)r->overflows[i],
						     err));
	}
	return lens_store_attr_i64(r->store, "/", "rows_flagged", (int64_t)r->result->n_flagged,
				   err);
}

static enum lens_status run(struct run *r, struct lens_error *err)
{
	bool finished = false;

	LENS_TRY(lens_output_resolve(r->experiment->output, r->options->overwrite, &r->output,
				     err));
	LENS_TRY(open_inputs(r, err));
	if (!r->options->overwrite)
		LENS_TRY(lens_identity_check(r->output, r->identity, &finished, err));
	if (finished) {
		r->result->outcome = LENS_RUN_ALREADY_DONE;
		return LENS_OK;
	}
	LENS_TRY(lens_plan_init(&r->plan, r->model, r->prompts, r->experiment, err));
	LENS_TRY(lens_plan_memory(&r->plan, lens_thread_count(r->experiment->threads),
				  r->experiment->memory, &r->memory, err));
	if (r->options->planned)
		r->options->planned(r->options->ctx, &r->plan, &r->memory);
	if (r->options->dry_run) {
		r->result->outcome = LENS_RUN_DRY;
		return LENS_OK;
	}
	LENS_TRY(lens_output_check_disk(r->output, r->plan.file_bytes, err));
	LENS_TRY(lay_out(r, err));
	LENS_TRY(compute(r, err));
	LENS_TRY(record_overflows(r, err));
	LENS_TRY(lens_store_commit(r->store, err));
	r->result->outcome = LENS_RUN_DONE;
	return LENS_OK;
}

enum lens_status lens_run(const struct lens_experiment *e, const struct lens_run_options *opt,
			  struct lens_run_result *result, struct lens_error *err)
{
	struct run r = { .experiment = e, .options = opt, .result = result };
	enum lens_status st;

	memset(result, 0, sizeof(*result));
	st = run(&r, err);
	lens_writer_destroy(r.writer);
	lens_schedule_destroy(r.schedule);
	lens_store_destroy(r.store);
	lens_plan_release(&r.plan);
	lens_model_destroy(r.model);
	lens_prompts_destroy(r.prompts);
	lens_tokenizer_destroy(r.tokenizer);
	lens_free(r.output);
	lens_free(r.identity);
	lens_free(r.store_id);
	lens_free(r.overflows);
	return st;
}
