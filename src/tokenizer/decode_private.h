/*
 * tokenizer/decode_private.h: tokens → text: the steps of tokenizer.json's "decoder",
 * in order, over a list of pieces that starts as the tokens' texts.
 */
#ifndef LENS_TOKENIZER_DECODE_PRIVATE_H
#define LENS_TOKENIZER_DECODE_PRIVATE_H

#include "tokenizer/bytelevel_private.h"
#include "tokenizer/replace_private.h"

enum lens_decode_kind {
	LENS_DECODE_BYTE_LEVEL,    /* all pieces are bytes in disguise -> one piece */
	LENS_DECODE_BYTE_FALLBACK, /* runs of <0xAB> -> their characters, or U+FFFD each */
	LENS_DECODE_REPLACE,       /* text for each match */
	LENS_DECODE_FUSE,          /* all pieces -> one */
	LENS_DECODE_STRIP,         /* up to n marks off the front of each piece */
	LENS_DECODE_METASPACE      /* marks -> spaces; in the first piece -> nothing */
};

struct lens_decode_step {
	enum lens_decode_kind kind;
	struct lens_replace replace;
	char mark[5]; /* one character */
	size_t n;
	bool keep_first; /* METASPACE: the first piece is like the others */
	bool fused;      /* a step before has left one piece */
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

/* Reused or not; list[0] takes the tokens' texts and has the outcome. */
struct lens_decode_work {
	struct lens_decode_list list[2];
	struct lens_buf bytes;
	struct lens_regex_match *match;
};

/* Appends a step, and takes step->replace over (also on failure). */
enum lens_status lens_decoder_push(struct lens_decoder *d, struct lens_decode_step *step,
				   struct lens_error *err);
void lens_decoder_release(struct lens_decoder *d);

enum lens_status lens_decode_add(struct lens_decode_list *list, const char *text, size_t len,
				 struct lens_error *err);
/*
 * Runs the steps over w->list[0] and leaves the outcome there. continues: the
 * tokens go on from others, so that nothing is taken off the front.
 */
enum lens_status lens_decode_run(const struct lens_decoder *d, const struct lens_bytelevel *b,
				 struct lens_decode_work *w, bool continues,
				 struct lens_error *err);
void lens_decode_work_release(struct lens_decode_work *w);

#endif
