/*
 * golden/test_ragged.c: cache.layout: ragged holds what padded does, bit for bit, and no
 * padding: every hook point of every family, halves, chosen positions; in one file, in
 * shards, joined and packed; on any number of threads, stopped and gone on with. Once per
 * CPU level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/h5file.h"
#include "support/runs.h"
#include "support/samefile.h"
#include "support/sweeps.h"
#include "support/truth.h"

#define ROWS 256 /* several batches, and chunks that one batch fills */

/* --- the two layouts ------------------------------------------------------------------ */

struct files {
	struct test_h5 *padded, *ragged;
	struct test_array length, slot, first; /* slot: rank 0 without chosen positions */
	size_t n_tokens;
};

/* Does a prompt have the position that stands at entry i of the second axis? */
static bool held(const struct files *f, size_t row, size_t i)
{
	if (f->slot.rank)
		return f->slot.f64[row * f->slot.extent[1] + i] >= 0;
	return (double)i < f->length.f64[row];
}

static size_t entries(const struct files *f, size_t row)
{
	return f->slot.rank ? f->slot.extent[1] : (size_t)f->length.f64[row];
}

/* Prompts follow each other, and first_token says where. */
static void check_index(struct files *f)
{
	size_t row, i;

	assert_false(test_h5_has(f->padded, "/prompts/first_token"));
	test_h5_f64(f->ragged, "/prompts/first_token", &f->first);
	assert_int_equal(f->first.size, 8);
	assert_int_equal(f->first.n, f->length.n);
	for (row = 0; row < f->length.n; row++) {
		assert_int_equal((size_t)f->first.f64[row], f->n_tokens);
		for (i = 0; i < entries(f, row); i++)
			f->n_tokens += held(f, row, i);
	}
}

static void open_files(struct files *f, const char *padded, const char *ragged)
{
	*f = (struct files){ .padded = test_h5_open(padded), .ragged = test_h5_open(ragged) };
	test_h5_f64(f->padded, "/prompts/length", &f->length);
	if (test_h5_has(f->padded, "/prompts/slot_pos"))
		test_h5_f64(f->padded, "/prompts/slot_pos", &f->slot);
	check_index(f);
}

static void close_files(struct files *f)
{
	test_array_release(&f->length);
	test_array_release(&f->first);
	if (f->slot.rank)
		test_array_release(&f->slot);
	test_h5_close(f->padded);
	test_h5_close(f->ragged);
}

static void compare_tokens(const struct files *f, const char *name, const struct test_array *x,
			   const struct test_array *y)
{
	size_t row, i, token = 0, bytes = x->n / (x->extent[0] * x->extent[1]) * x->size;

	assert_int_equal(y->rank, x->rank - 1);
	assert_int_equal(y->extent[0], f->n_tokens);
	assert_int_equal(y->size, x->size);
	assert_int_equal(y->n * y->size, f->n_tokens * bytes);
	for (row = 0; row < x->extent[0]; row++) {
		for (i = 0; i < entries(f, row); i++) {
			if (!held(f, row, i))
				continue;
			if (memcmp(x->bytes + (row * x->extent[1] + i) * bytes,
				   y->bytes + token++ * bytes, bytes) != 0)
				fail_msg("%s: row %zu, entry %zu differs", name, row, i);
		}
	}
}

static void compare(const struct files *f, const char *name)
{
	bool square = test_is_square(name);
	struct test_array x, y;
	char path[160], other[160];

	snprintf(path, sizeof(path), "/cache/%s", name);
	snprintf(other, sizeof(other), "/%s/%s", square ? "cache" : "tokens", name);
	test_h5_bytes(f->padded, path, &x);
	test_h5_bytes(f->ragged, other, &y);
	if (!square) {
		compare_tokens(f, name, &x, &y);
	} else {
		assert_int_equal(x.n * x.size, y.n * y.size);
		assert_memory_equal(x.bytes, y.bytes, x.n * x.size);
	}
	test_array_release(&x);
	test_array_release(&y);
}

static size_t count_below(const struct test_h5 *f, const char *group)
{
	struct test_names names;
	size_t n;

	if (!test_h5_has(f, group))
		return 0;
	test_h5_datasets(f, group, &names);
	n = names.n;
	test_names_release(&names);
	return n;
}

/* Returns how many activations there are. */
static size_t expect_same(const char *padded, const char *ragged)
{
	struct test_names names;
	struct files f;
	size_t i, n;

	open_files(&f, padded, ragged);
	test_h5_datasets(f.padded, "/cache", &names);
	for (i = 0; i < names.n; i++)
		compare(&f, names.v[i]);
	n = names.n;
	assert_int_equal(count_below(f.ragged, "/tokens") + count_below(f.ragged, "/cache"), n);
	assert_int_equal(count_below(f.padded, "/results"), count_below(f.ragged, "/results"));
	test_names_release(&names);
	close_files(&f);
	return n;
}

/* --- one file --------------------------------------------------------------------------- */

static void set_both(struct test_sweep *a, struct test_sweep *b, const char *key,
		     const char *value)
{
	test_set(&a->e, key, value, NULL);
	test_set(&b->e, key, value, NULL);
}

static const struct {
	const char *positions, *dtype, *read_pos;
} choices[] = {
	{ "all", "f32", "-1" },          { "all", "f16", "-1" },
	{ "last", "f32", "-1" },         { "read", "f16", "-2" },
	{ "[0, -2]", "f32", "-1" },      { "[-3, 20, 0]", "f16", "-1" },
	{ "[20, 21, 22]", "f32", "-1" },
};

static void test_choices(void **state)
{
	struct test_sweep padded, ragged;
	size_t i, n = sizeof(choices) / sizeof(*choices);

	test_sweep_init(&padded, *state, ROWS, false);
	test_sweep_init(&ragged, *state, ROWS, false);
	set_both(&padded, &ragged, "cache.hooks", "*,logits,*hook_result");
	test_set(&ragged.e, "cache.layout", "ragged", NULL);
	for (i = test_quick() ? n - 2 : 0; i < n; i++) {
		set_both(&padded, &ragged, "cache.positions", choices[i].positions);
		set_both(&padded, &ragged, "cache.dtype", choices[i].dtype);
		set_both(&padded, &ragged, "data.read_pos", choices[i].read_pos);
		test_set(&ragged.e, "threads", i % 2 ? "1" : "3", NULL);
		test_sweep_clear(&padded);
		test_sweep_clear(&ragged);
		test_sweep_must(&padded, NULL);
		test_sweep_must(&ragged, NULL);
		assert_true(expect_same(padded.output, ragged.output) > 20);
		test_expect_sound(ragged.output);
	}
	test_sweep_release(&padded);
	test_sweep_release(&ragged);
}

/* Chunks of 64 tokens of logits: a batch, of 400, fills some and ends within one. */
static void test_whole_chunks(void **state)
{
	struct lens_experiment e[2];
	char *output[] = { test_tmp_path("padded.h5"), test_tmp_path("ragged.h5") };
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		test_experiment(&e[i], "experiments/demo-gpt2", "experiments/ioi.csv",
				output[i]);
		test_set(&e[i], "data.limit", "256", "cache.hooks", "logits,*hook_post,*scale",
			 "threads", "3", "cache.layout", i ? "ragged" : "padded", NULL);
		test_run(&e[i]);
	}
	expect_same(output[0], output[1]);
	test_expect_sound(output[1]);
	for (i = 0; i < 2; i++) {
		lens_experiment_release(&e[i]);
		unlink(output[i]);
		lens_free(output[i]);
	}
}

/* Without a token-wise activation there are no tokens to number. */
static void test_none(void **state)
{
	struct test_sweep s;
	struct test_h5 *f;

	(void)state;
	test_sweep_init(&s, "tests/golden/data/gpt2_gelu", 9, false);
	test_set(&s.e, "cache.layout", "ragged", "cache.hooks", "*hook_pattern", NULL);
	test_sweep_must(&s, NULL);
	f = test_h5_open(s.output);
	assert_false(test_h5_has(f, "/prompts/first_token"));
	assert_false(test_h5_has(f, "/token"));
	assert_false(test_h5_has(f, "/tokens"));
	assert_true(test_h5_has(f, "/cache/blocks.0.attn.hook_pattern"));
	test_h5_close(f);
	test_sweep_release(&s);
}

/* Two names of one array, as in padded files. */
static void test_alias(void **state)
{
	struct test_sweep s;
	struct test_h5 *f;

	(void)state;
	test_sweep_init(&s, "tests/golden/data/gpt2_gelu", 9, true);
	test_set(&s.e, "cache.layout", "ragged", "cache.hooks",
		 "blocks.1.hook_resid_pre,blocks.0.hook_resid_post", NULL);
	test_sweep_must(&s, NULL);
	f = test_h5_open(s.output);
	assert_true(test_h5_has(f, "/tokens/blocks.1.hook_resid_pre"));
	assert_true(test_h5_has(f, "/tokens/blocks.0.hook_resid_post"));
	assert_int_equal(count_below(f, "/tokens"), 2);
	test_h5_close(f);
	test_sweep_release(&s);
}

/* --- shards ----------------------------------------------------------------------------- */

static struct test_sweep padded, whole, sharded;

static void start(const char *hooks, const char *positions, const char *prompts)
{
	struct test_sweep *all[] = { &padded, &whole, &sharded };
	size_t i;

	for (i = 0; i < 3; i++) {
		test_sweep_init(all[i], "tests/golden/data/gpt2_gelu", ROWS, i == 2);
		test_set(&all[i]->e, "cache.hooks", hooks, "cache.positions", positions,
			 "tables", "all", NULL);
		if (i)
			test_set(&all[i]->e, "cache.layout", "ragged", NULL);
	}
	test_set(&sharded.e, "shards.prompts", prompts, NULL);
	test_sweep_must(&padded, NULL);
	test_sweep_must(&whole, NULL);
}

static void end(void)
{
	test_sweep_release(&padded);
	test_sweep_release(&whole);
	test_sweep_release(&sharded);
}

static void expect_joined(void)
{
	char *packed = lens_path_join(sharded.dir, "packed.h5");
	struct lens_error err = LENS_ERROR_INIT;
	size_t n = test_same_file(whole.output, sharded.output);

	assert_true(n > 20);
	test_expect_sound(sharded.output);
	assert_true(expect_same(padded.output, sharded.output) > 1);
	if (lens_pack(sharded.output, packed, true, NULL, &err) != LENS_OK)
		fail_msg("%s: %s", err.file, err.text);
	test_expect_sound(packed);
	assert_int_equal(test_same_file(whole.output, packed), n);
	lens_free(packed);
}

static void test_shards(void **state)
{
	static const char *const threads[] = { "1", "2", "3" };
	size_t i;

	(void)state;
	start("*,logits", "all", "77");
	for (i = test_quick() ? 2 : 0; i < 3; i++) {
		test_sweep_clear(&sharded);
		test_set(&sharded.e, "threads", threads[i], NULL);
		test_sweep_must(&sharded, NULL);
		assert_int_equal(sharded.result.n_shards, 4);
		expect_joined();
	}
	end();
}

/* Some shards have no token at all: the positions exist in the longest prompts only. */
static void test_shards_without_tokens(void **state)
{
	struct test_h5 *f;
	struct test_array a;
	size_t i, empty = 0;

	(void)state;
	start("*resid_pre,*hook_k,*hook_pattern", "[20, 21]", "1");
	set_both(&whole, &padded, "data.limit", "12");
	test_set(&sharded.e, "data.limit", "12", NULL);
	test_sweep_clear(&whole);
	test_sweep_clear(&padded);
	test_sweep_must(&whole, NULL);
	test_sweep_must(&padded, NULL);
	test_sweep_must(&sharded, NULL);
	for (i = 0; i < 12; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%05zu.h5", i);
		f = test_h5_open(test_sweep_path(&sharded, name));
		test_h5_bytes(f, "/tokens/blocks.1.attn.hook_k", &a);
		empty += a.extent[0] == 0;
		test_array_release(&a);
		test_h5_close(f);
	}
	assert_true(empty > 0 && empty < 12);
	expect_joined();
	end();
}

/* Stopped in each shard in turn, and gone on with on other threads. */
static void test_stopped(void **state)
{
	size_t k;

	(void)state;
	start("*", "all", "60");
	for (k = 0; k < 4; k++) {
		test_set(&sharded.e, "threads", k % 2 ? "1" : "3", NULL);
		test_sweep_stop_after(&sharded, 60 * k + 20);
	}
	test_set(&sharded.e, "threads", "2", NULL);
	test_sweep_must(&sharded, NULL);
	expect_joined();
	end();
}

/* --- the same file on any threads --------------------------------------------------------- */

static char *digest_of(const char *file, const char *path)
{
	char *text;

	assert_int_equal(lens_store_read_attr(file, path, "sha256", &text, NULL), LENS_OK);
	assert_non_null(text);
	return text;
}

/* Of whole chunks, with what is past their end. */
static void test_digests(void **state)
{
	struct test_sweep one, many;
	struct test_names names;
	struct test_h5 *f;
	size_t i;

	(void)state;
	test_sweep_init(&one, "tests/golden/data/gpt2_gelu", ROWS, false);
	test_sweep_init(&many, "tests/golden/data/gpt2_gelu", ROWS, false);
	set_both(&one, &many, "cache.layout", "ragged");
	set_both(&one, &many, "cache.hooks", "*,logits");
	test_set(&one.e, "threads", "1", NULL);
	test_set(&many.e, "threads", "4", NULL);
	test_sweep_must(&one, NULL);
	test_sweep_must(&many, NULL);
	f = test_h5_open(one.output);
	test_h5_datasets(f, "/tokens", &names);
	assert_true(names.n > 20);
	for (i = 0; i < names.n; i++) {
		char path[160], *a, *b;

		snprintf(path, sizeof(path), "/tokens/%s", names.v[i]);
		a = digest_of(one.output, path);
		b = digest_of(many.output, path);
		assert_string_equal(a, b);
		lens_free(a);
		lens_free(b);
	}
	test_names_release(&names);
	test_h5_close(f);
	test_sweep_release(&one);
	test_sweep_release(&many);
}

int main(void)
{
#define CHOICES(model)                                                                         \
	{                                                                                      \
		model, test_choices, NULL, NULL, "tests/golden/data/" model                    \
	}
	const struct CMUnitTest tests[] = {
		CHOICES("gpt2_gelu_new"),
		CHOICES("gpt_neo"),
		CHOICES("gpt_neox"),
		CHOICES("llama_gqa"),
		CHOICES("mistral"),
		cmocka_unit_test(test_whole_chunks),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_alias),
		cmocka_unit_test(test_shards),
		cmocka_unit_test(test_shards_without_tokens),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_digests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
