/*
 * support/settings.h: what the tests of the experiment's settings share: values
 * and files that must be taken, the effective JSON, and lists of strings. A call
 * that fails fails the test.
 */
#ifndef LENS_TEST_SETTINGS_H
#define LENS_TEST_SETTINGS_H

#include "h5lens/experiment.h"

/* What a test sets, and the last error. cmocka setup and teardown: anew for each test. */
extern struct lens_experiment test_e;
extern struct lens_error test_err;
int test_settings_setup(void **state);
int test_settings_teardown(void **state);

/* As --set does. */
void test_settings_set(struct lens_experiment *e, const char *key, const char *value);
/* From a file with this text. */
void test_settings_load(struct lens_experiment *e, const char *yaml);
/* lens_free it. */
char *test_settings_json(const struct lens_experiment *e, bool identity_only);

void test_assert_strings(const struct lens_strings *s, size_t n, const char *const *want);
#define ASSERT_STRINGS(s, ...)                                                                 \
	test_assert_strings(s, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *),  \
			    (const char *const[]){ __VA_ARGS__ })

#endif
