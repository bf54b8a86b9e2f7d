/*
 * support/oldfile.c: the digests of a file's numbers made anew, through HDF5's plain
 * interface; that of "/" through src/store.
 */
#include "support/oldfile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/store_private.h"
#include "support/storefile.h"

static void set_text(hid_t obj, const char *name, const char *text)
{
	hid_t space = H5Screate(H5S_SCALAR), attr;

	if (H5Aexists(obj, name) > 0)
		assert_true(H5Adelete(obj, name) >= 0);
	attr = H5Acreate2(obj, name, lens_h5_type(LENS_STR), space, H5P_DEFAULT, H5P_DEFAULT);
	assert_true(H5Awrite(attr, lens_h5_type(LENS_STR), &text) >= 0);
	H5Aclose(attr);
	H5Sclose(space);
}

/* The digest of the chunk that begins at this element: zeros if it was never written. */
static void hash_chunk(hid_t id, const hsize_t *at, uint8_t digest[LENS_SHA256_BYTES])
{
	uint32_t filters;
	hsize_t n = 0;
	void *buf;

	memset(digest, 0, LENS_SHA256_BYTES);
	if (H5Dget_chunk_storage_size(id, at, &n) < 0 || !n)
		return;
	buf = malloc(n);
	assert_non_null(buf);
	assert_true(H5Dread_chunk(id, H5P_DEFAULT, at, &filters, buf) >= 0);
	ok(lens_sha256(buf, n, digest, err));
	free(buf);
}

static void hash_numbers(hid_t id, int rank, const hsize_t *extent, const hsize_t *chunk)
{
	uint8_t digest[LENS_SHA256_BYTES];
	hsize_t at[LENS_MAX_RANK] = { 0 };
	char hex[LENS_SHA256_HEX];
	struct lens_sha256 *h;
	int i;

	ok(lens_sha256_create(&h, err));
	for (i = 0; i < rank; i++)
		at[0] = extent[i] ? at[0] : extent[0]; /* no chunks at all */
	while (at[0] < extent[0]) {
		hash_chunk(id, at, digest);
		ok(lens_sha256_update(h, digest, sizeof(digest), err));
		for (i = rank - 1; (at[i] += chunk[i]) >= extent[i] && i > 0; i--)
			at[i] = 0;
	}
	ok(lens_sha256_final(h, digest, err));
	lens_sha256_destroy(h);
	lens_hex(digest, sizeof(digest), hex);
	set_text(id, "sha256", hex);
	if (H5Aexists(id, "chunk_marks") > 0)
		H5Adelete(id, "chunk_marks");
}

static herr_t visit(hid_t file, const char *name, const H5O_info_t *info, void *ctx)
{
	hsize_t extent[LENS_MAX_RANK], chunk[LENS_MAX_RANK];
	hid_t id, dcpl, type, space;
	int rank;

	(void)ctx;
	if (info->type != H5O_TYPE_DATASET)
		return 0;
	id = H5Dopen2(file, name, H5P_DEFAULT);
	dcpl = H5Dget_create_plist(id);
	type = H5Dget_type(id);
	space = H5Dget_space(id);
	rank = H5Sget_simple_extent_dims(space, extent, NULL);
	if (H5Pget_layout(dcpl) == H5D_CHUNKED && H5Tget_class(type) != H5T_STRING) {
		assert_int_equal(H5Pget_chunk(dcpl, LENS_MAX_RANK, chunk), rank);
		hash_numbers(id, rank, extent, chunk);
	}
	H5Sclose(space);
	H5Tclose(type);
	H5Pclose(dcpl);
	H5Dclose(id);
	return 0;
}

void test_as_sha256(const char *path)
{
	struct lens_h5_list list = { .v = NULL };
	char hex[LENS_SHA256_HEX];
	struct lens_h5_file f;
	hid_t file;

	lens_h5_begin();
	file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
	assert_true(file >= 0);
	assert_true(H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, visit, NULL, H5O_INFO_BASIC) >=
		    0);
	set_text(file, "digest", "sha256");
	H5Fclose(file);

	ok(lens_h5_open(path, &f, err));
	ok(lens_h5_list(&f, &list, err));
	ok(lens_h5_file_digest(&f, &list, hex, err));
	lens_h5_list_release(&list);
	lens_h5_close(&f);

	file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
	set_text(file, "sha256", hex);
	assert_true(H5Fclose(file) >= 0);
}
