/*
 * store/join_shape.c: where the shards' data goes in the joined file, and the shape of its
 * chunks.
 */
#include <stdint.h>

#include "store/join_private.h"

#define LEAST_CHUNK ((size_t)1 << 20)
#define MOST_CHUNK ((size_t)4 << 20)
#define MANY_CHUNKS ((size_t)1 << 20)

size_t lens_join_extent(const struct lens_joined *j, const struct lens_join_dataset *d,
			int axis)
{
	return j->dim[d->dim[axis]].extent;
}

size_t lens_join_part(const struct lens_joined *j, const struct lens_join_dataset *d,
		      size_t shard, int axis)
{
	return j->dim[d->dim[axis]].part[shard];
}

size_t lens_join_first(const struct lens_joined *j, size_t dim, size_t shard)
{
	size_t i, first = 0;

	for (i = 0; i < shard; i++)
		first += j->dim[dim].part[i];
	return first;
}

size_t lens_join_first_token(const struct lens_joined *j, size_t shard)
{
	return j->token < j->n_dims ? lens_join_first(j, j->token, shard) : 0;
}

bool lens_join_mapping(const struct lens_joined *j, const struct lens_join_dataset *d,
		       size_t shard, struct lens_store_part *part)
{
	int axis;

	*part = (struct lens_store_part){ .file = j->shard[shard].name };
	part->start[0] = lens_join_first(j, d->dim[0], shard);
	for (axis = 0; axis < d->rank; axis++) {
		part->extent[axis] = lens_join_part(j, d, shard, axis);
		if (!part->extent[axis])
			return false;
	}
	return true;
}

static size_t div_up(size_t a, size_t b)
{
	return a / b + (a % b != 0);
}

static size_t grid_of(const struct lens_joined *j, const struct lens_join_dataset *d,
		      const size_t *chunk)
{
	size_t n = 1;
	int i;

	for (i = 0; i < d->rank; i++) {
		if (!lens_size_mul(n, lens_join_extent(j, d, i) / chunk[i] + 1, &n))
			return SIZE_MAX;
	}
	return n;
}

/*
 * The first shard's chunks, which suit the lengths of prompts: larger ones would hold more
 * padding. They get more rows only if one holds all rows of a shard, or if there would be
 * too many chunks.
 */
void lens_join_chunk(const struct lens_joined *j, const struct lens_join_dataset *d,
		     size_t *chunk)
{
	size_t bytes = lens_dtype_size(d->dtype), rows = lens_join_extent(j, d, 0), extent;
	bool all = d->chunk[0] >= lens_join_part(j, d, 0, 0);
	int i;

	for (i = d->rank - 1; i >= 0; i--) {
		extent = lens_join_extent(j, d, i);
		chunk[i] = d->chunk[i] < extent ? (size_t)d->chunk[i] : extent;
		if (!chunk[i])
			chunk[i] = 1;
		chunk[i] = lens_min(chunk[i], MOST_CHUNK / bytes);
		bytes *= chunk[i];
	}
	while (chunk[0] < rows && bytes <= MOST_CHUNK / 2 &&
	       ((all && bytes < LEAST_CHUNK) || grid_of(j, d, chunk) > MANY_CHUNKS)) {
		bytes *= 2;
		chunk[0] *= 2;
	}
	if (rows && chunk[0] > rows)
		chunk[0] = rows;
	/* As many tokens in each: without padding, nor much in the last one. */
	if (rows && d->dim[0] == j->token)
		chunk[0] = div_up(rows, div_up(rows, chunk[0]));
}
