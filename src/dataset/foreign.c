/*
 * dataset/foreign.c: recognises files that are given as CSV and are something else. In:
 * the first bytes of a file; out: what it is, in words for its owner.
 */
#include "dataset/foreign_private.h"

#include <string.h>
#include <strings.h>

#define UNPACK "; unpack it first"
#define AS_CSV "; write it as CSV (pandas: to_csv(…, index=False))"
#define AS_UTF8 "; save it as UTF-8"

/* How a file begins; s may hold NUL bytes. */
static const struct magic {
	const char *s;
	size_t n;
	const char *text;
} magics[] = {
#define MAGIC(s, text)                                                                         \
	{                                                                                      \
		s, sizeof(s) - 1, text                                                         \
	}
	MAGIC("\x1f\x8b", "gzip" UNPACK),
	MAGIC("\xfd"
	      "7zXZ",
	      "xz" UNPACK),
	MAGIC("\x28\xb5\x2f\xfd", "zstd" UNPACK),
	MAGIC("7z\xbc\xaf", "7z" UNPACK),
	MAGIC("PAR1", "Parquet" AS_CSV),
	MAGIC("ARROW1\0\0", "Arrow (Feather)" AS_CSV),
	MAGIC("\x89HDF\r\n", "HDF5" AS_CSV),
	MAGIC("\x93NUMPY", "NumPy's .npy" AS_CSV),
	MAGIC("SQLite format 3", "an SQLite database" AS_CSV),
	MAGIC("\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)" AS_CSV),
	MAGIC("%PDF", "PDF" AS_CSV),
	MAGIC("version https://git-lfs", "a git-lfs pointer, not the file itself; get it with "
					 "`git lfs pull`"),
	/* UTF-32 before UTF-16: its mark begins with that of UTF-16 */
	MAGIC("\xff\xfe\0\0", "UTF-32" AS_UTF8),
	MAGIC("\0\0\xfe\xff", "UTF-32" AS_UTF8),
	MAGIC("\xff\xfe", "UTF-16" AS_UTF8),
	MAGIC("\xfe\xff", "UTF-16" AS_UTF8),
#undef MAGIC
};

static bool holds(const unsigned char *s, size_t n, const char *what)
{
	return memmem(s, n, what, strlen(what)) != NULL;
}

static const char *zip(const unsigned char *s, size_t n)
{
	if (holds(s, n, "[Content_Types].xml") || holds(s, n, "xl/"))
		return "an Excel workbook (xlsx); save it as CSV in UTF-8";
	if (holds(s, n, "opendocument"))
		return "an OpenDocument sheet (ods); save it as CSV in UTF-8";
	if (holds(s, n, "data.pkl") || holds(s, n, ".npy"))
		return "a file of PyTorch or NumPy" AS_CSV;
	return "zip" UNPACK;
}

/* ASCII text with two bytes a character has a NUL in every other place. */
static const char *wide_text(const unsigned char *s, size_t n)
{
	size_t i, nul[2] = { 0, 0 };

	n = n < 512 ? n / 2 * 2 : 512;
	for (i = 0; i < n; i++)
		nul[i % 2] += !s[i];
	if (n >= 4 && nul[0] + nul[1] >= n * 2 / 5 && (!nul[0] || !nul[1]))
		return "UTF-16 without BOM" AS_UTF8;
	return NULL;
}

static const char *text(const unsigned char *s, size_t n)
{
	size_t i = strspn((const char *)s, " \t\r\n");
	const unsigned char *t = s + i;

	n -= i;
	if (n >= 2 && t[0] == '{' && strchr("\"}", t[1]))
		return "JSON lines (or JSON)" AS_CSV;
	if (n >= 2 && t[0] == '[' && t[1 + strspn((const char *)t + 1, " \t\r\n")] == '{')
		return "JSON" AS_CSV;
	if (!strncasecmp((const char *)t, "<!doctype", 9) ||
	    !strncasecmp((const char *)t, "<html", 5) || !strncmp((const char *)t, "<?xml", 5))
		return "HTML or XML: a page instead of the file, perhaps";
	return NULL;
}

/* "sep=;" alone on the first line, which only Excel understands. */
static const char *excel_line(const unsigned char *s, size_t n)
{
	if (n < 6 || strncasecmp((const char *)s, "sep=", 4) != 0 ||
	    (s[5] != '\n' && s[5] != '\r'))
		return NULL;
	if (s[4] == ';')
		return "a file that begins with Excel's sep= line; remove that line, and set "
		       "data.separator: semicolon";
	if (s[4] == '\t')
		return "a file that begins with Excel's sep= line; remove that line, and set "
		       "data.separator: tab";
	return "a file that begins with Excel's sep= line; remove that line";
}

const char *lens_foreign_file(const unsigned char *s, size_t n)
{
	unsigned char head[600] = ""; /* always ends with a NUL */
	size_t i, n_head;
	const char *what;

	for (i = 0; i < sizeof(magics) / sizeof(*magics); i++) {
		if (n >= magics[i].n && !memcmp(s, magics[i].s, magics[i].n))
			return magics[i].text;
	}
	if (n >= 10 && !memcmp(s, "BZh", 3) && !memcmp(s + 4, "1AY&SY", 6))
		return "bzip2" UNPACK;
	if (n >= 4 && !memcmp(s, "PK\3\4", 4))
		return zip(s, n);
	what = wide_text(s, n);
	if (what)
		return what;
	if (n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3)) {
		s += 3;
		n -= 3;
	}
	n_head = lens_min(n, sizeof(head) - 1);
	memcpy(head, s, n_head);
	what = text(head, n_head);
	return what ? what : excel_line(head, n_head);
}
