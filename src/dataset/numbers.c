/*
 * dataset/numbers.c: does a column hold numbers? In: its cells, one after another; out:
 * int64 or float64 if no cell's text loses anything, else strings: 007, +49171 and
 * 9007199254740993.5 stay as they are.
 */
#include "dataset/numbers_private.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* float64 preserves any decimal of so many digits. */
#define DECIMAL_DIGITS 15

/* How many digits there are at s; *end is behind them. */
static size_t digits(const char *s, const char **end)
{
	size_t n = strspn(s, "0123456789");

	*end = s + n;
	return n;
}

/* −12, 0, 12; not 012, +12, −0 */
static bool is_canonical(const char *s)
{
	const char *end;

	s += *s == '-' && s[1] != '0';
	return digits(s, &end) && !*end && (s[0] != '0' || !s[1]);
}

static bool fits_int64(const char *s)
{
	errno = 0;
	strtoll(s, NULL, 10);
	return !errno;
}

/* 12, −0.5, .5, 1e-3: at most 15 digits, finite, no superfluous leading 0. */
static bool is_decimal(const char *s)
{
	const char *start = s += *s == '-', *end;
	size_t whole = digits(s, &end), fraction = 0;
	double x;

	if (whole > 1 && *s == '0')
		return false;
	if (*end == '.')
		fraction = digits(end + 1, &end);
	if (!whole && !fraction)
		return false;
	for (s = start; *s == '0' || *s == '.'; s++) /* 0.001 has one significant digit */
		;
	if (s < end &&
	    (size_t)(end - s) - (memchr(s, '.', (size_t)(end - s)) != NULL) > DECIMAL_DIGITS)
		return false;
	if (*end == 'e' || *end == 'E') {
		end += 1 + (end[1] == '-' || end[1] == '+');
		if (!digits(end, &end))
			return false;
	}
	errno = 0;
	x = strtod(start, NULL);
	return !*end && !errno && isfinite(x);
}

bool lens_cell_is_missing(const char *text)
{
	return !*text || !strcmp(text, "NA");
}

void lens_column_guess_add(struct lens_column_guess *g, const char *text)
{
	bool missing = lens_cell_is_missing(text);

	g->not_int = g->not_int || missing || !is_canonical(text) || !fits_int64(text);
	g->not_real = g->not_real || (!missing && !is_decimal(text));
	g->filled = g->filled || !missing;
}

enum lens_column_kind lens_column_guess_kind(const struct lens_column_guess *g)
{
	if (!g->filled)
		return LENS_COLUMN_TEXT;
	if (!g->not_int)
		return LENS_COLUMN_INT;
	return g->not_real ? LENS_COLUMN_TEXT : LENS_COLUMN_REAL;
}

int64_t lens_cell_int(const char *text)
{
	return strtoll(text, NULL, 10);
}

double lens_cell_real(const char *text)
{
	return lens_cell_is_missing(text) ? (double)NAN : strtod(text, NULL);
}
