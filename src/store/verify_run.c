/*
 * store/verify_run.c: verifies a file, or a joined file with its shards, as tasks, in this
 * process or in child processes. In: file names. Out: findings. A child's crash is a
 * finding.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "h5lens/sys.h"
#include "store/verify_private.h"

#define MAX_PROCESSES 64
#define PARTS_PER_PROCESS 4

/* What one child is doing, in memory that it shares with its parent. */
struct slot {
	atomic_size_t task; /* its number + 1; 0: none */
	char doing[600];    /* the dataset; a crash may leave this half written */
};

struct shared {
	atomic_size_t next;
	struct slot slot[MAX_PROCESSES];
};

struct run {
	const struct lens_verify_job *job;
	struct lens_verify_sink *sink;
	size_t n_processes, n_parts,
		n_tasks; /* parts of each file; the virtual datasets are the last task */
	struct shared *shared;
	size_t *parts_left; /* [n_files] */
	struct lens_child child[MAX_PROCESSES];
	size_t n_children;
};

enum kind { FOUND, DONE };

/* From a child; of fixed size. */
struct message {
	enum kind kind;
	size_t task, n_datasets, n_bad;
	bool joined;
	struct lens_error error; /* of the task */
	bool labelled;
	char label[300], dataset[700], what[1000];
};

/* --- tasks -------------------------------------------------------------------------- */

static enum lens_status run_task(const struct run *r, size_t task,
				 struct lens_verify_sink *sink, struct lens_error *err)
{
	const struct lens_verify_job *j = r->job;
	const struct lens_verify_file *vf;
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st;

	if (task == j->n_files * r->n_parts)
		return lens_verify_virtual(j->master, j->shard, j->n_shards, sink, err);
	vf = &j->file[task / r->n_parts];
	st = lens_verify_part(vf, task % r->n_parts, r->n_parts, sink, &why);
	if (st != LENS_OK && (st != LENS_ERR_FORMAT || !vf->label))
		return lens_error_pass(err, &why);
	if (st != LENS_OK) {
		sink->n_datasets++;
		lens_verify_bad(sink, vf->label, "/", why.text);
	}
	return LENS_OK;
}

static void task_finished(struct run *r, size_t task)
{
	const struct lens_verify_job *j = r->job;
	size_t file = task / r->n_parts;

	if (file < j->n_files && !--r->parts_left[file] && j->finished)
		j->finished(j->finished_ctx, file);
}

static bool stopped(const struct run *r)
{
	return r->job->stop && atomic_load(r->job->stop);
}

static enum lens_status interrupted(struct lens_error *err)
{
	return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped while files were verified");
}

static enum lens_status run_here(struct run *r, struct lens_error *err)
{
	size_t task;

	for (task = 0; task < r->n_tasks; task++) {
		if (stopped(r))
			return interrupted(err);
		LENS_TRY(run_task(r, task, r->sink, err));
		task_finished(r, task);
	}
	return LENS_OK;
}

/* --- the child ------------------------------------------------------------------------ */

struct inside {
	struct run *r;
	struct slot *slot;
	int fd;
};

static void child_begin(void *ctx, const char *label, const char *dataset)
{
	struct inside *in = ctx;

	(void)label;
	snprintf(in->slot->doing, sizeof(in->slot->doing), "%s", dataset);
}

static void child_bad(void *ctx, const char *label, const char *dataset, const char *what)
{
	struct inside *in = ctx;
	struct message m;

	memset(&m, 0, sizeof(m));
	m.kind = FOUND;
	m.labelled = label != NULL;
	snprintf(m.label, sizeof(m.label), "%s", label ? label : "");
	snprintf(m.dataset, sizeof(m.dataset), "%s", dataset);
	snprintf(m.what, sizeof(m.what), "%s", what);
	lens_child_send(in->fd, &m, sizeof(m));
}

static void child_main(void *ctx, int fd)
{
	struct inside *in = ctx;
	struct message m;
	size_t task;

	in->fd = fd;
	while ((task = atomic_fetch_add(&in->r->shared->next, 1)) < in->r->n_tasks) {
		struct lens_verify_sink sink = { .begin = child_begin,
						 .bad = child_bad,
						 .ctx = in };

		atomic_store(&in->slot->task, task + 1);
		memset(&m, 0, sizeof(m));
		m.kind = DONE;
		m.task = task;
		m.error.code = run_task(in->r, task, &sink, &m.error);
		m.n_datasets = sink.n_datasets;
		m.n_bad = sink.n_bad;
		m.joined = sink.joined;
		if (!lens_child_send(fd, &m, sizeof(m)))
			return;
		atomic_store(&in->slot->task, 0);
	}
}

/* --- the parent ------------------------------------------------------------------------ */

static enum lens_status start(struct run *r, size_t i, struct lens_error *err)
{
	struct inside in = { .r = r, .slot = &r->shared->slot[i] };

	atomic_store(&in.slot->task, 0);
	in.slot->doing[0] = '\0';
	LENS_TRY(lens_child_start(&r->child[i], child_main, &in, err));
	r->n_children++;
	return LENS_OK;
}

static enum lens_status take_message(struct run *r, const void *data, size_t n,
				     struct lens_error *err)
{
	struct message m;

	if (n != sizeof(m))
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "the process that read the file sent nonsense");
	memcpy(&m, data, sizeof(m));
	m.label[sizeof(m.label) - 1] = m.dataset[sizeof(m.dataset) - 1] =
		m.what[sizeof(m.what) - 1] = '\0';
	if (m.kind == FOUND) {
		if (r->sink->bad)
			r->sink->bad(r->sink->ctx, m.labelled ? m.label : NULL, m.dataset,
				     m.what);
		return LENS_OK;
	}
	LENS_TRY(lens_child_error(&m.error, err));
	r->sink->n_datasets += m.n_datasets;
	r->sink->n_bad += m.n_bad;
	r->sink->joined = r->sink->joined || m.joined;
	task_finished(r, m.task);
	return LENS_OK;
}

/* A child ended in the middle of a task, which is the file's fault. */
static void child_crashed(struct run *r, size_t i, size_t task, const char *what)
{
	size_t file = task / r->n_parts;
	char dataset[600];

	memcpy(dataset, r->shared->slot[i].doing, sizeof(dataset));
	dataset[sizeof(dataset) - 1] = '\0';
	r->sink->n_datasets++;
	lens_verify_bad(r->sink, file < r->job->n_files ? r->job->file[file].label : NULL,
			dataset[0] ? dataset : "/", what);
	if (task < r->n_tasks)
		task_finished(r, task);
}

static enum lens_status child_ended(struct run *r, size_t i, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	const char *name = r->job->master;
	bool nomem = r->child[i].nomem;
	int end = lens_child_wait(&r->child[i]);
	size_t task = atomic_load(&r->shared->slot[i].task); /* number + 1 */

	r->n_children--;
	if (nomem)
		return lens_error_nomem(err, 1, sizeof(struct message));
	if (!task && !end)
		return LENS_OK;
	if (task && (task - 1) / r->n_parts < r->job->n_files)
		name = r->job->file[(task - 1) / r->n_parts].file;
	if (lens_child_died(end, name, &why) != LENS_ERR_FORMAT || !task)
		return lens_error_pass(err, &why);
	child_crashed(r, i, task - 1, why.text);
	if (atomic_load(&r->shared->next) >= r->n_tasks)
		return LENS_OK;
	return start(r, i, err);
}

static enum lens_status listen(struct run *r, size_t n, struct lens_error *err)
{
	struct pollfd p[MAX_PROCESSES];
	const void *data;
	size_t i, size;
	int rc;

	for (i = 0; i < n; i++)
		p[i] = (struct pollfd){ .fd = r->child[i].fd, .events = POLLIN };
	if (poll(p, (nfds_t)n, LENS_CHILD_POLL_MS) < 0 && errno != EINTR)
		return lens_error_sys(err, errno, NULL, "wait for processes");
	if (stopped(r))
		return interrupted(err);
	for (i = 0; i < n; i++) {
		if (!r->child[i].pid)
			continue;
		while ((rc = lens_child_receive(&r->child[i], &data, &size)) > 0)
			LENS_TRY(take_message(r, data, size, err));
		if (rc < 0)
			LENS_TRY(child_ended(r, i, err));
	}
	return LENS_OK;
}

static enum lens_status run_children(struct run *r, struct lens_error *err)
{
	size_t i, n = lens_min(r->n_processes, r->n_tasks);
	enum lens_status st = LENS_OK;

	r->shared = mmap(NULL, sizeof(*r->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r->shared == MAP_FAILED)
		return lens_error_nomem(err, 1, sizeof(*r->shared));
	for (i = 0; i < MAX_PROCESSES; i++)
		r->child[i].fd = -1;
	for (i = 0; i < n && st == LENS_OK; i++)
		st = start(r, i, err);
	while (st == LENS_OK && r->n_children)
		st = listen(r, n, err);
	for (i = 0; i < n; i++)
		lens_child_kill(&r->child[i]);
	munmap(r->shared, sizeof(*r->shared));
	return st;
}

uint64_t lens_verify_share = (uint64_t)4 << 20;

/* So many that each has its share: a process takes longer to start than a small file. */
static size_t count_processes(const struct lens_verify_job *job)
{
	uint64_t bytes = 0;
	struct stat sb;
	size_t i, n = lens_min(job->n_processes, MAX_PROCESSES);

	for (i = 0; i < job->n_files && bytes / lens_verify_share < n; i++)
		bytes += !stat(job->file[i].file, &sb) ? (uint64_t)sb.st_size : 0;
	return n && bytes / lens_verify_share < n ? 1 + (size_t)(bytes / lens_verify_share) : n;
}

enum lens_status lens_verify_run(const struct lens_verify_job *job,
				 struct lens_verify_sink *sink, struct lens_error *err)
{
	struct run *r = lens_calloc(1, sizeof(*r));
	enum lens_status st;
	size_t i;

	if (!r)
		return lens_error_nomem(err, 1, sizeof(*r));
	r->job = job;
	r->sink = sink;
	/* Many files are tasks as a whole; few are divided into parts. */
	r->n_processes = count_processes(job);
	r->n_parts = 1;
	if (r->n_processes > 1 && job->n_files < 2 * r->n_processes)
		r->n_parts = PARTS_PER_PROCESS * r->n_processes;
	r->n_tasks = job->n_files * r->n_parts + (job->master != NULL);
	r->parts_left = lens_calloc(job->n_files, sizeof(*r->parts_left));
	if (!r->parts_left) {
		lens_free(r);
		return lens_error_nomem(err, job->n_files, sizeof(*r->parts_left));
	}
	for (i = 0; i < job->n_files; i++)
		r->parts_left[i] = r->n_parts;
	st = r->n_processes ? run_children(r, err) : run_here(r, err);
	lens_free(r->parts_left);
	lens_free(r);
	return st;
}
