/*
 * test_forward_rows.c: every hook point has the same bits at every position wherever
 * the batch's rows lie: scattered, shared by prompts with a common prefix, from a later
 * block on, and where only read positions go on. On the level of H5LENS_TEST_CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/passes.h"
#include "support/runs.h"

enum { N_PROMPTS = 8, MOST_TOKENS = 80, LEARNED = 48 };

static struct test_random rnd = { 5 };

/* A model with prompts, and what it shows of them as they are packed. */
struct subject {
	struct lens_model *m;
	size_t n_layers;
	int32_t token[N_PROMPTS][MOST_TOKENS];
	struct test_prompt prompt[N_PROMPTS];
	struct lens_batch b;
	struct test_record all;
};

/* Longer than a block of queries, where positions are not learned. */
static void make_prompts(struct subject *s)
{
	const size_t longest = s->m->config.learned_positions ? LEARNED : MOST_TOKENS;
	const size_t length[N_PROMPTS] = { 7, longest, 1, 12, 25, 13, longest - 5, 2 };
	size_t i, k;

	for (i = 0; i < N_PROMPTS; i++) {
		for (k = 0; k < length[i]; k++)
			s->token[i][k] = (int32_t)test_random_below(&rnd, s->m->config.d_vocab);
		s->prompt[i] = (struct test_prompt){
			.tokens = s->token[i],
			.length = length[i],
			.read_pos = (int32_t)test_random_below(&rnd, length[i]),
		};
	}
}

/* Runs and keeps what is shown, of every hook point that r's set has. */
static void run_pass(const struct subject *s, struct test_record *r, struct test_pass pass)
{
	const struct lens_visitor v = test_record_visitor(r);

	pass.m = s->m;
	pass.visitor = &v;
	pass.n = 1;
	assert_int_equal(test_run_pass(&pass, NULL), LENS_OK);
}

static void run(const struct subject *s, const struct lens_batch *b, struct test_record *r,
		int threads, size_t layer, const float *resid)
{
	run_pass(s, r,
		 (struct test_pass){
			 .b = b, .threads = threads, .resid = resid, .layer = layer });
}

static void begin(struct subject *s, const char *name, bool processed)
{
	const struct lens_model_options opt = {
		.processing = { .fold_ln = processed,
				.center_writing_weights = processed,
				.center_unembed = processed,
				.fold_value_biases = processed },
	};
	char dir[128];

	snprintf(dir, sizeof(dir), "tests/golden/data/%s", name);
	memset(s, 0, sizeof(*s));
	s->m = test_open_model(dir, &opt);
	s->n_layers = s->m->config.n_layers;
	make_prompts(s);
	test_pack(&s->b, s->prompt, N_PROMPTS);
	test_record_init(&s->all, s->m, &s->b, LENS_WANT_ALL);
	run(s, &s->b, &s->all, 1, 0, NULL);
}

static void end(struct subject *s)
{
	test_record_release(&s->all);
	lens_batch_release(&s->b);
	lens_model_destroy(s->m);
}

/* Hook points that a pass from a block on should show; of the embeddings too. */
static size_t n_points(const struct subject *s, size_t layer, bool embeddings)
{
	size_t points = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		enum lens_hook hook = (enum lens_hook)h;

		if (!lens_hook_exists(&s->m->config, hook))
			continue;
		if (lens_hook_info(hook)->per_layer)
			points += s->n_layers - layer;
		else
			points += hook >= LENS_HOOK_LN_FINAL_SCALE || embeddings;
	}
	return points;
}

/* --- elsewhere --------------------------------------------------------------------------- */

static void check_scattered(struct subject *s)
{
	size_t i, n = n_points(s, 0, true) * test_n_positions(&s->b);
	struct test_record r;
	struct lens_batch b;

	assert_int_equal(test_same_records(&s->all, &s->all, "itself"), n);
	test_pack(&b, s->prompt, N_PROMPTS);
	for (i = 0; i < 3; i++) {
		test_scatter(&b, &rnd);
		test_record_init(&r, s->m, &b, LENS_WANT_ALL);
		run(s, &b, &r, 1, 0, NULL);
		assert_int_equal(test_same_records(&r, &s->all, "scattered"), n);
		test_record_release(&r);
	}
	lens_batch_release(&b);
}

/* Without scores and patterns, which are shown in order, threads share the prompts. */
static void without_squares(struct test_record *r)
{
	size_t layer;

	for (layer = 0; layer < r->hooks.n_layers; layer++) {
		unsigned char *want = r->hooks.want + layer * LENS_HOOK_COUNT;

		want[LENS_HOOK_ATTN_SCORES] = want[LENS_HOOK_PATTERN] = LENS_WANT_NOT;
	}
}

static void check_threads(struct subject *s)
{
	size_t n = (n_points(s, 0, true) - 2 * s->n_layers) * test_n_positions(&s->b);
	struct test_record r;
	struct lens_batch b;
	int scattered;

	test_pack(&b, s->prompt, N_PROMPTS);
	for (scattered = 0; scattered < 2; scattered++) {
		if (scattered)
			test_scatter(&b, &rnd);
		test_record_init(&r, s->m, &b, LENS_WANT_ALL);
		without_squares(&r);
		run(s, &b, &r, 3, 0, NULL);
		assert_int_equal(test_same_records(&r, &s->all, "threads"), n);
		test_record_release(&r);
	}
	lens_batch_release(&b);
}

/* --- shared ------------------------------------------------------------------------------ */

/* Three prompts whose first n tokens are the same have one row for each of them. */
static void check_shared(struct subject *s, size_t n, bool scattered)
{
	struct test_prompt p[3] = { s->prompt[6], s->prompt[4], s->prompt[1] };
	struct test_record own, shared;
	struct lens_batch b;
	size_t i;

	for (i = 1; i < 3; i++)
		memcpy(s->token[i == 1 ? 4 : 1], s->token[6], n * sizeof(int32_t));
	test_pack(&b, p, 3);
	test_record_init(&own, s->m, &b, LENS_WANT_ALL);
	run(s, &b, &own, 1, 0, NULL);
	if (scattered)
		test_scatter(&b, &rnd);
	test_share(&b, 0, 1, n);
	test_share(&b, 0, 2, n);
	test_record_init(&shared, s->m, &b, LENS_WANT_ALL);
	run(s, &b, &shared, 1, 0, NULL);
	assert_int_equal(test_same_records(&shared, &own, "shared"),
			 n_points(s, 0, true) * test_n_positions(&b));
	test_record_release(&own);
	test_record_release(&shared);
	lens_batch_release(&b);
}

/* To the middle of twelve rows, to their end, and all of the second prompt. */
static void check_prefixes(struct subject *s)
{
	static const size_t common[] = { 1, 7, 12, 25 };
	size_t i;

	for (i = 0; i < 4; i++) {
		check_shared(s, common[i], false);
		check_shared(s, common[i], true);
	}
}

/* Prompts that begin like an earlier one, as far as it goes or not; one twice over. */
static void begin_alike(struct subject *s)
{
	static const size_t common[N_PROMPTS] = { 0, 7, 1, 1, 12, 13, 9, 0 };
	static const size_t like[N_PROMPTS] = { 0, 0, 0, 1, 1, 4, 1, 0 };
	size_t i;

	for (i = 1; i < N_PROMPTS; i++)
		memcpy(s->token[i], s->token[like[i]], common[i] * sizeof(int32_t));
}

/* As lens_batch_pack shares them, whatever is wanted and on however many threads. */
static void check_packed(struct subject *s, enum lens_want want, int threads, bool scattered)
{
	struct test_record own, shared;
	struct lens_batch b, c;

	test_pack(&b, s->prompt, N_PROMPTS);
	test_pack_shared(&c, s->prompt, N_PROMPTS);
	assert_true(c.n_rows < b.n_rows);
	if (scattered)
		test_scatter(&c, &rnd);
	test_record_init(&own, s->m, &b, want);
	test_record_init(&shared, s->m, &c, want);
	if (threads > 1) {
		without_squares(&own);
		without_squares(&shared);
	}
	run(s, &b, &own, 1, 0, NULL);
	run(s, &c, &shared, threads, 0, NULL);
	assert_int_equal(test_same_records(&shared, &own, "packed"),
			 test_same_records(&own, &own, "itself"));
	test_record_release(&own);
	test_record_release(&shared);
	lens_batch_release(&b);
	lens_batch_release(&c);
}

static void check_shares(struct subject *s)
{
	int times;

	begin_alike(s);
	for (times = 0; times < 4; times++) {
		check_packed(s, LENS_WANT_ALL, 1, times % 2);
		check_packed(s, LENS_WANT_ALL, 3, times % 2);
		check_packed(s, LENS_WANT_READ_POS, 1, times % 2);
		check_packed(s, LENS_WANT_READ_POS, 3, times % 2);
		/* Then where they are the same. */
		s->prompt[4].read_pos = s->prompt[5].read_pos = times % 2 ? 12 : 3;
		s->prompt[1].read_pos = 3;
	}
}

/* --- from a block on --------------------------------------------------- */

static float *resid_pre(const struct subject *s, const struct lens_batch *b, size_t layer)
{
	if (layer == s->n_layers)
		return test_record_rows(&s->all, b, LENS_HOOK_RESID_POST, layer - 1);
	return test_record_rows(&s->all, b, LENS_HOOK_RESID_PRE, layer);
}

static void check_from_layer(const struct subject *s, const struct lens_batch *b, size_t layer)
{
	float *resid = resid_pre(s, b, layer);
	struct test_record r;

	test_record_init(&r, s->m, b, LENS_WANT_ALL);
	run(s, b, &r, 1, layer, resid);
	assert_int_equal(test_same_records(&r, &s->all, "from a block on"),
			 n_points(s, layer, false) * test_n_positions(b));
	test_record_release(&r);
	lens_free(resid);
}

static void check_from(struct subject *s)
{
	struct lens_batch b;
	size_t layer;

	test_pack(&b, s->prompt, N_PROMPTS);
	for (layer = 0; layer <= s->n_layers; layer++)
		check_from_layer(s, &b, layer);
	test_scatter(&b, &rnd);
	for (layer = 0; layer <= s->n_layers; layer++)
		check_from_layer(s, &b, layer);
	lens_batch_release(&b);
}

/* --- from a block and a position on ------------------------------------------------ */

/* Each prompt several times, from other positions on; some lie between others. */
static void pack_ends(const struct subject *s, struct lens_batch *b, size_t *prompt)
{
	enum { TIMES = 3 };
	struct lens_row_count whole = { { 0 } }, ends = { { 0 } };
	size_t i, tokens = 0, rows;

	for (i = 0; i < TIMES * N_PROMPTS; i++) {
		tokens += s->prompt[i % N_PROMPTS].length;
		lens_batch_count(&whole, s->prompt[i % N_PROMPTS].length, 0);
	}
	rows = (lens_row_places(&whole) + 11) / 12 * 12;
	assert_int_equal(lens_batch_init(b, TIMES * N_PROMPTS, tokens, rows, NULL), LENS_OK);
	for (i = 0; i < TIMES * N_PROMPTS; i++) {
		const struct test_prompt *p = &s->prompt[i % N_PROMPTS];
		size_t from = i ? test_random_below(&rnd, p->length) : 1;

		lens_batch_pack(b, p->tokens, p->length, p->read_pos, from);
		lens_batch_count(&ends, p->length, from);
		assert_int_equal(b->n_rows, lens_row_places(&ends));
		prompt[i] = i % N_PROMPTS;
	}
}

/* Of b's prompts, which were prompt[i] of s. */
static size_t same_ends(const struct subject *s, const struct test_record *r,
			const struct lens_batch *b, const size_t *prompt)
{
	size_t i, pos, layer, n = 0, h;

	for (layer = 0; layer < s->n_layers; layer++) {
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			const struct test_point *is = &r->point[layer * LENS_HOOK_COUNT + h];
			size_t bytes = is->width * sizeof(float);

			for (i = 0; is->value && i < b->n_prompts; i++) {
				for (pos = 0; pos < b->length[i]; pos++) {
					const float *x = test_recorded(r, (enum lens_hook)h,
								       layer, i, pos);

					if (!x)
						continue;
					assert_memory_equal(x,
							    test_recorded(&s->all,
									  (enum lens_hook)h,
									  layer, prompt[i],
									  pos),
							    bytes);
					n++;
				}
			}
		}
	}
	return n;
}

/* The earlier pass's keys and values. */
static void record_past(const struct subject *s, float **keys, float **values)
{
	bool turned = s->m->config.rotary.dim;
	size_t i;

	for (i = 0; i < s->n_layers; i++) {
		keys[i] = test_record_rows(&s->all, &s->b,
					   turned ? LENS_HOOK_ROT_K : LENS_HOOK_K, i);
		values[i] = test_record_rows(&s->all, &s->b, LENS_HOOK_V, i);
	}
}

static float *resid_of_ends(const struct subject *s, const struct lens_batch *b,
			    const size_t *prompt, size_t layer)
{
	size_t i, pos, d = s->m->config.d_model;
	float *resid = lens_calloc(b->n_rows * d, sizeof(*resid));

	assert_non_null(resid);
	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			long row = lens_batch_row(b, i, pos);

			if (row >= 0)
				memcpy(resid + (size_t)row * d,
				       test_recorded(&s->all, LENS_HOOK_RESID_PRE, layer,
						     prompt[i], pos),
				       d * sizeof(*resid));
		}
	}
	return resid;
}

static void check_past_layer(const struct subject *s, const struct lens_batch *b,
			     const struct lens_past *past, size_t layer)
{
	size_t i, pos, n = 0;
	float *resid = resid_of_ends(s, b, past->prompt, layer);
	struct test_record r;

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++)
			n += lens_batch_row(b, i, pos) >= 0;
	}
	test_record_init(&r, s->m, b, LENS_WANT_ALL);
	run_pass(s, &r,
		 (struct test_pass){ .b = b, .resid = resid, .layer = layer, .past = past });
	assert_int_equal(same_ends(s, &r, b, past->prompt), n * n_points(s, layer, false));
	test_record_release(&r);
	lens_free(resid);
}

static void check_past(struct subject *s)
{
	float *keys[16] = { NULL }, *values[16] = { NULL };
	size_t prompt[3 * N_PROMPTS], layer;
	struct lens_past past = { .batch = &s->b,
				  .prompt = prompt,
				  .keys = (const float *const *)keys,
				  .values = (const float *const *)values };
	struct lens_batch b;

	pack_ends(s, &b, prompt);
	record_past(s, keys, values);
	for (layer = 0; layer < s->n_layers; layer++)
		check_past_layer(s, &b, &past, layer);
	for (layer = 0; layer < s->n_layers; layer++) {
		lens_free(keys[layer]);
		lens_free(values[layer]);
	}
	lens_batch_release(&b);
}

/* --- read positions alone --------------------------------------------------- */

/* Positions shown in the blocks, behind the keys and values of the last N_PROMPTS. */
static size_t n_read(const struct subject *s, size_t layer)
{
	const struct lens_config *c = &s->m->config;
	size_t early = 0, late = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		enum lens_hook hook = (enum lens_hook)h;

		if (!lens_hook_exists(c, hook) || !lens_hook_info(hook)->per_layer)
			continue;
		early += hook <= LENS_HOOK_ROT_K;
		late += hook > LENS_HOOK_ROT_K;
	}
	return (s->n_layers - layer - 1) * (early + late) * test_n_positions(&s->b) +
	       early * test_n_positions(&s->b) + late * N_PROMPTS;
}

static void check_read(struct subject *s)
{
	size_t n = n_read(s, 0), last = s->n_layers - 1;
	struct test_record r;
	struct lens_batch b;
	float *resid;
	int k;

	test_pack(&b, s->prompt, N_PROMPTS);
	for (k = 0; k < 4; k++) {
		if (k % 2)
			test_scatter(&b, &rnd);
		test_record_init(&r, s->m, &b, LENS_WANT_READ_POS);
		resid = k / 2 ? resid_pre(s, &b, last) : NULL;
		run(s, &b, &r, 1, last, resid);
		assert_int_equal(test_same_records(&r, &s->all, "read positions"),
				 resid ? n_read(s, last) : n);
		test_record_release(&r);
		lens_free(resid);
	}
	lens_batch_release(&b);
}

/* --- all of it, model by model --------------------------------------------------- */

static void check_model(void **state)
{
	const char *name = *state;
	struct subject s;
	int processed;

	for (processed = 0; processed < (test_quick() ? 1 : 2); processed++) {
		begin(&s, name, processed);
		check_scattered(&s);
		check_threads(&s);
		check_from(&s);
		check_past(&s);
		check_read(&s);
		check_prefixes(&s); /* changes the tokens, … */
		check_shares(&s);   /* … too */
		end(&s);
	}
}

int main(void)
{
	/*
	 * Learned and rotary positions, a parallel block, RMSNorm, a gate, windows, norms
	 * after, soft caps, norms of queries and keys, two rotary bases, pairs of
	 * neighbours, layers without rotary positions, experts.
	 */
	static char gpt2[] = "gpt2_gelu_new", neo[] = "gpt_neo_local", neox[] = "gpt_neox",
		    llama[] = "llama_gqa", mistral[] = "mistral", gemma2[] = "gemma2",
		    gemma3[] = "gemma3", olmo2[] = "olmo2", gptj[] = "gptj",
		    smollm3[] = "smollm3", mixtral[] = "mixtral",
		    qwen3_moe[] = "qwen3_moe_norm";
	const struct CMUnitTest tests[] = {
		{ gpt2, check_model, NULL, NULL, gpt2 },
		{ neo, check_model, NULL, NULL, neo },
		{ neox, check_model, NULL, NULL, neox },
		{ llama, check_model, NULL, NULL, llama },
		{ mistral, check_model, NULL, NULL, mistral },
		{ gemma2, check_model, NULL, NULL, gemma2 },
		{ gemma3, check_model, NULL, NULL, gemma3 },
		{ olmo2, check_model, NULL, NULL, olmo2 },
		{ gptj, check_model, NULL, NULL, gptj },
		{ smollm3, check_model, NULL, NULL, smollm3 },
		{ mixtral, check_model, NULL, NULL, mixtral },
		{ qwen3_moe, check_model, NULL, NULL, qwen3_moe },
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
