/*
 * fuzz/fuzz_gheap.c: bytes as an HDF5 file's strings: how many references, those,
 * and the file with the collections they refer to. HDF5 itself is not fuzzed: it
 * is known to crash on damaged files, which is why these are read in a child.
 */
#include "fuzz/fuzz.h"

#include "store/gheap_private.h"

#include <string.h>

void fuzz_one(const uint8_t *data, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t i, n_refs = n ? data[0] % 4 + 1 : 0;
	struct lens_gheap *h = NULL;
	struct lens_io *io = NULL;
	enum lens_status st;
	const char *text;

	if (n < 1 + n_refs * LENS_GHEAP_REF_BYTES || !n)
		return;
	fuzz_write("in.h5", data + 1 + n_refs * LENS_GHEAP_REF_BYTES,
		   n - 1 - n_refs * LENS_GHEAP_REF_BYTES);
	st = lens_io_open(fuzz_path("in.h5"), &io, &err);
	if (st == LENS_OK)
		st = lens_gheap_create(io, &h, &err);
	fuzz_check(st, &err);
	for (i = 0; st == LENS_OK && i < n_refs; i++) {
		const uint8_t *ref = data + 1 + i * LENS_GHEAP_REF_BYTES;
		struct lens_error why = LENS_ERROR_INIT;
		enum lens_status got = lens_gheap_string(h, ref, &text, &why);

		fuzz_check(got, &why);
		if (got == LENS_OK)
			fuzz_hold(strlen(text) <= n, "a string is from the file");
		lens_gheap_admit(io, ref[4], n);
	}
	lens_gheap_destroy(h);
	lens_io_release(io);
}
