/*
 * store/io.c: the system calls below an HDF5 file. In: offsets and bytes from the driver
 * (vfd.c). Out: a file on the disk, or an errno.
 */
#include "store/io_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include "h5lens/store.h"
#include "h5lens/sys.h"

/* Bytes of a write from which on it is a chunk's, which vfd.c puts on a page. */
#define LARGE ((size_t)64 << 10)

void lens_store_fail_at(unsigned long k, int errno_)
{
	lens_sys_fail_at(k, errno_, true);
}

bool lens_io_fail(struct lens_io *io, int errno_, const char *op)
{
	if (!io->writable)
		lens_child_give_up(errno_);
	if (!io->err) {
		io->err = errno_;
		io->op = op;
	}
	io->abandoned = io->writable;
	return false;
}

static enum lens_status io_new(const char *path, bool writable, struct lens_io **out,
			       struct lens_error *err)
{
	struct lens_io *io = lens_calloc(1, sizeof(*io));

	if (!io)
		return lens_error_nomem(err, 1, sizeof(*io));
	io->fd = -1;
	io->lock_fd = -1;
	io->writable = writable;
	io->path = path ? lens_strdup(path) : NULL;
	if (path && !io->path) {
		lens_free(io);
		return lens_error_nomem(err, strlen(path) + 1, 1);
	}
	*out = io;
	return LENS_OK;
}

bool lens_io_starts_as(int fd, bool unwritten)
{
	static const char signature[8] = "\x89HDF\r\n\x1a\n", zero[8] = "";
	char start[8];

	return pread(fd, start, sizeof(start), 0) == (ssize_t)sizeof(start) &&
	       !memcmp(start, unwritten ? zero : signature, sizeof(start));
}

bool lens_store_is_hdf5(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is = fd >= 0 && lens_io_starts_as(fd, false);

	if (fd >= 0)
		close(fd);
	return is;
}

/*
 * Of the file systems that O_DIRECT is known to be faster on. Over a network each chunk
 * would wait for the server, and memory has no disk to go to.
 */
static bool on_local_disk(int fd)
{
#ifdef __linux__
	struct statfs fs;

	return !fstatfs(fd, &fs) &&
	       (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC);
#else
	(void)fd;
	return false;
#endif
}

enum lens_status lens_io_create(const char *final, struct lens_io **out, struct lens_error *err)
{
	struct lens_io *io = NULL;
	int e;

	LENS_TRY(io_new(NULL, true, &io, err));
	e = lens_part_create(io, final);
	io->direct = !e && on_local_disk(io->fd);
	if (!e && !lens_part_clean(final, io->path, false)) {
		*out = io;
		return LENS_OK;
	}
	if (!e)
		lens_sys_unlink(io->path);
	lens_io_release(io);
	if (!e)
		return lens_error_at(err, LENS_ERR_BUSY, final, 0, 0,
				     "another run is writing this output");
	return e == ENOMEM ? lens_error_nomem(err, strlen(final) + 1, 1)
			   : lens_error_sys(err, e, final, "create a file for it");
}

enum lens_status lens_io_open(const char *path, struct lens_io **out, struct lens_error *err)
{
	struct lens_io *io = NULL;
	struct stat st;
	int e;

	LENS_TRY(io_new(path, false, &io, err));
	/* O_NONBLOCK: must not hang if the path is a FIFO. */
	io->fd = lens_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if (io->fd < 0 || fstat(io->fd, &st) != 0) {
		e = errno;
		lens_io_release(io);
		return lens_error_sys(err, e, path, "open the file");
	}
	if (!S_ISREG(st.st_mode)) {
		lens_io_release(io);
		return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0, "not a regular file");
	}
	io->size = (uint64_t)st.st_size;
	*out = io;
	return LENS_OK;
}

/*
 * Writes the whole pages of a chunk past the page cache, if chunk and buffer begin on a
 * page: a tenth of the processor's time that the copy into the cache takes. Returns how
 * many bytes those were; 0 too if the file system refuses, and then never tries again.
 */
static size_t write_direct(struct lens_io *io, uint64_t at, const void *buf, size_t n)
{
	size_t whole = n - n % LENS_PAGE;
	int e = 0;

	if (!io->direct || n < LARGE || at % LENS_PAGE || (uintptr_t)buf % LENS_PAGE)
		return 0;
	if (lens_sys_set_direct(io->fd, true) != 0)
		e = EINVAL;
	else if (lens_sys_pwrite(io->fd, buf, whole, (off_t)at) != 0)
		e = errno;
	lens_sys_set_direct(io->fd, false);
	if (!e)
		return whole;
	if (e == EINVAL) /* needs another alignment */
		io->direct = false;
	else
		lens_io_fail(io, e, "write the file");
	return 0;
}

/*
 * Starts write-back of what was just written through the page cache. Otherwise dirty pages
 * pile up and writing is throttled: 0.3–0.7 GB/s instead of 2.0 on ext4 over a virtual disk.
 */
static void start_writeback(struct lens_io *io, uint64_t at, size_t n)
{
#ifdef SYNC_FILE_RANGE_WRITE
	if (n >= LARGE &&
	    sync_file_range(io->fd, (off_t)at, (off_t)n, SYNC_FILE_RANGE_WRITE) != 0 &&
	    (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		lens_io_fail(io, errno, "write the file");
#else
	(void)io, (void)at, (void)n;
#endif
}

void lens_io_write(struct lens_io *io, uint64_t at, const void *buf, size_t n)
{
	size_t done;

	if (!io->writable || at > INT64_MAX - n) {
		lens_io_fail(io, EINVAL, "write the file");
		return;
	}
	if (at + n > io->size)
		io->size = at + n;
	if (io->abandoned)
		return;
	done = write_direct(io, at, buf, n);
	if (io->err || done == n)
		return;
	at += done;
	n -= done;
	if (lens_sys_pwrite(io->fd, (const char *)buf + done, n, (off_t)at) != 0)
		lens_io_fail(io, errno, "write the file");
	else
		start_writeback(io, at, n);
}

/*
 * Beyond its end, a file that is being written will hold zeros; one that is only read has
 * been cut short.
 */
bool lens_io_read(struct lens_io *io, uint64_t at, void *buf, size_t n)
{
	char *p = buf;
	size_t done = 0;
	ssize_t got;

	if (at > INT64_MAX - n) /* a damaged address, not a failure of the system */
		return false;
	while (done < n) {
		got = pread(io->fd, p + done, n - done, (off_t)(at + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return lens_io_fail(io, errno, "read the file");
		if (got == 0)
			break;
		done += (size_t)got;
	}
	if (done == n)
		return true;
	memset(p + done, 0, n - done);
	return io->writable;
}

void lens_io_truncate(struct lens_io *io, uint64_t size)
{
	if (size == io->size)
		return;
	if (!io->writable || size > INT64_MAX)
		lens_io_fail(io, EINVAL, "truncate the file");
	else if (!io->abandoned && lens_sys_truncate(io->fd, (off_t)size) != 0)
		lens_io_fail(io, errno, "extend the file");
	io->size = size;
}

enum lens_status lens_io_finish(struct lens_io *io, struct lens_error *err)
{
	int e = 0;

	if (lens_sys_fsync(io->fd) != 0)
		e = errno;
	/* NFS and quotas may report a failed write only here. */
	if (lens_sys_close(io->fd) != 0 && !e)
		e = errno;
	io->fd = -1;
	return e ? lens_error_sys(err, e, io->path, "flush the file to disk") : LENS_OK;
}

enum lens_status lens_io_rename(const char *from, const char *to, struct lens_error *err)
{
	if (lens_sys_rename(from, to) != 0)
		return lens_error_sys(err, errno, to,
				      "rename the finished file to its final name");
	return LENS_OK;
}

void lens_io_release(struct lens_io *io)
{
	if (!io)
		return;
	if (io->fd >= 0)
		close(io->fd);
	io->fd = -1;
	if (io->lock_fd >= 0)
		close(io->lock_fd);
	io->lock_fd = -1;
	if (io->n_open > 0) { /* vfd.c frees it when HDF5 closes it */
		io->orphaned = true;
		return;
	}
	lens_free(io->path);
	lens_free(io);
}
