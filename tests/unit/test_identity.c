/*
 * test_identity.c: are two runs of one experiment? What earlier versions wrote,
 * and how what differs is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sweep/sweep_private.h"

/* As version 0.1.0 wrote it: no bos, no numerics, none of the later keys. */
#define HEAD(read_pos)                                                                         \
	"{\"cache\":{\"dtype\":\"f32\",\"hooks\":[\"*\"],\"positions\":\"all\"},\"cpu "        \
	"level\":\"avx2\",\"data\":{\"answers\":[\"a\",\"b\"],\"limit\":\"all\","              \
	"\"on_bad_row\":\"error\",\"prepend_bos\":true,\"prompt\":\"prompt\"," read_pos        \
	"},\"data content\":\"d\",\"lens\":\"recompute\",\"model content\":\"m\","
#define OLD_HEAD HEAD("\"read_pos\":-1")
#define OLD_TAIL                                                                               \
	"\"shards\":{\"bytes\":1073741824,\"prompts\":\"auto\"},\"tables\":[\"logit_diff\"],"  \
	"\"tokenizer content\":\"t\",\"top_k\":10,\"weights\":{\"center_unembed\":true,"       \
	"\"center_writing_weights\":true,\"fold_ln\":true,\"fold_value_biases\":true,"         \
	"\"refactor_factored_attn_matrices\":false}}"
static const char old[] = OLD_HEAD "\"schema\":1," OLD_TAIL;
static const char new[] = OLD_HEAD "\"bos\":0,\"numerics\":1,\"schema\":2,\"tied_head\":"
				   "\"auto\"," OLD_TAIL;
static const char stored[] = OLD_HEAD "\"bos\":0,\"numerics\":1,\"schema\":2,\"tied_head\":"
				      "\"stored\"," OLD_TAIL;
static const char later[] = OLD_HEAD "\"bos\":0,\"numerics\":2,\"schema\":2," OLD_TAIL;
static const char fewer_keys[] = OLD_HEAD "\"bos\":0,\"numerics\":1,\"schema\":2," OLD_TAIL;
static const char more_keys[] =
	OLD_HEAD "\"bos\":0,\"numerics\":1,\"schema\":2,\"unheard\":1," OLD_TAIL;
static const char no_bos[] = OLD_HEAD "\"bos\":null,\"numerics\":1,\"schema\":2," OLD_TAIL;

static const char found[] = HEAD(
	"\"read_pos\":{\"find\":\" Mary\",\"nth\":0}") "\"bos\":0,\"numerics\":1,\"schema\":2," OLD_TAIL;
static const char found_last[] = HEAD(
	"\"read_pos\":{\"find\":\" Mary\",\"nth\":-1}") "\"bos\":0,\"numerics\":1,\"schema\":2," OLD_TAIL;

static void compare(void **state)
{
	static const struct {
		const char *was, *bos, *is;
		enum lens_identity_match want;
	} cases[] = {
		{ new, NULL, new, LENS_IDENTITY_SAME },
		{ fewer_keys, NULL, new, LENS_IDENTITY_SAME },
		{ old, "0", new, LENS_IDENTITY_OLDER },
		{ old, NULL, new, LENS_IDENTITY_OLDER }, /* a plan, which told no BOS */
		{ old, "1", new, LENS_IDENTITY_OTHER },
		{ old, "none", new, LENS_IDENTITY_OTHER },
		{ old, "none", no_bos, LENS_IDENTITY_OLDER },
		{ old, "0", stored, LENS_IDENTITY_OTHER },
		{ old, "0", later, LENS_IDENTITY_OTHER },
		{ new, NULL, later, LENS_IDENTITY_OTHER },
		{ new, NULL, no_bos, LENS_IDENTITY_OTHER },
		{ found, NULL, found, LENS_IDENTITY_SAME },
		{ found, NULL, found_last, LENS_IDENTITY_OTHER },
		{ new, NULL, found, LENS_IDENTITY_OTHER },
		{ found, NULL, new, LENS_IDENTITY_OTHER },
		{ more_keys, NULL, new, LENS_IDENTITY_OTHER },
		{ "{", NULL, new, LENS_IDENTITY_OTHER },
		{ "[]", NULL, new, LENS_IDENTITY_OTHER },
		{ "{\"cache\":1}", NULL, new, LENS_IDENTITY_OTHER },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum lens_identity_match is;

		assert_int_equal(lens_identity_compare(cases[i].was, cases[i].bos, cases[i].is,
						       &is, NULL),
				 LENS_OK);
		if (is != cases[i].want)
			fail_msg("case %zu: %d", i, (int)is);
	}
}

static void expect(const char *was, const char *bos, const char *is, const char *text)
{
	struct lens_error err = LENS_ERROR_INIT;

	assert_int_equal(lens_identity_mismatch("o.h5", was, bos, is, &err), LENS_ERR_MISMATCH);
	assert_string_equal(err.text, text);
}

/* Only what differs is told, and a key that was not known does not. */
static void differences(void **state)
{
	(void)state;
	expect(old, "0", stored,
	       "is of another experiment (tied_head: \"auto\" there, \"stored\" here)");
	expect(old, "5", new, "is of another experiment (bos: 5 there, 0 here)");
	expect(new, NULL, later,
	       "is of the same experiment, by a version of h5lens whose results have other bits "
	       "(numerics: 1 there, 2 here)");
	expect(new, NULL, found,
	       "is of another experiment (data.read_pos: -1 there, "
	       "{\"find\":\" Mary\",\"nth\":0} here)");
	expect(found, NULL, found_last,
	       "is of another experiment (data.read_pos.nth: 0 there, -1 here)");
	expect("nothing", NULL, new, "is of another experiment (its identity cannot be read)");
}

/* Lists as one types them; long ones by what only one has. */
static void lists(void **state)
{
	(void)state;
	expect("{\"cache\":{\"hooks\":[]}}", NULL, "{\"cache\":{\"hooks\":[\"a\",\"b*\"]}}",
	       "is of another experiment (cache.hooks: none there, a,b* here)");
	expect("{\"cache\":{\"hooks\":[\"a\",\"b\"]}}", NULL,
	       "{\"cache\":{\"hooks\":[\"b\",\"a\"]}}",
	       "is of another experiment (cache.hooks: in another order)");
	/* left out at its default */
	expect("{\"cache\":{\"layout\":\"ragged\"}}", NULL, "{\"cache\":{}}",
	       "is of another experiment (cache.layout: \"ragged\" there, \"padded\" here)");
	expect("{\"cache\":{\"positions\":[0,-1]}}", NULL, "{\"cache\":{\"positions\":[0,-2]}}",
	       "is of another experiment (cache.positions: 0,-1 there, 0,-2 here)");
	expect("{\"tables\":[\"logit_diff_logit_diff\",\"answer_logit_answer_logit\","
	       "\"top_tokens_top_tokens\"]}",
	       NULL,
	       "{\"tables\":[\"logit_diff_logit_diff\",\"answer_logit_answer_logit\","
	       "\"top_tokens_top_tokens\",\"loss\"]}",
	       "is of another experiment (tables: only here loss)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(compare),
		cmocka_unit_test(differences),
		cmocka_unit_test(lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
