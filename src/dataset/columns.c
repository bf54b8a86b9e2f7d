/*
 * dataset/columns.c: the header record. In: its names and the options; out:
 * the index of each column that the options name, and the list of the others.
 */
#include "dataset/columns_private.h"

#include <string.h>

static enum lens_status check_name(const struct lens_csv_record *rec, size_t i,
				   const struct lens_dataset_options *opt,
				   struct lens_error *err)
{
	const char *name = rec->field[i];
	size_t j;

	if (!rec->length[i])
		return lens_error_at(
			err, LENS_ERR_FORMAT, opt->csv, rec->line, 0,
			"column %zu of the header has no name (pandas writes such a "
			"column unless told index=False)",
			i + 1);
	if (strlen(name) != rec->length[i] || !lens_utf8_valid(name, rec->length[i]))
		return lens_error_at(err, LENS_ERR_FORMAT, opt->csv, rec->line, 0,
				     "the name of column %zu is not valid UTF-8 text", i + 1);
	for (j = 0; j < i; j++) {
		if (!strcmp(rec->field[j], name))
			return lens_error_at(err, LENS_ERR_FORMAT, opt->csv, rec->line, 0,
					     "columns %zu and %zu are both named '%.200s'",
					     j + 1, i + 1, name);
	}
	return LENS_OK;
}

static enum lens_status copy_names(struct lens_columns *c, const struct lens_csv_record *rec,
				   const struct lens_dataset_options *opt,
				   struct lens_error *err)
{
	size_t i;

	if (rec->n_fields > LENS_CSV_MAX_FIELDS)
		return lens_error_at(err, LENS_ERR_FORMAT, opt->csv, rec->line, 0,
				     "%zu columns; at most %zu are supported", rec->n_fields,
				     LENS_CSV_MAX_FIELDS);
	c->name = lens_calloc(rec->n_fields, sizeof(*c->name));
	c->other = lens_calloc(rec->n_fields, sizeof(*c->other));
	if (!c->name || !c->other)
		return lens_error_nomem(err, rec->n_fields, sizeof(*c->name));
	for (i = 0; i < rec->n_fields; i++) {
		LENS_TRY(check_name(rec, i, opt, err));
		c->name[i] = lens_strdup(rec->field[i]);
		if (!c->name[i])
			return lens_error_nomem(err, rec->length[i] + 1, 1);
		c->n++;
	}
	return LENS_OK;
}

/* A header of one column, with another separator in it. */
static const char *separator_hint(const char *only)
{
	if (strchr(only, ';'))
		return "; if semicolons separate fields, set data.separator: semicolon";
	if (strchr(only, '\t'))
		return "; if tabs separate fields, set data.separator: tab";
	if (strchr(only, ','))
		return "; if commas separate fields, set data.separator: comma";
	return strchr(only, '|') ? "; fields are separated by commas, semicolons or tabs" : "";
}

static enum lens_status missing(const struct lens_columns *c, const char *name,
				const struct lens_dataset_options *opt, struct lens_error *err)
{
	const char *near = lens_nearest(name, (const char *const *)c->name, c->n);
	const char *only = c->n == 1 ? c->name[0] : "";
	struct lens_buf list = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	size_t i;

	for (i = 0; i < c->n && list.len < 600 && st == LENS_OK; i++)
		st = lens_buf_printf(&list, err, "%s%.100s", i ? ", " : "", c->name[i]);
	if (st == LENS_OK)
		st = lens_error_at(err, LENS_ERR_FORMAT, opt->csv, 1, 0,
				   "no column '%.200s'%s%.200s%s; the columns are: %s%s%s",
				   name, near ? " (did you mean '" : "", near ? near : "",
				   near ? "'?)" : "", list.data, i < c->n ? ", …" : "",
				   separator_hint(only));
	lens_buf_release(&list);
	return st;
}

static enum lens_status find(const struct lens_columns *c, const char *name,
			     const struct lens_dataset_options *opt, size_t *out,
			     struct lens_error *err)
{
	size_t i;

	for (i = 0; i < c->n; i++) {
		if (!strcmp(c->name[i], name)) {
			*out = i;
			return LENS_OK;
		}
	}
	return missing(c, name, opt, err);
}

static enum lens_status find_answers(struct lens_columns *c,
				     const struct lens_dataset_options *opt,
				     struct lens_error *err)
{
	size_t i, j;

	c->answer = lens_calloc(opt->n_answers, sizeof(*c->answer));
	if (!c->answer)
		return lens_error_nomem(err, opt->n_answers, sizeof(*c->answer));
	for (i = 0; i < opt->n_answers; i++) {
		LENS_TRY(find(c, opt->answer_columns[i], opt, &c->answer[i], err));
		for (j = 0; j < i; j++) {
			if (c->answer[j] == c->answer[i])
				return lens_error_set(
					err, LENS_ERR_INVALID,
					"the answer column '%.200s' is named twice",
					opt->answer_columns[i]);
		}
	}
	return LENS_OK;
}

/* Makes a link name of a column's: HDF5 forbids "/", and "." or ".." alone. */
static char *link_name(const char *name)
{
	bool dots = !strcmp(name, ".") || !strcmp(name, "..");
	char *link = lens_calloc(strlen(name) + 2, 1), *c;

	if (!link)
		return NULL;
	link[0] = '_';
	memcpy(link + dots, name, strlen(name) + 1);
	for (c = link; *c; c++) {
		if (*c == '/')
			*c = '_';
	}
	return link;
}

static enum lens_status name_links(struct lens_columns *c,
				   const struct lens_dataset_options *opt,
				   struct lens_error *err)
{
	size_t i, k;

	c->stored = lens_calloc(c->n_other, sizeof(*c->stored));
	if (!c->stored)
		return lens_error_nomem(err, c->n_other, sizeof(*c->stored));
	for (i = 0; i < c->n_other; i++) {
		const char *name = c->name[c->other[i]];

		c->stored[i] = link_name(name);
		if (!c->stored[i])
			return lens_error_nomem(err, strlen(name) + 2, 1);
		for (k = 0; k < i; k++) {
			if (!strcmp(c->stored[i], c->stored[k]))
				return lens_error_at(
					err, LENS_ERR_FORMAT, opt->csv, 1, 0,
					"the columns '%.200s' and '%.200s' would both be "
					"'%.200s' in the output: rename one",
					c->name[c->other[k]], name, c->stored[i]);
		}
	}
	return LENS_OK;
}

static bool named(const struct lens_columns *c, const struct lens_dataset_options *opt,
		  size_t i)
{
	size_t k;

	for (k = 0; k < opt->n_answers; k++) {
		if (c->answer[k] == i)
			return true;
	}
	return i == c->prompt || i == c->corrupted || i == c->read_pos;
}

enum lens_status lens_columns_init(struct lens_columns *c, struct lens_csv_reader *r,
				   const struct lens_dataset_options *opt,
				   struct lens_error *err)
{
	struct lens_csv_record rec;
	bool got;
	size_t i;

	*c = (struct lens_columns){ .corrupted = LENS_NO_COLUMN,
				    .read_pos = LENS_NO_COLUMN,
				    .find = LENS_NO_COLUMN,
				    .resample = LENS_NO_COLUMN,
				    .place = { LENS_NO_COLUMN, LENS_NO_COLUMN } };
	LENS_TRY(lens_csv_next(r, &rec, &got, err));
	if (!got)
		return lens_error_at(
			err, LENS_ERR_FORMAT, opt->csv, 0, 0,
			"the file is empty; a header row with column names is needed");
	LENS_TRY(copy_names(c, &rec, opt, err));
	LENS_TRY(find(c, opt->prompt_column, opt, &c->prompt, err));
	if (opt->corrupted_column)
		LENS_TRY(find(c, opt->corrupted_column, opt, &c->corrupted, err));
	LENS_TRY(find_answers(c, opt, err));
	if (opt->read_pos_column)
		LENS_TRY(find(c, opt->read_pos_column, opt, &c->read_pos, err));
	if (opt->find_column)
		LENS_TRY(find(c, opt->find_column, opt, &c->find, err));
	if (opt->resample_column)
		LENS_TRY(find(c, opt->resample_column, opt, &c->resample, err));
	for (i = 0; i < 2; i++) {
		if (opt->place[i] && opt->place[i]->find_column)
			LENS_TRY(find(c, opt->place[i]->find_column, opt, &c->place[i], err));
	}
	for (i = 0; i < c->n; i++) {
		if (!named(c, opt, i))
			c->other[c->n_other++] = i;
	}
	return name_links(c, opt, err);
}

void lens_columns_release(struct lens_columns *c)
{
	size_t i;

	for (i = 0; i < c->n; i++)
		lens_free(c->name[i]);
	if (c->stored) {
		for (i = 0; i < c->n_other; i++)
			lens_free(c->stored[i]);
	}
	lens_free(c->stored);
	lens_free(c->name);
	lens_free(c->answer);
	lens_free(c->other);
	*c = (struct lens_columns){ 0 };
}
