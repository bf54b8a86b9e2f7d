/*
 * tokenizer/pretok_private.h: pre-tokenizers split a text into words, within which BPE
 * then merges.
 */
#ifndef LENS_TOKENIZER_PRETOK_PRIVATE_H
#define LENS_TOKENIZER_PRETOK_PRIVATE_H

#include "tokenizer/origins_private.h"

/* What happens to a pattern's matches (SplitDelimiterBehavior). */
enum lens_split_behavior {
	LENS_SPLIT_ISOLATED,
	LENS_SPLIT_REMOVED,
	LENS_SPLIT_CONTIGUOUS,
	LENS_SPLIT_WITH_PREVIOUS,
	LENS_SPLIT_WITH_NEXT
};

/* Which words get the prefix, unless they already begin with it. */
enum lens_prefix {
	LENS_PREFIX_NEVER,
	LENS_PREFIX_FIRST, /* the one at the beginning of the whole text */
	LENS_PREFIX_ALWAYS
};

/* ByteLevel, Split, Digits and Metaspace are all of this form. */
struct lens_pretok_step {
	char mark[5]; /* one character, NUL-terminated: the prefix */
	bool to_mark; /* first, every space becomes mark */
	enum lens_prefix prefix;
	struct lens_regex *re; /* then this splits; NULL: no split */
	enum lens_split_behavior behavior;
	bool invert; /* matches are what the pattern does not match */
};

struct lens_pretok {
	struct lens_pretok_step *step;
	size_t n, cap;
};

struct lens_span {
	size_t offset, len;
	bool match;
	bool first; /* at the beginning of the whole text, prefixes aside */
};

struct lens_spans {
	struct lens_span *v;
	size_t n, cap;
};

/* What one thread needs; the words of the last run are in text and words. */
struct lens_pretok_work {
	struct lens_regex_match *match;
	struct lens_text text;
	struct lens_spans words;
	struct lens_spans input, found;
	struct lens_buf marked[2]; /* text with marks put in: the old and the new */
	struct lens_origins from[2];
	size_t to; /* which of the two is being written */
};

void lens_pretok_release(struct lens_pretok *p);
/* Appends a step and takes over step->re (even on failure). */
enum lens_status lens_pretok_push(struct lens_pretok *p, const struct lens_pretok_step *step,
				  struct lens_error *err);

void lens_pretok_work_release(struct lens_pretok_work *w);
/*
 * Splits text (not empty) into w->words, whose offsets are into w->text. No word is
 * empty. first: the whole text begins here; continues: it continues another one, so its
 * first word gets no prefix.
 */
enum lens_status lens_pretok_run(const struct lens_pretok *p, struct lens_pretok_work *w,
				 bool first, bool continues, struct lens_text text,
				 struct lens_error *err);

#endif
