/*
 * test_available.c: how much memory a process may take, by trees of /proc and
 * cgroups that are made up, and by Slurm's variables.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "h5lens/core.h"
#include "support/sweeps.h"

#define MIB ((size_t)1 << 20)
#define V2 "30 23 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1 "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"

static char root[128];

static void forget_slurm(void)
{
	static const char *const names[] = {
		"SLURM_MEM_PER_NODE",   "SLURM_MEM_PER_CPU",         "SLURM_CPUS_ON_NODE",
		"SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID"
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		unsetenv(names[i]);
}

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	forget_slurm();
	snprintf(root, sizeof(root), "%.90s/h5lens-memory-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(root) == NULL;
}

static int tear_down(void **state)
{
	(void)state;
	forget_slurm();
	return 0;
}

/* root/path with its folders. */
static void put(const char *path, const char *text)
{
	char name[512], *slash;
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	for (slash = name + strlen(root); (slash = strchr(slash + 1, '/')) != NULL;
	     *slash = '/') {
		*slash = '\0';
		mkdir(name, 0777);
	}
	f = fopen(name, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void expect(enum lens_memory_from from, size_t bytes)
{
	struct lens_available a = lens_memory_available(root);

	assert_string_equal(lens_memory_name(a.from), lens_memory_name(from));
	assert_int_equal(a.bytes, bytes);
}

/* 4,000 MiB are free, and 100 are this process's. */
static void machine(const char *cgroup, const char *mounts)
{
	put("/proc/meminfo",
	    "MemTotal:       8192000 kB\nMemFree:  1 kB\nMemAvailable: 4096000 kB\n");
	put("/proc/self/status", "Name:\th5lens\nRssAnon:\t  102400 kB\n");
	put("/proc/self/cgroup", cgroup);
	put("/proc/self/mountinfo", mounts);
}

static void test_machine(void **state)
{
	(void)state;
	machine("0::/\n", V2);
	expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	put("/proc/self/status", "RssAnon: lots\n");
	expect(LENS_MEMORY_MACHINE, 4000 * MIB);
	/* Without a number there is still an answer. */
	put("/proc/meminfo", "MemAvailable: -5 kB\n");
	assert_true(lens_memory_available(root).bytes > 0);
	test_remove_tree(root);
	assert_true(lens_memory_available(root).bytes > 0);
}

/* Its own cgroup has no limit, the one above it has, and the root has another. */
static void test_version_2(void **state)
{
	(void)state;
	machine("0::/job/step\n", "22 1 0:21 / /proc rw - proc proc rw\n" V2);
	put("/sys/fs/cgroup/job/step/memory.max", "max\n");
	put("/sys/fs/cgroup/job/memory.max", "1048576000\n"); /* 1,000 MiB */
	expect(LENS_MEMORY_CGROUP, 1000 * MIB);
	/* 600 used, of which 100 are this process's and 50 files that nobody reads. */
	put("/sys/fs/cgroup/job/memory.current", "629145600\n");
	expect(LENS_MEMORY_CGROUP, 500 * MIB);
	put("/sys/fs/cgroup/job/memory.stat",
	    "anon 7\ninactive_file 52428800\nactive_file 9\n");
	expect(LENS_MEMORY_CGROUP, 550 * MIB);
	put("/sys/fs/cgroup/memory.max", "838860800\n"); /* 800 */
	expect(LENS_MEMORY_CGROUP, 550 * MIB);
	put("/sys/fs/cgroup/job/step/memory.high", "104857600\n"); /* 100 */
	expect(LENS_MEMORY_CGROUP, 100 * MIB);
	/* More used than there may be. */
	put("/sys/fs/cgroup/job/step/memory.current", "999999999999\n");
	expect(LENS_MEMORY_CGROUP, 0);
	test_remove_tree(root);
}

static void test_version_1(void **state)
{
	(void)state;
	machine("9:name=systemd:/\n5:memory,hugetlb:/slurm/uid_0/job_7\n0::/\n",
		"34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" V1 V2);
	put("/sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.limit_in_bytes",
	    "9223372036854771712\n");
	expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	put("/sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "2097152000\n");
	put("/sys/fs/cgroup/memory/slurm/memory.usage_in_bytes", "1048576000\n");
	put("/sys/fs/cgroup/memory/slurm/memory.stat",
	    "cache 1\ntotal_inactive_file 104857600\n");
	expect(LENS_MEMORY_CGROUP, 1200 * MIB);
	test_remove_tree(root);
}

/* What is mounted begins below the hierarchy's root, or is another name space's. */
static void test_mounts(void **state)
{
	static const char mount[] =
		"40 23 0:26 /docker/a\\040b /my\\040cgroup rw - cgroup2 none rw\n";

	(void)state;
	machine("0::/docker/a b/job\n", mount);
	put("/my cgroup/job/memory.max", "1048576\n");
	expect(LENS_MEMORY_CGROUP, MIB);
	machine("0::/elsewhere\n", mount);
	expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	put("/my cgroup/memory.max", "2097152\n");
	expect(LENS_MEMORY_CGROUP, 2 * MIB);
	machine("0::/docker/a bc\n", mount);
	expect(LENS_MEMORY_CGROUP, 2 * MIB);
	test_remove_tree(root);
}

static void test_nonsense(void **state)
{
	static const char *const limit[] = { "",       "\n",    "-1\n",   "1e3\n",
					     "0x10\n", "5 6\n", "max 5\n" };
	static const char *const cgroup[] = {
		"",           ":",          "::", "0:", "0::", "0::x\n", "0::/../../job\n",
		"4:memory\n", "no\nlines\n"
	};
	static const char *const mounts[] = { "", " - ", "1 2 3 - cgroup2 a b",
					      "30 23 0:26 / /sys/fs/cgroup rw -",
					      "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n" };
	char *longest = malloc(20000);
	size_t i;

	(void)state;
	machine("0::/job\n", V2);
	for (i = 0; i < sizeof(limit) / sizeof(*limit); i++) {
		put("/sys/fs/cgroup/job/memory.max", limit[i]);
		expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	}
	put("/sys/fs/cgroup/job/memory.max", "1048576");
	expect(LENS_MEMORY_CGROUP, MIB);
	for (i = 0; i < sizeof(cgroup) / sizeof(*cgroup); i++) {
		machine(cgroup[i], V2);
		expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	}
	for (i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		machine("0::/job\n", mounts[i]);
		expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	}
	/* A line that is too long hides none of the others. */
	assert_non_null(longest);
	memset(longest, 'x', 19000);
	strcpy(longest + 19000, "\n" V2);
	machine("0::/job\n", longest);
	expect(LENS_MEMORY_CGROUP, MIB);
	free(longest);
	test_remove_tree(root);
}

static void test_slurm(void **state)
{
	static const char *const odd[] = {
		"", "0", "-4", "many", "4K", "99999999999999999999"
	};
	size_t i;

	(void)state;
	machine("0::/\n", V2);
	for (i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
		setenv("SLURM_MEM_PER_NODE", odd[i], 1);
		expect(LENS_MEMORY_MACHINE, 4100 * MIB);
	}
	setenv("SLURM_MEM_PER_NODE", "2000", 1);
	expect(LENS_MEMORY_NODE, 2000 * MIB);
	setenv("SLURM_MEM_PER_CPU", "100", 1);
	expect(LENS_MEMORY_NODE, 2000 * MIB); /* nobody says how many CPUs */
	setenv("SLURM_CPUS_ON_NODE", "8", 1);
	expect(LENS_MEMORY_CPU, 800 * MIB);
	setenv("SLURM_MEM_PER_CPU", "4000", 1);
	expect(LENS_MEMORY_NODE, 2000 * MIB);
	test_remove_tree(root);
}

/* Tasks of srun that are on this node share what is there. */
static void test_tasks(void **state)
{
	static const struct {
		const char *tasks, *node;
		size_t share;
	} row[] = { { "4", "0", 4 },       { "2(x3),1", "0", 2 }, { "2(x3),1", "2", 2 },
		    { "2(x3),1", "3", 1 }, { "2(x3),1", "4", 1 }, { "5,3(x2)", "1", 3 },
		    { "2(x", "0", 1 },     { "0", "0", 1 },       { "x", "0", 1 },
		    { "-2", "0", 1 },      { "", "0", 1 },        { "4", "x", 1 } };
	size_t i;

	(void)state;
	machine("0::/\n", V2);
	setenv("SLURM_STEP_TASKS_PER_NODE", "4", 1);
	setenv("SLURM_NODEID", "0", 1);
	expect(LENS_MEMORY_MACHINE, 4100 * MIB); /* of a step that this process is not of */
	setenv("SLURM_STEP_NUM_TASKS", "8", 1);
	for (i = 0; i < sizeof(row) / sizeof(*row); i++) {
		setenv("SLURM_STEP_TASKS_PER_NODE", row[i].tasks, 1);
		setenv("SLURM_NODEID", row[i].node, 1);
		expect(LENS_MEMORY_MACHINE, 4100 * MIB / row[i].share);
	}
	setenv("SLURM_STEP_TASKS_PER_NODE", "4", 1);
	setenv("SLURM_NODEID", "0", 1);
	setenv("SLURM_MEM_PER_CPU", "100", 1);
	setenv("SLURM_CPUS_ON_NODE", "8", 1);
	expect(LENS_MEMORY_CPU, 200 * MIB);
	test_remove_tree(root);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = { T(test_machine),   T(test_version_2),
					    T(test_version_1), T(test_mounts),
					    T(test_nonsense),  T(test_slurm),
					    T(test_tasks) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
