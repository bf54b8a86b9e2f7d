/*
 * cli/weights.c: `h5lens weights DIR`: a model's parameters as TransformerLens's
 * named_parameters shows them; with -o, their values in a file,
 * or a folder in TransformerLens's own form.
 */
#include "cli/cli_private.h"

#define MOST_SETTINGS 32

/* --set KEY=VALUE, in the order given. */
struct settings {
	char *text[MOST_SETTINGS];
	size_t n;
};

static const char set_flag[] = "--set";

/* Takes them out of argv, whose other arguments move up. */
static int take_settings(const struct usage *u, int *argc, char **argv, struct settings *s)
{
	const size_t length = sizeof(set_flag) - 1;
	int i, kept = 0;

	for (i = 0; i < *argc; i++) {
		bool here = !strncmp(argv[i], set_flag, length);
		char *value = here && argv[i][length] == '=' ? argv[i] + length + 1 : NULL;

		if (!here || (argv[i][length] && !value)) {
			argv[kept++] = argv[i];
			continue;
		}
		if (!value && i + 1 < *argc)
			value = argv[++i];
		if (!value || !strchr(value, '='))
			return usage_error(u, "--set needs key=value, not '%s'",
					   value ? value : "");
		if (s->n == MOST_SETTINGS)
			return usage_error(u, "too many settings");
		s->text[s->n++] = value;
	}
	*argc = kept;
	return -1;
}

static bool is_of_weights(const char *key)
{
	return !strcmp(key, "weights") || !strncmp(key, "weights.", 8);
}

static int apply(const struct usage *u, const struct settings *s, struct lens_experiment *e)
{
	struct lens_error err = LENS_ERROR_INIT;
	size_t i;

	for (i = 0; i < s->n; i++) {
		char *equals = strchr(s->text[i], '=');

		*equals = '\0';
		if (!is_of_weights(s->text[i]))
			return usage_error(u, "--set %s: the settings here are weights.…",
					   s->text[i]);
		if (lens_experiment_set(e, s->text[i], equals + 1, &err) != LENS_OK)
			return fail(&err);
	}
	return -1;
}

static enum lens_status print_weight(void *ctx, const struct lens_weight *w,
				     struct lens_error *err)
{
	int i;

	(void)ctx;
	(void)err;
	printf("%s [", w->name);
	for (i = 0; i < w->rank; i++)
		printf("%s%zu", i ? ", " : "", w->extent[i]);
	printf("]\n");
	return LENS_OK;
}

static int list(const struct lens_experiment *e)
{
	struct lens_processing p = lens_model_options_of(e).processing;
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_config c;

	if (lens_config_load(e->model, &c, &err) != LENS_OK ||
	    lens_processing_fit(&c, &p, &err) != LENS_OK ||
	    lens_weights_each(&c, &p, NULL, print_weight, NULL, &err) != LENS_OK)
		return fail(&err);
	return EXIT_DONE;
}

static void show_warning(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "h5lens: warning: %s\n", text);
}

static int write_output(const struct lens_experiment *e, enum lens_weights_format format,
			bool overwrite)
{
	const struct lens_weights_options opt = { .format = format,
						  .overwrite = overwrite,
						  .stop = catch_signals(),
						  .warn = show_warning };
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_weights_result result;
	char bytes[32];

	if (lens_weights_write(e, &opt, &result, &err) != LENS_OK)
		return fail(&err);
	printf("%s: %zu parameters, %s\n", e->output, result.n,
	       human_bytes((double)result.bytes, bytes));
	return EXIT_DONE;
}

struct weights_args {
	const char *dir, *output, *head, *format_name;
	enum lens_weights_format format;
	bool raw, overwrite;
	struct settings set;
};

/* The part of an experiment that this command knows. */
static int build(const struct usage *u, const struct weights_args *a, struct lens_experiment *e)
{
	struct lens_error err = LENS_ERROR_INIT;

	if (lens_experiment_init(e, &err) != LENS_OK ||
	    lens_experiment_set(e, "model", a->dir, &err) != LENS_OK ||
	    (a->output && lens_experiment_set(e, "output", a->output, &err) != LENS_OK) ||
	    (a->raw && lens_experiment_set(e, "weights", "raw", &err) != LENS_OK) ||
	    (a->head && lens_experiment_set(e, "tied_head", a->head, &err) != LENS_OK))
		return fail(&err);
	return apply(u, &a->set, e);
}

static int weights(const struct usage *u, const struct weights_args *a)
{
	struct lens_experiment e;
	int code = build(u, a, &e);

	if (code < 0)
		lens_experiment_meet_model(&e);
	if (code < 0)
		code = a->output ? write_output(&e, a->format, a->overwrite) : list(&e);
	lens_experiment_release(&e);
	return code;
}

static int parse_format(const struct usage *u, struct weights_args *a)
{
	const char *name = a->format_name;

	if (!name)
		return -1;
	if (!a->output)
		return usage_error(u, "--format is of what is written: -o is missing");
	if (!strcmp(name, "hooked_transformer"))
		a->format = LENS_WEIGHTS_HOOKED_TRANSFORMER;
	else if (strcmp(name, "hdf5") != 0)
		return usage_error(u, "--format: expected hdf5 | hooked_transformer, not '%s'",
				   name);
	if (a->format == LENS_WEIGHTS_HOOKED_TRANSFORMER && !strcmp(a->output, "-"))
		return usage_error(u,
				   "-o -: a folder is written, which standard output is not");
	return -1;
}

static const char description[] =
	"A model's parameters under TransformerLens's names, in its shapes, "
	"after its weight\nprocessing. With -o their values are written, "
	"float32, as /weights/NAME. Of keys and\nvalues there are as many "
	"heads as are stored (n_key_value_heads).\n"
	"--format hooked_transformer writes a folder that TransformerLens 2.x "
	"loads:\nconfig.json with HookedTransformerConfig's keys, "
	"model.safetensors with the state dict,\nand the tokenizer's files.";

int cmd_weights(int argc, char **argv)
{
	struct weights_args a = { .dir = NULL };
	const char *plain[1], *shown = NULL;
	const struct option_row options[] = {
		{ "-o", NULL, &a.output, "TO",
		  "write their values to this HDF5 file, or folder" },
		{ "--format", NULL, &a.format_name, "hdf5 | hooked_transformer",
		  "\n                         of what is written: hdf5, or a folder in TransformerLens's\n"
		  "                         own form" },
		{ "--overwrite", &a.overwrite, NULL, NULL,
		  "replace it, if this command wrote it" },
		{ "--raw-weights", &a.raw, NULL, NULL, "no weight processing" },
		{ set_flag, NULL, &shown, "weights.KEY=VALUE",
		  "a step of the processing, as run has it" },
		{ "--tied-head", NULL, &a.head, "WHICH", "auto, tied or stored: what W_U is" },
	};
	const struct usage u = {
		.synopsis = "h5lens weights DIR [-o W.h5] [options]",
		.description = description,
		.option = options,
		.n_options = sizeof(options) / sizeof(*options),
		.least = 1,
		.most = 1,
	};
	int n, code = take_settings(&u, &argc, argv, &a.set);

	if (code < 0)
		code = parse_args(&u, argc, argv, plain, &n);
	if (code < 0)
		code = check_kind(&u, plain[0], true);
	if (code < 0)
		code = parse_format(&u, &a);
	if (code < 0 && a.output && a.format == LENS_WEIGHTS_HDF5)
		code = check_kind(&u, a.output, false);
	if (code >= 0)
		return code;
	a.dir = plain[0];
	return weights(&u, &a);
}
