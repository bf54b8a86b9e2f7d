/*
 * cli/verify.c: `h5lens verify OUT.h5`: recomputes every digest, those of the shards too,
 * in child processes, because HDF5 may crash on a damaged file.
 */
#include "cli/cli_private.h"

static void print_bad(void *ctx, const char *dataset, const char *what)
{
	(void)ctx;
	fprintf(stderr, "%s: %s\n", visible(dataset, strlen(dataset)), what);
}

static int verify_file(const char *path, size_t n_processes)
{
	struct lens_error err = LENS_ERROR_INIT;
	const struct lens_verify_options opt = { .n_processes = n_processes, .fn = print_bad };
	size_t n_datasets = 0, n_bad = 0;

	fflush(stdout);
	if (lens_store_verify_parallel(path, &opt, &n_datasets, &n_bad, &err) != LENS_OK)
		return fail_output(path, &err);
	printf("%s: %zu dataset%s, %zu bad\n", path, n_datasets, plural(n_datasets), n_bad);
	return n_bad ? EXIT_FAILED : EXIT_DONE;
}

int cmd_verify(int argc, char **argv)
{
	const char *plain[1], *threads = NULL;
	const struct option_row rows[] = {
		{ "--threads", NULL, &threads, "N",
		  "processes that read (default: as many as run's threads)" },
	};
	const struct usage u = {
		.synopsis = "h5lens verify OUT.h5 [--threads N]",
		.description =
			"Recomputes the SHA-256 of every dataset, including the shards'. Exit "
			"code 1: some do\nnot match; the dataset and the chunk are named.",
		.option = rows,
		.n_options = sizeof(rows) / sizeof(rows[0]),
		.least = 1,
		.most = 1,
	};
	int n, code = parse_args(&u, argc, argv, plain, &n);
	size_t asked;

	if (code < 0)
		code = check_output(&u, threads, &asked, plain[0]);
	if (code >= 0)
		return code;
	return verify_file(plain[0], lens_thread_count(asked));
}
