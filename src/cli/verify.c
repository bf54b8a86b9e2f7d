/*
 * cli/verify.c: `h5lens verify OUT.h5`: recompute every digest.
 */
#include "cli/cli.h"

static void print_bad(void *ctx, const char *dataset, const char *what)
{
	(void)ctx;
	fprintf(stderr, "%s: %s\n", dataset, what);
}

static int verify_file(const char *path)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t n_datasets = 0, n_bad = 0;

	if (lens_store_verify(path, print_bad, NULL, &n_datasets, &n_bad, &err) != LENS_OK)
		return fail(&err);
	printf("%s: %zu datasets, %zu bad\n", path, n_datasets, n_bad);
	return n_bad ? EXIT_FAILED : EXIT_DONE;
}

int cmd_verify(int argc, char **argv)
{
	const struct usage u = {
		.synopsis = "h5lens verify OUT.h5",
		.description = "Recomputes the SHA-256 of every dataset. Exit code 1 names "
			       "what does not "
			       "match.",
		.least = 1,
		.most = 1,
	};
	const char *plain[1];
	int n, code = parse_args(&u, argc, argv, plain, &n);

	return code >= 0 ? code : guarded(verify_file, plain[0]);
}
