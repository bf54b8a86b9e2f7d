/*
 * model/model.c: opens a model: config, tensors, processing in float64, and rounding to
 * the float32 weights that the forward pass reads.
 *
 * Each block is loaded, processed and rounded on its own, so that only one block per
 * thread is held in float64.
 */
#include "model/config_private.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Makes a matrix of zeros. */
static enum lens_status make64(size_t rows, size_t columns, double **out,
			       struct lens_error *err)
{
	size_t n;

	if (!lens_size_mul(rows, columns, &n))
		return lens_error_nomem(err, rows, columns);
	*out = lens_calloc(n, sizeof(**out));
	return *out ? LENS_OK : lens_error_nomem(err, n, sizeof(**out));
}

/* Rounds n elements to a new float32 array. */
static enum lens_status round32(const double *x, size_t n, float **out, struct lens_error *err)
{
	size_t i;

	*out = lens_alloc_aligned(n, sizeof(**out));
	if (!*out)
		return lens_error_nomem(err, n, sizeof(**out));
	for (i = 0; i < n; i++)
		(*out)[i] = (float)x[i];
	return LENS_OK;
}

/* The arrays of a block: where they are in both forms, and their shapes. */
enum extent { ONE, D_MODEL, D_MLP, QKV, HEADS, Q_NORM, K_NORM, N_EXTENTS };

/*
 * WEIGHT: in every model; GATE: if the MLP is gated; NORM and NORM_BIAS (LayerNorm's):
 * gone once folded; QK_NORM: if queries and keys are normalised; POST: if
 * what is added to the stream is.
 */
enum kind { WEIGHT, GATE, NORM, NORM_BIAS, QK_NORM, POST };

static const struct block_array {
	size_t at64, at32;
	enum extent rows, columns;
	enum kind kind;
} block_arrays[] = {
#define ARRAY(name, rows, columns, kind)                                                       \
	{                                                                                      \
		offsetof(struct lens_block64, name), offsetof(struct lens_block, name), rows,  \
			columns, kind                                                          \
	}
	ARRAY(ln1_w, ONE, D_MODEL, NORM),      ARRAY(ln1_b, ONE, D_MODEL, NORM_BIAS),
	ARRAY(ln2_w, ONE, D_MODEL, NORM),      ARRAY(ln2_b, ONE, D_MODEL, NORM_BIAS),
	ARRAY(w_qkv, D_MODEL, QKV, WEIGHT),    ARRAY(b_qkv, ONE, QKV, WEIGHT),
	ARRAY(q_norm_w, ONE, Q_NORM, QK_NORM), ARRAY(k_norm_w, ONE, K_NORM, QK_NORM),
	ARRAY(ln1_post_w, ONE, D_MODEL, POST), ARRAY(ln2_post_w, ONE, D_MODEL, POST),
	ARRAY(w_o, HEADS, D_MODEL, WEIGHT),    ARRAY(b_o, ONE, D_MODEL, WEIGHT),
	ARRAY(w_gate, D_MODEL, D_MLP, GATE),   ARRAY(b_gate, ONE, D_MLP, GATE),
	ARRAY(w_in, D_MODEL, D_MLP, WEIGHT),   ARRAY(b_in, ONE, D_MLP, WEIGHT),
	ARRAY(w_out, D_MLP, D_MODEL, WEIGHT),  ARRAY(b_out, ONE, D_MODEL, WEIGHT),
#undef ARRAY
};
#define N_ARRAYS (sizeof(block_arrays) / sizeof(*block_arrays))

static double **array64(struct lens_block64 *b, size_t i)
{
	return (double **)(void *)((char *)b + block_arrays[i].at64);
}

static float **array32(struct lens_block *b, size_t i)
{
	return (float **)(void *)((char *)b + block_arrays[i].at32);
}

static size_t extent_of(const struct lens_config *c, enum extent e)
{
	const size_t extent[N_EXTENTS] = {
		[ONE] = 1,
		[D_MODEL] = c->d_model,
		[D_MLP] = c->d_mlp,
		[QKV] = (c->n_heads + 2 * c->n_kv_heads) * c->d_head,
		[HEADS] = c->n_heads * c->d_head,
		[Q_NORM] = c->d_head * (c->qk_norm == LENS_QK_NORM_ALL ? c->n_heads : 1),
		[K_NORM] = c->d_head * (c->qk_norm == LENS_QK_NORM_ALL ? c->n_kv_heads : 1),
	};

	return extent[e];
}

static bool has_array(const struct lens_config *c, size_t i)
{
	switch (block_arrays[i].kind) {
	case GATE:
		return c->gated_mlp;
	case NORM:
		return c->norms_before;
	case NORM_BIAS:
		return c->norms_before && c->norm == LENS_NORM_LN;
	case POST:
		return c->norms_after;
	case QK_NORM:
		return c->qk_norm;
	default:
		return true;
	}
}

size_t lens_block_weights(const struct lens_config *c)
{
	size_t i, n = 0;

	for (i = 0; i < N_ARRAYS; i++) {
		if (has_array(c, i) && block_arrays[i].rows != ONE)
			n += extent_of(c, block_arrays[i].rows) *
			     extent_of(c, block_arrays[i].columns);
	}
	return n;
}

size_t lens_model_weights(const struct lens_config *c)
{
	size_t positions = c->learned_positions ? c->n_ctx : 0;

	return c->n_layers * lens_block_weights(c) + (2 * c->d_vocab + positions) * c->d_model;
}

static void release_block64(struct lens_block64 *b)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++)
		lens_free(*array64(b, i));
}

static enum lens_status make_block64(const struct lens_config *c, struct lens_block64 *b,
				     struct lens_error *err)
{
	size_t i;

	memset(b, 0, sizeof(*b));
	for (i = 0; i < N_ARRAYS; i++) {
		if (has_array(c, i))
			LENS_TRY(make64(extent_of(c, block_arrays[i].rows),
					extent_of(c, block_arrays[i].columns), array64(b, i),
					err));
	}
	return LENS_OK;
}

static enum lens_status round_block(const struct lens_config *c, bool folded,
				    struct lens_block64 *b, struct lens_block *out,
				    struct lens_error *err)
{
	size_t i;

	for (i = 0; i < N_ARRAYS; i++) {
		enum kind kind = block_arrays[i].kind;
		size_t n = extent_of(c, block_arrays[i].rows) *
			   extent_of(c, block_arrays[i].columns);

		if (*array64(b, i) && !(folded && (kind == NORM || kind == NORM_BIAS)))
			LENS_TRY(round32(*array64(b, i), n, array32(out, i), err));
	}
	return LENS_OK;
}

static float attention_scale(const struct lens_config *c, size_t layer)
{
	double scale = c->scale_attn ? sqrt((double)c->d_head) : 1.0;

	scale = c->attn_scale > 0 ? c->attn_scale : scale;
	return (float)(c->scale_attn_by_layer ? scale * (double)(layer + 1) : scale);
}

struct loader {
	const struct lens_family *family;
	enum lens_tied_head tied_head;
	struct lens_checkpoint checkpoint;
	struct lens_model *model;
};

static enum lens_status load_block(struct loader *l, size_t layer, struct lens_error *err)
{
	const struct lens_config *c = &l->model->config;
	struct lens_block *out = &l->model->block[layer];
	struct lens_block64 b;
	enum lens_status st = make_block64(c, &b, err);

	if (st == LENS_OK)
		st = l->family->load_block(&l->checkpoint, c, layer, &b, err);
	if (st == LENS_OK) {
		lens_process_block(c, &l->model->processing, &b);
		if (l->model->processing.refactor_factored_attn_matrices)
			st = lens_refactor_block(c, &b, err);
	}
	if (st == LENS_OK) {
		st = round_block(c, l->model->processing.fold_ln, &b, out, err);
	}
	out->attn_scale = attention_scale(c, layer);
	out->window = c->local[layer] ? c->window : 0;
	release_block64(&b);
	return st;
}

static enum lens_status load_blocks(struct loader *l, struct lens_error *err)
{
	size_t i, n = l->model->config.n_layers;
	enum lens_status status = LENS_OK;

	l->model->block = lens_calloc(n, sizeof(*l->model->block));
	if (!l->model->block)
		return lens_error_nomem(err, n, sizeof(*l->model->block));
		/* Blocks are independent; the first error (by layer) is reported. */
#pragma omp parallel for schedule(dynamic) ordered
	for (i = 0; i < n; i++) {
		struct lens_error e = LENS_ERROR_INIT;
		enum lens_status st = load_block(l, i, &e);

#pragma omp ordered
		if (st != LENS_OK && status == LENS_OK) {
			status = st;
			lens_error_pass(err, &e);
		}
	}
	return status;
}

/* Reads W_E or W_U, [V, D]; out NULL: checks only. */
static enum lens_status read_matrix(struct loader *l, const char *name, double *out,
				    struct lens_error *err)
{
	const size_t shape[2] = { l->model->config.d_vocab, l->model->config.d_model };

	return lens_tensors_read(&l->checkpoint.tensors, name, 2, shape, out, err);
}

static enum lens_status read_embed(struct loader *l, double *w_e, double *w_pos,
				   struct lens_error *err)
{
	LENS_TRY(read_matrix(l, l->checkpoint.w_e, w_e, err));
	if (l->family->norm_embed)
		LENS_TRY(l->family->norm_embed(&l->checkpoint, &l->model->config, w_e, err));
	if (!l->family->load_positions)
		return LENS_OK;
	return l->family->load_positions(&l->checkpoint, &l->model->config, w_pos, err);
}

static enum lens_status read_head(struct loader *l, struct lens_head64 *h,
				  struct lens_error *err)
{
	const size_t v = l->model->config.d_vocab;

	LENS_TRY(l->family->load_final_norm(&l->checkpoint, &l->model->config, h, err));
	if (l->family->head_bias)
		LENS_TRY(lens_tensors_read(&l->checkpoint.tensors, l->family->head_bias, 1, &v,
					   h->b_u, err));
	return read_matrix(l, l->checkpoint.w_u, h->w_u, err);
}

static void multiply64(size_t n, double by, double *x)
{
	size_t i;

	for (i = 0; i < n; i++)
		x[i] *= by;
}

static enum lens_status load_embed(struct loader *l, struct lens_error *err)
{
	struct lens_model *m = l->model;
	const struct lens_config *c = &m->config;
	double *w_e = NULL, *w_pos = NULL;
	size_t d = c->d_model, n_pos = c->learned_positions ? c->n_ctx : 0;
	enum lens_status st = make64(c->d_vocab, d, &w_e, err);

	if (st == LENS_OK)
		st = make64(n_pos, d, &w_pos, err);
	if (st == LENS_OK)
		st = read_embed(l, w_e, w_pos, err);
	if (st == LENS_OK && c->embed_scale > 0)
		multiply64(c->d_vocab * d, c->embed_scale, w_e);
	if (st == LENS_OK && m->processing.center_writing_weights && c->norm == LENS_NORM_LN &&
	    !c->embed_norm) {
		lens_center_rows(c->d_vocab, d, w_e);
		lens_center_rows(n_pos, d, w_pos);
	}
	if (st == LENS_OK)
		st = round32(w_e, c->d_vocab * d, &m->w_e, err);
	if (st == LENS_OK && n_pos)
		st = round32(w_pos, n_pos * d, &m->w_pos, err);
	lens_free(w_e);
	lens_free(w_pos);
	return st;
}

static enum lens_status load_head64(struct loader *l, struct lens_head64 *h,
				    struct lens_error *err)
{
	const struct lens_config *c = &l->model->config;
	size_t d = c->d_model;

	memset(h, 0, sizeof(*h));
	LENS_TRY(make64(1, d, &h->ln_final_w, err));
	if (c->norm == LENS_NORM_LN)
		LENS_TRY(make64(1, d, &h->ln_final_b, err));
	LENS_TRY(make64(c->d_vocab, d, &h->w_u, err));
	LENS_TRY(make64(1, c->d_vocab, &h->b_u, err));
	return read_head(l, h, err);
}

static enum lens_status load_head(struct loader *l, struct lens_error *err)
{
	struct lens_model *m = l->model;
	size_t d = m->config.d_model, v = m->config.d_vocab;
	struct lens_head64 h;
	enum lens_status st = load_head64(l, &h, err);

	if (st == LENS_OK && l->checkpoint.layout.logits_scaling > 0)
		multiply64(v * d, 1 / l->checkpoint.layout.logits_scaling, h.w_u);
	if (st == LENS_OK) {
		lens_process_head(&m->config, &m->processing, &h);
		st = round32(h.w_u, v * d, &m->w_u, err);
	}
	if (st == LENS_OK)
		st = round32(h.b_u, v, &m->b_u, err);
	if (st == LENS_OK && !m->processing.fold_ln)
		st = round32(h.ln_final_w, d, &m->ln_final_w, err);
	if (st == LENS_OK && !m->processing.fold_ln && h.ln_final_b)
		st = round32(h.ln_final_b, d, &m->ln_final_b, err);
	lens_free(h.ln_final_w);
	lens_free(h.ln_final_b);
	lens_free(h.w_u);
	lens_free(h.b_u);
	return st;
}

/*
 * Do all tensors exist, in config.json's shapes? This is checked first, so that an absurd
 * number in config.json is reported for the tensor that it does not fit, and nothing is
 * allocated.
 */
static enum lens_status check_shapes(struct loader *l, struct lens_error *err)
{
	const struct lens_config *c = &l->model->config;
	struct lens_block64 block = { 0 };
	struct lens_head64 head = { 0 };
	size_t i;

	LENS_TRY(read_embed(l, NULL, NULL, err));
	for (i = 0; i < c->n_layers; i++)
		LENS_TRY(l->family->load_block(&l->checkpoint, c, i, &block, err));
	return read_head(l, &head, err);
}

/* transformers with peft would apply such an adapter; we do not. */
static enum lens_status warn_of_adapter(const char *dir, struct lens_model *m,
					struct lens_error *err)
{
	char *path = lens_path_join(dir, "adapter_config.json");
	bool there = path && lens_file_exists(path);
	struct lens_buf b = LENS_BUF_INIT;

	lens_free(path);
	if (!there)
		return LENS_OK;
	LENS_TRY(lens_buf_printf(&b, err,
				 "%s%sthe folder holds an adapter too (adapter_config.json), "
				 "which is not applied",
				 m->warning ? m->warning : "", m->warning ? "; " : ""));
	lens_free(m->warning);
	m->warning = b.data;
	return LENS_OK;
}

static enum lens_status load(const char *dir, struct loader *l, struct lens_sha256 *sha,
			     struct lens_error *err)
{
	struct lens_model *m = l->model;
	struct lens_tensors *t = &l->checkpoint.tensors;

	LENS_TRY(
		lens_config_read(dir, &m->config, &l->family, &l->checkpoint.layout, sha, err));
	/* A soft cap sees what centring takes away; TransformerLens leaves it out, too. */
	if (m->config.logit_cap > 0)
		m->processing.center_unembed = false;
	if (m->processing.refactor_factored_attn_matrices)
		LENS_TRY(lens_refactor_check(&m->config, err));
	LENS_TRY(lens_tensors_open(dir, t, sha, err));
	LENS_TRY(lens_checkpoint_names(&l->checkpoint, l->family, l->tied_head, &m->warning,
				       err));
	LENS_TRY(warn_of_adapter(dir, m, err));
	snprintf(m->tensor_w_e, sizeof(m->tensor_w_e), "%s", l->checkpoint.w_e);
	snprintf(m->tensor_w_u, sizeof(m->tensor_w_u), "%s", l->checkpoint.w_u);
	LENS_TRY(check_shapes(l, err));
	LENS_TRY(load_embed(l, err));
	LENS_TRY(load_blocks(l, err));
	LENS_TRY(load_head(l, err));
	LENS_TRY(lens_tensors_all_used(t, l->family->ignore, err));
	LENS_TRY(lens_tensors_unchanged(t, err));
	return lens_sha256_final(sha, m->sha256, err);
}

enum lens_status lens_model_open(const char *dir, const struct lens_model_options *opt,
				 struct lens_model **out, struct lens_error *err)
{
	struct loader l = { .tied_head = opt->tied_head,
			    .model = lens_calloc(1, sizeof(*l.model)) };
	struct lens_sha256 *sha = NULL;
	enum lens_status st;

	*out = NULL;
	if (!l.model)
		return lens_error_nomem(err, 1, sizeof(*l.model));
	l.model->processing = opt->processing;
	st = lens_sha256_create(&sha, err);
	if (st == LENS_OK)
		st = load(dir, &l, sha, err);
	lens_tensors_release(&l.checkpoint.tensors);
	lens_sha256_destroy(sha);
	if (st == LENS_OK)
		*out = l.model;
	else
		lens_model_destroy(l.model);
	return st;
}

void lens_model_destroy(struct lens_model *m)
{
	size_t i, k;

	if (!m)
		return;
	if (m->block) {
		for (i = 0; i < m->config.n_layers; i++) {
			for (k = 0; k < N_ARRAYS; k++)
				lens_free(*array32(&m->block[i], k));
		}
	}
	lens_free(m->block);
	lens_free(m->w_e);
	lens_free(m->w_pos);
	lens_free(m->ln_final_w);
	lens_free(m->ln_final_b);
	lens_free(m->w_u);
	lens_free(m->b_u);
	lens_free(m->warning);
	lens_free(m);
}
