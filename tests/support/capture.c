/*
 * support/capture.c: see capture.h.
 */
#include "support/capture.h"

#include "support/batch.h"
#include "support/numbers.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { TESTED = 5, OTHER = 6 }; /* datasets, as the sink knows them */

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

static const size_t lengths[] = { 4, 7, 1, 9, 5, 5, 41, 2, 9, 3, 6, 8, 1 };
#define N_PROMPTS (sizeof(lengths) / sizeof(*lengths))

const struct test_layout test_base_layout = { .hook = LENS_HOOK_RESID_POST,
					      .dtype = LENS_F32,
					      .n_prompts = N_PROMPTS,
					      .batch_rows = 4,
					      .length = lengths,
					      .queries = 64,
					      .factor = 1 };

size_t test_product(const size_t *x, int n)
{
	size_t p = 1;

	while (n--)
		p *= x[n];
	return p;
}

bool test_square(enum lens_hook h)
{
	return h == LENS_HOOK_ATTN_SCORES || h == LENS_HOOK_PATTERN;
}

/* A finite value of its own for each place; halves hold 0 … 2047 exactly. */
float test_hook_value(const struct test_layout *l, size_t prompt, size_t pos, size_t inner)
{
	return (float)((prompt * 613 + pos * 97 + inner * 13) % 2039) * l->factor;
}

size_t test_first_token(const struct test_capture *r, size_t row)
{
	size_t i, slot, n = 0;

	for (i = 0; i < row; i++) {
		for (slot = 0; slot < r->plan.positions.n_slots; slot++)
			n += lens_slot_position(&r->plan.positions, slot, r->l->length[i],
						(size_t)r->read_pos[i]) >= 0;
	}
	return n;
}

/* --- the sink ------------------------------------------------------------------------- */

enum lens_status test_acquire(void *ctx, size_t bytes, void **out, struct lens_error *err)
{
	struct test_collected *c = ctx;

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

	if (s->dtype == LENS_F32)
		return ((const float *)data)[i];
	exponent = half[i] >> 10 & 31;
	v = exponent ? ldexp(1024 + (half[i] & 1023), exponent - 25)
		     : ldexp(half[i] & 1023, -24);
	if (exponent == 31)
		v = half[i] & 1023 ? NAN : INFINITY;
	return (float)(half[i] & 0x8000 ? -v : v);
}

/* Element i of a buffer of so many elements an axis, whose first is at `from`. */
static void put(struct test_collected *c, const size_t *from, const size_t *size, size_t i,
		float v)
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

enum lens_status test_submit(void *ctx, const struct lens_captured *d, struct lens_error *err)
{
	struct test_collected *c = ctx;
	const struct lens_capture_spec *s = c->spec;
	size_t from[LENS_CAPTURE_RANK], size[LENS_CAPTURE_RANK], i, n;
	uint8_t digest[LENS_XXH3_BYTES];
	bool rows = d->by_rows;
	int k;

	c->held = 0;
	if (d->dataset == OTHER) {
		lens_free(d->data);
		return LENS_OK;
	}
	assert_int_equal(d->dataset, TESTED);
	assert_true(s->by_token || s->by_rows || !rows);
	for (k = 0; k < s->rank; k++) {
		size[k] = rows ? s->extent[k] : s->chunk[k];
		from[k] = rows ? 0 : d->coord[k] * s->chunk[k];
		assert_true(rows || from[k] < s->extent[k]);
	}
	if (rows) {
		/* the writer puts them into one chunk */
		assert_int_equal(d->row0 / s->chunk[0],
				 (d->row0 + d->n_rows - 1) / s->chunk[0]);
		/* a chunk that the batch holds whole comes as one */
		if (!s->by_token)
			assert_true(s->chunk[0] > c->batch_rows || d->n_rows < s->chunk[0]);
		size[0] = d->n_rows;
		from[0] = d->row0;
		assert_true(d->row0 + d->n_rows <= s->extent[0]);
		assert_int_equal(d->row0 / s->chunk[0],
				 (d->row0 + d->n_rows - 1) / s->chunk[0]);
		/* a chunk that the batch holds whole comes as one */
		assert_true(s->chunk[0] > c->batch_rows || d->n_rows < s->chunk[0]);
	} else {
		lens_xxh3(d->data, d->bytes, digest);
		assert_memory_equal(digest, d->digest, sizeof(digest));
	}
	n = test_product(size, s->rank);
	assert_int_equal(d->bytes, n * (s->dtype == LENS_F16 ? 2 : 4));
	for (i = 0; i < n; i++)
		put(c, from, size, i, stored(s, d->data, i));
	lens_free(d->data);
	if (c->submit_fails)
		return lens_error_set(err, c->submit_fails, "as asked");
	return LENS_OK;
}

/* --- showing activations ------------------------------------------------------------------ */

static enum lens_status show_tokens(struct test_capture *r, struct lens_capture *c,
				    const struct lens_batch *b, size_t row0,
				    struct lens_error *err)
{
	int outer = r->l->by_token ? 1 : 2;
	size_t i, t, j,
		width = test_product(r->spec[0].extent + outer, r->spec[0].rank - outer),
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
			float *x = data + (size_t)lens_batch_row(b, i, t) * stride;

			for (j = 0; j < width; j++)
				x[j] = test_hook_value(r->l, row0 + i, t, j);
		}
	}
	st = lens_capture_visit(c, b, &a, err);
	lens_free(data);
	return st;
}

/* One head of one prompt: `queries` rows at a time, other hooks in between. */
static enum lens_status show_head(struct test_capture *r, struct lens_capture *c,
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
						     : test_hook_value(r->l, row0 + prompt,
								       a.q0 + q, head * 64 + k);
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

static enum lens_status show_values(struct test_capture *r, struct lens_capture *c,
				    const struct lens_batch *b, size_t row0,
				    struct lens_error *err)
{
	const struct lens_activation other = { .hook = LENS_HOOK_LN2_SCALE };
	size_t i, h;

	/* what no dataset wants passes by */
	assert_int_equal(lens_capture_visit(c, b, &other, err), LENS_OK);
	if (!test_square(r->l->hook))
		return show_tokens(r, c, b, row0, err);
	for (i = 0; i < b->n_prompts; i++) {
		for (h = 0; h < config.n_heads; h++)
			LENS_TRY(show_head(r, c, b, row0, i, h, err));
	}
	return LENS_OK;
}

/* Rows are scattered, with gaps between them. */
static enum lens_status show_batch(struct test_capture *r, struct lens_capture *c, size_t row0,
				   struct lens_error *err)
{
	const struct test_layout *l = r->l;
	size_t i, n = l->n_prompts - row0;
	struct test_prompt prompt[64] = { 0 };
	struct test_random rnd = { row0 };
	struct lens_batch b;
	enum lens_status st;

	n = n < l->batch_rows ? n : l->batch_rows;
	for (i = 0; i < n; i++) {
		prompt[i].length = l->length[row0 + i];
		prompt[i].read_pos = r->read_pos[row0 + i];
	}
	test_pack(&b, prompt, n);
	test_scatter(&b, &rnd);
	lens_capture_begin(c, row0, test_first_token(r, row0));
	st = show_values(r, c, &b, row0, err);
	lens_batch_release(&b);
	return st;
}

/* --- a run ------------------------------------------------------------------------------- */

void test_capture_prepare(struct test_capture *r, const struct test_layout *l)
{
	const struct lens_hook_info *h = lens_hook_info(l->hook);
	struct lens_sizes sizes = lens_model_sizes(&config);
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
		.n_specs = test_square(l->hook) ? 2 : 1,
	};
	r->spec[0] = (struct lens_capture_spec){
		.dataset = TESTED,
		.hook = l->hook,
		.layer = h->per_layer ? 1 : 0,
		.dtype = l->dtype,
		.by_rows = l->by_rows,
		.by_token = l->by_token,
		.rank = h->n_axes + !l->by_token,
		.extent = { l->n_prompts },
	};
	for (k = 0; k < h->n_axes; k++) {
		bool sliced = h->axis[k] == LENS_AXIS_POS || h->axis[k] == LENS_AXIS_QUERY;

		sizes.n_pos = sliced ? r->plan.positions.n_slots : longest;
		r->spec[0].extent[k + !l->by_token] = lens_axis_extent(h->axis[k], &sizes);
	}
	if (l->by_token)
		r->spec[0].extent[0] = test_first_token(r, l->n_prompts);
	for (k = 0; k < r->spec[0].rank; k++)
		r->spec[0].chunk[k] = l->chunk[k] && l->chunk[k] < r->spec[0].extent[k]
					      ? l->chunk[k]
					      : r->spec[0].extent[k];
	/* scores and patterns arise block by block in turns, and must not mix */
	r->spec[1] = r->spec[0];
	r->spec[1].dataset = OTHER;
	r->spec[1].hook =
		l->hook == LENS_HOOK_PATTERN ? LENS_HOOK_ATTN_SCORES : LENS_HOOK_PATTERN;
	n = test_product(r->spec[0].extent, r->spec[0].rank);
	r->got.spec = &r->spec[0];
	r->got.batch_rows = l->batch_rows;
	r->got.value = test_floats(n, 0);
	r->got.n = lens_calloc(n, 1);
}

enum lens_status test_capture_all(struct test_capture *r, struct lens_error *err)
{
	const struct lens_sink sink = { test_acquire, test_submit, &r->got };
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

void test_capture_release(struct test_capture *r)
{
	lens_free(r->read_pos);
	lens_free(r->got.value);
	lens_free(r->got.n);
}
