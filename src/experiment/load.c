/*
 * experiment/load.c: YAML text → keys. In: an experiment file, or the text of a flag or
 * of --set; out: the fields, through value.c. In a libyaml document aliases are shared
 * nodes, and only three levels of it are walked, so neither aliases nor nesting can
 * cause much work.
 */
#include "experiment/value_private.h"

#include <string.h>

/* libyaml's time grows with the square of the nesting, so both are bounded. */
#define MAX_FILE_BYTES ((size_t)256 << 10)
#define MAX_NESTING 100

static enum lens_status apply(struct lens_experiment *e, const struct lens_yaml_source *src,
			      const char *name, const yaml_node_t *key_node,
			      const yaml_node_t *node, struct lens_error *err);

static const char *key_text(const yaml_node_t *node)
{
	return (const char *)node->data.scalar.value;
}

enum lens_status lens_yaml_check_key(const struct lens_yaml_source *src, const yaml_node_t *map,
				     const yaml_node_pair_t *pair, struct lens_error *err)
{
	const yaml_node_t *key = yaml_document_get_node(src->doc, pair->key), *other;
	const yaml_node_pair_t *p;

	if (key->type != YAML_SCALAR_NODE)
		return lens_yaml_error(src, key, err, "a key must be a word");
	LENS_TRY(lens_yaml_plain(src, key, err));
	if (!strcmp(key_text(key), "<<"))
		return lens_yaml_error(src, key, err, "YAML merge keys (<<) are not supported");
	for (p = map->data.mapping.pairs.start; p < pair; p++) {
		other = yaml_document_get_node(src->doc, p->key);
		if (!strcmp(key_text(other), key_text(key)))
			return lens_yaml_error(
				src, key, err,
				"the key '%.200s' appears twice; first on line %zu",
				key_text(key), other->start_mark.line + 1);
	}
	return LENS_OK;
}

static enum lens_status apply_map(struct lens_experiment *e, const struct lens_yaml_source *src,
				  const char *prefix, const yaml_node_t *map,
				  struct lens_error *err)
{
	const yaml_node_pair_t *p;

	LENS_TRY(lens_yaml_plain(src, map, err));
	for (p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
		struct lens_buf name = LENS_BUF_INIT;
		const yaml_node_t *key;
		enum lens_status st;

		LENS_TRY(lens_yaml_check_key(src, map, p, err));
		key = yaml_document_get_node(src->doc, p->key);
		st = lens_buf_printf(&name, err, "%s%s%s", prefix, *prefix ? "." : "",
				     key_text(key));
		if (st == LENS_OK)
			st = apply(e, src, name.data, key,
				   yaml_document_get_node(src->doc, p->value), err);
		lens_buf_release(&name);
		LENS_TRY(st);
	}
	return LENS_OK;
}

static enum lens_status unknown(const struct lens_yaml_source *src, const char *name,
				const yaml_node_t *node, struct lens_error *err)
{
	const char *near = lens_key_nearest(name);

	return lens_yaml_error(src, node, err, "unknown key '%.200s'%s%s%s", name,
			       near ? "; did you mean '" : "", near ? near : "",
			       near ? "'?" : "");
}

/* In a file, keys nest: with dots, a key could appear twice unnoticed. */
static bool is_dotted(const struct lens_yaml_source *src, const yaml_node_t *key_node)
{
	return src->file && strchr(key_text(key_node), '.');
}

static enum lens_status apply(struct lens_experiment *e, const struct lens_yaml_source *src,
			      const char *name, const yaml_node_t *key_node,
			      const yaml_node_t *node, struct lens_error *err)
{
	const struct lens_key *key = lens_key_find(name);

	if ((key || lens_key_is_group(name)) && is_dotted(src, key_node))
		return lens_yaml_error(src, key_node, err,
				       "write '%.200s' as nested keys: '%.*s:', then the other "
				       "key indented on a line of its own",
				       name, (int)strcspn(name, "."), name);
	if (lens_key_is_group(name) && node->type == YAML_MAPPING_NODE)
		return apply_map(e, src, name, node, err);
	if (key)
		return lens_value_set(e, src, key, node, err);
	if (lens_key_is_group(name))
		return lens_yaml_error(src, node, err,
				       "%s: expected a mapping, {key: value, …}", name);
	return unknown(src, name, key_node, err);
}

/* --- libyaml --------------------------------------------------------------- */

/* Bounds how deep brackets can nest. */
static enum lens_status check_nesting(const char *text, const char *file,
				      struct lens_error *err)
{
	size_t depth = 0, most = 0;
	const char *p;

	for (p = text; *p; p++) {
		depth += *p == '[' || *p == '{';
		depth -= (*p == ']' || *p == '}') && depth;
		most = lens_max(depth, most);
	}
	if (most > MAX_NESTING)
		return lens_error_at(err, file ? LENS_ERR_FORMAT : LENS_ERR_INVALID, file, 0, 0,
				     "brackets nested more than %d deep", MAX_NESTING);
	return LENS_OK;
}

/*
 * Is the line (from 0) indented with a tab, also after a dash? Editors do it, YAML forbids
 * it.
 */
static bool tab_indents(const char *text, size_t line)
{
	for (; line; line--) {
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return text[strspn(text, " -")] == '\t';
}

static enum lens_status parser_error(const yaml_parser_t *p, const char *text, const char *file,
				     struct lens_error *err)
{
	bool alias = (p->context && strstr(p->context, "alias")) ||
		     (p->problem && strstr(p->problem, "alias"));
	long line = (long)p->problem_mark.line + 1, column = (long)p->problem_mark.column + 1;

	if (p->error == YAML_MEMORY_ERROR)
		return lens_error_nomem(err, 1, MAX_FILE_BYTES);
	if (p->error != YAML_READER_ERROR && tab_indents(text, p->problem_mark.line))
		return lens_error_at(err, file ? LENS_ERR_FORMAT : LENS_ERR_INVALID, file,
				     file ? line : 0, 0,
				     "not valid YAML: a tab before the first word; YAML takes "
				     "spaces there");
	if (p->error == YAML_READER_ERROR || !file)
		line = column = 0;
	return lens_error_at(err, file ? LENS_ERR_FORMAT : LENS_ERR_INVALID, file, line, column,
			     "not valid YAML: %s%s%s%s",
			     p->problem ? p->problem : "no reason given", p->context ? " " : "",
			     p->context ? p->context : "",
			     alias ? " (text that begins with * must be in quotes)" : "");
}

static enum lens_status load_document(yaml_parser_t *parser, const char *text,
				      yaml_document_t *doc, const char *file,
				      struct lens_error *err)
{
	yaml_document_t second;
	bool more;

	if (!yaml_parser_load(parser, doc))
		return parser_error(parser, text, file, err);
	if (!yaml_parser_load(parser, &second)) {
		yaml_document_delete(doc);
		return parser_error(parser, text, file, err);
	}
	more = yaml_document_get_root_node(&second) != NULL;
	yaml_document_delete(&second);
	if (!more)
		return LENS_OK;
	yaml_document_delete(doc);
	return lens_error_at(err, file ? LENS_ERR_FORMAT : LENS_ERR_INVALID, file, 0, 0,
			     "more than one YAML document");
}

/* The caller deletes *doc after LENS_OK. */
static enum lens_status parse(const char *text, const char *file, yaml_document_t *doc,
			      struct lens_error *err)
{
	yaml_parser_t parser;
	enum lens_status st;

	if (!lens_utf8_valid(text, strlen(text)))
		return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0, "not valid UTF-8");
	LENS_TRY(check_nesting(text, file, err));
	if (!yaml_parser_initialize(&parser))
		return lens_error_nomem(err, 1, sizeof(parser));
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
	st = load_document(&parser, text, doc, file, err);
	yaml_parser_delete(&parser);
	return st;
}

/* --- a file ---------------------------------------------------------------- */

static enum lens_status apply_file(struct lens_experiment *e, const char *path,
				   yaml_document_t *doc, struct lens_error *err)
{
	struct lens_yaml_source src = { .doc = doc, .file = path };
	const yaml_node_t *root = yaml_document_get_root_node(doc);
	const char *slash = strrchr(path, '/');
	enum lens_status st;
	char *dir = NULL;

	if (!root || root->type != YAML_MAPPING_NODE)
		return lens_error_at(err, LENS_ERR_FORMAT, path, 1, 0, "%s",
				     root ? "expected keys and values (model: …)"
					  : "the file has no keys");
	if (slash) {
		dir = lens_strdup(path);
		if (!dir)
			return lens_error_nomem(err, strlen(path) + 1, 1);
		dir[slash - path + 1] = '\0';
	}
	src.dir = dir;
	st = apply_map(e, &src, "", root, err);
	lens_free(dir);
	return st;
}

enum lens_status lens_experiment_load(struct lens_experiment *e, const char *path,
				      struct lens_error *err)
{
	struct lens_buf text = LENS_BUF_INIT;
	yaml_document_t doc;
	enum lens_status st = LENS_OK;

	if (!lens_utf8_valid(path, strlen(path)))
		st = lens_error_set(err, LENS_ERR_INVALID, "the path is not valid UTF-8");
	if (st == LENS_OK)
		st = lens_file_read(path, MAX_FILE_BYTES, &text, err);
	if (st == LENS_OK && strlen(text.data) != text.len)
		st = lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0, "a NUL byte in the file");
	if (st == LENS_OK)
		st = parse(text.data, path, &doc, err);
	if (st == LENS_OK) {
		st = apply_file(e, path, &doc, err);
		yaml_document_delete(&doc);
	}
	if (st != LENS_OK) {
		lens_buf_release(&text);
		return st;
	}
	lens_free(e->source);
	e->source = text.data;
	return LENS_OK;
}

/* --- one key --------------------------------------------------------------- */

static int add_scalar(yaml_document_t *doc, const char *s, size_t n, yaml_scalar_style_t style)
{
	return yaml_document_add_scalar(doc, NULL, (const unsigned char *)s, (int)n, style);
}

/* "a, b": a sequence of plain scalars, with the blanks around them removed. */
static bool add_comma_list(yaml_document_t *doc, const char *s)
{
	int list = yaml_document_add_sequence(doc, NULL, YAML_FLOW_SEQUENCE_STYLE), item;

	for (;;) {
		size_t n, next;

		s += strspn(s, " ");
		n = next = strcspn(s, ",");
		while (n && s[n - 1] == ' ')
			n--;
		item = add_scalar(doc, s, n, YAML_PLAIN_SCALAR_STYLE);
		if (!list || !item || !yaml_document_append_sequence_item(doc, list, item))
			return false;
		if (!s[next])
			return true;
		s += next + 1;
	}
}

static bool takes_list(enum lens_key_kind kind)
{
	return kind == LENS_KEY_LIST || kind == LENS_KEY_TABLES || kind == LENS_KEY_POSITIONS ||
	       kind == LENS_KEY_HEADS || kind == LENS_KEY_GRIDS || kind == LENS_KEY_LAYERS ||
	       kind == LENS_KEY_INTEGERS || kind == LENS_KEY_REALS || kind == LENS_KEY_PLACES;
}

/* A document that holds one value, parsed as the key's kind requires. */
static enum lens_status build(const struct lens_key *key, const char *value,
			      yaml_document_t *doc, struct lens_error *err)
{
	enum lens_key_kind kind = key ? lens_key_store(key)->kind : LENS_KEY_WEIGHTS;
	bool text = kind == LENS_KEY_TEXT || kind == LENS_KEY_PATH, done;

	if (!text && (*value == '[' || *value == '{'))
		return parse(value, NULL, doc, err);
	if (!yaml_document_initialize(doc, NULL, NULL, NULL, 1, 1))
		return lens_error_nomem(err, 1, sizeof(*doc));
	if (takes_list(kind) && strchr(value, ','))
		done = add_comma_list(doc, value);
	else
		done = add_scalar(doc, value, strlen(value),
				  text ? YAML_SINGLE_QUOTED_SCALAR_STYLE
				       : YAML_PLAIN_SCALAR_STYLE) != 0;
	if (done)
		return LENS_OK;
	yaml_document_delete(doc);
	return lens_error_nomem(err, strlen(value), 1);
}

enum lens_status lens_experiment_set(struct lens_experiment *e, const char *key,
				     const char *value, struct lens_error *err)
{
	struct lens_yaml_source src = { 0 };
	yaml_document_t doc;
	enum lens_status st;

	if (strlen(value) > MAX_FILE_BYTES || !lens_utf8_valid(value, strlen(value)))
		return lens_error_set(err, LENS_ERR_INVALID, "%.200s: %s", key,
				      "the value is too long or not valid UTF-8");
	LENS_TRY(build(lens_key_find(key), value, &doc, err));
	src.doc = &doc;
	st = apply(e, &src, key, yaml_document_get_root_node(&doc),
		   yaml_document_get_root_node(&doc), err);
	yaml_document_delete(&doc);
	return st;
}
