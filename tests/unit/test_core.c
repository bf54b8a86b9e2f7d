/*
 * test_core.c: what every stage uses: errors, checked sizes, allocation, growable
 * buffers, files, digests, small questions about text.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/core.h"
#include "support/cases.h"
#include "support/runs.h"

/* --- errors ---------------------------------------------------------------------------- */

static void first_error_wins(void **state)
{
	struct lens_error e = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(lens_error_at(&e, LENS_ERR_FORMAT, "a.csv", 7, 3, "bad %s %d", "cell",
				       9),
			 LENS_ERR_FORMAT);
	assert_int_equal(lens_error_set(&e, LENS_ERR_IO, "later"), LENS_ERR_IO);
	assert_int_equal(e.code, LENS_ERR_FORMAT);
	assert_string_equal(e.text, "bad cell 9");
	assert_string_equal(e.file, "a.csv");
	assert_int_equal(e.row, 7);
	assert_int_equal(e.column, 3);
	/* nobody listens: the code still comes back */
	assert_int_equal(lens_error_set(NULL, LENS_ERR_NOMEM, "x"), LENS_ERR_NOMEM);
	assert_int_equal(lens_error_sys(NULL, ENOSPC, "f", "write"), LENS_ERR_NOSPACE);
}

static void assert_formats(struct lens_error e, const char *expected)
{
	char buf[4096], small[8];

	assert_string_equal(lens_error_format(&e, buf, sizeof(buf)), expected);
	lens_error_format(&e, small, sizeof(small));
	assert_true(strlen(small) < sizeof(small));
	assert_memory_equal(small, expected, strlen(small));
}

static void formatting(void **state)
{
	(void)state;
	assert_formats((struct lens_error){ .text = "no place" }, "no place");
	assert_formats((struct lens_error){ .text = "t", .file = "f.csv" }, "f.csv: t");
	/* what strangers wrote: escape sequences, half characters */
	assert_formats((struct lens_error){ .text = "a\x1b[2Jb\n\x7f", .file = "\r.csv" },
		       "?.csv: a?[2Jb??");
	assert_formats((struct lens_error){ .text = "\xc3\xa9\xc2\x9b\xe2\x82' \xc3" },
		       "\xc3\xa9???"
		       "?' ?");
	assert_formats((struct lens_error){ .text = "t", .file = "f.csv", .row = 3 },
		       "f.csv:3: t");
	assert_formats(
		(struct lens_error){ .text = "t", .file = "f.csv", .row = 3, .column = 2 },
		"f.csv:3:2: t");
	assert_formats((struct lens_error){ .text = "text", .row = 3 }, "line 3: text");
	assert_formats((struct lens_error){ .text = "t", .row = 3, .column = 2 },
		       "line 3:2: t");
}

static void long_texts(void **state)
{
	struct lens_error e = LENS_ERROR_INIT;
	char text[4000], buf[4096];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	lens_error_at(&e, LENS_ERR_IO, text, 1, 1, "%s", text);
	assert_int_equal(strlen(e.file), sizeof(e.file) - 1);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	lens_error_format(&e, buf, sizeof(buf));
	assert_non_null(strstr(buf, "xxx:1:1: xxx"));
}

static void system_errors(void **state)
{
	static const struct {
		int number;
		enum lens_status code;
	} known[] = { { ENOSPC, LENS_ERR_NOSPACE },
		      { EDQUOT, LENS_ERR_NOSPACE },
		      { ENOMEM, LENS_ERR_NOMEM },
		      { ENOENT, LENS_ERR_IO } };
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct lens_error e = LENS_ERROR_INIT;

		assert_int_equal(lens_error_sys(&e, known[i].number, "f", "open"),
				 known[i].code);
		assert_non_null(strstr(e.text, "cannot open: "));
		assert_non_null(strstr(e.text, strerror(known[i].number)));
	}
}

/* --- sizes, allocation -------------------------------------------------------------------- */

static void checked_sizes(void **state)
{
	size_t out = 5;

	(void)state;
	assert_true(lens_size_mul(6, 7, &out) && out == 42);
	assert_true(lens_size_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX);
	assert_true(lens_size_mul(SIZE_MAX, 0, &out) && out == 0);
	assert_false(lens_size_mul(SIZE_MAX / 2 + 1, 2, &out));
	assert_false(lens_size_mul((size_t)1 << 32, (size_t)1 << 32, &out));
	assert_true(lens_size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
	assert_false(lens_size_add(SIZE_MAX, 1, &out));
}

static void allocation(void **state)
{
	unsigned char *p = lens_calloc(3, 5);
	void *q;
	size_t i;

	(void)state;
	for (i = 0; i < 15; i++)
		assert_int_equal(p[i], 0);
	p[14] = 9;
	p = lens_realloc(p, 1000, 2);
	assert_int_equal(p[14], 9);
	assert_null(lens_calloc(SIZE_MAX, 2));
	assert_null(lens_realloc(p, SIZE_MAX / 2 + 1, 2));
	assert_null(lens_alloc_aligned((size_t)1 << 63, 2));
	assert_int_equal(p[14], 9); /* p stayed valid */
	lens_free(p);
	for (i = 0; i < 100; i += 9) {
		q = lens_alloc_aligned(i, 3);
		assert_int_equal((uintptr_t)q % 64, 0);
		memset(q, 1, i * 3);
		lens_free(q);
	}
	q = lens_calloc(0, 8);
	assert_non_null(q);
	lens_free(q);
	lens_free(NULL);
	assert_null(lens_strdup(NULL));
	q = lens_strdup("abc");
	assert_string_equal(q, "abc");
	lens_free(q);
}

static void injected_failures(void **state)
{
	void *a, *b, *c;

	(void)state;
	lens_alloc_fail_at(2);
	a = lens_calloc(1, 1);
	b = lens_alloc_aligned(1, 1);
	c = lens_realloc(NULL, 1, 1);
	assert_non_null(a);
	assert_null(b); /* the second, and no other */
	assert_non_null(c);
	lens_free(a);
	lens_free(c);
	lens_alloc_fail_at(1);
	lens_alloc_fail_at(0);
	a = lens_strdup("x");
	assert_non_null(a);
	lens_free(a);
	lens_alloc_fail_at(1);
	assert_null(lens_strdup("x"));
}

static void out_of_memory_text(void **state)
{
	struct lens_error e = LENS_ERROR_INIT;

	(void)state;
	assert_int_equal(lens_error_nomem(&e, 12, 8), LENS_ERR_NOMEM);
	assert_non_null(strstr(e.text, "12"));
	assert_non_null(strstr(e.text, "8 bytes"));
}

/* --- buffers ---------------------------------------------------------------------- */

static void byte_buffers(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t i;

	(void)state;
	assert_int_equal(lens_buf_append(&b, NULL, 0, NULL), LENS_OK);
	assert_string_equal(b.data, "");
	for (i = 0; i < 1000; i++)
		assert_int_equal(lens_buf_append(&b, "a\0b", 3, NULL), LENS_OK);
	assert_int_equal(b.len, 3000);
	assert_memory_equal(b.data + 2997, "a\0b", 4); /* and the NUL */
	b.len = 0;
	assert_int_equal(lens_buf_printf(&b, NULL, "%d %s", 42, "x"), LENS_OK);
	assert_string_equal(b.data, "42 x");
	assert_int_equal(lens_buf_printf(&b, NULL, "%.5000f", 0.0), LENS_OK);
	assert_int_equal(b.len, 4 + 5002);
	assert_int_equal(strlen(b.data), b.len);
	lens_buf_release(&b);
	assert_null(b.data);
	assert_int_equal(b.len + b.cap, 0);
}

static void buffers_out_of_memory(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;
	struct lens_ids ids = LENS_IDS_INIT;
	struct lens_error e = LENS_ERROR_INIT;
	char text[100] = "keep";
	int i;

	(void)state;
	assert_int_equal(lens_buf_append(&b, text, 4, NULL), LENS_OK);
	lens_alloc_fail_at(1);
	assert_int_equal(lens_buf_append(&b, text, sizeof(text), &e), LENS_ERR_NOMEM);
	assert_int_equal(e.code, LENS_ERR_NOMEM);
	lens_alloc_fail_at(1);
	assert_int_equal(lens_buf_printf(&b, NULL, "%200d", 1), LENS_ERR_NOMEM);
	lens_alloc_fail_at(0);
	assert_string_equal(b.data, "keep");
	/* lengths that cannot be */
	assert_int_equal(lens_buf_append(&b, text, SIZE_MAX, NULL), LENS_ERR_NOMEM);
	assert_int_equal(lens_buf_append(&b, text, SIZE_MAX - 5, NULL), LENS_ERR_NOMEM);
	assert_int_equal(b.len, 4);
	lens_buf_release(&b);
	lens_alloc_fail_at(1);
	assert_int_equal(lens_ids_push(&ids, 1, NULL), LENS_ERR_NOMEM);
	lens_alloc_fail_at(0);
	for (i = 0; i < 1000; i++)
		assert_int_equal(lens_ids_push(&ids, -i, NULL), LENS_OK);
	assert_int_equal(ids.n, 1000);
	assert_int_equal(ids.v[999], -999);
	lens_ids_release(&ids);
	assert_null(ids.v);
}

/* --- files ------------------------------------------------------------------------ */

static void whole_files(void **state)
{
	char data[70000];
	struct lens_buf b = LENS_BUF_INIT;
	struct lens_error e = LENS_ERROR_INIT;
	char *path;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + i / 256);
	path = test_write_file("core", data, sizeof(data));
	assert_int_equal(lens_file_read(path, sizeof(data), &b, NULL), LENS_OK);
	assert_int_equal(b.len, sizeof(data));
	assert_memory_equal(b.data, data, sizeof(data));
	assert_int_equal(b.data[b.len], 0);
	/* one byte too many */
	assert_int_equal(lens_file_read(path, sizeof(data) - 1, &b, &e), LENS_ERR_FORMAT);
	assert_string_equal(e.file, path);
	assert_non_null(strstr(e.text, "69999"));
	assert_int_equal(lens_file_read(path, 0, &b, NULL), LENS_ERR_FORMAT);
	/* emptied first, whatever was in it */
	assert_int_equal(truncate(path, 3), 0);
	assert_int_equal(lens_file_read(path, 3, &b, NULL), LENS_OK);
	assert_int_equal(b.len, 3);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(lens_file_read(path, 0, &b, NULL), LENS_OK);
	assert_int_equal(b.len, 0);
	assert_string_equal(b.data, "");
	lens_alloc_fail_at(1);
	lens_buf_release(&b);
	assert_int_equal(lens_file_read(path, 9, &b, NULL), LENS_ERR_NOMEM);
	lens_alloc_fail_at(0);
	unlink(path);
	e = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_file_read(path, 9, &b, &e), LENS_ERR_IO);
	assert_non_null(strstr(e.text, "No such file"));
	lens_buf_release(&b);
	lens_free(path);
}

static void not_regular_files(void **state)
{
	struct lens_buf b = LENS_BUF_INIT;
	struct lens_error e = LENS_ERROR_INIT;
	char *fifo = test_tmp_path("fifo");

	(void)state;
	assert_int_equal(lens_file_read("tests", 100, &b, &e), LENS_ERR_IO);
	assert_non_null(strstr(e.text, "not a regular file"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(lens_file_read(fifo, 100, &b, NULL), LENS_ERR_IO); /* and no waiting */
	unlink(fifo);
	assert_int_equal(lens_file_read("/dev/zero", 100, &b, NULL), LENS_ERR_IO);
	lens_buf_release(&b);
	lens_free(fifo);
}

static void paths(void **state)
{
	static const char *const joined[][3] = { { "a", "b", "a/b" },
						 { "a/", "b", "a/b" },
						 { "/", "b", "/b" },
						 { "", "b", "b" },
						 { "a/b", "c.d", "a/b/c.d" } };
	size_t i;

	(void)state;
	for (i = 0; i < 5; i++) {
		char *p = lens_path_join(joined[i][0], joined[i][1]);

		assert_string_equal(p, joined[i][2]);
		lens_free(p);
	}
	lens_alloc_fail_at(1);
	assert_null(lens_path_join("a", "b"));
	assert_true(lens_file_exists("tests/unit"));
	assert_false(lens_file_exists("tests/unit/none"));
}

/* --- SHA-256 ---------------------------------------------------------------------- */

static void assert_hex(const uint8_t *digest, size_t n, const char *expected)
{
	char hex[LENS_SHA256_HEX];

	lens_hex(digest, n, hex);
	assert_string_equal(hex, expected);
}

static void assert_digest(const uint8_t *digest, const char *expected)
{
	assert_hex(digest, LENS_SHA256_BYTES, expected);
}

/* NIST FIPS 180-4's examples; a million times 'a'. */
#define SHA_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SHA_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define TWO_BLOCKS "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"
#define SHA_TWO_BLOCKS "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
#define SHA_MILLION "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void sha256_vectors(void **state)
{
	uint8_t digest[LENS_SHA256_BYTES];
	struct lens_sha256 *s;
	char block[1000];
	int i;

	(void)state;
	assert_int_equal(lens_sha256("", 0, digest, NULL), LENS_OK);
	assert_digest(digest, SHA_EMPTY);
	assert_int_equal(lens_sha256("abc", 3, digest, NULL), LENS_OK);
	assert_digest(digest, SHA_ABC);
	assert_int_equal(lens_sha256(TWO_BLOCKS, strlen(TWO_BLOCKS), digest, NULL), LENS_OK);
	assert_digest(digest, SHA_TWO_BLOCKS);
	memset(block, 'a', sizeof(block));
	assert_int_equal(lens_sha256_create(&s, NULL), LENS_OK);
	for (i = 0; i < 1000; i++)
		assert_int_equal(lens_sha256_update(s, block, sizeof(block), NULL), LENS_OK);
	assert_int_equal(lens_sha256_final(s, digest, NULL), LENS_OK);
	assert_digest(digest, SHA_MILLION);
	/* afresh */
	assert_int_equal(lens_sha256_update(s, "a", 1, NULL), LENS_OK);
	assert_int_equal(lens_sha256_update(s, "bc", 2, NULL), LENS_OK);
	assert_int_equal(lens_sha256_final(s, digest, NULL), LENS_OK);
	assert_digest(digest, SHA_ABC);
	assert_int_equal(lens_sha256_final(s, digest, NULL), LENS_OK);
	assert_digest(digest, SHA_EMPTY);
	lens_sha256_destroy(s);
	lens_sha256_destroy(NULL);
}

/* As Python's xxhash 4.1 has them: lengths of three of the algorithm's branches. */
static void xxh3_vectors(void **state)
{
	uint8_t digest[LENS_XXH3_BYTES];
	char *million = malloc(1000000);

	(void)state;
	assert_non_null(million);
	memset(million, 'a', 1000000);
	lens_xxh3("", 0, digest);
	assert_hex(digest, sizeof(digest), "99aa06d3014798d86001c324468d497f");
	lens_xxh3("abc", 3, digest);
	assert_hex(digest, sizeof(digest), "06b05ab6733a618578af5f94892f3950");
	lens_xxh3(million, 1000000, digest);
	assert_hex(digest, sizeof(digest), "a545df8e384a9579b1fd6fae5285c4eb");
	free(million);
}

static void hexadecimal(void **state)
{
	const uint8_t bytes[] = { 0x00, 0x0f, 0xa5, 0xff };
	char out[9];

	(void)state;
	lens_hex(bytes, 4, out);
	assert_string_equal(out, "000fa5ff");
	lens_hex(bytes, 0, out);
	assert_string_equal(out, "");
}

/* --- text ------------------------------------------------------------------------- */

static void utf8(void **state)
{
	static const struct {
		const char *s;
		size_t n;
		bool valid;
	} known[] = {
		{ "", 0, true },
		{ "plain", 5, true },
		{ "a\0b", 3, true },
		{ "\xc2\x80", 2, true },
		{ "\xdf\xbf", 2, true },
		{ "\xe0\xa0\x80", 3, true },
		{ "\xed\x9f\xbf", 3, true },
		{ "\xee\x80\x80", 3, true },
		{ "\xef\xbf\xbd", 3, true },
		{ "\xef\xbf\xbf", 3, true }, /* U+FFFF is a code point as any */
		{ "\xf0\x90\x80\x80", 4, true },
		{ "\xf4\x8f\xbf\xbf", 4, true }, /* U+10FFFF */
		{ "\x80", 1, false },            /* a continuation alone */
		{ "\xc2", 1, false },            /* cut off */
		{ "\xe2\x82", 2, false },
		{ "\xf0\x9f\x98", 3, false },
		{ "a\xe2\x82z", 4, false },
		{ "\xc0\x80", 2, false }, /* overlong */
		{ "\xc1\xbf", 2, false },
		{ "\xe0\x9f\xbf", 3, false },
		{ "\xf0\x8f\xbf\xbf", 4, false },
		{ "\xed\xa0\x80", 3, false }, /* surrogates */
		{ "\xed\xbf\xbf", 3, false },
		{ "\xf4\x90\x80\x80", 4, false }, /* past U+10FFFF */
		{ "\xf8\x88\x80\x80\x80", 5, false },
		{ "\xff", 1, false },
		{ "\xfe", 1, false },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		/* an allocation of its own: ASan sees a byte past the end */
		char *exact = lens_calloc(known[i].n, 1);

		memcpy(exact, known[i].s, known[i].n);
		if (lens_utf8_valid(exact, known[i].n) != known[i].valid)
			fail_msg("UTF-8 case %zu", i);
		lens_free(exact);
	}
}

/* Every code point as UTF-8 writes it, and no surrogate. */
static void utf8_code_points(void **state)
{
	uint32_t c;

	(void)state;
	for (c = 0; c <= 0x10ffff; c++) {
		char s[4];
		size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, i;

		for (i = n; i-- > 1;)
			s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
		s[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xff) | c >> 6 * (n - 1));
		if (lens_utf8_valid(s, n) != (c < 0xd800 || c > 0xdfff))
			fail_msg("U+%04X", c);
	}
}

static void nearest(void **state)
{
	static const char *const names[] = { "threads", "tables", "cache.hooks", "data.csv",
					     "cpu" };
	char long_word[200];

	(void)state;
	assert_string_equal(lens_nearest("thread", names, 5), "threads");
	assert_string_equal(lens_nearest("tabels", names, 5), "tables");
	assert_string_equal(lens_nearest("cache.hook", names, 5), "cache.hooks");
	assert_string_equal(lens_nearest("cache_hoks", names, 5), "cache.hooks");
	assert_string_equal(lens_nearest("cpu", names, 5), "cpu");
	assert_null(lens_nearest("wholly different", names, 5));
	assert_null(lens_nearest("threads", names, 0));
	memset(long_word, 'a', sizeof(long_word) - 1);
	long_word[sizeof(long_word) - 1] = '\0';
	assert_null(lens_nearest(long_word, names, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_error_wins),
		cmocka_unit_test(formatting),
		cmocka_unit_test(long_texts),
		cmocka_unit_test(system_errors),
		cmocka_unit_test(checked_sizes),
		cmocka_unit_test(allocation),
		cmocka_unit_test(injected_failures),
		cmocka_unit_test(out_of_memory_text),
		cmocka_unit_test(byte_buffers),
		cmocka_unit_test(buffers_out_of_memory),
		cmocka_unit_test(whole_files),
		cmocka_unit_test(not_regular_files),
		cmocka_unit_test(paths),
		cmocka_unit_test(sha256_vectors),
		cmocka_unit_test(xxh3_vectors),
		cmocka_unit_test(hexadecimal),
		cmocka_unit_test(utf8),
		cmocka_unit_test(utf8_code_points),
		cmocka_unit_test(nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
