/*
 * support/place.h: an empty temporary folder for each test, with the name of an output
 * in it. A call that fails fails the test.
 */
#ifndef LENS_TEST_PLACE_H
#define LENS_TEST_PLACE_H

#include <stdbool.h>
#include <stddef.h>

/* Between set-up and tear-down: the folder, and "…/out.h5" in it, which is not there. */
extern char *test_place, *test_place_output;
/* For cmocka_unit_test_setup_teardown. */
int test_place_set_up(void **state);
int test_place_tear_down(void **state);

/* A file in a folder, and whether one is there. */
void test_write_text(const char *folder, const char *name, const char *text);
bool test_is_there(const char *folder, const char *name);
/* Files in it whose names end like this. */
size_t test_count_files(const char *folder, const char *ending);

#endif
