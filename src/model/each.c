/*
 * model/each.c: independent parts of a model's loading, on several threads. In: their
 * number, what to do with one; out: its error, that of the first part that has one.
 */
#include "model/model_private.h"

enum lens_status lens_load_each(const struct lens_load_parts *parts, struct lens_error *err)
{
	struct lens_error first = LENS_ERROR_INIT;
	size_t i, failed = parts->n;

#pragma omp parallel for schedule(dynamic) num_threads((int)parts->threads)
	for (i = 0; i < parts->n; i++) {
		struct lens_error e = LENS_ERROR_INIT;

		if (parts->load(parts->ctx, i, &e) == LENS_OK)
			continue;
#pragma omp critical(lens_load_each)
		if (i < failed) {
			failed = i;
			first = e;
		}
	}
	return lens_error_pass(err, &first);
}
