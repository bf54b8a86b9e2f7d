/*
 * sys.h: the system calls that open inputs and make outputs; a test can make the
 * k-th of them fail. Built on them: replacing a small file as a whole, and work in a
 * child process.
 */
#ifndef H5LENS_SYS_H
#define H5LENS_SYS_H

#include <stdatomic.h>
#include <sys/types.h>

#include "h5lens/core.h"

/*
 * Like the system's own, with errno; a planned fault makes them fail. write and
 * pwrite write everything or fail. close always closes. unlink is for cleaning up
 * only: it is not counted and never made to fail.
 */
int lens_sys_open(const char *path, int flags, mode_t mode);
int lens_sys_write(int fd, const void *buf, size_t n);
int lens_sys_pwrite(int fd, const void *buf, size_t n, off_t at);
int lens_sys_truncate(int fd, off_t size);
/* Writes go past the page cache (O_DIRECT) from now on, or no more. Not counted. */
int lens_sys_set_direct(int fd, bool direct);
int lens_sys_fsync(int fd);
int lens_sys_close(int fd);
int lens_sys_rename(const char *from, const char *to);
int lens_sys_mkdir(const char *path, mode_t mode);
int lens_sys_unlink(const char *path);

/*
 * flock. how: LOCK_SH or LOCK_EX, with LOCK_NB so as not to wait. HELD: another
 * process holds the lock. NONE: this file system has no locks (NFS, Lustre and FUSE
 * can be mounted that way); errno has the reason. FAILED: any other errno.
 */
enum lens_lock { LENS_LOCK_OURS, LENS_LOCK_HELD, LENS_LOCK_NONE, LENS_LOCK_FAILED };
enum lens_lock lens_sys_lock(int fd, int how);
/* Test seam: from now on lens_sys_lock fails with errno_; 0 turns it off. */
void lens_sys_lock_errno(int errno_);

/*
 * Test seam: the k-th counted call from now (1-based) fails with errno_; with
 * for_ever so do all later ones, as on a disk that stays full. k = 0 turns it off.
 * A child process inherits the count.
 */
void lens_sys_fail_at(unsigned long k, int errno_, bool for_ever);

/* The number of counted calls in this process so far. */
unsigned long lens_sys_calls(void);

/* fsync of a folder, after a rename in it. */
enum lens_status lens_dir_sync(const char *dir, struct lens_error *err);

/*
 * Replaces the file at path by these n bytes, or leaves it as it was: writes
 * "<path>.tmp-<8 hex digits>", fsyncs and renames it, and fsyncs the folder. A killed
 * process leaves at most the temporary file behind.
 */
enum lens_status lens_file_replace(const char *path, const void *data, size_t n,
				   struct lens_error *err);

/* --- work in a child process -------------------------------------------------- */

/*
 * HDF5 may crash on a damaged file, and is not thread-safe. So files of unknown state
 * are read in a child process, which sends its findings through a pipe. A child may
 * crash at any moment, and its messages are as untrustworthy as the file. Do not start
 * one while other threads compute or use the store.
 */
struct lens_child {
	pid_t pid; /* 0: none */
	int fd;    /* the pipe's reading end; non-blocking */
	struct lens_buf got;
	bool nomem; /* receive gave up because memory ran out */
};

/* How often to check the stop flag while waiting for a child, which a hung disk may delay. */
#define LENS_CHILD_POLL_MS 200

typedef void (*lens_child_fn)(void *ctx, int fd);
/* Runs fn in a child process, which ends when fn returns. */
enum lens_status lens_child_start(struct lens_child *c, lens_child_fn fn, void *ctx,
				  struct lens_error *err);
/* In the child: sends one message. false: the parent no longer listens. */
bool lens_child_send(int fd, const void *data, size_t n);
/*
 * 1: *data is the next whole message, valid until the next call. 0: none yet. -1: no
 * more will come, or what came is not a message.
 */
int lens_child_receive(struct lens_child *c, const void **data, size_t *n);
/*
 * Waits for a message of exactly n bytes. false: the child ended or sent something
 * else, or *stop is not 0 (stop may be NULL).
 */
bool lens_child_take(struct lens_child *c, const atomic_int *stop, void *out, size_t n);
/*
 * In a child: ends it because a system call failed with errno_, which becomes its
 * parent's error. HDF5 crashes after some failed reads, and that would look like
 * damage. Does nothing in a process that lens_child_start did not make.
 */
void lens_child_give_up(int errno_);
/* Waits until it ends: 0, the signal that killed it, or minus its exit code. */
int lens_child_wait(struct lens_child *c);
/*
 * The error for a child that ended this way while it read file: the file is damaged,
 * or could not be read, or (another signal) the read was interrupted. Never LENS_OK.
 */
enum lens_status lens_child_died(int end, const char *file, struct lens_error *err);
/* Ends a child whose message did not come, and says why. Never LENS_OK. */
enum lens_status lens_child_failed(struct lens_child *c, const atomic_int *stop,
				   const char *file, struct lens_error *err);
/* Passes the error that a child sent, if it is one, to err. Returns its code. */
enum lens_status lens_child_error(struct lens_error *sent, struct lens_error *err);
/* Kills a child that is no longer needed. */
void lens_child_kill(struct lens_child *c);

/*
 * Calls fn in a child and returns its status and error or, on success, what it
 * appended to result. If the child crashes: LENS_ERR_FORMAT, "damaged: reading it
 * failed with signal …". If it is killed, or *stop becomes other than 0 (which kills
 * it): LENS_ERR_INTERRUPTED.
 */
struct lens_child_job {
	enum lens_status (*fn)(void *ctx, struct lens_buf *result, struct lens_error *err);
	void *ctx;
	const char *file;       /* the file that fn reads, for messages */
	const atomic_int *stop; /* or NULL */
};
enum lens_status lens_child_call(const struct lens_child_job *job, struct lens_buf *result,
				 struct lens_error *err);

#endif
