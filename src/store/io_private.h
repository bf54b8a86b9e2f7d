/*
 * store/io_private.h: the system calls under an HDF5 file, and the HDF5 file driver
 * that goes through them.
 *
 * HDF5 tells of a failed write only in prose, and does not survive one well:
 * 1.10.8 keeps the file open for good, or half closes it and crashes at the
 * next close. So our driver never tells HDF5. It keeps the first errno, drops
 * all that comes later, and the store asks for the errno after each step. It
 * also never locks, starts write-back early, and lets a test make the k-th
 * call fail.
 */
#ifndef LENS_STORE_IO_PRIVATE_H
#define LENS_STORE_IO_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "h5lens/core.h"

struct lens_io {
	char *path;
	int fd;
	int lock_fd; /* holds the lock on a new file until it has its name */
	bool writable;
	bool abandoned;             /* writes are dropped: after a failure, or wanted so */
	bool orphaned;              /* released while HDF5 still held it */
	int n_open;                 /* HDF5's handles on it */
	int err;                    /* errno of the first call that failed, 0: none */
	const char *op;             /* and what it was to do: "write the file", … */
	uint64_t size;              /* of the file, bytes */
	uint64_t end;               /* of what HDF5 knows of it */
	size_t chunk_max;           /* while HDF5 reads chunks: no larger ones; 0: none */
	uint64_t heap_at, heap_end; /* the collection admitted last (gheap_private.h) */
};

/*
 * A new file to be written that will be final, under a temporary name (part.c),
 * locked (flock) until the release. What dead writers left is removed; a live one
 * that can be seen is LENS_ERR_BUSY.
 */
enum lens_status lens_io_create(const char *final, struct lens_io **out,
				struct lens_error *err);
/* part.c. Fills in path, fd and lock_fd of an io that has none: 0, or an errno. */
int lens_part_create(struct lens_io *io, const char *final);
/*
 * Removes what dead writers of final left; not mine (or NULL). without_locks: also
 * where nobody can tell whether they are dead. Is another one alive?
 */
bool lens_part_clean(const char *final, const char *mine, bool without_locks);
/* Does the file start with HDF5's signature, or (unwritten) with zeros in its place? */
bool lens_io_starts_as(int fd, bool unwritten);
/* An existing regular file to be read. */
enum lens_status lens_io_open(const char *path, struct lens_io **out, struct lens_error *err);

/* A failure shows in io->err and io->op only. */
void lens_io_write(struct lens_io *io, uint64_t at, const void *buf, size_t n);
void lens_io_truncate(struct lens_io *io, uint64_t size);
/* false: a failure, or (reading only) past the end. */
bool lens_io_read(struct lens_io *io, uint64_t at, void *buf, size_t n);

/* Keeps the first failure. Reading in a child process (h5lens/sys.h), it ends that. */
bool lens_io_fail(struct lens_io *io, int errno_, const char *op);

/* fsync and close; HDF5 must have closed its handles. */
enum lens_status lens_io_finish(struct lens_io *io, struct lens_error *err);
enum lens_status lens_io_rename(const char *from, const char *to, struct lens_error *err);
/* Closes and frees. HDF5 handles that could not be closed become inert. */
void lens_io_release(struct lens_io *io);

#endif
