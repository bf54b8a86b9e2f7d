/*
 * dataset/prompts.c: the prompt set. In: the options and the CSV file; out: packed
 * tokens, read positions and answers of every good row, and a report on the others. A
 * second pass (each.c) gives the rows' texts.
 */
#include "dataset/check_private.h"
#include "dataset/numbers_private.h"

#include <string.h>

struct loader {
	const struct lens_dataset_options *opt;
	struct lens_csv_reader *reader;
	struct lens_columns columns;
	struct lens_row_check check;
	struct lens_row row;
	struct lens_column_guess *guess; /* [n_columns] */
	struct lens_prompts *p;
	struct lens_ids tokens, corrupted, resampled; /* handed to p at the end */
	struct lens_ids read_pos, answers, found[2];  /* so are these */
	struct lens_ids answer_length;                /* with any_tokens */
	size_t row_cap, n_records;
};

void lens_prompts_destroy(struct lens_prompts *p)
{
	size_t i;

	if (!p)
		return;
	if (p->column_name && p->column_stored) {
		for (i = 0; i < p->n_columns; i++) {
			lens_free(p->column_name[i]);
			lens_free(p->column_stored[i]);
		}
	}
	lens_free(p->column_name);
	lens_free(p->column_stored);
	lens_free(p->column_kind);
	lens_free(p->flags);
	lens_free(p->offset);
	lens_free(p->tokens);
	lens_free(p->corrupted);
	lens_free(p->resampled);
	lens_free(p->found[0]);
	lens_free(p->found[1]);
	lens_free(p->read_pos);
	lens_free(p->answers);
	lens_free(p->answer_offset);
	lens_free(p->record);
	lens_free(p->place);
	lens_free(p);
}

struct lens_prompts lens_prompts_part(const struct lens_prompts *p, size_t first, size_t n)
{
	struct lens_prompts part = *p;
	size_t row, k;

	part.n_rows = n;
	part.csv_bytes = p->csv_bytes * n / p->n_rows;
	part.offset += first;
	part.read_pos += first;
	for (k = 0; k < 2; k++) {
		if (p->found[k])
			part.found[k] += first;
	}
	if (p->answer_offset)
		part.answer_offset += first * p->n_answers;
	else if (p->n_answers)
		part.answers += first * p->n_answers;
	part.record += first;
	part.place += first;
	part.flags += first;
	part.max_length = 0;
	for (row = 0; row < n; row++)
		part.max_length = lens_max(part.max_length, lens_prompt_length(&part, row));
	return part;
}

static enum lens_status copy_columns(struct loader *l, struct lens_error *err)
{
	const struct lens_columns *c = &l->columns;
	struct lens_prompts *p = l->p;
	size_t i;

	p->n_answers = l->opt->n_answers;
	p->n_columns = c->n_other;
	p->column_name = lens_calloc(c->n_other, sizeof(*p->column_name));
	p->column_stored = lens_calloc(c->n_other, sizeof(*p->column_stored));
	p->column_kind = lens_calloc(c->n_other, sizeof(*p->column_kind));
	l->guess = lens_calloc(c->n_other, sizeof(*l->guess));
	if (!p->column_name || !p->column_stored || !p->column_kind || !l->guess)
		return lens_error_nomem(err, c->n_other, sizeof(*p->column_name));
	for (i = 0; i < c->n_other; i++) {
		p->column_name[i] = lens_strdup(c->name[c->other[i]]);
		p->column_stored[i] = lens_strdup(c->stored[i]);
		if (!p->column_name[i] || !p->column_stored[i])
			return lens_error_nomem(err, strlen(c->name[c->other[i]]) + 1, 1);
	}
	return LENS_OK;
}

/* Room for one more row in offset (which has n_rows + 1), record, place and flags. */
static enum lens_status reserve_row(struct loader *l, struct lens_error *err)
{
	size_t cap = l->row_cap ? 2 * l->row_cap : 64;
	uint64_t *offset;
	int64_t *record;
	struct lens_prompt_place *place;
	uint8_t *flags;

	if (l->p->n_rows < l->row_cap)
		return LENS_OK;
	offset = lens_realloc(l->p->offset, cap + 1, sizeof(*offset));
	if (!offset)
		return lens_error_nomem(err, cap + 1, sizeof(*offset));
	l->p->offset = offset;
	record = lens_realloc(l->p->record, cap, sizeof(*record));
	if (!record)
		return lens_error_nomem(err, cap, sizeof(*record));
	l->p->record = record;
	place = lens_realloc(l->p->place, cap, sizeof(*place));
	if (!place)
		return lens_error_nomem(err, cap, sizeof(*place));
	l->p->place = place;
	flags = lens_realloc(l->p->flags, cap, sizeof(*flags));
	if (!flags)
		return lens_error_nomem(err, cap, sizeof(*flags));
	l->p->flags = flags;
	l->row_cap = cap;
	return LENS_OK;
}

static enum lens_status add_row(struct loader *l, const struct lens_csv_record *rec,
				struct lens_error *err)
{
	struct lens_prompts *p = l->p;
	size_t i;

	LENS_TRY(reserve_row(l, err));
	p->offset[p->n_rows] = l->tokens.n;
	p->record[p->n_rows] = rec->number;
	p->place[p->n_rows] =
		(struct lens_prompt_place){ .offset = rec->offset, .line = rec->line };
	LENS_TRY(lens_csv_record_digest(rec, &p->place[p->n_rows].digest, err));
	p->flags[p->n_rows] = lens_row_flags(&l->row);
	LENS_TRY(lens_ids_append(&l->tokens, &l->row.tokens, err));
	LENS_TRY(lens_ids_append(&l->corrupted, &l->row.corrupted, err));
	LENS_TRY(lens_ids_append(&l->resampled, &l->row.resampled, err));
	LENS_TRY(lens_ids_append(&l->answers, &l->row.answers, err));
	if (l->opt->any_tokens)
		LENS_TRY(lens_ids_append(&l->answer_length, &l->row.answer_length, err));
	LENS_TRY(lens_ids_push(&l->read_pos, l->row.read_pos, err));
	for (i = 0; i < 2; i++)
		LENS_TRY(lens_ids_push(&l->found[i], l->row.found[i], err));
	p->offset[++p->n_rows] = l->tokens.n;
	p->max_length = lens_max(p->max_length, l->row.tokens.n);
	for (i = 0; i < p->n_columns; i++)
		lens_column_guess_add(&l->guess[i], rec->field[l->columns.other[i]]);
	return LENS_OK;
}

static void report_row(const struct lens_row *row, struct lens_dataset_report *report)
{
	size_t i;

	if (row->bad.code != LENS_OK) {
		if (report->n_bad < LENS_BAD_ROWS_LISTED)
			report->bad[report->n_bad] = row->bad;
		report->n_bad++;
		return;
	}
	for (i = 0; i < LENS_ROW_WARNINGS; i++) {
		if (row->warning[i].code == LENS_OK)
			continue;
		if (!report->warning[i].n++)
			report->warning[i].first = row->warning[i];
	}
}

static enum lens_status read_rows(struct loader *l, struct lens_dataset_report *report,
				  struct lens_error *err)
{
	struct lens_csv_record rec;
	bool got;

	while (!l->opt->limit || l->p->n_rows < l->opt->limit) {
		LENS_TRY(lens_csv_next(l->reader, &rec, &got, err));
		if (!got)
			break;
		l->n_records++;
		LENS_TRY(lens_row_check(&l->check, &rec, &l->row, err));
		report_row(&l->row, report);
		if (l->row.bad.code == LENS_OK)
			LENS_TRY(add_row(l, &rec, err));
	}
	return lens_csv_digest(l->reader, l->p->sha256, err);
}

static enum lens_status judge(const struct loader *l, const struct lens_dataset_report *report,
			      struct lens_error *err)
{
	const char *csv = l->opt->csv;

	if (!l->n_records)
		return lens_error_at(err, LENS_ERR_FORMAT, csv, 0, 0,
				     "no rows after the header");
	if (report->n_bad && (!l->opt->skip_bad_rows || !l->p->n_rows))
		return lens_error_at(err, LENS_ERR_FORMAT, csv, report->bad[0].row, 0,
				     "%zu of %zu rows cannot be used; the first: %s",
				     report->n_bad, l->n_records, report->bad[0].text);
	return LENS_OK;
}

/* Hands the array over, without its spare room if possible. */
static int32_t *take_ids(struct lens_ids *ids)
{
	int32_t *v = lens_realloc(ids->v, ids->n, sizeof(*v));

	if (!v)
		v = ids->v;
	*ids = (struct lens_ids)LENS_IDS_INIT;
	return v;
}

/* Where each answer begins, and how long the longest is. */
static enum lens_status place_answers(struct loader *l, struct lens_error *err)
{
	const struct lens_ids *length = &l->answer_length;
	size_t i;

	if (!length->n)
		return LENS_OK;
	l->p->answer_offset = lens_calloc(length->n + 1, sizeof(*l->p->answer_offset));
	if (!l->p->answer_offset)
		return lens_error_nomem(err, length->n + 1, sizeof(*l->p->answer_offset));
	for (i = 0; i < length->n; i++) {
		size_t n = (size_t)length->v[i];

		l->p->answer_offset[i + 1] = l->p->answer_offset[i] + n;
		l->p->n_answer_pos = lens_max(l->p->n_answer_pos, n);
	}
	return LENS_OK;
}

static enum lens_status load(struct loader *l, struct lens_dataset_report *report,
			     struct lens_error *err)
{
	size_t i;

	l->p = lens_calloc(1, sizeof(*l->p));
	if (!l->p)
		return lens_error_nomem(err, 1, sizeof(*l->p));
	LENS_TRY(lens_csv_open(l->opt->csv, l->opt->separator, &l->reader, err));
	l->p->stamp = *lens_csv_stamp(l->reader);
	l->p->csv_bytes = l->p->stamp.bytes;
	LENS_TRY(lens_columns_init(&l->columns, l->reader, l->opt, err));
	LENS_TRY(lens_row_check_init(&l->check, l->opt, &l->columns, err));
	LENS_TRY(copy_columns(l, err));
	LENS_TRY(read_rows(l, report, err));
	LENS_TRY(judge(l, report, err));
	LENS_TRY(place_answers(l, err));
	for (i = 0; i < l->p->n_columns; i++)
		l->p->column_kind[i] = lens_column_guess_kind(&l->guess[i]);
	l->p->tokens = take_ids(&l->tokens);
	if (l->opt->corrupted_column)
		l->p->corrupted = take_ids(&l->corrupted);
	if (l->opt->resample_column)
		l->p->resampled = take_ids(&l->resampled);
	l->p->read_pos = take_ids(&l->read_pos);
	for (i = 0; i < 2; i++) {
		if (l->opt->place[i] && !l->opt->place[i]->n)
			l->p->found[i] = take_ids(&l->found[i]);
	}
	l->p->answers = take_ids(&l->answers);
	return l->opt->resample && !l->opt->resample_column
		       ? lens_prompts_resample(l->p, l->opt, err)
		       : LENS_OK;
}

enum lens_status lens_prompts_load(const struct lens_dataset_options *opt,
				   struct lens_prompts **out,
				   struct lens_dataset_report *report, struct lens_error *err)
{
	struct loader l = { .opt = opt };
	enum lens_status st;

	*out = NULL;
	memset(report, 0, sizeof(*report));
	st = load(&l, report, err);
	if (st == LENS_OK) {
		*out = l.p;
		l.p = NULL;
	}
	lens_prompts_destroy(l.p);
	lens_ids_release(&l.tokens);
	lens_ids_release(&l.corrupted);
	lens_ids_release(&l.resampled);
	lens_ids_release(&l.read_pos);
	lens_ids_release(&l.found[0]);
	lens_ids_release(&l.found[1]);
	lens_ids_release(&l.answers);
	lens_ids_release(&l.answer_length);
	lens_row_release(&l.row);
	lens_free(l.guess);
	lens_row_check_release(&l.check);
	lens_columns_release(&l.columns);
	lens_csv_close(l.reader);
	return st;
}
