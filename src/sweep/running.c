/*
 * sweep/running.c: the files of runs (claim.c writes them), read back: who is
 * at work in a folder, and who died there. A file's content is as hostile as any.
 *
 * Where locks do not reach from host to host, a file that has not been written
 * for STALE_SECONDS is taken for dead, by the file system's clock.
 */
#include "sweep/sweep_private.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json.h"
#include "h5lens/sys.h"

#define STALE_SECONDS 120

static long long number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

/* Whatever lies in the folder: no count may be below 0 or above its whole. */
static bool is_sane(const json_t *j)
{
	long long pid = number(j, "pid"), task = number(j, "task"),
		  total = number(j, "rows_total"), done = number(j, "rows_done"),
		  kept = number(j, "rows_kept");

	return json_is_string(json_object_get(j, "host")) && pid > 0 && pid <= INT32_MAX &&
	       task >= 0 && task < number(j, "n_tasks") && kept >= 0 && kept <= done &&
	       done <= total && number(j, "tokens_done") >= 0 &&
	       number(j, "bytes_written") >= 0 && number(j, "shard") >= 0 &&
	       number(j, "n_shards") >= 0 &&
	       json_number_value(json_object_get(j, "seconds")) >= 0;
}

/* False when it is none, or half written. */
static bool read_file(int fd, struct lens_running *r)
{
	char text[LENS_RUN_BYTES];
	ssize_t n = pread(fd, text, sizeof(text), 0);
	json_t *j = NULL;
	bool ok = n > 0 && lens_json_parse(NULL, text, (size_t)n, &j, NULL) == LENS_OK &&
		  is_sane(j);

	memset(r, 0, sizeof(*r));
	if (ok) {
		snprintf(r->host, sizeof(r->host), "%s",
			 json_string_value(json_object_get(j, "host")));
		r->pid = (long)number(j, "pid");
		r->share.task = (size_t)number(j, "task");
		r->share.n_tasks = (size_t)number(j, "n_tasks");
		r->progress = (struct lens_progress){
			.rows_total = (size_t)number(j, "rows_total"),
			.rows_kept = (size_t)number(j, "rows_kept"),
			.rows_done = (size_t)number(j, "rows_done"),
			.tokens_done = (uint64_t)number(j, "tokens_done"),
			.bytes_written = (uint64_t)number(j, "bytes_written"),
			.shard = (size_t)number(j, "shard"),
			.n_shards = (size_t)number(j, "n_shards"),
			.seconds = json_number_value(json_object_get(j, "seconds")),
		};
	}
	json_decref(j);
	return ok;
}

/* --- is it alive? -------------------------------------------------------------------- */

void lens_host_name(char *out, size_t size)
{
	if (gethostname(out, size) || !*out)
		snprintf(out, size, "unknown");
	out[size - 1] = '\0';
	/* It becomes a part of a file's name and of JSON. */
	for (; *out; out++) {
		if (!isalnum((unsigned char)*out) && *out != '.' && *out != '-')
			*out = '_';
	}
}

/* Seconds since the file was written, by the file system's own clock. */
static double age(int fd, time_t now)
{
	struct stat sb;

	return fstat(fd, &sb) ? 0 : difftime(now, sb.st_mtime);
}

/* Does somebody hold the file's lock? */
enum held { FREE, HELD, NO_LOCKS };
static enum held who_holds(int fd)
{
	switch (lens_sys_lock(fd, LOCK_SH | LOCK_NB)) {
	case LENS_LOCK_HELD:
		return HELD;
	case LENS_LOCK_OURS:
		flock(fd, LOCK_UN);
		return FREE;
	default:
		return NO_LOCKS;
	}
}

/*
 * On its own host the lock is the truth; elsewhere it may not reach us. now: the
 * file system's clock, or 0 when it is not known.
 */
static bool is_alive(int fd, const struct lens_running *r, time_t now)
{
	enum held held = who_holds(fd);
	char host[128];

	if (held == HELD)
		return true;
	lens_host_name(host, sizeof(host));
	if (strcmp(host, r->host) != 0)
		return age(fd, now) < STALE_SECONDS;
	return held == NO_LOCKS && (!kill((pid_t)r->pid, 0) || errno == EPERM);
}

static bool is_run_name(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && !strcmp(name + n - 4, ".run");
}

/* "<host>-<pid>.run": of a file that says nothing. Such a run may hold any share. */
static void read_name(const char *name, struct lens_running *r)
{
	size_t n = strlen(name) - strlen(".run");
	const char *dash = memrchr(name, '-', n);

	memset(r, 0, sizeof(*r));
	r->share.n_tasks = 1;
	if (!dash)
		dash = name + n;
	else
		r->pid = strtol(dash + 1, NULL, 10);
	snprintf(r->host, sizeof(r->host), "%.*s", (int)(dash - name), name);
}

/*
 * False: it is no run's. A disk that is full may have kept a run from saying
 * anything, and one that cannot be read keeps it from us: then its lock says
 * that it is alive, or where there are no locks its age, or that nobody knows.
 */
static bool read_run(const char *path, const char *name, time_t now, struct lens_running *r)
{
	int fd = lens_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	bool says = false;

	if (fd >= 0 && read_file(fd, r)) {
		r->alive = is_alive(fd, r, now);
		says = true;
	} else {
		bool gone = fd < 0 && errno == ENOENT;
		enum held held = fd < 0 ? HELD : who_holds(fd);

		read_name(name, r);
		r->alive = !gone &&
			   (held == HELD || (held == NO_LOCKS && age(fd, now) < STALE_SECONDS));
	}
	if (fd >= 0)
		lens_sys_close(fd);
	return says || r->alive;
}

enum lens_status lens_each_run(const char *folder, time_t now, lens_each_run_fn fn, void *ctx,
			       struct lens_error *err)
{
	DIR *d = opendir(folder);
	struct dirent *e;

	/* A run that ends removes a folder that is empty: nobody is in it. */
	if (!d)
		return errno == ENOENT ? LENS_OK
				       : lens_error_sys(err, errno, folder, "read the folder");
	while ((e = readdir(d)) != NULL) {
		struct lens_running r;
		char *path;

		if (!is_run_name(e->d_name))
			continue;
		path = lens_path_join(folder, e->d_name);
		if (!path) {
			closedir(d);
			return lens_error_nomem(err, strlen(folder), 1);
		}
		if (read_run(path, e->d_name, now, &r))
			fn(ctx, path, &r);
		lens_free(path);
	}
	closedir(d);
	return LENS_OK;
}
