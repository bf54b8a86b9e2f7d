/*
 * tokenizer/vocab_private.h: token text <-> id, both ways in constant time.
 */
#ifndef LENS_TOKENIZER_VOCAB_PRIVATE_H
#define LENS_TOKENIZER_VOCAB_PRIVATE_H

#include "h5lens/core.h"

/* Ids at or above this are refused: the largest vocabulary known has 2^18. */
#define LENS_VOCAB_MAX_IDS ((size_t)1 << 22)

struct lens_vocab_token {
	size_t offset; /* into bytes */
	uint32_t len;
	bool present;
};

struct lens_vocab {
	char *bytes; /* the text of all tokens */
	size_t n_bytes, cap_bytes;
	struct lens_vocab_token *token; /* [n_ids] */
	size_t n_ids;                   /* largest id + 1 */
	size_t n_tokens, cap_tokens;
	size_t max_len; /* bytes of the longest token */
	int32_t *slot;  /* open addressing: an id or -1 */
	size_t n_slots; /* a power of two */
};

/* Makes room for n_tokens tokens of n_bytes bytes in total, with ids below n_ids. */
enum lens_status lens_vocab_init(struct lens_vocab *v, size_t n_tokens, size_t n_ids,
				 size_t n_bytes, struct lens_error *err);
void lens_vocab_release(struct lens_vocab *v);

/* LENS_ERR_FORMAT if the text or the id exists already. */
enum lens_status lens_vocab_add(struct lens_vocab *v, const char *s, size_t len, int32_t id,
				struct lens_error *err);
/* The id of s[0..len), or -1. */
int32_t lens_vocab_find(const struct lens_vocab *v, const char *s, size_t len);
/* The text of id, not NUL-terminated; NULL if id has no token. */
const char *lens_vocab_text(const struct lens_vocab *v, int32_t id, size_t *len);

#endif
