/*
 * support/storefile.h: what the tests of the HDF5 file share: a place for one
 * file, a file with everything in it, and calls that must succeed or fail.
 */
#ifndef LENS_TEST_STOREFILE_H
#define LENS_TEST_STOREFILE_H

#include "h5lens/store.h"

/* A test's own folder, the output in it, and that while it is written. */
extern char test_dir[128], test_path[192], test_part[200];

/* cmocka setup and teardown: the folder must be left with nothing else in it. */
int test_store_setup(void **state);
int test_store_teardown(void **state);

#define ok(expr)                                                                               \
	do {                                                                                   \
		struct lens_error e_ = LENS_ERROR_INIT, *err = &e_;                            \
		char buf_[2200];                                                               \
		if ((expr) != LENS_OK)                                                         \
			fail_msg("%s: %s", #expr, lens_error_format(&e_, buf_, sizeof(buf_))); \
	} while (0)

#define fails(code_, expr)                                                                     \
	do {                                                                                   \
		struct lens_error e_ = LENS_ERROR_INIT, *err = &e_;                            \
		assert_int_equal(expr, code_);                                                 \
		assert_int_equal(e_.code, code_);                                              \
		assert_true(e_.text[0] != '\0');                                               \
	} while (0)

/* --- a file with everything in it ------------------------------------------ */

#define TEST_ROWS 5
#define TEST_POS 3

extern const char *const test_texts[TEST_ROWS];
extern const char *const test_labels[TEST_POS];

/* Writes chunk (c0, c1), or c0 of a rank of 1, with the digest of buf. */
enum lens_status test_put(struct lens_store *s, int id, size_t c0, size_t c1, const void *buf,
			  size_t n, struct lens_error *err);
/* [TEST_ROWS, TEST_POS] in chunks of 2×2. */
struct lens_dataset_spec test_spec2(const char *p, enum lens_dtype t);
/* TEST_ROWS strings. */
struct lens_dataset_spec test_spec_text(const char *p);
/* Chunk (c0, c1) of the 5×3 datasets, [row][pos] = 10 row + pos. */
void test_fill_f32(float v[4], size_t c0, size_t c1);
/* The whole file, committed. */
enum lens_status test_write_store(const char *final, struct lens_error *err);
/* Does the dataset `name` of test_path hold what test_fill_f32 gave? */
void test_check_numbers(const char *name);
/* A file's bytes; lens_buf_release them. */
struct lens_buf test_slurp(const char *name);

#endif
