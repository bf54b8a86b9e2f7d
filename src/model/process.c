/*
 * model/process.c: weight processing on the canonical form, in float64.
 *
 * Meaning and order are those of TransformerLens 2.16
 * (HookedTransformer.load_and_process_state_dict): fold_ln, center_writing_weights,
 * center_unembed, fold_value_biases. TransformerLens computes in float32, we in float64.
 */
#include "model/model_private.h"

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

/* Columns in blocks, so that rows are read in order. */
#define COLUMNS 64

static void center_columns(size_t d, size_t n, double *m)
{
	size_t i, j, j0;

	for (j0 = 0; j0 < n; j0 += COLUMNS) {
		size_t width = lens_min(n - j0, COLUMNS);
		double mean[COLUMNS] = { 0 };

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

/* b_O += Σ b_V·W_O over the heads; b_V = 0. Heads that share values share their bias. */
static void fold_value_biases(const struct lens_config *c, struct lens_block64 *b)
{
	size_t h, i, j, dh = c->d_head, d = c->d_model;
	double *b_v = b->b_qkv + (c->n_heads + c->n_kv_heads) * dh;

	for (h = 0; h < c->n_heads; h++) {
		size_t kv = h / (c->n_heads / c->n_kv_heads);

		for (i = 0; i < dh; i++) {
			for (j = 0; j < d; j++)
				b->b_o[j] += b_v[kv * dh + i] * b->w_o[(h * dh + i) * d + j];
		}
	}
	for (i = 0; i < c->n_kv_heads * dh; i++)
		b_v[i] = 0;
}

void lens_process_block(const struct lens_config *c, const struct lens_processing *p,
			struct lens_block64 *b)
{
	size_t d = c->d_model, qkv = (c->n_heads + 2 * c->n_kv_heads) * c->d_head;
	bool layer_norm = c->norm == LENS_NORM_LN;

	if (p->fold_ln && c->norms_before) {
		fold_norm(d, qkv, b->ln1_w, b->ln1_b, b->w_qkv, b->b_qkv);
		fold_norm(d, c->d_mlp, b->ln2_w, b->ln2_b, b->w_in, b->b_in);
		if (c->gated_mlp)
			fold_norm(d, c->d_mlp, b->ln2_w, b->ln2_b, b->w_gate, b->b_gate);
	}
	/* LayerNorm's output has mean 0, so the mean of each column has no effect. */
	if (p->fold_ln && layer_norm) {
		center_columns(d, qkv, b->w_qkv);
		center_columns(d, c->d_mlp, b->w_in);
		if (c->gated_mlp)
			center_columns(d, c->d_mlp, b->w_gate);
	}
	if (p->center_writing_weights && layer_norm) {
		lens_center_rows(c->n_heads * c->d_head, d, b->w_o);
		lens_center_rows(1, d, b->b_o);
		lens_center_rows(c->d_mlp, d, b->w_out);
		lens_center_rows(1, d, b->b_out);
	}
	/* The refactoring (refactor.c) comes last and requires this. */
	if (p->fold_value_biases || p->refactor_factored_attn_matrices)
		fold_value_biases(c, b);
}

/* fold_ln for the unembedding, whose matrix is stored as [V, D]. */
static void fold_final_norm(const struct lens_config *c, struct lens_head64 *h)
{
	size_t v, j, d = c->d_model;

	for (v = 0; v < c->d_vocab; v++) {
		double *row = h->w_u + v * d;

		for (j = 0; j < d; j++) {
			if (h->ln_final_b)
				h->b_u[v] += row[j] * h->ln_final_b[j];
			row[j] *= h->ln_final_w[j];
		}
	}
	if (c->norm == LENS_NORM_LN)
		lens_center_rows(c->d_vocab, d, h->w_u);
}

void lens_process_head(const struct lens_config *c, const struct lens_processing *p,
		       struct lens_head64 *h)
{
	if (p->fold_ln)
		fold_final_norm(c, h);
	if (p->center_unembed) {
		center_columns(c->d_vocab, c->d_model, h->w_u);
		lens_center_rows(1, c->d_vocab, h->b_u);
	}
}
