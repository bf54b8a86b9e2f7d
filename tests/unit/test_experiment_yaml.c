/*
 * test_experiment_yaml.c: YAML files: every key in one, paths relative to it, the
 * forms that YAML allows, and hostile files. Bad files are in tests/invalid/yaml.
 */
#include "h5lens/experiment.h"
#include "support/cases.h"
#include "support/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char every_key[] =
	"# an experiment\n"
	"model: /models/gpt2\n"
	"weights: {fold_ln: false, center_writing_weights: no, center_unembed: Off,\n"
	"          fold_value_biases: FALSE, refactor_factored_attn_matrices: yes}\n"
	"data:\n"
	"  csv: /data/ioi.csv\n"
	"  prompt: \"text\"\n"
	"  answers: [correct, 'the other']\n"
	"  prepend_bos: false\n"
	"  read_pos: at\n"
	"  on_bad_row: skip\n"
	"  limit: 100\n"
	"  corrupted: other\n"
	"cache:\n"
	"  hooks: [\"*.hook_z\", blocks.0.hook_resid_pre]\n"
	"  positions: [0, -2]\n"
	"  dtype: f16\n"
	"tables:\n"
	"  - top_tokens\n"
	"  - logit_diff\n"
	"top_k: 5\n"
	"lens: cached_scale_no_bias\n"
	"patch: {grids: [resid_pre, mlp_out], direction: noise, metric: kl_divergence,\n"
	"        normalize: yes, reuse: no, layers: [1], heads: [0.1], positions: [-1]}\n"
	"ablate: {grids: [attn_head_out_all_pos], value: resample, resample: third,\n"
	"         heads: [1.0], sets: {both: [0.1, 1.0]}}\n"
	"path: {receivers: [9.9.q, 8.6.v], senders: [0.1]}\n"
	"knockout: {from: {find: \" Mary\", nth: -1}, to: [-1], layers: [1], heads: [1.0]}\n"
	"steer: {vector: /v.h5:/a, hook: z, layer: 1, scale: [-4, 0.5], positions: [0]}\n"
	"share_prefixes: no\n"
	"cpu: avx512\n"
	"output: /out/ioi.h5\n"
	"threads: 4\n"
	"memory: 4GiB\n";

static void assert_data(void)
{
	assert_string_equal(test_e.data.csv, "/data/ioi.csv");
	assert_string_equal(test_e.data.prompt, "text");
	ASSERT_STRINGS(&test_e.data.answers, "correct", "the other");
	assert_false(test_e.data.prepend_bos);
	assert_string_equal(test_e.data.read_pos_column, "at");
	assert_true(test_e.data.skip_bad_rows);
	assert_int_equal(test_e.data.limit, 100);
	assert_string_equal(test_e.data.corrupted, "other");
}

static void assert_cache_and_tables(void)
{
	ASSERT_STRINGS(&test_e.cache.hooks, "*.hook_z", "blocks.0.hook_resid_pre");
	assert_int_equal(test_e.cache.positions, LENS_POS_LIST);
	assert_int_equal(test_e.cache.n_positions, 2);
	assert_int_equal(test_e.cache.position[0], 0);
	assert_int_equal(test_e.cache.position[1], -2);
	assert_int_equal(test_e.cache.dtype, LENS_CACHE_F16);
	ASSERT_STRINGS(&test_e.tables, "logit_diff", "top_tokens");
	assert_true(test_e.tables_listed);
	assert_int_equal(test_e.top_k, 5);
	assert_int_equal(test_e.lens, LENS_LENS_CACHED_SCALE_NO_BIAS);
}

static void assert_patch_and_ablate(void)
{
	ASSERT_STRINGS(&test_e.patch.grids, "resid_pre", "mlp_out");
	assert_int_equal(test_e.patch.direction, LENS_NOISE);
	assert_int_equal(test_e.patch.metric, LENS_METRIC_KL_DIVERGENCE);
	assert_true(test_e.patch.normalize && !test_e.patch.reuse);
	assert_int_equal(test_e.patch.layer[0], 1);
	ASSERT_STRINGS(&test_e.patch.heads, "0.1");
	assert_int_equal(test_e.patch.position[0], -1);
	ASSERT_STRINGS(&test_e.ablate.grids, "attn_head_out_all_pos");
	assert_int_equal(test_e.ablate.value, LENS_ABLATE_RESAMPLE);
	assert_string_equal(test_e.ablate.resample, "third");
	ASSERT_STRINGS(&test_e.ablate.heads, "1.0");
	ASSERT_STRINGS(&test_e.ablate.set[0].heads, "0.1", "1.0");
}

static void assert_other_interventions(void)
{
	ASSERT_STRINGS(&test_e.path.receivers, "9.9.q", "8.6.v");
	ASSERT_STRINGS(&test_e.path.senders, "0.1");
	assert_string_equal(test_e.knockout.from.find, " Mary");
	assert_int_equal(test_e.knockout.from.nth, -1);
	assert_int_equal(test_e.knockout.to.n, 1);
	assert_int_equal(test_e.knockout.to.position[0], -1);
	assert_int_equal(test_e.knockout.layer[0], 1);
	ASSERT_STRINGS(&test_e.knockout.heads, "1.0");
	assert_string_equal(test_e.steer.vector, "/v.h5:/a");
	assert_int_equal(test_e.steer.hook, LENS_STEER_Z);
	assert_int_equal(test_e.steer.layer, 1);
	assert_int_equal(test_e.steer.n_scales, 2);
	assert_true(test_e.steer.scale[0] == -4 && test_e.steer.scale[1] == 0.5);
	assert_int_equal(test_e.steer.positions.position[0], 0);
	assert_false(test_e.share_prefixes);
}

static void test_every_key_in_a_file(void **state)
{
	(void)state;
	test_settings_load(&test_e, every_key);
	assert_data();
	assert_cache_and_tables();
	assert_patch_and_ablate();
	assert_other_interventions();
	assert_string_equal(test_e.model, "/models/gpt2");
	assert_false(test_e.weights.fold_ln || test_e.weights.center_writing_weights ||
		     test_e.weights.center_unembed || test_e.weights.fold_value_biases);
	assert_true(test_e.weights.refactor_factored_attn_matrices);
	assert_int_equal(test_e.cpu, LENS_CPU_AVX512);
	assert_string_equal(test_e.output, "/out/ioi.h5");
	assert_int_equal(test_e.threads, 4);
	assert_int_equal(test_e.memory, (size_t)4 << 30);
	assert_int_equal(lens_experiment_check(&test_e, &test_err), LENS_OK);
}

static void test_relative_paths(void **state)
{
	const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	char *want;

	(void)state;
	test_settings_load(&test_e, "model: m\ndata: {csv: ../d.csv}\noutput: /abs/o.h5\n");
	want = lens_path_join(tmp, "m");
	assert_string_equal(test_e.model, want);
	lens_free(want);
	want = lens_path_join(tmp, "../d.csv");
	assert_string_equal(test_e.data.csv, want);
	lens_free(want);
	assert_string_equal(test_e.output, "/abs/o.h5");
	test_settings_set(&test_e, "data.csv", "d.csv");
	assert_string_equal(test_e.data.csv, "d.csv");
}

static void test_file_in_the_current_folder(void **state)
{
	char cwd[4096], *path = test_write_file("here.yaml", "model: m\n", 9), *slash;

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	slash = strrchr(path, '/');
	*slash = '\0';
	assert_int_equal(chdir(path), 0);
	assert_int_equal(lens_experiment_load(&test_e, slash + 1, &test_err), LENS_OK);
	unlink(slash + 1);
	assert_int_equal(chdir(cwd), 0);
	assert_string_equal(test_e.model, "m");
	lens_free(path);
}

static void test_yaml_forms(void **state)
{
	(void)state;
	test_settings_load(&test_e,
			   "\xef\xbb\xbf# BOM\r\nmodel: /m\r\ndata:\r\n  answers: one\r\n");
	assert_string_equal(test_e.model, "/m");
	ASSERT_STRINGS(&test_e.data.answers, "one");
	test_settings_load(&test_e, "%YAML 1.1\n---\nmodel: !!str /n\n...\n");
	assert_string_equal(test_e.model, "/n");
	test_settings_load(&test_e,
			   "data: {prompt: &p text, answers: [*p, *p]}\n"); /* aliases work */
	ASSERT_STRINGS(&test_e.data.answers, "text", "text");
	test_settings_load(&test_e, "data:\n  prompt: >-\n    folded\n    name\n");
	assert_string_equal(test_e.data.prompt, "folded name");
	test_settings_load(&test_e, "data:\n  prompt: |-\n    two\n    lines\n");
	assert_string_equal(test_e.data.prompt, "two\nlines");
	test_settings_load(&test_e, "data: {read_pos: \"7\"}\n");
	assert_string_equal(test_e.data.read_pos_column, "7");
	test_settings_load(&test_e, "weights: raw\n");
	assert_false(test_e.weights.fold_ln);
	test_settings_load(
		&test_e,
		"{\"model\": \"/json\", \"cache\": {\"hooks\": [], \"positions\": [0]}}");
	assert_string_equal(test_e.model, "/json");
	assert_int_equal(test_e.cache.hooks.n, 0);
	test_settings_load(&test_e, "cache: {hooks: none}\n");
}

/* --- memory --------------------------------------------------------------------- */

static enum lens_status everything(void *ctx)
{
	struct lens_experiment x;
	char *text = NULL;
	enum lens_status st = lens_experiment_init(&x, NULL);

	if (st == LENS_OK)
		st = lens_experiment_load(&x, ctx, NULL);
	if (st == LENS_OK)
		st = lens_experiment_set(&x, "cache.hooks", "a,b", NULL);
	if (st == LENS_OK)
		st = lens_experiment_set(&x, "data.read_pos", "col", NULL);
	if (st == LENS_OK)
		st = lens_experiment_set(&x, "data.read_pos", "{find: a}", NULL);
	if (st == LENS_OK)
		st = lens_experiment_json(&x, false, &text, NULL);
	lens_free(text);
	lens_experiment_release(&x); /* also right after a failed init */
	return st;
}

static void test_alloc(void **state)
{
	const char *yaml = "model: m\noutput: o.h5\ndata: {csv: d, answers: [a, b], read_pos: "
			   "{find_column: c}}\n"
			   "cache: {hooks: [x, y], positions: [1, 2]}\ntables: [top_tokens]\n"
			   "ablate: {grids: [mlp_out], value: resample, resample: r,\n"
			   "         sets: {a: [0.1, 0.2], b: [1.0]}}\n"
			   "patch: {layers: [1, 0], heads: [0.1, 1.0]}\n";
	char *path = test_write_file("alloc.yaml", yaml, strlen(yaml));

	(void)state;
	test_alloc_failures(everything, path);
	unlink(path);
	lens_free(path);
}

/* --- hostile files --------------------------------------------------------------- */

static void load_repeated(const char *head, const char *unit, size_t n, const char *text)
{
	struct lens_buf yaml = LENS_BUF_INIT;
	char *path;

	lens_buf_append(&yaml, head, strlen(head), NULL);
	while (n--)
		lens_buf_append(&yaml, unit, strlen(unit), NULL);
	path = test_write_file("hostile.yaml", yaml.data, yaml.len);
	test_err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_experiment_load(&test_e, path, &test_err), LENS_ERR_FORMAT);
	if (!strstr(test_err.text, text))
		fail_msg("expected \"%s\", got \"%s\"", text, test_err.text);
	unlink(path);
	lens_free(path);
	lens_buf_release(&yaml);
}

static void test_hostile(void **state)
{
	(void)state;
	load_repeated("model: x\n#", "0123456789abcdef", 20000, "larger than");
	load_repeated("data: ", "[", 100000, "brackets nested more than 100 deep");
	load_repeated("data: ", "{a: ", 60000, "brackets nested more than 100 deep");
	load_repeated("data:\n  ", "- ", 100000, "");
	load_repeated("", "? ", 100000, "");
	load_repeated("x: ", "&a ", 80000, "");
	load_repeated("", "a: b\n", 40000, "unknown key 'a'");
	load_repeated("data: &d\n  answers: [a, ", "*d, ", 50000, "");
}

/* --- tests/invalid/yaml ------------------------------------------------------------ */

static void tell(const char *folder, struct lens_buf *told)
{
	char *path = lens_path_join(folder, "input.yaml"), text[2200];
	struct lens_experiment x;

	test_err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_experiment_init(&x, &test_err), LENS_OK);
	assert_int_equal(lens_experiment_load(&x, path, &test_err), LENS_ERR_FORMAT);
	lens_buf_printf(told, NULL, "%s\n", lens_error_format(&test_err, text, sizeof(text)));
	assert_string_equal(x.source, "");
	lens_experiment_release(&x);
	lens_free(path);
}

static void test_invalid(void **state)
{
	(void)state;
	test_run_cases("tests/invalid/yaml", tell);
	assert_int_equal(lens_experiment_load(&test_e, "tests/none.yaml", NULL), LENS_ERR_IO);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_settings_setup, test_settings_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_every_key_in_a_file),
		T(test_relative_paths),
		T(test_file_in_the_current_folder),
		T(test_yaml_forms),
		T(test_alloc),
		T(test_hostile),
		T(test_invalid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
