/*
 * golden/test_bits.c: the same prompt gives the same bits: whatever the
 * threads, the memory, the order of the rows, their neighbours, their number,
 * and whatever else is computed with them. Once per CPU level
 * (H5LENS_TEST_CPU).
 */
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/h5file.h"
#include "support/runs.h"
#include "support/samebits.h"

#define MOST_ROWS 64
/* All but answer_token_rank (test_answer_tokens.c), and kl_divergence of interventions. */
#define TABLES (LENS_TABLE_COUNT - 2)
#define OF_NEURONS 4 /* of them; a model with experts has none */
#define EVERYTHING "*,logits,*hook_result"
/* Less to write, and still each way into the file. */
#define SOME "*resid_post,*scale,*hook_z,*hook_pattern,*mlp.hook_[ep]*"

/* A model with prompts, and what one thread makes of them. */
struct subject {
	const char *model, *source, *lens;
	size_t rows;        /* the first so many of source */
	const char *filler; /* a word of one token or two, to make a long prompt */
	size_t fillers;
	const char *answer;
	struct test_csv csv;
	char *data, *whole; /* the rows; their output, everything selected */
};

static struct subject demo = {
	.model = "experiments/demo-gpt2",
	.source = "experiments/ioi.csv",
	.rows = 60,
	.lens = "recompute",
	.filler = " and",
	.fillers = 110,
	.answer = " John",
};
/* The golden models' prompts, alike for all. */
#define GOLDEN(name)                                                                           \
	{                                                                                      \
		.model = "tests/golden/data/" name,                                            \
		.source = "tests/golden/data/" name "/prompts.csv", .rows = 6,                 \
		.lens = "recompute", .filler = " the", .fillers = 45, .answer = " dog",        \
	}
/* three heads of eight, own W_U, three layers */
static struct subject odd = GOLDEN("gpt2_gelu");
static struct subject plain = GOLDEN("gpt2_gelu_new");
static struct subject one_head = GOLDEN("gpt2_unscaled");
/* A window, and weights of a .bin. */
static struct subject neo = GOLDEN("gpt_neo");
/* A rotary part, a parallel block. */
static struct subject neox = GOLDEN("gpt_neox");
/* RMSNorm, a gated MLP, two heads to a key; in two files. */
static struct subject llama = GOLDEN("llama_gqa");

/* Experts, of which prompts that share a batch use one together. */
static struct subject mixtral = GOLDEN("mixtral");

static struct subject *subject; /* of the group that runs: set-up gets no argument */

static int prepare(void **state)
{
	struct subject *s = subject;
	struct lens_experiment e;
	size_t i, order[MOST_ROWS];

	(void)state;
	if (test_quick() && s->rows > 10)
		s->rows = 10;
	s->data = test_tmp_path("rows.csv");
	s->whole = test_tmp_path("whole.h5");
	test_csv_read(s->source, &s->csv);
	assert_true(s->rows <= s->csv.n && s->rows <= MOST_ROWS);
	for (i = 0; i < s->rows; i++)
		order[i] = i;
	test_csv_write(&s->csv, order, s->rows, s->data);
	test_experiment(&e, s->model, s->data, s->whole);
	test_set(&e, "cache.hooks", EVERYTHING, "tables", "all", "lens_positions", "all",
		 "attrs.positions", "all", NULL);
	test_run(&e);
	lens_experiment_release(&e);
	return 0;
}

static int clear(void **state)
{
	struct subject *s = subject;

	(void)state;
	unlink(s->data);
	unlink(s->whole);
	lens_free(s->data);
	lens_free(s->whole);
	test_csv_release(&s->csv);
	return 0;
}

static struct lens_experiment variation(const struct subject *s)
{
	struct lens_experiment e;
	char *output = test_tmp_path("other.h5");

	test_experiment(&e, s->model, s->data, output);
	test_set(&e, "lens", s->lens, "tables", "all", "lens_positions", "all",
		 "attrs.positions", "all", NULL);
	lens_free(output);
	return e;
}

/* Does a list of patterns name the hook point? "*" leaves out what must be named. */
static bool names_hook(const char *patterns, const char *hook)
{
	static const char *const left_out = "logits,*hook_mlp_in,*attn.hook_result";
	struct lens_buf list = LENS_BUF_INIT;
	char *pattern, *rest = NULL;
	bool found = false;

	if (!strcmp(patterns, "*"))
		return !names_hook(left_out, hook);
	assert_int_equal(lens_buf_printf(&list, NULL, "%s", patterns), LENS_OK);
	for (pattern = strtok_r(list.data, ",", &rest); pattern;
	     pattern = strtok_r(NULL, ",", &rest))
		found |= !fnmatch(pattern, hook, 0);
	lens_buf_release(&list);
	return found;
}

static size_t n_tables(const struct subject *s)
{
	struct lens_config c;

	assert_int_equal(lens_config_load(s->model, &c, NULL), LENS_OK);
	return TABLES - (c.n_experts ? OF_NEURONS : 0);
}

/* How many datasets a variation of s with these hooks stores. */
static size_t stored(const struct subject *s, const char *hooks)
{
	struct test_h5 *whole = test_h5_open(s->whole);
	struct test_names names;
	size_t i, n = n_tables(s);

	test_h5_datasets(whole, "/cache", &names);
	test_h5_close(whole);
	for (i = 0; i < names.n; i++)
		n += names_hook(hooks, names.v[i]);
	test_names_release(&names);
	return n;
}

/* Runs and compares; the experiment and its output are gone afterwards. */
static size_t compare(const struct subject *s, struct lens_experiment *e, const size_t *map,
		      bool subset)
{
	const struct test_same same = { s->whole, e->output, map, subset };
	size_t n;

	test_run(e);
	n = test_same_bits(&same);
	unlink(e->output);
	lens_experiment_release(e);
	return n;
}

/* --- logits --------------------------------------------------------------------------- */

/* What tables make of the model's own logits; and of those of the last lens layer. */
static void check_prompt_logits(const struct test_array *v, size_t row, size_t length)
{
	const struct test_array *logits = &v[0], *read = &v[1], *token = &v[2], *top = &v[3];
	const struct test_array *lens = &v[4], *entropy = &v[5];
	size_t n = logits->extent[1], d = logits->extent[2], k, pos = (size_t)read->f64[row];

	for (k = row * top->extent[1]; k < (row + 1) * top->extent[1]; k++)
		assert_true(top->f64[k] ==
			    logits->f64[(row * n + pos) * d + (size_t)token->f64[k]]);
	for (pos = 0; pos < length; pos++)
		assert_true(lens->f64[((row + 1) * lens->extent[1] - 1) * n + pos] ==
			    entropy->f64[row * n + pos]);
}

/* They are the bits of /cache/logits, whatever product they come from. */
static void test_logits(void **state)
{
	static const char *const path[] = { "/cache/logits",         "/prompts/read_pos",
					    "/results/top_tokens",   "/results/top_logits",
					    "/results/lens_entropy", "/results/entropy",
					    "/prompts/length" };
	const struct subject *s = *state;
	struct test_h5 *f = test_h5_open(s->whole);
	struct test_array v[7];
	size_t i;

	for (i = 0; i < 7; i++)
		test_h5_f64(f, path[i], &v[i]);
	assert_int_equal(v[0].extent[0], s->rows);
	for (i = 0; i < s->rows; i++)
		check_prompt_logits(v, i, (size_t)v[6].f64[i]);
	for (i = 0; i < 7; i++)
		test_array_release(&v[i]);
	test_h5_close(f);
}

/* --- the machine ------------------------------------------------------------------- */

static void test_threads(void **state)
{
	static const char *const threads[] = { "2", "3", "8" };
	const struct subject *s = *state;
	size_t i;

	for (i = 0; i < 3; i++) {
		const char *hooks = i ? SOME : EVERYTHING;
		struct lens_experiment e = variation(s);

		test_set(&e, "threads", threads[i], "cache.hooks", hooks, NULL);
		assert_int_equal(compare(s, &e, NULL, i > 0), stored(s, hooks));
	}
}

static void set_memory(struct lens_experiment *e, size_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%zuB", bytes);
	test_set(e, "memory", text, NULL);
}

/* The least memory that a plan accepts, found by halving. */
static size_t least_memory(struct lens_experiment *e)
{
	const struct lens_run_options options = { .dry_run = true };
	struct lens_run_result result;
	size_t no = 1, yes = (size_t)1 << 32;

	while (yes - no > 1) {
		size_t half = no + (yes - no) / 2;

		enum lens_status st;

		set_memory(e, half);
		st = lens_run(e, &options, &result, NULL);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		*(st == LENS_OK ? &yes : &no) = half;
	}
	return yes;
}

static void test_memory(void **state)
{
	static const char *const threads[] = { "1", "8", "3", "2" };
	const struct lens_run_options options = { .overwrite = true };
	const struct subject *s = *state;
	struct lens_run_result result;
	size_t i, least;

	for (i = 0; i < 4; i++) {
		const char *hooks = i ? SOME : "*";
		struct lens_experiment e = variation(s);

		test_set(&e, "threads", threads[i], "cache.hooks", hooks, NULL);
		least = least_memory(&e);
		if (!i) {
			set_memory(&e, least - 1);
			assert_int_equal(lens_run(&e, &options, &result, NULL), LENS_ERR_NOMEM);
		}
		set_memory(&e, i < 2 ? least : i == 2 ? least + least / 8 : 2 * least);
		assert_int_equal(compare(s, &e, NULL, true), stored(s, hooks));
	}
}

/* --- the rows ------------------------------------------------------------------------ */

/* The rows order[0..n) in a file of their own. */
static void compare_rows(const struct subject *s, const size_t *order, size_t n,
			 const char *threads, const char *hooks)
{
	struct lens_experiment e = variation(s);
	char *data = test_tmp_path("some.csv");

	test_csv_write(&s->csv, order, n, data);
	test_set(&e, "data.csv", data, "threads", threads, "cache.hooks", hooks, NULL);
	assert_int_equal(compare(s, &e, order, true), stored(s, hooks));
	unlink(data);
	lens_free(data);
}

static void shuffle(size_t *order, size_t n, unsigned seed)
{
	size_t i;

	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n - 1; i > 0; i--) {
		size_t j, was = order[i];

		seed = seed * 1103515245u + 12345u;
		j = seed / 65536 % (i + 1);
		order[i] = order[j];
		order[j] = was;
	}
}

static void test_shuffled(void **state)
{
	const struct subject *s = *state;
	size_t order[MOST_ROWS];

	shuffle(order, s->rows, 1);
	compare_rows(s, order, s->rows, "1", "*");
	shuffle(order, s->rows, 2);
	compare_rows(s, order, s->rows, "3", SOME);
}

/* The same row several times over, beside itself and in other batches. */
static void test_repeated(void **state)
{
	const struct subject *s = *state;
	size_t i, order[MOST_ROWS];

	for (i = 0; i < MOST_ROWS; i++)
		order[i] = i % 5 == 4 ? i % s->rows : s->rows / 2;
	compare_rows(s, order, MOST_ROWS, "2", SOME);
}

static void test_alone(void **state)
{
	const struct subject *s = *state;
	size_t i, step = s->rows > 6 ? s->rows / 6 : 1;

	for (i = 0; i < s->rows; i += step)
		compare_rows(s, &i, 1, i % 2 ? "3" : "1", EVERYTHING);
}

static void test_limit(void **state)
{
	const struct subject *s = *state;
	struct lens_experiment e = variation(s);
	char limit[24];

	snprintf(limit, sizeof(limit), "%zu", s->rows / 2 + 1);
	test_set(&e, "data.limit", limit, "threads", "2", NULL);
	assert_int_equal(compare(s, &e, NULL, true), stored(s, "*"));
}

/* One row far longer than the others changes the file's extents and chunks. */
static void test_outlier(void **state)
{
	struct subject *s = *state;
	size_t i, order[MOST_ROWS + 1], map[MOST_ROWS], at = s->rows / 3;
	struct lens_buf text = LENS_BUF_INIT;
	struct lens_experiment e = variation(s);
	struct test_same same = { .other = s->whole, .map = map, .whole = e.output };
	char *data = test_tmp_path("outlier.csv");

	for (i = 0; i < s->fillers; i++)
		assert_int_equal(lens_buf_printf(&text, NULL, "%s", s->filler), LENS_OK);
	test_csv_add(&s->csv, text.data, s->answer);
	for (i = 0; i < s->rows; i++) {
		map[i] = i < at ? i : i + 1;
		order[map[i]] = i;
	}
	order[at] = s->csv.n - 1;
	test_csv_write(&s->csv, order, s->rows + 1, data);
	test_set(&e, "data.csv", data, "threads", "2", "cache.hooks", EVERYTHING, NULL);
	test_run(&e);
	assert_int_equal(test_same_bits(&same), stored(s, EVERYTHING));
	unlink(e.output);
	unlink(data);
	lens_free(data);
	lens_buf_release(&text);
	lens_experiment_release(&e);
}

/* --- what else is computed --------------------------------------------------------------- */

static void test_tables_only(void **state)
{
	const struct subject *s = *state;
	struct lens_experiment e = variation(s), one = variation(s);

	test_set(&e, "cache.hooks", "none", "threads", "2", NULL);
	assert_int_equal(compare(s, &e, NULL, true), n_tables(s));
	test_set(&one, "cache.hooks", "none", "tables", "rank_per_layer", "lens_positions",
		 "read", "attrs.positions", "read", NULL);
	assert_int_equal(compare(s, &one, NULL, true), 2); /* and the flags */
}

/* Each kind of hook point alone: no kernel may depend on what else is wanted. */
static void test_hooks_alone(void **state)
{
	const struct subject *s = *state;
	struct test_h5 *whole = test_h5_open(s->whole);
	struct test_names names;
	size_t i;

	test_h5_datasets(whole, "/cache", &names);
	test_h5_close(whole);
	for (i = 0; i < names.n; i++) {
		struct lens_experiment e;
		char pattern[96];

		if (strncmp(names.v[i], "blocks.", 7) == 0 &&
		    strncmp(names.v[i], "blocks.1.", 9) != 0)
			continue;
		e = variation(s);
		snprintf(pattern, sizeof(pattern), "%s", names.v[i]);
		test_set(&e, "cache.hooks", pattern, "tables", "none", "lens_positions", "read",
			 "attrs.positions", "read", NULL);
		assert_int_equal(compare(s, &e, NULL, true), 1);
	}
	test_names_release(&names);
}

/* The other lens: its tables under other threads, another order, other company. */
static void test_other_lens(void **state)
{
	const struct subject *s = *state;
	struct subject other = *s;
	struct lens_experiment e;
	size_t order[MOST_ROWS];

	other.lens = "cached_scale_no_bias";
	other.whole = test_tmp_path("lens.h5");
	e = variation(&other);
	test_set(&e, "cache.hooks", "ln_final*", "output", other.whole, NULL);
	test_run(&e);
	lens_experiment_release(&e);
	e = variation(&other);
	test_set(&e, "threads", "3", "cache.hooks", "none", NULL);
	assert_int_equal(compare(&other, &e, NULL, true), n_tables(s));
	shuffle(order, s->rows, 3);
	compare_rows(&other, order, s->rows, "2", "none");
	compare_rows(&other, order, 1, "1", "ln_final*");
	unlink(other.whole);
	lens_free(other.whole);
}

/* A subject is a group; its set-up makes what the tests compare with. */
static int run_subject(const char *name, struct subject *s)
{
	const struct CMUnitTest tests[] = {
		{ "logits", test_logits, NULL, NULL, s },
		{ "threads", test_threads, NULL, NULL, s },
		{ "memory", test_memory, NULL, NULL, s },
		{ "shuffled rows", test_shuffled, NULL, NULL, s },
		{ "a row many times", test_repeated, NULL, NULL, s },
		{ "a row alone", test_alone, NULL, NULL, s },
		{ "limit", test_limit, NULL, NULL, s },
		{ "a long row", test_outlier, NULL, NULL, s },
		{ "tables only", test_tables_only, NULL, NULL, s },
		{ "one hook", test_hooks_alone, NULL, NULL, s },
		{ "other lens", test_other_lens, NULL, NULL, s },
	};

	subject = s;
	return cmocka_run_group_tests_name(name, tests, prepare, clear);
}

int main(void)
{
	int failed = run_subject("gpt2_gelu", &odd) + run_subject("demo", &demo);

	if (!test_quick())
		failed += run_subject("gpt2_gelu_new", &plain) +
			  run_subject("gpt2_unscaled", &one_head) +
			  run_subject("gpt_neo", &neo) + run_subject("gpt_neox", &neox) +
			  run_subject("llama_gqa", &llama) + run_subject("mixtral", &mixtral);
	return failed;
}
