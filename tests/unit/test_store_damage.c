/*
 * test_store_damage.c: the HDF5 file when the world fails: half a file never
 * takes the final name, and damage is found.
 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/oldfile.h"
#include "support/runs.h"
#include "support/storefile.h"

static void spit(const char *name, const void *data, size_t n)
{
	FILE *f = fopen(name, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* --- the world fails ---------------------------------------------------------------- */

static void test_directory(void **state)
{
	char missing[256];
	struct lens_store *s;

	(void)state;
	snprintf(missing, sizeof(missing), "%s/none/out.h5", test_dir);
	fails(LENS_ERR_IO, lens_store_create(missing, &s, err));
	assert_null(s);
	if (geteuid() == 0)
		return;
	assert_int_equal(chmod(test_dir, 0500), 0);
	fails(LENS_ERR_IO, lens_store_create(test_path, &s, err));
	assert_int_equal(chmod(test_dir, 0700), 0);
}

static void test_old_part(void **state)
{
	static const char *const ending[] = { ".part", ".part-0123abcd" };
	char name[256];
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		/* Somebody's data are not ours to remove; what a killed run left is. */
		snprintf(name, sizeof(name), "%s%s", test_path, ending[i]);
		spit(name, "rubbish", 7);
		ok(test_write_store(test_path, err));
		assert_true(lens_file_exists(name));
		spit(name, "\x89HDF\r\n\x1a\nhalf", 12);
		ok(test_write_store(test_path, err));
		assert_false(test_part_left(test_path));
	}
	/* A name that is none of ours, whatever is in it. */
	snprintf(name, sizeof(name), "%s.part-0123abcde", test_path);
	spit(name, "", 0);
	ok(test_write_store(test_path, err));
	assert_int_equal(unlink(name), 0);
}

/* The path of the file that is being written beside test_path. */
static void find_part(char *name, size_t size)
{
	DIR *d = opendir(test_dir);
	struct dirent *e;

	*name = '\0';
	while ((e = readdir(d)) != NULL) {
		if (strstr(e->d_name, ".part-"))
			snprintf(name, size, "%s/%s", test_dir, e->d_name);
	}
	closedir(d);
	assert_true(*name);
}

/* With locks the second is refused; without them each has a file of its own. */
static void test_two_writers(void **state)
{
	static const int none[] = { ENOLCK, ENOSYS, EOPNOTSUPP };
	struct lens_store *first, *second;
	char one[512];
	size_t i;

	(void)state;
	ok(lens_store_create(test_path, &first, err));
	find_part(one, sizeof(one));
	fails(LENS_ERR_BUSY, lens_store_create(test_path, &second, err));
	for (i = 0; i < 3; i++) {
		lens_sys_lock_errno(none[i]);
		ok(lens_store_create(test_path, &second, err));
		assert_true(lens_file_exists(one));
		lens_store_destroy(second);
		ok(test_write_store(test_path, err));
		assert_true(lens_file_exists(one));
	}
	/* Who knows that nobody is writing removes it also without locks, and only then. */
	lens_sys_lock_errno(EIO);
	fails(LENS_ERR_IO, lens_store_create(test_path, &second, err));
	lens_store_drop_parts(test_path);
	assert_true(lens_file_exists(one));
	lens_sys_lock_errno(0);
	lens_store_drop_parts(test_path);
	assert_true(lens_file_exists(one));
	lens_sys_lock_errno(ENOLCK);
	lens_store_drop_parts(test_path);
	assert_false(lens_file_exists(one));
	lens_sys_lock_errno(0);
	lens_store_destroy(first);
	assert_false(test_part_left(test_path));
}

/* Each of the k-th calls that fails leaves no .part and not the final name. */
static void faults(int errno_, enum lens_status code)
{
	unsigned long k;

	for (k = 1; k < 500; k++) {
		struct lens_error err = LENS_ERROR_INIT;
		enum lens_status st;

		lens_store_fail_at(k, errno_);
		st = test_write_store(test_path, &err);
		lens_store_fail_at(0, 0);
		assert_false(test_part_left(test_path));
		if (st == LENS_OK)
			break;
		assert_int_equal(st, code);
		assert_int_equal(err.code, code);
		assert_non_null(strstr(err.text, strerror(errno_)));
		/* The last call of all syncs the directory of a finished file. */
		if (lens_file_exists(test_path)) {
			test_check_numbers("/cache/blocks.0.hook_resid_post");
			assert_int_equal(unlink(test_path), 0);
		}
	}
	assert_in_range(k, 6, 499);
	test_check_numbers("/cache/blocks.0.hook_resid_post");
}

static void test_faults(void **state)
{
	(void)state;
	faults(ENOSPC, LENS_ERR_NOSPACE);
	assert_int_equal(unlink(test_path), 0);
	faults(EDQUOT, LENS_ERR_NOSPACE);
	assert_int_equal(unlink(test_path), 0);
	faults(EIO, LENS_ERR_IO);
}

static enum lens_status read_all(struct lens_error *err);

static void test_no_memory(void **state)
{
	enum lens_status st;
	unsigned long k;

	(void)state;
	for (k = 1, st = LENS_ERR_NOMEM; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = test_write_store(test_path, &err);
		lens_alloc_fail_at(0);
		assert_false(test_part_left(test_path));
		assert_int_equal(err.code, st);
		if (st != LENS_OK) {
			assert_int_equal(st, LENS_ERR_NOMEM);
			assert_false(lens_file_exists(test_path));
		}
	}
	assert_true(k > 20);
	for (k = 1, st = LENS_ERR_NOMEM; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = read_all(&err);
		lens_alloc_fail_at(0);
		if (st != LENS_OK)
			assert_int_equal(st, LENS_ERR_NOMEM);
	}
	assert_true(k > 20);
}

/* A file system of 1 MiB, if we may mount one. */
static void test_full_disk(void **state)
{
	static uint8_t data[256 << 10];
	struct lens_dataset_spec spec = { .path = "/x",
					  .dtype = LENS_U8,
					  .rank = 1,
					  .dim = { "n" },
					  .extent = { 16 * sizeof(data) },
					  .chunk = { sizeof(data) } };
	struct lens_error full = LENS_ERROR_INIT;
	enum lens_status st = LENS_OK;
	struct lens_store *s;
	size_t i;
	int id;

	(void)state;
	if (unshare(CLONE_NEWNS) != 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", test_dir, "tmpfs", 0, "size=1m") != 0)
		skip();
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_add_dim(s, "n", 16 * sizeof(data), NULL, err));
	ok(lens_store_add_dataset(s, &spec, &id, err));
	for (i = 0; i < 16 && st == LENS_OK; i++)
		st = test_put(s, id, i, 0, data, sizeof(data), &full);
	assert_int_equal(st, LENS_ERR_NOSPACE);
	assert_int_equal(full.code, LENS_ERR_NOSPACE);
	assert_true(i >= 3);
	fails(LENS_ERR_INTERNAL, lens_store_commit(s, err));
	lens_store_destroy(s);
	assert_false(test_part_left(test_path));
	assert_false(lens_file_exists(test_path));
	ok(test_write_store(test_path, err)); /* the library is still usable */
	assert_int_equal(umount(test_dir), 0);
}

/* --- verify --------------------------------------------------------------------------- */

struct seen {
	size_t n;
	char last[256], what[256];
};

static void see(void *ctx, const char *dataset, const char *what)
{
	struct seen *seen = ctx;

	seen->n++;
	snprintf(seen->last, sizeof(seen->last), "%s", dataset);
	snprintf(seen->what, sizeof(seen->what), "%s", what);
}

static void test_verify(void **state)
{
	struct seen seen = { .n = 0 };
	size_t n, n_bad;

	(void)state;
	ok(test_write_store(test_path, err));
	ok(lens_store_verify(test_path, see, &seen, &n, &n_bad, err));
	/* "/", /pos, three of numbers, strings, an empty one; the link once */
	assert_int_equal(n, 7);
	assert_int_equal(n_bad, 0);
	assert_int_equal(seen.n, 0);
	fails(LENS_ERR_IO, lens_store_verify(test_part, see, &seen, &n, &n_bad, err));
	fails(LENS_ERR_FORMAT, lens_store_verify(test_dir, see, &seen, &n, &n_bad, err));
	spit(test_path, "not HDF5", 8);
	fails(LENS_ERR_FORMAT, lens_store_verify(test_path, see, &seen, &n, &n_bad, err));
	spit(test_path, "", 0);
	fails(LENS_ERR_FORMAT, lens_store_verify(test_path, see, &seen, &n, &n_bad, err));
}

static bool old; /* files as versions up to 0.3 wrote them */

/* Changes the last byte of the only needle in the file; what is reported then? */
static void damage(const void *needle, size_t n, int bits, const char *dataset,
		   const char *what)
{
	struct seen seen = { .n = 0 };
	struct lens_buf b;
	size_t n_datasets, n_bad;
	char *at;

	ok(test_write_store(test_path, err));
	if (old)
		test_as_sha256(test_path);
	b = test_slurp(test_path);
	at = memmem(b.data, b.len, needle, n);
	assert_non_null(at);
	at[n - 1] = (char)(at[n - 1] ^ bits);
	spit(test_path, b.data, b.len);
	lens_buf_release(&b);
	ok(lens_store_verify(test_path, see, &seen, &n_datasets, &n_bad, err));
	assert_int_equal(n_datasets, 7);
	assert_int_equal(n_bad, 1);
	assert_int_equal(seen.n, 1);
	assert_string_equal(seen.last, dataset);
	assert_non_null(strstr(seen.what, what));
}

static void test_damage(void **state)
{
	float v[4];

	(void)state;
	test_fill_f32(v, 1, 0);
	damage(v, sizeof(v), 1, "/cache/blocks.0.hook_resid_post", "does not match its digest");
	damage("zw\xc3\xb6lf Boxk", 9, 1, "/prompts/text", "does not match its digest");
	damage("zw\xc3\xb6", 4, 0x80, "/prompts/text", "UTF-8");
	damage("1_pre", 5, 1, "/pos", "does not match its digest");
	damage("logit", 5, 1, "/", "attributes");
}

static void test_damage_old(void **state)
{
	size_t n, n_bad;

	ok(test_write_store(test_path, err));
	test_as_sha256(test_path);
	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n, 7);
	assert_int_equal(n_bad, 0);
	old = true;
	test_damage(state);
	old = false;
}

/* A kind that is not known; and one that is known, but not what the file was made with. */
static void test_digest_kinds(void **state)
{
	size_t n, n_bad;
	struct lens_buf b;
	char *at;

	(void)state;
	ok(test_write_store(test_path, err));
	b = test_slurp(test_path);
	at = memmem(b.data, b.len, "xxh3-128", 8);
	assert_non_null(at);
	memcpy(at, "xxh3-129", 8);
	spit(test_path, b.data, b.len);
	fails(LENS_ERR_UNSUPPORTED, lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	memcpy(at, "sha256\0", 8);
	spit(test_path, b.data, b.len);
	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n_bad, 3 + 1); /* those of numbers; and "/" */
	lens_buf_release(&b);
}

/* In a process of its own: HDF5 leaks memory over some damaged files. */
static enum lens_status verify_apart(void)
{
	size_t n, n_bad;
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (!child)
		_exit((int)lens_store_verify(test_path, NULL, NULL, &n, &n_bad, NULL));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return (enum lens_status)WEXITSTATUS(status);
}

static void test_no_digest(void **state)
{
	struct lens_store *s;
	struct lens_buf b;
	size_t n, n_bad;
	char *at;

	(void)state;
	ok(lens_store_create(test_path, &s, err));
	ok(lens_store_commit(s, err));
	lens_store_destroy(s);
	ok(lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err));
	assert_int_equal(n, 1);
	b = test_slurp(test_path);
	at = memmem(b.data, b.len, "sha256", 6);
	assert_non_null(at);
	at[0] = 'S'; /* the object header's own checksum is wrong too */
	spit(test_path, b.data, b.len);
	lens_buf_release(&b);
	assert_int_equal(verify_apart(), LENS_ERR_FORMAT);
}

/* --- hostile files ----------------------------------------------------------------------- */

static enum lens_status skip_attr(void *ctx, const char *name, const char *value,
				  struct lens_error *err)
{
	(void)ctx, (void)name, (void)value, (void)err;
	return LENS_OK;
}

static enum lens_status skip_info(void *ctx, const struct lens_dataset_info *d,
				  struct lens_error *err)
{
	(void)ctx, (void)d, (void)err;
	return LENS_OK;
}

/* Everything that reads, on test_path; the first error. */
static enum lens_status read_all(struct lens_error *err)
{
	size_t extent[LENS_MAX_RANK], n, n_bad;
	enum lens_status st, first;
	double *v;
	char **str, *value;
	int rank;

	first = lens_store_verify(test_path, NULL, NULL, &n, &n_bad, err);
	st = lens_store_walk(test_path, skip_info, NULL, err);
	first = first ? first : st;
	st = lens_store_walk_attrs(test_path, skip_attr, NULL, err);
	first = first ? first : st;
	st = lens_store_read_attr(test_path, "/", "schema", &value, err);
	first = first ? first : st;
	lens_free(value);
	st = lens_store_read_f64(test_path, "/cache/blocks.0.attn.hook_z", &v, &rank, extent,
				 err);
	first = first ? first : st;
	lens_free(v);
	st = lens_store_read_strings(test_path, "/prompts/text", &str, &n, err);
	first = first ? first : st;
	if (st == LENS_OK) {
		while (n)
			lens_free(str[--n]);
		lens_free(str);
	}
	return first;
}

static void test_truncated(void **state)
{
	struct lens_buf b;
	size_t n, n_bad, n_datasets, step;

	(void)state;
	ok(test_write_store(test_path, err));
	b = test_slurp(test_path);
	step = b.len / 300 + 1;
	for (n = 0; n < b.len; n += n < 600 ? 7 : step) {
		spit(test_path, b.data, n);
		fails(LENS_ERR_FORMAT,
		      lens_store_verify(test_path, NULL, NULL, &n_datasets, &n_bad, err));
	}
	spit(test_path, b.data, b.len - 1);
	fails(LENS_ERR_FORMAT,
	      lens_store_verify(test_path, NULL, NULL, &n_datasets, &n_bad, err));
	lens_buf_release(&b);
}

/* Does the file still give the numbers and strings that were written? */
static bool reads_right(void)
{
	size_t extent[LENS_MAX_RANK], n, i;
	bool right = true;
	char **str;
	double *v;
	int rank;

	if (lens_store_read_f64(test_path, "/cache/blocks.0.hook_resid_post", &v, &rank, extent,
				NULL) ||
	    lens_store_read_strings(test_path, "/prompts/text", &str, &n, NULL))
		return false;
	for (i = 0; i < TEST_ROWS * TEST_POS - 1; i++)
		right = right && v[i] == (double)(10 * (i / TEST_POS) + i % TEST_POS);
	for (i = 0; i < n; i++) {
		right = right && n == TEST_ROWS && !strcmp(str[i], test_texts[i]);
		lens_free(str[i]);
	}
	lens_free(str);
	lens_free(v);
	return right;
}

#define FLIPS 100
#define WRONG 255

/* Flips bits one by one: how many went unnoticed, or WRONG. */
static int flip(const struct lens_buf *b, unsigned long seed)
{
	size_t n_bad, n_datasets, at;
	int i, unnoticed = 0;

	for (i = 0; i < FLIPS; i++) {
		struct lens_error err = LENS_ERROR_INIT;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		at = (seed >> 20) % b->len;
		while (!b->data[at]) /* most of a small file is a gap */
			at = (at + 1) % b->len;
		b->data[at] = (char)(b->data[at] ^ (1 << (seed >> 60 & 7)));
		spit(test_path, b->data, b->len);
		b->data[at] = (char)(b->data[at] ^ (1 << (seed >> 60 & 7)));
		if (lens_store_verify(test_path, NULL, NULL, &n_datasets, &n_bad, &err) ||
		    n_bad)
			read_all(&err);
		else if (!reads_right())
			return WRONG;
		else
			unnoticed++;
	}
	return unnoticed;
}

/*
 * Flipped bits: an error or a bad digest, never a crash. Only bits that carry
 * nothing may go unnoticed, and then all reads the same. In processes of its
 * own: a crash is to be counted, and HDF5 leaks memory over damaged files.
 */
static void test_flipped(void **state)
{
	int round, status, unnoticed = 0;
	struct lens_buf b;
	pid_t child;

	(void)state;
	ok(test_write_store(test_path, err));
	b = test_slurp(test_path);
	for (round = 0; round < 15; round++) {
		child = fork();
		assert_true(child >= 0);
		if (!child)
			_exit(flip(&b, 12345 + (unsigned long)round));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (!WIFEXITED(status) || WEXITSTATUS(status) == WRONG)
			fail_msg("round %d: status %#x", round, (unsigned)status);
		unnoticed += WEXITSTATUS(status);
	}
	lens_buf_release(&b);
	assert_in_range(unnoticed, 0, 75);
}

#define T(f) cmocka_unit_test_setup_teardown(f, test_store_setup, test_store_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_directory),    T(test_old_part),  T(test_two_writers),
		T(test_faults),       T(test_no_memory), T(test_full_disk),
		T(test_verify),       T(test_damage),    T(test_damage_old),
		T(test_digest_kinds), T(test_no_digest), T(test_truncated),
		T(test_flipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
