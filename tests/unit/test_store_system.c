/*
 * Whole files of which the system does not let us read: never told as damage,
 * for which `run --repair` would remove them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/joins.h"
#include "support/storefile.h"

/* --- reads that fail -------------------------------------------------------------- */

static unsigned long reads_left; /* of this process; 0: no fault is planned; 1: all fail */
static atomic_bool *read_failed; /* in any process */

/* In place of the system's own, for this program and its children. */
ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
	if (reads_left == 1) {
		atomic_store(read_failed, true);
		errno = EIO;
		return -1;
	}
	if (reads_left)
		reads_left--;
	return syscall(SYS_pread64, fd, buf, n, at);
}

/* The k-th read from now and all later ones fail. */
static void fail_reads_at(unsigned long k)
{
	if (!read_failed) {
		read_failed = mmap(NULL, sizeof(*read_failed), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		assert_true(read_failed != MAP_FAILED);
	}
	atomic_store(read_failed, false);
	reads_left = k;
}

/* --- all that reads: n_bad counts what was told as damage ------------------------ */

static enum lens_status verify_with(const char *file, size_t n_processes, size_t *n_bad,
				    struct lens_error *err)
{
	size_t n;

	if (!n_processes)
		return lens_store_verify(file, NULL, NULL, &n, n_bad, err);
	return lens_store_verify_parallel(file,
					  &(struct lens_verify_options){ .n_processes =
										 n_processes },
					  &n, n_bad, err);
}

static enum lens_status verify_here(size_t *n_bad, struct lens_error *err)
{
	return verify_with(test_path, 0, n_bad, err);
}

static enum lens_status verify_apart(size_t *n_bad, struct lens_error *err)
{
	return verify_with(test_path, 2, n_bad, err);
}

static enum lens_status verify_shard(size_t *n_bad, struct lens_error *err)
{
	return verify_with(test_shard_file[0], 1, n_bad, err);
}

static enum lens_status check(size_t *n_bad, struct lens_error *err)
{
	struct lens_shard_facts state;
	enum lens_status st = lens_store_check(test_shard_file[1], "one", &state, err);

	*n_bad = st == LENS_OK && (state.shard != 1 || state.n_rows < 0);
	return st;
}

static enum lens_status read_attr(size_t *n_bad, struct lens_error *err)
{
	char *value;
	enum lens_status st = lens_store_read_attr(test_path, "/", "identity", &value, err);

	*n_bad = st == LENS_OK && !value;
	lens_free(value);
	return st;
}

static enum lens_status list(size_t *n_bad, struct lens_error *err)
{
	struct lens_shard_record *e;
	size_t n;
	enum lens_status st = lens_store_read_shards(test_path, &e, &n, err);

	*n_bad = st == LENS_OK && n != TEST_SHARDS;
	lens_store_shards_release(e, n);
	return st;
}

static enum lens_status count(void *ctx, const struct lens_dataset_info *d,
			      struct lens_error *err)
{
	(void)d, (void)err;
	(*(size_t *)ctx)++;
	return LENS_OK;
}

static enum lens_status walk(size_t *n_bad, struct lens_error *err)
{
	size_t n = 0;
	enum lens_status st = lens_store_walk(test_path, count, &n, err);

	*n_bad = st == LENS_OK && n < 10;
	return st;
}

static enum lens_status join(enum lens_join how, size_t *n_bad, struct lens_error *err)
{
	char other[220];
	enum lens_status st;

	snprintf(other, sizeof(other), "%s.again", test_path);
	st = lens_store_join(test_shards, TEST_SHARDS, other, how, NULL, err);
	*n_bad = lens_file_exists(other) != (st == LENS_OK);
	unlink(other);
	return st;
}

static enum lens_status join_virtual(size_t *n_bad, struct lens_error *err)
{
	return join(LENS_JOIN_VIRTUAL, n_bad, err);
}

static enum lens_status join_pack(size_t *n_bad, struct lens_error *err)
{
	return join(LENS_JOIN_PACK, n_bad, err);
}

static const struct reader {
	const char *name;
	enum lens_status (*fn)(size_t *n_bad, struct lens_error *err);
	unsigned long step; /* of faults: those with children take long */
	bool here;          /* reads in this process, where HDF5 may not survive failed reads */
} readers[] = {
	{ "verify here", verify_here, 5, true },
	{ "verify apart", verify_apart, 23, false },
	{ "verify a shard", verify_shard, 5, false },
	{ "check", check, 3, false },
	{ "read_attr", read_attr, 2, true },
	{ "read_shards", list, 2, true },
	{ "walk", walk, 2, true },
	{ "join", join_virtual, 41, true },
	{ "pack", join_pack, 41, true },
};

#define N_READERS (sizeof(readers) / sizeof(readers[0]))
#define N_WITHOUT_JOINS (N_READERS - 2) /* a child that ends leaves a half-written file */

static enum lens_status call_here(void *ctx, struct lens_buf *result, struct lens_error *err)
{
	size_t n_bad = 0;

	LENS_TRY(((const struct reader *)ctx)->fn(&n_bad, err));
	return lens_buf_append(result, &n_bad, sizeof(n_bad), err);
}

static void make(void)
{
	ok(lens_store_join(test_shards, TEST_SHARDS, test_path, LENS_JOIN_VIRTUAL,
			   &test_join_quick, err));
}

/* One reader under one fault: did it succeed? Else it must say code. */
static bool read_under(const struct reader *r, bool apart, enum lens_status code,
		       unsigned long k)
{
	const struct lens_child_job job = { .fn = call_here, .ctx = (void *)(uintptr_t)r };
	struct lens_error e = LENS_ERROR_INIT;
	struct lens_buf result = LENS_BUF_INIT;
	enum lens_status st;
	size_t n_bad = 0;

	if (apart && r->here)
		st = lens_child_call(&job, &result, &e);
	else
		st = r->fn(&n_bad, &e);
	if (result.len)
		memcpy(&n_bad, result.data, sizeof(n_bad));
	lens_buf_release(&result);

	reads_left = 0;
	lens_alloc_fail_at(0);
	if (st == LENS_OK && n_bad)
		fail_msg("%s, fault %lu: %zu things are told as damage", r->name, k, n_bad);
	if (st != LENS_OK && st != code)
		fail_msg("%s, fault %lu: status %d, %s", r->name, k, (int)st, e.text);
	assert_int_equal(e.code, st);
	return st == LENS_OK;
}

/* However many reads there are: the reader fails if one did, and only then. */
static void test_reads(void **state)
{
	unsigned long k;
	bool done;
	size_t i;

	(void)state;
	make();
	for (i = 0; i < N_WITHOUT_JOINS; i++) {
		for (k = 1;; k += readers[i].step) {
			fail_reads_at(k);
			done = read_under(&readers[i], true, LENS_ERR_IO, k);
			if (done == atomic_load(read_failed))
				fail_msg("%s, fault %lu: %s", readers[i].name, k,
					 done ? "a failed read is not told" : "no read failed");
			if (done)
				break;
		}
		assert_true(k > 1);
	}
}

static void test_allocations(void **state)
{
	unsigned long k;
	size_t i;

	(void)state;
	make();
	for (i = 0; i < N_READERS; i++) {
		for (k = 1;; k += readers[i].step) {
			lens_alloc_fail_at(k);
			if (read_under(&readers[i], false, LENS_ERR_NOMEM, k))
				break;
		}
		assert_true(k > 1);
	}
}

/* --- limits of the process -------------------------------------------------------- */

static void set_limit(int what, struct rlimit *was, rlim_t n)
{
	struct rlimit now;

	assert_int_equal(getrlimit((__rlimit_resource_t)what, was), 0);
	now = (struct rlimit){ .rlim_cur = n, .rlim_max = was->rlim_max };
	assert_int_equal(setrlimit((__rlimit_resource_t)what, &now), 0);
}

static void test_descriptors(void **state)
{
	struct rlimit was;
	int first = dup(0);
	unsigned failed = 0;
	rlim_t n;
	size_t i;

	(void)state;
	assert_true(first > 0);
	close(first);
	make();
	for (i = 0; i < N_READERS; i++) {
		for (n = (rlim_t)first;; n++) {
			bool done;

			set_limit(RLIMIT_NOFILE, &was, n);
			done = read_under(&readers[i], false, LENS_ERR_IO, n);
			assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
			if (done)
				break;
			failed++;
		}
	}
	assert_true(failed >= N_READERS);
}

/* Bytes of the address space; 0 where they cannot be limited (shadow memory). */
static rlim_t address_space(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%lu", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages > (1ul << 26) ? 0 : (rlim_t)pages * 4096;
}

#define BLOCK 2000
#define MOST_BLOCKS 8192

static void *block[MOST_BLOCKS];

/* All memory that this process may have, but left blocks; how many are to be freed. */
static size_t eat(size_t left)
{
	size_t n = 0;

	while (n < MOST_BLOCKS && (block[n] = malloc(BLOCK)))
		n++;
	assert_in_range(n, left, MOST_BLOCKS - 1);
	while (left--)
		free(block[--n]);
	return n;
}

/* The stack as deep as it will get, so that it needs no memory later. */
static void deepen(void)
{
	volatile char deep[512 << 10];
	size_t i;

	for (i = 0; i < sizeof(deep); i += 4096)
		deep[i] = 1;
}

/* HDF5 tells of lack of memory in prose only, and may crash. */
static void test_memory(void **state)
{
	rlim_t most = (deepen(), address_space());
	size_t left, n, failed = 0;
	struct rlimit was;

	(void)state;
	if (!most)
		skip();
	make();
	for (left = 0; left < 1200; left += left < 400 ? 16 : 200) {
		struct lens_error e = LENS_ERROR_INIT;
		enum lens_status st;
		size_t n_bad;

		set_limit(RLIMIT_AS, &was, most + ((rlim_t)8 << 20));
		n = eat(left);
		st = verify_shard(&n_bad, &e);
		while (n)
			free(block[--n]);
		assert_int_equal(setrlimit(RLIMIT_AS, &was), 0);
		if (st != LENS_OK && st != LENS_ERR_NOMEM)
			fail_msg("%zu blocks: status %d, %s", left, (int)st, e.text);
		assert_int_equal(n_bad, 0);
		failed += st != LENS_OK;
	}
	assert_true(failed > 5);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST_JOIN(test_reads),
		TEST_JOIN(test_allocations),
		TEST_JOIN(test_descriptors),
		TEST_JOIN(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
