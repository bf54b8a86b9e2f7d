/*
 * dataset/check_answer.c: an answer → its tokens, or what is wrong with it; and what is
 * odd about it. In: a column of a record whose prompt is good; out: ids in the row.
 */
#include "dataset/check_private.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

enum { PIECES_MAX = 6 };

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

/* The row is bad: an answer of ids that are not one. */
static void count_ids(const struct lens_row_check *c, const struct lens_csv_record *rec,
		      size_t column, struct lens_row *row)
{
	char q[LENS_QUOTE_SIZE];

	lens_row_note(&row->bad, c, rec,
		      "answer %s (column '%.200s') is %zu token ids, not one%s",
		      lens_row_quote(q, rec->field[column], rec->length[column]),
		      c->columns->name[column], c->scratch.n,
		      c->scratch.n ? "; data.answer_tokens: any takes several" : "");
}

/* The row is bad: reports the pieces of the answer, and what would be good. */
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
		      "answer %s (column '%.200s') is %zu tokens, not one%s%s%s%s%s%s%s%s%s", q,
		      c->columns->name[column], n_tokens, n_tokens ? ": " : "", pieces, odd,
		      is_token ? "; with" : "", is_token && s[0] == ' ' ? "out" : "",
		      is_token ? " a leading space it is one: " : "", is_token ? variant : "",
		      is_token && s[0] != ' ' &&
				      lens_ends_with_space(rec->field[prompt],
							   rec->length[prompt])
			      ? " (and the prompt without the space at its end)"
			      : "",
		      n_tokens ? "; data.answer_tokens: any takes several" : "");
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
	size_t n_tokens = c->scratch.n;
	char what[80];
	bool is_token;

	if (row->warning[LENS_ROW_NO_SPACE].code != LENS_OK || isspace((unsigned char)s[0]) ||
	    ispunct((unsigned char)s[0]))
		return LENS_OK;
	LENS_TRY(try_variant(c, s, rec->length[column], &is_token, err));
	/* Of several tokens it may be, where it has no more than the answer without. */
	if (!c->scratch.n || c->scratch.n > n_tokens)
		return LENS_OK;
	if (n_tokens == 1)
		snprintf(what, sizeof(what), "a token too");
	else
		snprintf(what, sizeof(what), "%zu token%s, without it are %zu", c->scratch.n,
			 is_token ? "" : "s", n_tokens);
	lens_row_note(&row->warning[LENS_ROW_NO_SPACE], c, rec,
		      "answer %s (column '%.200s') has no leading space; %s is %s",
		      lens_row_quote(q, s, rec->length[column]), c->columns->name[column],
		      lens_row_quote(variant, c->text.data, c->text.len), what);
	return LENS_OK;
}

/*
 * Of several tokens it follows the prompt up to the read position, and all of it but the
 * last token is read with it.
 */
static void check_room(const struct lens_row_check *c, const struct lens_csv_record *rec,
		       size_t column, struct lens_row *row)
{
	size_t n = (size_t)row->read_pos + c->scratch.n;
	char q[LENS_QUOTE_SIZE];

	if (c->scratch.n == 1 || (n <= c->opt->n_ctx && n <= INT32_MAX))
		return;
	lens_row_note(
		&row->bad, c, rec,
		"answer %s (column '%.200s') is %zu tokens; with the prompt's %d before it "
		"the model would read %zu and takes %zu",
		lens_row_quote(q, rec->field[column], rec->length[column]),
		c->columns->name[column], c->scratch.n, row->read_pos + 1, n, c->opt->n_ctx);
}

/* An answer needs a logit; one of several tokens is read, too. */
static size_t answer_vocab(const struct lens_dataset_options *opt)
{
	if (!opt->d_vocab_out)
		return opt->d_vocab;
	return opt->any_tokens ? lens_min(opt->d_vocab, opt->d_vocab_out) : opt->d_vocab_out;
}

enum lens_status lens_row_check_answer(struct lens_row_check *c,
				       const struct lens_csv_record *rec, size_t column,
				       struct lens_row *row, struct lens_error *err)
{
	if (!rec->length[column]) {
		lens_row_note(&row->bad, c, rec, "the answer (column '%.200s') is empty",
			      c->columns->name[column]);
		return LENS_OK;
	}
	c->scratch.n = 0;
	c->vocab = answer_vocab(c->opt);
	if (c->opt->answer_ids)
		LENS_TRY(lens_row_take_ids(c, rec, column, &c->scratch, row, err));
	else
		LENS_TRY(lens_row_encode(c, rec, column, true, &c->scratch, err));
	if (row->bad.code != LENS_OK)
		return LENS_OK;
	if (!c->scratch.n || (c->scratch.n > 1 && !c->opt->any_tokens)) {
		if (!c->opt->answer_ids)
			return split_answer(c, rec, column, row, err);
		count_ids(c, rec, column, row);
		return LENS_OK;
	}
	if (lens_row_check_ids(c, rec, &c->scratch, column, row))
		check_room(c, rec, column, row);
	if (row->bad.code != LENS_OK)
		return LENS_OK;
	LENS_TRY(lens_ids_append(&row->answers, &c->scratch, err));
	LENS_TRY(lens_ids_push(&row->answer_length, (int32_t)c->scratch.n, err));
	return c->opt->answer_ids ? LENS_OK : warn_of_space(c, rec, column, row, err);
}
