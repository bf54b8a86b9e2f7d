/*
 * plan/bytes.c: the bytes of a file, exactly, before anything is computed. In: a plan
 * with its shapes; out: what each dataset holds of real tokens, and the chunks that
 * are written for it.
 */
#include "plan/plan_private.h"

uint64_t lens_row_bytes(const struct lens_planned *d, const struct lens_sizes *s)
{
	uint64_t n = lens_dtype_size(d->dtype);
	int i;

	for (i = 1; i < d->rank; i++)
		n *= lens_axis_extent(d->axis[i], s);
	return n;
}

/* Of a row: each answer's tokens, beside what is past their ends. */
static uint64_t answer_tokens(const struct lens_prompts *q, size_t row)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < q->n_answers; i++)
		sum += lens_answer_length(q, row, i);
	return sum;
}

/* A row holds as much as it would in a file where no prompt is longer. */
static uint64_t data_bytes(const struct lens_plan *p, const struct lens_planned *d)
{
	bool of_answers = d->axis[d->rank - 1] == LENS_AXIS_ANSWER_POS;
	struct lens_sizes s = p->sizes;
	uint64_t sum = 0;
	size_t row;

	for (row = 0; row < p->prompts->n_rows; row++) {
		s.n_pos = lens_prompt_length(p->prompts, row);
		s.n_slots = lens_row_tokens(p, row);
		/* At a prompt's last position no token follows that these tables could tell of.
		 */
		if (d->from == LENS_FROM_TABLE &&
		    lens_table_type((enum lens_table)d->source, &p->tables)->logits &
			    LENS_AT_NEXT_TOKEN)
			s.n_pos--;
		sum += of_answers ? answer_tokens(p->prompts, row) * lens_dtype_size(d->dtype)
				  : lens_row_bytes(d, &s) * (lens_by_token(d) ? s.n_slots : 1);
	}
	return sum;
}

static size_t chunks(size_t n, size_t chunk)
{
	return (n + chunk - 1) / chunk;
}

/* Does a prompt have one of slots s0 … s0 + n − 1? */
static bool has_slot(const struct lens_plan *p, size_t row, size_t s0, size_t n)
{
	const struct lens_positions *positions = &p->capture.positions;
	size_t slot, end = lens_min(s0 + n, positions->n_slots);

	for (slot = s0; slot < end; slot++) {
		if (lens_slot_position(positions, slot, lens_prompt_length(p->prompts, row),
				       (size_t)p->prompts->read_pos[row]) >= 0)
			return true;
	}
	return false;
}

/* Length of the longest prompt of a chunk row that holds one of slots s0 … s0 + n − 1. */
static size_t longest_with(const struct lens_plan *p, const size_t rows[2], size_t s0, size_t n)
{
	size_t row, most = 0;

	for (row = rows[0]; row < rows[1]; row++) {
		size_t length = lens_prompt_length(p->prompts, row);

		if (length > most && has_slot(p, row, s0, n))
			most = length;
	}
	return most;
}

/* Chunks written for the rows of one chunk row: those that hold a token's data. */
static size_t chunks_of_rows(const struct lens_plan *p, const struct lens_planned *d,
			     const struct lens_shape *s, size_t row0)
{
	const size_t rows[2] = { row0, lens_min(row0 + s->chunk[0], p->prompts->n_rows) };
	bool square = lens_hook_is_square(p->capture.spec[d->source].hook);
	size_t n = s->chunk[square ? 2 : 1], heads = 1, s0, sum = 0;

	if (square)
		heads = chunks(s->extent[1], s->chunk[1]);
	else if (d->rank == 4)
		heads = chunks(s->extent[2], s->chunk[2]);
	for (s0 = 0; s0 < p->capture.positions.n_slots; s0 += n) {
		size_t longest = longest_with(p, rows, s0, n);

		if (longest)
			sum += heads * (square ? chunks(longest, s->chunk[3]) : 1);
	}
	return sum;
}

void lens_count_bytes(const struct lens_plan *p, const struct lens_planned *d,
		      struct lens_shape *s)
{
	uint64_t chunk = lens_dtype_size(d->dtype);
	size_t row;
	int i;

	for (i = 0; i < d->rank; i++)
		chunk *= s->chunk[i];
	s->data_bytes = data_bytes(p, d);
	s->file_bytes = 0;
	if (lens_by_token(d)) {
		s->file_bytes = chunk * chunks(s->extent[0], s->chunk[0]);
		return;
	}
	for (row = 0; row < p->prompts->n_rows; row += s->chunk[0])
		s->file_bytes += chunk * (s->by_rows ? 1 : chunks_of_rows(p, d, s, row));
}

/* Tokens, lengths and the like; texts by the size of the CSV, 32 bytes a string for HDF5. */
static void add_prompt_bytes(struct lens_plan *p)
{
	const struct lens_prompts *q = p->prompts;
	uint64_t texts = q->corrupted ? 2 : 1, strings = texts + q->n_answers;
	uint64_t prompts = texts + (q->resampled != NULL), row = 8 + 4 + 4;
	uint64_t tokens = (q->offset[q->n_rows] - q->offset[0]) * prompts;
	uint64_t answers = 4 * (uint64_t)q->n_answers * lens_max(q->n_answer_pos, 1);
	size_t i;

	for (i = 0; i < q->n_columns; i++) {
		strings += q->column_kind[i] == LENS_COLUMN_TEXT;
		row += q->column_kind[i] != LENS_COLUMN_TEXT ? 8 : 0;
	}
	for (i = 0; i < q->n_rows; i++)
		tokens += answer_tokens(q, i);
	p->data_bytes += tokens * 4 + row * q->n_rows + q->csv_bytes;
	p->file_bytes +=
		(q->max_length * 4 * prompts + row + answers + 32 * strings) * q->n_rows +
		q->csv_bytes + ((uint64_t)p->n_datasets + q->n_columns + 64) * 4096;
}

void lens_sum_bytes(struct lens_plan *p)
{
	size_t i;

	p->data_bytes = p->file_bytes = 0;
	add_prompt_bytes(p);
	for (i = 0; i < p->n_datasets; i++) {
		p->data_bytes += p->dataset[i].data_bytes;
		p->file_bytes += p->dataset[i].file_bytes;
	}
}
