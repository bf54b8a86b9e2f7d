/*
 * model/torchbin_private.h: what the readers of pytorch_model.bin share: torchbin.c (the
 * tensors), torchzip.c with zipplace.c and torchlegacy.c (their storages' data).
 */
#ifndef LENS_MODEL_TORCHBIN_PRIVATE_H
#define LENS_MODEL_TORCHBIN_PRIVATE_H

#include "model/pickle_private.h"

/* One storage; tensors may share it. */
struct lens_torch_storage {
	struct lens_pickle_storage is;
	size_t index;              /* in the pickle; the first one with this key */
	bool used, read;           /* by a tensor; by one whose values we read */
	const unsigned char *data; /* once found */
};

struct lens_torch_bin {
	struct lens_tensors *t;
	size_t file;
	struct lens_pickle pickle;
	const struct lens_pickle_object *tensors; /* name, tensor, name, tensor … */
	struct lens_torch_storage *storage;       /* sorted by key, each once */
	size_t *storage_of;                       /* [pickle.n_storages]: index into storage */
	size_t n_storages;
	size_t total; /* bytes of the tensors whose values we read */
};

/* Reads the object's pickle, at b->pickle.pos, and lists its storages. */
enum lens_status lens_torch_read_object(struct lens_torch_bin *b, struct lens_error *err);
/* Adds the tensors, once the storages' data are known. */
enum lens_status lens_torch_add_tensors(struct lens_torch_bin *b, struct lens_error *err);
/* For qsort and bsearch over b->storage. */
int lens_torch_by_key(const void *a, const void *b);
size_t lens_torch_bytes(const struct lens_torch_storage *s);

enum lens_status lens_torch_bad(const struct lens_torch_bin *b, const char *what,
				struct lens_error *err);
enum lens_status lens_torch_bad_storage(const struct lens_torch_bin *b,
					const struct lens_torch_storage *s, const char *what,
					struct lens_error *err);

/* The two formats: they read the object, find the data and add the tensors. */
enum lens_status lens_torch_zip(struct lens_torch_bin *b, struct lens_error *err);
enum lens_status lens_torch_legacy(struct lens_torch_bin *b, struct lens_error *err);

/* Where the entries of a mapped zip archive have their bytes (zipplace.c). */
struct lens_zip_places {
	const unsigned char *data;
	size_t size;
	size_t next; /* the next entry's record in the directory; 0: not begun */
};
/* The next entry's, in the order in which libzip counts them. False: not in the file. */
bool lens_zip_next_place(struct lens_zip_places *z, size_t *place);

#endif
