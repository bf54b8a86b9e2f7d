/* weights_private.h: what the writers of a model's parameters share. */
#ifndef WEIGHTS_PRIVATE_H
#define WEIGHTS_PRIVATE_H

#include "pipeline/pipeline_private.h"

/* Of a chunk, at most; more than half of it for a larger array. */
#define LENS_WEIGHTS_CHUNK ((size_t)4 << 20)

struct lens_weights_job {
	const struct lens_experiment *experiment;
	const struct lens_weights_options *options;
	struct lens_weights_result *result;
	char *output; /* where the name leads */
	struct lens_model *model;
	enum lens_cpu_level level;
	float *chunk; /* [LENS_WEIGHTS_CHUNK / 4] */
};

/* LENS_ERR_INTERRUPTED once a signal came. */
enum lens_status lens_weights_go_on(const struct lens_weights_job *job, struct lens_error *err);
void lens_weights_warn(const struct lens_weights_job *job, const char *text);

/* --- weight_chunk.c ----------------------------------------------------------------- */

/* The chunk at coord of the grid, with fill past the array's end. */
void lens_weight_chunk(const struct lens_weight *w, const size_t *chunk, const size_t *coord,
		       float *out);
/* The next place in the grid, the last axis first; false after the last one. */
bool lens_weight_next(const struct lens_weight *w, const size_t *chunk, size_t *coord);

/* --- the formats: may the output be written (sets job->output); and writing it -------- */

enum lens_status lens_weights_check_hdf5(struct lens_weights_job *job, struct lens_error *err);
enum lens_status lens_weights_write_hdf5(struct lens_weights_job *job, struct lens_error *err);
enum lens_status lens_weights_check_folder(struct lens_weights_job *job,
					   struct lens_error *err);
enum lens_status lens_weights_write_folder(struct lens_weights_job *job,
					   struct lens_error *err);

/* --- weights_tensors.c ---------------------------------------------------------------- */

/* What model.safetensors of a folder that we wrote begins with, behind its length. */
#define LENS_TENSORS_BEGIN "{\"__metadata__\":{\"format\":\"pt\",\"written_by\":\"h5lens"
/* Writes model.safetensors to path, which must not exist: TransformerLens's state dict. */
enum lens_status lens_weights_tensors(struct lens_weights_job *job, const char *path,
				      struct lens_error *err);

#endif
