/*
 * fuzz/fuzz_csv.c: bytes as a CSV file. The first two say how it is read: columns
 * that are asked for, BOS, what is done with bad rows, limits. What is accepted
 * is read a second time, and every row of it must be as it was promised.
 */
#include "fuzz/fuzz.h"

#include "h5lens/dataset.h"

#include <string.h>

static const char *const answers[] = { "correct", "incorrect" };

/* Where attention is cut, with find and find_column. */
static long positions[] = { -1, 1, 0 };
static const struct lens_places keys = { .find_column = (char *)"correct", .nth = -1 },
				queries = { .position = positions, .n = 3 };

static struct lens_tokenizer *tokenizer(void)
{
	static struct lens_tokenizer *tok;

	if (!tok)
		fuzz_hold(lens_tokenizer_open("tests/unit/data/tok_tiny", &tok, NULL) ==
				  LENS_OK,
			  "the tokenizer is there");
	return tok;
}

static void read_options(const uint8_t *data, struct lens_dataset_options *opt)
{
	static const size_t n_ctx[] = { 1024, 8, 2, 1 };

	opt->csv = fuzz_path("in.csv");
	opt->separator = data[1] & 32 ? ';' : data[1] & 64 ? '\t' : ',';
	opt->prompt_column = "prompt";
	opt->corrupted_column = (data[1] & 96) == 96 ? "corrupted" : NULL;
	opt->answer_columns = answers;
	opt->n_answers = data[0] % 3;
	opt->prepend_bos = data[0] & 4;
	opt->skip_bad_rows = data[0] & 8;
	opt->read_pos_column = data[0] & 16 ? "read_pos" : NULL;
	opt->read_pos = data[0] & 32 ? 2 : -1;
	opt->find = data[0] & 64 ? "a" : NULL;
	opt->find_column = data[0] & 128 ? "correct" : NULL;
	opt->nth = data[1] & 128 ? -2 : 0;
	if (opt->find && opt->find_column) {
		opt->place[0] = &keys;
		opt->place[1] = &queries;
		opt->window = data[1] % 4;
	}
	opt->limit = data[1] % 4;
	opt->n_ctx = n_ctx[data[1] / 4 % 4];
	opt->d_vocab = data[1] & 16 ? 100 : lens_tokenizer_n_vocab(opt->tokenizer);
}

static void check_report(const struct lens_dataset_report *report)
{
	size_t i;

	for (i = 0; i < report->n_bad && i < LENS_BAD_ROWS_LISTED; i++)
		fuzz_check(LENS_ERR_FORMAT, &report->bad[i]);
	for (i = 0; i < LENS_ROW_WARNINGS; i++) {
		if (report->warning[i].n)
			fuzz_check(LENS_ERR_FORMAT, &report->warning[i].first);
	}
}

static void check_rows(const struct lens_dataset_options *opt, const struct lens_prompts *p)
{
	size_t i, k;

	fuzz_hold(p->n_rows && (!opt->limit || p->n_rows <= opt->limit), "there are rows");
	fuzz_hold(p->offset[0] == 0, "the first row is first");
	for (i = 0; i < p->n_rows; i++) {
		size_t n = p->offset[i + 1] - p->offset[i];

		fuzz_hold(n && n <= opt->n_ctx && n <= p->max_length, "a prompt fits");
		fuzz_hold(p->read_pos[i] >= 0 && (size_t)p->read_pos[i] < n,
			  "read_pos is in the prompt");
		fuzz_hold(!p->found[0] || (size_t)p->found[0][i] < n, "so is a text");
		fuzz_hold(p->record[i] > (i ? p->record[i - 1] : 0), "records ascend");
	}
	for (k = 0; k < p->offset[p->n_rows]; k++)
		fuzz_hold(p->tokens[k] >= 0 && (size_t)p->tokens[k] < opt->d_vocab,
			  "the model has the token");
	fuzz_hold(!opt->corrupted_column == !p->corrupted, "corrupted prompts if asked for");
	for (k = 0; p->corrupted && k < p->offset[p->n_rows]; k++)
		fuzz_hold(p->corrupted[k] >= 0 && (size_t)p->corrupted[k] < opt->d_vocab,
			  "the model has the corrupted prompt's token");
	for (k = 0; k < p->n_rows * p->n_answers; k++)
		fuzz_hold(p->answers[k] >= 0 && (size_t)p->answers[k] < opt->d_vocab,
			  "the model has the answer");
}

struct seen {
	const struct lens_prompts *p;
	size_t rows;
};

static enum lens_status see(void *ctx, const struct lens_prompt_text *t, struct lens_error *err)
{
	struct seen *s = ctx;
	size_t i;

	(void)err;
	fuzz_hold(t->row == s->rows++, "rows come in order");
	fuzz_hold(t->prompt[0] && lens_utf8_valid(t->prompt, strlen(t->prompt)),
		  "a prompt is UTF-8");
	for (i = 0; i < s->p->n_answers; i++)
		fuzz_hold(t->answer[i][0], "an answer is there");
	for (i = 0; i < s->p->n_columns; i++)
		fuzz_hold(lens_utf8_valid(t->column[i], strlen(t->column[i])),
			  "a column is UTF-8");
	return LENS_OK;
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct lens_dataset_options opt = { .tokenizer = tokenizer() };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_dataset_report report;
	struct lens_prompts *p;
	struct seen seen = { 0 };
	enum lens_status st;

	if (n < 2)
		return;
	fuzz_write("in.csv", data + 2, n - 2);
	read_options(data, &opt);
	st = lens_prompts_load(&opt, &p, &report, &err);
	fuzz_check(st, &err);
	check_report(&report);
	if (st != LENS_OK)
		return;
	check_rows(&opt, p);
	seen.p = p;
	st = lens_prompts_each(&opt, p, see, &seen, &err);
	fuzz_check(st, &err);
	fuzz_hold(fuzz_short_of_memory() || (st == LENS_OK && seen.rows == p->n_rows),
		  "all rows come again");
	lens_prompts_destroy(p);
}
