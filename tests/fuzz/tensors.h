/* fuzz/tensors.h: a weight file from memory, for its two formats. */
#ifndef LENS_FUZZ_TENSORS_H
#define LENS_FUZZ_TENSORS_H

#include "fuzz/fuzz.h"

#include "model/model_private.h"

typedef enum lens_status (*fuzz_parse_fn)(struct lens_tensors *t, size_t file,
					  struct lens_error *err);

/* Every tensor as a family reads it; what it holds does not matter. */
static inline void fuzz_read_tensors(const struct lens_tensors *t)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		struct lens_tensor *x = &t->tensor[i];
		struct lens_tensors one = {
			.tensor = x, .n = 1, .file = t->file, .n_files = 1
		};
		struct lens_error err = LENS_ERROR_INIT;
		double *out = lens_calloc(x->n_elements, sizeof(*out));

		if (out)
			fuzz_check(lens_tensors_read(&one, x->name, x->rank, x->shape, out,
						     &err),
				   &err);
		lens_free(out);
	}
}

/* Parses data as a mapped file: without a copy, so that no byte past it goes unseen. */
static inline void fuzz_parse_tensors(fuzz_parse_fn parse, const uint8_t *data, size_t n)
{
	char path[] = "input";
	struct lens_mapped_file *file = lens_calloc(1, sizeof(*file));
	struct lens_tensors t = { .file = file, .n_files = 1 };
	struct lens_error err = LENS_ERROR_INIT;
	enum lens_status st;

	if (!file || !n) {
		lens_free(file);
		return; /* an empty file is never mapped */
	}
	*file = (struct lens_mapped_file){ .path = path,
					   .data = (unsigned char *)(uintptr_t)data,
					   .size = n };
	st = parse(&t, 0, &err);
	fuzz_check(st, &err);
	if (st == LENS_OK)
		fuzz_read_tensors(&t);
	file->path = NULL; /* neither is lens_tensors_release's to free */
	file->data = NULL;
	lens_tensors_release(&t);
}

#endif
