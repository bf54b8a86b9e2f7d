/*
 * fuzz/fuzz_tokenizer.c: bytes as the files of a tokenizer, with form feeds
 * between them: tokenizer.json, tokenizer_config.json, special_tokens_map.json,
 * a text and config.json; or where the first is empty, vocab.json and merges.txt
 * after it, with a config.json that names one of the classes that read them. What
 * opens must encode, if it can at all, and decode what it encoded.
 */
#include "fuzz/fuzz.h"

#include "h5lens/tokenizer.h"

#include <string.h>

static const char *const texts[] = { "Hello, world! It's 2024\n  (3.14) \xe2\x82\xac",
				     " a\xcc\x81 \xef\xac\x81 \xed\x95\x9c\xea\xb8\x80 "
				     "<s>\t\xf0\x9f\x98\x80 </s>" };

static void decode(const struct lens_tokenizer *tok, const struct lens_ids *ids, bool goes_on)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	enum lens_status st;

	if (goes_on)
		st = lens_tokenizer_decode_continuation(tok, ids->v, ids->n, &out, &err);
	else
		st = lens_tokenizer_decode(tok, ids->v, ids->n, &out, &err);
	fuzz_check(st, &err);
	fuzz_hold(st == LENS_OK || fuzz_short_of_memory(), "what was encoded is decoded");
	if (st == LENS_OK)
		fuzz_hold(lens_utf8_valid(out.data ? out.data : "", out.len), "text is UTF-8");
	lens_buf_release(&out);
}

/* The same ids, and each byte in one of them or in none. */
static void place(const struct lens_tokenizer *tok, const char *text, size_t n,
		  const struct lens_ids *want)
{
	int32_t *where = lens_calloc(n, sizeof(*where));
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	enum lens_status st;
	size_t i;

	if (!where)
		return;
	st = lens_tokenizer_encode_places(tok, text, n, &ids, where, &err);
	fuzz_check(st, &err);
	if (st == LENS_OK) {
		fuzz_hold(ids.n == want->n &&
				  (!ids.n || !memcmp(ids.v, want->v, ids.n * sizeof(*ids.v))),
			  "places do not change the ids");
		for (i = 0; i < n; i++)
			fuzz_hold(where[i] >= -1 && where[i] < (int32_t)ids.n,
				  "a byte is in a token");
	}
	lens_ids_release(&ids);
	lens_free(where);
}

static void encode(const struct lens_tokenizer *tok, const char *text, size_t n, bool goes_on)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	enum lens_status st;
	size_t i;

	if (goes_on)
		st = lens_tokenizer_encode_continuation(tok, text, n, &ids, &err);
	else
		st = lens_tokenizer_encode(tok, text, n, &ids, &err);
	fuzz_check(st, &err);
	if (st == LENS_OK && !goes_on)
		place(tok, text, n, &ids);
	for (i = 0; st == LENS_OK && i < ids.n; i++)
		fuzz_hold(ids.v[i] >= 0 && (size_t)ids.v[i] < lens_tokenizer_n_vocab(tok),
			  "an id is in the vocabulary");
	if (st == LENS_OK)
		decode(tok, &ids, goes_on);
	lens_ids_release(&ids);
}

/* A text that has tokens: what arbitrary ids say. Some of them may be no tokens. */
static void encode_tokens(const struct lens_tokenizer *tok, uint32_t state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_buf text = LENS_BUF_INIT;
	size_t i, n = lens_tokenizer_n_vocab(tok);
	enum lens_status st;

	for (i = 0; n && i < 24; i++) {
		int32_t id;

		state = state * 1664525u + 1013904223u;
		id = (int32_t)((state >> 8) % n);
		err = (struct lens_error)LENS_ERROR_INIT;
		st = lens_tokenizer_decode_continuation(tok, &id, 1, &text, &err);
		fuzz_check(st, &err);
	}
	if (text.len)
		encode(tok, text.data, text.len, state & 256);
	lens_buf_release(&text);
}

static void use(const struct lens_tokenizer *tok, const struct fuzz_part *text)
{
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st;
	int32_t id;
	size_t i;

	for (i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		encode(tok, texts[i], strlen(texts[i]), false);
		encode(tok, texts[i], strlen(texts[i]), true);
	}
	if (text->n)
		encode(tok, (const char *)text->data, text->n, false);
	for (i = 0; i < 4; i++)
		encode_tokens(tok, (uint32_t)(text->n + i));
	st = lens_tokenizer_bos(tok, &id, &err);
	fuzz_check(st, &err);
	fuzz_hold(st != LENS_OK || (id >= 0 && (size_t)id < lens_tokenizer_n_vocab(tok)),
		  "BOS is in the vocabulary");
}

static void put(const char *name, const struct fuzz_part *part)
{
	if (part->n)
		fuzz_write(name, part->data, part->n);
	else
		fuzz_remove(name);
}

/* Any text as data.bos: what it chooses is in the vocabulary. */
static void choose(struct lens_tokenizer *tok, const struct fuzz_part *text)
{
	struct lens_buf doubt = LENS_BUF_INIT, choice = LENS_BUF_INIT;
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st;
	int32_t id;

	fuzz_check(lens_tokenizer_bos_doubt(tok, &doubt, &err), &err);
	lens_buf_release(&doubt);
	if (lens_buf_append(&choice, text->data, text->n, NULL) != LENS_OK)
		return;
	err = (struct lens_error)LENS_ERROR_INIT;
	st = lens_tokenizer_choose_bos(tok, choice.data, &err);
	fuzz_check(st, &err);
	if (st == LENS_OK && lens_tokenizer_bos(tok, &id, NULL) == LENS_OK)
		fuzz_hold(id >= 0 && (size_t)id < lens_tokenizer_n_vocab(tok), "chosen BOS");
	lens_buf_release(&choice);
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok;
	struct fuzz_part part[6];
	static const char *const models[] = { "{\"model_type\": \"gpt2\"}",
					      "{\"model_type\": \"qwen2\"}" };
	const char *model;
	bool json;

	fuzz_split(data, n, part, 6);
	json = part[0].n;
	put("tokenizer.json", &part[0]);
	put("vocab.json", json ? &part[5] : &part[1]);
	put("merges.txt", json ? &part[5] : &part[2]);
	put("tokenizer_config.json", json ? &part[1] : &part[3]);
	put("special_tokens_map.json", json ? &part[2] : &part[4]);
	model = models[part[1].n % 2];
	if (json)
		put("config.json", &part[4]);
	else
		fuzz_write("config.json", (const uint8_t *)model, strlen(model));
	fuzz_check(lens_tokenizer_open(fuzz_folder(), &tok, &err), &err);
	if (tok)
		use(tok, json ? &part[3] : &part[5]);
	if (tok)
		choose(tok, json ? &part[3] : &part[5]);
	lens_tokenizer_destroy(tok);
}
