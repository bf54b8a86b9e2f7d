/*
 * test_limits.c: absurd sizes in what strangers wrote, where tests/invalid has no
 * file so large: each is refused, or done, in bounded memory and at once. Also
 * where links in a model's folder may lead.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/dataset.h"
#include "h5lens/experiment.h"
#include "h5lens/model.h"
#include "h5lens/pipeline.h"
#include "support/cases.h"
#include "support/tokens.h"

#define VALID "tests/unit/data/model/"
#define DEEP 100000

static struct lens_error err;
static char dir[128]; /* this test's own */

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(dir, sizeof(dir), "%.90s/h5lens-limits-XXXXXX", tmp ? tmp : "/tmp");
	err = (struct lens_error)LENS_ERROR_INIT;
	return mkdtemp(dir) == NULL;
}

/* What the tests made, deepest first. */
static int tear_down(void **state)
{
	static const char *const made[] = { "out.shards/plan.json",
					    "out.shards/a-1.run",
					    "out.shards/b-1.run",
					    "snapshots/main/config.json",
					    "snapshots/main/model.safetensors",
					    "snapshots/main",
					    "snapshots",
					    "blobs/config",
					    "blobs/weights",
					    "blobs",
					    "out.shards",
					    "in.csv",
					    "config.json",
					    "model.safetensors.index.json",
					    "pytorch_model.bin.index.json" };
	char path[256];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(made) / sizeof(*made); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, made[i]);
		remove(path);
	}
	return rmdir(dir);
}

static const char *at(const char *name)
{
	static char path[2][256];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static void spit(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(at(name), "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void copy(const char *from, const char *name)
{
	struct lens_buf b = LENS_BUF_INIT;

	assert_int_equal(lens_file_read(from, 1 << 20, &b, NULL), LENS_OK);
	spit(name, b.data, b.len);
	lens_buf_release(&b);
}

static struct lens_buf repeat(const char *before, const char *s, size_t n, const char *after)
{
	struct lens_buf b = LENS_BUF_INIT;

	lens_buf_append(&b, before, strlen(before), NULL);
	while (n--)
		lens_buf_append(&b, s, strlen(s), NULL);
	lens_buf_append(&b, after, strlen(after), NULL);
	return b;
}

static void assert_says(enum lens_status want, enum lens_status st, const char *says)
{
	assert_int_equal(st, want);
	assert_int_equal(err.code, want);
	if (!strstr(err.text, says))
		fail_msg("expected \"%s\", got \"%s\"", says, err.text);
	err = (struct lens_error)LENS_ERROR_INIT;
}

/* --- models ----------------------------------------------------------------------- */

static enum lens_status open_model(const char *where)
{
	const struct lens_model_options p = { .processing = { .fold_ln = true } };
	struct lens_model *m = NULL;
	enum lens_status st = lens_model_open(where, &p, &m, &err);

	lens_model_destroy(m);
	return st;
}

static void test_deep_index(void **state)
{
	static const char *const name[] = { "pytorch_model.bin.index.json",
					    "model.safetensors.index.json" };
	struct lens_buf b = repeat("{\"weight_map\":", "{\"a\":", DEEP, "");
	size_t i;

	(void)state;
	copy(VALID "plain/config.json", "config.json");
	for (i = 0; i < 2; i++) {
		spit(name[i], b.data, b.len);
		assert_says(LENS_ERR_FORMAT, open_model(dir), "not valid JSON");
		unlink(at(name[i]));
	}
	lens_buf_release(&b);
}

/*
 * The files of a model may be links that lead out of its folder: so are all of
 * them in Hugging Face's cache (snapshots/REVISION/FILE -> ../../blobs/HASH). An
 * index may not name what is not in the folder: tests/invalid/model/index-*.
 */
static void test_links(void **state)
{
	(void)state;
	assert_int_equal(mkdir(at("blobs"), 0700), 0);
	assert_int_equal(mkdir(at("snapshots"), 0700), 0);
	assert_int_equal(mkdir(at("snapshots/main"), 0700), 0);
	copy(VALID "plain/config.json", "blobs/config");
	copy(VALID "plain/model.safetensors", "blobs/weights");
	assert_int_equal(symlink("../../blobs/config", at("snapshots/main/config.json")), 0);
	assert_int_equal(symlink("../../blobs/weights", at("snapshots/main/model.safetensors")),
			 0);
	assert_int_equal(open_model(at("snapshots/main")), LENS_OK);
	unlink(at("snapshots/main/model.safetensors"));
	assert_int_equal(symlink("model.safetensors", at("snapshots/main/model.safetensors")),
			 0);
	assert_int_equal(open_model(at("snapshots/main")), LENS_ERR_IO); /* a loop */
}

/* --- tokenizers -------------------------------------------------------------------- */

#define CHARACTERS(vocab, merges)                                                              \
	"{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "},"             \
	"\"decoder\":{\"type\":\"Fuse\"}}"

/* Merges that give what they take, and one that is listed a hundred thousand times. */
static void test_merges(void **state)
{
	struct lens_buf json =
		repeat("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"
		       "\"merges\":[\"a b\"",
		       ",\"a b\"", DEEP, "]},\"decoder\":{\"type\":\"Fuse\"}}");

	(void)state;
	test_check_ids(CHARACTERS("{\"\":0,\"a\":1,\"aa\":2}",
				  "[[\"\",\"a\"],[\"a\",\"\"],[\"a\",\"a\"],[\"\",\"\"]]"),
		       "aaaaa", "2 2 1");
	test_check_ids(json.data, "abab", "2 2");
	lens_buf_release(&json);
}

/* --- prompts ----------------------------------------------------------------------- */

static enum lens_status load_csv(struct lens_dataset_report *report)
{
	struct lens_tokenizer *tok = test_open_tokenizer("tests/unit/data/tok_tiny");
	struct lens_dataset_options opt = { .csv = at("in.csv"),
					    .separator = ',',
					    .prompt_column = "prompt",
					    .read_pos = -1,
					    .n_ctx = 64,
					    .d_vocab = 1000,
					    .tokenizer = tok };
	struct lens_prompts *p;
	enum lens_status st = lens_prompts_load(&opt, &p, report, &err);

	lens_prompts_destroy(p);
	lens_tokenizer_destroy(tok);
	return st;
}

/* A sparse file: zeros after the quote. */
static void test_gigabyte_field(void **state)
{
	static const char head[] = "prompt\n\"";
	struct lens_dataset_report report;

	(void)state;
	spit("in.csv", head, sizeof(head) - 1);
	assert_int_equal(truncate(at("in.csv"), (off_t)1 << 30), 0);
	assert_says(LENS_ERR_FORMAT, load_csv(&report), "longer than 16 MiB");
}

static void test_million_columns(void **state)
{
	struct lens_buf header = repeat("prompt", ",c", 999999, "\nabc\n");
	struct lens_buf row = repeat("prompt\nabc", ",", 999999, "\n");
	struct lens_dataset_report report;

	(void)state;
	spit("in.csv", header.data, header.len);
	assert_says(LENS_ERR_FORMAT, load_csv(&report), "1000000 columns; at most 16384");
	spit("in.csv", row.data, row.len);
	assert_says(LENS_ERR_FORMAT, load_csv(&report), "1000000 fields; the header has 1");
	lens_buf_release(&header);
	lens_buf_release(&row);
}

/* --- experiments -------------------------------------------------------------------- */

/* "Billion laughs": 9^10 strings, were an alias what it stands for. */
static void test_aliases(void **state)
{
	struct lens_buf yaml = LENS_BUF_INIT;
	struct lens_experiment e;
	char *path;
	int i, k;

	(void)state;
	lens_buf_printf(&yaml, NULL, "data:\n  answers:\n  - &a0 [lol]\n");
	for (i = 1; i < 11; i++) {
		lens_buf_printf(&yaml, NULL, "  - &a%d [", i);
		for (k = 0; k < 9; k++)
			lens_buf_printf(&yaml, NULL, "%s*a%d", k ? "," : "", i - 1);
		lens_buf_printf(&yaml, NULL, "]\n");
	}
	path = test_write_file("laughs.yaml", yaml.data, yaml.len);
	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	assert_says(LENS_ERR_FORMAT, lens_experiment_load(&e, path, &err),
		    "data.answers: expected");
	lens_experiment_release(&e);
	unlink(path);
	lens_free(path);
	lens_buf_release(&yaml);
}

/* --- sweeps --------------------------------------------------------------------------- */

static void count_run(void *ctx, const struct lens_running *r)
{
	*(size_t *)ctx += r->pid > 0;
}

static void test_deep_plan(void **state)
{
	struct lens_buf plan = repeat("{\"first\":", "[", DEEP, ""),
			run = repeat("{\"host\":", "[", 400, "");
	struct lens_sweep_status s;
	size_t runs = 0;

	(void)state;
	assert_int_equal(mkdir(at("out.shards"), 0700), 0);
	spit("out.shards/plan.json", plan.data, plan.len);
	assert_says(LENS_ERR_FORMAT, lens_sweep_status_read(at("out.h5"), &s, NULL, NULL, &err),
		    "not valid JSON");
	unlink(at("out.shards/plan.json"));
	spit("out.shards/a-1.run", run.data, run.len);
	assert_int_equal(mkfifo(at("out.shards/b-1.run"), 0600), 0);
	assert_int_equal(lens_sweep_status_read(at("out.h5"), &s, count_run, &runs, &err),
			 LENS_OK);
	assert_int_equal(runs, 0);
	lens_sweep_status_release(&s);
	lens_buf_release(&plan);
	lens_buf_release(&run);
}

/* Runs that say of themselves what cannot be. */
static void test_absurd_runs(void **state)
{
	static const char *const absurd[] = { "\"shard\":0", /* is not */
					      "\"pid\":0",        "\"pid\":4294967297",
					      "\"n_tasks\":0",    "\"task\":3",
					      "\"task\":-1",      "\"rows_done\":10",
					      "\"rows_kept\":5",  "\"rows_done\":-1",
					      "\"seconds\":-1.0", "\"tokens_done\":-1" };
	struct lens_sweep_status s;
	size_t i, runs;

	(void)state;
	assert_int_equal(mkdir(at("out.shards"), 0700), 0);
	for (i = 0; i < sizeof(absurd) / sizeof(*absurd); i++) {
		char text[512];
		int n = snprintf(text, sizeof(text),
				 "{\"host\":\"h\",\"pid\":1,\"task\":0,\"n_tasks\":3,"
				 "\"rows_total\":9,\"rows_kept\":0,\"rows_done\":4,"
				 "\"seconds\":1.0,%s}",
				 absurd[i]);

		spit("out.shards/a-1.run", text, (size_t)n);
		runs = 0;
		assert_int_equal(lens_sweep_status_read(at("out.h5"), &s, count_run, &runs,
							&err),
				 LENS_OK);
		assert_int_equal(runs, i == 0);
		lens_sweep_status_release(&s);
	}
}

int main(void)
{
#define LIMIT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		LIMIT(test_deep_index),     LIMIT(test_links),           LIMIT(test_merges),
		LIMIT(test_gigabyte_field), LIMIT(test_million_columns), LIMIT(test_aliases),
		LIMIT(test_deep_plan),      LIMIT(test_absurd_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
