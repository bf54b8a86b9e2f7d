/*
 * store/gheap.c: reads HDF5's global heap. A collection is a header (GCOL,
 * version, size) and objects (index, size, bytes padded to 8); the last object has index
 * 0 and is the free space. See "Global Heap" in the HDF5 file format specification;
 * lengths and addresses are 8 bytes in our files.
 */
#include "store/gheap_private.h"

#include <errno.h>
#include <string.h>

#define HEADER 16

struct lens_gheap {
	struct lens_io *io;
	uint64_t at; /* address of the collection in image; 0: none */
	uint8_t *image;
	size_t size, cap;
	size_t n;      /* objects, numbered from 1 */
	size_t *start; /* [cap / HEADER] offsets of their headers */
	char *text;
	size_t text_cap;
};

static uint64_t little(const uint8_t *p, int bytes)
{
	uint64_t v = 0;
	int i;

	for (i = bytes; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

enum lens_status lens_gheap_create(struct lens_io *io, struct lens_gheap **out,
				   struct lens_error *err)
{
	struct lens_gheap *h = lens_calloc(1, sizeof(*h));

	if (!h)
		return lens_error_nomem(err, 1, sizeof(*h));
	h->io = io;
	*out = h;
	return LENS_OK;
}

void lens_gheap_destroy(struct lens_gheap *h)
{
	if (!h)
		return;
	lens_free(h->image);
	lens_free(h->start);
	lens_free(h->text);
	lens_free(h);
}

static enum lens_status damaged(const struct lens_gheap *h, struct lens_error *err)
{
	if (h->io->err)
		return lens_error_sys(err, h->io->err, h->io->path, h->io->op);
	return lens_error_at(err, LENS_ERR_FORMAT, h->io->path, 0, 0,
			     "a damaged collection of strings");
}

/*
 * Nothing is ever deleted in our files, so the objects are numbered 1, 2, 3… without gaps,
 * and the free space extends exactly to the end. Checking this catches any single wrong
 * size or index.
 */
static bool index_objects(struct lens_gheap *h)
{
	size_t pos = HEADER;
	uint64_t number, size;

	h->n = 0;
	h->start[0] = 0;
	while (h->size - pos >= HEADER) {
		number = little(h->image + pos, 2);
		size = little(h->image + pos + 8, 8);
		if (!number)
			return size == h->size - pos;
		if (number != h->n + 1 || size > h->size - pos - HEADER)
			return false;
		size = (size + 7) & ~(uint64_t)7;
		if (size > h->size - pos - HEADER)
			return false;
		h->n = (size_t)number;
		h->start[h->n] = pos;
		pos += HEADER + (size_t)size;
	}
	return true;
}

/* Makes room for a collection of size bytes; number 0 of start is the header. */
static enum lens_status make_room(struct lens_gheap *h, size_t size, struct lens_error *err)
{
	uint8_t *image;
	size_t *start;

	if (size <= h->cap)
		return LENS_OK;
	image = lens_realloc(h->image, size, 1);
	if (!image)
		return lens_error_nomem(err, size, 1);
	h->image = image;
	start = lens_realloc(h->start, size / HEADER, sizeof(*start));
	if (!start)
		return lens_error_nomem(err, size / HEADER, sizeof(*start));
	h->start = start;
	h->cap = size;
	return LENS_OK;
}

static enum lens_status load(struct lens_gheap *h, uint64_t at, struct lens_error *err)
{
	uint8_t head[HEADER];
	uint64_t size;

	if (at && h->at == at)
		return LENS_OK;
	h->at = 0;
	if (!at || at > h->io->size || !lens_io_read(h->io, at, head, sizeof(head)))
		return damaged(h, err);
	size = little(head + 8, 8);
	if (memcmp(head, "GCOL\1\0\0", 8) != 0 || size < HEADER || size > h->io->size - at)
		return damaged(h, err);
	LENS_TRY(make_room(h, (size_t)size, err));
	h->size = (size_t)size;
	if (!lens_io_read(h->io, at, h->image, h->size) || !index_objects(h))
		return damaged(h, err);
	h->at = at;
	return LENS_OK;
}

enum lens_status lens_gheap_string(struct lens_gheap *h,
				   const uint8_t ref[LENS_GHEAP_REF_BYTES], const char **out,
				   struct lens_error *err)
{
	size_t length = (size_t)little(ref, 4), number = (size_t)little(ref + 12, 4);
	const uint8_t *object;
	char *text;

	*out = "";
	if (!length)
		return LENS_OK;
	LENS_TRY(load(h, little(ref + 4, 8), err));
	object = h->image + h->start[number <= h->n ? number : 0];
	if (!number || number > h->n || little(object + 8, 8) != length)
		return damaged(h, err);
	if (length >= h->text_cap) {
		text = lens_realloc(h->text, length + 1, 1);
		if (!text)
			return lens_error_nomem(err, length + 1, 1);
		h->text = text;
		h->text_cap = length + 1;
	}
	memcpy(h->text, object + HEADER, length);
	h->text[length] = '\0';
	*out = h->text;
	return LENS_OK;
}

/*
 * HDF5 reads the first 4096 bytes of a collection, and the rest if it is larger, as raw
 * data, like chunks.
 */
bool lens_gheap_admit(struct lens_io *io, uint64_t at, size_t n)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_gheap *h = NULL;
	enum lens_status st;
	uint8_t head[4];

	if (at > io->heap_at && at < io->heap_end)
		return true; /* the rest of one that was admitted */
	if (n < sizeof(head) || !lens_io_read(io, at, head, sizeof(head)) ||
	    memcmp(head, "GCOL", 4) != 0)
		return true;
	st = lens_gheap_create(io, &h, &err);
	if (st == LENS_OK) {
		st = load(h, at, &err);
		if (st == LENS_OK) {
			io->heap_at = at;
			io->heap_end = at + h->size;
		}
		lens_gheap_destroy(h);
	}
	if (st == LENS_ERR_NOMEM)
		lens_io_fail(io, ENOMEM, "read strings");
	return st == LENS_OK;
}
