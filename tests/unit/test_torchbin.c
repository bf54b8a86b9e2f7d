/*
 * test_torchbin.c: pytorch_model.bin: every type and layout that torch.save
 * writes gives torch's own values (scripts/make_torch_fixtures.py), and nothing
 * that a damaged or hostile file holds does harm. What is refused in which words
 * is in tests/invalid/model, which test_model.c runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/model_private.h"
#include "support/cases.h"
#include "support/numbers.h"
#include "support/runs.h"

#define DATA "tests/unit/data/torch/"
#define VALID "tests/unit/data/model/"

static const struct lens_model_options raw;

/* --- what loads ------------------------------------------------------------------- */

/* The tensors of a folder; released by lens_tensors_release, also after an error. */
static enum lens_status open_tensors(const char *dir, struct lens_tensors *t,
				     struct lens_error *err)
{
	struct lens_sha256 *sha;
	enum lens_status st;

	memset(t, 0, sizeof(*t));
	LENS_TRY(lens_sha256_create(&sha, err));
	st = lens_tensors_open(dir, false, t, sha, err);
	lens_sha256_destroy(sha);
	return st;
}

static void check_values(struct lens_tensors *t, const struct lens_tensor *x,
			 const json_t *values)
{
	double *is = lens_calloc(x->n_elements, sizeof(*is));
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	assert_non_null(is);
	if (lens_tensors_read(t, x->name, x->rank, x->shape, is, &err) != LENS_OK)
		fail_msg("%s: %s", x->name, err.text);
	assert_int_equal(json_array_size(values), x->n_elements);
	for (i = 0; i < x->n_elements; i++) {
		double should = json_real_value(json_array_get(values, i));

		if (is[i] != should)
			fail_msg("%s: element %zu is %.17g, not %.17g", x->name, i, is[i],
				 should);
	}
	lens_free(is);
}

static void check_tensor(struct lens_tensors *t, const char *name, const json_t *expected)
{
	const json_t *shape = json_object_get(expected, "shape");
	const json_t *values = json_object_get(expected, "values");
	const struct lens_tensor *x = lens_tensors_find(t, name);
	struct lens_error err = LENS_ERROR_INIT;
	int d;

	if (!x)
		fail_msg("%s is missing", name);
	assert_string_equal(x->type_name,
			    json_string_value(json_object_get(expected, "dtype")));
	assert_int_equal(x->rank, json_array_size(shape));
	for (d = 0; d < x->rank; d++)
		assert_int_equal(x->shape[d],
				 json_integer_value(json_array_get(shape, (size_t)d)));
	if (json_is_array(values)) {
		/* in the map itself, not in a copy */
		assert_true(!x->n_elements ||
			    (x->data >= t->file[x->file].data &&
			     x->data < t->file[x->file].data + t->file[x->file].size));
		check_values(t, x, values);
		return;
	}
	assert_int_equal(lens_tensors_read(t, name, x->rank, x->shape, NULL, &err),
			 LENS_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.text, x->type_name));
}

static void torchs_own_values(void **state)
{
	static const char *const cases[] = { DATA "zip",        DATA "zip-protocol-5",
					     DATA "zip-newer",  DATA "zip-module",
					     DATA "zip-nested", DATA "old",
					     DATA "old-module", DATA "old-protocol-4" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *path = lens_path_join(cases[i], "expected.json");
		struct lens_error err = LENS_ERROR_INIT;
		struct lens_tensors t;
		json_t *root, *value;
		const char *name;

		assert_int_equal(lens_json_load(path, 1 << 20, &root, &err), LENS_OK);
		if (open_tensors(cases[i], &t, &err) != LENS_OK)
			fail_msg("%s: %s", cases[i], err.text);
		assert_int_equal(t.n, json_object_size(root));
		json_object_foreach (root, name, value)
			check_tensor(&t, name, value);
		lens_tensors_release(&t);
		json_decref(root);
		lens_free(path);
	}
}

static struct lens_model *open_model(const char *dir)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;
	char text[2200];

	if (lens_model_open(dir, &raw, &m, &err) != LENS_OK)
		fail_msg("%s", lens_error_format(&err, text, sizeof(text)));
	return m;
}

/* The same model whichever files it is in; only the hash tells them apart. */
static void same_model(void **state)
{
	static const char *const dirs[] = { VALID "torch", VALID "torch-old",
					    VALID "torch-python2", VALID "torch-sharded" };
	struct lens_model *plain = open_model(VALID "plain");
	const struct lens_config *c = &plain->config;
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct lens_model *m = open_model(dirs[i]);
		size_t d = c->d_model;

		test_assert_same(m->w_e, plain->w_e, c->d_vocab * d, "w_e");
		test_assert_same(m->w_pos, plain->w_pos, c->n_ctx * d, "w_pos");
		test_assert_same(m->w_u, plain->w_u, c->d_vocab * d, "w_u");
		test_assert_same(m->block->w_qkv, plain->block->w_qkv, 3 * d * d, "w_qkv");
		test_assert_same(m->block->w_out, plain->block->w_out, c->d_mlp * d, "w_out");
		assert_memory_not_equal(m->sha256, plain->sha256, LENS_SHA256_BYTES);
		lens_model_destroy(m);
	}
	lens_model_destroy(plain);
}

/* --- which files are taken ------------------------------------------------------------ */

/* A folder of this process's own. */
struct folder {
	char dir[128];
};

static void make_folder(struct folder *f)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%.90s/h5lens-torch-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
}

/* Writes n bytes; NULL removes the file. */
static void put(const struct folder *f, const char *name, const void *data, size_t n)
{
	char *path = lens_path_join(f->dir, name);
	FILE *out;

	if (!data) {
		assert_int_equal(unlink(path), 0);
	} else {
		out = fopen(path, "wb");
		assert_non_null(out);
		assert_int_equal(fwrite(data, 1, n, out), n);
		assert_int_equal(fclose(out), 0);
	}
	lens_free(path);
}

/* Opens what lies in the folder; the error, formatted, or "". */
static const char *told(const struct folder *f)
{
	static char text[2200];
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tensors t;

	text[0] = '\0';
	if (open_tensors(f->dir, &t, &err) != LENS_OK)
		lens_error_format(&err, text, sizeof(text));
	lens_tensors_release(&t);
	return text;
}

static void assert_told(const struct folder *f, const char *says)
{
	const char *text = told(f);

	if (!strstr(text, says))
		fail_msg("expected \"%s\", told: %s", says, text);
}

/* safetensors before .bin, one file before an index: as transformers looks. */
static void order_of_files(void **state)
{
	static const char junk[] = "junk, and more than eight bytes of it";
	struct lens_buf safe = LENS_BUF_INIT, bin = LENS_BUF_INIT;
	struct folder f;

	(void)state;
	make_folder(&f);
	assert_int_equal(lens_file_read(VALID "plain/model.safetensors", 65536, &safe, NULL),
			 LENS_OK);
	assert_int_equal(lens_file_read(VALID "torch/pytorch_model.bin", 65536, &bin, NULL),
			 LENS_OK);
	assert_told(&f, "holds no weights");
	put(&f, "pytorch_model.bin.index.json", junk, sizeof(junk));
	assert_told(&f, "pytorch_model.bin.index.json:");
	put(&f, "pytorch_model.bin", junk, sizeof(junk));
	assert_told(&f, "pytorch_model.bin: not a file that torch.save wrote");
	put(&f, "pytorch_model.bin", bin.data, bin.len);
	assert_string_equal(told(&f), "");
	put(&f, "model.safetensors.index.json", junk, sizeof(junk));
	assert_told(&f, "model.safetensors.index.json:");
	put(&f, "model.safetensors", junk, sizeof(junk));
	assert_told(&f, "model.safetensors: not a safetensors file");
	put(&f, "pytorch_model.bin", junk, sizeof(junk));
	put(&f, "model.safetensors", safe.data, safe.len);
	assert_string_equal(told(&f), "");
	put(&f, "pytorch_model.bin.index.json", NULL, 0);
	put(&f, "pytorch_model.bin", NULL, 0);
	put(&f, "model.safetensors.index.json", NULL, 0);
	put(&f, "model.safetensors", NULL, 0);
	assert_int_equal(rmdir(f.dir), 0);
	lens_buf_release(&safe);
	lens_buf_release(&bin);
}

/* --- absurd pickles --------------------------------------------------------------- */

/* The three small pickles that the older format begins with. */
static const char start[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
			    "\x80\x02M\xe9\x03."
			    "\x80\x02}U\x0dlittle_endian\x88s.";

static void append(struct lens_buf *b, const void *data, size_t n, size_t times)
{
	while (times--)
		assert_int_equal(lens_buf_append(b, data, n, NULL), LENS_OK);
}

static void assert_pickle(const struct folder *f, struct lens_buf *b, const char *says)
{
	put(f, "pytorch_model.bin", b->data, b->len);
	assert_told(f, says);
	b->len = sizeof(start) - 1;
}

/* Nesting is not recursion. */
static void nested_pickles(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;
	struct folder f;

	(void)state;
	make_folder(&f);
	append(&b, start, sizeof(start) - 1, 1);
	append(&b, "(", 1, 100000);
	assert_pickle(&f, &b, "nested more than 128 deep");
	append(&b, "]", 1, 100000);
	append(&b, "a", 1, 99999);
	append(&b, ".", 1, 1);
	assert_pickle(&f, &b, "it holds a list, not a dict of tensors");
	append(&b, "]q\0", 3, 1);
	append(&b, "h\0a", 3, 100000); /* a list in itself */
	append(&b, ".", 1, 1);
	assert_pickle(&f, &b, "it holds a list, not a dict of tensors");
	put(&f, "pytorch_model.bin", NULL, 0);
	assert_int_equal(rmdir(f.dir), 0);
	lens_buf_release(&b);
}

/* Small files do not become large memory. */
static void large_pickles(void **state)
{
	/* an OrderedDict of the 1,000 pairs of memo 0, made again and again */
	static const char again[] = "j\1\0\0\0h\0\x85Ra";
	struct lens_buf b = LENS_BUF_INIT;
	struct folder f;

	(void)state;
	if (test_quick())
		return;
	make_folder(&f);
	append(&b, start, sizeof(start) - 1, 1);
	append(&b, "N", 1, ((size_t)1 << 20) + 1);
	assert_pickle(&f, &b, "more than 1048576 values on its stack");
	append(&b, "]q\0", 3, 1);
	append(&b, "NN\x86q\1a", 6, 1000);
	append(&b, "ccollections\nOrderedDict\nr\1\0\0\0", 30, 1);
	append(&b, "]", 1, 1);
	append(&b, again, sizeof(again) - 1, 100000);
	assert_pickle(&f, &b, "more than 16777216 values");
	append(&b, "]", 1, 1);
	append(&b, "]a", 2, (size_t)1 << 21);
	assert_pickle(&f, &b, "more than 2097152 lists");
	append(&b, "N", 1, 1);
	append(&b, "q\0", 2, (size_t)1 << 24);
	assert_pickle(&f, &b, "more than 16777216 opcodes");
	put(&f, "pytorch_model.bin", NULL, 0);
	assert_int_equal(rmdir(f.dir), 0);
	lens_buf_release(&b);
}

/* --- damage ------------------------------------------------------------------ */

/* Parses bytes that are only in memory, and reads every value. True when they are good. */
static bool parses(const unsigned char *data, size_t n)
{
	char path[] = "damaged.bin";
	unsigned char *copy = lens_calloc(n, 1); /* of its own size, for ASan */
	struct lens_mapped_file *file = lens_calloc(1, sizeof(*file));
	struct lens_tensors t = { .file = file, .n_files = 1 };
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st;
	size_t i;

	assert_true(copy && file);
	memcpy(copy, data, n);
	*file = (struct lens_mapped_file){ .path = path, .data = copy, .size = n };
	st = lens_torchbin_parse(&t, 0, &err);
	assert_int_equal(st, err.code);
	assert_true(st == LENS_OK || st == LENS_ERR_FORMAT);
	assert_string_equal(err.file, st == LENS_OK ? "" : path);
	for (i = 0; st == LENS_OK && i < t.n; i++) {
		const struct lens_tensor *x = &t.tensor[i];
		double *out = x->type == LENS_T_OTHER
				      ? NULL
				      : lens_calloc(x->n_elements, sizeof(*out));

		/* NaN is told; that nothing else is read is ASan's to say. By its place:
		 * the list is not sorted, and names may appear twice. */
		struct lens_tensors one = { .tensor = (struct lens_tensor *)x,
					    .n = 1,
					    .cap = 1,
					    .file = file,
					    .n_files = 1 };

		lens_tensors_read(&one, x->name, x->rank, x->shape, out, NULL);
		lens_free(out);
	}
	file->path = NULL;
	file->data = NULL;
	lens_tensors_release(&t);
	lens_free(copy);
	return st == LENS_OK;
}

static void damaged_bytes(void **state)
{
	static const char *const files[] = { DATA "zip/pytorch_model.bin",
					     DATA "old/pytorch_model.bin",
					     DATA "old-protocol-4/pytorch_model.bin",
					     DATA "zip-module/pytorch_model.bin" };
	size_t k, i, rounds = test_quick() ? 300 : 8000;
	struct test_random r = { 11 };

	(void)state;
	for (k = 0; k < 4; k++) {
		struct lens_buf good = LENS_BUF_INIT;
		unsigned char *data;
		size_t refused = 0;

		assert_int_equal(lens_file_read(files[k], 65536, &good, NULL), LENS_OK);
		data = (unsigned char *)good.data;
		assert_true(parses(data, good.len));
		for (i = 0; i < good.len; i += 1 + good.len / 400)
			refused += !parses(data, i);
		for (i = 0; i < rounds; i++) {
			size_t at = test_random_below(&r, good.len), n = good.len;
			unsigned char was = data[at];

			data[at] = (unsigned char)(was ^ 1 << i % 8);
			if (i % 3)
				data[at] = (unsigned char)test_random_below(&r, 256);
			refused += !parses(data, n);
			data[at] = was;
		}
		assert_true(refused > 100);
		lens_buf_release(&good);
	}
}

/* --- memory ----------------------------------------------------------------------- */

static enum lens_status open_and_close(void *ctx)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tensors t;
	enum lens_status st = open_tensors(ctx, &t, &err);

	assert_int_equal(err.code, st);
	lens_tensors_release(&t);
	return st;
}

static void allocation_failures(void **state)
{
	char zip[] = DATA "zip", old[] = DATA "old", sharded[] = VALID "torch-sharded";

	(void)state;
	test_alloc_failures(open_and_close, zip);
	test_alloc_failures(open_and_close, old);
	test_alloc_failures(open_and_close, sharded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(torchs_own_values),   cmocka_unit_test(same_model),
		cmocka_unit_test(order_of_files),      cmocka_unit_test(nested_pickles),
		cmocka_unit_test(large_pickles),       cmocka_unit_test(damaged_bytes),
		cmocka_unit_test(allocation_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
