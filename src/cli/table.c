/*
 * cli/table.c: a table for a terminal. In: cells as text; out: lines whose columns stand
 * below each other, wide characters and combining ones counted as a terminal does, and one
 * column shortened so that a line fits.
 */
#include "cli/table_private.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#define LEAST_WIDTH 12 /* of the column that is shortened */

size_t terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize w;
	long n = columns ? strtol(columns, NULL, 10) : 0;

	if (n >= 20 && n <= 10000)
		return (size_t)n;
	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 20)
		return w.ws_col;
	return 100;
}

/* The next character: its bytes (at least 1), and how many places it takes. */
static size_t next_char(const char *s, size_t *width)
{
	utf8proc_int32_t c;
	utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c);

	*width = n > 0 ? (size_t)utf8proc_charwidth(c) : 1;
	return n > 0 ? (size_t)n : 1;
}

/* Places that the first n bytes of s take. */
static size_t width_of(const char *s, size_t n)
{
	size_t all = 0, width, at = 0;

	while (at < n) {
		at += next_char(s + at, &width);
		all += width;
	}
	return all;
}

size_t text_width(const char *s)
{
	return width_of(s, strlen(s));
}

/* Bytes of s that take at most so many places, and what follows them without a place. */
static size_t head_of(const char *s, size_t most)
{
	size_t at = 0, all = 0, n, width;

	while (s[at]) {
		n = next_char(s + at, &width);
		if (all + width > most)
			break;
		all += width;
		at += n;
	}
	return at;
}

/* Where the last of s begins that takes at most so many places: never a combining one. */
static const char *tail_of(const char *s, size_t most)
{
	size_t all = text_width(s), width;

	while (*s && all > most) {
		s += next_char(s, &width);
		all -= width;
		while (*s) {
			size_t n = next_char(s, &width);

			if (width)
				break;
			s += n;
		}
	}
	return s;
}

/* Control characters as escapes. */
static char *clean(const char *s)
{
	struct lens_buf b = LENS_BUF_INIT;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '\n' || c == '\t' || c == '\r')
			lens_buf_printf(&b, NULL, "\\%c",
					c == '\n'   ? 'n'
					: c == '\t' ? 't'
						    : 'r');
		else if (c < 0x20 || c == 0x7f)
			lens_buf_printf(&b, NULL, "\\x%02x", c);
		else
			lens_buf_append(&b, s, 1, NULL);
	}
	if (!b.data)
		lens_buf_append(&b, "", 0, NULL);
	return b.data;
}

void table_add(struct text_table *t, const char *cell)
{
	char **v = lens_grow(t->cell, t->n, &t->cap, sizeof(*v), NULL);

	if (!v)
		return;
	t->cell = v;
	v[t->n] = clean(cell);
	t->n += v[t->n] != NULL;
}

void table_number(struct text_table *t, const char *fmt, double v)
{
	char text[64];

	if (isnan(v))
		snprintf(text, sizeof(text), "-");
	else
		snprintf(text, sizeof(text), fmt, v);
	table_add(t, text);
}

static void spaces(size_t n)
{
	while (n--)
		putchar(' ');
}

/* s in so many places, its middle left out if it takes more. */
static void print_cell(const char *s, size_t places, bool right, bool last)
{
	size_t width = text_width(s), head;
	const char *end;

	if (width <= places) {
		if (right)
			spaces(places - width);
		fputs(s, stdout);
		if (!right && !last)
			spaces(places - width);
		return;
	}
	head = head_of(s, (places - 1) / 2);
	end = tail_of(s, places / 2);
	printf("%.*s…%s", (int)head, s, end);
	width = width_of(s, head) + 1 + text_width(end); /* a wide character may leave a gap */
	spaces(last ? 0 : places - width);
}

static void measure(const struct text_table *t, size_t *width)
{
	size_t i, all = 0;

	memset(width, 0, t->n_columns * sizeof(*width));
	for (i = 0; i < t->n; i++)
		width[i % t->n_columns] =
			lens_max(width[i % t->n_columns], text_width(t->cell[i]));
	for (i = 0; i < t->n_columns; i++)
		all += width[i] + (i ? 2 : 0);
	i = t->elastic;
	if (i < t->n_columns && all > terminal_width()) {
		size_t over = all - terminal_width();

		width[i] = width[i] > over + LEAST_WIDTH ? width[i] - over
							 : lens_min(width[i], LEAST_WIDTH);
	}
}

void table_print(struct text_table *t)
{
	size_t width[TABLE_MOST_COLUMNS], i, k;

	measure(t, width);
	for (i = 0; i + t->n_columns <= t->n; i += t->n_columns) {
		for (k = 0; k < t->n_columns; k++) {
			spaces(k ? 2 : 0);
			print_cell(t->cell[i + k], width[k], t->right[k],
				   k + 1 == t->n_columns);
		}
		putchar('\n');
	}
	while (t->n)
		lens_free(t->cell[--t->n]);
	lens_free(t->cell);
	t->cell = NULL;
	t->cap = 0;
}
