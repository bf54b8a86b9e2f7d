/*
 * tokenizer/bytelevel.c: bytes as printable characters (GPT-2's encoder.py,
 * bytes_to_unicode), tokens back to bytes, bytes to text.
 */
#include "tokenizer/bytelevel_private.h"

void lens_bytelevel_init(struct lens_bytelevel *b)
{
	uint16_t next = 256;
	int i;

	for (i = 0; i < LENS_BYTELEVEL_CHARS; i++)
		b->byte[i] = -1;
	for (i = 0; i < 256; i++) {
		bool printable =
			(i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;

		b->ch[i] = printable ? (uint16_t)i : next++;
		b->byte[b->ch[i]] = (int16_t)i;
	}
}

size_t lens_bytelevel_put(const struct lens_bytelevel *b, uint8_t byte, char out[2])
{
	uint16_t c = b->ch[byte];

	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	out[0] = (char)(0xc0 | c >> 6);
	out[1] = (char)(0x80 | (c & 0x3f));
	return 2;
}

/* The byte of the character at s (valid UTF-8), or -1; *step gets its length. */
static int byte_of_char(const struct lens_bytelevel *b, const unsigned char *s, size_t n,
			size_t *step)
{
	unsigned c = s[0];

	*step = 1;
	if (c >= 0x80) {
		if ((c & 0xe0) != 0xc0 || n < 2)
			return -1;
		c = (c & 0x1f) << 6 | (s[1] & 0x3f);
		*step = 2;
	}
	return c < LENS_BYTELEVEL_CHARS ? b->byte[c] : -1;
}

enum lens_status lens_bytelevel_bytes(const struct lens_bytelevel *b, const char *token,
				      size_t len, struct lens_buf *out, struct lens_error *err)
{
	size_t i = 0, start = out->len, step;

	while (i < len) {
		int byte = byte_of_char(b, (const unsigned char *)token + i, len - i, &step);
		char c = (char)byte;

		if (byte < 0) {
			out->len = start;
			return lens_buf_append(out, token, len, err);
		}
		LENS_TRY(lens_buf_append(out, &c, 1, err));
		i += step;
	}
	return LENS_OK;
}

/*
 * The length of the well-formed character at s, or minus the length of the
 * longest beginning of one (at least 1): Unicode 14, table 3-7 and section
 * 3.9, "U+FFFD substitution of maximal subparts".
 */
static int char_length(const unsigned char *s, size_t n)
{
	unsigned char c = s[0], low = 0x80, high = 0xbf;
	int need, i;

	if (c < 0x80)
		return 1;
	if (c < 0xc2 || c > 0xf4)
		return -1;
	need = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (c == 0xe0)
		low = 0xa0;
	else if (c == 0xed)
		high = 0x9f;
	else if (c == 0xf0)
		low = 0x90;
	else if (c == 0xf4)
		high = 0x8f;
	for (i = 1; i < need; i++) {
		if ((size_t)i >= n || s[i] < low || s[i] > high)
			return -i;
		low = 0x80;
		high = 0xbf;
	}
	return need;
}

enum lens_status lens_utf8_lossy(const char *s, size_t n, struct lens_buf *out,
				 struct lens_error *err)
{
	size_t i = 0, from = 0;

	while (i < n) {
		int k = char_length((const unsigned char *)s + i, n - i);

		if (k > 0) {
			i += (size_t)k;
			continue;
		}
		LENS_TRY(lens_buf_append(out, s + from, i - from, err));
		LENS_TRY(lens_buf_append(out, "\xef\xbf\xbd", 3, err));
		i += (size_t)-k;
		from = i;
	}
	return lens_buf_append(out, s + from, n - from, err);
}
