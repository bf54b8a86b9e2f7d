/*
 * pipeline/identity.c: what makes two runs the same: the effective experiment
 * without paths, threads and memory, the content of the inputs, the BOS token,
 * the CPU level, the schema of the file and the number of the numerics. Kept in
 * the file as JSON, so that a mismatch can be named (sweep/identity.c).
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

#include "core/json.h"

/* sha NULL: there is nothing of the kind. */
static int put_sha(json_t *j, const char *key, const uint8_t *sha)
{
	char hex[LENS_SHA256_HEX];

	if (!sha)
		return json_object_set_new(j, key, json_null());
	lens_hex(sha, LENS_SHA256_BYTES, hex);
	return json_object_set_new(j, key, json_string(hex));
}

/* The token that is put in front of each prompt; null: none. */
static enum lens_status bos_of(const struct lens_inputs *in, json_t **out,
			       struct lens_error *err)
{
	int32_t bos;

	*out = NULL;
	if (!in->data->prepend_bos) {
		*out = json_null();
		return LENS_OK;
	}
	LENS_TRY(lens_tokenizer_bos(in->tokenizer, &bos, err));
	*out = json_integer(bos);
	return LENS_OK;
}

enum lens_status lens_identity(const struct lens_inputs *in, char **out, struct lens_error *err)
{
	char *experiment = NULL, *text = NULL;
	enum lens_status st;
	json_t *j, *bos;

	*out = NULL;
	LENS_TRY(bos_of(in, &bos, err));
	st = lens_experiment_json(in->experiment, true, &experiment, err);
	if (st == LENS_OK)
		st = lens_json_parse(NULL, experiment, strlen(experiment), &j, err);
	lens_free(experiment);
	if (st != LENS_OK) {
		json_decref(bos);
		return st;
	}
	if (!json_object_set_new(j, "bos", bos) &&
	    !put_sha(j, "model content", in->model->sha256) &&
	    !put_sha(j, "tokenizer content",
		     in->tokenizer ? lens_tokenizer_sha256(in->tokenizer) : NULL) &&
	    !put_sha(j, "data content", in->prompts->sha256) &&
	    (!in->vector->v || !put_sha(j, "steer.vector content", in->vector->sha256)) &&
	    !json_object_set_new(j, "cpu level", json_string(lens_cpu_level_name(in->level))) &&
	    !json_object_set_new(j, "numerics", json_integer(LENS_NUMERICS(in->level))) &&
	    !json_object_set_new(j, "schema", json_integer(LENS_SCHEMA)))
		text = json_dumps(j, JSON_SORT_KEYS | JSON_COMPACT);
	*out = lens_strdup(text);
	json_decref(j);
	free(text);
	return *out ? LENS_OK : lens_error_nomem(err, 1, 4096);
}
