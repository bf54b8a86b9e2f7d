/*
 * experiment/value_private.h: one YAML value → one field.
 */
#ifndef LENS_EXPERIMENT_VALUE_PRIVATE_H
#define LENS_EXPERIMENT_VALUE_PRIVATE_H

#include "experiment/keys_private.h"

#include <yaml.h>

/* Where values come from. */
struct lens_yaml_source {
	yaml_document_t *doc;
	const char *file; /* NULL: text of a flag or of --set */
	const char *dir;  /* what relative paths are relative to; NULL: they stay as they are */
};

/* An error at a node. */
enum lens_status lens_yaml_error(const struct lens_yaml_source *src, const yaml_node_t *node,
				 struct lens_error *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Refuses YAML tags, and a NUL inside a scalar. */
enum lens_status lens_yaml_plain(const struct lens_yaml_source *src, const yaml_node_t *node,
				 struct lens_error *err);

/* The key of a pair of a mapping: a scalar that no earlier pair has. */
enum lens_status lens_yaml_check_key(const struct lens_yaml_source *src, const yaml_node_t *map,
				     const yaml_node_pair_t *pair, struct lens_error *err);

/* "key: expected <shape>, not <node>". */
enum lens_status lens_value_wrong(const struct lens_yaml_source *src,
				  const struct lens_key *key, const yaml_node_t *node,
				  struct lens_error *err);

/* A scalar's text; NULL for other nodes. */
const char *lens_yaml_text(const yaml_node_t *node);
bool lens_yaml_is_unquoted(const yaml_node_t *scalar);
/* Nothing, ~ or null, without quotes. */
bool lens_yaml_is_null(const yaml_node_t *node);

/* The index of s (may be NULL) in words (may be NULL), or LENS_NOT_A_WORD. */
enum { LENS_NOT_A_WORD = -1 };
int lens_find_word(const char *s, const char *const *words);
/* Decimal digits with an optional minus; within 32 bits. */
bool lens_parse_integer(const char *s, long *out);

/* Sets a key that is not a group; on an error the old value stays. */
enum lens_status lens_value_set(struct lens_experiment *e, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *node,
				struct lens_error *err);

/* The same for positions by number or by text (places.c). */
enum lens_status lens_value_set_places(struct lens_experiment *e,
				       const struct lens_yaml_source *src,
				       const struct lens_key *key, const yaml_node_t *node,
				       struct lens_error *err);
enum lens_status lens_value_set_read_pos(struct lens_experiment *e,
					 const struct lens_yaml_source *src,
					 const struct lens_key *key, const yaml_node_t *node,
					 struct lens_error *err);
/* Some of words, in their order: those that are chosen. */
enum lens_status lens_strings_choose(struct lens_strings *list, const char *const *words,
				     const bool *chosen, struct lens_error *err);
/* How many items a node has; a scalar is a list of one. */
size_t lens_yaml_count(const yaml_node_t *node);
/* One of them: a scalar that is not empty. */
enum lens_status lens_yaml_item(const struct lens_yaml_source *src, const struct lens_key *key,
				const yaml_node_t *node, size_t i, const yaml_node_t **item,
				struct lens_error *err);
/* Heads (heads.c): a list, which may not be empty, of "layer.head", each once. */
enum lens_status lens_yaml_heads(struct lens_strings *list, const struct lens_yaml_source *src,
				 const struct lens_key *key, const yaml_node_t *node,
				 struct lens_error *err);
enum lens_status lens_value_set_heads(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err);
enum lens_status lens_value_set_sets(struct lens_experiment *e,
				     const struct lens_yaml_source *src,
				     const struct lens_key *key, const yaml_node_t *node,
				     struct lens_error *err);
/* Grids (grids.c). */
enum lens_status lens_value_set_grids(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err);
/* The same for the other kinds that are lists (list.c). */
enum lens_status lens_yaml_list(struct lens_strings *list, const struct lens_yaml_source *src,
				const struct lens_key *key, const yaml_node_t *node,
				struct lens_error *err);
enum lens_status lens_value_set_integers(struct lens_experiment *e,
					 const struct lens_yaml_source *src,
					 const struct lens_key *key, const yaml_node_t *node,
					 struct lens_error *err);
/* Replaces *v, unless there is an error, by what the list says; v is a list of *n. */
enum lens_status lens_yaml_integers(long **v, size_t *n, const struct lens_yaml_source *src,
				    const struct lens_key *key, const yaml_node_t *node,
				    struct lens_error *err);
enum lens_status lens_value_set_reals(struct lens_experiment *e,
				      const struct lens_yaml_source *src,
				      const struct lens_key *key, const yaml_node_t *node,
				      struct lens_error *err);
enum lens_status lens_value_set_list(struct lens_experiment *e,
				     const struct lens_yaml_source *src,
				     const struct lens_key *key, const yaml_node_t *node,
				     struct lens_error *err);
enum lens_status lens_value_set_tables(struct lens_experiment *e,
				       const struct lens_yaml_source *src,
				       const struct lens_key *key, const yaml_node_t *node,
				       struct lens_error *err);
enum lens_status lens_value_set_positions(struct lens_experiment *e,
					  const struct lens_yaml_source *src,
					  const struct lens_key *key, const yaml_node_t *node,
					  struct lens_error *err);

#endif
