/*
 * tokenizer/load_files.c: vocab.json + merges.txt, the form in which GPT-2 was
 * published. In: both files, the class, and tokenizer_config.json for the added tokens
 * and add_prefix_space; out: a filled struct lens_tokenizer with the class's own
 * normaliser and pattern, and ByteLevel as pre-tokenizer and decoder. The rules are
 * those of transformers 4.56's convert_slow_tokenizer.py.
 */
#include "tokenizer/tokenizer_private.h"

#include <string.h>

/* The line at *at, without its end; moves *at to the next. */
static bool next_line(const struct lens_buf *b, size_t *at, const char **line, size_t *n)
{
	const char *start = b->data + *at, *end;

	if (*at >= b->len)
		return false;
	end = memchr(start, '\n', b->len - *at);
	if (!end)
		end = b->data + b->len;
	*at = (size_t)(end - b->data) + 1;
	*line = start;
	*n = (size_t)(end - start);
	if (*n && start[*n - 1] == '\r')
		(*n)--;
	return true;
}

static bool is_version(const char *line, size_t n)
{
	return n >= 8 && !memcmp(line, "#version", 8);
}

/*
 * Hugging Face has two readers of this file: one drops the first line and whatever
 * follows the last newline, the other drops lines that start with "#version". Only a
 * file on which they agree is accepted.
 */
static enum lens_status check_ends(const struct lens_buf *b, const char *path,
				   struct lens_error *err)
{
	if (!is_version(b->data, b->len))
		return lens_error_at(
			err, LENS_ERR_UNSUPPORTED, path, 1, 0,
			"a merges file whose first line is not \"#version\" is not "
			"supported");
	if (b->data[b->len - 1] != '\n')
		return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
				     "the last line has no newline: is the file cut short?");
	if (!lens_utf8_valid(b->data, b->len))
		return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0, "not valid UTF-8");
	return LENS_OK;
}

static enum lens_status one_merge(struct lens_tokenizer *tok, const char *line, size_t n,
				  struct lens_error *err)
{
	const char *space = memchr(line, ' ', n), *right = space ? space + 1 : NULL;
	size_t n_right = right ? n - (size_t)(right - line) : 0;

	if (!right || memchr(right, ' ', n_right))
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "must be two tokens with one space between them");
	return lens_load_merge(tok, line, (size_t)(space - line), right, n_right, err);
}

static enum lens_status parse_merges(struct lens_tokenizer *tok, const struct lens_buf *b,
				     const char *path, struct lens_error *err)
{
	size_t at = 0, n, n_lines = 0, i;
	const char *line;
	long row;

	LENS_TRY(check_ends(b, path, err));
	for (i = 0; i < b->len; i++)
		n_lines += b->data[i] == '\n';
	LENS_TRY(lens_bpe_init(&tok->bpe, n_lines, err));
	for (row = 1; next_line(b, &at, &line, &n); row++) {
		struct lens_error why = LENS_ERROR_INIT;
		enum lens_status st;

		if (is_version(line, n))
			continue;
		st = one_merge(tok, line, n, &why);
		if (st != LENS_OK)
			return lens_error_at(err, st, path, row, 0, "%s", why.text);
	}
	return LENS_OK;
}

static enum lens_status merges_file(struct lens_tokenizer_load *l, const char *path,
				    struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;

	st = lens_file_read(path, LENS_TOKENIZER_MAX_FILE, &b, err);
	if (st == LENS_OK)
		st = lens_digest_file(l->sha, "merges.txt", &b, err);
	if (st == LENS_OK)
		st = parse_merges(l->tok, &b, path, err);
	lens_buf_release(&b);
	return st;
}

/* Older folders name the added tokens here only, without their flags. */
static enum lens_status refuse_older(const struct lens_tokenizer_load *l,
				     struct lens_error *err)
{
	char *path = lens_path_join(l->dir, "added_tokens.json");
	bool exists = path && lens_file_exists(path);

	lens_free(path);
	if (!path)
		return lens_error_nomem(err, 1, 1);
	if (!exists || json_object_get(l->config, "added_tokens_decoder"))
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
			     "added_tokens.json is not supported without a tokenizer.json or "
			     "added_tokens_decoder in tokenizer_config.json");
}

/* --- the rules ------------------------------------------------------------------------- */

/* NFC, then Qwen2's own pattern; add_prefix_space has no effect. */
static enum lens_status qwen2_rules(struct lens_tokenizer *tok, struct lens_error *err)
{
	struct lens_normal_step nfc = { .kind = LENS_NORMAL_FORM, .form = LENS_NFC };
	struct lens_pretok_step split = { .behavior = LENS_SPLIT_ISOLATED };

	LENS_TRY(lens_normalizer_push(&tok->normalizer, &nfc, err));
	LENS_TRY(lens_load_regex(LENS_QWEN2_PATTERN, strlen(LENS_QWEN2_PATTERN), false,
				 &split.re, err));
	LENS_TRY(lens_pretok_push(&tok->pretok, &split, err));
	return lens_load_byte_level(tok, false, false, err);
}

static enum lens_status gpt2_rules(const struct lens_tokenizer_load *l, struct lens_error *err)
{
	struct lens_json config = { l->config, l->config_path, "" };
	bool prefix_space = false;

	if (!json_is_null(json_object_get(l->config, "add_prefix_space")))
		LENS_TRY(lens_json_bool(config, "add_prefix_space", false, &prefix_space, err));
	return lens_load_byte_level(l->tok, prefix_space, true, err);
}

static enum lens_status rules(const struct lens_tokenizer_load *l, struct lens_error *err)
{
	switch (l->class->files) {
	case LENS_FILES_GPT2:
		return gpt2_rules(l, err);
	case LENS_FILES_QWEN2:
		return qwen2_rules(l->tok, err);
	case LENS_FILES_NONE:
		break;
	}
	if (!l->class->name)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
				     "vocab.json and merges.txt without a tokenizer_class in "
				     "tokenizer_config.json or a model_type in config.json: "
				     "nothing says by whose rules to read them");
	return lens_error_at(
		err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
		"vocab.json and merges.txt of a %s, without a tokenizer.json: we "
		"have the rules of GPT2Tokenizer and Qwen2Tokenizer; saving it with "
		"AutoTokenizer makes a tokenizer.json",
		l->class->name);
}

enum lens_status lens_load_files(struct lens_tokenizer_load *l, const char *vocab_path,
				 const char *merges_path, struct lens_error *err)
{
	struct lens_decode_step decode = { .kind = LENS_DECODE_BYTE_LEVEL };
	enum lens_status st;
	json_t *vocab;

	LENS_TRY(rules(l, err));
	LENS_TRY(refuse_older(l, err));
	LENS_TRY(lens_decoder_push(&l->tok->decoder, &decode, err));
	LENS_TRY(lens_json_read(vocab_path, "vocab.json", l->sha, &vocab, err));
	st = lens_load_vocab(l->tok, (struct lens_json){ vocab, vocab_path, "vocab" }, err);
	json_decref(vocab);
	LENS_TRY(st);
	LENS_TRY(merges_file(l, merges_path, err));
	return lens_load_added(l, (int32_t)l->tok->vocab.n_tokens, err);
}
