/*
 * pipeline/weights_hdf5.c: a file of weights. In: a model; out:
 * /weights/<TransformerLens's name> in TransformerLens's shapes and orientation, float32,
 * in chunks of which the last ones hold fill past the array's end.
 */
#include "pipeline/weights_private.h"

#include <string.h>

#include "core/json.h"

#define NUMERICS 1 /* raised when any bit of a weight changes */

struct hdf5 {
	struct lens_weights_job *job;
	struct lens_store *store;
	bool known[LENS_AXIS_COUNT]; /* dimensions that the file has */
};

/* --- data sets ------------------------------------------------------------------- */

/* Heads are cut first, for readers of a single one; otherwise the longest axis is halved. */
static int axis_to_cut(const struct lens_weight *w, const size_t *chunk)
{
	int i, longest = 0;

	if (w->rank == 3 && chunk[0] > 1)
		return 0;
	for (i = 1; i < w->rank; i++) {
		if (chunk[i] > chunk[longest])
			longest = i;
	}
	return longest;
}

static void choose_chunk(const struct lens_weight *w, size_t *chunk)
{
	size_t parts[LENS_WEIGHT_RANK] = { 1, 1, 1 }, n;
	int i;

	for (i = 0; i < w->rank; i++)
		chunk[i] = w->extent[i];
	while (true) {
		for (i = 0, n = sizeof(float); i < w->rank; i++)
			n *= chunk[i];
		if (n <= LENS_WEIGHTS_CHUNK)
			return;
		i = axis_to_cut(w, chunk);
		parts[i] *= 2;
		chunk[i] = (w->extent[i] + parts[i] - 1) / parts[i];
	}
}

static enum lens_status write_chunks(struct hdf5 *f, const struct lens_weight *w, int id,
				     const size_t *chunk, struct lens_error *err)
{
	size_t coord[LENS_MAX_RANK] = { 0 };
	uint8_t digest[LENS_XXH3_BYTES];
	struct lens_store_chunk c = { .coord = coord,
				      .buf = f->job->chunk,
				      .nbytes = sizeof(*f->job->chunk),
				      .digest = digest };
	int k;

	for (k = 0; k < w->rank; k++)
		c.nbytes *= chunk[k];
	do {
		LENS_TRY(lens_weights_go_on(f->job, err));
		lens_weight_chunk(w, chunk, coord, f->job->chunk);
		lens_xxh3(f->job->chunk, c.nbytes, digest);
		LENS_TRY(lens_store_write_chunk(f->store, id, &c, err));
	} while (lens_weight_next(w, chunk, coord));
	return LENS_OK;
}

static enum lens_status write_weight(void *ctx, const struct lens_weight *w,
				     struct lens_error *err)
{
	struct hdf5 *f = ctx;
	char path[LENS_PATH];
	struct lens_dataset_spec spec = { .path = path, .dtype = LENS_F32, .rank = w->rank };
	int k, id;

	snprintf(path, sizeof(path), "/weights/%s", w->name);
	choose_chunk(w, spec.chunk);
	for (k = 0; k < w->rank; k++) {
		spec.dim[k] = lens_axis_name(w->axis[k]);
		spec.extent[k] = w->extent[k];
		if (!f->known[w->axis[k]])
			LENS_TRY(lens_store_add_dim(f->store, spec.dim[k], w->extent[k], NULL,
						    err));
		f->known[w->axis[k]] = true;
	}
	LENS_TRY(lens_store_add_dataset(f->store, &spec, &id, err));
	return write_chunks(f, w, id, spec.chunk, err);
}

/* --- attributes -------------------------------------------------------------------- */

/* What makes two files of weights the same; `weights` is that of the effective experiment. */
static json_t *identity_of(const struct hdf5 *f, const json_t *weights)
{
	char sha[LENS_SHA256_HEX];

	lens_hex(f->job->model->sha256, LENS_SHA256_BYTES, sha);
	return json_pack("{s:O, s:s, s:s, s:s, s:i, s:i}", "weights", weights, "model content",
			 sha, "W_U", f->job->model->tensor_w_u, "cpu level",
			 lens_cpu_level_name(f->job->level), "numerics", NUMERICS, "schema",
			 LENS_SCHEMA);
}

/* Takes j. */
static enum lens_status attr_json(struct lens_store *s, const char *name, json_t *j,
				  struct lens_error *err)
{
	char *text = j ? json_dumps(j, JSON_SORT_KEYS) : NULL;
	enum lens_status st = text ? lens_store_attr_str(s, "/", name, text, err)
				   : lens_error_nomem(err, 1, 1024);

	free(text);
	json_decref(j);
	return st;
}

static enum lens_status add_attributes(struct hdf5 *f, struct lens_error *err)
{
	enum lens_status st;
	json_t *j, *weights;
	char *text;

	LENS_TRY(lens_layout_program(f->store, f->job->level, err));
	LENS_TRY(lens_layout_model(f->store, f->job->model, f->job->experiment->model, err));
	LENS_TRY(lens_experiment_json(f->job->experiment, true, &text, err));
	st = lens_json_parse(NULL, text, strlen(text), &j, err);
	lens_free(text);
	LENS_TRY(st);
	weights = json_incref(json_object_get(j, "weights"));
	json_decref(j);
	st = attr_json(f->store, "identity", identity_of(f, weights), err);
	if (st == LENS_OK)
		st = attr_json(f->store, "weights", json_incref(weights), err);
	json_decref(weights);
	return st;
}

enum lens_status lens_weights_is_file(const char *path, bool *is, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	char *text = NULL;
	enum lens_status st = lens_store_read_attr(path, "/", "weights", &text, &why);

	*is = text != NULL;
	lens_free(text);
	return st == LENS_OK || st == LENS_ERR_FORMAT ? LENS_OK : lens_error_pass(err, &why);
}

/* --- the file ---------------------------------------------------------------------- */

/* Only files of weights are replaced: others may take longer to make again. */
static enum lens_status check_what_is_there(const struct lens_weights_job *job,
					    struct lens_error *err)
{
	const char *name = job->experiment->output;
	bool ours;

	if (!lens_file_exists(job->output))
		return LENS_OK;
	if (!job->options->overwrite)
		return lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				     "exists; choose another name, or --overwrite");
	LENS_TRY(lens_weights_is_file(job->output, &ours, err));
	return ours ? LENS_OK
		    : lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				    "is not a file of weights: it is not overwritten");
}

enum lens_status lens_weights_check_hdf5(struct lens_weights_job *job, struct lens_error *err)
{
	LENS_TRY(lens_output_resolve(job->experiment->output, job->options->overwrite,
				     &job->output, err));
	return check_what_is_there(job, err);
}

static enum lens_status write_file(struct hdf5 *f, struct lens_error *err)
{
	const struct lens_model *m = f->job->model;

	LENS_TRY(lens_store_create(f->job->output, &f->store, err));
	LENS_TRY(add_attributes(f, err));
	LENS_TRY(lens_weights_each(&m->config, &m->processing, m, write_weight, f, err));
	return lens_store_commit(f->store, err);
}

enum lens_status lens_weights_write_hdf5(struct lens_weights_job *job, struct lens_error *err)
{
	struct hdf5 f = { .job = job };
	enum lens_status st = write_file(&f, err);

	lens_store_destroy(f.store);
	return st;
}
