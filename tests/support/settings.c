/*
 * support/settings.c: see settings.h.
 */
#include "support/settings.h"

#include "support/cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct lens_experiment test_e;
struct lens_error test_err;

int test_settings_setup(void **state)
{
	(void)state;
	test_err = (struct lens_error)LENS_ERROR_INIT;
	return lens_experiment_init(&test_e, &test_err) != LENS_OK;
}

int test_settings_teardown(void **state)
{
	(void)state;
	lens_experiment_release(&test_e);
	return 0;
}

void test_settings_set(struct lens_experiment *e, const char *key, const char *value)
{
	struct lens_error err = LENS_ERROR_INIT;

	if (lens_experiment_set(e, key, value, &err) != LENS_OK)
		fail_msg("%s=%s: %s", key, value, err.text);
}

void test_settings_load(struct lens_experiment *e, const char *yaml)
{
	struct lens_error err = LENS_ERROR_INIT;
	char *path = test_write_file("exp.yaml", yaml, strlen(yaml));

	if (lens_experiment_load(e, path, &err) != LENS_OK)
		fail_msg("line %ld: %s", err.row, err.text);
	assert_string_equal(e->source, yaml);
	unlink(path);
	lens_free(path);
}

char *test_settings_json(const struct lens_experiment *e, bool identity_only)
{
	char *text;

	assert_int_equal(lens_experiment_json(e, identity_only, &text, NULL), LENS_OK);
	return text;
}

void test_assert_strings(const struct lens_strings *s, size_t n, const char *const *want)
{
	size_t i;

	assert_int_equal(s->n, n);
	for (i = 0; i < n; i++)
		assert_string_equal(s->v[i], want[i]);
}
