/* capture_private.h: what the files of capture/ share. */
#ifndef CAPTURE_PRIVATE_H
#define CAPTURE_PRIVATE_H

#include "h5lens/capture.h"

struct lens_capture {
	const struct lens_capture_plan *plan;
	const struct lens_sink *sink;
	const struct lens_capture_spec **by_hook; /* [n_layers, LENS_HOOK_COUNT] */
	size_t *overflows;                        /* [n_specs] */
	float *stage[2];     /* scores, pattern: [rows, heads, slots, keys] of one chunk row */
	size_t row0, token0; /* of the batch in hand */
	double convert, digest; /* seconds */
};

/* Bytes of a buffer with so many rows: a chunk, or whole rows if by_rows. */
size_t lens_spec_bytes(const struct lens_capture_spec *s, size_t rows);
size_t lens_stage_floats(const struct lens_capture_plan *plan);
/* Rows that are handed over at a time, at most. */
size_t lens_most_rows(const struct lens_capture_plan *plan, const struct lens_capture_spec *s);

/*
 * Prompts r0 … end − 1 of the batch in hand: those of one chunk row. Whole chunks are made of
 * them if they are all that the chunk will hold; otherwise the writer gathers what several
 * batches have of it.
 */
struct lens_piece {
	size_t r0, end, chunk;
	size_t rows; /* of a buffer: past the file's last prompt, a whole chunk is filled */
	bool whole;
};
/* The one that a prompt of a batch of n_prompts is in. */
struct lens_piece lens_piece_of(const struct lens_capture *c, const struct lens_capture_spec *s,
				size_t prompt, size_t n_prompts);

/* Elements at … at + n − 1 of buf: fill, or x converted. */
void lens_fill_places(const struct lens_capture_spec *s, void *buf, size_t at, size_t n);
void lens_copy_values(struct lens_capture *c, const struct lens_capture_spec *s, void *buf,
		      size_t at, const float *x, size_t n);
/* The values of a position of a prompt. */
const float *lens_capture_row(const struct lens_batch *b, const struct lens_activation *a,
			      size_t prompt, long pos);
/* Hashes a full buffer, unless it is of rows, and gives it to the sink. */
enum lens_status lens_capture_submit(struct lens_capture *c, struct lens_captured *done,
				     struct lens_error *err);
/* The same of the buffer of a piece. */
enum lens_status lens_hand_over(struct lens_capture *c, const struct lens_capture_spec *s,
				const struct lens_piece *p, const size_t *coord, void *buf,
				struct lens_error *err);

enum lens_status lens_cut_square(struct lens_capture *c, const struct lens_capture_spec *s,
				 const struct lens_batch *b, const struct lens_activation *a,
				 struct lens_error *err);
enum lens_status lens_cut_by_token(struct lens_capture *c, const struct lens_capture_spec *s,
				   const struct lens_batch *b, const struct lens_activation *a,
				   struct lens_error *err);

#endif
