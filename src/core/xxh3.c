/*
 * core/xxh3.c: XXH3-128 through libxxhash, in its canonical order of bytes.
 */
#include "h5lens/core.h"

#include <string.h>
#include <xxhash.h>

void lens_xxh3(const void *data, size_t n, uint8_t out[LENS_XXH3_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, n));
	memcpy(out, canonical.digest, LENS_XXH3_BYTES);
}
