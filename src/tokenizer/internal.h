/*
 * tokenizer/internal.h: the tokenizer itself, as its loaders fill it.
 */
#ifndef LENS_TOKENIZER_INTERNAL_H
#define LENS_TOKENIZER_INTERNAL_H

#include "h5lens/tokenizer.h"
#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/bytelevel.h"
#include "tokenizer/decode.h"
#include "tokenizer/json.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretok.h"
#include "tokenizer/vocab.h"

/* GPT-2's pattern, as Hugging Face gives it to Oniguruma. */
#define LENS_GPT2_PATTERN                                                                      \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct lens_tokenizer {
	struct lens_bytelevel bytes;
	struct lens_vocab vocab; /* of the model, without added tokens */
	/*
	 * Words are bytes in disguise (ByteLevel), and these are their tokens; or
	 * words are characters, and these are the tokens "<0xAB>". -1: none.
	 */
	bool byte_level;
	int32_t byte_id[256];
	bool byte_fallback; /* a character without a token becomes its bytes' … */
	int32_t unk;        /* … or this, where one of them has none; or -1 */
	bool fuse_unk;      /* one for a run of them */
	struct lens_bpe bpe;
	struct lens_added added;
	struct lens_normalizer normalizer;
	struct lens_pretok pretok;
	struct lens_decoder decoder;
	bool ignore_merges; /* a word that is a token is left whole */
	size_t n_vocab;
	int32_t bos; /* or -1, and then why */
	char *no_bos;
	int32_t post_first; /* what the post-processor puts first, or -1 */
	bool adds_bos;
	uint8_t sha256[LENS_SHA256_BYTES];
};

/* What the loaders share while a directory is being opened. */
struct lens_tokenizer_load {
	struct lens_tokenizer *tok;
	const char *dir;
	struct lens_sha256 *sha;
	json_t *config;  /* tokenizer_config.json, or NULL */
	json_t *special; /* special_tokens_map.json, or NULL */
	char *config_path, *special_path;
};

/* load_json.c: all of tokenizer.json at path. */
enum lens_status lens_load_tokenizer_json(struct lens_tokenizer_load *l, const char *path,
					  struct lens_error *err);
/* load_parts.c: what the parts' loaders share. */
struct lens_json lens_json_child(struct lens_json at, const char *key, const char *where);
enum lens_status lens_unsupported_type(struct lens_json at, const char *type,
				       struct lens_error *err);
/* A string of one character. */
enum lens_status lens_load_char(struct lens_json at, const char *key, char mark[5],
				struct lens_error *err);
/* The text of a key; a step of type Replace, which the caller releases. */
enum lens_status lens_load_text(struct lens_json at, const char *key, struct lens_replace *r,
				struct lens_error *err);
enum lens_status lens_load_replace(struct lens_json at, struct lens_replace *r,
				   struct lens_error *err);
/* "pattern": {"Regex": …} or {"String": …}, and a regular expression as it is. */
enum lens_status lens_load_pattern(struct lens_json at, struct lens_regex **re,
				   struct lens_error *err);
enum lens_status lens_load_regex(const char *pattern, size_t len, bool literal,
				 struct lens_regex **re, struct lens_error *err);
/* Calls fn for each of the list "key", one level deeper. */
typedef enum lens_status (*lens_load_fn)(struct lens_tokenizer *tok, struct lens_json at,
					 int depth, struct lens_error *err);
enum lens_status lens_load_sequence(struct lens_tokenizer *tok, struct lens_json at,
				    const char *key, int depth, lens_load_fn fn,
				    struct lens_error *err);
/* load_normal.c, load_pretok.c, load_decode.c: "normalizer" and so on. */
enum lens_status lens_load_normalizer(struct lens_tokenizer *tok, struct lens_json at,
				      struct lens_error *err);
enum lens_status lens_load_pre_tokenizer(struct lens_tokenizer *tok, struct lens_json at,
					 struct lens_error *err);
enum lens_status lens_load_decoder(struct lens_tokenizer *tok, struct lens_json at,
				   struct lens_error *err);
/* load_post.c: "post_processor"; sets post_first. */
enum lens_status lens_load_post_processor(struct lens_tokenizer *tok, struct lens_json at,
					  struct lens_error *err);
/* Metaspace's "prepend_scheme", also as its decoder has it. */
enum lens_status lens_load_prefix_scheme(struct lens_json at, enum lens_prefix *out,
					 struct lens_error *err);
/* ByteLevel's step: GPT-2's pattern or none. */
enum lens_status lens_load_byte_level(struct lens_tokenizer *tok, bool prefix_space,
				      bool use_regex, struct lens_error *err);
/* load_vocab.c: the vocabulary {"token": id} and one merge. */
enum lens_status lens_load_vocab(struct lens_tokenizer *tok, struct lens_json at,
				 struct lens_error *err);
enum lens_status lens_load_merge(struct lens_tokenizer *tok, const char *left, size_t n_left,
				 const char *right, size_t n_right, struct lens_error *err);
/* load_model.c: "model" of tokenizer.json, after normalizer and pre_tokenizer. */
enum lens_status lens_load_model(struct lens_tokenizer *tok, struct lens_json at,
				 struct lens_error *err);
/* load_gpt2.c: vocab.json and merges.txt. */
enum lens_status lens_load_gpt2(struct lens_tokenizer_load *l, const char *vocab_path,
				const char *merges_path, struct lens_error *err);
/* load_special.c: tokenizer_config.json, special_tokens_map.json; then BOS (also adds_bos). */
enum lens_status lens_load_configs(struct lens_tokenizer_load *l, struct lens_error *err);
enum lens_status lens_load_bos(struct lens_tokenizer_load *l, struct lens_error *err);
/* "content" of a special token given as a string or an object, or NULL. */
const char *lens_special_content(const json_t *value);
/* The added token's flags from a JSON object, all required. */
enum lens_status lens_load_added_flags(struct lens_json at, struct lens_added_token *t,
				       struct lens_error *err);

#endif
