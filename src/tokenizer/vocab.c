/*
 * tokenizer/vocab.c: token text <-> id. In: (text, id) pairs, as many as lens_vocab_init
 * was told; out: lookups. The texts lie end to end in one allocation.
 */
#include "tokenizer/vocab_private.h"

#include <string.h>

static size_t hash(const char *s, size_t len)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a */
	size_t i;

	for (i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * 1099511628211u;
	return (size_t)(h ^ (h >> 29));
}

enum lens_status lens_vocab_init(struct lens_vocab *v, size_t n_tokens, size_t n_ids,
				 size_t n_bytes, struct lens_error *err)
{
	size_t i, n_slots = 16;

	*v = (struct lens_vocab){ .cap_bytes = n_bytes,
				  .n_ids = n_ids,
				  .cap_tokens = n_tokens };
	if (n_ids > LENS_VOCAB_MAX_IDS || n_tokens > LENS_VOCAB_MAX_IDS)
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "a vocabulary of more than %zu tokens",
				      LENS_VOCAB_MAX_IDS);
	while (n_slots < 2 * n_tokens)
		n_slots *= 2;
	v->n_slots = n_slots;
	v->bytes = lens_calloc(n_bytes, 1);
	v->token = lens_calloc(n_ids, sizeof(*v->token));
	v->slot = lens_calloc(n_slots, sizeof(*v->slot));
	if (!v->bytes || !v->token || !v->slot) {
		lens_vocab_release(v);
		return lens_error_nomem(err, n_slots, sizeof(*v->slot));
	}
	for (i = 0; i < n_slots; i++)
		v->slot[i] = -1;
	return LENS_OK;
}

void lens_vocab_release(struct lens_vocab *v)
{
	lens_free(v->bytes);
	lens_free(v->token);
	lens_free(v->slot);
	*v = (struct lens_vocab){ 0 };
}

/* The slot of s, or the free one that it would take. */
static size_t find_slot(const struct lens_vocab *v, const char *s, size_t len)
{
	size_t i = hash(s, len) & (v->n_slots - 1);

	for (; v->slot[i] >= 0; i = (i + 1) & (v->n_slots - 1)) {
		const struct lens_vocab_token *t = &v->token[v->slot[i]];

		if (t->len == len && !memcmp(v->bytes + t->offset, s, len))
			break;
	}
	return i;
}

enum lens_status lens_vocab_add(struct lens_vocab *v, const char *s, size_t len, int32_t id,
				struct lens_error *err)
{
	struct lens_vocab_token *t;
	size_t slot;

	if (id < 0 || (size_t)id >= v->n_ids || v->n_tokens == v->cap_tokens ||
	    len > v->cap_bytes - v->n_bytes)
		return lens_error_set(err, LENS_ERR_INTERNAL,
				      "token id %d is outside the vocabulary's table", (int)id);
	t = &v->token[id];
	if (t->present)
		return lens_error_set(err, LENS_ERR_FORMAT, "two tokens have the id %d",
				      (int)id);
	slot = find_slot(v, s, len);
	if (v->slot[slot] >= 0)
		return lens_error_set(err, LENS_ERR_FORMAT, "ids %d and %d are the same token",
				      (int)v->slot[slot], (int)id);
	*t = (struct lens_vocab_token){ v->n_bytes, (uint32_t)len, true };
	memcpy(v->bytes + v->n_bytes, s, len);
	v->n_bytes += len;
	v->n_tokens++;
	v->slot[slot] = id;
	v->max_len = lens_max(v->max_len, len);
	return LENS_OK;
}

int32_t lens_vocab_find(const struct lens_vocab *v, const char *s, size_t len)
{
	return v->n_slots ? v->slot[find_slot(v, s, len)] : -1;
}

const char *lens_vocab_text(const struct lens_vocab *v, int32_t id, size_t *len)
{
	if (id < 0 || (size_t)id >= v->n_ids || !v->token[id].present)
		return NULL;
	*len = v->token[id].len;
	return v->bytes + v->token[id].offset;
}
