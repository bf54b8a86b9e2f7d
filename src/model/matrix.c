/*
 * model/matrix.c: matrices that stay in their files. In: where a matrix's columns are, in
 * up to three tensors, as they are or transposed; out: any piece of it in float64. So
 * little of a model is in float64 at a time.
 */
#include "model/model_private.h"

enum lens_status lens_matrix_add(struct lens_matrix *m, struct lens_tensors *files,
				 const char *name, const size_t *shape,
				 const struct lens_matrix_part *part, struct lens_error *err)
{
	struct lens_matrix_part *p = &m->part[m->n_parts];

	if (m->n_parts == LENS_MATRIX_PARTS)
		return lens_error_set(err, LENS_ERR_INTERNAL, "a matrix of more than %d parts",
				      LENS_MATRIX_PARTS);
	*p = *part;
	LENS_TRY(lens_tensors_use(files, name, 2, shape, &p->t, err));
	m->n_parts++;
	m->files = files;
	m->rows = shape[part->transposed] - part->first_row;
	m->columns += part->columns;
	return LENS_OK;
}

/* Elements between neighbours along a dimension of a tensor. */
static size_t stride_of(const struct lens_tensor *t, int dimension)
{
	if (t->strided)
		return t->stride[dimension];
	return dimension ? 1 : t->shape[1];
}

static size_t column_in_file(const struct lens_matrix_part *p, size_t column)
{
	return p->first + column / p->group * p->stride + column % p->group;
}

/* Few enough rows that their lines of the cache stay there from column to column. */
#define ROWS 16

/* Along the columns, which lie together in the file. */
static bool read_transposed(const struct lens_matrix_part *p, const struct lens_piece *piece,
			    double *out, size_t ld)
{
	size_t down = stride_of(p->t, 1), across = stride_of(p->t, 0), i, row;
	bool finite = true;

	for (row = 0; row < piece->rows; row += ROWS) {
		struct lens_run_of r = { .step = down, .n = lens_min(ROWS, piece->rows - row) };

		for (i = 0; i < piece->columns; i++) {
			r.at = (piece->row + row) * down +
			       column_in_file(p, piece->column + i) * across;
			finite &= lens_tensor_values(p->t, &r, out + row * ld + i, ld);
		}
	}
	return finite;
}

static bool read_rows(const struct lens_matrix_part *p, const struct lens_piece *piece,
		      double *out, size_t ld)
{
	size_t down = stride_of(p->t, 0), across = stride_of(p->t, 1), i;
	struct lens_run_of r = { .step = across, .n = piece->columns };
	bool finite = true;

	for (i = 0; i < piece->rows; i++) {
		r.at = (piece->row + i) * down + column_in_file(p, piece->column) * across;
		finite &= lens_tensor_values(p->t, &r, out + i * ld, 1);
	}
	return finite;
}

enum lens_status lens_matrix_read(const struct lens_matrix *m, const struct lens_piece *p,
				  double *out, struct lens_error *err)
{
	size_t i, begin = 0, end, column;

	for (i = 0; i < m->n_parts; i++, begin = end) {
		const struct lens_matrix_part *part = &m->part[i];
		struct lens_piece of = *p; /* as rows and columns of the part */
		bool finite;

		end = begin + part->columns;
		if (p->column >= end || p->column + p->columns <= begin)
			continue;
		column = lens_max(p->column, begin);
		of.row += part->first_row;
		of.column = column - begin;
		of.columns = lens_min(p->column + p->columns, end) - column;
		finite = (part->transposed ? read_transposed
					   : read_rows)(part, &of, out + (column - p->column),
							p->columns);
		if (!finite)
			return lens_tensor_not_finite(m->files, part->t, err);
	}
	for (i = 0; m->scale > 0 && i < p->rows * p->columns; i++)
		out[i] *= m->scale;
	return LENS_OK;
}
