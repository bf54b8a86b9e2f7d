/*
 * dataset/csv.h: CSV records one at a time, in bounded memory. Private to the
 * data set stage.
 */
#ifndef LENS_DATASET_CSV_H
#define LENS_DATASET_CSV_H

#include "h5lens/core.h"

/* Longer records are an error: mostly a closing quote is missing. */
#define LENS_CSV_MAX_RECORD ((size_t)16 << 20)
#define LENS_CSV_MAX_FIELDS ((size_t)16384)

struct lens_csv_record {
	int64_t number;           /* the header is 0, data records start at 1 */
	long line;                /* the first physical line, 1-based */
	size_t n_fields;          /* texts are kept for LENS_CSV_MAX_FIELDS of them */
	const char *const *field; /* each with a NUL after it */
	const size_t *length;     /* in bytes; a NUL inside counts */
};

struct lens_csv_reader;

/* separator stands between fields: ',' or another single byte. */
enum lens_status lens_csv_open(const char *path, char separator, struct lens_csv_reader **out,
			       struct lens_error *err);
void lens_csv_close(struct lens_csv_reader *r);

/*
 * The next record, valid until the next call; *got is false at the end of the
 * file. Empty lines are no records. After an error the reader is spent.
 */
enum lens_status lens_csv_next(struct lens_csv_reader *r, struct lens_csv_record *rec,
			       bool *got, struct lens_error *err);

/* The SHA-256 of the whole file: what is left is read, but not parsed. */
enum lens_status lens_csv_digest(struct lens_csv_reader *r, uint8_t out[LENS_SHA256_BYTES],
				 struct lens_error *err);

#endif
