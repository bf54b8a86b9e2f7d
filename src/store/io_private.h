/*
 * store/io_private.h: the system calls below an HDF5 file, for the HDF5 file driver that
 * uses them.
 *
 * HDF5 reports a failed write only in prose, and does not survive one well: 1.10.8 keeps
 * the file open for good, or half closes it and crashes at the next close. So our driver
 * does not report failures to HDF5: it keeps the first errno and drops all later writes,
 * and the store checks the errno after each step. It also never locks, starts write-back
 * early, and lets a test make the k-th call fail.
 */
#ifndef LENS_STORE_IO_PRIVATE_H
#define LENS_STORE_IO_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "h5lens/core.h"

struct lens_io {
	char *path;
	int fd;
	int lock_fd; /* holds the lock on a new file until it is renamed */
	bool writable;
	bool abandoned;             /* writes are dropped, after a failure or on purpose */
	bool direct;                /* large chunks may go past the page cache */
	bool orphaned;              /* released while HDF5 still had it open */
	int n_open;                 /* HDF5's handles on it */
	int err;                    /* errno of the first call that failed, 0: none */
	const char *op;             /* what that call was for: "write the file", … */
	uint64_t size;              /* of the file, bytes */
	uint64_t end;               /* where it ends according to HDF5 */
	size_t chunk_max;           /* the largest chunk that HDF5 may read now; 0: none */
	uint64_t heap_at, heap_end; /* the collection admitted last (gheap_private.h) */
};

/*
 * Creates a file that will become final, under a temporary name (part.c), locked (flock)
 * until the release. Removes what dead writers left; LENS_ERR_BUSY if a live one can be
 * seen.
 */
enum lens_status lens_io_create(const char *final, struct lens_io **out,
				struct lens_error *err);
/* part.c. Sets path, fd and lock_fd. Returns 0 or an errno. */
int lens_part_create(struct lens_io *io, const char *final);
/*
 * Removes what dead writers of final left, except mine (or NULL). without_locks: even
 * where locks cannot show whether they are dead. Returns whether another is alive.
 */
bool lens_part_clean(const char *final, const char *mine, bool without_locks);
/* Does the file start with HDF5's signature or, if unwritten, with zeros in its place? */
bool lens_io_starts_as(int fd, bool unwritten);
/* Opens an existing regular file for reading. */
enum lens_status lens_io_open(const char *path, struct lens_io **out, struct lens_error *err);

/* A failure only sets io->err and io->op. */
void lens_io_write(struct lens_io *io, uint64_t at, const void *buf, size_t n);
void lens_io_truncate(struct lens_io *io, uint64_t size);
/* false: a failure or, if the file is not writable, beyond its end. */
bool lens_io_read(struct lens_io *io, uint64_t at, void *buf, size_t n);

/* Records the first failure; ends a child process (h5lens/sys.h) that is reading. */
bool lens_io_fail(struct lens_io *io, int errno_, const char *op);

/* fsyncs and closes the file; HDF5 must have closed its handles. */
enum lens_status lens_io_finish(struct lens_io *io, struct lens_error *err);
enum lens_status lens_io_rename(const char *from, const char *to, struct lens_error *err);
/* Closes and frees. HDF5 handles that HDF5 could not close become inert. */
void lens_io_release(struct lens_io *io);

#endif
