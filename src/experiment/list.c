/*
 * experiment/list.c: values that are lists: names, tables, layers, positions, numbers. In: a
 * sequence, or a scalar, which counts as a list of one; out: the field, changed only if every
 * item is valid.
 */
#include "experiment/value_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INTEGERS_MAX = 65536, REALS_MAX = 4096 };

void lens_strings_release(struct lens_strings *s)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		lens_free(s->v[i]);
	lens_free(s->v);
	*s = (struct lens_strings){ 0 };
}

size_t lens_yaml_count(const yaml_node_t *node)
{
	if (node->type != YAML_SEQUENCE_NODE)
		return 1;
	return (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

enum lens_status lens_yaml_item(const struct lens_yaml_source *src, const struct lens_key *key,
				const yaml_node_t *node, size_t i, const yaml_node_t **item,
				struct lens_error *err)
{
	*item = node;
	if (node->type == YAML_SEQUENCE_NODE)
		*item = yaml_document_get_node(src->doc, node->data.sequence.items.start[i]);
	LENS_TRY(lens_yaml_plain(src, *item, err));
	if (!lens_yaml_text(*item) || !*lens_yaml_text(*item) || lens_yaml_is_null(*item))
		return lens_value_wrong(src, key, *item, err);
	return LENS_OK;
}

enum lens_status lens_yaml_list(struct lens_strings *list, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *node,
				struct lens_error *err)
{
	size_t n = lens_yaml_count(node);
	const yaml_node_t *item;

	list->v = lens_calloc(n, sizeof(*list->v));
	if (!list->v)
		return lens_error_nomem(err, n, sizeof(*list->v));
	while (list->n < n) {
		LENS_TRY(lens_yaml_item(src, key, node, list->n, &item, err));
		list->v[list->n] = lens_strdup(lens_yaml_text(item));
		if (!list->v[list->n])
			return lens_error_nomem(err, item->data.scalar.length + 1, 1);
		list->n++;
	}
	return LENS_OK;
}

enum lens_status lens_value_set_list(struct lens_experiment *e,
				     const struct lens_yaml_source *src,
				     const struct lens_key *key, const yaml_node_t *node,
				     struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	struct lens_strings list = { 0 };
	enum lens_status st = LENS_OK;

	if (lens_find_word(lens_yaml_text(node), store->words) == LENS_NOT_A_WORD)
		st = lens_yaml_list(&list, src, key, node, err);
	if (st != LENS_OK) {
		lens_strings_release(&list);
		return st;
	}
	lens_strings_release(lens_key_field(e, store));
	*(struct lens_strings *)lens_key_field(e, store) = list;
	return LENS_OK;
}

enum lens_status lens_strings_choose(struct lens_strings *list, const char *const *words,
				     const bool *chosen, struct lens_error *err)
{
	size_t i, n = 0;

	for (i = 0; words[i]; i++)
		n += chosen[i];
	*list = (struct lens_strings){ .v = lens_calloc(n, sizeof(*list->v)) };
	if (!list->v)
		return lens_error_nomem(err, n, sizeof(*list->v));
	for (i = 0; words[i]; i++) {
		if (!chosen[i])
			continue;
		list->v[list->n] = lens_strdup(words[i]);
		if (!list->v[list->n]) {
			lens_strings_release(list);
			return lens_error_nomem(err, strlen(words[i]) + 1, 1);
		}
		list->n++;
	}
	return LENS_OK;
}

static void choose(bool defaults_only, bool chosen[LENS_TABLE_WORDS])
{
	size_t i;

	for (i = 0; i < LENS_TABLE_WORDS; i++)
		chosen[i] |= !defaults_only || lens_table_rules[i].by_default;
}

static enum lens_status choose_tables(const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      bool chosen[LENS_TABLE_WORDS], bool *by_name,
				      struct lens_error *err)
{
	const yaml_node_t *item;
	size_t i;

	for (i = 0; i < lens_yaml_count(node); i++) {
		int word;

		LENS_TRY(lens_yaml_item(src, key, node, i, &item, err));
		if (!strcmp(lens_yaml_text(item), "default")) {
			choose(true, chosen);
			*by_name = false;
			continue;
		}
		word = lens_find_word(lens_yaml_text(item), lens_table_words);
		if (word == LENS_NOT_A_WORD)
			return lens_value_wrong(src, key, item, err);
		chosen[word] = true;
	}
	return LENS_OK;
}

/*
 * A set: the order of the user's list and repetitions in it do not matter. A list that
 * contains `default` is as lenient as the default: tables without their answers are
 * left out.
 */
enum lens_status lens_value_set_tables(struct lens_experiment *e,
				       const struct lens_yaml_source *src,
				       const struct lens_key *key, const yaml_node_t *node,
				       struct lens_error *err)
{
	const char *s = lens_yaml_text(node);
	bool every = s && !strcmp(s, "all"), by_name = !every,
	     chosen[LENS_TABLE_WORDS] = { false };
	struct lens_strings list = { 0 };

	if (every)
		choose(false, chosen);
	else if (!s || strcmp(s, "none") != 0)
		LENS_TRY(choose_tables(src, key, node, chosen, &by_name, err));
	LENS_TRY(lens_strings_choose(&list, lens_table_words, chosen, err));
	lens_strings_release(&e->tables);
	e->tables = list;
	e->tables_listed = by_name;
	return LENS_OK;
}

/* --- integers ------------------------------------------------------------------------ */

static enum lens_status fill_integers(long *v, const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err)
{
	bool layers = lens_key_store(key)->kind == LENS_KEY_LAYERS;
	const yaml_node_t *item;
	size_t i, j;

	for (i = 0; i < lens_yaml_count(node); i++) {
		LENS_TRY(lens_yaml_item(src, key, node, i, &item, err));
		if (!lens_parse_integer(lens_yaml_text(item), &v[i]) || (layers && v[i] < 0))
			return lens_value_wrong(src, key, item, err);
		for (j = 0; j < i; j++) {
			if (v[j] == v[i])
				return lens_yaml_error(src, item, err,
						       "%s: the %s %ld is listed twice",
						       key->name, layers ? "layer" : "position",
						       v[i]);
		}
	}
	return LENS_OK;
}

enum lens_status lens_yaml_integers(long **v, size_t *n, const struct lens_yaml_source *src,
				    const struct lens_key *key, const yaml_node_t *node,
				    struct lens_error *err)
{
	size_t count = lens_yaml_count(node);
	enum lens_status st;
	long *list;

	if (count > INTEGERS_MAX)
		return lens_yaml_error(src, node, err, "%s: more than %d in the list",
				       key->name, INTEGERS_MAX);
	list = lens_calloc(count, sizeof(*list));
	if (!list)
		return lens_error_nomem(err, count, sizeof(*list));
	st = fill_integers(list, src, key, node, err);
	if (st != LENS_OK) {
		lens_free(list);
		return st;
	}
	lens_free(*v);
	*v = list;
	*n = count;
	return LENS_OK;
}

static void clear_integers(long **v, size_t *n)
{
	lens_free(*v);
	*v = NULL;
	*n = 0;
}

enum lens_status lens_value_set_integers(struct lens_experiment *e,
					 const struct lens_yaml_source *src,
					 const struct lens_key *key, const yaml_node_t *node,
					 struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	long **v = lens_key_field(e, store);
	size_t *n = lens_key_count(e, store);

	if (lens_find_word(lens_yaml_text(node), store->words) != LENS_NOT_A_WORD) {
		clear_integers(v, n);
		return LENS_OK;
	}
	if (!lens_yaml_count(node))
		return lens_yaml_error(src, node, err, "%s: the list is empty; expected %s",
				       key->name, key->shape);
	return lens_yaml_integers(v, n, src, key, node, err);
}

enum lens_status lens_value_set_positions(struct lens_experiment *e,
					  const struct lens_yaml_source *src,
					  const struct lens_key *key, const yaml_node_t *node,
					  struct lens_error *err)
{
	int word = lens_find_word(lens_yaml_text(node), lens_key_store(key)->words);

	if (word != LENS_NOT_A_WORD) {
		clear_integers(&e->cache.position, &e->cache.n_positions);
		e->cache.positions = (enum lens_positions_kind)word;
		return LENS_OK;
	}
	if (!lens_yaml_count(node))
		return lens_yaml_error(src, node, err,
				       "%s: the list is empty; to store no activations, set "
				       "cache.hooks to none",
				       key->name);
	LENS_TRY(lens_yaml_integers(&e->cache.position, &e->cache.n_positions, src, key, node,
				    err));
	e->cache.positions = LENS_POS_LIST;
	return LENS_OK;
}

/* --- real numbers -------------------------------------------------------------------- */

/* Decimal, and finite: strtod takes more. */
static bool parse_real(const char *s, double *out)
{
	char *end;

	if (!*s || strspn(s, "0123456789+-.eE") != strlen(s))
		return false;
	errno = 0;
	*out = strtod(s, &end);
	return end != s && !*end && isfinite(*out);
}

static enum lens_status fill_reals(double *v, const struct lens_yaml_source *src,
				   const struct lens_key *key, const yaml_node_t *node,
				   struct lens_error *err)
{
	const yaml_node_t *item;
	size_t i, j;

	for (i = 0; i < lens_yaml_count(node); i++) {
		LENS_TRY(lens_yaml_item(src, key, node, i, &item, err));
		if (!parse_real(lens_yaml_text(item), &v[i]))
			return lens_value_wrong(src, key, item, err);
		v[i] += 0.0; /* -0 is 0 */
		for (j = 0; j < i; j++) {
			if (!(v[j] < v[i]) && !(v[j] > v[i]))
				return lens_yaml_error(src, item, err,
						       "%s: the number %g is listed twice",
						       key->name, v[i]);
		}
	}
	return LENS_OK;
}

enum lens_status lens_value_set_reals(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	double **field = lens_key_field(e, store), *list;
	size_t n = lens_yaml_count(node);
	enum lens_status st;

	if (!n)
		return lens_yaml_error(src, node, err, "%s: the list is empty; expected %s",
				       key->name, key->shape);
	if (n > REALS_MAX)
		return lens_yaml_error(src, node, err, "%s: more than %d in the list",
				       key->name, REALS_MAX);
	list = lens_calloc(n, sizeof(*list));
	if (!list)
		return lens_error_nomem(err, n, sizeof(*list));
	st = fill_reals(list, src, key, node, err);
	if (st != LENS_OK) {
		lens_free(list);
		return st;
	}
	lens_free(*field);
	*field = list;
	*lens_key_count(e, store) = n;
	return LENS_OK;
}
