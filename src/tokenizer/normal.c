/*
 * tokenizer/normal.c: Unicode's normal forms. In: UTF-8; out: UTF-8. utf8proc provides
 * decompositions, combining classes and compositions of pairs; the algorithm is ours,
 * because Hugging Face's data is older than utf8proc's, and because utf8proc takes
 * quadratic time to reorder long runs of marks.
 */
#include "tokenizer/normal_private.h"

#include <string.h>
#include <utf8proc.h>

/* No decomposition is longer (U+FDFA has 18). */
#define MAX_DECOMPOSITION 18

/* A character, and the bytes of the text that it comes from. */
struct character {
	int32_t cp;
	struct lens_origin part;
};

struct chars {
	struct character *v;
	size_t n, cap;
};

static enum lens_status reserve(struct chars *c, size_t extra, struct lens_error *err)
{
	size_t cap = c->cap ? c->cap : 256;
	struct character *v;

	if (c->n + extra <= c->cap)
		return LENS_OK;
	while (cap < c->n + extra)
		cap *= 2;
	v = lens_realloc(c->v, cap, sizeof(*v));
	if (!v)
		return lens_error_nomem(err, cap, sizeof(*v));
	c->v = v;
	c->cap = cap;
	return LENS_OK;
}

/*
 * Hugging Face normalises by the data of Unicode 9. It leaves alone characters that came
 * later and combine, decompose or result from composition, and so do we. The ranges for
 * Unicode 10 to 14 were measured against it; those for 15 and 16 were not (utf8proc here
 * knows no characters after 14).
 */
struct range {
	int32_t first, last;
};

static const struct range newer[] = {
	{ 0x07fd, 0x07fd },   { 0x0897, 0x089f },   { 0x08ca, 0x08d3 },   { 0x09fe, 0x09fe },
	{ 0x0c3c, 0x0c3c },   { 0x0d3b, 0x0d3c },   { 0x0eba, 0x0eba },   { 0x0ece, 0x0ece },
	{ 0x1715, 0x1715 },   { 0x1abf, 0x1ace },   { 0x1df6, 0x1dfa },   { 0xa82c, 0xa82c },
	{ 0x105c9, 0x105c9 }, { 0x105e4, 0x105e4 }, { 0x10d24, 0x10d27 }, { 0x10d69, 0x10d6d },
	{ 0x10eab, 0x10eac }, { 0x10efd, 0x10eff }, { 0x10f46, 0x10f50 }, { 0x10f82, 0x10f85 },
	{ 0x11070, 0x11070 }, { 0x1133b, 0x1133b }, { 0x11383, 0x113e2 }, { 0x1145e, 0x1145e },
	{ 0x11839, 0x1183a }, { 0x11938, 0x1193e }, { 0x11943, 0x11943 }, { 0x119e0, 0x119e0 },
	{ 0x11a34, 0x11a34 }, { 0x11a47, 0x11a47 }, { 0x11a99, 0x11a99 }, { 0x11d42, 0x11d45 },
	{ 0x11d97, 0x11d97 }, { 0x11f41, 0x11f42 }, { 0x16121, 0x1612f }, { 0x16d67, 0x16d6a },
	{ 0x16ff0, 0x16ff1 }, { 0x1e08f, 0x1e08f }, { 0x1e130, 0x1e136 }, { 0x1e2ae, 0x1e2ae },
	{ 0x1e2ec, 0x1e2ef }, { 0x1e4ec, 0x1e4ef }, { 0x1e5ee, 0x1e5ef },
};

/* Later characters that decompose in the compatibility forms only. */
static const struct range newer_compat[] = {
	{ 0x32ff, 0x32ff },   { 0xa7f1, 0xa7f4 },   { 0xab69, 0xab69 },   { 0x10781, 0x10785 },
	{ 0x10787, 0x107b0 }, { 0x107b2, 0x107ba }, { 0x1ccd6, 0x1ccf9 }, { 0x1e030, 0x1e06d },
	{ 0x1f16c, 0x1f16c }, { 0x1fbf0, 0x1fbf9 },
};

static bool in_ranges(const struct range *r, size_t n, int32_t cp)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r[mid].last < cp)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && r[lo].first <= cp;
}

static bool is_newer(int32_t cp)
{
	return in_ranges(newer, sizeof(newer) / sizeof(*newer), cp);
}

static bool is_newer_compat(int32_t cp)
{
	return in_ranges(newer_compat, sizeof(newer_compat) / sizeof(*newer_compat), cp);
}

/* Appends what one character becomes. */
static enum lens_status decompose_one(int32_t cp, struct lens_origin part, bool compat,
				      struct chars *c, struct lens_error *err)
{
	int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0);
	int32_t v[MAX_DECOMPOSITION] = { cp };
	utf8proc_ssize_t i, n = 1;
	int boundary = 0;

	LENS_TRY(reserve(c, MAX_DECOMPOSITION, err));
	if (!is_newer(cp) && !(compat && is_newer_compat(cp)))
		n = utf8proc_decompose_char(cp, v, MAX_DECOMPOSITION,
					    (utf8proc_option_t)options, &boundary);
	if (n < 0 || n > MAX_DECOMPOSITION)
		return lens_error_set(err, LENS_ERR_INTERNAL, "utf8proc failed");
	for (i = 0; i < n; i++)
		c->v[c->n++] = (struct character){ v[i], part };
	return LENS_OK;
}

static enum lens_status decompose(struct lens_text text, bool compat, struct chars *c,
				  struct lens_error *err)
{
	size_t i = 0, end;

	for (; i < text.len; i = end) {
		utf8proc_ssize_t n;
		int32_t cp;

		n = utf8proc_iterate((const utf8proc_uint8_t *)text.s + i,
				     (utf8proc_ssize_t)(text.len - i), &cp);
		if (n <= 0)
			return lens_error_set(err, LENS_ERR_FORMAT, "invalid UTF-8");
		end = i + (size_t)n;
		LENS_TRY(decompose_one(cp, (struct lens_origin){ (uint32_t)i, (uint32_t)end },
				       compat, c, err));
	}
	return LENS_OK;
}

static int combining_class(int32_t cp)
{
	int ccc = cp < 0x300 ? 0 : utf8proc_get_property(cp)->combining_class & 0xff;

	return ccc && is_newer(cp) ? 0 : ccc;
}

/* Sorts v[0..n) by combining class; equal ones keep their order. */
static void counting_sort(struct character *v, struct character *spare, size_t n)
{
	size_t start[257] = { 0 }, i;

	for (i = 0; i < n; i++)
		start[combining_class(v[i].cp) + 1]++;
	for (i = 0; i < 256; i++)
		start[i + 1] += start[i];
	for (i = 0; i < n; i++)
		spare[start[combining_class(v[i].cp)]++] = v[i];
	memcpy(v, spare, n * sizeof(*v));
}

static enum lens_status reorder(struct chars *c, struct lens_error *err)
{
	size_t i = 0, j;
	struct character *spare;
	bool sorted;

	spare = lens_calloc(c->n, sizeof(*spare));
	if (!spare)
		return lens_error_nomem(err, c->n, sizeof(*spare));
	for (; i < c->n; i = j) {
		sorted = true;
		for (j = i + 1; j < c->n && combining_class(c->v[j].cp); j++)
			sorted = sorted &&
				 combining_class(c->v[j - 1].cp) <= combining_class(c->v[j].cp);
		if (!sorted) {
			/* The first may be a starter, which stays where it is. */
			size_t from = combining_class(c->v[i].cp) ? i : i + 1;

			counting_sort(c->v + from, spare, j - from);
		}
	}
	lens_free(spare);
	return LENS_OK;
}

/* The composition of two characters, or -1. */
static int32_t pair(int32_t a, int32_t b)
{
	int32_t v[2] = { a, b };

	if (b < 0x300 ||
	    utf8proc_normalize_utf32(v, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1)
		return -1;
	return is_newer(v[0]) ? -1 : v[0];
}

/* The starter becomes cp, and comes from what joins it too. */
static void join(struct character *starter, const struct character *with, int32_t cp)
{
	starter->cp = cp;
	if (with->part.from < starter->part.from)
		starter->part.from = with->part.from;
	if (with->part.to > starter->part.to)
		starter->part.to = with->part.to;
}

/*
 * Unicode 14, section 3.11, D117: each character joins the last starter if it can and
 * nothing of its class or higher is in between. In place.
 */
static void compose(struct chars *c)
{
	size_t i, n = 0, starter = SIZE_MAX;
	int before = 0; /* the class of the last character kept after the starter */

	for (i = 0; i < c->n; i++) {
		int ccc = combining_class(c->v[i].cp);
		bool adjacent = starter != SIZE_MAX && starter + 1 == n;
		int32_t joined = -1;

		if (starter != SIZE_MAX && (adjacent || before < ccc))
			joined = pair(c->v[starter].cp, c->v[i].cp);
		if (joined >= 0) {
			join(&c->v[starter], &c->v[i], joined);
			continue;
		}
		if (ccc == 0)
			starter = n;
		before = ccc;
		c->v[n++] = c->v[i];
	}
	c->n = n;
}

static enum lens_status write_utf8(const struct chars *c, struct lens_text text,
				   struct lens_buf *out, struct lens_origins *from,
				   struct lens_error *err)
{
	size_t i;

	for (i = 0; i < c->n; i++) {
		utf8proc_uint8_t utf8[4];
		utf8proc_ssize_t n = utf8proc_encode_char(c->v[i].cp, utf8);

		LENS_TRY(lens_buf_append(out, utf8, (size_t)n, err));
		LENS_TRY(lens_origins_replace(from, text, &c->v[i].part, (size_t)n, err));
	}
	return LENS_OK;
}

enum lens_status lens_normal_form(enum lens_normal_form form, struct lens_text text,
				  struct lens_buf *out, struct lens_origins *from,
				  struct lens_error *err)
{
	bool compat = form == LENS_NFKC || form == LENS_NFKD;
	/*
	 * Characters below U+0300 are their own NFC form and do not combine with
	 * each other; in the other forms this is true for ASCII.
	 */
	unsigned char inert = form == LENS_NFC ? 0xcc : 0x80;
	struct chars c = { NULL, 0, 0 };
	enum lens_status st;
	size_t i;

	for (i = 0; i < text.len && (unsigned char)text.s[i] < inert; i++)
		;
	if (i == text.len) {
		LENS_TRY(lens_origins_keep(from, text, 0, text.len, err));
		return lens_buf_append(out, text.s, text.len, err);
	}
	st = decompose(text, compat, &c, err);
	if (st == LENS_OK)
		st = reorder(&c, err);
	if (st == LENS_OK) {
		if (form == LENS_NFC || form == LENS_NFKC)
			compose(&c);
		st = write_utf8(&c, text, out, from, err);
	}
	lens_free(c.v);
	return st;
}
