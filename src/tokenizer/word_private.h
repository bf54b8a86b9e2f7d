/*
 * tokenizer/word_private.h: one word between the splits of the pre-tokenizers → tokens.
 */
#ifndef LENS_TOKENIZER_WORD_PRIVATE_H
#define LENS_TOKENIZER_WORD_PRIVATE_H

#include "tokenizer/tokenizer_private.h"

/* Reused from word to word by one thread. */
struct lens_word_work {
	struct lens_buf bytes; /* the word in disguise */
	struct lens_bpe_work bpe;
	/*
	 * The caller's, for each byte of the whole text: the last token that holds
	 * something of it, counted from first on; NULL: not asked for. Then also, of
	 * this word, each byte's symbol and each symbol's token.
	 */
	int32_t *place;
	size_t first;
	struct lens_ids symbol, token;
};

void lens_word_work_release(struct lens_word_work *w);
/* Appends the word's tokens to ids. */
enum lens_status lens_word_encode(const struct lens_tokenizer *tok, struct lens_word_work *w,
				  struct lens_text word, struct lens_ids *ids,
				  struct lens_error *err);
/* The text is (in) the token ids[token]; does nothing where places were not asked for. */
void lens_word_place(struct lens_word_work *w, struct lens_text text, size_t token);

#endif
