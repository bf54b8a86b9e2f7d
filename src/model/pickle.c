/*
 * model/pickle.c: the stack machine of a pickle. In: bytes; out: one value.
 *
 * Nothing here recurses, whatever the nesting; texts stay where they are in the file; an
 * opcode allocates at most a few hundred bytes, and the limits below bound the total.
 */
#include "model/pickle_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A tensor takes about 35 opcodes and 7 objects. */
#define MAX_OPCODES ((size_t)1 << 24)
#define MAX_OBJECTS ((size_t)1 << 21)
#define MAX_VALUES ((size_t)1 << 24) /* in lists, tuples and dicts */
#define MAX_STACK ((size_t)1 << 20)

enum lens_status lens_pickle_bad(const struct lens_pickle *p, struct lens_error *err,
				 const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return lens_error_at(err, LENS_ERR_FORMAT, p->path, 0, 0, "pickle, byte %zu: %s", p->at,
			     text);
}

struct lens_printable lens_printable(const void *bytes, size_t n)
{
	const unsigned char *from = bytes;
	struct lens_printable out;
	size_t i, most = sizeof(out.text) - 4;

	for (i = 0; i < n && i < most; i++)
		out.text[i] = (char)(from[i] < 0x20 || from[i] > 0x7e ? '?' : from[i]);
	snprintf(out.text + i, 4, "%s", n > most ? "..." : "");
	return out;
}

bool lens_pickle_is_text(const struct lens_pickle_value *v, const char *text)
{
	size_t n = strlen(text);

	return v->kind == LENS_P_TEXT && v->n == n && !memcmp(v->bytes, text, n);
}

const char *lens_pickle_kind_name(const struct lens_pickle_value *v)
{
	static const char *const names[] = {
		[LENS_P_NONE] = "None",
		[LENS_P_BOOL] = "a bool",
		[LENS_P_INT] = "an integer",
		[LENS_P_LONG] = "a long integer",
		[LENS_P_REAL] = "a float",
		[LENS_P_TEXT] = "a string",
		[LENS_P_NAME] = "a class or function",
		[LENS_P_STORAGE] = "a storage",
		[LENS_P_TENSOR] = "a tensor",
		[LENS_P_LIST] = "a list",
		[LENS_P_TUPLE] = "a tuple",
		[LENS_P_DICT] = "a dict",
	};

	return names[v->kind];
}

/* --- memory -------------------------------------------------------------------- */

enum lens_status lens_pickle_object(struct lens_pickle *p, enum lens_pickle_kind kind,
				    struct lens_pickle_value *out, struct lens_error *err)
{
	struct lens_pickle_object *o;

	if (p->n_objects == MAX_OBJECTS)
		return lens_pickle_bad(p, err, "more than %zu lists, tuples and dicts",
				       MAX_OBJECTS);
	o = lens_calloc(1, sizeof(*o));
	if (!o)
		return lens_error_nomem(err, 1, sizeof(*o));
	o->next = p->objects;
	p->objects = o;
	p->n_objects++;
	*out = (struct lens_pickle_value){ .kind = kind, .object = o };
	return LENS_OK;
}

enum lens_status lens_pickle_append(struct lens_pickle *p, struct lens_pickle_object *o,
				    const struct lens_pickle_value *v, struct lens_error *err)
{
	void *grown;

	if (++p->n_values > MAX_VALUES)
		return lens_pickle_bad(p, err, "more than %zu values", MAX_VALUES);
	grown = lens_grow(o->item, o->n, &o->cap, sizeof(*o->item), err);
	if (!grown)
		return LENS_ERR_NOMEM;
	o->item = grown;
	o->item[o->n++] = *v;
	return LENS_OK;
}

void lens_pickle_release(struct lens_pickle *p)
{
	while (p->objects) {
		struct lens_pickle_object *next = p->objects->next;

		lens_free(p->objects->item);
		lens_free(p->objects);
		p->objects = next;
	}
	lens_free(p->stack);
	lens_free(p->memo);
	lens_free(p->storage);
	lens_free(p->tensor);
	memset(p, 0, sizeof(*p));
}

/* --- bytes and stack -------------------------------------------------------------- */

enum lens_status lens_pickle_take(struct lens_pickle *p, size_t n, const unsigned char **out,
				  struct lens_error *err)
{
	*out = NULL;
	if (n > p->size - p->pos)
		return lens_pickle_bad(p, err,
				       "it ends in the middle of an opcode (truncated?)");
	*out = p->data + p->pos;
	p->pos += n;
	return LENS_OK;
}

enum lens_status lens_pickle_number(struct lens_pickle *p, int n, uint64_t *out,
				    struct lens_error *err)
{
	const unsigned char *b;

	*out = 0;
	LENS_TRY(lens_pickle_take(p, (size_t)n, &b, err));
	while (n--)
		*out = *out << 8 | b[n];
	return LENS_OK;
}

enum lens_status lens_pickle_push(struct lens_pickle *p, struct lens_pickle_value v,
				  struct lens_error *err)
{
	void *grown;

	if (p->n_stack == MAX_STACK)
		return lens_pickle_bad(p, err, "more than %zu values on its stack", MAX_STACK);
	grown = lens_grow(p->stack, p->n_stack, &p->cap_stack, sizeof(v), err);
	if (!grown)
		return LENS_ERR_NOMEM;
	p->stack = grown;
	p->stack[p->n_stack++] = v;
	return LENS_OK;
}

enum lens_status lens_pickle_pop(struct lens_pickle *p, size_t n,
				 struct lens_pickle_value **out, struct lens_error *err)
{
	size_t floor = p->n_marks ? p->mark[p->n_marks - 1] : 0;

	*out = NULL;
	if (n > p->n_stack - floor)
		return lens_pickle_bad(p, err, "it takes from an empty stack");
	p->n_stack -= n;
	*out = n ? p->stack + p->n_stack : p->stack; /* which is NULL at first */
	return LENS_OK;
}

enum lens_status lens_pickle_pop_mark(struct lens_pickle *p, struct lens_pickle_value **out,
				      size_t *n, struct lens_error *err)
{
	*out = NULL;
	*n = 0;
	if (!p->n_marks)
		return lens_pickle_bad(p, err, "it has no MARK to go back to");
	*n = p->n_stack - p->mark[p->n_marks - 1];
	LENS_TRY(lens_pickle_pop(p, *n, out, err));
	p->n_marks--;
	return LENS_OK;
}

enum lens_status lens_pickle_top(struct lens_pickle *p, enum lens_pickle_kind kind,
				 struct lens_pickle_value **out, struct lens_error *err)
{
	const struct lens_pickle_value wanted = { .kind = kind };

	LENS_TRY(lens_pickle_pop(p, 1, out, err));
	p->n_stack++;
	if ((*out)->kind != kind)
		return lens_pickle_bad(p, err, "it puts something into %s; only %s takes that",
				       lens_pickle_kind_name(*out),
				       lens_pickle_kind_name(&wanted));
	return LENS_OK;
}

/* --- the machine ------------------------------------------------------------------------ */

static enum lens_status stop(struct lens_pickle *p, struct lens_error *err)
{
	if (p->n_marks || p->n_stack != 1)
		return lens_pickle_bad(p, err, "it stops with %zu values on its stack",
				       p->n_stack);
	p->result = p->stack[0];
	return LENS_OK;
}

enum lens_status lens_pickle_load(struct lens_pickle *p, struct lens_error *err)
{
	while (p->pos < p->size) {
		const struct lens_pickle_opcode *op = &lens_pickle_opcodes[p->data[p->pos]];

		p->at = p->pos++;
		if (p->data[p->at] == '.')
			return stop(p, err);
		if (!op->name)
			return lens_pickle_bad(p, err, "0x%02x is not an opcode",
					       p->data[p->at]);
		if (!op->run)
			return lens_pickle_bad(p, err,
					       "opcode %s is not how torch writes tensors: "
					       "refused",
					       op->name);
		if (++p->n_opcodes > MAX_OPCODES)
			return lens_pickle_bad(p, err, "more than %zu opcodes", MAX_OPCODES);
		LENS_TRY(op->run(p, op->arg, err));
	}
	return lens_error_at(err, LENS_ERR_FORMAT, p->path, 0, 0,
			     "pickle: it has no end (truncated?)");
}
