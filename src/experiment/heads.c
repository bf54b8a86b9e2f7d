/*
 * experiment/heads.c: heads as people write them, "9.6" for layer 9, head 6; lists of
 * them, and named sets of them. In: a node; out: the field, changed only if the whole
 * value is valid. YAML takes an unquoted 10.0 for a number: its text is what counts.
 */
#include "experiment/value_private.h"

#include <stdlib.h>
#include <string.h>

/* More than any model has; bounds the search for repetitions. */
enum { HEADS_MAX = 16384, DIGITS_MAX = 6 };

/* Reads a number without superfluous zeros; the text behind it, or NULL: it is none. */
static const char *read_index(const char *s, size_t *out)
{
	size_t n = strspn(s, "0123456789");

	if (!n || n > DIGITS_MAX || (*s == '0' && n > 1))
		return NULL;
	*out = strtoul(s, NULL, 10);
	return s + n;
}

bool lens_head_parse(const char *text, size_t *layer, size_t *head)
{
	const char *s = read_index(text, layer);

	if (!s || *s != '.')
		return false;
	s = read_index(s + 1, head);
	return s && !*s;
}

static enum lens_status check_heads(const struct lens_strings *list,
				    const struct lens_yaml_source *src,
				    const struct lens_key *key, const yaml_node_t *node,
				    struct lens_error *err)
{
	size_t i, j, layer, head;

	for (i = 0; i < list->n; i++) {
		if (!lens_head_parse(list->v[i], &layer, &head))
			return lens_yaml_error(src, node, err,
					       "%s: '%.200s' is not a head: write its layer, a "
					       "dot and its number, as in 9.6",
					       key->name, list->v[i]);
		for (j = 0; j < i; j++) {
			if (!strcmp(list->v[j], list->v[i]))
				return lens_yaml_error(src, node, err,
						       "%s: the head %s is listed twice",
						       key->name, list->v[i]);
		}
	}
	return LENS_OK;
}

enum lens_status lens_yaml_heads(struct lens_strings *list, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err)
{
	enum lens_status st;

	*list = (struct lens_strings){ 0 };
	LENS_TRY(lens_yaml_plain(src, node, err));
	if (!lens_yaml_count(node))
		return lens_yaml_error(src, node, err, "%s: the list is empty; expected %s",
				       key->name, key->shape);
	if (lens_yaml_count(node) > HEADS_MAX)
		return lens_yaml_error(src, node, err, "%s: more than %d heads", key->name,
				       HEADS_MAX);
	st = lens_yaml_list(list, src, key, node, err);
	if (st == LENS_OK)
		st = check_heads(list, src, key, node, err);
	if (st != LENS_OK)
		lens_strings_release(list);
	return st;
}

enum lens_status lens_value_set_heads(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	struct lens_strings list = { 0 };

	if (lens_find_word(lens_yaml_text(node), store->words) == LENS_NOT_A_WORD)
		LENS_TRY(lens_yaml_heads(&list, src, key, node, err));
	lens_strings_release(lens_key_field(e, store));
	*(struct lens_strings *)lens_key_field(e, store) = list;
	return LENS_OK;
}

/* --- named sets ------------------------------------------------------------------------ */

void lens_sets_release(struct lens_named_list *sets, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		lens_free(sets[i].name);
		lens_strings_release(&sets[i].heads);
	}
	lens_free(sets);
}

static enum lens_status read_set(struct lens_named_list *set,
				 const struct lens_yaml_source *src, const struct lens_key *key,
				 const yaml_node_pair_t *pair, struct lens_error *err)
{
	const yaml_node_t *name = yaml_document_get_node(src->doc, pair->key);
	const yaml_node_t *list = yaml_document_get_node(src->doc, pair->value);

	if (!*lens_yaml_text(name))
		return lens_yaml_error(src, name, err, "%s: a set has no name", key->name);
	LENS_TRY(lens_yaml_heads(&set->heads, src, key, list, err));
	set->name = lens_strdup(lens_yaml_text(name));
	return set->name ? LENS_OK : lens_error_nomem(err, name->data.scalar.length + 1, 1);
}

enum lens_status lens_value_set_sets(struct lens_experiment *e,
				     const struct lens_yaml_source *src,
				     const struct lens_key *key, const yaml_node_t *node,
				     struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	struct lens_named_list **field = lens_key_field(e, store), *sets;
	const yaml_node_pair_t *first;
	enum lens_status st = LENS_OK;
	size_t i, n;

	if (node->type != YAML_MAPPING_NODE)
		return lens_value_wrong(src, key, node, err);
	first = node->data.mapping.pairs.start;
	n = (size_t)(node->data.mapping.pairs.top - first);
	sets = lens_calloc(n, sizeof(*sets));
	if (!sets)
		return lens_error_nomem(err, n, sizeof(*sets));
	for (i = 0; st == LENS_OK && i < n; i++) {
		st = lens_yaml_check_key(src, node, first + i, err);
		if (st == LENS_OK)
			st = read_set(&sets[i], src, key, first + i, err);
	}
	if (st != LENS_OK) {
		lens_sets_release(sets, n);
		return st;
	}
	lens_sets_release(*field, lens_key_ccount(e, store));
	*field = sets;
	*lens_key_count(e, store) = n;
	return LENS_OK;
}
