/*
 * test_claim.c: who is at work in the folder of a sweep's shards: live, dead, on another
 * host, on another share.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/cases.h"
#include "support/place.h"
#include "support/runs.h"
#include "support/sweeps.h"
#include "sweep/sweep_private.h"

static const size_t rows[] = { 0, 5, 9, 10 }; /* three shards */

static void start(struct lens_folder *f, const char *identity)
{
	assert_int_equal(lens_folder_init(f, test_place_output, identity, 3, rows, NULL),
			 LENS_OK);
	assert_int_equal(lens_folder_make(f, NULL), LENS_OK);
}

/* Another process that takes a share and holds it. */
struct rival {
	pid_t pid;
	int hold;
	enum lens_status st;
};

static struct lens_claim *held; /* by the other process */

static struct rival elsewhere(enum lens_status (*take)(void *ctx), void *ctx)
{
	struct rival r = { .pid = 0 };
	int told[2], hold[2];
	char byte = 0;

	assert_int_equal(pipe(told), 0);
	assert_int_equal(pipe(hold), 0);
	r.pid = fork();
	if (!r.pid) {
		close(hold[1]);
		byte = (char)take(ctx);
		if (write(told[1], &byte, 1) != 1 || read(hold[0], &byte, 1) < 0)
			_exit(1);
		lens_claim_release(held);
		_exit(0);
	}
	close(told[1]);
	close(hold[0]);
	assert_int_equal(read(told[0], &byte, 1), 1);
	close(told[0]);
	r.st = (enum lens_status)byte;
	r.hold = hold[1];
	return r;
}

struct wish {
	const char *folder;
	struct lens_share share;
};

static enum lens_status take_share(void *ctx)
{
	const struct wish *w = ctx;

	return lens_claim_take(w->folder, &w->share, &held, NULL);
}

static struct rival take_elsewhere(const char *folder, size_t task, size_t n)
{
	struct wish w = { folder, { task, n } };

	return elsewhere(take_share, &w);
}

static enum lens_status lock(void *ctx)
{
	return flock(open(ctx, O_RDWR), LOCK_EX) ? LENS_ERR_IO : LENS_OK;
}

static void let_go(struct rival *r)
{
	int status;

	close(r->hold);
	assert_true(waitpid(r->pid, &status, 0) == r->pid);
}

static bool shares_meet(size_t a, size_t n, size_t b, size_t m)
{
	size_t i;

	for (i = 0; i < n * m; i++) {
		if (i % n == a && i % m == b)
			return true;
	}
	return false;
}

static void test_shares(void **state)
{
	static const size_t mine[][2] = { { 0, 1 }, { 1, 2 }, { 2, 3 }, { 0, 4 }, { 3, 6 } };
	struct lens_folder f;
	size_t i, n, task;

	(void)state;
	start(&f, "{}");
	for (i = 0; i < sizeof(mine) / sizeof(*mine); i++) {
		struct rival r = take_elsewhere(f.path, mine[i][0], mine[i][1]);

		assert_int_equal(r.st, LENS_OK);
		for (n = 1; n <= 8; n++) {
			for (task = 0; task < n; task++) {
				const struct lens_share share = { task, n };
				bool meet = shares_meet(task, n, mine[i][0], mine[i][1]);
				struct lens_error err = LENS_ERROR_INIT;
				struct lens_claim *c;
				char who[32];

				assert_int_equal(lens_claim_take(f.path, &share, &c, &err),
						 meet ? LENS_ERR_BUSY : LENS_OK);
				snprintf(who, sizeof(who), "process %ld on ", (long)r.pid);
				assert_int_equal(strstr(err.text, who) != NULL, meet);
				lens_claim_release(c);
				assert_int_equal(test_count_files(f.path, ".run"), 1);
			}
		}
		let_go(&r);
		assert_int_equal(test_count_files(f.path, ".run"), 0);
	}
	lens_folder_release(&f);
}

struct seen {
	size_t n, alive;
	struct lens_running last;
};

static void see(void *ctx, const struct lens_running *r)
{
	struct seen *s = ctx;

	s->n++;
	s->alive += r->alive;
	s->last = *r;
}

static struct seen list(const char *folder)
{
	struct seen s = { .n = 0 };

	assert_int_equal(lens_claim_list(folder, see, &s, NULL), LENS_OK);
	return s;
}

static void test_dead(void **state)
{
	const struct lens_share all = { 0, 1 };
	struct lens_claim *c;
	struct lens_folder f;
	struct seen s;
	struct rival r;
	int status;

	(void)state;
	start(&f, "{}");
	r = take_elsewhere(f.path, 1, 2);
	s = list(f.path);
	assert_int_equal(s.alive, 1);
	assert_int_equal(s.last.pid, r.pid);
	assert_int_equal(s.last.share.task, 1);
	assert_int_equal(s.last.share.n_tasks, 2);
	/* One that stands still is alive. */
	assert_int_equal(kill(r.pid, SIGSTOP), 0);
	assert_int_equal(list(f.path).alive, 1);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_ERR_BUSY);
	assert_int_equal(kill(r.pid, SIGKILL), 0);
	assert_int_equal(waitpid(r.pid, &status, 0), r.pid);
	close(r.hold);
	s = list(f.path);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.alive, 0);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
	assert_int_equal(test_count_files(f.path, ".run"), 1); /* ours */
	lens_claim_clean(f.path);
	assert_int_equal(test_count_files(f.path, ".run"), 1);
	lens_claim_release(c);
	test_write_text(f.path, "nowhere.example-77.run",
			"{\"host\": \"nowhere.example\", \"pid\": 77, \"n_tasks\": 1}");
	lens_claim_clean(f.path);
	assert_int_equal(test_count_files(f.path, ".run"), 1); /* written a moment ago */
	lens_folder_release(&f);
}

/* Where locks do not reach from host to host, its file's age decides. */
static void test_other_host(void **state)
{
	const char *text = "{\"host\": \"nowhere.example\", \"pid\": 77, \"task\": 0, "
			   "\"n_tasks\": 1, \"rows_done\": 5, \"rows_total\": 9}";
	const struct lens_share all = { 0, 1 };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_claim *c;
	struct lens_folder f;
	struct utimbuf old = { time(NULL) - 3600, time(NULL) - 3600 };
	char *path;

	(void)state;
	start(&f, "{}");
	test_write_text(f.path, "nowhere.example-77.run", text);
	path = lens_path_join(f.path, "nowhere.example-77.run");
	assert_int_equal(list(f.path).alive, 1);
	assert_int_equal(list(f.path).last.progress.rows_done, 5);
	assert_int_equal(lens_claim_take(f.path, &all, &c, &err), LENS_ERR_BUSY);
	assert_non_null(strstr(err.text, "process 77 on nowhere.example"));
	assert_int_equal(utime(path, &old), 0);
	assert_int_equal(list(f.path).alive, 0);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
	lens_claim_release(c);
	assert_false(lens_file_exists(path));
	lens_free(path);
	lens_folder_release(&f);
}

/* Files of that ending that say nothing are nobody's. */
static void test_odd_files(void **state)
{
	static const char *const text[] = {
		"",
		"{",
		"[1]",
		"{\"host\": 5}",
		"{\"host\": \"a\", \"pid\": -1, \"n_tasks\": 1}",
		"{\"host\": \"a\", \"pid\": 5, \"n_tasks\": 0}",
		"\xff\xfe",
		"{\"host\": \"a\", \"pid\": 5, \"n_tasks\": -3}",
	};
	const struct lens_share all = { 0, 1 };
	struct lens_claim *c;
	struct lens_folder f;
	size_t i;

	(void)state;
	start(&f, "{}");
	for (i = 0; i < sizeof(text) / sizeof(*text); i++) {
		test_write_text(f.path, "a-5.run", text[i]);
		assert_int_equal(list(f.path).n, 0);
		assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
		lens_claim_release(c);
	}
	assert_int_equal(
		mkdir(test_sweep_path(&(struct test_sweep){ .shards = f.path }, "d.run"), 0777),
		0);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
	lens_claim_release(c);
	lens_folder_release(&f);
}

/* A disk that was full, or one that fails: a run that says nothing still counts. */
static void test_silent(void **state)
{
	const struct lens_share all = { 0, 1 };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_claim *c;
	struct lens_folder f;
	struct rival r;
	char name[192];
	char *path;

	(void)state;
	start(&f, "{}");
	test_write_text(f.path, "odd-host-77.run", "");
	path = lens_path_join(f.path, "odd-host-77.run");
	r = elsewhere(lock, path);
	assert_int_equal(lens_claim_take(f.path, &all, &c, &err), LENS_ERR_BUSY);
	assert_non_null(strstr(err.text, "process 77 on odd-host "));
	let_go(&r);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
	lens_claim_release(c);
	unlink(path);
	lens_free(path);

	r = take_elsewhere(f.path, 0, 1);
	lens_sys_fail_at(1, EMFILE, false); /* its file cannot be opened */
	assert_int_equal(list(f.path).alive, 1);
	assert_int_equal(list(f.path).last.pid, r.pid);
	snprintf(name, sizeof(name), "process %ld on ", (long)r.pid);
	lens_sys_fail_at(3, EMFILE, false); /* after the folder and our own */
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_claim_take(f.path, &all, &c, &err), LENS_ERR_BUSY);
	assert_non_null(strstr(err.text, name));
	lens_sys_fail_at(0, 0, false);
	let_go(&r);
	lens_folder_release(&f);
}

/* Where there are no locks, process and age say who is alive; another failure is told. */
static void test_no_locks(void **state)
{
	static const int none[] = { ENOLCK, ENOSYS, EOPNOTSUPP };
	const struct lens_share all = { 0, 1 };
	struct utimbuf old = { time(NULL) - 3600, time(NULL) - 3600 };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_claim *c;
	struct lens_folder f;
	struct rival r;
	char *path;
	size_t i;

	(void)state;
	start(&f, "{}");
	lens_sys_lock_errno(EIO);
	assert_int_equal(lens_claim_take(f.path, &all, &c, &err), LENS_ERR_IO);
	assert_non_null(strstr(err.text, "lock"));
	for (i = 0; i < 3; i++) {
		lens_sys_lock_errno(none[i]);
		r = take_elsewhere(f.path, 1, 2);
		assert_int_equal(r.st, LENS_OK);
		assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_ERR_BUSY);
		let_go(&r);
		assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
		assert_int_equal(lens_claim_no_lock(c), none[i]);
		lens_claim_release(c);
		assert_int_equal(test_count_files(f.path, ".run"), 0);
	}
	/* One that has not said anything yet, and one that never will. */
	test_write_text(f.path, "elsewhere-77.run", "");
	path = lens_path_join(f.path, "elsewhere-77.run");
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_ERR_BUSY);
	assert_int_equal(utime(path, &old), 0);
	assert_int_equal(lens_claim_take(f.path, &all, &c, NULL), LENS_OK);
	lens_claim_release(c);
	lens_sys_lock_errno(0);
	unlink(path);
	lens_free(path);
	lens_folder_release(&f);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, test_place_set_up, test_place_tear_down)
	const struct CMUnitTest tests[] = {
		T(test_shares),    T(test_dead),   T(test_other_host),
		T(test_odd_files), T(test_silent), T(test_no_locks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
