/*
 * support/passes.c: see passes.h.
 */
#include "support/passes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct lens_model *test_open_model(const char *dir, const struct lens_model_options *opt)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_model *m;
	char text[2200];

	if (lens_model_open(dir, opt, &m, &err) != LENS_OK)
		fail_msg("%s", lens_error_format(&err, text, sizeof(text)));
	return m;
}

enum lens_status test_run_pass(const struct test_pass *p, struct lens_error *err)
{
	const struct lens_visitors v = { p->visitor, p->n };
	struct lens_forward_size size = { .visitors = &v,
					  .max_rows = p->b->max_rows,
					  .threads = p->threads,
					  .most_threads = p->most_threads };
	struct lens_forward *f;
	enum lens_status st;
	size_t i;

	for (i = 0; i < p->b->n_prompts; i++)
		size.max_length = lens_max(size.max_length, p->b->length[i]);
	assert_int_equal(lens_forward_create(p->m, &size, &f, NULL), LENS_OK);
	st = p->resid ? lens_forward_from(f, p->b,
					  &(struct lens_start){ p->layer, p->resid, p->past },
					  &v, err)
		      : lens_forward_run(f, p->b, &v, err);
	lens_forward_destroy(f);
	return st;
}

/* --- what passes show ------------------------------------------------------------------ */

static struct test_point *point_of(const struct test_record *r, enum lens_hook hook,
				   size_t layer)
{
	return &r->point[layer * LENS_HOOK_COUNT + (size_t)hook];
}

/* Where a position's values are; the point's room is made when it is first shown. */
static float *place(struct test_record *r, const struct lens_activation *a, size_t prompt,
		    size_t pos)
{
	struct test_point *p = point_of(r, a->hook, a->layer);
	bool square = lens_hook_is_square(a->hook);
	size_t n = r->n_prompts * r->longest;

	if (!p->value) {
		p->width = square ? r->m->config.n_heads * r->longest : a->width;
		p->value = lens_calloc(n * p->width, sizeof(*p->value));
		p->seen = lens_calloc(n, 1);
		assert_true(p->value && p->seen);
	}
	assert_true(prompt < r->n_prompts && pos < r->longest);
	assert_true(square || a->width == p->width);
	p->seen[prompt * r->longest + pos]++;
	return p->value + (prompt * r->longest + pos) * p->width +
	       (square ? a->head * r->longest : 0);
}

static enum lens_status record(void *ctx, const struct lens_batch *b,
			       const struct lens_activation *a, struct lens_error *err)
{
	struct test_record *r = ctx;
	size_t i, pos;

	(void)err;
	assert_int_equal(b->n_prompts, r->n_prompts);
	if (lens_hook_is_square(a->hook)) {
		assert_int_equal(a->width, b->length[a->prompt]);
		for (i = 0; i < a->nq; i++)
			memcpy(place(r, a, a->prompt, a->q0 + i), a->data + i * a->stride,
			       a->width * sizeof(float));
		return LENS_OK;
	}
	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			long row = lens_batch_row(b, i, pos);

			assert_true(row < (long)b->n_rows);
			if (row >= 0)
				memcpy(place(r, a, i, pos), a->data + (size_t)row * a->stride,
				       a->width * sizeof(float));
		}
	}
	return LENS_OK;
}

static void want_all(struct test_record *r, enum lens_want want)
{
	size_t layer;
	int h;

	for (h = 0; h < LENS_HOOK_COUNT; h++) {
		enum lens_hook hook = (enum lens_hook)h;
		bool per_layer = lens_hook_info(hook)->per_layer;

		if (!lens_hook_exists(&r->m->config, hook) ||
		    (want == LENS_WANT_READ_POS && !per_layer))
			continue;
		for (layer = 0; layer < (per_layer ? r->m->config.n_layers : 1); layer++)
			lens_hook_want(&r->hooks, hook, layer, want);
	}
}

void test_record_init(struct test_record *r, const struct lens_model *m,
		      const struct lens_batch *b, enum lens_want want)
{
	size_t i;

	memset(r, 0, sizeof(*r));
	r->m = m;
	r->n_prompts = b->n_prompts;
	for (i = 0; i < b->n_prompts; i++)
		r->longest = lens_max(r->longest, b->length[i]);
	r->point = lens_calloc(m->config.n_layers, LENS_HOOK_COUNT * sizeof(*r->point));
	assert_non_null(r->point);
	assert_int_equal(lens_hook_set_init(&r->hooks, &m->config, NULL, 0, NULL), LENS_OK);
	want_all(r, want);
}

void test_record_release(struct test_record *r)
{
	size_t i;

	for (i = 0; i < r->m->config.n_layers * LENS_HOOK_COUNT; i++) {
		lens_free(r->point[i].value);
		lens_free(r->point[i].seen);
	}
	lens_free(r->point);
	lens_hook_set_release(&r->hooks);
}

struct lens_visitor test_record_visitor(struct test_record *r)
{
	return (struct lens_visitor){ .hooks = &r->hooks, .visit = record, .ctx = r };
}

const float *test_recorded(const struct test_record *r, enum lens_hook hook, size_t layer,
			   size_t prompt, size_t pos)
{
	const struct test_point *p = point_of(r, hook, layer);
	size_t at = prompt * r->longest + pos;

	return p->value && p->seen[at] ? p->value + at * p->width : NULL;
}

/* Once a pass; scores and patterns head by head. */
static size_t times(const struct test_record *r, enum lens_hook hook)
{
	return lens_hook_is_square(hook) ? r->m->config.n_heads : 1;
}

static size_t same_points(const struct test_record *is, const struct test_record *should,
			  enum lens_hook hook, size_t layer, const char *what)
{
	const struct test_point *p = point_of(is, hook, layer);
	char name[LENS_HOOK_NAME], where[LENS_HOOK_NAME + 200];
	size_t at, n = 0;

	for (at = 0; p->value && at < is->n_prompts * is->longest; at++) {
		size_t prompt = at / is->longest, pos = at % is->longest;
		const float *x = test_recorded(should, hook, layer, prompt, pos);

		if (!p->seen[at])
			continue;
		snprintf(where, sizeof(where), "%s: %s, prompt %zu, position %zu", what,
			 lens_hook_name(hook, layer, name), prompt, pos);
		if (p->seen[at] != times(is, hook) || !x)
			fail_msg("%s: shown %u times, or not to the other", where, p->seen[at]);
		test_assert_same(p->value + at * p->width, x, p->width, where);
		n++;
	}
	return n;
}

size_t test_same_records(const struct test_record *is, const struct test_record *should,
			 const char *what)
{
	size_t layer, n = 0;
	int h;

	assert_true(is->longest == should->longest && is->n_prompts == should->n_prompts);
	for (layer = 0; layer < is->m->config.n_layers; layer++) {
		for (h = 0; h < LENS_HOOK_COUNT; h++)
			n += same_points(is, should, (enum lens_hook)h, layer, what);
	}
	return n;
}

float *test_record_rows(const struct test_record *r, const struct lens_batch *b,
			enum lens_hook hook, size_t layer)
{
	size_t i, pos, width = point_of(r, hook, layer)->width;
	float *rows = test_floats(b->n_rows * width, 0);

	for (i = 0; i < b->n_prompts; i++) {
		for (pos = 0; pos < b->length[i]; pos++) {
			const float *x = test_recorded(r, hook, layer, i, pos);

			assert_non_null(x);
			memcpy(rows + (size_t)lens_batch_row(b, i, pos) * width, x,
			       width * sizeof(*x));
		}
	}
	return rows;
}
