/*
 * store/rows.c: datasets along the prompts, read a block of rows at a time. In: a finished
 * file and, where its datasets are virtual, its shards, one of them open at a time; nothing
 * in them is trusted. Out: cells as float64, int64 or strings.
 */
#include <string.h>

#include "store/gheap_private.h"
#include "store/store_private.h"

/* A block has about so many cells of its widest dataset, or one row. */
#define BLOCK_CELLS ((hsize_t)1 << 20)
#define BLOCK_STRINGS ((hsize_t)4096)
#define MOST_CELLS ((hsize_t)1 << 28)    /* of one row */
#define MOST_UNSTORED ((hsize_t)1 << 22) /* elements that need not be stored at all */
#define CHUNK_CACHE ((size_t)16 << 20)   /* bytes, of each open dataset */

struct column {
	char *path;
	struct lens_h5_dataset d;
	bool is_virtual;
	hsize_t width, chunk_rows;
	void *v; /* double, int64_t, or char * into text */
	size_t room;
	struct lens_buf text;
	size_t n_strings;
};

struct lens_rows {
	char *file;
	struct lens_h5_file f;
	struct column *column;
	size_t n, cap;
	struct lens_shard_record *shard;
	size_t n_shards;
	size_t open; /* the shard that is open; n_shards: none */
	struct lens_h5_file part;
};

static enum lens_status odd(const char *file, const char *path, const char *what,
			    struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0, "dataset '%.600s': %s", path,
			     what);
}

enum lens_status lens_rows_open(const char *file, struct lens_rows **out,
				struct lens_error *err)
{
	struct lens_rows *r = lens_calloc(1, sizeof(*r));
	enum lens_status st;

	*out = NULL;
	if (!r)
		return lens_error_nomem(err, 1, sizeof(*r));
	r->file = lens_strdup(file);
	st = r->file ? lens_h5_read_shards(file, &r->shard, &r->n_shards, err)
		     : lens_error_nomem(err, strlen(file) + 1, 1);
	r->open = r->n_shards;
	if (st == LENS_OK)
		st = lens_h5_open(file, &r->f, err);
	if (st != LENS_OK) {
		lens_store_shards_release(r->shard, r->n_shards);
		lens_free(r->file);
		lens_free(r);
		return st;
	}
	*out = r;
	return LENS_OK;
}

static void column_release(struct column *c)
{
	lens_h5_dataset_close(&c->d);
	lens_buf_release(&c->text);
	lens_free(c->v);
	lens_free(c->path);
}

enum lens_status lens_rows_close(struct lens_rows *r, enum lens_status st,
				 struct lens_error *err)
{
	if (!r)
		return st;
	while (r->n)
		column_release(&r->column[--r->n]);
	if (r->open < r->n_shards)
		st = lens_h5_finish(&r->part, st, err);
	st = lens_h5_finish(&r->f, st, err);
	lens_store_shards_release(r->shard, r->n_shards);
	lens_free(r->column);
	lens_free(r->file);
	lens_free(r);
	return st;
}

/* Chunks of a few MiB are read once, though a block takes a part of one. */
static void widen_cache(const struct lens_h5_file *f, const char *path,
			struct lens_h5_dataset *d)
{
	hid_t dapl = H5Pcreate(H5P_DATASET_ACCESS), id;

	if (dapl < 0 || H5Pset_chunk_cache(dapl, 521, CHUNK_CACHE, 1.0) < 0)
		id = H5I_INVALID_HID;
	else
		id = H5Dopen2(f->id, path, dapl);
	H5Pclose(dapl);
	if (id < 0) /* slower, not wrong */
		return;
	H5Dclose(d->id);
	d->id = id;
}

/* Sets width and chunk_rows, and checks all that the file says about itself. */
static enum lens_status measure(const struct lens_h5_file *f, struct column *c,
				struct lens_error *err)
{
	const struct lens_h5_dataset *d = &c->d;
	hid_t dcpl = H5Dget_create_plist(d->id);
	hsize_t chunk[LENS_MAX_RANK], n;
	bool plain;
	int i;

	c->is_virtual = lens_h5_is_virtual(d->id);
	plain = dcpl >= 0 && H5Pget_layout(dcpl) == H5D_CHUNKED && d->rank > 0 &&
		H5Pget_chunk(dcpl, LENS_MAX_RANK, chunk) == d->rank && chunk[0];
	c->chunk_rows = plain ? chunk[0] : 1;
	H5Pclose(dcpl);
	if (d->dtype < 0 || d->rank < 1 || (!plain && !c->is_virtual) ||
	    (d->dtype == LENS_STR && (d->rank > 2 || c->is_virtual)))
		return odd(f->io->path, c->path, "not of a type and shape that we know", err);
	for (c->width = 1, i = 1; i < d->rank; i++) {
		if (__builtin_mul_overflow(c->width, d->extent[i], &c->width) ||
		    c->width > MOST_CELLS)
			return odd(f->io->path, c->path, "its rows are too wide", err);
	}
	/* Only chunks of padding are not stored, so a much larger extent must be wrong. */
	if (__builtin_mul_overflow(c->width, d->extent[0], &n) ||
	    (!c->is_virtual && d->dtype != LENS_STR && n > MOST_UNSTORED &&
	     n / 256 > H5Dget_storage_size(d->id)))
		return odd(f->io->path, c->path, "far larger than what is stored of it", err);
	return LENS_OK;
}

enum lens_status lens_rows_add(struct lens_rows *r, const char *path, size_t *id,
			       struct lens_error *err)
{
	struct column *v = lens_grow(r->column, r->n, &r->cap, sizeof(*v), err), *c;
	enum lens_status st;

	if (!v)
		return LENS_ERR_NOMEM;
	r->column = v;
	c = &v[r->n];
	*c = (struct column){ .path = lens_strdup(path) };
	if (!c->path)
		return lens_error_nomem(err, strlen(path) + 1, 1);
	st = lens_h5_dataset_open(&r->f, path, &c->d, err);
	if (st != LENS_OK) {
		lens_free(c->path);
		return st;
	}
	st = measure(&r->f, c, err);
	if (st != LENS_OK) {
		column_release(c);
		return st;
	}
	if (!c->is_virtual)
		widen_cache(&r->f, path, &c->d);
	*id = r->n++;
	return LENS_OK;
}

int lens_rows_shape(const struct lens_rows *r, size_t id, size_t *extent,
		    enum lens_dtype *dtype)
{
	const struct lens_h5_dataset *d = &r->column[id].d;
	int i;

	for (i = 0; i < d->rank; i++)
		extent[i] = (size_t)d->extent[i];
	*dtype = (enum lens_dtype)d->dtype;
	return d->rank;
}

/* The shard that has a row; n_shards: none. */
static size_t shard_of(const struct lens_rows *r, size_t row)
{
	size_t i;

	for (i = 0; i < r->n_shards; i++) {
		if (row >= r->shard[i].first_row &&
		    row - r->shard[i].first_row < r->shard[i].n_rows)
			return i;
	}
	return r->n_shards;
}

size_t lens_rows_block(const struct lens_rows *r, size_t first)
{
	hsize_t n = SIZE_MAX, most;
	size_t i, k;

	for (i = 0; i < r->n; i++) {
		const struct column *c = &r->column[i];

		if (first >= c->d.extent[0])
			return 0;
		most = (c->d.dtype == LENS_STR ? BLOCK_STRINGS : BLOCK_CELLS) /
		       (c->width ? c->width : 1);
		if (c->chunk_rows <= most) /* up to the end of a chunk */
			most -= (first + most) % c->chunk_rows;
		n = most < n ? most : n;
		n = c->d.extent[0] - first < n ? c->d.extent[0] - first : n;
		k = c->is_virtual ? shard_of(r, first) : r->n_shards;
		if (k < r->n_shards)
			n = lens_min(n, r->shard[k].first_row + r->shard[k].n_rows - first);
	}
	return n ? (size_t)n : 1;
}

/* --- strings --------------------------------------------------------------------- */

static enum lens_status keep_string(void *ctx, const char *str, struct lens_error *err)
{
	struct column *c = ctx;

	c->n_strings++;
	return lens_buf_append(&c->text, str, strlen(str) + 1, err);
}

static enum lens_status read_strings(struct lens_rows *r, struct column *c,
				     const hsize_t rows[2], struct lens_error *err)
{
	const struct lens_h5_string_sink to = { keep_string, c };
	const char **v = c->v, *at;
	size_t i;

	c->text.len = 0;
	c->n_strings = 0;
	LENS_TRY(lens_h5_string_rows(&r->f, &c->d, rows, to, err));
	if (c->n_strings != rows[1] * c->width)
		return odd(r->file, c->path, "its strings cannot be read", err);
	for (at = c->text.data, i = 0; i < c->n_strings; i++, at += strlen(at) + 1)
		v[i] = at;
	return LENS_OK;
}

/* --- numbers --------------------------------------------------------------------- */

static enum lens_status fail_shard(const struct lens_shard_record *s, const char *what,
				   struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, s->name, 0, 0, "%s; see h5lens verify",
			     what);
}

/* Opens shard k, if it is the one that was recorded. */
static enum lens_status open_shard(struct lens_rows *r, size_t k, struct lens_error *err)
{
	const struct lens_shard_record *s = &r->shard[k];
	struct lens_shard_facts facts;
	enum lens_status st;
	char *path;

	if (r->open == k)
		return LENS_OK;
	if (r->open < r->n_shards)
		lens_h5_close(&r->part);
	r->open = r->n_shards;
	LENS_TRY(lens_store_shard_path(r->file, s->name, &path, err));
	st = lens_store_check(path, NULL, &facts, err);
	if (st == LENS_OK && (facts.size != s->size || strcmp(facts.sha256, s->sha256) != 0))
		st = fail_shard(s, "is not the shard that this output was made of", err);
	if (st == LENS_OK)
		st = lens_h5_open(path, &r->part, err);
	if (st == LENS_OK)
		r->open = k;
	lens_free(path);
	return st;
}

static hid_t memory_type(int dtype)
{
	return dtype == LENS_F16 || dtype == LENS_F32 || dtype == LENS_F64 ? H5T_NATIVE_DOUBLE
									   : H5T_NATIVE_INT64;
}

/*
 * Reads n rows of d from first on into c's array, as wide as c's dataset, of which d may
 * have a part: a shard is as wide as its own longest prompt.
 */
static enum lens_status read_box(struct lens_h5_file *f, const struct lens_h5_dataset *d,
				 const struct column *c, const hsize_t rows[2],
				 struct lens_error *err)
{
	hsize_t start[LENS_MAX_RANK] = { rows[0] }, count[LENS_MAX_RANK], room[LENS_MAX_RANK];
	const hsize_t zero[LENS_MAX_RANK] = { 0 };
	enum lens_status st = LENS_OK;
	hid_t memory;

	memcpy(count, d->extent, sizeof(count));
	memcpy(room, c->d.extent, sizeof(room));
	count[0] = room[0] = rows[1];
	memory = H5Screate_simple(d->rank, room, NULL);
	f->io->chunk_max = SIZE_MAX;
	if (H5Sselect_hyperslab(memory, H5S_SELECT_SET, zero, NULL, count, NULL) < 0 ||
	    H5Sselect_hyperslab(d->space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
	    H5Dread(d->id, memory_type(d->dtype), memory, d->space, H5P_DEFAULT, c->v) < 0)
		st = lens_h5_fail(f->io, err, "read '%s'", c->path);
	f->io->chunk_max = 0;
	H5Sclose(memory);
	return st;
}

/* What a reader sees where a shard has no data. */
static void fill(struct column *c, size_t n)
{
	const bool real = memory_type(c->d.dtype) == H5T_NATIVE_DOUBLE;

	if (c->d.dtype == LENS_U8)
		memset(c->v, 0, n * sizeof(int64_t));
	else
		lens_fill(real ? LENS_F64 : LENS_I64, c->v, n);
}

static bool fits(const struct lens_h5_dataset *part, const struct lens_h5_dataset *whole,
		 size_t n_rows)
{
	bool same = part->rank == whole->rank && part->dtype == whole->dtype &&
		    part->extent[0] == n_rows && !lens_h5_is_virtual(part->id);
	int i;

	for (i = 1; i < whole->rank && same; i++)
		same = part->extent[i] <= whole->extent[i];
	return same;
}

static enum lens_status read_virtual(struct lens_rows *r, struct column *c,
				     const hsize_t rows[2], struct lens_error *err)
{
	size_t k = shard_of(r, rows[0]);
	struct lens_h5_dataset d;
	enum lens_status st;
	hsize_t inner[2];

	if (k == r->n_shards)
		return odd(r->file, c->path, "no shard has its rows", err);
	inner[0] = rows[0] - r->shard[k].first_row;
	inner[1] = rows[1];
	if (inner[1] > r->shard[k].n_rows - inner[0])
		return odd(r->file, c->path, "a block of more than one shard", err);
	LENS_TRY(open_shard(r, k, err));
	LENS_TRY(lens_h5_dataset_open(&r->part, c->path, &d, err));
	fill(c, (size_t)(rows[1] * c->width));
	if (!fits(&d, &c->d, r->shard[k].n_rows))
		st = fail_shard(&r->shard[k], "its data sets are not those of this output",
				err);
	else
		st = read_box(&r->part, &d, c, inner, err);
	lens_h5_dataset_close(&d);
	return st;
}

/* --- both ------------------------------------------------------------------------ */

static enum lens_status make_room(struct column *c, size_t n, struct lens_error *err)
{
	size_t cells;
	void *v;

	if (!lens_size_mul(n, (size_t)c->width, &cells))
		return lens_error_nomem(err, n, (size_t)c->width);
	if (c->v && cells <= c->room)
		return LENS_OK;
	v = lens_realloc(c->v, cells, sizeof(double));
	if (!v)
		return lens_error_nomem(err, cells, sizeof(double));
	c->v = v;
	c->room = cells;
	return LENS_OK;
}

enum lens_status lens_rows_read(struct lens_rows *r, size_t id, size_t first, size_t n,
				struct lens_cells *out, struct lens_error *err)
{
	struct column *c = &r->column[id];
	const hsize_t rows[2] = { first, n };
	enum lens_status st;

	if (first > c->d.extent[0] || n > c->d.extent[0] - first)
		return lens_error_at(err, LENS_ERR_FORMAT, r->file, 0, 0,
				     "'%.600s' has %llu rows, fewer than others", c->path,
				     (unsigned long long)c->d.extent[0]);
	LENS_TRY(make_room(c, n, err));
	if (c->d.dtype == LENS_STR)
		st = read_strings(r, c, rows, err);
	else if (!n || !c->width)
		st = LENS_OK;
	else if (c->is_virtual)
		st = read_virtual(r, c, rows, err);
	else
		st = read_box(&r->f, &c->d, c, rows, err);
	*out = (struct lens_cells){ .dtype = (enum lens_dtype)c->d.dtype,
				    .width = (size_t)c->width };
	if (c->d.dtype == LENS_STR)
		out->text = c->v;
	else if (memory_type(c->d.dtype) == H5T_NATIVE_DOUBLE)
		out->real = c->v;
	else
		out->integer = c->v;
	return st;
}
