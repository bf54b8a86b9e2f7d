/*
 * experiment/experiment.c: defaults, release, and the check that values are
 * consistent. In: the key table; out: a struct lens_experiment, which load.c then
 * changes.
 */
#include "experiment/keys_private.h"

#include <string.h>

enum lens_status lens_experiment_init(struct lens_experiment *e, struct lens_error *err)
{
	const struct lens_key *keys;
	enum lens_status st = LENS_OK;
	size_t i, n;

	memset(e, 0, sizeof(*e));
	keys = lens_keys(&n);
	for (i = 0; i < n && st == LENS_OK; i++) {
		if (keys[i].deflt)
			st = lens_experiment_set(e, keys[i].name, keys[i].deflt, err);
	}
	e->weights.named = 0; /* defaults are parsed like what the user gives */
	if (st == LENS_OK) {
		e->source = lens_strdup("");
		if (!e->source)
			st = lens_error_nomem(err, 1, 1);
	}
	if (st != LENS_OK)
		lens_experiment_release(e);
	return st;
}

void lens_experiment_as_stored(struct lens_experiment *e)
{
	bool *step[] = { &e->weights.fold_ln, &e->weights.center_writing_weights,
			 &e->weights.center_unembed, &e->weights.fold_value_biases };
	size_t i;

	for (i = 0; i < sizeof(step) / sizeof(*step); i++)
		*step[i] = *step[i] && (e->weights.named & 1u << i);
}

void lens_experiment_release(struct lens_experiment *e)
{
	lens_free(e->model);
	lens_free(e->output);
	lens_free(e->data.csv);
	lens_free(e->data.bos);
	lens_free(e->data.prompt);
	lens_free(e->data.spool);
	lens_free(e->data.tokens);
	lens_free(e->data.read_pos_column);
	lens_free(e->data.find);
	lens_free(e->data.find_column);
	lens_strings_release(&e->data.answers);
	lens_strings_release(&e->cache.hooks);
	lens_free(e->cache.position);
	lens_strings_release(&e->tables);
	lens_free(e->data.corrupted);
	lens_strings_release(&e->patch.grids);
	lens_strings_release(&e->patch.heads);
	lens_free(e->patch.layer);
	lens_free(e->patch.position);
	lens_strings_release(&e->ablate.grids);
	lens_strings_release(&e->ablate.heads);
	lens_strings_release(&e->path.receivers);
	lens_strings_release(&e->path.senders);
	lens_sets_release(e->ablate.set, e->ablate.n_sets);
	lens_free(e->ablate.resample);
	lens_free(e->knockout.layer);
	lens_strings_release(&e->knockout.heads);
	lens_places_release(&e->knockout.from);
	lens_places_release(&e->knockout.to);
	lens_free(e->steer.vector);
	lens_free(e->steer.scale);
	lens_places_release(&e->steer.positions);
	lens_free(e->source);
	memset(e, 0, sizeof(*e));
}

static bool listed(const struct lens_experiment *e, const char *table)
{
	size_t i;

	for (i = 0; i < e->tables.n; i++) {
		if (!strcmp(e->tables.v[i], table))
			return true;
	}
	return false;
}

/* Listed, or of `default`; and does it go with data.answer_tokens? */
static bool included(const struct lens_experiment *e, enum lens_table_word table)
{
	bool any = e->data.answer_tokens == LENS_ANSWERS_OF_ANY;
	enum lens_table_any rule = lens_table_rules[table].any;

	if (listed(e, lens_table_words[table]))
		return rule != (any ? LENS_ANY_no : LENS_ANY_only);
	return any && !e->tables_listed && (rule == LENS_ANY_added || rule == LENS_ANY_only);
}

bool lens_experiment_wants_table(const struct lens_experiment *e, const char *table)
{
	int i;

	for (i = 0; i < LENS_TABLE_WORDS; i++) {
		if (!strcmp(lens_table_words[i], table))
			return included(e, (enum lens_table_word)i) &&
			       e->data.answers.n >= lens_table_rules[i].answers;
	}
	return false;
}

static enum lens_status check_required(const struct lens_experiment *e, struct lens_error *err)
{
	const struct lens_key *keys;
	size_t i, n;

	keys = lens_keys(&n);
	for (i = 0; i < n; i++) {
		const struct lens_key_store *store = lens_key_store(&keys[i]);

		if (keys[i].deflt || *(char *const *)lens_key_cfield(e, store))
			continue;
		return lens_error_set(
			err, LENS_ERR_INVALID,
			"no %s is given (%s): set it with %s, or in the experiment "
			"file",
			keys[i].name, keys[i].help, keys[i].flag);
	}
	return LENS_OK;
}

/* One that was named and cannot be made. */
static enum lens_status check_named(const struct lens_experiment *e, enum lens_table_word table,
				    struct lens_error *err)
{
	const char *name = lens_table_words[table];
	size_t n = e->data.answers.n, needed = lens_table_rules[table].answers;

	if (!included(e, table) && e->data.answer_tokens == LENS_ANSWERS_OF_ANY)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "the table %s needs answers of one token; "
				      "data.answer_tokens is any",
				      name);
	if (!included(e, table))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "the table %s needs data.answer_tokens: any", name);
	if (n < needed)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "the table %s needs %zu answer column%s; "
				      "data.answers names %zu",
				      name, needed, needed > 1 ? "s" : "", n);
	return LENS_OK;
}

static enum lens_status check_tables(const struct lens_experiment *e, struct lens_error *err)
{
	bool any = e->cache.hooks.n || e->patch.grids.n || e->ablate.grids.n ||
		   e->ablate.n_sets || e->path.receivers.n || lens_experiment_cuts(e) ||
		   e->steer.vector;
	int i;

	for (i = 0; i < LENS_TABLE_WORDS; i++) {
		any |= lens_experiment_wants_table(e, lens_table_words[i]);
		if (e->tables_listed && listed(e, lens_table_words[i]))
			LENS_TRY(check_named(e, (enum lens_table_word)i, err));
	}
	if (!any)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "nothing to do: no hooks to store, no tables to make, "
				      "nothing to patch, ablate, knock out or steer");
	return LENS_OK;
}

static bool is_searched(const struct lens_places *l)
{
	return l->find || l->find_column;
}

/* Token ids have no text to look in. */
static enum lens_status check_ids(const struct lens_experiment *e, struct lens_error *err)
{
	const char *key = e->data.find || e->data.find_column ? "data.read_pos"
			  : is_searched(&e->knockout.from)    ? "knockout.from"
			  : is_searched(&e->knockout.to)      ? "knockout.to"
							      : NULL;

	if (!e->data.tokens || !key)
		return LENS_OK;
	return lens_error_set(err, LENS_ERR_INVALID,
			      "%s looks for a text in the prompts, and data.tokens makes them "
			      "token ids: give positions as numbers",
			      key);
}

enum lens_status lens_experiment_check(const struct lens_experiment *e, struct lens_error *err)
{
	LENS_TRY(check_required(e, err));
	LENS_TRY(check_ids(e, err));
	if (!strcmp(e->output, e->data.csv))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "output and data.csv are the same file: %.400s",
				      e->output);
	if (e->top_k > LENS_TOP_K_MAX)
		return lens_error_set(err, LENS_ERR_INVALID, "top_k: %zu is more than %d",
				      e->top_k, LENS_TOP_K_MAX);
	LENS_TRY(check_tables(e, err));
	return lens_experiment_check_interventions(e, err);
}
