/*
 * test_json.c: the two readings of JSON: the strict one, and that of files which
 * Python's json module wrote, where what does not fit is an error only for who
 * asks for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/json.h"
#include "support/cases.h"

static json_t *parse(const char *text)
{
	struct lens_error err = LENS_ERROR_INIT;
	json_t *root = NULL;

	if (lens_json_parse_python("f.json", text, strlen(text), &root, &err) != LENS_OK)
		fail_msg("%s: %s", text, err.text);
	assert_non_null(root);
	return root;
}

/* What value "k" is to who needs it. */
static void unusable_values(void **state)
{
	static const char *const cases[][2] = {
		{ "{\"k\": NaN}", "holds NaN" },
		{ "{\"k\": Infinity}", "holds Infinity" },
		{ "{\"k\":-Infinity}", "holds -Infinity" },
		{ "{\"k\": 1000000000000000019884624838656}",
		  "holds 1000000000000000019884624838656" },
		{ "{\"k\": 9223372036854775808}", "holds 9223372036854775808" },
		{ "{\"k\": -9223372036854775809}", "holds -9223372036854775809" },
		{ "{\"k\": 1e400}", "holds 1e400" },
		{ "{\"k\": -1.5E+999}", "holds -1.5E+999" },
		{ "{\"k\": 1, \"k\": 2}", "appears twice" },
		{ "{\"k\": 1, \"k\": 2, \"k\": [{}]}", "appears twice" },
		{ "{\"k\": {\"x\": NaN}, \"y\": 0, \"k\": NaN}", "appears twice" },
		{ "{\"k\": 1, \"\\u006b\": 2}", "appears twice" },
		{ "{\"a\": [NaN, {\"k\": NaN}], \"k\": NaN}", "holds NaN" },
		{ "{\"k\": \"a\\u0000b\"}", "holds a NUL" },
		{ "{\"k\": \"\\ud83d\"}", "holds half a surrogate pair" },
		{ "{\"k\": \"\\ud83dx\\ude00\"}", "holds half a surrogate pair" },
		{ "{\"k\": \"\\ude00\"}", "holds half a surrogate pair" },
		{ "{\"\\u0000\": 1, \"k\": NaN, \"\\ud83d\\u0000\": 1}", "holds NaN" },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		json_t *root = parse(cases[i][0]);
		const char *got = lens_json_unusable(json_object_get(root, "k"));

		if (!got || strcmp(got, cases[i][1]))
			fail_msg("%s: %s", cases[i][0], got ? got : "usable");
		json_decref(root);
	}
}

/* All else is what it was, beside them. */
static void usable_values(void **state)
{
	static const char *const values[] = {
		"9223372036854775807",
		"-9223372036854775808",
		"1.7976931348623157e308",
		"-1e-400",
		"0",
		"\"NaN\"",
		"\"a\\\"b: NaN, \"",
		"[1, [2, {}]]",
		"{\"k\": {\"k\": 1}}",
		"null",
		"true",
		"\"\\\\\"",
		"\"\\ud83d\\ude00\"",
		"\"\\\\u0000\"",
	};
	char text[200];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(values) / sizeof(*values); i++) {
		json_t *want = json_loads(values[i], JSON_DECODE_ANY, NULL), *root;

		snprintf(text, sizeof(text),
			 "{ \"a\" : NaN , \"k\" : %s , \"b\" : 1e999, \"b\" :%s\n}", values[i],
			 values[i]);
		root = parse(text);
		if (!json_equal(json_object_get(root, "k"), want))
			fail_msg("%s is another value", values[i]);
		json_decref(want);
		json_decref(root);
	}
}

/* What is wrong is told where it stands in the file, not in what we made of it. */
static void places_of_errors(void **state)
{
	static const struct {
		const char *text;
		int row, column;
	} cases[] = {
		{ "{\"k\": NaN, \"l\": nan}", 1, 19 },
		{ "{\"k\": NaN,\n \"l\": Infinity, \"m\": infinity}", 2, 29 },
		{ "{\"k\": 1, \"k\": 2, \"\xc3\xa9\": tru}", 1, 25 },
		{ "{\"k\": NaN\n", 2, 0 },
		{ "{\"k\": NaN}}", 1, 11 },
		{ "{\"k\": 1e999 1}", 1, 13 },
		{ "{\"k\": 01e999}", 1, 7 },
		{ "{\"k\": NaN, \"k\": \"\x01\"}", 1, 17 },
		{ "{\"k\": tru}", 1, 9 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lens_error err = LENS_ERROR_INIT;
		json_t *root;

		assert_int_equal(lens_json_parse_python("f.json", cases[i].text,
							strlen(cases[i].text), &root, &err),
				 LENS_ERR_FORMAT);
		assert_null(root);
		assert_non_null(strstr(err.text, "not valid JSON: "));
		if (err.row != cases[i].row || err.column != cases[i].column)
			fail_msg("%s: %ld:%ld, %s", cases[i].text, err.row, err.column,
				 err.text);
	}
}

/* Our own files and those of tensors: no number that is none, no key twice. */
static void strict(void **state)
{
	static const char *const cases[] = { "{\"k\": NaN}", "{\"k\": 1e400}",
					     "{\"k\": 9223372036854775808}",
					     "{\"k\": 1, \"k\": 1}" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lens_error err = LENS_ERROR_INIT;
		json_t *root;

		assert_int_equal(lens_json_parse("f.json", cases[i], strlen(cases[i]), &root,
						 &err),
				 LENS_ERR_FORMAT);
		assert_non_null(strstr(err.text, "not valid JSON: "));
	}
}

/* before, then part n times over, then after. */
static enum lens_status parse_many(const char *before, const char *part, size_t n,
				   const char *after, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	json_t *root = NULL;
	enum lens_status st;
	size_t i;

	assert_int_equal(lens_buf_append(&b, before, strlen(before), NULL), LENS_OK);
	for (i = 0; i < n; i++)
		assert_int_equal(lens_buf_append(&b, part, strlen(part), NULL), LENS_OK);
	assert_int_equal(lens_buf_append(&b, after, strlen(after), NULL), LENS_OK);
	st = lens_json_parse_python("f.json", b.data, b.len, &root, err);
	json_decref(root);
	lens_buf_release(&b);
	return st;
}

static void bounds(void **state)
{
	struct lens_error err = LENS_ERROR_INIT, deep = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(parse_many("{\"k\": [0", ", NaN", LENS_JSON_MAX_UNUSABLE, "]}", &err),
			 LENS_OK);
	assert_int_equal(parse_many("{\"k\": [0", ", NaN", LENS_JSON_MAX_UNUSABLE + 1, "]}",
				    &err),
			 LENS_ERR_FORMAT);
	assert_non_null(strstr(err.text, "more than 65536"));
	assert_int_equal(parse_many("{\"k\": NaN, \"l\": ", "[", 5000, "", &deep),
			 LENS_ERR_FORMAT);
	assert_non_null(strstr(deep.text, "levels"));
}

static enum lens_status parse_all(void *ctx)
{
	struct lens_error err = LENS_ERROR_INIT;
	json_t *root;
	enum lens_status st;

	st = lens_json_parse_python("f.json", ctx, strlen(ctx), &root, &err);
	json_decref(root);
	return st;
}

static void no_memory(void **state)
{
	char text[] = "{\"k\": NaN, \"l\": [1e999, {\"m\": 1, \"m\": [2]}], \"k\": \"x\"}";

	(void)state;
	test_alloc_failures(parse_all, text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unusable_values),  cmocka_unit_test(usable_values),
		cmocka_unit_test(places_of_errors), cmocka_unit_test(strict),
		cmocka_unit_test(bounds),           cmocka_unit_test(no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
