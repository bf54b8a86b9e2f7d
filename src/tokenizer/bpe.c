/*
 * tokenizer/bpe.c: the merge loop. In: symbol ids; out: token ids. A heap of
 * candidate merges, ordered by rank and then position, over a linked list; entries that
 * a merge made stale are recognised when they are popped. Hugging Face merges in this
 * order, stale entries included.
 */
#include "tokenizer/bpe_private.h"

#define FREE_SLOT UINT32_MAX

static size_t hash(uint64_t key)
{
	/* The finaliser of splitmix64. */
	key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9u;
	key = (key ^ (key >> 27)) * 0x94d049bb133111ebu;
	return (size_t)(key ^ (key >> 31));
}

static uint64_t pair_key(int32_t left, int32_t right)
{
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

enum lens_status lens_bpe_init(struct lens_bpe *bpe, size_t n_merges, struct lens_error *err)
{
	size_t i, n_slots = 16;

	*bpe = (struct lens_bpe){ .cap_merges = n_merges };
	if (n_merges >= (size_t)1 << 26)
		return lens_error_set(err, LENS_ERR_FORMAT, "%zu merges are too many",
				      n_merges);
	while (n_slots < 2 * n_merges)
		n_slots *= 2;
	bpe->n_slots = n_slots;
	bpe->pair = lens_calloc(n_slots, sizeof(*bpe->pair));
	bpe->merged = lens_calloc(n_merges, sizeof(*bpe->merged));
	if (!bpe->pair || !bpe->merged) {
		lens_bpe_release(bpe);
		return lens_error_nomem(err, n_slots, sizeof(*bpe->pair));
	}
	for (i = 0; i < n_slots; i++)
		bpe->pair[i].rank = FREE_SLOT;
	return LENS_OK;
}

void lens_bpe_release(struct lens_bpe *bpe)
{
	lens_free(bpe->pair);
	lens_free(bpe->merged);
	*bpe = (struct lens_bpe){ 0 };
}

static struct lens_bpe_pair *find(const struct lens_bpe *bpe, uint64_t key)
{
	size_t i = hash(key) & (bpe->n_slots - 1);

	while (bpe->pair[i].rank != FREE_SLOT && bpe->pair[i].key != key)
		i = (i + 1) & (bpe->n_slots - 1);
	return &bpe->pair[i];
}

void lens_bpe_add(struct lens_bpe *bpe, int32_t left, int32_t right, int32_t merged)
{
	uint64_t key = pair_key(left, right);
	struct lens_bpe_pair *p;

	if (bpe->n_merges == bpe->cap_merges)
		return; /* never: the loaders count the merges first */
	p = find(bpe, key);
	p->key = key;
	p->rank = (uint32_t)bpe->n_merges;
	bpe->merged[bpe->n_merges++] = merged;
}

enum lens_status lens_bpe_reserve(struct lens_bpe_work *w, size_t n, struct lens_error *err)
{
	struct lens_bpe_symbol *symbol;
	size_t cap = w->cap ? w->cap : 64;
	uint64_t *heap;

	if (n > LENS_BPE_MAX_SYMBOLS)
		return lens_error_set(err, LENS_ERR_INVALID, "a text of %zu bytes is too long",
				      n);
	if (n <= w->cap)
		return LENS_OK;
	while (cap < n)
		cap *= 2;
	symbol = lens_realloc(w->symbol, cap, sizeof(*symbol));
	if (!symbol)
		return lens_error_nomem(err, cap, sizeof(*symbol));
	w->symbol = symbol;
	/*
	 * n - 1 pairs at first; each of at most n - 1 merges removes one entry and
	 * adds at most two.
	 */
	heap = lens_realloc(w->heap, 2 * cap, sizeof(*heap));
	if (!heap)
		return lens_error_nomem(err, 2 * cap, sizeof(*heap));
	w->heap = heap;
	w->cap = cap;
	return LENS_OK;
}

void lens_bpe_work_release(struct lens_bpe_work *w)
{
	lens_free(w->symbol);
	lens_free(w->heap);
	*w = (struct lens_bpe_work){ 0 };
}

static void heap_push(struct lens_bpe_work *w, uint64_t entry)
{
	size_t i = w->n_heap++;

	while (i && w->heap[(i - 1) / 2] > entry) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = entry;
}

static uint64_t heap_pop(struct lens_bpe_work *w)
{
	uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < w->n_heap) {
		if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child])
			child++;
		if (w->heap[child] >= last)
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return top;
}

/* Queues the merge of the symbol at pos with its right neighbour, if any. */
static void propose(const struct lens_bpe *bpe, struct lens_bpe_work *w, int32_t pos)
{
	const struct lens_bpe_symbol *s = w->symbol;
	uint32_t rank;

	if (pos < 0 || s[pos].next < 0)
		return;
	rank = find(bpe, pair_key(s[pos].id, s[s[pos].next].id))->rank;
	if (rank != FREE_SLOT)
		heap_push(w, (uint64_t)rank << 32 | (uint32_t)pos);
}

static void merge(const struct lens_bpe *bpe, struct lens_bpe_work *w, uint64_t entry)
{
	struct lens_bpe_symbol *s = w->symbol, *left = &s[(uint32_t)entry], *right;
	int32_t merged = bpe->merged[entry >> 32];
	uint32_t rank;

	if (left->id < 0 || left->next < 0)
		return;
	right = &s[left->next];
	rank = find(bpe, pair_key(left->id, right->id))->rank;
	if (rank == FREE_SLOT || bpe->merged[rank] != merged)
		return; /* stale: a neighbour has changed since */
	left->id = merged;
	left->next = right->next;
	right->id = -1;
	if (left->next >= 0)
		s[left->next].prev = (int32_t)(left - s);
	propose(bpe, w, left->prev);
	propose(bpe, w, (int32_t)(left - s));
}

enum lens_status lens_bpe_run(const struct lens_bpe *bpe, struct lens_bpe_work *w, size_t n,
			      struct lens_ids *ids, struct lens_error *err)
{
	int32_t i, last = (int32_t)n - 1;

	if (n == 0)
		return LENS_OK;
	w->n_heap = 0;
	for (i = 0; i <= last; i++) {
		w->symbol[i].prev = i - 1;
		w->symbol[i].next = i < last ? i + 1 : -1;
	}
	for (i = 0; i < last; i++)
		propose(bpe, w, i);
	while (w->n_heap)
		merge(bpe, w, heap_pop(w));
	for (i = 0; i >= 0; i = w->symbol[i].next)
		LENS_TRY(lens_ids_push(ids, w->symbol[i].id, err));
	return LENS_OK;
}
