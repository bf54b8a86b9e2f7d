/*
 * test_token_logprobs.c: the tables of every position against plain float64
 * code, and their bits, on the level of H5LENS_TEST_CPU. The model is an
 * unembedding alone: what the tables read is ln_final's output.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/cases.h"
#include "support/tables.h"

/* More rows than a tile has slots, so that tiles end inside prompts. */
enum { D = TEST_D_MODEL, V = TEST_D_VOCAB, BATCH = 16, N_POS = 70 };

static struct test_random rnd = { 11 };

static struct lens_model *make_model(void)
{
	return test_unembedding(&rnd, 1, N_POS);
}

/* --- a batch ------------------------------------------------------------------------- */

struct rows {
	size_t n, length[BATCH];
	int32_t token[BATCH][N_POS];
	struct lens_batch b; /* scattered */
	float *normed;       /* [n_rows, D] */
	float *resid;        /* [n_rows, D]: finite, what the flags' bit 0 looks at */
};

static void add_prompt(struct rows *r, size_t length)
{
	size_t i = r->n++, t;

	r->length[i] = length;
	for (t = 0; t < length; t++)
		r->token[i][t] = (int32_t)test_random_below(&rnd, V);
}

static void fill_rows(struct rows *r)
{
	struct test_prompt prompt[BATCH] = { 0 };
	size_t i;

	for (i = 0; i < r->n; i++)
		prompt[i] = (struct test_prompt){ .tokens = r->token[i],
						  .length = r->length[i],
						  .read_pos = (int32_t)r->length[i] - 1 };
	test_pack(&r->b, prompt, r->n);
	test_scatter(&r->b, &rnd);
	r->normed = test_random_floats(&rnd, r->b.n_rows * D);
	r->resid = test_random_floats(&rnd, r->b.n_rows * D);
}

/* Lengths 1 and 2 are among them. */
static void make_rows(struct rows *r, size_t n)
{
	size_t i;

	memset(r, 0, sizeof(*r));
	for (i = 0; i < n; i++)
		add_prompt(r, i < 2 ? i + 1 : N_POS - test_random_below(&rnd, N_POS));
	fill_rows(r);
}

static void release_rows(struct rows *r)
{
	lens_free(r->normed);
	lens_free(r->resid);
	lens_batch_release(&r->b);
}

/* Of rows [n_rows, D]. */
static float *row_at(const struct rows *r, float *rows, size_t prompt, size_t pos)
{
	return rows + (size_t)lens_batch_row(&r->b, prompt, pos) * D;
}

static struct lens_tables_options options(bool each, bool mean, int threads)
{
	struct lens_tables_options o = {
		.sizes = { .n_layers = 1, .d_model = D, .d_vocab = V, .n_pos = N_POS },
		.batch_rows = BATCH,
		.threads = threads,
	};

	o.sizes.top_k = 1;
	o.wanted[LENS_TABLE_token_logprobs] = each;
	o.wanted[LENS_TABLE_loss] = mean;
	o.wanted[LENS_TABLE_flags] = true;
	return o;
}

static struct lens_tables *create(const struct lens_model *m, struct lens_tables_options opt)
{
	return test_create_tables(m, &opt);
}

/* b: the prompts of r that are shown. */
static size_t show(struct lens_tables *t, const struct rows *r, const struct lens_batch *b)
{
	const struct lens_tables_batch in = { .batch = b };
	const struct lens_activation resid = {
		.hook = LENS_HOOK_RESID_POST, .data = r->resid, .width = D, .stride = D
	};
	const struct lens_activation normed = { .hook = LENS_HOOK_LN_FINAL_NORMALIZED,
						.data = r->normed,
						.width = D,
						.stride = D };
	size_t flagged = 0;

	lens_tables_begin(t, &in);
	assert_int_equal(lens_tables_visit(t, b, &resid, NULL), LENS_OK);
	assert_int_equal(lens_tables_visit(t, b, &normed, NULL), LENS_OK);
	lens_tables_finish(t, &flagged);
	return flagged;
}

static size_t show_all(struct lens_tables *t, const struct rows *r)
{
	return show(t, r, &r->b);
}

static const float *log_probs(const struct lens_tables *t, size_t prompt)
{
	const float *x = lens_tables_rows(t, LENS_TABLE_token_logprobs);

	assert_non_null(x);
	return x + prompt * N_POS;
}

static float loss(const struct lens_tables *t, size_t prompt)
{
	const float *x = lens_tables_rows(t, LENS_TABLE_loss);

	assert_non_null(x);
	return x[prompt];
}

static unsigned flags(const struct lens_tables *t, size_t prompt)
{
	return ((const uint8_t *)lens_tables_rows(t, LENS_TABLE_flags))[prompt];
}

/* One row a prompt: what the two above count on. */
static void row_sizes(void **state)
{
	const struct lens_tables_options o = options(true, true, 1);

	(void)state;
	assert_int_equal(lens_table_row_bytes(LENS_TABLE_token_logprobs, &o),
			 N_POS * sizeof(float));
	assert_int_equal(lens_table_row_bytes(LENS_TABLE_loss, &o), sizeof(float));
	assert_int_equal(lens_table_row_bytes(LENS_TABLE_flags, &o), 1);
}

/* --- against float64 ------------------------------------------------------------------- */

/* *error bounds what float32 logits and exponentials may change. */
static double log_prob(const struct lens_model *m, const float *x, int32_t token, double *error)
{
	double logit[V], max = -INFINITY, sum = 0, most = 0;
	size_t v, j;

	for (v = 0; v < V; v++) {
		double size = fabs((double)m->b_u[v]);

		logit[v] = (double)m->b_u[v];
		for (j = 0; j < D; j++) {
			double y = (double)x[j] * (double)m->w_u[v * D + j];

			logit[v] += y;
			size += fabs(y);
		}
		max = fmax(max, logit[v]);
		most = fmax(most, size);
	}
	for (v = 0; v < V; v++)
		sum += exp(logit[v] - max);
	*error = TEST_U * (2 * 30 * most + 10);
	return logit[token] - max - log(sum);
}

static void check_prompt(const struct lens_model *m, const struct rows *r,
			 const struct lens_tables *a, size_t i)
{
	size_t t, n = r->length[i] - 1;
	double sum = 0, errors = 0, error;
	const float *is = log_probs(a, i);

	for (t = 0; t < n; t++) {
		double should =
			log_prob(m, row_at(r, r->normed, i, t), r->token[i][t + 1], &error);

		test_near((double)is[t], should, error, "token_logprobs", (double)t);
		sum -= should;
		errors += error;
	}
	for (; t < N_POS; t++)
		assert_int_equal(test_bits(is[t]), test_bits(NAN));
	if (n)
		test_near((double)loss(a, i), sum / (double)n, errors / (double)n, "loss",
			  (double)i);
	else
		assert_int_equal(test_bits(loss(a, i)), test_bits(NAN));
	assert_int_equal(flags(a, i), 0);
}

static void against_float64(void **state)
{
	struct lens_model *m = make_model();
	struct lens_tables *a = create(m, options(true, true, 1));
	size_t i, n;

	(void)state;
	/* large batches, then small ones in the same memory */
	for (n = BATCH; n > 0; n = n * 2 / 3) {
		struct rows r;

		make_rows(&r, n);
		assert_int_equal(show_all(a, &r), 0);
		for (i = 0; i < n; i++)
			check_prompt(m, &r, a, i);
		release_rows(&r);
	}
	lens_tables_destroy(a);
	lens_model_destroy(m);
}

/* Probabilities near 1 keep their relative accuracy; near 0 nothing underflows. */
static void extremes(void **state)
{
	struct lens_model *m = make_model();
	struct lens_tables *a = create(m, options(true, true, 1));
	struct rows r = { 0 };
	double rest;
	size_t v;

	(void)state;
	memset(m->w_u, 0, V * D * sizeof(float));
	memset(m->b_u, 0, V * sizeof(float));
	add_prompt(&r, 4);
	fill_rows(&r);
	r.token[0][1] = 3, r.token[0][2] = 5, r.token[0][3] = 3;
	/* one token has nearly everything: log P = −log(1 + 36·exp(−18)) */
	m->b_u[3] = 18;
	show_all(a, &r);
	rest = (V - 1) * exp(-18);
	test_near((double)log_probs(a, 0)[0], -log1p(rest), 4 * TEST_U * rest, "near 1", 0);
	test_near((double)log_probs(a, 0)[1], -18 - log1p(rest), 18 * TEST_U, "far from 1", 0);
	/* and everything: the others' exponentials are 0 */
	m->b_u[3] = 30000;
	show_all(a, &r);
	assert_true(log_probs(a, 0)[0] == 0 && log_probs(a, 0)[1] == -30000.0f);
	assert_true(loss(a, 0) == 10000.0f);
	/* a loss of nothing is zero, and not minus zero */
	r.token[0][2] = 3;
	show_all(a, &r);
	assert_int_equal(test_bits(loss(a, 0)), test_bits(0.0f));
	/* all alike */
	for (v = 0; v < V; v++)
		m->b_u[v] = -7;
	show_all(a, &r);
	test_near((double)log_probs(a, 0)[2], -log(V), 8 * TEST_U, "uniform", 0);
	release_rows(&r);
	lens_tables_destroy(a);
	lens_model_destroy(m);
}

/* --- bits ------------------------------------------------------------------------------- */

static void same_values(const struct lens_tables *a, size_t i, const struct lens_tables *b,
			size_t k)
{
	if (lens_tables_rows(b, LENS_TABLE_token_logprobs))
		test_assert_same(log_probs(a, i), log_probs(b, k), N_POS, "token_logprobs");
	if (lens_tables_rows(b, LENS_TABLE_loss))
		assert_int_equal(test_bits(loss(a, i)), test_bits(loss(b, k)));
}

/* A row's bits are its own: alone, elsewhere in a batch, with either table, on threads. */
static void rows_of_their_own(void **state)
{
	struct lens_model *m = make_model();
	struct lens_tables *a = create(m, options(true, true, 1));
	struct lens_tables *other[] = { create(m, options(true, false, 1)),
					create(m, options(false, true, 1)),
					create(m, options(true, true, 3)) };
	size_t i, k;
	struct rows r;

	(void)state;
	make_rows(&r, BATCH);
	assert_true(r.b.n_rows > 400);
	show_all(a, &r);
	for (k = 0; k < 3; k++) {
		show_all(other[k], &r);
		for (i = 0; i < BATCH; i++)
			same_values(a, i, other[k], i);
	}
	assert_null(lens_tables_rows(other[0], LENS_TABLE_loss));
	assert_null(lens_tables_rows(other[1], LENS_TABLE_token_logprobs));
	for (i = 0; i < BATCH; i++) {
		const size_t pair[] = { i, 0 }; /* prompt i first, then another one */
		struct lens_batch two;

		test_pick(&two, &r.b, pair, 2);
		for (k = 0; k < 3; k++) {
			show(other[k], &r, &two);
			same_values(a, i, other[k], 0);
			same_values(a, 0, other[k], 1);
		}
		lens_batch_release(&two);
	}
	release_rows(&r);
	for (k = 0; k < 3; k++)
		lens_tables_destroy(other[k]);
	lens_tables_destroy(a);
	lens_model_destroy(m);
}

/* The values are those of the logits that a product of the whole batch has. */
static void same_as_logits(void **state)
{
	struct lens_model *m = make_model();
	struct lens_tables *a = create(m, options(true, true, 1));
	float *pad = test_floats(lens_gemm_pad_floats(V, D), 0), *logits;
	struct rows r;
	struct lens_gemm_args g = { .n = V, .k = D, .lda = D, .ldb = D, .ldc = V };
	size_t i, t;

	(void)state;
	make_rows(&r, BATCH);
	logits = test_floats(r.b.n_rows * V, 0);
	g.m = r.b.n_rows, g.a = r.normed, g.b = m->w_u, g.c = logits;
	g.trans = LENS_B_TRANSPOSED, g.bias = m->b_u;
	lens_gemm(&g, pad, 1);
	show_all(a, &r);
	for (i = 0; i < BATCH; i++) {
		for (t = 0; t + 1 < r.length[i]; t++) {
			const float *x = logits + (size_t)lens_batch_row(&r.b, i, t) * V;
			float max = lens_vec()->max_finite(V, x);
			double p = (double)x[r.token[i][t + 1]] - (double)max -
				   log(lens_vec()->sum_exp(V, x, max));

			assert_int_equal(test_bits(log_probs(a, i)[t]), test_bits((float)p));
		}
	}
	lens_free(pad);
	lens_free(logits);
	release_rows(&r);
	lens_tables_destroy(a);
	lens_model_destroy(m);
}

/* --- not finite --------------------------------------------------------------------------- */

static void not_finite(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	struct lens_model *m = make_model();
	struct lens_tables *a = create(m, options(true, true, 1));
	struct rows r = { 0 };
	size_t k, t;

	(void)state;
	add_prompt(&r, 9);
	add_prompt(&r, 14);
	add_prompt(&r, 5);
	fill_rows(&r);
	for (k = 0; k < 3; k++) {
		float *x = row_at(&r, r.normed, 1, 6) + 2, was = *x;

		*x = bad[k];
		assert_int_equal(show_all(a, &r), 1);
		assert_int_equal(flags(a, 1), LENS_FLAG_NONFINITE_POS);
		for (t = 0; t < 13; t++)
			assert_true(isnan(log_probs(a, 1)[t]) == (t == 6));
		assert_true(isnan(loss(a, 1)));
		*x = was;
		/* what the last token predicts is not asked for */
		*row_at(&r, r.normed, 1, 13) = bad[k];
		assert_int_equal(show_all(a, &r), 0);
		check_prompt(m, &r, a, 0);
		check_prompt(m, &r, a, 1);
		check_prompt(m, &r, a, 2);
	}
	/* both bits */
	*row_at(&r, r.normed, 2, 0) = NAN;
	*row_at(&r, r.resid, 2, 4) = NAN;
	assert_int_equal(show_all(a, &r), 1);
	assert_int_equal(flags(a, 2), LENS_FLAG_NONFINITE | LENS_FLAG_NONFINITE_POS);
	release_rows(&r);
	lens_tables_destroy(a);
	lens_model_destroy(m);
}

/* --- around it -------------------------------------------------------------------- */

static void hooks_needed(void **state)
{
	struct lens_model *m = make_model();
	size_t k;

	(void)state;
	for (k = 0; k < 4; k++) {
		struct lens_tables_options opt = options(k & 1, k & 2, 1);
		struct lens_hook_set s;

		assert_int_equal(lens_hook_set_init(&s, &m->config, NULL, 0, NULL), LENS_OK);
		lens_tables_hooks(m, &opt, &s);
		assert_int_equal(lens_hook_wanted(&s, LENS_HOOK_LN_FINAL_NORMALIZED, 0),
				 k ? LENS_WANT_ALL : LENS_WANT_NOT);
		assert_int_equal(lens_hook_wanted(&s, LENS_HOOK_LOGITS, 0), LENS_WANT_NOT);
		lens_hook_set_release(&s);
	}
	lens_model_destroy(m);
}

/* The tables cost memory only where they are wanted, and never a batch's logits. */
static void memory(void **state)
{
	struct lens_model *m = make_model();
	struct lens_tables_options none = options(false, false, 1),
				   both = options(true, true, 1);
	size_t without, with;

	(void)state;
	without = lens_tables_bytes(m, &none);
	with = lens_tables_bytes(m, &both);
	assert_true(with > without);
	both.sizes.n_pos *= 1000;
	assert_int_equal(lens_tables_bytes(m, &both) - with,
			 BATCH * (size_t)N_POS * 999 * sizeof(float));
	lens_model_destroy(m);
}

static enum lens_status create_once(void *ctx)
{
	struct lens_tables_options opt = options(true, true, 1);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tables *a;
	enum lens_status st = lens_tables_create(ctx, &opt, &a, &err);

	assert_int_equal(err.code, st);
	assert_true((st == LENS_OK) == (a != NULL));
	lens_tables_destroy(a);
	return st;
}

static void allocation_failures(void **state)
{
	struct lens_model *m = make_model();

	(void)state;
	test_alloc_failures(create_once, m);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(row_sizes),
		cmocka_unit_test(against_float64),
		cmocka_unit_test(extremes),
		cmocka_unit_test(rows_of_their_own),
		cmocka_unit_test(same_as_logits),
		cmocka_unit_test(not_finite),
		cmocka_unit_test(hooks_needed),
		cmocka_unit_test(memory),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
