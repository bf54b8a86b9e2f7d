/*
 * tokenizer/bpe_private.h: byte-pair encoding: merges a run of symbols pair by pair,
 * the pair of lowest rank first. It knows ids only, not texts.
 */
#ifndef LENS_TOKENIZER_BPE_PRIVATE_H
#define LENS_TOKENIZER_BPE_PRIVATE_H

#include "h5lens/core.h"

struct lens_bpe_pair {
	uint64_t key;  /* left id << 32 | right id */
	uint32_t rank; /* UINT32_MAX: a free slot */
};

struct lens_bpe {
	struct lens_bpe_pair *pair; /* open addressing */
	size_t n_slots;             /* a power of two */
	int32_t *merged;            /* [n_merges]: the result of the merge of each rank */
	size_t n_merges, cap_merges;
};

/* Makes room for n_merges merges. */
enum lens_status lens_bpe_init(struct lens_bpe *bpe, size_t n_merges, struct lens_error *err);
void lens_bpe_release(struct lens_bpe *bpe);
/*
 * Adds the next merge in order of rank: left, right -> merged. A pair that has been
 * added before takes the new rank, as in Hugging Face.
 */
void lens_bpe_add(struct lens_bpe *bpe, int32_t left, int32_t right, int32_t merged);

/* A doubly linked list within an array; id -1: merged into its left neighbour. */
struct lens_bpe_symbol {
	int32_t id, prev, next;
};

/* Reused from word to word by one thread. */
struct lens_bpe_work {
	struct lens_bpe_symbol *symbol;
	uint64_t *heap; /* rank << 32 | position */
	size_t cap, n_heap;
};
#define LENS_BPE_MAX_SYMBOLS ((size_t)1 << 30)

/* Makes room for n symbols; the caller then sets symbol[i].id. */
enum lens_status lens_bpe_reserve(struct lens_bpe_work *w, size_t n, struct lens_error *err);
void lens_bpe_work_release(struct lens_bpe_work *w);
/* Merges symbol[0..n) in O(n log n) and appends what remains to ids. */
enum lens_status lens_bpe_run(const struct lens_bpe *bpe, struct lens_bpe_work *w, size_t n,
			      struct lens_ids *ids, struct lens_error *err);

#endif
