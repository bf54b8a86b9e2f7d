/*
 * test_steering.c: attention knockout and steering: the same bits with exact reuse as by
 * full passes; what changes nothing is the run itself. Values: scripts/check_steering.py. On
 * the level of H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/runs.h"
#include "support/settings.h"
#include "support/studies.h"

/* Where texts end, which these prompts do not have. */
static int32_t place[2][N_ROWS];

/* Numbers of the knockout's table that are not those of steer's at one of its scales. */
static size_t differing(const struct test_found *f, const char *table, size_t scale)
{
	const float *x, *y;
	size_t i, k, n, all, differ = 0;
	char name[96];

	snprintf(name, sizeof(name), "knockout/%s", table);
	n = lens_outcome_floats(test_outcome(f, name, &x), &f->sizes);
	snprintf(name, sizeof(name), "steer/%s", table);
	all = lens_outcome_floats(test_outcome(f, name, &y), &f->sizes);
	for (i = 0; i < N_ROWS; i++) {
		for (k = 0; k < n; k++)
			differ += memcmp(&x[i * n + k], &y[i * all + scale * n + k],
					 sizeof(float)) != 0;
	}
	return differ;
}

/* Floats and integers, all of them read at the read position. */
static const char *const read_tables[] = { "logit_diff",  "answer_logit", "answer_prob",
					   "answer_rank", "top_tokens",   "top_logits" };
enum { READ_TABLES = sizeof(read_tables) / sizeof(*read_tables) };

static void begin_tables(void)
{
	test_settings_setup(NULL);
	test_settings_set(&test_e, "data.answers", "a,b,c");
	test_settings_set(&test_e, "tables",
			  "logit_diff,answer_logit,answer_prob,answer_rank,top_tokens");
}

static void cut(struct test_subject *s, const char *from, const char *to)
{
	test_settings_set(&test_e, "knockout.from", from);
	test_settings_set(&test_e, "knockout.to", to);
	s->p.found[0] = test_e.knockout.from.n ? NULL : place[0];
	s->p.found[1] = test_e.knockout.to.n ? NULL : place[1];
}

static void steer(struct test_subject *s, const char *hook, const char *layer,
		  const char *positions)
{
	test_settings_set(&test_e, "steer.vector", "v.npy");
	test_settings_set(&test_e, "steer.hook", hook);
	test_settings_set(&test_e, "steer.layer", layer);
	test_settings_set(&test_e, "steer.scale", "-2,0,1.5");
	test_settings_set(&test_e, "steer.positions", positions);
	s->vector = test_random_floats(&test_rnd, lens_steer_width(&s->m->config, &test_e));
}

static void end_tables(struct test_subject *s)
{
	lens_free(s->vector);
	s->vector = NULL;
	test_settings_teardown(NULL);
}

/* Scale 0, and a cut behind what is read, are the run itself; other scales are not. */
static void steer_at(struct test_subject *s, const char *hook, const char *layer,
		     const char *positions)
{
	struct test_found f;
	char what[64];
	size_t i;

	for (i = 0; i < N_ROWS; i++) {
		place[0][i] = 0;
		place[1][i] = s->read_pos[i] + 1;
	}
	begin_tables();
	cut(s, "{find: a}", "{find: b}");
	steer(s, hook, layer, positions);
	snprintf(what, sizeof(what), "%s of layer %s at %s", hook, layer, positions);
	assert_true(test_find_all_ways(s, N_ROWS, what, &f) > 200);
	for (i = 0; i < READ_TABLES; i++)
		assert_int_equal(differing(&f, read_tables[i], 1), 0);
	assert_true(differing(&f, "answer_logit", 0) > N_ROWS);
	assert_true(differing(&f, "top_logits", 2) > N_ROWS);
	test_found_release(&f);
	end_tables(s);
}

static void check_steering(void **state)
{
	static const char *const hooks[] = { "resid_pre", "resid_post", "attn_out",
					     "mlp_out",   "z",          "resid_mid" };
	struct test_subject s;
	size_t i;

	test_subject_begin(&s, *state);
	for (i = 0; i < (s.m->config.parallel_block ? 5 : 6); i++) {
		steer_at(&s, hooks[i], "0", "all");
		steer_at(&s, hooks[i], "1", "0,-1");
		if (!test_quick())
			steer_at(&s, hooks[i], "1", "all");
	}
	lens_model_destroy(s.m);
}

/* Of a query behind its key, which keeps itself. */
static void choose_places(struct test_subject *s)
{
	size_t i, length;

	for (i = 0; i < N_ROWS; i++) {
		length = lens_prompt_length(&s->p, i);
		place[1][i] = (int32_t)(1 + test_random_below(&test_rnd, length - 1));
		place[0][i] = (int32_t)test_random_below(&test_rnd, (size_t)place[1][i]);
	}
}

static void check_knockout(void **state)
{
	static const char *const cases[][4] = {
		{ "{find: a}", "{find_column: a}", "all", "all" },
		{ "0", "-1,3,40", "all", "all" },
		{ "0,40", "{find: a}", "0", "all" },
		{ "{find: a}", "-1,2,1", "all", "1.0,0.1" },
		{ "0,-2,30", "-1", "1", "1.0" },
	};
	struct test_found f;
	struct test_subject s;
	size_t i, k;

	test_subject_begin(&s, *state);
	for (i = 0; i < (test_quick() ? 2 : sizeof(cases) / sizeof(*cases)); i++) {
		choose_places(&s);
		begin_tables();
		cut(&s, cases[i][0], cases[i][1]);
		test_settings_set(&test_e, "knockout.layers", cases[i][2]);
		test_settings_set(&test_e, "knockout.heads", cases[i][3]);
		steer(&s, "resid_post", "1", "all");
		assert_true(test_find_all_ways(&s, N_ROWS, cases[i][0], &f) > 200);
		if (!differing(&f, "answer_logit", 1))
			fail_msg("case %zu changes nothing", i);
		for (k = 0; k < N_ROWS * N_ANSWERS; k++) {
			const float *x;

			test_outcome(&f, "knockout/answer_logit", &x);
			assert_true(isfinite(x[k]));
		}
		test_found_release(&f);
		end_tables(&s);
	}
	lens_model_destroy(s.m);
}

int main(void)
{
	static char gpt2[] = "gpt2_gelu_new", neo[] = "gpt_neo_local", neox[] = "gpt_neox",
		    llama[] = "llama_gqa", mistral[] = "mistral";
	const struct CMUnitTest tests[] = {
		{ "steering: gpt2", check_steering, NULL, NULL, gpt2 },
		{ "steering: neo", check_steering, NULL, NULL, neo },
		{ "steering: neox", check_steering, NULL, NULL, neox },
		{ "steering: llama", check_steering, NULL, NULL, llama },
		{ "steering: mistral", check_steering, NULL, NULL, mistral },
		{ "knockout: gpt2", check_knockout, NULL, NULL, gpt2 },
		{ "knockout: neo", check_knockout, NULL, NULL, neo },
		{ "knockout: neox", check_knockout, NULL, NULL, neox },
		{ "knockout: llama", check_knockout, NULL, NULL, llama },
		{ "knockout: mistral", check_knockout, NULL, NULL, mistral },
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
