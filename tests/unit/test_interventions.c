/*
 * test_interventions.c: every grid has the same bits with exact reuse as by full passes,
 * whatever shares a batch; what cannot change is the run itself; and one cell of each grid
 * against a pass with an edit of the test's own. On the level of H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/interventions.h"
#include "support/passes.h"
#include "support/runs.h"
#include "support/settings.h"

/* Sets of prompts are N_ROWS of up to MOST_TOKENS, or many short ones, or a few long ones. */
enum { N_ROWS = 5, MOST_TOKENS = 11, N_ANSWERS = 3, MANY_ROWS = 150, LONG_TOKENS = 75 };

static struct test_random rnd = { 11 };

/* Pairs of random tokens with a common beginning. */
struct subject {
	struct lens_model *m;
	struct lens_prompts p;
	size_t longest;
	uint64_t offset[MANY_ROWS + 1];
	int32_t tokens[MANY_ROWS * MOST_TOKENS], corrupted[MANY_ROWS * MOST_TOKENS];
	struct lens_mean mean; /* made up */
	int32_t read_pos[MANY_ROWS], answers[MANY_ROWS * N_ANSWERS];
};

static void begin_sized(struct subject *s, const char *name, size_t n_rows, size_t longest)
{
	const struct lens_model_options raw = { .tied_head = LENS_HEAD_AUTO };
	size_t i, k, length, common;
	char dir[128];

	memset(s, 0, sizeof(*s));
	s->longest = longest;
	snprintf(dir, sizeof(dir), "tests/golden/data/%s", name);
	s->m = test_open_model(dir, &raw);
	for (i = 0; i < n_rows; i++) {
		int32_t *x = s->tokens + s->offset[i], *y = s->corrupted + s->offset[i];

		length = i ? 2 + test_random_below(&rnd, longest - 2) : longest;
		common = test_random_below(&rnd, length);
		s->read_pos[i] = (int32_t)(i % 3 ? length - 1 : length / 2);
		for (k = 0; k < length; k++) {
			x[k] = (int32_t)test_random_below(&rnd, s->m->config.d_vocab);
			y[k] = k < common ? x[k] : (x[k] + 1) % (int32_t)s->m->config.d_vocab;
		}
		for (k = 0; k < N_ANSWERS; k++)
			s->answers[i * N_ANSWERS + k] =
				(int32_t)test_random_below(&rnd, s->m->config.d_vocab);
		s->offset[i + 1] = s->offset[i] + length;
	}
	s->p = (struct lens_prompts){ .n_rows = n_rows,
				      .n_answers = N_ANSWERS,
				      .max_length = longest,
				      .offset = s->offset,
				      .tokens = s->tokens,
				      .corrupted = s->corrupted,
				      .resampled = s->corrupted,
				      .read_pos = s->read_pos,
				      .answers = s->answers };
}

static void begin(struct subject *s, const char *name)
{
	begin_sized(s, name, N_ROWS, MOST_TOKENS);
}

/* What a study finds: [n_outcomes] [n_rows, floats]. */
struct found {
	size_t n_rows, n_flagged;
	struct lens_study study;
	struct lens_sizes sizes;
	float *rows[LENS_MOST_OUTCOMES];
};

static void release(struct found *f)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++)
		lens_free(f->rows[i]);
	lens_study_release(&f->study);
}

static size_t floats(const struct found *f, size_t outcome)
{
	return lens_outcome_floats(&f->study.outcome[outcome], &f->sizes);
}

static void keep(struct found *f, const struct lens_interventions *w, size_t row0, size_t n)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++)
		memcpy(f->rows[i] + row0 * floats(f, i), lens_interventions_rows(w, i),
		       n * floats(f, i) * sizeof(float));
}

/* In batches of so many rows. */
static void find(const struct subject *s, const struct lens_experiment *e, size_t batch_rows,
		 int threads, struct found *f)
{
	struct lens_interventions_options opt = { .study = &f->study,
						  .batch_rows = batch_rows,
						  .threads = threads,
						  .mean = &s->mean };
	struct lens_interventions *w;
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	memset(f, 0, sizeof(*f));
	f->n_rows = s->p.n_rows;
	assert_int_equal(lens_study_init(&f->study, s->m, e, &err), LENS_OK);
	f->sizes = lens_model_sizes(&s->m->config);
	f->sizes.n_pos = s->longest;
	f->sizes.n_answers = N_ANSWERS;
	f->sizes.n_sets = f->study.n_sets;
	opt.sizes = f->sizes;
	for (i = 0; i < f->study.n_outcomes; i++) {
		f->rows[i] = lens_calloc(s->p.n_rows * floats(f, i), sizeof(float));
		assert_non_null(f->rows[i]);
	}
	assert_int_equal(lens_interventions_create(&opt, &w, NULL), LENS_OK);
	for (i = 0; i < s->p.n_rows; i += batch_rows) {
		const struct lens_interventions_batch in = {
			.prompts = &s->p, .row0 = i, .n = lens_min(s->p.n_rows - i, batch_rows)
		};

		assert_int_equal(lens_interventions_run(w, &in, &f->n_flagged, NULL), LENS_OK);
		keep(f, w, i, in.n);
	}
	lens_interventions_destroy(w);
}

static size_t same(const struct found *x, const struct found *y, const char *what)
{
	size_t i, k, n = 0;

	assert_int_equal(x->study.n_outcomes, y->study.n_outcomes);
	for (i = 0; i < x->study.n_outcomes; i++) {
		for (k = 0; k < x->n_rows * floats(x, i); k++, n++) {
			if (memcmp(x->rows[i] + k, y->rows[i] + k, sizeof(float)))
				fail_msg("%s: %s: row %zu, number %zu: %.9g, not %.9g", what,
					 x->study.outcome[i].name, k / floats(x, i),
					 k % floats(x, i), (double)y->rows[i][k],
					 (double)x->rows[i][k]);
		}
	}
	return n;
}

/* --- what all cells must be -----------------------------------------------------------------
 */

static void set_all(const struct subject *s, const char *direction, const char *metric)
{
	test_settings_setup(NULL);
	test_settings_set(
		&test_e, "patch.grids",
		s->m->config.parallel_block
			? "block_every,attn_head_all_pos_every,attn_head_by_pos_every,"
			  "attn_head_pattern_dest_src_pos"
			: "block_every,resid_mid,attn_head_all_pos_every,"
			  "attn_head_by_pos_every,attn_head_pattern_dest_src_pos");
	test_settings_set(&test_e, "patch.direction", direction);
	test_settings_set(&test_e, "patch.metric", metric);
	test_settings_set(&test_e, "patch.normalize", "true");
}

static const struct lens_outcome *outcome_of(const struct found *f, const char *name,
					     const float **rows)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++) {
		if (!strcmp(f->study.outcome[i].name, name)) {
			*rows = f->rows[i];
			return &f->study.outcome[i];
		}
	}
	fail_msg("no %s", name);
	return NULL;
}

/*
 * The stream of the other run before the first layer, at the only position where the two
 * differ and that is read, makes it the other run.
 */
static void check_ends(const struct subject *s, const struct found *f)
{
	const float *cells, *clean, *corrupted;
	size_t i, k, pos, n = N_ANSWERS - 1, filled = 0;

	outcome_of(f, "patch/resid_pre", &cells);
	outcome_of(f, "patch/clean_logit_diff", &clean);
	outcome_of(f, "patch/corrupted_logit_diff", &corrupted);
	for (i = 0; i < N_ROWS; i++) {
		size_t length = lens_prompt_length(&s->p, i), differ = 0;
		const float *row = cells + i * s->m->config.n_layers * MOST_TOKENS * n;

		for (pos = 0; pos < MOST_TOKENS; pos++) {
			bool same = pos < length && s->tokens[s->offset[i] + pos] ==
							    s->corrupted[s->offset[i] + pos];

			differ += pos < length && !same;
			for (k = 0; k < n; k++) {
				assert_int_equal(isnan(row[pos * n + k]), pos >= length);
				if (same || (pos < length && pos > (size_t)s->read_pos[i]))
					assert_true(row[pos * n + k] == corrupted[i * n + k]);
			}
		}
		filled += differ > 0;
		for (k = 0; differ == 1 && k < n; k++)
			assert_true(row[(length - 1) * n + k] == clean[i * n + k] ||
				    (size_t)s->read_pos[i] != length - 1);
	}
	assert_int_equal(filled, N_ROWS);
}

static void check_grids(void **state)
{
	static const char *const metrics[] = { "logit_diff", "answer_logit", "answer_logprob",
					       "kl_divergence" };
	struct found reuse, other;
	struct subject s;
	size_t i;

	begin(&s, *state);
	for (i = 0; i < (test_quick() ? 1 : 4); i++) {
		set_all(&s, i % 2 ? "noise" : "denoise", metrics[i]);
		find(&s, &test_e, N_ROWS, 1, &reuse);
		if (!i)
			check_ends(&s, &reuse);
		find(&s, &test_e, 2, 2, &other);
		assert_true(same(&reuse, &other, "small batches") > 1000);
		release(&other);
		test_settings_set(&test_e, "patch.reuse", "false");
		find(&s, &test_e, N_ROWS, 1, &other);
		same(&reuse, &other, "full passes");
		release(&other);
		release(&reuse);
		test_settings_teardown(NULL);
	}
	lens_model_destroy(s.m);
}

/* --- ablation -------------------------------------------------------------------------------
 */

static void make_mean(struct subject *s, bool by_position)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_Z, LENS_HOOK_ATTN_OUT,
						LENS_HOOK_MLP_OUT };
	const struct lens_config *c = &s->m->config;
	size_t i;

	s->mean.shape.per_position = by_position;
	s->mean.shape.n_pos = by_position ? MOST_TOKENS : 1;
	for (i = 0; i < 3; i++) {
		size_t width = i ? c->d_model : c->n_heads * c->d_head;

		s->mean.value[hooks[i]] =
			test_random_floats(&rnd, c->n_layers * s->mean.shape.n_pos * width);
	}
}

static void release_mean(struct subject *s)
{
	int i;

	for (i = 0; i < LENS_HOOK_COUNT; i++)
		lens_free(s->mean.value[i]);
	memset(&s->mean, 0, sizeof(s->mean));
}

/* A set of one head is that head's cell; every cell is another number than the run's. */
static void check_sets(const struct subject *s, const struct found *f)
{
	const struct lens_config *c = &s->m->config;
	size_t i, k, n = N_ANSWERS - 1, cells = c->n_layers * c->n_heads;
	const float *sets, *heads;

	outcome_of(f, "ablate/sets", &sets);
	outcome_of(f, "ablate/attn_head_out_all_pos", &heads);
	for (i = 0; i < N_ROWS; i++) {
		for (k = 0; k < n; k++) {
			assert_true(sets[i * 2 * n + k] ==
				    heads[(i * cells + c->n_heads) * n + k]);
			assert_true(sets[(i * 2 + 1) * n + k] != sets[i * 2 * n + k]);
		}
	}
}

static void check_ablation(void **state)
{
	static const char *const values[] = { "zero", "mean", "mean", "resample" };
	struct found reuse, other;
	struct subject s;
	size_t i;

	begin(&s, *state);
	for (i = 0; i < (test_quick() ? 2 : 4); i++) {
		make_mean(&s, i == 1);
		test_settings_setup(NULL);
		test_settings_set(&test_e, "ablate.grids",
				  "attn_head_out_all_pos,attn_out,mlp_out");
		test_settings_set(&test_e, "ablate.sets", "{one: [1.0], two: [0.1, 1.0]}");
		test_settings_set(&test_e, "ablate.value", values[i]);
		find(&s, &test_e, N_ROWS, 1, &reuse);
		if (i < 3)
			check_sets(&s, &reuse);
		find(&s, &test_e, 2, 2, &other);
		assert_true(same(&reuse, &other, "small batches") > 50);
		release(&other);
		test_settings_set(&test_e, "patch.reuse", "false");
		find(&s, &test_e, N_ROWS, 1, &other);
		same(&reuse, &other, "full passes");
		release(&other);
		release(&reuse);
		test_settings_teardown(NULL);
		release_mean(&s);
	}
	lens_model_destroy(s.m);
}

/* --- paths ---------------------------------------------------------------------------------
 */

/*
 * A change that reaches nothing leaves the corrupted run as it is. In the last layer a
 * head's direct path to the logits is all that it does: patching its z is the same, but for
 * the MLP behind it, so there are numbers that differ from both.
 */
static void check_unreached(const struct subject *s, const struct found *f, size_t last)
{
	const struct lens_config *c = &s->m->config;
	size_t i, k, n = N_ANSWERS - 1, differ = 0;
	const float *cells, *corrupted;
	float base[N_ROWS * (N_ANSWERS - 1)];

	outcome_of(f, "path/logit_diff", &cells);
	outcome_of(f, "patch/corrupted_logit_diff", &corrupted);
	memcpy(base, corrupted, sizeof(base));
	for (i = 0; i < N_ROWS; i++) {
		for (k = 0; k < c->n_layers * c->n_heads * n; k++) {
			bool same = cells[i * c->n_layers * c->n_heads * n + k] ==
				    base[i * n + k % n];

			assert_true(same || k / n / c->n_heads < last);
			differ += !same;
		}
	}
	assert_true(differ > 0);
}

static void check_paths(void **state)
{
	static const char *const receivers[] = { "logits", "1.0.q,1.1.k,1.0.v" };
	struct found reuse, other;
	struct subject s;
	size_t i;

	begin(&s, *state);
	for (i = 0; i < 2; i++) {
		test_settings_setup(NULL);
		test_settings_set(&test_e, "path.receivers", receivers[i]);
		test_settings_set(&test_e, "patch.grids", "resid_pre");
		find(&s, &test_e, N_ROWS, 1, &reuse);
		check_unreached(&s, &reuse, i ? 1 : s.m->config.n_layers);
		find(&s, &test_e, 2, 2, &other);
		same(&reuse, &other, "small batches");
		release(&other);
		test_settings_set(&test_e, "patch.reuse", "false");
		find(&s, &test_e, N_ROWS, 1, &other);
		same(&reuse, &other, "full passes");
		release(&other);
		release(&reuse);
		test_settings_teardown(NULL);
	}
	lens_model_destroy(s.m);
}

/* --- groups, blocks of queries, numbers that are not finite
 * ------------------------------------ */

static void check_set(const struct subject *s, const char *grids, size_t batch_rows)
{
	struct found reuse, other;

	test_settings_setup(NULL);
	test_settings_set(&test_e, "patch.grids", grids);
	find(s, &test_e, batch_rows, 1, &reuse);
	find(s, &test_e, 1, 1, &other);
	same(&reuse, &other, "one by one");
	release(&other);
	test_settings_set(&test_e, "patch.reuse", "false");
	find(s, &test_e, batch_rows, 1, &other);
	same(&reuse, &other, "full passes");
	assert_int_equal(reuse.n_flagged, 0);
	release(&other);
	release(&reuse);
	test_settings_teardown(NULL);
}

/* More pairs than a group holds. */
static void check_groups(void **state)
{
	struct subject s;

	(void)state;
	begin_sized(&s, "llama_gqa", MANY_ROWS, 4);
	check_set(&s, "resid_pre,attn_head_k_all_pos", MANY_ROWS);
	lens_model_destroy(s.m);
}

/* More queries than attention takes at a time. */
static void check_long(void **state)
{
	struct subject s;

	(void)state;
	begin_sized(&s, "../../../experiments/demo-gpt2", 2, LONG_TOKENS);
	check_set(&s, "mlp_out,attn_head_pattern_all_pos,attn_head_pattern_by_pos", 2);
	lens_model_destroy(s.m);
}

/* A position that only one row has, and reads. */
static void check_nonfinite(void **state)
{
	struct found f;
	struct subject s;
	size_t i, d;

	(void)state;
	begin(&s, "gpt2_gelu_new");
	d = s.m->config.d_model;
	for (i = 0; i < d; i++)
		s.m->w_pos[(MOST_TOKENS - 1) * d + i] = INFINITY;
	s.read_pos[0] = MOST_TOKENS - 1;
	test_settings_setup(NULL);
	test_settings_set(&test_e, "patch.grids", "resid_pre");
	find(&s, &test_e, N_ROWS, 1, &f);
	assert_int_equal(f.n_flagged, 1);
	release(&f);
	test_settings_teardown(NULL);
	lens_model_destroy(s.m);
}

int main(void)
{
	static char gpt2[] = "gpt2_gelu_new", neo[] = "gpt_neo_local", neox[] = "gpt_neox",
		    llama[] = "llama_gqa", mistral[] = "mistral";
	const struct CMUnitTest tests[] = {
		{ gpt2, check_grids, NULL, NULL, gpt2 },
		{ neo, check_grids, NULL, NULL, neo },
		{ neox, check_grids, NULL, NULL, neox },
		{ llama, check_grids, NULL, NULL, llama },
		{ mistral, check_grids, NULL, NULL, mistral },
		{ "ablation: gpt2", check_ablation, NULL, NULL, gpt2 },
		{ "ablation: neox", check_ablation, NULL, NULL, neox },
		{ "ablation: llama", check_ablation, NULL, NULL, llama },
		cmocka_unit_test(check_groups),
		cmocka_unit_test(check_long),
		cmocka_unit_test(check_nonfinite),
		{ "paths: gpt2", check_paths, NULL, NULL, gpt2 },
		{ "paths: neox", check_paths, NULL, NULL, neox },
		{ "paths: llama", check_paths, NULL, NULL, llama },
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
