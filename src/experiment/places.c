/*
 * experiment/places.c: positions by number, or by a text to look for: a mapping
 * {find: " Mary", nth: -1} or {find_column: subject}. data.read_pos is one of them, or a
 * column of numbers; knockout.from and knockout.to are lists, or such a text. In: a node;
 * out: the fields, all of which a new value replaces.
 */
#include "experiment/value_private.h"

#include <string.h>

void lens_places_release(struct lens_places *l)
{
	lens_free(l->position);
	lens_free(l->find);
	lens_free(l->find_column);
	*l = (struct lens_places){ .n = 0 };
}

/* --- by text ------------------------------------------------------------------------- */

static enum lens_status copy(const char *s, char **out, struct lens_error *err)
{
	*out = lens_strdup(s);
	return *out ? LENS_OK : lens_error_nomem(err, strlen(s) + 1, 1);
}

static bool has_text(const yaml_node_t *node)
{
	return lens_yaml_text(node) && *lens_yaml_text(node) && !lens_yaml_is_null(node);
}

/* One pair of the mapping. */
static enum lens_status set_pair(struct lens_places *l, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_pair_t *pair,
				 struct lens_error *err)
{
	static const char *const words[] = { "find", "find_column", "nth", NULL };
	const yaml_node_t *name = yaml_document_get_node(src->doc, pair->key);
	const yaml_node_t *node = yaml_document_get_node(src->doc, pair->value);
	int word = lens_find_word(lens_yaml_text(name), words);

	if (word == LENS_NOT_A_WORD)
		return lens_yaml_error(src, name, err, "unknown key '%s.%.200s'; expected %s",
				       key->name, lens_yaml_text(name), key->shape);
	LENS_TRY(lens_yaml_plain(src, node, err));
	if (!has_text(node))
		return lens_yaml_error(src, node, err, "%s.%s: no value", key->name,
				       words[word]);
	if (word == 0)
		return copy(lens_yaml_text(node), &l->find, err);
	if (word == 1)
		return copy(lens_yaml_text(node), &l->find_column, err);
	if (!lens_parse_integer(lens_yaml_text(node), &l->nth))
		return lens_yaml_error(src, node, err,
				       "%s.nth: expected an integer, not '%.200s'", key->name,
				       lens_yaml_text(node));
	return LENS_OK;
}

static enum lens_status set_map(struct lens_places *l, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *map,
				struct lens_error *err)
{
	const yaml_node_pair_t *p;

	for (p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		LENS_TRY(lens_yaml_check_key(src, map, p, err));
		LENS_TRY(set_pair(l, src, key, p, err));
	}
	if (!l->find == !l->find_column)
		return lens_yaml_error(src, map, err,
				       "%s: expected one of find and find_column, not %s",
				       key->name, l->find ? "both" : "neither");
	return LENS_OK;
}

/* --- data.read_pos ------------------------------------------------------------------- */

/* An integer in quotes is a column's name. */
static enum lens_status set_word(char **column, long *pos, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err)
{
	const char *s = lens_yaml_text(node);

	if (!has_text(node))
		return lens_value_wrong(src, key, node, err);
	if (lens_yaml_is_unquoted(node) && lens_parse_integer(s, pos))
		return LENS_OK;
	return copy(s, column, err);
}

enum lens_status lens_value_set_read_pos(struct lens_experiment *e,
					 const struct lens_yaml_source *src,
					 const struct lens_key *key, const yaml_node_t *node,
					 struct lens_error *err)
{
	struct lens_places text = { .n = 0 };
	char *column = NULL;
	enum lens_status st;
	long pos = -1;

	if (node->type == YAML_MAPPING_NODE)
		st = set_map(&text, src, key, node, err);
	else
		st = set_word(&column, &pos, src, key, node, err);
	if (st != LENS_OK) {
		lens_places_release(&text);
		return st;
	}
	lens_free(e->data.read_pos_column);
	lens_free(e->data.find);
	lens_free(e->data.find_column);
	e->data.read_pos_column = column;
	e->data.find = text.find;
	e->data.find_column = text.find_column;
	e->data.nth = text.nth;
	e->data.read_pos = pos;
	return LENS_OK;
}

/* --- lists, or a text ------------------------------------------------------------------ */

static enum lens_status set_list(struct lens_places *l, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err)
{
	if (lens_find_word(lens_yaml_text(node), lens_key_store(key)->words) != LENS_NOT_A_WORD)
		return LENS_OK;
	if (!lens_yaml_count(node))
		return lens_yaml_error(src, node, err, "%s: the list is empty; expected %s",
				       key->name, key->shape);
	return lens_yaml_integers(&l->position, &l->n, src, key, node, err);
}

enum lens_status lens_value_set_places(struct lens_experiment *e,
				       const struct lens_yaml_source *src,
				       const struct lens_key *key, const yaml_node_t *node,
				       struct lens_error *err)
{
	struct lens_places *field = lens_key_field(e, lens_key_store(key)), l = { .n = 0 };
	enum lens_status st;

	if (node->type == YAML_MAPPING_NODE)
		st = set_map(&l, src, key, node, err);
	else
		st = set_list(&l, src, key, node, err);
	if (st != LENS_OK) {
		lens_places_release(&l);
		return st;
	}
	lens_places_release(field);
	*field = l;
	return LENS_OK;
}
