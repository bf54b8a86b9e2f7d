/*
 * model/pickle_torch.c: the names that a torch pickle may use. In: a name and its
 * arguments; out: a dict, a storage or a tensor, as described in the file (torchbin.c
 * checks it against the data). Any other name is an error.
 *
 * Source of the argument lists: torch/_utils.py (_rebuild_*), torch/storage.py,
 * torch/serialization.py (persistent_id).
 */
#include "model/pickle_private.h"

static const struct lens_torch_type types[] = {
	{ "F32", 4, LENS_T_F32, "FloatStorage", "float32" },
	{ "F16", 2, LENS_T_F16, "HalfStorage", "float16" },
	{ "BF16", 2, LENS_T_BF16, "BFloat16Storage", "bfloat16" },
	{ "F64", 8, LENS_T_F64, "DoubleStorage", "float64" },
	{ "I64", 8, LENS_T_OTHER, "LongStorage", "int64" },
	{ "I32", 4, LENS_T_OTHER, "IntStorage", "int32" },
	{ "I16", 2, LENS_T_OTHER, "ShortStorage", "int16" },
	{ "I8", 1, LENS_T_OTHER, "CharStorage", "int8" },
	{ "U8", 1, LENS_T_OTHER, "ByteStorage", "uint8" },
	{ "BOOL", 1, LENS_T_OTHER, "BoolStorage", "bool" },
	{ "C64", 8, LENS_T_OTHER, "ComplexFloatStorage", "complex64" },
	{ "C128", 16, LENS_T_OTHER, "ComplexDoubleStorage", "complex128" },
	{ "BYTES", 1, LENS_T_OTHER, "UntypedStorage", NULL },
	{ "U16", 2, LENS_T_OTHER, NULL, "uint16" },
	{ "U32", 4, LENS_T_OTHER, NULL, "uint32" },
	{ "U64", 8, LENS_T_OTHER, NULL, "uint64" },
	{ "F8_E4M3", 1, LENS_T_OTHER, NULL, "float8_e4m3fn" },
	{ "F8_E4M3FNUZ", 1, LENS_T_OTHER, NULL, "float8_e4m3fnuz" },
	{ "F8_E5M2", 1, LENS_T_OTHER, NULL, "float8_e5m2" },
	{ "F8_E5M2FNUZ", 1, LENS_T_OTHER, NULL, "float8_e5m2fnuz" },
};

static const struct function {
	const char *module, *name;
	enum lens_torch_name what;
} functions[] = {
	{ "collections", "OrderedDict", LENS_TORCH_ORDERED_DICT },
	{ "torch._utils", "_rebuild_tensor", LENS_TORCH_TENSOR },
	{ "torch._utils", "_rebuild_tensor_v2", LENS_TORCH_TENSOR_V2 },
	{ "torch._utils", "_rebuild_tensor_v3", LENS_TORCH_TENSOR_V3 },
	{ "torch._utils", "_rebuild_parameter", LENS_TORCH_PARAMETER },
};

static bool is_name(const struct lens_pickle_value *v, const char *name)
{
	return name && lens_pickle_is_text(v, name);
}

/* torch.FloatStorage, torch.float32, … */
static bool find_type(const struct lens_pickle_value *name, struct lens_pickle_value *out)
{
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(*types); i++) {
		out->type = &types[i];
		out->n =
			is_name(name, types[i].storage) ? LENS_TORCH_STORAGE : LENS_TORCH_DTYPE;
		if (out->n == LENS_TORCH_STORAGE || is_name(name, types[i].dtype))
			return true;
	}
	return false;
}

enum lens_status lens_torch_find(struct lens_pickle *p, const struct lens_pickle_value *module,
				 const struct lens_pickle_value *name,
				 struct lens_pickle_value *out, struct lens_error *err)
{
	bool torch = is_name(module, "torch") || is_name(module, "torch.storage");
	size_t i;

	*out = (struct lens_pickle_value){ .kind = LENS_P_NAME };
	for (i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		if (is_name(module, functions[i].module) && is_name(name, functions[i].name)) {
			out->n = functions[i].what;
			return LENS_OK;
		}
	}
	if (torch && find_type(name, out))
		return LENS_OK;
	return lens_pickle_bad(p, err, "it asks for %s.%s, which is not tensor data: refused",
			       lens_printable(module->bytes, module->n).text,
			       lens_printable(name->bytes, name->n).text);
}

/* --- storages -------------------------------------------------------------------- */

static enum lens_status bad_id(struct lens_pickle *p, const char *what, struct lens_error *err)
{
	return lens_pickle_bad(p, err, "a storage: %s", what);
}

/* ('storage', class, key, location, number of elements[, view]) */
enum lens_status lens_torch_persistent(struct lens_pickle *p,
				       const struct lens_pickle_value *id,
				       struct lens_pickle_value *out, struct lens_error *err)
{
	const struct lens_pickle_value *v = id->kind == LENS_P_TUPLE ? id->object->item : NULL;
	size_t n = v ? id->object->n : 0, bytes;
	struct lens_pickle_storage *s;

	if (n && lens_pickle_is_text(&v[0], "module"))
		return lens_pickle_bad(p, err,
				       "it holds a module, not only its tensors: save its "
				       "state_dict()");
	if (n < 5 || n > 6 || !lens_pickle_is_text(&v[0], "storage"))
		return bad_id(p, "its id is not what torch writes", err);
	if (v[1].kind != LENS_P_NAME || v[1].n != LENS_TORCH_STORAGE)
		return bad_id(p, "its class is not a storage", err);
	if (v[2].kind != LENS_P_TEXT)
		return bad_id(p, "its key is not a string", err);
	if (v[4].kind != LENS_P_INT || v[4].i < 0 ||
	    !lens_size_mul((size_t)v[4].i, v[1].type->size, &bytes))
		return bad_id(p, "its number of elements is impossible", err);
	if (n == 6 && v[5].kind != LENS_P_NONE)
		return bad_id(p, "it is a view of another one (torch before 0.4)", err);
	if (p->n_storages == LENS_PICKLE_TENSORS)
		return lens_pickle_bad(p, err, "more than %zu storages", LENS_PICKLE_TENSORS);
	s = lens_grow(p->storage, p->n_storages, &p->cap_storages, sizeof(*s), err);
	if (!s)
		return LENS_ERR_NOMEM;
	p->storage = s;
	p->storage[p->n_storages] =
		(struct lens_pickle_storage){ v[2].bytes, v[2].n, v[1].type, (size_t)v[4].i };
	*out = (struct lens_pickle_value){ .kind = LENS_P_STORAGE, .index = p->n_storages++ };
	return LENS_OK;
}

/* --- tensors ------------------------------------------------------------------------ */

/* Reads a shape or strides; *rank is -1 before the first of the two. */
static enum lens_status read_sizes(struct lens_pickle *p, const struct lens_pickle_value *v,
				   const char *what, int64_t *out, int *rank,
				   struct lens_error *err)
{
	size_t i;

	if (v->kind != LENS_P_TUPLE && v->kind != LENS_P_LIST)
		return lens_pickle_bad(p, err, "a tensor: its %s is %s, not a tuple", what,
				       lens_pickle_kind_name(v));
	if (v->object->n > LENS_TENSOR_RANK)
		return lens_pickle_bad(p, err, "a tensor: it has more than %d dimensions",
				       LENS_TENSOR_RANK);
	if (*rank >= 0 && (size_t)*rank != v->object->n)
		return lens_pickle_bad(p, err,
				       "a tensor: it needs as many strides as dimensions");
	*rank = (int)v->object->n;
	for (i = 0; i < v->object->n; i++) {
		if (v->object->item[i].kind != LENS_P_INT)
			return lens_pickle_bad(p, err, "a tensor: its %s holds %s", what,
					       lens_pickle_kind_name(&v->object->item[i]));
		out[i] = v->object->item[i].i;
	}
	return LENS_OK;
}

/* Metadata may say "negated" or "conjugated", which would change the values. */
static bool has_metadata(const struct lens_pickle_value *v)
{
	return v->kind != LENS_P_NONE && !(v->kind == LENS_P_DICT && !v->object->n);
}

/* How many arguments a function takes: at least [0], at most [1]. */
static const size_t n_arguments[][2] = {
	[LENS_TORCH_ORDERED_DICT] = { 0, 1 }, [LENS_TORCH_TENSOR] = { 4, 4 },
	[LENS_TORCH_TENSOR_V2] = { 6, 7 },    [LENS_TORCH_TENSOR_V3] = { 7, 8 },
	[LENS_TORCH_PARAMETER] = { 3, 3 },
};

/* (storage, offset, shape, strides[, requires_grad, hooks[, dtype][, metadata]]) */
static enum lens_status rebuild(struct lens_pickle *p, enum lens_torch_name what,
				const struct lens_pickle_object *args,
				struct lens_pickle_value *out, struct lens_error *err)
{
	const struct lens_pickle_value *v = args->item;
	struct lens_pickle_tensor t = { .rank = -1 }, *grown;

	if (v[0].kind != LENS_P_STORAGE || v[1].kind != LENS_P_INT)
		return lens_pickle_bad(p, err, "a tensor of %s at %s",
				       lens_pickle_kind_name(&v[0]),
				       lens_pickle_kind_name(&v[1]));
	t.storage = v[0].index;
	t.type = p->storage[t.storage].type;
	t.offset = v[1].i;
	LENS_TRY(read_sizes(p, &v[2], "shape", t.shape, &t.rank, err));
	LENS_TRY(read_sizes(p, &v[3], "stride", t.stride, &t.rank, err));
	if (what == LENS_TORCH_TENSOR_V3) {
		if (v[6].kind != LENS_P_NAME || v[6].n != LENS_TORCH_DTYPE)
			return lens_pickle_bad(p, err, "a tensor: its dtype is %s",
					       lens_pickle_kind_name(&v[6]));
		t.type = v[6].type;
	}
	if (args->n == n_arguments[what][1] && what != LENS_TORCH_TENSOR &&
	    has_metadata(&v[args->n - 1]))
		return lens_pickle_bad(p, err, "a tensor is a negated or conjugated view");
	if (p->n_tensors == LENS_PICKLE_TENSORS)
		return lens_pickle_bad(p, err, "more than %zu tensors", LENS_PICKLE_TENSORS);
	grown = lens_grow(p->tensor, p->n_tensors, &p->cap_tensors, sizeof(t), err);
	if (!grown)
		return LENS_ERR_NOMEM;
	p->tensor = grown;
	p->tensor[p->n_tensors] = t;
	*out = (struct lens_pickle_value){ .kind = LENS_P_TENSOR, .index = p->n_tensors++ };
	return LENS_OK;
}

/* --- calls --------------------------------------------------------------------------- */

/* OrderedDict(), or with a list of pairs, as Python 2 wrote it. */
static enum lens_status ordered_dict(struct lens_pickle *p,
				     const struct lens_pickle_object *args,
				     struct lens_pickle_value *out, struct lens_error *err)
{
	const struct lens_pickle_value *pairs = args->item;
	size_t i;

	LENS_TRY(lens_pickle_object(p, LENS_P_DICT, out, err));
	if (!args->n)
		return LENS_OK;
	if (pairs->kind != LENS_P_LIST)
		return lens_pickle_bad(p, err, "an OrderedDict of %s",
				       lens_pickle_kind_name(pairs));
	for (i = 0; i < pairs->object->n; i++) {
		const struct lens_pickle_value *pair = &pairs->object->item[i];

		if ((pair->kind != LENS_P_LIST && pair->kind != LENS_P_TUPLE) ||
		    pair->object->n != 2)
			return lens_pickle_bad(
				p, err, "an OrderedDict of something that is not a pair");
		LENS_TRY(lens_pickle_append(p, out->object, &pair->object->item[0], err));
		LENS_TRY(lens_pickle_append(p, out->object, &pair->object->item[1], err));
	}
	return LENS_OK;
}

enum lens_status lens_torch_call(struct lens_pickle *p, const struct lens_pickle_value *name,
				 const struct lens_pickle_value *args,
				 struct lens_pickle_value *out, struct lens_error *err)
{
	const struct lens_pickle_object *a = args->object;
	enum lens_torch_name what = (enum lens_torch_name)name->n;

	if (what == LENS_TORCH_STORAGE || what == LENS_TORCH_DTYPE)
		return lens_pickle_bad(p, err, "it calls torch.%s, which is not tensor data",
				       what == LENS_TORCH_STORAGE ? name->type->storage
								  : name->type->dtype);
	if (a->n < n_arguments[what][0] || a->n > n_arguments[what][1])
		return lens_pickle_bad(p, err, "a call with %zu arguments", a->n);
	if (what == LENS_TORCH_ORDERED_DICT)
		return ordered_dict(p, a, out, err);
	if (what != LENS_TORCH_PARAMETER)
		return rebuild(p, what, a, out, err);
	if (a->item[0].kind != LENS_P_TENSOR)
		return lens_pickle_bad(p, err, "a parameter of %s",
				       lens_pickle_kind_name(&a->item[0]));
	*out = a->item[0];
	return LENS_OK;
}
