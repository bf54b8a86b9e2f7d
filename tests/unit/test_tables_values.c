/*
 * test_tables_values.c: the tables against plain float64 code, on a model made up so
 * that logits tie, on the level of H5LENS_TEST_CPU; and what stands in them where
 * a number is not finite. Ranks and top tokens are checked against what the
 * float64 logits allow; logits against float64 within an error bound.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/tables.h"

enum { D = TEST_D_MODEL, V = TEST_D_VOCAB, SOURCES = TEST_SOURCES, BATCH = TEST_BATCH };

/* --- the same in float64 ----------------------------------------------------------------- */

/*
 * Logit v of a source. recompute: ln_final(x)·W_U + b_U; else (x − mean)/s·W_U
 * with s of the last source. *size is Σ of the products' sizes, for the bound.
 */
static double logit(const struct lens_model *m, const struct test_stream *s, size_t source,
		    size_t prompt, size_t v, bool recompute, double *size)
{
	const float *x = test_read_row(s, source, prompt);
	double scale, last, mean = test_moments(m, x, &scale),
			    sum = recompute ? (double)m->b_u[v] : 0;
	size_t j;

	test_moments(m, test_read_row(s, SOURCES - 1, prompt), &last);
	*size = fabs(sum);
	for (j = 0; j < D; j++) {
		double y = ((double)x[j] - mean) / (recompute ? scale : last), b = 0;

		if (recompute && m->ln_final_w)
			y *= (double)m->ln_final_w[j];
		if (recompute && m->ln_final_b)
			b = (double)m->ln_final_b[j];
		sum += (y + b) * (double)m->w_u[v * D + j];
		*size += (fabs(y) + fabs(b)) * fabs((double)m->w_u[v * D + j]);
	}
	return sum;
}

/* D = 20 products and the norm's own roundings: 30u of the sum of sizes. */
#define LOGIT_ERROR(size) (30 * TEST_U * (size))

/*
 * Softmax in float64. *error: of logits that are off, the token's by its error and
 * all in Σ by the largest; of Σ's float32 exponentials, 3u and u·|x − max|; and of
 * the rounding to float32.
 */
static double probability(const struct lens_model *m, const struct test_stream *s,
			  size_t prompt, size_t token, double *error)
{
	double sum = 0, size[V], largest = 0, max = -INFINITY, min = INFINITY, x[V], p;
	size_t v;

	for (v = 0; v < V; v++) {
		x[v] = logit(m, s, SOURCES - 1, prompt, v, true, &size[v]);
		max = fmax(max, x[v]);
		min = fmin(min, x[v]);
		largest = fmax(largest, size[v]);
	}
	for (v = 0; v < V; v++)
		sum += exp(x[v] - max);
	p = exp(x[token] - max) / sum;
	*error = p * (expm1(LOGIT_ERROR(size[token]) + LOGIT_ERROR(largest)) +
		      TEST_U * (4 + max - min));
	return p;
}

/* Tokens whose logit is surely larger, and those whose might be. */
static void rank_range(const struct lens_model *m, const struct test_stream *s, size_t source,
		       size_t prompt, size_t token, bool recompute, long *least, long *most)
{
	double size, other, x = logit(m, s, source, prompt, token, recompute, &size);
	double margin = 2 * LOGIT_ERROR(size);
	size_t v;

	*least = *most = 0;
	for (v = 0; v < V; v++) {
		double y = logit(m, s, source, prompt, v, recompute, &other);

		/* the tied ones are equal to the bit, so never larger */
		if (!memcmp(m->w_u + v * D, m->w_u + token * D, D * sizeof(float)))
			continue;
		*least += y > x + margin + 2 * LOGIT_ERROR(other);
		*most += y > x - margin - 2 * LOGIT_ERROR(other);
	}
}

/* --- checks ------------------------------------------------------------------------------ */

struct checked {
	const struct lens_model *m;
	const struct test_stream *s;
	const struct lens_tables *t;
	struct lens_tables_options opt;
};

/* A prompt's row of a table. */
#define ROW(c, table, prompt) test_table_row((c)->t, &(c)->opt, LENS_TABLE_##table, prompt)

static void check_answers(const struct checked *c, size_t prompt)
{
	const float *value = ROW(c, answer_logit, prompt), *prob = ROW(c, answer_prob, prompt);
	const float *logprob = ROW(c, answer_logprob, prompt);
	const int32_t *rank = ROW(c, answer_rank, prompt);
	const float *diff = c->opt.sizes.n_answers > 1 ? ROW(c, logit_diff, prompt) : NULL;
	size_t i, n = c->opt.sizes.n_answers;
	double size;

	for (i = 0; i < n; i++) {
		size_t token = (size_t)c->s->answers[prompt * n + i];
		double x = logit(c->m, c->s, SOURCES - 1, prompt, token, true, &size), p, error;
		long least, most;

		test_near((double)value[i], x, LOGIT_ERROR(size), "answer_logit", (double)i);
		p = probability(c->m, c->s, prompt, token, &error);
		test_near((double)prob[i], p, error, "answer_prob", (double)i);
		test_near((double)logprob[i], log(p), 1.01 * error / p + TEST_U * fabs(log(p)),
			  "answer_logprob", (double)i);
		rank_range(c->m, c->s, SOURCES - 1, prompt, token, true, &least, &most);
		assert_in_range(rank[i], least, most);
		if (i)
			assert_true(diff[i - 1] == value[0] - value[i]);
	}
	assert_int_equal(*(const uint8_t *)ROW(c, flags, prompt), 0);
}

static void check_lens(const struct checked *c, size_t prompt)
{
	bool recompute = c->opt.lens == LENS_LENS_RECOMPUTE;
	const float *value = ROW(c, lens_logit, prompt);
	const int32_t *rank = ROW(c, rank_per_layer, prompt);
	size_t i, k, n = c->opt.sizes.n_answers;

	for (k = 0; k < SOURCES; k++) {
		for (i = 0; i < n; i++) {
			size_t token = (size_t)c->s->answers[prompt * n + i];
			double size, x = logit(c->m, c->s, k, prompt, token, recompute, &size);
			long least, most;

			test_near((double)value[k * n + i], x, LOGIT_ERROR(size), "lens_logit",
				  (double)k);
			rank_range(c->m, c->s, k, prompt, token, recompute, &least, &most);
			assert_in_range(rank[k * n + i], least, most);
		}
	}
	/* recomputed, the last layer is the model itself, to the bit */
	for (i = 0; recompute && i < n; i++) {
		k = (SOURCES - 1) * n + i;
		assert_true(value[k] == ((const float *)ROW(c, answer_logit, prompt))[i]);
		assert_true(rank[k] == ((const int32_t *)ROW(c, answer_rank, prompt))[i]);
	}
}

static void check_top(const struct checked *c, size_t prompt)
{
	const int32_t *token = ROW(c, top_tokens, prompt);
	const float *value = ROW(c, top_logits, prompt), *prob = ROW(c, top_probs, prompt);
	size_t i, k = c->opt.sizes.top_k < V ? c->opt.sizes.top_k : V;
	bool seen[V] = { false };
	double size;

	for (i = 0; i < k; i++) {
		size_t t = (size_t)token[i];
		double x, error, p = probability(c->m, c->s, prompt, t, &error);

		assert_in_range(t, 0, V - 1);
		assert_false(seen[t]);
		seen[t] = true;
		x = logit(c->m, c->s, SOURCES - 1, prompt, t, true, &size);
		test_near((double)value[i], x, LOGIT_ERROR(size), "top_logits", (double)i);
		test_near((double)prob[i], p, error, "top_probs", (double)i);
		if (i)
			assert_true(value[i] < value[i - 1] ||
				    (value[i] == value[i - 1] && token[i] > token[i - 1]));
	}
	for (; i < c->opt.sizes.top_k; i++) {
		assert_int_equal(token[i], -1);
		assert_true(isnan(value[i]) && isnan(prob[i]));
	}
	/* what was left out is not larger than what was taken */
	for (i = 0; i < V; i++) {
		double x = logit(c->m, c->s, SOURCES - 1, prompt, i, true, &size);

		assert_true(seen[i] || x <= (double)value[k - 1] + 2 * LOGIT_ERROR(size));
	}
	/* of 5, 9, 30 the smaller come first */
	assert_true((seen[5] || !seen[9]) && (seen[9] || !seen[30]));
}

static void check(const struct lens_model *m, struct lens_tables_options opt)
{
	struct lens_tables *t = test_create_tables(m, &opt);
	struct test_stream s;
	size_t n, i;

	/* full and partial batches, with one worker's memory */
	for (n = BATCH; n > 0; n -= n > 3 ? 3 : 1) {
		struct checked c = { .m = m, .s = &s, .t = t, .opt = opt };

		test_make_stream(&s, n, opt.sizes.n_answers);
		assert_int_equal(test_show_stream(t, &s), 0);
		for (i = 0; i < n; i++) {
			check_answers(&c, i);
			check_lens(&c, i);
			check_top(&c, i);
		}
		test_release_stream(&s);
	}
	lens_tables_destroy(t);
}

static void against_float64(void **state)
{
	size_t kind, answers;
	int lens;

	(void)state;
	for (kind = 0; kind < 4; kind++) {
		struct lens_model *m = test_make_model(kind & 1, kind & 2);

		for (answers = 1; answers <= 3; answers++) {
			for (lens = 0; lens < 2; lens++)
				check(m, test_all_tables(m, answers, 5,
							 lens ? LENS_LENS_CACHED_SCALE_NO_BIAS
							      : LENS_LENS_RECOMPUTE));
		}
		check(m, test_all_tables(m, 2, 1, LENS_LENS_RECOMPUTE));
		check(m, test_all_tables(m, 2, V, LENS_LENS_RECOMPUTE));
		check(m, test_all_tables(m, 2, V + 11,
					 LENS_LENS_RECOMPUTE)); /* more than there are */
		lens_model_destroy(m);
	}
}

static void check_flagged(const struct lens_tables *t, const struct lens_tables_options *opt,
			  size_t prompt)
{
	struct checked c = { .t = t, .opt = *opt };
	size_t i;

	assert_int_equal(*(const uint8_t *)ROW(&c, flags, prompt), LENS_FLAG_NONFINITE);
	for (i = 0; i < 2; i++) {
		assert_int_equal(((const int32_t *)ROW(&c, answer_rank, prompt))[i], -1);
		assert_true(isnan(((const float *)ROW(&c, answer_prob, prompt))[i]));
		assert_true(isnan(((const float *)ROW(&c, answer_logprob, prompt))[i]));
		assert_int_equal(((const int32_t *)ROW(&c, rank_per_layer,
						       prompt))[(SOURCES - 1) * 2 + i],
				 -1);
	}
	for (i = 0; i < 5; i++) {
		assert_int_equal(((const int32_t *)ROW(&c, top_tokens, prompt))[i], -1);
		assert_true(isnan(((const float *)ROW(&c, top_logits, prompt))[i]));
		assert_true(isnan(((const float *)ROW(&c, top_probs, prompt))[i]));
	}
}

/* NaN and infinity in the stream flag their own prompt, and no other. */
static void not_finite(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	struct lens_model *m = test_make_model(false, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE);
	struct lens_tables *t = test_create_tables(m, &opt);
	size_t i, k;

	(void)state;
	for (k = 0; k < 3; k++) {
		struct checked c = { .m = m, .t = t, .opt = opt };
		struct test_stream s;

		test_make_stream(&s, 4, 2);
		c.s = &s;
		test_read_row(&s, SOURCES - 1, 2)[3] = bad[k];
		assert_int_equal(test_show_stream(t, &s), 1);
		check_flagged(t, &opt, 2);
		for (i = 0; i < 4; i++) {
			if (i == 2)
				continue;
			check_answers(&c, i);
			check_lens(&c, i);
			check_top(&c, i);
		}
		test_release_stream(&s);
	}
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* One logit of the vocabulary is infinite: the prompt is flagged, whatever its answers. */
static void one_infinite_logit(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE);
	struct lens_tables *t;
	struct test_stream s;

	(void)state;
	m->b_u[36] = INFINITY;
	t = test_create_tables(m, &opt);
	test_make_stream(&s, 3, 2);
	assert_int_equal(test_show_stream(t, &s), 3);
	check_flagged(t, &opt, 0);
	check_flagged(t, &opt, 2);
	test_release_stream(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* A lens layer that is not finite has rank -1, and does not flag the prompt. */
static void lens_layer_not_finite(void **state)
{
	struct lens_model *m = test_make_model(true, false);
	struct lens_tables_options opt = test_all_tables(m, 2, 5, LENS_LENS_RECOMPUTE);
	struct lens_tables *t = test_create_tables(m, &opt);
	struct checked c = { .t = t, .opt = opt };
	struct test_stream s;
	const int32_t *rank;

	(void)state;
	test_make_stream(&s, 2, 2);
	test_read_row(&s, 1, 1)[0] = NAN;
	assert_int_equal(test_show_stream(t, &s), 0);
	rank = ROW(&c, rank_per_layer, 1);
	assert_true(rank[0] >= 0 && rank[2] == -1 && rank[3] == -1 && rank[4] >= 0);
	test_release_stream(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_float64),
		cmocka_unit_test(not_finite),
		cmocka_unit_test(one_infinite_logit),
		cmocka_unit_test(lens_layer_not_finite),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
