/*
 * experiment/interventions.c: do the keys of an intervention fit together, and with the
 * data? In: the experiment; out: an error that names the key, and what is missing. What
 * only the model can tell (its heads, its layers, what its family lacks) is not here.
 */
#include "experiment/keys_private.h"

#include <string.h>

static const char *const metric_names[] = { [LENS_METRIC_LOGIT_DIFF] = "logit_diff",
					    [LENS_METRIC_ANSWER_LOGIT] = "answer_logit",
					    [LENS_METRIC_ANSWER_LOGPROB] = "answer_logprob",
					    [LENS_METRIC_KL_DIVERGENCE] = "kl_divergence" };

size_t lens_metric_answers(enum lens_metric m)
{
	static const size_t answers[] = { [LENS_METRIC_LOGIT_DIFF] = 2,
					  [LENS_METRIC_ANSWER_LOGIT] = 1,
					  [LENS_METRIC_ANSWER_LOGPROB] = 1,
					  [LENS_METRIC_KL_DIVERGENCE] = 0 };

	return answers[m];
}

bool lens_experiment_cuts_in(const struct lens_experiment *e, size_t layer)
{
	bool listed = !e->knockout.n_layers, any = !e->knockout.heads.n;
	size_t i, of, head;

	for (i = 0; i < e->knockout.n_layers; i++)
		listed |= e->knockout.layer[i] == (long)layer;
	for (i = 0; i < e->knockout.heads.n; i++)
		any |= lens_head_parse(e->knockout.heads.v[i], &of, &head) && of == layer;
	return listed && any;
}

/*
 * A group of keys without the one that says what to do: none of them may be set, but
 * patch.reuse, which every intervention heeds.
 */
static enum lens_status check_unused(const struct lens_experiment *e, const char *group,
				     const char *needed, struct lens_error *err)
{
	struct lens_experiment defaults;
	const struct lens_key *keys;
	enum lens_status st = LENS_OK;
	bool equal = true;
	size_t i, n;

	keys = lens_keys(&n);
	LENS_TRY(lens_experiment_init(&defaults, err));
	for (i = 0; st == LENS_OK && equal && i < n; i++) {
		if (!strncmp(keys[i].name, group, strlen(group)) &&
		    strcmp(keys[i].name, "patch.reuse") != 0)
			st = lens_key_equal(e, &defaults, &keys[i], &equal, err);
	}
	lens_experiment_release(&defaults);
	if (st == LENS_OK && !equal)
		st = lens_error_set(err, LENS_ERR_INVALID, "%s is set, but %s",
				    keys[i - 1].name, needed);
	return st;
}

static enum lens_status check_answers(const struct lens_experiment *e, const char *key,
				      enum lens_metric m, struct lens_error *err)
{
	size_t needed = lens_metric_answers(m), n = e->data.answers.n;

	if (needed && e->data.answer_tokens == LENS_ANSWERS_OF_ANY)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "%s measures %s, which needs answers of one token; "
				      "data.answer_tokens is any",
				      key, metric_names[m]);
	if (n >= needed)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_INVALID,
			      "%s measures %s, which needs %zu answer column%s; data.answers "
			      "names %zu",
			      key, metric_names[m], needed, needed > 1 ? "s" : "", n);
}

static enum lens_status check_corrupted(const struct lens_experiment *e, const char *key,
					struct lens_error *err)
{
	if (!e->data.corrupted)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "%s needs corrupted prompts: name their column in "
				      "data.corrupted (--corrupted)",
				      key);
	if (!strcmp(e->data.corrupted, lens_prompt_column(e)))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "data.%s and data.corrupted are the same column, "
				      "'%.200s'",
				      e->data.tokens ? "tokens" : "prompt",
				      lens_prompt_column(e));
	return LENS_OK;
}

static enum lens_status check_patch(const struct lens_experiment *e, struct lens_error *err)
{
	if (!e->patch.grids.n && !e->path.receivers.n && e->data.corrupted)
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"data.corrupted is set, but nothing uses it: list what to "
			"patch in patch.grids (--patch)");
	if (!e->patch.grids.n)
		return check_unused(e, "patch.", "patch.grids lists nothing to patch", err);
	LENS_TRY(check_corrupted(e, "patch.grids", err));
	return check_answers(e, "patch.grids", e->patch.metric, err);
}

static bool lists(const struct lens_strings *grids, const char *name)
{
	size_t i;

	for (i = 0; i < grids->n; i++) {
		if (!strcmp(grids->v[i], name))
			return true;
	}
	return false;
}

static enum lens_status check_ablate(const struct lens_experiment *e, struct lens_error *err)
{
	if (!e->ablate.grids.n && !e->ablate.n_sets)
		return check_unused(e, "ablate.",
				    "neither ablate.grids nor ablate.sets says what to ablate",
				    err);
	if (e->ablate.value != LENS_ABLATE_MEAN && e->ablate.mean_over)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "ablate.mean_over is for ablate.value: mean");
	if (e->ablate.value != LENS_ABLATE_RESAMPLE && (e->ablate.resample || e->ablate.seed))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "ablate.%s is for ablate.value: resample",
				      e->ablate.resample ? "resample" : "seed");
	if (e->ablate.heads.n && !lists(&e->ablate.grids, "attn_head_out_all_pos"))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "ablate.heads is for attn_head_out_all_pos, which "
				      "ablate.grids does not list");
	return check_answers(e, e->ablate.grids.n ? "ablate.grids" : "ablate.sets",
			     LENS_METRIC_LOGIT_DIFF, err);
}

/* "9.9.q" */
static bool is_receiver(const char *text)
{
	size_t layer, head, n = strlen(text);
	char spot[32];

	if (n < 3 || n >= sizeof(spot) || text[n - 2] != '.' || !strchr("qkv", text[n - 1]))
		return false;
	memcpy(spot, text, n - 2);
	spot[n - 2] = '\0';
	return lens_head_parse(spot, &layer, &head);
}

static enum lens_status check_path(const struct lens_experiment *e, struct lens_error *err)
{
	const struct lens_strings *list = &e->path.receivers;
	size_t i;

	if (!list->n)
		return check_unused(e, "path.", "path.receivers lists nothing", err);
	LENS_TRY(check_corrupted(e, "path.receivers", err));
	for (i = 0; i < list->n; i++) {
		bool logits = list->n == 1 && !strcmp(list->v[0], "logits");

		if (!logits && !is_receiver(list->v[i]))
			return lens_error_set(
				err, LENS_ERR_INVALID,
				"path.receivers: '%.200s' is no receiver: layer.head.q, k or v, "
				"as in 9.9.q; or logits alone",
				list->v[i]);
	}
	return check_answers(e, "path.receivers", LENS_METRIC_LOGIT_DIFF, err);
}

/* What changes tables: those of answers of several tokens need a second pass. */
static enum lens_status check_one_token(const struct lens_experiment *e, const char *group,
					struct lens_error *err)
{
	if (e->data.answer_tokens != LENS_ANSWERS_OF_ANY)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_INVALID,
			      "%s needs answers of one token; data.answer_tokens is any",
			      group);
}

static enum lens_status check_knockout(const struct lens_experiment *e, struct lens_error *err)
{
	bool from = lens_places_given(&e->knockout.from),
	     to = lens_places_given(&e->knockout.to);

	if (!from && !to)
		return check_unused(e, "knockout.",
				    "knockout.from and knockout.to do not say what to cut",
				    err);
	if (!from)
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"knockout.to is set, but not knockout.from: the keys that "
			"these queries are to lose");
	if (!to)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "knockout.from is set, but not knockout.to: the queries "
				      "that are to lose these keys");
	return check_one_token(e, "knockout", err);
}

static enum lens_status check_steer(const struct lens_experiment *e, struct lens_error *err)
{
	if (!e->steer.vector)
		return check_unused(e, "steer.", "steer.vector names no vector to add", err);
	if (e->steer.layer < 0)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "steer.vector is set, but not steer.layer: the layer in "
				      "which it is added");
	return check_one_token(e, "steer", err);
}

enum lens_status lens_experiment_check_interventions(const struct lens_experiment *e,
						     struct lens_error *err)
{
	LENS_TRY(check_patch(e, err));
	LENS_TRY(check_path(e, err));
	LENS_TRY(check_ablate(e, err));
	LENS_TRY(check_knockout(e, err));
	return check_steer(e, err);
}
