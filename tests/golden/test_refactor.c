/*
 * golden/test_refactor.c: weights.refactor_factored_attn_matrices on the test
 * models: what a notebook checks of it (columns of W_Q orthogonal, W_Q and W_K of
 * equal column norms, the model's behaviour unchanged), the heads' matrices, and
 * the bits. Once per CPU level (H5LENS_TEST_CPU).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <omp.h>

#include "model/model_private.h"
#include "support/cases.h"
#include "support/h5file.h"
#include "support/numbers.h"
#include "support/runs.h"

#define DATA "tests/golden/data/"

static const char *const model_dir[] = { DATA "gpt2_gelu", DATA "gpt2_gelu_new",
					 DATA "gpt2_unscaled" };
#define N_MODELS (sizeof(model_dir) / sizeof(*model_dir))

static struct lens_model *open_model(const char *dir, bool rest, bool refactor)
{
	const struct lens_model_options p = { .processing = { rest, rest, rest, rest,
							      refactor } };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;

	if (lens_model_open(dir, &p, &m, &err) != LENS_OK)
		fail_msg("%s", err.text);
	return m;
}

/* --- the heads' matrices --------------------------------------------------------------- */

/* A head of a block: its factors, W_Q and W_K with the bias as a last row. */
struct head {
	size_t d, dh;
	double *q, *k; /* [d + 1, dh] */
	double *v;     /* [d, dh] */
	double *o;     /* [dh, d] */
	double b_v;    /* largest magnitude */
};

static double *columns(const struct lens_config *c, const struct lens_block *b, size_t first)
{
	size_t i, j, dh = c->d_head, width = 3 * c->n_heads * dh;
	double *x = lens_calloc((c->d_model + 1) * dh, sizeof(*x));

	assert_non_null(x);
	for (j = 0; j < dh; j++) {
		for (i = 0; i < c->d_model; i++)
			x[i * dh + j] = (double)b->w_qkv[i * width + first + j];
		x[c->d_model * dh + j] = (double)b->b_qkv[first + j];
	}
	return x;
}

static struct head get_head(const struct lens_model *m, size_t layer, size_t i)
{
	const struct lens_config *c = &m->config;
	const struct lens_block *b = &m->block[layer];
	size_t dh = c->d_head, d = c->d_model, all = c->n_heads * dh, j;
	struct head h = { .d = d, .dh = dh };

	h.q = columns(c, b, i * dh);
	h.k = columns(c, b, all + i * dh);
	h.v = columns(c, b, 2 * all + i * dh);
	h.o = lens_calloc(dh * d, sizeof(*h.o));
	assert_non_null(h.o);
	for (j = 0; j < dh * d; j++)
		h.o[j] = (double)b->w_o[i * dh * d + j];
	for (j = 0; j < dh; j++)
		h.b_v = fmax(h.b_v, fabs(h.v[d * dh + j]));
	return h;
}

static void release_head(struct head *h)
{
	lens_free(h->q);
	lens_free(h->k);
	lens_free(h->v);
	lens_free(h->o);
}

static double column_dot(const double *x, size_t rows, size_t dh, size_t i, size_t j)
{
	double sum = 0;
	size_t r;

	for (r = 0; r < rows; r++)
		sum += x[r * dh + i] * x[r * dh + j];
	return sum;
}

/* Columns orthogonal but for the rounding of the weights to float32. */
static void check_orthogonal(const double *x, size_t rows, size_t dh, const char *what)
{
	size_t i, j;

	for (i = 0; i < dh; i++) {
		for (j = 0; j < i; j++) {
			double size = sqrt(column_dot(x, rows, dh, i, i)) *
				      sqrt(column_dot(x, rows, dh, j, j));

			test_near(column_dot(x, rows, dh, i, j), 0, 2 * TEST_U * size, what,
				  (double)i);
		}
	}
}

static void check_factors(const struct head *h)
{
	size_t i, j, dh = h->dh;
	double last = INFINITY;

	check_orthogonal(h->q, h->d + 1, dh, "[W_Q; b_Q]");
	check_orthogonal(h->k, h->d + 1, dh, "[W_K; b_K]");
	check_orthogonal(h->v, h->d, dh, "W_V");
	for (i = 0; i < dh; i++) {
		double q = sqrt(column_dot(h->q, h->d + 1, dh, i, i));
		double k = sqrt(column_dot(h->k, h->d + 1, dh, i, i));
		double best = 0;

		test_near(k, q, 2 * TEST_U * q, "norms of W_Q and W_K", (double)i);
		assert_true(q <= last * (1 + 4 * TEST_U)); /* largest first */
		last = q;
		for (j = 0; j <= h->d; j++)
			best = fabs(h->q[j * dh + i]) > fabs(best) ? h->q[j * dh + i] : best;
		assert_true(best > 0);
		for (j = 0; j < dh; j++) {
			double sum = 0;
			size_t r;

			for (r = 0; r < h->d; r++)
				sum += h->o[i * h->d + r] * h->o[j * h->d + r];
			test_near(sum, i == j, 4 * TEST_U, "W_O is a rotation", (double)i);
		}
	}
	assert_true(h->b_v == 0);
}

/* (x·yᵀ)[i, j] of [·, dh] factors. */
static double product(const double *x, const double *y, size_t dh, size_t i, size_t j)
{
	double sum = 0;
	size_t l;

	for (l = 0; l < dh; l++)
		sum += x[i * dh + l] * y[j * dh + l];
	return sum;
}

static double ov(const struct head *h, size_t i, size_t j)
{
	double sum = 0;
	size_t l;

	for (l = 0; l < h->dh; l++)
		sum += h->v[i * h->dh + l] * h->o[l * h->d + j];
	return sum;
}

/* RMS of the change of both products, relative to their own. */
static void check_products(const struct head *a, const struct head *b)
{
	double qk = 0, qk_size = 0, o = 0, o_size = 0;
	size_t i, j;

	for (i = 0; i <= a->d; i++) {
		for (j = 0; j <= a->d; j++) {
			double x = product(a->q, a->k, a->dh, i, j);

			qk += pow(product(b->q, b->k, b->dh, i, j) - x, 2);
			qk_size += x * x;
		}
	}
	for (i = 0; i < a->d; i++) {
		for (j = 0; j < a->d; j++) {
			o += pow(ov(b, i, j) - ov(a, i, j), 2);
			o_size += pow(ov(a, i, j), 2);
		}
	}
	test_near(sqrt(qk / qk_size), 0, 4 * TEST_U, "W_Q·W_Kᵀ", 0);
	test_near(sqrt(o / o_size), 0, 4 * TEST_U, "W_V·W_O", 0);
}

static void factors(void **state)
{
	size_t i, layer, h, rest;

	(void)state;
	for (i = 0; i < N_MODELS; i++) {
		for (rest = 0; rest < 2; rest++) {
			struct lens_model *a = open_model(model_dir[i], rest, false);
			struct lens_model *b = open_model(model_dir[i], rest, true);
			const struct lens_config *c = &a->config;

			for (layer = 0; layer < c->n_layers; layer++) {
				for (h = 0; h < c->n_heads; h++) {
					struct head x = get_head(a, layer, h);
					struct head y = get_head(b, layer, h);

					check_factors(&y);
					check_products(&x, &y);
					release_head(&x);
					release_head(&y);
				}
				/* with fold_value_biases, b_O has b_V already */
				if (rest)
					test_assert_same(a->block[layer].b_o,
							 b->block[layer].b_o, c->d_model,
							 "b_O");
				test_assert_same(a->block[layer].w_in, b->block[layer].w_in,
						 c->d_model * c->d_mlp, "W_in");
			}
			lens_model_destroy(a);
			lens_model_destroy(b);
		}
	}
}

/* --- behaviour -------------------------------------------------------------------------- */

static void run(const char *dir, const char *output, const char *weights)
{
	struct lens_experiment e;
	char data[256];

	snprintf(data, sizeof(data), "%s/prompts.csv", dir);
	test_experiment(&e, dir, data, output);
	test_set(&e, "weights", weights, "cache.hooks",
		 "logits,*hook_attn_out,*attn.hook_pattern", NULL);
	test_run(&e);
	lens_experiment_release(&e);
}

/* RMS of the difference relative to the first one's. */
static double difference(const char *a, const char *b, const char *path)
{
	struct test_h5 *f = test_h5_open(a), *g = test_h5_open(b);
	struct test_array x, y;
	double sum = 0, size = 0;
	size_t i;

	test_h5_f64(f, path, &x);
	test_h5_f64(g, path, &y);
	assert_int_equal(x.n, y.n);
	for (i = 0; i < x.n; i++) {
		assert_true(isnan(x.f64[i]) == isnan(y.f64[i]));
		if (!isfinite(x.f64[i]))
			continue;
		sum += pow(x.f64[i] - y.f64[i], 2);
		size += pow(x.f64[i], 2);
	}
	assert_true(size > 0);
	test_array_release(&x);
	test_array_release(&y);
	test_h5_close(f);
	test_h5_close(g);
	return sqrt(sum / size);
}

static void same_behaviour(void **state)
{
	static const char *const path[] = { "/cache/logits", "/cache/blocks.1.hook_attn_out",
					    "/cache/blocks.1.attn.hook_pattern" };
	static const char *const weights[][2] = {
		{ "processed", "{refactor_factored_attn_matrices: true}" },
		{ "raw", "{fold_ln: false, center_writing_weights: false, "
			 "center_unembed: false, fold_value_biases: false, "
			 "refactor_factored_attn_matrices: true}" },
	};
	char *a = test_tmp_path("plain.h5"), *b = test_tmp_path("refactored.h5");
	size_t i, k, w;

	(void)state;
	for (i = 0; i < N_MODELS; i++) {
		for (w = 0; w < 2; w++) {
			run(model_dir[i], a, weights[w][0]);
			run(model_dir[i], b, weights[w][1]);
			for (k = 0; k < 3; k++)
				test_near(difference(a, b, path[k]), 0, 32 * TEST_U, path[k],
					  (double)i);
			unlink(a);
			unlink(b);
		}
	}
	lens_free(a);
	lens_free(b);
}

/* --- around it --------------------------------------------------------------------------- */

static void threads(void **state)
{
	struct lens_model *a, *b;
	int n, was = omp_get_max_threads();
	size_t layer;

	(void)state;
	omp_set_num_threads(1);
	a = open_model(DATA "gpt2_gelu", true, true);
	for (n = 2; n < 5; n++) {
		const struct lens_config *c = &a->config;
		size_t all = c->n_heads * c->d_head;

		omp_set_num_threads(n);
		b = open_model(DATA "gpt2_gelu", true, true);
		for (layer = 0; layer < c->n_layers; layer++) {
			const struct lens_block *x = &a->block[layer], *y = &b->block[layer];

			test_assert_same(x->w_qkv, y->w_qkv, c->d_model * 3 * all, "w_qkv");
			test_assert_same(x->b_qkv, y->b_qkv, 3 * all, "b_qkv");
			test_assert_same(x->w_o, y->w_o, all * c->d_model, "w_o");
		}
		lens_model_destroy(b);
	}
	omp_set_num_threads(was);
	lens_model_destroy(a);
}

static void refused(void **state)
{
	struct lens_config c = {
		.family = "gpt_neox", .n_heads = 4, .n_kv_heads = 4, .d_head = 8, .d_model = 32
	};
	struct lens_error err = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(lens_refactor_check(&c, &err), LENS_OK);
	c.rotary.dim = 2;
	assert_int_equal(lens_refactor_check(&c, &err), LENS_ERR_UNSUPPORTED);
	assert_non_null(
		strstr(err.text, "refactor_factored_attn_matrices: gpt_neox has rotary"));
	c.rotary.dim = 0;
	c.n_kv_heads = 2;
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_refactor_check(&c, &err), LENS_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "4 heads share 2 keys"));
	c.n_kv_heads = 4;
	c.d_head = 33;
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_refactor_check(&c, &err), LENS_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, "d_head 33"));
}

/* A head of zeros stays one of zeros, but for a W_O that nothing reaches. */
static void check_dead_head(bool wq)
{
	enum { D = 12, DH = 4 };
	const struct lens_config c = {
		.n_heads = 1, .n_kv_heads = 1, .d_head = DH, .d_model = D
	};
	double q[D * DH], k[D * DH] = { 0 }, v[D * DH] = { 0 }, o[DH * D] = { 0 };
	double b_q[DH] = { 0 }, b_k[DH] = { 0 };
	const struct lens_head_factors h = { q, k, v, b_q, b_k, o };
	struct test_random rnd = { 5 };
	size_t i;

	for (i = 0; i < D * DH; i++)
		q[i] = wq ? (double)test_random_float(&rnd) : 0;
	assert_int_equal(lens_refactor_head(&c, &h, NULL), LENS_OK);
	for (i = 0; i < D * DH; i++)
		assert_true(q[i] == 0 && k[i] == 0 && v[i] == 0);
	for (i = 0; i < DH; i++)
		assert_true(b_q[i] == 0 && b_k[i] == 0);
	for (i = 0; i < DH * D; i++)
		assert_true(fabs(o[i]) <= 1);
}

/* One of zeros, and one that has a W_Q and nothing else. */
static void dead_head(void **state)
{
	(void)state;
	check_dead_head(false);
	check_dead_head(true);
}

static enum lens_status open_once(void *ctx)
{
	const struct lens_model_options p = { .processing = { true, true, true, true, true } };
	struct lens_model *m;
	enum lens_status st = lens_model_open(ctx, &p, &m, NULL);

	assert_true((st == LENS_OK) == (m != NULL));
	lens_model_destroy(m);
	return st;
}

static void allocation_failures(void **state)
{
	char dir[] = DATA "gpt2_gelu";

	(void)state;
	test_alloc_failures(open_once, dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(factors),   cmocka_unit_test(same_behaviour),
		cmocka_unit_test(threads),   cmocka_unit_test(refused),
		cmocka_unit_test(dead_head), cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
