/*
 * test_hooks.c: the table of hook points against TransformerLens 2.16's names
 * and shapes for GPT-2 (HookedTransformer.hook_dict, as run_with_cache fills
 * it), and the selection by names and globs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/hooks.h"
#include "support/cases.h"

enum { L = 2, P = 11 }; /* layers, positions */

static const struct lens_config gpt2 = {
	.n_layers = L,
	.d_model = 32,
	.n_heads = 4,
	.n_kv_heads = 4,
	.d_head = 8,
	.d_mlp = 128,
	.d_vocab = 300,
	.n_ctx = 48,
	.learned_positions = true,
	.norms_before = true,
};

struct named {
	const char *name;
	size_t shape[3]; /* without batch; 0: not so many dimensions */
};

#define BLOCK(i)                                                                               \
	{ "blocks." #i ".hook_resid_pre", { P, 32, 0 } },                                      \
		{ "blocks." #i ".ln1.hook_scale", { P, 1, 0 } },                               \
		{ "blocks." #i ".ln1.hook_normalized", { P, 32, 0 } },                         \
		{ "blocks." #i ".attn.hook_q", { P, 4, 8 } },                                  \
		{ "blocks." #i ".attn.hook_k", { P, 4, 8 } },                                  \
		{ "blocks." #i ".attn.hook_v", { P, 4, 8 } },                                  \
		{ "blocks." #i ".attn.hook_attn_scores", { 4, P, P } },                        \
		{ "blocks." #i ".attn.hook_pattern", { 4, P, P } },                            \
		{ "blocks." #i ".attn.hook_z", { P, 4, 8 } },                                  \
		{ "blocks." #i ".hook_attn_out", { P, 32, 0 } },                               \
		{ "blocks." #i ".hook_resid_mid", { P, 32, 0 } },                              \
		{ "blocks." #i ".ln2.hook_scale", { P, 1, 0 } },                               \
		{ "blocks." #i ".ln2.hook_normalized", { P, 32, 0 } },                         \
		{ "blocks." #i ".mlp.hook_pre", { P, 128, 0 } },                               \
		{ "blocks." #i ".mlp.hook_post", { P, 128, 0 } },                              \
		{ "blocks." #i ".hook_mlp_out", { P, 32, 0 } },                                \
	{                                                                                      \
		"blocks." #i ".hook_resid_post",                                               \
		{                                                                              \
			P, 32, 0                                                               \
		}                                                                              \
	}

/* What run_with_cache stores by default. */
static const struct named by_default[] = {
	{ "hook_embed", { P, 32, 0 } },
	{ "hook_pos_embed", { P, 32, 0 } },
	BLOCK(0),
	BLOCK(1),
	{ "ln_final.hook_scale", { P, 1, 0 } },
	{ "ln_final.hook_normalized", { P, 32, 0 } },
};
#define N_DEFAULT (sizeof(by_default) / sizeof(*by_default))

/* What it stores on request (use_attn_result, use_hook_mlp_in), and the logits. */
static const struct named on_request[] = {
	{ "blocks.0.attn.hook_result", { P, 4, 32 } },
	{ "blocks.1.attn.hook_result", { P, 4, 32 } },
	{ "blocks.0.hook_mlp_in", { P, 32, 0 } },
	{ "blocks.1.hook_mlp_in", { P, 32, 0 } },
	{ "logits", { P, 300, 0 } },
};
#define N_REQUEST (sizeof(on_request) / sizeof(*on_request))

/* --- names and shapes -------------------------------------------------------------------- */

/* The hook point of a name. */
static void find(const char *name, enum lens_hook *hook, size_t *layer)
{
	char buf[LENS_HOOK_NAME];
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		for (*layer = 0; *layer < L; ++*layer) {
			*hook = (enum lens_hook)h;
			if (!strcmp(lens_hook_name(*hook, *layer, buf), name))
				return;
		}
	}
	fail_msg("no hook point is called %s", name);
}

static void check_shape(const struct lens_config *c, const struct named *n)
{
	struct lens_sizes sizes = lens_model_sizes(c);
	enum lens_hook hook;
	size_t layer, i;
	const struct lens_hook_info *info;

	sizes.n_pos = P;
	find(n->name, &hook, &layer);
	info = lens_hook_info(hook);
	assert_true(lens_hook_exists(c, hook));
	assert_true(info->long_name[0] != '\0');
	for (i = 0; i < LENS_HOOK_AXES && n->shape[i]; i++)
		assert_int_equal(lens_axis_extent(info->axis[i], &sizes), n->shape[i]);
	assert_int_equal(info->n_axes, i);
}

static size_t count_existing(const struct lens_config *c)
{
	size_t n = 0;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		if (lens_hook_exists(c, (enum lens_hook)h))
			n += lens_hook_info((enum lens_hook)h)->per_layer ? L : 1;
	}
	return n;
}

static void names_and_shapes(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < N_DEFAULT; i++)
		check_shape(&gpt2, &by_default[i]);
	for (i = 0; i < N_REQUEST; i++)
		check_shape(&gpt2, &on_request[i]);
	assert_int_equal(count_existing(&gpt2), N_DEFAULT + N_REQUEST); /* and no others */
}

/* Pythia: rotary positions and a parallel block; Llama: rotary, gated, grouped heads. */
static void names_of_other_families(void **state)
{
	static const struct named rotary[] = {
		{ "blocks.0.attn.hook_rot_q", { P, 4, 8 } },
		{ "blocks.1.attn.hook_rot_k", { P, 2, 8 } },
		{ "blocks.1.attn.hook_k", { P, 2, 8 } },
		{ "blocks.1.attn.hook_v", { P, 2, 8 } },
	};
	static const struct named gated = { "blocks.1.mlp.hook_pre_linear", { P, 128, 0 } };
	struct lens_config pythia = gpt2, llama = gpt2;
	size_t i, all = N_DEFAULT + N_REQUEST;

	(void)state;
	pythia.learned_positions = false;
	pythia.parallel_block = true;
	pythia.rotary.dim = 2;
	assert_false(lens_hook_exists(&pythia, LENS_HOOK_RESID_MID));
	assert_int_equal(count_existing(&pythia), all - 1 - L + 2 * L);
	llama.learned_positions = false;
	llama.gated_mlp = true;
	llama.rotary.dim = 8;
	llama.n_kv_heads = 2;
	for (i = 0; i < sizeof(rotary) / sizeof(*rotary); i++)
		check_shape(&llama, &rotary[i]);
	check_shape(&llama, &gated);
	assert_int_equal(count_existing(&llama), all - 1 + 3 * L);
	assert_true(lens_hook_info(LENS_HOOK_ROT_Q)->by_default &&
		    lens_hook_info(LENS_HOOK_ROT_K)->by_default &&
		    lens_hook_info(LENS_HOOK_MLP_PRE_LINEAR)->by_default);
}

/* Norms of queries and keys, after and instead of the others. */
static void names_of_norms(void **state)
{
	static const struct named qk[] = {
		{ "blocks.0.attn.q_norm.hook_scale", { P, 4, 1 } },
		{ "blocks.1.attn.q_norm.hook_normalized", { P, 4, 8 } },
		{ "blocks.0.attn.k_norm.hook_scale", { P, 2, 1 } },
		{ "blocks.1.attn.k_norm.hook_normalized", { P, 2, 8 } },
	};
	static const struct named after[] = {
		{ "blocks.0.ln1_post.hook_scale", { P, 1, 0 } },
		{ "blocks.1.ln1_post.hook_normalized", { P, 32, 0 } },
		{ "blocks.0.ln2_post.hook_scale", { P, 1, 0 } },
		{ "blocks.1.ln2_post.hook_normalized", { P, 32, 0 } },
	};
	struct lens_config qwen3 = gpt2, olmo2 = gpt2;
	size_t i, all = N_DEFAULT + N_REQUEST;

	(void)state;
	qwen3.qk_norm = LENS_QK_NORM_HEAD;
	qwen3.n_kv_heads = 2;
	olmo2.norms_before = false;
	olmo2.norms_after = true;
	for (i = 0; i < 4; i++) {
		check_shape(&qwen3, &qk[i]);
		check_shape(&olmo2, &after[i]);
	}
	assert_int_equal(count_existing(&qwen3), all + 4 * L);
	assert_int_equal(count_existing(&olmo2), all); /* four for four */
	assert_false(lens_hook_exists(&olmo2, LENS_HOOK_LN1_SCALE));
}

/* Square points are shown head by head; what is beside the stream cannot be edited. */
static void what_points_are(void **state)
{
	size_t i, n_fixed = 0;

	(void)state;
	for (i = 0; i < LENS_HOOK_COUNT; i++) {
		const struct lens_hook_info *h = lens_hook_info((enum lens_hook)i);
		bool square = strstr(h->name, "attn_scores") || strstr(h->name, "pattern");

		assert_int_equal(lens_hook_is_square((enum lens_hook)i), square);
		assert_string_equal(lens_axis_name(h->axis[square ? 2 : 0]),
				    square ? "key" : "pos");
		n_fixed += !h->editable;
		assert_int_equal(h->editable, !strstr(h->name, "scale") &&
						      !strstr(h->name, "hook_result") &&
						      !strstr(h->name, "mlp_in") &&
						      !strstr(h->name, "expert_indices"));
	}
	assert_int_equal(n_fixed, 11);
}

/* Fewer heads for keys and values; two digits of layers. */
static void other_configs(void **state)
{
	struct lens_config c = gpt2;
	struct lens_sizes sizes;
	char name[LENS_HOOK_NAME];

	(void)state;
	c.n_kv_heads = 2;
	sizes = lens_model_sizes(&c);
	assert_int_equal(lens_axis_extent(lens_hook_info(LENS_HOOK_K)->axis[1], &sizes), 2);
	assert_int_equal(lens_axis_extent(lens_hook_info(LENS_HOOK_Q)->axis[1], &sizes), 4);
	assert_string_equal(lens_hook_name(LENS_HOOK_Q, 47, name), "blocks.47.attn.hook_q");
	assert_string_equal(lens_hook_name(LENS_HOOK_MLP_POST, SIZE_MAX, name),
			    "blocks.18446744073709551615.mlp.hook_post");
	c.learned_positions = false;
	c.parallel_block = true;
	assert_false(lens_hook_exists(&c, LENS_HOOK_POS_EMBED));
	assert_false(lens_hook_exists(&c, LENS_HOOK_RESID_MID));
	assert_true(lens_hook_exists(&c, LENS_HOOK_MLP_IN));
}

/* --- aliases ---------------------------------------------------------------------- */

static void assert_alias(const struct lens_config *c, enum lens_hook hook, size_t layer,
			 const char *target)
{
	enum lens_hook to = LENS_HOOK_COUNT;
	size_t to_layer = 99;
	char name[LENS_HOOK_NAME];

	assert_true(lens_hook_alias(c, hook, layer, &to, &to_layer));
	assert_string_equal(lens_hook_name(to, to_layer, name), target);
}

static void aliases(void **state)
{
	struct lens_config parallel = gpt2;
	enum lens_hook to;
	size_t layer;
	int h, n = 0;

	(void)state;
	assert_alias(&gpt2, LENS_HOOK_RESID_PRE, 1, "blocks.0.hook_resid_post");
	assert_alias(&gpt2, LENS_HOOK_MLP_IN, 0, "blocks.0.hook_resid_mid");
	assert_alias(&gpt2, LENS_HOOK_MLP_IN, 1, "blocks.1.hook_resid_mid");
	for (h = 0; h < LENS_HOOK_COUNT; h++)
		n += lens_hook_alias(&gpt2, (enum lens_hook)h, 0, &to, &layer);
	assert_int_equal(n, 1); /* of layer 0, hook_mlp_in alone */
	parallel.parallel_block = true;
	assert_alias(&parallel, LENS_HOOK_MLP_IN, 0, "blocks.0.hook_resid_pre");
	assert_alias(&parallel, LENS_HOOK_MLP_IN, 1, "blocks.0.hook_resid_post");
}

/* --- selection -------------------------------------------------------------------- */

/* How many are wanted. */
static size_t count_wanted(const struct lens_hook_set *s)
{
	size_t i, n = 0;

	for (i = 0; i < s->n_layers * LENS_HOOK_COUNT; i++)
		n += s->want[i] != 0;
	return n;
}

static size_t selected(const char *a, const char *b)
{
	const char *const pattern[] = { a, b };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_hook_set s;
	size_t n;

	if (lens_hook_set_init(&s, &gpt2, pattern, b ? 2 : a ? 1 : 0, &err) != LENS_OK)
		fail_msg("%s", err.text);
	n = count_wanted(&s);
	lens_hook_set_release(&s);
	return n;
}

static void defaults(void **state)
{
	const char *const star[] = { "*" };
	struct lens_hook_set s;
	enum lens_hook hook;
	size_t i, layer;

	(void)state;
	assert_int_equal(lens_hook_set_init(&s, &gpt2, star, 1, NULL), LENS_OK);
	for (i = 0; i < N_DEFAULT; i++) {
		find(by_default[i].name, &hook, &layer);
		assert_true(lens_hook_wanted(&s, hook, layer));
	}
	assert_int_equal(count_wanted(&s), N_DEFAULT);
	lens_hook_set_release(&s);
}

static void globs(void **state)
{
	(void)state;
	assert_int_equal(selected(NULL, NULL), 0);
	assert_int_equal(selected("hook_embed", NULL), 1);
	assert_int_equal(selected("hook_embed", "hook_embed"), 1);
	assert_int_equal(selected("blocks.*.attn.hook_q", NULL), 2);
	assert_int_equal(selected("blocks.1.*", NULL), 19);
	assert_int_equal(selected("blocks.?.ln[12].hook_scale", NULL), 4);
	assert_int_equal(selected("blocks.[!0].hook_resid_post", NULL), 1);
	assert_int_equal(selected("*hook_resid_*", NULL), 6);
	assert_int_equal(selected("*", "blocks.0.attn.hook_result"), N_DEFAULT + 1);
	assert_int_equal(selected("*", "logits"), N_DEFAULT + 1);
	assert_int_equal(selected("*attn.hook_result", "*hook_mlp_in"), 4);
	/* only "*" alone means the defaults */
	assert_int_equal(selected("**", NULL), N_DEFAULT + N_REQUEST);
}

static void assert_refused(const char *pattern, enum lens_status code, const char *says)
{
	const char *const patterns[] = { "hook_embed", pattern };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_hook_set s;

	assert_int_equal(lens_hook_set_init(&s, &gpt2, patterns, 2, &err), code);
	assert_int_equal(err.code, code);
	if (!strstr(err.text, says) || !strstr(err.text, pattern))
		fail_msg("'%s' should say \"%s\": %s", pattern, says, err.text);
	lens_hook_set_release(&s);
}

static void unknown_patterns(void **state)
{
	char long_name[300];

	(void)state;
	assert_refused("hook_emebd", LENS_ERR_INVALID, "did you mean 'hook_embed'?");
	assert_refused("blocks.1.attn.hook_patern", LENS_ERR_INVALID,
		       "did you mean 'blocks.1.attn.hook_pattern'?");
	assert_refused("blocks.0.hook_resid_posts", LENS_ERR_INVALID,
		       "'blocks.0.hook_resid_post'");
	assert_refused("logit", LENS_ERR_INVALID, "'logits'");
	assert_refused("blocks.2.hook_resid_post", LENS_ERR_INVALID,
		       "the model has 2 layers, 0 to 1");
	assert_refused("blocks.99.*", LENS_ERR_INVALID, "the model has 2 layers, 0 to 1");
	assert_refused("blocks.-1.hook_resid_post", LENS_ERR_INVALID, "2 layers");
	assert_refused("blocks.99999999999999999999.attn.hook_q", LENS_ERR_INVALID, "2 layers");
	assert_refused("", LENS_ERR_INVALID, "no hook point matches ''");
	assert_refused("[", LENS_ERR_INVALID, "no hook point");
	assert_refused("blocks.0", LENS_ERR_INVALID, "no hook point");
	assert_refused("HOOK_EMBED", LENS_ERR_INVALID, "no hook point");
	assert_refused("%s%n", LENS_ERR_INVALID, "no hook point");
	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_refused(long_name, LENS_ERR_INVALID, "no hook point");
}

/* Points for interventions are refused with the reason, by name and by glob. */
static void intervention_points(void **state)
{
	static const char *const names[] = { "blocks.0.hook_attn_in", "blocks.1.hook_q_input",
					     "blocks.*.hook_k_input", "*hook_v_input" };
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_refused(names[i], LENS_ERR_UNSUPPORTED, "repeated once per head");
}

static enum lens_status select_all(void *ctx)
{
	const char *const star[] = { "*" };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_hook_set s;
	enum lens_status st = lens_hook_set_init(&s, &gpt2, star, 1, &err);

	(void)ctx;
	assert_int_equal(st, err.code);
	lens_hook_set_release(&s);
	return st;
}

static void allocation_failures(void **state)
{
	(void)state;
	test_alloc_failures(select_all, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_shapes),
		cmocka_unit_test(names_of_other_families),
		cmocka_unit_test(names_of_norms),
		cmocka_unit_test(what_points_are),
		cmocka_unit_test(other_configs),
		cmocka_unit_test(aliases),
		cmocka_unit_test(defaults),
		cmocka_unit_test(globs),
		cmocka_unit_test(unknown_patterns),
		cmocka_unit_test(intervention_points),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
