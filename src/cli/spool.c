/*
 * cli/spool.c: data of `h5lens run` that are no file: texts of the command line, and standard
 * input. In: these; out: a CSV file without a name, which is gone with the program, so that
 * the data can be read twice. What makes two runs the same is its content.
 */
#include "cli/run_args_private.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "h5lens/sys.h"

static const char from_stdin[] = "-", from_texts[] = "--text";

/* A file in $TMPDIR, already removed; *path opens it once more, from its beginning. */
static enum lens_status make_file(int *fd, char path[32], struct lens_error *err)
{
	const char *dir = getenv("TMPDIR");
	struct lens_buf b = LENS_BUF_INIT;

	LENS_TRY(lens_buf_printf(&b, err, "%s/h5lens-XXXXXX", dir && *dir ? dir : "/tmp"));
	*fd = mkstemp(b.data);
	if (*fd < 0)
		lens_error_sys(err, errno, b.data, "create");
	else
		unlink(b.data);
	lens_buf_release(&b);
	snprintf(path, 32, "/dev/fd/%d", *fd);
	return *fd < 0 ? LENS_ERR_IO : LENS_OK;
}

static enum lens_status put(int fd, const void *data, size_t n, struct lens_error *err)
{
	return lens_sys_write(fd, data, n)
		       ? lens_error_sys(err, errno, NULL, "keep the data in $TMPDIR (or /tmp)")
		       : LENS_OK;
}

static enum lens_status copy_stdin(int fd, struct lens_error *err)
{
	static char block[1 << 16];
	ssize_t n;

	for (;;) {
		n = read(STDIN_FILENO, block, sizeof(block));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return lens_error_sys(err, errno, "standard input", "read");
		if (!n)
			return LENS_OK;
		LENS_TRY(put(fd, block, (size_t)n, err));
	}
}

/* A field in quotes, behind a comma if it is not the first. */
static enum lens_status add_field(struct lens_buf *b, bool first, const char *text,
				  struct lens_error *err)
{
	LENS_TRY(lens_buf_printf(b, err, "%s\"", first ? "" : ","));
	for (; *text; text++)
		LENS_TRY(lens_buf_printf(b, err, *text == '"' ? "\"\"" : "%c", *text));
	return lens_buf_append(b, "\"", 1, err);
}

/* The answers' column i: "answer", "answer_2", … */
static const char *answer_name(size_t i, char name[32])
{
	snprintf(name, 32, i ? "answer_%zu" : "answer", i + 1);
	return name;
}

static enum lens_status write_texts(const struct run_args *a, struct lens_buf *b,
				    struct lens_error *err)
{
	struct lens_buf answer = LENS_BUF_INIT;
	enum lens_status st;
	char name[32];
	size_t i, k;

	st = add_field(b, true, "prompt", err);
	for (k = 0; k < a->text[0].n_answers && st == LENS_OK; k++)
		st = add_field(b, false, answer_name(k, name), err);
	for (i = 0; i < a->n_texts && st == LENS_OK; i++) {
		st = lens_buf_append(b, "\n", 1, err);
		if (st == LENS_OK)
			st = add_field(b, true, a->text[i].text, err);
		for (k = 0; k < a->text[i].n_answers && st == LENS_OK; k++) {
			answer.len = 0;
			st = spaced(a->text[i].answer[k], a->no_space, &answer, err);
			if (st == LENS_OK)
				st = add_field(b, false, answer.data, err);
		}
	}
	lens_buf_release(&answer);
	return st == LENS_OK ? lens_buf_append(b, "\n", 1, err) : st;
}

/* The keys that say how the CSV of texts is read. */
static enum lens_status set_keys(const struct run_args *a, struct lens_experiment *e,
				 struct lens_error *err)
{
	static const char *const value[][2] = { { "data.csv", from_texts },
						{ "data.prompt", "prompt" },
						{ "data.tokens", "none" },
						{ "data.separator", "comma" },
						{ "data.answers_as", "text" } };
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	char name[32];
	size_t i;

	for (i = 0; i < sizeof(value) / sizeof(*value); i++)
		LENS_TRY(lens_experiment_set(e, value[i][0], value[i][1], err));
	st = lens_buf_append(&b, "[", 1, err);
	for (i = 0; i < a->text[0].n_answers && st == LENS_OK; i++)
		st = lens_buf_printf(&b, err, "%s%s", i ? "," : "", answer_name(i, name));
	if (st == LENS_OK)
		st = lens_buf_append(&b, "]", 1, err);
	if (st == LENS_OK)
		st = lens_experiment_set(e, "data.answers", b.data, err);
	lens_buf_release(&b);
	return st;
}

enum lens_status spool_data(const struct run_args *a, struct lens_experiment *e,
			    struct lens_error *err)
{
	const bool input = e->data.csv && !strcmp(e->data.csv, from_stdin);
	struct lens_buf b = LENS_BUF_INIT;
	enum lens_status st;
	char path[32];
	int fd;

	if (!a->n_texts && !input)
		return LENS_OK;
	LENS_TRY(make_file(&fd, path, err));
	st = a->n_texts ? set_keys(a, e, err) : copy_stdin(fd, err);
	if (st == LENS_OK && a->n_texts)
		st = write_texts(a, &b, err);
	if (st == LENS_OK && a->n_texts)
		st = put(fd, b.data, b.len, err);
	lens_buf_release(&b);
	e->data.spool = lens_strdup(path);
	if (st == LENS_OK && !e->data.spool)
		st = lens_error_nomem(err, sizeof(path), 1);
	return st;
}

void spool_name(const struct lens_experiment *e, struct lens_error *err)
{
	if (e->data.spool && !strcmp(err->file, e->data.spool))
		snprintf(err->file, sizeof(err->file), "%s",
			 strcmp(e->data.csv, from_stdin) ? e->data.csv : "standard input");
}
