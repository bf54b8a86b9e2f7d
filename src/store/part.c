/*
 * store/part.c: the name of a file until it is finished, "<final>.part-<8 hex digits>".
 * Each writer creates its own, so that two never write the same file, even where one does
 * not see the other's locks (NFS, Lustre). In: a final name. Out: a new file beside it,
 * locked if possible.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "h5lens/store.h"
#include "h5lens/sys.h"
#include "store/io_private.h"

#define DIGITS 8

bool lens_store_is_part(const char *name, const char *final)
{
	size_t n = strlen(final);

	if (strncmp(name, final, n) != 0 || strncmp(name + n, ".part", 5) != 0)
		return false;
	name += n + 5;
	/* Earlier versions used no digits. */
	return !*name || (*name == '-' && strspn(name + 1, "0123456789abcdef") == DIGITS &&
			  !name[1 + DIGITS]);
}

/* --- creating one -------------------------------------------------------------- */

/* Is the file at path still the one that fd has open? */
static bool same_file(const char *path, int fd)
{
	struct stat a, b;

	return !lstat(path, &a) && !fstat(fd, &b) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/*
 * One try, with the name in io->path: 0, EAGAIN to try another name, or an errno. Before
 * we have locked the file, another process that cleans up may hold its lock or have removed
 * it.
 */
static int try_create(struct lens_io *io)
{
	int e = 0;

	io->fd = lens_sys_open(io->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
			       0666);
	if (io->fd < 0)
		return errno == EEXIST ? EAGAIN : errno;
	switch (lens_sys_lock(io->fd, LOCK_EX | LOCK_NB)) {
	case LENS_LOCK_HELD:
		e = EAGAIN;
		break;
	case LENS_LOCK_FAILED:
		e = errno;
		break;
	case LENS_LOCK_OURS:
	case LENS_LOCK_NONE:
		e = same_file(io->path, io->fd) ? 0 : EAGAIN;
	}
	if (!e && (io->lock_fd = dup(io->fd)) < 0)
		e = errno;
	if (e) {
		lens_sys_unlink(io->path);
		close(io->fd);
		io->fd = -1;
	}
	return e;
}

int lens_part_create(struct lens_io *io, const char *final)
{
	size_t size = strlen(final) + sizeof(".part-") + DIGITS;
	unsigned random, tries;
	int e = EAGAIN;

	io->path = lens_calloc(size, 1);
	if (!io->path)
		return ENOMEM;
	for (tries = 0; e == EAGAIN && tries < 16; tries++) {
		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			random = (unsigned)getpid() * 16 + tries;
		snprintf(io->path, size, "%s.part-%08x", final, random);
		e = try_create(io);
	}
	return e;
}

/* --- what others left ------------------------------------------------------------- */

/* Is it empty, HDF5, or HDF5 whose first block was never written? Else it is not our file. */
static bool ours(int fd)
{
	struct stat sb;

	if (fstat(fd, &sb) || !S_ISREG(sb.st_mode))
		return false;
	return !sb.st_size || lens_io_starts_as(fd, false) || lens_io_starts_as(fd, true);
}

/* Removes a file in the folder unless its lock is held; then sets *held. */
static void drop(int folder, const char *name, bool without_locks, bool *held)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	enum lens_lock lock;

	if (fd < 0)
		return;
	lock = lens_sys_lock(fd, LOCK_SH | LOCK_NB);
	if (lock == LENS_LOCK_HELD)
		*held = true;
	else if ((lock == LENS_LOCK_OURS || (lock == LENS_LOCK_NONE && without_locks)) &&
		 ours(fd))
		unlinkat(folder, name, 0);
	close(fd);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

bool lens_part_clean(const char *final, const char *mine, bool without_locks)
{
	const char *base = base_name(final);
	char folder[PATH_MAX];
	struct dirent *e;
	bool held = false;
	DIR *d;

	snprintf(folder, sizeof(folder), "%.*s.", (int)(base - final), final);
	d = opendir(folder);
	if (!d)
		return false;
	while ((e = readdir(d)) != NULL) {
		if (lens_store_is_part(e->d_name, base) &&
		    !(mine && !strcmp(e->d_name, base_name(mine))))
			drop(dirfd(d), e->d_name, without_locks, &held);
	}
	closedir(d);
	return held;
}

void lens_store_drop_parts(const char *final)
{
	lens_part_clean(final, NULL, true);
}
