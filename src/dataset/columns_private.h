/*
 * dataset/columns_private.h: which field of a record is what.
 */
#ifndef LENS_DATASET_COLUMNS_PRIVATE_H
#define LENS_DATASET_COLUMNS_PRIVATE_H

#include "dataset/csv_private.h"
#include "h5lens/dataset.h"

#define LENS_NO_COLUMN SIZE_MAX

struct lens_columns {
	size_t n;    /* fields of a record */
	char **name; /* [n] */
	size_t prompt;
	size_t corrupted; /* or LENS_NO_COLUMN */
	size_t *answer;   /* [n_answers] */
	size_t read_pos;  /* or LENS_NO_COLUMN */
	size_t find;      /* the same; it may be any column, and counts as one of the others */
	size_t resample;  /* likewise */
	size_t place[2];  /* likewise */
	size_t n_other;   /* the columns that the options do not name */
	size_t *other;    /* [n_other] in file order */
	char **stored;    /* [n_other] their names as HDF5 links, no two alike */
};

/* Reads the header record. Release c even after an error. */
enum lens_status lens_columns_init(struct lens_columns *c, struct lens_csv_reader *r,
				   const struct lens_dataset_options *opt,
				   struct lens_error *err);
void lens_columns_release(struct lens_columns *c);

#endif
