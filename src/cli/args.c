/*
 * cli/args.c: a command's arguments. In: argv and what the command takes; out: its options'
 * values and plain arguments, its help, or what is wrong with them.
 */
#include "cli/cli_private.h"

#include <errno.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/stat.h>

void (*usage_seen)(const struct usage *u);

int usage_error(const struct usage *u, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "h5lens: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nusage: %s\n", u->synopsis);
	return EXIT_USAGE;
}

int check_kind(const struct usage *u, const char *path, bool folder)
{
	struct stat sb;

	const char *dot = strrchr(path, '.');

	if (stat(path, &sb) || !S_ISDIR(sb.st_mode) == !folder)
		return -1;
	if (!folder)
		return usage_error(u, "%s is a folder, and a file is needed here",
				   visible(path, strlen(path)));
	return usage_error(u,
			   "%s is a file%s; a model is named by its folder, the one with "
			   "config.json",
			   visible(path, strlen(path)),
			   dot && !strcasecmp(dot, ".gguf")
				   ? ", and GGUF (llama.cpp's format) is not read"
				   : "");
}

static void print_usage(const struct usage *u)
{
	const char *before = "\n";
	size_t i;

	printf("usage: %s\n\n%s\n", u->synopsis, u->description);
	for (i = 0; i < u->n_options; i++) {
		char left[64];

		if (!u->option[i].help)
			continue;
		snprintf(left, sizeof(left), "%s %s", u->option[i].name,
			 u->option[i].shape ? u->option[i].shape : "");
		printf("%s  %-22s %s\n", before, left, u->option[i].help);
		before = "";
	}
	if (u->more)
		u->more();
}

static int take_option(const struct usage *u, int argc, char **argv, int *i)
{
	char *equals = strchr(argv[*i], '='), *value = NULL;
	size_t k, n = equals ? (size_t)(equals - argv[*i]) : strlen(argv[*i]);
	const struct option_row *o = NULL;

	for (k = 0; k < u->n_options && !o; k++) {
		if (strlen(u->option[k].name) == n && !strncmp(u->option[k].name, argv[*i], n))
			o = &u->option[k];
	}
	if (!o)
		return usage_error(u, "unknown option '%.*s'", (int)n, argv[*i]);
	if (!o->shape && equals)
		return usage_error(u, "%s takes no value", o->name);
	if (o->shape && !equals && *i + 1 >= argc)
		return usage_error(u, "%s needs a value: %s", o->name, o->shape);
	if (o->shape)
		value = equals ? equals + 1 : argv[++*i];
	if (o->flag)
		*o->flag = true;
	else if (o->value)
		*o->value = value;
	else
		return u->take(u->ctx, o, value);
	return -1;
}

int parse_args(const struct usage *u, int argc, char **argv, const char **plain, int *n_plain)
{
	bool options = true;
	int i, code;

	*n_plain = 0;
	for (i = 1; i < argc; i++) {
		if (options && (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))) {
			(usage_seen ? usage_seen : print_usage)(u);
			return EXIT_DONE;
		}
		if (options && !strcmp(argv[i], "--")) {
			options = false;
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			code = take_option(u, argc, argv, &i);
			if (code >= 0)
				return code;
		} else if (*n_plain == u->most) {
			return usage_error(u, "unexpected argument '%s'", argv[i]);
		} else {
			plain[(*n_plain)++] = argv[i];
		}
	}
	if (*n_plain < u->least)
		return usage_error(u, "an argument is missing");
	return -1;
}

int parse_threads(const struct usage *u, const char *text, size_t *out)
{
	char *end;
	long n;

	*out = 0;
	if (!text)
		return -1;
	n = strtol(text, &end, 10);
	if (*end || end == text || n < 1 || n > 1024)
		return usage_error(u, "--threads takes a number from 1 to 1024, not '%s'",
				   text);
	*out = (size_t)n;
	return -1;
}

/* Digits up to c, and c itself if it is not the end; nothing gives deflt. */
static bool take_row(const char **s, char c, size_t deflt, size_t *out)
{
	char *end;

	errno = 0;
	*out = deflt;
	if (**s >= '0' && **s <= '9') {
		*out = strtoul(*s, &end, 10);
		*s = end;
	}
	if (errno || (**s != c && **s))
		return false;
	*s += **s == c && c;
	return true;
}

int parse_rows(const struct usage *u, const char *text, size_t n_rows, size_t *first, size_t *n)
{
	const char *s = text, *colon;
	size_t end = n_rows;

	*first = 0;
	*n = n_rows;
	if (!text)
		return -1;
	colon = strchr(text, ':');
	if (!*text || !take_row(&s, ':', 0, first) ||
	    (colon && !take_row(&s, '\0', n_rows, &end)) || *s)
		return usage_error(u,
				   "--rows takes A:B (from row A, counted from 0, up to but "
				   "not including row B), A:, :B or A, not '%s'",
				   text);
	if (!colon)
		end = *first + 1;
	if (*first >= n_rows || end <= *first)
		return usage_error(u, "--rows %s: no such row; there %s %zu, counted from 0",
				   text, n_rows == 1 ? "is" : "are", n_rows);
	*n = lens_min(end, n_rows) - *first;
	return -1;
}

int check_output(const struct usage *u, const char *threads, size_t *n_threads,
		 const char *output)
{
	int code = parse_threads(u, threads, n_threads);

	return code < 0 ? check_kind(u, output, false) : code;
}
