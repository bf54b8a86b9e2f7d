/*
 * support/studies.c: see studies.h.
 */
#include "support/studies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "support/passes.h"
#include "support/settings.h"

struct test_random test_rnd = { 11 };

void test_subject_begin_sized(struct test_subject *s, const char *name, size_t n_rows,
			      size_t longest)
{
	const struct lens_model_options raw = { .tied_head = LENS_HEAD_AUTO };
	size_t i, k, length, common;
	char dir[128];

	memset(s, 0, sizeof(*s));
	s->longest = longest;
	snprintf(dir, sizeof(dir), "tests/golden/data/%s", name);
	s->m = test_open_model(dir, &raw);
	for (i = 0; i < n_rows; i++) {
		int32_t *x = s->tokens + s->offset[i], *y = s->corrupted + s->offset[i];

		length = i ? 2 + test_random_below(&test_rnd, longest - 2) : longest;
		common = test_random_below(&test_rnd, length);
		s->read_pos[i] = (int32_t)(i % 3 ? length - 1 : length / 2);
		for (k = 0; k < length; k++) {
			x[k] = (int32_t)test_random_below(&test_rnd, s->m->config.d_vocab);
			y[k] = k < common ? x[k] : (x[k] + 1) % (int32_t)s->m->config.d_vocab;
		}
		for (k = 0; k < N_ANSWERS; k++)
			s->answers[i * N_ANSWERS + k] =
				(int32_t)test_random_below(&test_rnd, s->m->config.d_vocab);
		s->offset[i + 1] = s->offset[i] + length;
	}
	s->p = (struct lens_prompts){ .n_rows = n_rows,
				      .n_answers = N_ANSWERS,
				      .max_length = longest,
				      .offset = s->offset,
				      .tokens = s->tokens,
				      .corrupted = s->corrupted,
				      .resampled = s->corrupted,
				      .read_pos = s->read_pos,
				      .answers = s->answers };
}

void test_subject_begin(struct test_subject *s, const char *name)
{
	test_subject_begin_sized(s, name, N_ROWS, MOST_TOKENS);
}

void test_found_release(struct test_found *f)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++)
		lens_free(f->rows[i]);
	lens_study_release(&f->study);
}

size_t test_found_floats(const struct test_found *f, size_t outcome)
{
	return lens_outcome_floats(&f->study.outcome[outcome], &f->sizes);
}

static void keep(struct test_found *f, const struct lens_interventions *w, size_t row0,
		 size_t n)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++)
		memcpy(f->rows[i] + row0 * test_found_floats(f, i),
		       lens_interventions_rows(w, i),
		       n * test_found_floats(f, i) * sizeof(float));
}

/* In batches of so many rows. */
void test_find(const struct test_subject *s, const struct lens_experiment *e, size_t batch_rows,
	       int threads, struct test_found *f)
{
	struct lens_interventions_options opt = { .study = &f->study,
						  .batch_rows = batch_rows,
						  .threads = threads,
						  .mean = &s->mean,
						  .vector = s->vector };
	struct lens_interventions *w;
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	memset(f, 0, sizeof(*f));
	f->n_rows = s->p.n_rows;
	assert_int_equal(lens_study_init(&f->study, s->m, e, &err), LENS_OK);
	f->sizes = lens_model_sizes(&s->m->config);
	f->sizes.n_pos = s->longest;
	f->sizes.n_answers = N_ANSWERS;
	f->sizes.n_sets = f->study.n_sets;
	f->sizes.top_k = 3;
	f->sizes.scale = e->steer.scale;
	f->sizes.n_scales = e->steer.n_scales;
	opt.sizes = f->sizes;
	for (i = 0; i < f->study.n_outcomes; i++) {
		f->rows[i] = lens_calloc(s->p.n_rows * test_found_floats(f, i), sizeof(float));
		assert_non_null(f->rows[i]);
	}
	assert_int_equal(lens_interventions_create(&opt, &w, NULL), LENS_OK);
	for (i = 0; i < s->p.n_rows; i += batch_rows) {
		const struct lens_interventions_batch in = {
			.prompts = &s->p, .row0 = i, .n = lens_min(s->p.n_rows - i, batch_rows)
		};

		assert_int_equal(lens_interventions_run(w, &in, &f->n_flagged, NULL), LENS_OK);
		keep(f, w, i, in.n);
	}
	lens_interventions_destroy(w);
}

size_t test_same_found(const struct test_found *x, const struct test_found *y, const char *what)
{
	size_t i, k, n = 0;

	assert_int_equal(x->study.n_outcomes, y->study.n_outcomes);
	for (i = 0; i < x->study.n_outcomes; i++) {
		for (k = 0; k < x->n_rows * test_found_floats(x, i); k++, n++) {
			if (memcmp(x->rows[i] + k, y->rows[i] + k, sizeof(float)))
				fail_msg("%s: %s: row %zu, number %zu: %.9g, not %.9g", what,
					 x->study.outcome[i].name, k / test_found_floats(x, i),
					 k % test_found_floats(x, i), (double)y->rows[i][k],
					 (double)x->rows[i][k]);
		}
	}
	return n;
}

const struct lens_outcome *test_outcome(const struct test_found *f, const char *name,
					const float **rows)
{
	size_t i;

	for (i = 0; i < f->study.n_outcomes; i++) {
		if (!strcmp(f->study.outcome[i].name, name)) {
			*rows = f->rows[i];
			return &f->study.outcome[i];
		}
	}
	fail_msg("no %s", name);
	return NULL;
}

size_t test_find_all_ways(const struct test_subject *s, size_t batch_rows, const char *what,
			  struct test_found *f)
{
	struct test_found other;
	size_t n;

	test_find(s, &test_e, batch_rows, 1, f);
	test_find(s, &test_e, batch_rows / 2, 2, &other);
	n = test_same_found(f, &other, what);
	test_found_release(&other);
	test_settings_set(&test_e, "patch.reuse", "false");
	test_find(s, &test_e, batch_rows, 1, &other);
	test_same_found(f, &other, what);
	test_found_release(&other);
	return n;
}
