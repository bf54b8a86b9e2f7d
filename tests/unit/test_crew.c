/*
 * test_crew.c: threads that other workers have left: how many a worker gets, that large
 * products and attention use them, and that no bit depends on it. Once for each CPU level
 * (H5LENS_TEST_CPU).
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/numbers.h"
#include "support/passes.h"
#include "support/runs.h"

#define MODEL "tests/golden/data/gpt2_gelu_new"

static struct test_random rnd = { 1 };

static void shares(void **state)
{
	(void)state;
	assert_int_equal(lens_crew_share(3), 3); /* no run */
	lens_crew_join(2);
	lens_crew_join(2);
	lens_crew_join(2);
	assert_int_equal(lens_crew_share(2), 2);
	lens_crew_rest(2);
	assert_int_equal(lens_crew_share(2), 3); /* two threads for two workers */
	lens_crew_rest(2);
	assert_int_equal(lens_crew_share(2), 6); /* all for the last */
	lens_crew_join(2);
	assert_int_equal(lens_crew_share(2), 3); /* a worker of the next shard takes its own */
	lens_crew_rest(2);
	lens_crew_rest(2);
	assert_int_equal(lens_crew_share(2), 2);
}

/* As if one of two workers, of `threads` each, had ended; or as if there were none. */
static void leave(int threads)
{
	lens_crew_join(1);
	lens_crew_join(1);
	lens_crew_rest((size_t)threads);
}

static void nobody_left(void)
{
	lens_crew_rest(1);
}

/* Threads of this process. The OpenMP library keeps those that it has started. */
static size_t count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	size_t n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

enum { M = 1000, N = 512, K = 256 };

static float *product(size_t m, const float *a, const float *b)
{
	float *c = test_floats((size_t)M * N, 0);
	float *pad = test_floats(lens_gemm_pad_floats(N, K), 0);
	const struct lens_gemm_args g = { .m = m,
					  .n = N,
					  .k = K,
					  .a = a,
					  .lda = K,
					  .b = b,
					  .ldb = N,
					  .trans = LENS_B_PLAIN,
					  .c = c,
					  .ldc = N };

	lens_gemm(&g, pad, 1);
	lens_free(pad);
	return c;
}

static void products(void **state)
{
	float *a = test_random_floats(&rnd, (size_t)M * K);
	float *b = test_random_floats(&rnd, (size_t)N * K);
	float *alone = product(M, a, b), *helped;
	size_t before = count_threads();

	(void)state;
	assert_true(before < 5);
	leave(4);
	helped = product(200, a, b); /* too small: it would not pay */
	assert_int_equal(count_threads(), before);
	lens_free(helped);
	helped = product(M, a, b);
	assert_int_equal(count_threads(), 5);
	test_assert_same(helped, alone, (size_t)M * N, "a product");
	nobody_left();
	lens_free(helped);
	lens_free(alone);
	lens_free(a);
	lens_free(b);
}

#define N_PROMPTS 40
#define LENGTH 48

static void record(const struct lens_model *m, const struct lens_batch *b, int most,
		   struct test_record *r)
{
	struct lens_visitor v;
	size_t layer;

	test_record_init(r, m, b, LENS_WANT_ALL);
	/* Scores and patterns are shown in order, by one thread. */
	for (layer = 0; layer < r->hooks.n_layers; layer++) {
		unsigned char *want = r->hooks.want + layer * LENS_HOOK_COUNT;

		want[LENS_HOOK_ATTN_SCORES] = want[LENS_HOOK_PATTERN] = LENS_WANT_NOT;
	}
	v = test_record_visitor(r);
	assert_int_equal(test_run_pass(&(struct test_pass){ .m = m,
							    .b = b,
							    .visitor = &v,
							    .n = 1,
							    .threads = 1,
							    .most_threads = most },
				       NULL),
			 LENS_OK);
}

/* With room for four threads, of which there are three, and for two. */
static void attention(void **state)
{
	const struct lens_model_options raw = { .threads = 1 };
	struct lens_model *m = test_open_model(MODEL, &raw);
	struct test_record alone, helped;
	struct test_prompt prompt[N_PROMPTS];
	int32_t tokens[N_PROMPTS][LENGTH];
	struct lens_batch b;
	size_t i, j, before;
	int most;

	(void)state;
	for (i = 0; i < N_PROMPTS; i++) {
		for (j = 0; j < LENGTH; j++)
			tokens[i][j] = (int32_t)test_random_below(&rnd, m->config.d_vocab);
		prompt[i] = (struct test_prompt){ tokens[i], LENGTH, LENGTH - 1 };
	}
	test_pack(&b, prompt, N_PROMPTS);
	record(m, &b, 0, &alone);
	before = count_threads();
	for (most = 2; most <= 4; most += 2) {
		leave(most == 2 ? 5 : 2);
		record(m, &b, most, &helped);
		nobody_left();
		assert_int_equal(count_threads(), before + (most == 2 ? 1 : 2));
		assert_true(test_same_records(&helped, &alone, "attention") > 0);
		test_record_release(&helped);
	}
	test_record_release(&alone);
	lens_batch_release(&b);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares),
		cmocka_unit_test(attention),
		cmocka_unit_test(products),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
