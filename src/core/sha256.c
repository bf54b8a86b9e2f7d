/*
 * core/sha256.c: SHA-256 through OpenSSL's EVP.
 */
#include "h5lens/core.h"

#include <openssl/evp.h>

struct lens_sha256 {
	EVP_MD_CTX *ctx;
};

static enum lens_status failed(struct lens_error *err)
{
	return lens_error_set(err, LENS_ERR_INTERNAL, "OpenSSL cannot compute a SHA-256");
}

enum lens_status lens_sha256_create(struct lens_sha256 **out, struct lens_error *err)
{
	struct lens_sha256 *s = lens_calloc(1, sizeof(*s));

	*out = NULL;
	if (!s)
		return lens_error_nomem(err, 1, sizeof(*s));
	s->ctx = EVP_MD_CTX_new();
	if (!s->ctx || EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) != 1) {
		lens_sha256_destroy(s);
		return failed(err);
	}
	*out = s;
	return LENS_OK;
}

enum lens_status lens_sha256_update(struct lens_sha256 *s, const void *data, size_t n,
				    struct lens_error *err)
{
	return EVP_DigestUpdate(s->ctx, data, n) == 1 ? LENS_OK : failed(err);
}

enum lens_status lens_sha256_final(struct lens_sha256 *s, uint8_t out[LENS_SHA256_BYTES],
				   struct lens_error *err)
{
	if (EVP_DigestFinal_ex(s->ctx, out, NULL) != 1 ||
	    EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) != 1)
		return failed(err);
	return LENS_OK;
}

void lens_sha256_destroy(struct lens_sha256 *s)
{
	if (!s)
		return;
	EVP_MD_CTX_free(s->ctx);
	lens_free(s);
}

enum lens_status lens_sha256(const void *data, size_t n, uint8_t out[LENS_SHA256_BYTES],
			     struct lens_error *err)
{
	return EVP_Digest(data, n, out, NULL, EVP_sha256(), NULL) == 1 ? LENS_OK : failed(err);
}

void lens_hex(const uint8_t *bytes, size_t n, char *out)
{
	static const char digit[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < n; i++) {
		out[2 * i] = digit[bytes[i] >> 4];
		out[2 * i + 1] = digit[bytes[i] & 15];
	}
	out[2 * n] = '\0';
}
