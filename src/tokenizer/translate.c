/*
 * tokenizer/translate.c: Oniguruma's syntax -> PCRE2's. In: a pattern from
 * tokenizer.json; out: one that matches the same text in PCRE2 with UTF and UCP. The two
 * agree on most of what tokenizers use; they disagree on \s (PCRE2 includes U+180E), \w,
 * \h, \v, ^ and $, nested classes, interval quantifiers with a suffix, and inline
 * options; those are rewritten or refused. A small set of constructs is accepted;
 * everything else is an error.
 */
#include "tokenizer/regex_private.h"

#include <string.h>
#include <utf8proc.h>

#define MAX_DEPTH 64

/* Unicode's White_Space, which is Oniguruma's \s. */
#define WHITE_SPACE                                                                            \
	"\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"         \
	"\\x{202f}\\x{205f}\\x{3000}"

struct translation {
	const char *pattern, *p, *end;
	struct lens_buf *out;
	struct lens_error *err;
	bool caseless[MAX_DEPTH]; /* of each open group */
	int depth;
	bool quantifiable; /* may a quantifier follow? */
	int32_t literal;   /* the literal just before, in a caseless group, or 0 */
};

static enum lens_status refuse(struct translation *t, const char *what)
{
	size_t len = (size_t)(t->end - t->pattern);

	return lens_error_set(t->err, LENS_ERR_UNSUPPORTED,
			      "the pattern %.*s uses %s (at byte %zu), which is not supported",
			      (int)lens_min(len, 300), t->pattern, what,
			      (size_t)(t->p - t->pattern));
}

static enum lens_status put(struct translation *t, const char *s)
{
	return lens_buf_append(t->out, s, strlen(s), t->err);
}

static bool at(const struct translation *t, const char *s)
{
	size_t n = strlen(s);

	return (size_t)(t->end - t->p) >= n && !memcmp(t->p, s, n);
}

static enum lens_status put_code_point(struct lens_buf *out, int32_t c, struct lens_error *err)
{
	bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

	return plain ? lens_buf_printf(out, err, "%c", (int)c)
		     : lens_buf_printf(out, err, "\\x{%x}", (unsigned)c);
}

static enum lens_status next_char(struct translation *t, int32_t *c)
{
	utf8proc_ssize_t n;

	if (t->p == t->end)
		return refuse(t, "an unfinished construct");
	n = utf8proc_iterate((const utf8proc_uint8_t *)t->p, t->end - t->p, c);
	if (n <= 0)
		return refuse(t, "invalid UTF-8");
	t->p += n;
	return LENS_OK;
}

/* The general categories that both engines know by these names. */
static const char *const categories[] = {
	"C",  "Cc", "Cf", "Co", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc",
	"Me", "Mn", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi",
	"Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs",
};

/* \p{Name}, \P{Name}, \p{^Name}; t->p is just after the p. */
static enum lens_status property(struct translation *t, bool negated)
{
	const char *close = memchr(t->p, '}', (size_t)(t->end - t->p)), *name;
	size_t i, n;

	if (!at(t, "{") || !close)
		return refuse(t, "a malformed \\p");
	name = t->p + 1;
	if (name < close && *name == '^') {
		negated = !negated;
		name++;
	}
	n = (size_t)(close - name);
	for (i = 0; i < sizeof(categories) / sizeof(*categories); i++) {
		if (strlen(categories[i]) == n && !memcmp(categories[i], name, n))
			break;
	}
	if (i == sizeof(categories) / sizeof(*categories))
		return refuse(t, "a \\p property other than a general category");
	if (t->caseless[t->depth])
		return refuse(t, "a \\p property under (?i:");
	t->p = close + 1;
	return lens_buf_printf(t->out, t->err, "\\%c{%s}", negated ? 'P' : 'p', categories[i]);
}

static bool punctuation(int32_t c)
{
	return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
	       !(c >= 'a' && c <= 'z');
}

/*
 * An escape; t->p is after the backslash. A character is returned in *literal; a class
 * is written to out, and *literal is -1.
 */
static enum lens_status escape(struct translation *t, bool in_class, int32_t *literal)
{
	int32_t c;

	*literal = -1;
	LENS_TRY(next_char(t, &c));
	switch (c) {
	case 'n':
		*literal = '\n';
		return LENS_OK;
	case 'r':
		*literal = '\r';
		return LENS_OK;
	case 't':
		*literal = '\t';
		return LENS_OK;
	case 'f':
		*literal = '\f';
		return LENS_OK;
	case 's':
		return put(t, in_class ? WHITE_SPACE : "[" WHITE_SPACE "]");
	case 'S':
		return in_class ? refuse(t, "\\S in a class") : put(t, "[^" WHITE_SPACE "]");
	case 'd':
		return put(t, "\\p{Nd}");
	case 'D':
		return put(t, "\\P{Nd}");
	case 'p':
	case 'P':
		return property(t, c == 'P');
	default:
		break;
	}
	if (!punctuation(c)) {
		t->p--;
		return refuse(t, "an escape of this kind");
	}
	*literal = c;
	return LENS_OK;
}

/* A literal outside a class, where case may not matter. */
static enum lens_status put_literal(struct translation *t, int32_t c)
{
	int32_t before = t->literal, lower = c >= 'A' && c <= 'Z' ? c + 32 : c;

	t->literal = 0;
	if (t->caseless[t->depth]) {
		/* Oniguruma lets "ss" match U+00DF, "st" U+FB06, and so on. */
		if (c >= 0x80 || (before == 's' && (lower == 's' || lower == 't')) ||
		    (before == 'f' && strchr("fil", lower)))
			return refuse(t, "a case-insensitive sequence with special foldings");
		t->literal = lower;
	}
	t->quantifiable = true;
	return put_code_point(t->out, c, t->err);
}

/* One end of a range or a single item of a class. */
static enum lens_status class_item(struct translation *t, int32_t *literal)
{
	if (at(t, "\\")) {
		t->p++;
		return escape(t, true, literal);
	}
	if (at(t, "[") || at(t, "&&") || at(t, "--"))
		return refuse(t, "a nested class or a class operation");
	LENS_TRY(next_char(t, literal));
	if (t->caseless[t->depth] && *literal >= 0x80)
		return refuse(t, "a case-insensitive class beyond ASCII");
	return LENS_OK;
}

/* Writes an item, or, if "-x" follows, the range from it to x. */
static enum lens_status class_range(struct translation *t, int32_t from)
{
	int32_t to;

	LENS_TRY(put_code_point(t->out, from, t->err));
	if (!at(t, "-") || at(t, "-]"))
		return LENS_OK;
	t->p++;
	LENS_TRY(class_item(t, &to));
	if (to < from || from == '-')
		return refuse(t, "a malformed range");
	LENS_TRY(put(t, "-"));
	return put_code_point(t->out, to, t->err);
}

/* [...]; t->p is after the bracket. */
static enum lens_status bracket_class(struct translation *t)
{
	bool first = true;
	int32_t c;

	LENS_TRY(put(t, "["));
	if (at(t, "^")) {
		if (t->caseless[t->depth])
			return refuse(t, "a negated class under (?i:");
		LENS_TRY(put(t, "^"));
		t->p++;
	}
	for (; first || !at(t, "]"); first = false) {
		if (at(t, "]"))
			return refuse(t, "an empty class");
		LENS_TRY(class_item(t, &c));
		if (c >= 0)
			LENS_TRY(class_range(t, c));
		else if (at(t, "-") && !at(t, "-]"))
			return refuse(t, "a '-' after a class escape");
	}
	t->p++;
	t->quantifiable = true;
	t->literal = 0;
	return put(t, "]");
}

/* (...: the openings that mean the same in both. */
static enum lens_status open_group(struct translation *t)
{
	static const char *const kind[] = {
		"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"
	};
	bool caseless = t->caseless[t->depth];
	const char *as = "(?:"; /* nothing needs captures */
	size_t i, n = 1;

	if (t->depth + 1 == MAX_DEPTH)
		return refuse(t, "too many nested groups");
	if (at(t, "(?") || at(t, "(*")) {
		for (i = 0; i < sizeof(kind) / sizeof(*kind) && !at(t, kind[i]); i++)
			;
		if (i == sizeof(kind) / sizeof(*kind))
			return refuse(t, "a group of this kind");
		as = kind[i];
		n = strlen(as);
		caseless = caseless || i == 1;
	}
	t->p += n;
	t->caseless[++t->depth] = caseless;
	t->quantifiable = false;
	t->literal = 0;
	return put(t, as);
}

static enum lens_status close_group(struct translation *t)
{
	if (t->depth == 0)
		return refuse(t, "an unmatched ')'");
	t->p++;
	t->depth--;
	t->quantifiable = true;
	t->literal = 0;
	return put(t, ")");
}

/* {n}, {n,} or {n,m}; t->p is on the brace. */
static enum lens_status interval(struct translation *t)
{
	const char *q = t->p + 1, *digits = q;
	int commas = 0;

	while (q < t->end && *q >= '0' && *q <= '9')
		q++;
	if (q == digits)
		return refuse(t, "a '{' that is no {n,m}");
	for (; q < t->end && ((*q >= '0' && *q <= '9') || *q == ','); q++)
		commas += *q == ',';
	if (q == t->end || *q != '}' || commas > 1 || q - digits > 9)
		return refuse(t, "a '{' that is no {n,m}");
	q++;
	LENS_TRY(lens_buf_append(t->out, t->p, (size_t)(q - t->p), t->err));
	t->p = q;
	if (at(t, "?") || at(t, "+"))
		return refuse(t, "a suffix on {n,m}"); /* Oniguruma reads it differently */
	return LENS_OK;
}

/* * + ? with ? (lazy) or + (possessive), or an interval. */
static enum lens_status quantifier(struct translation *t)
{
	if (!t->quantifiable)
		return refuse(t, "a quantifier with nothing to repeat");
	t->quantifiable = false;
	t->literal = 0;
	if (*t->p == '{')
		return interval(t);
	LENS_TRY(lens_buf_append(t->out, t->p++, 1, t->err));
	if (at(t, "?") || at(t, "+"))
		return lens_buf_append(t->out, t->p++, 1, t->err);
	return LENS_OK;
}

static enum lens_status step(struct translation *t)
{
	int32_t c;

	switch (*t->p) {
	case '(':
		return open_group(t);
	case ')':
		return close_group(t);
	case '[':
		t->p++;
		return bracket_class(t);
	case '*':
	case '+':
	case '?':
	case '{':
		return quantifier(t);
	case '|':
	case '.':
		t->quantifiable = *t->p == '.';
		t->literal = 0;
		return lens_buf_append(t->out, t->p++, 1, t->err);
	case '^':
	case '$':
		return refuse(t, "^ or $");
	case '\\':
		t->p++;
		LENS_TRY(escape(t, false, &c));
		t->quantifiable = true;
		if (c >= 0)
			return put_literal(t, c);
		t->literal = 0;
		return LENS_OK;
	default:
		LENS_TRY(next_char(t, &c));
		return put_literal(t, c);
	}
}

enum lens_status lens_regex_translate(const char *pattern, size_t len, struct lens_buf *out,
				      struct lens_error *err)
{
	struct translation t = {
		.pattern = pattern, .p = pattern, .end = pattern + len, .out = out, .err = err
	};

	while (t.p < t.end)
		LENS_TRY(step(&t));
	return t.depth ? refuse(&t, "an unmatched '('") : LENS_OK;
}

enum lens_status lens_regex_literal(const char *text, size_t len, struct lens_buf *out,
				    struct lens_error *err)
{
	size_t i = 0;

	while (i < len) {
		int32_t c;
		utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i,
						      (utf8proc_ssize_t)(len - i), &c);

		if (n <= 0)
			return lens_error_set(err, LENS_ERR_FORMAT, "invalid UTF-8");
		LENS_TRY(put_code_point(out, c, err));
		i += (size_t)n;
	}
	return LENS_OK;
}
