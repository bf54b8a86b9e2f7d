/*
 * test_plan_file.c: the plan's bytes against those in a file that was really
 * written, dataset by dataset, and the same file whatever the workers and the batches. The rows
 * of a batch depend on the level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pipeline/pipeline_private.h"
#include "plan/plan_private.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

static struct test_random rnd = { 5 };

struct found {
	const struct lens_plan *plan;
	size_t n;
	uint64_t bytes;
};

static enum lens_status compare_bytes(void *ctx, const struct lens_dataset_info *d,
				      struct lens_error *err)
{
	struct found *f = ctx;
	size_t i;

	(void)err;
	for (i = 0; i < f->plan->n_datasets; i++) {
		const struct lens_planned *p = &f->plan->dataset[i];

		if (strcmp(p->path, d->path) != 0)
			continue;
		if (d->stored_bytes != p->file_bytes)
			fail_msg("%s: %llu bytes planned, %llu in the file", p->path,
				 (unsigned long long)p->file_bytes,
				 (unsigned long long)d->stored_bytes);
		f->bytes += d->stored_bytes;
		f->n++;
	}
	return LENS_OK;
}

static void nobody(void *ctx, const struct lens_progress *p)
{
	(void)ctx;
	(void)p;
}

/* Runs a plan with so many workers; its datasets take the bytes that it says. */
static void run_plan(const struct lens_plan *p, size_t workers, const char *file)
{
	struct lens_memory m = { .workers = workers,
				 .inner_threads = 1,
				 .buffers = workers + 2 };
	struct lens_progress progress = { 0 };
	const struct lens_watch watch = { .progress = &progress, .tell = nobody };
	struct lens_counts counts = { 0 };
	struct lens_work work = { .plan = p, .memory = &m, .watch = &watch, .counts = &counts };
	struct found found = { .plan = p };
	const struct lens_available is = { SIZE_MAX, LENS_MEMORY_GIVEN };
	struct lens_memory sizes;
	struct lens_order order;
	struct lens_store *s;
	int *id = lens_calloc(p->n_datasets, sizeof(*id));

	assert_int_equal(lens_plan_memory(p, workers, &is, &sizes, NULL), LENS_OK);
	m.buffer = sizes.buffer;
	counts.overflows = lens_calloc(p->capture.n_specs, sizeof(*counts.overflows));
	assert_int_equal(lens_store_create(file, &s, NULL), LENS_OK);
	assert_int_equal(lens_layout_create(s, p, id, NULL), LENS_OK);
	assert_int_equal(lens_writer_create(s, p, id, &m, &work.writer, NULL), LENS_OK);
	assert_int_equal(lens_order_make(&order, p, NULL), LENS_OK);
	work.order = &order;
	assert_int_equal(lens_schedule_create(order.n_batches, 2 * workers, &work.schedule,
					      NULL),
			 LENS_OK);
	assert_int_equal(lens_work_run(&work, NULL), LENS_OK);
	assert_int_equal(lens_store_commit(s, NULL), LENS_OK);
	assert_int_equal(progress.rows_done, p->prompts->n_rows);
	assert_int_equal(progress.tokens_done, p->prompts->offset[p->prompts->n_rows]);
	assert_int_equal(lens_store_walk(file, compare_bytes, &found, NULL), LENS_OK);
	assert_int_equal(found.n, p->n_datasets);
	assert_int_equal(found.bytes, lens_writer_bytes(work.writer));
	lens_writer_destroy(work.writer);
	lens_schedule_destroy(work.schedule);
	lens_order_release(&order);
	lens_store_destroy(s);
	lens_free(counts.overflows);
	lens_free(id);
}

/* The digests of all datasets, in order. */
static struct lens_buf digests(const struct lens_plan *p, const char *file)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t i;

	for (i = 0; i < p->n_datasets; i++) {
		char *hex;

		assert_int_equal(lens_store_read_attr(file, p->dataset[i].path, "sha256", &hex,
						      NULL),
				 LENS_OK);
		assert_non_null(hex);
		lens_buf_append(&b, hex, strlen(hex), NULL);
		lens_free(hex);
	}
	return b;
}

/* Of about 14 tokens each, some of which begin alike, and one as long as the model takes. */
static struct lens_prompts *make_prompts(const struct lens_model *m, size_t n)
{
	struct lens_prompts *prompts = test_make_prompts(n, 2);
	size_t i;

	for (i = 0; i < n; i++) {
		test_set_length(&rnd, prompts, i,
				i == n / 2 ? m->config.n_ctx : 12 + test_random_below(&rnd, 5));
		prompts->answers[2 * i] = (int32_t)(i % m->config.d_vocab);
	}
	prompts->tokens = lens_calloc((size_t)prompts->offset[n], sizeof(*prompts->tokens));
	for (i = 0; i < prompts->offset[n]; i++)
		prompts->tokens[i] =
			(int32_t)test_random_below(&rnd, i % 3 ? 2 : m->config.d_vocab);
	return prompts;
}

static void check_run(const struct lens_model *m, const char *hooks, const char *positions,
		      size_t n)
{
	struct lens_experiment e = test_plan_experiment(hooks, positions, "f32");
	struct lens_prompts *prompts = make_prompts(m, n);
	char *file = test_tmp_path("plan.h5");
	struct lens_buf one, other;
	struct lens_plan p;
	size_t i;

	assert_int_equal(lens_plan_init(&p, m, prompts, &e, NULL), LENS_OK);
	run_plan(&p, 1, file);
	one = digests(&p, file);
	for (i = 1; i < 4; i++) {
		lens_plan_widen(&p, i);
		run_plan(&p, 3, file);
		other = digests(&p, file);
		assert_string_equal(one.data, other.data);
		lens_buf_release(&other);
	}
	unlink(file);
	lens_buf_release(&one);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
	lens_free(file);
}

/* The same file whether rows are sorted, and in which windows. */
static void check_sorted(const struct lens_model *m, const char *tables, size_t n)
{
	struct lens_experiment e = test_plan_experiment("none", "all", "f32");
	struct lens_prompts *prompts = make_prompts(m, n);
	const size_t windows[] = { 0, 24, 100, n };
	struct lens_buf first = LENS_BUF_INIT, again;
	char *file = test_tmp_path("sorted.h5");
	struct lens_plan p;
	size_t i;

	test_set(&e, "tables", tables, "lens_positions", "all", NULL);
	assert_int_equal(lens_plan_init(&p, m, prompts, &e, NULL), LENS_OK);
	assert_int_equal(p.sort_rows, n);
	for (i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
		p.sort_rows = windows[i];
		run_plan(&p, 1 + i % 3, file);
		again = digests(&p, file);
		if (i)
			assert_string_equal(again.data, first.data);
		lens_buf_release(i ? &again : &first);
		first = i ? first : again;
	}
	unlink(file);
	lens_buf_release(&first);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
	lens_free(file);
}

static void bytes_in_a_file(void **state)
{
	const struct lens_model_options p = { .processing = { .fold_ln = true } };
	struct lens_model *m;

	(void)state;
	assert_int_equal(lens_model_open("tests/golden/data/gpt2_gelu_new", &p, &m, NULL),
			 LENS_OK);
	check_run(m, "*", "all", test_quick() ? 40 : 600);
	check_run(m, "blocks.1.*,logits", "all", 300);
	check_run(m, "logits,blocks.0.attn.hook_pattern", "0,-1,40", 90);
	check_sorted(m, "lens_top_token,rank_per_layer,loss", 150);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_in_a_file),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
