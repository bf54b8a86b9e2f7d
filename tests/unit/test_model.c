/*
 * test_model.c: model directories: what loads, what is refused and in which
 * words, and that weight processing leaves the model's function as it was. The
 * forward pass runs on the level of H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/config_private.h"
#include "support/cases.h"
#include "support/passes.h"
#include "support/runs.h"

#define GOLDEN "tests/golden/data/"
#define VALID "tests/unit/data/model/"

static const struct lens_model_options raw;
static const struct lens_model_options all = {
	.processing = { .fold_ln = true,
			.center_writing_weights = true,
			.center_unembed = true,
			.fold_value_biases = true },
};

/* --- what loads ---------------------------------------------------------------------- */

static void golden_models_open(void **state)
{
	static const char *const names[] = { "gpt2_bf16",    "gpt2_f16",      "gpt2_gelu",
					     "gpt2_relu",    "gpt2_gelu_new", "gpt2_sharded",
					     "gpt2_unscaled" };
	uint8_t seen[7][LENS_SHA256_BYTES];
	size_t i, j;

	(void)state;
	for (i = 0; i < 7; i++) {
		char *dir = lens_path_join(GOLDEN, names[i]);
		struct lens_model *m = test_open_model(dir, i % 2 ? &all : &raw);
		struct lens_config c;

		assert_int_equal(lens_config_load(dir, &c, NULL), LENS_OK);
		assert_memory_equal(&c.n_layers, &m->config.n_layers, 8 * sizeof(size_t));
		memcpy(seen[i], m->sha256, LENS_SHA256_BYTES);
		for (j = 0; j < i; j++)
			assert_memory_not_equal(seen[i], seen[j], LENS_SHA256_BYTES);
		lens_model_destroy(m);
		lens_free(dir);
	}
}

static void config_values(void **state)
{
	const struct lens_family *family;
	struct lens_layout layout;
	struct lens_config c;

	(void)state;
	assert_int_equal(lens_config_load(VALID "python-json", &c, NULL), LENS_OK);
	assert_int_equal(c.n_layers, 1);
	assert_int_equal(lens_config_load(VALID "plain", &c, NULL), LENS_OK);
	assert_string_equal(c.family, "gpt2");
	assert_string_equal(c.architecture, "GPT2LMHeadModel");
	assert_int_equal(c.n_layers, 1);
	assert_int_equal(c.d_model, 4);
	assert_int_equal(c.n_heads, 2);
	assert_int_equal(c.n_kv_heads, 2);
	assert_int_equal(c.d_head, 2);
	assert_int_equal(c.d_mlp, 8);
	assert_int_equal(c.d_vocab, 6);
	assert_int_equal(c.n_ctx, 4);
	assert_true(c.eps == 1e-5 && c.act == LENS_ACT_GELU_NEW && c.norm == LENS_NORM_LN);
	assert_int_equal(lens_config_read(VALID "plain", &c, &family, &layout, NULL, NULL),
			 LENS_OK);
	assert_true(layout.tied_head && c.scale_attn && !c.scale_attn_by_layer &&
		    c.learned_positions);
	assert_string_equal(lens_normalization_type(&c, true), "LNPre");
	assert_string_equal(lens_normalization_type(&c, false), "LN");
}

static void config_as_json(void **state)
{
	struct lens_config c;
	char *text;

	(void)state;
	assert_int_equal(lens_config_load(VALID "plain", &c, NULL), LENS_OK);
	assert_int_equal(lens_config_json(&c, &all.processing, &text, NULL), LENS_OK);
	assert_non_null(strstr(text, "\"d_model\": 4"));
	assert_non_null(strstr(text, "\"act_fn\": \"gelu_new\""));
	assert_non_null(strstr(text, "\"normalization_type\": \"LNPre\""));
	lens_free(text);
	assert_int_equal(lens_config_json(&c, &raw.processing, &text, NULL), LENS_OK);
	assert_non_null(strstr(text, "\"normalization_type\": \"LN\""));
	lens_free(text);
	/* The longest name of a function that there is, whole. */
	assert_int_equal(lens_config_load("tests/golden/data/gemma2", &c, NULL), LENS_OK);
	assert_int_equal(lens_config_json(&c, &all.processing, &text, NULL), LENS_OK);
	assert_non_null(strstr(text, "\"act_fn\": \"gelu_pytorch_tanh\""));
	lens_free(text);
}

/* No prefix, attn.bias, attn.masked_bias, a copy of the tied head: the same model. */
static void old_checkpoint(void **state)
{
	struct lens_model *a = test_open_model(VALID "plain", &all);
	struct lens_model *b = test_open_model(VALID "tied-copy", &all);
	const struct lens_config *c = &a->config;

	(void)state;
	test_assert_same(a->w_e, b->w_e, c->d_vocab * c->d_model, "w_e");
	test_assert_same(a->w_u, b->w_u, c->d_vocab * c->d_model, "w_u");
	test_assert_same(a->block->w_qkv, b->block->w_qkv, 3 * c->d_model * c->d_model,
			 "w_qkv");
	test_assert_same(a->block->w_out, b->block->w_out, c->d_model * c->d_mlp, "w_out");
	lens_model_destroy(a);
	lens_model_destroy(b);
}

static enum lens_status open_and_close(void *ctx)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;
	enum lens_status st = lens_model_open(ctx, &all, &m, &err);

	assert_true((st == LENS_OK) == (m != NULL));
	assert_int_equal(err.code, st);
	lens_model_destroy(m);
	return st;
}

static void allocation_failures(void **state)
{
	char plain[] = VALID "plain", sharded[] = GOLDEN "gpt2_sharded";

	(void)state;
	test_alloc_failures(open_and_close, plain);
	if (!test_quick())
		test_alloc_failures(open_and_close, sharded);
}

/* --- what processing leaves as it is ---------------------------------------------------- */

enum { N_TOKENS = 29 };

/* Logits of one prompt, [N_TOKENS, V]; less their mean over the vocabulary if centred. */
static float *logits(const struct lens_model *m, bool centred)
{
	int32_t tokens[N_TOKENS];
	const struct test_prompt prompt = { .tokens = tokens, .length = N_TOKENS };
	struct lens_batch b;
	struct test_record r;
	struct lens_visitor visitor;
	const struct test_pass pass = { .m = m, .b = &b, .visitor = &visitor, .n = 1 };
	size_t i, t, v = m->config.d_vocab;
	float *out = test_floats(N_TOKENS * v, 0);

	for (i = 0; i < N_TOKENS; i++)
		tokens[i] = (int32_t)(i * 37 % v);
	test_pack(&b, &prompt, 1);
	test_record_init(&r, m, &b, LENS_WANT_NOT);
	lens_hook_want(&r.hooks, LENS_HOOK_LOGITS, 0, LENS_WANT_ALL);
	visitor = test_record_visitor(&r);
	assert_int_equal(test_run_pass(&pass, NULL), LENS_OK);
	for (t = 0; t < N_TOKENS; t++)
		memcpy(out + t * v, test_recorded(&r, LENS_HOOK_LOGITS, 0, 0, t),
		       v * sizeof(*out));
	test_record_release(&r);
	lens_batch_release(&b);
	for (t = 0; centred && t < N_TOKENS; t++) {
		double mean = 0;

		for (i = 0; i < v; i++)
			mean += (double)out[t * v + i] / (double)v;
		for (i = 0; i < v; i++)
			out[t * v + i] = (float)((double)out[t * v + i] - mean);
	}
	return out;
}

/*
 * Each step alone, and all of them: the same logits but for a constant a
 * position (which center_unembed takes away, and nothing else does). 5e-6 of the
 * largest is float32's noise over a few layers; a wrong step shows from the
 * first digit on.
 */
static void processing_keeps_the_function(void **state)
{
	static const char *const models[] = { GOLDEN "gpt2_gelu_new", GOLDEN "gpt2_gelu",
					      GOLDEN "gpt2_unscaled" };
	size_t k, i, bits;

	(void)state;
	for (k = 0; k < 3; k++) {
		struct lens_model *plain = test_open_model(models[k], &raw);
		float *centred = logits(plain, true), *as_is = logits(plain, false);
		size_t n = N_TOKENS * plain->config.d_vocab;

		for (bits = 1; bits < 16; bits++) {
			const struct lens_model_options p = {
				.processing = { .fold_ln = bits & 1,
						.center_writing_weights = bits & 2,
						.center_unembed = bits & 4,
						.fold_value_biases = bits & 8 },
			};
			struct lens_model *m = test_open_model(models[k], &p);
			float *is = logits(m, false);
			double off = 0, most = 0;

			for (i = 0; i < n; i++) {
				double should = (double)(bits & 4 ? centred : as_is)[i];

				off = fmax(off, fabs((double)is[i] - should));
				most = fmax(most, fabs(should));
			}
			if (!(off < 5e-6 * most))
				fail_msg("%s, steps %zu: logits off by %g of %g", models[k],
					 bits, off, most);
			lens_free(is);
			lens_model_destroy(m);
		}
		lens_free(centred);
		lens_free(as_is);
		lens_model_destroy(plain);
	}
}

/* Largest |mean| over rows of width n (stride 1), or over columns. */
static double largest_mean(const float *x, size_t rows, size_t n, bool columns)
{
	size_t i, j, outer = columns ? n : rows, inner = columns ? rows : n;
	double most = 0;

	for (i = 0; i < outer; i++) {
		double sum = 0;

		for (j = 0; j < inner; j++)
			sum += (double)(columns ? x[j * n + i] : x[i * n + j]);
		most = fmax(most, fabs(sum / (double)inner));
	}
	return most;
}

#define CENTRED 1e-7 /* what rounding to float32 leaves of a mean of zero */

static void centred_weights(void **state)
{
	struct lens_model *m = test_open_model(GOLDEN "gpt2_gelu_new", &all);
	struct lens_model *plain = test_open_model(GOLDEN "gpt2_gelu_new", &raw);
	const struct lens_config *c = &m->config;
	size_t i, j, d = c->d_model, f = c->d_mlp, v = c->d_vocab;

	(void)state;
	assert_true(largest_mean(m->w_e, v, d, false) < CENTRED);
	assert_true(largest_mean(m->w_pos, c->n_ctx, d, false) < CENTRED);
	assert_true(largest_mean(m->w_u, v, d, true) < CENTRED);
	assert_true(largest_mean(m->w_u, v, d, false) < CENTRED); /* folded LayerNorm */
	assert_true(largest_mean(m->b_u, 1, v, false) < CENTRED);
	assert_null(m->ln_final_w);
	assert_null(m->ln_final_b);
	assert_true(largest_mean(plain->w_e, v, d, false) > 1e-4);
	assert_true(largest_mean(plain->block->w_o, d, d, false) > 1e-4);
	for (i = 0; i < c->n_layers; i++) {
		const struct lens_block *b = &m->block[i];

		assert_true(largest_mean(b->w_o, d, d, false) < CENTRED);
		assert_true(largest_mean(b->b_o, 1, d, false) < CENTRED);
		assert_true(largest_mean(b->w_out, f, d, false) < CENTRED);
		assert_true(largest_mean(b->b_out, 1, d, false) < CENTRED);
		assert_true(largest_mean(b->w_qkv, d, 3 * d, true) < CENTRED);
		assert_true(largest_mean(b->w_in, d, f, true) < CENTRED);
		assert_true(!b->ln1_w && !b->ln1_b && !b->ln2_w && !b->ln2_b);
		assert_true(plain->block[i].ln1_w && plain->block[i].ln2_b);
		for (j = 2 * d; j < 3 * d; j++) {
			assert_true(b->b_qkv[j] == 0);
			assert_true(plain->block[i].b_qkv[j] != 0);
		}
	}
	lens_model_destroy(m);
	lens_model_destroy(plain);
}

/* Scores are divided by √d_head, and by layer + 1 where config.json says so. */
static void attention_scales(void **state)
{
	struct lens_model *m = test_open_model(GOLDEN "gpt2_gelu_new", &raw);
	size_t i;

	(void)state;
	for (i = 0; i < m->config.n_layers; i++)
		assert_true(m->block[i].attn_scale == (float)sqrt((double)m->config.d_head));
	lens_model_destroy(m);
	m = test_open_model(GOLDEN "gpt2_unscaled", &raw);
	for (i = 0; i < m->config.n_layers; i++) {
		double scale = m->config.scale_attn ? sqrt((double)m->config.d_head) : 1;

		scale *= m->config.scale_attn_by_layer ? (double)(i + 1) : 1;
		assert_true(m->block[i].attn_scale == (float)scale);
	}
	lens_model_destroy(m);
}

/* --- what is refused -------------------------------------------------------------- */

static void open_case(const char *folder, struct lens_buf *told)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;
	char text[2200];

	if (lens_model_open(folder, &all, &m, &err) == LENS_OK) {
		lens_model_destroy(m);
		return; /* nothing told: the case fails */
	}
	assert_null(m);
	lens_error_format(&err, text, sizeof(text));
	assert_int_equal(lens_buf_append(told, text, strlen(text), NULL), LENS_OK);
}

static void invalid_directories(void **state)
{
	(void)state;
	test_run_cases("tests/invalid/model", open_case);
}

/* A directory of this process's own with one or two files, removed by release_dir. */
struct made {
	char dir[128], config[160], weights[160];
};

static void make_dir(struct made *d)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(d->dir, sizeof(d->dir), "%.90s/h5lens-model-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->config, sizeof(d->config), "%s/config.json", d->dir);
	snprintf(d->weights, sizeof(d->weights), "%s/model.safetensors", d->dir);
}

static void write_file(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void release_dir(struct made *d)
{
	unlink(d->config);
	unlink(d->weights);
	assert_int_equal(rmdir(d->dir), 0);
}

static void assert_refused(const char *dir, const char *file, const char *says)
{
	struct lens_buf told = LENS_BUF_INIT;

	open_case(dir, &told);
	if (!told.data || !strstr(told.data, file) || !strstr(told.data, says))
		fail_msg("expected %s and \"%s\", told: %s", file, says,
			 told.data ? told.data : "nothing");
	lens_buf_release(&told);
}

/* n times s, then what fits in after it. */
static struct lens_buf repeat(const char *before, const char *s, size_t n, const char *after)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t i;

	lens_buf_append(&b, before, strlen(before), NULL);
	for (i = 0; i < n; i++)
		lens_buf_append(&b, s, strlen(s), NULL);
	lens_buf_append(&b, after, strlen(after), NULL);
	return b;
}

#define DEEP 100000

/* Nesting must not become recursion: config.json and a safetensors header. */
static void nested_json(void **state)
{
	static const char *const opening[] = { "[", "{\"a\":" };
	static const char *const closing[] = { "]", "}" };
	struct lens_buf good = LENS_BUF_INIT;
	struct made d;
	size_t i, whole;

	(void)state;
	make_dir(&d);
	assert_int_equal(lens_file_read(VALID "plain/config.json", 65536, &good, NULL),
			 LENS_OK);
	for (i = 0; i < 2; i++) {
		for (whole = 0; whole < 2; whole++) {
			struct lens_buf b =
				repeat("{\"model_type\":\"gpt2\",\"x\":", opening[i], DEEP, "");
			struct lens_buf end =
				repeat("1", closing[i], whole ? DEEP : 0, whole ? "}" : "");
			unsigned char head[8] = { 0 };
			size_t n;

			lens_buf_append(&b, end.data, end.len, NULL);
			write_file(d.config, b.data, b.len);
			assert_refused(d.dir, "config.json", "not valid JSON");
			write_file(d.config, good.data, good.len);
			for (n = 0; n < 8; n++)
				head[n] = (unsigned char)(b.len >> 8 * n);
			lens_buf_release(&end);
			lens_buf_append(&end, head, 8, NULL);
			lens_buf_append(&end, b.data, b.len, NULL);
			write_file(d.weights, end.data, end.len);
			assert_refused(d.dir, "model.safetensors", "not valid JSON");
			lens_buf_release(&b);
			lens_buf_release(&end);
		}
	}
	lens_buf_release(&good);
	release_dir(&d);
}

/* A header that says it is larger than the format allows, in a file that has it. */
static void header_past_the_limit(void **state)
{
	const unsigned char head[8] = { 0, 0, 0, 0x10 }; /* 256 MiB */
	struct lens_buf good = LENS_BUF_INIT;
	struct made d;

	(void)state;
	make_dir(&d);
	assert_int_equal(lens_file_read(VALID "plain/config.json", 65536, &good, NULL),
			 LENS_OK);
	write_file(d.config, good.data, good.len);
	write_file(d.weights, head, 8);
	assert_int_equal(truncate(d.weights, (off_t)300 << 20), 0); /* sparse */
	assert_refused(d.dir, "model.safetensors", "header's length is wrong");
	lens_buf_release(&good);
	release_dir(&d);
}

static void config_too_large(void **state)
{
	struct made d;

	(void)state;
	make_dir(&d);
	write_file(d.config, "{}", 2);
	assert_int_equal(truncate(d.config, (off_t)1 << 40), 0); /* sparse */
	assert_refused(d.dir, "config.json", "larger than");
	release_dir(&d);
}

/* Directories and fifos in a file's place are told, not waited for. */
static void not_regular_files(void **state)
{
	struct lens_buf good = LENS_BUF_INIT;
	struct made d;

	(void)state;
	make_dir(&d);
	assert_refused(d.dir, d.dir, "it has no config.json");
	assert_int_equal(mkfifo(d.config, 0600), 0);
	assert_refused(d.dir, "config.json", "not a regular file");
	unlink(d.config);
	assert_int_equal(lens_file_read(VALID "plain/config.json", 65536, &good, NULL),
			 LENS_OK);
	write_file(d.config, good.data, good.len);
	assert_int_equal(mkfifo(d.weights, 0600), 0);
	assert_refused(d.dir, "model.safetensors", "not a regular file");
	lens_buf_release(&good);
	release_dir(&d);
	assert_refused("tests/invalid/none", "tests/invalid/none", "there is no such folder");
}

/* The config that a text is. */
static void load_text(const char *text, struct lens_config *c)
{
	struct lens_error err = LENS_ERROR_INIT;
	char told[2200];
	struct made d;

	make_dir(&d);
	write_file(d.config, text, strlen(text));
	if (lens_config_load(d.dir, c, &err) != LENS_OK) {
		lens_error_format(&err, told, sizeof(told));
		fail_msg("%s: %s", text, told);
	}
	release_dir(&d);
}

/* As transformers 5 writes Gemma 3's; a flat one is that of the layers without a window. */
static void rotary_of_each_kind(void **state)
{
	struct lens_config c;

	(void)state;
	load_text("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":"
		  "{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":900},"
		  "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":33}}}",
		  &c);
	assert_true(c.rotary.type == LENS_ROPE_LINEAR && c.rotary.factor == 8 &&
		    c.rotary.base == 900);
	assert_true(c.local_rotary.type == LENS_ROPE_DEFAULT && c.local_rotary.base == 33 &&
		    c.local_rotary.dim == c.rotary.dim);
	load_text("{\"model_type\":\"gemma3_text\",\"rope_theta\":900,\"rope_scaling\":"
		  "{\"rope_type\":\"linear\",\"factor\":8},\"rope_local_base_freq\":44}",
		  &c);
	assert_true(c.rotary.type == LENS_ROPE_LINEAR && c.rotary.base == 900);
	assert_true(c.local_rotary.type == LENS_ROPE_DEFAULT && c.local_rotary.base == 44);
}

/* Either name of a count. */
static void names_of_experts(void **state)
{
	struct lens_config c;

	(void)state;
	load_text("{\"model_type\":\"qwen3_moe\",\"num_local_experts\":17}", &c);
	assert_int_equal(c.n_experts, 17);
	load_text("{\"model_type\":\"qwen3_moe\",\"num_experts\":9,\"num_local_experts\":9}",
		  &c);
	assert_int_equal(c.n_experts, 9);
	load_text("{\"model_type\":\"qwen3_moe\",\"num_experts\":null}", &c);
	assert_int_equal(c.n_experts, 128);
	load_text("{\"model_type\":\"mixtral\",\"num_experts\":6}", &c);
	assert_int_equal(c.n_experts, 6);
}

#define SMOLLM3 "{\"model_type\":\"smollm3\",\"num_hidden_layers\":4,"
#define ONE_SLIDES                                                                             \
	"\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\","        \
	"\"full_attention\"]"

/* A window of null is none; SmolLM3's layer_types counts whatever use_sliding_window says. */
static void windows(void **state)
{
	static const char *const none[] = {
		"{\"model_type\":\"qwen2\",\"use_sliding_window\":true,\"sliding_window\":null}",
		"{\"model_type\":\"qwen3\",\"use_sliding_window\":true,\"sliding_window\":null,"
		"\"max_window_layers\":0}",
		"{\"model_type\":\"qwen3_moe\",\"use_sliding_window\":true,"
		"\"sliding_window\":null}",
		SMOLLM3 "\"use_sliding_window\":true,\"sliding_window\":null}",
		SMOLLM3 "\"use_sliding_window\":true}",
		SMOLLM3 "\"use_sliding_window\":false,\"sliding_window\":5}",
		SMOLLM3 "\"use_sliding_window\":false," ONE_SLIDES "}",
	};
	struct lens_config c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(none) / sizeof(*none); i++) {
		load_text(none[i], &c);
		if (c.window || memchr(c.local, true, c.n_layers))
			fail_msg("%s: a window of %zu", none[i], c.window);
	}
	load_text(SMOLLM3 "\"use_sliding_window\":false,\"sliding_window\":5," ONE_SLIDES "}",
		  &c);
	assert_int_equal(c.window, 5);
	assert_true(!c.local[0] && c.local[1] && !c.local[2] && !c.local[3]);
	load_text(SMOLLM3 "\"use_sliding_window\":true,\"sliding_window\":6}", &c);
	assert_int_equal(c.window, 6);
	assert_true(!c.local[0] && !c.local[1] && !c.local[2] && c.local[3]);
	load_text("{\"model_type\":\"qwen2\",\"use_sliding_window\":true}", &c);
	assert_true(c.window == 4096 && c.local[28] && !c.local[27]);
}

/* transformers' attribute_map: names that stand for GPT-2's. */
static void other_names_of_shapes(void **state)
{
	static const char *const types[] = { "gpt2", "gptj", "gpt_bigcode" };
	struct lens_config c;
	char text[256];
	size_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		snprintf(
			text, sizeof(text),
			"{\"model_type\":\"%s\",\"num_attention_heads\":4,\"hidden_size\":256,"
			"\"num_hidden_layers\":3,\"n_layer\":3,\"max_position_embeddings\":32}",
			types[i]);
		load_text(text, &c);
		assert_true(c.n_heads == 4 && c.d_model == 256 && c.n_layers == 3 &&
			    c.n_ctx == 32 && c.d_mlp == 1024);
	}
}

/* What transformers' config classes have where config.json has nothing. */
static void defaults(void **state)
{
	static const struct {
		const char *text;
		size_t n_ctx, d_vocab, d_mlp, n_kv_heads, d_head;
	} of[] = {
		{ "{\"model_type\":\"mistral\"}", 131072, 32000, 14336, 8, 128 },
		{ "{\"model_type\":\"mistral\",\"num_key_value_heads\":null}", 131072, 32000,
		  14336, 32, 128 },
		{ "{\"model_type\":\"qwen2\"}", 32768, 151936, 22016, 32, 128 },
		{ "{\"model_type\":\"qwen3\"}", 32768, 151936, 22016, 32, 128 },
		{ "{\"model_type\":\"gemma2\"}", 8192, 256000, 9216, 4, 256 },
		{ "{\"model_type\":\"gemma3_text\"}", 131072, 262208, 9216, 4, 256 },
		{ "{\"model_type\":\"llama\"}", 2048, 32000, 11008, 32, 128 },
		{ "{\"model_type\":\"phi\"}", 2048, 51200, 8192, 32, 64 },
		{ "{\"model_type\":\"phi\",\"head_dim\":96}", 2048, 51200, 8192, 32, 96 },
		{ "{\"model_type\":\"starcoder2\",\"head_dim\":96}", 4096, 49152, 12288, 2,
		  96 },
	};
	struct lens_config c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(of) / sizeof(*of); i++) {
		load_text(of[i].text, &c);
		if (c.n_ctx != of[i].n_ctx || c.d_vocab != of[i].d_vocab ||
		    c.d_mlp != of[i].d_mlp || c.n_kv_heads != of[i].n_kv_heads ||
		    c.d_head != of[i].d_head)
			fail_msg("%s: n_ctx %zu, d_vocab %zu, d_mlp %zu, n_kv_heads %zu, "
				 "d_head %zu",
				 of[i].text, c.n_ctx, c.d_vocab, c.d_mlp, c.n_kv_heads,
				 c.d_head);
	}
}

#define PHI3                                                                                   \
	"{\"model_type\":\"phi3\",\"hidden_size\":8,\"num_attention_heads\":2,"                \
	"\"max_position_embeddings\":64,"
#define LONGROPE "\"rope_scaling\":{\"rope_type\":\"longrope\",\"short_factor\":[1,1]"

/* The original length stands in the config or in the scaling; factor may repeat the ratio. */
static void original_length(void **state)
{
	static const struct {
		const char *text;
		size_t n_ctx;
		double attention; /* the square of attention_factor, less 1 */
	} of[] = {
		{ PHI3 "\"original_max_position_embeddings\":16," LONGROPE "}}", 16, 0.5 },
		{ PHI3 LONGROPE ",\"original_max_position_embeddings\":16}}", 16, 0.5 },
		{ PHI3 LONGROPE ",\"original_max_position_embeddings\":16,\"factor\":4}}", 16,
		  0.5 },
		{ PHI3 LONGROPE ",\"original_max_position_embeddings\":64,\"factor\":8}}", 64,
		  0.5 },
		{ PHI3 LONGROPE ",\"factor\":8}}", 64, 0.5 },
		{ PHI3 LONGROPE ",\"original_max_position_embeddings\":16,\"factor\":7,"
				"\"attention_factor\":2}}",
		  16, 3 },
	};
	struct lens_config c;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(of) / sizeof(*of); i++) {
		double squared;

		load_text(of[i].text, &c);
		squared = c.rotary.attention_factor * c.rotary.attention_factor - 1;
		if (c.n_ctx != of[i].n_ctx || fabs(squared - of[i].attention) > 1e-12)
			fail_msg("%s: n_ctx %zu, attention_factor² − 1 %g", of[i].text, c.n_ctx,
				 squared);
	}
}

/* Every byte of the header changed, every length of the file: told or loaded, no more. */
static void damaged_bytes(void **state)
{
	struct lens_buf config = LENS_BUF_INIT, good = LENS_BUF_INIT;
	size_t i, step = test_quick() ? 97 : 3, refused = 0;
	struct lens_error err;
	struct lens_model *m;
	struct made d;

	(void)state;
	make_dir(&d);
	assert_int_equal(lens_file_read(VALID "plain/config.json", 65536, &config, NULL),
			 LENS_OK);
	assert_int_equal(lens_file_read(VALID "plain/model.safetensors", 65536, &good, NULL),
			 LENS_OK);
	write_file(d.config, config.data, config.len);
	for (i = 0; i < good.len; i += step) {
		char was = good.data[i];

		err = (struct lens_error)LENS_ERROR_INIT;
		good.data[i] = (char)(was + 1 + (int)(i % 255));
		write_file(d.weights, good.data, i % 2 ? good.len : i + 1);
		good.data[i] = was;
		refused += lens_model_open(d.dir, &raw, &m, &err) != LENS_OK;
		assert_true(m ? err.code == LENS_OK : strstr(err.file, d.dir) != NULL);
		lens_model_destroy(m);
	}
	assert_true(refused > good.len / step / 2);
	lens_buf_release(&config);
	lens_buf_release(&good);
	release_dir(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_models_open),
		cmocka_unit_test(config_values),
		cmocka_unit_test(config_as_json),
		cmocka_unit_test(old_checkpoint),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(processing_keeps_the_function),
		cmocka_unit_test(centred_weights),
		cmocka_unit_test(attention_scales),
		cmocka_unit_test(invalid_directories),
		cmocka_unit_test(nested_json),
		cmocka_unit_test(header_past_the_limit),
		cmocka_unit_test(config_too_large),
		cmocka_unit_test(not_regular_files),
		cmocka_unit_test(rotary_of_each_kind),
		cmocka_unit_test(names_of_experts),
		cmocka_unit_test(windows),
		cmocka_unit_test(other_names_of_shapes),
		cmocka_unit_test(defaults),
		cmocka_unit_test(original_length),
		cmocka_unit_test(damaged_bytes),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
