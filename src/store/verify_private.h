/*
 * store/verify_private.h: verifies files in parts, in one process or in several.
 */
#ifndef LENS_STORE_VERIFY_PRIVATE_H
#define LENS_STORE_VERIFY_PRIVATE_H

#include "store/store_private.h"

struct lens_verify_file {
	const char *file;
	const char *label;  /* reports name "<label>: <dataset>"; NULL: the dataset alone */
	const char *sha256; /* the digest that "/" must have, or NULL: any */
};

/* Where findings go. begin is told what is checked next. */
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
 * Verifies every n_parts-th of the file's datasets, from number part on; part 0 also checks
 * the digest of "/". LENS_ERR_FORMAT: it is not one of our files; other errors are not the
 * file's fault.
 */
enum lens_status lens_verify_part(const struct lens_verify_file *vf, size_t part,
				  size_t n_parts, struct lens_verify_sink *sink,
				  struct lens_error *err);

/*
 * Checks that the virtual datasets of file are exactly those that its shards (opened as
 * shard[].file) imply.
 */
enum lens_status lens_verify_virtual(const char *file, const struct lens_shard_file *shard,
				     size_t n, struct lens_verify_sink *sink,
				     struct lens_error *err);

/* How many bytes of files are worth a process; tests make it small. */
extern uint64_t lens_verify_share;

/* Verifies whole files in child processes (n_processes 0: in this one). */
struct lens_verify_job {
	const struct lens_verify_file *file;
	size_t n_files;
	const char *master; /* a joined file whose virtual datasets to check, or NULL */
	const struct lens_shard_file *shard; /* master's */
	size_t n_shards;
	size_t n_processes; /* at most */
	const atomic_int *stop;
	/* called for each file when it is finished */
	void (*finished)(void *ctx, size_t file);
	void *finished_ctx;
};
enum lens_status lens_verify_run(const struct lens_verify_job *job,
				 struct lens_verify_sink *sink, struct lens_error *err);

#endif
