/*
 * model/process.c: weight processing of a block on the canonical form, in float64. In: vectors,
 * and matrices that are still in their files; out: float32 weights. What reads a norm's output
 * is processed by columns, what writes to the residual stream by rows, because each column
 * or row is processed by itself: so no more than some of them are in float64 at a time.
 *
 * Meaning and order are those of TransformerLens 2.16
 * (HookedTransformer.load_and_process_state_dict): fold_ln, center_writing_weights,
 * center_unembed, fold_value_biases. TransformerLens computes in float32, we in float64.
 */
#include "model/model_private.h"

#include <string.h>

/*
 * Folds a norm's gain w and bias b ([d]; b may be NULL) into what reads its output
 * (m: [d, n], its bias [n]): bias += bᵀm, then m = w·m.
 */
static void fold_norm(size_t d, size_t n, const double *w, const double *b, double *m,
		      double *bias)
{
	size_t i, j;

	if (b) {
		for (i = 0; i < d; i++) {
			for (j = 0; j < n; j++)
				bias[j] += b[i] * m[i * n + j];
		}
	}
	for (i = 0; i < d; i++) {
		for (j = 0; j < n; j++)
			m[i * n + j] *= w[i];
	}
}

static void center_columns(size_t d, size_t n, double *m)
{
	size_t i, j, j0;

	for (j0 = 0; j0 < n; j0 += LENS_STRIP) {
		size_t width = lens_min(n - j0, LENS_STRIP);
		double mean[LENS_STRIP] = { 0 };

		for (i = 0; i < d; i++) {
			for (j = 0; j < width; j++)
				mean[j] += m[i * n + j0 + j];
		}
		for (i = 0; i < d; i++) {
			for (j = 0; j < width; j++)
				m[i * n + j0 + j] -= mean[j] / (double)d;
		}
	}
}

void lens_center_rows(size_t rows, size_t d, double *w)
{
	size_t i, j;

	for (i = 0; i < rows; i++) {
		double mean = 0;

		for (j = 0; j < d; j++)
			mean += w[i * d + j];
		mean /= (double)d;
		for (j = 0; j < d; j++)
			w[i * d + j] -= mean;
	}
}

void lens_round_piece(const struct lens_piece *p, const double *x, float *out, size_t ld)
{
	size_t i, j;

	for (i = 0; i < p->rows; i++) {
		float *row = out + (p->row + i) * ld + p->column;

		for (j = 0; j < p->columns; j++)
			row[j] = (float)x[i * p->columns + j];
	}
}

enum lens_status lens_make_strip(size_t n, size_t length, double **out, struct lens_error *err)
{
	size_t elements;

	*out = lens_size_mul(n, length, &elements) ? lens_alloc_aligned(elements, sizeof(**out))
						   : NULL;
	return *out ? LENS_OK : lens_error_nomem(err, n, length * sizeof(**out));
}

/* A matrix that reads a norm's output. */
struct reading {
	const struct lens_matrix *m;
	const double *w, *b; /* the norm's gain and bias, to be folded; or NULL */
	double *bias;        /* the matrix's own */
	bool center;
	float *out;
};

static enum lens_status read_columns(const struct reading *r, const struct lens_piece *p,
				     double *x, struct lens_error *err)
{
	LENS_TRY(lens_matrix_read(r->m, p, x, err));
	if (r->w)
		fold_norm(p->rows, p->columns, r->w, r->b, x, r->bias + p->column);
	if (r->center)
		center_columns(p->rows, p->columns, x);
	return LENS_OK;
}

static enum lens_status process_reading(const struct reading *r, double *strip,
					struct lens_error *err)
{
	struct lens_piece p = { .rows = r->m->rows };

	for (; p.column < r->m->columns; p.column += p.columns) {
		p.columns = lens_min(LENS_STRIP, r->m->columns - p.column);
		LENS_TRY(read_columns(r, &p, strip, err));
		lens_round_piece(&p, strip, r->out, r->m->columns);
	}
	return LENS_OK;
}

bool lens_center_writing(const struct lens_config *c, const struct lens_processing *p)
{
	return p->center_writing_weights && lens_final_norm_kind(c) == LENS_NORM_LN;
}

/* A matrix that writes to the residual stream. */
struct writing {
	const struct lens_matrix *m;
	bool center;
	float *out;
	const double *gain,
		*mean; /* W_out: its norm's, [F], and what that leaves, [D]; or NULL */
	/* W_O: b_O += Σ b_V·W_O over the heads. Heads that share values share their bias. */
	const double *b_v;
	double *b_o;
	size_t d_head, heads_per_value;
};

static void fold_value_bias(const struct writing *w, const struct lens_piece *p,
			    const double *x)
{
	size_t i, j, d = p->columns;

	for (i = 0; i < p->rows; i++) {
		size_t head = (p->row + i) / w->d_head, at = (p->row + i) % w->d_head;
		double b_v = w->b_v[head / w->heads_per_value * w->d_head + at];

		for (j = 0; j < d; j++)
			w->b_o[j] += b_v * x[i * d + j];
	}
}

static enum lens_status read_rows(const struct writing *w, const struct lens_piece *p,
				  double *x, struct lens_error *err)
{
	size_t i, j;

	LENS_TRY(lens_matrix_read(w->m, p, x, err));
	for (i = 0; w->gain && i < p->rows; i++) {
		for (j = 0; j < p->columns; j++)
			x[i * p->columns + j] =
				x[i * p->columns + j] * w->gain[p->row + i] - w->mean[j];
	}
	if (w->center)
		lens_center_rows(p->rows, p->columns, x);
	if (w->b_v)
		fold_value_bias(w, p, x);
	return LENS_OK;
}

static enum lens_status process_writing(const struct writing *w, double *strip,
					struct lens_error *err)
{
	struct lens_piece p = { .columns = w->m->columns };

	for (; p.row < w->m->rows; p.row += p.rows) {
		p.rows = lens_min(LENS_STRIP, w->m->rows - p.row);
		LENS_TRY(read_rows(w, &p, strip, err));
		lens_round_piece(&p, strip, w->out, w->m->columns);
	}
	return LENS_OK;
}

/* Head h, whose four matrices are held at a time: the last step is the refactoring. */
static enum lens_status process_head(const struct lens_config *c, size_t h,
				     const struct reading *qkv, const struct writing *o,
				     double *strip, struct lens_error *err)
{
	size_t i, dh = c->d_head, n = c->d_model * dh, all = c->n_heads * dh;
	const struct lens_piece rows = { h * dh, dh, 0, c->d_model };
	const struct lens_head_factors f = { .q = strip,
					     .k = strip + n,
					     .v = strip + 2 * n,
					     .o = strip + 3 * n,
					     .b_q = qkv->bias + h * dh,
					     .b_k = qkv->bias + all + h * dh };
	struct lens_piece columns = { 0, c->d_model, h * dh, dh };

	for (i = 0; i < 3; i++, columns.column += all)
		LENS_TRY(read_columns(qkv, &columns, strip + i * n, err));
	LENS_TRY(read_rows(o, &rows, f.o, err));
	LENS_TRY(lens_refactor_head(c, &f, err));
	for (i = 0, columns.column = h * dh; i < 3; i++, columns.column += all)
		lens_round_piece(&columns, strip + i * n, qkv->out, 3 * all);
	lens_round_piece(&rows, f.o, o->out, c->d_model);
	return LENS_OK;
}

static enum lens_status process_heads(const struct lens_config *c, const struct reading *qkv,
				      const struct writing *o, struct lens_error *err)
{
	enum lens_status st;
	double *strip;
	size_t h;

	st = lens_make_strip(4 * c->d_head, c->d_model, &strip, err);
	for (h = 0; st == LENS_OK && h < c->n_heads; h++)
		st = process_head(c, h, qkv, o, strip, err);
	lens_free(strip);
	return st;
}

static enum lens_status process_attention(const struct lens_config *c,
					  const struct lens_processing *p,
					  const struct reading *qkv, struct writing *o,
					  double *strip, struct lens_error *err)
{
	size_t values = c->n_kv_heads * c->d_head;
	double *b_v = qkv->bias + c->n_heads * c->d_head + values;

	/* The refactoring requires this. */
	if (p->fold_value_biases || p->refactor_factored_attn_matrices)
		o->b_v = b_v;
	if (p->refactor_factored_attn_matrices) {
		LENS_TRY(process_heads(c, qkv, o, err));
	} else {
		LENS_TRY(process_reading(qkv, strip, err));
		LENS_TRY(process_writing(o, strip, err));
	}
	if (o->b_v)
		memset(b_v, 0, values * sizeof(*b_v));
	return LENS_OK;
}

/*
 * fold_ln for the norm within the MLP: its bias goes into b_out, its weight into W_out, of
 * whose columns the mean has no effect then. mean is [D], strip room for a strip.
 */
static enum lens_status fold_inner_norm(const struct lens_config *c, struct lens_block64 *b,
					double *mean, double *strip, struct lens_error *err)
{
	struct lens_piece p = { .columns = c->d_model };
	size_t i, j, d = c->d_model;

	memset(mean, 0, d * sizeof(*mean));
	for (; p.row < c->d_mlp; p.row += p.rows) {
		p.rows = lens_min(LENS_STRIP, c->d_mlp - p.row);
		LENS_TRY(lens_matrix_read(&b->w_out, &p, strip, err));
		for (i = 0; i < p.rows; i++) {
			for (j = 0; j < d; j++) {
				b->b_out[j] += b->mlp_ln_b[p.row + i] * strip[i * d + j];
				mean[j] += b->mlp_ln_w[p.row + i] * strip[i * d + j];
			}
		}
	}
	for (j = 0; j < d; j++)
		mean[j] /= (double)c->d_mlp;
	return LENS_OK;
}

static enum lens_status process_mlp(const struct lens_config *c,
				    const struct lens_processing *p, struct lens_block64 *b,
				    struct lens_block *out, double *strip,
				    struct lens_error *err)
{
	bool fold = p->fold_ln, center = fold && c->norm == LENS_NORM_LN;
	const double *w2 = fold ? b->ln2_w : NULL;
	const struct reading in = { &b->w_in, w2, b->ln2_b, b->b_in, center, out->w_in };
	const struct reading gate = {
		&b->w_gate, w2, b->ln2_b, b->b_gate, center, out->w_gate
	};
	struct writing w_out = { .m = &b->w_out,
				 .center = lens_center_writing(c, p),
				 .out = out->w_out };

	if (fold && b->mlp_ln_w) {
		w_out.gain = b->mlp_ln_w;
		w_out.mean = strip + LENS_STRIP * c->d_model;
		LENS_TRY(fold_inner_norm(c, b, strip + LENS_STRIP * c->d_model, strip, err));
	}
	if (w_out.center)
		lens_center_rows(1, c->d_model, b->b_out);
	LENS_TRY(process_reading(&in, strip, err));
	if (c->gated_mlp)
		LENS_TRY(process_reading(&gate, strip, err));
	return process_writing(&w_out, strip, err);
}

static enum lens_status process_block(const struct lens_config *c,
				      const struct lens_processing *p, struct lens_block64 *b,
				      struct lens_block *out, double *strip,
				      struct lens_error *err)
{
	/* LayerNorm's output has mean 0, so the mean of each column has no effect. */
	bool center = p->fold_ln && c->norm == LENS_NORM_LN;
	const double *w1 = p->fold_ln ? b->ln1_w : NULL;
	const struct reading qkv = { &b->w_qkv, w1, b->ln1_b, b->b_qkv, center, out->w_qkv };
	const struct writing router = { .m = &b->w_router, .out = out->w_router };
	struct writing o = { .m = &b->w_o,
			     .center = lens_center_writing(c, p),
			     .out = out->w_o,
			     .b_o = b->b_o,
			     .d_head = c->d_head,
			     .heads_per_value = c->n_heads / c->n_kv_heads };

	if (o.center)
		lens_center_rows(1, c->d_model, b->b_o);
	LENS_TRY(process_attention(c, p, &qkv, &o, strip, err));
	if (c->n_experts)
		return process_writing(&router, strip, err);
	return c->attn_only ? LENS_OK : process_mlp(c, p, b, out, strip, err);
}

enum lens_status lens_process_block(const struct lens_config *c,
				    const struct lens_processing *p, struct lens_block64 *b,
				    struct lens_block *out, struct lens_error *err)
{
	enum lens_status st;
	double *strip;

	/* One strip, and the means of W_out's columns. */
	st = lens_make_strip(LENS_STRIP + 1, c->d_model, &strip, err);
	if (st == LENS_OK)
		st = process_block(c, p, b, out, strip, err);
	lens_free(strip);
	return st;
}

enum lens_status lens_process_expert(const struct lens_config *c, size_t expert,
				     const struct lens_block64 *b, struct lens_block *out,
				     struct lens_error *err)
{
	size_t at = expert * c->d_model * c->d_mlp;
	const struct reading gate = { .m = &b->w_gate, .out = out->w_gate + at },
			     in = { .m = &b->w_in, .out = out->w_in + at };
	const struct writing w_out = { .m = &b->w_out, .out = out->w_out + at };
	enum lens_status st;
	double *strip;

	st = lens_make_strip(LENS_STRIP, c->d_model, &strip, err);
	if (st == LENS_OK)
		st = process_reading(&gate, strip, err);
	if (st == LENS_OK)
		st = process_reading(&in, strip, err);
	if (st == LENS_OK)
		st = process_writing(&w_out, strip, err);
	lens_free(strip);
	return st;
}

size_t lens_process_bytes(const struct lens_config *c, const struct lens_processing *p)
{
	size_t strip = c->d_model * sizeof(double), all = (LENS_STRIP + 1) * strip;

	if (p->refactor_factored_attn_matrices)
		all += 4 * c->d_head * strip + lens_refactor_bytes(c);
	return all;
}
