/*
 * pipeline/prompts.c: /prompts: what the rows were. Numbers come from the
 * checked prompt set; texts and the CSV's other columns are read again, row by
 * row, so that they never lie in memory together.
 */
#include "pipeline/pipeline_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)1 << 20)
#define LEAST_CHUNK ((size_t)16 << 10)
#define STRING_ROWS 512                /* rows of text that are written together, at most … */
#define ALL_COLUMNS ((size_t)16 << 20) /* … and bytes that all columns hold together */

/* One numeric dataset, filled row by row. */
struct column {
	int id;
	size_t most; /* bytes of a chunk; 0: CHUNK_BYTES */
	size_t row_bytes, chunk_rows, n_rows, row;
	enum lens_dtype dtype;
	unsigned char *buf; /* one chunk */
};

/* One value a row … */
static struct lens_dataset_spec one_each(const char *path, enum lens_dtype t, size_t n_rows)
{
	return (struct lens_dataset_spec){ .path = path,
					   .dtype = t,
					   .rank = 1,
					   .dim = { "prompt" },
					   .extent = { n_rows, 1 } };
}

/* … or as many as an axis is long. */
static struct lens_dataset_spec row_each(const char *path, enum lens_dtype t, size_t n_rows,
					 const char *dim, size_t width)
{
	return (struct lens_dataset_spec){ .path = path,
					   .dtype = t,
					   .rank = 2,
					   .dim = { "prompt", dim },
					   .extent = { n_rows, width } };
}

static enum lens_status column_create(struct lens_store *s, struct lens_dataset_spec spec,
				      struct column *c, struct lens_error *err)
{
	size_t rows;
	int i;

	c->dtype = spec.dtype;
	c->row_bytes = lens_dtype_size(spec.dtype);
	for (i = 1; i < spec.rank; i++) {
		c->row_bytes *= spec.extent[i];
		spec.chunk[i] = spec.extent[i];
	}
	c->n_rows = spec.extent[0];
	rows = (c->most ? c->most : CHUNK_BYTES) / c->row_bytes;
	c->chunk_rows = lens_min(lens_max(rows, 1), c->n_rows);
	spec.chunk[0] = c->chunk_rows;
	c->buf = lens_calloc(c->chunk_rows, c->row_bytes);
	if (!c->buf)
		return lens_error_nomem(err, c->chunk_rows, c->row_bytes);
	return lens_store_add_dataset(s, &spec, &c->id, err);
}

static enum lens_status column_add(struct lens_store *s, struct column *c, const void *row,
				   struct lens_error *err)
{
	size_t at = c->row % c->chunk_rows;
	size_t coord[LENS_MAX_RANK] = { c->row / c->chunk_rows };
	size_t bytes = c->chunk_rows * c->row_bytes;
	uint8_t digest[LENS_XXH3_BYTES];

	if (at == 0)
		lens_fill(c->dtype, c->buf, bytes / lens_dtype_size(c->dtype));
	memcpy(c->buf + at * c->row_bytes, row, c->row_bytes);
	c->row++;
	if (at + 1 < c->chunk_rows && c->row < c->n_rows)
		return LENS_OK;
	lens_xxh3(c->buf, bytes, digest);
	return lens_store_write_chunk(
		s, c->id, &(struct lens_store_chunk){ coord, c->buf, bytes, digest }, err);
}

/* --- what the prompt set holds -------------------------------------------------------- */

struct numbers {
	struct column tokens, corrupted, resampled, length, read_pos, id, answers, slot_pos;
	struct column first_token;
	int32_t *row; /* scratch: the longest of a row of tokens, of slots, of answers */
};

/* Of one token each, or of any number. */
static enum lens_status answers_create(struct lens_store *s, const struct lens_prompts *q,
				       struct numbers *n, struct lens_error *err)
{
	struct lens_dataset_spec spec =
		row_each("/prompts/answers", LENS_I32, q->n_rows, "answer", q->n_answers);

	if (q->answer_offset) {
		spec.path = "/prompts/answer_tokens";
		spec.rank = 3;
		spec.dim[2] = "answer_pos";
		spec.extent[2] = q->n_answer_pos;
	}
	return column_create(s, spec, &n->answers, err);
}

static bool has_tokens(const struct lens_plan *p)
{
	size_t i = 0;

	while (i < p->n_datasets && p->dataset[i].axis[0] != LENS_AXIS_TOKEN)
		i++;
	return i < p->n_datasets;
}

static enum lens_status numbers_create(struct lens_store *s, const struct lens_plan *p,
				       struct numbers *n, struct lens_error *err)
{
	const struct lens_prompts *q = p->prompts;
	size_t rows = q->n_rows, slots = p->capture.positions.n_slots;
	size_t width = lens_max(lens_max(q->max_length, slots), q->n_answers * q->n_answer_pos);

	n->row = lens_calloc(width, sizeof(*n->row));
	if (!n->row)
		return lens_error_nomem(err, width, sizeof(*n->row));
	LENS_TRY(
		column_create(s,
			      row_each("/prompts/tokens", LENS_I32, rows, "pos", q->max_length),
			      &n->tokens, err));
	if (q->corrupted)
		LENS_TRY(column_create(s,
				       row_each("/prompts/corrupted_tokens", LENS_I32, rows,
						"pos", q->max_length),
				       &n->corrupted, err));
	if (q->resampled)
		LENS_TRY(column_create(s,
				       row_each("/prompts/resampled_tokens", LENS_I32, rows,
						"pos", q->max_length),
				       &n->resampled, err));
	LENS_TRY(
		column_create(s, one_each("/prompts/length", LENS_I32, rows), &n->length, err));
	LENS_TRY(column_create(s, one_each("/prompts/read_pos", LENS_I32, rows), &n->read_pos,
			       err));
	LENS_TRY(column_create(s, one_each("/prompts/id", LENS_I64, rows), &n->id, err));
	if (q->n_answers)
		LENS_TRY(answers_create(s, q, n, err));
	if (has_tokens(p))
		LENS_TRY(column_create(s, one_each("/prompts/first_token", LENS_I64, rows),
				       &n->first_token, err));
	if (p->capture.positions.kind == LENS_POS_ALL)
		return LENS_OK;
	return column_create(s, row_each("/prompts/slot_pos", LENS_I32, rows, "slot", slots),
			     &n->slot_pos, err);
}

static void numbers_release(struct numbers *n)
{
	lens_free(n->tokens.buf);
	lens_free(n->corrupted.buf);
	lens_free(n->resampled.buf);
	lens_free(n->length.buf);
	lens_free(n->read_pos.buf);
	lens_free(n->id.buf);
	lens_free(n->answers.buf);
	lens_free(n->slot_pos.buf);
	lens_free(n->first_token.buf);
	lens_free(n->row);
}

static enum lens_status write_slots(struct lens_store *s, const struct lens_plan *p, size_t row,
				    size_t length, struct numbers *n, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < p->capture.positions.n_slots; i++)
		n->row[i] = (int32_t)lens_slot_position(&p->capture.positions, i, length,
							(size_t)p->prompts->read_pos[row]);
	return column_add(s, &n->slot_pos, n->row, err);
}

/* A row of packed tokens, −1 past its end. */
static const int32_t *padded(const struct lens_prompts *q, const int32_t *tokens, size_t row,
			     struct numbers *n)
{
	size_t i, length = lens_prompt_length(q, row);

	for (i = 0; i < q->max_length; i++)
		n->row[i] = i < length ? tokens[q->offset[row] + i] : -1;
	return n->row;
}

static enum lens_status write_answers(struct lens_store *s, const struct lens_prompts *q,
				      size_t row, struct numbers *n, struct lens_error *err)
{
	size_t i, width = q->n_answer_pos;

	if (!q->answer_offset)
		return column_add(s, &n->answers, q->answers + row * q->n_answers, err);
	for (i = 0; i < q->n_answers * width; i++)
		n->row[i] = -1;
	for (i = 0; i < q->n_answers; i++)
		memcpy(n->row + i * width,
		       q->answers + q->answer_offset[row * q->n_answers + i],
		       lens_answer_length(q, row, i) * sizeof(*n->row));
	return column_add(s, &n->answers, n->row, err);
}

static enum lens_status write_row(struct lens_store *s, const struct lens_plan *p, size_t row,
				  struct numbers *n, struct lens_error *err)
{
	const struct lens_prompts *q = p->prompts;
	size_t length = lens_prompt_length(q, row);
	int32_t length32 = (int32_t)length;
	int64_t first_token = (int64_t)lens_plan_first_token(p, row);

	LENS_TRY(column_add(s, &n->tokens, padded(q, q->tokens, row, n), err));
	if (q->corrupted)
		LENS_TRY(column_add(s, &n->corrupted, padded(q, q->corrupted, row, n), err));
	if (q->resampled)
		LENS_TRY(column_add(s, &n->resampled, padded(q, q->resampled, row, n), err));
	LENS_TRY(column_add(s, &n->length, &length32, err));
	LENS_TRY(column_add(s, &n->read_pos, &q->read_pos[row], err));
	LENS_TRY(column_add(s, &n->id, &q->record[row], err));
	if (q->n_answers)
		LENS_TRY(write_answers(s, q, row, n, err));
	if (n->first_token.buf)
		LENS_TRY(column_add(s, &n->first_token, &first_token, err));
	if (p->capture.positions.kind != LENS_POS_ALL)
		return write_slots(s, p, row, length, n, err);
	return LENS_OK;
}

static enum lens_status write_numbers(struct lens_store *s, const struct lens_plan *p,
				      struct lens_error *err)
{
	struct numbers n = { .row = NULL };
	enum lens_status st = numbers_create(s, p, &n, err);
	size_t row;

	for (row = 0; st == LENS_OK && row < p->prompts->n_rows; row++)
		st = write_row(s, p, row, &n, err);
	numbers_release(&n);
	return st;
}

/* --- what is read again --------------------------------------------------------------- */

/* Strings of STRING_ROWS rows, then written. */
struct texts {
	int id;
	size_t width, n;    /* strings a row; strings held */
	size_t bytes, most; /* held, and how many may be before they are written */
	char **v;           /* [STRING_ROWS, width] */
};

struct reader {
	struct lens_store *store;
	const struct lens_plan *plan;
	struct texts text, corrupted, answer_text;
	struct texts *column;  /* [n_columns], the strings */
	struct column *number; /* [n_columns], the numbers */
};

static enum lens_status texts_create(struct lens_store *s, struct lens_dataset_spec spec,
				     struct texts *t, struct lens_error *err)
{
	spec.chunk[0] = lens_min(spec.extent[0], STRING_ROWS);
	spec.chunk[1] = spec.extent[1];
	t->width = spec.extent[1];
	t->v = lens_calloc(STRING_ROWS * t->width, sizeof(*t->v));
	if (!t->v)
		return lens_error_nomem(err, STRING_ROWS * t->width, sizeof(*t->v));
	return lens_store_add_dataset(s, &spec, &t->id, err);
}

/* Writes the strings held, whose last row is row. */
static enum lens_status texts_flush(struct lens_store *s, struct texts *t, size_t row,
				    struct lens_error *err)
{
	size_t i, rows = t->n / t->width;
	enum lens_status st;

	st = lens_store_write_strings(s, t->id, row + 1 - rows, rows, (const char *const *)t->v,
				      err);
	for (i = 0; i < t->n; i++)
		lens_free(t->v[i]);
	t->n = 0;
	t->bytes = 0;
	return st;
}

static enum lens_status texts_add(struct reader *r, struct texts *t, size_t row,
				  const char *const *str, struct lens_error *err)
{
	size_t i;

	for (i = 0; i < t->width; i++) {
		t->v[t->n] = lens_strdup(str[i]);
		if (!t->v[t->n])
			return lens_error_nomem(err, strlen(str[i]), 1);
		t->bytes += strlen(str[i]);
		t->n++;
	}
	if (t->n < STRING_ROWS * t->width && t->bytes < t->most &&
	    row + 1 < r->plan->prompts->n_rows)
		return LENS_OK;
	return texts_flush(r->store, t, row, err);
}

static void texts_release(struct texts *t)
{
	size_t i;

	for (i = 0; i < t->n; i++)
		lens_free(t->v[i]);
	lens_free(t->v);
}

static enum lens_status take_row(void *ctx, const struct lens_prompt_text *t,
				 struct lens_error *err)
{
	struct reader *r = ctx;
	const struct lens_prompts *q = r->plan->prompts;
	size_t i;

	LENS_TRY(texts_add(r, &r->text, t->row, &t->prompt, err));
	if (t->corrupted)
		LENS_TRY(texts_add(r, &r->corrupted, t->row, &t->corrupted, err));
	if (q->n_answers)
		LENS_TRY(texts_add(r, &r->answer_text, t->row, t->answer, err));
	for (i = 0; i < q->n_columns; i++) {
		if (q->column_kind[i] == LENS_COLUMN_INT) {
			int64_t value = lens_cell_int(t->column[i]);

			LENS_TRY(column_add(r->store, &r->number[i], &value, err));
		} else if (q->column_kind[i] == LENS_COLUMN_REAL) {
			double value = lens_cell_real(t->column[i]);

			LENS_TRY(column_add(r->store, &r->number[i], &value, err));
		} else {
			LENS_TRY(texts_add(r, &r->column[i], t->row, &t->column[i], err));
		}
	}
	return LENS_OK;
}

/* One of the CSV's other columns. */
static enum lens_status add_column(struct reader *r, size_t i, const char *path,
				   struct lens_error *err)
{
	const struct lens_prompts *q = r->plan->prompts;
	enum lens_dtype t = q->column_kind[i] == LENS_COLUMN_INT ? LENS_I64 : LENS_F64;

	if (q->column_kind[i] == LENS_COLUMN_TEXT)
		return texts_create(r->store, one_each(path, LENS_STR, q->n_rows),
				    &r->column[i], err);
	return column_create(r->store, one_each(path, t, q->n_rows), &r->number[i], err);
}

static enum lens_status add_columns(struct reader *r, size_t most, struct lens_error *err)
{
	const struct lens_prompts *q = r->plan->prompts;
	struct lens_buf path = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	size_t i;

	for (i = 0; st == LENS_OK && i < q->n_columns; i++) {
		r->column[i].most = r->number[i].most = most;
		path.len = 0;
		st = lens_buf_printf(&path, err, "/prompts/columns/%s", q->column_stored[i]);
		if (st == LENS_OK)
			st = add_column(r, i, path.data, err);
	}
	lens_buf_release(&path);
	return st;
}

static enum lens_status reader_create(struct reader *r, struct lens_error *err)
{
	const struct lens_prompts *q = r->plan->prompts;
	size_t most = ALL_COLUMNS / (q->n_columns + 2 + (q->corrupted != NULL));

	most = lens_min(lens_max(most, LEAST_CHUNK), CHUNK_BYTES);
	r->column = lens_calloc(q->n_columns, sizeof(*r->column));
	r->number = lens_calloc(q->n_columns, sizeof(*r->number));
	if (!r->column || !r->number)
		return lens_error_nomem(err, q->n_columns, sizeof(*r->number));
	r->text.most = r->corrupted.most = r->answer_text.most = most;
	LENS_TRY(texts_create(r->store, one_each("/prompts/text", LENS_STR, q->n_rows),
			      &r->text, err));
	if (q->corrupted)
		LENS_TRY(texts_create(r->store,
				      one_each("/prompts/corrupted_text", LENS_STR, q->n_rows),
				      &r->corrupted, err));
	if (q->n_answers)
		LENS_TRY(texts_create(r->store,
				      row_each("/prompts/answer_text", LENS_STR, q->n_rows,
					       "answer", q->n_answers),
				      &r->answer_text, err));
	return add_columns(r, most, err);
}

static void reader_release(struct reader *r)
{
	size_t i;

	for (i = 0; i < r->plan->prompts->n_columns; i++) {
		if (r->column)
			texts_release(&r->column[i]);
		if (r->number)
			lens_free(r->number[i].buf);
	}
	texts_release(&r->text);
	texts_release(&r->corrupted);
	texts_release(&r->answer_text);
	lens_free(r->column);
	lens_free(r->number);
}

enum lens_status lens_layout_prompts(struct lens_store *s, const struct lens_plan *p,
				     const struct lens_inputs *in, struct lens_error *err)
{
	struct reader r = { .store = s, .plan = p };
	enum lens_status st;

	LENS_TRY(write_numbers(s, p, err));
	st = reader_create(&r, err);
	if (st == LENS_OK)
		st = lens_prompts_each(in->data, p->prompts, take_row, &r, err);
	reader_release(&r);
	return st;
}
