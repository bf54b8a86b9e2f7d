/*
 * test_forward_edits.c: visitors that change a pass: what follows is what a model whose
 * weights do the same gives, to the bit; their order; and what cannot be edited. On the
 * level of H5LENS_TEST_CPU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support/passes.h"

enum { N_PROMPTS = 3, LENGTH = 21 };

/* A learned position and LayerNorm with biases; RMSNorm, a gate, two heads to a key. */
static const char *const models[] = { "tests/golden/data/gpt2_gelu_new",
				      "tests/golden/data/llama_gqa" };

struct rig {
	struct lens_model *m;
	int32_t token[N_PROMPTS][LENGTH];
	struct lens_batch b; /* scattered */
};

static void begin(struct rig *r, const char *model)
{
	const struct lens_model_options raw = { 0 };
	struct test_prompt p[N_PROMPTS];
	struct test_random rnd = { 8 };
	size_t i, k;

	r->m = test_open_model(model, &raw);
	for (i = 0; i < N_PROMPTS; i++) {
		for (k = 0; k < LENGTH; k++)
			r->token[i][k] = (int32_t)test_random_below(&rnd, r->m->config.d_vocab);
		p[i] = (struct test_prompt){ r->token[i], LENGTH - i * 8, (int32_t)(2 + i) };
	}
	test_pack(&r->b, p, N_PROMPTS);
	test_scatter(&r->b, &rnd);
}

static void end(struct rig *r)
{
	lens_batch_release(&r->b);
	lens_model_destroy(r->m);
}

/* --- an edit -------------------------------------------------------------------------------
 */

/* x·factor + term, in columns from … from + n − 1 of every row that is shown. */
struct edit {
	struct lens_hook_set hooks;
	float factor, term;
	size_t from, n; /* n 0: all columns */
	size_t times;
};

static enum lens_status change(void *ctx, const struct lens_batch *b,
			       const struct lens_activation *a, float *data,
			       struct lens_error *err)
{
	struct edit *e = ctx;
	size_t rows = lens_hook_is_square(a->hook) ? a->nq : b->n_rows, i, k;

	(void)err;
	assert_ptr_equal(data, a->data);
	e->times++;
	for (i = 0; i < rows; i++) {
		for (k = e->from; k < (e->n ? e->from + e->n : a->width); k++) {
			float *x = &data[i * a->stride + k];

			*x = *x * e->factor + e->term;
		}
	}
	return LENS_OK;
}

static void edit_init(struct edit *e, const struct rig *r, enum lens_hook hook, size_t layer)
{
	*e = (struct edit){ 0 };
	assert_int_equal(lens_hook_set_init(&e->hooks, &r->m->config, NULL, 0, NULL), LENS_OK);
	lens_hook_want(&e->hooks, hook, layer, LENS_WANT_ALL);
}

static void edit_release(struct edit *e)
{
	lens_hook_set_release(&e->hooks);
}

static struct lens_visitor edit_visitor(struct edit *e)
{
	return (struct lens_visitor){ .hooks = &e->hooks, .edit = change, .ctx = e };
}

static enum lens_status run(const struct rig *r, const struct lens_visitor *v, size_t n)
{
	const struct test_pass pass = { .m = r->m, .b = &r->b, .visitor = v, .n = n };

	return test_run_pass(&pass, NULL);
}

/* A pass with an edit, or NULL, and a record of all that it shows. */
static void record(const struct rig *r, struct edit *e, struct test_record *out)
{
	struct lens_visitor v[2];

	test_record_init(out, r->m, &r->b, LENS_WANT_ALL);
	v[0] = test_record_visitor(out);
	if (e)
		v[1] = edit_visitor(e);
	assert_int_equal(run(r, v, e ? 2 : 1), LENS_OK);
}

/* Has any value of a hook point other bits in the two? */
static bool differ(const struct rig *r, const struct test_record *x,
		   const struct test_record *y, enum lens_hook hook, size_t layer)
{
	size_t i, pos, width = x->point[layer * LENS_HOOK_COUNT + (size_t)hook].width;

	for (i = 0; i < N_PROMPTS; i++) {
		for (pos = 0; pos < r->b.length[i]; pos++) {
			if (memcmp(test_recorded(x, hook, layer, i, pos),
				   test_recorded(y, hook, layer, i, pos),
				   width * sizeof(float)) != 0)
				return true;
		}
	}
	return false;
}

/* --- what follows from an edit ---------------------------------------------------------------
 */

/* A head whose z is zero, and one whose rows of W_O are. */
static void check_head(struct rig *r, size_t layer, size_t head)
{
	const struct lens_config *c = &r->m->config;
	float *w_o = r->m->block[layer].w_o + head * c->d_head * c->d_model;
	size_t bytes = c->d_head * c->d_model * sizeof(float);
	struct test_record plain, edited, zeroed;
	void *was = lens_alloc_aligned(bytes, 1);
	struct edit e;

	assert_non_null(was);
	record(r, NULL, &plain);
	edit_init(&e, r, LENS_HOOK_Z, layer);
	e.from = head * c->d_head;
	e.n = c->d_head;
	record(r, &e, &edited);
	assert_int_equal(e.times, 1);
	assert_true(differ(r, &edited, &plain, LENS_HOOK_LOGITS, 0));
	memcpy(was, w_o, bytes);
	memset(w_o, 0, bytes);
	record(r, NULL, &zeroed);
	memcpy(w_o, was, bytes);
	assert_false(differ(r, &edited, &zeroed, LENS_HOOK_LOGITS, 0));
	assert_false(differ(r, &edited, &zeroed, LENS_HOOK_ATTN_OUT, layer));
	assert_false(differ(r, &edited, &plain, LENS_HOOK_RESID_PRE, layer));
	/* z itself: the others' heads are as they were */
	assert_true(differ(r, &edited, &plain, LENS_HOOK_Z, layer));
	lens_free(was);
	edit_release(&e);
	test_record_release(&plain);
	test_record_release(&edited);
	test_record_release(&zeroed);
}

static void zero_a_head(void **state)
{
	size_t k, layer;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct rig r;

		begin(&r, models[k]);
		for (layer = 0; layer < r.m->config.n_layers; layer++)
			check_head(&r, layer, layer ? r.m->config.n_heads - 1 : 1);
		end(&r);
	}
}

static void assert_zeros(const struct rig *r, const struct test_record *t, enum lens_hook hook,
			 size_t layer, bool zero)
{
	size_t i, pos, k, width = t->point[layer * LENS_HOOK_COUNT + (size_t)hook].width;

	for (i = 0; i < N_PROMPTS; i++) {
		for (pos = 0; pos < r->b.length[i]; pos++) {
			const float *x = test_recorded(t, hook, layer, i, pos);
			size_t zeros = 0;

			for (k = 0; k < width; k++)
				zeros += x[k] == 0;
			assert_true(zero ? zeros == width : zeros < width);
		}
	}
}

/* A pattern of zeros mixes nothing; the scores before it stay. */
static void zero_pattern(void **state)
{
	size_t k;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain, edited;
		struct edit e;
		struct rig r;

		begin(&r, models[k]);
		record(&r, NULL, &plain);
		edit_init(&e, &r, LENS_HOOK_PATTERN, 0);
		record(&r, &e, &edited);
		assert_int_equal(e.times, N_PROMPTS * r.m->config.n_heads);
		assert_zeros(&r, &edited, LENS_HOOK_PATTERN, 0, true);
		assert_zeros(&r, &edited, LENS_HOOK_Z, 0, true);
		assert_zeros(&r, &edited, LENS_HOOK_Z, 1, false);
		assert_zeros(&r, &plain, LENS_HOOK_Z, 0, false);
		assert_false(differ(&r, &edited, &plain, LENS_HOOK_ATTN_SCORES, 0));
		edit_release(&e);
		test_record_release(&plain);
		test_record_release(&edited);
		end(&r);
	}
}

/* Every point that can be edited changes the logits, or is itself what is shown last. */
static void every_point_matters(void **state)
{
	size_t k;
	int h;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain;
		struct rig r;

		begin(&r, models[k]);
		record(&r, NULL, &plain);
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			enum lens_hook hook = (enum lens_hook)h;
			struct test_record edited;
			struct edit e;

			if (!lens_hook_exists(&r.m->config, hook) ||
			    !lens_hook_info(hook)->editable)
				continue;
			edit_init(&e, &r, hook, 0);
			e.factor = 0.5f;
			record(&r, &e, &edited);
			if (!differ(&r, &edited, &plain, LENS_HOOK_LOGITS, 0))
				fail_msg("%s: an edit does nothing",
					 lens_hook_info(hook)->name);
			edit_release(&e);
			test_record_release(&edited);
		}
		test_record_release(&plain);
		end(&r);
	}
}

/* The stream before block 1, edited on the way or given. */
static void edit_or_begin_there(void **state)
{
	size_t k, i;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record plain, edited, given;
		struct lens_visitor v;
		struct edit e;
		struct rig r;
		float *resid;

		begin(&r, models[k]);
		record(&r, NULL, &plain);
		edit_init(&e, &r, LENS_HOOK_RESID_PRE, 1);
		e.factor = 1.25f;
		e.term = 0.75f;
		record(&r, &e, &edited);
		resid = test_record_rows(&plain, &r.b, LENS_HOOK_RESID_PRE, 1);
		for (i = 0; i < r.b.n_rows * r.m->config.d_model; i++)
			resid[i] = resid[i] * 1.25f + 0.75f;
		test_record_init(&given, r.m, &r.b, LENS_WANT_ALL);
		v = test_record_visitor(&given);
		assert_int_equal(test_run_pass(&(struct test_pass){ .m = r.m,
								    .b = &r.b,
								    .visitor = &v,
								    .n = 1,
								    .resid = resid,
								    .layer = 1 },
					       NULL),
				 LENS_OK);
		assert_true(test_same_records(&given, &edited, "from block 1") > 0);
		assert_true(differ(&r, &edited, &plain, LENS_HOOK_LOGITS, 0));
		edit_release(&e);
		lens_free(resid);
		test_record_release(&plain);
		test_record_release(&edited);
		test_record_release(&given);
		end(&r);
	}
}

/* In the last block, where the read positions alone go on, and where all do. */
static void edit_at_read_positions(void **state)
{
	size_t k;

	(void)state;
	for (k = 0; k < 2; k++) {
		struct test_record all, read;
		struct lens_visitor v[2];
		struct edit e;
		struct rig r;

		begin(&r, models[k]);
		edit_init(&e, &r, LENS_HOOK_Z, r.m->config.n_layers - 1);
		e.factor = 0.5f;
		record(&r, &e, &all);
		memset(e.hooks.want, 0, e.hooks.n_layers * LENS_HOOK_COUNT);
		lens_hook_want(&e.hooks, LENS_HOOK_Z, r.m->config.n_layers - 1,
			       LENS_WANT_READ_POS);
		test_record_init(&read, r.m, &r.b, LENS_WANT_READ_POS);
		v[0] = edit_visitor(&e);
		v[1] = test_record_visitor(&read);
		assert_int_equal(run(&r, v, 2), LENS_OK);
		assert_true(test_same_records(&read, &all, "read positions") > 0);
		assert_null(test_recorded(&read, LENS_HOOK_Z, r.m->config.n_layers - 1, 0, 0));
		assert_non_null(
			test_recorded(&read, LENS_HOOK_Z, r.m->config.n_layers - 1, 0, 2));
		edit_release(&e);
		test_record_release(&all);
		test_record_release(&read);
		end(&r);
	}
}

/* --- the list --------------------------------------------------------------------------------
 */

static void assert_changed(const struct rig *r, const struct test_record *is,
			   const struct test_record *plain, float factor, float term)
{
	size_t pos, k;

	for (pos = 0; pos < LENGTH; pos++) {
		const float *x = test_recorded(is, LENS_HOOK_MLP_OUT, 0, 0, pos);
		const float *was = test_recorded(plain, LENS_HOOK_MLP_OUT, 0, 0, pos);

		for (k = 0; k < r->m->config.d_model; k++)
			assert_int_equal(test_bits(x[k]), test_bits(was[k] * factor + term));
	}
}

/* Edits come before visits, in their own order, wherever they stand in the list. */
static void order(void **state)
{
	struct test_record plain, before, after;
	struct lens_visitor v[4];
	struct edit twice, more;
	struct rig r;

	(void)state;
	begin(&r, models[0]);
	record(&r, NULL, &plain);
	edit_init(&twice, &r, LENS_HOOK_MLP_OUT, 0);
	twice.factor = 2;
	edit_init(&more, &r, LENS_HOOK_MLP_OUT, 0);
	more.factor = 1;
	more.term = 3;
	test_record_init(&before, r.m, &r.b, LENS_WANT_ALL);
	test_record_init(&after, r.m, &r.b, LENS_WANT_ALL);
	v[0] = test_record_visitor(&before);
	v[1] = edit_visitor(&twice);
	v[2] = test_record_visitor(&after);
	v[3] = edit_visitor(&more);
	assert_int_equal(run(&r, v, 4), LENS_OK);
	assert_changed(&r, &before, &plain, 2, 3);
	assert_true(test_same_records(&before, &after, "two visits") > 0);
	test_record_release(&before);
	/* the other way round: (x + 3)·2, which is x·2 + 6 to the bit */
	test_record_init(&before, r.m, &r.b, LENS_WANT_ALL);
	v[0] = edit_visitor(&more);
	v[1] = test_record_visitor(&before);
	v[2] = edit_visitor(&twice);
	assert_int_equal(run(&r, v, 3), LENS_OK);
	assert_changed(&r, &before, &plain, 2, 6);
	/* and with the visit first */
	test_record_release(&after);
	test_record_init(&after, r.m, &r.b, LENS_WANT_ALL);
	v[0] = test_record_visitor(&after);
	v[1] = edit_visitor(&more);
	v[2] = edit_visitor(&twice);
	assert_int_equal(run(&r, v, 3), LENS_OK);
	assert_true(test_same_records(&after, &before, "the same edits") > 0);
	edit_release(&twice);
	edit_release(&more);
	test_record_release(&plain);
	test_record_release(&before);
	test_record_release(&after);
	end(&r);
}

/* --- what cannot be edited -------------------------------------------------------------------
 */

/* Refused by name, before anything is shown, from the tokens and from a block on. */
static void not_editable(void **state)
{
	static const struct {
		enum lens_hook hook;
		const char *name;
	} fixed[] = {
		{ LENS_HOOK_LN1_SCALE, "blocks.1.ln1.hook_scale" },
		{ LENS_HOOK_RESULT, "blocks.1.attn.hook_result" },
		{ LENS_HOOK_MLP_IN, "blocks.1.hook_mlp_in" },
		{ LENS_HOOK_LN2_SCALE, "blocks.1.ln2.hook_scale" },
		{ LENS_HOOK_LN_FINAL_SCALE, "ln_final.hook_scale" },
	};
	struct rig r;
	float *resid;
	size_t i, from;

	(void)state;
	begin(&r, models[0]);
	resid = test_floats(r.b.n_rows * r.m->config.d_model, 1);
	for (i = 0; i < 5; i++) {
		for (from = 0; from < 2; from++) {
			struct lens_error err = LENS_ERROR_INIT;
			bool per_layer = lens_hook_info(fixed[i].hook)->per_layer;
			struct edit e;
			struct lens_visitor v;

			edit_init(&e, &r, fixed[i].hook, per_layer);
			lens_hook_want(&e.hooks, LENS_HOOK_Z, 1, LENS_WANT_ALL);
			v = edit_visitor(&e);
			assert_int_equal(
				test_run_pass(&(struct test_pass){ .m = r.m,
								   .b = &r.b,
								   .visitor = &v,
								   .n = 1,
								   .resid = from ? resid
										 : NULL },
					      &err),
				LENS_ERR_INVALID);
			assert_non_null(strstr(err.text, fixed[i].name));
			assert_int_equal(e.times, 0);
			edit_release(&e);
		}
	}
	lens_free(resid);
	end(&r);
}

/* An edit's error, and a visit's, ends the pass. */
static enum lens_status refuse(void *ctx, const struct lens_batch *b,
			       const struct lens_activation *a, float *data,
			       struct lens_error *err)
{
	(void)ctx;
	(void)b;
	(void)a;
	(void)data;
	return lens_error_set(err, LENS_ERR_INTERRUPTED, "as asked");
}

static void errors(void **state)
{
	static const enum lens_hook at[] = { LENS_HOOK_EMBED, LENS_HOOK_Q, LENS_HOOK_PATTERN,
					     LENS_HOOK_MLP_PRE, LENS_HOOK_LOGITS };
	struct rig r;
	size_t i;

	(void)state;
	begin(&r, models[0]);
	for (i = 0; i < 5; i++) {
		struct edit e;
		struct lens_visitor v[2];
		struct test_record seen;

		edit_init(&e, &r, at[i], 0);
		test_record_init(&seen, r.m, &r.b, LENS_WANT_NOT);
		lens_hook_want(&seen.hooks, at[i], 0, LENS_WANT_ALL);
		v[0] = test_record_visitor(&seen);
		v[1] = (struct lens_visitor){ .hooks = &e.hooks, .edit = refuse };
		assert_int_equal(run(&r, v, 2), LENS_ERR_INTERRUPTED);
		assert_null(test_recorded(&seen, at[i], 0, 0, 0));
		edit_release(&e);
		test_record_release(&seen);
	}
	end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(zero_a_head),
		cmocka_unit_test(zero_pattern),
		cmocka_unit_test(every_point_matters),
		cmocka_unit_test(edit_or_begin_there),
		cmocka_unit_test(edit_at_read_positions),
		cmocka_unit_test(order),
		cmocka_unit_test(not_editable),
		cmocka_unit_test(errors),
	};

	return cmocka_run_group_tests(tests, test_open_kernels, NULL);
}
