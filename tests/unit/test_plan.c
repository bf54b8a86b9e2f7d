/*
 * test_plan.c: the plan: links between hook points, what it refuses, and the
 * memory and workers it comes to. The memory depends on the level
 * (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/plan.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

#define MIB ((size_t)1 << 20)

static struct test_random rnd = { 5 };

static void links(void **state)
{
	struct lens_experiment e = test_plan_experiment("*,*hook_mlp_in", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	struct lens_plan p;
	size_t i, n = 0;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_links; i++) {
		if (!strcmp(p.link[i].path, "/cache/blocks.1.hook_resid_pre"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_post");
		if (!strcmp(p.link[i].path, "/cache/blocks.0.hook_mlp_in"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_mid");
	}
	assert_int_equal(p.n_links, 3);
	assert_int_equal(n, 2);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	/* without its target an alias is stored for itself */
	e = test_plan_experiment("blocks.1.hook_resid_pre", "all", "f32");
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(p.n_links, 0);
	assert_string_equal(p.dataset[0].path, "/cache/blocks.1.hook_resid_pre");
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* Axes and units of the tables of every position; no logits in memory but a tile's. */
static void loss(void **state)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	size_t i, n = 0;
	struct lens_plan p;

	(void)state;
	test_set(&e, "tables", "[token_logprobs, loss, pos_top_tokens, entropy]", NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_datasets; i++) {
		const struct lens_planned *d = &p.dataset[i];

		if (!strcmp(d->path, "/results/token_logprobs")) {
			assert_int_equal(d->data_bytes, 4 * (prompts->offset[20] - 20));
			assert_string_equal(lens_axis_name(d->axis[1]), "pos");
			n++;
		}
		if (!strcmp(d->path, "/results/loss")) {
			assert_int_equal(d->data_bytes, 4 * 20);
			assert_string_equal(d->units, "nats");
			n++;
		}
		/* The last token has a distribution too, though no next token. */
		if (!strcmp(d->path, "/results/entropy") ||
		    !strcmp(d->path, "/results/pos_top_tokens")) {
			assert_int_equal(d->data_bytes,
					 4 * prompts->offset[20] *
						 (d->rank == 3 ? p.sizes.top_k : 1));
			n++;
		}
	}
	assert_int_equal(n, 4);
	assert_false(lens_hook_wanted(&p.hooks, LENS_HOOK_LOGITS, 0));
	assert_false(lens_hook_wanted(&p.table_hooks, LENS_HOOK_LOGITS, 0));
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* The tokens of corrupted prompts, and their strings, are counted. */
static void pairs(void **state)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	struct lens_plan without, with;

	(void)state;
	assert_int_equal(lens_plan_init(&without, &test_shapes, prompts, &e, NULL), LENS_OK);
	prompts->corrupted = lens_calloc(prompts->offset[20], sizeof(*prompts->corrupted));
	assert_non_null(prompts->corrupted);
	assert_int_equal(lens_plan_init(&with, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(with.data_bytes - without.data_bytes, 4 * prompts->offset[20]);
	assert_int_equal(with.file_bytes - without.file_bytes,
			 20 * (4 * prompts->max_length + 32));
	lens_plan_release(&with);
	lens_plan_release(&without);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* What a plan says of the lens's keys: NULL, or a part of an error. */
static void expect_lens(const struct lens_prompts *prompts, bool parallel,
			const char *const set[3], const char *text)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model m = test_shapes;
	enum lens_status st;
	struct lens_plan p;

	m.config.parallel_block = parallel;
	test_set(&e, "tables", set[0], "lens_positions", set[1], "lens_mid", set[2], NULL);
	st = lens_plan_init(&p, &m, prompts, &e, &err);
	assert_int_equal(st, text ? LENS_ERR_INVALID : LENS_OK);
	if (text && !strstr(err.text, text))
		fail_msg("expected \"%s\", got \"%s\"", text, err.text);
	if (st == LENS_OK)
		lens_plan_release(&p);
	lens_experiment_release(&e);
}

static void refuse_lens(const struct lens_prompts *prompts)
{
	static const char *const all[] = { "lens_kl", "all", "false" },
				 *const good[] = { "lens_kl,lens_top_prob", "all", "true" },
				 *const mid[] = { "lens_kl", "read", "true" },
				 *const neither[] = { "lens_kl", "read", "false" };

	expect_lens(prompts, false, all,
		    "lens_positions: all is for lens_top_token, lens_top_prob, lens_entropy; "
		    "tables asks for none of them");
	expect_lens(prompts, false, good, NULL);
	expect_lens(
		prompts, true, mid,
		"lens_mid: there is no stream between attention and MLP in this model's parallel blocks");
	expect_lens(prompts, true, neither, NULL);
}

/* attrs.positions: all needs a table that it changes; neurons are none. */
static void refuse_attrs(const struct lens_prompts *prompts)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;

	test_set(&e, "tables", "neuron_attrs,top_neurons,answer_logit", "attrs.positions",
		 "all", NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_string_equal(err.text, "attrs.positions: all is for logit_attrs, head_attrs; "
				      "tables asks for none of them");
	lens_experiment_release(&e);
}

/* The axes, bytes, memory and hooks of what attrs.positions changes. */
static void attrs_at_all(void **state)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	size_t i, n = 0, layers = test_shapes.config.n_layers, parts, least;
	struct lens_plan p;

	(void)state;
	refuse_attrs(prompts);
	test_set(&e, "tables", "logit_attrs,head_attrs,neuron_attrs", "attrs.positions", "all",
		 NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_datasets; i++) {
		const struct lens_planned *d = &p.dataset[i];
		bool heads = !strcmp(d->path, "/results/head_attrs");

		if (!heads && strcmp(d->path, "/results/logit_attrs") != 0)
			continue;
		parts = heads ? layers * test_shapes.config.n_heads : 3 + 2 * layers;
		assert_int_equal(d->rank, heads ? 5 : 4);
		assert_true(d->axis[d->rank - 2] == LENS_AXIS_POS);
		assert_true(d->axis[d->rank - 1] == LENS_AXIS_ANSWER);
		assert_int_equal(d->data_bytes, 4 * parts * 2 * prompts->offset[20]);
		n++;
	}
	assert_int_equal(n, 2);
	for (i = 0; i < layers; i++) {
		assert_true(lens_hook_wanted(&p.table_hooks, LENS_HOOK_MLP_OUT, i) ==
			    LENS_WANT_ALL);
		assert_true(lens_hook_wanted(&p.table_hooks, LENS_HOOK_Z, i) == LENS_WANT_ALL);
		assert_true(lens_hook_wanted(&p.table_hooks, LENS_HOOK_MLP_POST, i) ==
			    LENS_WANT_READ_POS);
	}
	/* The sums are float64, and laid out as the row. */
	least = 3 * p.batch_rows * lens_table_row_bytes(LENS_TABLE_logit_attrs, &p.tables);
	assert_true(lens_tables_bytes(&test_shapes, &p.tables) > least);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* The axes, bytes and hooks of what lens_positions changes. */
static void lens_at_all(void **state)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	size_t i, k, n = 0, layers = test_shapes.config.n_layers;
	struct lens_plan p;

	(void)state;
	test_set(&e, "tables", "lens_entropy,lens_kl", "lens_positions", "all", "lens_mid",
		 "true", NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_datasets; i++) {
		const struct lens_planned *d = &p.dataset[i];
		bool kl = !strcmp(d->path, "/results/lens_kl");

		if (!kl && strcmp(d->path, "/results/lens_entropy") != 0)
			continue;
		assert_int_equal(d->rank, kl ? 2 : 3);
		assert_int_equal(d->extent[1], 2 * layers + 1);
		assert_true(kl || d->axis[2] == LENS_AXIS_POS);
		assert_int_equal(d->data_bytes,
				 4 * (2 * layers + 1) * (kl ? 20 : prompts->offset[20]));
		n++;
	}
	assert_int_equal(n, 2);
	for (k = 0; k < layers; k++)
		assert_true(lens_hook_wanted(&p.table_hooks, LENS_HOOK_RESID_MID, k) ==
			    LENS_WANT_ALL);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* More tokens than a dimension can have. */
static void refuse_tokens(void)
{
	struct lens_experiment e = test_plan_experiment("hook_embed", "all", "f32");
	struct lens_prompts *prompts = test_make_prompts(3, 2);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;
	size_t i;

	for (i = 0; i < 3; i++)
		test_set_length(&rnd, prompts, i, (size_t)1 << 30);
	test_set(&e, "cache.layout", "ragged", NULL);
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(
		strstr(err.text, "cache.layout: ragged is for up to 2147483647 tokens"));
	assert_non_null(strstr(err.text, "have 3221225472"));
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void refusals(void **state)
{
	struct lens_experiment e = test_plan_experiment("*", "0,50", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "no prompt has a position 50"));
	lens_experiment_release(&e);
	e = test_plan_experiment("hook_embde", "all", "f32");
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "hook_embed"));
	lens_experiment_release(&e);
	refuse_tokens();
	refuse_lens(prompts);
	prompts->n_answers = 0;
	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	test_set(&e, "cache.hooks", "none", "tables", "logit_diff", NULL);
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "asks for anything"));
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void allocation_failures(void **state)
{
	struct lens_experiment e = test_plan_experiment("*", "0,-1", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 20);
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;
	struct lens_plan p;

	(void)state;
	test_set(&e, "cache.layout", "ragged", NULL);
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_plan_init(&p, &test_shapes, prompts, &e, &err);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		assert_int_equal(err.code, st);
	}
	assert_true(k > 5);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static enum lens_status fits(const struct lens_plan *p, size_t threads, size_t bytes,
			     struct lens_memory *m, struct lens_error *err)
{
	const struct lens_available is = { bytes, LENS_MEMORY_GIVEN };

	return lens_plan_memory(p, threads, &is, m, err);
}

static size_t forward_bytes(const struct lens_plan *p, size_t threads)
{
	const struct lens_visitor of[] = { { .hooks = &p->hooks },
					   { .hooks = &p->table_hooks } };
	const struct lens_visitors both = { of, 2 };

	return lens_forward_bytes(p->model, &(struct lens_forward_size){
						    .visitors = &both,
						    .max_rows = p->max_packed,
						    .max_length = p->prompts->max_length,
						    .threads = (int)threads });
}

static void memory(void **state)
{
	const struct lens_available machine = { 4096 * MIB, LENS_MEMORY_MACHINE };
	struct lens_experiment e = test_plan_experiment("*", "all", "f32");
	struct lens_prompts *prompts = test_random_prompts(&rnd, TEST_SHORT, 300);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_memory m, one;
	struct lens_plan p;
	size_t limit;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &test_shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(fits(&p, 8, MIB, &m, &err), LENS_ERR_NOMEM);
	assert_non_null(strstr(err.text, "one worker needs"));
	assert_non_null(strstr(err.text, "--memory gives 1 MiB"));
	assert_int_equal(lens_plan_memory(&p, 1, &machine, &one, NULL), LENS_OK);
	assert_int_equal(one.limit, 3072 * MIB);
	assert_int_equal(one.workers, 1);
	assert_true(one.per_worker > 0 && one.model > 0 && one.buffer > 0);
	m.workers = 0;
	/* from too little to plenty: within the limit, and never fewer workers */
	for (limit = MIB; limit < 2048 * MIB; limit += 7 * MIB) {
		struct lens_memory more;

		if (fits(&p, 8, limit, &more, NULL) != LENS_OK) {
			assert_int_equal(m.workers, 0);
			continue;
		}
		assert_true(more.total <= limit);
		assert_true(more.workers >= m.workers && more.workers <= 8);
		assert_true(more.buffers >= more.workers + 2);
		assert_true(more.workers * more.inner_threads <= 8);
		assert_int_equal(more.per_worker - one.per_worker,
				 forward_bytes(&p, more.most_threads) - forward_bytes(&p, 1));
		m = more;
	}
	assert_int_equal(m.workers, 8);
	/* no more workers than batches */
	assert_int_equal(fits(&p, 1000, SIZE_MAX, &m, NULL), LENS_OK);
	assert_true(m.workers <= p.n_batches);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links),        cmocka_unit_test(loss),
		cmocka_unit_test(refusals),     cmocka_unit_test(lens_at_all),
		cmocka_unit_test(attrs_at_all), cmocka_unit_test(allocation_failures),
		cmocka_unit_test(pairs),        cmocka_unit_test(memory),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
