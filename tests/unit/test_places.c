/*
 * unit/test_places.c: which token each byte of a text goes into. Hugging Face's
 * offset_mapping says the same of characters, where it can tell (scripts/
 * check_tokenizer.py --places compares every tokenizer of these tests with it).
 */
#include "h5lens/tokenizer.h"
#include "support/cases.h"
#include "support/tokens.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/unit/data/"

/* The places of the text, with spaces between them; its ids must be encode's. */
static void places_of(const struct lens_tokenizer *tok, const char *text, size_t n,
		      struct lens_buf *out)
{
	struct lens_ids want = LENS_IDS_INIT, ids = LENS_IDS_INIT;
	int32_t *place = lens_calloc(n, sizeof(*place));
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	assert_non_null(place);
	assert_int_equal(lens_ids_push(&ids, 7, NULL), LENS_OK); /* ids are appended */
	if (lens_tokenizer_encode_places(tok, text, n, &ids, place, &err) != LENS_OK)
		fail_msg("%s", err.text);
	test_encode(tok, text, n, &want);
	assert_int_equal(ids.n, want.n + 1);
	if (want.n)
		assert_memory_equal(ids.v + 1, want.v, want.n * sizeof(*want.v));
	out->len = 0;
	for (i = 0; i < n; i++) {
		assert_in_range(place[i] + 1, 0, want.n);
		assert_int_equal(lens_buf_printf(out, NULL, "%s%d", i ? " " : "", place[i]),
				 LENS_OK);
	}
	lens_ids_release(&ids);
	lens_ids_release(&want);
	lens_free(place);
}

static const struct {
	const char *dir, *text, *want;
} given[] = {
	/* A character that is split is in several tokens, byte by byte. */
	{ "tokenizer/gpt2", " Hello wo\xcc\x81rld\xf0\x9f\x98\x80 MaryMary",
	  "0 1 2 3 3 4 5 5 6 7 7 8 9 9 10 10 10 10 11 12 13 13 14 15 16 16 17" },
	/* NFC: e and its accent are one; marks are sorted, and tokens go with them. */
	{ "tokenizer/llama", "cafe\xcc\x81 Mary\xc2\xbd q\xcc\x81\xcc\xa7x",
	  "0 1 2 3 3 3 4 5 6 6 7 8 8 9 10 12 12 11 11 13" },
	/* Prepend, and Replace of spaces. */
	{ "tokenizer_sp/llama", "Mary  and Mary", "0 0 0 0 1 2 2 2 2 3 3 3 3 3" },
	{ "tokenizer_sp/gemma", "Mary  a b", "0 0 0 0 1 1 2 3 3" },
	/* Strip drops; one character becomes several (NFKC), or two become one and a half. */
	{ "tokenizer_sp/nfkc", "  Mary \xc2\xbd\xef\xac\x81\xe3\x8a\xbf  ",
	  "-1 -1 0 0 0 0 1 6 6 8 8 8 10 10 10 -1 -1" },
	{ "tokenizer_sp/nfkc",
	  "n\xc3\xa9\xcc\xa3"
	  "e\xcc\x81",
	  "0 4 4 3 3 6 6 6" },
	/* Added tokens take the spaces that their flags name; Strip drops the other. */
	{ "tokenizer_sp/nfkc", "a  <l> work b", "0 1 1 1 1 1 -1 2 2 2 2 3 3" },
	/* Bytes of a character without a token. */
	{ "tokenizer_sp/never",
	  "a\xe2\x98\x83\xf4\x8f\xbf\xbf\xe2\x82\xac"
	  "b",
	  "0 1 1 1 2 2 2 2 3 4 5 6" },
	/* Bytes overtake an unknown character. */
	{ "tokenizer_sp/never", "\xc2\xa0\xf4\x89\x9c\xa6>", "0 1 3 3 3 3 2" },
	{ "tokenizer_sp/first", "", "" },
};

static void test_given(void **state)
{
	struct lens_buf got = LENS_BUF_INIT;
	char dir[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(given) / sizeof(*given); i++) {
		struct lens_tokenizer *tok;

		snprintf(dir, sizeof(dir), DATA "%s", given[i].dir);
		tok = test_open_tokenizer(dir);
		places_of(tok, given[i].text, strlen(given[i].text), &got);
		if (strcmp(got.len ? got.data : "", given[i].want))
			fail_msg("%s, '%s': %s, not %s", given[i].dir, given[i].text, got.data,
				 given[i].want);
		lens_tokenizer_destroy(tok);
	}
	lens_buf_release(&got);
}

/*
 * Where nothing is normalised, the first k tokens decode to the bytes whose places are
 * below k, wherever a token ends with a character.
 */
static void check_prefixes(const struct lens_tokenizer *tok, const char *text, size_t n,
			   struct lens_ids *ids, int32_t *place)
{
	struct lens_buf out = LENS_BUF_INIT;
	size_t k, len;

	ids->n = 0;
	assert_int_equal(lens_tokenizer_encode_places(tok, text, n, ids, place, NULL), LENS_OK);
	for (k = 0; k <= ids->n; k++) {
		for (len = 0; len < n && place[len] < (int32_t)k; len++)
			assert_true(place[len] >= 0);
		if (len < n && ((unsigned char)text[len] & 0xc0) == 0x80)
			continue;
		out.len = 0;
		assert_int_equal(lens_tokenizer_decode(tok, ids->v, k, &out, NULL), LENS_OK);
		assert_int_equal(out.len, len);
		if (len)
			assert_memory_equal(out.data, text, len);
	}
	lens_buf_release(&out);
}

static void test_prefixes(void **state)
{
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "tokenizer/gpt2");
	FILE *f = test_open_data(DATA "tokenizer/strings.txt");
	struct lens_ids ids = LENS_IDS_INIT;
	int32_t *place = NULL;
	char *line = NULL;
	size_t cap = 0, rows = 0;
	ssize_t len;

	(void)state;
	for (; rows < 400 && (len = getline(&line, &cap, f)) > 18; rows++) {
		size_t n = test_unescape(line + 18, (size_t)len - 19);

		lens_free(place);
		place = lens_calloc(n, sizeof(*place));
		assert_non_null(place);
		check_prefixes(tok, line + 18, n, &ids, place);
	}
	assert_int_equal(rows, 400);
	lens_free(place);
	free(line);
	fclose(f);
	lens_ids_release(&ids);
	lens_tokenizer_destroy(tok);
}

/* Whatever is done to a text, places do not change its ids. */
static void test_same_ids(void **state)
{
	static const char *const dir[] = {
		"llama", "first", "always", "never", "gemma", "nfkc"
	};
	struct lens_buf got = LENS_BUF_INIT;
	char path[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(dir) / sizeof(*dir); i++) {
		FILE *f = test_open_data(DATA "tokenizer_sp/strings.txt");
		struct lens_tokenizer *tok;
		char *line = NULL;
		size_t cap = 0;
		ssize_t len;

		snprintf(path, sizeof(path), DATA "tokenizer_sp/%s", dir[i]);
		tok = test_open_tokenizer(path);
		while ((len = getline(&line, &cap, f)) > 1)
			places_of(tok, line, test_unescape(line, (size_t)len - 1), &got);
		free(line);
		fclose(f);
		lens_tokenizer_destroy(tok);
	}
	lens_buf_release(&got);
}

static enum lens_status open_and_place(void *ctx)
{
	static const char text[] = " Hi q\xcc\x81\xcc\xa7\xc2\xbd <l> a  b ";
	int32_t place[sizeof(text)];
	struct lens_tokenizer *tok = NULL;
	struct lens_ids ids = LENS_IDS_INIT;
	enum lens_status st = lens_tokenizer_open(ctx, &tok, NULL);

	if (st == LENS_OK)
		st = lens_tokenizer_encode_places(tok, text, sizeof(text) - 1, &ids, place,
						  NULL);
	lens_tokenizer_destroy(tok);
	lens_ids_release(&ids);
	return st;
}

static void test_no_memory(void **state)
{
	(void)state;
	test_alloc_failures(open_and_place, DATA "tokenizer/llama");
	test_alloc_failures(open_and_place, DATA "tokenizer_sp/nfkc");
	test_alloc_failures(open_and_place, DATA "tokenizer_sp/llama");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_given),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_same_ids),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
