/*
 * dataset.h: CSV → prompt set.
 *
 * The whole file is read and checked before any compute: a sweep must not die
 * on row 90,000. What stays in memory is tokens and answers (about 4 bytes a
 * token) and where each row stands in the file; texts and the other columns are
 * read again, row by row, when they are written (lens_prompts_each), so that
 * memory does not grow with them.
 */
#ifndef H5LENS_DATASET_H
#define H5LENS_DATASET_H

#include "h5lens/core.h"
#include "h5lens/experiment.h"
#include "h5lens/tokenizer.h"

struct lens_dataset_options {
	const char *csv; /* path */
	char separator;  /* between fields: ',' */
	const char *prompt_column;
	bool prompt_ids, answer_ids;  /* prompts (all of them), answers are ids, not texts */
	const char *corrupted_column; /* NULL: none */
	/*
	 * For each prompt another one of as many tokens: of a column, or without one another
	 * row's, drawn by the seed: by what the prompts are, not by their order.
	 */
	bool resample;
	const char *resample_column; /* NULL: drawn */
	long resample_seed;
	const char *const *answer_columns;
	size_t n_answers;            /* 0 is allowed: then no answer tables */
	bool any_tokens;             /* an answer may be several tokens; else it is one */
	const char *read_pos_column; /* NULL: none */
	/*
	 * NULL, or a text (of a column) that is looked for in each prompt: where the nth
	 * one ends, counted from 0 or (negative) back from the last, is the read position.
	 */
	const char *find, *find_column;
	long nth;
	long read_pos; /* used without any of these; -1: the last token */
	/* Attention that is to be cut: keys, queries; or NULL. */
	const struct lens_places *place[2];
	size_t window; /* with them: keys that a query sees where it is cut; 0: all before it */
	bool prepend_bos;
	bool skip_bad_rows; /* else a bad row is an error */
	size_t limit;       /* use the first so many good rows; 0: all. The rows
			       after them are hashed, but not checked */
	size_t n_ctx;       /* longest prompt the model takes, in tokens */
	size_t d_vocab;     /* the model's: a row with a token beyond it is bad */
	size_t d_vocab_out; /* the same of answers, which need a logit; 0: d_vocab */
	const struct lens_tokenizer *tokenizer; /* NULL: nothing here needs one */
};

#define LENS_BAD_ROWS_LISTED 20

/* What may be suspicious about a good row. */
enum lens_row_warning {
	LENS_ROW_SECOND_BOS,    /* the prompt begins with the BOS token that is prepended */
	LENS_ROW_NO_SPACE,      /* an answer without its leading space */
	LENS_ROW_SEAM,          /* white space where the prompt ends and an answer begins */
	LENS_ROW_EQUAL_ANSWERS, /* two answers are the same tokens */
	LENS_ROW_PARTS_LATE     /* the corrupted prompt parts behind the token that is read */
};
#define LENS_ROW_WARNINGS 5

/* Bits of /results/flags that concern the row itself; the analysis uses 1 and 2. */
#define LENS_FLAG_SEAM 4u
#define LENS_FLAG_EQUAL_ANSWERS 8u

/* What was wrong with the rows, for the user. */
struct lens_dataset_report {
	size_t n_bad;                                /* how many bad rows */
	struct lens_error bad[LENS_BAD_ROWS_LISTED]; /* the first ones */
	struct {
		size_t n;                /* how many good rows have it */
		struct lens_error first; /* of the first one */
	} warning[LENS_ROW_WARNINGS];
};

/* How a column is stored: as numbers only if no cell's text loses anything. */
enum lens_column_kind {
	LENS_COLUMN_TEXT,
	LENS_COLUMN_INT, /* every cell is a canonical integer that fits in int64 */
	LENS_COLUMN_REAL /* every filled cell a decimal of at most 15 digits; "" and NA: NaN */
};

/* What tells, without reading it, that a file is not as it was. */
struct lens_file_stamp {
	uint64_t device, inode, bytes;
	int64_t modified, changed; /* nanoseconds */
};

/* Where a row stands in the file, and a digest of its fields. */
struct lens_prompt_place {
	uint64_t offset, digest;
	long line; /* the first physical line */
};

/* A checked prompt set; everything below is owned by it and immutable. */
struct lens_prompts {
	size_t n_rows, n_answers;
	size_t max_length;  /* tokens of the longest prompt */
	uint64_t *offset;   /* [n_rows + 1] into tokens */
	int32_t *tokens;    /* packed, BOS included */
	int32_t *corrupted; /* the corrupted prompts' likewise, or NULL */
	int32_t *resampled; /* the other prompts' of options.resample likewise, or NULL */
	int32_t *found[2];  /* [n_rows] where the texts of options.place end; NULL: lists */
	int32_t *read_pos;  /* [n_rows] 0-based index into the prompt's tokens */
	/*
	 * Token ids. Of one token each: [n_rows, n_answers]. With any_tokens packed, and
	 * answer_offset, [n_rows * n_answers + 1], tells where each answer begins.
	 */
	int32_t *answers;
	uint64_t *answer_offset;         /* or NULL */
	size_t n_answer_pos;             /* with it: tokens of the longest answer of the file */
	int64_t *record;                 /* [n_rows] 1-based data record of the CSV file */
	struct lens_prompt_place *place; /* [n_rows] */
	size_t n_columns;                /* the other columns, in file order */
	char **column_name;              /* [n_columns] as in the file */
	char **column_stored;            /* [n_columns] the same as an HDF5 link's name */
	enum lens_column_kind *column_kind; /* [n_columns] */
	uint8_t *flags;                     /* [n_rows] LENS_FLAG_… */
	uint8_t sha256[LENS_SHA256_BYTES];  /* of the file */
	struct lens_file_stamp stamp;       /* of the file, when it was opened */
	uint64_t csv_bytes;                 /* of the file, as far as these rows go */
};

/* The number in a cell of an INT or REAL column. */
int64_t lens_cell_int(const char *text);
double lens_cell_real(const char *text);

/* Tokens of a row. */
static inline size_t lens_prompt_length(const struct lens_prompts *p, size_t row)
{
	return (size_t)(p->offset[row + 1] - p->offset[row]);
}

/* Tokens of an answer. */
static inline size_t lens_answer_length(const struct lens_prompts *p, size_t row, size_t answer)
{
	size_t i = row * p->n_answers + answer;

	return p->answer_offset ? (size_t)(p->answer_offset[i + 1] - p->answer_offset[i]) : 1;
}

/*
 * Tokens of a prompt up to its read position with an answer behind it, but for the answer's
 * last token; 0 for an answer of one.
 */
static inline size_t lens_continued_length(const struct lens_prompts *p, size_t row,
					   size_t answer)
{
	size_t n = lens_answer_length(p, row, answer);

	return n > 1 ? (size_t)p->read_pos[row] + n : 0;
}

/*
 * Reads and checks the whole file. report must not be NULL; it is filled in even on an
 * error. With bad rows and !skip_bad_rows the status is LENS_ERR_FORMAT and the error's
 * text counts them; an error in the file as a whole (a missing column, an unterminated
 * quote) is reported alone. A file without a good row is an error.
 */
enum lens_status lens_prompts_load(const struct lens_dataset_options *opt,
				   struct lens_prompts **out,
				   struct lens_dataset_report *report, struct lens_error *err);
void lens_prompts_destroy(struct lens_prompts *p);

/* Is a position among these, of a row? found: where their text ends, if they name one. */
bool lens_place_has(const struct lens_places *l, const int32_t *found, size_t row,
		    size_t length, size_t pos);
/* The first of them; length: there is none. */
size_t lens_place_first(const struct lens_places *l, const int32_t *found, size_t row,
			size_t length);

/* Rows first … first + n − 1 of a whole set, which keeps owning everything. */
struct lens_prompts lens_prompts_part(const struct lens_prompts *p, size_t first, size_t n);

/* A row's texts, valid during the call only. */
struct lens_prompt_text {
	size_t row;                /* index into the prompt set */
	const char *prompt;        /* as in the file, without BOS */
	const char *corrupted;     /* the same, or NULL */
	const char *const *answer; /* [n_answers] */
	const char *const *column; /* [n_columns] */
};
typedef enum lens_status (*lens_prompt_text_fn)(void *ctx, const struct lens_prompt_text *t,
						struct lens_error *err);

/*
 * Reads the rows a second time and calls fn for each of them in order. A file that
 * changed since lens_prompts_load is LENS_ERR_FORMAT. Of one whose stamp is the same,
 * only these rows are read, and each must be what it was; any other is read, and
 * hashed, whole.
 */
enum lens_status lens_prompts_each(const struct lens_dataset_options *opt,
				   const struct lens_prompts *p, lens_prompt_text_fn fn,
				   void *ctx, struct lens_error *err);

#endif
