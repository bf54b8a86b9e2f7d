/*
 * tokenizer/decode_private.h: tokens → text: the steps of tokenizer.json's "decoder",
 * in order, over a list of pieces that starts as the tokens' texts.
 */
#ifndef LENS_TOKENIZER_DECODE_PRIVATE_H
#define LENS_TOKENIZER_DECODE_PRIVATE_H

#include "tokenizer/bytelevel_private.h"
#include "tokenizer/replace_private.h"

enum lens_decode_kind {
	LENS_DECODE_BYTE_LEVEL,    /* all pieces, which encode bytes as characters -> one */
	LENS_DECODE_BYTE_FALLBACK, /* runs of <0xAB> -> their characters, or U+FFFD each */
	LENS_DECODE_REPLACE,       /* each match -> a text */
	LENS_DECODE_FUSE,          /* all pieces -> one */
	LENS_DECODE_STRIP,         /* removes up to n marks from the front of each piece */
	LENS_DECODE_METASPACE      /* marks -> spaces; in the first piece -> nothing */
};

struct lens_decode_step {
	enum lens_decode_kind kind;
	struct lens_replace replace;
	char mark[5]; /* one character */
	size_t n;
	bool keep_first; /* METASPACE: the first piece is treated like the others */
	bool fused;      /* an earlier step has left a single piece */
};

struct lens_decoder {
	struct lens_decode_step *step;
	size_t n, cap;
};

/* Pieces end to end. */
struct lens_decode_list {
	struct lens_buf text;
	size_t *end; /* [n]: where each ends in text */
	size_t n, cap;
};

/* May be reused; list[0] takes the tokens' texts, and gets the result. */
struct lens_decode_work {
	struct lens_decode_list list[2];
	struct lens_buf bytes;
	struct lens_regex_match *match;
};

/* Appends a step and takes over step->replace (even on failure). */
enum lens_status lens_decoder_push(struct lens_decoder *d, struct lens_decode_step *step,
				   struct lens_error *err);
void lens_decoder_release(struct lens_decoder *d);

enum lens_status lens_decode_add(struct lens_decode_list *list, const char *text, size_t len,
				 struct lens_error *err);
/*
 * Runs the steps over w->list[0] and leaves the result there. continues: the tokens
 * continue others, so nothing is stripped from the front.
 */
enum lens_status lens_decode_run(const struct lens_decoder *d, const struct lens_bytelevel *b,
				 struct lens_decode_work *w, bool continues,
				 struct lens_error *err);
void lens_decode_work_release(struct lens_decode_work *w);

#endif
