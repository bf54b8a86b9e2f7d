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
 * As the system's own, with errno; a planned fault makes them fail. write and
 * pwrite write everything or fail. close always closes. unlink only cleans up:
 * it is not counted and never made to fail.
 */
int lens_sys_open(const char *path, int flags, mode_t mode);
int lens_sys_write(int fd, const void *buf, size_t n);
int lens_sys_pwrite(int fd, const void *buf, size_t n, off_t at);
int lens_sys_truncate(int fd, off_t size);
int lens_sys_fsync(int fd);
int lens_sys_close(int fd);
int lens_sys_rename(const char *from, const char *to);
int lens_sys_mkdir(const char *path, mode_t mode);
int lens_sys_unlink(const char *path);

/*
 * flock, which never waits unless it may: have we the lock now? HELD: somebody
 * else has it. NONE: this file system has no locks (NFS, Lustre and FUSE may be
 * mounted so), with the reason in errno; FAILED: any other errno. how: LOCK_SH
 * or LOCK_EX, with LOCK_NB.
 */
enum lens_lock { LENS_LOCK_OURS, LENS_LOCK_HELD, LENS_LOCK_NONE, LENS_LOCK_FAILED };
enum lens_lock lens_sys_lock(int fd, int how);
/* Test seam: from now on lens_sys_lock meets errno_; 0 turns it off. */
void lens_sys_lock_errno(int errno_);

/*
 * Test seam: the k-th counted call from now (1-based) fails with errno_, and
 * with for_ever all later ones too, as on a disk that is and stays full; k = 0
 * turns it off. A child process inherits the count.
 */
void lens_sys_fail_at(unsigned long k, int errno_, bool for_ever);

/* Counted calls so far, of this process. */
unsigned long lens_sys_calls(void);

/* fsync of a folder, after a rename in it. */
enum lens_status lens_dir_sync(const char *dir, struct lens_error *err);

/*
 * path becomes a file of these n bytes, or stays what it was: written as
 * "<path>.tmp-<8 hex digits>", fsynced, renamed, and the folder fsynced. A
 * killed process leaves at most the temporary file.
 */
enum lens_status lens_file_replace(const char *path, const void *data, size_t n,
				   struct lens_error *err);

/* --- work in a child process -------------------------------------------------- */

/*
 * HDF5 may crash on a damaged file, and is not thread-safe: what reads files of
 * unknown state does so in a child, which sends what it found through a pipe. A
 * child may crash at any moment; what it sent is as hostile as the file. Not to
 * be started while other threads compute or use the store.
 */
struct lens_child {
	pid_t pid; /* 0: none */
	int fd;    /* what it sends; non-blocking */
	struct lens_buf got;
	bool nomem; /* why receive gave up */
};

/* A hung disk makes children late: how soon who waits for one looks at a stop flag. */
#define LENS_CHILD_POLL_MS 200

typedef void (*lens_child_fn)(void *ctx, int fd);
/* fn runs in a child; when it returns, the child ends. */
enum lens_status lens_child_start(struct lens_child *c, lens_child_fn fn, void *ctx,
				  struct lens_error *err);
/* In the child: one message. false: nobody listens any more. */
bool lens_child_send(int fd, const void *data, size_t n);
/*
 * The next whole message, valid until the next call: 1. 0: none yet; -1: no
 * more will come, or it is none.
 */
int lens_child_receive(struct lens_child *c, const void **data, size_t *n);
/*
 * Waits for a message of exactly n bytes; false: it ended, or sent another, or
 * *stop (which may be NULL) is not 0.
 */
bool lens_child_take(struct lens_child *c, const atomic_int *stop, void *out, size_t n);
/*
 * In a child: the system failed it with errno_, so it ends, and what it was asked
 * fails with that. HDF5 crashes after some failed reads, which would look like
 * damage. Does nothing in a process that lens_child_start did not make.
 */
void lens_child_give_up(int errno_);
/* Waits for its end: 0, the signal that killed it, or its exit code, negative. */
int lens_child_wait(struct lens_child *c);
/*
 * What such an end says of the file that the child was reading: damage, or that
 * it could not be read, or (a signal that somebody sent) nothing. Never LENS_OK.
 */
enum lens_status lens_child_died(int end, const char *file, struct lens_error *err);
/* Ends a child from which a message did not come, and says why. Never LENS_OK. */
enum lens_status lens_child_failed(struct lens_child *c, const atomic_int *stop,
				   const char *file, struct lens_error *err);
/* err becomes the error that a child sent, if it is one; its code. */
enum lens_status lens_child_error(struct lens_error *sent, struct lens_error *err);
/* Kills a child that is not wanted any more. */
void lens_child_kill(struct lens_child *c);

/*
 * One call in a child: fn's status and error come back, and without an error what
 * it appends to result. A child that crashed is LENS_ERR_FORMAT, "damaged: reading
 * it failed with signal …", of file; one that was killed is LENS_ERR_INTERRUPTED,
 * as is *stop not 0, which kills it.
 */
struct lens_child_job {
	enum lens_status (*fn)(void *ctx, struct lens_buf *result, struct lens_error *err);
	void *ctx;
	const char *file;       /* that it reads */
	const atomic_int *stop; /* or NULL */
};
enum lens_status lens_child_call(const struct lens_child_job *job, struct lens_buf *result,
				 struct lens_error *err);

#endif
