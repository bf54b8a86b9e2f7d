/*
 * dataset/check_prompt.c: the prompt of a record; its corrupted one, which must be as long
 * in tokens and not the same; and another one to resample from, which must be as long. In:
 * a record; out: their tokens, or what is wrong with the row.
 */
#include "dataset/check_private.h"

#include <stdio.h>

/* BOS and the tokens of one column; nothing beyond what the model takes. */
static enum lens_status read_prompt(struct lens_row_check *c, const struct lens_csv_record *rec,
				    size_t column, struct lens_ids *ids, struct lens_row *row,
				    struct lens_error *err)
{
	const char *what = column == c->columns->prompt      ? "prompt"
			   : column == c->columns->corrupted ? "corrupted prompt"
							     : "prompt to resample";
	const char *name = c->columns->name[column];

	c->vocab = c->opt->d_vocab;
	if (!rec->length[column]) {
		lens_row_note(&row->bad, c, rec, "the %s (column '%.200s') is empty", what,
			      name);
		return LENS_OK;
	}
	if (c->bos >= 0)
		LENS_TRY(lens_ids_push(ids, c->bos, err));
	if (c->opt->prompt_ids)
		LENS_TRY(lens_row_take_ids(c, rec, column, ids, row, err));
	else
		LENS_TRY(lens_row_encode(c, rec, column, false, ids, err));
	if (row->bad.code != LENS_OK)
		return LENS_OK;
	if (!ids->n || (c->bos >= 0 && ids->n == 1))
		lens_row_note(&row->bad, c, rec, "the %s (column '%.200s') has no tokens", what,
			      name);
	else if (ids->n > c->opt->n_ctx || ids->n > INT32_MAX)
		lens_row_note(&row->bad, c, rec, "the %s has %zu tokens%s; the model takes %zu",
			      what, ids->n, c->bos >= 0 ? " with BOS" : "", c->opt->n_ctx);
	else
		lens_row_check_ids(c, rec, ids, column, row);
	return LENS_OK;
}

enum lens_status lens_row_check_prompt(struct lens_row_check *c,
				       const struct lens_csv_record *rec, struct lens_row *row,
				       struct lens_error *err)
{
	size_t column = c->columns->prompt;

	LENS_TRY(read_prompt(c, rec, column, &row->tokens, row, err));
	if (row->bad.code == LENS_OK && c->bos >= 0 && row->tokens.v[1] == c->bos)
		lens_row_note(
			&row->warning[LENS_ROW_SECOND_BOS], c, rec,
			"the prompt (column '%.200s') begins with the BOS token already; with "
			"prepend_bos it has two",
			c->columns->name[column]);
	return LENS_OK;
}

/* --- the corrupted one --------------------------------------------------------------- */

/* The first position at which they differ; the shorter one's length: nowhere before. */
static size_t first_difference(const struct lens_ids *a, const struct lens_ids *b)
{
	size_t i, n = lens_min(a->n, b->n);

	for (i = 0; i < n && a->v[i] == b->v[i]; i++)
		;
	return i;
}

/* A token as text in quotes, or its id where prompts are ids, or "its end". */
static enum lens_status quote_token(struct lens_row_check *c, const struct lens_ids *ids,
				    size_t i, char out[LENS_QUOTE_SIZE], struct lens_error *err)
{
	if (i >= ids->n) {
		snprintf(out, LENS_QUOTE_SIZE, "its end");
		return LENS_OK;
	}
	if (c->opt->prompt_ids) {
		snprintf(out, LENS_QUOTE_SIZE, "%d", ids->v[i]);
		return LENS_OK;
	}
	c->text.len = 0;
	LENS_TRY(lens_tokenizer_decode_continuation(c->opt->tokenizer, &ids->v[i], 1, &c->text,
						    err));
	LENS_TRY(lens_buf_append(&c->text, "", 0, err));
	lens_row_quote(out, c->text.data, c->text.len);
	return LENS_OK;
}

/* The row is bad if another prompt of a column has not as many tokens as the prompt. */
static enum lens_status check_length(struct lens_row_check *c,
				     const struct lens_csv_record *rec, size_t column,
				     const struct lens_ids *other, struct lens_row *row,
				     struct lens_error *err)
{
	const char *what =
		column == c->columns->corrupted ? "the corrupted one" : "the one to resample";
	size_t parts = first_difference(&row->tokens, other);
	char clean[LENS_QUOTE_SIZE], theirs[LENS_QUOTE_SIZE];

	if (row->tokens.n == other->n)
		return LENS_OK;
	LENS_TRY(quote_token(c, &row->tokens, parts, clean, err));
	LENS_TRY(quote_token(c, other, parts, theirs, err));
	lens_row_note(&row->bad, c, rec,
		      "the prompt has %zu tokens and %s (column '%.200s') %zu%s; "
		      "they must be as many. They part at token %zu: %s and %s",
		      row->tokens.n, what, c->columns->name[column], other->n,
		      c->bos >= 0 ? " (BOS included)" : "", parts, clean, theirs);
	return LENS_OK;
}

enum lens_status lens_row_check_corrupted(struct lens_row_check *c,
					  const struct lens_csv_record *rec,
					  struct lens_row *row, struct lens_error *err)
{
	size_t column = c->columns->corrupted, parts;

	LENS_TRY(read_prompt(c, rec, column, &row->corrupted, row, err));
	if (row->bad.code == LENS_OK)
		LENS_TRY(check_length(c, rec, column, &row->corrupted, row, err));
	if (row->bad.code != LENS_OK)
		return LENS_OK;
	parts = first_difference(&row->tokens, &row->corrupted);
	if (parts == row->tokens.n)
		lens_row_note(&row->bad, c, rec,
			      "the corrupted prompt (column '%.200s') has the prompt's tokens",
			      c->columns->name[column]);
	else if (parts > (size_t)row->read_pos)
		lens_row_note(&row->warning[LENS_ROW_PARTS_LATE], c, rec,
			      "the corrupted prompt (column '%.200s') differs from the prompt "
			      "from token %zu on, and the tables read token %d: no patch can "
			      "change anything there",
			      c->columns->name[column], parts, row->read_pos);
	return LENS_OK;
}

enum lens_status lens_row_check_resampled(struct lens_row_check *c,
					  const struct lens_csv_record *rec,
					  struct lens_row *row, struct lens_error *err)
{
	size_t column = c->columns->resample;

	LENS_TRY(read_prompt(c, rec, column, &row->resampled, row, err));
	return row->bad.code == LENS_OK
		       ? check_length(c, rec, column, &row->resampled, row, err)
		       : LENS_OK;
}
