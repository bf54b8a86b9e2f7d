/*
 * core/npy.c: vectors of NumPy's files (.npy, versions 1 and 2). In: a file's bytes; out: its
 * numbers as float64. The header is text, a Python dictionary; what its numbers say must
 * be what the file has, to the byte.
 */
#include "h5lens/core.h"

#include <math.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
enum { AT_VERSION = 6, AT_LENGTH = 8 };

/* Text that is read from left to right. */
struct cursor {
	const char *s, *end;
};

/* What a header says. */
struct header {
	size_t bytes; /* of a number: 2, 4, 8 */
	size_t shape[2];
	int rank;
	bool has_descr, has_order, has_shape;
};

static void skip_blanks(struct cursor *c)
{
	while (c->s < c->end && (*c->s == ' ' || *c->s == '\n'))
		c->s++;
}

/* Passes the text, and blanks before it, if it comes next. */
static bool take(struct cursor *c, const char *text)
{
	size_t n = strlen(text);

	skip_blanks(c);
	if ((size_t)(c->end - c->s) < n || memcmp(c->s, text, n) != 0)
		return false;
	c->s += n;
	return true;
}

static bool take_number(struct cursor *c, size_t *out)
{
	size_t digits = 0;

	skip_blanks(c);
	for (*out = 0; c->s < c->end && *c->s >= '0' && *c->s <= '9'; c->s++, digits++) {
		if (*out > LENS_VECTOR_MAX)
			return false;
		*out = *out * 10 + (size_t)(*c->s - '0');
	}
	return digits > 0;
}

/* "(3,)", "(1, 3)" */
static bool take_shape(struct cursor *c, struct header *h)
{
	if (h->has_shape || !take(c, "("))
		return false;
	h->has_shape = true;
	for (h->rank = 0; !take(c, ")"); h->rank++) {
		if (h->rank == 2 || !take_number(c, &h->shape[h->rank]))
			return false;
		if (!take(c, ",")) {
			h->rank++;
			return take(c, ")");
		}
	}
	return true;
}

static bool take_descr(struct cursor *c, struct header *h)
{
	if (h->has_descr)
		return false;
	h->has_descr = true;
	h->bytes = take(c, "'<f2'") ? 2 : take(c, "'<f4'") ? 4 : take(c, "'<f8'") ? 8 : 0;
	return h->bytes > 0;
}

static bool take_order(struct cursor *c, struct header *h)
{
	/* Of a vector the order says nothing. */
	if (h->has_order)
		return false;
	h->has_order = true;
	return take(c, "False") || take(c, "True");
}

#define NO_VECTOR "not a vector: its shape must be [n] or [1, n]"

/* One pair of the dictionary, and a comma behind it; what is wrong with it, or NULL. */
static const char *read_pair(struct cursor *c, struct header *h)
{
	if (take(c, "'descr':")) {
		if (!take_descr(c, h))
			return "not little-endian float16, float32 or float64 ('<f2', '<f4', "
			       "'<f8')";
	} else if (take(c, "'fortran_order':")) {
		if (!take_order(c, h))
			return "damaged: fortran_order";
	} else if (!take(c, "'shape':")) {
		return "damaged: an unknown key in its header";
	} else if (!take_shape(c, h)) {
		return NO_VECTOR;
	}
	return take(c, ",") || (c->s < c->end && *c->s == '}') ? NULL : "damaged: its header";
}

static const char *read_pairs(struct cursor c, struct header *h)
{
	const char *wrong = take(&c, "{") ? NULL : "damaged: its header is no dictionary";

	while (!wrong && !take(&c, "}"))
		wrong = read_pair(&c, h);
	if (!wrong && (!h->has_descr || !h->has_order || !h->has_shape))
		wrong = "damaged: a key is missing in its header";
	if (!wrong && (h->rank < 1 || (h->rank == 2 && h->shape[0] != 1)))
		wrong = NO_VECTOR;
	return wrong;
}

static enum lens_status wrong(const char *file, const char *what, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0, "%s", what);
}

/* IEEE half. */
static double half(const unsigned char *p)
{
	int e = (p[1] >> 2) & 31, m = (p[1] & 3) << 8 | p[0];
	double x = e == 31 ? (m ? (double)NAN : (double)INFINITY)
			   : ldexp(e ? 1024 + m : m, (e ? e : 1) - 25);

	return p[1] & 0x80 ? -x : x;
}

static double number(const char *p, size_t bytes)
{
	double x;
	float f;

	if (bytes == 2)
		return half((const unsigned char *)p);
	if (bytes == 4) {
		memcpy(&f, p, sizeof(f));
		return (double)f;
	}
	memcpy(&x, p, sizeof(x));
	return x;
}

/* Where the header begins and ends; its length has 2 bytes in version 1, 4 in version 2. */
static enum lens_status find_header(const char *file, const char *bytes, size_t n,
				    struct cursor *c, struct lens_error *err)
{
	const unsigned char *u = (const unsigned char *)bytes;
	size_t begin, length;

	if (n < AT_LENGTH + 4 || memcmp(bytes, MAGIC, AT_VERSION) != 0)
		return wrong(file, "is not a NumPy file (.npy)", err);
	if ((u[AT_VERSION] != 1 && u[AT_VERSION] != 2) || u[AT_VERSION + 1])
		return lens_error_at(err, LENS_ERR_UNSUPPORTED, file, 0, 0,
				     "a NumPy file of version %d.%d; 1.0 and 2.0 are read",
				     u[AT_VERSION], u[AT_VERSION + 1]);
	length = u[AT_LENGTH] | (size_t)u[AT_LENGTH + 1] << 8;
	if (u[AT_VERSION] == 2)
		length |= (size_t)u[AT_LENGTH + 2] << 16 | (size_t)u[AT_LENGTH + 3] << 24;
	begin = AT_LENGTH + (u[AT_VERSION] == 2 ? 4 : 2);
	if (length > n - begin)
		return wrong(file, "damaged: its header is longer than the file", err);
	*c = (struct cursor){ bytes + begin, bytes + begin + length };
	return LENS_OK;
}

enum lens_status lens_npy_vector(const char *file, const char *bytes, size_t n, double **out,
				 size_t *n_out, struct lens_error *err)
{
	struct header h = { .bytes = 0 };
	const char *what;
	struct cursor c;
	size_t i, data;

	*out = NULL;
	LENS_TRY(find_header(file, bytes, n, &c, err));
	what = read_pairs(c, &h);
	if (what)
		return wrong(file, what, err);
	*n_out = h.shape[h.rank - 1];
	data = n - (size_t)(c.end - bytes);
	if (*n_out > LENS_VECTOR_MAX || data != *n_out * h.bytes)
		return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				     "damaged: %zu bytes of data; its shape says %zu numbers "
				     "of %zu",
				     data, *n_out, h.bytes);
	*out = lens_calloc(*n_out, sizeof(**out));
	if (!*out)
		return lens_error_nomem(err, *n_out, sizeof(**out));
	for (i = 0; i < *n_out; i++)
		(*out)[i] = number(c.end + i * h.bytes, h.bytes);
	return LENS_OK;
}
