/*
 * fuzz/fuzz_npy.c: bytes as a NumPy file with a vector.
 */
#include "fuzz/fuzz.h"

void fuzz_one(const uint8_t *data, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t n_out = 0;
	double *v;
	enum lens_status st = lens_npy_vector("v.npy", (const char *)data, n, &v, &n_out, &err);

	fuzz_check(st, &err);
	fuzz_hold((st == LENS_OK) == (v != NULL), "a vector or an error");
	fuzz_hold(st != LENS_OK || n_out * 2 <= n, "a vector's numbers are from the file");
	lens_free(v);
}
