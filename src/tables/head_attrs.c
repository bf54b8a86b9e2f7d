/*
 * tables/head_attrs.c: direct logit attribution of each head's result, without b_O
 * (TransformerLens's logit_attrs of stack_head_results). In: hook_z at the read
 * position; out: [layer, head, answer], in logits.
 *
 * A head's result is z·W_O, and its product with an answer's direction d is z·(W_O·d):
 * so each layer takes one product of the batch's directions with W_O, and no result is
 * made.
 */
#include "tables/tables_private.h"

/* The parts of the state, in floats. */
struct parts {
	float *direction; /* [slots, D] */
	float *through;   /* [slots, H dh] W_O·d */
	float *pad;
	double *scratch; /* [D] */
	double *sum;     /* [batch_rows, layer, head, answer] */
};

static size_t slots_of(const struct lens_tables_options *opt)
{
	return lens_row_slots(opt->batch_rows * opt->sizes.n_answers);
}

static size_t heads_width(const struct lens_sizes *s)
{
	return s->n_heads * s->d_head;
}

/* An even number: doubles follow. */
static size_t n_floats(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;
	size_t n = slots_of(opt) * (s->d_model + heads_width(s)) +
		   lens_gemm_pad_floats(heads_width(s), s->d_model);

	return (n + 15) / 16 * 16;
}

static size_t state_bytes(const struct lens_tables_options *opt)
{
	const struct lens_sizes *s = &opt->sizes;

	size_t n_sums = opt->batch_rows * s->n_layers * s->n_heads * s->n_answers;

	return n_floats(opt) * sizeof(float) + (s->d_model + n_sums) * sizeof(double);
}

static struct parts parts_of(const struct lens_table_view *v)
{
	const struct lens_sizes *s = &v->opt->sizes;
	size_t slots = slots_of(v->opt);
	float *base = v->state;
	double *after = (double *)(void *)(base + n_floats(v->opt));

	return (struct parts){ .direction = base,
			       .through = base + slots * s->d_model,
			       .pad = base + slots * (s->d_model + heads_width(s)),
			       .scratch = after,
			       .sum = after + s->d_model };
}

static void want_z(const struct lens_model *m, struct lens_hook_set *hooks)
{
	size_t i;

	for (i = 0; i < m->config.n_layers; i++)
		lens_hook_want(hooks, LENS_HOOK_Z, i, LENS_WANT_READ_POS);
}

/* Each answer's direction is a row. */
static void begin(struct lens_table_view *v)
{
	const struct parts p = parts_of(v);
	size_t i, j, d = v->opt->sizes.d_model;
	size_t n = v->in->batch->n_prompts * v->opt->sizes.n_answers;

	for (i = 0; i < n; i++) {
		float *out = p.direction + lens_row_slot(i) * d;

		lens_direction(v->model, v->in->answers[i], p.scratch);
		for (j = 0; j < d; j++)
			out[j] = (float)p.scratch[j];
	}
}

/* through = direction·W_Oᵀ of one layer */
static void bring_through(const struct lens_table_view *v, const struct parts *p, size_t layer)
{
	const struct lens_sizes *s = &v->opt->sizes;
	const struct lens_gemm_args g = {
		.m = lens_row_slots(v->in->batch->n_prompts * s->n_answers),
		.n = heads_width(s),
		.k = s->d_model,
		.a = p->direction,
		.lda = s->d_model,
		.b = v->model->block[layer].w_o,
		.ldb = s->d_model,
		.trans = LENS_B_TRANSPOSED,
		.c = p->through,
		.ldc = heads_width(s),
	};

	lens_gemm(&g, p->pad, v->opt->threads);
}

/* One head of one answer's row. */
static double product(const struct lens_sizes *s, const float *z, const float *through)
{
	double sum = 0;
	size_t j;

	for (j = 0; j < s->d_head; j++)
		sum += (double)z[j] * (double)through[j];
	return sum;
}

static void visit(struct lens_table_view *v, const struct lens_batch *b,
		  const struct lens_activation *a)
{
	const struct lens_sizes *s = &v->opt->sizes;
	const struct parts p = parts_of(v);
	size_t i, h, k;

	if (a->hook != LENS_HOOK_Z)
		return;
	bring_through(v, &p, a->layer);
	for (i = 0; i < b->n_prompts; i++) {
		size_t row = (size_t)lens_batch_row(b, i, (size_t)b->read_pos[i]);
		const float *z = a->data + row * a->stride;
		double *sum = p.sum + (i * s->n_layers + a->layer) * s->n_heads * s->n_answers;

		for (k = 0; k < s->n_answers; k++) {
			const float *through = p.through + lens_row_slot(i * s->n_answers + k) *
								   heads_width(s);

			for (h = 0; h < s->n_heads; h++)
				sum[h * s->n_answers + k] =
					product(s, z + h * s->d_head, through + h * s->d_head);
		}
	}
}

static void read_scale(struct lens_table_view *v, struct lens_logits *l)
{
	const struct lens_sizes *s = &v->opt->sizes;
	size_t i, n = s->n_layers * s->n_heads * s->n_answers;
	const double *sum = parts_of(v).sum + l->prompt * n;
	float *out = lens_table_row(v, l->prompt);

	for (i = 0; i < n; i++)
		out[i] = (float)(sum[i] / (double)l->scale);
}

static const struct lens_table_ops ops = { .hooks = want_z,
					   .state_bytes = state_bytes,
					   .begin = begin,
					   .visit = visit,
					   .read = read_scale };

const struct lens_table_type lens_table_head_attrs = {
	.dtype = LENS_F32,
	.n_axes = 3,
	.axis = { LENS_AXIS_LAYER, LENS_AXIS_HEAD, LENS_AXIS_ANSWER },
	.long_name = "what each head's result, without b_O, adds to each answer's logit at "
		     "the read position",
	.units = "logits",
	.logits = LENS_AT_READ_POS,
	.ops = &ops,
};
