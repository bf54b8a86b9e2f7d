/*
 * dataset/csv_private.h: CSV records one at a time, in bounded memory.
 */
#ifndef LENS_DATASET_CSV_PRIVATE_H
#define LENS_DATASET_CSV_PRIVATE_H

#include "h5lens/dataset.h"

/* A longer record is an error: most likely a closing quote is missing. */
#define LENS_CSV_MAX_RECORD ((size_t)16 << 20)
#define LENS_CSV_MAX_FIELDS ((size_t)16384)

struct lens_csv_record {
	int64_t number;           /* the header is 0, data records start at 1 */
	uint64_t offset;          /* of its first byte in the file */
	long line;                /* the first physical line, 1-based */
	size_t n_fields;          /* texts are kept for LENS_CSV_MAX_FIELDS of them */
	const char *const *field; /* each with a NUL after it */
	const size_t *length;     /* in bytes; a NUL inside counts */
};

struct lens_csv_reader;

/* separator: between fields, ',' or another single byte. */
enum lens_status lens_csv_open(const char *path, char separator, struct lens_csv_reader **out,
			       struct lens_error *err);
void lens_csv_close(struct lens_csv_reader *r);

/*
 * Reads the next record, valid until the next call; *got is false at the end of the
 * file. Empty lines are skipped. After an error the reader can only be closed.
 */
enum lens_status lens_csv_next(struct lens_csv_reader *r, struct lens_csv_record *rec,
			       bool *got, struct lens_error *err);

/* The file as it was when it was opened. */
const struct lens_file_stamp *lens_csv_stamp(const struct lens_csv_reader *r);

/* A digest of the record's fields, which tells one text from another. */
enum lens_status lens_csv_record_digest(const struct lens_csv_record *rec, uint64_t *out,
					struct lens_error *err);

/*
 * Between two records: the next one is that of this number, which begins there. The
 * reader has no digest afterwards.
 */
enum lens_status lens_csv_seek(struct lens_csv_reader *r, int64_t number,
			       const struct lens_prompt_place *place, struct lens_error *err);

/* The SHA-256 of the whole file: what is left is read, but not parsed. */
enum lens_status lens_csv_digest(struct lens_csv_reader *r, uint8_t out[LENS_SHA256_BYTES],
				 struct lens_error *err);

#endif
