/*
 * model/pickle_ops.c: the opcodes of a pickle, with one function for similar ones, and
 * their table.
 *
 * Source: CPython's Lib/pickletools.py. Those that torch.save uses are implemented
 * (protocols 2 to 5); of the others, only the names are known.
 */
#include "model/pickle_private.h"

#include <string.h>

/* --- opcodes: plain values ---------------------------------------------------------- */

static enum lens_status op_proto(struct lens_pickle *p, int arg, struct lens_error *err)
{
	uint64_t version;

	LENS_TRY(lens_pickle_number(p, arg, &version, err));
	if (version > 5)
		return lens_pickle_bad(p, err, "pickle protocol %d is unknown", (int)version);
	return LENS_OK;
}

/* A frame only says how much can be read at once. */
static enum lens_status op_frame(struct lens_pickle *p, int arg, struct lens_error *err)
{
	uint64_t length;

	LENS_TRY(lens_pickle_number(p, arg, &length, err));
	if (length > p->size - p->pos)
		return lens_pickle_bad(p, err, "a frame ends past its end (truncated?)");
	return LENS_OK;
}

static enum lens_status op_none(struct lens_pickle *p, int arg, struct lens_error *err)
{
	(void)arg;
	return lens_pickle_push(p, (struct lens_pickle_value){ .kind = LENS_P_NONE }, err);
}

static enum lens_status op_bool(struct lens_pickle *p, int arg, struct lens_error *err)
{
	return lens_pickle_push(p, (struct lens_pickle_value){ .kind = LENS_P_BOOL, .i = arg },
				err);
}

/* One and two bytes are unsigned, four are signed. */
static enum lens_status op_int(struct lens_pickle *p, int arg, struct lens_error *err)
{
	uint64_t v;
	int64_t i;

	LENS_TRY(lens_pickle_number(p, arg, &v, err));
	i = arg == 4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v;
	return lens_pickle_push(p, (struct lens_pickle_value){ .kind = LENS_P_INT, .i = i },
				err);
}

/* Two's complement, preceded by its length in arg bytes. */
static enum lens_status op_long(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value v = { .kind = LENS_P_INT };
	uint64_t n, bits = 0;
	const unsigned char *b;
	size_t i;

	LENS_TRY(lens_pickle_number(p, arg, &n, err));
	LENS_TRY(lens_pickle_take(p, (size_t)n, &b, err));
	if (n > 8) {
		v = (struct lens_pickle_value){ LENS_P_LONG, (uint32_t)n, { .bytes = b } };
		return lens_pickle_push(p, v, err);
	}
	if (n && b[n - 1] & 0x80)
		bits = UINT64_MAX;
	for (i = (size_t)n; i-- > 0;)
		bits = bits << 8 | b[i];
	v.i = (int64_t)bits;
	return lens_pickle_push(p, v, err);
}

static enum lens_status op_real(struct lens_pickle *p, int arg, struct lens_error *err)
{
	const unsigned char *b;

	LENS_TRY(lens_pickle_take(p, (size_t)arg, &b, err));
	return lens_pickle_push(p, (struct lens_pickle_value){ .kind = LENS_P_REAL }, err);
}

static enum lens_status text(const struct lens_pickle *p, const unsigned char *b, size_t n,
			     struct lens_pickle_value *out, struct lens_error *err)
{
	if (n > UINT32_MAX || !lens_utf8_valid((const char *)b, n))
		return lens_pickle_bad(p, err, "a string is not UTF-8");
	*out = (struct lens_pickle_value){ LENS_P_TEXT, (uint32_t)n, { .bytes = b } };
	return LENS_OK;
}

/* Python 2's byte strings are texts, too: torch reads them as UTF-8. */
static enum lens_status op_text(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value v;
	const unsigned char *b;
	uint64_t n;

	LENS_TRY(lens_pickle_number(p, arg, &n, err));
	LENS_TRY(lens_pickle_take(p, (size_t)n, &b, err));
	LENS_TRY(text(p, b, (size_t)n, &v, err));
	return lens_pickle_push(p, v, err);
}

/* --- opcodes: containers ------------------------------------------------------------- */

static enum lens_status op_mark(struct lens_pickle *p, int arg, struct lens_error *err)
{
	(void)arg;
	if (p->n_marks == LENS_PICKLE_MARKS)
		return lens_pickle_bad(p, err, "nested more than %d deep", LENS_PICKLE_MARKS);
	p->mark[p->n_marks++] = p->n_stack;
	return LENS_OK;
}

static enum lens_status op_empty(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value v;

	LENS_TRY(lens_pickle_object(p, (enum lens_pickle_kind)arg, &v, err));
	return lens_pickle_push(p, v, err);
}

static enum lens_status make_tuple(struct lens_pickle *p, const struct lens_pickle_value *item,
				   size_t n, struct lens_error *err)
{
	struct lens_pickle_value v;
	size_t i;

	LENS_TRY(lens_pickle_object(p, LENS_P_TUPLE, &v, err));
	for (i = 0; i < n; i++)
		LENS_TRY(lens_pickle_append(p, v.object, &item[i], err));
	return lens_pickle_push(p, v, err);
}

static enum lens_status op_tuple(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value *item;
	size_t n = (size_t)arg;

	if (arg)
		LENS_TRY(lens_pickle_pop(p, n, &item, err));
	else
		LENS_TRY(lens_pickle_pop_mark(p, &item, &n, err));
	return make_tuple(p, item, n, err);
}

/* APPEND and SETITEM (arg: how many), APPENDS and SETITEMS (0: down to the mark). */
static enum lens_status put_into(struct lens_pickle *p, enum lens_pickle_kind kind, int arg,
				 struct lens_error *err)
{
	struct lens_pickle_value *item, *into;
	size_t i, n = (size_t)arg;

	if (arg)
		LENS_TRY(lens_pickle_pop(p, n, &item, err));
	else
		LENS_TRY(lens_pickle_pop_mark(p, &item, &n, err));
	LENS_TRY(lens_pickle_top(p, kind, &into, err));
	if (kind == LENS_P_DICT && n % 2)
		return lens_pickle_bad(p, err, "a key of a dict has no value");
	for (i = 0; i < n; i++)
		LENS_TRY(lens_pickle_append(p, into->object, &item[i], err));
	return LENS_OK;
}

static enum lens_status op_append(struct lens_pickle *p, int arg, struct lens_error *err)
{
	return put_into(p, LENS_P_LIST, arg, err);
}

static enum lens_status op_setitem(struct lens_pickle *p, int arg, struct lens_error *err)
{
	return put_into(p, LENS_P_DICT, arg, err);
}

/* --- opcodes: memo ---------------------------------------------------------------------- */

/* BINPUT and LONG_BINPUT give an index; MEMOIZE (arg 0) uses the next one. */
static enum lens_status op_put(struct lens_pickle *p, int arg, struct lens_error *err)
{
	uint64_t at = p->n_memo;
	struct lens_pickle_value *v;
	void *grown;

	if (arg)
		LENS_TRY(lens_pickle_number(p, arg, &at, err));
	/* Picklers count from 0: a gap means damage, and could take gigabytes. */
	if (at > p->n_memo)
		return lens_pickle_bad(p, err, "memo %llu comes after memo %zu",
				       (unsigned long long)at, p->n_memo);
	LENS_TRY(lens_pickle_pop(p, 1, &v, err));
	p->n_stack++;
	grown = lens_grow(p->memo, p->n_memo, &p->cap_memo, sizeof(*v), err);
	if (!grown)
		return LENS_ERR_NOMEM;
	p->memo = grown;
	p->memo[at] = *v;
	p->n_memo += at == p->n_memo;
	return LENS_OK;
}

static enum lens_status op_get(struct lens_pickle *p, int arg, struct lens_error *err)
{
	uint64_t at;

	LENS_TRY(lens_pickle_number(p, arg, &at, err));
	if (at >= p->n_memo)
		return lens_pickle_bad(p, err, "memo %llu is read and was never set",
				       (unsigned long long)at);
	return lens_pickle_push(p, p->memo[at], err);
}

/* --- opcodes: names, and their use ----------------------------------------------------- */

static enum lens_status push_name(struct lens_pickle *p, const struct lens_pickle_value *module,
				  const struct lens_pickle_value *name, struct lens_error *err)
{
	struct lens_pickle_value v;

	LENS_TRY(lens_torch_find(p, module, name, &v, err));
	return lens_pickle_push(p, v, err);
}

static enum lens_status take_line(struct lens_pickle *p, struct lens_pickle_value *out,
				  struct lens_error *err)
{
	const unsigned char *from = p->data + p->pos;
	const unsigned char *end =
		p->pos < p->size ? memchr(from, '\n', p->size - p->pos) : NULL;

	if (!end)
		return lens_pickle_bad(p, err, "it ends in the middle of a name (truncated?)");
	p->pos += (size_t)(end - from) + 1;
	return text(p, from, (size_t)(end - from), out, err);
}

static enum lens_status op_global(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value module, name;

	(void)arg;
	LENS_TRY(take_line(p, &module, err));
	LENS_TRY(take_line(p, &name, err));
	return push_name(p, &module, &name, err);
}

static enum lens_status op_stack_global(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value *v, module, name;

	(void)arg;
	LENS_TRY(lens_pickle_pop(p, 2, &v, err));
	if (v[0].kind != LENS_P_TEXT || v[1].kind != LENS_P_TEXT)
		return lens_pickle_bad(p, err, "a name is not a string");
	module = v[0];
	name = v[1];
	return push_name(p, &module, &name, err);
}

static enum lens_status op_reduce(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value *v, out;

	(void)arg;
	LENS_TRY(lens_pickle_pop(p, 2, &v, err));
	if (v[0].kind != LENS_P_NAME || v[1].kind != LENS_P_TUPLE)
		return lens_pickle_bad(p, err, "it calls %s with %s",
				       lens_pickle_kind_name(&v[0]),
				       lens_pickle_kind_name(&v[1]));
	LENS_TRY(lens_torch_call(p, &v[0], &v[1], &out, err));
	return lens_pickle_push(p, out, err);
}

/* Drops an OrderedDict's attributes (a state_dict's _metadata): nothing needs them. */
static enum lens_status op_build(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value *state, *into;

	(void)arg;
	LENS_TRY(lens_pickle_pop(p, 1, &state, err));
	LENS_TRY(lens_pickle_top(p, LENS_P_DICT, &into, err));
	return LENS_OK;
}

static enum lens_status op_storage(struct lens_pickle *p, int arg, struct lens_error *err)
{
	struct lens_pickle_value *id, out;

	(void)arg;
	LENS_TRY(lens_pickle_pop(p, 1, &id, err));
	LENS_TRY(lens_torch_persistent(p, id, &out, err));
	return lens_pickle_push(p, out, err);
}

/* --- the table ------------------------------------------------------------------------ */

/* Those without a function are never needed for torch's tensors. */
const struct lens_pickle_opcode lens_pickle_opcodes[256] = {
	[0x80] = { "PROTO", op_proto, 1 },
	[0x95] = { "FRAME", op_frame, 8 },
	['N'] = { "NONE", op_none, 0 },
	[0x88] = { "NEWTRUE", op_bool, 1 },
	[0x89] = { "NEWFALSE", op_bool, 0 },
	['K'] = { "BININT1", op_int, 1 },
	['M'] = { "BININT2", op_int, 2 },
	['J'] = { "BININT", op_int, 4 },
	[0x8a] = { "LONG1", op_long, 1 },
	[0x8b] = { "LONG4", op_long, 4 },
	['G'] = { "BINFLOAT", op_real, 8 },
	['U'] = { "SHORT_BINSTRING", op_text, 1 },
	['T'] = { "BINSTRING", op_text, 4 },
	[0x8c] = { "SHORT_BINUNICODE", op_text, 1 },
	['X'] = { "BINUNICODE", op_text, 4 },
	[0x8d] = { "BINUNICODE8", op_text, 8 },
	['('] = { "MARK", op_mark, 0 },
	[']'] = { "EMPTY_LIST", op_empty, LENS_P_LIST },
	[')'] = { "EMPTY_TUPLE", op_empty, LENS_P_TUPLE },
	['}'] = { "EMPTY_DICT", op_empty, LENS_P_DICT },
	['t'] = { "TUPLE", op_tuple, 0 },
	[0x85] = { "TUPLE1", op_tuple, 1 },
	[0x86] = { "TUPLE2", op_tuple, 2 },
	[0x87] = { "TUPLE3", op_tuple, 3 },
	['a'] = { "APPEND", op_append, 1 },
	['e'] = { "APPENDS", op_append, 0 },
	['s'] = { "SETITEM", op_setitem, 2 },
	['u'] = { "SETITEMS", op_setitem, 0 },
	['q'] = { "BINPUT", op_put, 1 },
	['r'] = { "LONG_BINPUT", op_put, 4 },
	[0x94] = { "MEMOIZE", op_put, 0 },
	['h'] = { "BINGET", op_get, 1 },
	['j'] = { "LONG_BINGET", op_get, 4 },
	['c'] = { "GLOBAL", op_global, 0 },
	[0x93] = { "STACK_GLOBAL", op_stack_global, 0 },
	['R'] = { "REDUCE", op_reduce, 0 },
	['b'] = { "BUILD", op_build, 0 },
	['Q'] = { "BINPERSID", op_storage, 0 },
	['0'] = { "POP", NULL, 0 },
	['1'] = { "POP_MARK", NULL, 0 },
	['2'] = { "DUP", NULL, 0 },
	['I'] = { "INT", NULL, 0 },
	['L'] = { "LONG", NULL, 0 },
	['F'] = { "FLOAT", NULL, 0 },
	['S'] = { "STRING", NULL, 0 },
	['V'] = { "UNICODE", NULL, 0 },
	['l'] = { "LIST", NULL, 0 },
	['d'] = { "DICT", NULL, 0 },
	['p'] = { "PUT", NULL, 0 },
	['g'] = { "GET", NULL, 0 },
	['P'] = { "PERSID", NULL, 0 },
	['i'] = { "INST", NULL, 0 },
	['o'] = { "OBJ", NULL, 0 },
	['B'] = { "BINBYTES", NULL, 0 },
	['C'] = { "SHORT_BINBYTES", NULL, 0 },
	[0x8e] = { "BINBYTES8", NULL, 0 },
	[0x96] = { "BYTEARRAY8", NULL, 0 },
	[0x97] = { "NEXT_BUFFER", NULL, 0 },
	[0x98] = { "READONLY_BUFFER", NULL, 0 },
	[0x81] = { "NEWOBJ", NULL, 0 },
	[0x92] = { "NEWOBJ_EX", NULL, 0 },
	[0x82] = { "EXT1", NULL, 0 },
	[0x83] = { "EXT2", NULL, 0 },
	[0x84] = { "EXT4", NULL, 0 },
	[0x8f] = { "EMPTY_SET", NULL, 0 },
	[0x90] = { "ADDITEMS", NULL, 0 },
	[0x91] = { "FROZENSET", NULL, 0 },
};
