/*
 * sweep/identity.c: are two runs of one experiment, and whose is what lies under an
 * output's name? In: identities as JSON (pipeline/identity.c makes them).
 *
 * The program grows: a key that an earlier version did not know counts as its
 * default, so that what it wrote is still the same experiment.
 */
#include "sweep/sweep_private.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "h5lens/experiment.h"
#include "sweep/identity_words.h"

/* --- what earlier versions wrote --------------------------------------------------- */

/* What `to` lacks it gets from `from`; groups (weights, data, …) key by key. */
static bool fill_in(json_t *to, json_t *from)
{
	const char *key;
	json_t *value;

	json_object_foreach (from, key, value) {
		json_t *mine = json_object_get(to, key);

		if (!mine && json_object_set(to, key, value))
			return false;
		if (json_is_object(mine) && json_is_object(value) && !fill_in(mine, value))
			return false;
	}
	return true;
}

/* Every key at its default. */
static enum lens_status default_experiment(json_t **out, struct lens_error *err)
{
	struct lens_experiment e;
	enum lens_status st;
	char *text;

	*out = NULL;
	LENS_TRY(lens_experiment_init(&e, err));
	/* With those that are no part of it: both sides get them. */
	st = lens_experiment_json(&e, false, &text, err);
	lens_experiment_release(&e);
	if (st == LENS_OK)
		st = lens_json_parse(NULL, text, strlen(text), out, err);
	lens_free(text);
	return st;
}

/* What the versions before it did not write down. */
static bool add_later_words(json_t *j, const char *bos)
{
	json_t *id;

	if (!json_object_get(j, "numerics") &&
	    json_object_set_new(j, "numerics", json_integer(1)))
		return false;
	if (!bos || json_object_get(j, "bos"))
		return true;
	id = strcmp(bos, "none") ? json_integer(atoll(bos)) : json_null();
	return !json_object_set_new(j, "bos", id);
}

/*
 * An identity as this version would have written it; NULL: it cannot be read. bos:
 * the attribute of the file that it is from, or NULL.
 */
static enum lens_status read_identity(const char *text, const char *bos, json_t **out,
				      struct lens_error *err)
{
	enum lens_status st = lens_json_parse(NULL, text, strlen(text), out, NULL);
	json_t *defaults;

	if (st == LENS_ERR_FORMAT)
		return LENS_OK;
	if (st != LENS_OK)
		return lens_error_nomem(err, strlen(text), 1);
	st = default_experiment(&defaults, err);
	if (st == LENS_OK && (!fill_in(*out, defaults) || !add_later_words(*out, bos)))
		st = lens_error_nomem(err, 1, 4096);
	json_decref(defaults);
	if (st != LENS_OK) {
		json_decref(*out);
		*out = NULL;
	}
	return st;
}

/* Both, without what was not written down in the first: a plan of schema 1 tells no BOS. */
static enum lens_status read_both(const char *was, const char *bos, const char *is, json_t **x,
				  json_t **y, struct lens_error *err)
{
	*x = *y = NULL;
	LENS_TRY(read_identity(was, bos, x, err));
	if (read_identity(is, NULL, y, err) != LENS_OK) {
		json_decref(*x);
		*x = NULL;
		return LENS_ERR_NOMEM;
	}
	if (*x && *y && !json_object_get(*x, "bos"))
		json_object_del(*y, "bos");
	return LENS_OK;
}

enum lens_status lens_identity_compare(const char *was, const char *bos, const char *is,
				       enum lens_identity_match *out, struct lens_error *err)
{
	bool same_schema;
	json_t *x, *y;

	*out = LENS_IDENTITY_OTHER;
	LENS_TRY(read_both(was, bos, is, &x, &y, err));
	if (x && y) {
		same_schema =
			json_equal(json_object_get(x, "schema"), json_object_get(y, "schema"));
		json_object_del(x, "schema");
		json_object_del(y, "schema");
		if (json_equal(x, y))
			*out = same_schema ? LENS_IDENTITY_SAME : LENS_IDENTITY_OLDER;
	}
	json_decref(x);
	json_decref(y);
	return LENS_OK;
}

/* --- mismatches ------------------------------------------------------------------------ */

/* Nothing but how its numbers are computed: said in words. */
static bool only_numerics(json_t *x, const json_t *y)
{
	json_t *copy = json_copy(x);
	bool only = copy &&
		    !json_object_set(copy, "numerics", json_object_get(y, "numerics")) &&
		    !json_object_set(copy, "schema", json_object_get(y, "schema")) &&
		    json_equal(copy, y);

	json_decref(copy);
	return only;
}

/* Of h5lens weights: the model's, without data. */
static bool is_of_weights(const json_t *j)
{
	return json_object_get(j, "model content") && !json_object_get(j, "data content");
}

enum lens_status lens_identity_mismatch(const char *output, const char *was, const char *bos,
					const char *is, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	bool numerics = false, weights;
	json_t *x, *y;

	LENS_TRY(read_both(was, bos, is, &x, &y, err));
	weights = is_of_weights(x) && !is_of_weights(y);
	if (x && y && !weights) {
		numerics = only_numerics(x, y);
		json_object_del(x, "schema");
		json_object_del(y, "schema");
		st = lens_identity_differences("", x, y, &b, err);
	}
	if (weights)
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "is a file of weights, which h5lens weights wrote");
	else if (st == LENS_OK && numerics)
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "is of the same experiment, by a version of h5lens whose "
				   "results have other bits (%s)",
				   b.len ? b.data : "its words were changed");
	else if (st == LENS_OK)
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "is of another experiment (%s)",
				   b.data ? b.data : "its identity cannot be read");
	lens_buf_release(&b);
	json_decref(x);
	json_decref(y);
	return st;
}

/* Outputs of schema 1 tell their BOS token beside the identity. */
static enum lens_status told_apart(const char *output, const char *was, const char *identity,
				   struct lens_error *err)
{
	enum lens_status st;
	char *bos;

	LENS_TRY(lens_store_read_attr(output, "/", "bos", &bos, err));
	st = lens_identity_mismatch(output, was, bos, identity, err);
	lens_free(bos);
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
				   "exists and is not an output of h5lens%s",
				   lens_store_is_hdf5(output) ? ", or a damaged one" : "");
	} else if (!was) {
		st = lens_error_at(err, LENS_ERR_MISMATCH, output, 0, 0,
				   "exists and is not an output of h5lens");
	} else if (strcmp(was, identity) != 0) {
		st = told_apart(output, was, identity, err);
	} else {
		*finished = true;
	}
	lens_free(was);
	return st;
}

/* The words of what is under the output's name: of the file, else of its plan. */
static enum lens_status words_of(const char *output, char **was, char **bos,
				 struct lens_error *err)
{
	struct lens_folder f = { .n_shards = 0 };
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st;

	*was = *bos = NULL;
	if (lens_file_exists(output)) {
		st = lens_store_read_attr(output, "/", "identity", was, &why);
		if (st == LENS_OK && *was)
			st = lens_store_read_attr(output, "/", "bos", bos, &why);
	} else {
		st = lens_folder_load(&f, output, &why);
		if (st == LENS_OK)
			*was = lens_strdup(f.identity);
		if (st == LENS_OK && !*was)
			st = lens_error_nomem(&why, 1, 4096);
		lens_folder_release(&f);
	}
	/* What is not ours, or damaged, is told by those who look closer. */
	return st == LENS_ERR_NOMEM ? lens_error_pass(err, &why) : LENS_OK;
}

enum lens_status lens_identity_adopt(const char *output, char **identity, bool *older,
				     struct lens_error *err)
{
	enum lens_identity_match match = LENS_IDENTITY_OTHER;
	char *was, *bos;
	enum lens_status st = words_of(output, &was, &bos, err);

	*older = false;
	if (st == LENS_OK && was)
		st = lens_identity_compare(was, bos, *identity, &match, err);
	if (match != LENS_IDENTITY_OTHER) {
		lens_free(*identity);
		*identity = was;
		was = NULL;
		*older = match == LENS_IDENTITY_OLDER;
	}
	lens_free(was);
	lens_free(bos);
	return st;
}
