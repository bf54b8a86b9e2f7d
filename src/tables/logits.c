/*
 * tables/logits.c: from the residual stream at the read positions to logits, which are
 * shown to the tables that read them.
 *
 * Rows are unembedded many at a time (prompts × lens layers), because a product
 * with W_U of few rows wastes the machine; the tile's size does not matter to
 * a row's bits. Sources: resid_pre of each layer, then resid_post of the last.
 */
#include "tables/tables_private.h"

#include <math.h>
#include <string.h>

#define TILE_SLOTS 384
#define TILE_BYTES ((size_t)64 << 20)

static size_t sources(const struct lens_model *m, unsigned logits)
{
	return logits & LENS_AT_LENS_LAYER ? m->config.n_layers + 1 : 1;
}

static size_t tile_slots(const struct lens_model *m)
{
	size_t n = TILE_BYTES / sizeof(float) / m->config.d_vocab / 12 * 12;

	return n < 12 ? 12 : lens_min(n, TILE_SLOTS);
}

size_t lens_logits_bytes(const struct lens_model *m, const struct lens_tables_options *opt)
{
	size_t d = m->config.d_model, v = m->config.d_vocab, tile = tile_slots(m);
	unsigned logits = lens_tables_logits(opt);
	size_t floats = sources(m, logits) * opt->batch_rows * d + tile * (d + 1 + v) +
			lens_unembed_pad_floats(&m->config);

	return floats * sizeof(float) +
	       (logits & LENS_AT_ALL_POS ? tile * sizeof(struct lens_place) : 0);
}

enum lens_status lens_logits_create(struct lens_tables *t, struct lens_error *err)
{
	const struct lens_model *m = t->model;
	size_t d = m->config.d_model;

	t->n_sources = sources(m, t->logits);
	t->tile = tile_slots(m);
	t->resid = lens_alloc_aligned(t->n_sources * t->opt.batch_rows * d, sizeof(float));
	t->normed = lens_alloc_aligned(t->tile * d, sizeof(float));
	t->scale = lens_alloc_aligned(t->tile, sizeof(float));
	t->logit = lens_alloc_aligned(t->tile * m->config.d_vocab, sizeof(float));
	t->pad = lens_alloc_aligned(lens_unembed_pad_floats(&m->config), sizeof(float));
	if (t->logits & LENS_AT_ALL_POS)
		t->place = lens_calloc(t->tile, sizeof(*t->place));
	if (t->resid && t->normed && t->scale && t->logit && t->pad &&
	    (t->place || !(t->logits & LENS_AT_ALL_POS)))
		return LENS_OK;
	return lens_error_nomem(err, lens_logits_bytes(m, &t->opt), 1);
}

void lens_logits_destroy(struct lens_tables *t)
{
	lens_free(t->resid);
	lens_free(t->normed);
	lens_free(t->scale);
	lens_free(t->logit);
	lens_free(t->pad);
	lens_free(t->place);
}

void lens_logits_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		       struct lens_hook_set *hooks)
{
	unsigned logits = lens_tables_logits(opt);
	size_t i, n = m->config.n_layers;

	if (logits & LENS_AT_LENS_LAYER) {
		for (i = 0; i < n; i++)
			lens_hook_want(hooks, LENS_HOOK_RESID_PRE, i, LENS_WANT_READ_POS);
	}
	lens_hook_want(hooks, LENS_HOOK_RESID_POST, n - 1, LENS_WANT_READ_POS);
	if (logits & LENS_AT_ALL_POS)
		lens_hook_want(hooks, LENS_HOOK_LN_FINAL_NORMALIZED, 0, LENS_WANT_ALL);
}

void lens_logits_visit(struct lens_tables *t, const struct lens_batch *b,
		       const struct lens_activation *a)
{
	size_t i, source, d = t->model->config.d_model, n = t->model->config.n_layers;

	if (a->hook == LENS_HOOK_LN_FINAL_NORMALIZED && t->logits & LENS_AT_ALL_POS) {
		lens_every_pos_read(t, b, a);
		return;
	}
	if (a->hook == LENS_HOOK_RESID_POST && a->layer == n - 1)
		source = t->n_sources - 1;
	else if (a->hook == LENS_HOOK_RESID_PRE && t->n_sources > 1)
		source = a->layer;
	else
		return;
	for (i = 0; i < b->n_prompts; i++) {
		size_t row = (size_t)lens_batch_row(b, i, (size_t)b->read_pos[i]);

		memcpy(t->resid + (source * t->opt.batch_rows + i) * d,
		       a->data + row * a->stride, d * sizeof(float));
	}
}

/* --- unembedding -------------------------------------------------------------- */

void lens_unembed_tile(struct lens_tables *t, size_t slots, bool bias)
{
	const struct lens_unembed_args a = { .rows = slots,
					     .normed = t->normed,
					     .bias = bias,
					     .logits = t->logit,
					     .pad = t->pad,
					     .threads = t->opt.threads };

	lens_unembed(t->model, &a);
}

struct lens_logits lens_logits_of(const struct lens_tables *t, size_t prompt, size_t slot,
				  bool model_itself)
{
	size_t v = t->model->config.d_vocab, n = t->opt.sizes.n_answers;
	const float *logit = t->logit + slot * v;
	float max = lens_vec()->max_finite(v, logit);
	struct lens_logits l = { .prompt = prompt,
				 .next = -1,
				 .logit = logit,
				 .d_vocab = v,
				 .answer = n ? t->in.answers + prompt * n : NULL,
				 .n_answers = n,
				 .finite = !isnan(max),
				 .max = max };

	if (model_itself && l.finite)
		l.sum_exp = lens_vec()->sum_exp(v, logit, max);
	return l;
}

/* What the rows of a pass over the sources are read as. */
struct reading {
	size_t first, n_sources; /* sources to read */
	bool cached_scale;       /* else ln_final, with b_U */
	bool model_itself;       /* the last source is read as the model's own logits */
	bool lens;               /* the sources are read as lens layers */
};

/* (x − mean)/scale (RMSNorm: x/scale), in float64 */
static void scale_row(const struct lens_config *c, const float *x, float scale, float *y)
{
	double mean = 0;
	size_t i;

	if (c->norm == LENS_NORM_LN) {
		for (i = 0; i < c->d_model; i++)
			mean += (double)x[i];
	}
	mean /= (double)c->d_model;
	for (i = 0; i < c->d_model; i++)
		y[i] = (float)(((double)x[i] - mean) / (double)scale);
}

static void prepare_row(struct lens_tables *t, const struct reading *r, size_t i, size_t slot)
{
	size_t d = t->model->config.d_model, rows = t->opt.batch_rows;
	size_t n = t->in.batch->n_prompts; /* row i: source i / n, prompt i % n */
	const float *x = t->resid + ((r->first + i / n) * rows + i % n) * d;
	const float *last = t->resid + ((t->n_sources - 1) * rows + i % n) * d;
	float *y = t->normed + slot * d;

	if (!r->cached_scale) {
		lens_final_norm(t->model, 1, x, y, t->scale + slot);
		return;
	}
	lens_final_norm(t->model, 1, last, y, t->scale + slot);
	scale_row(&t->model->config, x, t->scale[slot], y);
}

static void show_row(struct lens_tables *t, const struct reading *r, size_t i, size_t slot)
{
	size_t n = t->in.batch->n_prompts, source = r->first + i / n;
	bool model_itself = r->model_itself && source == t->n_sources - 1;
	struct lens_logits l = lens_logits_of(t, i % n, slot, model_itself);

	l.top = t->top;
	l.scale = t->scale[slot];
	if (model_itself)
		lens_show_logits(t, LENS_AT_READ_POS, &l);
	l.layer = source;
	if (r->lens)
		lens_show_logits(t, LENS_AT_LENS_LAYER, &l);
}

static void read_sources(struct lens_tables *t, const struct reading *r)
{
	size_t i, i0, total = r->n_sources * t->in.batch->n_prompts, per_tile = t->tile;

	/* On AVX2 only some slots of a tile are alike. */
	while (lens_row_slots(per_tile) > t->tile)
		per_tile--;
	for (i0 = 0; i0 < total; i0 += per_tile) {
		size_t n = lens_min(total - i0, per_tile), slots = lens_row_slots(n);

		memset(t->normed, 0, slots * t->model->config.d_model * sizeof(float));
		for (i = 0; i < n; i++)
			prepare_row(t, r, i0 + i, lens_row_slot(i));
		lens_unembed_tile(t, slots, !r->cached_scale);
		for (i = 0; i < n; i++)
			show_row(t, r, i0 + i, lens_row_slot(i));
	}
}

void lens_logits_read(struct lens_tables *t)
{
	bool lens = t->n_sources > 1, recompute = t->opt.lens == LENS_LENS_RECOMPUTE;
	struct reading r = { .model_itself = true };

	/* The model itself; with the recomputed lens it is the lens's last row. */
	r.first = lens && recompute ? 0 : t->n_sources - 1;
	r.n_sources = t->n_sources - r.first;
	r.lens = lens && recompute;
	read_sources(t, &r);
	if (lens && !recompute) {
		r = (struct reading){ .n_sources = t->n_sources,
				      .cached_scale = true,
				      .lens = true };
		read_sources(t, &r);
	}
}
