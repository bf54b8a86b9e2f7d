/*
 * test_loading.c: what the loading of a model's weights costs: pieces of matrices are those
 * of the whole, little is in float64 at a time, and memory that does not suffice is told
 * before any weight is read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/plan.h"
#include "model/torchbin_private.h"
#include "support/numbers.h"
#include "support/place.h"
#include "support/runs.h"

#define DATA "tests/golden/data/gpt2_gelu/"

/* --- pieces ------------------------------------------------------------------------- */

enum { HIGH = 13, ROWS = 3 * HIGH, COLUMNS = 3 * 24, HEAD = 4 };
static char tensor_name[] = "x";

static struct test_random rnd = { 3 };

/* A tensor [rows, columns] of the numbers 0, 1, … in row-major order, however it is stored. */
static struct lens_tensor tensor(size_t rows, size_t columns, bool strided, float *data)
{
	struct lens_tensor t = { .name = tensor_name,
				 .type = LENS_T_F32,
				 .rank = 2,
				 .shape = { rows, columns },
				 .n_elements = rows * columns,
				 .data = (const unsigned char *)data };
	size_t i, j;

	t.strided = strided;
	t.stride[0] = strided ? 1 : columns;
	t.stride[1] = strided ? rows : 1;
	for (i = 0; i < rows; i++) {
		for (j = 0; j < columns; j++)
			data[i * t.stride[0] + j * t.stride[1]] = (float)(i * columns + j);
	}
	return t;
}

/* The same [heads, rows, columns]; strided: the dimensions the other way round. */
static struct lens_tensor cube(const size_t shape[3], bool strided, float *data)
{
	struct lens_tensor t = { .name = tensor_name, .type = LENS_T_F32, .rank = 3 };
	size_t i, j, k;

	memcpy(t.shape, shape, 3 * sizeof(*shape));
	t.n_elements = shape[0] * shape[1] * shape[2];
	t.data = (const unsigned char *)data;
	t.strided = strided;
	t.stride[0] = strided ? 1 : shape[1] * shape[2];
	t.stride[1] = strided ? shape[0] : shape[2];
	t.stride[2] = strided ? shape[0] * shape[1] : 1;
	for (i = 0; i < shape[0]; i++) {
		for (j = 0; j < shape[1]; j++) {
			for (k = 0; k < shape[2]; k++)
				data[i * t.stride[0] + j * t.stride[1] + k * t.stride[2]] =
					(float)((i * shape[1] + j) * shape[2] + k);
		}
	}
	return t;
}

/* What is in the matrix by the part's description, told in another way. */
static double expected(const struct lens_matrix_part *p, size_t i, size_t j)
{
	size_t at = p->first;

	if (p->heads == LENS_HEADS_ACROSS)
		return (double)((j / HEAD * ROWS + i) * HEAD + j % HEAD);
	if (p->heads == LENS_HEADS_DOWN)
		return (double)(i * COLUMNS + j);

	while (j >= p->group) {
		at += p->stride;
		j -= p->group;
	}
	at += j;
	return (double)(p->transposed ? at * ROWS + i : i * p->t->shape[1] + at);
}

static void check_pieces(const struct lens_matrix *m)
{
	double out[ROWS * COLUMNS];
	size_t k, i, j;

	for (k = 0; k < 300; k++) {
		struct lens_piece p = { .row = test_random_below(&rnd, m->rows),
					.column = test_random_below(&rnd, m->columns) };

		p.rows = 1 + test_random_below(&rnd, m->rows - p.row);
		p.columns = 1 + test_random_below(&rnd, m->columns - p.column);
		assert_int_equal(lens_matrix_read(m, &p, out, NULL), LENS_OK);
		for (i = 0; i < p.rows; i++) {
			for (j = 0; j < p.columns; j++) {
				size_t column = p.column + j, part = 0;

				while (column >= m->part[part].columns)
					column -= m->part[part++].columns;
				assert_true(out[i * p.columns + j] ==
					    expected(&m->part[part], p.row + i, column));
			}
		}
	}
}

static void pieces(void **state)
{
	static float data[ROWS * COLUMNS];
	size_t transposed, strided, heads, i;

	(void)state;
	for (i = 0; i < 8; i++) {
		struct lens_matrix m = { .n_parts = 0 };
		struct lens_tensors files = { .n = 1 };
		struct lens_tensor t;
		size_t n = 0;

		transposed = i & 1;
		strided = i >> 1 & 1;
		heads = transposed && i >> 2;
		t = transposed ? tensor(COLUMNS, ROWS, strided, data)
			       : tensor(ROWS, COLUMNS, strided, data);
		/* one part; or GPT-NeoX's three, whose columns are apart, head by head */
		files.tensor = &t;
		for (; n < (heads ? 3 : 1); n++) {
			const struct lens_matrix_part part = {
				.transposed = transposed,
				.columns = heads ? COLUMNS / 3 : COLUMNS,
				.first = heads ? n * HEAD : 0,
				.group = heads ? HEAD : COLUMNS,
				.stride = 3 * HEAD,
			};

			assert_int_equal(lens_matrix_add(&m, &files, tensor_name, t.shape,
							 &part, NULL),
					 LENS_OK);
		}
		assert_int_equal(m.rows, ROWS);
		assert_int_equal(m.columns, COLUMNS);
		check_pieces(&m);
	}
}

/* As TransformerLens has them: heads side by side (W_Q), or one below the other (W_O). */
static void pieces_of_heads(void **state)
{
	static const size_t shapes[2][3] = { { COLUMNS / HEAD, ROWS, HEAD },
					     { ROWS / HIGH, HIGH, COLUMNS } };
	static float data[ROWS * COLUMNS];
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		const bool down = i & 1;
		struct lens_tensor t = cube(shapes[down], i >> 1, data);
		struct lens_tensors files = { .tensor = &t, .n = 1 };
		const struct lens_matrix_part part = { .columns = COLUMNS,
						       .group = COLUMNS,
						       .heads = down ? LENS_HEADS_DOWN
								     : LENS_HEADS_ACROSS };
		struct lens_matrix m = { .n_parts = 0 };

		assert_int_equal(lens_matrix_add(&m, &files, tensor_name, t.shape, &part, NULL),
				 LENS_OK);
		assert_int_equal(m.rows, ROWS);
		assert_int_equal(m.columns, COLUMNS);
		check_pieces(&m);
	}
}

/* --- memory ------------------------------------------------------------------------- */

/* Shapes of a GPT-2 whose weights are zeros, so that its file is a hole. */
enum { D = 256, V = 5000, N_CTX = 64, LAYERS = 4 };

struct header {
	struct lens_buf text;
	size_t bytes; /* of the tensors so far */
};

static void add_tensor(struct header *h, const char *name, size_t rows, size_t columns)
{
	size_t n = (rows ? rows : 1) * columns * sizeof(float);

	lens_buf_printf(&h->text, NULL, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
			h->text.len ? "," : "{", name);
	if (rows)
		lens_buf_printf(&h->text, NULL, "%zu,", rows);
	lens_buf_printf(&h->text, NULL, "%zu],\"data_offsets\":[%zu,%zu]}", columns, h->bytes,
			h->bytes + n);
	h->bytes += n;
}

static void add_layer(struct header *h, int layer)
{
	static const struct {
		const char *name;
		size_t rows, columns;
	} tensors[] = {
		{ "ln_1.weight", 0, D },
		{ "ln_1.bias", 0, D },
		{ "attn.c_attn.weight", D, 3 * D },
		{ "attn.c_attn.bias", 0, 3 * D },
		{ "attn.c_proj.weight", D, D },
		{ "attn.c_proj.bias", 0, D },
		{ "ln_2.weight", 0, D },
		{ "ln_2.bias", 0, D },
		{ "mlp.c_fc.weight", D, 4 * D },
		{ "mlp.c_fc.bias", 0, 4 * D },
		{ "mlp.c_proj.weight", 4 * D, D },
		{ "mlp.c_proj.bias", 0, D },
	};
	char name[64];
	size_t i;

	for (i = 0; i < sizeof(tensors) / sizeof(*tensors); i++) {
		snprintf(name, sizeof(name), "h.%d.%s", layer, tensors[i].name);
		add_tensor(h, name, tensors[i].rows, tensors[i].columns);
	}
}

/* wte comes first in the file: its first element. */
static void write_weights(float first)
{
	char *path = lens_path_join(test_place, "model.safetensors");
	struct header h = { .text = LENS_BUF_INIT };
	FILE *f = fopen(path, "wb");
	uint64_t n;
	int i;

	add_tensor(&h, "wte.weight", V, D);
	add_tensor(&h, "wpe.weight", N_CTX, D);
	for (i = 0; i < LAYERS; i++)
		add_layer(&h, i);
	add_tensor(&h, "ln_f.weight", 0, D);
	add_tensor(&h, "ln_f.bias", 0, D);
	lens_buf_append(&h.text, "}", 1, NULL);
	n = h.text.len;
	assert_non_null(f);
	assert_int_equal(fwrite(&n, sizeof(n), 1, f), 1);
	assert_int_equal(fwrite(h.text.data, n, 1, f), 1);
	assert_int_equal(fwrite(&first, sizeof(first), 1, f), 1);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(truncate(path, (off_t)(sizeof(n) + n + h.bytes)), 0);
	lens_buf_release(&h.text);
	lens_free(path);
}

static void write_config(void)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"model_type\":\"gpt2\",\"n_layer\":%d,\"n_embd\":%d,\"n_head\":4,"
		 "\"n_positions\":%d,\"vocab_size\":%d}",
		 LAYERS, D, N_CTX, V);
	test_write_text(test_place, "config.json", text);
}

/* Bytes of this process that no file backs, as RLIMIT_DATA counts them. */
static size_t data_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[256];
	size_t kb = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "VmData: %zu kB", &kb);
	fclose(f);
	assert_true(kb > 0);
	return kb << 10;
}

/* Exits with 0 if the model loads in so many bytes; 1 if there is too little memory. */
static void load_within(size_t bytes)
{
	const struct lens_model_options opt = { .processing = { true, true, true, true, false },
						.threads = 1 };
	struct rlimit limit = { data_bytes() + bytes, RLIM_INFINITY };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;

	if (setrlimit(RLIMIT_DATA, &limit))
		_exit(3);
	if (lens_model_open(test_place, &opt, &m, &err) == LENS_OK)
		_exit(0);
	_exit(err.code == LENS_ERR_NOMEM ? 1 : 2);
}

static int loads_within(size_t bytes)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		load_within(bytes);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static size_t weight_bytes(void)
{
	struct lens_config c;

	assert_int_equal(lens_config_load(test_place, &c, NULL), LENS_OK);
	return lens_model_weights(&c) * sizeof(float);
}

/* The bound is the program's promise; that the limit works is seen on half of it. */
static void peak_memory(void **state)
{
	size_t bytes;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip(); /* its allocator has memory of its own, and no way to go on without */
#endif
	write_config();
	write_weights(0);
	bytes = weight_bytes();
	assert_int_equal(loads_within(bytes / 2), 1);
	assert_int_equal(loads_within(bytes / 100 * 115), 0);
}

static void threads_that_fit(void **state)
{
	struct lens_processing p = { true, true, true, true, false };
	struct lens_available is = { 0, LENS_MEMORY_GIVEN };
	struct lens_error err = LENS_ERROR_INIT;
	size_t weights, each, threads = 8;
	struct lens_config c;

	(void)state;
	write_config();
	assert_int_equal(lens_config_load(test_place, &c, NULL), LENS_OK);
	weights = weight_bytes();
	each = lens_model_loading_bytes(&c, &p);
	assert_true(each > 64 * sizeof(double) * D && each < weights / 10);
	is.bytes = weights + each - 1;
	assert_int_equal(lens_plan_loading(&c, &p, &is, &threads, &err), LENS_ERR_NOMEM);
	assert_non_null(strstr(err.text, "the loading of the weights needs"));
	assert_non_null(strstr(err.text, "--memory gives"));
	is.bytes = weights + 3 * each;
	assert_int_equal(lens_plan_loading(&c, &p, &is, &threads, NULL), LENS_OK);
	assert_int_equal(threads, 3);
	is.bytes = weights + 100 * each;
	assert_int_equal(lens_plan_loading(&c, &p, &is, &threads, NULL), LENS_OK);
	assert_int_equal(threads, 3);
	p.refactor_factored_attn_matrices = true;
	assert_true(lens_model_loading_bytes(&c, &p) > each);
}

static void copy(const char *name)
{
	char *from = lens_path_join(DATA, name);
	struct lens_buf b = LENS_BUF_INIT;

	assert_int_equal(lens_file_read(from, 1 << 20, &b, NULL), LENS_OK);
	lens_buf_append(&b, "", 1, NULL);
	test_write_text(test_place, name, b.data);
	lens_buf_release(&b);
	lens_free(from);
}

/* A weight that is not a number would be told, had any been read. */
static void refused_before_loading(void **state)
{
	const struct lens_run_options none = { .overwrite = false };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_run_result result;
	struct lens_experiment e;

	(void)state;
	write_config();
	write_weights(__builtin_nanf(""));
	copy("tokenizer.json");
	copy("tokenizer_config.json");
	test_experiment(&e, test_place, DATA "prompts.csv", test_place_output);
	test_set(&e, "memory", "15MiB", NULL);
	assert_int_equal(lens_run(&e, &none, &result, &err), LENS_ERR_NOMEM);
	assert_non_null(strstr(err.text, "the loading of the weights needs"));
	test_set(&e, "memory", "1GiB", NULL);
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_run(&e, &none, &result, &err), LENS_ERR_FORMAT);
	assert_non_null(strstr(err.text, "\"wte.weight\" holds a NaN at element 0"));
	lens_experiment_release(&e);
}

/* --- zip archives --------------------------------------------------------------------- */

static void put(unsigned char *to, uint64_t n, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i++)
		to[i] = (unsigned char)(n >> 8 * i);
}

enum { name = 5, EXTRA = 9, ENTRY = 30 + name + EXTRA, RECORD = 46 + name, FIELD = 4 + 24 };

/*
 * An archive of two entries of 100 bytes; the numbers of the second are in the zip64 field,
 * that of the directory in the zip64 end. Returns its size.
 */
static size_t make_zip(unsigned char *z)
{
	size_t second = ENTRY + 100, directory = 2 * second, end64, at = directory, i;

	memset(z, 0, 1024);
	for (i = 0; i < 2; i++) {
		memcpy(z + i * second, "PK\3\4", 4);
		put(z + i * second + 26, name, 2);
		put(z + i * second + 28, EXTRA, 2);
		memcpy(z + at, "PK\1\2", 4);
		put(z + at + 20, i ? 0xffffffff : 100, 4);
		put(z + at + 24, i ? 0xffffffff : 100, 4);
		put(z + at + 28, name, 2);
		put(z + at + 30, i ? FIELD : 0, 2);
		put(z + at + 42, i ? 0xffffffff : 0, 4);
		at += RECORD;
	}
	put(z + at, 1, 2);
	put(z + at + 2, 24, 2);
	put(z + at + 20, second, 8);
	end64 = at + FIELD;
	memcpy(z + end64, "PK\6\6", 4);
	put(z + end64 + 48, directory, 8);
	memcpy(z + end64 + 56, "PK\6\7", 4);
	put(z + end64 + 64, end64, 8);
	memcpy(z + end64 + 76, "PK\5\6", 4);
	put(z + end64 + 92, 0xffffffff, 4);
	put(z + end64 + 96, 3, 2); /* a comment of three bytes */
	return end64 + 76 + 22 + 3;
}

static void zip_places(void **state)
{
	unsigned char data[1024], *cut;
	size_t place, n = make_zip(data), i;
	struct lens_zip_places z = { .data = data, .size = n };

	(void)state;
	assert_true(lens_zip_next_place(&z, &place));
	assert_int_equal(place, ENTRY);
	assert_true(lens_zip_next_place(&z, &place));
	assert_int_equal(place, ENTRY + 100 + ENTRY);
	assert_false(lens_zip_next_place(&z, &place)); /* there is no third record */
	for (i = 0; i < n; i++) {                      /* of its own size, for ASan */
		cut = lens_calloc(i, 1);
		assert_non_null(cut);
		memcpy(cut, data, i);
		z = (struct lens_zip_places){ .data = cut, .size = i };
		assert_false(lens_zip_next_place(&z, &place));
		lens_free(cut);
	}
	/* numbers that lead past the end: of a header, and of the directory */
	for (i = 0; i < 2; i++) {
		n = make_zip(data);
		put(i ? data + 2 * (ENTRY + 100) + 2 * RECORD + 20 : data + n - 25 - 76 + 48,
		    UINT64_MAX - 10, 8);
		z = (struct lens_zip_places){ .data = data, .size = n };
		assert_int_equal(lens_zip_next_place(&z, &place), i);
		assert_false(lens_zip_next_place(&z, &place));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces),
		cmocka_unit_test(pieces_of_heads),
		cmocka_unit_test_setup_teardown(peak_memory, test_place_set_up,
						test_place_tear_down),
		cmocka_unit_test_setup_teardown(threads_that_fit, test_place_set_up,
						test_place_tear_down),
		cmocka_unit_test_setup_teardown(refused_before_loading, test_place_set_up,
						test_place_tear_down),
		cmocka_unit_test(zip_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
