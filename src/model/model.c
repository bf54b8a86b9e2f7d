/*
 * model/model.c: opens a model: config, tensors, processing in float64, and rounding to
 * the float32 weights that the forward pass reads. Vectors are read whole, matrices by
 * pieces.
 */
#include "model/config_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static float attention_scale(const struct lens_config *c, size_t layer)
{
	double scale = c->scale_attn ? sqrt((double)c->d_head) : 1.0;

	scale = c->attn_scale > 0 ? c->attn_scale : scale;
	return (float)(c->scale_attn_by_layer ? scale * (double)(layer + 1) : scale);
}

struct loader {
	const struct lens_family *family;
	const struct lens_model_options *options;
	size_t threads;
	struct lens_checkpoint checkpoint;
	struct lens_model *model;
};

/* Its experts, one after the other; out NULL: are they there? */
static enum lens_status load_experts(struct loader *l, size_t layer, struct lens_block *out,
				     struct lens_error *err)
{
	const struct lens_config *c = &l->model->config;
	size_t i;

	for (i = 0; i < c->n_experts; i++) {
		struct lens_block64 b = { 0 };

		LENS_TRY(l->family->find_expert(&l->checkpoint, c, layer, i, &b, err));
		if (out)
			LENS_TRY(lens_process_expert(c, i, &b, out, err));
	}
	return LENS_OK;
}

static enum lens_status load_block(void *ctx, size_t layer, struct lens_error *err)
{
	struct loader *l = ctx;
	const struct lens_config *c = &l->model->config;
	const struct lens_processing *p = &l->model->processing;
	struct lens_block *out = &l->model->block[layer];
	struct lens_block64 b = { 0 };
	enum lens_status st = lens_block_make(c, &b, out, err);

	if (st == LENS_OK)
		st = l->family->load_block(&l->checkpoint, c, layer, &b, err);
	if (st == LENS_OK)
		st = lens_process_block(c, p, &b, out, err);
	if (st == LENS_OK)
		st = lens_block_round(c, p->fold_ln, &b, out, err);
	if (st == LENS_OK)
		st = load_experts(l, layer, out, err);
	out->attn_scale = attention_scale(c, layer);
	out->window = c->local[layer] ? c->window : 0;
	lens_block64_release(&b);
	return st;
}

static enum lens_status load_blocks(struct loader *l, struct lens_error *err)
{
	const struct lens_load_parts blocks = { l->model->config.n_layers, l->threads,
						load_block, l };

	l->model->block = lens_calloc(blocks.n, sizeof(*l->model->block));
	if (!l->model->block)
		return lens_error_nomem(err, blocks.n, sizeof(*l->model->block));
	return lens_load_each(&blocks, err);
}

/* W_E or W_U, [vocab, D], or stored the other way. */
static enum lens_status find_matrix(struct loader *l, const char *name, size_t vocab,
				    struct lens_matrix *out, struct lens_error *err)
{
	const struct lens_family *f = l->family;
	const bool transposed = f->head_transposed && !strcmp(name, f->head);
	const size_t d = l->model->config.d_model;
	const size_t shape[2] = { transposed ? d : vocab, transposed ? vocab : d };
	const struct lens_matrix_part all = { .transposed = transposed,
					      .columns = d,
					      .group = d };

	return lens_matrix_add(out, &l->checkpoint.tensors, name, shape, &all, err);
}

static enum lens_status find_positions(struct loader *l, struct lens_matrix *out,
				       struct lens_error *err)
{
	if (!l->family->find_positions)
		return LENS_OK;
	return l->family->find_positions(&l->checkpoint, &l->model->config, out, err);
}

static enum lens_status find_head(struct loader *l, struct lens_head64 *h,
				  struct lens_error *err)
{
	const size_t v = lens_n_logits(&l->model->config);

	LENS_TRY(l->family->load_final_norm(&l->checkpoint, &l->model->config, h, err));
	if (l->family->head_bias)
		LENS_TRY(lens_tensors_read(&l->checkpoint.tensors, l->family->head_bias, 1, &v,
					   h->b_u, err));
	if (l->checkpoint.layout.logits_scaling > 0)
		h->w_u.scale = 1 / l->checkpoint.layout.logits_scaling;
	return find_matrix(l, l->checkpoint.w_u, v, &h->w_u, err);
}

/* e's vectors NULL: checks only. */
static enum lens_status find_embed(struct loader *l, struct lens_embed64 *e,
				   struct lens_error *err)
{
	const struct lens_config *c = &l->model->config;

	e->m.scale = c->embed_scale;
	LENS_TRY(find_matrix(l, l->checkpoint.w_e, c->d_vocab, &e->m, err));
	return c->embed_norm ? l->family->load_embed_norm(&l->checkpoint, c, e->norm_w,
							  e->norm_b, err)
			     : LENS_OK;
}

static enum lens_status load_w_e(struct loader *l, struct lens_embed64 *e,
				 struct lens_error *err)
{
	struct lens_model *m = l->model;
	const struct lens_config *c = &m->config;

	if (c->embed_norm) {
		LENS_TRY(lens_make64(c->d_model, &e->norm_w, err));
		LENS_TRY(lens_make64(c->d_model, &e->norm_b, err));
	}
	LENS_TRY(find_embed(l, e, err));
	LENS_TRY(lens_make32(c->d_vocab, c->d_model, &m->w_e, err));
	return lens_process_embed(c, &m->processing, e, l->threads, m->w_e, err);
}

static enum lens_status load_w_pos(struct loader *l, struct lens_error *err)
{
	struct lens_model *m = l->model;
	const struct lens_config *c = &m->config;
	struct lens_embed64 e = { .norm_w = NULL };

	if (!lens_has_w_pos(c))
		return LENS_OK;
	LENS_TRY(find_positions(l, &e.m, err));
	LENS_TRY(lens_make32(c->n_ctx, c->d_model, &m->w_pos, err));
	return lens_process_embed(c, &m->processing, &e, l->threads, m->w_pos, err);
}

static enum lens_status load_embed(struct loader *l, struct lens_error *err)
{
	struct lens_embed64 e = { .norm_w = NULL };
	enum lens_status st = load_w_e(l, &e, err);

	lens_free(e.norm_w);
	lens_free(e.norm_b);
	return st == LENS_OK ? load_w_pos(l, err) : st;
}

static enum lens_status make_head64(const struct lens_config *c, struct lens_head64 *h,
				    struct lens_error *err)
{
	enum lens_norm kind = c->norms_folded ? LENS_NORM_NONE : lens_final_norm_kind(c);

	if (kind != LENS_NORM_NONE)
		LENS_TRY(lens_make64(c->d_model, &h->ln_final_w, err));
	if (kind == LENS_NORM_LN)
		LENS_TRY(lens_make64(c->d_model, &h->ln_final_b, err));
	return lens_make64(lens_n_logits(c), &h->b_u, err);
}

static enum lens_status fill_head(struct loader *l, struct lens_head64 *h,
				  struct lens_error *err)
{
	struct lens_model *m = l->model;
	size_t d = m->config.d_model, v = lens_n_logits(&m->config);

	LENS_TRY(make_head64(&m->config, h, err));
	LENS_TRY(find_head(l, h, err));
	LENS_TRY(lens_make32(v, d, &m->w_u, err));
	LENS_TRY(lens_process_head(&m->config, &m->processing, h, l->threads, m->w_u, err));
	LENS_TRY(lens_round32(h->b_u, v, &m->b_u, err));
	if (m->processing.fold_ln || !h->ln_final_w)
		return LENS_OK;
	LENS_TRY(lens_round32(h->ln_final_w, d, &m->ln_final_w, err));
	return h->ln_final_b ? lens_round32(h->ln_final_b, d, &m->ln_final_b, err) : LENS_OK;
}

static enum lens_status load_head(struct loader *l, struct lens_error *err)
{
	struct lens_head64 h = { 0 };
	enum lens_status st = fill_head(l, &h, err);

	lens_free(h.ln_final_w);
	lens_free(h.ln_final_b);
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
	struct lens_embed64 embed = { .norm_w = NULL };
	struct lens_matrix w_pos = { .n_parts = 0 };
	struct lens_head64 head = { 0 };
	size_t i;

	LENS_TRY(find_embed(l, &embed, err));
	LENS_TRY(find_positions(l, &w_pos, err));
	for (i = 0; i < c->n_layers; i++) {
		struct lens_block64 block = { 0 };

		LENS_TRY(l->family->load_block(&l->checkpoint, c, i, &block, err));
		LENS_TRY(load_experts(l, i, NULL, err));
	}
	return find_head(l, &head, err);
}

enum lens_status lens_list_tensors(const struct lens_family *family,
				   const struct lens_config *c,
				   const struct lens_layout *layout, struct lens_tensors *out,
				   struct lens_error *err)
{
	struct lens_model m = { .config = *c };
	struct loader l = { .family = family, .model = &m };
	enum lens_status st;
	char *none;

	l.checkpoint.layout = *layout;
	l.checkpoint.tensors.list = true;
	st = lens_checkpoint_names(&l.checkpoint, family, LENS_HEAD_AUTO, &none, err);
	if (st == LENS_OK)
		st = check_shapes(&l, err);
	*out = l.checkpoint.tensors;
	if (st == LENS_OK)
		lens_tensors_sort_list(out);
	return st;
}

enum lens_status lens_checkpoint_each(const char *dir, lens_each_tensor *each, void *ctx,
				      struct lens_error *err)
{
	struct lens_tensors t = { .n = 0 };
	const struct lens_family *family;
	struct lens_layout layout;
	struct lens_config c;
	enum lens_status st;
	size_t i;

	LENS_TRY(lens_config_read(dir, &c, &family, &layout, NULL, err));
	st = lens_list_tensors(family, &c, &layout, &t, err);
	for (i = 0; st == LENS_OK && i < t.n; i++)
		st = each(ctx, t.tensor[i].name, t.tensor[i].rank, t.tensor[i].shape, err);
	lens_tensors_release(&t);
	return st;
}

static enum lens_status add_warning(struct lens_model *m, const char *text,
				    struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;

	LENS_TRY(lens_buf_printf(&b, err, "%s%s%s", m->warning ? m->warning : "",
				 m->warning ? "; " : "", text));
	lens_free(m->warning);
	m->warning = b.data;
	return LENS_OK;
}

/* transformers with peft would apply such an adapter; we do not. */
static enum lens_status warn_of_adapter(const char *dir, struct lens_model *m,
					struct lens_error *err)
{
	char *path = lens_path_join(dir, "adapter_config.json");
	bool there = path && lens_file_exists(path);

	lens_free(path);
	if (!there)
		return LENS_OK;
	return add_warning(m,
			   "the folder holds an adapter too (adapter_config.json), "
			   "which is not applied",
			   err);
}

/* TransformerLens warns of this one, too. */
static enum lens_status warn_of_norms(struct loader *l, struct lens_error *err)
{
	if (!l->model->config.n_experts || !l->options->processing.fold_ln)
		return LENS_OK;
	return add_warning(l->model,
			   "the model has experts: fold_ln is off, as in TransformerLens", err);
}

static enum lens_status load(const char *dir, struct loader *l, struct lens_sha256 *sha,
			     struct lens_error *err)
{
	struct lens_model *m = l->model;
	struct lens_tensors *t = &l->checkpoint.tensors;

	LENS_TRY(
		lens_config_read(dir, &m->config, &l->family, &l->checkpoint.layout, sha, err));
	LENS_TRY(lens_processing_fit(&m->config, &m->processing, err));
	if (l->options->config_will_do && !lens_tensors_there(dir, l->family->any_file_name)) {
		LENS_TRY(add_warning(m,
				     "the model's folder holds no weights: its plan is that "
				     "of config.json, and no time is estimated",
				     err));
		return lens_sha256_final(sha, m->sha256, err);
	}
	LENS_TRY(lens_tensors_open(dir, l->family->any_file_name, t, sha, err));
	LENS_TRY(lens_checkpoint_names(&l->checkpoint, l->family, l->options->tied_head,
				       &m->warning, err));
	LENS_TRY(warn_of_adapter(dir, m, err));
	LENS_TRY(warn_of_norms(l, err));
	snprintf(m->tensor_w_e, sizeof(m->tensor_w_e), "%s", l->checkpoint.w_e);
	snprintf(m->tensor_w_u, sizeof(m->tensor_w_u), "%s", l->checkpoint.w_u);
	LENS_TRY(check_shapes(l, err));
	if (l->options->admit)
		LENS_TRY(l->options->admit(l->options->ctx, &m->config, &m->processing,
					   &l->threads, err));
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
	struct loader l = { .options = opt,
			    .threads = lens_thread_count(opt->threads),
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
	size_t i;

	if (!m)
		return;
	if (m->block) {
		for (i = 0; i < m->config.n_layers; i++)
			lens_block_release(&m->block[i]);
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
