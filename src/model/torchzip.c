/*
 * model/torchzip.c: the zip archive that torch.save has written since 1.6. In:
 * a mapped file; out: its tensors, whose data stays in the map.
 *
 * torch does not compress, so an entry's bytes are the file's own; anything else is
 * refused by name. libzip reads and checks the archive, zipplace.c says where in the map
 * the bytes are, and they are compared.
 */
#include "model/torchbin_private.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define MAX_PICKLE ((size_t)256 << 20)

struct entry {
	const char *name; /* libzip's; later without the archive's own name */
	size_t len;
	zip_uint64_t index;
	size_t size;
	const unsigned char *data; /* in the map */
};

struct archive {
	const struct lens_mapped_file *f;
	zip_t *zip;
	struct entry *entry; /* sorted by name */
	size_t n;
	struct lens_buf key; /* room for a name */
};

static int by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return lens_bytes_compare(x->name, x->len, y->name, y->len);
}

/* Passes libzip's error on. */
static enum lens_status told(const struct lens_mapped_file *f, zip_error_t *e,
			     struct lens_error *err)
{
	enum lens_status st =
		zip_error_code_zip(e) == ZIP_ER_MEMORY ? LENS_ERR_NOMEM : LENS_ERR_FORMAT;

	lens_error_at(err, st, f->path, 0, 0, "zip archive: %s (damaged or truncated?)",
		      zip_error_strerror(e));
	zip_error_fini(e);
	return st;
}

static enum lens_status bad(const struct archive *z, const char *name, const char *what,
			    struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, z->f->path, 0, 0,
			     "zip archive, entry \"%.200s\": %s", name, what);
}

static enum lens_status read_entry(struct archive *z, zip_uint64_t i, size_t place,
				   struct lens_error *err)
{
	const zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
				    ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
	struct entry *e = &z->entry[i];
	zip_stat_t s;

	if (zip_stat_index(z->zip, i, ZIP_FL_ENC_RAW, &s) || (s.valid & needed) != needed)
		return lens_error_at(err, LENS_ERR_FORMAT, z->f->path, 0, 0,
				     "zip archive: entry %llu cannot be read",
				     (unsigned long long)i);
	if (!lens_utf8_valid(s.name, strlen(s.name)))
		return lens_error_at(err, LENS_ERR_FORMAT, z->f->path, 0, 0,
				     "zip archive: the name of entry %llu is not UTF-8",
				     (unsigned long long)i);
	if (s.encryption_method != ZIP_EM_NONE)
		return bad(z, s.name, "it is encrypted", err);
	if (s.comp_method != ZIP_CM_STORE)
		return bad(z, s.name, "it is compressed; torch.save only stores", err);
	if (s.size != s.comp_size || s.size > z->f->size - place)
		return bad(z, s.name, "its size is wrong", err);
	*e = (struct entry){ s.name, strlen(s.name), i, (size_t)s.size, z->f->data + place };
	return LENS_OK;
}

/* Like torch, takes the archive's own name from the first entry. */
static enum lens_status strip_prefix(struct archive *z, struct lens_error *err)
{
	const char *first = z->entry[0].name, *slash = strchr(first, '/');
	size_t i, n = slash ? (size_t)(slash - first) + 1 : 0;

	for (i = 0; i < z->n; i++) {
		struct entry *e = &z->entry[i];

		if (!n || e->len < n || memcmp(e->name, first, n) != 0)
			return bad(z, e->name, "torch.save keeps all of them in one folder",
				   err);
		e->name += n;
		e->len -= n;
	}
	return LENS_OK;
}

static enum lens_status read_entries(struct archive *z, struct lens_error *err)
{
	zip_int64_t n = zip_get_num_entries(z->zip, 0);
	struct lens_zip_places at = { .data = z->f->data, .size = z->f->size };
	size_t i, place;

	if (n <= 0)
		return lens_error_at(err, LENS_ERR_FORMAT, z->f->path, 0, 0,
				     "zip archive: it has no entries");
	z->n = (size_t)n;
	z->entry = lens_calloc(z->n, sizeof(*z->entry));
	if (!z->entry)
		return lens_error_nomem(err, z->n, sizeof(*z->entry));
	for (i = 0; i < z->n; i++) {
		if (!lens_zip_next_place(&at, &place))
			return lens_error_at(err, LENS_ERR_FORMAT, z->f->path, 0, 0,
					     "zip archive: entry %zu is not where its "
					     "directory says (damaged or truncated?)",
					     i);
		LENS_TRY(read_entry(z, i, place, err));
	}
	LENS_TRY(strip_prefix(z, err));
	qsort(z->entry, z->n, sizeof(*z->entry), by_name);
	for (i = 1; i < z->n; i++) {
		if (!by_name(&z->entry[i - 1], &z->entry[i]))
			return bad(z, z->entry[i].name, "it appears twice", err);
	}
	return LENS_OK;
}

static enum lens_status open_archive(struct archive *z, struct lens_error *err)
{
	zip_error_t e;
	zip_source_t *source;

	zip_error_init(&e);
	source = zip_source_buffer_create(z->f->data, z->f->size, 0, &e);
	if (!source)
		return told(z->f, &e, err);
	z->zip = zip_open_from_source(source, ZIP_RDONLY, &e);
	if (!z->zip) {
		zip_source_free(source);
		return told(z->f, &e, err);
	}
	return read_entries(z, err);
}

static void close_archive(struct archive *z)
{
	if (z->zip)
		zip_discard(z->zip);
	lens_free(z->entry);
	lens_buf_release(&z->key);
}

static const struct entry *find(const struct archive *z, const char *name, size_t n)
{
	const struct entry key = { .name = name, .len = n };

	return bsearch(&key, z->entry, z->n, sizeof(*z->entry), by_name);
}

/*
 * libzip checks the CRC-32 on a read past the end. What it reads must be what is at the
 * entry's place in the map.
 */
static bool same_bytes(zip_file_t *file, const struct entry *e)
{
	unsigned char part[16384], more;
	size_t done = 0;

	while (done < e->size) {
		zip_int64_t n = zip_fread(file, part, lens_min(sizeof(part), e->size - done));

		if (n <= 0 || memcmp(part, e->data + done, (size_t)n) != 0)
			return false;
		done += (size_t)n;
	}
	return zip_fread(file, &more, 1) == 0;
}

static enum lens_status check_bytes(const struct archive *z, const struct entry *e,
				    struct lens_error *err)
{
	zip_file_t *file = zip_fopen_index(z->zip, e->index, 0);
	bool good = file && same_bytes(file, e);

	if (file)
		zip_fclose(file);
	return good ? LENS_OK : bad(z, e->name, "its bytes are damaged (checksum)", err);
}

/* --- what torch keeps in it ------------------------------------------------------------ */

/* The entry of a storage, with its size checked. */
static enum lens_status find_storage(const struct lens_torch_bin *b, struct archive *z,
				     const struct lens_torch_storage *s,
				     const struct entry **out, struct lens_error *err)
{
	z->key.len = 0;
	LENS_TRY(lens_buf_append(&z->key, "data/", 5, err));
	LENS_TRY(lens_buf_append(&z->key, s->is.key, s->is.key_len, err));
	*out = find(z, z->key.data, z->key.len);
	if (!*out)
		return lens_torch_bad_storage(b, s, "its data are missing", err);
	if ((*out)->size != lens_torch_bytes(s))
		return lens_torch_bad_storage(b, s, "its size is not what the pickle says",
					      err);
	return LENS_OK;
}

static enum lens_status map_storages(struct lens_torch_bin *b, struct archive *z,
				     struct lens_error *err)
{
	const struct entry *e;
	size_t i, bytes = 0;

	for (i = 0; i < b->n_storages; i++) {
		struct lens_torch_storage *s = &b->storage[i];

		if (!s->used)
			continue;
		LENS_TRY(find_storage(b, z, s, &e, err));
		if (!s->read)
			continue;
		bytes += e->size; /* at most the file's size each, and also in total */
		if (bytes > z->f->size)
			return lens_torch_bad(b, "zip archive: its entries overlap", err);
		LENS_TRY(check_bytes(z, e, err));
		s->data = e->data;
	}
	return LENS_OK;
}

static enum lens_status check_byte_order(const struct lens_torch_bin *b,
					 const struct archive *z, struct lens_error *err)
{
	const struct entry *e = find(z, "byteorder", 9);
	char order[8] = "";

	if (!e)
		return LENS_OK; /* before torch 2.1 */
	LENS_TRY(check_bytes(z, e, err));
	if (e->size < sizeof(order))
		memcpy(order, e->data, e->size);
	if (!strcmp(order, "big"))
		return lens_torch_bad(b,
				      "its numbers are big-endian; we read little-endian ones",
				      err);
	return strcmp(order, "little") ? lens_torch_bad(b, "its byteorder is unknown", err)
				       : LENS_OK;
}

static enum lens_status read_pickle(struct lens_torch_bin *b, const struct archive *z,
				    struct lens_error *err)
{
	const struct entry *e = find(z, "data.pkl", 8);

	if (find(z, "constants.pkl", 13))
		return lens_torch_bad(
			b, "a TorchScript archive holds code; we read state_dicts only", err);
	if (!e)
		return lens_torch_bad(
			b, "a zip archive without data.pkl: torch.save did not write it", err);
	if (e->size > MAX_PICKLE)
		return lens_torch_bad(b, "its data.pkl is larger than 256 MiB", err);
	LENS_TRY(check_byte_order(b, z, err));
	LENS_TRY(check_bytes(z, e, err));
	b->pickle.data = e->data;
	b->pickle.size = e->size;
	return lens_torch_read_object(b, err);
}

enum lens_status lens_torch_zip(struct lens_torch_bin *b, struct lens_error *err)
{
	struct archive z = { .f = &b->t->file[b->file] };
	enum lens_status st = open_archive(&z, err);

	if (st == LENS_OK)
		st = read_pickle(b, &z, err);
	if (st == LENS_OK)
		st = map_storages(b, &z, err);
	if (st == LENS_OK)
		st = lens_torch_add_tensors(b, err);
	close_archive(&z);
	return st;
}
