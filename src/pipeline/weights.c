/*
 * pipeline/weights.c: a model's parameters as TransformerLens has them, written. In: an
 * experiment's model and processing; out: a file of weights (weights_hdf5.c), or a folder
 * in TransformerLens's own form (weights_folder.c).
 */
#include "pipeline/weights_private.h"

enum lens_status lens_weights_go_on(const struct lens_weights_job *job, struct lens_error *err)
{
	const atomic_int *stop = job->options->stop;

	if (stop && atomic_load(stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
	return LENS_OK;
}

static enum lens_status count(void *ctx, const struct lens_weight *w, struct lens_error *err)
{
	struct lens_weights_result *r = ctx;
	uint64_t bytes = sizeof(float);
	int k;

	(void)err;
	for (k = 0; k < w->rank; k++)
		bytes *= w->extent[k];
	r->n++;
	r->bytes += bytes;
	return LENS_OK;
}

/* Can TransformerLens's config say what the model is? */
static enum lens_status check_config(const struct lens_config *c,
				     const struct lens_processing *p, struct lens_error *err)
{
	char *text;

	LENS_TRY(lens_config_transformer_lens(c, p, &text, err));
	lens_free(text);
	return LENS_OK;
}

/* May the output be written, and is there room? Asked before the weights are read. */
static enum lens_status check_output(struct lens_weights_job *job, struct lens_error *err)
{
	struct lens_processing p = lens_model_options_of(job->experiment).processing;
	const bool folder = job->options->format != LENS_WEIGHTS_HDF5;
	struct lens_config config;

	if (folder)
		LENS_TRY(lens_weights_check_folder(job, err));
	else
		LENS_TRY(lens_weights_check_hdf5(job, err));
	LENS_TRY(lens_config_load(job->experiment->model, &config, err));
	LENS_TRY(lens_processing_fit(&config, &p, err));
	if (folder)
		LENS_TRY(check_config(&config, &p, err));
	LENS_TRY(lens_weights_each(&config, &p, NULL, count, job->result, err));
	return lens_output_check_disk(job->output, job->result->bytes, err);
}

static enum lens_status open_model(struct lens_weights_job *job, struct lens_error *err)
{
	const struct lens_model_options m = lens_model_options_of(job->experiment);

	LENS_TRY(lens_open_cpu(job->experiment->cpu, &job->level, err));
	LENS_TRY(lens_model_open(job->experiment->model, &m, &job->model, err));
	lens_weights_warn(job, job->model->warning);
	job->chunk = lens_alloc_pages(LENS_WEIGHTS_CHUNK);
	if (!job->chunk)
		return lens_error_nomem(err, LENS_WEIGHTS_CHUNK, 1);
	return lens_weights_go_on(job, err);
}

void lens_weights_warn(const struct lens_weights_job *job, const char *text)
{
	if (text && job->options->warn)
		job->options->warn(job->options->ctx, text);
}

static enum lens_status write_output(struct lens_weights_job *job, struct lens_error *err)
{
	if (job->options->format == LENS_WEIGHTS_HDF5)
		return lens_weights_write_hdf5(job, err);
	return lens_weights_write_folder(job, err);
}

enum lens_status lens_weights_write(const struct lens_experiment *e,
				    const struct lens_weights_options *opt,
				    struct lens_weights_result *result, struct lens_error *err)
{
	struct lens_weights_job job = { .experiment = e, .options = opt, .result = result };
	enum lens_status st;

	*result = (struct lens_weights_result){ .n = 0 };
	st = check_output(&job, err);
	if (st == LENS_OK)
		st = open_model(&job, err);
	if (st == LENS_OK)
		st = write_output(&job, err);
	lens_model_destroy(job.model);
	lens_free(job.chunk);
	lens_free(job.output);
	return st;
}
