/*
 * support/truth.c: an output beside the float64 truth.
 */
#include "support/truth.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "h5lens/tables.h"

#define MOST_PROMPTS 64
#define PATH 256

uint16_t test_half(float x)
{
	uint16_t sign = signbit(x) ? 0x8000 : 0;
	double a = fabs((double)x), quantum;
	int e;

	if (isnan(x))
		return 0x7e00;
	if (a >= 65520.0) /* half-way from the largest half to the next */
		return sign | 0x7c00;
	e = a < 0x1p-14 ? -14 : ilogb(a);
	quantum = ldexp(1.0, e - 10);
	a = nearbyint(a / quantum) * quantum;
	if (a < 0x1p-14)
		return (uint16_t)(sign | (unsigned)(a * 0x1p24));
	e = ilogb(a);
	return (uint16_t)(sign |
			  (((unsigned)(e + 15) << 10) + (unsigned)(ldexp(a, 10 - e) - 1024.0)));
}

bool test_is_square(const char *hook)
{
	return strstr(hook, "hook_pattern") || strstr(hook, "hook_attn_scores");
}

void test_truth_hooks(const struct test_h5 *truth, const char *variant, struct test_names *out)
{
	struct test_names groups, more;
	char path[PATH];
	size_t i, n = 0;

	*out = (struct test_names){ 0 };
	snprintf(path, sizeof(path), "/%s", variant);
	test_h5_groups(truth, path, &groups);
	for (i = 0; i < groups.n; i++) {
		if (!strcmp(groups.v[i], "tables"))
			continue;
		snprintf(path, sizeof(path), "/%s/%s", variant, groups.v[i]);
		test_h5_datasets(truth, path, n++ ? &more : out);
		if (n == 1)
			continue;
		assert_int_equal(test_names_differ(path, &more, out), 0);
		test_names_release(&more);
	}
	test_names_release(&groups);
	assert_true(out->n > 0);
}

/* --- one dataset ------------------------------------------------------------------- */

/* The kind of "blocks.3.attn.hook_q" is "attn.hook_q". */
static struct test_kind *kind_of(struct test_truth *t, const char *name)
{
	const char *rest = strncmp(name, "blocks.", 7) ? NULL : strchr(name + 7, '.');
	size_t i;

	for (i = 0; i < t->n_kinds; i++) {
		if (!strcmp(t->kind[i].name, rest ? rest + 1 : name))
			return &t->kind[i];
	}
	fail_msg("no tolerance is stated for %s", name);
	return NULL;
}

/* The values of one dataset that have a truth. */
struct errors {
	struct test_truth *t;
	const char *name;
	double worst, error2, square; /* largest error, sums of error² and truth² */
	size_t n, bad;
};

static void complain(struct errors *e, size_t prompt, size_t at, const char *what, double is,
		     double should)
{
	if (e->bad++ < 3)
		print_error("%s %s: prompt %zu, value %zu %s: %.9g, not %.9g\n", e->t->label,
			    e->name, prompt, at, what, is, should);
}

/*
 * Halves are allowed half a unit in their last place on top; the excess over
 * that counts as the error.
 */
static void compare_value(struct errors *e, size_t prompt, size_t at, double is, double should)
{
	double error = fabs(is - should);

	if (isinf(should) || isinf(is) || isnan(is) || isnan(should)) {
		if (is != should && !(isnan(is) && isnan(should)))
			complain(e, prompt, at, "is not finite alike", is, should);
		return;
	}
	if (e->t->half) {
		double unit = fabs(should) * 0x1p-11;

		error -= unit > 0x1p-25 ? unit : 0x1p-25;
	}
	e->worst = error > e->worst ? error : e->worst;
	e->error2 += error * error;
	e->square += should * should;
	e->n++;
}

/* The truth's; 1 if that is zero: errors are absolute then. */
static double rms_of(const struct errors *e)
{
	return e->n && e->square > 0.0 ? sqrt(e->square / (double)e->n) : 1.0;
}

static size_t finish(struct errors *e)
{
	double rms = rms_of(e), relative = e->worst / rms;
	struct test_kind *kind = kind_of(e->t, e->name);

	if (!e->n) {
		print_error("%s %s: nothing was compared\n", e->t->label, e->name);
		e->bad++;
	}
	if (!(relative <= kind->limit)) {
		print_error("%s %s: error %.3g of the RMS %.3g, limit %.3g\n", e->t->label,
			    e->name, relative, rms, kind->limit);
		e->bad++;
	}
	if (relative > kind->worst) {
		kind->worst = relative;
		snprintf(kind->where, sizeof(kind->where), "%s %s", e->t->label, e->name);
	}
	return e->bad;
}

/* --- hook points --------------------------------------------------------------------- */

static size_t lengths_of(const struct test_h5 *truth, size_t length[MOST_PROMPTS], size_t *most)
{
	struct test_array a;
	size_t i, n;

	test_h5_f64(truth, "/length", &a);
	n = a.n;
	assert_true(n > 0 && n <= MOST_PROMPTS);
	*most = 0;
	for (i = 0; i < n; i++) {
		length[i] = (size_t)a.f64[i];
		*most = length[i] > *most ? length[i] : *most;
	}
	test_array_release(&a);
	return n;
}

/*
 * Is the output's shape the truth's with a prompt axis, and the longest prompt
 * where the truth has its own length?
 */
static bool same_shape(const struct test_array *out, const struct test_array *truth,
		       bool square, size_t length, size_t longest)
{
	int k;

	if (out->rank != truth->rank + 1)
		return false;
	for (k = 0; k < truth->rank; k++) {
		bool pos = square ? k >= 1 : k == 0;

		if (truth->extent[k] != (pos ? length : out->extent[k + 1]))
			return false;
		if (pos && out->extent[k + 1] != longest)
			return false;
	}
	return true;
}

/*
 * Walks over one prompt of an output [prompt, …]. Positions past its end have
 * to be NaN, of integers -1; the others are compared with truth, or only have to be numbers
 * when it is NULL.
 */
static void compare_prompt(struct errors *e, const struct test_array *out,
			   const struct test_array *truth, bool square, size_t prompt,
			   size_t length)
{
	size_t row = out->n / out->extent[0], at, in_truth = 0;

	for (at = 0; at < row; at++) {
		size_t rest = at, index[TEST_RANK];
		double is = out->f64[prompt * row + at];
		bool inside;
		int k;

		for (k = out->rank - 1; k > 0; k--) {
			index[k] = rest % out->extent[k];
			rest /= out->extent[k];
		}
		inside = square ? index[2] < length && index[3] < length : index[1] < length;
		if (!inside && !(out->floating ? isnan(is) : is == -1))
			complain(e, prompt, at, "is past the end", is, (double)NAN);
		else if (inside && truth)
			compare_value(e, prompt, at, is, truth->f64[in_truth++]);
		else if (inside && isnan(is))
			complain(e, prompt, at, "is missing", is, 0.0);
	}
	assert_true(!truth || in_truth == truth->n);
}

static size_t compare_hook(struct test_truth *t, const char *name)
{
	struct errors e = { .t = t, .name = name };
	size_t length[MOST_PROMPTS], longest, i, n = lengths_of(t->truth, length, &longest);
	bool square = test_is_square(name), integers = strstr(name, "hook_expert_indices");
	struct test_array out, truth;
	char path[PATH];

	snprintf(path, sizeof(path), "/cache/%s", name);
	test_h5_f64(t->output, path, &out);
	assert_int_equal(out.extent[0], n);
	assert_int_equal(out.floating, !integers);
	assert_int_equal(out.size, t->half && !integers ? 2 : 4);
	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/%s/%zu/%s", t->variant, i, name);
		if (!test_h5_has(t->truth, path)) {
			compare_prompt(&e, &out, NULL, square, i, length[i]);
			continue;
		}
		test_h5_f64(t->truth, path, &truth);
		if (!same_shape(&out, &truth, square, length[i], longest)) {
			print_error("%s: its shape is not the truth's\n", path);
			e.bad++;
		} else {
			compare_prompt(&e, &out, &truth, square, i, length[i]);
		}
		test_array_release(&truth);
	}
	test_array_release(&out);
	if (t->fidelity)
		test_fidelity_add(t->fidelity, name,
				  sqrt(e.error2 / (double)(e.n ? e.n : 1)) / rms_of(&e),
				  e.worst / rms_of(&e));
	return finish(&e);
}

size_t test_compare_hooks(struct test_truth *t)
{
	struct test_names names, found;
	size_t i, bad;

	test_truth_hooks(t->truth, t->variant, &names);
	test_h5_datasets(t->output, "/cache", &found);
	bad = test_names_differ(t->label, &found, &names);
	for (i = 0; i < names.n; i++) {
		if (test_names_have(&found, names.v[i]))
			bad += compare_hook(t, names.v[i]);
	}
	test_names_release(&names);
	test_names_release(&found);
	return bad;
}

/* --- tables ---------------------------------------------------------------------------- */

static bool is_count(const char *name)
{
	return strstr(name, "rank") || strstr(name, "top_tokens") ||
	       !strcmp(name, "top_neuron") || !strcmp(name, "top_neuron_layer");
}

/* Of a token that two logits too near to each other decide, the truth says only that. */
#define UNDECIDED -2.0

static bool same_count(double is, double should)
{
	return is == should || (should == UNDECIDED && is >= 0.0);
}

static size_t compare_table(struct test_truth *t, const char *name, const char *truth_path)
{
	struct errors e = { .t = t, .name = name };
	struct test_array out, truth;
	char path[PATH];
	size_t i;
	int k;

	snprintf(path, sizeof(path), "/results/%s", name);
	test_h5_f64(t->output, path, &out);
	test_h5_f64(t->truth, truth_path, &truth);
	assert_int_equal(out.rank, truth.rank);
	for (k = 0; k < out.rank; k++)
		assert_int_equal(out.extent[k], truth.extent[k]);
	assert_int_equal(out.floating, !is_count(name));
	for (i = 0; i < out.n; i++) {
		size_t prompt = i / (out.n / out.extent[0]);

		if (!is_count(name))
			compare_value(&e, prompt, i, out.f64[i], truth.f64[i]);
		else if (!same_count(out.f64[i], truth.f64[i]))
			complain(&e, prompt, i, "differs", out.f64[i], truth.f64[i]);
	}
	test_array_release(&out);
	test_array_release(&truth);
	return is_count(name) ? e.bad : finish(&e);
}

static size_t compare_flags(const struct test_truth *t)
{
	struct test_array flags;
	size_t i, bad = 0;

	test_h5_f64(t->output, "/results/flags", &flags);
	for (i = 0; i < flags.n; i++)
		bad += ((unsigned)flags.f64[i] & LENS_FLAGS_NONFINITE) != 0;
	test_array_release(&flags);
	return bad;
}

size_t test_compare_tables(struct test_truth *t, const char *lens)
{
	struct test_names truth, found;
	char prefix[64], path[PATH];
	size_t i, n = 0, bad = 0;

	snprintf(prefix, sizeof(prefix), "%s/", lens);
	snprintf(path, sizeof(path), "/%s/tables", t->variant);
	test_h5_datasets(t->truth, path, &truth);
	test_h5_datasets(t->output, "/results", &found);
	for (i = 0; i < truth.n; i++) {
		const char *slash = strchr(truth.v[i], '/');
		const char *name = slash ? slash + 1 : truth.v[i];

		if (slash && strncmp(truth.v[i], prefix, strlen(prefix)) != 0)
			continue;
		n++;
		snprintf(path, sizeof(path), "/%s/tables/%s", t->variant, truth.v[i]);
		if (test_names_have(&found, name)) {
			bad += compare_table(t, name, path);
		} else {
			print_error("%s: /results/%s is missing\n", t->label, name);
			bad++;
		}
	}
	if (!test_names_have(&found, "flags") || found.n != n + 1) {
		print_error("%s: %zu tables, not %zu and flags\n", t->label, found.n, n);
		bad++;
	}
	bad += compare_flags(t);
	test_names_release(&truth);
	test_names_release(&found);
	return bad;
}

/* --- prompts ----------------------------------------------------------------------------- */

static size_t compare_integers(struct test_truth *t, const char *path, const char *truth_path)
{
	struct test_array out, truth;
	size_t bad;

	test_h5_f64(t->output, path, &out);
	test_h5_f64(t->truth, truth_path, &truth);
	bad = out.n != truth.n || memcmp(out.f64, truth.f64, out.n * sizeof(double)) != 0;
	if (bad)
		print_error("%s %s differs\n", t->label, path);
	test_array_release(&out);
	test_array_release(&truth);
	return bad;
}

static size_t compare_tokens(struct test_truth *t)
{
	size_t length[MOST_PROMPTS], longest, i, k, bad = 0;
	size_t n = lengths_of(t->truth, length, &longest);
	struct test_array out, truth;

	test_h5_f64(t->output, "/prompts/tokens", &out);
	assert_true(out.rank == 2 && out.extent[0] == n && out.extent[1] == longest);
	for (i = 0; i < n; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/tokens/%zu", i);
		test_h5_f64(t->truth, path, &truth);
		assert_int_equal(truth.n, length[i]);
		for (k = 0; k < longest; k++)
			bad += out.f64[i * longest + k] !=
			       (k < length[i] ? truth.f64[k] : -1.0);
		test_array_release(&truth);
	}
	test_array_release(&out);
	return bad;
}

size_t test_compare_prompts(struct test_truth *t)
{
	return compare_tokens(t) + compare_integers(t, "/prompts/length", "/length") +
	       compare_integers(t, "/prompts/read_pos", "/read_pos") +
	       compare_integers(t, "/prompts/answers", "/answers");
}
