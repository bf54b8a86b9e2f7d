/*
 * store.h: the HDF5 file. The only stage that knows HDF5; no hid_t leaves it.
 *
 * A file is written once: created under a temporary name ("<final>.part-…"), filled
 * chunk by chunk, then committed, that is, closed, fsynced and renamed, and its
 * directory fsynced. The final name never holds half a file. All writing calls on one
 * store must come from one thread. Once one of them has failed, the store can only be
 * destroyed.
 */
#ifndef H5LENS_STORE_H
#define H5LENS_STORE_H

#include <stdatomic.h>

#include "h5lens/axis.h"
#include "h5lens/core.h"

#define LENS_SCHEMA 2 /* of the file */

/* A dataset to create; nothing about it can change later. */
struct lens_dataset_spec {
	const char *path;      /* "/cache/blocks.0.hook_resid_post" */
	const char *long_name; /* or NULL */
	const char *units;     /* or NULL */
	enum lens_dtype dtype;
	int rank;
	const char *dim[LENS_MAX_RANK]; /* names of dimension scales: "prompt", … */
	size_t extent[LENS_MAX_RANK];
	size_t chunk[LENS_MAX_RANK]; /* 1 <= chunk <= extent (1 for extent 0) */
};

struct lens_store;

/*
 * Creates "<final>.part-<8 hex digits>", and removes those that dead writers left. The
 * directory must exist. LENS_ERR_BUSY: another writer holds the lock on such a file.
 */
enum lens_status lens_store_create(const char *final, struct lens_store **out,
				   struct lens_error *err);

/* Is name a temporary name for final (both without folders)? */
bool lens_store_is_part(const char *name, const char *final);
/*
 * Removes what dead writers of the file left, even where there are no locks: only for
 * callers who know that nobody is writing it.
 */
void lens_store_drop_parts(const char *final);

/*
 * Adds a dimension: a scale dataset "/<name>" of the given extent, whose values are
 * labels (strings, [extent]). If labels is NULL, it has no coordinates, and is marked
 * as netCDF-4 marks such a dimension.
 */
enum lens_status lens_store_add_dim(struct lens_store *s, const char *name, size_t extent,
				    const char *const *labels, struct lens_error *err);

/*
 * Adds a dataset and its groups, attaches its scales and sets its fill value (fill time
 * IFSET, chunks allocated when written). Each of its dims must have been added with the
 * same extent. *id identifies it in later calls.
 */
enum lens_status lens_store_add_dataset(struct lens_store *s,
					const struct lens_dataset_spec *spec, int *id,
					struct lens_error *err);

struct lens_store_chunk {
	const size_t *coord; /* its place in the chunk grid, not in elements */
	/*
	 * A full chunk, even at the edges (lens_fill past the data). From lens_alloc_pages it
	 * is written without a copy where that can be; the file's bytes are the same.
	 */
	const void *buf;
	size_t nbytes;         /* of buf: must be those of a full chunk */
	const uint8_t *digest; /* lens_xxh3 of buf */
};
/* Writes one whole chunk unchanged (H5Dwrite_chunk). Each may be written once. */
enum lens_status lens_store_write_chunk(struct lens_store *s, int id,
					const struct lens_store_chunk *chunk,
					struct lens_error *err);

/*
 * Writes n rows of a LENS_STR dataset from row0 on; calls must come in ascending order.
 * str is [n], or [n, second extent] for rank 2. The dataset's digest is the SHA-256 of
 * all strings in order, each with its NUL.
 */
enum lens_status lens_store_write_strings(struct lens_store *s, int id, size_t row0, size_t n,
					  const char *const *str, struct lens_error *err);

/* A hard link: another name for the dataset at target. */
enum lens_status lens_store_add_link(struct lens_store *s, const char *path, const char *target,
				     struct lens_error *err);

/*
 * Set attributes, each once; path "/" stands for the file itself. A string may be of
 * any length.
 */
enum lens_status lens_store_attr_str(struct lens_store *s, const char *path, const char *name,
				     const char *value, struct lens_error *err);
enum lens_status lens_store_attr_i64(struct lens_store *s, const char *path, const char *name,
				     int64_t value, struct lens_error *err);

/*
 * Writes each dataset's digest (attribute "sha256", hex): for chunked data the SHA-256
 * of its chunks' digests in row-major order, an unwritten chunk counting as 16 zero
 * bytes. Strings that were not written become "". The attribute "digest" of "/" says how
 * chunks are hashed: "xxh3-128" (older files: "sha256", or nothing, with 32 zero bytes).
 * The "sha256" of "/" covers every path and the text of every attribute, the digests
 * included, and so stands for the whole file. Then closes, fsyncs, renames to the final name
 * and fsyncs the directory. Afterwards the store can only be destroyed.
 */
enum lens_status lens_store_commit(struct lens_store *s, struct lens_error *err);
/* All of it that needs HDF5, to be called before, if at all: up to the closing. */
enum lens_status lens_store_finish(struct lens_store *s, struct lens_error *err);

/*
 * HDF5 allows one call at a time. Threads that write different files hold this meanwhile,
 * but for the commit of a finished one.
 */
void lens_store_lock(void);
void lens_store_unlock(void);

/* Frees the store; if it was not committed, its file is removed. */
void lens_store_destroy(struct lens_store *s);

/* Test seam: lens_sys_fail_at(k, errno_, true), as on a disk that stays full. */
void lens_store_fail_at(unsigned long k, int errno_);

/* Does the file start with HDF5's signature? False if it cannot be read, too. */
bool lens_store_is_hdf5(const char *file);

/* The version of the HDF5 library, "1.10.8". */
const char *lens_store_hdf5_version(void);

/* --- reading back ----------------------------------------------------------- */

/*
 * Reads a string attribute of the object at path ("/": of the file); *out is NULL if it
 * is absent. Runs in a child process, like lens_store_check.
 */
enum lens_status lens_store_read_attr(const char *file, const char *path, const char *name,
				      char **out, struct lens_error *err);

/* What `info FILE` shows of a dataset. Valid during the call only. */
struct lens_dataset_info {
	const char *path;
	const char *dtype; /* "float32", "string", … */
	int rank;
	size_t extent[LENS_MAX_RANK];
	const char *dim[LENS_MAX_RANK]; /* NULL: none attached, or damaged */
	uint64_t stored_bytes;          /* allocated in the file */
	bool is_virtual;                /* its data is in the shards */
	const char *link_to;            /* the first path of the same object, or NULL */
};
typedef enum lens_status (*lens_dataset_info_fn)(void *ctx, const struct lens_dataset_info *d,
						 struct lens_error *err);
/* Calls fn for every dataset, dimension scales included, sorted by path. */
enum lens_status lens_store_walk(const char *file, lens_dataset_info_fn fn, void *ctx,
				 struct lens_error *err);

/* Calls fn for every string or integer attribute of "/", as text. */
typedef enum lens_status (*lens_attr_fn)(void *ctx, const char *name, const char *value,
					 struct lens_error *err);
enum lens_status lens_store_walk_attrs(const char *file, lens_attr_fn fn, void *ctx,
				       struct lens_error *err);

/* Receives a digest that did not match; there may be several for one dataset. */
typedef void (*lens_verify_fn)(void *ctx, const char *dataset, const char *what);
/*
 * Recomputes every digest; an object with several names counts once. *n_bad counts the
 * datasets whose digest is wrong or missing, "/" included; dimensions without labels
 * have none. A file that cannot be opened as one of ours is an error. In files that have
 * marks, `what` names the chunk: "chunk [0,3,0] does not match its digest". A failed
 * read or lack of memory is an error, never damage: the file may be sound.
 *
 * For a joined file, this includes the shards beside it: each must exist, have the size
 * and digest recorded in /shards, and verify itself (reported as "out.shards/00003.h5:
 * /cache/…"); and the virtual datasets must be exactly those that the shards imply.
 *
 * HDF5 may crash on a damaged file: see lens_store_verify_parallel.
 */
enum lens_status lens_store_verify(const char *file, lens_verify_fn fn, void *ctx,
				   size_t *n_datasets, size_t *n_bad, struct lens_error *err);

struct lens_verify_options {
	size_t n_processes;     /* 0: 1 */
	const atomic_int *stop; /* or NULL; not 0: LENS_ERR_INTERRUPTED */
	lens_verify_fn fn;      /* or NULL; called in this process */
	void *ctx;
};
/*
 * The same in child processes: a crash is reported as damage to the file that was being
 * read, and the rest is still verified. No other thread may use the store meanwhile.
 */
enum lens_status lens_store_verify_parallel(const char *file,
					    const struct lens_verify_options *opt,
					    size_t *n_datasets, size_t *n_bad,
					    struct lens_error *err);

/* What a file says about itself as a shard; -1: it does not say. */
struct lens_shard_facts {
	int64_t size;                 /* of the file, bytes */
	char sha256[LENS_SHA256_HEX]; /* of "/" */
	int64_t shard, n_shards, first_row, n_rows;
};
/*
 * The cheap check: the file opens, all names and attributes can be read and match the
 * digest of "/", its length is what HDF5 left, and the attribute "identity" equals
 * identity (NULL: any; another is LENS_ERR_MISMATCH). Data is not read. Runs in a child
 * process, so damage is LENS_ERR_FORMAT, never a crash. out may be NULL.
 */
enum lens_status lens_store_check(const char *file, const char *identity,
				  struct lens_shard_facts *out, struct lens_error *err);

/*
 * Reads a whole numeric dataset, converted to float64 by HDF5 (where nothing was
 * written, lens_fill's values). extent must have room for LENS_MAX_RANK. The caller
 * frees *out with lens_free. A virtual dataset, whose data is in shards, is
 * LENS_ERR_FORMAT.
 */
enum lens_status lens_store_read_f64(const char *file, const char *path, double **out,
				     int *rank, size_t *extent, struct lens_error *err);
/*
 * Reads a vector, [n] or [1, n] of floating-point numbers, from a file of anybody's; more
 * than LENS_VECTOR_MAX are LENS_ERR_FORMAT. The caller frees *out. Runs in a child process.
 */
enum lens_status lens_store_read_vector(const char *file, const char *path, double **out,
					size_t *n, struct lens_error *err);
/* The strings of a LENS_STR dataset of rank 1; free each and the array with lens_free. */
enum lens_status lens_store_read_strings(const char *file, const char *path, char ***out,
					 size_t *n, struct lens_error *err);

/*
 * Datasets along the prompts (their first dimension), a block of rows at a time, so that
 * memory does not grow with them. What is virtual is read from the shards, each of which
 * must have the size and the digest recorded in /shards: one that is missing or exchanged is
 * an error, never NaN. HDF5 may crash on a damaged file.
 */
struct lens_rows;
enum lens_status lens_rows_open(const char *file, struct lens_rows **out,
				struct lens_error *err);
/* st: the result of reading; a failure of the system replaces it, as in lens_h5_finish. */
enum lens_status lens_rows_close(struct lens_rows *r, enum lens_status st,
				 struct lens_error *err);
/* *id identifies the dataset in later calls. A stranger's type or shape is an error. */
enum lens_status lens_rows_add(struct lens_rows *r, const char *path, size_t *id,
			       struct lens_error *err);
/* Its rank; extent has room for LENS_MAX_RANK. */
int lens_rows_shape(const struct lens_rows *r, size_t id, size_t *extent,
		    enum lens_dtype *dtype);
/* As many rows from first on as are read well at once: never beyond the last, or a shard. */
size_t lens_rows_block(const struct lens_rows *r, size_t first);

/* The cells of rows that were read, row-major; two of the three are NULL. */
struct lens_cells {
	enum lens_dtype dtype;
	size_t width; /* cells of a row */
	const double *real;
	const int64_t *integer;
	const char *const *text;
};
/* Rows first … first + n − 1; out is valid until the dataset is read again. */
enum lens_status lens_rows_read(struct lens_rows *r, size_t id, size_t first, size_t n,
				struct lens_cells *out, struct lens_error *err);

/* --- shards -------------------------------------------------------------------- */

/*
 * A shard is an ordinary file with the attributes shard, n_shards and
 * shard_first_row. A joined file has a group /shards that lists them.
 */
struct lens_shard_file {
	const char *file; /* path to open */
	/*
	 * How the joined file refers to it, relative to its own folder:
	 * "out.shards/00003.h5". NULL when packing: the same as file.
	 */
	const char *name;
};

enum lens_join {
	LENS_JOIN_VIRTUAL, /* /cache, and results of more than 64 KiB a prompt, as virtual
			      datasets; the rest as data */
	LENS_JOIN_PACK     /* everything as data */
};

struct lens_join_options {
	size_t n_processes;     /* that verify the shards; 0: 1 */
	bool quick;             /* lens_store_check each shard instead of every digest */
	const char *identity;   /* that all shards must have; NULL: the first one's */
	const atomic_int *stop; /* or NULL; not 0: LENS_ERR_INTERRUPTED */
	/* in bytes of shards, verified or copied; total does not change */
	void (*progress)(void *ctx, uint64_t done, uint64_t total);
	void *ctx;
};

/*
 * Joins shards 0..n-1, in order, into one file. Datasets along "prompt" are
 * concatenated; each of their other extents is the largest among the shards, and what a
 * shard lacks is fill. Labels and everything else must be equal in all shards. The
 * attributes of "/" are the first shard's; one-line strings that differ ("build") are
 * listed, "a | b", but multi-line texts, JSON and path_… are the first shard's alone.
 * rows_flagged and f16_overflows are summed. A shard of another identity is
 * LENS_ERR_MISMATCH, one that is damaged, out of order or of another shape
 * LENS_ERR_FORMAT; err->file names it. The final name holds the whole new file, or what
 * it held before. opt may be NULL. A single shard without the three attributes is a
 * whole file: PACK copies it. No other thread may use the store meanwhile.
 */
enum lens_status lens_store_join(const struct lens_shard_file *shard, size_t n,
				 const char *final, enum lens_join how,
				 const struct lens_join_options *opt, struct lens_error *err);

/*
 * lens_store_check of each shard, in one child process, up to the first that fails
 * (err->file). out is [n], or NULL; stop as above.
 */
enum lens_status lens_store_check_all(const struct lens_shard_file *shard, size_t n,
				      const char *identity, const atomic_int *stop,
				      struct lens_shard_facts *out, struct lens_error *err);

/* A row of /shards. */
struct lens_shard_record {
	char *name; /* relative, without "..": safe to open below the file's folder */
	int64_t size;
	char sha256[LENS_SHA256_HEX];
	size_t first_row, n_rows;
};
/* *n is 0 if the file was not joined from shards. Runs in a child process. */
enum lens_status lens_store_read_shards(const char *file, struct lens_shard_record **out,
					size_t *n, struct lens_error *err);
void lens_store_shards_release(struct lens_shard_record *e, size_t n);
/* The path of the shard of that name: beside file, or beside what file links to. */
enum lens_status lens_store_shard_path(const char *file, const char *name, char **out,
				       struct lens_error *err);

#endif
