/*
 * tokenizer/load_gpt2.c: vocab.json + merges.txt, the form in which GPT-2 was
 * published. In: both files, and tokenizer_config.json for the special tokens
 * and add_prefix_space; out: a filled struct lens_tokenizer, with GPT-2's
 * pattern, no normaliser and ByteLevel at both ends.
 */
#include "tokenizer/internal.h"

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
 * Of Hugging Face's two readers of this file one drops the first line and
 * whatever follows the last newline, the other drops lines that start with
 * "#version". Only a file on which they agree is taken.
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

/* A special token that the vocabulary has becomes an added token, once. */
static enum lens_status add_special(struct lens_tokenizer *tok, const json_t *value,
				    struct lens_error *err)
{
	const char *content = lens_special_content(value);
	struct lens_added_token t = { 0 };

	if (!content || !*content)
		return LENS_OK;
	t.content = (char *)content;
	t.len = strlen(content);
	t.id = lens_vocab_find(&tok->vocab, content, t.len);
	if (t.id < 0)
		return lens_error_set(
			err, LENS_ERR_UNSUPPORTED,
			"the special token \"%.100s\" is not in vocab.json, which is "
			"not supported without a tokenizer.json",
			content);
	t.single_word = json_is_true(json_object_get(value, "single_word"));
	t.lstrip = json_is_true(json_object_get(value, "lstrip"));
	t.rstrip = json_is_true(json_object_get(value, "rstrip"));
	if (lens_added_find(&tok->added, content, t.len))
		return LENS_OK;
	return lens_added_push(&tok->added, &t, err);
}

/* GPT-2's tokenizer class has <|endoftext|> for these where no file names one. */
static enum lens_status specials(struct lens_tokenizer_load *l, struct lens_error *err)
{
	static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token",
					    "sep_token", "cls_token", "mask_token" };
	json_t *fallback = json_string("<|endoftext|>");
	enum lens_status st = LENS_OK;
	size_t i;

	if (!fallback)
		return lens_error_nomem(err, 1, 16);
	for (i = 0; i < sizeof(keys) / sizeof(*keys) && st == LENS_OK; i++) {
		const json_t *v = json_object_get(l->config, keys[i]);

		if (!v)
			v = json_object_get(l->special, keys[i]);
		if (!v && i < 3 && lens_vocab_find(&l->tok->vocab, "<|endoftext|>", 13) >= 0)
			v = fallback;
		st = add_special(l->tok, v, err);
	}
	json_decref(fallback);
	return st;
}

/* Ways to add tokens that only a tokenizer.json makes unambiguous. */
static enum lens_status refuse_additions(struct lens_tokenizer_load *l, struct lens_error *err)
{
	static const char *const keys[] = { "additional_special_tokens",
					    "extra_special_tokens" };
	char *path = lens_path_join(l->dir, "added_tokens.json");
	bool exists = path && lens_file_exists(path);
	size_t i;

	lens_free(path);
	if (!path)
		return lens_error_nomem(err, 1, 1);
	if (exists)
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
				     "added_tokens.json is not supported without a "
				     "tokenizer.json");
	for (i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
		const json_t *c = json_object_get(l->config, keys[i]);
		const json_t *s = json_object_get(l->special, keys[i]);

		if (json_array_size(c) || json_array_size(s) || json_object_size(c) ||
		    json_object_size(s))
			return lens_error_at(err, LENS_ERR_UNSUPPORTED, l->dir, 0, 0,
					     "%s is not supported without a tokenizer.json",
					     keys[i]);
	}
	return LENS_OK;
}

enum lens_status lens_load_gpt2(struct lens_tokenizer_load *l, const char *vocab_path,
				const char *merges_path, struct lens_error *err)
{
	struct lens_json config = { l->config, l->config_path, "" };
	struct lens_decode_step decode = { .kind = LENS_DECODE_BYTE_LEVEL };
	bool prefix_space = false;
	enum lens_status st;
	json_t *vocab;

	LENS_TRY(refuse_additions(l, err));
	LENS_TRY(lens_json_bool(config, "add_prefix_space", false, &prefix_space, err));
	LENS_TRY(lens_load_byte_level(l->tok, prefix_space, true, err));
	LENS_TRY(lens_decoder_push(&l->tok->decoder, &decode, err));
	LENS_TRY(lens_json_read(vocab_path, "vocab.json", l->sha, &vocab, err));
	st = lens_load_vocab(l->tok, (struct lens_json){ vocab, vocab_path, "vocab" }, err);
	json_decref(vocab);
	LENS_TRY(st);
	LENS_TRY(merges_file(l, merges_path, err));
	LENS_TRY(lens_added_init(&l->tok->added, 16, err));
	LENS_TRY(specials(l, err));
	return lens_added_finish(&l->tok->added, &l->tok->normalizer, err);
}
