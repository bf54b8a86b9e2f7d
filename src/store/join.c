/*
 * store/join.c: joins the shards of a sweep into one file. In: the shards' names. Out: a
 * complete file under the final name, with all of their rows as data, or the caches as
 * virtual datasets over the shards.
 */
#include "store/join_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/verify_private.h"

struct join {
	const struct lens_shard_file *shard;
	size_t n;
	enum lens_join how;
	const struct lens_join_options *opt;
	struct lens_join_progress progress;
	struct lens_joined j;
	struct lens_store *store;
	struct lens_copier *copier;
};

/* --- before anything is written ------------------------------------------------- */

/* The joined file must not replace one of its shards. */
static enum lens_status check_files(struct join *w, const char *final, struct lens_error *err)
{
	bool verify = !w->opt || !w->opt->quick, pack = w->how == LENS_JOIN_PACK;
	struct stat out, sb;
	bool there = !stat(final, &out);
	size_t i;

	for (i = 0; i < w->n; i++) {
		if (stat(w->shard[i].file, &sb))
			return lens_error_at(err, LENS_ERR_IO, w->shard[i].file, 0, 0,
					     "the shard is missing");
		if (there && out.st_dev == sb.st_dev && out.st_ino == sb.st_ino)
			return lens_error_at(err, LENS_ERR_INVALID, final, 0, 0,
					     "would overwrite a file that it is made from");
		w->progress.total += (uint64_t)sb.st_size * (verify + pack);
	}
	return LENS_OK;
}

/* The first finding, and how many there are. */
struct findings {
	struct join *w;
	char first[2200];
	struct lens_error interrupted;
};

static void keep_first(void *ctx, const char *label, const char *dataset, const char *what)
{
	struct findings *f = ctx;

	if (!f->first[0])
		snprintf(f->first, sizeof(f->first), "%s: %s: %s", label, dataset, what);
}

static void shard_verified(void *ctx, size_t file)
{
	struct findings *f = ctx;
	struct stat sb;

	if (!stat(f->w->shard[file].file, &sb))
		lens_join_advance(&f->w->progress, (uint64_t)sb.st_size, &f->interrupted);
}

static enum lens_status verify_all(struct join *w, struct lens_error *err)
{
	struct lens_verify_file *file = lens_calloc(w->n, sizeof(*file));
	struct findings found = { .w = w };
	struct lens_verify_sink sink = { .bad = keep_first, .ctx = &found };
	struct lens_verify_job job = { .file = file,
				       .n_files = w->n,
				       .n_processes = 1,
				       .finished = shard_verified,
				       .finished_ctx = &found };
	enum lens_status st;
	size_t i;

	if (!file)
		return lens_error_nomem(err, w->n, sizeof(*file));
	for (i = 0; i < w->n; i++)
		file[i] = (struct lens_verify_file){ .file = w->shard[i].file,
						     .label = w->shard[i].name
								      ? w->shard[i].name
								      : w->shard[i].file };
	if (w->opt && w->opt->n_processes)
		job.n_processes = w->opt->n_processes;
	job.stop = w->opt ? w->opt->stop : NULL;
	st = lens_verify_run(&job, &sink, err);
	lens_free(file);
	if (st == LENS_OK && sink.n_bad)
		st = lens_error_set(err, LENS_ERR_FORMAT, "%s", found.first);
	return st;
}

static enum lens_status check_all(struct join *w, struct lens_error *err)
{
	const struct lens_join_options *o = w->opt;

	LENS_TRY(lens_store_check_all(w->shard, w->n, o ? o->identity : NULL,
				      o ? o->stop : NULL, NULL, err));
	return o && o->quick ? LENS_OK : verify_all(w, err);
}

/* --- layout -------------------------------------------------------------------------- */

static enum lens_status add_dim(struct join *w, const struct lens_join_dim *d,
				struct lens_error *err)
{
	const char **label, *at = d->labels.data;
	enum lens_status st;
	size_t i;

	if (!d->labelled)
		return lens_store_add_dim(w->store, d->name, d->extent, NULL, err);
	label = lens_calloc(d->extent, sizeof(*label));
	if (!label)
		return lens_error_nomem(err, d->extent, sizeof(*label));
	for (i = 0; i < d->extent; i++, at += strlen(at) + 1)
		label[i] = at;
	st = lens_store_add_dim(w->store, d->name, d->extent, label, err);
	lens_free(label);
	return st;
}

static int by_order(const void *a, const void *b)
{
	const struct lens_join_dim *x = *(const struct lens_join_dim *const *)a;
	const struct lens_join_dim *y = *(const struct lens_join_dim *const *)b;

	if (x->order != y->order)
		return x->order < y->order ? -1 : 1;
	return strcmp(x->name, y->name);
}

static enum lens_status add_dims(struct join *w, struct lens_error *err)
{
	const struct lens_join_dim **sorted = lens_calloc(w->j.n_dims, sizeof(*sorted));
	enum lens_status st = LENS_OK;
	size_t i;

	if (!sorted)
		return lens_error_nomem(err, w->j.n_dims, sizeof(*sorted));
	for (i = 0; i < w->j.n_dims; i++)
		sorted[i] = &w->j.dim[i];
	qsort(sorted, w->j.n_dims, sizeof(*sorted), by_order);
	for (i = 0; i < w->j.n_dims && st == LENS_OK; i++)
		st = add_dim(w, sorted[i], err);
	lens_free(sorted);
	return st;
}

static enum lens_status add_virtual(struct join *w, const struct lens_dataset_spec *spec,
				    const struct lens_join_dataset *d, size_t *n,
				    struct lens_error *err)
{
	struct lens_store_part *part = lens_calloc(w->n, sizeof(*part));
	enum lens_status st = LENS_OK;
	size_t i;

	if (!part)
		return lens_error_nomem(err, w->n, sizeof(*part));
	for (i = 0, *n = 0; i < w->n; i++)
		*n += lens_join_mapping(&w->j, d, i, &part[*n]);
	if (*n)
		st = lens_store_add_virtual(w->store, spec, part, *n, err);
	lens_free(part);
	return st;
}

static enum lens_status add_dataset(struct join *w, struct lens_join_dataset *d,
				    size_t chunk[LENS_MAX_RANK], struct lens_error *err)
{
	struct lens_dataset_spec spec = { .path = d->path, .dtype = d->dtype, .rank = d->rank };
	size_t n = 0;
	int i;

	for (i = 0; i < d->rank; i++) {
		spec.dim[i] = w->j.dim[d->dim[i]].name;
		spec.extent[i] = lens_join_extent(&w->j, d, i);
	}
	if (w->how == LENS_JOIN_VIRTUAL && d->virtual)
		LENS_TRY(add_virtual(w, &spec, d, &n, err));
	if (!n && d->dtype != LENS_STR) {
		lens_join_chunk(&w->j, d, chunk);
		memcpy(spec.chunk, chunk, sizeof(spec.chunk));
	} else if (!n) {
		spec.chunk[0] = lens_max((size_t)d->chunk[0], 512);
		spec.chunk[0] = lens_min(spec.chunk[0], lens_max(spec.extent[0], 1));
		spec.chunk[1] = lens_max(spec.extent[1], 1);
	}
	if (!n)
		LENS_TRY(lens_store_add_dataset(w->store, &spec, &d->id, err));
	return lens_join_put_attrs(w->store, d->path, &d->attrs, err);
}

static enum lens_status add_links(struct join *w, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < w->j.n_entries; i++) {
		const struct lens_join_entry *e = &w->j.entry[i];

		if (e->kind == LENS_JOIN_LINK)
			LENS_TRY(lens_store_add_link(w->store, e->path,
						     w->j.entry[e->target].path, err));
	}
	return LENS_OK;
}

static enum lens_status fill_dataset(struct join *w, struct lens_join_dataset *d,
				     struct lens_error *err)
{
	size_t chunk[LENS_MAX_RANK] = { 0 };

	LENS_TRY(add_dataset(w, d, chunk, err));
	if (d->id < 0)
		return LENS_OK;
	if (d->dtype == LENS_STR)
		return lens_join_copy_strings(w->store, &w->j, d, &w->progress, err);
	return lens_join_copy(w->copier, w->store, d, chunk, &w->progress, err);
}

/* --- /shards ------------------------------------------------------------------------------ */

static enum lens_status write_text(struct join *w, const char *path, bool names,
				   struct lens_error *err)
{
	const struct lens_dataset_spec spec = {
		.path = path,
		.dtype = LENS_STR,
		.rank = 1,
		.dim = { "shard" },
		.extent = { w->n },
		.chunk = { lens_min(w->n, 512) },
	};
	const char **text = lens_calloc(w->n, sizeof(*text));
	enum lens_status st;
	size_t i;
	int id;

	if (!text)
		return lens_error_nomem(err, w->n, sizeof(*text));
	for (i = 0; i < w->n; i++)
		text[i] = names ? w->shard[i].name : w->j.state[i].sha256;
	st = lens_store_add_dataset(w->store, &spec, &id, err);
	if (st == LENS_OK)
		st = lens_store_write_strings(w->store, id, 0, w->n, text, err);
	lens_free(text);
	return st;
}

static int64_t shard_number(const struct join *w, size_t shard, int which)
{
	const struct lens_shard_facts *s = &w->j.state[shard];

	return which == 0   ? s->size
	       : which == 1 ? s->first_row
			    : (int64_t)w->j.dim[w->j.prompt].part[shard];
}

static enum lens_status write_numbers(struct join *w, const char *path, const char *units,
				      int which, struct lens_error *err)
{
	const struct lens_dataset_spec spec = {
		.path = path,
		.units = units,
		.dtype = LENS_I64,
		.rank = 1,
		.dim = { "shard" },
		.extent = { w->n },
		.chunk = { w->n },
	};
	int64_t *v = lens_calloc(w->n, sizeof(*v));
	const size_t coord[LENS_MAX_RANK] = { 0 };
	uint8_t digest[LENS_XXH3_BYTES];
	const struct lens_store_chunk chunk = { coord, v, w->n * sizeof(*v), digest };
	enum lens_status st;
	size_t i;
	int id;

	if (!v)
		return lens_error_nomem(err, w->n, sizeof(*v));
	for (i = 0; i < w->n; i++)
		v[i] = shard_number(w, i, which);
	lens_xxh3(v, w->n * sizeof(*v), digest);
	st = lens_store_add_dataset(w->store, &spec, &id, err);
	if (st == LENS_OK)
		st = lens_store_write_chunk(w->store, id, &chunk, err);
	lens_free(v);
	return st;
}

static enum lens_status write_shards(struct join *w, struct lens_error *err)
{
	LENS_TRY(lens_store_add_dim(w->store, "shard", w->n, NULL, err));
	LENS_TRY(write_text(w, "/shards/name", true, err));
	LENS_TRY(write_text(w, "/shards/sha256", false, err));
	LENS_TRY(write_numbers(w, "/shards/size", "bytes", 0, err));
	LENS_TRY(write_numbers(w, "/shards/first_row", NULL, 1, err));
	return write_numbers(w, "/shards/n_rows", NULL, 2, err);
}

/* --- the whole --------------------------------------------------------------------------- */

static enum lens_status write_file(struct join *w, const char *final, struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_store_create(final, &w->store, err));
	LENS_TRY(lens_copier_create(&w->j, &w->copier, err));
	LENS_TRY(add_dims(w, err));
	for (i = 0; i < w->j.n_datasets; i++)
		LENS_TRY(fill_dataset(w, &w->j.dataset[i], err));
	LENS_TRY(add_links(w, err));
	LENS_TRY(lens_join_put_attrs(w->store, "/", &w->j.attrs, err));
	if (w->how == LENS_JOIN_VIRTUAL)
		LENS_TRY(write_shards(w, err));
	return lens_store_commit(w->store, err);
}

enum lens_status lens_store_join(const struct lens_shard_file *shard, size_t n,
				 const char *final, enum lens_join how,
				 const struct lens_join_options *opt, struct lens_error *err)
{
	struct join w = { .shard = shard, .n = n, .how = how, .opt = opt };
	enum lens_status st;

	w.progress.opt = opt;
	st = check_files(&w, final, err);
	if (st == LENS_OK)
		st = check_all(&w, err);
	if (st == LENS_OK)
		st = lens_join_survey(shard, n, opt ? opt->identity : NULL, &w.j, err);
	if (st == LENS_OK)
		st = write_file(&w, final, err);
	lens_copier_destroy(w.copier);
	lens_store_destroy(w.store);
	lens_joined_release(&w.j);
	return st;
}
