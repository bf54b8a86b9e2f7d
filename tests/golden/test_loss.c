/*
 * golden/test_loss.c: token_logprobs and loss in the file: against the cached
 * logits, to the bit; by themselves; prompts of one token; what the plan says
 * of them; the summary. Once per CPU level (H5LENS_TEST_CPU).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/h5file.h"
#include "support/numbers.h"
#include "support/runs.h"
#include "support/samebits.h"

#define MODEL "tests/golden/data/gpt2_gelu"

static char *data, *whole; /* prompts, one of a single token; their output */

static struct lens_experiment experiment(const char *output, const char *tables)
{
	struct lens_experiment e;

	test_experiment(&e, MODEL, data, output);
	test_set(&e, "data.prepend_bos", "false", "tables", tables, "threads", "2", NULL);
	return e;
}

static int prepare(void **state)
{
	size_t i, order[16];
	struct lens_experiment e;
	struct test_csv csv;

	(void)state;
	data = test_tmp_path("loss.csv");
	whole = test_tmp_path("loss.h5");
	test_csv_read(MODEL "/prompts.csv", &csv);
	test_csv_add(&csv, " the", " dog");
	assert_true(csv.n <= 16);
	for (i = 0; i < csv.n; i++)
		order[i] = i;
	test_csv_write(&csv, order, csv.n, data);
	test_csv_release(&csv);
	e = experiment(whole, "all");
	test_set(&e, "cache.hooks", "logits", NULL);
	test_run(&e);
	lens_experiment_release(&e);
	return 0;
}

static int clear(void **state)
{
	(void)state;
	unlink(data);
	unlink(whole);
	lens_free(data);
	lens_free(whole);
	return 0;
}

/* What a file holds. */
struct outcome {
	struct test_array logits, tokens, length, each, mean, flags;
};

static void read_outcome(const char *path, struct outcome *o)
{
	struct test_h5 *f = test_h5_open(path);

	test_h5_f64(f, "/cache/logits", &o->logits);
	test_h5_f64(f, "/prompts/tokens", &o->tokens);
	test_h5_f64(f, "/prompts/length", &o->length);
	test_h5_f64(f, "/results/token_logprobs", &o->each);
	test_h5_f64(f, "/results/loss", &o->mean);
	test_h5_f64(f, "/results/flags", &o->flags);
	test_h5_close(f);
}

static void release_outcome(struct outcome *o)
{
	test_array_release(&o->logits);
	test_array_release(&o->tokens);
	test_array_release(&o->length);
	test_array_release(&o->each);
	test_array_release(&o->mean);
	test_array_release(&o->flags);
}

/* log P of a token, of a row of cached logits, with the kernels themselves. */
static double log_p(const struct outcome *o, size_t row, size_t pos, int32_t token)
{
	size_t i, v = o->logits.extent[2];
	const double *x = o->logits.f64 + (row * o->logits.extent[1] + pos) * v;
	float *logit = test_floats(v, 0), max;
	double p;

	for (i = 0; i < v; i++)
		logit[i] = (float)x[i];
	max = lens_vec()->max_finite(v, logit);
	p = (double)logit[token] - (double)max - log(lens_vec()->sum_exp(v, logit, max));
	lens_free(logit);
	return p;
}

static void against_cached_logits(void **state)
{
	struct outcome o;
	size_t row, pos;

	(void)state;
	read_outcome(whole, &o);
	assert_int_equal(o.each.extent[1], o.tokens.extent[1]);
	assert_int_equal(o.each.size, 4);
	for (row = 0; row < o.length.n; row++) {
		size_t n = (size_t)o.length.f64[row] - 1, width = o.each.extent[1];
		double sum = 0;

		for (pos = 0; pos < width; pos++) {
			double is = o.each.f64[row * width + pos], p;

			if (pos >= n) {
				assert_true(isnan(is));
				continue;
			}
			p = log_p(&o, row, pos, (int32_t)o.tokens.f64[row * width + pos + 1]);
			assert_true(is == (double)(float)p && is < 0);
			sum += p;
		}
		assert_int_equal((unsigned)o.flags.f64[row] & LENS_FLAGS_NONFINITE, 0);
		if (n)
			assert_true(o.mean.f64[row] == (double)(float)(-sum / (double)n));
		else
			assert_true(isnan(o.mean.f64[row]));
	}
	/* the last one is the prompt of one token */
	assert_true(o.length.f64[o.length.n - 1] == 1);
	release_outcome(&o);
}

/* Each alone, with other threads and with little memory, is the same to the bit. */
static void by_themselves(void **state)
{
	static const char *const tables[] = { "loss", "token_logprobs", "[loss, top_tokens]",
					      "[default, token_logprobs]" };
	static const size_t n[] = { 2, 2, 5, 11 };
	char *output = test_tmp_path("alone.h5");
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct lens_experiment e = experiment(output, tables[i]);
		const struct test_same same = { whole, output, NULL, true };

		test_set(&e, "cache.hooks", "none", "threads", i % 2 ? "3" : "1", NULL);
		test_run(&e);
		assert_int_equal(test_same_bits(&same), n[i]);
		unlink(output);
		lens_experiment_release(&e);
	}
	lens_free(output);
}

/* --- the plan ------------------------------------------------------------------------ */

struct looked {
	size_t n_prompts;
	struct lens_dataset_summary each, mean;
};

static void look(void *ctx, const struct lens_plan_summary *p)
{
	struct looked *l = ctx;
	size_t i;

	assert_true(p->memory->total > 0);
	l->n_prompts = p->n_prompts;
	for (i = 0; i < p->n_datasets; i++) {
		if (!strcmp(p->dataset[i].path, "/results/token_logprobs"))
			l->each = p->dataset[i];
		if (!strcmp(p->dataset[i].path, "/results/loss"))
			l->mean = p->dataset[i];
	}
}

static void planned(void **state)
{
	char *output = test_tmp_path("planned.h5");
	struct lens_experiment e = experiment(output, "all");
	struct lens_run_result result;
	struct looked l = { 0 };
	const struct lens_run_options options = { .dry_run = true, .planned = look, .ctx = &l };
	uint64_t pairs = 0;
	struct outcome o;
	size_t row;

	(void)state;
	test_set(&e, "cache.hooks", "none", NULL);
	assert_int_equal(lens_run(&e, &options, &result, NULL), LENS_OK);
	read_outcome(whole, &o);
	for (row = 0; row < o.length.n; row++)
		pairs += (uint64_t)o.length.f64[row] - 1;
	assert_int_equal(l.n_prompts, o.length.n);
	assert_int_equal(l.each.data_bytes, 4 * pairs);
	assert_true(l.each.file_bytes >= 4 * l.n_prompts * o.tokens.extent[1]);
	assert_int_equal(l.mean.data_bytes, 4 * l.n_prompts);
	release_outcome(&o);
	lens_experiment_release(&e);
	lens_free(output);
}

/* --- the summary ----------------------------------------------------------------------- */

static void summary(void **state)
{
	struct lens_summary s;
	struct outcome o;
	double sum = 0;
	size_t i, n;

	(void)state;
	read_outcome(whole, &o);
	for (i = n = 0; i < o.mean.n; i++) {
		if (isnan(o.mean.f64[i]))
			continue;
		sum += o.mean.f64[i];
		n++;
	}
	assert_true(n > 0 && n < o.mean.n);
	assert_int_equal(lens_summary_read(whole, &s, NULL), LENS_OK);
	assert_true(s.has_loss && s.loss_mean == sum / (double)n);
	lens_summary_release(&s);
	release_outcome(&o);
}

static void summary_without(void **state)
{
	char *output = test_tmp_path("without.h5");
	struct lens_experiment e = experiment(output, "default");
	struct lens_summary s;

	(void)state;
	test_set(&e, "cache.hooks", "none", NULL);
	test_run(&e);
	assert_int_equal(lens_summary_read(output, &s, NULL), LENS_OK);
	assert_true(!s.has_loss && isnan(s.loss_mean));
	lens_summary_release(&s);
	lens_experiment_release(&e);
	unlink(output);
	lens_free(output);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_cached_logits),
		cmocka_unit_test(by_themselves),
		cmocka_unit_test(planned),
		cmocka_unit_test(summary),
		cmocka_unit_test(summary_without),
	};

	return cmocka_run_group_tests(tests, prepare, clear);
}
