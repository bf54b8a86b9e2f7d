/*
 * tokenizer/added.c: added tokens. In: a text; out: its pieces. From left to right, the
 * longest token at each place is taken. Flags work as in Hugging Face's
 * AddedVocabulary: a match that single_word rejects is skipped as a whole, and a later
 * match may start within the spaces that rstrip took.
 */
#include "tokenizer/added_private.h"

#include <stdlib.h>
#include <string.h>

static enum lens_status more(void **list, size_t n, size_t size, struct lens_error *err)
{
	void *p = lens_realloc(*list, n, size);

	if (!p)
		return lens_error_nomem(err, n, size);
	*list = p;
	return LENS_OK;
}

enum lens_status lens_added_reserve(struct lens_added *a, size_t n, struct lens_error *err)
{
	size_t cap;

	if (!lens_size_add(a->n, n, &cap))
		return lens_error_nomem(err, n, sizeof(*a->token));
	LENS_TRY(more((void **)&a->token, cap, sizeof(*a->token), err));
	LENS_TRY(more((void **)&a->raw, cap, sizeof(*a->raw), err));
	LENS_TRY(more((void **)&a->normalized, cap, sizeof(*a->normalized), err));
	LENS_TRY(more((void **)&a->by_id, cap, sizeof(*a->by_id), err));
	a->cap = cap;
	return LENS_OK;
}

void lens_added_release(struct lens_added *a)
{
	size_t i;

	for (i = 0; i < a->n; i++) {
		lens_free(a->token[i].copy);
		lens_free(a->token[i].match);
	}
	lens_free(a->token);
	lens_free(a->raw);
	lens_free(a->normalized);
	lens_free(a->by_id);
	lens_regex_destroy(a->word);
	*a = (struct lens_added){ 0 };
}

enum lens_status lens_added_push(struct lens_added *a, const struct lens_added_token *t,
				 struct lens_error *err)
{
	struct lens_added_token *mine = &a->token[a->n];

	if (a->n >= a->cap)
		return lens_error_set(err, LENS_ERR_INTERNAL, "too many added tokens");
	if (t->len == 0)
		return lens_error_set(err, LENS_ERR_FORMAT, "an added token is empty");
	*mine = *t;
	mine->match = NULL;
	mine->copy = lens_calloc(t->len + 1, 1);
	if (!mine->copy)
		return lens_error_nomem(err, t->len + 1, 1);
	memcpy(mine->copy, t->content, t->len);
	mine->content = mine->copy;
	a->n++;
	return LENS_OK;
}

static int compare_match(const void *pa, const void *pb, void *data)
{
	const struct lens_added_token *token = data;
	const struct lens_added_token *a = &token[*(const size_t *)pa];
	const struct lens_added_token *b = &token[*(const size_t *)pb];

	return lens_bytes_compare(a->match, a->match_len, b->match, b->match_len);
}

static enum lens_status sort_set(struct lens_added *a, size_t *set, size_t n,
				 struct lens_error *err)
{
	size_t i;

	qsort_r(set, n, sizeof(*set), compare_match, a->token);
	for (i = 1; i < n; i++) {
		if (!compare_match(&set[i - 1], &set[i], a->token))
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "the added token \"%s\" appears twice",
					      a->token[set[i]].content);
	}
	return LENS_OK;
}

static int compare_id(const void *pa, const void *pb, void *data)
{
	const struct lens_added_token *token = data;
	int32_t a = token[*(const size_t *)pa].id, b = token[*(const size_t *)pb].id;

	return (a > b) - (a < b);
}

/* A normalised token is searched for in its normal form, prefixes included. */
static enum lens_status set_match(struct lens_added_token *t, const struct lens_normalizer *n,
				  struct lens_normal_work *w, struct lens_error *err)
{
	struct lens_text text = { t->content, t->len, NULL };
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	if (t->normalized)
		LENS_TRY(lens_normalize(n, w, false, &text, err));
	if (!text.len)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      "the added token \"%s\" normalises to nothing, which is "
				      "not supported",
				      t->content);
	st = lens_buf_append(&b, text.s, text.len, err);
	t->match = b.data; /* ours now, even after a failure */
	t->match_len = b.len;
	return st;
}

static enum lens_status set_matches(struct lens_added *a, const struct lens_normalizer *n,
				    struct lens_error *err)
{
	struct lens_normal_work w = { .match = NULL };
	enum lens_status st = lens_regex_match_create(&w.match, err);
	size_t i;

	for (i = 0; st == LENS_OK && i < a->n; i++)
		st = set_match(&a->token[i], n, &w, err);
	lens_regex_match_destroy(w.match);
	lens_normal_work_release(&w);
	return st;
}

enum lens_status lens_added_finish(struct lens_added *a, const struct lens_normalizer *n,
				   struct lens_error *err)
{
	/* Rust's \w, which defines a single word. */
	static const char word[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
	size_t i;

	LENS_TRY(set_matches(a, n, err));
	for (i = 0; i < a->n; i++) {
		struct lens_added_token *t = &a->token[i];

		a->by_id[i] = i;
		if (t->normalized)
			a->normalized[a->n_normalized++] = i;
		else
			a->raw[a->n_raw++] = i;
		if (t->single_word && !a->word)
			LENS_TRY(lens_regex_compile(word, sizeof(word) - 1, &a->word, err));
	}
	qsort_r(a->by_id, a->n, sizeof(*a->by_id), compare_id, a->token);
	LENS_TRY(sort_set(a, a->raw, a->n_raw, err));
	return sort_set(a, a->normalized, a->n_normalized, err);
}

const struct lens_added_token *lens_added_find(const struct lens_added *a, const char *content,
					       size_t len)
{
	size_t i;

	for (i = 0; i < a->n; i++) {
		if (a->token[i].len == len && !memcmp(a->token[i].content, content, len))
			return &a->token[i];
	}
	return NULL;
}

const struct lens_added_token *lens_added_by_id(const struct lens_added *a, int32_t id)
{
	size_t lo = 0, hi = a->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct lens_added_token *t = &a->token[a->by_id[mid]];

		if (t->id == id)
			return t;
		if (t->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* The first of the sorted set[lo..hi) whose byte at depth is >= c; hi if none is. */
static size_t lower_bound(const struct lens_added *a, const size_t *set, size_t lo, size_t hi,
			  size_t depth, unsigned c)
{
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct lens_added_token *t = &a->token[set[mid]];

		if (t->match_len <= depth || (unsigned char)t->match[depth] < c)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The longest token of the set that the text has at offset `at`, or NULL. */
static const struct lens_added_token *longest(const struct lens_added *a, bool normalized,
					      struct lens_text text, size_t at)
{
	const size_t *set = normalized ? a->normalized : a->raw;
	const struct lens_added_token *best = NULL;
	size_t lo = 0, hi = normalized ? a->n_normalized : a->n_raw, depth;

	for (depth = 0; depth < text.len - at; depth++) {
		unsigned c = (unsigned char)text.s[at + depth];

		lo = lower_bound(a, set, lo, hi, depth, c);
		hi = lower_bound(a, set, lo, hi, depth, c + 1);
		if (lo == hi)
			break;
		if (a->token[set[lo]].match_len == depth + 1)
			best = &a->token[set[lo]];
	}
	return best;
}

/* An occurrence of a token in a text. */
struct place {
	const struct lens_added_token *token;
	size_t start, end; /* of its bytes, later with the spaces that it takes */
};

/* Is there a word character right before or right after the token? */
static enum lens_status inside_word(const struct lens_added *a, struct lens_regex_match *m,
				    struct lens_text text, const struct place *p, bool *inside,
				    struct lens_error *err)
{
	struct lens_hit hit = { .found = false };
	struct lens_text part = { text.s, p->start, NULL };

	if (p->start)
		LENS_TRY(lens_regex_next(a->word, m, part, lens_char_before(text.s, p->start),
					 &hit, err));
	if (!hit.found && p->end < text.len) {
		part.len = p->end + 1;
		while (part.len < text.len && ((unsigned char)text.s[part.len] & 0xc0) == 0x80)
			part.len++;
		LENS_TRY(lens_regex_next(a->word, m, part, p->end, &hit, err));
	}
	*inside = hit.found;
	return LENS_OK;
}

static enum lens_status push_piece(struct lens_pieces *p, int32_t id, size_t from, size_t to,
				   struct lens_error *err)
{
	struct lens_piece *v = lens_grow(p->v, p->n, &p->cap, sizeof(*v), err);

	if (!v)
		return LENS_ERR_NOMEM;
	p->v = v;
	p->v[p->n++] = (struct lens_piece){ id, from, to - from };
	return LENS_OK;
}

/* Extends p by the spaces that its token's flags take, but not to before `done`. */
static void take_spaces(struct lens_text text, size_t done, struct place *p)
{
	if (p->token->lstrip)
		p->start = lens_max(lens_spaces_before(text.s, p->start), done);
	if (p->token->rstrip)
		p->end = lens_spaces_after(text.s, text.len, p->end);
}

/* Adds the text from *done to the token, then the token; *done moves past it. */
static enum lens_status push_place(struct lens_pieces *pieces, const struct place *p,
				   size_t *done, struct lens_error *err)
{
	if (*done < p->start)
		LENS_TRY(push_piece(pieces, -1, *done, p->start, err));
	/* An earlier token's rstrip has taken this one; Hugging Face panics. */
	if (p->start > p->end)
		return lens_error_set(err, LENS_ERR_UNSUPPORTED,
				      "the added token \"%s\" lies within the spaces that "
				      "another one takes",
				      p->token->content);
	/* All of it was taken by an earlier token's rstrip: it is dropped. */
	if (p->start < p->end)
		LENS_TRY(push_piece(pieces, p->token->id, p->start, p->end, err));
	*done = p->end;
	return LENS_OK;
}

enum lens_status lens_added_split(const struct lens_added *a, bool normalized,
				  struct lens_text text, struct lens_regex_match *m,
				  struct lens_pieces *pieces, struct lens_error *err)
{
	bool any = normalized ? a->n_normalized : a->n_raw;
	size_t done = 0, at = any ? 0 : text.len;

	pieces->n = 0;
	while (at < text.len) {
		struct place p = { longest(a, normalized, text, at), at, at };
		bool inside = false;

		if (!p.token) {
			at++;
			continue;
		}
		at = p.end = at + p.token->match_len;
		if (p.token->single_word)
			LENS_TRY(inside_word(a, m, text, &p, &inside, err));
		if (inside)
			continue;
		take_spaces(text, done, &p);
		LENS_TRY(push_place(pieces, &p, &done, err));
	}
	return done < text.len ? push_piece(pieces, -1, done, text.len, err) : LENS_OK;
}

void lens_pieces_release(struct lens_pieces *pieces)
{
	lens_free(pieces->v);
	*pieces = (struct lens_pieces){ NULL, 0, 0 };
}
