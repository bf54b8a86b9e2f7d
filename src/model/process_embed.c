/*
 * model/process_embed.c: weight processing of W_E, W_pos and W_U, like that of a block
 * (process.c). In: matrices in their files; out: float32 weights. Rows are shared out to
 * threads; only the means of W_U's columns need all of them, and take a reading of their
 * own.
 */
#include "model/model_private.h"

#include <math.h>
#include <string.h>

/* W_E, W_pos or W_U, whose rows are shared out. */
struct rows {
	const struct lens_matrix *m;
	bool center;
	const struct lens_embed64 *embed; /* W_E: whose norm its rows go through, or NULL */
	double eps;
	const struct lens_head64 *norm; /* W_U: what is folded into it, or NULL … */
	double *b_u;                    /* … with its bias to this, or NULL */
	const double *mean;             /* W_U: of each column, to be taken off; or NULL */
	float *out;
};

/* fold_ln for the unembedding, whose matrix is stored as [V, D]. */
static void fold_final_norm(const struct rows *r, const struct lens_piece *p, double *x)
{
	const double *w = r->norm->ln_final_w, *b = r->norm->ln_final_b;
	size_t i, j, d = p->columns;

	for (i = 0; i < p->rows; i++) {
		double *row = x + i * d;

		for (j = 0; b && r->b_u && j < d; j++)
			r->b_u[p->row + i] += row[j] * b[j];
		for (j = 0; j < d; j++)
			row[j] *= w[j];
	}
}

/* LayerNorm of a row, in place. */
static void norm_row(const struct rows *r, double *x)
{
	const double *w = r->embed->norm_w, *b = r->embed->norm_b;
	size_t i, d = r->m->columns;
	double var = 0;

	lens_center_rows(1, d, x);
	for (i = 0; i < d; i++)
		var += x[i] * x[i];
	for (i = 0; i < d; i++)
		x[i] = x[i] / sqrt(var / (double)d + r->eps) * w[i] + b[i];
}

/* Strip i, into x. */
static enum lens_status read_strip(const struct rows *r, size_t i, struct lens_piece *p,
				   double *x, struct lens_error *err)
{
	size_t k, j, row = i * LENS_STRIP, d = r->m->columns;

	*p = (struct lens_piece){ row, lens_min(LENS_STRIP, r->m->rows - row), 0, d };
	LENS_TRY(lens_matrix_read(r->m, p, x, err));
	for (k = 0; r->embed && k < p->rows; k++)
		norm_row(r, x + k * d);
	if (r->norm)
		fold_final_norm(r, p, x);
	if (r->center)
		lens_center_rows(p->rows, d, x);
	for (k = 0; r->mean && k < p->rows; k++) {
		for (j = 0; j < d; j++)
			x[k * d + j] -= r->mean[j];
	}
	return LENS_OK;
}

static enum lens_status process_strip(void *ctx, size_t i, struct lens_error *err)
{
	const struct rows *r = ctx;
	struct lens_piece p;
	enum lens_status st;
	double *x;

	st = lens_make_strip(LENS_STRIP, r->m->columns, &x, err);
	if (st == LENS_OK)
		st = read_strip(r, i, &p, x, err);
	if (st == LENS_OK)
		lens_round_piece(&p, x, r->out, r->m->columns);
	lens_free(x);
	return st;
}

static size_t n_strips(const struct lens_matrix *m)
{
	return (m->rows + LENS_STRIP - 1) / LENS_STRIP;
}

static enum lens_status process_rows(struct rows *r, size_t threads, struct lens_error *err)
{
	const struct lens_load_parts parts = { n_strips(r->m), threads, process_strip, r };

	return lens_load_each(&parts, err);
}

enum lens_status lens_process_embed(const struct lens_config *c,
				    const struct lens_processing *p,
				    const struct lens_embed64 *e, size_t threads, float *out,
				    struct lens_error *err)
{
	struct rows r = {
		.m = &e->m,
		/* A norm's output is left as it is: TransformerLens centres what goes in. */
		.center = lens_center_writing(c, p) && !e->norm_w,
		.embed = e->norm_w ? e : NULL,
		.eps = c->eps,
		.out = out
	};

	return process_rows(&r, threads, err);
}

/* The mean of each column, rows added up in order. */
static enum lens_status column_means(const struct rows *r, double *mean, double *x,
				     struct lens_error *err)
{
	size_t i, k, j, d = r->m->columns;
	struct lens_piece p;

	memset(mean, 0, d * sizeof(*mean));
	for (i = 0; i < n_strips(r->m); i++) {
		LENS_TRY(read_strip(r, i, &p, x, err));
		for (k = 0; k < p.rows; k++) {
			for (j = 0; j < d; j++)
				mean[j] += x[k * d + j];
		}
	}
	for (j = 0; j < d; j++)
		mean[j] /= (double)r->m->rows;
	return LENS_OK;
}

enum lens_status lens_process_head(const struct lens_config *c, const struct lens_processing *p,
				   struct lens_head64 *h, size_t threads, float *w_u,
				   struct lens_error *err)
{
	struct rows r = { .m = &h->w_u,
			  .center = p->fold_ln && c->norm == LENS_NORM_LN,
			  .norm = p->fold_ln ? h : NULL,
			  .out = w_u };
	enum lens_status st = LENS_OK;
	double *x = NULL;

	/* One strip, and the means. */
	if (p->center_unembed)
		st = lens_make_strip(LENS_STRIP + 1, c->d_model, &x, err);
	if (st == LENS_OK && p->center_unembed) {
		st = column_means(&r, x + LENS_STRIP * c->d_model, x, err);
		r.mean = x + LENS_STRIP * c->d_model;
	}
	r.b_u = h->b_u;
	if (st == LENS_OK)
		st = process_rows(&r, threads, err);
	if (st == LENS_OK && p->center_unembed)
		lens_center_rows(1, lens_n_logits(c), h->b_u);
	lens_free(x);
	return st;
}
