/*
 * test_tables_lens.c: the logit lens without answers, at the read position and at every
 * one, against plain float64 code; and its bits, on the level of H5LENS_TEST_CPU. The
 * model is an unembedding alone, its streams are made up.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/cases.h"
#include "support/tables.h"

/*
 * More prompts than the model's own logits are kept of, more rows than a tile has
 * slots.
 */
enum { D = TEST_D_MODEL, V = TEST_D_VOCAB, LAYERS = 2, MOST = 5, BATCH = 110, N_POS = 14 };

static struct test_random rnd = { 21 };

static struct lens_model *make_model(bool folded, bool rms)
{
	struct lens_model *m = test_make_model(folded, rms);

	m->config.n_layers = LAYERS;
	return m;
}

/* --- a batch ------------------------------------------------------------------------- */

struct streams {
	size_t n_lens; /* LAYERS + 1, or 2 LAYERS + 1 */
	struct lens_batch b;
	float *x[MOST]; /* [n_rows, D] */
};

static void make_streams(struct streams *s, size_t n, bool mid)
{
	struct test_prompt prompt[BATCH] = { 0 };
	size_t i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < n; i++) {
		prompt[i].length = 1 + test_random_below(&rnd, N_POS);
		prompt[i].read_pos = (int32_t)test_random_below(&rnd, prompt[i].length);
	}
	test_pack(&s->b, prompt, n);
	test_scatter(&s->b, &rnd);
	s->n_lens = mid ? MOST : LAYERS + 1;
	for (i = 0; i < s->n_lens; i++)
		s->x[i] = test_random_floats(&rnd, s->b.n_rows * D);
}

static void release_streams(struct streams *s)
{
	size_t i;

	for (i = 0; i < s->n_lens; i++)
		lens_free(s->x[i]);
	lens_batch_release(&s->b);
}

static float *row_at(const struct streams *s, size_t layer, size_t prompt, size_t pos)
{
	return s->x[layer] + (size_t)lens_batch_row(&s->b, prompt, pos) * D;
}

/* b: the prompts of s that are shown. */
static void show(struct lens_tables *t, const struct streams *s, const struct lens_batch *b)
{
	const struct lens_tables_batch in = { .batch = b };
	struct lens_activation a = { .width = D, .stride = D };
	size_t i, flagged = 0, each = s->n_lens == MOST ? 2 : 1;

	lens_tables_begin(t, &in);
	for (i = 0; i < s->n_lens; i++) {
		a.hook = i % each ? LENS_HOOK_RESID_MID : LENS_HOOK_RESID_PRE;
		a.layer = i / each;
		if (i + 1 == s->n_lens) {
			a.hook = LENS_HOOK_RESID_POST;
			a.layer = LAYERS - 1;
		}
		a.data = s->x[i];
		assert_int_equal(lens_tables_visit(t, b, &a, NULL), LENS_OK);
	}
	lens_tables_finish(t, &flagged);
}

static struct lens_tables_options options(const struct lens_model *m, bool cached, bool mid,
					  bool all)
{
	struct lens_tables_options o = {
		.sizes = lens_model_sizes(&m->config),
		.lens = cached ? LENS_LENS_CACHED_SCALE_NO_BIAS : LENS_LENS_RECOMPUTE,
		.lens_positions = all ? LENS_READ_AT_ALL : LENS_READ_AT_READ,
		.batch_rows = BATCH,
		.max_rows = (BATCH + 2) * 24,
	};

	o.sizes.lens_mid = mid;
	o.sizes.n_pos = N_POS;
	o.sizes.top_k = 1;
	o.wanted[LENS_TABLE_lens_top_token] = o.wanted[LENS_TABLE_lens_top_prob] = true;
	o.wanted[LENS_TABLE_lens_entropy] = o.wanted[LENS_TABLE_lens_kl] = true;
	o.wanted[LENS_TABLE_top_tokens] = o.wanted[LENS_TABLE_top_probs] = true;
	o.wanted[LENS_TABLE_flags] = true;
	return o;
}

/* --- the same in float64 ----------------------------------------------------------------- */

/* A distribution over the vocabulary; error bounds what float32 changes in a logit. */
struct naive {
	double logit[V], log_p[V], error, range;
};

/* *size: Σ of the products' sizes. cached: the scale, or 0 for ln_final and b_U. */
static double logit(const struct lens_model *m, const float *x, double cached, size_t v,
		    double *size)
{
	double own, mean = test_moments(m, x, &own), sum = cached > 0 ? 0 : (double)m->b_u[v];
	size_t j;

	*size = fabs(sum);
	for (j = 0; j < D; j++) {
		double y = ((double)x[j] - mean) / (cached > 0 ? cached : own), b = 0;

		if (!(cached > 0) && m->ln_final_w)
			y *= (double)m->ln_final_w[j];
		if (!(cached > 0) && m->ln_final_b)
			b = (double)m->ln_final_b[j];
		sum += (y + b) * (double)m->w_u[v * D + j];
		*size += (fabs(y) + fabs(b)) * fabs((double)m->w_u[v * D + j]);
	}
	return sum;
}

/* Of a lens layer at a prompt's position. */
static void lens_at(const struct lens_model *m, const struct streams *s, size_t layer,
		    const size_t at[2], bool cached, struct naive *out)
{
	const float *x = row_at(s, layer, at[0], at[1]);
	double scale = 0, sum = 0, max = -INFINITY, min = INFINITY, size;
	size_t v;

	if (cached)
		test_moments(m, row_at(s, s->n_lens - 1, at[0], at[1]), &scale);
	out->error = 0;
	for (v = 0; v < V; v++) {
		out->logit[v] = logit(m, x, scale, v, &size);
		max = fmax(max, out->logit[v]);
		min = fmin(min, out->logit[v]);
		/* D = 20 products and the norm's own roundings */
		out->error = fmax(out->error, 30 * TEST_U * size);
	}
	for (v = 0; v < V; v++)
		sum += exp(out->logit[v] - max);
	for (v = 0; v < V; v++)
		out->log_p[v] = out->logit[v] - max - log(sum);
	out->range = max - min;
}

static double entropy(const struct naive *p)
{
	double sum = 0;
	size_t v;

	for (v = 0; v < V; v++)
		sum -= exp(p->log_p[v]) * p->log_p[v];
	return sum;
}

/*
 * KL(p ‖ q). *error: its derivative by p's logits is p·(log p/q − KL), by q's q − p, of
 * logits that are off by so much; and one rounding.
 */
static double divergence(const struct naive *p, const struct naive *q, double *error)
{
	double sum = 0, largest = 0;
	size_t v;

	for (v = 0; v < V; v++) {
		double ratio = p->log_p[v] - q->log_p[v];

		sum += exp(p->log_p[v]) * ratio;
		largest = fmax(largest, fabs(ratio));
	}
	*error = 2.1 * (p->error * largest + q->error) + TEST_U * sum;
	return sum;
}

/* --- checks ------------------------------------------------------------------------------ */

struct values {
	int32_t token;
	float prob, entropy;
};

/* What the tables say of a lens layer: at a position, or at the read position. */
static struct values values_at(const struct lens_tables *t,
			       const struct lens_tables_options *opt, size_t prompt,
			       size_t layer, size_t pos)
{
	bool all = opt->lens_positions == LENS_READ_AT_ALL;
	size_t i = all ? layer * N_POS + pos : layer;
	const int32_t *token = test_table_row(t, opt, LENS_TABLE_lens_top_token, prompt);
	const float *prob = test_table_row(t, opt, LENS_TABLE_lens_top_prob, prompt);
	const float *h = test_table_row(t, opt, LENS_TABLE_lens_entropy, prompt);

	return (struct values){ token[i], prob[i], h[i] };
}

static bool same_values(struct values a, struct values b)
{
	return a.token == b.token && test_same(a.prob, b.prob) &&
	       test_same(a.entropy, b.entropy);
}

static void check_values(struct values is, const struct naive *p)
{
	double prob, h = entropy(p);
	size_t v, t = (size_t)is.token;

	assert_in_range(is.token, 0, V - 1);
	for (v = 0; v < V; v++)
		assert_true(p->logit[v] <= p->logit[t] + 2 * p->error);
	prob = exp(p->log_p[t]);
	/* logits; Σ's float32 exponentials, 3u and u·|x − max|; one rounding */
	test_near((double)is.prob, prob, prob * (expm1(2 * p->error) + TEST_U * (4 + p->range)),
		  "lens_top_prob", 0);
	/* ∂H/∂x = −p·(log p + H), whose sizes are 2H together at most */
	test_near((double)is.entropy, h, 2.1 * p->error * h + TEST_U * h + 1e-12,
		  "lens_entropy", 0);
}

/* One prompt's, at the positions that are there. */
static void check_layer(const struct lens_model *m, const struct streams *s,
			const struct lens_tables *t, const struct lens_tables_options *opt,
			const size_t of[2])
{
	bool all = opt->lens_positions == LENS_READ_AT_ALL;
	size_t prompt = of[0], layer = of[1], pos, read = (size_t)s->b.read_pos[prompt];

	for (pos = all ? 0 : read; pos < (all ? N_POS : read + 1); pos++) {
		struct values is = values_at(t, opt, prompt, layer, pos);
		const size_t at[2] = { prompt, pos };
		struct naive p;

		if (pos >= s->b.length[prompt]) {
			assert_true(is.token == -1 && isnan(is.prob));
			assert_int_equal(test_bits(is.entropy), test_bits(NAN));
			continue;
		}
		lens_at(m, s, layer, at, opt->lens, &p);
		check_values(is, &p);
	}
}

static void check_prompt(const struct lens_model *m, const struct streams *s,
			 const struct lens_tables *t, const struct lens_tables_options *opt,
			 size_t prompt)
{
	const float *kl = test_table_row(t, opt, LENS_TABLE_lens_kl, prompt);
	const size_t at[2] = { prompt, (size_t)s->b.read_pos[prompt] };
	struct naive own, lens;
	size_t layer;
	double error, should;

	lens_at(m, s, s->n_lens - 1, at, false, &own);
	for (layer = 0; layer < s->n_lens; layer++) {
		const size_t of[2] = { prompt, layer };

		check_layer(m, s, t, opt, of);
		lens_at(m, s, layer, at, opt->lens, &lens);
		should = divergence(&own, &lens, &error);
		test_near((double)kl[layer], should, error, "lens_kl", (double)layer);
		assert_true(kl[layer] >= 0);
	}
	/* recomputed, the last lens layer is the model itself */
	assert_true(opt->lens || kl[s->n_lens - 1] == 0);
}

static void check_kind(size_t kind)
{
	struct lens_model *m = make_model(kind & 1, kind & 2);
	struct lens_tables_options opt = options(m, kind & 4, kind & 8, kind & 16);
	struct lens_tables *t = test_create_tables(m, &opt);
	struct streams s;
	size_t n, i;

	for (n = BATCH; n > 0; n /= 7) {
		make_streams(&s, n, kind & 8);
		show(t, &s, &s.b);
		for (i = 0; i < n; i++)
			check_prompt(m, &s, t, &opt, i);
		release_streams(&s);
	}
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

static void against_float64(void **state)
{
	size_t kind;

	(void)state;
	for (kind = 0; kind < 32; kind++)
		check_kind(kind);
}

/* --- bits ------------------------------------------------------------------------------- */

/* At the read position the same with read and with all; the last is the model's own. */
static void check_read_pos(const struct lens_model *m, bool cached, bool mid)
{
	struct lens_tables_options read = options(m, cached, mid, false),
				   all = options(m, cached, mid, true);
	struct lens_tables *a = test_create_tables(m, &read), *b = test_create_tables(m, &all);
	struct streams s;
	size_t i, k;

	make_streams(&s, BATCH, mid);
	show(a, &s, &s.b);
	show(b, &s, &s.b);
	for (i = 0; i < BATCH; i++) {
		const int32_t *top = test_table_row(a, &read, LENS_TABLE_top_tokens, i);
		const float *prob = test_table_row(a, &read, LENS_TABLE_top_probs, i);
		struct values last = values_at(a, &read, i, s.n_lens - 1, 0);
		size_t pos = (size_t)s.b.read_pos[i];

		for (k = 0; k < s.n_lens; k++)
			assert_true(same_values(values_at(a, &read, i, k, 0),
						values_at(b, &all, i, k, pos)));
		assert_memory_equal(test_table_row(a, &read, LENS_TABLE_lens_kl, i),
				    test_table_row(b, &all, LENS_TABLE_lens_kl, i),
				    s.n_lens * sizeof(float));
		assert_true(cached || (last.token == top[0] && last.prob == prob[0]));
	}
	release_streams(&s);
	lens_tables_destroy(a);
	lens_tables_destroy(b);
}

static void read_positions(void **state)
{
	struct lens_model *m = make_model(false, false);
	size_t kind;

	(void)state;
	for (kind = 0; kind < 4; kind++)
		check_read_pos(m, kind & 1, kind & 2);
	lens_model_destroy(m);
}

/* resid_pre's are the same whether resid_mid is read too. */
static void check_mid(const struct lens_model *m, bool cached, bool all)
{
	struct lens_tables_options with = options(m, cached, true, all),
				   without = options(m, cached, false, all);
	struct lens_tables *a = test_create_tables(m, &with),
			   *b = test_create_tables(m, &without);
	struct streams s, pre;
	size_t i, layer, pos;

	make_streams(&s, BATCH, true);
	pre = s;
	pre.n_lens = LAYERS + 1;
	for (layer = 0; layer < pre.n_lens; layer++)
		pre.x[layer] = s.x[2 * layer];
	show(a, &s, &s.b);
	show(b, &pre, &s.b);
	for (i = 0; i < BATCH; i++) {
		for (layer = 0; layer < pre.n_lens; layer++) {
			for (pos = 0; pos < (all ? s.b.length[i] : 1); pos++)
				assert_true(same_values(values_at(a, &with, i, 2 * layer, pos),
							values_at(b, &without, i, layer, pos)));
		}
	}
	release_streams(&s);
	lens_tables_destroy(a);
	lens_tables_destroy(b);
}

static void with_mid(void **state)
{
	struct lens_model *m = make_model(false, false);
	size_t kind;

	(void)state;
	for (kind = 0; kind < 4; kind++)
		check_mid(m, kind & 1, kind & 2);
	lens_model_destroy(m);
}

/* Prompt i of s beside another one, shown to b: the rows that a has. */
static void check_company(const struct lens_tables *a, const struct lens_tables_options *opt,
			  struct lens_tables *b, const struct streams *s, size_t i)
{
	static const enum lens_table which[] = { LENS_TABLE_lens_top_token,
						 LENS_TABLE_lens_top_prob,
						 LENS_TABLE_lens_entropy, LENS_TABLE_lens_kl };
	const size_t pair[] = { 7, i };
	struct lens_batch two;
	size_t k;

	test_pick(&two, &s->b, pair, 2);
	show(b, s, &two);
	for (k = 0; k < 4; k++) {
		if (lens_tables_rows(b, which[k]))
			assert_memory_equal(test_table_row(a, opt, which[k], i),
					    test_table_row(b, opt, which[k], 1),
					    lens_table_row_bytes(which[k], opt));
	}
	lens_batch_release(&two);
}

/* A row's bits are its own: in other company, on threads, without the other tables. */
static void rows_of_their_own(void **state)
{
	struct lens_model *m = make_model(false, true);
	size_t kind, i;

	(void)state;
	for (kind = 0; kind < 4; kind++) {
		struct lens_tables_options opt = options(m, kind & 1, true, kind & 2), few;
		struct lens_tables *a = test_create_tables(m, &opt), *b;
		struct streams s;

		few = opt;
		few.threads = 3;
		few.wanted[LENS_TABLE_lens_kl] = kind == 3;
		few.wanted[LENS_TABLE_top_probs] = false;
		b = test_create_tables(m, &few);
		make_streams(&s, BATCH, true);
		show(a, &s, &s.b);
		for (i = 0; i < BATCH; i += 9)
			check_company(a, &opt, b, &s, i);
		release_streams(&s);
		lens_tables_destroy(a);
		lens_tables_destroy(b);
	}
	lens_model_destroy(m);
}

/* --- ties, and what is not finite ------------------------------------------------- */

static void ties(void **state)
{
	struct lens_model *m = make_model(true, false);
	struct lens_tables_options opt = options(m, false, false, true);
	struct lens_tables *t;
	struct streams s;
	size_t i, k;

	(void)state;
	for (i = 0; i < V; i++)
		m->b_u[i] = i == 5 || i == 9 || i == 30 ? 1000 : 0;
	t = test_create_tables(m, &opt);
	make_streams(&s, 20, false);
	show(t, &s, &s.b);
	for (i = 0; i < 20; i++) {
		const float *kl = test_table_row(t, &opt, LENS_TABLE_lens_kl, i);

		for (k = 0; k < s.n_lens; k++) {
			struct values is = values_at(t, &opt, i, k, 0);

			assert_int_equal(is.token, 5);
			test_near((double)is.prob, 1. / 3, TEST_U, "a third", 0);
			test_near((double)is.entropy, log(3), 2 * TEST_U, "log 3", 0);
			assert_true(kl[k] == 0);
		}
	}
	release_streams(&s);
	lens_tables_destroy(t);
	lens_model_destroy(m);
}

/* A lens layer that is not finite at the read position of prompt 1. */
static void check_bad(const struct lens_model *m, bool all, size_t layer, float bad)
{
	struct lens_tables_options opt = options(m, false, false, all);
	struct lens_tables *t = test_create_tables(m, &opt);
	struct streams s;
	const uint8_t *flags;
	const float *kl;
	size_t read, k;

	make_streams(&s, 3, false);
	read = (size_t)s.b.read_pos[1];
	row_at(&s, layer, 1, read)[2] = bad;
	show(t, &s, &s.b);
	flags = lens_tables_rows(t, LENS_TABLE_flags);
	kl = test_table_row(t, &opt, LENS_TABLE_lens_kl, 1);
	/* a lens layer flags nothing, and the model itself makes every divergence NaN */
	assert_int_equal(flags[1], layer == LAYERS ? LENS_FLAG_NONFINITE : 0);
	for (k = 0; k < s.n_lens; k++) {
		struct values is = values_at(t, &opt, 1, k, read);

		assert_true((is.token == -1) == (k == layer));
		assert_true(isnan(is.prob) == (k == layer));
		assert_true(isnan(is.entropy) == (k == layer));
		assert_true(isnan(kl[k]) == (layer == LAYERS || k == layer));
	}
	check_prompt(m, &s, t, &opt, 0);
	check_prompt(m, &s, t, &opt, 2);
	release_streams(&s);
	lens_tables_destroy(t);
}

static void not_finite(void **state)
{
	const float bad[] = { NAN, INFINITY, -INFINITY };
	struct lens_model *m = make_model(true, false);
	size_t i;

	(void)state;
	for (i = 0; i < 12; i++)
		check_bad(m, i / 3 & 1, i / 6 ? LAYERS : 1, bad[i % 3]);
	lens_model_destroy(m);
}

/* --- around it -------------------------------------------------------------------- */

/* The lens layers' hook points, at the read positions or everywhere. */
static void hooks_needed(void **state)
{
	struct lens_model *m = make_model(true, false);
	size_t kind, k;

	(void)state;
	for (kind = 0; kind < 4; kind++) {
		bool mid = kind & 1, all = kind & 2;
		enum lens_want want = all ? LENS_WANT_ALL : LENS_WANT_READ_POS;
		struct lens_tables_options opt = options(m, false, mid, all);
		struct lens_hook_set h;

		assert_int_equal(lens_hook_set_init(&h, &m->config, NULL, 0, NULL), LENS_OK);
		lens_tables_hooks(m, &opt, &h);
		for (k = 0; k < LAYERS; k++) {
			assert_true(lens_hook_wanted(&h, LENS_HOOK_RESID_PRE, k) == want);
			assert_true(lens_hook_wanted(&h, LENS_HOOK_RESID_MID, k) ==
				    (mid ? want : LENS_WANT_NOT));
		}
		assert_true(lens_hook_wanted(&h, LENS_HOOK_RESID_POST, LAYERS - 1) == want);
		assert_true(lens_hook_wanted(&h, LENS_HOOK_LOGITS, 0) == LENS_WANT_NOT);
		lens_hook_set_release(&h);
	}
	lens_model_destroy(m);
}

/* Never a batch's logits: the tables' rows; and the streams, where the scale comes last. */
static void memory(void **state)
{
	struct lens_model *m = make_model(true, false);
	struct lens_tables_options opt = options(m, false, true, true);
	size_t was = lens_tables_bytes(m, &opt);

	(void)state;
	opt.max_rows += 1000;
	assert_int_equal(lens_tables_bytes(m, &opt), was);
	opt.sizes.n_pos += 100;
	assert_int_equal(lens_tables_bytes(m, &opt) - was,
			 (size_t)BATCH * MOST * 100 * 3 * sizeof(float));
	opt.lens = LENS_LENS_CACHED_SCALE_NO_BIAS;
	was = lens_tables_bytes(m, &opt);
	opt.max_rows += 1000;
	assert_int_equal(lens_tables_bytes(m, &opt) - was,
			 (size_t)MOST * 1000 * D * sizeof(float));
	lens_model_destroy(m);
}

static enum lens_status create_once(void *ctx)
{
	struct lens_tables_options opt = options(ctx, true, true, true);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tables *t;
	enum lens_status st = lens_tables_create(ctx, &opt, &t, &err);

	assert_int_equal(err.code, st);
	assert_true((st == LENS_OK) == (t != NULL));
	lens_tables_destroy(t);
	return st;
}

static void allocation_failures(void **state)
{
	struct lens_model *m = make_model(true, false);

	(void)state;
	test_alloc_failures(create_once, m);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_float64),
		cmocka_unit_test(read_positions),
		cmocka_unit_test(with_mid),
		cmocka_unit_test(rows_of_their_own),
		cmocka_unit_test(ties),
		cmocka_unit_test(not_finite),
		cmocka_unit_test(hooks_needed),
		cmocka_unit_test(memory),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
