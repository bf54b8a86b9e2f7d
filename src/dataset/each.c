/*
 * dataset/each.c: the texts of a prompt set's rows, read a second time. In:
 * the prompt set, which may be a part of one, and its file; out: one call a good
 * row, in order. The file must still be the one that was checked: if its stamp says
 * so, the reading begins where the rows do and ends with them.
 */
#include "dataset/columns_private.h"

#include <string.h>

struct walk {
	const struct lens_dataset_options *opt;
	const struct lens_prompts *p;
	lens_prompt_text_fn fn;
	void *ctx;
	struct lens_csv_reader *reader;
	struct lens_columns columns;
	const char **answer, **column;
};

static enum lens_status changed(const struct walk *w, struct lens_error *err)
{
	return lens_error_at(err, LENS_ERR_FORMAT, w->opt->csv, 0, 0,
			     "the file changed while it was in use");
}

static enum lens_status prepare(struct walk *w, struct lens_error *err)
{
	const struct lens_columns *c = &w->columns;
	size_t i;

	LENS_TRY(lens_csv_open(w->opt->csv, w->opt->separator, &w->reader, err));
	LENS_TRY(lens_columns_init(&w->columns, w->reader, w->opt, err));
	if (c->n_other != w->p->n_columns)
		return changed(w, err);
	for (i = 0; i < c->n_other; i++) {
		if (strcmp(c->name[c->other[i]], w->p->column_name[i]))
			return changed(w, err);
	}
	w->answer = lens_calloc(w->p->n_answers, sizeof(*w->answer));
	w->column = lens_calloc(c->n_other, sizeof(*w->column));
	if (!w->answer || !w->column)
		return lens_error_nomem(err, w->p->n_answers + c->n_other, sizeof(*w->answer));
	return LENS_OK;
}

static enum lens_status visit(struct walk *w, size_t row, const struct lens_csv_record *rec,
			      struct lens_error *err)
{
	const struct lens_columns *c = &w->columns;
	uint64_t digest;
	size_t i;

	if (rec->n_fields != c->n)
		return changed(w, err);
	LENS_TRY(lens_csv_record_digest(rec, &digest, err));
	if (digest != w->p->place[row].digest)
		return changed(w, err);
	for (i = 0; i < w->p->n_answers; i++)
		w->answer[i] = rec->field[c->answer[i]];
	for (i = 0; i < c->n_other; i++)
		w->column[i] = rec->field[c->other[i]];
	return w->fn(w->ctx,
		     &(struct lens_prompt_text){
			     .row = row,
			     .prompt = rec->field[c->prompt],
			     .corrupted = w->p->corrupted ? rec->field[c->corrupted] : NULL,
			     .answer = w->answer,
			     .column = w->column },
		     err);
}

static enum lens_status visit_rows(struct walk *w, struct lens_error *err)
{
	uint8_t sha256[LENS_SHA256_BYTES];
	struct lens_csv_record rec;
	size_t row = 0;
	bool got, same = !memcmp(lens_csv_stamp(w->reader), &w->p->stamp, sizeof(w->p->stamp));

	if (same && w->p->n_rows)
		LENS_TRY(lens_csv_seek(w->reader, w->p->record[0], &w->p->place[0], err));
	while (row < w->p->n_rows) {
		LENS_TRY(lens_csv_next(w->reader, &rec, &got, err));
		if (!got)
			return changed(w, err);
		if (rec.number != w->p->record[row])
			continue;
		LENS_TRY(visit(w, row, &rec, err));
		row++;
	}
	if (same)
		return LENS_OK;
	LENS_TRY(lens_csv_digest(w->reader, sha256, err));
	return memcmp(sha256, w->p->sha256, sizeof(sha256)) ? changed(w, err) : LENS_OK;
}

enum lens_status lens_prompts_each(const struct lens_dataset_options *opt,
				   const struct lens_prompts *p, lens_prompt_text_fn fn,
				   void *ctx, struct lens_error *err)
{
	struct walk w = { .opt = opt, .p = p, .fn = fn, .ctx = ctx };
	bool same = opt->n_answers == p->n_answers && !opt->corrupted_column == !p->corrupted;
	enum lens_status st = same ? prepare(&w, err) : changed(&w, err);

	if (st == LENS_OK)
		st = visit_rows(&w, err);
	lens_free(w.answer);
	lens_free(w.column);
	lens_columns_release(&w.columns);
	lens_csv_close(w.reader);
	return st;
}
