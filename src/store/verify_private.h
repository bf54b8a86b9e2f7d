/*
 * store/verify_private.h: the verification of files in parts, in one process or in
 * several.
 */
#ifndef LENS_STORE_VERIFY_PRIVATE_H
#define LENS_STORE_VERIFY_PRIVATE_H

#include "store/store_private.h"

struct lens_verify_file {
	const char *file;
	const char *label;  /* reports name "<label>: <dataset>"; NULL: the dataset alone */
	const char *sha256; /* the digest that "/" must have, or NULL: any */
};

/* Where findings go. begin: what is looked at from now on. */
struct lens_verify_sink {
	void (*begin)(void *ctx, const char *label, const char *dataset);
	void (*bad)(void *ctx, const char *label, const char *dataset, const char *what);
	void *ctx;
	size_t n_datasets, n_bad;
	bool joined; /* a file without a label names shards: virtual datasets belong in it */
};
void lens_verify_bad(struct lens_verify_sink *sink, const char *label, const char *dataset,
		     const char *what);

/*
 * Of the file's datasets every n_parts-th from number part on; part 0 also
 * checks the digest of "/". LENS_ERR_FORMAT: the file is not ours at all; other
 * errors are not the file's.
 */
enum lens_status lens_verify_part(const struct lens_verify_file *vf, size_t part,
				  size_t n_parts, struct lens_verify_sink *sink,
				  struct lens_error *err);

/*
 * The virtual datasets of file: are they exactly those that its shards (opened
 * under shard[].file) imply?
 */
enum lens_status lens_verify_virtual(const char *file, const struct lens_shard *shard, size_t n,
				     struct lens_verify_sink *sink, struct lens_error *err);

/* What is worth a process, in bytes of files; tests make it small. */
extern uint64_t lens_verify_share;

/* Verifies whole files in child processes (n_processes 0: in this one). */
struct lens_verify_job {
	const struct lens_verify_file *file;
	size_t n_files;
	const char *master;             /* its virtual datasets too, or NULL */
	const struct lens_shard *shard; /* of master */
	size_t n_shards;
	size_t n_processes; /* at most */
	const atomic_int *stop;
	/* a file at a time, as they are finished */
	void (*finished)(void *ctx, size_t file);
	void *finished_ctx;
};
enum lens_status lens_verify_run(const struct lens_verify_job *job,
				 struct lens_verify_sink *sink, struct lens_error *err);

#endif
