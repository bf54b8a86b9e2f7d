/*
 * tokenizer/tokenizer_private.h: the tokenizer itself, as its loaders fill it.
 */
#ifndef LENS_TOKENIZER_PRIVATE_H
#define LENS_TOKENIZER_PRIVATE_H

#include "h5lens/tokenizer.h"
#include "tokenizer/added_private.h"
#include "tokenizer/bpe_private.h"
#include "tokenizer/bytelevel_private.h"
#include "tokenizer/decode_private.h"
#include "tokenizer/json_private.h"
#include "tokenizer/normalizer_private.h"
#include "tokenizer/pretok_private.h"
#include "tokenizer/vocab_private.h"

/* GPT-2's pattern, as Hugging Face gives it to Oniguruma. */
#define LENS_GPT2_PATTERN                                                                      \
	"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Qwen2's pattern, used in place of GPT-2's. */
#define LENS_QWEN2_PATTERN                                                                        \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+" \
	"[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* bos_token, eos_token, unk_token, sep_token, pad_token, …; a class may set the first five. */
enum { LENS_BOS, LENS_EOS, LENS_N_CLASS_SPECIAL = 5, LENS_N_SPECIAL = 7 };
extern const char *const lens_special_keys[LENS_N_SPECIAL];

/* How a class reads vocab.json and merges.txt. */
enum lens_files_rules { LENS_FILES_NONE, LENS_FILES_GPT2, LENS_FILES_QWEN2 };

/* What a class of transformers 4.56 does of its own accord. */
struct lens_tokenizer_class {
	const char *name;                          /* without "Fast"; NULL: none is named */
	const char *special[LENS_N_CLASS_SPECIAL]; /* if no file names one */
	const char *extra[4];                      /* further special tokens of its own */
	bool made_anew;    /* it builds its post-processor from add_bos_token … */
	bool adds_bos;     /* … for which this is the default */
	bool from_slow;    /* with add_prefix_space it is rebuilt from tokenizer.model */
	bool inner_prefix; /* add_prefix_space also applies inside a Sequence */
	bool of_5;         /* written by transformers 5, and read by its rules */
	enum lens_files_rules files;
};

struct lens_tokenizer {
	struct lens_bytelevel bytes;
	struct lens_vocab vocab; /* of the model, without added tokens */
	/*
	 * The tokens of single bytes; -1: none. With byte_level (ByteLevel), words
	 * encode bytes as characters; otherwise these are the tokens "<0xAB>".
	 */
	bool byte_level;
	int32_t byte_id[256];
	bool byte_fallback; /* a character without a token becomes those of its bytes … */
	int32_t unk;        /* … or this one, if a byte has none; or -1 */
	bool fuse_unk;      /* one for a whole run of unknown characters */
	struct lens_bpe bpe;
	struct lens_added added;
	struct lens_normalizer normalizer;
	struct lens_pretok pretok;
	struct lens_decoder decoder;
	bool ignore_merges; /* a word that is a token stays whole */
	size_t n_vocab;
	int32_t bos;        /* the one in use, or -1 */
	char *no_bos;       /* why there is none */
	bool bos_chosen;    /* by the user */
	int32_t post_first; /* what the post-processor puts first, or -1 */
	int32_t hf_bos;     /* transformers' tokenizer.bos_token_id, or -1 */
	int32_t config_bos; /* config.json's bos_token_id, or -1: none that is a token */
	bool adds_bos;
	char rules[64]; /* lens_tokenizer_rules */
	uint8_t sha256[LENS_SHA256_BYTES];
};

/* What the loaders share while a directory is opened. */
struct lens_tokenizer_load {
	struct lens_tokenizer *tok;
	const char *dir;
	struct lens_sha256 *sha;
	json_t *config;  /* tokenizer_config.json, or NULL */
	json_t *special; /* special_tokens_map.json, or NULL */
	json_t *model;   /* config.json, or NULL */
	char *config_path, *special_path, *model_path;
	const struct lens_tokenizer_class *class;
};

/* A special token; content is NULL if there is none. */
struct lens_special {
	const char *key, *content;
	json_t *value;    /* in the file path; NULL: no file has the key */
	const char *path; /* for messages */
	bool of_class;    /* the class names it */
};

/* class.c: the class, and its special tokens. */
enum lens_status lens_load_class(struct lens_tokenizer_load *l, struct lens_error *err);
enum lens_status lens_special_token(const struct lens_tokenizer_load *l, size_t which,
				    struct lens_special *out, struct lens_error *err);
/* The value of a key in tokenizer_config.json or special_tokens_map.json, and its file. */
json_t *lens_special_value(const struct lens_tokenizer_load *l, const char *key,
			   const char **path);
/* "content" of a special token given as a string or an object, or NULL. */
const char *lens_special_content(const json_t *value);

/* load_json.c: all of tokenizer.json at path. */
enum lens_status lens_load_tokenizer_json(struct lens_tokenizer_load *l, const char *path,
					  struct lens_error *err);
/* load_parts.c: what the loaders of the parts share. */
struct lens_json lens_json_child(struct lens_json at, const char *key, const char *where);
enum lens_status lens_unsupported_type(struct lens_json at, const char *type,
				       struct lens_error *err);
/* A string of one character. */
enum lens_status lens_load_char(struct lens_json at, const char *key, char mark[5],
				struct lens_error *err);
/* The text under a key; a step of type Replace. The caller releases r. */
enum lens_status lens_load_text(struct lens_json at, const char *key, struct lens_replace *r,
				struct lens_error *err);
enum lens_status lens_load_replace(struct lens_json at, struct lens_replace *r,
				   struct lens_error *err);
/* "pattern": {"Regex": …} or {"String": …}; and a regular expression by itself. */
enum lens_status lens_load_pattern(struct lens_json at, struct lens_regex **re,
				   struct lens_error *err);
enum lens_status lens_load_regex(const char *pattern, size_t len, bool literal,
				 struct lens_regex **re, struct lens_error *err);
/* Calls fn for each item of the list under key, one level deeper. */
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
/* "prepend_scheme" of Metaspace, the pre-tokenizer or the decoder. */
enum lens_status lens_load_prefix_scheme(struct lens_json at, enum lens_prefix *out,
					 struct lens_error *err);
/* Adds ByteLevel's step, with GPT-2's pattern or none. */
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
/* load_files.c: vocab.json and merges.txt, by the class's rules. */
enum lens_status lens_load_files(struct lens_tokenizer_load *l, const char *vocab_path,
				 const char *merges_path, struct lens_error *err);
/* load_config.c: the small files, and what they change in a tokenizer.json. */
enum lens_status lens_load_configs(struct lens_tokenizer_load *l, struct lens_error *err);
enum lens_status lens_set_prefix_space(const struct lens_tokenizer_load *l, bool top_byte_level,
				       struct lens_error *err);
/* load_added.c: the added tokens of the small files, which are the last. */
enum lens_status lens_load_added(const struct lens_tokenizer_load *l, int32_t next_id,
				 struct lens_error *err);
/* load_bos.c: BOS, and which one others use. */
enum lens_status lens_load_bos(struct lens_tokenizer_load *l, struct lens_error *err);
/* The added token's flags from a JSON object, all required. */
enum lens_status lens_load_added_flags(struct lens_json at, struct lens_added_token *t,
				       struct lens_error *err);

#endif
