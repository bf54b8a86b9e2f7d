/*
 * test_plan_chunks.c: the plan's batches, chunks and bytes for prompt sets of
 * every sort, against what a capture really hands over, and the same whatever
 * the threads, the memory and the output. The rows of a batch depend on the
 * level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan/plan_private.h"
#include "support/batch.h"
#include "support/numbers.h"
#include "support/plans.h"
#include "support/runs.h"

#define MIB ((size_t)1 << 20)
#define MOST_CHUNK (4 * MIB)
#define MOST_TOKENS (MIB / 2)

static struct test_random rnd = { 5 };

static size_t length_of(const struct lens_prompts *p, size_t row)
{
	return (size_t)(p->offset[row + 1] - p->offset[row]);
}

static size_t slots_held(const struct lens_plan *p, size_t row)
{
	size_t slot, n = 0;

	for (slot = 0; slot < p->capture.positions.n_slots; slot++)
		n += lens_slot_position(&p->capture.positions, slot, length_of(p->prompts, row),
					(size_t)p->prompts->read_pos[row]) >= 0;
	return n;
}

static size_t all_held(const struct lens_plan *p)
{
	size_t row, n = 0;

	for (row = 0; row < p->prompts->n_rows; row++)
		n += slots_held(p, row);
	return n;
}

/* --- a sink that counts --------------------------------------------------------------- */

struct count {
	const struct lens_plan *plan;
	uint64_t *bytes, *rows; /* [n_datasets] chunks' bytes; rows handed over */
	void *buffer;
	size_t most;
};

static enum lens_status acquire(void *ctx, size_t bytes, void **out, struct lens_error *err)
{
	struct count *c = ctx;

	(void)err;
	assert_true(bytes <= c->most);
	*out = c->buffer;
	return LENS_OK;
}

static enum lens_status submit(void *ctx, const struct lens_captured *d, struct lens_error *err)
{
	struct count *c = ctx;
	const struct lens_planned *s = &c->plan->dataset[d->dataset];
	size_t k, chunk = lens_dtype_size(s->dtype);

	(void)err;
	if (d->by_rows) {
		assert_true(d->bytes <= c->most);
		c->rows[d->dataset] += d->n_rows;
		return LENS_OK;
	}
	c->rows[d->dataset] += lens_min(s->chunk[0], s->extent[0] - d->coord[0] * s->chunk[0]);
	for (k = 0; k < (size_t)s->rank; k++) {
		assert_true(d->coord[k] * s->chunk[k] < s->extent[k]);
		chunk *= s->chunk[k];
	}
	assert_int_equal(d->bytes, chunk);
	c->bytes[d->dataset] += chunk;
	return LENS_OK;
}

/* Shows one dataset's activations of a batch. Every row is the same one (stride 0). */
static void show(struct lens_capture *c, const struct lens_capture_spec *s,
		 const struct lens_batch *b, const float *data)
{
	struct lens_activation a = { .hook = s->hook, .layer = s->layer, .data = data };
	size_t k;

	if (s->hook != LENS_HOOK_PATTERN && s->hook != LENS_HOOK_ATTN_SCORES) {
		for (a.width = 1, k = s->by_token ? 1 : 2; k < (size_t)s->rank; k++)
			a.width *= s->extent[k];
		assert_int_equal(lens_capture_visit(c, b, &a, NULL), LENS_OK);
		return;
	}
	for (a.prompt = 0; a.prompt < b->n_prompts; a.prompt++) {
		a.width = a.nq = b->length[a.prompt];
		for (a.head = 0; a.head < s->extent[1]; a.head++)
			assert_int_equal(lens_capture_visit(c, b, &a, NULL), LENS_OK);
	}
}

static void show_all(const struct lens_plan *p, struct count *count)
{
	const struct lens_sink sink = { acquire, submit, count };
	float *data = test_floats(1 << 16, 1);
	struct lens_capture *c;
	size_t row0, token0 = 0, i;

	assert_int_equal(lens_capture_create(&p->capture, &sink, &c, NULL), LENS_OK);
	for (row0 = 0; row0 < p->prompts->n_rows; row0 += p->batch_rows) {
		struct test_prompt *prompt = lens_calloc(p->batch_rows, sizeof(*prompt));
		struct lens_batch b;
		size_t k;

		for (i = row0; i < p->prompts->n_rows && i < row0 + p->batch_rows; i++) {
			prompt[i - row0].length = length_of(p->prompts, i);
			prompt[i - row0].read_pos = p->prompts->read_pos[i];
		}
		test_pack(&b, prompt, i - row0);
		lens_free(prompt);
		assert_true(b.n_rows <= p->max_packed);
		assert_true(b.n_rows <= 1024 || p->batch_rows == 1 ||
			    p->batch_rows > p->block_rows);
		assert_true(!p->sizes.n_tokens || lens_plan_first_token(p, row0) == token0);
		lens_capture_begin(c, row0, token0);
		for (k = row0; k < i; k++)
			token0 += slots_held(p, k);
		for (i = 0; i < p->capture.n_specs; i++)
			show(c, &p->capture.spec[i], &b, data);
		lens_batch_release(&b);
	}
	lens_capture_destroy(c);
	lens_free(data);
}

/* --- what holds for every plan ------------------------------------------------------------ */

static void check_chunks(const struct lens_plan *p, const struct lens_planned *d)
{
	size_t k, bytes = lens_dtype_size(d->dtype), n = p->prompts->n_rows;
	bool by_rows = d->from == LENS_FROM_TABLE || p->capture.spec[d->source].by_rows;
	bool by_token = d->from == LENS_FROM_HOOK && p->capture.spec[d->source].by_token;

	assert_int_equal(d->extent[0], by_token ? all_held(p) : n);
	assert_int_equal(d->axis[0], by_token ? LENS_AXIS_TOKEN : LENS_AXIS_PROMPT);
	for (k = 0; k < (size_t)d->rank; k++) {
		assert_true(d->chunk[k] >= 1 && d->chunk[k] <= d->extent[k]);
		assert_true(!by_rows || k == 0 || d->chunk[k] == d->extent[k]);
		bytes *= d->chunk[k];
	}
	assert_true(bytes <= MOST_CHUNK);
	/* blocks never share a chunk's rows, or fill whole chunks between them */
	if (by_token)
		assert_true(bytes <= MOST_TOKENS || d->chunk[0] == 1);
	else if (by_rows)
		assert_true(d->chunk[0] % p->block_rows == 0 || d->chunk[0] == n);
	else
		assert_true(p->block_rows % d->chunk[0] == 0 ||
			    (d->chunk[0] == n && n < p->block_rows));
}

/* Chunks that batches share are all written, whole. */
static uint64_t gathered_bytes(const struct lens_planned *d)
{
	uint64_t bytes = lens_dtype_size(d->dtype);
	size_t k;

	for (k = 0; k < (size_t)d->rank; k++)
		bytes *= d->chunk[k];
	return (d->extent[0] + d->chunk[0] - 1) / d->chunk[0] * bytes;
}

static uint64_t gathered(const struct lens_planned *d)
{
	return (d->extent[0] + d->chunk[0] - 1) / d->chunk[0];
}

/* Elements of real tokens, counted one by one. */
static uint64_t data_bytes(const struct lens_plan *p, const struct lens_capture_spec *s)
{
	bool square = s->hook == LENS_HOOK_PATTERN || s->hook == LENS_HOOK_ATTN_SCORES;
	uint64_t n = 0, width = s->dtype == LENS_F16 ? 2 : 4;
	size_t row, slot;
	int k;

	for (row = 0; row < p->prompts->n_rows; row++) {
		size_t length = length_of(p->prompts, row);

		for (slot = 0; slot < p->capture.positions.n_slots; slot++)
			n += (lens_slot_position(&p->capture.positions, slot, length,
						 (size_t)p->prompts->read_pos[row]) >= 0) *
			     (square ? length * s->extent[1] : 1);
	}
	for (k = s->by_token ? 1 : 2; k < s->rank && !square; k++)
		width *= s->extent[k];
	return n * width;
}

static void check_plan(const struct lens_plan *p)
{
	struct count count = { .plan = p, .most = lens_capture_buffer_bytes(&p->capture) };
	uint64_t data = 0, file = 0;
	const struct lens_available is = { SIZE_MAX, LENS_MEMORY_GIVEN };
	struct lens_memory m;
	size_t i;

	assert_int_equal(p->n_batches,
			 (p->prompts->n_rows + p->batch_rows - 1) / p->batch_rows);
	assert_true(p->max_packed % 12 == 0);
	count.bytes = lens_calloc(p->n_datasets, sizeof(*count.bytes));
	count.rows = lens_calloc(p->n_datasets, sizeof(*count.rows));
	count.buffer = lens_alloc_aligned(count.most, 1);
	show_all(p, &count);
	for (i = 0; i < p->n_datasets; i++) {
		const struct lens_planned *d = &p->dataset[i];

		check_chunks(p, d);
		data += d->data_bytes;
		file += d->file_bytes;
		if (d->from == LENS_FROM_TABLE)
			continue;
		if (p->capture.spec[d->source].by_token) {
			assert_int_equal(count.rows[i], all_held(p));
			count.bytes[i] = gathered_bytes(d);
			/* a chunk's share of what is empty is less than a token */
			assert_true(d->file_bytes - d->data_bytes <=
				    gathered(d) * (d->data_bytes / all_held(p)));
		} else if (p->capture.spec[d->source].by_rows) {
			assert_int_equal(count.rows[i], p->prompts->n_rows);
			count.bytes[i] = gathered_bytes(d);
		}
		if (d->file_bytes != count.bytes[i])
			fail_msg("%s: %llu bytes planned, %llu written", d->path,
				 (unsigned long long)d->file_bytes,
				 (unsigned long long)count.bytes[i]);
		assert_int_equal(d->data_bytes, data_bytes(p, &p->capture.spec[d->source]));
		assert_true(d->data_bytes <= d->file_bytes);
	}
	assert_true(p->data_bytes >= data && p->file_bytes >= file);
	assert_int_equal(lens_plan_memory(p, 2, &is, &m, NULL), LENS_OK);
	assert_true(m.buffer >= count.most);
	lens_free(count.bytes);
	lens_free(count.rows);
	lens_free(count.buffer);
}

/* The same plan, whatever the threads, the memory and the output. */
static void check_pure(const struct lens_plan *p, struct lens_experiment *e)
{
	struct lens_plan again;
	size_t i;

	test_set(e, "threads", "7", "memory", "64M", "output", "elsewhere.h5", NULL);
	assert_int_equal(lens_plan_init(&again, p->model, p->prompts, e, NULL), LENS_OK);
	assert_int_equal(again.block_rows, p->block_rows);
	assert_int_equal(again.n_datasets, p->n_datasets);
	assert_int_equal(again.file_bytes, p->file_bytes);
	for (i = 0; i < p->n_datasets; i++)
		assert_memory_equal(again.dataset[i].chunk, p->dataset[i].chunk,
				    sizeof(p->dataset[i].chunk));
	lens_plan_release(&again);
}

static void check_layout(struct lens_prompts *prompts, const char *hooks, const char *positions,
			 const char *dtype, const char *layout)
{
	struct lens_experiment e = test_plan_experiment(hooks, positions, dtype);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;
	size_t blocks;

	test_set(&e, "cache.layout", layout, NULL);
	if (lens_plan_init(&p, &test_shapes, prompts, &e, &err) != LENS_OK)
		fail_msg("%s", err.text);
	check_pure(&p, &e);
	for (blocks = 1; blocks < 8; blocks += 1 + blocks % 3) {
		lens_plan_widen(&p, blocks);
		check_plan(&p);
	}
	lens_plan_release(&p);
	lens_experiment_release(&e);
}

static void check(struct lens_prompts *prompts, const char *hooks, const char *positions,
		  const char *dtype)
{
	check_layout(prompts, hooks, positions, dtype, "padded");
	check_layout(prompts, hooks, positions, dtype, "ragged");
}

#define EVERYTHING "*,blocks.1.attn.hook_result,logits"
#define SLOTS30                                                                                \
	"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,-1,-2,-3,-4,-5,-6,-7,-8,-9,-10"

static void random_sets(void **state)
{
	static const char *const positions[] = { "all", "last", "read", "0,-1,-2", SLOTS30 };
	size_t i, n, k;

	(void)state;
	for (i = 0; i < TEST_KINDS; i++) {
		size_t most = i == TEST_LONG ? 2 : test_quick() ? 30 : 200;

		for (n = 1; n <= most; n = n * 3 + test_random_below(&rnd, 3)) {
			struct lens_prompts *p =
				test_random_prompts(&rnd, (enum test_kind_of_prompts)i, n);

			for (k = 0; k < 5; k++) {
				/* -10 and 19 must exist somewhere */
				if (k == 4 && p->max_length < 20)
					continue;
				if (k == 3 && p->max_length < 2)
					continue;
				check(p, k ? EVERYTHING : "*", positions[k],
				      (n + k) % 2 ? "f32" : "f16");
			}
			lens_prompts_destroy(p);
		}
	}
}

/* Slots that only the one long prompt has: their chunks are written for it alone. */
static void slots_of_an_outlier(void **state)
{
	struct lens_prompts *p = test_make_prompts(40, 2);
	struct lens_buf slots = LENS_BUF_INIT;
	size_t i;

	(void)state;
	for (i = 0; i < 40; i++)
		test_set_length(&rnd, p, i, i == 17 ? 400 : 3 + i % 7);
	lens_buf_printf(&slots, NULL, "-1");
	for (i = 0; i < 60; i++)
		lens_buf_printf(&slots, NULL, ",%zu", i + 5 + i / 8 * 20);
	check(p, EVERYTHING, slots.data, "f32");
	check(p, EVERYTHING, slots.data, "f16");
	lens_buf_release(&slots);
	lens_prompts_destroy(p);
}

/* One prompt of one token; a thousand alike. */
static void extremes(void **state)
{
	struct lens_prompts *p = test_make_prompts(1, 2);

	(void)state;
	test_set_length(&rnd, p, 0, 1);
	check(p, EVERYTHING, "all", "f32");
	check(p, EVERYTHING, "last", "f16");
	lens_prompts_destroy(p);
	p = test_random_prompts(&rnd, TEST_EQUAL, 1000);
	check(p, "blocks.0.hook_resid_post", "all", "f32");
	check(p, "blocks.*.attn.hook_pattern", "read", "f16");
	lens_prompts_destroy(p);
	/* more tokens than fit in a chunk of the narrowest rows, but not twice as many */
	p = test_random_prompts(&rnd, TEST_LONG, 200);
	check(p, "ln_final.hook_scale", "all", "f32");
	lens_prompts_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sets),
		cmocka_unit_test(slots_of_an_outlier),
		cmocka_unit_test(extremes),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
