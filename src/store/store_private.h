/*
 * store/store_private.h: what the files of this stage share.
 */
#ifndef LENS_STORE_PRIVATE_H
#define LENS_STORE_PRIVATE_H

#define H5_USE_110_API /* with later libraries: the calls of 1.10 */
#include <hdf5.h>

#include "h5lens/store.h"
#include "store/io_private.h"

/* --- the library: hdf5_error.c, vfd.c, types.c ------------------------------ */

/*
 * To be called first in every public function: sets HDF5 up, once, and stops it from
 * printing in this thread.
 */
void lens_h5_begin(void);

/*
 * Has a system call failed, or HDF5 run out of memory? Then io->err says so from now on,
 * and what HDF5 says about the file means nothing.
 */
bool lens_h5_system_failed(struct lens_io *io);

/*
 * Turns HDF5's error into ours. The code is the system's (LENS_ERR_IO, NOSPACE or NOMEM)
 * if a call failed below HDF5, else LENS_ERR_INTERNAL when writing and LENS_ERR_FORMAT when
 * reading. fmt says what was tried: "cannot <fmt>: …".
 */
enum lens_status lens_h5_fail(struct lens_io *io, struct lens_error *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A file access list for a file that is accessed through io. Negative: failed. */
hid_t lens_h5_fapl(struct lens_io *io);

/* HDF5's type of a dtype, shared and never to be closed; negative: failed. */
hid_t lens_h5_type(enum lens_dtype t);
/*
 * A name as written in a virtual mapping, where HDF5 reads "%b" as a number and "%%" as
 * "%". False: it is too long (two file names fit).
 */
#define LENS_MAPPED_NAME 1100
bool lens_h5_mapped_name(const char *name, char out[LENS_MAPPED_NAME]);
/* The reverse of lens_h5_type: -1 for a type that we do not use. */
int lens_h5_dtype(hid_t type);
const char *lens_dtype_name(int t); /* "other" for -1 */

/* --- writing ---------------------------------------------------------------- */

struct lens_store_ref { /* an axis of a dataset that uses a dimension */
	size_t dataset;
	int axis;
};

struct lens_store_dim {
	char *name;
	size_t extent;
	hid_t id;
	struct lens_store_ref *refs;
	size_t n_refs, cap_refs;
};

struct lens_store_dataset {
	char *path;
	hid_t id;
	enum lens_dtype dtype;
	int rank;
	size_t extent[LENS_MAX_RANK], chunk[LENS_MAX_RANK], grid[LENS_MAX_RANK];
	size_t chunk_bytes, n_chunks;
	size_t dim[LENS_MAX_RANK];   /* indices into dims */
	uint8_t *digests;            /* [n_chunks][LENS_XXH3_BYTES] */
	uint8_t *written;            /* [n_chunks] */
	struct lens_sha256 *strings; /* of LENS_STR */
	size_t next_row;
	bool virtual; /* its data are in other files: no chunks, no digest */
};

struct lens_store {
	char *final, *dir;
	struct lens_io *io; /* io->path is the temporary name */
	hid_t file;
	bool finished; /* closed, but not under its final name */
	bool committed;
	bool failed; /* a call failed: the file must not be committed */
	struct lens_store_dim *dims;
	size_t n_dims, cap_dims;
	struct lens_store_dataset *datasets;
	size_t n_datasets, cap_datasets;
};

/* Creates the groups above path, without time stamps. */
enum lens_status lens_store_make_groups(struct lens_store *s, const char *path,
					struct lens_error *err);
/* Checks that path is absolute, with no empty component and no "." or "..". */
enum lens_status lens_store_check_path(const char *path, struct lens_error *err);

/* Set scalar attributes of an open object, each once. */
enum lens_status lens_h5_attr_str(struct lens_store *s, hid_t obj, const char *name,
				  const char *value, struct lens_error *err);
enum lens_status lens_h5_attr_i64(struct lens_store *s, hid_t obj, const char *name,
				  int64_t value, struct lens_error *err);

/* An entry of REFERENCE_LIST, as H5DS lays it out on 64-bit machines. */
struct lens_back_reference {
	hobj_ref_t dataset;
	int32_t dimension;
	int32_t padding;
};
hid_t lens_h5_back_reference_type(void); /* the caller closes it */

/* Writes DIMENSION_LIST and REFERENCE_LIST of all datasets and dims, at commit. */
enum lens_status lens_store_attach_scales(struct lens_store *s, struct lens_error *err);
/*
 * The result of a call: st or, if that is LENS_OK, the error of a failed write. After an
 * error the store can only be destroyed.
 */
enum lens_status lens_store_keep(struct lens_store *s, enum lens_status st,
				 struct lens_error *err);

/*
 * One source of a virtual dataset: the whole dataset of the same path in another file,
 * placed at start.
 */
struct lens_store_part {
	const char *file; /* relative to the folder of the file being written */
	size_t start[LENS_MAX_RANK], extent[LENS_MAX_RANK];
};
/* Adds a dataset without data of its own; spec->chunk is not used. */
enum lens_status lens_store_add_virtual(struct lens_store *s,
					const struct lens_dataset_spec *spec,
					const struct lens_store_part *part, size_t n,
					struct lens_error *err);

/*
 * Marks show where in a dataset damage is: the attribute "chunk_marks" holds, for each
 * step successive chunks, the first four bytes of the SHA-256 over their digests; step is
 * 1 for up to LENS_MAX_MARKS chunks. An attribute must be smaller than 64 KiB.
 */
#define LENS_MAX_MARKS 12000
size_t lens_marks_step(size_t n_chunks);
/* marks has room for LENS_MAX_MARKS. */
enum lens_status lens_marks_of(const uint8_t *digests, size_t n_chunks, uint32_t *marks,
			       size_t *n_marks, struct lens_error *err);

/* Writes the "sha256" attributes of all datasets and then of "/", at commit. */
enum lens_status lens_store_write_digests(struct lens_store *s, struct lens_error *err);

/* Adds a string to a LENS_STR digest: with its NUL; NULL counts as "". */
enum lens_status lens_store_hash_string(struct lens_sha256 *h, const char *str,
					struct lens_error *err);

/* Free what a dim or a dataset holds, and close its handle. */
void lens_store_dim_release(struct lens_store_dim *d);
void lens_store_dataset_release(struct lens_store_dataset *d);

/* --- reading ---------------------------------------------------------------- */

/* How a file's chunks are hashed. */
struct lens_chunk_hash {
	const char *name; /* the attribute "digest" of "/" */
	size_t bytes;     /* of a digest; an unwritten chunk's are zeros */
	enum lens_status (*of)(const void *data, size_t n, uint8_t *out,
			       struct lens_error *err);
};
extern const struct lens_chunk_hash lens_chunk_xxh3; /* of the files that we write */

struct lens_h5_file {
	struct lens_io *io;
	hid_t id;
	const struct lens_chunk_hash *hash; /* set by lens_h5_read_hash */
};
enum lens_status lens_h5_open(const char *path, struct lens_h5_file *f, struct lens_error *err);
/* Sets f->hash; LENS_ERR_UNSUPPORTED if it is one that we do not know. */
enum lens_status lens_h5_read_hash(struct lens_h5_file *f, struct lens_error *err);
void lens_h5_close(struct lens_h5_file *f);
/*
 * Closes the file. st is the result of reading it, with its error in err; a failure of the
 * system replaces it, lest a sound file be called damaged.
 */
enum lens_status lens_h5_finish(struct lens_h5_file *f, enum lens_status st,
				struct lens_error *err);

/* The chunks of a numeric dataset, with every size checked: extents and numbers. */
struct lens_h5_grid {
	hsize_t chunk[LENS_MAX_RANK], n[LENS_MAX_RANK], n_chunks;
	hsize_t chunk_bytes;
};

/* An open dataset with its shape; extents are untrusted. */
struct lens_h5_dataset {
	hid_t id, space;
	int dtype; /* enum lens_dtype or -1 */
	int rank;
	hsize_t extent[LENS_MAX_RANK];
	struct lens_h5_grid grid; /* set by lens_h5_read_grid */
};
enum lens_status lens_h5_dataset_open(const struct lens_h5_file *f, const char *path,
				      struct lens_h5_dataset *d, struct lens_error *err);
void lens_h5_dataset_close(struct lens_h5_dataset *d);

bool lens_h5_is_virtual(hid_t dataset);

/* Sets d->grid; an error if the chunks are not like ours. */
enum lens_status lens_h5_read_grid(const struct lens_h5_file *f, struct lens_h5_dataset *d,
				   struct lens_error *err);
/* The place in the grid of chunk number index, counted in row-major order. */
void lens_h5_chunk_coord(const struct lens_h5_dataset *d, hsize_t index, hsize_t *coord);
/* Reads its d->grid.chunk_bytes bytes, if it was written at all. */
enum lens_status lens_h5_read_chunk(const struct lens_h5_file *f,
				    const struct lens_h5_dataset *d, hsize_t index, void *buf,
				    bool *written, struct lens_error *err);

/*
 * The attribute as text if it is one string or one integer, else NULL (also if there is
 * none).
 */
enum lens_status lens_h5_attr_text(const struct lens_h5_file *f, hid_t obj, const char *name,
				   char **out, struct lens_error *err);

/* Calls fn for each string of a LENS_STR dataset, in order. */
typedef enum lens_status (*lens_h5_string_fn)(void *ctx, const char *str,
					      struct lens_error *err);
enum lens_status lens_h5_strings(const struct lens_h5_file *f, const struct lens_h5_dataset *d,
				 lens_h5_string_fn fn, void *ctx, struct lens_error *err);
/* The same for rows[1] rows from rows[0] on, which the dataset has. */
struct lens_h5_string_sink {
	lens_h5_string_fn fn;
	void *ctx;
};
enum lens_status lens_h5_string_rows(const struct lens_h5_file *f,
				     const struct lens_h5_dataset *d, const hsize_t rows[2],
				     struct lens_h5_string_sink to, struct lens_error *err);

/* The path of every dataset and the address of its object, sorted by path. */
struct lens_h5_entry {
	char *path;
	haddr_t addr;
	size_t first; /* the first entry of the same object, possibly itself */
};
struct lens_h5_list {
	struct lens_h5_entry *v;
	size_t n, cap;
	struct lens_h5_entry *by_addr; /* sorted by (address, path); first: index in v */
};
/*
 * The digest of "/": over all paths, and the text of all objects' attributes, including
 * the datasets' digests.
 */
enum lens_status lens_h5_file_digest(const struct lens_h5_file *f,
				     const struct lens_h5_list *list, char hex[LENS_SHA256_HEX],
				     struct lens_error *err);
/* lens_store_read_shards in this process, or in a child that *stop (or NULL) ends. */
enum lens_status lens_h5_read_shards(const char *file, struct lens_shard_record **out,
				     size_t *n, struct lens_error *err);
enum lens_status lens_h5_list_shards(const char *file, const atomic_int *stop,
				     struct lens_shard_record **out, size_t *n,
				     struct lens_error *err);
/* Calls fn with the attributes of obj that lens_h5_attr_text can read. */
enum lens_status lens_h5_walk_attrs(const struct lens_h5_file *f, hid_t obj, lens_attr_fn fn,
				    void *ctx, struct lens_error *err);
enum lens_status lens_h5_list(const struct lens_h5_file *f, struct lens_h5_list *list,
			      struct lens_error *err);
void lens_h5_list_release(struct lens_h5_list *list);
/* names[entry][axis], [list->n]: the attached dimensions' names, which belong to list. */
enum lens_status lens_h5_dim_names(const struct lens_h5_file *f,
				   const struct lens_h5_list *list,
				   const char *(*names)[LENS_MAX_RANK], struct lens_error *err);

#endif
