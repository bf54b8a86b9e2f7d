/*
 * test_cut.c: how a sweep is cut into shards: by prompts, bytes and compute;
 * rows far longer than the others alone; never too many; always alike.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/plan.h"
#include "support/cases.h"
#include "support/numbers.h"
#include "support/runs.h"

#define MIB ((uint64_t)1 << 20)
#define MOST 500

static struct test_random rnd = { 11 };

/* Shapes only: a plan reads no weights. */
static struct lens_model shapes = {
	.config = { .family = "gpt2",
		    .n_layers = 2,
		    .d_model = 64,
		    .n_heads = 4,
		    .n_kv_heads = 4,
		    .d_head = 16,
		    .d_mlp = 256,
		    .d_vocab = 500,
		    .n_ctx = 1024,
		    .learned_positions = true },
};

struct cut {
	struct lens_experiment e;
	struct lens_prompts prompts;
	struct lens_plan plan;
	struct lens_parts parts; /* the cut alone, until they are counted */
};

typedef size_t (*length_fn)(size_t row);

static void start(struct cut *c, size_t n, length_fn length)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	memset(c, 0, sizeof(*c));
	assert_int_equal(lens_experiment_init(&c->e, &err), LENS_OK);
	test_set(&c->e, "cpu", "avx2", "threads", "2", "data.answers", "a,b", NULL);
	c->prompts.n_rows = n;
	c->prompts.n_answers = 2;
	c->prompts.offset = lens_calloc(n + 1, sizeof(*c->prompts.offset));
	c->prompts.read_pos = lens_calloc(n, sizeof(*c->prompts.read_pos));
	c->prompts.answers = lens_calloc(2 * n, sizeof(*c->prompts.answers));
	c->prompts.record = lens_calloc(n, sizeof(*c->prompts.record));
	c->prompts.place = lens_calloc(n, sizeof(*c->prompts.place));
	c->prompts.flags = lens_calloc(n, sizeof(*c->prompts.flags));
	for (i = 0; i < n; i++) {
		size_t x = length(i);

		c->prompts.offset[i + 1] = c->prompts.offset[i] + x;
		if (x > c->prompts.max_length)
			c->prompts.max_length = x;
	}
}

static void expect_cover(const struct cut *c)
{
	size_t i;

	assert_true(c->parts.cut.n >= 1 && c->parts.cut.n <= MOST);
	assert_int_equal(c->parts.cut.first[0], 0);
	assert_int_equal(c->parts.cut.first[c->parts.cut.n], c->prompts.n_rows);
	for (i = 0; i < c->parts.cut.n; i++)
		assert_true(c->parts.cut.first[i] < c->parts.cut.first[i + 1]);
}

static void cut(struct cut *c, const struct lens_model *m)
{
	struct lens_error err = LENS_ERROR_INIT;

	if (lens_plan_init(&c->plan, m, &c->prompts, &c->e, &err) != LENS_OK ||
	    lens_cut_make(&c->parts.cut, &c->plan, &err) != LENS_OK)
		fail_msg("%s", err.text);
	expect_cover(c);
}

static void finish(struct cut *c)
{
	lens_parts_release(&c->parts);
	lens_plan_release(&c->plan);
	lens_free(c->prompts.offset);
	lens_free(c->prompts.read_pos);
	lens_free(c->prompts.answers);
	lens_free(c->prompts.record);
	lens_free(c->prompts.place);
	lens_free(c->prompts.flags);
	lens_experiment_release(&c->e);
}

static size_t rows_of(const struct cut *c, size_t shard)
{
	return c->parts.cut.first[shard + 1] - c->parts.cut.first[shard];
}

static size_t longest(const struct cut *c, size_t shard)
{
	return lens_prompts_part(&c->prompts, c->parts.cut.first[shard], rows_of(c, shard))
		.max_length;
}

/* Plans every shard. */
static void count(struct cut *c)
{
	const struct lens_available is = { (size_t)1 << 40, LENS_MEMORY_GIVEN };
	struct lens_error err = LENS_ERROR_INIT;

	lens_parts_release(&c->parts);
	if (lens_parts_make(&c->parts, &c->plan, 2, &is, &err) != LENS_OK)
		fail_msg("%s", err.text);
	expect_cover(c);
}

/* --- lengths ---------------------------------------------------------------------------- */

static size_t sixteen(size_t row)
{
	(void)row;
	return 16;
}

static size_t uneven(size_t row)
{
	return 3 + row * 7919 % 20;
}

/* One row of 1,000 tokens among short ones. */
static size_t one_long(size_t row)
{
	return row == 6123 ? 1000 : 8 + row % 5;
}

static size_t without_it(size_t row)
{
	return 8 + row % 5;
}

static size_t every_tenth(size_t row)
{
	return row % 10 == 3 ? 700 : 12;
}

static size_t any(size_t row)
{
	(void)row;
	return 1 + test_random_below(&rnd, test_random_below(&rnd, 40) ? 30 : 1000);
}

/* --- limits ------------------------------------------------------------------------------- */

static void test_prompts(void **state)
{
	struct cut c;
	size_t i;

	(void)state;
	start(&c, 100, uneven);
	test_set(&c.e, "shards.prompts", "16", NULL);
	cut(&c, &shapes);
	assert_int_equal(c.parts.cut.n, 7);
	for (i = 0; i < 7; i++)
		assert_int_equal(c.parts.cut.first[i], 16 * i);
	finish(&c);
	/* Without limits that bite, one. */
	start(&c, 100, uneven);
	cut(&c, &shapes);
	assert_int_equal(c.parts.cut.n, 1);
	finish(&c);
	start(&c, 1, sixteen);
	test_set(&c.e, "shards.prompts", "1", NULL);
	cut(&c, &shapes);
	finish(&c);
}

static void test_bytes(void **state)
{
	struct cut c;
	size_t i;

	(void)state;
	start(&c, 5000, uneven);
	test_set(&c.e, "shards.bytes", "16M", "cache.hooks", "*", NULL);
	cut(&c, &shapes);
	assert_true(c.parts.cut.n > 4);
	count(&c);
	for (i = 0; i < c.parts.cut.n; i++) {
		/* Half of a file may be padding. */
		assert_true(c.parts.file_bytes[i] < 2 * 2 * 16 * MIB);
		if (i + 1 < c.parts.cut.n) {
			assert_true(c.parts.file_bytes[i] > 16 * MIB);
			assert_int_equal(rows_of(&c, i) % 64, 0);
		}
	}
	finish(&c);
}

/* A night of tables only is committed every few minutes too. */
static void test_compute(void **state)
{
	struct lens_model large = shapes;
	struct cut c;
	size_t i, rows[2];
	int every_position;

	(void)state;
	large.config.n_layers = 32;
	large.config.d_model = 4096;
	large.config.n_heads = large.config.n_kv_heads = 32;
	large.config.d_head = 128;
	large.config.d_mlp = 16384;
	large.config.d_vocab = 50257;
	for (every_position = 0; every_position < 2; every_position++) {
		start(&c, 4000, sixteen);
		test_set(&c.e, "cache.hooks", "none", "tables",
			 every_position ? "[loss]" : "[answer_rank]", NULL);
		cut(&c, &large);
		assert_true(c.parts.cut.n > 8);
		for (i = 0; i + 1 < c.parts.cut.n; i++) {
			/* 1.3e10 multiplications and additions a token, 1.8e13 a shard */
			assert_int_equal(rows_of(&c, i) % 64, 0);
			assert_true(rows_of(&c, i) >= 64 && rows_of(&c, i) <= 192);
		}
		rows[every_position] = rows_of(&c, 0);
		finish(&c);
	}
	assert_true(rows[1] <= rows[0]);
}

/* Rows of the first shard, of tables that compute ends. */
static size_t rows_by_compute(const struct lens_model *m, length_fn length, size_t n_answers,
			      const char *const set[2])
{
	struct cut c;
	size_t n;

	start(&c, 4000, length);
	c.prompts.n_answers = n_answers;
	test_set(&c.e, "cache.hooks", "none", "shards.bytes", "1TiB", "tables", set[0],
		 "attrs.positions", set[1], NULL);
	cut(&c, m);
	assert_true(c.parts.cut.n > 1);
	n = rows_of(&c, 0);
	finish(&c);
	return n;
}

static size_t one(size_t row)
{
	(void)row;
	return 1;
}

static size_t thousand(size_t row)
{
	(void)row;
	return 1000;
}

/* Attributions count: of a token by a wide model, and at every position. */
static void test_attrs(void **state)
{
	static const char *const none[] = { "logit_diff", "read" },
				 *const heads[] = { "logit_diff,head_attrs", "read" },
				 *const neurons[] = { "logit_diff,top_neurons", "read" },
				 *const read[] = { "logit_attrs,head_attrs", "read" },
				 *const all[] = { "logit_attrs,head_attrs", "all" };
	struct lens_model m = shapes;
	size_t rows;

	(void)state;
	m.config.n_layers = 32;
	m.config.d_model = m.config.d_vocab = 4096;
	m.config.n_heads = m.config.n_kv_heads = 32;
	m.config.d_head = 128;
	m.config.d_mlp = 16384;
	/* 1.3e10 operations; for two answers 2.1e9 more of the heads, 8.6e9 of the neurons */
	rows = rows_by_compute(&m, one, 2, none);
	assert_in_range(rows_by_compute(&m, one, 2, heads), rows * 3 / 4, rows * 9 / 10 + 64);
	assert_in_range(rows_by_compute(&m, one, 2, neurons), rows / 2, rows * 2 / 3);
	/* A narrow one and many answers: 1e10 operations a row, and 3e9 of the attributions */
	m.config.d_model = 64;
	m.config.n_heads = m.config.n_kv_heads = 4;
	m.config.d_head = 16;
	m.config.d_mlp = 256;
	rows = rows_by_compute(&m, thousand, 256, read);
	assert_in_range(rows_by_compute(&m, thousand, 256, all), rows / 2, rows * 9 / 10);
}

/* Never more than HDF5 can open at once: then they grow. */
static void test_most(void **state)
{
	static const char *const limit[][2] = { { "shards.prompts", "1" },
						{ "shards.bytes", "1B" },
						{ "shards.prompts", "3" } };
	struct cut c;
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		start(&c, 20000, uneven);
		test_set(&c.e, limit[i][0], limit[i][1], NULL);
		cut(&c, &shapes);
		assert_true(c.parts.cut.n > MOST / 4);
		finish(&c);
	}
}

/* --- outliers --------------------------------------------------------------------- */

static uint64_t file_bytes(length_fn length, size_t *n_shards)
{
	struct cut c;
	uint64_t bytes;
	size_t i;

	start(&c, 10000, length);
	test_set(&c.e, "cache.hooks", "*resid_post,*hook_pattern,*hook_attn_scores", NULL);
	cut(&c, &shapes);
	count(&c);
	for (i = 0; i < c.parts.cut.n && length == one_long; i++) {
		if (rows_of(&c, i) == 1)
			assert_int_equal(c.parts.cut.first[i], 6123);
		assert_true((longest(&c, i) == 1000) == (rows_of(&c, i) == 1));
	}
	for (i = 0, bytes = 0; i < c.parts.cut.n; i++)
		bytes += c.parts.file_bytes[i];
	*n_shards = c.parts.cut.n;
	finish(&c);
	return bytes;
}

/* It does not make the others' data wider. */
static void test_outlier(void **state)
{
	size_t n_with, n_without;
	uint64_t with = file_bytes(one_long, &n_with);
	uint64_t without = file_bytes(without_it, &n_without);
	/* layers × (heads × queries × keys × 2 arrays + positions × d_model), float32 */
	uint64_t row = 2ull * (4ull * 1000 * 1000 * 2 + 1000 * 64) * 4;

	(void)state;
	assert_int_equal(n_with, n_without + 2);
	assert_true(with > without + row);
	assert_true(with < without + row + row / 3);
}

/* So many that they are no exception. */
static void test_many_outliers(void **state)
{
	struct cut c;

	(void)state;
	start(&c, 3000, every_tenth);
	test_set(&c.e, "cache.hooks", "*resid_post", NULL);
	cut(&c, &shapes);
	assert_true(c.parts.cut.n < 20);
	finish(&c);
	start(&c, 60, every_tenth); /* six of them */
	cut(&c, &shapes);
	assert_int_equal(c.parts.cut.n, 13);
	finish(&c);
}

/* --- alike ------------------------------------------------------------------------ */

static void test_pure(void **state)
{
	static const char *const threads[] = { "1", "7", "64" };
	static const char *const memory[] = { "4G", "900M", "20G" };
	struct cut c[3];
	unsigned turn;
	size_t i;

	(void)state;
	for (turn = 0; turn < (test_quick() ? 4 : 12); turn++) {
		size_t n = 1 + test_random_below(&rnd, 3000);

		for (i = 0; i < 3; i++) {
			rnd.s = 100 + turn;
			start(&c[i], n, any);
			test_set(&c[i].e, "threads", threads[i], "memory", memory[i],
				 "shards.bytes", turn % 2 ? "2M" : "40M", "shards.prompts",
				 turn % 3 ? "auto" : "37", NULL);
			cut(&c[i], &shapes);
			assert_int_equal(c[i].parts.cut.n, c[0].parts.cut.n);
			assert_memory_equal(c[i].parts.cut.first, c[0].parts.cut.first,
					    (c[0].parts.cut.n + 1) * sizeof(size_t));
		}
		for (i = 0; i < 3; i++)
			finish(&c[i]);
	}
}

/* What was counted of a shard, put together again, is the plan of its rows alone. */
static void test_parts(void **state)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p, alone;
	struct cut c;
	size_t i, k;

	(void)state;
	start(&c, 200, uneven);
	test_set(&c.e, "shards.prompts", "23", "cache.hooks", "*", "cache.positions", "0,-1",
		 NULL);
	cut(&c, &shapes);
	count(&c);
	for (i = 0; i < c.parts.cut.n; i++) {
		const struct lens_prompts rows =
			lens_prompts_part(&c.prompts, c.parts.cut.first[i], rows_of(&c, i));

		assert_int_equal(lens_parts_plan(&c.parts, i, &p, &err), LENS_OK);
		assert_int_equal(lens_plan_init(&alone, &shapes, &rows, &c.e, &err), LENS_OK);
		assert_int_equal(p.prompts->n_rows, rows_of(&c, i));
		assert_int_equal(p.block_rows, alone.block_rows);
		assert_int_equal(p.batch_rows % p.block_rows, 0);
		assert_int_equal(p.n_batches,
				 (p.prompts->n_rows + p.batch_rows - 1) / p.batch_rows);
		assert_true(p.max_packed >= alone.max_packed);
		assert_int_equal(p.file_bytes, alone.file_bytes);
		assert_int_equal(p.file_bytes, c.parts.file_bytes[i]);
		assert_int_equal(p.n_datasets, alone.n_datasets);
		for (k = 0; k < p.n_datasets; k++)
			assert_memory_equal(&p.dataset[k], &alone.dataset[k],
					    sizeof(p.dataset[k]));
		assert_int_equal(p.capture.n_specs, alone.capture.n_specs);
		assert_memory_equal(p.capture.spec, alone.capture.spec,
				    p.capture.n_specs * sizeof(*p.capture.spec));
		lens_plan_release(&p);
		lens_plan_release(&alone);
	}
	finish(&c);
}

/* What is shown is the whole sweep, with the bytes of all its files. */
static void test_summary(void **state)
{
	struct lens_plan_summary s;
	uint64_t bytes = 0, of_datasets = 0;
	struct cut c;
	size_t i;

	(void)state;
	start(&c, 100, uneven);
	test_set(&c.e, "shards.prompts", "16", "cache.hooks", "*resid_post", NULL);
	cut(&c, &shapes);
	count(&c);
	assert_int_equal(lens_plan_summary_make(&s, &c.parts, NULL), LENS_OK);
	for (i = 0; i < c.parts.cut.n; i++)
		bytes += c.parts.file_bytes[i];
	assert_int_equal(s.file_bytes, bytes);
	assert_int_equal(s.asked_prompts, 16);
	assert_int_equal(s.n_datasets, c.plan.n_datasets);
	for (i = 0; i < s.n_datasets; i++) {
		assert_int_equal(s.dataset[i].extent[0], 100);
		assert_int_equal(s.dataset[i].data_bytes, c.plan.dataset[i].data_bytes);
		assert_true(s.dataset[i].data_bytes <= s.dataset[i].file_bytes);
		of_datasets += s.dataset[i].file_bytes;
	}
	assert_true(of_datasets < bytes);
	lens_plan_summary_release(&s);
	finish(&c);
}

static enum lens_status cut_again(void *ctx)
{
	const struct lens_available is = { (size_t)1 << 40, LENS_MEMORY_GIVEN };
	struct cut *c = ctx;
	enum lens_status st = lens_parts_make(&c->parts, &c->plan, 2, &is, NULL);
	struct lens_plan_summary s = { 0 };
	struct lens_plan p = { 0 };

	if (st == LENS_OK)
		st = lens_plan_summary_make(&s, &c->parts, NULL);
	if (st == LENS_OK)
		st = lens_parts_plan(&c->parts, 1, &p, NULL);
	lens_plan_release(&p);
	lens_plan_summary_release(&s);
	lens_parts_release(&c->parts);
	return st;
}

static void test_alloc(void **state)
{
	struct cut c;

	(void)state;
	start(&c, 100, uneven);
	test_set(&c.e, "shards.prompts", "30", NULL);
	cut(&c, &shapes);
	lens_parts_release(&c.parts);
	test_alloc_failures(cut_again, &c);
	finish(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prompts),       cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_compute),       cmocka_unit_test(test_attrs),
		cmocka_unit_test(test_most),          cmocka_unit_test(test_outlier),
		cmocka_unit_test(test_many_outliers), cmocka_unit_test(test_pure),
		cmocka_unit_test(test_parts),         cmocka_unit_test(test_summary),
		cmocka_unit_test(test_alloc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
