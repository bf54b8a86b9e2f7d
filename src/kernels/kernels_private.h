/* kernels_private.h: what the files of kernels/ share. */
#ifndef LENS_KERNELS_PRIVATE_H
#define LENS_KERNELS_PRIVATE_H

#include "h5lens/kernels.h"

extern const struct lens_vec lens_vec_avx2, lens_vec_avx512;
void lens_vec_select(enum lens_cpu_level level);

/* Fortran's sgemm: column-major, everything by reference. */
typedef void (*lens_sgemm_fn)(const char *transa, const char *transb, const int *m,
			      const int *n, const int *k, const float *alpha, const float *a,
			      const int *lda, const float *b, const int *ldb, const float *beta,
			      float *c, const int *ldc);
extern lens_sgemm_fn lens_sgemm;
/* Another function of the OpenBLAS that is open; *out is a function pointer. */
enum lens_status lens_blas_symbol(const char *name, void **out, struct lens_error *err);
/* The open level, for gemm's rules. */
enum lens_cpu_level lens_open_level(void);

#endif
