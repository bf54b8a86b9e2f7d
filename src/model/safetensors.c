/*
 * model/safetensors.c: the header of a safetensors file. In: a mapped file;
 * out: its tensors, with every offset checked against the file's size.
 *
 * Format (huggingface/safetensors, README): a little-endian u64 length, that many bytes
 * of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, then the data, to which the
 * offsets are relative.
 */
#include "model/model_private.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HEADER ((size_t)100 << 20) /* the format's own limit is 100 MB */

struct type_row {
	const char *name;
	size_t size;
	enum lens_tensor_type type;
};

static const struct type_row types[] = {
	{ "F64", 8, LENS_T_F64 },       { "F32", 4, LENS_T_F32 },
	{ "F16", 2, LENS_T_F16 },       { "BF16", 2, LENS_T_BF16 },
	{ "I64", 8, LENS_T_OTHER },     { "U64", 8, LENS_T_OTHER },
	{ "I32", 4, LENS_T_OTHER },     { "U32", 4, LENS_T_OTHER },
	{ "I16", 2, LENS_T_OTHER },     { "U16", 2, LENS_T_OTHER },
	{ "I8", 1, LENS_T_OTHER },      { "U8", 1, LENS_T_OTHER },
	{ "BOOL", 1, LENS_T_OTHER },    { "F8_E4M3", 1, LENS_T_OTHER },
	{ "F8_E5M2", 1, LENS_T_OTHER },
};

struct header {
	struct lens_tensors *t;
	size_t file;
	const unsigned char *data; /* behind the header */
	size_t data_size;
};

static enum lens_status bad(const struct header *h, const char *name, const char *what,
			    struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, h->t->file[h->file].path, 0, 0,
			     "tensor \"%.200s\": %s", name, what);
}

static const struct type_row *find_type(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(*types); i++) {
		if (!strcmp(types[i].name, name))
			return &types[i];
	}
	return NULL;
}

static enum lens_status read_shape(const struct header *h, const json_t *shape,
				   struct lens_tensor *t, struct lens_error *err)
{
	size_t i;

	if (!json_is_array(shape) || json_array_size(shape) > LENS_TENSOR_RANK)
		return bad(h, t->name, "its shape is not a list of at most 8 numbers", err);
	t->rank = (int)json_array_size(shape);
	t->n_elements = 1;
	for (i = 0; i < (size_t)t->rank; i++) {
		const json_t *v = json_array_get(shape, i);

		if (!json_is_integer(v) || json_integer_value(v) < 0)
			return bad(h, t->name, "a dimension is not a whole number", err);
		t->shape[i] = (size_t)json_integer_value(v);
		if (!lens_size_mul(t->n_elements, t->shape[i], &t->n_elements))
			return bad(h, t->name, "its size overflows", err);
	}
	return LENS_OK;
}

static enum lens_status read_offsets(const struct header *h, const json_t *offsets,
				     size_t element, struct lens_tensor *t,
				     struct lens_error *err)
{
	const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
	size_t begin, end, bytes;

	if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
	    json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
		return bad(h, t->name, "data_offsets are not two ascending numbers", err);
	begin = (size_t)json_integer_value(b);
	end = (size_t)json_integer_value(e);
	if (end > h->data_size)
		return bad(h, t->name, "its data lie past the end of the file (truncated?)",
			   err);
	if (!lens_size_mul(t->n_elements, element, &bytes) || bytes != end - begin)
		return bad(h, t->name, "its shape and dtype do not fit its data_offsets", err);
	t->data = h->data + begin;
	return LENS_OK;
}

static enum lens_status read_tensor(const struct header *h, const char *name, const json_t *v,
				    struct lens_error *err)
{
	const char *dtype = json_string_value(json_object_get(v, "dtype"));
	const struct type_row *type;
	struct lens_tensor *t;

	if (!json_is_object(v) || !dtype)
		return bad(h, name, "its entry has no dtype", err);
	type = find_type(dtype);
	if (!type)
		return bad(h, name, "its dtype is unknown", err);
	t = lens_tensors_add(h->t);
	if (!t)
		return lens_error_nomem(err, 1, sizeof(*t));
	t->name = lens_strdup(name);
	if (!t->name)
		return lens_error_nomem(err, strlen(name), 1);
	t->type = type->type;
	memcpy(t->type_name, type->name, strlen(type->name) + 1);
	t->file = h->file;
	LENS_TRY(read_shape(h, json_object_get(v, "shape"), t, err));
	return read_offsets(h, json_object_get(v, "data_offsets"), type->size, t, err);
}

static int by_data(const void *a, const void *b)
{
	const struct lens_tensor *x = *(const struct lens_tensor *const *)a;
	const struct lens_tensor *y = *(const struct lens_tensor *const *)b;

	return x->data < y->data ? -1 : x->data > y->data;
}

/* The format forbids overlapping data. first: this file's first tensor. */
static enum lens_status check_overlap(const struct header *h, size_t first,
				      struct lens_error *err)
{
	size_t i, n = h->t->n - first;
	struct lens_tensor **order = lens_calloc(n, sizeof(struct lens_tensor *));
	enum lens_status st = LENS_OK;

	if (!order)
		return lens_error_nomem(err, n, sizeof(struct lens_tensor *));
	for (i = 0; i < n; i++)
		order[i] = &h->t->tensor[first + i];
	qsort(order, n, sizeof(struct lens_tensor *), by_data);
	for (i = 1; st == LENS_OK && i < n; i++) {
		const struct lens_tensor *a = order[i - 1];
		const struct type_row *type = find_type(a->type_name);

		if (a->data + a->n_elements * type->size > order[i]->data)
			st = bad(h, a->name, "its data overlap another tensor's", err);
	}
	lens_free(order);
	return st;
}

enum lens_status lens_safetensors_parse(struct lens_tensors *t, size_t file,
					struct lens_error *err)
{
	const struct lens_mapped_file *f = &t->file[file];
	struct header h = { .t = t, .file = file };
	enum lens_status st = LENS_OK;
	uint64_t len = 0;
	size_t first = t->n;
	const char *name;
	json_t *root, *value;
	int i;

	if (f->size >= 8) {
		for (i = 7; i >= 0; i--)
			len = len << 8 | f->data[i];
	}
	if (f->size < 8 || len > f->size - 8 || len > MAX_HEADER)
		return lens_error_at(err, LENS_ERR_FORMAT, f->path, 0, 0,
				     "not a safetensors file: the header's length is wrong");
	h.data = f->data + 8 + len;
	h.data_size = f->size - 8 - (size_t)len;
	LENS_TRY(lens_json_parse(f->path, (const char *)f->data + 8, (size_t)len, &root, err));
	json_object_foreach (root, name, value) {
		if (st == LENS_OK && strcmp(name, "__metadata__") != 0)
			st = read_tensor(&h, name, value, err);
	}
	json_decref(root);
	if (st == LENS_OK)
		st = check_overlap(&h, first, err);
	return st;
}
