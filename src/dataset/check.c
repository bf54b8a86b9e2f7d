/*
 * dataset/check.c: one record → tokens (check_prompt.c), read position (read_pos.c) and
 * answers, or what is wrong with it. In: a record and the tokenizer; out: a struct lens_row.
 * Here, a bad row is a result, not a failure.
 */
#include "dataset/check_private.h"

#include <stdarg.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

enum { PIECES_MAX = 6 };

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
	lens_ids_release(&row->answers);
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

bool lens_row_check_ids(const struct lens_row_check *c, const struct lens_csv_record *rec,
			const struct lens_ids *ids, size_t column, struct lens_row *row)
{
	size_t i;

	for (i = 0; i < ids->n; i++) {
		if (ids->v[i] >= 0 && (size_t)ids->v[i] < c->opt->d_vocab)
			continue;
		lens_row_note(&row->bad, c, rec,
			      "column '%.200s' has token %d; the model's vocabulary has %zu",
			      c->columns->name[column], ids->v[i], c->opt->d_vocab);
		return false;
	}
	return true;
}

/*
 * Writes the other spelling of an answer, without or with a leading space, to c->text,
 * and its ids to c->scratch. Is it one token?
 */
static enum lens_status try_variant(struct lens_row_check *c, const char *s, size_t n,
				    bool *is_token, struct lens_error *err)
{
	c->text.len = c->scratch.n = 0;
	*is_token = false;
	if (s[0] != ' ')
		LENS_TRY(lens_buf_append(&c->text, " ", 1, err));
	LENS_TRY(lens_buf_append(&c->text, s[0] == ' ' ? s + 1 : s, s[0] == ' ' ? n - 1 : n,
				 err));
	if (!c->text.len)
		return LENS_OK;
	LENS_TRY(lens_tokenizer_encode_continuation(c->opt->tokenizer, c->text.data,
						    c->text.len, &c->scratch, err));
	*is_token = c->scratch.n == 1;
	return LENS_OK;
}

/* "'Mary' + 'land'"; the ids are in c->scratch. */
static enum lens_status list_pieces(struct lens_row_check *c, char *out, size_t size,
				    struct lens_error *err)
{
	size_t i, used = 0;
	char q[LENS_QUOTE_SIZE];

	out[0] = '\0';
	for (i = 0; i < c->scratch.n && i < PIECES_MAX; i++) {
		c->text.len = 0;
		LENS_TRY(lens_tokenizer_decode_continuation(c->opt->tokenizer, &c->scratch.v[i],
							    1, &c->text, err));
		LENS_TRY(lens_buf_append(&c->text, "", 0, err));
		lens_row_quote(q, c->text.data, c->text.len);
		used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " + " : "", q);
		if (used >= size)
			return LENS_OK;
	}
	if (i < c->scratch.n)
		snprintf(out + used, size - used, " + …");
	return LENS_OK;
}

/* The first space in s that is not the plain one; 0: none. */
static int32_t odd_space(const char *s, size_t n)
{
	const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)s;
	utf8proc_int32_t code;

	while (n) {
		utf8proc_ssize_t took = utf8proc_iterate(at, (utf8proc_ssize_t)n, &code);

		if (took < 1)
			return 0;
		if (code > 0x7f && utf8proc_category(code) == UTF8PROC_CATEGORY_ZS)
			return code;
		at += took;
		n -= (size_t)took;
	}
	return 0;
}

/* The row is bad: reports the pieces of the answer, and what would be one token. */
static enum lens_status split_answer(struct lens_row_check *c,
				     const struct lens_csv_record *rec, size_t column,
				     struct lens_row *row, struct lens_error *err)
{
	const char *s = rec->field[column];
	char q[LENS_QUOTE_SIZE], variant[LENS_QUOTE_SIZE], pieces[800], odd[80] = "";
	int32_t space = odd_space(s, rec->length[column]);
	size_t n_tokens = c->scratch.n, prompt = c->columns->prompt;
	bool is_token;

	LENS_TRY(list_pieces(c, pieces, sizeof(pieces), err));
	LENS_TRY(try_variant(c, s, rec->length[column], &is_token, err));
	lens_row_quote(q, s, rec->length[column]);
	lens_row_quote(variant, c->text.data, c->text.len);
	if (space)
		snprintf(odd, sizeof(odd), "; it holds %s (U+%04X), which is not a plain space",
			 space == 0xa0 ? "a no-break space" : "a space", (unsigned)space);
	lens_row_note(&row->bad, c, rec,
		      "answer %s (column '%.200s') is %zu tokens, not one%s%s%s%s%s%s%s%s", q,
		      c->columns->name[column], n_tokens, n_tokens ? ": " : "", pieces, odd,
		      is_token ? "; with" : "", is_token && s[0] == ' ' ? "out" : "",
		      is_token ? " a leading space it is one: " : "", is_token ? variant : "",
		      is_token && s[0] != ' ' &&
				      lens_ends_with_space(rec->field[prompt],
							   rec->length[prompt])
			      ? " (and the prompt without the space at its end)"
			      : "");
	return LENS_OK;
}

/*
 * ' Mary' is what follows a word; 'Mary' is another token, which is rarely meant. There
 * is no warning for punctuation, which does follow without a space.
 */
static enum lens_status warn_of_space(struct lens_row_check *c,
				      const struct lens_csv_record *rec, size_t column,
				      struct lens_row *row, struct lens_error *err)
{
	const char *s = rec->field[column];
	char q[LENS_QUOTE_SIZE], variant[LENS_QUOTE_SIZE];
	bool is_token;

	if (row->warning[LENS_ROW_NO_SPACE].code != LENS_OK || isspace((unsigned char)s[0]) ||
	    ispunct((unsigned char)s[0]))
		return LENS_OK;
	LENS_TRY(try_variant(c, s, rec->length[column], &is_token, err));
	if (!is_token)
		return LENS_OK;
	lens_row_note(&row->warning[LENS_ROW_NO_SPACE], c, rec,
		      "answer %s (column '%.200s') has no leading space; %s is a token too",
		      lens_row_quote(q, s, rec->length[column]), c->columns->name[column],
		      lens_row_quote(variant, c->text.data, c->text.len));
	return LENS_OK;
}

static enum lens_status check_answer(struct lens_row_check *c,
				     const struct lens_csv_record *rec, size_t column,
				     struct lens_row *row, struct lens_error *err)
{
	if (!rec->length[column]) {
		lens_row_note(&row->bad, c, rec, "the answer (column '%.200s') is empty",
			      c->columns->name[column]);
		return LENS_OK;
	}
	c->scratch.n = 0;
	LENS_TRY(lens_row_encode(c, rec, column, true, &c->scratch, err));
	if (c->scratch.n != 1)
		return split_answer(c, rec, column, row, err);
	if (!lens_row_check_ids(c, rec, &c->scratch, column, row))
		return LENS_OK;
	LENS_TRY(lens_ids_push(&row->answers, c->scratch.v[0], err));
	return warn_of_space(c, rec, column, row, err);
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

	if (row->read_pos + 1 != (int32_t)row->tokens.n ||
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

static void check_equal_answers(const struct lens_row_check *c,
				const struct lens_csv_record *rec, struct lens_row *row)
{
	const int32_t *id = row->answers.v;
	size_t i, k;

	for (i = 1; i < row->answers.n; i++) {
		for (k = 0; k < i && id[k] != id[i]; k++)
			;
		if (k == i)
			continue;
		lens_row_note(
			&row->warning[LENS_ROW_EQUAL_ANSWERS], c, rec,
			"the answers in columns '%.200s' and '%.200s' are the same token, %d",
			c->columns->name[c->columns->answer[k]],
			c->columns->name[c->columns->answer[i]], id[i]);
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

	row->tokens.n = row->corrupted.n = row->answers.n = 0;
	row->read_pos = 0;
	row->bad.code = LENS_OK;
	for (i = 0; i < LENS_ROW_WARNINGS; i++)
		row->warning[i].code = LENS_OK;
	if (!check_fields(c, rec, row))
		return LENS_OK;
	LENS_TRY(lens_row_check_prompt(c, rec, row, err));
	if (row->bad.code == LENS_OK)
		LENS_TRY(lens_row_check_read_pos(c, rec, row, err));
	if (row->bad.code == LENS_OK && c->columns->corrupted != LENS_NO_COLUMN)
		LENS_TRY(lens_row_check_corrupted(c, rec, row, err));
	for (i = 0; i < c->opt->n_answers && row->bad.code == LENS_OK; i++)
		LENS_TRY(check_answer(c, rec, c->columns->answer[i], row, err));
	if (row->bad.code == LENS_OK) {
		check_seam(c, rec, row);
		check_equal_answers(c, rec, row);
	}
	return LENS_OK;
}
