/*
 * bench_sgemm.c: the machine's sgemm rate, which is the limit for tables.
 *
 * Times the matrix products of GPT-2 small, or of the shapes that it is given, as OpenBLAS's
 * own sgemm does them (all of K in one call: the limit) and as lens_gemm does them, on one
 * thread and on several at once. As in the program, threads share the weights, and each has
 * activations and results of its own. Prints GFLOP/s for each shape and, weighted by a prompt's
 * FLOPs, the most prompts/s that sgemm alone allows. The FLOPs are those of the whole model;
 * h5lens leaves out what no table reads of the last block, about 4 %, so it may come out above
 * its share.
 *
 *     bench_sgemm [avx2|avx512|auto [THREADS [REPEAT [TOKENS [NAME:NxK[T] …]]]]]
 *         T: the weights are [n, k], transposed, as W_U's
 */
#include "h5lens/kernels.h"

#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAYERS 12
#define MAX_REPEAT 1001
#define MAX_THREADS 1024

/* Fortran's sgemm: column-major, everything by reference. */
typedef void (*sgemm_fn)(const char *, const char *, const int *, const int *, const int *,
			 const float *, const float *, const int *, const float *, const int *,
			 const float *, float *, const int *);

/* C[m, n] = A[m, k]·B, as row-major matrices. */
struct shape {
	const char *name;
	size_t m, n, k;
	enum lens_trans trans;
};

#define MOST_SHAPES 16
#define ROWS 512      /* of a product in the blocks */
#define ROWS_OF_U 416 /* of W_U's: 32 prompts, 13 lens layers */

static struct shape shapes[MOST_SHAPES] = {
	{ "W_QKV", ROWS, 2304, 768, LENS_B_PLAIN },
	{ "W_O", ROWS, 768, 768, LENS_B_PLAIN },
	{ "W_in", ROWS, 3072, 768, LENS_B_PLAIN },
	{ "W_out", ROWS, 768, 3072, LENS_B_PLAIN },
	{ "W_U", ROWS_OF_U, 50257, 768, LENS_B_TRANSPOSED },
};
static size_t n_shapes = 5;

enum engine { SGEMM, LENS_GEMM, ENGINES };

struct bench {
	sgemm_fn sgemm;
	int threads, repeat;
	size_t tokens;                        /* of a prompt */
	double rate[MOST_SHAPES][2][ENGINES]; /* GFLOP/s on one thread, on all */
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *matrix(size_t n)
{
	float *x = lens_alloc_aligned(n, sizeof(*x));
	uint32_t state = 1;
	size_t i;

	if (!x) {
		fprintf(stderr, "bench_sgemm: out of memory\n");
		exit(1);
	}
	for (i = 0; i < n; i++) {
		state = state * 1664525u + 1013904223u;
		x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
	}
	return x;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *x, int n)
{
	qsort(x, (size_t)n, sizeof(*x), by_value);
	return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* Row-major C = A·B is column-major Cᵀ = Bᵀ·Aᵀ. */
static void whole_sgemm(sgemm_fn sgemm, const struct shape *s, const float *a, const float *b,
			float *c)
{
	const float one = 1.0f, zero = 0.0f;
	int m = (int)s->n, n = (int)s->m, k = (int)s->k;

	sgemm(s->trans == LENS_B_PLAIN ? "N" : "T", "N", &m, &n, &k, &one, b,
	      s->trans == LENS_B_PLAIN ? &m : &k, a, &k, &zero, c, &m);
}

/* One thread's median seconds for a product, by engine. They take turns. */
static void time_one(const struct bench *bench, const struct shape *s, const float *b,
		     double *out)
{
	float *a = matrix(s->m * s->k), *c = matrix(s->m * s->n);
	float *pad = matrix(lens_gemm_pad_floats(s->n, s->k));
	const struct lens_gemm_args g = {
		.m = s->m,
		.n = s->n,
		.k = s->k,
		.a = a,
		.lda = s->k,
		.b = b,
		.ldb = s->trans == LENS_B_PLAIN ? s->n : s->k,
		.trans = s->trans,
		.c = c,
		.ldc = s->n,
	};
	double seconds[ENGINES][MAX_REPEAT];
	int i;

#pragma omp barrier
	for (i = -1; i < bench->repeat; i++) { /* the first warms up */
		double t0 = now(), t1;

		whole_sgemm(bench->sgemm, s, a, b, c);
		t1 = now();
		lens_gemm(&g, pad, 1);
		if (i >= 0) {
			seconds[SGEMM][i] = t1 - t0;
			seconds[LENS_GEMM][i] = now() - t1;
		}
	}
	for (i = 0; i < ENGINES; i++)
		out[i] = median(seconds[i], bench->repeat);
	lens_free(a);
	lens_free(c);
	lens_free(pad);
}

/* GFLOP/s of so many threads at once, by engine */
static void rates(const struct bench *bench, const struct shape *s, int threads, const float *b,
		  double *sum)
{
	double gflop = 2e-9 * (double)s->m * (double)s->n * (double)s->k;

	memset(sum, 0, ENGINES * sizeof(*sum));
#pragma omp parallel num_threads(threads)
	{
		double seconds[ENGINES];
		int e;

		time_one(bench, s, b, seconds);
#pragma omp critical
		for (e = 0; e < ENGINES; e++)
			sum[e] += gflop / seconds[e];
	}
}

static void measure(struct bench *bench)
{
	size_t i;

	for (i = 0; i < n_shapes; i++) {
		float *b = matrix(shapes[i].n * shapes[i].k);

		rates(bench, &shapes[i], 1, b, bench->rate[i][0]);
		rates(bench, &shapes[i], bench->threads, b, bench->rate[i][1]);
		lens_free(b);
	}
}

/*
 * GFLOP of one prompt's tables by shape: every token through the blocks, the
 * read position through the unembedding, once for each lens layer.
 */
static double prompt_gflop(const struct bench *bench, size_t shape)
{
	const struct shape *s = &shapes[shape];
	size_t rows = s->trans == LENS_B_PLAIN ? LAYERS * bench->tokens : LAYERS + 1;

	return 2e-9 * (double)rows * (double)s->n * (double)s->k;
}

static void print_total(const struct bench *bench)
{
	double gflop = 0, seconds[2][ENGINES] = { { 0 } };
	size_t i, e, t;

	for (i = 0; i < n_shapes; i++) {
		gflop += prompt_gflop(bench, i);
		for (e = 0; e < ENGINES; e++) {
			for (t = 0; t < 2; t++)
				seconds[t][e] += prompt_gflop(bench, i) / bench->rate[i][t][e];
		}
	}
	printf("%-22s %10.1f %10.1f %10.1f %10.1f\n", "a prompt's mixture",
	       gflop / seconds[0][SGEMM], gflop / seconds[0][LENS_GEMM],
	       gflop / seconds[1][SGEMM], gflop / seconds[1][LENS_GEMM]);
	printf("%-22s %10.1f %10.1f %10.1f %10.1f\n", "limit, prompts/s", 1 / seconds[0][SGEMM],
	       1 / seconds[0][LENS_GEMM], 1 / seconds[1][SGEMM], 1 / seconds[1][LENS_GEMM]);
	printf("A prompt: %zu tokens, logit difference and rank per layer, %.2f GFLOP.\n",
	       bench->tokens, gflop);
}

static void print_report(const struct bench *bench, const char *level, bool total)
{
	char threads[32], size[64];
	size_t i;

	snprintf(threads, sizeof(threads), "%d threads", bench->threads);
	printf("%s, level %s, median of %d; GFLOP/s\n", lens_blas_description(), level,
	       bench->repeat);
	printf("%-22s %21s %21s\n", "", "1 thread", threads);
	printf("%-22s %10s %10s %10s %10s\n", "m x n x k", "sgemm", "lens_gemm", "sgemm",
	       "lens_gemm");
	for (i = 0; i < n_shapes; i++) {
		snprintf(size, sizeof(size), "%s %zux%zux%zu", shapes[i].name, shapes[i].m,
			 shapes[i].n, shapes[i].k);
		printf("%-22s %10.1f %10.1f %10.1f %10.1f\n", size, bench->rate[i][0][SGEMM],
		       bench->rate[i][0][LENS_GEMM], bench->rate[i][1][SGEMM],
		       bench->rate[i][1][LENS_GEMM]);
	}
	if (total)
		print_total(bench);
}

/* OpenBLAS is open by now, with the core that belongs to the level. */
static sgemm_fn find_sgemm(void)
{
	void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
	sgemm_fn f = NULL;

	if (lib)
		*(void **)&f = dlsym(lib, "sgemm_");
	return f;
}

static int number(const char *text, int most)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (*end || n < 1 || n > most) {
		fprintf(stderr, "bench_sgemm: '%s' is not a number from 1 to %d\n", text, most);
		exit(2);
	}
	return (int)n;
}

/* NAME:NxK, with a T behind it if the weights are transposed. */
static void take_shape(char *text)
{
	struct shape s = { .name = text, .m = ROWS };
	char *size = strchr(text, ':'), *end;

	if (!size || n_shapes == MOST_SHAPES)
		goto wrong;
	*size++ = '\0';
	s.n = strtoul(size, &end, 10);
	if (*end != 'x')
		goto wrong;
	s.k = strtoul(end + 1, &end, 10);
	if (*end == 'T') {
		s.trans = LENS_B_TRANSPOSED;
		s.m = ROWS_OF_U;
		end++;
	}
	if (*end || !s.n || !s.k)
		goto wrong;
	shapes[n_shapes++] = s;
	return;
wrong:
	fprintf(stderr, "bench_sgemm: '%s' is not NAME:NxK or NAME:NxKT\n", text);
	exit(2);
}

int main(int argc, char **argv)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct bench bench = { .threads = omp_get_num_procs(), .repeat = 9, .tokens = 16 };
	enum lens_cpu_level level;
	char text[1024];
	int i;

	if (argc > 2)
		bench.threads = number(argv[2], MAX_THREADS);
	if (argc > 3)
		bench.repeat = number(argv[3], MAX_REPEAT);
	if (argc > 4)
		bench.tokens = (size_t)number(argv[4], 1 << 20);
	if (argc > 5)
		n_shapes = 0;
	for (i = 5; i < argc; i++)
		take_shape(argv[i]);
	if (lens_cpu_detect(&level, &err) != LENS_OK)
		goto failed;
	if (argc > 1 && !strcmp(argv[1], "avx2"))
		level = LENS_LEVEL_AVX2;
	else if (argc > 1 && !strcmp(argv[1], "avx512"))
		level = LENS_LEVEL_AVX512;
	else if (argc > 1 && strcmp(argv[1], "auto") != 0) {
		fprintf(stderr, "bench_sgemm: '%s' is not avx2, avx512 or auto\n", argv[1]);
		return 2;
	}
	if (lens_kernels_open(level, &err) != LENS_OK)
		goto failed;
	bench.sgemm = find_sgemm();
	if (!bench.sgemm) {
		fprintf(stderr, "bench_sgemm: OpenBLAS has no sgemm_\n");
		return 1;
	}
	measure(&bench);
	print_report(&bench, lens_cpu_level_name(level), argc <= 5);
	return 0;
failed:
	fprintf(stderr, "bench_sgemm: %s\n", lens_error_format(&err, text, sizeof(text)));
	return 1;
}
