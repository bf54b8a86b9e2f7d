/*
 * store/verify_whole.c: verifies a file and what belongs to it: the shards of a joined file
 * must exist, be those that it names, and be sound themselves.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "h5lens/sys.h"
#include "store/verify_private.h"

/* The caller's function, which gets "<label>: <dataset>" as one name. */
struct report {
	lens_verify_fn fn;
	void *ctx;
};

static void report_bad(void *ctx, const char *label, const char *dataset, const char *what)
{
	const struct report *r = ctx;
	char name[1100];

	if (!r->fn)
		return;
	if (label)
		snprintf(name, sizeof(name), "%s: %s", label, dataset);
	r->fn(r->ctx, label ? name : dataset, what);
}

/* A shard that is absent or of another size is not read. */
static enum lens_status find(const struct lens_shard_record *e, const char *path, bool *present,
			     struct lens_verify_sink *sink, struct lens_error *err)
{
	char what[160] = "the shard is missing";
	struct stat sb;

	*present = false;
	if (stat(path, &sb) == 0) {
		*present = sb.st_size == e->size;
		snprintf(what, sizeof(what), "the shard has %lld bytes, not %lld",
			 (long long)sb.st_size, (long long)e->size);
	} else if (errno != ENOENT && errno != ENOTDIR) {
		return lens_error_sys(err, errno, path, "find the shard");
	}
	if (*present)
		return LENS_OK;
	sink->n_datasets++;
	lens_verify_bad(sink, e->name, "/", what);
	return LENS_OK;
}

/* --- the shards ---------------------------------------------------------------------- */

struct shards {
	struct lens_verify_file *file;
	struct lens_shard_file *shard;
	char **path;
};

static enum lens_status add_shards(const char *master, const struct lens_shard_record *e,
				   struct shards *w, struct lens_verify_job *job,
				   struct lens_verify_sink *sink, struct lens_error *err)
{
	bool present;
	size_t i;

	for (i = 0; i < job->n_shards; i++) {
		LENS_TRY(lens_store_shard_path(master, e[i].name, &w->path[i], err));
		w->shard[i] = (struct lens_shard_file){ .file = w->path[i], .name = e[i].name };
		LENS_TRY(find(&e[i], w->path[i], &present, sink, err));
		if (!present)
			continue;
		w->file[job->n_files++] = (struct lens_verify_file){
			.file = w->path[i],
			.label = e[i].name,
			.sha256 = e[i].sha256,
		};
	}
	/* The mappings can be checked only if all shards exist. */
	job->master = job->n_files == job->n_shards ? master : NULL;
	return LENS_OK;
}

static enum lens_status verify_shards(const char *master, const struct lens_shard_record *e,
				      size_t n, struct lens_verify_job *job,
				      struct lens_verify_sink *sink, struct lens_error *err)
{
	struct shards w = { .file = lens_calloc(n, sizeof(*w.file)),
			    .shard = lens_calloc(n, sizeof(*w.shard)),
			    .path = lens_calloc(n, sizeof(*w.path)) };
	enum lens_status st;
	size_t i;

	if (!w.file || !w.shard || !w.path) {
		st = lens_error_nomem(err, n, sizeof(*w.file));
	} else {
		job->file = w.file;
		job->n_files = 0;
		job->shard = w.shard;
		job->n_shards = n;
		st = add_shards(master, e, &w, job, sink, err);
		if (st == LENS_OK && job->n_files)
			st = lens_verify_run(job, sink, err);
		for (i = 0; i < n; i++)
			lens_free(w.path[i]);
	}
	lens_free(w.path);
	lens_free(w.shard);
	lens_free(w.file);
	return st;
}

/* n_processes 0: in this process. */
static enum lens_status verify(const char *file, size_t n_processes, const atomic_int *stop,
			       struct lens_verify_sink *sink, struct lens_error *err)
{
	const struct lens_verify_file itself = { .file = file };
	struct lens_verify_job job = {
		.file = &itself, .n_files = 1, .n_processes = n_processes, .stop = stop
	};
	struct lens_shard_record *e;
	enum lens_status st;
	size_t n;

	LENS_TRY(lens_verify_run(&job, sink, err));
	if (!sink->joined && !sink->n_bad) /* a child that crashed could not say */
		return LENS_OK;
	if (n_processes)
		LENS_TRY(lens_h5_list_shards(file, stop, &e, &n, err));
	else
		LENS_TRY(lens_h5_read_shards(file, &e, &n, err));
	st = n ? verify_shards(file, e, n, &job, sink, err) : LENS_OK;
	lens_store_shards_release(e, n);
	return st;
}

enum lens_status lens_store_verify_parallel(const char *file,
					    const struct lens_verify_options *opt,
					    size_t *n_datasets, size_t *n_bad,
					    struct lens_error *err)
{
	struct report report = { .fn = opt->fn, .ctx = opt->ctx };
	struct lens_verify_sink sink = { .bad = report_bad, .ctx = &report };
	enum lens_status st =
		verify(file, opt->n_processes ? opt->n_processes : 1, opt->stop, &sink, err);

	*n_datasets = sink.n_datasets;
	*n_bad = sink.n_bad;
	return st;
}

enum lens_status lens_store_verify(const char *file, lens_verify_fn fn, void *ctx,
				   size_t *n_datasets, size_t *n_bad, struct lens_error *err)
{
	struct report report = { .fn = fn, .ctx = ctx };
	struct lens_verify_sink sink = { .bad = report_bad, .ctx = &report };
	enum lens_status st = verify(file, 0, NULL, &sink, err);

	*n_datasets = sink.n_datasets;
	*n_bad = sink.n_bad;
	return st;
}
