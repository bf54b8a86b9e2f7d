/*
 * tokenizer.h: text → token ids, ids → pieces, as Hugging Face `tokenizers`
 * does it. BPE from tokenizer.json, byte-level (GPT-2's kind) or over characters
 * (SentencePiece's kind), or byte-level from vocab.json + merges.txt.
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
 * config.json for the BOS token. Anything the file asks for that we do not do
 * is LENS_ERR_UNSUPPORTED and named. The caller destroys *out.
 */
enum lens_status lens_tokenizer_open(const char *dir, struct lens_tokenizer **out,
				     struct lens_error *err);
void lens_tokenizer_destroy(struct lens_tokenizer *tok);

/*
 * Appends the ids of text[0..len) (valid UTF-8, else LENS_ERR_FORMAT) to ids,
 * without any BOS of its own: add_special_tokens=False in Hugging Face's
 * terms. Special and added tokens written in the text are recognised, as
 * there.
 */
enum lens_status lens_tokenizer_encode(const struct lens_tokenizer *tok, const char *text,
				       size_t len, struct lens_ids *ids,
				       struct lens_error *err);

/*
 * The ids of a text that goes on from another one, as an answer goes on from
 * its prompt: the prefix that a tokenizer puts at the beginning of a text
 * (Prepend, Metaspace, add_prefix_space) is left out. So " Mary" is the token
 * "▁Mary" with SentencePiece's kind, and "Mary" the one without a space. Where
 * a tokenizer has no prefix this is lens_tokenizer_encode.
 */
enum lens_status lens_tokenizer_encode_continuation(const struct lens_tokenizer *tok,
						    const char *text, size_t len,
						    struct lens_ids *ids,
						    struct lens_error *err);

/*
 * Appends the text of ids[0..n) to out. Bytes that do not form UTF-8 become
 * U+FFFD, as in Hugging Face's decode(skip_special_tokens=False,
 * clean_up_tokenization_spaces=False).
 */
enum lens_status lens_tokenizer_decode(const struct lens_tokenizer *tok, const int32_t *ids,
				       size_t n, struct lens_buf *out, struct lens_error *err);

/*
 * The same for ids that go on from others: the space that a decoder takes off
 * the beginning of a text stays.
 */
enum lens_status lens_tokenizer_decode_continuation(const struct lens_tokenizer *tok,
						    const int32_t *ids, size_t n,
						    struct lens_buf *out,
						    struct lens_error *err);

/*
 * The token that prepend_bos puts in front: TransformerLens's choice, unless
 * another was made. None at all is LENS_ERR_FORMAT.
 */
enum lens_status lens_tokenizer_bos(const struct lens_tokenizer *tok, int32_t *id,
				    struct lens_error *err);
/*
 * data.bos: "auto", digits for an id, or a token, with double quotes around it or
 * without. Once, before the tokenizer is used; then it is immutable.
 */
enum lens_status lens_tokenizer_choose_bos(struct lens_tokenizer *tok, const char *choice,
					   struct lens_error *err);
/*
 * Where nobody chose, and TransformerLens, the tokenizer's bos_token and
 * config.json's bos_token_id are not one, appends a sentence that names them.
 */
enum lens_status lens_tokenizer_bos_doubt(const struct lens_tokenizer *tok,
					  struct lens_buf *out, struct lens_error *err);

/*
 * Would the tokenizer put its BOS in front by itself, were it asked for special
 * tokens? Only told: encode never does, so that prepend_bos decides alone.
 */
bool lens_tokenizer_adds_bos(const struct lens_tokenizer *tok);

/* Whose reading of the files this is: "transformers 4.56", and the class where one is known. */
const char *lens_tokenizer_rules(const struct lens_tokenizer *tok);

/* Largest id + 1, added tokens included. */
size_t lens_tokenizer_n_vocab(const struct lens_tokenizer *tok);

/* SHA-256 over the files that were read, in a fixed order. */
const uint8_t *lens_tokenizer_sha256(const struct lens_tokenizer *tok);

#endif
