/*
 * pipeline/layout.c: the file before its data: dimensions, datasets, links,
 * attributes.
 */
#include "pipeline/pipeline_private.h"

#include <stdio.h>
#include <string.h>

/* The scale that a spec's axis names; created the first time it is seen. */
struct dims {
	const char *name[16];
	size_t n;
};

static bool seen(struct dims *d, const char *name)
{
	size_t i;

	for (i = 0; i < d->n; i++) {
		if (!strcmp(d->name[i], name))
			return true;
	}
	d->name[d->n++] = name;
	return false;
}

static enum lens_status add_lens_layers(struct lens_store *s, size_t n, struct lens_error *err)
{
	char(*label)[32] = lens_calloc(n, sizeof(*label));
	const char **labels = lens_calloc(n, sizeof(*labels));
	enum lens_status st = LENS_OK;
	size_t i;

	if (!label || !labels)
		st = lens_error_nomem(err, n, sizeof(*label));
	for (i = 0; st == LENS_OK && i < n; i++) {
		if (i + 1 < n)
			snprintf(label[i], sizeof(label[i]), "%zu_pre", i);
		else
			snprintf(label[i], sizeof(label[i]), "final_post");
		labels[i] = label[i];
	}
	if (st == LENS_OK)
		st = lens_store_add_dim(s, "lens_layer", n, labels, err);
	lens_free(labels);
	lens_free(label);
	return st;
}

static enum lens_status add_dim(struct lens_store *s, const struct lens_plan *p,
				const char *name, size_t extent, struct lens_error *err)
{
	const struct lens_experiment *e = p->experiment;

	if (!strcmp(name, "lens_layer"))
		return add_lens_layers(s, extent, err);
	/* The answers are labelled with the columns they come from. */
	if (!strcmp(name, "answer"))
		return lens_store_add_dim(s, name, extent,
					  (const char *const *)e->data.answers.v, err);
	if (!strcmp(name, "answer_other"))
		return lens_store_add_dim(s, name, extent,
					  (const char *const *)e->data.answers.v + 1, err);
	return lens_store_add_dim(s, name, extent, NULL, err);
}

static enum lens_status add_dims(struct lens_store *s, const struct lens_plan *p,
				 struct dims *known, struct lens_error *err)
{
	size_t i;
	int k;

	if (!seen(known, "prompt"))
		LENS_TRY(lens_store_add_dim(s, "prompt", p->prompts->n_rows, NULL, err));
	if (!seen(known, "pos"))
		LENS_TRY(lens_store_add_dim(s, "pos", p->prompts->max_length, NULL, err));
	if (p->prompts->n_answers && !seen(known, "answer"))
		LENS_TRY(add_dim(s, p, "answer", p->prompts->n_answers, err));
	if (p->capture.positions.kind != LENS_POS_ALL && !seen(known, "slot"))
		LENS_TRY(
			lens_store_add_dim(s, "slot", p->capture.positions.n_slots, NULL, err));
	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_dataset_spec *d = &p->dataset[i].spec;

		for (k = 0; k < d->rank; k++) {
			if (!seen(known, d->dim[k]))
				LENS_TRY(add_dim(s, p, d->dim[k], d->extent[k], err));
		}
	}
	return LENS_OK;
}

enum lens_status lens_layout_create(struct lens_store *s, const struct lens_plan *p,
				    int *store_id, struct lens_error *err)
{
	struct dims known = { .n = 0 };
	size_t i;

	LENS_TRY(add_dims(s, p, &known, err));
	for (i = 0; i < p->n_datasets; i++)
		LENS_TRY(lens_store_add_dataset(s, &p->dataset[i].spec, &store_id[i], err));
	for (i = 0; i < p->n_links; i++)
		LENS_TRY(lens_store_add_link(s, p->link[i].path, p->link[i].target, err));
	return LENS_OK;
}

/* --- attributes -------------------------------------------------------------------- */

static enum lens_status attr_sha(struct lens_store *s, const char *name, const uint8_t *sha,
				 struct lens_error *err)
{
	char hex[LENS_SHA256_HEX];

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

static enum lens_status attr_bos(struct lens_store *s, const struct lens_inputs *in,
				 struct lens_error *err)
{
	bool prepend = in->data->prepend_bos;
	int32_t bos;

	LENS_TRY(lens_store_attr_i64(s, "/", "prepend_bos", prepend, err));
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

enum lens_status lens_layout_attributes(struct lens_store *s, const struct lens_inputs *in,
					struct lens_error *err)
{
	char *text;

	LENS_TRY(lens_store_attr_i64(s, "/", "h5lens_schema", LENS_SCHEMA, err));
	LENS_TRY(lens_store_attr_str(s, "/", "h5lens_version", LENS_VERSION, err));
	LENS_TRY(lens_store_attr_str(s, "/", "digest", LENS_DIGEST, err));
	LENS_TRY(lens_store_attr_str(s, "/", "experiment_source", in->experiment->source, err));
	LENS_TRY(lens_experiment_json(in->experiment, false, &text, err));
	LENS_TRY(attr_owned(s, "experiment", text, err));
	LENS_TRY(lens_store_attr_str(s, "/", "identity", in->identity, err));
	LENS_TRY(lens_config_json(&in->model->config, &in->model->processing, &text, err));
	LENS_TRY(attr_owned(s, "model_config", text, err));
	LENS_TRY(attr_sha(s, "sha256_model", in->model->sha256, err));
	LENS_TRY(attr_sha(s, "sha256_tokenizer", lens_tokenizer_sha256(in->tokenizer), err));
	LENS_TRY(attr_sha(s, "sha256_data", in->prompts->sha256, err));
	LENS_TRY(attr_path(s, "path_model", in->experiment->model, err));
	LENS_TRY(lens_store_attr_str(s, "/", "tensor_W_E", in->model->tensor_w_e, err));
	LENS_TRY(lens_store_attr_str(s, "/", "tensor_W_U", in->model->tensor_w_u, err));
	LENS_TRY(attr_path(s, "path_data", in->experiment->data.csv, err));
	LENS_TRY(attr_bos(s, in, err));
	LENS_TRY(lens_store_attr_i64(s, "/", "rows_skipped", (int64_t)in->n_skipped, err));
	LENS_TRY(lens_store_attr_str(s, "/", "cpu_level", lens_cpu_level_name(in->level), err));
	LENS_TRY(lens_store_attr_str(s, "/", "blas", lens_blas_description(), err));
	LENS_TRY(lens_store_attr_str(s, "/", "hdf5", lens_store_hdf5_version(), err));
	return lens_store_attr_str(s, "/", "build", LENS_BUILD, err);
}
