/*
 * unit/test_tokenizer.c: the tokenizer against Hugging Face's answers, which
 * scripts/make_tokenizer_fixture.py left in data/tokenizer, against rules that
 * can be stated here, against bad directories, and without memory.
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

#define DATA "tests/unit/data/tokenizer"
#define SAVED "tests/unit/data/saved/tf4"

enum { DECODES = 64, DECODE_IDS = 400 }; /* as in the script */

/* --- against Hugging Face ------------------------------------------------- */

static void test_strings(void **state)
{
	struct lens_tokenizer *gpt2 = test_open_tokenizer(DATA "/gpt2"),
			      *files = test_open_tokenizer(DATA "/files");
	struct lens_tokenizer *llama = test_open_tokenizer(DATA "/llama");
	struct lens_ids ids = LENS_IDS_INIT;
	FILE *f = test_open_data(DATA "/strings.txt");
	size_t cap = 0, row = 0, bad = 0;
	char *line = NULL;
	ssize_t len;

	(void)state;
	while ((len = getline(&line, &cap, f)) > 18) {
		size_t n = test_unescape(line + 18, (size_t)len - 19);
		uint32_t want_gpt2 = (uint32_t)strtoul(line, NULL, 16);
		uint32_t want_llama = (uint32_t)strtoul(line + 9, NULL, 16);
		bool same;

		test_encode(gpt2, line + 18, n, &ids);
		same = test_ids_digest(&ids) == want_gpt2;
		test_encode(files, line + 18, n, &ids);
		same = same && test_ids_digest(&ids) == want_gpt2;
		test_encode(llama, line + 18, n, &ids);
		same = same && test_ids_digest(&ids) == want_llama;
		row++;
		if (!same && bad++ < 5)
			print_error("strings.txt:%zu differs\n", row);
	}
	assert_int_equal(bad, 0);
	assert_true(row >= 2000);
	free(line);
	fclose(f);
	lens_ids_release(&ids);
	lens_tokenizer_destroy(gpt2);
	lens_tokenizer_destroy(files);
	lens_tokenizer_destroy(llama);
}

/* What of code_point_digests.txt a run is checked against. */
struct runs {
	struct lens_tokenizer *gpt2, *llama;
	struct lens_ids ids;
	FILE *want;
	size_t n, bad;
};

static void check_run(void *ctx, const char *text, size_t len)
{
	struct runs *r = ctx;
	unsigned want_gpt2, want_llama;
	bool same;

	assert_int_equal(fscanf(r->want, "%x %x", &want_gpt2, &want_llama), 2);
	test_encode(r->gpt2, text, len, &r->ids);
	same = test_ids_digest(&r->ids) == want_gpt2;
	test_encode(r->llama, text, len, &r->ids);
	same = same && test_ids_digest(&r->ids) == want_llama;
	r->n++;
	if (!same && r->bad++ < 5)
		print_error("code_point_digests.txt:%zu differs\n", r->n);
}

static void test_code_points(void **state)
{
	struct runs r = { .gpt2 = test_open_tokenizer(DATA "/gpt2"),
			  .llama = test_open_tokenizer(DATA "/llama"),
			  .want = test_open_data(DATA "/code_point_digests.txt") };

	(void)state;
	test_code_point_runs(check_run, &r);
	assert_int_equal(r.bad, 0);
	fclose(r.want);
	lens_ids_release(&r.ids);
	lens_tokenizer_destroy(r.gpt2);
	lens_tokenizer_destroy(r.llama);
}

/* Random ids make broken UTF-8 of every kind. */
static void test_decode_random(void **state)
{
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "/llama");
	uint32_t below = (uint32_t)lens_tokenizer_n_vocab(tok) + 2;
	FILE *f = test_open_data(DATA "/decode_digests.txt");
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	unsigned want;
	uint64_t i;

	(void)state;
	for (i = 0; i < DECODES; i++) {
		test_random_ids(i, DECODE_IDS, below, &ids);
		out.len = 0;
		assert_int_equal(lens_tokenizer_decode(tok, ids.v, ids.n, &out, NULL), LENS_OK);
		assert_true(lens_utf8_valid(out.data, out.len));
		assert_int_equal(fscanf(f, "%x", &want), 1);
		assert_int_equal(test_fnv(TEST_FNV, out.data, out.len), want);
	}
	fclose(f);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	lens_tokenizer_destroy(tok);
}

/* --- rules ---------------------------------------------------------------- */

/* Without a normaliser, decoding the ids of a text gives the text. */
static void test_round_trip(void **state)
{
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "/gpt2");
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	FILE *f = test_open_data(DATA "/strings.txt");
	char *line = NULL;
	size_t cap = 0;
	ssize_t len;

	(void)state;
	while ((len = getline(&line, &cap, f)) > 18) {
		size_t n = test_unescape(line + 18, (size_t)len - 19);

		test_encode(tok, line + 18, n, &ids);
		out.len = 0;
		assert_int_equal(lens_tokenizer_decode(tok, ids.v, ids.n, &out, NULL), LENS_OK);
		assert_int_equal(out.len, n);
		assert_memory_equal(out.data, line + 18, n);
	}
	free(line);
	fclose(f);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	lens_tokenizer_destroy(tok);
}

static void test_empty_and_append(void **state)
{
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "/gpt2");
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	int32_t bad = -1;

	(void)state;
	test_encode(tok, "", 0, &ids);
	assert_int_equal(ids.n, 0);
	assert_int_equal(lens_ids_push(&ids, 77, NULL), LENS_OK);
	assert_int_equal(lens_tokenizer_encode(tok, "a", 1, &ids, NULL), LENS_OK);
	assert_int_equal(ids.n, 2);
	assert_int_equal(ids.v[0], 77);
	/* A failure leaves what was there. */
	assert_int_equal(lens_tokenizer_encode(tok, "a\xff", 2, &ids, &err), LENS_ERR_FORMAT);
	assert_int_equal(ids.n, 2);

	assert_int_equal(lens_buf_append(&out, "x", 1, NULL), LENS_OK);
	assert_int_equal(lens_tokenizer_decode(tok, ids.v + 1, 1, &out, NULL), LENS_OK);
	assert_string_equal(out.data, "xa");
	assert_int_equal(lens_tokenizer_decode(tok, &bad, 1, &out, NULL), LENS_ERR_INVALID);
	assert_int_equal(out.len, 2);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	lens_tokenizer_destroy(tok);
}

static void test_nul_in_text(void **state)
{
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "/gpt2");
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;

	(void)state;
	test_encode(tok, "a\0b", 3, &ids);
	assert_int_equal(ids.n, 3);
	assert_int_equal(lens_tokenizer_decode(tok, ids.v, ids.n, &out, NULL), LENS_OK);
	assert_int_equal(out.len, 3);
	assert_memory_equal(out.data, "a\0b", 3);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	lens_tokenizer_destroy(tok);
}

static void test_bos_from_each_file(void **state)
{
	static const char *const dir[] = { DATA "/gpt2", DATA "/files", DATA "/llama" };
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct lens_tokenizer *tok = test_open_tokenizer(dir[i]);
		int32_t bos = -1;

		assert_int_equal(lens_tokenizer_bos(tok, &bos, NULL), LENS_OK);
		assert_int_equal(bos, 0);
		lens_tokenizer_destroy(tok);
	}
}

static void test_n_vocab_and_digest(void **state)
{
	struct lens_tokenizer *a = test_open_tokenizer(DATA "/gpt2"),
			      *b = test_open_tokenizer(DATA "/gpt2");
	struct lens_tokenizer *c = test_open_tokenizer(DATA "/llama");

	(void)state;
	assert_int_equal(lens_tokenizer_n_vocab(a), 600);
	assert_int_equal(lens_tokenizer_n_vocab(c), 608); /* with its 8 added tokens */
	assert_memory_equal(lens_tokenizer_sha256(a), lens_tokenizer_sha256(b),
			    LENS_SHA256_BYTES);
	assert_memory_not_equal(lens_tokenizer_sha256(a), lens_tokenizer_sha256(c),
				LENS_SHA256_BYTES);
	lens_tokenizer_destroy(a);
	lens_tokenizer_destroy(b);
	lens_tokenizer_destroy(c);
}

/* A long word makes the merge queue long; the answer is that of its parts. */
static void test_long_words(void **state)
{
	enum { N = 1 << 18 };
	struct lens_tokenizer *tok = test_open_tokenizer(DATA "/gpt2");
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	char *text = malloc(N);
	size_t i;

	(void)state;
	assert_non_null(text);
	for (i = 0; i < N; i++)
		text[i] = "the work of tokenizer"[i * i % 3 + i % 19];
	for (i = 0; i < N; i++)
		text[i] = text[i] == ' ' ? 'e' : text[i];
	test_encode(tok, text, N, &ids);
	assert_true(ids.n < N);
	assert_int_equal(lens_tokenizer_decode(tok, ids.v, ids.n, &out, NULL), LENS_OK);
	assert_int_equal(out.len, N);
	assert_memory_equal(out.data, text, N);
	free(text);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	lens_tokenizer_destroy(tok);
}

/* --- tokenizers made here ------------------------------------------------- */

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"

#define MODEL(pre, vocab, merges)                                                              \
	"{\"pre_tokenizer\":" pre ",\"decoder\":{\"type\":\"ByteLevel\"},"                     \
	"\"model\":{\"vocab\":{" vocab "},\"merges\":[" merges "]}}"
#define SPLIT(pattern, behavior, invert)                                                       \
	"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","                       \
	"\"pattern\":" pattern ",\"behavior\":\"" behavior "\","                               \
	"\"invert\":" invert "}," BYTE_LEVEL "]}"

static void test_merge_order(void **state)
{
	static const char vocab_merges[] =
		MODEL(BYTE_LEVEL, "\"a\":0,\"b\":1,\"ab\":2,\"ba\":3,\"aba\":4,\"aa\":5",
		      "\"b a\",\"a b\",\"ab a\",\"a ba\",\"a a\"");
	/* A pair that is listed twice has its last rank. */
	static const char twice[] = MODEL(BYTE_LEVEL, "\"a\":0,\"b\":1,\"ab\":2,\"ba\":3",
					  "\"a b\",\"b a\",\"a b\"");
	/* Merges that lead nowhere and a token that merges with itself for ever. */
	static const char cycle[] = MODEL(BYTE_LEVEL, "\"a\":0,\"aa\":1,\"aaaa\":2,\"aaa\":3",
					  "\"a a\",\"aa aa\",\"a aa\",\"aa a\"");

	(void)state;
	test_check_ids(vocab_merges, "ababa", "4 3"); /* a b a b a, a ba b a, a ba ba, aba ba */
	test_check_ids(vocab_merges, "aba", "4");
	test_check_ids(vocab_merges, "aaa", "5 0");
	test_check_ids(twice, "aba", "0 3");
	test_check_ids(cycle, "aaaaaaa", "2 3");
}

static void test_split_behaviors(void **state)
{
#define CASE(behavior, invert)                                                                 \
	MODEL(SPLIT("{\"Regex\":\"-\"}", behavior, invert),                                    \
	      "\"a\":0,\"-\":1,\"a-\":2,\"-a\":3,\"--\":4,\"aa\":5",                           \
	      "\"a -\",\"- a\",\"- -\",\"a a\"")
	(void)state;
	test_check_ids(CASE("Isolated", "false"), "aa--aa-", "5 1 1 5 1");
	test_check_ids(CASE("Removed", "false"), "aa--aa-", "5 5");
	test_check_ids(CASE("Removed", "true"), "aa--aa-", "1 1 1");
	test_check_ids(CASE("Contiguous", "false"), "aa--aa-", "5 4 5 1");
	test_check_ids(CASE("MergedWithPrevious", "false"), "a--a-", "2 1 2");
	test_check_ids(CASE("MergedWithNext", "false"), "a--a-", "0 1 3 1");
#undef CASE
}

/* PCRE2's \s has U+180E and Unicode's White_Space has not. */
static void test_white_space(void **state)
{
	static const char json[] = MODEL(SPLIT("{\"Regex\":\"\\\\s\"}", "Removed", "false"),
					 "\"a\":0,\"á\":1,\"ł\":2,\"İ\":3,\"Â\":4,\"ħ\":5", "");

	(void)state;
	test_check_ids(json,
		       "a\xc2\x85"
		       "a\xe2\x80\xa8"
		       "a\v",
		       "0 0 0");
	test_check_ids(json, "a\xe1\xa0\x8e", "0 1 2 3"); /* U+180E: its three bytes stay */
}

/* Of added tokens the longest is taken, also where it shares its beginning. */
static void test_longest_added_token(void **state)
{
#define TOKEN(id, content)                                                                     \
	"{\"id\":" id ",\"content\":\"" content "\",\"single_word\":false,"                    \
	"\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}"
	static const char json[] =
		"{\"added_tokens\":[" TOKEN("1", "<x") "," TOKEN("2", "<x>y") "," TOKEN(
			"3", "<x>") "],\"pre_tokenizer\":" BYTE_LEVEL ","
				    "\"decoder\":{\"type\":\"ByteLevel\"},"
				    "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}";

	(void)state;
	test_check_ids(json, "a<x>y<x>a<xa<x><x>y", "0 2 3 0 1 0 3 2");
#undef TOKEN
}

/* What an earlier token's rstrip took is no token any more, nor an empty one. */
static void test_taken_added_token(void **state)
{
	static const char json[] =
		"{\"added_tokens\":[{\"id\":1,\"content\":\"  \",\"single_word\":false,"
		"\"lstrip\":true,\"rstrip\":true,\"normalized\":false,\"special\":false}],"
		"\"pre_tokenizer\":" BYTE_LEVEL ",\"decoder\":{\"type\":\"ByteLevel\"},"
		"\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}";

	(void)state;
	test_check_ids(json, "a    a", "0 1 0");
	test_check_ids(json, "a  a    a", "0 1 0 1 0");
}

static void test_ignore_merges(void **state)
{
#define IGNORE(yes)                                                                            \
	"{\"pre_tokenizer\":" BYTE_LEVEL ",\"decoder\":{\"type\":\"ByteLevel\"},"              \
	"\"model\":{\"ignore_merges\":" yes ",\"vocab\":{\"a\":0,\"Ġ\":1,"                    \
	"\"Ġaa\":2},\"merges\":[]}}"
	(void)state;
	test_check_ids(IGNORE("true"), " aa", "2");
	test_check_ids(IGNORE("true"), " aaa", "1 0 0 0");
	test_check_ids(IGNORE("false"), " aa", "1 0 0");
#undef IGNORE
}

static void test_deep_json(void **state)
{
	enum { DEPTH = 100000 };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok;
	char *json = malloc(DEPTH + 1), *dir;

	(void)state;
	assert_non_null(json);
	memset(json, '[', DEPTH);
	json[DEPTH] = '\0';
	dir = test_tokenizer_dir(json);
	assert_int_equal(lens_tokenizer_open(dir, &tok, &err), LENS_ERR_FORMAT);
	assert_null(tok);
	assert_non_null(strstr(err.text, "not valid JSON"));
	test_remove_tokenizer_dir(dir);
	free(json);
}

/* A pattern that backtracks without end is an error, not a hang. */
static void test_runaway_pattern(void **state)
{
	static const char json[] =
		MODEL(SPLIT("{\"Regex\":\"(?:a|a)+\\\\p{N}\"}", "Isolated", "false"), "\"a\":0",
		      "");
	char *dir = test_tokenizer_dir(json), text[64];
	struct lens_tokenizer *tok = test_open_tokenizer(dir);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(lens_tokenizer_encode(tok, text, sizeof(text), &ids, &err),
			 LENS_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "gave up"));
	lens_tokenizer_destroy(tok);
	lens_ids_release(&ids);
	test_remove_tokenizer_dir(dir);
}

/* --- bad input, no memory ------------------------------------------------- */

static void run_case(const char *folder, struct lens_buf *told)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok = NULL;
	struct lens_buf text = LENS_BUF_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	char *path = lens_path_join(folder, "text"), *choice = lens_path_join(folder, "bos");
	char line[2048];
	enum lens_status st;
	int32_t bos;

	st = lens_tokenizer_open(folder, &tok, &err);
	assert_true((st == LENS_OK) == (tok != NULL));
	if (st == LENS_OK && lens_file_exists(choice)) {
		assert_int_equal(lens_file_read(choice, 4096, &text, NULL), LENS_OK);
		st = lens_tokenizer_choose_bos(tok, text.data, &err);
		text.len = 0;
	}
	if (st == LENS_OK)
		st = lens_tokenizer_bos(tok, &bos, &err);
	if (st == LENS_OK)
		st = lens_file_read(path, 4096, &text, &err);
	if (st == LENS_OK)
		st = lens_tokenizer_encode(tok, text.data, text.len, &ids, &err);
	assert_int_not_equal(st, LENS_ERR_INTERNAL);
	if (st != LENS_OK)
		assert_int_equal(lens_buf_printf(told, NULL, "%s",
						 lens_error_format(&err, line, sizeof(line))),
				 LENS_OK);
	lens_tokenizer_destroy(tok);
	lens_buf_release(&text);
	lens_ids_release(&ids);
	lens_free(path);
	lens_free(choice);
}

static void test_bad_directories(void **state)
{
	(void)state;
	test_run_cases("tests/invalid/tokenizer", run_case);
}

static enum lens_status open_encode_decode(void *ctx)
{
	static const char text[] = "Hello <l>  123 work e\xcc\x81\xcc\xa3 \xe4\xbd\xa0's\n";
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok = NULL;
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	enum lens_status st;
	int32_t bos;

	st = lens_tokenizer_open(ctx, &tok, &err);
	if (st == LENS_OK)
		st = lens_tokenizer_encode(tok, text, sizeof(text) - 1, &ids, &err);
	if (st == LENS_OK)
		st = lens_tokenizer_decode(tok, ids.v, ids.n, &out, &err);
	if (st == LENS_OK)
		st = lens_tokenizer_bos(tok, &bos, &err);
	lens_tokenizer_destroy(tok);
	lens_ids_release(&ids);
	lens_buf_release(&out);
	return st;
}

static enum lens_status open_only(void *ctx)
{
	struct lens_buf doubt = LENS_BUF_INIT;
	struct lens_tokenizer *tok = NULL;
	enum lens_status st = lens_tokenizer_open(ctx, &tok, NULL);

	if (st == LENS_OK)
		st = lens_tokenizer_bos_doubt(tok, &doubt, NULL);
	lens_buf_release(&doubt);
	lens_tokenizer_destroy(tok);
	return st;
}

/* The allocations of jansson and PCRE2 fail in turn as well. */
static void test_no_memory(void **state)
{
	(void)state;
	test_alloc_failures(open_encode_decode, DATA "/llama");
	test_alloc_failures(open_encode_decode, DATA "/files");
	test_alloc_failures(open_only, SAVED "/qwen2-slow");
	test_alloc_failures(open_only, "tests/invalid/tokenizer/bos-missing-config");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_code_points),
		cmocka_unit_test(test_decode_random),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty_and_append),
		cmocka_unit_test(test_nul_in_text),
		cmocka_unit_test(test_bos_from_each_file),
		cmocka_unit_test(test_n_vocab_and_digest),
		cmocka_unit_test(test_long_words),
		cmocka_unit_test(test_merge_order),
		cmocka_unit_test(test_split_behaviors),
		cmocka_unit_test(test_white_space),
		cmocka_unit_test(test_longest_added_token),
		cmocka_unit_test(test_taken_added_token),
		cmocka_unit_test(test_ignore_merges),
		cmocka_unit_test(test_deep_json),
		cmocka_unit_test(test_runaway_pattern),
		cmocka_unit_test(test_bad_directories),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
