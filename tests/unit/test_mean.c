/*
 * test_mean.c: sums of activations are the float64 sums of what a pass shows, added in
 * the order of the rows, to the bit: on any number of threads, in any batches, wherever
 * the rows lie; and means are their quotients. On the level of H5LENS_TEST_CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/interventions.h"
#include "support/passes.h"
#include "support/runs.h"
#include "support/settings.h"

enum { N_PROMPTS = 7, LONGEST = 13 };

static const enum lens_hook hooks[] = { LENS_HOOK_Z, LENS_HOOK_ATTN_OUT, LENS_HOOK_MLP_OUT };
static struct test_random rnd = { 3 };

struct subject {
	struct lens_model *m;
	struct lens_study study;
	int32_t token[N_PROMPTS][LONGEST];
	struct test_prompt prompt[N_PROMPTS];
	struct test_record all; /* what one pass shows */
};

static void begin(struct subject *s, const char *name, const char *over)
{
	static const size_t length[N_PROMPTS] = { 4, LONGEST, 1, 9, 12, 4, 2 };
	const struct lens_model_options raw = { .tied_head = LENS_HEAD_AUTO };
	struct lens_visitor v;
	struct lens_batch b;
	char dir[128];
	size_t i, k;

	memset(s, 0, sizeof(*s));
	snprintf(dir, sizeof(dir), "tests/golden/data/%s", name);
	s->m = test_open_model(dir, &raw);
	test_settings_setup(NULL);
	test_settings_set(&test_e, "ablate.grids", "attn_head_out_all_pos,attn_out,mlp_out");
	test_settings_set(&test_e, "ablate.value", "mean");
	test_settings_set(&test_e, "ablate.mean_over", over);
	assert_int_equal(lens_study_init(&s->study, s->m, &test_e, NULL), LENS_OK);
	for (i = 0; i < N_PROMPTS; i++) {
		for (k = 0; k < length[i]; k++)
			s->token[i][k] = (int32_t)test_random_below(&rnd, s->m->config.d_vocab);
		s->prompt[i] = (struct test_prompt){ s->token[i], length[i], 0 };
	}
	test_pack(&b, s->prompt, N_PROMPTS);
	test_record_init(&s->all, s->m, &b, LENS_WANT_ALL);
	v = test_record_visitor(&s->all);
	assert_int_equal(test_run_pass(&(struct test_pass){ .m = s->m,
							    .b = &b,
							    .visitor = &v,
							    .n = 1,
							    .threads = 1 },
				       NULL),
			 LENS_OK);
	lens_batch_release(&b);
}

static void end(struct subject *s)
{
	test_record_release(&s->all);
	lens_study_release(&s->study);
	lens_model_destroy(s->m);
	test_settings_teardown(NULL);
}

/* Prompts first … first + n − 1 in batches of so many; scattered: with gaps everywhere. */
static void sum(struct subject *s, size_t first, size_t n, size_t batch, int threads,
		bool scattered, struct lens_sums *out)
{
	size_t i, longest = 0;
	struct lens_visitor v;
	struct lens_batch b;

	for (i = first; i < first + n; i++)
		longest = lens_max(longest, s->prompt[i].length);
	assert_int_equal(lens_sums_init(out, &s->study, longest, NULL), LENS_OK);
	v = lens_sums_visitor(out);
	for (i = first; i < first + n; i += batch) {
		const struct test_pass pass = {
			.m = s->m, .b = &b, .visitor = &v, .n = 1, .threads = threads
		};

		test_pack(&b, s->prompt + i, lens_min(batch, first + n - i));
		if (scattered)
			test_scatter(&b, &rnd);
		lens_sums_count(out, &b);
		assert_int_equal(test_run_pass(&pass, NULL), LENS_OK);
		lens_batch_release(&b);
	}
}

/* Of an element at a position, or at all: prompt by prompt. */
static double naive(const struct subject *s, enum lens_hook hook, size_t layer, size_t at,
		    size_t element, double *count)
{
	bool per_position = s->study.experiment->ablate.mean_over == LENS_MEAN_PER_POSITION;
	double total = 0;
	size_t i, pos;

	*count = 0;
	for (i = 0; i < N_PROMPTS; i++) {
		for (pos = 0; pos < s->prompt[i].length; pos++) {
			if (per_position && pos != at)
				continue;
			total += (double)test_recorded(&s->all, hook, layer, i, pos)[element];
			++*count;
		}
	}
	return total;
}

static void expect_naive(const struct subject *s, const struct lens_sums *sums)
{
	const struct lens_mean_shape *shape = &sums->shape;
	size_t h, layer, at, k, different = 0;
	double count;

	for (h = 0; h < 3; h++) {
		const double *value = sums->value[hooks[h]];

		assert_non_null(value);
		for (layer = 0; layer < shape->n_layers; layer++) {
			for (at = 0; at < shape->n_pos; at++) {
				for (k = 0; k < shape->width[hooks[h]]; k++, value++) {
					assert_true(*value ==
						    naive(s, hooks[h], layer, at, k, &count));
					assert_true(sums->count[at] == count);
					different += *value != 0;
				}
			}
		}
	}
	assert_true(different > 100);
}

static size_t elements(const struct lens_mean_shape *s, enum lens_hook h)
{
	return s->n_layers * s->n_pos * s->width[h];
}

static void expect_same(const struct lens_sums *x, const struct lens_sums *y)
{
	size_t h;

	assert_memory_equal(x->count, y->count, x->shape.n_pos * sizeof(double));
	for (h = 0; h < 3; h++)
		assert_memory_equal(x->value[hooks[h]], y->value[hooks[h]],
				    elements(&x->shape, hooks[h]) * sizeof(double));
}

static void check_sums(void **state)
{
	static const struct {
		size_t batch;
		int threads;
		bool scattered;
	} how[] = { { N_PROMPTS, 3, false }, { 1, 1, false }, { 3, 2, true }, { 2, 3, true } };
	const char *const over[] = { "prompts", "tokens" };
	struct lens_sums one, other;
	struct subject s;
	size_t i, k;

	for (i = 0; i < 2; i++) {
		begin(&s, *state, over[i]);
		sum(&s, 0, N_PROMPTS, N_PROMPTS, 1, false, &one);
		assert_int_equal(one.shape.n_pos, i ? 1 : LONGEST);
		assert_null(one.value[LENS_HOOK_RESID_PRE]);
		expect_naive(&s, &one);
		for (k = 0; k < sizeof(how) / sizeof(*how); k++) {
			sum(&s, 0, N_PROMPTS, how[k].batch, how[k].threads, how[k].scattered,
			    &other);
			expect_same(&one, &other);
			lens_sums_release(&other);
		}
		lens_sums_release(&one);
		end(&s);
	}
}

/*
 * Added part by part: a part's own positions only. Sums of N_PROMPTS numbers in another
 * grouping are within N_PROMPTS · 2^-53 of Σ|x|, here of a bound on it.
 */
static void check_parts(void **state)
{
	struct lens_sums whole, total, part;
	struct lens_mean m;
	struct subject s;
	size_t h, i, pos;

	begin(&s, *state, "prompts");
	sum(&s, 0, N_PROMPTS, N_PROMPTS, 1, false, &whole);
	assert_int_equal(lens_sums_init(&total, &s.study, LONGEST + 1, NULL), LENS_OK);
	for (i = 0; i < N_PROMPTS; i += 2) {
		sum(&s, i, lens_min(2, N_PROMPTS - i), 1, 1, false, &part);
		lens_sums_add(&total, &part);
		lens_sums_release(&part);
	}
	assert_int_equal(lens_mean_init(&m, &s.study, LONGEST + 1, NULL), LENS_OK);
	lens_mean_take(&m, &total);
	for (h = 0; h < 3; h++) {
		size_t width = whole.shape.width[hooks[h]];

		for (i = 0; i < whole.shape.n_layers * (LONGEST + 1) * width; i++) {
			size_t layer = i / width / (LONGEST + 1);
			const double *x = whole.value[hooks[h]] + layer * LONGEST * width;

			pos = i / width % (LONGEST + 1);
			if (pos == LONGEST) { /* nobody has it */
				assert_true(m.value[hooks[h]][i] == 0);
				continue;
			}
			x += pos * width + i % width;
			test_near(total.value[hooks[h]][i], *x, N_PROMPTS * 0x1p-53 * 100,
				  "sum", (double)i);
			assert_true(m.value[hooks[h]][i] ==
				    (float)(total.value[hooks[h]][i] / total.count[pos]));
		}
	}
	lens_mean_release(&m);
	lens_sums_release(&total);
	lens_sums_release(&whole);
	end(&s);
}

/* The digest is one of the values. */
static void test_digest(void **state)
{
	static char gpt2[] = "gpt2_gelu_new";
	char was[LENS_SHA256_HEX];
	struct lens_mean m;
	struct subject s;

	(void)state;
	begin(&s, gpt2, "tokens");
	assert_int_equal(lens_mean_init(&m, &s.study, LONGEST, NULL), LENS_OK);
	assert_int_equal(lens_mean_digest(&m, NULL), LENS_OK);
	memcpy(was, m.sha256, sizeof(was));
	m.value[LENS_HOOK_MLP_OUT][m.shape.width[LENS_HOOK_MLP_OUT]] = 1;
	assert_int_equal(lens_mean_digest(&m, NULL), LENS_OK);
	assert_string_not_equal(was, m.sha256);
	lens_mean_release(&m);
	end(&s);
}

int main(void)
{
	static char gpt2[] = "gpt2_gelu_new", neox[] = "gpt_neox", llama[] = "llama_gqa";
	const struct CMUnitTest tests[] = {
		{ "sums: gpt2", check_sums, NULL, NULL, gpt2 },
		{ "sums: neox", check_sums, NULL, NULL, neox },
		{ "sums: llama", check_sums, NULL, NULL, llama },
		{ "parts: gpt2", check_parts, NULL, NULL, gpt2 },
		cmocka_unit_test(test_digest),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
