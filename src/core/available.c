/*
 * core/available.c: how much memory this process may take. In: what the
 * machine, its cgroups (versions 1 and 2) and Slurm say of it, as text that may say
 * anything. Out: the least of them, and which it was.
 *
 * `srun -n4` starts four processes that all see the same numbers: each counts on
 * its share of what is on its node.
 */
#include "h5lens/core.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *lens_memory_name(enum lens_memory_from from)
{
	static const char *const name[] = {
		[LENS_MEMORY_GIVEN] = "--memory",
		[LENS_MEMORY_MACHINE] = "what is free on the machine",
		[LENS_MEMORY_CGROUP] = "what the cgroup's limit leaves",
		[LENS_MEMORY_NODE] = "SLURM_MEM_PER_NODE",
		[LENS_MEMORY_CPU] = "SLURM_MEM_PER_CPU for this task's CPUs",
	};

	return name[from];
}

static void at_most(struct lens_available *a, uint64_t bytes, enum lens_memory_from from)
{
	if (bytes >= a->bytes)
		return;
	a->bytes = (size_t)bytes;
	a->from = from;
}

/* A number and nothing else but white space after it; what is too large is the largest. */
static bool read_number(const char *text, uint64_t *out)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	*out = strtoull(text, &end, 10);
	return end[strspn(end, " ")] == '\0';
}

/*
 * Shows fn each line of root/path until it is content. Lines that are too long are
 * left out. No failure is one here: what cannot be read says nothing.
 */
typedef bool (*line_fn)(void *ctx, char *line);
static bool find_line(const char *root, const char *path, line_fn fn, void *ctx)
{
	char name[PATH_MAX], line[8192];
	bool found = false, whole = true;
	FILE *f;
	int n = snprintf(name, sizeof(name), "%s%s", root, path);

	f = n > 0 && (size_t)n < sizeof(name) ? fopen(name, "re") : NULL;
	while (f && !found && fgets(line, sizeof(line), f)) {
		char *end = strchr(line, '\n');
		bool was_whole = whole;

		whole = end != NULL;
		if (end)
			*end = '\0';
		found = was_whole && (whole || feof(f)) && fn(ctx, line);
	}
	if (f)
		fclose(f);
	return found;
}

/* A number that a line is, or that stands after a key at its beginning. */
struct wanted {
	const char *key;
	uint64_t n;
};

static bool is_wanted(void *ctx, char *line)
{
	struct wanted *w = ctx;
	size_t n = strlen(w->key);

	line += strspn(line, " ");
	if (strncmp(line, w->key, n) != 0)
		return false;
	line += n;
	line[strcspn(line, "k")] = '\0'; /* "… kB" */
	return read_number(line + strspn(line, " \t"), &w->n);
}

static bool find_number(const char *root, const char *path, const char *key, uint64_t *out)
{
	struct wanted w = { .key = key };
	bool found = find_line(root, path, is_wanted, &w);

	*out = w.n;
	return found;
}

/* In /proc they stand in kB. */
static bool find_kib(const char *root, const char *path, const char *key, uint64_t *out)
{
	bool found = find_number(root, path, key, out) && *out < UINT64_MAX / 1024;

	*out = found ? *out * 1024 : 0;
	return found;
}

/* MemAvailable of /proc/meminfo; half the machine where there is none. */
static uint64_t free_on_machine(const char *root)
{
	uint64_t bytes;

	if (find_kib(root, "/proc/meminfo", "MemAvailable:", &bytes) && bytes)
		return bytes;
	return (uint64_t)sysconf(_SC_PHYS_PAGES) / 2 * (uint64_t)sysconf(_SC_PAGE_SIZE);
}

/* --- cgroups ----------------------------------------------------------------------------- */

/* What one version calls its files; mount: its file system and, in version 1, its option. */
struct version {
	const char *type, *option, *limit[2], *used, *cache;
};
static const struct version versions[] = {
	{ "cgroup2",
	  NULL,
	  { "memory.max", "memory.high" },
	  "memory.current",
	  "inactive_file " },
	{ "cgroup",
	  "memory",
	  { "memory.limit_in_bytes", NULL },
	  "memory.usage_in_bytes",
	  "total_inactive_file " },
};

/* Is the word among those that commas part? */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (;; list++) {
		if (!strncmp(list, word, n) && (list[n] == ',' || !list[n]))
			return true;
		list = strchr(list, ',');
		if (!list)
			return false;
	}
}

/* "\040" and the like, as /proc/self/mountinfo writes a space. In place. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && strspn(s + 1, "01234567") >= 3) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* What is looked for in the lines of /proc/self, and found. */
struct place {
	const struct version *version;
	char cgroup[PATH_MAX]; /* "/a/b" */
	char dir[PATH_MAX];    /* its folder */
	size_t top;            /* how much of dir is the mount point */
};

/* "4:memory:/a/b" or, of version 2, "0::/a/b" */
static bool is_own_cgroup(void *ctx, char *line)
{
	struct place *p = ctx;
	const struct version *v = p->version;
	char *list = strchr(line, ':'), *path = list ? strchr(++list, ':') : NULL;

	if (!path)
		return false;
	*path++ = '\0';
	if (*path != '/' || strlen(path) >= sizeof(p->cgroup) ||
	    !(v->option ? has_word(list, v->option) : !*list))
		return false;
	strcpy(p->cgroup, path);
	return true;
}

/*
 * "36 35 0:31 /root /mount/point rw,… master:1 - cgroup2 cgroup2 rw,…": the mount
 * shows the hierarchy from its root on.
 */
static bool is_mount(void *ctx, char *line)
{
	struct place *p = ctx;
	const struct version *v = p->version;
	char *word[32] = { NULL }, *save = NULL, *w;
	int n = 0, dash, len;
	size_t root;

	for (w = strtok_r(line, " ", &save); w && n < 32; w = strtok_r(NULL, " ", &save))
		word[n++] = w;
	for (dash = 6; dash < n && strcmp(word[dash], "-") != 0; dash++)
		;
	if (dash + 3 >= n || strcmp(word[dash + 1], v->type) != 0 ||
	    (v->option && !has_word(word[dash + 3], v->option)))
		return false;
	unescape(word[3]);
	unescape(word[4]);
	root = strcmp(word[3], "/") ? strlen(word[3]) : 0;
	if (strncmp(p->cgroup, word[3], root) != 0 ||
	    (p->cgroup[root] && p->cgroup[root] != '/'))
		root = strlen(p->cgroup); /* of another name space: the mount is all we see */
	p->top = strlen(word[4]);
	len = snprintf(p->dir, sizeof(p->dir), "%s%s", word[4], p->cgroup + root);
	return len > 0 && (size_t)len < sizeof(p->dir) && !strstr(p->dir, "/..");
}

static bool number_in(const char *root, const char *dir, const char *name, const char *key,
		      uint64_t *out)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	return n > 0 && (size_t)n < sizeof(path) && find_number(root, path, key, out);
}

/*
 * One cgroup: its limit less what is used of it, but for files that the kernel can
 * drop and what is this process's own.
 */
static void ask_cgroup(const char *root, const struct place *p, uint64_t own,
		       struct lens_available *a)
{
	const struct version *v = p->version;
	uint64_t limit = UINT64_MAX, used = 0, n;
	size_t dropped;
	size_t i;

	for (i = 0; i < 2 && v->limit[i]; i++) {
		if (number_in(root, p->dir, v->limit[i], "", &n) && n < limit)
			limit = n;
	}
	if (limit == UINT64_MAX)
		return;
	if (!number_in(root, p->dir, v->used, "", &used))
		used = 0;
	if (!number_in(root, p->dir, "memory.stat", v->cache, &n))
		n = 0;
	if (!lens_size_add(n, own, &dropped))
		dropped = own;
	used -= dropped < used ? dropped : used;
	at_most(a, limit > used ? limit - used : 0, LENS_MEMORY_CGROUP);
}

/* The process's own cgroup and those above it, whose limits count too. */
static void ask_cgroups(const char *root, const struct version *v, uint64_t own,
			struct lens_available *a)
{
	struct place p = { .version = v };
	char *slash;

	if (!find_line(root, "/proc/self/cgroup", is_own_cgroup, &p) ||
	    !find_line(root, "/proc/self/mountinfo", is_mount, &p))
		return;
	for (;;) {
		ask_cgroup(root, &p, own, a);
		slash = strrchr(p.dir, '/');
		if (!slash || (size_t)(slash - p.dir) < p.top)
			return;
		*slash = '\0';
	}
}

/* --- Slurm ------------------------------------------------------------------------------- */

static bool from_slurm(const char *name, uint64_t *out)
{
	return read_number(getenv(name), out) && *out && *out < UINT32_MAX;
}

/* Tasks of this step on this node: of "2(x3),1" the number for SLURM_NODEID. Otherwise 1. */
static uint64_t tasks_here(void)
{
	const char *at = getenv("SLURM_STEP_TASKS_PER_NODE");
	uint64_t node = 0, first = 0;

	if (!at || !getenv("SLURM_STEP_NUM_TASKS") ||
	    !read_number(getenv("SLURM_NODEID"), &node))
		return 1;
	for (;;) {
		char *end;
		uint64_t n = strtoull(at, &end, 10), times = 1;

		if (end == at || !n || n > UINT32_MAX)
			return 1;
		if (!strncmp(end, "(x", 2))
			times = strtoull(end + 2, &end, 10), end += *end == ')';
		if (times > UINT32_MAX)
			return 1;
		first += times;
		if (node < first)
			return n;
		if (*end != ',')
			return 1;
		at = end + 1;
	}
}

/* Slurm counts in MiB; 0 stands for the whole node. */
static void ask_slurm(uint64_t tasks, struct lens_available *a)
{
	uint64_t mib, cpus;

	if (from_slurm("SLURM_MEM_PER_NODE", &mib))
		at_most(a, (mib << 20) / tasks, LENS_MEMORY_NODE);
	if (from_slurm("SLURM_MEM_PER_CPU", &mib) && from_slurm("SLURM_CPUS_ON_NODE", &cpus) &&
	    cpus < UINT16_MAX)
		at_most(a, (mib << 20) / tasks * cpus, LENS_MEMORY_CPU);
}

struct lens_available lens_memory_available(const char *root)
{
	struct lens_available a = { SIZE_MAX, LENS_MEMORY_MACHINE };
	uint64_t own, tasks = tasks_here();
	size_t i;

	/* What the model takes already is not free, but ours. */
	find_kib(root, "/proc/self/status", "RssAnon:", &own);
	at_most(&a, free_on_machine(root) + own, LENS_MEMORY_MACHINE);
	for (i = 0; i < sizeof(versions) / sizeof(*versions); i++)
		ask_cgroups(root, &versions[i], own, &a);
	a.bytes /= tasks;
	ask_slurm(tasks, &a);
	return a;
}
