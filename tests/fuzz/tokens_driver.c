/*
 * tests/fuzz/tokens_driver.c: a filter for scripts/check_tokenizer.py. In:
 * NUL-separated records on stdin; out: one line each. `encode DIR`: a text ->
 * its ids, or "error: " and why not; `places DIR`: a text -> the token of each of its
 * bytes; `decode DIR`: ids -> the text in hex. A text may contain NUL as the two bytes "\0", a
 * backslash as "\\".
 */
#include "h5lens/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const struct lens_error *err)
{
	char text[2048];

	fflush(stdout);
	fprintf(stderr, "%s\n", lens_error_format(err, text, sizeof(text)));
	return 1;
}

static size_t unescape(char *s, size_t n)
{
	size_t i, k = 0;

	for (i = 0; i < n; i++) {
		if (s[i] == '\\' && i + 1 < n)
			s[k++] = s[++i] == '0' ? '\0' : s[i];
		else
			s[k++] = s[i];
	}
	return k;
}

static void print(const int32_t *v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		printf("%s%d", i ? " " : "", (int)v[i]);
	putchar('\n');
}

static int encode(const struct lens_tokenizer *tok, char *text, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;

	n = unescape(text, n);
	if (lens_tokenizer_encode(tok, text, n, &ids, &err) != LENS_OK)
		printf("error: %s", err.text);
	print(ids.v, ids.n);
	lens_ids_release(&ids);
	return 0;
}

static int places(const struct lens_tokenizer *tok, char *text, size_t n)
{
	int32_t *place = lens_calloc(n, sizeof(*place));
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	enum lens_status st;

	if (!place)
		return 1;
	n = unescape(text, n);
	st = lens_tokenizer_encode_places(tok, text, n, &ids, place, &err);
	if (st != LENS_OK)
		printf("error: %s", err.text);
	print(place, st == LENS_OK ? n : 0);
	lens_ids_release(&ids);
	lens_free(place);
	return 0;
}

static int decode(const struct lens_tokenizer *tok, const char *text)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_buf out = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	char *end;
	long id;
	size_t i;

	for (id = strtol(text, &end, 10); end != text && st == LENS_OK;
	     id = strtol(text, &end, 10)) {
		st = lens_ids_push(&ids, (int32_t)id, &err);
		text = end;
	}
	if (st == LENS_OK)
		st = lens_tokenizer_decode(tok, ids.v, ids.n, &out, &err);
	if (st != LENS_OK)
		return fail(&err);
	for (i = 0; i < out.len; i++)
		printf("%02x", (unsigned char)out.data[i]);
	putchar('\n');
	lens_ids_release(&ids);
	lens_buf_release(&out);
	return 0;
}

int main(int argc, char **argv)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_tokenizer *tok;
	char *record = NULL;
	size_t cap = 0;
	ssize_t n;
	int rc = 0;

	if (argc != 3 || (strcmp(argv[1], "encode") && strcmp(argv[1], "places") &&
			  strcmp(argv[1], "decode"))) {
		fprintf(stderr, "usage: tokens_driver encode|places|decode DIR < records\n");
		return 2;
	}
	if (lens_tokenizer_open(argv[2], &tok, &err) != LENS_OK)
		return fail(&err);
	while (!rc && (n = getdelim(&record, &cap, '\0', stdin)) >= 0) {
		if (n && record[n - 1] == '\0')
			n--;
		if (argv[1][0] == 'd')
			rc = decode(tok, record);
		else
			rc = (argv[1][0] == 'e' ? encode : places)(tok, record, (size_t)n);
	}
	free(record);
	lens_tokenizer_destroy(tok);
	return rc;
}
