/*
 * sweep/claim.c: one run at a time on one share of an output. Each run has a
 * file <host>-<pid>.run in out.shards: its lock (flock, which the system drops
 * when the process dies, however it dies), and what `status` shows. Where there are
 * no locks, the process and the file's age say whether it is alive (running.c).
 *
 * The file is LENS_RUN_BYTES of JSON padded with spaces, written in place by one
 * call, so that a reader (running.c) sees one state of it. It is written every
 * second.
 */
#include "sweep/sweep_private.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "h5lens/sys.h"

struct lens_claim {
	char *path;
	int fd;
	char host[128];
	struct lens_share share;
	int why_no_lock; /* an errno, or 0: the lock is held */
	pthread_t thread;
	bool running, ending;
	pthread_mutex_t mutex;
	pthread_cond_t woken;
	struct lens_progress progress;
};

/* --- the file ---------------------------------------------------------------------- */

/*
 * Allocates nothing: the thread that calls it must not hold the allocator's lock
 * while the main thread forks. The host's name needs no escapes (lens_host_name).
 */
static void write_file(struct lens_claim *c)
{
	const struct lens_progress *p = &c->progress;
	char text[LENS_RUN_BYTES + 1];
	int n = snprintf(text, sizeof(text),
			 "{\"host\":\"%s\",\"pid\":%ld,\"task\":%zu,\"n_tasks\":%zu,"
			 "\"rows_total\":%zu,\"rows_kept\":%zu,\"rows_done\":%zu,"
			 "\"tokens_done\":%llu,\"bytes_written\":%llu,\"shard\":%zu,"
			 "\"n_shards\":%zu,\"seconds\":%.3f}",
			 c->host, (long)getpid(), c->share.task, c->share.n_tasks,
			 p->rows_total, p->rows_kept, p->rows_done,
			 (unsigned long long)p->tokens_done,
			 (unsigned long long)p->bytes_written, p->shard, p->n_shards,
			 p->seconds);

	if (n < 0 || n >= LENS_RUN_BYTES)
		return;
	memset(text + n, ' ', LENS_RUN_BYTES - (size_t)n);
	text[LENS_RUN_BYTES - 1] = '\n';
	/* A failure is no reason for a run to die: only `status` knows less. */
	if (pwrite(c->fd, text, LENS_RUN_BYTES, 0) != LENS_RUN_BYTES)
		return;
}

/* --- taking --------------------------------------------------------------------------- */

static size_t common_divisor(size_t a, size_t b)
{
	while (b) {
		size_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

/* Is there a number that is a.task modulo a.n_tasks and b.task modulo b.n_tasks? */
static bool overlap(const struct lens_share *a, const struct lens_share *b)
{
	size_t d = common_divisor(a->n_tasks, b->n_tasks);

	return a->task % d == b->task % d;
}

struct rivals {
	const struct lens_claim *claim;
	struct lens_running rival;
	bool found;
};

static void look(void *ctx, const char *path, const struct lens_running *r)
{
	struct rivals *x = ctx;

	if (!strcmp(path, x->claim->path))
		return;
	if (!r->alive)
		unlink(path);
	else if (!x->found && overlap(&r->share, &x->claim->share)) {
		x->found = true;
		x->rival = *r;
	}
}

static enum lens_status busy(const char *folder, const struct lens_running *r,
			     struct lens_error *err)
{
	char share[64] = "", host[128];

	lens_host_name(host, sizeof(host));
	if (!lens_share_is_all(&r->share))
		snprintf(share, sizeof(share), " (task %zu/%zu)", r->share.task + 1,
			 r->share.n_tasks);
	return lens_error_at(err, LENS_ERR_BUSY, folder, 0, 0,
			     "process %ld on %s%s is at work on this output: wait for it, or "
			     "end it first%s",
			     r->pid, r->host, share,
			     strcmp(host, r->host) ? " (two minutes after that machine is "
						     "lost, its place is free)"
						   : "");
}

/* Our own file, locked. */
static enum lens_status make_file(struct lens_claim *c, const char *folder,
				  struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;

	LENS_TRY(lens_buf_printf(&b, err, "%s/%s-%ld.run", folder, c->host, (long)getpid()));
	c->path = b.data;
	c->fd = lens_sys_open(c->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (c->fd < 0)
		return lens_error_sys(err, errno, c->path, "create");
	switch (lens_sys_lock(c->fd, LOCK_EX | LOCK_NB)) {
	case LENS_LOCK_HELD:
		return lens_error_at(err, LENS_ERR_BUSY, c->path, 0, 0,
				     "another run of this process is at work on this output");
	case LENS_LOCK_FAILED:
		return lens_error_sys(err, errno, c->path, "lock");
	case LENS_LOCK_NONE:
		c->why_no_lock = errno;
		break;
	case LENS_LOCK_OURS:
		break;
	}
	write_file(c);
	/* Other machines must see it before we look for theirs. */
	fdatasync(c->fd);
	return LENS_OK;
}

static void *keep_up(void *arg)
{
	struct lens_claim *c = arg;
	struct timespec t;

	pthread_mutex_lock(&c->mutex);
	c->running = true;
	pthread_cond_signal(&c->woken);
	while (!c->ending) {
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec++;
		pthread_cond_timedwait(&c->woken, &c->mutex, &t);
		write_file(c);
	}
	pthread_mutex_unlock(&c->mutex);
	return NULL;
}

/*
 * Between making our file and looking for others nobody else may do the same. Where
 * there are no locks, two who do so see each other, and neither gets the share.
 */
static enum lens_status take(struct lens_claim *c, const char *folder, struct lens_error *err)
{
	int door = lens_sys_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	struct rivals x = { .claim = c };
	enum lens_status st;
	struct stat sb;

	if (door < 0)
		return lens_error_sys(err, errno, folder, "open the folder");
	if (lens_sys_lock(door, LOCK_EX) == LENS_LOCK_FAILED) {
		st = lens_error_sys(err, errno, folder, "lock the folder");
		close(door);
		return st;
	}
	st = make_file(c, folder, err);
	if (st == LENS_OK)
		st = lens_each_run(folder, fstat(c->fd, &sb) ? 0 : sb.st_mtime, look, &x, err);
	if (st == LENS_OK && x.found)
		st = busy(folder, &x.rival, err);
	/* Gone before the next one looks. */
	if (st != LENS_OK && c->fd >= 0)
		unlink(c->path);
	close(door); /* and with it the lock */
	return st;
}

enum lens_status lens_claim_take(const char *folder, const struct lens_share *share,
				 struct lens_claim **out, struct lens_error *err)
{
	struct lens_claim *c = lens_calloc(1, sizeof(*c));
	enum lens_status st;

	*out = NULL;
	if (!c)
		return lens_error_nomem(err, 1, sizeof(*c));
	c->fd = -1;
	c->share = *share;
	lens_host_name(c->host, sizeof(c->host));
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->woken, NULL);
	st = take(c, folder, err);
	if (st == LENS_OK && pthread_create(&c->thread, NULL, keep_up, c)) {
		unlink(c->path);
		st = lens_error_set(err, LENS_ERR_NOMEM, "cannot start a thread");
	}
	if (st != LENS_OK) {
		lens_claim_release(c);
		return st;
	}
	/* Its start allocates, and this thread may fork (write_file). */
	pthread_mutex_lock(&c->mutex);
	while (!c->running)
		pthread_cond_wait(&c->woken, &c->mutex);
	pthread_mutex_unlock(&c->mutex);
	*out = c;
	return LENS_OK;
}

void lens_claim_update(struct lens_claim *c, const struct lens_progress *p)
{
	pthread_mutex_lock(&c->mutex);
	c->progress = *p;
	pthread_mutex_unlock(&c->mutex);
}

int lens_claim_no_lock(const struct lens_claim *c)
{
	return c->why_no_lock;
}

void lens_claim_release(struct lens_claim *c)
{
	if (!c)
		return;
	if (c->running) {
		pthread_mutex_lock(&c->mutex);
		c->ending = true;
		pthread_cond_signal(&c->woken);
		pthread_mutex_unlock(&c->mutex);
		pthread_join(c->thread, NULL);
		unlink(c->path);
	}
	if (c->fd >= 0)
		close(c->fd);
	pthread_mutex_destroy(&c->mutex);
	pthread_cond_destroy(&c->woken);
	lens_free(c->path);
	lens_free(c);
}

static void drop_dead(void *ctx, const char *path, const struct lens_running *r)
{
	(void)ctx;
	if (!r->alive)
		unlink(path);
}

void lens_claim_clean(const char *folder)
{
	int door = lens_sys_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	if (door < 0)
		return;
	lens_sys_lock(door, LOCK_EX);
	lens_each_run(folder, time(NULL), drop_dead, NULL, NULL);
	close(door); /* and with it the lock */
}

/* --- listing ------------------------------------------------------------------------- */

struct listing {
	lens_running_fn fn;
	void *ctx;
};

static void list_one(void *ctx, const char *path, const struct lens_running *r)
{
	const struct listing *l = ctx;

	(void)path;
	l->fn(l->ctx, r);
}

enum lens_status lens_claim_list(const char *folder, lens_running_fn fn, void *ctx,
				 struct lens_error *err)
{
	struct listing l = { fn, ctx };

	return lens_each_run(folder, time(NULL), list_one, &l, err);
}
