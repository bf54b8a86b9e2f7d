/*
 * golden/test_sweep_faults.c: a small sweep in shards of which one call fails,
 * each in turn: an allocation, or a call of the system, once or from then on.
 * Every time: an error, no half file under a final name, and the same command
 * without the fault ends with the bits of an undisturbed one. Prints calls and
 * outcomes. A sample of the calls; with H5LENS_TEST_FULL=I/N all of them, of which
 * this process takes the I-th and every N-th after it.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/sys.h"
#include "support/runs.h"
#include "support/sweeps.h"

#define MODEL "tests/golden/data/gpt2_unscaled"
#define ROWS 10 /* shards of 4, 4 and 2 */

static struct test_sweep s;
static char digest[LENS_SHA256_HEX], *packed;

/* Of all calls the first-th, and every step-th after it; 0: a sample. */
static unsigned long full_first, full_step;

/* --- what is done ------------------------------------------------------------------- */

static enum lens_status do_run(void)
{
	return test_sweep_run(&s, NULL);
}

static enum lens_status do_repair(void)
{
	const struct lens_run_options repair = { .repair = true };

	return test_sweep_run(&s, &repair);
}

static enum lens_status do_overwrite(void)
{
	const struct lens_run_options over = { .overwrite = true };

	return test_sweep_run(&s, &over);
}

static enum lens_status do_merge(void)
{
	memset(&s.err, 0, sizeof(s.err));
	return lens_merge(s.output, NULL, &s.err);
}

static enum lens_status do_pack(void)
{
	memset(&s.err, 0, sizeof(s.err));
	return lens_pack(s.output, packed, true, NULL, &s.err);
}

/* --- what is there before ------------------------------------------------------------- */

static void nothing(void)
{
	test_sweep_clear(&s);
}

static void finished(void)
{
	if (!lens_file_exists(s.output) || test_sweep_count(&s, ".h5") != 3 + 1) /* mean.h5 */
		test_sweep_must(&s, NULL);
}

static void one_is_missing(void)
{
	finished();
	unlink(s.output);
	unlink(test_sweep_path(&s, "00001.h5"));
}

static void one_is_cut(void)
{
	finished();
	assert_int_equal(truncate(test_sweep_path(&s, "00001.h5"), 9000), 0);
}

static void all_but_joined(void)
{
	finished();
	unlink(s.output);
}

struct subject {
	const char *name;
	void (*before)(void);
	enum lens_status (*act)(void);
	bool quick;  /* in the sample too */
	bool harmed; /* a file is, from the start */
};
static const struct subject subjects[] = {
	{ "run", nothing, do_run, true, false },
	{ "run, goes on", one_is_missing, do_run, true, false },
	{ "run --repair", one_is_cut, do_repair, false, true },
	{ "run --overwrite", finished, do_overwrite, false, false },
	{ "merge", all_but_joined, do_merge, true, false },
	{ "pack", finished, do_pack, true, false },
};

/* --- what is there afterwards ---------------------------------------------------------- */

static void read_digest(const char *file, char out[LENS_SHA256_HEX])
{
	char *text = NULL;

	assert_int_equal(lens_store_read_attr(file, "/", "sha256", &text, NULL), LENS_OK);
	assert_non_null(text);
	snprintf(out, LENS_SHA256_HEX, "%s", text);
	lens_free(text);
}

static bool ends(const char *name, const char *end)
{
	size_t n = strlen(name), m = strlen(end);

	return n >= m && !strcmp(name + n - m, end);
}

/* Every file of a final name is whole, and nothing else is left but the plan. */
static void look_at_folder(const struct subject *x, const char *dir, unsigned long k)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)) != NULL) {
		char *path = lens_path_join(dir, e->d_name);

		if (strstr(e->d_name, ".part") || ends(e->d_name, ".run") ||
		    strstr(e->d_name, ".tmp-"))
			fail_msg("%s, call %lu: %s is left", x->name, k, path);
		if (!x->harmed && ends(e->d_name, ".h5"))
			test_expect_sound(path);
		lens_free(path);
	}
	if (d)
		closedir(d);
}

struct outcomes {
	unsigned long calls, runs, nomem, io, nospace, other, done;
	char text[8][160]; /* of errors that are none of these */
};

static void count(struct outcomes *o, enum lens_status st)
{
	o->runs++;
	o->done += st == LENS_OK;
	o->nomem += st == LENS_ERR_NOMEM;
	o->io += st == LENS_ERR_IO;
	o->nospace += st == LENS_ERR_NOSPACE;
	if (st == LENS_OK || st == LENS_ERR_NOMEM || st == LENS_ERR_IO ||
	    st == LENS_ERR_NOSPACE)
		return;
	if (o->other < 8)
		snprintf(o->text[o->other], sizeof(o->text[0]), "%.159s", s.err.text);
	o->other++;
}

/* After a fault, done or not: the same command again, without one. */
static void heal(const struct subject *x, enum lens_status st, unsigned long k)
{
	char now[LENS_SHA256_HEX];

	if (st != LENS_OK && !*s.err.text)
		fail_msg("%s, call %lu: status %d and no word", x->name, k, (int)st);
	look_at_folder(x, s.dir, k);
	look_at_folder(x, s.shards, k);
	if (st != LENS_OK && x->act() != LENS_OK)
		fail_msg("%s after call %lu failed: %s: %s", x->name, k, s.err.file,
			 s.err.text);
	read_digest(s.output, now);
	if (strcmp(now, digest) != 0)
		fail_msg("%s after call %lu: other bits", x->name, k);
	if (x->harmed)
		test_expect_sound(s.output);
}

/* --- faults ---------------------------------------------------------------------------- */

enum fault { ALLOCATION, ONCE, FOR_EVER };

static void plan_fault(enum fault fault, unsigned long k, int errno_)
{
	if (fault == ALLOCATION)
		lens_alloc_fail_at(k);
	else
		lens_sys_fail_at(k, errno_, fault == FOR_EVER);
}

static unsigned long count_allocations(const struct subject *x)
{
	const unsigned long far = 1ul << 20;
	unsigned long left = 0;
	void *p = NULL;

	lens_alloc_fail_at(far);
	assert_int_equal(x->act(), LENS_OK);
	do {
		lens_free(p);
		p = lens_calloc(1, 1);
		left++;
	} while (p && left < far);
	lens_alloc_fail_at(0);
	return far - left;
}

static unsigned long count_calls(const struct subject *x, enum fault fault)
{
	unsigned long n;

	x->before();
	if (fault == ALLOCATION)
		return count_allocations(x);
	n = lens_sys_calls();
	assert_int_equal(x->act(), LENS_OK);
	return lens_sys_calls() - n;
}

static void report(const char *name, const char *fault, const struct outcomes *o)
{
	size_t i;

	print_message("%-15s %-28s %5lu calls, %4lu made to fail: %4lu memory, %4lu I/O, "
		      "%4lu exit 75, %3lu other, %4lu completed\n",
		      name, fault, o->calls, o->runs, o->nomem, o->io, o->nospace, o->other,
		      o->done);
	for (i = 0; i < o->other && i < 8; i++)
		print_message("    other: %s\n", o->text[i]);
}

static void sweep(const struct subject *x, enum fault fault, int errno_, const char *name)
{
	struct outcomes o = { .calls = count_calls(x, fault) };
	unsigned long k, step = o.calls / (test_quick() ? 6 : 14) + 1;
	char what[64];

	k = full_step ? full_first : 1 + o.calls % step;
	step = full_step ? full_step : step;
	for (; k <= o.calls; k += step) {
		enum lens_status st;

		x->before();
		plan_fault(fault, k, errno_);
		st = x->act();
		plan_fault(fault, 0, 0);
		count(&o, st);
		heal(x, st, k);
	}
	snprintf(what, sizeof(what), "%s%s", name, fault == FOR_EVER ? " from then on" : "");
	report(x->name, what, &o);
	assert_true(o.runs - o.done > o.runs / 4);
}

static void sweep_all(enum fault fault, int errno_, const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(subjects) / sizeof(*subjects); i++) {
		if (full_step || subjects[i].quick)
			sweep(&subjects[i], fault, errno_, name);
	}
}

static void test_allocations(void **state)
{
	(void)state;
	sweep_all(ALLOCATION, 0, "an allocation");
}

static void test_calls(void **state)
{
	(void)state;
	sweep_all(ONCE, EIO, "a call, EIO");
	if (full_step)
		sweep_all(FOR_EVER, EIO, "a call, EIO");
}

static void test_full_disk(void **state)
{
	(void)state;
	sweep_all(FOR_EVER, ENOSPC, "a call, ENOSPC");
	if (full_step)
		sweep_all(ONCE, ENOSPC, "a call, ENOSPC");
}

static int set_up(void **state)
{
	const char *part = getenv("H5LENS_TEST_FULL");

	(void)state;
	if (part) {
		assert_int_equal(sscanf(part, "%lu/%lu", &full_first, &full_step), 2);
		assert_in_range(full_first, 1, full_step);
	}
	test_sweep_init(&s, MODEL, ROWS, true);
	/* Chunks of logits are large: they go past the page cache. */
	test_set(&s.e, "cache.hooks", "*hook_pattern,logits", NULL);
	test_set(&s.e, "ablate.grids", "mlp_out", "ablate.value", "mean",
		 NULL); /* two passes */
	packed = lens_path_join(s.dir, "packed.h5");
	test_sweep_must(&s, NULL);
	read_digest(s.output, digest);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	test_sweep_release(&s);
	lens_free(packed);
	return 0;
}

/* An argument picks a test: test_calls, test_full_disk, test_allocations. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_allocations),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
