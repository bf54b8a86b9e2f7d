/*
 * tables/attrs.c: what parts of a layer add to the answers' logits, before the division by
 * ln_final.hook_scale: shown to the tables of heads and of neurons. In: hook_z and
 * hook_post at the read position, hook_z perhaps at every one; out: attributions, one a
 * head or a neuron.
 *
 * A head's result is z·W_O, and its product with an answer's direction d is z·(W_O·d);
 * a neuron's is its activation times the product of its row of W_out with d. So each
 * layer takes one product of the batch's directions with W_O or W_out, and no result is
 * ever made. Where a norm comes after attention or MLP, its parts are divided by its scale
 * and multiplied by its weight. A direction is a token's, and so is its row's way in that
 * product.
 */
#include "tables/tables_private.h"

#include <string.h>

unsigned lens_tables_attrs(const struct lens_tables_options *opt)
{
	unsigned of = 0;
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (opt->wanted[i])
			of |= lens_table_type((enum lens_table)i, opt)->attrs;
	}
	return of;
}

bool lens_attrs_at_all(const struct lens_table_type *t)
{
	return t->logits & LENS_AT_OTHER_POS;
}

struct lens_attrs_span lens_attrs_span(const struct lens_batch *b, size_t prompt, bool all)
{
	size_t read = (size_t)b->read_pos[prompt];

	return all ? (struct lens_attrs_span){ 0, b->length[prompt] }
		   : (struct lens_attrs_span){ read, read + 1 };
}

size_t lens_attrs_places(const struct lens_table_view *v)
{
	return lens_attrs_at_all(v->type) ? v->opt->sizes.n_pos : 1;
}

size_t lens_attrs_place(const struct lens_table_view *v, size_t pos)
{
	return lens_attrs_at_all(v->type) ? pos : 0;
}

size_t lens_attrs_pos(const struct lens_table_view *v, const struct lens_logits *l)
{
	return l->at == LENS_AT_READ_POS ? (size_t)v->in->batch->read_pos[l->prompt] : l->pos;
}

static bool heads_at_all(const struct lens_tables_options *opt)
{
	return opt->attrs_positions == LENS_READ_AT_ALL;
}

static size_t heads_width(const struct lens_sizes *s)
{
	return s->n_heads * s->d_head;
}

/* Columns of the widest product. */
static size_t most_width(const struct lens_tables_options *opt)
{
	unsigned of = lens_tables_attrs(opt);

	return lens_max(of & LENS_ATTRS_HEADS ? heads_width(&opt->sizes) : 0,
			of & LENS_ATTRS_NEURONS ? opt->sizes.d_mlp : 0);
}

static size_t most_slots(const struct lens_tables_options *opt)
{
	size_t n = opt->batch_rows * opt->sizes.n_answers;
	const struct lens_row_count alike = { { n } };

	return lens_row_places(&alike);
}

/* Both, because the narrower product may need more. */
static size_t pad_floats(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;

	return lens_max(lens_gemm_pad_floats(heads_width(s), s->d_model),
			s->d_mlp ? lens_gemm_pad_floats(s->d_mlp, s->d_model) : 0);
}

size_t lens_attrs_bytes(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;

	if (!lens_tables_attrs(opt))
		return 0;
	return (most_slots(opt) * (s->d_model + most_width(opt)) + pad_floats(opt)) *
		       sizeof(float) +
	       (s->d_model + most_width(opt) * s->n_answers) * sizeof(double) +
	       opt->batch_rows * s->n_answers * sizeof(size_t);
}

enum lens_status lens_attrs_create(struct lens_tables *t, struct lens_error *err)
{
	const struct lens_tables_options *opt = &t->opt;
	const struct lens_sizes *s = &opt->sizes;
	struct lens_attrs_state *a = &t->attrs;

	a->of = lens_tables_attrs(opt);
	if (!a->of)
		return LENS_OK;
	a->slot = lens_calloc(opt->batch_rows * s->n_answers, sizeof(*a->slot));
	a->direction = lens_alloc_aligned(most_slots(opt) * s->d_model, sizeof(float));
	a->through = lens_alloc_aligned(most_slots(opt) * most_width(opt), sizeof(float));
	a->pad = lens_alloc_aligned(pad_floats(opt), sizeof(float));
	a->one = lens_calloc(s->d_model, sizeof(double));
	a->value = lens_calloc(most_width(opt) * s->n_answers, sizeof(double));
	return a->slot && a->direction && a->through && a->pad && a->one && a->value
		       ? LENS_OK
		       : lens_error_nomem(err, lens_attrs_bytes(opt), 1);
}

void lens_attrs_destroy(struct lens_tables *t)
{
	lens_free(t->attrs.slot);
	lens_free(t->attrs.direction);
	lens_free(t->attrs.through);
	lens_free(t->attrs.pad);
	lens_free(t->attrs.one);
	lens_free(t->attrs.value);
}

void lens_attrs_hooks(const struct lens_model *m, const struct lens_tables_options *opt,
		      struct lens_hook_set *hooks)
{
	enum lens_want heads = heads_at_all(opt) ? LENS_WANT_ALL : LENS_WANT_READ_POS;
	unsigned of = lens_tables_attrs(opt);
	size_t i;

	for (i = 0; i < m->config.n_layers; i++) {
		if (of & LENS_ATTRS_HEADS)
			lens_hook_want(hooks, LENS_HOOK_Z, i, heads);
		if (of & LENS_ATTRS_HEADS && m->config.norms_after)
			lens_hook_want(hooks, LENS_HOOK_LN1_POST_SCALE, i, heads);
		if (of & LENS_ATTRS_NEURONS)
			lens_hook_want(hooks, LENS_HOOK_MLP_POST, i, LENS_WANT_READ_POS);
		if (of & LENS_ATTRS_NEURONS && m->config.norms_after)
			lens_hook_want(hooks, LENS_HOOK_LN2_POST_SCALE, i, LENS_WANT_READ_POS);
	}
}

/* The i-th answer of the batch */
static int32_t answer(const struct lens_tables *t, size_t i)
{
	size_t n = t->opt.sizes.n_answers;

	return lens_answers_of(&t->in, n, i / n)[i % n];
}

/* Each answer's direction, times the weight of a norm after the layer's part, becomes a row. */
static void point(struct lens_tables *t, const float *w)
{
	struct lens_attrs_state *a = &t->attrs;
	size_t i, j, d = t->opt.sizes.d_model;
	size_t n = t->in.batch->n_prompts * t->opt.sizes.n_answers;

	a->used = (struct lens_row_count){ { 0 } };
	for (i = 0; i < n; i++) {
		size_t way = lens_row_way((size_t)answer(t, i));

		a->slot[i] = lens_row_place(way, a->used.n[way]++);
	}
	/* Slots that no row takes are multiplied too. */
	memset(a->direction, 0, lens_row_places(&a->used) * d * sizeof(*a->direction));
	for (i = 0; i < n; i++) {
		float *out = a->direction + a->slot[i] * d;

		lens_direction(t->model, answer(t, i), a->one);
		for (j = 0; j < d; j++)
			out[j] = (float)(a->one[j] * (w ? (double)w[j] : 1));
	}
}

void lens_attrs_begin(struct lens_tables *t)
{
	if (t->attrs.of && !t->model->config.norms_after)
		point(t, NULL);
}

/* through = directions·Wᵀ, with W [width, D] */
static void bring_through(const struct lens_tables *t, const float *w, size_t width)
{
	const struct lens_sizes *s = &t->opt.sizes;
	const struct lens_gemm_args g = {
		.m = lens_row_places(&t->attrs.used),
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

/* A prompt's at one position; each: columns of a head or a neuron; scale: a norm after. */
static void show_row(struct lens_tables *t, const float *row, size_t each, double scale,
		     const struct lens_attribution *x)
{
	size_t i, k, n_answers = t->opt.sizes.n_answers;

	for (k = 0; k < n_answers; k++)
		multiply(t->attrs.value + k * x->n, x->n, each, row,
			 t->attrs.through +
				 t->attrs.slot[x->prompt * n_answers + k] * x->n * each);
	for (i = 0; scale != 1 && i < n_answers * x->n; i++)
		t->attrs.value[i] /= scale;
	show(t, x);
}

/* a: z, or hook_post; scale: a norm's after it, [rows], or NULL. */
static void attribute(struct lens_tables *t, const struct lens_batch *b,
		      const struct lens_activation *a, const float *scale)
{
	const struct lens_sizes *s = &t->opt.sizes;
	const struct lens_block *block = &t->model->block[a->layer];
	bool heads = a->hook == LENS_HOOK_Z;
	struct lens_attribution x = { .of = heads ? LENS_ATTRS_HEADS : LENS_ATTRS_NEURONS,
				      .layer = a->layer,
				      .value = t->attrs.value,
				      .n = heads ? s->n_heads : s->d_mlp };
	size_t each = heads ? s->d_head : 1;

	if (scale)
		point(t, heads ? block->ln1_post_w : block->ln2_post_w);
	bring_through(t, heads ? block->w_o : block->w_out, x.n * each);
	for (x.prompt = 0; x.prompt < b->n_prompts; x.prompt++) {
		struct lens_attrs_span span =
			lens_attrs_span(b, x.prompt, heads && heads_at_all(&t->opt));

		for (x.pos = span.from; x.pos < span.end; x.pos++) {
			size_t row = (size_t)lens_batch_row(b, x.prompt, x.pos);

			show_row(t, a->data + row * a->stride, each,
				 scale ? (double)scale[row] : 1, &x);
		}
	}
}

/* Where a norm follows, its scale comes after what it scales. */
void lens_attrs_visit(struct lens_tables *t, const struct lens_batch *b,
		      const struct lens_activation *a)
{
	bool z = a->hook == LENS_HOOK_Z, of_z = z || a->hook == LENS_HOOK_LN1_POST_SCALE;
	bool of_post = a->hook == LENS_HOOK_MLP_POST || a->hook == LENS_HOOK_LN2_POST_SCALE;

	if (!(of_z && t->attrs.of & LENS_ATTRS_HEADS) &&
	    !(of_post && t->attrs.of & LENS_ATTRS_NEURONS))
		return;
	if (!t->model->config.norms_after)
		attribute(t, b, a, NULL);
	else if (z || a->hook == LENS_HOOK_MLP_POST)
		t->attrs.waiting = *a;
	else
		attribute(t, b, &t->attrs.waiting, a->data);
}
