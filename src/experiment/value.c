/*
 * experiment/value.c: one YAML value → one field of the experiment, according to the
 * key's kind. In: a node; out: the field, changed only if the value is valid.
 */
#include "experiment/value_private.h"

#include <stdarg.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_COUNT ((size_t)1 << 48)
#define MIN_BARE_BYTES 1048576

enum lens_status lens_yaml_error(const struct lens_yaml_source *src, const yaml_node_t *node,
				 struct lens_error *err, const char *fmt, ...)
{
	char text[1200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!src->file)
		return lens_error_set(err, LENS_ERR_INVALID, "%s", text);
	return lens_error_at(err, LENS_ERR_FORMAT, src->file, (long)node->start_mark.line + 1,
			     (long)node->start_mark.column + 1, "%s", text);
}

const char *lens_yaml_text(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

bool lens_yaml_is_unquoted(const yaml_node_t *node)
{
	return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

bool lens_yaml_is_null(const yaml_node_t *node)
{
	const char *s = lens_yaml_text(node);

	return s && lens_yaml_is_unquoted(node) &&
	       (!*s || !strcmp(s, "~") || !strcasecmp(s, "null"));
}

enum lens_status lens_yaml_plain(const struct lens_yaml_source *src, const yaml_node_t *node,
				 struct lens_error *err)
{
	static const char *const tags[] = { [YAML_SCALAR_NODE] = YAML_STR_TAG,
					    [YAML_SEQUENCE_NODE] = YAML_SEQ_TAG,
					    [YAML_MAPPING_NODE] = YAML_MAP_TAG };
	const char *s = lens_yaml_text(node);

	if (strcmp((const char *)node->tag, tags[node->type]))
		return lens_yaml_error(src, node, err, "the YAML tag <%.200s> is not supported",
				       (const char *)node->tag);
	if (s && strlen(s) != node->data.scalar.length)
		return lens_yaml_error(src, node, err, "a NUL character inside a value");
	return LENS_OK;
}

enum lens_status lens_value_wrong(const struct lens_yaml_source *src,
				  const struct lens_key *key, const yaml_node_t *node,
				  struct lens_error *err)
{
	const char *s = lens_yaml_text(node), *near = NULL;
	const char *const *words = lens_key_store(key)->words;
	size_t n = 0;

	if (node->type == YAML_SEQUENCE_NODE || node->type == YAML_MAPPING_NODE)
		return lens_yaml_error(src, node, err, "%s: expected %s, not a %s", key->name,
				       key->shape,
				       node->type == YAML_MAPPING_NODE ? "mapping" : "list");
	if (!s || !*s || lens_yaml_is_null(node))
		return lens_yaml_error(src, node, err, "%s: no value; expected %s", key->name,
				       key->shape);
	if (words) {
		while (words[n])
			n++;
	}
	near = n ? lens_nearest(s, words, n) : NULL;
	return lens_yaml_error(src, node, err, "%s: expected %s, not '%.200s'%s%s%s", key->name,
			       key->shape, s, near ? "; did you mean '" : "", near ? near : "",
			       near ? "'?" : "");
}

int lens_find_word(const char *s, const char *const *words)
{
	int i;

	if (!s || !words)
		return LENS_NOT_A_WORD;
	for (i = 0; words[i]; i++) {
		if (!strcmp(s, words[i]))
			return i;
	}
	return LENS_NOT_A_WORD;
}

static bool parse_bool(const char *s, bool *out)
{
	static const char *const words[] = { "false", "no", "off", "true", "yes", "on" };
	size_t i;

	if (!s)
		return false;
	for (i = 0; i < 6; i++) {
		if (!strcasecmp(s, words[i])) {
			*out = i >= 3;
			return true;
		}
	}
	return false;
}

/* Decimal digits with an optional minus; within 32 bits. */
bool lens_parse_integer(const char *s, long *out)
{
	const char *digits = s && *s == '-' ? s + 1 : s;
	char *end;
	long x;

	if (!s || *digits < '0' || *digits > '9')
		return false;
	errno = 0;
	x = strtol(s, &end, 10);
	if (errno || *end || x < -INT32_MAX || x > INT32_MAX)
		return false;
	*out = x;
	return true;
}

/* The bytes of a unit: 1024 for K and KiB, 1000 for KB, and so on. 0: no such unit. */
static double unit_bytes(const char *s)
{
	static const char prefix[] = "KMGT";
	double base = 1024, unit = 1;
	const char *p;

	if (!*s || !strcasecmp(s, "B"))
		return 1;
	p = strchr(prefix, *s >= 'a' ? *s - 'a' + 'A' : *s);
	if (!p)
		return 0;
	if (!strcasecmp(s + 1, "B"))
		base = 1000;
	else if (s[1] && strcasecmp(s + 1, "iB"))
		return 0;
	for (; p >= prefix; p--)
		unit *= base;
	return unit;
}

/*
 * A count from 1, or, with units, a size; both up to MAX_COUNT, which a double
 * represents exactly. A bare "4" is not a size: its unit must have been forgotten.
 */
static bool parse_size(const char *s, bool units, size_t *out)
{
	static const char digits[] = "0123456789";
	size_t n = s ? strspn(s, digits) : 0;
	double unit, x;

	if (!n)
		return false;
	if (units && s[n] == '.')
		n += 1 + strspn(s + n + 1, digits);
	unit = units ? unit_bytes(s + n + (s[n] == ' ')) : !s[n];
	x = unit > 0 ? strtod(s, NULL) * unit : -1;
	if (!(x >= 0 && x <= (double)MAX_COUNT))
		return false;
	if (units && !s[n] && x < MIN_BARE_BYTES)
		return false;
	*out = (size_t)x;
	return *out > 0;
}

static enum lens_status set_text(struct lens_experiment *e, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);
	char **field = lens_key_field(e, store), *copy;
	const char *s = lens_yaml_text(node);

	if (lens_find_word(s, store->words) == 0) {
		lens_free(*field);
		*field = NULL;
		return LENS_OK;
	}
	if (!s || !*s || lens_yaml_is_null(node))
		return lens_value_wrong(src, key, node, err);
	if (store->kind == LENS_KEY_PATH && *s == '~' && strchr(s, '/'))
		return lens_yaml_error(src, node, err,
				       "%s: ~ is expanded by a shell only, not here: write the "
				       "whole path instead of '%.200s'",
				       key->name, s);
	if (store->kind == LENS_KEY_PATH && src->dir && *s != '/')
		copy = lens_path_join(src->dir, s);
	else
		copy = lens_strdup(s);
	if (!copy)
		return lens_error_nomem(err, strlen(s) + 1, 1);
	lens_free(*field);
	*field = copy;
	return LENS_OK;
}

/*
 * auto; digits, which are an id unless quoted; anything else is a token. Text that
 * itself has double quotes, which a flag keeps ('"5"'), is always a token.
 */
static enum lens_status set_bos(struct lens_experiment *e, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *node,
				struct lens_error *err)
{
	const char *s = lens_yaml_text(node), *quote = "\"";
	size_t n = s ? strlen(s) : 0;
	char *copy;

	if (!n || lens_yaml_is_null(node))
		return lens_value_wrong(src, key, node, err);
	if (!strcmp(s, "auto") || (n >= 2 && s[0] == '"' && s[n - 1] == '"') ||
	    (lens_yaml_is_unquoted(node) && strspn(s, "0123456789") == n))
		quote = "";
	copy = lens_calloc(n + 3, 1);
	if (!copy)
		return lens_error_nomem(err, n + 3, 1);
	snprintf(copy, n + 3, "%s%s%s", quote, s, quote);
	lens_free(e->data.bos);
	e->data.bos = copy;
	return LENS_OK;
}

/* Notes that the user gave one of weights.*. */
static void name_weights(struct lens_experiment *e, const struct lens_key_store *s)
{
	const size_t first = offsetof(struct lens_experiment, weights);
	const size_t end = offsetof(struct lens_experiment, weights.named);

	if (s->kind == LENS_KEY_WEIGHTS)
		e->weights.named = ~0u;
	else if (s->offset >= first && s->offset < end)
		e->weights.named |= 1u << (s->offset - first);
}

static void set_weights(struct lens_experiment *e, bool on)
{
	e->weights.fold_ln = e->weights.center_writing_weights = on;
	e->weights.center_unembed = e->weights.fold_value_biases = on;
	e->weights.refactor_factored_attn_matrices = false;
}

static bool set_word(struct lens_experiment *e, const struct lens_key_store *store,
		     const char *s)
{
	int word = lens_find_word(s, store->words);

	if (word == LENS_NOT_A_WORD)
		return false;
	if (store->kind == LENS_KEY_WEIGHTS) {
		set_weights(e, word == 0);
	} else if (store->kind == LENS_KEY_SWITCH) {
		*(bool *)lens_key_field(e, store) = word == 1;
	} else {
		unsigned value = (unsigned)word;

		/* An enum with no negative values has the size of an unsigned. */
		_Static_assert(sizeof(enum lens_cpu_choice) == sizeof(unsigned), "enum size");
		memcpy(lens_key_field(e, store), &value, sizeof(value));
	}
	return true;
}

static bool set_count(struct lens_experiment *e, const struct lens_key_store *store,
		      const char *s)
{
	size_t value = 0;

	if (lens_find_word(s, store->words) == LENS_NOT_A_WORD &&
	    !parse_size(s, store->kind == LENS_KEY_BYTES, &value))
		return false;
	*(size_t *)lens_key_field(e, store) = value;
	return true;
}

/* The kinds that are more than a word or a number. */
static enum lens_status (*const setters[])(struct lens_experiment *e,
					   const struct lens_yaml_source *src,
					   const struct lens_key *key, const yaml_node_t *node,
					   struct lens_error *err) = {
	[LENS_KEY_TEXT] = set_text,
	[LENS_KEY_PATH] = set_text,
	[LENS_KEY_BOS] = set_bos,
	[LENS_KEY_READ_POS] = lens_value_set_read_pos,
	[LENS_KEY_LIST] = lens_value_set_list,
	[LENS_KEY_HEADS] = lens_value_set_heads,
	[LENS_KEY_GRIDS] = lens_value_set_grids,
	[LENS_KEY_SETS] = lens_value_set_sets,
	[LENS_KEY_LAYERS] = lens_value_set_integers,
	[LENS_KEY_INTEGERS] = lens_value_set_integers,
	[LENS_KEY_REALS] = lens_value_set_reals,
	[LENS_KEY_PLACES] = lens_value_set_places,
	[LENS_KEY_TABLES] = lens_value_set_tables,
	[LENS_KEY_POSITIONS] = lens_value_set_positions,
	[LENS_KEY_WEIGHTS] = NULL, /* the last kind */
};

static bool set_layer(struct lens_experiment *e, const struct lens_key_store *store,
		      const char *s)
{
	long layer = -1;

	if (lens_find_word(s, store->words) == LENS_NOT_A_WORD &&
	    (!lens_parse_integer(s, &layer) || layer < 0))
		return false;
	*(long *)lens_key_field(e, store) = layer;
	return true;
}

static bool set_scalar(struct lens_experiment *e, const struct lens_key_store *store,
		       const char *s)
{
	switch (store->kind) {
	case LENS_KEY_BOOL:
		return parse_bool(s, lens_key_field(e, store));
	case LENS_KEY_INTEGER:
		return lens_parse_integer(s, lens_key_field(e, store));
	case LENS_KEY_LAYER:
		return set_layer(e, store, s);
	case LENS_KEY_COUNT:
	case LENS_KEY_BYTES:
		return set_count(e, store, s);
	default:
		return set_word(e, store, s);
	}
}

enum lens_status lens_value_set(struct lens_experiment *e, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *node,
				struct lens_error *err)
{
	const struct lens_key_store *store = lens_key_store(key);

	LENS_TRY(lens_yaml_plain(src, node, err));
	if (setters[store->kind])
		return setters[store->kind](e, src, key, node, err);
	if (!set_scalar(e, store, lens_yaml_text(node)))
		return lens_value_wrong(src, key, node, err);
	name_weights(e, store);
	return LENS_OK;
}
