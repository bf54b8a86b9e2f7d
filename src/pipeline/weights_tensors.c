/*
 * pipeline/weights_tensors.c: model.safetensors of a folder in TransformerLens's own form.
 * In: a model; out: its state dict, without the buffers that a HookedTransformer makes by
 * itself (masks, tables of cosines and sines), float32, by sorted names.
 *
 * Format: model/safetensors.c. A piece at a time is put in order and written.
 */
#include "pipeline/weights_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "h5lens/sys.h"

struct tensors {
	struct lens_weights_job *job;
	const char *path;
	int fd;
	struct lens_weight *w;
	size_t n, cap;
};

/* --- which, and under which names ------------------------------------------------------ */

static size_t elements(const struct lens_weight *w)
{
	size_t n = 1;
	int k;

	for (k = 0; k < w->rank; k++)
		n *= w->extent[k];
	return n;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/* What TransformerLens would not compute with; why: what it does instead. */
static enum lens_status check_zero(const struct lens_weight *w, const char *why,
				   struct lens_error *err)
{
	size_t i;

	for (i = 0; i < elements(w); i++) {
		if (w->data[i] != 0)
			return lens_error_set(err, LENS_ERR_UNSUPPORTED,
					      "%s is not zero, and a HookedTransformer %s",
					      w->name, why);
	}
	return LENS_OK;
}

/* Its GatedMLP has no b_gate, and adds b_in behind the product. */
static enum lens_status check_gated(const struct lens_config *c, const struct lens_weight *w,
				    struct lens_error *err)
{
	if (ends_with(w->name, ".mlp.b_gate"))
		return check_zero(w,
				  c->gate_bias ? "has no bias of an MLP's gate"
					       : "has no bias of an MLP's gate: --set "
						 "weights.fold_ln=false keeps it 0",
				  err);
	if (c->gated_mlp && !c->mlp_bias_after && ends_with(w->name, ".mlp.b_in"))
		return check_zero(w, "adds b_in of a gated MLP behind the product", err);
	return LENS_OK;
}

static enum lens_status add(void *ctx, const struct lens_weight *w, struct lens_error *err)
{
	struct tensors *t = ctx;
	const struct lens_config *c = &t->job->model->config;
	char *part = strstr(w->name, ".attn.");
	struct lens_weight *v;

	LENS_TRY(check_gated(c, w, err));
	if (ends_with(w->name, ".mlp.b_gate"))
		return LENS_OK;
	v = lens_grow(t->w, t->n, &t->cap, sizeof(*v), err);
	if (!v)
		return LENS_ERR_NOMEM;
	t->w = v;
	v[t->n] = *w;
	/* GroupedQueryAttention keeps W_K for what it repeats; the parameter is _W_K. */
	if (part && c->n_kv_heads != c->n_heads && part[7] == '_' && strchr("KV", part[8]))
		snprintf(v[t->n].name, sizeof(v->name), "%.*s_%s", (int)(part + 6 - w->name),
			 w->name, part + 6);
	t->n++;
	return LENS_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct lens_weight *)a)->name,
		      ((const struct lens_weight *)b)->name);
}

/* --- the header ------------------------------------------------------------------------ */

static enum lens_status put_steps(const struct lens_processing *p, struct lens_buf *b,
				  struct lens_error *err)
{
	const struct {
		bool on;
		const char *name;
	} step[] = {
		{ p->fold_ln, "fold_ln" },
		{ p->center_writing_weights, "center_writing_weights" },
		{ p->center_unembed, "center_unembed" },
		{ p->fold_value_biases, "fold_value_biases" },
		{ p->refactor_factored_attn_matrices, "refactor_factored_attn_matrices" },
	};
	const char *between = "";
	size_t i;

	for (i = 0; i < sizeof(step) / sizeof(*step); i++) {
		if (!step[i].on)
			continue;
		LENS_TRY(lens_buf_printf(b, err, "%s%s", between, step[i].name));
		between = " ";
	}
	return LENS_OK;
}

/* Where they come from: the digest of the model, and what was done to its weights. */
static enum lens_status put_origin(const struct tensors *t, struct lens_buf *b,
				   struct lens_error *err)
{
	const struct lens_model *m = t->job->model;
	char sha[LENS_SHA256_HEX];

	lens_hex(m->sha256, LENS_SHA256_BYTES, sha);
	LENS_TRY(lens_buf_printf(b, err,
				 LENS_TENSORS_BEGIN " %s\",\"sha256_model\":\"%s\","
						    "\"processing\":\"",
				 LENS_VERSION, sha));
	LENS_TRY(put_steps(&m->processing, b, err));
	return lens_buf_printf(b, err, "\"}");
}

static enum lens_status put_tensor(const struct lens_weight *w, size_t *begin,
				   struct lens_buf *b, struct lens_error *err)
{
	size_t end = *begin + elements(w) * sizeof(float);
	int k;

	LENS_TRY(lens_buf_printf(b, err, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", w->name));
	for (k = 0; k < w->rank; k++)
		LENS_TRY(lens_buf_printf(b, err, "%s%zu", k ? "," : "", w->extent[k]));
	LENS_TRY(lens_buf_printf(b, err, "],\"data_offsets\":[%zu,%zu]}", *begin, end));
	*begin = end;
	return LENS_OK;
}

/* The length of what follows, then JSON, with spaces up to a multiple of 8. */
static enum lens_status put_header(const struct tensors *t, struct lens_buf *b,
				   struct lens_error *err)
{
	unsigned char length[8] = { 0 };
	size_t i, at = 0;

	LENS_TRY(lens_buf_append(b, length, sizeof(length), err));
	LENS_TRY(put_origin(t, b, err));
	for (i = 0; i < t->n; i++)
		LENS_TRY(put_tensor(&t->w[i], &at, b, err));
	LENS_TRY(lens_buf_append(b, "}", 1, err));
	while (b->len % 8)
		LENS_TRY(lens_buf_append(b, " ", 1, err));
	for (i = 0; i < 8; i++)
		b->data[i] = (char)((uint64_t)(b->len - 8) >> (8 * i));
	return LENS_OK;
}

/* --- the data -------------------------------------------------------------------------- */

static enum lens_status put(const struct tensors *t, const void *data, size_t n,
			    struct lens_error *err)
{
	LENS_TRY(lens_weights_go_on(t->job, err));
	if (lens_sys_write(t->fd, data, n))
		return lens_error_sys(err, errno, t->path, "write");
	return LENS_OK;
}

/* As many whole rows as a chunk holds, so that chunks follow each other in the file. */
static void choose_rows(const struct lens_weight *w, size_t *chunk)
{
	size_t left = LENS_WEIGHTS_CHUNK / sizeof(float);
	int k;

	for (k = w->rank - 1; k >= 0; k--) {
		chunk[k] = lens_min(w->extent[k], lens_max(left, 1));
		left /= chunk[k];
	}
}

static enum lens_status put_data(const struct tensors *t, const struct lens_weight *w,
				 struct lens_error *err)
{
	size_t chunk[LENS_WEIGHT_RANK], coord[LENS_WEIGHT_RANK] = { 0 };

	choose_rows(w, chunk);
	do {
		size_t n = sizeof(float);
		int k;

		/* What lies past the array's end is at the chunk's: one axis alone is cut. */
		for (k = 0; k < w->rank; k++)
			n *= lens_min(chunk[k], w->extent[k] - coord[k] * chunk[k]);
		lens_weight_chunk(w, chunk, coord, t->job->chunk);
		LENS_TRY(put(t, t->job->chunk, n, err));
	} while (lens_weight_next(w, chunk, coord));
	return LENS_OK;
}

static enum lens_status put_all(const struct tensors *t, struct lens_error *err)
{
	struct lens_buf header = LENS_BUF_INIT;
	enum lens_status st = put_header(t, &header, err);
	size_t i;

	if (st == LENS_OK)
		st = put(t, header.data, header.len, err);
	lens_buf_release(&header);
	for (i = 0; i < t->n && st == LENS_OK; i++)
		st = put_data(t, &t->w[i], err);
	if (st == LENS_OK && lens_sys_fsync(t->fd))
		st = lens_error_sys(err, errno, t->path, "flush to disk");
	return st;
}

static enum lens_status write_tensors(struct tensors *t, struct lens_error *err)
{
	const struct lens_model *m = t->job->model;
	enum lens_status st;

	LENS_TRY(lens_weights_each(&m->config, &m->processing, m, add, t, err));
	qsort(t->w, t->n, sizeof(*t->w), by_name);
	t->fd = lens_sys_open(t->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (t->fd < 0)
		return lens_error_sys(err, errno, t->path, "create");
	st = put_all(t, err);
	if (lens_sys_close(t->fd) && st == LENS_OK)
		st = lens_error_sys(err, errno, t->path, "write");
	return st;
}

enum lens_status lens_weights_tensors(struct lens_weights_job *job, const char *path,
				      struct lens_error *err)
{
	struct tensors t = { .job = job, .path = path };
	enum lens_status st = write_tensors(&t, err);

	lens_free(t.w);
	return st;
}
