/*
 * tokenizer/added_private.h: added and special tokens, which are taken out of a text
 * before anything else is done to it.
 */
#ifndef LENS_TOKENIZER_ADDED_PRIVATE_H
#define LENS_TOKENIZER_ADDED_PRIVATE_H

#include "tokenizer/normalizer_private.h"

struct lens_added_token {
	const char *content; /* as in the file; points to copy once it is in the list */
	size_t len;
	char *copy;
	char *match; /* what to search for: content, or its normal form */
	size_t match_len;
	int32_t id;
	bool single_word, lstrip, rstrip, normalized;
	bool made; /* a special token that is neither in the vocabulary nor an added token */
};

struct lens_added {
	struct lens_added_token *token; /* in the file's order */
	size_t n, cap;
	size_t *raw;        /* indices of those not normalised, sorted by match */
	size_t *normalized; /* and of the others */
	size_t n_raw, n_normalized;
	size_t *by_id;           /* all, sorted by id */
	struct lens_regex *word; /* matches a word character; only for single_word */
};

/* Part of a text: an added token (id >= 0) or text between two (id -1). */
struct lens_piece {
	int32_t id;
	size_t offset, len;
};

struct lens_pieces {
	struct lens_piece *v;
	size_t n, cap;
};

/* Makes room for n more tokens. */
enum lens_status lens_added_reserve(struct lens_added *a, size_t n, struct lens_error *err);
void lens_added_release(struct lens_added *a);
/* Takes t's flags and id; copies content. */
enum lens_status lens_added_push(struct lens_added *a, const struct lens_added_token *t,
				 struct lens_error *err);
/* To be called after the last push, with the tokenizer's normaliser. */
enum lens_status lens_added_finish(struct lens_added *a, const struct lens_normalizer *n,
				   struct lens_error *err);
/* The token with this content, or (once finished) this id; NULL if there is none. */
const struct lens_added_token *lens_added_find(const struct lens_added *a, const char *content,
					       size_t len);
const struct lens_added_token *lens_added_by_id(const struct lens_added *a, int32_t id);

/*
 * Splits the text at the normalised tokens, or at the others. pieces is emptied first.
 * m is needed for single_word only.
 */
enum lens_status lens_added_split(const struct lens_added *a, bool normalized,
				  struct lens_text text, struct lens_regex_match *m,
				  struct lens_pieces *pieces, struct lens_error *err);
void lens_pieces_release(struct lens_pieces *pieces);

#endif
