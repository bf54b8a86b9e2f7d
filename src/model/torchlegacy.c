/*
 * model/torchlegacy.c: the format that torch.save wrote before 1.6, and still does on
 * request. In: a mapped file; out: its tensors, whose data stays in the map.
 *
 * Five pickles (magic number, version, system, the object, the storages' keys),
 * then for each key an int64 number of elements and the data.
 */
#include "model/torchbin_private.h"

#include <stdlib.h>
#include <string.h>

static const unsigned char magic[10] = { 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
					 0x20, 0x6a, 0xa8, 0x50, 0x19 };

/* Reads one of the small pickles and checks it; *pos moves behind it. */
static enum lens_status small_pickle(struct lens_torch_bin *b, size_t *pos,
				     enum lens_status (*check)(struct lens_torch_bin *b,
							       const struct lens_pickle *p,
							       struct lens_error *err),
				     struct lens_error *err)
{
	struct lens_pickle p = { .path = b->pickle.path,
				 .data = b->pickle.data,
				 .size = b->pickle.size,
				 .pos = *pos };
	enum lens_status st = lens_pickle_load(&p, err);

	if (st == LENS_OK)
		st = check(b, &p, err);
	*pos = p.pos;
	lens_pickle_release(&p);
	return st;
}

static enum lens_status is_magic(struct lens_torch_bin *b, const struct lens_pickle *p,
				 struct lens_error *err)
{
	if (p->result.kind == LENS_P_LONG && p->result.n == sizeof(magic) &&
	    !memcmp(p->result.bytes, magic, sizeof(magic)))
		return LENS_OK;
	return lens_torch_bad(b, "a pickle without torch.save's magic number", err);
}

static enum lens_status is_version(struct lens_torch_bin *b, const struct lens_pickle *p,
				   struct lens_error *err)
{
	if (p->result.kind == LENS_P_INT && p->result.i == 1001)
		return LENS_OK;
	return lens_torch_bad(b, "its format is not version 1001", err);
}

static enum lens_status is_system(struct lens_torch_bin *b, const struct lens_pickle *p,
				  struct lens_error *err)
{
	const struct lens_pickle_object *o = p->result.object;
	size_t i, n = p->result.kind == LENS_P_DICT ? o->n : 0;

	for (i = 0; i < n; i += 2) {
		if (!lens_pickle_is_text(&o->item[i], "little_endian"))
			continue;
		if (o->item[i + 1].kind == LENS_P_BOOL && o->item[i + 1].i)
			return LENS_OK;
		return lens_torch_bad(b,
				      "its numbers are big-endian; we read little-endian ones",
				      err);
	}
	return lens_torch_bad(b, "it does not say which byte order it has", err);
}

/* A storage's data: the number of elements, then the elements. */
static enum lens_status map_storage(struct lens_torch_bin *b, struct lens_torch_storage *s,
				    size_t *pos, struct lens_error *err)
{
	const unsigned char *from = b->pickle.data + *pos;
	size_t left = b->pickle.size - *pos, bytes = lens_torch_bytes(s);
	uint64_t n = 0;
	int i;

	if (s->data)
		return lens_torch_bad_storage(b, s, "its data appear twice", err);
	if (left < 8 || left - 8 < bytes)
		return lens_torch_bad_storage(
			b, s, "its data lie past the end of the file (truncated?)", err);
	for (i = 7; i >= 0; i--)
		n = n << 8 | from[i];
	if (n != s->is.n_elements)
		return lens_torch_bad_storage(b, s, "its size is not what the pickle says",
					      err);
	s->data = from + 8;
	*pos += 8 + bytes;
	return LENS_OK;
}

/* The keys, in the order of their data, which follows. */
static enum lens_status map_storages(struct lens_torch_bin *b, const struct lens_pickle *p,
				     struct lens_error *err)
{
	const struct lens_pickle_object *keys = p->result.object;
	size_t i, pos = p->pos;

	if (p->result.kind != LENS_P_LIST)
		return lens_torch_bad(b, "its storages' keys are not a list", err);
	for (i = 0; i < keys->n; i++) {
		const struct lens_pickle_value *v = &keys->item[i];
		struct lens_torch_storage key = { .is = { v->bytes, v->n, NULL, 0 } },
					  *s = NULL;

		if (v->kind == LENS_P_TEXT && b->n_storages)
			s = bsearch(&key, b->storage, b->n_storages, sizeof(key),
				    lens_torch_by_key);
		if (!s)
			return lens_torch_bad(b, "data of a storage that no tensor has", err);
		LENS_TRY(map_storage(b, s, &pos, err));
	}
	for (i = 0; i < b->n_storages; i++) {
		if (b->storage[i].used && !b->storage[i].data)
			return lens_torch_bad_storage(b, &b->storage[i], "its data are missing",
						      err);
	}
	return LENS_OK;
}

enum lens_status lens_torch_legacy(struct lens_torch_bin *b, struct lens_error *err)
{
	const struct lens_mapped_file *f = &b->t->file[b->file];
	size_t pos = 0;

	b->pickle.data = f->data;
	b->pickle.size = f->size;
	LENS_TRY(small_pickle(b, &pos, is_magic, err));
	LENS_TRY(small_pickle(b, &pos, is_version, err));
	LENS_TRY(small_pickle(b, &pos, is_system, err));
	b->pickle.pos = pos;
	LENS_TRY(lens_torch_read_object(b, err));
	pos = b->pickle.pos;
	LENS_TRY(small_pickle(b, &pos, map_storages, err));
	return lens_torch_add_tensors(b, err);
}
