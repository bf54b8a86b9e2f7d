/*
 * tokenizer.h: text → token ids → pieces of text, as Hugging Face's `tokenizers`
 * library does it. BPE from tokenizer.json, byte-level (as in GPT-2) or over
 * characters (as in SentencePiece), or byte-level from vocab.json + merges.txt.
 *
 * A tokenizer is immutable once opened; encode and decode may be called from
 * several threads at once.
 */
#ifndef H5LENS_TOKENIZER_H
#define H5LENS_TOKENIZER_H

#include "h5lens/core.h"

struct lens_tokenizer;

/*
 * Opens the tokenizer of a Hugging Face directory: tokenizer.json, else
 * vocab.json + merges.txt; tokenizer_config.json, special_tokens_map.json and
 * config.json for the BOS token. A feature that the files ask for and we lack is
 * LENS_ERR_UNSUPPORTED, and the error names it. The caller destroys *out.
 */
enum lens_status lens_tokenizer_open(const char *dir, struct lens_tokenizer **out,
				     struct lens_error *err);
void lens_tokenizer_destroy(struct lens_tokenizer *tok);

/*
 * Appends the ids of text[0..len) (valid UTF-8, else LENS_ERR_FORMAT) to ids, without
 * adding a BOS (Hugging Face's add_special_tokens=False). As there, special and added
 * tokens written in the text are recognised.
 */
enum lens_status lens_tokenizer_encode(const struct lens_tokenizer *tok, const char *text,
				       size_t len, struct lens_ids *ids,
				       struct lens_error *err);

/*
 * The ids of a text that continues another one, as an answer continues its prompt:
 * the prefix that a tokenizer puts at the beginning of a text (Prepend, Metaspace,
 * add_prefix_space) is left out. So with a tokenizer like SentencePiece's, " Mary" is
 * the token "▁Mary", and "Mary" the one without a space. If a tokenizer has no prefix,
 * this is lens_tokenizer_encode.
 */
enum lens_status lens_tokenizer_encode_continuation(const struct lens_tokenizer *tok,
						    const char *text, size_t len,
						    struct lens_ids *ids,
						    struct lens_error *err);

/*
 * lens_tokenizer_encode, and where the text's bytes went: place[i] ([len], the caller's)
 * is the last of the ids appended, counted from 0, that holds something of byte i; −1:
 * none does. Normalisers are seen through: each byte of a character that was composed,
 * decomposed or replaced went wherever the whole of it did, while one that a byte-level
 * tokenizer splits is in several tokens, byte by byte.
 */
enum lens_status lens_tokenizer_encode_places(const struct lens_tokenizer *tok,
					      const char *text, size_t len,
					      struct lens_ids *ids, int32_t *place,
					      struct lens_error *err);

/*
 * Appends the text of ids[0..n) to out. Bytes that do not form UTF-8 become
 * U+FFFD, as in Hugging Face's decode(skip_special_tokens=False,
 * clean_up_tokenization_spaces=False).
 */
enum lens_status lens_tokenizer_decode(const struct lens_tokenizer *tok, const int32_t *ids,
				       size_t n, struct lens_buf *out, struct lens_error *err);

/*
 * The same for ids that continue others: the space that a decoder strips from the
 * beginning of a text stays.
 */
enum lens_status lens_tokenizer_decode_continuation(const struct lens_tokenizer *tok,
						    const int32_t *ids, size_t n,
						    struct lens_buf *out,
						    struct lens_error *err);

/*
 * The token that prepend_bos puts in front: TransformerLens's choice, unless
 * lens_tokenizer_choose_bos made another. LENS_ERR_FORMAT if there is none.
 */
enum lens_status lens_tokenizer_bos(const struct lens_tokenizer *tok, int32_t *id,
				    struct lens_error *err);
/*
 * choice (data.bos): "auto", an id's digits, or a token, in double quotes or not. To
 * be called at most once, before the tokenizer is used; then it is immutable.
 */
enum lens_status lens_tokenizer_choose_bos(struct lens_tokenizer *tok, const char *choice,
					   struct lens_error *err);
/*
 * If the user made no choice, and TransformerLens's BOS, the tokenizer's bos_token and
 * config.json's bos_token_id differ, appends a sentence that names them.
 */
enum lens_status lens_tokenizer_bos_doubt(const struct lens_tokenizer *tok,
					  struct lens_buf *out, struct lens_error *err);

/*
 * Would the tokenizer itself put its BOS in front, if asked for special tokens? For
 * information only: encode never does, so that prepend_bos alone decides.
 */
bool lens_tokenizer_adds_bos(const struct lens_tokenizer *tok);

/* Whose rules the files are read by: "transformers 4.56", and the class if it is known. */
const char *lens_tokenizer_rules(const struct lens_tokenizer *tok);

/* Largest id + 1, added tokens included. */
size_t lens_tokenizer_n_vocab(const struct lens_tokenizer *tok);

/* SHA-256 over the files that were read, in a fixed order. */
const uint8_t *lens_tokenizer_sha256(const struct lens_tokenizer *tok);

#endif
