/*
 * test_plan.c: the plan: batches, chunks and bytes for prompt sets of every
 * sort, what it says against what a capture really hands over, and against the
 * bytes in a file. The rows of a batch depend on the level (H5LENS_TEST_CPU).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "pipeline/pipeline_private.h"
#include "support/numbers.h"
#include "support/runs.h"

#define MIB ((size_t)1 << 20)
#define MOST_CHUNK (4 * MIB)

static struct test_random rnd = { 5 };

/* Shapes only: a plan reads no weights. */
static struct lens_model shapes = {
	.config = { .family = "gpt2",
		    .n_layers = 2,
		    .d_model = 256,
		    .n_heads = 4,
		    .n_kv_heads = 4,
		    .d_head = 64,
		    .d_mlp = 1024,
		    .d_vocab = 1500,
		    .n_ctx = 1024,
		    .learned_positions = true },
};

/* --- prompt sets --------------------------------------------------------------------- */

static struct lens_prompts *make_prompts(size_t n, size_t n_answers)
{
	struct lens_prompts *p = lens_calloc(1, sizeof(*p));

	assert_non_null(p);
	p->n_rows = n;
	p->n_answers = n_answers;
	p->offset = lens_calloc(n + 1, sizeof(*p->offset));
	p->read_pos = lens_calloc(n, sizeof(*p->read_pos));
	p->answers = lens_calloc(n * n_answers, sizeof(*p->answers));
	return p;
}

static void set_length(struct lens_prompts *p, size_t row, size_t length)
{
	p->offset[row + 1] = p->offset[row] + length;
	p->read_pos[row] = (int32_t)test_random_below(&rnd, length);
	p->max_length = length > p->max_length ? length : p->max_length;
}

enum kind { SHORT, OUTLIER, EQUAL, MIXED, LONG, KINDS };

static struct lens_prompts *random_prompts(enum kind kind, size_t n)
{
	struct lens_prompts *p = make_prompts(n, 2);
	size_t i, outlier = test_random_below(&rnd, n);

	for (i = 0; i < n; i++) {
		size_t length = 3 + test_random_below(&rnd, 12);

		if (kind == OUTLIER && i == outlier)
			length = 300 + test_random_below(&rnd, 200);
		else if (kind == EQUAL)
			length = 16;
		else if (kind == MIXED)
			length = 1 + test_random_below(&rnd, i % 2 ? 10 : 120);
		else if (kind == LONG)
			length = 700 + test_random_below(&rnd, 325);
		set_length(p, i, length);
	}
	return p;
}

static size_t length_of(const struct lens_prompts *p, size_t row)
{
	return (size_t)(p->offset[row + 1] - p->offset[row]);
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
	const struct lens_dataset_spec *s = &c->plan->dataset[d->dataset].spec;
	size_t k, chunk = lens_dtype_size(s->dtype);

	(void)err;
	c->rows[d->dataset] += d->n_rows;
	if (d->by_rows)
		return LENS_OK;
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
		for (a.width = 1, k = 2; k < (size_t)s->rank; k++)
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
	size_t row0, i, length[256], offset[256];

	assert_int_equal(lens_capture_create(&p->capture, &sink, &c, NULL), LENS_OK);
	for (row0 = 0; row0 < p->prompts->n_rows; row0 += p->batch_rows) {
		struct lens_batch b = { .length = length, .offset = offset };

		for (i = row0; i < p->prompts->n_rows && i < row0 + p->batch_rows; i++) {
			offset[b.n_prompts] = b.n_rows;
			length[b.n_prompts++] = length_of(p->prompts, i);
			b.n_rows += lens_packed_length(length_of(p->prompts, i));
		}
		assert_true(b.n_rows <= p->max_packed);
		assert_true(b.n_rows <= 1024 || p->batch_rows == 1);
		lens_capture_begin(c, row0, p->prompts->read_pos + row0);
		for (i = 0; i < p->capture.n_specs; i++)
			show(c, &p->capture.spec[i], &b, data);
	}
	lens_capture_destroy(c);
	lens_free(data);
}

/* --- what holds for every plan ------------------------------------------------------------ */

static void check_chunks(const struct lens_plan *p, const struct lens_planned *d)
{
	const struct lens_dataset_spec *s = &d->spec;
	size_t k, bytes = lens_dtype_size(s->dtype), n = p->prompts->n_rows;
	bool by_rows = d->from == LENS_FROM_TABLE || p->capture.spec[d->source].by_rows;

	assert_int_equal(s->extent[0], n);
	assert_string_equal(s->dim[0], "prompt");
	for (k = 0; k < (size_t)s->rank; k++) {
		assert_true(s->chunk[k] >= 1 && s->chunk[k] <= s->extent[k]);
		assert_true(!by_rows || k == 0 || s->chunk[k] == s->extent[k]);
		bytes *= s->chunk[k];
	}
	assert_true(bytes <= MOST_CHUNK);
	/* batches never share a chunk's rows, or fill whole chunks between them */
	if (by_rows)
		assert_true(s->chunk[0] % p->batch_rows == 0 || s->chunk[0] == n);
	else
		assert_true(p->batch_rows % s->chunk[0] == 0 ||
			    (s->chunk[0] == n && n < p->batch_rows));
}

/* Chunks that batches share are all written, whole. */
static uint64_t gathered_bytes(const struct lens_dataset_spec *s)
{
	uint64_t bytes = lens_dtype_size(s->dtype);
	size_t k;

	for (k = 0; k < (size_t)s->rank; k++)
		bytes *= s->chunk[k];
	return (s->extent[0] + s->chunk[0] - 1) / s->chunk[0] * bytes;
}

/* Elements of real tokens, counted one by one. */
static uint64_t data_bytes(const struct lens_plan *p, const struct lens_capture_spec *s)
{
	bool square = s->hook == LENS_HOOK_PATTERN || s->hook == LENS_HOOK_ATTN_SCORES;
	uint64_t n = 0, width = s->half ? 2 : 4;
	size_t row, slot;
	int k;

	for (row = 0; row < p->prompts->n_rows; row++) {
		size_t length = length_of(p->prompts, row);

		for (slot = 0; slot < p->capture.positions.n_slots; slot++)
			n += (lens_slot_position(&p->capture.positions, slot, length,
						 (size_t)p->prompts->read_pos[row]) >= 0) *
			     (square ? length * s->extent[1] : 1);
	}
	for (k = 2; k < s->rank && !square; k++)
		width *= s->extent[k];
	return n * width;
}

static void check_plan(const struct lens_plan *p)
{
	struct count count = { .plan = p, .most = lens_capture_buffer_bytes(&p->capture) };
	uint64_t data = 0, file = 0;
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
		if (p->capture.spec[d->source].by_rows) {
			assert_int_equal(count.rows[i], p->prompts->n_rows);
			count.bytes[i] = gathered_bytes(&d->spec);
		}
		if (d->file_bytes != count.bytes[i])
			fail_msg("%s: %llu bytes planned, %llu written", d->path,
				 (unsigned long long)d->file_bytes,
				 (unsigned long long)count.bytes[i]);
		assert_int_equal(d->data_bytes, data_bytes(p, &p->capture.spec[d->source]));
		assert_true(d->data_bytes <= d->file_bytes);
	}
	assert_true(p->data_bytes >= data && p->file_bytes >= file);
	assert_int_equal(lens_plan_memory(p, 2, 0, &m, NULL), LENS_OK);
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
	assert_int_equal(again.batch_rows, p->batch_rows);
	assert_int_equal(again.n_datasets, p->n_datasets);
	assert_int_equal(again.file_bytes, p->file_bytes);
	for (i = 0; i < p->n_datasets; i++)
		assert_memory_equal(again.dataset[i].spec.chunk, p->dataset[i].spec.chunk,
				    sizeof(p->dataset[i].spec.chunk));
	lens_plan_release(&again);
}

static struct lens_experiment experiment(const char *hooks, const char *positions,
					 const char *dtype)
{
	struct lens_experiment e;

	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	test_set(&e, "data.answers", "a,b", "cache.hooks", hooks, "cache.positions", positions,
		 "cache.dtype", dtype, NULL);
	return e;
}

static void check(struct lens_prompts *prompts, const char *hooks, const char *positions,
		  const char *dtype)
{
	struct lens_experiment e = experiment(hooks, positions, dtype);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;

	if (lens_plan_init(&p, &shapes, prompts, &e, &err) != LENS_OK)
		fail_msg("%s", err.text);
	check_plan(&p);
	check_pure(&p, &e);
	lens_plan_release(&p);
	lens_experiment_release(&e);
}

#define EVERYTHING "*,blocks.1.attn.hook_result,logits"
#define SLOTS30                                                                                \
	"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,-1,-2,-3,-4,-5,-6,-7,-8,-9,-10"

static void random_sets(void **state)
{
	static const char *const positions[] = { "all", "last", "read", "0,-1,-2", SLOTS30 };
	size_t i, n, k;

	(void)state;
	for (i = 0; i < KINDS; i++) {
		size_t most = i == LONG ? 2 : test_quick() ? 30 : 200;

		for (n = 1; n <= most; n = n * 3 + test_random_below(&rnd, 3)) {
			struct lens_prompts *p = random_prompts((enum kind)i, n);

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
	struct lens_prompts *p = make_prompts(40, 2);
	struct lens_buf slots = LENS_BUF_INIT;
	size_t i;

	(void)state;
	for (i = 0; i < 40; i++)
		set_length(p, i, i == 17 ? 400 : 3 + i % 7);
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
	struct lens_prompts *p = make_prompts(1, 2);

	(void)state;
	set_length(p, 0, 1);
	check(p, EVERYTHING, "all", "f32");
	check(p, EVERYTHING, "last", "f16");
	lens_prompts_destroy(p);
	p = random_prompts(EQUAL, 1000);
	check(p, "blocks.0.hook_resid_post", "all", "f32");
	check(p, "blocks.*.attn.hook_pattern", "read", "f16");
	lens_prompts_destroy(p);
}

static void links(void **state)
{
	struct lens_experiment e = experiment("*,*hook_mlp_in", "all", "f32");
	struct lens_prompts *prompts = random_prompts(SHORT, 20);
	struct lens_plan p;
	size_t i, n = 0;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, NULL), LENS_OK);
	for (i = 0; i < p.n_links; i++) {
		if (!strcmp(p.link[i].path, "/cache/blocks.1.hook_resid_pre"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_post");
		if (!strcmp(p.link[i].path, "/cache/blocks.0.hook_mlp_in"))
			n += !strcmp(p.link[i].target, "/cache/blocks.0.hook_resid_mid");
	}
	assert_int_equal(p.n_links, 3);
	assert_int_equal(n, 2);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	/* without its target an alias is stored for itself */
	e = experiment("blocks.1.hook_resid_pre", "all", "f32");
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(p.n_links, 0);
	assert_string_equal(p.dataset[0].path, "/cache/blocks.1.hook_resid_pre");
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void refusals(void **state)
{
	struct lens_experiment e = experiment("*", "0,50", "f32");
	struct lens_prompts *prompts = random_prompts(SHORT, 20);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_plan p;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "no prompt has a position 50"));
	lens_experiment_release(&e);
	e = experiment("hook_embde", "all", "f32");
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "hook_embed"));
	lens_experiment_release(&e);
	prompts->n_answers = 0;
	assert_int_equal(lens_experiment_init(&e, NULL), LENS_OK);
	test_set(&e, "cache.hooks", "none", "tables", "logit_diff", NULL);
	err = (struct lens_error)LENS_ERROR_INIT;
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, &err), LENS_ERR_INVALID);
	assert_non_null(strstr(err.text, "asks for anything"));
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

static void allocation_failures(void **state)
{
	struct lens_experiment e = experiment("*", "all", "f32");
	struct lens_prompts *prompts = random_prompts(SHORT, 20);
	enum lens_status st = LENS_ERR_NOMEM;
	unsigned long k;
	struct lens_plan p;

	(void)state;
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_plan_init(&p, &shapes, prompts, &e, &err);
		lens_alloc_fail_at(0);
		assert_true(st == LENS_OK || st == LENS_ERR_NOMEM);
		assert_int_equal(err.code, st);
	}
	assert_true(k > 5);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* --- memory --------------------------------------------------------------------------------
 */

static void memory(void **state)
{
	struct lens_experiment e = experiment("*", "all", "f32");
	struct lens_prompts *prompts = random_prompts(SHORT, 300);
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_memory m, one;
	struct lens_plan p;
	size_t limit;

	(void)state;
	assert_int_equal(lens_plan_init(&p, &shapes, prompts, &e, NULL), LENS_OK);
	assert_int_equal(lens_plan_memory(&p, 8, MIB, &m, &err), LENS_ERR_NOMEM);
	assert_non_null(strstr(err.text, "one worker needs"));
	assert_non_null(strstr(err.text, "--memory gives 1 MiB"));
	assert_int_equal(lens_plan_memory(&p, 1, 0, &one, NULL), LENS_OK);
	assert_int_equal(one.workers, 1);
	assert_true(one.per_worker > 0 && one.model > 0 && one.buffer > 0);
	m.workers = 0;
	/* from too little to plenty: within the limit, and never fewer workers */
	for (limit = MIB; limit < 2048 * MIB; limit += 7 * MIB) {
		struct lens_memory more;

		if (lens_plan_memory(&p, 8, limit, &more, NULL) != LENS_OK) {
			assert_int_equal(m.workers, 0);
			continue;
		}
		assert_true(more.total <= limit);
		assert_true(more.workers >= m.workers && more.workers <= 8);
		assert_true(more.buffers >= more.workers + 2);
		assert_true(more.workers * more.inner_threads <= 8);
		m = more;
	}
	assert_int_equal(m.workers, 8);
	/* no more workers than batches */
	assert_int_equal(lens_plan_memory(&p, 1000, 0, &m, NULL), LENS_OK);
	assert_true(m.workers <= p.n_batches);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
}

/* --- against a file --------------------------------------------------------------------------
 */

struct found {
	const struct lens_plan *plan;
	size_t n;
	uint64_t bytes;
};

static enum lens_status compare_bytes(void *ctx, const struct lens_dataset_info *d,
				      struct lens_error *err)
{
	struct found *f = ctx;
	size_t i;

	(void)err;
	for (i = 0; i < f->plan->n_datasets; i++) {
		const struct lens_planned *p = &f->plan->dataset[i];

		if (strcmp(p->path, d->path) != 0)
			continue;
		if (d->stored_bytes != p->file_bytes)
			fail_msg("%s: %llu bytes planned, %llu in the file", p->path,
				 (unsigned long long)p->file_bytes,
				 (unsigned long long)d->stored_bytes);
		f->bytes += d->stored_bytes;
		f->n++;
	}
	return LENS_OK;
}

/* Runs a plan with so many workers; its datasets take the bytes that it says. */
static void run_plan(const struct lens_plan *p, size_t workers, const char *file)
{
	const struct lens_run_options options = { 0 };
	struct lens_memory m = { .workers = workers,
				 .inner_threads = 1,
				 .buffers = workers + 2 };
	struct lens_run_result result = { 0 };
	struct lens_work work = {
		.plan = p, .memory = &m, .options = &options, .result = &result
	};
	struct found found = { .plan = p };
	struct lens_memory sizes;
	struct lens_store *s;
	int *id = lens_calloc(p->n_datasets, sizeof(*id));

	assert_int_equal(lens_plan_memory(p, workers, 0, &sizes, NULL), LENS_OK);
	m.buffer = sizes.buffer;
	work.overflows = lens_calloc(p->capture.n_specs, sizeof(*work.overflows));
	assert_int_equal(lens_store_create(file, &s, NULL), LENS_OK);
	assert_int_equal(lens_layout_create(s, p, id, NULL), LENS_OK);
	assert_int_equal(lens_writer_create(s, p, id, &m, &work.writer, NULL), LENS_OK);
	assert_int_equal(lens_schedule_create(p->n_batches, 2 * workers, &work.schedule, NULL),
			 LENS_OK);
	assert_int_equal(lens_work_run(&work, NULL), LENS_OK);
	assert_int_equal(lens_store_commit(s, NULL), LENS_OK);
	assert_int_equal(result.progress.rows_done, p->prompts->n_rows);
	assert_int_equal(result.progress.tokens_done, p->prompts->offset[p->prompts->n_rows]);
	assert_int_equal(lens_store_walk(file, compare_bytes, &found, NULL), LENS_OK);
	assert_int_equal(found.n, p->n_datasets);
	assert_int_equal(found.bytes, lens_writer_bytes(work.writer));
	lens_writer_destroy(work.writer);
	lens_schedule_destroy(work.schedule);
	lens_store_destroy(s);
	lens_free(work.overflows);
	lens_free(id);
}

/* The digests of all datasets, in order. */
static struct lens_buf digests(const struct lens_plan *p, const char *file)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t i;

	for (i = 0; i < p->n_datasets; i++) {
		char *hex;

		assert_int_equal(lens_store_read_attr(file, p->dataset[i].path, "sha256", &hex,
						      NULL),
				 LENS_OK);
		assert_non_null(hex);
		lens_buf_append(&b, hex, strlen(hex), NULL);
		lens_free(hex);
	}
	return b;
}

static void check_run(const struct lens_model *m, const char *hooks, const char *positions,
		      size_t n)
{
	struct lens_experiment e = experiment(hooks, positions, "f32");
	struct lens_prompts *prompts = make_prompts(n, 2);
	char *file = test_tmp_path("plan.h5");
	struct lens_buf one, three;
	struct lens_plan p;
	size_t i;

	for (i = 0; i < n; i++) {
		set_length(prompts, i,
			   i == n / 2 ? m->config.n_ctx : 12 + test_random_below(&rnd, 5));
		prompts->answers[2 * i] = (int32_t)(i % m->config.d_vocab);
	}
	prompts->tokens = lens_calloc((size_t)prompts->offset[n], sizeof(*prompts->tokens));
	for (i = 0; i < prompts->offset[n]; i++)
		prompts->tokens[i] = (int32_t)test_random_below(&rnd, m->config.d_vocab);
	assert_int_equal(lens_plan_init(&p, m, prompts, &e, NULL), LENS_OK);
	run_plan(&p, 1, file);
	one = digests(&p, file);
	run_plan(&p, 3, file);
	three = digests(&p, file);
	assert_string_equal(one.data, three.data);
	unlink(file);
	lens_buf_release(&one);
	lens_buf_release(&three);
	lens_plan_release(&p);
	lens_experiment_release(&e);
	lens_prompts_destroy(prompts);
	lens_free(file);
}

static void bytes_in_a_file(void **state)
{
	const struct lens_processing p = { .fold_ln = true };
	struct lens_model *m;

	(void)state;
	assert_int_equal(lens_model_open("tests/golden/data/gpt2_gelu_new", &p, &m, NULL),
			 LENS_OK);
	check_run(m, "*", "all", test_quick() ? 40 : 600);
	check_run(m, "blocks.1.*,logits", "all", 300);
	check_run(m, "logits,blocks.0.attn.hook_pattern", "0,-1,40", 90);
	lens_model_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sets), cmocka_unit_test(slots_of_an_outlier),
		cmocka_unit_test(extremes),    cmocka_unit_test(links),
		cmocka_unit_test(refusals),    cmocka_unit_test(allocation_failures),
		cmocka_unit_test(memory),      cmocka_unit_test(bytes_in_a_file),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
