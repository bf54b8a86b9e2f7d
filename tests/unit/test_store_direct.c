/*
 * test_store_direct.c: large chunks, which go past the page cache where the disk allows:
 * the same bytes either way, and a disk that is full, broken, refuses or takes a part of a
 * chunk does no harm.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "store/io_private.h"
#include "support/runs.h"
#include "support/storefile.h"

/* 40 pages and 1,696 bytes a chunk: its end goes another way than the rest. */
#define CHUNK 41384u
#define CHUNKS 6

/* The buffer lies so many bytes past a page. */
static enum lens_status write_large(size_t past, struct lens_error *err)
{
	struct lens_dataset_spec spec = { .path = "/large",
					  .dtype = LENS_F32,
					  .rank = 1,
					  .dim = { "x" },
					  .extent = { CHUNKS * CHUNK },
					  .chunk = { CHUNK } };
	unsigned char *page = lens_alloc_pages(CHUNK * sizeof(float) + past);
	struct lens_store *s = NULL;
	enum lens_status st;
	size_t c, i;
	float *v;
	int id;

	if (!page)
		return lens_error_nomem(err, CHUNK, sizeof(float));
	v = (float *)(void *)(page + past);
	st = lens_store_create(test_path, &s, err);
	if (st == LENS_OK)
		st = lens_store_add_dim(s, "x", CHUNKS * CHUNK, NULL, err);
	if (st == LENS_OK)
		st = lens_store_add_dataset(s, &spec, &id, err);
	for (c = 0; st == LENS_OK && c < CHUNKS; c++) {
		for (i = 0; i < CHUNK; i++)
			v[i] = (float)(c * CHUNK + i);
		st = test_put(s, id, CHUNKS - 1 - c, 0, v, CHUNK * sizeof(float), err);
	}
	if (st == LENS_OK)
		st = lens_store_commit(s, err);
	lens_store_destroy(s);
	lens_free(page);
	return st;
}

static void expect_sound(void)
{
	size_t n, n_bad;

	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n, 2);
	assert_int_equal(n_bad, 0);
}

static void expect_same(const struct lens_buf *want)
{
	struct lens_buf b = test_slurp(test_path);

	assert_int_equal(b.len, want->len);
	assert_memory_equal(b.data, want->data, b.len);
	lens_buf_release(&b);
}

static void test_same_bytes(void **state)
{
	struct lens_buf b;

	(void)state;
	ok(write_large(0, err));
	expect_sound();
	b = test_slurp(test_path);
	ok(write_large(64, err)); /* not on a page: through the cache */
	expect_same(&b);
	expect_sound();
	lens_buf_release(&b);
}

/* Does this disk let writes go past the cache? */
static bool has_direct(void)
{
	struct lens_io *io;
	bool direct;

	ok(lens_io_create(test_path, &io, err));
	direct = io->direct && !lens_sys_set_direct(io->fd, true);
	lens_sys_unlink(io->path);
	lens_io_release(io);
	return direct;
}

/* Pages of the file [0, n) that are in the page cache. */
static size_t count_cached(int fd, size_t n)
{
	unsigned char in[64];
	void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
	size_t i, cached = 0;

	assert_true(n <= sizeof(in) * LENS_PAGE);
	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, n, in), 0);
	for (i = 0; i < n / LENS_PAGE; i++)
		cached += in[i] & 1;
	munmap(map, n);
	return cached;
}

static void test_past_the_cache(void **state)
{
	const size_t pages = 20, n = pages * LENS_PAGE;
	unsigned char *buf = lens_alloc_pages(n + 5), *back = lens_alloc_pages(n + 5);
	bool direct = has_direct();
	struct lens_io *io;
	size_t i;

	(void)state;
	assert_true(buf && back);
	for (i = 0; i < n + 5; i++)
		buf[i] = (unsigned char)(i % 251);
	ok(lens_io_create(test_path, &io, err));
	lens_io_write(io, 0, buf, n + 5);
	assert_int_equal(io->err, 0);
	if (direct)
		assert_int_equal(count_cached(io->fd, n), 0);
	/* A small piece over it, as metadata would come; then all of it is read. */
	lens_io_write(io, LENS_PAGE + 1, "metadata", 8);
	memcpy(buf + LENS_PAGE + 1, "metadata", 8);
	assert_true(lens_io_read(io, 0, back, n + 5));
	assert_memory_equal(buf, back, n + 5);
	assert_int_equal(fcntl(io->fd, F_GETFL) & O_DIRECT, 0);
	lens_sys_unlink(io->path);
	lens_io_release(io);
	lens_free(buf);
	lens_free(back);
	if (!direct)
		skip(); /* the cache is all there is */
}

/* Each call fails in its turn, once or from then on: a whole file or none. */
static void check_faults(int errno_, enum lens_status code, bool for_ever)
{
	enum lens_status st = LENS_ERR_IO;
	struct lens_buf whole;
	unsigned long k, n_survived = 0;

	ok(write_large(0, err));
	whole = test_slurp(test_path);
	unlink(test_path);
	for (k = 1; k < 200; k++) {
		unsigned long calls = lens_sys_calls();

		lens_sys_fail_at(k, errno_, for_ever);
		st = write_large(0, NULL);
		calls = lens_sys_calls() - calls;
		lens_sys_fail_at(0, 0, false);
		assert_false(test_part_left(test_path));
		if (st == LENS_OK)
			expect_same(&whole);
		else
			assert_int_equal(st, code);
		unlink(test_path);
		if (calls < k)
			break; /* it was past the last call */
		n_survived += st == LENS_OK;
	}
	assert_true(k > CHUNKS && k < 200);
	/* EINVAL once: each chunk's way past the cache is refused; and a folder need not sync.
	 */
	if (errno_ == EINVAL)
		assert_int_equal(n_survived, (for_ever || !has_direct() ? 0 : CHUNKS) + 1);
	else
		assert_int_equal(n_survived, 0);
	lens_buf_release(&whole);
}

static void test_faults(void **state)
{
	(void)state;
	check_faults(ENOSPC, LENS_ERR_NOSPACE, false);
	check_faults(ENOSPC, LENS_ERR_NOSPACE, true);
	check_faults(EIO, LENS_ERR_IO, false);
	check_faults(EIO, LENS_ERR_IO, true);
	check_faults(EINVAL, LENS_ERR_IO, false);
	check_faults(EINVAL, LENS_ERR_IO, true);
}

/* From a size on the file cannot grow: of a chunk's write, a part is done, then it fails. */
static void test_torn_writes(void **state)
{
	static const rlim_t past[] = { 0, 1, LENS_PAGE / 2, 3 * LENS_PAGE, 4 * CHUNK - 1 };
	struct rlimit was, limit;
	struct lens_buf whole;
	size_t c, i;

	(void)state;
	ok(write_large(0, err));
	whole = test_slurp(test_path);
	unlink(test_path);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	for (c = 1; c < CHUNKS; c += 2) {
		for (i = 0; i < sizeof(past) / sizeof(*past); i++) {
			enum lens_status st;

			limit = was;
			limit.rlim_cur = c * 4 * CHUNK + past[i];
			assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
			st = write_large(0, NULL);
			assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
			assert_int_equal(st, LENS_ERR_NOSPACE);
			assert_false(test_part_left(test_path));
			assert_int_not_equal(access(test_path, F_OK), 0);
		}
	}
	signal(SIGXFSZ, SIG_DFL);
	ok(write_large(0, err));
	expect_same(&whole);
	expect_sound();
	lens_buf_release(&whole);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_store_setup, test_store_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = { T(test_same_bytes), T(test_past_the_cache),
					    T(test_faults), T(test_torn_writes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
