/*
 * experiment/json.c: the effective experiment as JSON. In: the experiment; out: every
 * key of the table with its value, nested as in YAML and sorted, so that equal
 * experiments give equal text.
 */
#include "experiment/keys_private.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The list with value appended; NULL if out of memory, as list and value may be already. */
static json_t *appended(json_t *list, json_t *value)
{
	if (!json_array_append_new(list, value))
		return list;
	json_decref(list);
	return NULL;
}

/* A new reference, or NULL if out of memory; so too below. */
static json_t *string_list(const struct lens_strings *s)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < s->n; i++)
		list = appended(list, json_string(s->v[i]));
	return list;
}

/* The tables that will be made. */
static json_t *table_list(const struct lens_experiment *e)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < LENS_TABLE_WORDS; i++) {
		if (lens_experiment_wants_table(e, lens_table_words[i]))
			list = appended(list, json_string(lens_table_words[i]));
	}
	return list;
}

static json_t *integers(const long *v, size_t n)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < n; i++)
		list = appended(list, json_integer(v[i]));
	return list;
}

static json_t *reals(const double *v, size_t n)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < n; i++)
		list = appended(list, json_real(v[i]));
	return list;
}

static json_t *positions(const struct lens_experiment *e, const char *const *words)
{
	if (e->cache.positions != LENS_POS_LIST)
		return json_string(words[e->cache.positions]);
	return integers(e->cache.position, e->cache.n_positions);
}

static json_t *sets(const struct lens_named_list *set, size_t n)
{
	json_t *map = json_object();
	size_t i;

	for (i = 0; map && i < n; i++) {
		if (!json_object_set_new(map, set[i].name, string_list(&set[i].heads)))
			continue;
		json_decref(map);
		map = NULL;
	}
	return map;
}

/* A kind that is a pointer and behind it how many there are. */
static json_t *counted(const struct lens_experiment *e, const struct lens_key_store *s)
{
	size_t n = lens_key_ccount(e, s);
	const void *field = lens_key_cfield(e, s);

	if (s->kind == LENS_KEY_REALS)
		return reals(*(double *const *)field, n);
	if (s->kind == LENS_KEY_SETS)
		return sets(*(struct lens_named_list *const *)field, n);
	return n ? integers(*(long *const *)field, n) : json_string(s->words[0]);
}

static json_t *heads(const struct lens_strings *list, const char *const *words)
{
	return list->n ? string_list(list) : json_string(words[0]);
}

/* One of the two is not NULL; as it is written in YAML. */
static json_t *found(const char *find, const char *find_column, long nth)
{
	json_t *map = json_object();

	if (!json_object_set_new(map, find ? "find" : "find_column",
				 json_string(find ? find : find_column)) &&
	    !json_object_set_new(map, "nth", json_integer(nth)))
		return map;
	json_decref(map);
	return NULL;
}

static json_t *read_pos(const struct lens_experiment *e)
{
	if (e->data.read_pos_column)
		return json_string(e->data.read_pos_column);
	if (e->data.find || e->data.find_column)
		return found(e->data.find, e->data.find_column, e->data.nth);
	return json_integer(e->data.read_pos);
}

static json_t *places(const struct lens_places *l, const char *const *words)
{
	if (l->find || l->find_column)
		return found(l->find, l->find_column, l->nth);
	return l->n ? integers(l->position, l->n) : json_string(words[0]);
}

/* A token keeps its quotes, so that it is read back as one. */
static json_t *bos(const char *text)
{
	return strspn(text, "0123456789") == strlen(text) && strlen(text) < 19
		       ? json_integer(atoll(text))
		       : json_string(text);
}

static json_t *list_of(const struct lens_experiment *e, const struct lens_key_store *s)
{
	const void *field = lens_key_cfield(e, s);

	switch (s->kind) {
	case LENS_KEY_TABLES:
		return table_list(e);
	case LENS_KEY_POSITIONS:
		return positions(e, s->words);
	case LENS_KEY_HEADS:
		return heads(field, s->words);
	case LENS_KEY_SETS:
	case LENS_KEY_LAYERS:
	case LENS_KEY_INTEGERS:
	case LENS_KEY_REALS:
		return counted(e, s);
	case LENS_KEY_PLACES:
		return places(field, s->words);
	default:
		return string_list(field);
	}
}

static json_t *text_of(const char *s, const char *const *words)
{
	if (!s && words)
		s = words[0];
	return s ? json_string(s) : json_null();
}

static json_t *layer(long l, const char *const *words)
{
	return l < 0 ? json_string(words[0]) : json_integer(l);
}

static json_t *value_of(const struct lens_experiment *e, const struct lens_key_store *s)
{
	const void *field = lens_key_cfield(e, s);
	unsigned word;
	size_t count;

	switch (s->kind) {
	case LENS_KEY_TEXT:
	case LENS_KEY_PATH:
		return text_of(*(char *const *)field, s->words);
	case LENS_KEY_BOS:
		return bos(*(char *const *)field);
	case LENS_KEY_READ_POS:
		return read_pos(e);
	case LENS_KEY_BOOL:
		return json_boolean(*(const bool *)field);
	case LENS_KEY_SWITCH:
		return json_string(s->words[*(const bool *)field]);
	case LENS_KEY_CHOICE:
		memcpy(&word, field, sizeof(word));
		return json_string(s->words[word]);
	case LENS_KEY_INTEGER:
		return json_integer(*(const long *)field);
	case LENS_KEY_LAYER:
		return layer(*(const long *)field, s->words);
	case LENS_KEY_COUNT:
	case LENS_KEY_BYTES:
		memcpy(&count, field, sizeof(count));
		return count || !s->words ? json_integer((json_int_t)count)
					  : json_string(s->words[0]);
	default:
		return list_of(e, s);
	}
}

enum lens_status lens_key_equal(const struct lens_experiment *a,
				const struct lens_experiment *b, const struct lens_key *key,
				bool *equal, struct lens_error *err)
{
	const struct lens_key_store *s = lens_key_store(key);
	json_t *x = value_of(a, s), *y = value_of(b, s);
	bool both = x && y;

	*equal = both && json_equal(x, y);
	json_decref(x);
	json_decref(y);
	return both ? LENS_OK : lens_error_nomem(err, 1, 1);
}

/* Takes over value. A name has at most one dot. */
static int put(json_t *root, const char *name, json_t *value)
{
	const char *dot = strchr(name, '.');
	char group[32];
	json_t *inner;

	if (!dot)
		return json_object_set_new(root, name, value);
	snprintf(group, sizeof(group), "%.*s", (int)(dot - name), name);
	inner = json_object_get(root, group);
	if (!inner) {
		inner = json_object();
		if (json_object_set_new(root, group, inner)) {
			json_decref(value);
			return -1;
		}
	}
	return json_object_set_new(inner, dot + 1, value);
}

static bool in_identity(const struct lens_experiment *e, const struct lens_key_store *s)
{
	unsigned word;

	if (s->identity != LENS_KEY_IF_SET)
		return s->identity;
	memcpy(&word, lens_key_cfield(e, s), sizeof(word));
	return word != 0;
}

static int put_all(json_t *root, const struct lens_experiment *e, bool identity_only)
{
	const struct lens_key *keys;
	size_t i, n;

	keys = lens_keys(&n);
	for (i = 0; i < n; i++) {
		const struct lens_key_store *s = lens_key_store(&keys[i]);

		if (s->kind == LENS_KEY_WEIGHTS || (identity_only && !in_identity(e, s)))
			continue;
		if (put(root, keys[i].name, value_of(e, s)))
			return -1;
	}
	return 0;
}

enum lens_status lens_experiment_json(const struct lens_experiment *e, bool identity_only,
				      char **out, struct lens_error *err)
{
	json_t *root = json_object();
	char *text = NULL;

	*out = NULL;
	if (root && !put_all(root, e, identity_only))
		text = json_dumps(root, JSON_SORT_KEYS | JSON_COMPACT);
	json_decref(root);
	*out = lens_strdup(text);
	free(text);
	return *out ? LENS_OK : lens_error_nomem(err, 1, 1);
}
