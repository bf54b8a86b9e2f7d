/*
 * core/json_python.c: turns the JSON that Python's json module writes and reads into
 * JSON that jansson reads. In: a file's text; out: the same text, in which
 *
 *   NaN, Infinity, -Infinity, 1e400, 9223372036854775808, "\u0000", "\ud83d"
 *
 * are objects {"h5lens:unusable": "holds NaN"}, and the value of a duplicate key is
 * {"h5lens:unusable": "appears twice", "value": …}. A key that is such a string becomes
 * "h5lens:unusable holds a NUL (1)". Everything else is copied, for jansson to judge,
 * and stays on its line.
 */
#include "core/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 2048 /* jansson's own */

/* An open object or array. */
struct level {
	json_t *keys; /* an object's keys so far; NULL: an array */
	bool wrapped; /* the current value is inside {"…": …, "value": */
};

struct rewrite {
	const char *text;
	size_t len, at;
	struct lens_buf *out;
	struct level *level;
	size_t depth, cap;
	size_t n_changed;
};

static enum lens_status copy(struct rewrite *r, size_t n, struct lens_error *err)
{
	enum lens_status st = lens_buf_append(r->out, r->text + r->at, n, err);

	r->at += n;
	return st;
}

static enum lens_status count(struct rewrite *r, struct lens_error *err)
{
	if (++r->n_changed <= LENS_JSON_MAX_UNUSABLE)
		return LENS_OK;
	return lens_error_set(
		err, LENS_ERR_FORMAT,
		"more than %d values that are out of range or keys that appear twice",
		LENS_JSON_MAX_UNUSABLE);
}

/* The length of the string literal at r->at, or of the rest if it has no end. */
static size_t string_length(const struct rewrite *r)
{
	size_t i;

	for (i = r->at + 1; i < r->len; i++) {
		if (r->text[i] == '\\')
			i++;
		else if (r->text[i] == '"')
			return i + 1 - r->at;
	}
	return r->len - r->at;
}

static bool in_word(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '+' || c == '-' || c == '.' || c == '_';
}

/* Is word[0..n) a number in JSON's grammar? *real: it has a fraction or an exponent. */
static bool is_number(const char *word, size_t n, bool *real)
{
	static const char digits[] = "0123456789";
	size_t i = *word == '-', whole = strspn(word + i, digits), more;

	if (!whole || (word[i] == '0' && whole > 1))
		return false;
	i += whole;
	*real = i < n;
	if (word[i] == '.') {
		more = strspn(word + i + 1, digits);
		if (!more)
			return false;
		i += 1 + more;
	}
	if (word[i] == 'e' || word[i] == 'E') {
		i++;
		i += word[i] == '+' || word[i] == '-';
		more = strspn(word + i, digits);
		if (!more)
			return false;
		i += more;
	}
	return i == n;
}

/* Does Python read this word although jansson refuses it? word is NUL-terminated. */
static bool out_of_range(const char *word, size_t n)
{
	bool real = false;

	if (!strcmp(word, "NaN") || !strcmp(word, "Infinity") || !strcmp(word, "-Infinity"))
		return true;
	if (!is_number(word, n, &real))
		return false;
	errno = 0;
	if (!real) {
		strtoll(word, NULL, 10);
		return errno == ERANGE;
	}
	return isinf(strtod(word, NULL));
}

/* A word outside strings: a number, a literal, or nonsense. */
static enum lens_status word(struct rewrite *r, struct lens_error *err)
{
	size_t n = 1;
	bool changed;
	char *copied;

	while (r->at + n < r->len && in_word(r->text[r->at + n]))
		n++;
	if (n < 3) /* like most numbers: it is in range */
		return copy(r, n, err);
	copied = lens_calloc(n + 1, 1);
	if (!copied)
		return lens_error_nomem(err, n + 1, 1);
	memcpy(copied, r->text + r->at, n);
	changed = out_of_range(copied, n);
	lens_free(copied);
	if (!changed)
		return copy(r, n, err);
	LENS_TRY(count(r, err));
	LENS_TRY(lens_buf_printf(r->out, err, "{\"" LENS_JSON_UNUSABLE "\":\"holds %.*s%s\"}",
				 (int)lens_min(n, 40), r->text + r->at,
				 n > 40 ? "\xe2\x80\xa6" : ""));
	r->at += n;
	return LENS_OK;
}

/* The key literal[0..n) of the current object; *again: it is a duplicate. */
static enum lens_status remember_key(struct rewrite *r, const char *literal, size_t n,
				     bool *again, struct lens_error *err)
{
	json_t *keys = r->level[r->depth - 1].keys;
	json_t *key = json_loadb(literal, n, JSON_DECODE_ANY, NULL);
	int failed = 0;

	*again = false;
	if (!key)
		return LENS_OK; /* not a valid string, as jansson will report, or no memory */
	*again = json_object_get(keys, json_string_value(key)) != NULL;
	if (!*again)
		failed = json_object_set_new(keys, json_string_value(key), json_true());
	json_decref(key);
	return failed ? lens_error_nomem(err, n, 1) : LENS_OK;
}

/* The code unit of \uXXXX at s, or -1. */
static long code_unit(const char *s, size_t n)
{
	char digits[5] = "";

	if (n < 6 || s[0] != '\\' || s[1] != 'u')
		return -1;
	memcpy(digits, s + 2, 4);
	return strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, NULL, 16) : -1;
}

/* What jansson refuses in a string and Python accepts, or NULL. */
static const char *odd_escape(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i += s[i] == '\\' ? 2 : 1) {
		long unit = code_unit(s + i, n - i), next;

		if (!unit)
			return "holds a NUL";
		if (unit < 0xd800 || unit > 0xdfff)
			continue;
		next = code_unit(s + i + 6, n - i - 6);
		if (unit > 0xdbff || next < 0xdc00 || next > 0xdfff)
			return "holds half a surrogate pair";
		i += 10; /* and 2 */
	}
	return NULL;
}

/* Copies the string at r->at, or what stands for it; see lens_json_unusable_key for keys. */
static enum lens_status copy_string(struct rewrite *r, size_t n, bool is_key,
				    struct lens_error *err)
{
	const char *what = odd_escape(r->text + r->at, n);

	if (!what)
		return copy(r, n, err);
	LENS_TRY(count(r, err));
	r->at += n;
	if (is_key)
		return lens_buf_printf(r->out, err, "\"" LENS_JSON_UNUSABLE " %s (%zu)\"", what,
				       r->n_changed);
	return lens_buf_printf(r->out, err, "{\"" LENS_JSON_UNUSABLE "\":\"%s\"}", what);
}

/* A string; if a colon follows, it is a key, and may be a duplicate. */
static enum lens_status string(struct rewrite *r, struct lens_error *err)
{
	const char *literal = r->text + r->at;
	size_t n = string_length(r), i = r->at + n;
	bool again;

	while (i < r->len && strchr(" \t\r\n", r->text[i]) && r->text[i])
		i++;
	if (i == r->len || r->text[i] != ':' || !r->depth || !r->level[r->depth - 1].keys)
		return copy_string(r, n, false, err);
	LENS_TRY(copy_string(r, n, true, err));
	LENS_TRY(remember_key(r, literal, n, &again, err));
	LENS_TRY(copy(r, i + 1 - r->at, err));
	if (!again || r->level[r->depth - 1].wrapped)
		return LENS_OK;
	LENS_TRY(count(r, err));
	r->level[r->depth - 1].wrapped = true;
	return lens_buf_printf(r->out, err,
			       "{\"" LENS_JSON_UNUSABLE "\":\"" LENS_JSON_TWICE
			       "\",\"value\":");
}

static enum lens_status open(struct rewrite *r, struct lens_error *err)
{
	struct level *list, *l;

	if (r->depth == MAX_DEPTH)
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "not valid JSON: more than %d levels", MAX_DEPTH);
	list = lens_grow(r->level, r->depth, &r->cap, sizeof(*list), err);
	if (!list)
		return LENS_ERR_NOMEM;
	r->level = list;
	l = &list[r->depth];
	*l = (struct level){ .keys = NULL };
	if (r->text[r->at] == '{') {
		l->keys = json_object();
		if (!l->keys)
			return lens_error_nomem(err, 1, 1);
	}
	r->depth++;
	return copy(r, 1, err);
}

/* A comma or a closing bracket ends the current value. */
static enum lens_status end_value(struct rewrite *r, bool closes, struct lens_error *err)
{
	struct level *l = r->depth ? &r->level[r->depth - 1] : NULL;

	if (l && l->wrapped)
		LENS_TRY(lens_buf_append(r->out, "}", 1, err));
	if (l)
		l->wrapped = false;
	if (l && closes) {
		json_decref(l->keys);
		r->depth--;
	}
	return copy(r, 1, err);
}

static enum lens_status next(struct rewrite *r, struct lens_error *err)
{
	char c = r->text[r->at];

	if (c == '"')
		return string(r, err);
	if (c == '{' || c == '[')
		return open(r, err);
	if (c == ',' || c == '}' || c == ']')
		return end_value(r, c != ',', err);
	if (in_word(c))
		return word(r, err);
	return copy(r, 1, err);
}

enum lens_status lens_json_rewrite(const char *text, size_t len, size_t stop,
				   struct lens_json_rewritten *to, struct lens_error *err)
{
	struct rewrite r = { .text = text, .len = len, .out = &to->out };
	enum lens_status st = LENS_OK;

	*to = (struct lens_json_rewritten){ .out = LENS_BUF_INIT };
	while (st == LENS_OK && r.at < len) {
		size_t from = r.at, made = to->out.len;

		st = next(&r, err);
		if (to->out.len > stop) {
			to->stopped = from + lens_min(stop - made, r.at - from);
			break;
		}
		to->stopped = r.at;
	}
	to->n_changed = r.n_changed;
	while (r.depth)
		json_decref(r.level[--r.depth].keys);
	lens_free(r.level);
	return st;
}
