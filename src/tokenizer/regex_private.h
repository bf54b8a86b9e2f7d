/*
 * tokenizer/regex_private.h: the regular expressions of tokenizer.json. Hugging Face
 * runs them with Oniguruma, we use PCRE2; translate.c rewrites what the two read
 * differently and refuses what it does not know.
 */
#ifndef LENS_TOKENIZER_REGEX_PRIVATE_H
#define LENS_TOKENIZER_REGEX_PRIVATE_H

#include "h5lens/core.h"

struct lens_regex;       /* compiled, immutable */
struct lens_regex_match; /* what one thread needs to match */

/* Bytes from … to − 1 of the text that was given to be encoded; from == to: none. */
struct lens_origin {
	uint32_t from, to;
};

/* len bytes of valid UTF-8, without a NUL at the end. */
struct lens_text {
	const char *s;
	size_t len;
	const struct lens_origin *from; /* [len] where each byte comes from; NULL: not asked */
};

/* Its bytes at … at + n. */
static inline struct lens_text lens_text_part(struct lens_text text, size_t at, size_t n)
{
	return (struct lens_text){ text.s + at, n, text.from ? text.from + at : NULL };
}

/* Where a match lies in its text; start and end are not set unless one was found. */
struct lens_hit {
	size_t start, end;
	bool found;
};

/*
 * Appends the PCRE2 form of an Oniguruma pattern to out. A construct outside the known
 * subset is LENS_ERR_UNSUPPORTED, and the error names it.
 */
enum lens_status lens_regex_translate(const char *pattern, size_t len, struct lens_buf *out,
				      struct lens_error *err);
/* Appends a pattern that matches text[0..len) literally (valid UTF-8). */
enum lens_status lens_regex_literal(const char *text, size_t len, struct lens_buf *out,
				    struct lens_error *err);

/* Compiles a PCRE2 pattern; one that can match the empty string is refused. */
enum lens_status lens_regex_compile(const char *pcre, size_t len, struct lens_regex **out,
				    struct lens_error *err);
void lens_regex_destroy(struct lens_regex *re);

enum lens_status lens_regex_match_create(struct lens_regex_match **out, struct lens_error *err);
void lens_regex_match_destroy(struct lens_regex_match *m);

/* Finds the first match at or after from. text must be valid UTF-8: this is not checked. */
enum lens_status lens_regex_next(const struct lens_regex *re, struct lens_regex_match *m,
				 struct lens_text text, size_t from, struct lens_hit *hit,
				 struct lens_error *err);

#endif
