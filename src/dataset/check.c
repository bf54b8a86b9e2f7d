/*
 * dataset/check.c: one record → tokens (check_prompt.c), read position (read_pos.c), where
 * attention is cut (check_places.c) and answers (check_answer.c), or what is wrong with it. In:
 * a record and the tokenizer; out: a struct lens_row. Here, a bad row is a result, not a
 * failure.
 */
#include "dataset/check_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lens_row_note(struct lens_error *e, const struct lens_row_check *c,
		   const struct lens_csv_record *rec, const char *fmt, ...)
{
	char text[sizeof(e->text) - 32];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lens_error_at(e, LENS_ERR_FORMAT, c->opt->csv, rec->line, 0, "record %lld: %s",
		      (long long)rec->number, text);
}

const char *lens_row_quote(char out[LENS_QUOTE_SIZE], const char *s, size_t n)
{
	size_t i, o = 0, keep = n;

	if (n > LENS_QUOTE_MAX) {
		keep = LENS_QUOTE_MAX;
		while (keep && ((unsigned char)s[keep] & 0xc0) == 0x80)
			keep--;
	}
	out[o++] = '\'';
	for (i = 0; i < keep; i++) {
		unsigned char b = (unsigned char)s[i];

		if (b == '\n')
			o += (size_t)sprintf(out + o, "\\n");
		else if (b < 0x20 || b == 0x7f)
			o += (size_t)sprintf(out + o, "\\x%02x", b);
		else
			out[o++] = s[i];
	}
	snprintf(out + o, LENS_QUOTE_SIZE - o, "%s'", keep < n ? "…" : "");
	return out;
}

enum lens_status lens_row_check_init(struct lens_row_check *c,
				     const struct lens_dataset_options *opt,
				     const struct lens_columns *columns, struct lens_error *err)
{
	*c = (struct lens_row_check){ .opt = opt, .columns = columns, .bos = -1 };
	if (!opt->prepend_bos)
		return LENS_OK;
	LENS_TRY(lens_tokenizer_bos(opt->tokenizer, &c->bos, err));
	if (c->bos < 0 || (size_t)c->bos >= opt->d_vocab)
		return lens_error_set(err, LENS_ERR_FORMAT,
				      "the tokenizer's BOS token is %d; the model's vocabulary "
				      "has %zu",
				      c->bos, opt->d_vocab);
	return LENS_OK;
}

void lens_row_check_release(struct lens_row_check *c)
{
	lens_ids_release(&c->scratch);
	lens_buf_release(&c->text);
}

void lens_row_release(struct lens_row *row)
{
	lens_ids_release(&row->tokens);
	lens_ids_release(&row->corrupted);
	lens_ids_release(&row->resampled);
	lens_ids_release(&row->answers);
	lens_ids_release(&row->answer_length);
}

/* Checks the number of fields, and that they are UTF-8 without NUL. */
static bool check_fields(const struct lens_row_check *c, const struct lens_csv_record *rec,
			 struct lens_row *row)
{
	const struct lens_columns *col = c->columns;
	size_t i;

	if (rec->n_fields != col->n) {
		lens_row_note(&row->bad, c, rec, "%zu field%s; the header has %zu",
			      rec->n_fields, rec->n_fields == 1 ? "" : "s", col->n);
		return false;
	}
	for (i = 0; i < col->n; i++) {
		if (memchr(rec->field[i], '\0', rec->length[i]))
			lens_row_note(&row->bad, c, rec, "a NUL byte in column '%.200s'",
				      col->name[i]);
		else if (!lens_utf8_valid(rec->field[i], rec->length[i]))
			lens_row_note(&row->bad, c, rec, "column '%.200s' is not valid UTF-8",
				      col->name[i]);
	}
	return row->bad.code == LENS_OK;
}

enum lens_status lens_row_encode(const struct lens_row_check *c,
				 const struct lens_csv_record *rec, size_t column,
				 bool continues, struct lens_ids *ids, struct lens_error *err)
{
	struct lens_error inner = LENS_ERROR_INIT;
	const char *text = rec->field[column];
	size_t n = rec->length[column];
	enum lens_status st;

	if (continues)
		st = lens_tokenizer_encode_continuation(c->opt->tokenizer, text, n, ids,
							&inner);
	else
		st = lens_tokenizer_encode(c->opt->tokenizer, text, n, ids, &inner);

	if (st == LENS_OK)
		return LENS_OK;
	return lens_error_at(err, st, c->opt->csv, rec->line, 0,
			     "record %lld, column '%.200s': %.1200s", (long long)rec->number,
			     c->columns->name[column], inner.text);
}

const char *lens_row_vocab(const struct lens_row_check *c)
{
	return c->vocab == c->opt->d_vocab ? "the model's vocabulary has"
					   : "the number of the model's logits is";
}

bool lens_row_check_ids(const struct lens_row_check *c, const struct lens_csv_record *rec,
			const struct lens_ids *ids, size_t column, struct lens_row *row)
{
	size_t i;

	for (i = 0; i < ids->n; i++) {
		if (ids->v[i] >= 0 && (size_t)ids->v[i] < c->vocab)
			continue;
		lens_row_note(&row->bad, c, rec, "column '%.200s' has token %d; %s %zu",
			      c->columns->name[column], ids->v[i], lens_row_vocab(c), c->vocab);
		return false;
	}
	return true;
}

/* --- prompt and answers together --------------------------------------------------- */

/*
 * " Mary" after a prompt that ends in a space would come after two spaces, which the
 * model has hardly ever seen. It does not matter if the tables read another token.
 */
static void check_seam(const struct lens_row_check *c, const struct lens_csv_record *rec,
		       struct lens_row *row)
{
	size_t p = c->columns->prompt, i;
	char q[LENS_QUOTE_SIZE];

	if (c->opt->prompt_ids || c->opt->answer_ids ||
	    row->read_pos + 1 != (int32_t)row->tokens.n ||
	    !lens_ends_with_space(rec->field[p], rec->length[p]))
		return;
	for (i = 0; i < c->opt->n_answers; i++) {
		size_t a = c->columns->answer[i];

		if (!lens_begins_with_space(rec->field[a], rec->length[a]))
			continue;
		lens_row_note(
			&row->warning[LENS_ROW_SEAM], c, rec,
			"the prompt (column '%.200s') ends in white space and the answer %s "
			"(column '%.200s') begins with it: together they have it twice",
			c->columns->name[p], lens_row_quote(q, rec->field[a], rec->length[a]),
			c->columns->name[a]);
		return;
	}
}

/* The ids of one answer. */
static const int32_t *answer_ids(const struct lens_row *row, size_t answer)
{
	const int32_t *id = row->answers.v;
	size_t i;

	for (i = 0; i < answer; i++)
		id += row->answer_length.v[i];
	return id;
}

static bool equal_answers(const struct lens_row *row, size_t x, size_t y)
{
	size_t n = (size_t)row->answer_length.v[x];

	return n == (size_t)row->answer_length.v[y] &&
	       !memcmp(answer_ids(row, x), answer_ids(row, y), n * sizeof(int32_t));
}

static void check_equal_answers(const struct lens_row_check *c,
				const struct lens_csv_record *rec, struct lens_row *row)
{
	char same[32] = "tokens";
	size_t i, k;

	for (i = 1; i < row->answer_length.n; i++) {
		for (k = 0; k < i && !equal_answers(row, k, i); k++)
			;
		if (k == i)
			continue;
		if (row->answer_length.v[i] == 1)
			snprintf(same, sizeof(same), "token, %d", *answer_ids(row, i));
		lens_row_note(&row->warning[LENS_ROW_EQUAL_ANSWERS], c, rec,
			      "the answers in columns '%.200s' and '%.200s' are the same %s",
			      c->columns->name[c->columns->answer[k]],
			      c->columns->name[c->columns->answer[i]], same);
		return;
	}
}

uint8_t lens_row_flags(const struct lens_row *row)
{
	unsigned flags = 0;

	if (row->warning[LENS_ROW_SEAM].code != LENS_OK)
		flags |= LENS_FLAG_SEAM;
	if (row->warning[LENS_ROW_EQUAL_ANSWERS].code != LENS_OK)
		flags |= LENS_FLAG_EQUAL_ANSWERS;
	return (uint8_t)flags;
}

enum lens_status lens_row_check(struct lens_row_check *c, const struct lens_csv_record *rec,
				struct lens_row *row, struct lens_error *err)
{
	size_t i;

	row->tokens.n = row->corrupted.n = row->resampled.n = 0;
	row->answers.n = row->answer_length.n = 0;
	row->read_pos = 0;
	row->bad.code = LENS_OK;
	for (i = 0; i < LENS_ROW_WARNINGS; i++)
		row->warning[i].code = LENS_OK;
	if (!check_fields(c, rec, row))
		return LENS_OK;
	LENS_TRY(lens_row_check_prompt(c, rec, row, err));
	if (row->bad.code == LENS_OK)
		LENS_TRY(lens_row_check_read_pos(c, rec, row, err));
	if (row->bad.code == LENS_OK)
		LENS_TRY(lens_row_check_places(c, rec, row, err));
	if (row->bad.code == LENS_OK && c->columns->corrupted != LENS_NO_COLUMN)
		LENS_TRY(lens_row_check_corrupted(c, rec, row, err));
	if (row->bad.code == LENS_OK && c->columns->resample != LENS_NO_COLUMN)
		LENS_TRY(lens_row_check_resampled(c, rec, row, err));
	for (i = 0; i < c->opt->n_answers && row->bad.code == LENS_OK; i++)
		LENS_TRY(lens_row_check_answer(c, rec, c->columns->answer[i], row, err));
	if (row->bad.code == LENS_OK) {
		check_seam(c, rec, row);
		check_equal_answers(c, rec, row);
	}
	return LENS_OK;
}
