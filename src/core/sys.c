/*
 * core/sys.c: the system calls that open inputs and make outputs, each of which a
 * test can make fail, and the replacement of a small file as a whole.
 */
#include "h5lens/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long calls_left; /* 0: no fault is planned; -1: all fail */
static atomic_int fault_errno;
static atomic_bool fault_stays;
static atomic_ulong n_calls;
static atomic_int lock_errno;

void lens_sys_fail_at(unsigned long k, int errno_, bool for_ever)
{
	atomic_store(&fault_errno, errno_);
	atomic_store(&fault_stays, for_ever);
	atomic_store(&calls_left, (long)k);
}

unsigned long lens_sys_calls(void)
{
	return atomic_load(&n_calls);
}

static bool fault(void)
{
	long left = atomic_load(&calls_left);

	atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
	/* If several threads write, exactly one of them makes the k-th call. */
	while (left > 1) {
		if (atomic_compare_exchange_weak(&calls_left, &left, left - 1))
			return false;
	}
	while (left == 1) {
		if (atomic_compare_exchange_weak(&calls_left, &left,
						 atomic_load(&fault_stays) ? -1 : 0)) {
			errno = atomic_load(&fault_errno);
			return true;
		}
	}
	if (left >= 0)
		return false;
	errno = atomic_load(&fault_errno);
	return true;
}

int lens_sys_open(const char *path, int flags, mode_t mode)
{
	return fault() ? -1 : open(path, flags, mode);
}

/* Writing 0 bytes is an error: it would go on for ever. */
static int progress(ssize_t got, size_t *done)
{
	if (got > 0) {
		*done += (size_t)got;
		return 0;
	}
	if (got == 0)
		errno = EIO;
	return got < 0 && errno == EINTR ? 0 : -1;
}

int lens_sys_write(int fd, const void *buf, size_t n)
{
	size_t done = 0;

	while (done < n) {
		if (progress(fault() ? -1 : write(fd, (const char *)buf + done, n - done),
			     &done))
			return -1;
	}
	return 0;
}

int lens_sys_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	size_t done = 0;

	while (done < n) {
		if (progress(fault() ? -1
				     : pwrite(fd, (const char *)buf + done, n - done,
					      at + (off_t)done),
			     &done))
			return -1;
	}
	return 0;
}

int lens_sys_set_direct(int fd, bool direct)
{
#ifdef O_DIRECT
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -1;
	return fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT);
#else
	(void)fd, (void)direct;
	errno = EINVAL;
	return -1;
#endif
}

int lens_sys_truncate(int fd, off_t size)
{
	return fault() ? -1 : ftruncate(fd, size);
}

int lens_sys_fsync(int fd)
{
	return fault() ? -1 : fsync(fd);
}

int lens_sys_close(int fd)
{
	bool fails = fault();
	int e = errno, rc = close(fd);

	if (!fails)
		return rc;
	errno = e;
	return -1;
}

int lens_sys_rename(const char *from, const char *to)
{
	return fault() ? -1 : rename(from, to);
}

int lens_sys_mkdir(const char *path, mode_t mode)
{
	return fault() ? -1 : mkdir(path, mode);
}

int lens_sys_unlink(const char *path)
{
	return unlink(path);
}

void lens_sys_lock_errno(int errno_)
{
	atomic_store(&lock_errno, errno_);
}

enum lens_lock lens_sys_lock(int fd, int how)
{
	int rc;

	do {
		errno = atomic_load(&lock_errno);
		rc = errno ? -1 : flock(fd, how);
	} while (rc && errno == EINTR);
	if (!rc)
		return LENS_LOCK_OURS;
	switch (errno) {
	case EWOULDBLOCK:
		return LENS_LOCK_HELD;
	case ENOLCK:
	case ENOSYS:
	case EOPNOTSUPP:
	case EINVAL:
		return LENS_LOCK_NONE;
	default:
		return LENS_LOCK_FAILED;
	}
}

/* --- folders and small files ---------------------------------------------------- */

enum lens_status lens_dir_sync(const char *dir, struct lens_error *err)
{
	int fd, e = 0;

	fd = lens_sys_open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return lens_error_sys(err, errno, dir, "open the directory");
	if (lens_sys_fsync(fd) != 0)
		e = errno;
	close(fd);
	/* Some file systems cannot sync a directory, and need not. */
	if (e && e != EINVAL && e != ENOTSUP)
		return lens_error_sys(err, e, dir, "flush the directory to disk");
	return LENS_OK;
}

/* Opens a new file beside path; tmp gets its name. */
static int open_beside(const char *path, struct lens_buf *tmp, struct lens_error *err)
{
	unsigned tries, random;
	int fd;

	for (tries = 0; tries < 16; tries++) {
		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			random = (unsigned)getpid() + tries;
		tmp->len = 0;
		if (lens_buf_printf(tmp, err, "%s.tmp-%08x", path, random) != LENS_OK)
			return -1;
		fd = lens_sys_open(tmp->data,
				   O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
		if (fd >= 0 || errno != EEXIST)
			break;
	}
	if (fd < 0)
		lens_error_sys(err, errno, tmp->data, "create the file");
	return fd;
}

static enum lens_status fill(int fd, const char *name, const void *data, size_t n,
			     struct lens_error *err)
{
	int e = 0;

	if (lens_sys_write(fd, data, n) != 0 || lens_sys_fsync(fd) != 0)
		e = errno;
	if (lens_sys_close(fd) != 0 && !e)
		e = errno;
	return e ? lens_error_sys(err, e, name, "write the file") : LENS_OK;
}

enum lens_status lens_file_replace(const char *path, const void *data, size_t n,
				   struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	struct lens_buf tmp = LENS_BUF_INIT;
	char *dir = lens_path_folder(path);
	enum lens_status st = LENS_OK;
	int fd;

	if (!dir)
		return lens_error_nomem(err, strlen(path) + 1, 1);
	fd = open_beside(path, &tmp, &why);
	if (fd < 0) {
		st = lens_error_at(err, why.code, why.file, 0, 0, "%s", why.text);
	} else {
		st = fill(fd, tmp.data, data, n, err);
		if (st == LENS_OK && lens_sys_rename(tmp.data, path) != 0)
			st = lens_error_sys(err, errno, path,
					    "rename the file to its final name");
		if (st != LENS_OK)
			lens_sys_unlink(tmp.data);
	}
	if (st == LENS_OK)
		st = lens_dir_sync(dir, err);
	lens_buf_release(&tmp);
	lens_free(dir);
	return st;
}
