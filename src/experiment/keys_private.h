/*
 * experiment/keys_private.h: the private side of the key table: how a key is stored.
 */
#ifndef LENS_EXPERIMENT_KEYS_PRIVATE_H
#define LENS_EXPERIMENT_KEYS_PRIVATE_H

#include "h5lens/experiment.h"

enum lens_key_kind {
	LENS_KEY_TEXT,      /* char *; words[0], if any, is NULL */
	LENS_KEY_PATH,      /* char *, relative to the file that names it */
	LENS_KEY_BOOL,      /* bool */
	LENS_KEY_SWITCH,    /* bool: false is words[0], true is words[1] */
	LENS_KEY_CHOICE,    /* an enum: the index into words */
	LENS_KEY_INTEGER,   /* long */
	LENS_KEY_LAYER,     /* long from 0; -1 stands for words[0] */
	LENS_KEY_COUNT,     /* size_t from 1; 0 stands for words[0] */
	LENS_KEY_BYTES,     /* the same, with a unit: "4GiB" */
	LENS_KEY_LIST,      /* struct lens_strings; words[0], if any, is the empty list */
	LENS_KEY_HEADS,     /* the same, each "layer.head" */
	LENS_KEY_GRIDS,     /* struct lens_strings: some of words, in their order */
	LENS_KEY_SETS,      /* struct lens_named_list *, then size_t: a map of lists of heads */
	LENS_KEY_LAYERS,    /* long *, then size_t: how many; none stands for words[0] */
	LENS_KEY_INTEGERS,  /* the same, and they may be negative */
	LENS_KEY_REALS,     /* double *, then size_t: how many, at least one */
	LENS_KEY_PLACES,    /* struct lens_places; none stands for words[0] */
	LENS_KEY_TABLES,    /* tables */
	LENS_KEY_POSITIONS, /* cache.positions */
	LENS_KEY_READ_POS,  /* data.read_pos */
	LENS_KEY_BOS,       /* char *: "auto", digits, or a token in double quotes */
	LENS_KEY_WEIGHTS    /* sets all of weights.*; stores nothing itself */
};

struct lens_key_store {
	enum lens_key_kind kind;
	size_t offset;            /* in struct lens_experiment */
	const char *const *words; /* NULL-terminated, or NULL */
	/*
	 * Does it change what is in the output? LENS_KEY_IF_SET, of a CHOICE: if it is not its
	 * first word; else it is left out, so that identities are those of versions without it.
	 */
	int identity;
};
enum { LENS_KEY_IF_SET = 2 };

/* The store that belongs to a row of lens_keys. */
const struct lens_key_store *lens_key_store(const struct lens_key *key);
/* The key with that full name, or NULL. */
const struct lens_key *lens_key_find(const char *name);
/* Is name the first part of a key's name ("data")? */
bool lens_key_is_group(const char *name);
/* The known key nearest to an unknown one, or NULL. */
const char *lens_key_nearest(const char *name);

static inline void *lens_key_field(struct lens_experiment *e, const struct lens_key_store *s)
{
	return (char *)e + s->offset;
}

static inline const void *lens_key_cfield(const struct lens_experiment *e,
					  const struct lens_key_store *s)
{
	return (const char *)e + s->offset;
}

/* The size_t behind a pointer, for the kinds that have one. */
static inline size_t *lens_key_count(struct lens_experiment *e, const struct lens_key_store *s)
{
	return (size_t *)((char *)lens_key_field(e, s) + sizeof(void *));
}

static inline size_t lens_key_ccount(const struct lens_experiment *e,
				     const struct lens_key_store *s)
{
	return *(const size_t *)((const char *)lens_key_cfield(e, s) + sizeof(void *));
}

/* What patch.grids may list, in the order of grids.def, and the short words for several. */
enum lens_grid_word {
#define LENS_GRID(id, ...) LENS_GRID_WORD_##id,
#include "h5lens/grids.def"
	LENS_GRID_WORDS
};
extern const char *const lens_grid_words[LENS_GRID_WORDS + 1]; /* ends with NULL */

/* What `tables` may list, in the order of tables.def. */
enum lens_table_word {
#define LENS_TABLE(id, ...) LENS_TABLE_WORD_##id,
#define LENS_TABLE_GROUP LENS_TABLE
#include "h5lens/tables.def"
	LENS_TABLE_WORDS
};
extern const char *const lens_table_words[LENS_TABLE_WORDS + 1]; /* ends with NULL */
/* What of answers of several tokens (tables.def). */
enum lens_table_any { LENS_ANY_no, LENS_ANY_yes, LENS_ANY_added, LENS_ANY_only };
struct lens_table_rule {
	size_t answers; /* that it needs at the least */
	bool by_default;
	enum lens_table_any any;
};
extern const struct lens_table_rule lens_table_rules[LENS_TABLE_WORDS];

void lens_strings_release(struct lens_strings *s);
void lens_places_release(struct lens_places *l);
/* sets may be NULL. */
void lens_sets_release(struct lens_named_list *sets, size_t n);

/* Have both the same value for a key? (json.c) */
enum lens_status lens_key_equal(const struct lens_experiment *a,
				const struct lens_experiment *b, const struct lens_key *key,
				bool *equal, struct lens_error *err);
/* Do patch.*, ablate.* and what they need of data.* fit together? (interventions.c) */
enum lens_status lens_experiment_check_interventions(const struct lens_experiment *e,
						     struct lens_error *err);

#endif
