/*
 * unit/test_classes.c: what the class and the small files change in a tokenizer,
 * against what transformers 4.56 and TransformerLens 2.16 make of the same folder
 * (scripts/make_class_cases.py left them in data/classes). Each case is read with
 * the same ids and the same BOS, or refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/runs.h"
#include "support/tokens.h"

#define DATA "tests/unit/data/classes"

struct counts {
	size_t read, refused, bad;
};

static void put(const char *dir, const char *name, const char *data, size_t n)
{
	char *path = lens_path_join(dir, name);
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
	lens_free(path);
}

static void put_json(const char *dir, const char *name, const json_t *value)
{
	char *path = lens_path_join(dir, name), *text;

	unlink(path);
	lens_free(path);
	if (!value)
		return;
	text = json_dumps(value, 0);
	assert_non_null(text);
	put(dir, name, text, strlen(text));
	free(text);
}

static void make_folder(const char *dir, const json_t *c)
{
	struct lens_buf base = LENS_BUF_INIT;
	char path[128];

	snprintf(path, sizeof(path), DATA "/%s.json",
		 json_string_value(json_object_get(c, "base")));
	assert_int_equal(lens_file_read(path, 1 << 20, &base, NULL), LENS_OK);
	put(dir, "tokenizer.json", base.data, base.len);
	lens_buf_release(&base);
	put_json(dir, "config.json", json_object_get(c, "config"));
	put_json(dir, "tokenizer_config.json", json_object_get(c, "tokenizer_config"));
	put_json(dir, "special_tokens_map.json", json_object_get(c, "special_tokens_map"));
}

static size_t wrong_ids(const struct lens_tokenizer *tok, const json_t *texts, const json_t *c)
{
	struct lens_ids ids = LENS_IDS_INIT;
	size_t i, bad = 0;
	char digest[16];
	json_t *t;

	json_array_foreach (texts, i, t) {
		test_encode(tok, json_string_value(t), json_string_length(t), &ids);
		snprintf(digest, sizeof(digest), "%08x", test_ids_digest(&ids));
		if (strcmp(digest,
			   json_string_value(json_array_get(json_object_get(c, "ids"), i)))) {
			print_error("other ids for |%s|\n", json_string_value(t));
			bad++;
		}
	}
	lens_ids_release(&ids);
	return bad;
}

/* -1: TransformerLens does not open it. A token that transformers makes up is none to us. */
static size_t wrong_bos(const struct lens_tokenizer *tok, const json_t *c)
{
	json_int_t want = json_integer_value(json_object_get(c, "lens_bos"));
	int32_t bos = -1;
	bool none = lens_tokenizer_bos(tok, &bos, NULL) != LENS_OK;

	if (want < 0 || bos == want ||
	    (none && want >= json_integer_value(json_object_get(c, "known"))))
		return 0;
	print_error("BOS is %d, TransformerLens's %d\n", bos, (int)want);
	return 1;
}

static void check_case(const char *dir, const json_t *texts, const json_t *c, struct counts *n)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok;
	size_t bad;

	make_folder(dir, c);
	if (lens_tokenizer_open(dir, &tok, &err) != LENS_OK) {
		if (err.code != LENS_ERR_UNSUPPORTED)
			fail_msg("%s: %s", json_string_value(json_object_get(c, "base")),
				 err.text);
		n->refused++;
		return;
	}
	bad = wrong_ids(tok, texts, c) + wrong_bos(tok, c);
	if (bad) {
		char *text = json_dumps(c, 0);

		print_error("  %s\n", text);
		free(text);
	}
	n->bad += !!bad;
	n->read++;
	lens_tokenizer_destroy(tok);
}

static void classes(void **state)
{
	json_t *root = json_load_file(DATA "/cases.json", 0, NULL), *c;
	char *dir = test_tmp_path("classes");
	struct counts n = { 0, 0, 0 };
	size_t i;

	(void)state;
	assert_non_null(root);
	assert_int_equal(mkdir(dir, 0777), 0);
	json_array_foreach (json_object_get(root, "cases"), i, c)
		check_case(dir, json_object_get(root, "texts"), c, &n);
	print_message("%zu read, %zu refused, %zu otherwise\n", n.read, n.refused, n.bad);
	assert_int_equal(n.bad, 0);
	assert_true(n.read > 400 && n.refused < 10);
	test_remove_tokenizer_dir(dir);
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(classes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
