/*
 * dataset/numbers_private.h: the kind of a column. h5lens/dataset.h has the functions
 * that read a cell.
 */
#ifndef LENS_DATASET_NUMBERS_PRIVATE_H
#define LENS_DATASET_NUMBERS_PRIVATE_H

#include "h5lens/dataset.h"

/* What the cells so far rule out; all zero at the beginning. */
struct lens_column_guess {
	bool not_int, not_real, filled;
};
void lens_column_guess_add(struct lens_column_guess *g, const char *text);
enum lens_column_kind lens_column_guess_kind(const struct lens_column_guess *g);

/* "" and NA, which are NaN in a column of numbers. */
bool lens_cell_is_missing(const char *text);

#endif
