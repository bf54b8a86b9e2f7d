/*
 * experiment/read_pos.c: data.read_pos: a number, a column, or a text to look for: a
 * mapping {find: " Mary", nth: -1} or {find_column: subject}. In: a node; out: the
 * fields, all of which a new value replaces.
 */
#include "experiment/value_private.h"

#include <string.h>

/* What a value sets. */
struct read_pos {
	char *column, *find, *find_column;
	long pos, nth;
};

static void release(struct read_pos *r)
{
	lens_free(r->column);
	lens_free(r->find);
	lens_free(r->find_column);
}

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
static enum lens_status set_pair(struct read_pos *r, const struct lens_yaml_source *src,
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
		return copy(lens_yaml_text(node), &r->find, err);
	if (word == 1)
		return copy(lens_yaml_text(node), &r->find_column, err);
	if (!lens_parse_integer(lens_yaml_text(node), &r->nth))
		return lens_yaml_error(src, node, err,
				       "%s.nth: expected an integer, not '%.200s'", key->name,
				       lens_yaml_text(node));
	return LENS_OK;
}

static enum lens_status set_map(struct read_pos *r, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *map,
				struct lens_error *err)
{
	const yaml_node_pair_t *p;

	for (p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		LENS_TRY(lens_yaml_check_key(src, map, p, err));
		LENS_TRY(set_pair(r, src, key, p, err));
	}
	if (!r->find == !r->find_column)
		return lens_yaml_error(src, map, err,
				       "%s: expected one of find and find_column, not %s",
				       key->name, r->find ? "both" : "neither");
	return LENS_OK;
}

/* An integer in quotes is a column's name. */
static enum lens_status set_word(struct read_pos *r, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err)
{
	const char *s = lens_yaml_text(node);

	if (!has_text(node))
		return lens_value_wrong(src, key, node, err);
	if (lens_yaml_is_unquoted(node) && lens_parse_integer(s, &r->pos))
		return LENS_OK;
	return copy(s, &r->column, err);
}

enum lens_status lens_value_set_read_pos(struct lens_experiment *e,
					 const struct lens_yaml_source *src,
					 const struct lens_key *key, const yaml_node_t *node,
					 struct lens_error *err)
{
	struct read_pos r = { .pos = -1 };
	enum lens_status st;

	if (node->type == YAML_MAPPING_NODE)
		st = set_map(&r, src, key, node, err);
	else
		st = set_word(&r, src, key, node, err);
	if (st != LENS_OK) {
		release(&r);
		return st;
	}
	lens_free(e->data.read_pos_column);
	lens_free(e->data.find);
	lens_free(e->data.find_column);
	e->data.read_pos_column = r.column;
	e->data.find = r.find;
	e->data.find_column = r.find_column;
	e->data.nth = r.nth;
	e->data.read_pos = r.column ? -1 : r.pos;
	return LENS_OK;
}
