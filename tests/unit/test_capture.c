/*
 * test_capture.c: activations that say where they are from, cut by a capture
 * into the buffers of a sink that puts the dataset together again: every element
 * is where the file's layout says, NaN stands everywhere else, and nothing is
 * written twice. Halves come from the level of H5LENS_TEST_CPU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/capture.h"
#include "support/numbers.h"

/* --- a layout under test ------------------------------------------------------------ */

enum { TESTED = 5, OTHER = 6 }; /* datasets, as the sink knows them */

/* One dataset, the prompts, and how the forward pass shows it. */
struct layout {
	enum lens_hook hook;
	bool half, by_rows;
	size_t chunk[LENS_CAPTURE_RANK];
	size_t n_prompts, batch_rows;
	const size_t *length;
	enum lens_positions_kind kind;
	const long *list;
	size_t n_list;
	size_t queries; /* shown together */
	float factor;   /* values are that times larger */
};

static struct lens_config config = {
	.n_layers = 2,
	.d_model = 6,
	.n_heads = 3,
	.n_kv_heads = 3,
	.d_head = 2,
	.d_mlp = 5,
	.d_vocab = 7,
	.n_ctx = 64,
};

/* The dataset, being put together. */
struct collected {
	const struct lens_capture_spec *spec;
	float *value;     /* the extents, as float32 */
	unsigned char *n; /* how often each was written */
	size_t n_buffers, held, fail_at;
	enum lens_status submit_fails;
};

struct run {
	const struct layout *l;
	struct lens_capture_spec spec[2]; /* of squares, the other one too */
	struct lens_capture_plan plan;
	struct collected got;
	int32_t *read_pos;
	size_t overflows;
};

static size_t product(const size_t *x, int n)
{
	size_t p = 1;

	while (n--)
		p *= x[n];
	return p;
}

static bool square(enum lens_hook h)
{
	return h == LENS_HOOK_ATTN_SCORES || h == LENS_HOOK_PATTERN;
}

/* A finite value of its own for each place; halves hold 0 … 2047 exactly. */
static float value_at(const struct layout *l, size_t prompt, size_t pos, size_t inner)
{
	return (float)((prompt * 613 + pos * 97 + inner * 13) % 2039) * l->factor;
}

static float as_stored(const struct layout *l, float x)
{
	return l->half && fabsf(x) >= 65520 ? copysignf(INFINITY, x) : x;
}

/* What element `at` of the dataset should be. */
static float expected(const struct run *r, const size_t *at)
{
	const struct layout *l = r->l;
	size_t prompt = at[0], slot = square(l->hook) ? at[2] : at[1], inner = 0;
	long pos = lens_slot_position(&r->plan.positions, slot, l->length[prompt],
				      (size_t)r->read_pos[prompt]);

	if (pos < 0)
		return NAN;
	if (square(l->hook)) {
		if (at[3] >= l->length[prompt])
			return NAN;
		if (at[3] > (size_t)pos)
			return l->hook == LENS_HOOK_PATTERN ? 0 : -INFINITY;
		inner = at[1] * 64 + at[3];
	} else {
		inner = r->spec[0].rank == 4 ? at[2] * r->spec[0].extent[3] + at[3] : at[2];
	}
	return as_stored(l, value_at(l, prompt, (size_t)pos, inner));
}

/* --- the sink ------------------------------------------------------------------------- */

static enum lens_status acquire(void *ctx, size_t bytes, void **out, struct lens_error *err)
{
	struct collected *c = ctx;

	*out = NULL;
	assert_int_equal(c->held, 0); /* a worker holds one buffer at a time */
	if (c->fail_at && ++c->n_buffers == c->fail_at)
		return lens_error_set(err, LENS_ERR_INTERRUPTED, "as asked");
	c->held = 1;
	*out = lens_alloc_aligned(bytes, 1); /* exactly: ASan sees a byte more */
	assert_non_null(*out);
	memset(*out, 0x5a, bytes);
	return LENS_OK;
}

static float stored(const struct lens_capture_spec *s, const void *data, size_t i)
{
	const uint16_t *half = data;
	int exponent;
	double v;

	if (!s->half)
		return ((const float *)data)[i];
	exponent = half[i] >> 10 & 31;
	v = exponent ? ldexp(1024 + (half[i] & 1023), exponent - 25)
		     : ldexp(half[i] & 1023, -24);
	if (exponent == 31)
		v = half[i] & 1023 ? NAN : INFINITY;
	return (float)(half[i] & 0x8000 ? -v : v);
}

/* Element i of a buffer of so many elements an axis, whose first is at `from`. */
static void put(struct collected *c, const size_t *from, const size_t *size, size_t i, float v)
{
	const struct lens_capture_spec *s = c->spec;
	size_t at[LENS_CAPTURE_RANK], index = 0, rest = i;
	int k;

	for (k = s->rank - 1; k >= 0; k--) {
		at[k] = from[k] + rest % size[k];
		rest /= size[k];
	}
	for (k = 0; k < s->rank; k++) {
		if (at[k] >= s->extent[k]) {
			assert_true(isnan(v)); /* a chunk's edge */
			return;
		}
		index = index * s->extent[k] + at[k];
	}
	c->value[index] = v;
	assert_int_equal(c->n[index]++, 0);
}

static enum lens_status submit(void *ctx, const struct lens_captured *d, struct lens_error *err)
{
	struct collected *c = ctx;
	const struct lens_capture_spec *s = c->spec;
	size_t from[LENS_CAPTURE_RANK], size[LENS_CAPTURE_RANK], i, n;
	uint8_t digest[LENS_SHA256_BYTES];
	int k;

	c->held = 0;
	if (d->dataset == OTHER) {
		lens_free(d->data);
		return LENS_OK;
	}
	assert_int_equal(d->dataset, TESTED);
	assert_int_equal(d->by_rows, s->by_rows);
	for (k = 0; k < s->rank; k++) {
		size[k] = s->by_rows ? s->extent[k] : s->chunk[k];
		from[k] = s->by_rows ? 0 : d->coord[k] * s->chunk[k];
		assert_true(s->by_rows || from[k] < s->extent[k]);
	}
	if (s->by_rows) {
		size[0] = d->n_rows;
		from[0] = d->row0;
		assert_true(d->row0 + d->n_rows <= s->extent[0]);
	} else {
		lens_sha256(d->data, d->bytes, digest, NULL);
		assert_memory_equal(digest, d->digest, sizeof(digest));
	}
	n = product(size, s->rank);
	assert_int_equal(d->bytes, n * (s->half ? 2 : 4));
	for (i = 0; i < n; i++)
		put(c, from, size, i, stored(s, d->data, i));
	lens_free(d->data);
	if (c->submit_fails)
		return lens_error_set(err, c->submit_fails, "as asked");
	return LENS_OK;
}

/* --- showing activations ------------------------------------------------------------------ */

static enum lens_status show_tokens(struct run *r, struct lens_capture *c,
				    const struct lens_batch *b, size_t row0,
				    struct lens_error *err)
{
	size_t i, t, j, width = product(r->spec[0].extent + 2, r->spec[0].rank - 2),
			stride = width + 3;
	float *data = test_floats(b->n_rows * stride, -7);
	const struct lens_activation a = { .hook = r->l->hook,
					   .layer = r->spec[0].layer,
					   .data = data,
					   .width = width,
					   .stride = stride };
	enum lens_status st;

	for (i = 0; i < b->n_prompts; i++) {
		for (t = 0; t < b->length[i]; t++) {
			for (j = 0; j < width; j++)
				data[(b->offset[i] + t) * stride + j] =
					value_at(r->l, row0 + i, t, j);
		}
	}
	st = lens_capture_visit(c, b, &a, err);
	lens_free(data);
	return st;
}

/* One head of one prompt: `queries` rows at a time, other hooks in between. */
static enum lens_status show_head(struct run *r, struct lens_capture *c,
				  const struct lens_batch *b, size_t row0, size_t prompt,
				  size_t head, struct lens_error *err)
{
	size_t q, k, n = b->length[prompt], stride = n + 5;
	float masked = r->l->hook == LENS_HOOK_PATTERN ? 0 : -INFINITY;
	struct lens_activation a = { .hook = r->l->hook,
				     .layer = r->spec[0].layer,
				     .width = n,
				     .stride = stride,
				     .prompt = prompt,
				     .head = head };
	enum lens_status st = LENS_OK;

	for (a.q0 = 0; st == LENS_OK && a.q0 < n; a.q0 += r->l->queries) {
		float *data;

		a.nq = n - a.q0 < r->l->queries ? n - a.q0 : r->l->queries;
		data = test_floats(a.nq * stride, -7);
		for (q = 0; q < a.nq; q++) {
			for (k = 0; k < n; k++)
				data[q * stride + k] =
					k > a.q0 + q ? masked
						     : value_at(r->l, row0 + prompt, a.q0 + q,
								head * 64 + k);
		}
		a.data = data;
		a.hook = r->l->hook;
		st = lens_capture_visit(c, b, &a, err);
		for (k = 0; k < a.nq * stride; k++)
			data[k] = -9;
		a.hook = r->spec[1].hook;
		if (st == LENS_OK)
			st = lens_capture_visit(c, b, &a, err);
		lens_free(data);
	}
	return st;
}

static enum lens_status show_batch(struct run *r, struct lens_capture *c, size_t row0,
				   struct lens_error *err)
{
	const struct layout *l = r->l;
	size_t i, h, offset[64], n = l->n_prompts - row0;
	struct lens_batch b = { .n_prompts = n < l->batch_rows ? n : l->batch_rows,
				.length = l->length + row0,
				.offset = offset };
	const struct lens_activation other = { .hook = LENS_HOOK_LN2_SCALE };

	for (i = 0; i < b.n_prompts; i++) {
		offset[i] = b.n_rows;
		b.n_rows += b.length[i] + i % 3; /* gaps of an alignment */
	}
	lens_capture_begin(c, row0, r->read_pos + row0);
	/* what no dataset wants passes by */
	assert_int_equal(lens_capture_visit(c, &b, &other, err), LENS_OK);
	if (!square(l->hook))
		return show_tokens(r, c, &b, row0, err);
	for (i = 0; i < b.n_prompts; i++) {
		for (h = 0; h < config.n_heads; h++)
			LENS_TRY(show_head(r, c, &b, row0, i, h, err));
	}
	return LENS_OK;
}

/* --- a run ---------------------------------------------------------------------------------
 */

static void prepare(struct run *r, const struct layout *l)
{
	const struct lens_hook_info *h = lens_hook_info(l->hook);
	size_t i, longest = 0, n;
	int k;

	memset(r, 0, sizeof(*r));
	r->l = l;
	r->read_pos = lens_calloc(l->n_prompts, sizeof(*r->read_pos));
	for (i = 0; i < l->n_prompts; i++) {
		longest = l->length[i] > longest ? l->length[i] : longest;
		r->read_pos[i] = (int32_t)(i * 5 % l->length[i]);
	}
	r->plan = (struct lens_capture_plan){
		.config = &config,
		.n_pos = longest,
		.batch_rows = l->batch_rows,
		.positions = { l->kind, l->list,
			       l->kind == LENS_POS_ALL    ? longest
			       : l->kind == LENS_POS_LIST ? l->n_list
							  : 1 },
		.spec = r->spec,
		.n_specs = square(l->hook) ? 2 : 1,
	};
	r->spec[0] = (struct lens_capture_spec){
		.dataset = TESTED,
		.hook = l->hook,
		.layer = h->per_layer ? 1 : 0,
		.half = l->half,
		.by_rows = l->by_rows,
		.rank = h->n_axes + 1,
		.extent = { l->n_prompts },
	};
	for (k = 0; k < h->n_axes; k++) {
		bool sliced = h->axis[k] == LENS_AXIS_POS || h->axis[k] == LENS_AXIS_QUERY;

		r->spec[0].extent[k + 1] =
			lens_axis_extent(&config, h->axis[k],
					 sliced ? r->plan.positions.n_slots : longest);
	}
	for (k = 0; k < r->spec[0].rank; k++)
		r->spec[0].chunk[k] = l->chunk[k] && l->chunk[k] < r->spec[0].extent[k]
					      ? l->chunk[k]
					      : r->spec[0].extent[k];
	/* scores and patterns arise block by block in turns, and must not mix */
	r->spec[1] = r->spec[0];
	r->spec[1].dataset = OTHER;
	r->spec[1].hook =
		l->hook == LENS_HOOK_PATTERN ? LENS_HOOK_ATTN_SCORES : LENS_HOOK_PATTERN;
	n = product(r->spec[0].extent, r->spec[0].rank);
	r->got.spec = &r->spec[0];
	r->got.value = test_floats(n, 0);
	r->got.n = lens_calloc(n, 1);
}

static enum lens_status capture_all(struct run *r, struct lens_error *err)
{
	const struct lens_sink sink = { acquire, submit, &r->got };
	struct lens_capture *c;
	enum lens_status st = LENS_OK;
	size_t row0;

	LENS_TRY(lens_capture_create(&r->plan, &sink, &c, err));
	for (row0 = 0; st == LENS_OK && row0 < r->l->n_prompts; row0 += r->l->batch_rows)
		st = show_batch(r, c, row0, err);
	r->overflows = lens_capture_overflows(c, 0);
	lens_capture_destroy(c);
	return st;
}

static void release(struct run *r)
{
	lens_free(r->read_pos);
	lens_free(r->got.value);
	lens_free(r->got.n);
}

/* Everything written is right; what was not written holds no data. */
static void check_dataset(const struct run *r)
{
	const struct lens_capture_spec *s = &r->spec[0];
	size_t i, k, n = product(s->extent, s->rank), at[LENS_CAPTURE_RANK], over = 0;

	for (i = 0; i < n; i++) {
		size_t rest = i;
		float should;

		for (k = (size_t)s->rank; k-- > 0; rest /= s->extent[k])
			at[k] = rest % s->extent[k];
		should = expected(r, at);
		over += isinf(should) && should > 0;
		if (r->got.n[i] ? test_same(r->got.value[i], should) : isnan(should))
			continue;
		fail_msg("[%zu, %zu, %zu, %zu]: %g, not %g (written %d times)", at[0], at[1],
			 at[2], s->rank == 4 ? at[3] : 0, (double)r->got.value[i],
			 (double)should, r->got.n[i]);
	}
	assert_int_equal(r->overflows, over);
}

static void check(const struct layout *l)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct run r;

	prepare(&r, l);
	if (capture_all(&r, &err) != LENS_OK)
		fail_msg("%s", err.text);
	check_dataset(&r);
	release(&r);
}

/* Each way to choose positions, in both types. */
static void check_positions(struct layout l)
{
	static const long slots[] = { 0, -1, 3, -3, 40, -40, 8 };
	int half;

	for (half = 0; half < 2; half++) {
		l.half = half;
		l.kind = LENS_POS_ALL;
		check(&l);
		l.kind = LENS_POS_LAST;
		check(&l);
		l.kind = LENS_POS_READ;
		check(&l);
		l.kind = LENS_POS_LIST;
		l.list = slots;
		for (l.n_list = 1; l.n_list <= 7; l.n_list += 3)
			check(&l);
	}
}

static const size_t lengths[] = { 4, 7, 1, 9, 5, 5, 41, 2, 9, 3, 6, 8, 1 };
#define N_PROMPTS (sizeof(lengths) / sizeof(*lengths))

static const struct layout base = { .hook = LENS_HOOK_RESID_POST,
				    .n_prompts = N_PROMPTS,
				    .batch_rows = 4,
				    .length = lengths,
				    .queries = 64,
				    .factor = 1 };

/* --- the layouts of plan.c -------------------------------------------------------------- */

static void by_rows(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_EMBED,   LENS_HOOK_LN1_SCALE,
						LENS_HOOK_Q,       LENS_HOOK_MLP_POST,
						LENS_HOOK_RESULT,  LENS_HOOK_LOGITS,
						LENS_HOOK_PATTERN, LENS_HOOK_ATTN_SCORES };
	struct layout l = base;
	size_t i;

	(void)state;
	l.by_rows = true;
	l.chunk[0] = 8; /* two batches */
	for (i = 0; i < 8; i++) {
		l.hook = hooks[i];
		check_positions(l);
	}
}

/* A batch fills one chunk, or two, or four; the last is not full. */
static void chunks_of_batches(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_PRE, LENS_HOOK_Z,
						LENS_HOOK_LN_FINAL_SCALE, LENS_HOOK_PATTERN };
	struct layout l = base;
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		l.hook = hooks[i];
		for (l.chunk[0] = 1; l.chunk[0] <= 4; l.chunk[0] *= 2)
			check_positions(l);
	}
}

/* Positions in chunks: one outlier of 41 tokens among prompts of 1 to 9. */
static void chunks_of_positions(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_PRE, LENS_HOOK_V,
						LENS_HOOK_RESULT };
	static const size_t positions[] = { 8, 1, 5, 40 };
	struct layout l = base;
	size_t i, k;

	(void)state;
	for (i = 0; i < 3; i++) {
		l.hook = hooks[i];
		for (k = 0; k < 4; k++) {
			l.chunk[1] = positions[k];
			for (l.chunk[0] = 1; l.chunk[0] <= 4; l.chunk[0] *= 4)
				check_positions(l);
		}
	}
}

static void chunks_of_heads_and_positions(void **state)
{
	struct layout l = base;

	(void)state;
	l.hook = LENS_HOOK_RESULT;
	l.chunk[0] = 1;
	for (l.chunk[1] = 5; l.chunk[1] <= 41; l.chunk[1] += 36) {
		for (l.chunk[2] = 1; l.chunk[2] <= 2; l.chunk[2]++)
			check_positions(l);
	}
}

/* Scores of one prompt a chunk, cut by head, query and key, shown in blocks. */
static void chunks_of_squares(void **state)
{
	static const size_t cuts[][3] = { { 1, 0, 0 },  { 2, 0, 0 },  { 3, 8, 8 }, { 1, 5, 0 },
					  { 1, 3, 16 }, { 2, 16, 7 }, { 3, 1, 1 } };
	struct layout l = base;
	size_t i;

	(void)state;
	l.chunk[0] = 1;
	for (l.hook = LENS_HOOK_ATTN_SCORES; l.hook <= LENS_HOOK_PATTERN; l.hook++) {
		for (i = 0; i < 7; i++) {
			memcpy(l.chunk + 1, cuts[i], sizeof(cuts[i]));
			for (l.queries = 1; l.queries <= 64; l.queries *= 8)
				check_positions(l);
		}
	}
}

/* Several prompts a chunk, and queries shown in blocks. */
static void squares_shown_in_blocks(void **state)
{
	struct layout l = base;
	int rows;

	(void)state;
	l.hook = LENS_HOOK_ATTN_SCORES;
	for (rows = 0; rows < 2; rows++) {
		l.by_rows = rows;
		l.chunk[0] = rows ? 8 : 2;
		for (l.queries = 1; l.queries <= 16; l.queries *= 4)
			check_positions(l);
	}
}

static void few_prompts(void **state)
{
	static const enum lens_hook hooks[] = { LENS_HOOK_RESID_POST, LENS_HOOK_K,
						LENS_HOOK_PATTERN };
	struct layout l = base;
	size_t i;

	(void)state;
	l.batch_rows = 8;
	for (l.n_prompts = 1; l.n_prompts <= 9; l.n_prompts += 2) {
		for (i = 0; i < 3; i++) {
			l.hook = hooks[i];
			l.by_rows = true;
			l.chunk[0] = 8;
			check_positions(l);
			l.by_rows = false;
			check_positions(l);
			l.chunk[0] = 1;
			check_positions(l);
		}
	}
}

/* 2038 · 64 is past 65504: infinities, each counted, −inf of the mask not. */
static void halves_that_overflow(void **state)
{
	struct layout l = base;

	(void)state;
	l.factor = 64;
	l.chunk[0] = 4;
	check_positions(l);
	l.hook = LENS_HOOK_ATTN_SCORES;
	l.chunk[0] = 2;
	check_positions(l);
	l.by_rows = true;
	check_positions(l);
}

/* --- the questions around it
 * ------------------------------------------------------------------ */

static void slots(void **state)
{
	static const long list[] = { 0, 4, -1, -5, -6, 5 };
	struct lens_positions p = { LENS_POS_LIST, list, 6 };

	(void)state;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 0);
	assert_int_equal(lens_slot_position(&p, 1, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 2, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 3, 5, 2), 0);
	assert_int_equal(lens_slot_position(&p, 4, 5, 2), -1);
	assert_int_equal(lens_slot_position(&p, 5, 5, 2), -1);
	p.kind = LENS_POS_ALL;
	assert_int_equal(lens_slot_position(&p, 4, 5, 2), 4);
	assert_int_equal(lens_slot_position(&p, 5, 5, 2), -1);
	p.kind = LENS_POS_LAST;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 4);
	p.kind = LENS_POS_READ;
	assert_int_equal(lens_slot_position(&p, 0, 5, 2), 2);
}

/* A sink that ends: the status comes back, and nothing is held. */
static void sink_errors(void **state)
{
	struct layout l = base;
	struct lens_error err = LENS_ERROR_INIT;
	struct run r;

	(void)state;
	l.chunk[0] = 1;
	for (l.hook = LENS_HOOK_Q; l.hook <= LENS_HOOK_PATTERN; l.hook++) {
		prepare(&r, &l);
		r.got.fail_at = 3;
		assert_int_equal(capture_all(&r, &err), LENS_ERR_INTERRUPTED);
		assert_int_equal(r.got.held, 0);
		release(&r);
		prepare(&r, &l);
		r.got.submit_fails = LENS_ERR_NOSPACE;
		err = (struct lens_error)LENS_ERROR_INIT;
		assert_int_equal(capture_all(&r, &err), LENS_ERR_NOSPACE);
		release(&r);
		err = (struct lens_error)LENS_ERROR_INIT;
	}
}

static void allocation_failures(void **state)
{
	struct layout l = base;
	struct lens_capture *c;
	const struct lens_sink sink = { acquire, submit, NULL };
	struct run r;
	unsigned long k;
	enum lens_status st = LENS_ERR_NOMEM;

	(void)state;
	l.hook = LENS_HOOK_PATTERN;
	prepare(&r, &l);
	for (k = 1; st != LENS_OK; k++) {
		struct lens_error err = LENS_ERROR_INIT;

		lens_alloc_fail_at(k);
		st = lens_capture_create(&r.plan, &sink, &c, &err);
		lens_alloc_fail_at(0);
		assert_int_equal(err.code, st);
		assert_true(st == LENS_OK || (st == LENS_ERR_NOMEM && !c));
		lens_capture_destroy(c);
	}
	assert_true(k > 4);
	release(&r);
}

/* What it says to need is what it asks for. */
static void sizes(void **state)
{
	struct layout l = base;
	struct run r;

	(void)state;
	l.hook = LENS_HOOK_PATTERN;
	l.chunk[0] = 2;
	prepare(&r, &l);
	/* two stages of [2 prompts, 3 heads, 41, 41] */
	assert_int_equal(lens_capture_bytes(&r.plan), 2 * 4 * 2 * 3 * 41 * 41);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 4 * 2 * 3 * 41 * 41);
	release(&r);
	l.by_rows = true;
	l.half = true;
	prepare(&r, &l);
	assert_int_equal(lens_capture_bytes(&r.plan), 2 * 4 * 4 * 3 * 41 * 41);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 2 * 4 * 3 * 41 * 41);
	release(&r);
	l.hook = LENS_HOOK_Q;
	l.by_rows = false;
	l.chunk[1] = 8;
	prepare(&r, &l);
	assert_int_equal(lens_capture_bytes(&r.plan), 0);
	assert_int_equal(lens_capture_buffer_bytes(&r.plan), 2 * 2 * 8 * 3 * 2);
	release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots),
		cmocka_unit_test(by_rows),
		cmocka_unit_test(chunks_of_batches),
		cmocka_unit_test(chunks_of_positions),
		cmocka_unit_test(chunks_of_heads_and_positions),
		cmocka_unit_test(chunks_of_squares),
		cmocka_unit_test(squares_shown_in_blocks),
		cmocka_unit_test(few_prompts),
		cmocka_unit_test(halves_that_overflow),
		cmocka_unit_test(sink_errors),
		cmocka_unit_test(allocation_failures),
		cmocka_unit_test(sizes),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
