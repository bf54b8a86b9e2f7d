/*
 * core/file.c: whole files and paths.
 */
#include "h5lens/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum lens_status read_all(int fd, const char *path, size_t max_bytes, struct lens_buf *b,
				 struct lens_error *err)
{
	char block[65536];

	for (;;) {
		ssize_t n = read(fd, block, sizeof(block));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lens_error_sys(err, errno, path, "read");
		if (n == 0)
			return lens_buf_append(b, "", 0, err);
		if ((size_t)n > max_bytes - b->len)
			return lens_error_at(err, LENS_ERR_FORMAT, path, 0, 0,
					     "larger than the %zu bytes that we read",
					     max_bytes);
		LENS_TRY(lens_buf_append(b, block, (size_t)n, err));
	}
}

enum lens_status lens_file_read(const char *path, size_t max_bytes, struct lens_buf *b,
				struct lens_error *err)
{
	enum lens_status st;
	struct stat sb;
	int fd = lens_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

	b->len = 0;
	if (fd < 0)
		return lens_error_sys(err, errno, path, "open");
	if (fstat(fd, &sb))
		st = lens_error_sys(err, errno, path, "stat");
	else if (!S_ISREG(sb.st_mode))
		st = lens_error_at(err, LENS_ERR_IO, path, 0, 0, "not a regular file");
	else
		st = read_all(fd, path, max_bytes, b, err);
	lens_sys_close(fd); /* nothing is lost with it */
	return st;
}

char *lens_path_join(const char *dir, const char *name)
{
	size_t nd = strlen(dir), nn = strlen(name);
	char *path = lens_calloc(nd + nn + 2, 1);

	if (!path)
		return NULL;
	memcpy(path, dir, nd);
	if (nd && dir[nd - 1] != '/')
		path[nd++] = '/';
	memcpy(path + nd, name, nn);
	return path;
}

char *lens_path_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = lens_strdup(slash ? path : ".");

	if (dir && slash)
		dir[slash == path ? 1 : slash - path] = '\0';
	return dir;
}

bool lens_file_exists(const char *path)
{
	struct stat sb;

	return stat(path, &sb) == 0 || (errno != ENOENT && errno != ENOTDIR);
}
