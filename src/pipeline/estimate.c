/*
 * pipeline/estimate.c: what a plan costs: bytes in the file, exactly, before
 * anything is computed; and memory.
 */
#include "pipeline/pipeline_private.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Slots of a prompt that stand for a position. */
static size_t slots_held(const struct lens_plan *p, size_t row)
{
	const struct lens_positions *positions = &p->capture.positions;
	size_t slot, n = 0, length = lens_prompt_length(p->prompts, row);

	if (positions->kind == LENS_POS_ALL)
		return length;
	for (slot = 0; slot < positions->n_slots; slot++)
		n += lens_slot_position(positions, slot, length,
					(size_t)p->prompts->read_pos[row]) >= 0;
	return n;
}

static size_t chunks(size_t n, size_t chunk)
{
	return (n + chunk - 1) / chunk;
}

/* Length of the longest prompt of a chunk row that holds one of slots s0 … s0 + n − 1. */
static size_t longest_with(const struct lens_plan *p, size_t row0, size_t rows, size_t s0,
			   size_t n)
{
	const struct lens_positions *positions = &p->capture.positions;
	size_t row, slot, most = 0;

	for (row = row0; row < row0 + rows && row < p->prompts->n_rows; row++) {
		size_t length = lens_prompt_length(p->prompts, row);

		if (length <= most)
			continue;
		for (slot = s0; slot < s0 + n && slot < positions->n_slots; slot++) {
			if (lens_slot_position(positions, slot, length,
					       (size_t)p->prompts->read_pos[row]) < 0)
				continue;
			most = length;
			break;
		}
	}
	return most;
}

/* Chunks written for the rows of one chunk row: those that hold a token's data. */
static size_t chunks_of_rows(const struct lens_plan *p, const struct lens_capture_spec *s,
			     bool square, size_t row0)
{
	size_t n = s->chunk[square ? 2 : 1], slots = p->capture.positions.n_slots, s0, sum = 0;
	size_t heads = square         ? chunks(s->extent[1], s->chunk[1])
		       : s->rank == 4 ? chunks(s->extent[2], s->chunk[2])
				      : 1;

	for (s0 = 0; s0 < slots; s0 += n) {
		size_t longest = longest_with(p, row0, s->chunk[0], s0, n);

		if (longest)
			sum += heads * (square ? chunks(longest, s->chunk[3]) : 1);
	}
	return sum;
}

void lens_count_hook_bytes(const struct lens_plan *p, const struct lens_capture_spec *s,
			   struct lens_planned *d)
{
	bool square = lens_hook_is_square(s->hook);
	uint64_t chunk = lens_dtype_size(s->dtype), width = chunk;
	size_t row;
	int i;

	for (i = 0; i < s->rank; i++)
		chunk *= s->chunk[i];
	if (!square) {
		for (i = 2; i < s->rank; i++)
			width *= s->extent[i];
	}
	for (row = 0; row < p->prompts->n_rows; row++) {
		uint64_t held = slots_held(p, row);

		if (square)
			held *= s->extent[1] * lens_prompt_length(p->prompts, row);
		d->data_bytes += held * width;
	}
	for (row = 0; row < p->prompts->n_rows; row += s->chunk[0])
		d->file_bytes += chunk * (s->by_rows ? 1 : chunks_of_rows(p, s, square, row));
}

/* Tokens, lengths and the like; texts by the size of the CSV, 32 bytes a string for HDF5. */
void lens_count_prompt_bytes(struct lens_plan *p)
{
	const struct lens_prompts *q = p->prompts;
	uint64_t strings = 1 + q->n_answers, row = 8 + 4 + 4 + 4 * q->n_answers, csv = 0;
	struct stat sb;
	size_t i;

	for (i = 0; i < q->n_columns; i++) {
		strings += q->column_kind[i] == LENS_COLUMN_TEXT;
		row += q->column_kind[i] != LENS_COLUMN_TEXT ? 8 : 0;
	}
	if (p->experiment->data.csv && !stat(p->experiment->data.csv, &sb))
		csv = (uint64_t)sb.st_size * q->n_rows / p->n_whole;
	p->data_bytes += (q->offset[q->n_rows] - q->offset[0]) * 4 + row * q->n_rows + csv;
	p->file_bytes += ((uint64_t)q->max_length * 4 + row + 32 * strings) * q->n_rows + csv +
			 ((uint64_t)p->n_datasets + q->n_columns + 64) * 4096;
}

/* --- memory ------------------------------------------------------------------------ */

static size_t model_bytes(const struct lens_config *c)
{
	size_t d = c->d_model, hd = c->n_heads * c->d_head, kv = c->n_kv_heads * c->d_head;
	size_t block = d * (hd + 2 * kv) + hd * d + (c->gated_mlp ? 3 : 2) * d * c->d_mlp;
	size_t positions = c->learned_positions ? c->n_ctx * d : 0;

	return sizeof(float) * (c->n_layers * block + 2 * c->d_vocab * d + positions);
}

/*
 * Chunks that batches share are gathered by the writer. Batches run at most
 * LENS_BATCH_WINDOW per worker ahead of the slowest, so of chunks of b batches
 * at most window/b + 2 are open, and no more than there are unfinished batches.
 */
static size_t shared_bytes(const struct lens_plan *p, size_t workers)
{
	size_t i, sum = 0;
	int k;

	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];
		size_t n = lens_dtype_size(d->dtype);
		size_t batches = d->chunk[0] / p->batch_rows;
		size_t open = LENS_BATCH_WINDOW * workers / (batches ? batches : 1) + 2;

		if (d->from == LENS_FROM_HOOK && !p->capture.spec[d->source].by_rows)
			continue;
		for (k = 0; k < d->rank; k++)
			n *= d->chunk[k];
		sum += (open < workers + 1 ? open : workers + 1) * n;
	}
	return sum;
}

static size_t largest_buffer(const struct lens_plan *p)
{
	size_t n = lens_capture_buffer_bytes(&p->capture);
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (p->tables.wanted[i])
			n = lens_max(n, p->batch_rows * lens_table_row_bytes((enum lens_table)i,
									     &p->sizes));
	}
	return n;
}

#define LEAST_BUFFERS 2 /* one being filled, one being written */
#define SPARE_BUFFERS 8 /* a worker, where memory allows */

/* What `workers` workers need at the least. */
static size_t least_memory(const struct lens_plan *p, const struct lens_memory *m,
			   size_t workers)
{
	return m->model + shared_bytes(p, workers) + LEAST_BUFFERS * m->buffer +
	       workers * (m->per_worker + m->buffer);
}

static enum lens_status too_little(const struct lens_memory *m, size_t needed,
				   struct lens_error *err)
{
	bool given = m->from == LENS_MEMORY_GIVEN;

	return lens_error_set(
		err, LENS_ERR_NOMEM,
		"memory: one worker needs %zu MiB (model %zu, worker %zu, buffers "
		"and open chunks %zu); %s%s %s %zu MiB",
		needed >> 20, m->model >> 20, m->per_worker >> 20,
		(needed - m->model - m->per_worker) >> 20, given ? "" : "three quarters of ",
		lens_memory_name(m->from), given ? "gives" : "are", m->limit >> 20);
}

static size_t worker_bytes(const struct lens_plan *p, int threads)
{
	const struct lens_visitor of[] = { { .hooks = &p->hooks },
					   { .hooks = &p->table_hooks } };
	const struct lens_visitors both = { of, 2 };
	const struct lens_forward_size size = { .visitors = &both,
						.max_rows = p->max_packed,
						.max_length = p->prompts->max_length,
						.threads = threads };

	return lens_forward_bytes(p->model, &size) + lens_capture_bytes(&p->capture) +
	       (p->any_table ? lens_tables_bytes(p->model, &p->tables) : 0);
}

enum lens_status lens_plan_memory(const struct lens_plan *p, size_t threads, size_t limit,
				  struct lens_memory *m, struct lens_error *err)
{
	struct lens_available is = { limit, LENS_MEMORY_GIVEN };
	size_t available;

	if (!limit)
		is = lens_memory_available("");
	available = limit ? limit : is.bytes / 4 * 3;
	memset(m, 0, sizeof(*m));
	m->limit = available;
	m->from = is.from;
	m->model = model_bytes(&p->model->config);
	m->per_worker =
		worker_bytes(p, threads > p->n_batches ? (int)(threads / p->n_batches) : 1);
	m->buffer = largest_buffer(p);
	if (least_memory(p, m, 1) > available)
		return too_little(m, least_memory(p, m, 1), err);
	m->workers = threads < p->n_batches ? threads : p->n_batches;
	while (m->workers > 1 && least_memory(p, m, m->workers) > available)
		m->workers--;
	m->inner_threads = threads / m->workers;
	m->shared = shared_bytes(p, m->workers);
	m->buffers = LEAST_BUFFERS + m->workers;
	m->total = least_memory(p, m, m->workers);
	while (m->buffers < (1 + m->workers) * SPARE_BUFFERS &&
	       m->total + m->buffer <= available) {
		m->buffers++;
		m->total += m->buffer;
	}
	return LENS_OK;
}
