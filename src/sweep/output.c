/*
 * sweep/output.c: can the output be written, and may it? Asked before
 * anything is read or computed.
 */
#include "sweep/sweep_private.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static enum lens_status refuse(const char *path, const char *why, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_INVALID, path, 0, 0, "%s", why);
}

/* Where a symbolic link points, so that the file goes there and the link stays. */
static enum lens_status follow(const char *path, char **out, struct lens_error *err)
{
	char target[PATH_MAX], *dir;
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return lens_error_sys(err, errno, path, "read the link");
	target[n] = '\0';
	if (target[0] == '/') {
		*out = lens_strdup(target);
	} else {
		dir = lens_path_folder(path);
		*out = dir ? lens_path_join(dir, target) : NULL;
		lens_free(dir);
	}
	return *out ? LENS_OK : lens_error_nomem(err, (size_t)n, 1);
}

static enum lens_status check_folder(const char *path, struct lens_error *err)
{
	char *dir = lens_path_folder(path);
	enum lens_status st = LENS_OK;
	struct stat sb;

	if (!dir)
		return lens_error_nomem(err, strlen(path), 1);
	if (!stat(dir, &sb) && !S_ISDIR(sb.st_mode))
		st = refuse(dir, "is a file; the output needs a folder there", err);
	else if (access(dir, W_OK | X_OK))
		st = lens_error_sys(err, errno, dir, "write in the output's folder");
	lens_free(dir);
	return st;
}

enum lens_status lens_output_follow(const char *path, char **out, struct lens_error *err)
{
	struct stat sb;
	int links = 0;

	*out = lens_strdup(path);
	if (!*out)
		return lens_error_nomem(err, strlen(path), 1);
	while (!lstat(*out, &sb) && S_ISLNK(sb.st_mode)) {
		char *next;

		if (links++ == 16)
			return refuse(path, "is a link that leads nowhere", err);
		LENS_TRY(follow(*out, &next, err));
		lens_free(*out);
		*out = next;
	}
	return LENS_OK;
}

/* The file's folder may not be a sweep's. */
static enum lens_status check_shards(const char *path, const char *real, struct lens_error *err)
{
	char *dir = lens_path_folder(real),
	     *plan = dir ? lens_path_join(dir, "plan.json") : NULL;
	size_t n = dir ? strlen(dir) : 0;
	enum lens_status st = LENS_OK;

	if (!plan)
		st = lens_error_nomem(err, strlen(real), 1);
	else if (n > 7 && !strcmp(dir + n - 7, ".shards") && lens_file_exists(plan))
		st = refuse(path, "is in the folder of another output's shards", err);
	lens_free(plan);
	lens_free(dir);
	return st;
}

enum lens_status lens_output_resolve(const char *path, bool overwrite, char **out,
				     struct lens_error *err)
{
	struct stat sb;

	LENS_TRY(lens_output_follow(path, out, err));
	if (!lstat(*out, &sb) && S_ISDIR(sb.st_mode))
		return refuse(path, "is a folder: name a file in it", err);
	if (!lstat(*out, &sb) && !S_ISREG(sb.st_mode))
		return refuse(path, "is not a regular file", err);
	LENS_TRY(check_shards(path, *out, err));
	if (overwrite && lens_file_exists(*out) && !lens_store_is_hdf5(*out))
		return refuse(path, "is not an HDF5 file: it is not overwritten", err);
	/* Nothing is written to an output that is finished. */
	return lens_file_exists(*out) ? LENS_OK : check_folder(*out, err);
}

enum lens_status lens_output_resolve_folder(const char *path, char **out,
					    struct lens_error *err)
{
	char *name = lens_strdup(path);
	size_t n = strlen(path);
	enum lens_status st;
	struct stat sb;

	*out = NULL;
	if (!name)
		return lens_error_nomem(err, n, 1);
	while (n > 1 && name[n - 1] == '/')
		name[--n] = '\0';
	st = lens_output_follow(name, out, err);
	lens_free(name);
	LENS_TRY(st);
	if (!lstat(*out, &sb) && !S_ISDIR(sb.st_mode))
		return refuse(path, "is no folder: one is written here, so choose another name",
			      err);
	LENS_TRY(check_shards(path, *out, err));
	return check_folder(*out, err);
}

static const char *size_text(double bytes, char text[32])
{
	const bool small = bytes < 1048576.0;

	snprintf(text, 32, "%.1f %s", bytes / (small ? 1024.0 : 1048576.0),
		 small ? "KiB" : "MiB");
	return text;
}

enum lens_status lens_output_check_disk(const char *path, uint64_t needed,
					struct lens_error *err)
{
	char *dir = lens_path_folder(path);
	enum lens_status st = LENS_OK;
	char takes[32], has[32];
	struct statvfs fs;

	if (!dir)
		return lens_error_nomem(err, strlen(path), 1);
	if (statvfs(dir, &fs))
		st = lens_error_sys(err, errno, dir, "use the output's folder");
	else if ((uint64_t)fs.f_bavail * fs.f_frsize < needed)
		st = lens_error_at(err, LENS_ERR_NOSPACE, path, 0, 0,
				   "the file will take %s and %s has %s free",
				   size_text((double)needed, takes), dir,
				   size_text((double)fs.f_bavail * (double)fs.f_frsize, has));
	lens_free(dir);
	return st;
}
