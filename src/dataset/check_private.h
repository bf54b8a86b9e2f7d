/*
 * dataset/check_private.h: is this record a good row, and what are its tokens?
 */
#ifndef LENS_DATASET_CHECK_PRIVATE_H
#define LENS_DATASET_CHECK_PRIVATE_H

#include "dataset/columns_private.h"

/* The caller's storage; reused from row to row. */
struct lens_row {
	struct lens_ids tokens;                       /* the prompt, BOS included */
	struct lens_ids corrupted, resampled;         /* as many, or none */
	int32_t read_pos;                             /* resolved: 0-based */
	int32_t found[2];                             /* likewise, of options.place */
	struct lens_ids answers;                      /* of all answers, one after another */
	struct lens_ids answer_length;                /* [n_answers] of each */
	struct lens_error bad;                        /* code LENS_OK when the row is good */
	struct lens_error warning[LENS_ROW_WARNINGS]; /* code LENS_OK: no such warning */
};

struct lens_row_check {
	const struct lens_dataset_options *opt;
	const struct lens_columns *columns;
	int32_t bos; /* -1: none */
	/* Tokens that the column may have which is read: of a prompt, of an answer. */
	size_t vocab;
	struct lens_ids scratch;
	struct lens_buf text;
};

enum lens_status lens_row_check_init(struct lens_row_check *c,
				     const struct lens_dataset_options *opt,
				     const struct lens_columns *columns,
				     struct lens_error *err);
void lens_row_check_release(struct lens_row_check *c);

/* Fills *row. A bad row is not a failure: see row->bad. */
enum lens_status lens_row_check(struct lens_row_check *c, const struct lens_csv_record *rec,
				struct lens_row *row, struct lens_error *err);
/* The prompt, and the corrupted and the other one against it (check_prompt.c); as above. */
enum lens_status lens_row_check_prompt(struct lens_row_check *c,
				       const struct lens_csv_record *rec, struct lens_row *row,
				       struct lens_error *err);
enum lens_status lens_row_check_corrupted(struct lens_row_check *c,
					  const struct lens_csv_record *rec,
					  struct lens_row *row, struct lens_error *err);
enum lens_status lens_row_check_resampled(struct lens_row_check *c,
					  const struct lens_csv_record *rec,
					  struct lens_row *row, struct lens_error *err);
/* Appends the ids of a field; an answer continues its prompt. An error names the record. */
enum lens_status lens_row_encode(const struct lens_row_check *c,
				 const struct lens_csv_record *rec, size_t column,
				 bool continues, struct lens_ids *ids, struct lens_error *err);
/* The same of a field of ids, "1 2 3"; what is none makes the row bad. */
enum lens_status lens_row_take_ids(const struct lens_row_check *c,
				   const struct lens_csv_record *rec, size_t column,
				   struct lens_ids *ids, struct lens_row *row,
				   struct lens_error *err);
/* What c->vocab is, in messages. */
const char *lens_row_vocab(const struct lens_row_check *c);
/* A token that the model lacks makes the row bad. */
bool lens_row_check_ids(const struct lens_row_check *c, const struct lens_csv_record *rec,
			const struct lens_ids *ids, size_t column, struct lens_row *row);
/* The read position (read_pos.c); as above. */
enum lens_status lens_row_check_read_pos(struct lens_row_check *c,
					 const struct lens_csv_record *rec,
					 struct lens_row *row, struct lens_error *err);
/* A text to look for. */
struct lens_search {
	const char *key;  /* what begins an error: "", "knockout.from: " */
	const char *text; /* without column */
	size_t column;    /* or LENS_NO_COLUMN */
	long nth;
};
/* The token that holds the last character of a text; as above. */
enum lens_status lens_row_find(struct lens_row_check *c, const struct lens_csv_record *rec,
			       const struct lens_search *what, struct lens_row *row,
			       int32_t *pos, struct lens_error *err);
/* Where attention is cut (check_places.c); as above. */
enum lens_status lens_row_check_places(struct lens_row_check *c,
				       const struct lens_csv_record *rec, struct lens_row *row,
				       struct lens_error *err);
/* An answer (check_answer.c); as above. */
enum lens_status lens_row_check_answer(struct lens_row_check *c,
				       const struct lens_csv_record *rec, size_t column,
				       struct lens_row *row, struct lens_error *err);

/* Says in *e what is wrong with a record, and which it is. */
void lens_row_note(struct lens_error *e, const struct lens_row_check *c,
		   const struct lens_csv_record *rec, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* 'text' on one line, cut to LENS_QUOTE_MAX bytes at a character's border. */
enum { LENS_QUOTE_MAX = 60, LENS_QUOTE_SIZE = 4 * LENS_QUOTE_MAX + 8 };
const char *lens_row_quote(char out[LENS_QUOTE_SIZE], const char *s, size_t n);

/* What of a row's warnings is kept in the file: LENS_FLAG_… */
uint8_t lens_row_flags(const struct lens_row *row);
void lens_row_release(struct lens_row *row);

/* Draws another row for each (resample.c): fills p->resampled. */
enum lens_status lens_prompts_resample(struct lens_prompts *p,
				       const struct lens_dataset_options *opt,
				       struct lens_error *err);

#endif
