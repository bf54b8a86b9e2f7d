/*
 * store/join_strings.c: copies rows of strings from the shards to the joined file, a block
 * of rows at a time.
 */
#include <string.h>

#include "store/join_private.h"

#define BLOCK_STRINGS ((size_t)4096)
#define BLOCK_BYTES ((size_t)1 << 20)

struct strings {
	struct lens_store *store;
	const struct lens_join_dataset *d;
	struct lens_join_progress *progress;
	size_t width, part_width; /* strings per row, in the joined file and in this shard */
	size_t row;               /* of the first string held */
	size_t column;            /* of the shard's next string */
	size_t n, cap;            /* strings held */
	struct lens_buf text;     /* those strings, each with its NUL */
	size_t *start;            /* [cap] in text */
	const char **str;         /* [cap] */
};

static enum lens_status flush(struct strings *w, struct lens_error *err)
{
	size_t i, rows = w->n / w->width;

	if (!rows)
		return LENS_OK;
	for (i = 0; i < w->n; i++)
		w->str[i] = w->text.data + w->start[i];
	LENS_TRY(lens_store_write_strings(w->store, w->d->id, w->row, rows, w->str, err));
	LENS_TRY(lens_join_advance(w->progress, w->text.len, err));
	w->row += rows;
	w->n = 0;
	w->text.len = 0;
	return LENS_OK;
}

static enum lens_status hold(struct strings *w, const char *str, struct lens_error *err)
{
	w->start[w->n++] = w->text.len;
	return lens_buf_append(&w->text, str, strlen(str) + 1, err);
}

static enum lens_status take(void *ctx, const char *str, struct lens_error *err)
{
	struct strings *w = ctx;
	size_t i;

	LENS_TRY(hold(w, str, err));
	if (++w->column < w->part_width)
		return LENS_OK;
	w->column = 0;
	for (i = w->part_width; i < w->width; i++)
		LENS_TRY(hold(w, "", err));
	if (w->n + w->width <= w->cap && w->text.len < BLOCK_BYTES)
		return LENS_OK;
	return flush(w, err);
}

static enum lens_status copy_shard(struct strings *w, const struct lens_joined *j, size_t shard,
				   struct lens_error *err)
{
	struct lens_h5_dataset d;
	struct lens_h5_file f;
	enum lens_status st;
	int i;

	LENS_TRY(lens_h5_open(j->shard[shard].file, &f, err));
	st = lens_h5_dataset_open(&f, w->d->path, &d, err);
	if (st == LENS_OK) {
		for (i = 0; i < d.rank; i++) {
			if (d.rank != w->d->rank || d.dtype != LENS_STR ||
			    d.extent[i] != lens_join_part(j, w->d, shard, i))
				st = lens_error_at(err, LENS_ERR_FORMAT, j->shard[shard].file,
						   0, 0, "dataset '%.600s': changed meanwhile",
						   w->d->path);
		}
		w->part_width = w->d->rank == 2 ? lens_join_part(j, w->d, shard, 1) : 1;
		w->column = 0;
		if (st == LENS_OK && w->part_width)
			st = lens_h5_strings(&f, &d, take, w, err);
		lens_h5_dataset_close(&d);
	}
	LENS_TRY(lens_h5_finish(&f, st, err));
	return flush(w, err);
}

enum lens_status lens_join_copy_strings(struct lens_store *s, const struct lens_joined *j,
					const struct lens_join_dataset *d,
					struct lens_join_progress *p, struct lens_error *err)
{
	struct strings w = { .store = s, .d = d, .progress = p };
	size_t shard, n = d->along ? j->n_shards : 1;
	enum lens_status st = LENS_OK;

	w.width = d->rank == 2 ? lens_join_extent(j, d, 1) : 1;
	if (!w.width)
		return LENS_OK;
	w.cap = lens_max(w.width, BLOCK_STRINGS);
	w.start = lens_calloc(w.cap, sizeof(*w.start));
	w.str = lens_calloc(w.cap, sizeof(*w.str));
	if (!w.start || !w.str)
		st = lens_error_nomem(err, w.cap, sizeof(*w.str));
	for (shard = 0; shard < n && st == LENS_OK; shard++) {
		w.row = d->along ? lens_join_first(j, d->dim[0], shard) : 0;
		st = copy_shard(&w, j, shard, err);
	}
	lens_buf_release(&w.text);
	lens_free(w.start);
	lens_free(w.str);
	return st;
}
