/*
 * tokenizer/normalizer_private.h: what is done to a text before it is split into words:
 * the steps of tokenizer.json's "normalizer", in order.
 */
#ifndef LENS_TOKENIZER_NORMALIZER_PRIVATE_H
#define LENS_TOKENIZER_NORMALIZER_PRIVATE_H

#include "tokenizer/normal_private.h"
#include "tokenizer/replace_private.h"

enum lens_normal_kind {
	LENS_NORMAL_FORM,
	LENS_NORMAL_PREPEND, /* puts a text in front, unless it is empty */
	LENS_NORMAL_REPLACE, /* replaces each match by a text */
	LENS_NORMAL_STRIP    /* removes white space from the ends */
};

struct lens_normal_step {
	enum lens_normal_kind kind;
	enum lens_normal_form form;
	struct lens_replace replace; /* PREPEND: its text alone */
	bool left, right;
};

struct lens_normalizer {
	struct lens_normal_step *step;
	size_t n, cap;
};

/* What one thread needs; the text alternates between the two buffers. */
struct lens_normal_work {
	struct lens_buf buf[2];
	struct lens_origins from[2];
	struct lens_regex_match *match; /* the caller's */
};

/* Appends a step and takes over step->replace (even on failure). */
enum lens_status lens_normalizer_push(struct lens_normalizer *n, struct lens_normal_step *step,
				      struct lens_error *err);
void lens_normalizer_release(struct lens_normalizer *n);
void lens_normal_work_release(struct lens_normal_work *w);

/*
 * Normalises *text, which then lies in w or is unchanged. continues: the text continues
 * another one, so nothing is prepended.
 */
enum lens_status lens_normalize(const struct lens_normalizer *n, struct lens_normal_work *w,
				bool continues, struct lens_text *text, struct lens_error *err);

/* Where the white space before `at` begins, and where the white space after it ends. */
size_t lens_spaces_before(const char *text, size_t at);
size_t lens_spaces_after(const char *text, size_t len, size_t at);
/* Where the character before `at` begins (at > 0, valid UTF-8). */
size_t lens_char_before(const char *text, size_t at);

#endif
