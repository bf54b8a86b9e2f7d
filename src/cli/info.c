/*
 * cli/info.c: `h5lens info DIR | OUT.h5`. A model is told in info_model.c.
 */
#include "cli/info_private.h"

#include <strings.h>
#include <sys/stat.h>

/* --- a file ------------------------------------------------------------------------- */

static enum lens_status print_attr(void *ctx, const char *name, const char *value,
				   struct lens_error *err)
{
	(void)ctx;
	(void)err;
	printf("  %-20s %s\n", visible(name, strlen(name)), visible(value, strlen(value)));
	return LENS_OK;
}

/* For a sweep in shards: where its activations are. */
static enum lens_status print_shards(const char *path, struct lens_error *err)
{
	struct lens_shard_record *e;
	uint64_t bytes = 0;
	char text[32];
	size_t i, n;

	LENS_TRY(lens_store_read_shards(path, &e, &n, err));
	for (i = 0; i < n; i++)
		bytes += (uint64_t)e[i].size;
	if (n)
		printf("shards\n  %zu file%s, %s together: %s%s\n", n, plural(n),
		       human_bytes((double)bytes, text), visible(e[0].name, strlen(e[0].name)),
		       n > 1 ? " …" : "");
	lens_store_shards_release(e, n);
	return LENS_OK;
}

struct seen {
	struct info_list list;
	bool heads; /* have they been ablated? */
};

static enum lens_status see_dataset(void *ctx, const struct lens_dataset_info *d,
				    struct lens_error *err)
{
	struct seen *s = ctx;

	s->heads |= !strcmp(d->path, "/results/ablate/attn_head_out_all_pos") ||
		    !strcmp(d->path, "/results/ablate/sets");
	/* Dimensions without labels are not shown. */
	if (!strcmp(d->dtype, "other") && strrchr(d->path, '/') == d->path)
		return LENS_OK;
	return keep_dataset(&s->list, d, err);
}

/* Not of weights, nor of a first pass over the data. */
static enum lens_status has_results(const char *path, bool *has, struct lens_error *err)
{
	bool weights;
	char *first_pass;

	LENS_TRY(lens_weights_is_file(path, &weights, err));
	LENS_TRY(lens_store_read_attr(path, "/", LENS_FIRST_PASS, &first_pass, err));
	*has = !weights && !first_pass;
	lens_free(first_pass);
	return LENS_OK;
}

/* What a head's zero leaves. */
static enum lens_status print_value_biases(const char *path, struct lens_error *err)
{
	char *experiment;

	LENS_TRY(lens_store_read_attr(path, "/", "experiment", &experiment, err));
	if (experiment && strstr(experiment, "\"fold_value_biases\":true"))
		printf("  hook_z lacks b_V, which is folded into b_O "
		       "(weights.fold_value_biases): a head ablated to zero keeps its b_V\n");
	lens_free(experiment);
	return LENS_OK;
}

/* The effective experiment, whole: JSON, which `run` takes as YAML. */
static int print_experiment(const char *path)
{
	struct lens_error err = LENS_ERROR_INIT;
	char *text;

	if (lens_store_read_attr(path, "/", "experiment", &text, &err) != LENS_OK)
		return fail(&err);
	if (!text) {
		lens_error_at(&err, LENS_ERR_FORMAT, path, 0, 0,
			      "has no experiment: it is not of `h5lens run`");
		return fail(&err);
	}
	printf("%s\n", text);
	lens_free(text);
	return EXIT_DONE;
}

struct info_args {
	bool experiment, tensors;
};

static int info_file(const char *path, const void *args)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_summary s;
	char *identity;
	struct seen seen = { .heads = false };
	enum lens_status st;
	bool results;

	/* Check an attribute first: nothing is printed for a file that is not ours. */
	if (lens_store_read_attr(path, "/", "identity", &identity, &err) != LENS_OK)
		return fail_output(path, &err);
	if (!identity) {
		lens_error_at(&err, LENS_ERR_FORMAT, path, 0, 0, "is not an output of h5lens");
		return fail(&err);
	}
	lens_free(identity);
	if (((const struct info_args *)args)->experiment)
		return print_experiment(path);
	printf("%s\nattributes\n", path);
	if (lens_store_walk_attrs(path, print_attr, NULL, &err) != LENS_OK)
		return fail(&err);
	printf("datasets\n");
	st = lens_store_walk(path, see_dataset, &seen, &err);
	if (st == LENS_OK)
		print_datasets(&seen.list);
	release_datasets(&seen.list);
	if (st != LENS_OK || print_shards(path, &err) != LENS_OK)
		return fail(&err);
	if (has_results(path, &results, &err) != LENS_OK)
		return fail(&err);
	if (!results)
		return EXIT_DONE;
	if (lens_summary_read(path, &s, &err) != LENS_OK)
		return fail(&err);
	print_summary(&s);
	lens_summary_release(&s);
	if (seen.heads && print_value_biases(path, &err) != LENS_OK)
		return fail(&err);
	return EXIT_DONE;
}

static bool is_gguf(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && !strcasecmp(dot, ".gguf");
}

/* Does it not exist, and is it not named like an output? Probably a hub id or a folder. */
static bool looks_like_a_model(const char *path)
{
	const char *dot = strrchr(path, '.');

	return !lens_file_exists(path) &&
	       (!dot || (strcmp(dot, ".h5") != 0 && strcmp(dot, ".hdf5") != 0));
}

int cmd_info(int argc, char **argv)
{
	struct info_args a = { .experiment = false };
	const struct option_row options[] = {
		{ "--experiment", &a.experiment, NULL, NULL,
		  "of an output: its experiment alone, whole, as JSON" },
		{ "--tensors", &a.tensors, NULL, NULL,
		  "of a model: names and shapes of the tensors that its config.json asks for" },
	};
	const struct usage u = {
		.synopsis = "h5lens info DIR [--tensors] | OUT.h5 [--experiment]",
		.description =
			"For a model directory: its shapes and hook points; for one of an "
			"architecture that\nis not run: what can be told of it. For an output: "
			"its attributes, datasets (one line\nfor layers that are alike), shards "
			"and results.",
		.option = options,
		.n_options = 2,
		.least = 1,
		.most = 1,
	};
	struct lens_error err = LENS_ERROR_INIT;
	const char *plain[1];
	struct stat sb;
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code >= 0)
		return code;
	if (!stat(plain[0], &sb) && S_ISDIR(sb.st_mode))
		return info_model(plain[0], a.tensors);
	if (code < 0 && is_gguf(plain[0])) {
		lens_error_at(&err, LENS_ERR_UNSUPPORTED, plain[0], 0, 0,
			      "is a GGUF file (llama.cpp's format), which is not read");
		return fail(&err);
	}
	if (looks_like_a_model(plain[0])) {
		lens_model_folder_error(plain[0], "", false, &err);
		return fail(&err);
	}
	return guarded(info_file, plain[0], &a);
}
