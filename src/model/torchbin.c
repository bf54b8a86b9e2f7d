/*
 * model/torchbin.c: the tensors of a pytorch_model.bin. In: a mapped file that
 * torch.save wrote, as a zip archive or in the format before 1.6; out: its
 * tensors, with every extent checked against its storage's real size.
 *
 * Formats (torch/serialization.py): the archive has data.pkl, byteorder and, for each
 * storage, an uncompressed entry data/<key>. The older format is five pickles (magic
 * number, version, system, the object, the storages' keys), then for each key an int64
 * number of elements and the data.
 */
#include "model/torchbin_private.h"

#include <stdlib.h>
#include <string.h>

/* By how much shared and expanded tensors may be larger than their file. */
#define EXPANSION 16
#define EXPANSION_SLACK ((size_t)16 << 20)

static const char *path_of(const struct lens_torch_bin *b)
{
	return b->t->file[b->file].path;
}

enum lens_status lens_torch_bad(const struct lens_torch_bin *b, const char *what,
				struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0, "%s", what);
}

enum lens_status lens_torch_bad_storage(const struct lens_torch_bin *b,
					const struct lens_torch_storage *s, const char *what,
					struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0, "storage \"%s\": %s",
			     lens_printable(s->is.key, s->is.key_len).text, what);
}

static enum lens_status bad_tensor(const struct lens_torch_bin *b,
				   const struct lens_pickle_value *name, const char *what,
				   struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0, "tensor \"%s\": %s",
			     lens_printable(name->bytes, name->n).text, what);
}

/* --- the dict of tensors ------------------------------------------------------------ */

/* The object is a dict of tensors, or contains one as "state_dict". */
static enum lens_status find_tensors(struct lens_torch_bin *b, struct lens_error *err)
{
	const struct lens_pickle_value *root = &b->pickle.result, *v;
	const struct lens_pickle_object *found = NULL;
	size_t i;

	if (root->kind != LENS_P_DICT)
		return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0,
				     "it holds %s, not a dict of tensors",
				     lens_pickle_kind_name(root));
	b->tensors = root->object;
	for (i = 0; i < root->object->n; i += 2) {
		v = &root->object->item[i];
		if (!lens_pickle_is_text(v, "state_dict") || v[1].kind != LENS_P_DICT)
			continue;
		if (found)
			return lens_torch_bad(b, "it holds two dicts named \"state_dict\"",
					      err);
		found = v[1].object;
	}
	if (found)
		b->tensors = found;
	if (b->tensors->n / 2 > LENS_PICKLE_TENSORS)
		return lens_torch_bad(b, "it names more than 262144 tensors", err);
	return LENS_OK;
}

/* Is it a name without control characters? */
static bool plain_name(const struct lens_pickle_value *v)
{
	size_t i;

	for (i = 0; i < v->n && v->bytes[i] >= 0x20 && v->bytes[i] != 0x7f; i++)
		;
	return v->n && i == v->n;
}

static enum lens_status check_entry(const struct lens_torch_bin *b,
				    const struct lens_pickle_value *name,
				    const struct lens_pickle_value *v, struct lens_error *err)
{
	if (name->kind != LENS_P_TEXT)
		return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0,
				     "a key of its dict is %s, not a tensor's name",
				     lens_pickle_kind_name(name));
	if (!plain_name(name))
		return bad_tensor(b, name, "its name is empty or has control characters", err);
	if (v->kind == LENS_P_TENSOR)
		return LENS_OK;
	return lens_error_at(err, LENS_ERR_FORMAT, path_of(b), 0, 0,
			     "entry \"%s\" is %s, not a tensor%s",
			     lens_printable(name->bytes, name->n).text,
			     lens_pickle_kind_name(v),
			     v->kind == LENS_P_DICT ? " (only \"state_dict\" is looked into)"
						    : "");
}

/* --- storages -------------------------------------------------------------------------- */

int lens_torch_by_key(const void *a, const void *b)
{
	const struct lens_pickle_storage *x = &((const struct lens_torch_storage *)a)->is;
	const struct lens_pickle_storage *y = &((const struct lens_torch_storage *)b)->is;

	return lens_bytes_compare(x->key, x->key_len, y->key, y->key_len);
}

static int by_key_and_index(const void *a, const void *b)
{
	const struct lens_torch_storage *x = a, *y = b;
	int order = lens_torch_by_key(a, b);

	return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* A storage is described again for each of its tensors: merges those with the same key. */
static enum lens_status merge_storages(struct lens_torch_bin *b, struct lens_error *err)
{
	const struct lens_pickle *p = &b->pickle;
	size_t i, n = 0;

	b->storage = lens_calloc(p->n_storages, sizeof(*b->storage));
	b->storage_of = lens_calloc(p->n_storages, sizeof(*b->storage_of));
	if (!b->storage || !b->storage_of)
		return lens_error_nomem(err, p->n_storages, sizeof(*b->storage));
	for (i = 0; i < p->n_storages; i++)
		b->storage[i] = (struct lens_torch_storage){ .is = p->storage[i], .index = i };
	if (p->n_storages)
		qsort(b->storage, p->n_storages, sizeof(*b->storage), by_key_and_index);
	for (i = 0; i < p->n_storages; i++) {
		struct lens_torch_storage s = b->storage[i],
					  *last = n ? &b->storage[n - 1] : NULL;

		b->storage_of[s.index] = n;
		if (!last || lens_torch_by_key(&s, last) != 0)
			b->storage[n++] = s;
		else if (s.is.type != last->is.type || s.is.n_elements != last->is.n_elements)
			return lens_torch_bad_storage(b, &s, "it is described in two ways",
						      err);
		else
			b->storage_of[s.index] = n - 1;
	}
	b->n_storages = n;
	return LENS_OK;
}

/* Marks the storages that the tensors need. */
static enum lens_status mark_used(struct lens_torch_bin *b, struct lens_error *err)
{
	const struct lens_pickle_value *v = b->tensors->item;
	size_t i;

	for (i = 0; i < b->tensors->n; i += 2) {
		const struct lens_pickle_tensor *t;
		struct lens_torch_storage *s;

		LENS_TRY(check_entry(b, &v[i], &v[i + 1], err));
		t = &b->pickle.tensor[v[i + 1].index];
		s = &b->storage[b->storage_of[t->storage]];
		s->used = true;
		s->read = s->read || t->type->type != LENS_T_OTHER;
	}
	return LENS_OK;
}

/* A storage's size in bytes; lens_torch_persistent has checked that it fits. */
size_t lens_torch_bytes(const struct lens_torch_storage *s)
{
	return s->is.n_elements * s->is.type->size;
}

/* --- tensors ----------------------------------------------------------------------------- */

/*
 * Checks sizes and strides of a tensor, whose last element must lie in the storage.
 * *first is the byte offset of its first element. Returns what is wrong, or NULL.
 */
static const char *check_extent(const struct lens_pickle_tensor *p, size_t bytes,
				struct lens_tensor *t, size_t *first)
{
	size_t last = (size_t)p->offset, dense = 1, reach;
	int d;

	if (p->offset < 0)
		return "its offset in the storage is negative";
	t->n_elements = 1;
	for (d = p->rank - 1; d >= 0; d--) {
		if (p->shape[d] < 0 || p->stride[d] < 0)
			return "a dimension or stride is negative";
		t->shape[d] = (size_t)p->shape[d];
		t->stride[d] = (size_t)p->stride[d];
		if (!lens_size_mul(t->n_elements, t->shape[d], &t->n_elements))
			return "its size overflows";
		t->strided = t->strided || (t->shape[d] > 1 && t->stride[d] != dense);
		dense = t->n_elements;
	}
	*first = 0;
	if (!t->n_elements)
		return NULL;
	for (d = 0; d < p->rank; d++) {
		if (!lens_size_mul(t->shape[d] - 1, t->stride[d], &reach) ||
		    !lens_size_add(last, reach, &last))
			return "its strides overflow";
	}
	if (last >= bytes / p->type->size)
		return "its elements lie past the end of its storage";
	*first = (size_t)p->offset * p->type->size;
	return NULL;
}

/* Is it a small file that claims to be a large model, by sharing and expanding? */
static bool expands_too_far(struct lens_torch_bin *b, const struct lens_tensor *t,
			    size_t element)
{
	size_t bytes, most;

	if (!lens_size_mul(t->n_elements, element, &bytes) ||
	    !lens_size_add(b->total, bytes, &b->total))
		return true;
	most = b->t->file[b->file].size;
	return !lens_size_mul(most, EXPANSION, &most) ||
	       !lens_size_add(most, EXPANSION_SLACK, &most) || b->total > most;
}

static enum lens_status add_tensor(struct lens_torch_bin *b,
				   const struct lens_pickle_value *name,
				   const struct lens_pickle_tensor *p, struct lens_error *err)
{
	const struct lens_torch_storage *s = &b->storage[b->storage_of[p->storage]];
	struct lens_tensor *t = lens_tensors_add(b->t);
	const char *wrong;
	size_t first;

	if (!t)
		return lens_error_nomem(err, 1, sizeof(*t));
	t->name = lens_calloc((size_t)name->n + 1, 1);
	if (!t->name)
		return lens_error_nomem(err, (size_t)name->n + 1, 1);
	memcpy(t->name, name->bytes, name->n);
	t->type = p->type->type;
	memcpy(t->type_name, p->type->name, strlen(p->type->name) + 1);
	t->file = b->file;
	t->rank = p->rank;
	wrong = check_extent(p, lens_torch_bytes(s), t, &first);
	if (!wrong && t->type != LENS_T_OTHER && expands_too_far(b, t, p->type->size))
		wrong = "with it, the tensors are far larger than the file";
	if (wrong)
		return bad_tensor(b, name, wrong, err);
	t->data = s->data ? s->data + first : NULL;
	return LENS_OK;
}

enum lens_status lens_torch_add_tensors(struct lens_torch_bin *b, struct lens_error *err)
{
	const struct lens_pickle_value *v = b->tensors->item;
	size_t i;

	for (i = 0; i < b->tensors->n; i += 2)
		LENS_TRY(add_tensor(b, &v[i], &b->pickle.tensor[v[i + 1].index], err));
	return LENS_OK;
}

/* Reads the object's pickle and lists its storages. */
enum lens_status lens_torch_read_object(struct lens_torch_bin *b, struct lens_error *err)
{
	LENS_TRY(lens_pickle_load(&b->pickle, err));
	LENS_TRY(find_tensors(b, err));
	LENS_TRY(merge_storages(b, err));
	return mark_used(b, err);
}

/* --- which format it is ------------------------------------------------------------------ */

enum lens_status lens_torchbin_parse(struct lens_tensors *t, size_t file,
				     struct lens_error *err)
{
	const struct lens_mapped_file *f = &t->file[file];
	struct lens_torch_bin b = { .t = t, .file = file, .pickle = { .path = f->path } };
	enum lens_status st;

	if (f->size >= 4 && !memcmp(f->data, "PK\3\4", 4))
		st = lens_torch_zip(&b, err);
	else if (f->size >= 2 && f->data[0] == 0x80 && f->data[1] <= 5)
		st = lens_torch_legacy(&b, err);
	else if (f->size >= 262 && !memcmp(f->data + 257, "ustar", 5))
		st = lens_torch_bad(
			&b, "a tar archive of torch before 0.1.10: load it and save it again",
			err);
	else
		st = lens_torch_bad(&b, "not a file that torch.save wrote", err);
	lens_pickle_release(&b.pickle);
	lens_free(b.storage);
	lens_free(b.storage_of);
	return st;
}
