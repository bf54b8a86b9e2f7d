/*
 * pipeline/weights.c: a file of weights. In: an experiment's model and processing;
 * out: /weights/<TransformerLens's name> in TransformerLens's shapes and orientation,
 * float32. A matrix is put in order chunk by chunk, so that beside the model no more
 * than one chunk is in memory.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

#include "core/json.h"

#define NUMERICS 1                    /* raised when any bit of a weight changes */
#define CHUNK_BYTES ((size_t)4 << 20) /* at most; more than half of it for a larger array */
#define SQUARE 32

struct weights {
	const struct lens_experiment *experiment;
	const struct lens_weights_options *options;
	struct lens_weights_result *result;
	char *output; /* where the name leads */
	struct lens_model *model;
	enum lens_cpu_level level;
	struct lens_store *store;
	bool known[LENS_AXIS_COUNT]; /* dimensions that the file has */
	float *chunk;                /* [CHUNK_BYTES / 4] */
};

/* --- chunks ---------------------------------------------------------------------- */

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
		if (n <= CHUNK_BYTES)
			return;
		i = axis_to_cut(w, chunk);
		parts[i] *= 2;
		chunk[i] = (w->extent[i] + parts[i] - 1) / parts[i];
	}
}

/* [n[0], n[1]] of an array with these strides, to rows of `width`. */
static void copy_rows(const float *src, const size_t *stride, const size_t *n, size_t width,
		      float *dst)
{
	size_t i, j, i0, j0;

	if (stride[1] == 1) {
		for (i = 0; i < n[0]; i++)
			memcpy(dst + i * width, src + i * stride[0], n[1] * sizeof(*dst));
		return;
	}
	/* Transposed, in squares that fit in the first cache. */
	for (i0 = 0; i0 < n[0]; i0 += SQUARE) {
		for (j0 = 0; j0 < n[1]; j0 += SQUARE) {
			for (i = i0; i < lens_min(i0 + SQUARE, n[0]); i++) {
				for (j = j0; j < lens_min(j0 + SQUARE, n[1]); j++)
					dst[i * width + j] = src[i * stride[0] + j * stride[1]];
			}
		}
	}
}

/* The chunk at coord of the grid, with fill past the array's end. */
static void fill_chunk(const struct lens_weight *w, const size_t *chunk, const size_t *coord,
		       float *out)
{
	/* As if of three dimensions, the first ones 1. */
	size_t size[3] = { 1, 1, 1 }, n[3] = { 1, 1, 1 }, stride[3] = { 0, 0, 0 };
	const float *src = w->data;
	size_t i, total = 1;
	int k, lead = 3 - w->rank;

	for (k = 0; k < w->rank; k++) {
		size_t first = coord[k] * chunk[k];

		size[lead + k] = chunk[k];
		n[lead + k] = lens_min(chunk[k], w->extent[k] - first);
		stride[lead + k] = w->stride[k];
		src += first * w->stride[k];
		total *= chunk[k];
	}
	lens_fill(LENS_F32, out, total);
	for (i = 0; i < n[0]; i++)
		copy_rows(src + i * stride[0], stride + 1, n + 1, size[2],
			  out + i * size[1] * size[2]);
}

/* The next place in the grid, the last axis first; false after the last one. */
static bool next(const struct lens_weight *w, const size_t *chunk, size_t *coord)
{
	int k;

	for (k = w->rank - 1; k >= 0; k--) {
		if (++coord[k] * chunk[k] < w->extent[k])
			return true;
		coord[k] = 0;
	}
	return false;
}

/* --- data sets -------------------------------------------------------------------- */

static enum lens_status go_on(const struct weights *f, struct lens_error *err)
{
	if (f->options->stop && atomic_load(f->options->stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
	return LENS_OK;
}

static enum lens_status write_chunks(struct weights *f, const struct lens_weight *w, int id,
				     const size_t *chunk, struct lens_error *err)
{
	size_t coord[LENS_MAX_RANK] = { 0 };
	uint8_t digest[LENS_XXH3_BYTES];
	struct lens_store_chunk c = {
		.coord = coord, .buf = f->chunk, .nbytes = sizeof(*f->chunk), .digest = digest
	};
	int k;

	for (k = 0; k < w->rank; k++)
		c.nbytes *= chunk[k];
	do {
		LENS_TRY(go_on(f, err));
		fill_chunk(w, chunk, coord, f->chunk);
		lens_xxh3(f->chunk, c.nbytes, digest);
		LENS_TRY(lens_store_write_chunk(f->store, id, &c, err));
	} while (next(w, chunk, coord));
	return LENS_OK;
}

static enum lens_status write_weight(void *ctx, const struct lens_weight *w,
				     struct lens_error *err)
{
	struct weights *f = ctx;
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

/* --- attributes -------------------------------------------------------------------- */

/* What makes two files of weights the same; `weights` is that of the effective experiment. */
static json_t *identity_of(const struct weights *f, const json_t *weights)
{
	char sha[LENS_SHA256_HEX];

	lens_hex(f->model->sha256, LENS_SHA256_BYTES, sha);
	return json_pack("{s:O, s:s, s:s, s:s, s:i, s:i}", "weights", weights, "model content",
			 sha, "W_U", f->model->tensor_w_u, "cpu level",
			 lens_cpu_level_name(f->level), "numerics", NUMERICS, "schema",
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

static enum lens_status add_attributes(struct weights *f, struct lens_error *err)
{
	enum lens_status st;
	json_t *j, *weights;
	char *text;

	LENS_TRY(lens_layout_program(f->store, f->level, err));
	LENS_TRY(lens_layout_model(f->store, f->model, f->experiment->model, err));
	LENS_TRY(lens_experiment_json(f->experiment, true, &text, err));
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
static enum lens_status check_what_is_there(const struct weights *f, struct lens_error *err)
{
	const char *name = f->experiment->output;
	bool ours;

	if (!lens_file_exists(f->output))
		return LENS_OK;
	if (!f->options->overwrite)
		return lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				     "exists; choose another name, or --overwrite");
	LENS_TRY(lens_weights_is_file(f->output, &ours, err));
	return ours ? LENS_OK
		    : lens_error_at(err, LENS_ERR_INVALID, name, 0, 0,
				    "is not a file of weights: it is not overwritten");
}

/* May the output be written, and is there room? Asked before the weights are read. */
static enum lens_status check_output(struct weights *f, struct lens_error *err)
{
	struct lens_processing p = lens_model_options_of(f->experiment).processing;
	struct lens_config config;

	LENS_TRY(lens_output_resolve(f->experiment->output, f->options->overwrite, &f->output,
				     err));
	LENS_TRY(check_what_is_there(f, err));
	LENS_TRY(lens_config_load(f->experiment->model, &config, err));
	LENS_TRY(lens_processing_fit(&config, &p, err));
	LENS_TRY(lens_weights_each(&config, &p, NULL, count, f->result, err));
	return lens_output_check_disk(f->output, f->result->bytes, err);
}

static enum lens_status open_model(struct weights *f, struct lens_error *err)
{
	const struct lens_model_options m = lens_model_options_of(f->experiment);

	LENS_TRY(lens_open_cpu(f->experiment->cpu, &f->level, err));
	LENS_TRY(lens_model_open(f->experiment->model, &m, &f->model, err));
	if (f->model->warning && f->options->warn)
		f->options->warn(f->options->ctx, f->model->warning);
	return go_on(f, err);
}

static enum lens_status write_file(struct weights *f, struct lens_error *err)
{
	f->chunk = lens_alloc_pages(CHUNK_BYTES);
	if (!f->chunk)
		return lens_error_nomem(err, CHUNK_BYTES, 1);
	LENS_TRY(lens_store_create(f->output, &f->store, err));
	LENS_TRY(add_attributes(f, err));
	LENS_TRY(lens_weights_each(&f->model->config, &f->model->processing, f->model,
				   write_weight, f, err));
	return lens_store_commit(f->store, err);
}

enum lens_status lens_weights_write(const struct lens_experiment *e,
				    const struct lens_weights_options *opt,
				    struct lens_weights_result *result, struct lens_error *err)
{
	struct weights f = { .experiment = e, .options = opt, .result = result };
	enum lens_status st;

	*result = (struct lens_weights_result){ .n = 0 };
	st = check_output(&f, err);
	if (st == LENS_OK)
		st = open_model(&f, err);
	if (st == LENS_OK)
		st = write_file(&f, err);
	lens_store_destroy(f.store);
	lens_model_destroy(f.model);
	lens_free(f.chunk);
	lens_free(f.output);
	return st;
}
