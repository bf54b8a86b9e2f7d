/*
 * model/pickle_private.h: a reader of the pickles that torch.save writes. It knows plain
 * values, tensors and storages, executes nothing, and refuses everything else by name.
 *
 * pickle.c is the stack machine, pickle_ops.c its opcodes; pickle_torch.c gives the few
 * names that may be called their meaning; torchbin.c uses them to read files.
 */
#ifndef LENS_MODEL_PICKLE_PRIVATE_H
#define LENS_MODEL_PICKLE_PRIVATE_H

#include "model/model_private.h"

/* One of torch's element types. */
struct lens_torch_type {
	const char *name; /* as in safetensors: "F32" */
	size_t size;
	enum lens_tensor_type type;
	const char *storage, *dtype; /* torch.FloatStorage, torch.float32; NULL: has none */
};

/* What a name stands for. */
enum lens_torch_name {
	LENS_TORCH_ORDERED_DICT,
	LENS_TORCH_TENSOR,    /* _rebuild_tensor */
	LENS_TORCH_TENSOR_V2, /* _rebuild_tensor_v2 */
	LENS_TORCH_TENSOR_V3, /* _rebuild_tensor_v3 */
	LENS_TORCH_PARAMETER, /* _rebuild_parameter */
	LENS_TORCH_STORAGE,
	LENS_TORCH_DTYPE,
};

enum lens_pickle_kind {
	LENS_P_NONE,
	LENS_P_BOOL,
	LENS_P_INT,
	LENS_P_LONG, /* an integer of more than 64 bits */
	LENS_P_REAL,
	LENS_P_TEXT, /* UTF-8 */
	LENS_P_NAME,
	LENS_P_STORAGE,
	LENS_P_TENSOR,
	LENS_P_LIST,
	LENS_P_TUPLE,
	LENS_P_DICT,
};

struct lens_pickle_value {
	enum lens_pickle_kind kind;
	uint32_t n; /* TEXT, LONG: bytes; NAME: an enum lens_torch_name */
	union {
		int64_t i;                          /* BOOL, INT */
		const unsigned char *bytes;         /* TEXT, LONG: in the pickle itself */
		const struct lens_torch_type *type; /* NAME: of a storage or dtype */
		size_t index;                       /* STORAGE, TENSOR: in their list */
		struct lens_pickle_object *object;  /* LIST, TUPLE, DICT */
	};
};

/* Items of a list or tuple; key, value, key, value … of a dict. */
struct lens_pickle_object {
	struct lens_pickle_object *next; /* all of them, to be freed */
	struct lens_pickle_value *item;
	size_t n, cap;
};

struct lens_pickle_storage {
	const unsigned char *key; /* its name in the file; in the pickle itself */
	size_t key_len;
	const struct lens_torch_type *type;
	size_t n_elements;
};

/* As in the file, unchecked. In elements. */
struct lens_pickle_tensor {
	size_t storage; /* in lens_pickle.storage */
	const struct lens_torch_type *type;
	int64_t offset;
	int rank;
	int64_t shape[LENS_TENSOR_RANK], stride[LENS_TENSOR_RANK];
};

#define LENS_PICKLE_TENSORS ((size_t)1 << 18)
#define LENS_PICKLE_MARKS 128 /* tuples and dicts under construction */

struct lens_pickle {
	const char *path; /* for messages */
	const unsigned char *data;
	size_t size;
	size_t pos; /* where to start; afterwards, behind the STOP */
	struct lens_pickle_value result;

	size_t at; /* where the current opcode is */
	size_t n_opcodes, n_objects, n_values;
	struct lens_pickle_value *stack, *memo;
	size_t n_stack, cap_stack, n_memo, cap_memo;
	size_t mark[LENS_PICKLE_MARKS]; /* heights of the stack */
	size_t n_marks;
	struct lens_pickle_object *objects;
	struct lens_pickle_storage *storage;
	size_t n_storages, cap_storages;
	struct lens_pickle_tensor *tensor;
	size_t n_tensors, cap_tensors;
};

/* --- the machine (pickle.c) --------------------------------------------------- */

/* Reads the pickle at p->pos. All but p's first four members must be zero at first. */
enum lens_status lens_pickle_load(struct lens_pickle *p, struct lens_error *err);
void lens_pickle_release(struct lens_pickle *p);

/* An error at the current opcode. */
enum lens_status lens_pickle_bad(const struct lens_pickle *p, struct lens_error *err,
				 const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* An empty container. */
enum lens_status lens_pickle_object(struct lens_pickle *p, enum lens_pickle_kind kind,
				    struct lens_pickle_value *out, struct lens_error *err);
enum lens_status lens_pickle_append(struct lens_pickle *p, struct lens_pickle_object *o,
				    const struct lens_pickle_value *v, struct lens_error *err);
bool lens_pickle_is_text(const struct lens_pickle_value *v, const char *text);
/* "a list", "a tensor", … */
const char *lens_pickle_kind_name(const struct lens_pickle_value *v);

/* Bytes of a file for a message; all but printable ASCII becomes '?'. */
struct lens_printable {
	char text[128];
};
struct lens_printable lens_printable(const void *bytes, size_t n);

/* --- for the opcodes (pickle_ops.c) ----------------------------------------------- */

/* The next n bytes. */
enum lens_status lens_pickle_take(struct lens_pickle *p, size_t n, const unsigned char **out,
				  struct lens_error *err);
/* A little-endian number of n <= 8 bytes. */
enum lens_status lens_pickle_number(struct lens_pickle *p, int n, uint64_t *out,
				    struct lens_error *err);
enum lens_status lens_pickle_push(struct lens_pickle *p, struct lens_pickle_value v,
				  struct lens_error *err);
/* Pops the top n values; *out stays valid until the next push. */
enum lens_status lens_pickle_pop(struct lens_pickle *p, size_t n,
				 struct lens_pickle_value **out, struct lens_error *err);
/* Pops all values above the last mark. */
enum lens_status lens_pickle_pop_mark(struct lens_pickle *p, struct lens_pickle_value **out,
				      size_t *n, struct lens_error *err);
/* The top value, which must be of that kind. */
enum lens_status lens_pickle_top(struct lens_pickle *p, enum lens_pickle_kind kind,
				 struct lens_pickle_value **out, struct lens_error *err);

struct lens_pickle_opcode {
	const char *name; /* NULL: no such opcode */
	/* NULL: refused */
	enum lens_status (*run)(struct lens_pickle *p, int arg, struct lens_error *err);
	int arg; /* usually the size of the number that follows, in bytes */
};
extern const struct lens_pickle_opcode lens_pickle_opcodes[256];

/* --- what names mean (pickle_torch.c) ------------------------------------------- */

/* The value of module.name, or an error that names it. */
enum lens_status lens_torch_find(struct lens_pickle *p, const struct lens_pickle_value *module,
				 const struct lens_pickle_value *name,
				 struct lens_pickle_value *out, struct lens_error *err);
/* The result of "calling" a name. */
enum lens_status lens_torch_call(struct lens_pickle *p, const struct lens_pickle_value *name,
				 const struct lens_pickle_value *args,
				 struct lens_pickle_value *out, struct lens_error *err);
/* The storage that a persistent id stands for. */
enum lens_status lens_torch_persistent(struct lens_pickle *p,
				       const struct lens_pickle_value *id,
				       struct lens_pickle_value *out, struct lens_error *err);

#endif
