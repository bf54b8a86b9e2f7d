/*
 * core/child.c: work in a child process, which sends messages through a pipe. A
 * message is its length (4 bytes) and its bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "h5lens/sys.h"

#define LARGEST ((uint32_t)16 << 20) /* a child that sends more is out of control */

static bool is_child;

/* --- the child -------------------------------------------------------------------- */

#define SPARE ((size_t)1 << 20)

/*
 * HDF5 also crashes when memory runs out, on a null pointer or a stack that cannot
 * grow: that is not the file's fault.
 */
static void crashed(int sig)
{
	void *p = mmap(NULL, SPARE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(ENOMEM);
	raise(sig); /* SA_RESETHAND: this time it ends the child */
}

/* A crash must end the child, whatever handlers its parent has. */
static void catch_crashes(void)
{
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
	static char stack[64 << 10];
	struct sigaction a = { .sa_handler = crashed,
			       .sa_flags = SA_ONSTACK | (int)SA_RESETHAND | SA_NODEFER };
	size_t i;

	sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof(stack) }, NULL);
	for (i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigaction(crashes[i], &a, NULL);
	signal(SIGPIPE, SIG_IGN);
}

enum lens_status lens_child_start(struct lens_child *c, lens_child_fn fn, void *ctx,
				  struct lens_error *err)
{
	pid_t parent = getpid();
	int fd[2];

	*c = (struct lens_child){ .fd = -1 };
	if (pipe2(fd, O_CLOEXEC) != 0)
		return lens_error_sys(err, errno, NULL, "make a pipe");
	c->pid = fork();
	if (c->pid < 0) {
		int e = errno;

		c->pid = 0;
		close(fd[0]);
		close(fd[1]);
		return lens_error_sys(err, e, NULL, "start a process");
	}
	if (!c->pid) {
		is_child = true;
		catch_crashes();
		/* It inherits the parent's locks, which must not outlive the parent. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_FAILURE);
		close(fd[0]);
		fn(ctx, fd[1]);
		_exit(0); /* so that nothing of the parent's is flushed or freed twice */
	}
	close(fd[1]);
	fcntl(fd[0], F_SETFL, O_NONBLOCK);
	c->fd = fd[0];
	return LENS_OK;
}

/* Not through the test seam: a pipe is not an output. */
static bool put(int fd, const void *data, size_t n)
{
	const char *p = data;
	ssize_t got;

	while (n) {
		got = write(fd, p, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		p += got;
		n -= (size_t)got;
	}
	return true;
}

bool lens_child_send(int fd, const void *data, size_t n)
{
	uint32_t size = (uint32_t)n;

	return n <= LARGEST && put(fd, &size, sizeof(size)) && put(fd, data, n);
}

/* Reads until `want` bytes have arrived: 1; 0 and -1 as for receive. */
static int fill(struct lens_child *c, size_t want)
{
	struct lens_error err = LENS_ERROR_INIT;
	char block[4096];
	ssize_t got;

	while (c->got.len < want) {
		got = read(c->fd, block, lens_min(want - c->got.len, sizeof(block)));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
		if (got == 0)
			return -1;
		c->nomem = lens_buf_append(&c->got, block, (size_t)got, &err) != LENS_OK;
		if (c->nomem)
			return -1;
	}
	return 1;
}

int lens_child_receive(struct lens_child *c, const void **data, size_t *n)
{
	uint32_t size;
	int rc = fill(c, sizeof(size));

	if (rc <= 0)
		return rc;
	memcpy(&size, c->got.data, sizeof(size));
	if (size > LARGEST)
		return -1;
	rc = fill(c, sizeof(size) + size);
	if (rc <= 0)
		return rc;
	*data = c->got.data + sizeof(size);
	*n = size;
	c->got.len = 0; /* the bytes stay until the next call */
	return 1;
}

/* An exit code is an errno, except for EXIT_FAILURE, which sanitizers use. */
void lens_child_give_up(int errno_)
{
	if (is_child)
		_exit(errno_ > EXIT_FAILURE && errno_ < 256 ? errno_ : EIO);
}

int lens_child_wait(struct lens_child *c)
{
	int status = 0;
	pid_t pid = c->pid;

	if (c->fd >= 0)
		close(c->fd);
	lens_buf_release(&c->got);
	*c = (struct lens_child){ .fd = -1 };
	if (!pid)
		return -EXIT_FAILURE;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -EXIT_FAILURE;
	}
	if (WIFSIGNALED(status))
		return WTERMSIG(status);
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EXIT_FAILURE;
}

enum lens_status lens_child_died(int end, const char *file, struct lens_error *err)
{
	if (end < -EXIT_FAILURE)
		return lens_error_sys(err, -end, file, "read the file");
	switch (end) {
	case SIGSEGV:
	case SIGBUS:
	case SIGABRT:
	case SIGFPE:
	case SIGILL:
		return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				     "damaged: reading it failed with signal %d", end);
	case 0:
	case -EXIT_FAILURE:
		return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				     "damaged: the process that read it failed");
	default:
		return lens_error_at(err, LENS_ERR_INTERRUPTED, file, 0, 0,
				     "the process that read it was ended by signal %d", end);
	}
}

void lens_child_kill(struct lens_child *c)
{
	if (c->pid)
		kill(c->pid, SIGKILL);
	if (c->pid)
		lens_child_wait(c);
}

static bool stopped(const atomic_int *stop)
{
	return stop && atomic_load(stop);
}

/* Like receive, but waits. false: no message came. */
static bool await(struct lens_child *c, const atomic_int *stop, const void **data, size_t *n)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	int rc = 0;

	while (!stopped(stop) && (rc = lens_child_receive(c, data, n)) == 0)
		poll(&p, 1, LENS_CHILD_POLL_MS);
	return rc > 0;
}

bool lens_child_take(struct lens_child *c, const atomic_int *stop, void *out, size_t n)
{
	const void *data;
	size_t got;

	if (!await(c, stop, &data, &got) || got != n)
		return false;
	memcpy(out, data, n);
	return true;
}

enum lens_status lens_child_failed(struct lens_child *c, const atomic_int *stop,
				   const char *file, struct lens_error *err)
{
	bool nomem = c->nomem;

	if (!nomem && !stopped(stop))
		return lens_child_died(lens_child_wait(c), file, err);
	lens_child_kill(c);
	if (nomem)
		return lens_error_nomem(err, 1, LARGEST);
	return lens_error_at(err, LENS_ERR_INTERRUPTED, file, 0, 0,
			     "stopped while it was read");
}

enum lens_status lens_child_error(struct lens_error *sent, struct lens_error *err)
{
	sent->file[sizeof(sent->file) - 1] = '\0';
	sent->text[sizeof(sent->text) - 1] = '\0';
	return sent->code == LENS_OK ? LENS_OK : lens_error_pass(err, sent);
}

/* --- one call -------------------------------------------------------------------- */

struct call {
	const struct lens_child_job *job;
};

static void call_child(void *ctx, int fd)
{
	const struct lens_child_job *job = ((const struct call *)ctx)->job;
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_buf result = LENS_BUF_INIT;

	why.code = job->fn(job->ctx, &result, &why);
	if (lens_child_send(fd, &why, sizeof(why)))
		lens_child_send(fd, result.data, result.len);
	lens_buf_release(&result);
}

enum lens_status lens_child_call(const struct lens_child_job *job, struct lens_buf *result,
				 struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct call call = { job };
	enum lens_status st;
	struct lens_child c;
	const void *data;
	size_t n;

	LENS_TRY(lens_child_start(&c, call_child, &call, err));
	if (!lens_child_take(&c, job->stop, &why, sizeof(why)) ||
	    !await(&c, job->stop, &data, &n))
		return lens_child_failed(&c, job->stop, job->file, err);
	st = lens_child_error(&why, err);
	if (st == LENS_OK)
		st = lens_buf_append(result, data, n, err);
	lens_child_kill(&c);
	return st;
}
