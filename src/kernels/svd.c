/*
 * kernels/svd.c: the singular value decomposition of a product A·Bᵀ of two thin
 * matrices, in float64, with LAPACK's routines, which OpenBLAS includes.
 *
 * A = Qa·Ra and B = Qb·Rb; then Ra·Rbᵀ = U'·diag(s)·V'ᵀ is small, and U = Qa·U',
 * V = Qb·V'. The product itself, large and of low rank, is never formed. The
 * Householder Q has orthonormal columns whatever the rank of A, so nothing
 * divides by a singular value.
 *
 * LAPACK is column-major: a row-major Aᵀ [k, m] is its A [m, k]. OpenBLAS uses one
 * thread here and may be called from several; block sizes depend on k alone, so the bits
 * do not depend on threads.
 */
#include "kernels/kernels_private.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* Fortran: everything by reference; lengths of character arguments come last. */
struct lapack {
	void (*geqrf)(const int *m, const int *n, double *a, const int *lda, double *tau,
		      double *work, const int *lwork, int *info);
	void (*orgqr)(const int *m, const int *n, const int *k, double *a, const int *lda,
		      const double *tau, double *work, const int *lwork, int *info);
	void (*gesvd)(const char *jobu, const char *jobvt, const int *m, const int *n,
		      double *a, const int *lda, double *s, double *u, const int *ldu,
		      double *vt, const int *ldvt, double *work, const int *lwork, int *info,
		      size_t len_jobu, size_t len_jobvt);
	void (*gemm)(const char *transa, const char *transb, const int *m, const int *n,
		     const int *k, const double *alpha, const double *a, const int *lda,
		     const double *b, const int *ldb, const double *beta, double *c,
		     const int *ldc, size_t len_transa, size_t len_transb);
};

/* One decomposition: LAPACK, k, and scratch, column-major, each part on 64 bytes. */
struct svd {
	struct lapack lapack;
	size_t k;
	double *ra, *rb, *middle, *u, *vt; /* [k, k] */
	double *tau;                       /* [k] */
	double *out;                       /* [max(m, n), k] */
	double *work;                      /* [lwork] */
	int lwork;
	double *memory;
};

static enum lens_status find(struct lapack *l, struct lens_error *err)
{
	LENS_TRY(lens_blas_symbol("dgeqrf_", (void **)&l->geqrf, err));
	LENS_TRY(lens_blas_symbol("dorgqr_", (void **)&l->orgqr, err));
	LENS_TRY(lens_blas_symbol("dgesvd_", (void **)&l->gesvd, err));
	return lens_blas_symbol("dgemm_", (void **)&l->gemm, err);
}

static double *take(double **next, size_t n)
{
	double *p = *next;

	*next += (n + 7) / 8 * 8;
	return p;
}

/* dgesvd needs at least 5k and at best (2·32 + 3)·k, dgeqrf at best 32·k. */
#define WORK_PER_COLUMN 72

bool lens_svd_bytes(size_t rows, size_t k, size_t *out)
{
	/* five squares, tau, out, work */
	return lens_size_mul(5 * k + WORK_PER_COLUMN + 1 + rows, k, out) &&
	       lens_size_add(*out, (size_t)8 * 8, out) &&
	       lens_size_mul(*out, sizeof(double), out);
}

static enum lens_status make_scratch(const struct lens_svd_product *p, struct svd *w,
				     struct lens_error *err)
{
	size_t k = p->k, rows = lens_max(p->m, p->n), n;
	double *next;

	if (!k || k > p->m || k > p->n || rows > INT_MAX || k > INT_MAX / WORK_PER_COLUMN)
		return lens_error_set(err, LENS_ERR_INTERNAL,
				      "no thin product: %zu, %zu rows and %zu columns", p->m,
				      p->n, k);
	if (!lens_svd_bytes(rows, k, &n))
		return lens_error_nomem(err, rows, k);
	w->memory = lens_alloc_aligned(n, 1);
	if (!w->memory)
		return lens_error_nomem(err, n, 1);
	memset(w->memory, 0, n);
	next = w->memory;
	w->ra = take(&next, k * k);
	w->rb = take(&next, k * k);
	w->middle = take(&next, k * k);
	w->u = take(&next, k * k);
	w->vt = take(&next, k * k);
	w->tau = take(&next, k);
	w->out = take(&next, rows * k);
	w->work = take(&next, WORK_PER_COLUMN * k);
	w->lwork = (int)(WORK_PER_COLUMN * k);
	return LENS_OK;
}

/* a [rows, k] → its Q in place, its R into r. */
static enum lens_status factor(struct svd *w, size_t rows, double *a, double *r,
			       struct lens_error *err)
{
	const struct lapack *l = &w->lapack;
	int m = (int)rows, n = (int)w->k, info;
	size_t j;

	l->geqrf(&m, &n, a, &m, w->tau, w->work, &w->lwork, &info);
	if (!info) {
		for (j = 0; j < w->k; j++)
			memcpy(r + j * w->k, a + j * rows, (j + 1) * sizeof(*r));
		l->orgqr(&m, &n, &n, a, &m, w->tau, w->work, &w->lwork, &info);
	}
	return info ? lens_error_set(err, LENS_ERR_INTERNAL, "LAPACK's QR: info %d", info)
		    : LENS_OK;
}

/* middle = Ra·Rbᵀ = U'·diag(s)·V'ᵀ */
static enum lens_status decompose(struct svd *w, double *s, struct lens_error *err)
{
	const struct lapack *l = &w->lapack;
	const double one = 1, zero = 0;
	int n = (int)w->k, info;
	size_t i;

	l->gemm("N", "T", &n, &n, &n, &one, w->ra, &n, w->rb, &n, &zero, w->middle, &n, 1, 1);
	for (i = 0; i < w->k * w->k; i++) {
		if (!isfinite(w->middle[i]))
			return lens_error_set(err, LENS_ERR_INVALID,
					      "a product of weights is not finite");
	}
	l->gesvd("A", "A", &n, &n, w->middle, &n, s, w->u, &n, w->vt, &n, w->work, &w->lwork,
		 &info, 1, 1);
	return info ? lens_error_set(err, LENS_ERR_INVALID,
				     "a singular value decomposition does not converge "
				     "(LAPACK's dgesvd: info %d)",
				     info)
		    : LENS_OK;
}

/* q [rows, k] ← q·x, or q·xᵀ */
static void turn(struct svd *w, size_t rows, double *q, const double *x, const char *trans)
{
	const double one = 1, zero = 0;
	int m = (int)rows, n = (int)w->k;

	w->lapack.gemm("N", trans, &m, &n, &n, &one, q, &m, x, &n, &zero, w->out, &m, 1, 1);
	memcpy(q, w->out, rows * w->k * sizeof(*q));
}

/* Is the element of largest magnitude, the first of several, negative? */
static bool points_down(const double *x, size_t n)
{
	size_t i, best = 0;

	for (i = 1; i < n; i++) {
		if (fabs(x[i]) > fabs(x[best]))
			best = i;
	}
	return x[best] < 0;
}

static void negate(double *x, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		x[i] = -x[i];
}

static void choose_signs(const struct lens_svd_product *p)
{
	size_t i;

	for (i = 0; i < p->k; i++) {
		if (!points_down(p->at + i * p->m, p->m))
			continue;
		negate(p->at + i * p->m, p->m);
		negate(p->bt + i * p->n, p->n);
	}
}

enum lens_status lens_svd_product(const struct lens_svd_product *p, struct lens_error *err)
{
	struct svd w = { .k = p->k };
	enum lens_status st;

	LENS_TRY(find(&w.lapack, err));
	st = make_scratch(p, &w, err);
	if (st == LENS_OK)
		st = factor(&w, p->m, p->at, w.ra, err);
	if (st == LENS_OK)
		st = factor(&w, p->n, p->bt, w.rb, err);
	if (st == LENS_OK)
		st = decompose(&w, p->s, err);
	if (st == LENS_OK) {
		turn(&w, p->m, p->at, w.u, "N");
		turn(&w, p->n, p->bt, w.vt, "T");
		choose_signs(p);
	}
	lens_free(w.memory);
	return st;
}
