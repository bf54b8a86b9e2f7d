/*
 * support/edits.h: what the tests of visitors that edit share: a tiny model with a
 * scattered batch, an edit that scales and adds, and passes with it. A call that fails
 * fails the test.
 */
#ifndef LENS_TEST_EDITS_H
#define LENS_TEST_EDITS_H

#include "support/passes.h"

enum { TEST_EDIT_PROMPTS = 3, TEST_EDIT_LENGTH = 21 };

/* Learned positions and LayerNorm with biases; RMSNorm, a gate, two heads to a key. */
extern const char *const test_edited_models[2];

struct test_rig {
	struct lens_model *m; /* raw weights, the test's own */
	int32_t token[TEST_EDIT_PROMPTS][TEST_EDIT_LENGTH];
	struct lens_batch b; /* scattered */
};
void test_rig_begin(struct test_rig *r, const char *model);
void test_rig_end(struct test_rig *r);

/* x·factor + term, in columns from … from + n − 1 of every row that is shown. */
struct test_edit {
	struct lens_hook_set hooks;
	float factor, term;
	size_t from, n; /* n 0: all columns */
	size_t times;
};
/* Of one point, to zeros. */
void test_edit_init(struct test_edit *e, const struct test_rig *r, enum lens_hook hook,
		    size_t layer);
void test_edit_release(struct test_edit *e);
struct lens_visitor test_edit_visitor(struct test_edit *e);

enum lens_status test_run_visitors(const struct test_rig *r, const struct lens_visitor *v,
				   size_t n);
/* A pass with an edit, or NULL, and a record of all that it shows. */
void test_record_pass(const struct test_rig *r, struct test_edit *e, struct test_record *out);
/* Has any value of a hook point other bits in the two? */
bool test_differ(const struct test_rig *r, const struct test_record *x,
		 const struct test_record *y, enum lens_hook hook, size_t layer);

#endif
