/*
 * core/status.c: the error object. In: what went wrong in a function; out: one struct
 * lens_error for its caller. Text is formatted here, but not printed.
 */
#include "h5lens/core.h"

#include <stdarg.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static enum lens_status set(struct lens_error *err, enum lens_status code, const char *file,
			    long row, long column, const char *fmt, va_list ap)
{
	if (!err || err->code != LENS_OK)
		return code;
	err->code = code;
	snprintf(err->file, sizeof(err->file), "%s", file ? file : "");
	err->row = row;
	err->column = column;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	return code;
}

enum lens_status lens_error_set(struct lens_error *err, enum lens_status code, const char *fmt,
				...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, code, NULL, 0, 0, fmt, ap);
	va_end(ap);
	return code;
}

enum lens_status lens_error_at(struct lens_error *err, enum lens_status code, const char *file,
			       long row, long column, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set(err, code, file, row, column, fmt, ap);
	va_end(ap);
	return code;
}

enum lens_status lens_error_pass(struct lens_error *err, const struct lens_error *why)
{
	if (err && err->code == LENS_OK)
		*err = *why;
	return why->code;
}

void lens_error_add(struct lens_error *err, const char *fmt, ...)
{
	size_t n = err ? strlen(err->text) : 0;
	va_list ap;

	if (!err || err->code == LENS_OK)
		return;
	va_start(ap, fmt);
	vsnprintf(err->text + n, sizeof(err->text) - n, fmt, ap);
	va_end(ap);
}

enum lens_status lens_error_sys(struct lens_error *err, int errno_, const char *file,
				const char *what)
{
	enum lens_status code = LENS_ERR_IO;

	if (errno_ == ENOSPC || errno_ == EDQUOT || errno_ == EFBIG)
		code = LENS_ERR_NOSPACE;
	else if (errno_ == ENOMEM)
		code = LENS_ERR_NOMEM;
	return lens_error_at(err, code, file, 0, 0, "cannot %s: %s", what, strerror(errno_));
}

/*
 * An error quotes untrusted text, sometimes cut in the middle of a character: a
 * terminal must get no control characters (C0, DEL, C1), and valid UTF-8 only.
 */
static void clean(char *s)
{
	while (*s) {
		unsigned char c = (unsigned char)*s;
		size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

		if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[1] < 0xa0) ||
		    strnlen(s, n) < n || !lens_utf8_valid(s, n)) {
			*s++ = '?';
			continue;
		}
		s += n;
	}
}

const char *lens_error_format(const struct lens_error *err, char *buf, unsigned long size)
{
	char place[64] = "";

	if (err->row > 0 && err->column > 0)
		snprintf(place, sizeof(place), "%ld:%ld:", err->row, err->column);
	else if (err->row > 0)
		snprintf(place, sizeof(place), "%ld:", err->row);
	if (err->file[0])
		snprintf(buf, size, "%s:%s %s", err->file, place, err->text);
	else if (place[0])
		snprintf(buf, size, "line %s %s", place, err->text);
	else
		snprintf(buf, size, "%s", err->text);
	clean(buf);
	return buf;
}
