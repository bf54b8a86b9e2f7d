/* export_private.h: one CSV file that is being written. */
#ifndef PIPELINE_EXPORT_PRIVATE_H
#define PIPELINE_EXPORT_PRIVATE_H

#include "pipeline/pipeline_private.h"

#define LENS_NO_LENGTH SIZE_MAX

/* A cell of each row, with the name that heads its column. */
struct lens_sheet_cell {
	const struct lens_content_entry *e;
	size_t id, index; /* in lens_rows; which cell of its row */
	char *name;
};

/* One CSV file. */
struct lens_sheet {
	const struct lens_content *c;
	const struct lens_export_options *opt;
	struct lens_rows *rows;
	struct lens_sheet_cell *cell; /* columns first, then tables */
	size_t n, cap, n_lead;
	struct lens_cells *block; /* [data sets in rows] */
	size_t n_ids;
	const struct lens_content_entry *t; /* in a long form, else NULL */
	size_t t_id, length_id;
	struct lens_buf out;
};

/* Which columns it has, and which data sets are read for them (export_columns.c). */
enum lens_status lens_sheet_choose(struct lens_sheet *s, struct lens_error *err);

#endif
