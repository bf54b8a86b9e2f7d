/*
 * core/text.c: small functions on text.
 */
#include "h5lens/core.h"

#include <string.h>
#include <utf8proc.h>

int lens_bytes_compare(const void *a, size_t n_a, const void *b, size_t n_b)
{
	int order = memcmp(a, b, lens_min(n_a, n_b));

	return order ? order : (n_a > n_b) - (n_a < n_b);
}

bool lens_utf8_valid(const char *s, size_t n)
{
	size_t i = 0;

	while (i < n) {
		utf8proc_int32_t cp;
		utf8proc_ssize_t step;

		if ((unsigned char)s[i] < 0x80) {
			i++;
			continue;
		}
		step = utf8proc_iterate((const utf8proc_uint8_t *)s + i,
					(utf8proc_ssize_t)(n - i), &cp);
		if (step <= 0)
			return false;
		i += (size_t)step;
	}
	return true;
}

bool lens_white_space(int32_t c)
{
	return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

bool lens_begins_with_space(const char *s, size_t n)
{
	utf8proc_int32_t c;

	return utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &c) > 0 &&
	       lens_white_space(c);
}

bool lens_ends_with_space(const char *s, size_t n)
{
	size_t last = n;

	while (last && ((unsigned char)s[--last] & 0xc0) == 0x80)
		;
	return n && lens_begins_with_space(s + last, n - last);
}

/* Levenshtein distance; words longer than the table count as far apart. */
static size_t distance(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b), row[65], i, j;

	if (na > 64 || nb > 64)
		return SIZE_MAX;
	for (j = 0; j <= nb; j++)
		row[j] = j;
	for (i = 1; i <= na; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (j = 1; j <= nb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			best = lens_min(best, lens_min(row[j], row[j - 1]) + 1);
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[nb];
}

const char *lens_nearest(const char *word, const char *const *names, size_t n)
{
	size_t i, limit = strlen(word) / 3 + 2;
	const char *best = NULL;

	for (i = 0; i < n; i++) {
		size_t d = distance(word, names[i]);

		if (d < limit) {
			limit = d;
			best = names[i];
		}
	}
	return best;
}
