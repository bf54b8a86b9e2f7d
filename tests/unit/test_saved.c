/*
 * unit/test_saved.c: the folders that transformers 4.56 and 5 save of each of our
 * families and their tokenizers (scripts/make_saved_folders.py left them in
 * data/saved): every one is read, with the ids, the BOS and the logits that the
 * version which saved it gives; or the tokenizer is refused as the folder says. On
 * the level of H5LENS_TEST_CPU.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/pipeline.h"
#include "support/passes.h"
#include "support/runs.h"
#include "support/tokens.h"

#define DATA "tests/unit/data/saved"

enum { MAX_STRINGS = 256, MAX_PROMPT = 32, N_PROMPTS = 8, N_COLUMNS = 8, N_VERSIONS = 2 };
static const char *const versions[N_VERSIONS] = { "tf4", "tf5" };

/* What stands in a folder's `expected`. */
struct expected {
	char rules[64], bos[16];
	uint32_t digest[MAX_STRINGS];
	size_t n_digests;
	double rms, max;           /* of the library's own float32 logits */
	int32_t column[N_COLUMNS]; /* of the logits */
	int32_t prompt[N_PROMPTS][MAX_PROMPT];
	size_t length[N_PROMPTS], n_prompts, n_columns, n_positions;
};

/* Errors beside float64 over all folders: theirs in float32, and ours. */
struct errors {
	double theirs, their_max, ours, our_max;
	size_t n;
};

/* Returns how many there are. */
static size_t read_ids(const char *s, int32_t *ids, size_t most)
{
	size_t n = 0;
	char *end;

	for (;; s = end) {
		long id = strtol(s, &end, 10);

		if (end == s)
			return n;
		assert_true(n < most);
		ids[n++] = (int32_t)id;
	}
}

static void read_prompt(struct expected *x, const char *s)
{
	size_t i = x->n_prompts++;

	assert_true(i < N_PROMPTS);
	x->length[i] = read_ids(s, x->prompt[i], MAX_PROMPT);
	x->n_positions += x->length[i];
}

static void read_digests(struct expected *x, const char *s)
{
	char *end;

	for (; x->n_digests < MAX_STRINGS; s = end) {
		unsigned long d = strtoul(s, &end, 16);

		if (end == s)
			break;
		x->digest[x->n_digests++] = (uint32_t)d;
	}
}

static void read_expected(const char *dir, struct expected *x)
{
	char *path = lens_path_join(dir, "expected"), *line = NULL;
	FILE *f = test_open_data(path);
	size_t cap = 0;

	memset(x, 0, sizeof(*x));
	while (getline(&line, &cap, f) > 0) {
		if (!strncmp(line, "ids ", 4))
			read_digests(x, line + 4);
		else if (!strncmp(line, "prompt ", 7))
			read_prompt(x, line + 7);
		else if (!strncmp(line, "columns ", 8))
			x->n_columns = read_ids(line + 8, x->column, N_COLUMNS);
		else if (!strncmp(line, "error ", 6))
			assert_int_equal(sscanf(line, "error %lf %lf", &x->rms, &x->max), 2);
		else if (!strncmp(line, "bos ", 4))
			assert_int_equal(sscanf(line, "bos %15s", x->bos), 1);
		else
			assert_int_equal(sscanf(line, "rules %63s", x->rules), 1);
	}
	free(line);
	fclose(f);
	lens_free(path);
	assert_true(x->n_prompts == N_PROMPTS && x->n_columns == N_COLUMNS);
	assert_true(x->n_digests > 100);
}

/* --- tokens ---------------------------------------------------------------------------- */

static size_t wrong_ids(const struct lens_tokenizer *tok, const struct expected *x,
			const char *dir)
{
	FILE *f = test_open_data(DATA "/strings.txt");
	struct lens_ids ids = LENS_IDS_INIT;
	size_t cap = 0, n, bad = 0;
	char *line = NULL;
	ssize_t len;

	for (n = 0; (len = getline(&line, &cap, f)) > 0; n++) {
		size_t bytes = test_unescape(line, (size_t)len - 1);

		assert_true(n < x->n_digests);
		test_encode(tok, line, bytes, &ids);
		if (test_ids_digest(&ids) == x->digest[n])
			continue;
		if (bad++ < 3)
			print_error("%s: other ids for |%.*s|\n", dir, (int)bytes, line);
	}
	assert_int_equal(n, x->n_digests);
	lens_ids_release(&ids);
	free(line);
	fclose(f);
	return bad;
}

static size_t wrong_bos(const struct lens_tokenizer *tok, const struct expected *x,
			const char *dir)
{
	int32_t bos = -1;

	assert_int_equal(lens_tokenizer_bos(tok, &bos, NULL), LENS_OK);
	if (!strcmp(x->bos, "-") || atoi(x->bos) == bos)
		return 0;
	print_error("%s: BOS is %d, TransformerLens's %s\n", dir, bos, x->bos);
	return 1;
}

/* The text of the folder's `refused`, or NULL; free it. */
static char *refusal(const char *dir)
{
	char *path = lens_path_join(dir, "refused");
	struct lens_buf b = LENS_BUF_INIT;

	if (lens_file_exists(path))
		assert_int_equal(lens_file_read(path, 4096, &b, NULL), LENS_OK);
	lens_free(path);
	return b.data;
}

static size_t check_tokenizer(const char *dir, const struct expected *x)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok = NULL;
	char *refused = refusal(dir);
	size_t bad = 0;

	if (lens_tokenizer_open(dir, &tok, &err) == LENS_OK)
		bad += !!refused;
	else
		bad += !refused || !strstr(err.text, refused);
	if (bad)
		print_error("%s: %s\n", dir, tok ? "is not refused" : err.text);
	if (tok)
		bad += wrong_ids(tok, x, dir) + wrong_bos(tok, x, dir);
	lens_tokenizer_destroy(tok);
	lens_free(refused);
	return bad;
}

/* --- logits ---------------------------------------------------------------------------- */

/* Those of a prompt at N_COLUMNS tokens: [length, N_COLUMNS]. */
static void forward(const struct lens_model *m, const struct expected *x, size_t prompt,
		    float *logits)
{
	size_t pos, c, length = x->length[prompt];
	const struct test_prompt p = { .tokens = x->prompt[prompt], .length = length };
	struct lens_batch b;
	struct test_record r;
	struct lens_visitor v;
	const struct test_pass pass = { .m = m, .b = &b, .visitor = &v, .n = 1 };

	test_pack(&b, &p, 1);
	test_record_init(&r, m, &b, LENS_WANT_NOT);
	lens_hook_want(&r.hooks, LENS_HOOK_LOGITS, 0, LENS_WANT_ALL);
	v = test_record_visitor(&r);
	assert_int_equal(test_run_pass(&pass, NULL), LENS_OK);
	for (pos = 0; pos < length; pos++) {
		const float *row = test_recorded(&r, LENS_HOOK_LOGITS, 0, 0, pos);

		for (c = 0; c < N_COLUMNS; c++)
			logits[pos * N_COLUMNS + c] = row[(size_t)x->column[c]];
	}
	test_record_release(&r);
	lens_batch_release(&b);
}

static double *read_truth(const char *dir, size_t n)
{
	char *path = lens_path_join(dir, "logits.f64");
	double *truth = calloc(n + 1, sizeof(*truth));
	FILE *f = test_open_data(path);

	assert_non_null(truth);
	assert_int_equal(fread(truth, sizeof(*truth), n + 1, f), n);
	fclose(f);
	lens_free(path);
	return truth;
}

static void add_errors(struct errors *e, const struct expected *x, const double *truth,
		       const float *ours, size_t n)
{
	double square = 0, sum = 0, max = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		double d = fabs((double)ours[i] - truth[i]);

		square += truth[i] * truth[i];
		sum += d * d;
		max = d > max ? d : max;
	}
	max /= sqrt(square / (double)n);
	e->ours += sum / square;
	e->our_max = max > e->our_max ? max : e->our_max;
	e->theirs += x->rms * x->rms;
	e->their_max = x->max > e->their_max ? x->max : e->their_max;
	e->n++;
}

static void check_model(const char *dir, const struct expected *x, struct errors *e)
{
	static const struct lens_model_options raw;
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;
	double *truth;
	float *ours;
	size_t i, at = 0, n = x->n_positions * N_COLUMNS;

	if (lens_model_open(dir, &raw, &m, &err) != LENS_OK)
		fail_msg("%s: %s", dir, err.text);
	truth = read_truth(dir, n);
	ours = calloc(n, sizeof(*ours));
	assert_non_null(ours);
	for (i = 0; i < N_PROMPTS; i++) {
		forward(m, x, i, ours + at);
		at += x->length[i] * N_COLUMNS;
	}
	add_errors(e, x, truth, ours, n);
	free(ours);
	free(truth);
	lens_model_destroy(m);
}

/* --- the folders ------------------------------------------------------------------------ */

static int visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static size_t check_version(const char *version, struct errors *e, size_t *n_refused,
			    size_t *n_bos)
{
	char *root = lens_path_join(DATA, version);
	struct dirent **entry;
	int i, n = scandir(root, &entry, visible, alphasort);
	size_t bad = 0;

	assert_true(n >= 10);
	for (i = 0; i < n; i++) {
		char *dir = lens_path_join(root, entry[i]->d_name), *refused = refusal(dir);
		struct expected x;

		read_expected(dir, &x);
		*n_refused += !!refused;
		*n_bos += strcmp(x.bos, "-") != 0;
		bad += check_tokenizer(dir, &x);
		check_model(dir, &x, e);
		lens_free(refused);
		lens_free(dir);
		free(entry[i]);
	}
	free(entry);
	lens_free(root);
	return bad;
}

/* Our float32 is no worse than the library's: the RMS over all, the largest within 1.5 times.
 */
static void saved_folders(void **state)
{
	struct errors e = { .n = 0 };
	size_t bad = 0, n_refused = 0, n_bos = 0;
	enum lens_cpu_level level;
	int i;

	(void)state;
	assert_int_equal(lens_open_cpu(!strcmp(test_cpu_level(), "avx2") ? LENS_CPU_AVX2
									 : LENS_CPU_AUTO,
				       &level, NULL),
			 LENS_OK);
	for (i = 0; i < N_VERSIONS; i++)
		bad += check_version(versions[i], &e, &n_refused, &n_bos);
	print_message(
		"%zu folders, %zu tokenizers refused, %zu BOS of TransformerLens; logits: "
		"RMS %.2e (transformers %.2e), largest %.2e (%.2e)\n",
		e.n, n_refused, n_bos, sqrt(e.ours / (double)e.n), sqrt(e.theirs / (double)e.n),
		e.our_max, e.their_max);
	assert_int_equal(bad, 0);
	assert_int_equal(n_refused, 1);
	assert_true(n_bos > 15);
	assert_true(e.ours <= e.theirs);
	assert_true(e.our_max <= 1.5 * e.their_max);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(saved_folders) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
