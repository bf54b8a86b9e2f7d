/*
 * tables/attrs.c: what parts of a layer add to the answers' logits, before the division by
 * ln_final.hook_scale: shown to the tables of heads and of neurons. In: hook_z and
 * hook_post at the read position; out: attributions, one a head or a neuron.
 *
 * A head's result is z·W_O, and its product with an answer's direction d is z·(W_O·d);
 * a neuron's is its activation times the product of its row of W_out with d. So each
 * layer takes one product of the batch's directions with W_O or W_out, and no result is
 * ever made.
 */
#include "tables/tables_private.h"

#include <string.h>

unsigned lens_attrs_needed(const struct lens_tables_options *opt)
{
	unsigned of = 0;
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (opt->wanted[i])
			of |= lens_table_type((enum lens_table)i, opt)->attrs;
	}
	return of;
}

static size_t heads_width(const struct lens_sizes *s)
{
	return s->n_heads * s->d_head;
}

/* Columns of the widest product. */
static size_t most_width(const struct lens_tables_options *opt)
{
	unsigned of = lens_attrs_needed(opt);

	return lens_max(of & LENS_ATTRS_HEADS ? heads_width(&opt->sizes) : 0,
			of & LENS_ATTRS_NEURONS ? opt->sizes.d_mlp : 0);
}

static size_t most_slots(const struct lens_tables_options *opt)
{
	return lens_row_slots(opt->batch_rows * opt->sizes.n_answers);
}

/* Both, because the narrower product may need more. */
static size_t pad_floats(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;

	return lens_max(lens_gemm_pad_floats(heads_width(s), s->d_model),
			lens_gemm_pad_floats(s->d_mlp, s->d_model));
}

size_t lens_attrs_bytes(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;

	if (!lens_attrs_needed(opt))
		return 0;
	return (most_slots(opt) * (s->d_model + most_width(opt)) + pad_floats(opt)) *
		       sizeof(float) +
	       (s->d_model + most_width(opt) * s->n_answers) * sizeof(double);
}

enum lens_status lens_attrs_create(struct lens_tables *t, struct lens_error *err)
{
	const struct lens_tables_options *opt = &t->opt;
	const struct lens_sizes *s = &opt->sizes;
	struct lens_attrs_state *a = &t->attrs;

	a->of = lens_attrs_needed(opt);
	if (!a->of)
		return LENS_OK;
	a->direction = lens_alloc_aligned(most_slots(opt) * s->d_model, sizeof(float));
	a->through = lens_alloc_aligned(most_slots(opt) * most_width(opt), sizeof(float));
	a->pad = lens_alloc_aligned(pad_floats(opt), sizeof(float));
	a->one = lens_calloc(s->d_model, sizeof(double));
	a->value = lens_calloc(most_width(opt) * s->n_answers, sizeof(double));
	return a->direction && a->through && a->pad && a->one && a->value
		       ? LENS_OK
		       : lens_error_nomem(err, lens_attrs_bytes(opt), 1);
}

void lens_attrs_destroy(struct lens_tables *t)
{
	lens_free(t->attrs.direction);
	lens_free(t->attrs.through);
	lens_free(t->attrs.pad);
	lens_free(t->attrs.one);
	lens_free(t->attrs.value);
}

void lens_attrs_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		      struct lens_hook_set *hooks)
{
	unsigned of = lens_attrs_needed(opt);
	size_t i;

	for (i = 0; i < m->config.n_layers; i++) {
		if (of & LENS_ATTRS_HEADS)
			lens_hook_want(hooks, LENS_HOOK_Z, i, LENS_WANT_READ_POS);
		if (of & LENS_ATTRS_NEURONS)
			lens_hook_want(hooks, LENS_HOOK_MLP_POST, i, LENS_WANT_READ_POS);
	}
}

/* Each answer's direction becomes a row. */
void lens_attrs_begin(struct lens_tables *t)
{
	struct lens_attrs_state *a = &t->attrs;
	size_t i, j, d = t->opt.sizes.d_model;
	size_t n = t->in.batch->n_prompts * t->opt.sizes.n_answers;

	if (!a->of)
		return;
	/* Slots that no row takes are multiplied too. */
	memset(a->direction, 0, lens_row_slots(n) * d * sizeof(*a->direction));
	for (i = 0; i < n; i++) {
		float *out = a->direction + lens_row_slot(i) * d;

		lens_direction(t->model, t->in.answers[i], a->one);
		for (j = 0; j < d; j++)
			out[j] = (float)a->one[j];
	}
}

/* through = directions·Wᵀ, with W [width, D] */
static void bring_through(const struct lens_tables *t, const float *w, size_t width)
{
	const struct lens_sizes *s = &t->opt.sizes;
	const struct lens_gemm_args g = {
		.m = lens_row_slots(t->in.batch->n_prompts * s->n_answers),
		.n = width,
		.k = s->d_model,
		.a = t->attrs.direction,
		.lda = s->d_model,
		.b = w,
		.ldb = s->d_model,
		.trans = LENS_B_TRANSPOSED,
		.c = t->attrs.through,
		.ldc = width,
	};

	lens_gemm(&g, t->attrs.pad, t->opt.threads);
}

/* Each part's value: `each` columns are summed, in float64. */
static void multiply(double *out, size_t parts, size_t each, const float *x,
		     const float *through)
{
	size_t i, j;

	for (i = 0; i < parts; i++) {
		out[i] = 0;
		for (j = i * each; j < (i + 1) * each; j++)
			out[i] += (double)x[j] * (double)through[j];
	}
}

static void show(struct lens_tables *t, const struct lens_attribution *a)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (t->view[i].type->attrs & (unsigned)a->of)
			t->view[i].type->ops->attribute(&t->view[i], a);
	}
}

void lens_attrs_visit(struct lens_tables *t, const struct lens_batch *b,
		      const struct lens_activation *a)
{
	const struct lens_sizes *s = &t->opt.sizes;
	const struct lens_block *block = &t->model->block[a->layer];
	bool heads = a->hook == LENS_HOOK_Z && t->attrs.of & LENS_ATTRS_HEADS;
	bool neurons = a->hook == LENS_HOOK_MLP_POST && t->attrs.of & LENS_ATTRS_NEURONS;
	struct lens_attribution x = { .of = heads ? LENS_ATTRS_HEADS : LENS_ATTRS_NEURONS,
				      .layer = a->layer,
				      .value = t->attrs.value,
				      .n = heads ? s->n_heads : s->d_mlp };
	size_t k, each = heads ? s->d_head : 1, width = x.n * each;

	if (!heads && !neurons)
		return;
	bring_through(t, heads ? block->w_o : block->w_out, width);
	for (x.prompt = 0; x.prompt < b->n_prompts; x.prompt++) {
		size_t pos = (size_t)b->read_pos[x.prompt];
		const float *row =
			a->data + (size_t)lens_batch_row(b, x.prompt, pos) * a->stride;

		for (k = 0; k < s->n_answers; k++)
			multiply(t->attrs.value + k * x.n, x.n, each, row,
				 t->attrs.through +
					 lens_row_slot(x.prompt * s->n_answers + k) * width);
		show(t, &x);
	}
}
