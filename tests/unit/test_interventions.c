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
#include "support/studies.h"

/* --- what all cells must be ------------------------------------------------------- */

static void set_all(const struct test_subject *s, const char *direction, const char *metric)
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

/*
 * The stream of the other run before the first layer, at the only position where the two
 * differ and that is read, makes it the other run.
 */
static void check_ends(const struct test_subject *s, const struct test_found *f)
{
	const float *cells, *clean, *corrupted;
	size_t i, k, pos, n = N_ANSWERS - 1, filled = 0;

	test_outcome(f, "patch/resid_pre", &cells);
	test_outcome(f, "patch/clean_logit_diff", &clean);
	test_outcome(f, "patch/corrupted_logit_diff", &corrupted);
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
	struct test_found f;
	struct test_subject s;
	size_t i;

	test_subject_begin(&s, *state);
	for (i = 0; i < (test_quick() ? 1 : 4); i++) {
		set_all(&s, i % 2 ? "noise" : "denoise", metrics[i]);
		assert_true(test_find_all_ways(&s, N_ROWS, metrics[i], &f) > 1000);
		if (!i)
			check_ends(&s, &f);
		test_found_release(&f);
		test_settings_teardown(NULL);
	}
	lens_model_destroy(s.m);
}

/* --- ablation --------------------------------------------------------------------- */

static void make_mean(struct test_subject *s, bool by_position)
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
			test_random_floats(&test_rnd,
					   c->n_layers * s->mean.shape.n_pos * width);
	}
}

static void release_mean(struct test_subject *s)
{
	int i;

	for (i = 0; i < LENS_HOOK_COUNT; i++)
		lens_free(s->mean.value[i]);
	memset(&s->mean, 0, sizeof(s->mean));
}

/*
 * A set of one head is that head's cell; every cell is another number than the run's, but
 * where the random answers are the same token.
 */
static void check_sets(const struct test_subject *s, const struct test_found *f)
{
	const struct lens_config *c = &s->m->config;
	size_t i, k, n = N_ANSWERS - 1, cells = c->n_layers * c->n_heads;
	const float *sets, *heads;

	test_outcome(f, "ablate/sets", &sets);
	test_outcome(f, "ablate/attn_head_out_all_pos", &heads);
	for (i = 0; i < N_ROWS; i++) {
		const int32_t *answer = s->answers + i * N_ANSWERS;

		for (k = 0; k < n; k++) {
			assert_true(sets[i * 2 * n + k] ==
				    heads[(i * cells + c->n_heads) * n + k]);
			assert_int_equal(sets[(i * 2 + 1) * n + k] == sets[i * 2 * n + k],
					 answer[0] == answer[k + 1]);
		}
	}
}

static void check_ablation(void **state)
{
	static const char *const values[] = { "zero", "mean", "mean", "resample" };
	struct test_found f;
	struct test_subject s;
	size_t i;

	test_subject_begin(&s, *state);
	for (i = 0; i < (test_quick() ? 2 : 4); i++) {
		make_mean(&s, i == 1);
		test_settings_setup(NULL);
		test_settings_set(&test_e, "ablate.grids",
				  "attn_head_out_all_pos,attn_out,mlp_out");
		test_settings_set(&test_e, "ablate.sets", "{one: [1.0], two: [0.1, 1.0]}");
		test_settings_set(&test_e, "ablate.value", values[i]);
		assert_true(test_find_all_ways(&s, N_ROWS, values[i], &f) > 50);
		if (i < 3)
			check_sets(&s, &f);
		test_found_release(&f);
		test_settings_teardown(NULL);
		release_mean(&s);
	}
	lens_model_destroy(s.m);
}

/* --- paths ------------------------------------------------------------------------ */

/*
 * A change that reaches nothing leaves the corrupted run as it is. In the last layer a
 * head's direct path to the logits is all that it does: patching its z is the same, but for
 * the MLP behind it, so there are numbers that differ from both.
 */
static void check_unreached(const struct test_subject *s, const struct test_found *f,
			    size_t last)
{
	const struct lens_config *c = &s->m->config;
	size_t i, k, n = N_ANSWERS - 1, differ = 0;
	const float *cells, *corrupted;
	float base[N_ROWS * (N_ANSWERS - 1)];

	test_outcome(f, "path/logit_diff", &cells);
	test_outcome(f, "patch/corrupted_logit_diff", &corrupted);
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
	struct test_found f;
	struct test_subject s;
	size_t i;

	test_subject_begin(&s, *state);
	for (i = 0; i < 2; i++) {
		test_settings_setup(NULL);
		test_settings_set(&test_e, "path.receivers", receivers[i]);
		test_settings_set(&test_e, "patch.grids", "resid_pre");
		test_find_all_ways(&s, N_ROWS, receivers[i], &f);
		check_unreached(&s, &f, i ? 1 : s.m->config.n_layers);
		test_found_release(&f);
		test_settings_teardown(NULL);
	}
	lens_model_destroy(s.m);
}

/* --- groups, blocks of queries, numbers that are not finite ----------------------- */

static void check_set(const struct test_subject *s, const char *grids, size_t batch_rows)
{
	struct test_found f, one;

	test_settings_setup(NULL);
	test_settings_set(&test_e, "patch.grids", grids);
	test_find(s, &test_e, 1, 1, &one);
	test_find_all_ways(s, batch_rows, grids, &f);
	test_same_found(&f, &one, "one by one");
	assert_int_equal(f.n_flagged, 0);
	test_found_release(&one);
	test_found_release(&f);
	test_settings_teardown(NULL);
}

/* More pairs than a group holds. */
static void check_groups(void **state)
{
	struct test_subject s;

	(void)state;
	test_subject_begin_sized(&s, "llama_gqa", MANY_ROWS, 4);
	check_set(&s, "resid_pre,attn_head_k_all_pos", MANY_ROWS);
	lens_model_destroy(s.m);
}

/* More queries than attention takes at a time. */
static void check_long(void **state)
{
	struct test_subject s;

	(void)state;
	test_subject_begin_sized(&s, "../../../experiments/demo-gpt2", 2, LONG_TOKENS);
	check_set(&s, "mlp_out,attn_head_pattern_all_pos,attn_head_pattern_by_pos", 2);
	lens_model_destroy(s.m);
}

/* A position that only one row has, and reads. */
static void check_nonfinite(void **state)
{
	struct test_found f;
	struct test_subject s;
	size_t i, d;

	(void)state;
	test_subject_begin(&s, "gpt2_gelu_new");
	d = s.m->config.d_model;
	for (i = 0; i < d; i++)
		s.m->w_pos[(MOST_TOKENS - 1) * d + i] = INFINITY;
	s.read_pos[0] = MOST_TOKENS - 1;
	test_settings_setup(NULL);
	test_settings_set(&test_e, "patch.grids", "resid_pre");
	test_find(&s, &test_e, N_ROWS, 1, &f);
	assert_int_equal(f.n_flagged, 1);
	test_found_release(&f);
	test_settings_teardown(NULL);
	lens_model_destroy(s.m);
}

int main(void)
{
	static char gpt2[] = "gpt2_gelu_new", neo[] = "gpt_neo_local", neox[] = "gpt_neox",
		    llama[] = "llama_gqa", mistral[] = "mistral", gemma2[] = "gemma2",
		    smollm3[] = "smollm3", mixtral[] = "mixtral";
	const struct CMUnitTest tests[] = {
		{ gpt2, check_grids, NULL, NULL, gpt2 },
		{ neo, check_grids, NULL, NULL, neo },
		{ neox, check_grids, NULL, NULL, neox },
		{ llama, check_grids, NULL, NULL, llama },
		{ mistral, check_grids, NULL, NULL, mistral },
		{ gemma2, check_grids, NULL, NULL, gemma2 },
		{ smollm3, check_grids, NULL, NULL, smollm3 },
		{ mixtral, check_grids, NULL, NULL, mixtral },
		{ "ablation: gpt2", check_ablation, NULL, NULL, gpt2 },
		{ "ablation: neox", check_ablation, NULL, NULL, neox },
		{ "ablation: llama", check_ablation, NULL, NULL, llama },
		{ "ablation: mixtral", check_ablation, NULL, NULL, mixtral },
		cmocka_unit_test(check_groups),
		cmocka_unit_test(check_long),
		cmocka_unit_test(check_nonfinite),
		{ "paths: gpt2", check_paths, NULL, NULL, gpt2 },
		{ "paths: neox", check_paths, NULL, NULL, neox },
		{ "paths: llama", check_paths, NULL, NULL, llama },
		{ "paths: gemma2", check_paths, NULL, NULL, gemma2 },
		{ "paths: mixtral", check_paths, NULL, NULL, mixtral },
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
