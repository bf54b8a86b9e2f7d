/*
 * store/join_survey.c: finds what shards have in common, and so the dimensions, datasets
 * and links of the joined file. In: shards, which are untrusted files. Out: a struct
 * lens_joined, or the first shard that does not fit, and why.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/join_private.h"

#define LARGE_ROW ((size_t)64 << 10)

/* One shard while it is looked at. */
struct shard {
	struct lens_joined *j;
	size_t number;
	struct lens_h5_file f;
	struct lens_h5_list list;
	const char *(*names)[LENS_MAX_RANK]; /* [list.n] */
};

static enum lens_status odd(const struct shard *s, const char *path, const char *what,
			    struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, s->f.io->path, 0, 0, "%s%.600s%s%s",
			     *path ? "dataset '" : "", path, *path ? "': " : "", what);
}

static struct lens_join_dim *find_dim(struct lens_joined *j, const char *name)
{
	size_t i;

	if (!name)
		return NULL;
	for (i = 0; i < j->n_dims; i++) {
		if (!strcmp(j->dim[i].name, name))
			return &j->dim[i];
	}
	return NULL;
}

/* --- dimensions --------------------------------------------------------------------- */

static enum lens_status add_label(void *ctx, const char *str, struct lens_error *err)
{
	return lens_buf_append(ctx, str, strlen(str) + 1, err);
}

static enum lens_status attr_number(const struct shard *s, hid_t id, const char *name,
				    int64_t *out, struct lens_error *err)
{
	char *text;

	LENS_TRY(lens_h5_attr_text(&s->f, id, name, &text, err));
	*out = text ? strtoll(text, NULL, 10) : -1;
	lens_free(text);
	return LENS_OK;
}

static enum lens_status new_dim(struct shard *s, const char *name, hid_t id,
				struct lens_error *err)
{
	struct lens_joined *j = s->j;
	struct lens_join_dim *d;

	d = lens_grow(j->dim, j->n_dims, &j->cap_dims, sizeof(*d), err);
	if (!d)
		return LENS_ERR_NOMEM;
	j->dim = d;
	d += j->n_dims;
	*d = (struct lens_join_dim){ .name = lens_strdup(name) };
	d->summed = !strcmp(name, "prompt") || !strcmp(name, "token");
	d->part = lens_calloc(j->n_shards, sizeof(*d->part));
	j->n_dims++;
	if (!d->name || !d->part)
		return lens_error_nomem(err, j->n_shards, sizeof(*d->part));
	return attr_number(s, id, "_Netcdf4Dimid", &d->order, err);
}

static enum lens_status merge_extent(const struct shard *s, struct lens_join_dim *d,
				     const char *path, size_t extent, struct lens_error *err)
{
	d->part[s->number] = extent;
	if (d->summed) {
		if (!lens_size_add(d->extent, extent, &d->extent) || d->extent > INT32_MAX)
			return odd(s, path, "too many rows altogether", err);
	} else {
		d->extent = lens_max(d->extent, extent);
	}
	return LENS_OK;
}

static enum lens_status take_labels(const struct shard *s, struct lens_join_dim *d,
				    const char *path, const struct lens_h5_dataset *h,
				    struct lens_error *err)
{
	struct lens_buf labels = LENS_BUF_INIT;
	enum lens_status st;

	if (!s->number) {
		d->labelled = true;
		LENS_TRY(lens_buf_append(&d->labels, "", 0, err));
		return lens_h5_strings(&s->f, h, add_label, &d->labels, err);
	}
	st = lens_h5_strings(&s->f, h, add_label, &labels, err);
	if (st == LENS_OK &&
	    (!d->labelled || labels.len != d->labels.len ||
	     (labels.len && memcmp(labels.data, d->labels.data, labels.len) != 0)))
		st = odd(s, path, "its labels are not those of the first shard", err);
	lens_buf_release(&labels);
	return st;
}

static enum lens_status take_dim(struct shard *s, const char *path, struct lens_error *err)
{
	struct lens_h5_dataset h;
	struct lens_join_dim *d;
	enum lens_status st = LENS_OK;

	LENS_TRY(lens_h5_dataset_open(&s->f, path, &h, err));
	if (h.rank != 1 || h.extent[0] > INT32_MAX || strrchr(path, '/') != path)
		st = odd(s, path, "not a dimension as h5lens writes them", err);
	if (st == LENS_OK && !s->number)
		st = new_dim(s, path + 1, h.id, err);
	d = st == LENS_OK ? find_dim(s->j, path + 1) : NULL;
	if (st == LENS_OK && !d)
		st = odd(s, path, "the first shard has no such dimension", err);
	if (st == LENS_OK && (h.dtype == LENS_STR || d->labelled))
		st = h.dtype != LENS_STR ? odd(s, path, "it has no labels", err)
					 : take_labels(s, d, path, &h, err);
	if (st == LENS_OK)
		st = merge_extent(s, d, path, (size_t)h.extent[0], err);
	lens_h5_dataset_close(&h);
	return st;
}

/* --- datasets ------------------------------------------------------------------------- */

static enum lens_status new_dataset(struct shard *s, const char *path, size_t *index,
				    struct lens_error *err)
{
	struct lens_joined *j = s->j;
	struct lens_join_dataset *d;

	d = lens_grow(j->dataset, j->n_datasets, &j->cap_datasets, sizeof(*d), err);
	if (!d)
		return LENS_ERR_NOMEM;
	j->dataset = d;
	d += j->n_datasets;
	*d = (struct lens_join_dataset){ .path = lens_strdup(path), .id = -1 };
	*index = j->n_datasets++;
	return d->path ? LENS_OK : lens_error_nomem(err, strlen(path) + 1, 1);
}

/* The dimensions of entry i must be known, and have the dataset's extents. */
static enum lens_status take_dims(const struct shard *s, size_t i,
				  const struct lens_h5_dataset *h, size_t *dim,
				  struct lens_error *err)
{
	struct lens_join_dim *d;
	int axis;

	for (axis = 0; axis < h->rank; axis++) {
		d = find_dim(s->j, s->names[i][axis]);
		if (!d || d->part[s->number] != h->extent[axis])
			return odd(s, s->list.v[i].path, "an axis without its dimension", err);
		dim[axis] = (size_t)(d - s->j->dim);
	}
	return LENS_OK;
}

static enum lens_status describe_first(const struct shard *s, const struct lens_h5_dataset *h,
				       const char *path, struct lens_join_dataset *d,
				       struct lens_error *err)
{
	hid_t dcpl = H5Dget_create_plist(h->id);
	bool chunked = dcpl >= 0 && H5Pget_layout(dcpl) == H5D_CHUNKED &&
		       H5Pget_chunk(dcpl, LENS_MAX_RANK, d->chunk) == h->rank;
	int axis;

	H5Pclose(dcpl);
	d->dtype = (enum lens_dtype)h->dtype;
	d->rank = h->rank;
	if (lens_h5_is_virtual(h->id))
		return odd(s, path, "it is virtual: this file was joined from shards", err);
	if (!chunked || h->dtype < 0 || h->rank < 1 || (h->dtype == LENS_STR && h->rank > 2))
		return odd(s, path, "not chunks of a type that we know", err);
	d->along = s->j->dim[d->dim[0]].summed;
	for (axis = 1; axis < h->rank; axis++)
		d->along = d->along && !s->j->dim[d->dim[axis]].summed;
	d->counts_tokens = !strcmp(path, "/prompts/first_token");
	if (d->counts_tokens && (d->dtype != LENS_I64 || d->rank != 1 || !d->along))
		return odd(s, path, "not a number for each prompt", err);
	return lens_h5_attr_text(&s->f, h->id, "sha256", &d->sha256, err);
}

static enum lens_status compare_later(const struct shard *s, const struct lens_h5_dataset *h,
				      const char *path, const struct lens_join_dataset *d,
				      const size_t *dim, struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	char *sha256;

	if (h->dtype != (int)d->dtype || h->rank != d->rank ||
	    memcmp(dim, d->dim, (size_t)d->rank * sizeof(*dim)) != 0)
		return odd(s, path, "its type or its axes are not those of the first shard",
			   err);
	if (d->along)
		return LENS_OK;
	LENS_TRY(lens_h5_attr_text(&s->f, h->id, "sha256", &sha256, err));
	if (!sha256 || !d->sha256 || strcmp(sha256, d->sha256) != 0)
		st = odd(s, path,
			 "it is not along 'prompt' or 'token', and not the same in all shards",
			 err);
	lens_free(sha256);
	return st;
}

static enum lens_status take_open(struct shard *s, size_t i, const struct lens_h5_dataset *h,
				  struct lens_error *err)
{
	struct lens_join_entry *e = &s->j->entry[i];
	size_t dim[LENS_MAX_RANK] = { 0 };
	struct lens_join_dataset *d;

	LENS_TRY(take_dims(s, i, h, dim, err));
	if (!s->number)
		LENS_TRY(new_dataset(s, e->path, &e->index, err));
	d = &s->j->dataset[e->index];
	if (!s->number) {
		memcpy(d->dim, dim, sizeof(dim));
		LENS_TRY(describe_first(s, h, e->path, d, err));
	} else {
		LENS_TRY(compare_later(s, h, e->path, d, dim, err));
	}
	return lens_join_take_attrs(&s->f, h->id, !s->number, &d->attrs, err);
}

static enum lens_status take_dataset(struct shard *s, size_t i, struct lens_error *err)
{
	struct lens_h5_dataset h;
	enum lens_status st;

	LENS_TRY(lens_h5_dataset_open(&s->f, s->list.v[i].path, &h, err));
	st = take_open(s, i, &h, err);
	lens_h5_dataset_close(&h);
	return st;
}

/* --- one shard -------------------------------------------------------------------------- */

static bool is_scale(const struct shard *s, size_t i)
{
	return H5Aexists_by_name(s->f.id, s->list.v[i].path, "CLASS", H5P_DEFAULT) > 0;
}

static enum lens_status take_entries(struct shard *s, struct lens_error *err)
{
	struct lens_joined *j = s->j;
	size_t i;

	j->entry = lens_calloc(s->list.n, sizeof(*j->entry));
	if (!j->entry)
		return lens_error_nomem(err, s->list.n, sizeof(*j->entry));
	for (i = 0; i < s->list.n; i++) {
		struct lens_join_entry *e = &j->entry[i];

		e->path = lens_strdup(s->list.v[i].path);
		if (!e->path)
			return lens_error_nomem(err, strlen(s->list.v[i].path) + 1, 1);
		j->n_entries++;
		e->target = s->list.v[i].first;
		e->kind = is_scale(s, i)   ? LENS_JOIN_DIM
			  : e->target != i ? LENS_JOIN_LINK
					   : LENS_JOIN_DATASET;
		if (!strncmp(e->path, "/shards/", 8))
			return odd(s, "", "is itself joined from shards", err);
	}
	return LENS_OK;
}

static enum lens_status compare_entries(const struct shard *s, struct lens_error *err)
{
	const struct lens_joined *j = s->j;
	size_t i, n = lens_min(s->list.n, j->n_entries);

	for (i = 0; i < n; i++) {
		const struct lens_join_entry *e = &j->entry[i];
		const char *path = s->list.v[i].path;
		int order = strcmp(path, e->path);

		if (order > 0)
			return odd(s, e->path, "is missing", err);
		if (order < 0)
			return odd(s, path, "is not in the first shard", err);
		if (s->list.v[i].first != e->target ||
		    (e->kind == LENS_JOIN_DIM) != is_scale(s, i))
			return odd(s, path, "is something else in the first shard", err);
	}
	if (s->list.n != j->n_entries)
		return odd(s, n < s->list.n ? s->list.v[n].path : j->entry[n].path,
			   n < s->list.n ? "is not in the first shard" : "is missing", err);
	return LENS_OK;
}

static enum lens_status find_prompt(struct shard *s, struct lens_error *err)
{
	struct lens_join_dim *d = find_dim(s->j, "prompt"), *token = find_dim(s->j, "token");

	if (!d)
		return odd(s, "", "has no dimension 'prompt'", err);
	s->j->prompt = (size_t)(d - s->j->dim);
	s->j->token = token ? (size_t)(token - s->j->dim) : s->j->n_dims;
	return LENS_OK;
}

/* Checks its place among the shards. A single file need not be a shard. */
static enum lens_status check_place(struct shard *s, struct lens_error *err)
{
	struct lens_shard_facts *state = &s->j->state[s->number];
	const struct lens_join_dim *prompt = &s->j->dim[s->j->prompt];
	char what[200];

	LENS_TRY(lens_h5_shard_state(&s->f, state, err));
	if (s->j->n_shards == 1 && state->shard < 0 && state->n_shards < 0) {
		state->first_row = 0;
		return LENS_OK;
	}
	snprintf(what, sizeof(what),
		 "is shard %lld of %lld from row %lld; shard %zu of %zu from row %zu is wanted",
		 (long long)state->shard, (long long)state->n_shards,
		 (long long)state->first_row, s->number, s->j->n_shards,
		 lens_join_first(s->j, s->j->prompt, s->number));
	if (state->shard != (int64_t)s->number || state->n_shards != (int64_t)s->j->n_shards ||
	    state->first_row != (int64_t)(prompt->extent - prompt->part[s->number]))
		return odd(s, "", what, err);
	return LENS_OK;
}

static enum lens_status check_identity(const struct shard *s, const char *identity,
				       struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	const char *want = identity;
	char *text;
	size_t i;

	for (i = 0; !want && i < s->j->attrs.n; i++) {
		if (!strcmp(s->j->attrs.v[i].name, "identity"))
			want = s->j->attrs.v[i].text.data;
	}
	LENS_TRY(lens_h5_attr_text(&s->f, s->f.id, "identity", &text, err));
	if (!want != !text || (want && strcmp(want, text) != 0))
		st = lens_error_at(err, LENS_ERR_MISMATCH, s->f.io->path, 0, 0,
				   identity ? "is of another experiment"
					    : "is of another experiment than the first shard");
	lens_free(text);
	return st;
}

static enum lens_status take_shard(struct shard *s, const char *identity,
				   struct lens_error *err)
{
	size_t i;

	LENS_TRY(lens_h5_list(&s->f, &s->list, err));
	if (s->number || identity)
		LENS_TRY(check_identity(s, identity, err));
	LENS_TRY(lens_join_take_attrs(&s->f, s->f.id, !s->number, &s->j->attrs, err));
	LENS_TRY(s->number ? compare_entries(s, err) : take_entries(s, err));
	s->names = lens_calloc(s->list.n, sizeof(*s->names));
	if (!s->names)
		return lens_error_nomem(err, s->list.n, sizeof(*s->names));
	LENS_TRY(lens_h5_dim_names(&s->f, &s->list, s->names, err));
	for (i = 0; i < s->j->n_entries; i++) {
		if (s->j->entry[i].kind == LENS_JOIN_DIM)
			LENS_TRY(take_dim(s, s->list.v[i].path, err));
	}
	LENS_TRY(find_prompt(s, err));
	LENS_TRY(check_place(s, err));
	for (i = 0; i < s->j->n_entries; i++) {
		if (s->j->entry[i].kind == LENS_JOIN_DATASET)
			LENS_TRY(take_dataset(s, i, err));
	}
	return LENS_OK;
}

static enum lens_status survey(const struct lens_shard_file *shard, size_t number,
			       const char *identity, struct lens_joined *j,
			       struct lens_error *err)
{
	struct shard s = { .j = j, .number = number };
	enum lens_status st;

	LENS_TRY(lens_h5_open(shard->file, &s.f, err));
	st = take_shard(&s, identity, err);
	if (st == LENS_ERR_FORMAT && err && !err->file[0])
		snprintf(err->file, sizeof(err->file), "%s", shard->file);
	lens_free(s.names);
	lens_h5_list_release(&s.list);
	return lens_h5_finish(&s.f, st, err);
}

/* Caches, and results of more than LARGE_ROW bytes a prompt, stay in the shards. */
static bool stays(const struct lens_joined *j, const struct lens_join_dataset *d)
{
	size_t bytes = lens_dtype_size(d->dtype);
	int i;

	if (!d->along || d->dtype == LENS_STR)
		return false;
	if (!strncmp(d->path, "/cache/", 7) || !strncmp(d->path, "/tokens/", 8))
		return true;
	for (i = 1; i < d->rank; i++) {
		if (!lens_size_mul(bytes, lens_join_extent(j, d, i), &bytes))
			return true;
	}
	return !strncmp(d->path, "/results/", 9) && bytes > LARGE_ROW;
}

enum lens_status lens_join_survey(const struct lens_shard_file *shard, size_t n,
				  const char *identity, struct lens_joined *j,
				  struct lens_error *err)
{
	enum lens_status st = LENS_OK;
	size_t i;

	*j = (struct lens_joined){ .shard = shard, .n_shards = n };
	if (!n)
		return lens_error_set(err, LENS_ERR_INVALID, "no shards");
	j->state = lens_calloc(n, sizeof(*j->state));
	if (!j->state)
		return lens_error_nomem(err, n, sizeof(*j->state));
	for (i = 0; i < n && st == LENS_OK; i++)
		st = survey(&shard[i], i, identity, j, err);
	for (i = 0; st == LENS_OK && i < j->n_datasets; i++)
		j->dataset[i].virtual = stays(j, &j->dataset[i]);
	return st;
}

void lens_joined_release(struct lens_joined *j)
{
	size_t i;

	for (i = 0; i < j->n_dims; i++) {
		lens_free(j->dim[i].name);
		lens_free(j->dim[i].part);
		lens_buf_release(&j->dim[i].labels);
	}
	for (i = 0; i < j->n_datasets; i++) {
		lens_free(j->dataset[i].path);
		lens_free(j->dataset[i].sha256);
		lens_join_attrs_release(&j->dataset[i].attrs);
	}
	for (i = 0; i < j->n_entries; i++)
		lens_free(j->entry[i].path);
	lens_join_attrs_release(&j->attrs);
	lens_free(j->dim);
	lens_free(j->dataset);
	lens_free(j->entry);
	lens_free(j->state);
	*j = (struct lens_joined){ .shard = NULL };
}
