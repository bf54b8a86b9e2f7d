/*
 * core.h: what every stage uses: checked sizes, allocation, growable buffers,
 * whole files, digests, the number of threads, memory that there is.
 */
#ifndef H5LENS_CORE_H
#define H5LENS_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "h5lens/status.h"

/* --- checked size arithmetic: false if the result does not fit ------------ */

static inline bool lens_size_mul(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

static inline bool lens_size_add(size_t a, size_t b, size_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

static inline size_t lens_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t lens_max(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* --- allocation ------------------------------------------------------------ */

/*
 * All memory comes from the first three, so that tests can make the k-th call fail
 * (lens_alloc_fail_at). Size 0 gives a valid pointer.
 */

/* n * size bytes, zeroed. NULL on overflow or when out of memory. */
void *lens_calloc(size_t n, size_t size);
/* p grown or shrunk to n * size bytes; p stays valid if it returns NULL. */
void *lens_realloc(void *p, size_t n, size_t size);
/* n * size bytes on a 64-byte boundary, not cleared. Free with lens_free. */
void *lens_alloc_aligned(size_t n, size_t size);
/* The same on a page's boundary: chunks that are written from there need no copy. */
#define LENS_PAGE 4096
void *lens_alloc_pages(size_t bytes);
void lens_free(void *p);
/* A copy of s (NULL gives NULL). */
char *lens_strdup(const char *s);
/* Test seam: the k-th allocation from now (1-based) fails; 0 turns it off. */
void lens_alloc_fail_at(unsigned long k);

/*
 * Makes room for one more in a list of n elements of size bytes and returns it, moved
 * or not; *cap is how many it has room for. NULL when out of memory; list stays valid.
 */
void *lens_grow(void *list, size_t n, size_t *cap, size_t size, struct lens_error *err);

/* Sets LENS_ERR_NOMEM with the requested size. Returns the code. */
enum lens_status lens_error_nomem(struct lens_error *err, size_t n, size_t size);

/* --- growable buffers ------------------------------------------------------ */

/* Bytes; always followed by a NUL that len does not count (once used). */
struct lens_buf {
	char *data;
	size_t len, cap;
};
#define LENS_BUF_INIT                                                                          \
	{                                                                                      \
		NULL, 0, 0                                                                     \
	}
enum lens_status lens_buf_append(struct lens_buf *b, const void *data, size_t n,
				 struct lens_error *err);
enum lens_status lens_buf_printf(struct lens_buf *b, struct lens_error *err, const char *fmt,
				 ...) __attribute__((format(printf, 3, 4)));
void lens_buf_release(struct lens_buf *b);

/* Token ids. */
struct lens_ids {
	int32_t *v;
	size_t n, cap;
};
#define LENS_IDS_INIT                                                                          \
	{                                                                                      \
		NULL, 0, 0                                                                     \
	}
enum lens_status lens_ids_push(struct lens_ids *ids, int32_t id, struct lens_error *err);
enum lens_status lens_ids_append(struct lens_ids *to, const struct lens_ids *from,
				 struct lens_error *err);
void lens_ids_release(struct lens_ids *ids);

/* --- files ----------------------------------------------------------------- */

/*
 * Reads a whole regular file into b (emptied first). A file larger than
 * max_bytes is LENS_ERR_FORMAT; a missing one LENS_ERR_IO.
 */
enum lens_status lens_file_read(const char *path, size_t max_bytes, struct lens_buf *b,
				struct lens_error *err);

#define LENS_VECTOR_MAX ((size_t)1 << 20) /* numbers of a vector that is read */
/*
 * The vector in bytes[0..n) of a NumPy file (.npy): [n] or [1, n], float16, float32 or
 * float64, little endian. The caller frees *out. file: for errors.
 */
enum lens_status lens_npy_vector(const char *file, const char *bytes, size_t n, double **out,
				 size_t *n_out, struct lens_error *err);

/* dir + "/" + name; the caller frees. NULL when out of memory. */
char *lens_path_join(const char *dir, const char *name);
/* The folder of a path ("." if it names none); the caller frees. NULL: out of memory. */
char *lens_path_folder(const char *path);
/* Also true if stat fails for another reason than absence: opening it will say why. */
bool lens_file_exists(const char *path);

/*
 * For a path that should be a model's folder and lacks something: an error that says
 * what it is instead (a hub id, an adapter, GGUF, a cache, …), else `missing`.
 * weights: the weights are what is missing. Never LENS_OK.
 */
enum lens_status lens_model_folder_error(const char *dir, const char *missing, bool weights,
					 struct lens_error *err);

/* Like memcmp; if one begins with the other, the shorter one is less. */
int lens_bytes_compare(const void *a, size_t n_a, const void *b, size_t n_b);

/* Is s[0..n) valid UTF-8 (no surrogates, no overlong forms)? */
bool lens_utf8_valid(const char *s, size_t n);

/* Unicode's White_Space: Rust's char::is_whitespace, Oniguruma's \s. */
bool lens_white_space(int32_t c);
/* Is the first or last character of s[0..n) white space? */
bool lens_begins_with_space(const char *s, size_t n);
bool lens_ends_with_space(const char *s, size_t n);

/* --- SHA-256 (OpenSSL) ----------------------------------------------------- */

#define LENS_SHA256_BYTES 32
#define LENS_SHA256_HEX 65 /* with the NUL */

struct lens_sha256; /* an incremental digest */
enum lens_status lens_sha256_create(struct lens_sha256 **out, struct lens_error *err);
enum lens_status lens_sha256_update(struct lens_sha256 *s, const void *data, size_t n,
				    struct lens_error *err);
/* Returns the digest and starts over. */
enum lens_status lens_sha256_final(struct lens_sha256 *s, uint8_t out[LENS_SHA256_BYTES],
				   struct lens_error *err);
void lens_sha256_destroy(struct lens_sha256 *s);
/* One shot. Safe to call from any thread. */
enum lens_status lens_sha256(const void *data, size_t n, uint8_t out[LENS_SHA256_BYTES],
			     struct lens_error *err);
void lens_hex(const uint8_t *bytes, size_t n, char *out /* 2n + 1 */);

/*
 * XXH3-128: ten times as fast as SHA-256, for the digests of chunks. It finds damage, not
 * forgery. Safe to call from any thread.
 */
#define LENS_XXH3_BYTES 16
void lens_xxh3(const void *data, size_t n, uint8_t out[LENS_XXH3_BYTES]);

/* --- time ------------------------------------------------------------------- */

double lens_now(void); /* seconds of a clock that never jumps; some 25 ns a call */

/* Where the time of threads goes: seconds, summed over them. */
struct lens_times {
	double compute, convert, digest, write, wait;
};

/* --- threads ---------------------------------------------------------------- */

/* --threads, then SLURM_CPUS_PER_TASK, then the affinity mask. */
size_t lens_thread_count(size_t asked);

/* A worker begins to use its own threads, and ends and leaves them to the others. */
void lens_crew_join(size_t threads);
void lens_crew_rest(size_t threads);
/* A worker's own threads, and its share of those that were left. */
int lens_crew_share(int own);
/* SLURM_CPUS_PER_TASK; 0: it is not set, or no number from 1. */
size_t lens_slurm_cpus(void);

/* --- memory that there is ----------------------------------------------------- */

/* What bounds a process's memory: --memory, else the least of the others. */
enum lens_memory_from {
	LENS_MEMORY_GIVEN,
	LENS_MEMORY_MACHINE, /* MemAvailable */
	LENS_MEMORY_CGROUP,
	LENS_MEMORY_NODE, /* SLURM_MEM_PER_NODE */
	LENS_MEMORY_CPU   /* SLURM_MEM_PER_CPU times the task's CPUs */
};
/* "what is free on the machine", "SLURM_MEM_PER_NODE", … */
const char *lens_memory_name(enum lens_memory_from from);
struct lens_available {
	size_t bytes;
	enum lens_memory_from from;
};
/* What this process may take, what it has included. root: "", or that of a test. */
struct lens_available lens_memory_available(const char *root);

/*
 * The entry of names[0..n) nearest to word by edit distance, or NULL if none is near
 * enough to suggest ("unknown key …, did you mean").
 */
const char *lens_nearest(const char *word, const char *const *names, size_t n);

#endif
