/*
 * pipeline/mean_file.c: the files of the first pass. In: sums or means; out:
 * /sums/<hook name> (float64) or /mean/<hook name> (float32), of each position or of all
 * tokens, and /count, how many tokens each is of; and back.
 */
#include "pipeline/pipeline_private.h"

#include <string.h>

#define CHUNK_BYTES ((size_t)4 << 20) /* or one position */

/* An array of [n_pos, a hook point's axes but pos] in a file; without pos: of all tokens. */
struct array {
	char path[LENS_PATH];
	struct lens_dataset_spec spec;
	size_t rows, row_bytes, chunk_rows;
};

static void describe(const struct lens_mean_shape *shape, const struct lens_sizes *sizes,
		     const struct lens_hook_info *h, struct array *a)
{
	struct lens_dataset_spec *s = &a->spec;
	int k;

	s->path = a->path;
	s->long_name = h->long_name;
	a->rows = shape->n_pos;
	a->row_bytes = lens_dtype_size(s->dtype);
	for (k = shape->per_position ? 0 : 1; k < h->n_axes; k++) {
		size_t extent = lens_axis_extent(h->axis[k], sizes);

		s->dim[s->rank] = lens_axis_name(h->axis[k]);
		s->extent[s->rank] = s->chunk[s->rank] = extent;
		s->rank++;
		a->row_bytes *= k ? extent : 1;
	}
	a->chunk_rows = lens_min(lens_max(CHUNK_BYTES / a->row_bytes, 1), a->rows);
	if (shape->per_position)
		s->chunk[0] = a->chunk_rows;
}

/* Of a hook point in a layer. */
static void describe_hook(const struct lens_mean_shape *shape, const struct lens_config *c,
			  enum lens_dtype dtype, enum lens_hook hook, size_t layer,
			  struct array *a)
{
	struct lens_sizes sizes = lens_model_sizes(c);
	char name[LENS_HOOK_NAME];

	sizes.n_pos = shape->n_pos;
	*a = (struct array){ .spec = { .dtype = dtype } };
	snprintf(a->path, sizeof(a->path), "/%s/%s", dtype == LENS_F64 ? "sums" : "mean",
		 lens_hook_name(hook, layer, name));
	describe(shape, &sizes, lens_hook_info(hook), a);
}

static void describe_count(const struct lens_mean_shape *shape, struct array *a)
{
	enum lens_axis axis = shape->per_position ? LENS_AXIS_POS : LENS_AXIS_ONE;

	*a = (struct array){ .path = "/count",
			     .rows = shape->n_pos,
			     .row_bytes = sizeof(double),
			     .chunk_rows = lens_min(shape->n_pos, CHUNK_BYTES / sizeof(double)),
			     .spec = { .long_name = "tokens that a sum or a mean is of",
				       .dtype = LENS_F64,
				       .rank = 1,
				       .dim = { lens_axis_name(axis) },
				       .extent = { shape->n_pos } } };
	a->spec.path = a->path;
	a->spec.chunk[0] = a->chunk_rows;
}

/* --- writing --------------------------------------------------------------------------- */

struct writing {
	const struct lens_mean_file *file;
	const struct lens_mean_shape *shape;
	struct lens_store *store;
	const char *dim[LENS_MAX_RANK * LENS_HOOK_COUNT]; /* those that the file has */
	size_t n_dims;
};

static enum lens_status add_dims(struct writing *w, const struct lens_dataset_spec *s,
				 struct lens_error *err)
{
	size_t i;
	int k;

	for (k = 0; k < s->rank; k++) {
		for (i = 0; i < w->n_dims && strcmp(w->dim[i], s->dim[k]) != 0; i++)
			;
		if (i < w->n_dims)
			continue;
		LENS_TRY(lens_store_add_dim(w->store, s->dim[k], s->extent[k], NULL, err));
		w->dim[w->n_dims++] = s->dim[k];
	}
	return LENS_OK;
}

/* Chunks of whole rows; buf is one of them. */
static enum lens_status write_rows(struct writing *w, const struct array *a, int id,
				   const char *data, char *buf, struct lens_error *err)
{
	size_t first, coord[LENS_MAX_RANK] = { 0 };
	uint8_t digest[LENS_XXH3_BYTES];
	const struct lens_store_chunk c = { .coord = coord,
					    .buf = buf,
					    .nbytes = a->chunk_rows * a->row_bytes,
					    .digest = digest };

	for (first = 0; first < a->rows; first += a->chunk_rows, coord[0]++) {
		lens_fill(a->spec.dtype, buf, c.nbytes / lens_dtype_size(a->spec.dtype));
		memcpy(buf, data + first * a->row_bytes,
		       lens_min(a->chunk_rows, a->rows - first) * a->row_bytes);
		lens_xxh3(buf, c.nbytes, digest);
		LENS_TRY(lens_store_write_chunk(w->store, id, &c, err));
	}
	return LENS_OK;
}

static enum lens_status write_array(struct writing *w, const struct array *a, const void *data,
				    struct lens_error *err)
{
	size_t bytes = a->chunk_rows * a->row_bytes;
	enum lens_status st;
	char *buf;
	int id;

	LENS_TRY(add_dims(w, &a->spec, err));
	LENS_TRY(lens_store_add_dataset(w->store, &a->spec, &id, err));
	buf = lens_alloc_pages(bytes);
	st = buf ? write_rows(w, a, id, data, buf, err) : lens_error_nomem(err, bytes, 1);
	lens_free(buf);
	return st;
}

/* value: [LENS_HOOK_COUNT] */
static enum lens_status write_hooks(struct writing *w, enum lens_dtype dtype,
				    const char *const *value, struct lens_error *err)
{
	const struct lens_config *c = &w->file->in->model->config;
	struct array a;
	size_t layer;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		for (layer = 0; value[h] && layer < w->shape->n_layers; layer++) {
			describe_hook(w->shape, c, dtype, (enum lens_hook)h, layer, &a);
			LENS_TRY(write_array(w, &a, value[h] + layer * a.rows * a.row_bytes,
					     err));
		}
	}
	return LENS_OK;
}

static enum lens_status add_attributes(const struct writing *w, const struct lens_mean *m,
				       struct lens_error *err)
{
	const struct lens_mean_file *f = w->file;
	struct lens_store *s = w->store;

	LENS_TRY(lens_layout_program(s, f->in->level, err));
	LENS_TRY(lens_layout_model(s, f->in->model, f->in->experiment->model, err));
	LENS_TRY(lens_store_attr_str(s, "/", "identity", f->in->identity, err));
	LENS_TRY(lens_store_attr_str(s, "/", LENS_FIRST_PASS, lens_first_pass_name(f->shard),
				     err));
	if (m)
		return lens_store_attr_str(s, "/", "ablate_mean_sha256", m->sha256, err);
	LENS_TRY(lens_store_attr_i64(s, "/", "shard", (int64_t)f->shard, err));
	LENS_TRY(lens_store_attr_i64(s, "/", "n_shards", (int64_t)f->cut->n, err));
	return lens_store_attr_i64(s, "/", "shard_first_row", (int64_t)f->cut->first[f->shard],
				   err);
}

/* m: NULL for sums alone. */
static enum lens_status fill(struct writing *w, const struct lens_sums *s,
			     const struct lens_mean *m, struct lens_error *err)
{
	const char *value[LENS_HOOK_COUNT];
	struct array count;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++)
		value[h] = m ? (const char *)m->value[h] : (const char *)s->value[h];
	LENS_TRY(add_attributes(w, m, err));
	describe_count(w->shape, &count);
	LENS_TRY(write_array(w, &count, s->count, err));
	LENS_TRY(write_hooks(w, m ? LENS_F32 : LENS_F64, value, err));
	return lens_store_commit(w->store, err);
}

static enum lens_status write_file(const struct lens_mean_file *f, const struct lens_sums *s,
				   const struct lens_mean *m, struct lens_error *err)
{
	struct writing w = { .file = f, .shape = &s->shape };
	enum lens_status st = lens_store_create(f->path, &w.store, err);

	if (st == LENS_OK)
		st = fill(&w, s, m, err);
	lens_store_destroy(w.store);
	return st;
}

enum lens_status lens_sums_write(const struct lens_mean_file *f, const struct lens_sums *s,
				 struct lens_error *err)
{
	return write_file(f, s, NULL, err);
}

enum lens_status lens_mean_write(const struct lens_mean_file *f, const struct lens_sums *s,
				 const struct lens_mean *m, struct lens_error *err)
{
	return write_file(f, s, m, err);
}

/* --- reading --------------------------------------------------------------------------- */

/* Of exactly this shape; *out is [rows, …]. */
static enum lens_status read_array(const char *file, const struct array *a, double **out,
				   struct lens_error *err)
{
	size_t extent[LENS_MAX_RANK];
	int k, rank;
	bool right;

	LENS_TRY(lens_store_read_f64(file, a->path, out, &rank, extent, err));
	right = rank == a->spec.rank;
	for (k = 0; right && k < rank; k++)
		right = extent[k] == a->spec.extent[k];
	if (right)
		return LENS_OK;
	lens_free(*out);
	*out = NULL;
	return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
			     "%s has another shape than this model's and data's", a->path);
}

/* What is read: one of the two. */
struct reading {
	const char *file;
	const struct lens_config *config;
	struct lens_sums *sums;
	struct lens_mean *mean;
};

static enum lens_status read_layer(const struct reading *r, enum lens_hook hook, size_t layer,
				   struct lens_error *err)
{
	const struct lens_mean_shape *shape = r->sums ? &r->sums->shape : &r->mean->shape;
	size_t i, n = shape->n_pos * shape->width[hook];
	struct array a;
	double *v;

	describe_hook(shape, r->config, r->sums ? LENS_F64 : LENS_F32, hook, layer, &a);
	LENS_TRY(read_array(r->file, &a, &v, err));
	if (r->sums)
		memcpy(r->sums->value[hook] + layer * n, v, n * sizeof(*v));
	for (i = 0; r->mean && i < n; i++)
		r->mean->value[hook][layer * n + i] = (float)v[i];
	lens_free(v);
	return LENS_OK;
}

static enum lens_status read_hooks(const struct reading *r, const struct lens_mean_shape *shape,
				   struct lens_error *err)
{
	size_t layer;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		for (layer = 0; shape->width[h] && layer < shape->n_layers; layer++)
			LENS_TRY(read_layer(r, (enum lens_hook)h, layer, err));
	}
	return LENS_OK;
}

enum lens_status lens_sums_read(const char *path, const struct lens_config *c,
				struct lens_sums *s, struct lens_error *err)
{
	const struct reading r = { .file = path, .config = c, .sums = s };
	struct array count;
	double *v;

	describe_count(&s->shape, &count);
	LENS_TRY(read_array(path, &count, &v, err));
	memcpy(s->count, v, s->shape.n_pos * sizeof(*v));
	lens_free(v);
	return read_hooks(&r, &s->shape, err);
}

enum lens_status lens_mean_read(const char *path, const struct lens_config *c,
				struct lens_mean *m, struct lens_error *err)
{
	const struct reading r = { .file = path, .config = c, .mean = m };

	LENS_TRY(read_hooks(&r, &m->shape, err));
	return lens_mean_digest(m, err);
}
