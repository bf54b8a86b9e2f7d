/*
 * unit/test_numbers_text.c: numbers as text: the shortest that reads back to the same bits, of
 * float32 and of float64.
 */
#include "h5lens/pipeline.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_known(void **state)
{
	static const struct {
		double v;
		bool single;
		const char *text;
	} known[] = {
		{ 0, true, "0.0" },
		{ -0.0, true, "-0.0" },
		{ 3, true, "3.0" },
		{ 0.1f, true, "0.1" },
		{ 0.1f, false, "0.10000000149011612" },
		{ 0.1, false, "0.1" },
		{ 16777216, true, "16777216.0" },
		{ 1e10, true, "1e+10" },
		{ 1.401298464324817e-45, true, "1.4013e-45" }, /* the smallest */
		{ 0.0999755859375, true, "0.099975586" },      /* a half */
		{ 1.0 / 3, false, "0.3333333333333333" },
		{ NAN, true, "NaN" },
		{ -NAN, false, "NaN" },
		{ INFINITY, true, "inf" },
		{ -INFINITY, false, "-inf" },
	};
	char text[LENS_NUMBER_TEXT];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(known) / sizeof(*known); i++) {
		assert_string_equal(lens_real_text(known[i].v, known[i].single, text),
				    known[i].text);
	}
}

static uint64_t next(uint64_t *x)
{
	*x = *x * 6364136223846793005u + 1442695040888963407u;
	return *x ^ (*x >> 29);
}

/* Any bits but those of NaN come back. */
static void test_round_trip(void **state)
{
	char text[LENS_NUMBER_TEXT];
	uint64_t x = 1, bits;
	uint32_t low;
	double d, back;
	float f, f_back;
	int i;

	(void)state;
	for (i = 0; i < 200000; i++) {
		bits = next(&x);
		memcpy(&d, &bits, sizeof(d));
		low = (uint32_t)(bits >> 32);
		memcpy(&f, &low, sizeof(f));
		if (!isnan(f)) {
			f_back = strtof(lens_real_text((double)f, true, text), NULL);
			assert_memory_equal(&f, &f_back, sizeof(f));
			assert_true(strlen(text) < LENS_NUMBER_TEXT);
		}
		if (!isnan(d)) {
			back = strtod(lens_real_text(d, false, text), NULL);
			assert_memory_equal(&d, &back, sizeof(d));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
