/*
 * capture.h: what the user selected → buffers in the file's layout.
 *
 * A worker's capture is shown activations by the forward pass, cuts them into
 * chunks of their datasets (or, where a chunk spans several batches, into
 * blocks of rows), converts, hashes, and hands them to a sink. It holds one
 * buffer of the sink's at a time, so a sink with a bounded pool cannot lock.
 */
#ifndef H5LENS_CAPTURE_H
#define H5LENS_CAPTURE_H

#include "h5lens/experiment.h"
#include "h5lens/forward.h"

/* Which positions of a prompt are kept. */
struct lens_positions {
	enum lens_positions_kind kind;
	const long *list; /* for LENS_POS_LIST: negative counts from the end */
	size_t n_slots;   /* n_pos for LENS_POS_ALL */
};

/* The position that slot stands for in a prompt; −1 when it has none such. */
long lens_slot_position(const struct lens_positions *p, size_t slot, size_t length,
			size_t read_pos);

/* How many slots of a prompt stand for a position. */
size_t lens_slots_held(const struct lens_positions *p, size_t length, size_t read_pos);

#define LENS_CAPTURE_RANK 4

/*
 * One dataset to fill. Extents and chunks: prompt first, then the hook's axes; of by_token
 * token first, which stands for the prompt and its position.
 */
struct lens_capture_spec {
	int dataset; /* what the sink knows it by */
	enum lens_hook hook;
	size_t layer;
	enum lens_dtype dtype; /* LENS_F32, LENS_F16 or, of integers, LENS_I32 */
	bool by_rows;          /* as rows, but chunks that a batch holds whole as they are */
	bool by_token;         /* whole chunks, and what of a chunk a batch has, as rows */
	int rank;
	size_t extent[LENS_CAPTURE_RANK];
	size_t chunk[LENS_CAPTURE_RANK];
};

struct lens_capture_plan {
	const struct lens_config *config;
	struct lens_positions positions;
	size_t n_pos;      /* tokens of the longest prompt */
	size_t batch_rows; /* prompts of a full batch */
	struct lens_capture_spec *spec;
	size_t n_specs;
};

/* Bytes that a worker's capture holds besides the sink's buffers. */
size_t lens_capture_bytes(const struct lens_capture_plan *plan);
/* The largest buffer that a capture asks its sink for. */
size_t lens_capture_buffer_bytes(const struct lens_capture_plan *plan);

/* A full buffer on its way into the file. */
struct lens_captured {
	int dataset;
	bool by_rows;
	size_t coord[LENS_CAPTURE_RANK]; /* place in the chunk grid, unless by_rows */
	size_t row0, n_rows; /* rows of data (or tokens), if by_rows: from row0 on, or … */
	const size_t *row;   /* … [n_rows] these; or NULL */
	void *data;          /* from acquire */
	size_t bytes;
	uint8_t digest[LENS_XXH3_BYTES]; /* of data, unless by_rows */
};

struct lens_sink {
	/* A buffer of at least bytes; may wait. */
	enum lens_status (*acquire)(void *ctx, size_t bytes, void **out,
				    struct lens_error *err);
	/* Takes the buffer back, full. */
	enum lens_status (*submit)(void *ctx, const struct lens_captured *c,
				   struct lens_error *err);
	void *ctx;
};

struct lens_capture;

enum lens_status lens_capture_create(const struct lens_capture_plan *plan,
				     const struct lens_sink *sink, struct lens_capture **out,
				     struct lens_error *err);
void lens_capture_destroy(struct lens_capture *c);

/* Starts a batch whose first prompt is row0 of the prompt set; token0 is its first token. */
void lens_capture_begin(struct lens_capture *c, size_t row0, size_t token0);

/* For struct lens_visitor; ctx is the capture. */
enum lens_status lens_capture_visit(void *ctx, const struct lens_batch *b,
				    const struct lens_activation *a, struct lens_error *err);

/* Adds what filling and hashing buffers took. */
void lens_capture_add_times(const struct lens_capture *c, struct lens_times *t);

/* How many finite values of dataset spec became infinite as halves. */
size_t lens_capture_overflows(const struct lens_capture *c, size_t spec);

#endif
