/*
 * support/joins.h: what the tests of joined files share: three shards beside
 * the one output of storefile.h, made anew for each test, and what verifying
 * says of a file.
 */
#ifndef LENS_TEST_JOINS_H
#define LENS_TEST_JOINS_H

#include "h5lens/store.h"

#define TEST_SHARDS 3
#define TEST_ANSWERS 2

extern const size_t test_shard_rows[TEST_SHARDS], test_shard_pos[TEST_SHARDS];
extern const char *const test_answers[TEST_ANSWERS];
extern const struct lens_join_options test_join_quick; /* quick, and no more */

/* Where the shards are, their names as the output says them, and both for joining. */
extern char test_shard_file[TEST_SHARDS][192], test_shard_name[TEST_SHARDS][64];
extern struct lens_shard_file test_shards[TEST_SHARDS];

/* cmocka setup and teardown: test_store_setup and _teardown, and the shards. */
int test_join_setup(void **state);
int test_join_teardown(void **state);

#define TEST_JOIN(f) cmocka_unit_test_setup_teardown(f, test_join_setup, test_join_teardown)

/* What a shard is like; a test changes one thing. */
struct test_recipe {
	const char *identity, *build;
	const char *label; /* of the second answer */
	int number, total; /* attributes; -1: none */
	size_t first_row;
	enum lens_dtype z; /* of hook_z */
	bool more;         /* one dataset that the others lack */
	bool counts;       /* first_token, and of a type that it never has */
	size_t chunk_rows;
};

/* As setup makes it. */
struct test_recipe test_recipe_of(size_t shard);
void test_write_shard(size_t shard, const struct test_recipe *r);
/* The streams' value; row counts over all shards. */
float test_stream_value(size_t row, size_t pos, size_t d);

/* --- what verifying says --------------------------------------------------- */

struct test_damage {
	size_t n;
	char text[4000];
};

/* For lens_store_verify; ctx: struct test_damage. Counts, and adds a line to the text. */
void test_see_damage(void *ctx, const char *dataset, const char *what);
/* All of it is read and nothing is bad, in one process and in two. */
void test_check_sound(const char *file);

#endif
