/*
 * support/place.c: see place.h.
 */
#include "support/place.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "h5lens/core.h"
#include "support/runs.h"
#include "support/sweeps.h"

char *test_place, *test_place_output;

int test_place_set_up(void **state)
{
	(void)state;
	test_place = test_tmp_path("place");
	test_remove_tree(test_place);
	assert_int_equal(mkdir(test_place, 0777), 0);
	test_place_output = lens_path_join(test_place, "out.h5");
	return 0;
}

int test_place_tear_down(void **state)
{
	(void)state;
	test_remove_tree(test_place);
	lens_free(test_place);
	lens_free(test_place_output);
	return 0;
}

void test_write_text(const char *folder, const char *name, const char *text)
{
	char *path = lens_path_join(folder, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	lens_free(path);
}

bool test_is_there(const char *folder, const char *name)
{
	char *path = lens_path_join(folder, name);
	bool is = lens_file_exists(path);

	lens_free(path);
	return is;
}

size_t test_count_files(const char *folder, const char *ending)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	size_t n = 0, m = strlen(ending);

	while (d && (e = readdir(d)) != NULL) {
		size_t k = strlen(e->d_name);

		n += k >= m && !strcmp(e->d_name + k - m, ending);
	}
	if (d)
		closedir(d);
	return n;
}
