/*
 * model/matrix.c: matrices that stay in their files. In: where a matrix's columns are, in
 * up to three tensors, as they are, transposed, or head by head; out: any piece of it in
 * float64. So little of a model is in float64 at a time.
 */
#include "model/model_private.h"

/* Elements between neighbours along a dimension of a tensor. */
static size_t stride_of(const struct lens_tensor *t, int dimension)
{
	size_t n = 1;
	int i;

	if (t->strided)
		return t->stride[dimension];
	for (i = dimension + 1; i < t->rank; i++)
		n *= t->shape[i];
	return n;
}

/* Where its elements are, from which dimension of the tensor means what. */
static void place_part(struct lens_matrix_part *p)
{
	int rows = p->transposed, columns = !p->transposed;

	if (p->heads != LENS_NO_HEADS) {
		rows = 1;
		columns = 2;
	}
	p->down = stride_of(p->t, rows);
	p->across = stride_of(p->t, columns);
	p->column_step = p->stride * p->across;
	if (p->heads == LENS_HEADS_ACROSS) {
		p->group = p->t->shape[2];
		p->column_step = stride_of(p->t, 0);
	}
	p->row_group = p->heads == LENS_HEADS_DOWN ? p->t->shape[1] : SIZE_MAX;
	p->row_step = p->heads == LENS_HEADS_DOWN ? stride_of(p->t, 0) : 0;
}

enum lens_status lens_matrix_add(struct lens_matrix *m, struct lens_tensors *files,
				 const char *name, const size_t *shape,
				 const struct lens_matrix_part *part, struct lens_error *err)
{
	struct lens_matrix_part *p = &m->part[m->n_parts];
	int rank = part->heads == LENS_NO_HEADS ? 2 : 3;

	if (m->n_parts == LENS_MATRIX_PARTS)
		return lens_error_set(err, LENS_ERR_INTERNAL, "a matrix of more than %d parts",
				      LENS_MATRIX_PARTS);
	*p = *part;
	LENS_TRY(lens_tensors_use(files, name, rank, shape, &p->t, err));
	place_part(p);
	m->n_parts++;
	m->files = files;
	m->rows = p->heads == LENS_HEADS_DOWN     ? shape[0] * shape[1]
		  : p->heads == LENS_HEADS_ACROSS ? shape[1]
						  : shape[part->transposed] - part->first_row;
	m->columns += part->columns;
	return LENS_OK;
}

/* The element at the beginning of a row, and how far a column is from there. */
static size_t row_in_file(const struct lens_matrix_part *p, size_t row)
{
	return row / p->row_group * p->row_step + row % p->row_group * p->down;
}

static size_t column_in_file(const struct lens_matrix_part *p, size_t column)
{
	return (p->first + column % p->group) * p->across + column / p->group * p->column_step;
}

/* Few enough rows that their lines of the cache stay there from column to column. */
#define ROWS 16

/* Along the columns, which lie together in the file. */
static bool read_transposed(const struct lens_matrix_part *p, const struct lens_piece *piece,
			    double *out, size_t ld)
{
	bool finite = true;
	size_t i, row;

	for (row = 0; row < piece->rows; row += ROWS) {
		struct lens_run_of r = { .step = p->down,
					 .n = lens_min(ROWS, piece->rows - row) };

		for (i = 0; i < piece->columns; i++) {
			r.at = (piece->row + row) * p->down +
			       column_in_file(p, piece->column + i);
			finite &= lens_tensor_values(p->t, &r, out + row * ld + i, ld);
		}
	}
	return finite;
}

/* A group of columns at a time. */
static bool read_rows(const struct lens_matrix_part *p, const struct lens_piece *piece,
		      double *out, size_t ld)
{
	struct lens_run_of r = { .step = p->across };
	bool finite = true;
	size_t i, k;

	for (i = 0; i < piece->rows; i++) {
		for (k = 0; k < piece->columns; k += r.n) {
			size_t column = piece->column + k;

			r.n = lens_min(piece->columns - k, p->group - column % p->group);
			r.at = row_in_file(p, piece->row + i) + column_in_file(p, column);
			finite &= lens_tensor_values(p->t, &r, out + i * ld + k, 1);
		}
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
