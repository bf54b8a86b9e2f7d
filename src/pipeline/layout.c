/*
 * pipeline/layout.c: the file before its data: dimensions, datasets, links,
 * attributes.
 */
#include "pipeline/pipeline_private.h"

#include <stdio.h>
#include <string.h>

/* An axis as a dimension scale, with its labels if it has any; once. */
static enum lens_status add_axis(struct lens_store *s, enum lens_axis axis,
				 const struct lens_sizes *sizes, bool *known,
				 struct lens_error *err)
{
	size_t i, n = lens_axis_extent(axis, sizes);
	enum lens_status st = LENS_OK;
	char(*text)[LENS_LABEL];
	const char **label;

	if (known[axis])
		return LENS_OK;
	known[axis] = true;
	text = lens_calloc(n, sizeof(*text));
	label = lens_calloc(n, sizeof(*label));
	if (!text || !label)
		st = lens_error_nomem(err, n, sizeof(*text));
	for (i = 0; st == LENS_OK && i < n; i++)
		label[i] = lens_axis_label(axis, sizes, i, text[i]);
	if (st == LENS_OK)
		st = lens_store_add_dim(s, lens_axis_name(axis), n,
					n && label[0] ? label : NULL, err);
	lens_free(label);
	lens_free(text);
	return st;
}

/* Those of /prompts, then what the data sets have besides. */
static enum lens_status add_axes(struct lens_store *s, const struct lens_plan *p,
				 struct lens_error *err)
{
	bool known[LENS_AXIS_COUNT] = { false };
	size_t i;
	int k;

	LENS_TRY(add_axis(s, LENS_AXIS_PROMPT, &p->sizes, known, err));
	LENS_TRY(add_axis(s, LENS_AXIS_POS, &p->sizes, known, err));
	if (p->prompts->n_answers)
		LENS_TRY(add_axis(s, LENS_AXIS_ANSWER, &p->sizes, known, err));
	if (p->prompts->answer_offset)
		LENS_TRY(add_axis(s, LENS_AXIS_ANSWER_POS, &p->sizes, known, err));
	if (p->capture.positions.kind != LENS_POS_ALL)
		LENS_TRY(add_axis(s, LENS_AXIS_SLOT, &p->sizes, known, err));
	for (i = 0; i < p->n_datasets; i++) {
		for (k = 0; k < p->dataset[i].rank; k++)
			LENS_TRY(add_axis(s, p->dataset[i].axis[k], &p->sizes, known, err));
	}
	return LENS_OK;
}

static enum lens_status add_dataset(struct lens_store *s, const struct lens_planned *d, int *id,
				    struct lens_error *err)
{
	struct lens_dataset_spec spec = { .path = d->path,
					  .long_name = d->long_name,
					  .units = d->units,
					  .dtype = d->dtype,
					  .rank = d->rank };
	int k;

	for (k = 0; k < d->rank; k++) {
		spec.dim[k] = lens_axis_name(d->axis[k]);
		spec.extent[k] = d->extent[k];
		spec.chunk[k] = d->chunk[k];
	}
	return lens_store_add_dataset(s, &spec, id, err);
}

enum lens_status lens_layout_create(struct lens_store *s, const struct lens_plan *p,
				    int *store_id, struct lens_error *err)
{
	size_t i;

	LENS_TRY(add_axes(s, p, err));
	for (i = 0; i < p->n_datasets; i++)
		LENS_TRY(add_dataset(s, &p->dataset[i], &store_id[i], err));
	for (i = 0; i < p->n_links; i++)
		LENS_TRY(lens_store_add_link(s, p->link[i].path, p->link[i].target, err));
	return LENS_OK;
}

/* --- attributes -------------------------------------------------------------------- */

/* sha NULL: there is nothing of the kind. */
static enum lens_status attr_sha(struct lens_store *s, const char *name, const uint8_t *sha,
				 struct lens_error *err)
{
	char hex[LENS_SHA256_HEX] = "none";

	if (sha)
		lens_hex(sha, LENS_SHA256_BYTES, hex);
	return lens_store_attr_str(s, "/", name, hex, err);
}

static enum lens_status attr_owned(struct lens_store *s, const char *name, char *text,
				   struct lens_error *err)
{
	enum lens_status st = lens_store_attr_str(s, "/", name, text, err);

	lens_free(text);
	return st;
}

static enum lens_status attr_tokenizer(struct lens_store *s, const struct lens_inputs *in,
				       struct lens_error *err)
{
	bool prepend = in->data->prepend_bos;
	int32_t bos;

	LENS_TRY(lens_store_attr_i64(s, "/", "prepend_bos", prepend, err));
	if (!in->tokenizer) {
		LENS_TRY(lens_store_attr_str(s, "/", "tokenizer_rules", "none", err));
		return lens_store_attr_str(s, "/", "bos", "none", err);
	}
	LENS_TRY(lens_store_attr_i64(s, "/", "tokenizer_adds_bos",
				     lens_tokenizer_adds_bos(in->tokenizer), err));
	LENS_TRY(lens_store_attr_str(s, "/", "tokenizer_rules",
				     lens_tokenizer_rules(in->tokenizer), err));
	if (!prepend)
		return lens_store_attr_str(s, "/", "bos", "none", err);
	LENS_TRY(lens_tokenizer_bos(in->tokenizer, &bos, err));
	return lens_store_attr_i64(s, "/", "bos", bos, err);
}

/* Where an input was, from the root of the file system on: for readers elsewhere. */
static enum lens_status attr_path(struct lens_store *s, const char *name, const char *path,
				  struct lens_error *err)
{
	char *full = realpath(path, NULL);
	enum lens_status st = lens_store_attr_str(s, "/", name, full ? full : path, err);

	free(full);
	return st;
}

enum lens_status lens_layout_program(struct lens_store *s, enum lens_cpu_level level,
				     struct lens_error *err)
{
	LENS_TRY(lens_store_attr_i64(s, "/", "h5lens_schema", LENS_SCHEMA, err));
	LENS_TRY(lens_store_attr_str(s, "/", "h5lens_version", LENS_VERSION, err));
	LENS_TRY(lens_store_attr_str(s, "/", "cpu_level", lens_cpu_level_name(level), err));
	LENS_TRY(lens_store_attr_str(s, "/", "blas", lens_blas_description(), err));
	LENS_TRY(lens_store_attr_str(s, "/", "hdf5", lens_store_hdf5_version(), err));
	return lens_store_attr_str(s, "/", "build", LENS_BUILD, err);
}

enum lens_status lens_layout_model(struct lens_store *s, const struct lens_model *m,
				   const char *path, struct lens_error *err)
{
	char *text;

	LENS_TRY(lens_config_json(&m->config, &m->processing, &text, err));
	LENS_TRY(attr_owned(s, "model_config", text, err));
	LENS_TRY(attr_sha(s, "sha256_model", m->sha256, err));
	LENS_TRY(attr_path(s, "path_model", path, err));
	LENS_TRY(lens_store_attr_str(s, "/", "tensor_W_E", m->tensor_w_e, err));
	return lens_store_attr_str(s, "/", "tensor_W_U", m->tensor_w_u, err);
}

static enum lens_status attr_vector(struct lens_store *s, const struct lens_inputs *in,
				    struct lens_error *err)
{
	struct lens_buf where = LENS_BUF_INIT;
	const char *path;
	char *file, *full;
	enum lens_status st;

	if (!in->vector->v)
		return LENS_OK;
	LENS_TRY(attr_sha(s, "sha256_steer_vector", in->vector->sha256, err));
	LENS_TRY(lens_vector_file(in->experiment->steer.vector, &file, &path, err));
	full = realpath(file, NULL);
	st = lens_buf_printf(&where, err, "%s%s%s", full ? full : file, path ? ":" : "",
			     path ? path : "");
	if (st == LENS_OK)
		st = lens_store_attr_str(s, "/", "path_steer_vector", where.data, err);
	lens_buf_release(&where);
	free(full);
	lens_free(file);
	return st;
}

enum lens_status lens_layout_attributes(struct lens_store *s, const struct lens_inputs *in,
					struct lens_error *err)
{
	char *text;

	LENS_TRY(lens_layout_program(s, in->level, err));
	LENS_TRY(lens_layout_model(s, in->model, in->experiment->model, err));
	LENS_TRY(lens_store_attr_str(s, "/", "experiment_source", in->experiment->source, err));
	LENS_TRY(lens_experiment_json(in->experiment, false, &text, err));
	LENS_TRY(attr_owned(s, "experiment", text, err));
	LENS_TRY(lens_store_attr_str(s, "/", "identity", in->identity, err));
	LENS_TRY(attr_sha(s, "sha256_tokenizer",
			  in->tokenizer ? lens_tokenizer_sha256(in->tokenizer) : NULL, err));
	LENS_TRY(attr_sha(s, "sha256_data", in->prompts->sha256, err));
	if (in->experiment->data.spool)
		LENS_TRY(lens_store_attr_str(s, "/", "path_data", in->experiment->data.csv,
					     err));
	else
		LENS_TRY(attr_path(s, "path_data", in->experiment->data.csv, err));
	LENS_TRY(attr_vector(s, in, err));
	LENS_TRY(attr_tokenizer(s, in, err));
	return lens_store_attr_i64(s, "/", "rows_skipped", (int64_t)in->n_skipped, err);
}
