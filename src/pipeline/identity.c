/*
 * pipeline/identity.c: what makes two runs the same: the effective experiment
 * without paths, threads and memory, the content of the inputs, the CPU level,
 * the schema. Kept in the file as JSON, so that a mismatch can be named.
 */
#include "pipeline/pipeline_private.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static int put_sha(json_t *j, const char *key, const uint8_t *sha)
{
	char hex[LENS_SHA256_HEX];

	lens_hex(sha, LENS_SHA256_BYTES, hex);
	return json_object_set_new(j, key, json_string(hex));
}

enum lens_status lens_identity(const struct lens_inputs *in, char **out, struct lens_error *err)
{
	char *experiment, *text = NULL;
	json_t *j;

	LENS_TRY(lens_experiment_json(in->experiment, true, &experiment, err));
	j = json_loads(experiment, 0, NULL);
	lens_free(experiment);
	if (j && !put_sha(j, "model content", in->model->sha256) &&
	    !put_sha(j, "tokenizer content", lens_tokenizer_sha256(in->tokenizer)) &&
	    !put_sha(j, "data content", in->prompts->sha256) &&
	    !json_object_set_new(j, "cpu level", json_string(lens_cpu_level_name(in->level))) &&
	    !json_object_set_new(j, "schema", json_integer(LENS_SCHEMA)))
		text = json_dumps(j, JSON_SORT_KEYS | JSON_COMPACT);
	*out = lens_strdup(text);
	json_decref(j);
	free(text);
	return *out ? LENS_OK : lens_error_nomem(err, 1, 4096);
}

/* --- differences ------------------------------------------------------------------------ */

static enum lens_status show(struct lens_buf *b, const json_t *v, struct lens_error *err)
{
	char *text = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	enum lens_status st = lens_buf_printf(b, err, "%.60s%s", text ? text : "nothing",
					      text && strlen(text) > 60 ? "…" : "");

	free(text);
	return st;
}

/* What list x has and y has not. */
static json_t *only_in(const json_t *x, const json_t *y)
{
	json_t *only = json_array(), *v, *w;
	size_t i, k;

	json_array_foreach (x, i, v) {
		bool in_both = false;

		json_array_foreach (y, k, w)
			in_both = in_both || json_equal(v, w);
		if (!in_both && json_array_append(only, v))
			break;
	}
	return only;
}

/* "old there, new here"; of lists, what is not in both. */
static enum lens_status difference(const json_t *x, const json_t *y, struct lens_buf *b,
				   struct lens_error *err)
{
	bool lists = json_is_array(x) && json_is_array(y);
	json_t *was = lists ? only_in(x, y) : NULL, *is = lists ? only_in(y, x) : NULL;
	enum lens_status st;

	if (lists && !json_array_size(was) && !json_array_size(is)) {
		st = lens_buf_printf(b, err, "in another order");
	} else {
		st = show(b, lists ? was : x, err);
		if (st == LENS_OK)
			st = lens_buf_printf(b, err, " there, ");
		if (st == LENS_OK)
			st = show(b, lists ? is : y, err);
		if (st == LENS_OK)
			st = lens_buf_printf(b, err, " here");
	}
	json_decref(was);
	json_decref(is);
	return st;
}

/* "key: old there, new here" for each leaf that differs, keys with dots. */
static enum lens_status differences(const char *prefix, const json_t *was, const json_t *is,
				    struct lens_buf *b, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	json_t *both = json_copy((json_t *)(uintptr_t)was), *unused;
	const char *key;

	if (!both || json_object_update_missing(both, (json_t *)(uintptr_t)is))
		st = lens_error_nomem(err, 1, 4096);
	json_object_foreach (both, key, unused) {
		const json_t *x = json_object_get(was, key), *y = json_object_get(is, key);
		char name[160];

		if (st != LENS_OK || json_equal(x, y))
			continue;
		snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_is_object(x) && json_is_object(y)) {
			st = differences(name, x, y, b, err);
			continue;
		}
		st = lens_buf_printf(b, err, "%s%s: ", b->len ? "; " : "", name);
		if (st == LENS_OK)
			st = difference(x, y, b, err);
	}
	json_decref(both);
	return st;
}

enum lens_status lens_identity_mismatch(const char *output, const char *was, const char *is,
					struct lens_error *err)
{
	json_t *x = json_loads(was, 0, NULL), *y = json_loads(is, 0, NULL);
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;

	if (x && y)
		st = differences("", x, y, &b, err);
	if (st == LENS_OK)
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "is of another experiment (%s)",
				   b.data ? b.data : "its identity cannot be read");
	lens_buf_release(&b);
	json_decref(x);
	json_decref(y);
	return st;
}

enum lens_status lens_identity_check(const char *output, const char *identity, bool *finished,
				     struct lens_error *err)
{
	struct lens_error cause = LENS_ERROR_INIT;
	enum lens_status st;
	char *was = NULL;

	*finished = false;
	if (!lens_file_exists(output))
		return LENS_OK;
	st = lens_store_read_attr(output, "/", "identity", &was, &cause);
	if (st != LENS_OK && st != LENS_ERR_FORMAT) {
		lens_error_pass(err, &cause); /* it may be ours all the same */
	} else if (st != LENS_OK) {
		st = lens_error_at(err, LENS_ERR_FORMAT, output, 0, 0,
				   "exists and is no output of h5lens%s",
				   lens_store_is_hdf5(output) ? ", or a damaged one" : "");
	} else if (!was) {
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "exists and is no output of h5lens");
	} else if (strcmp(was, identity) != 0) {
		st = lens_identity_mismatch(output, was, identity, err);
	} else {
		*finished = true;
	}
	lens_free(was);
	return st;
}
