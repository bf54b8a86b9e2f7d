/*
 * cli/export.c: `h5lens export OUT.h5`: tables and columns as CSV, to one file, to standard
 * output, or to a folder with a file for each table that has axes of its own.
 */
#include "cli/cli_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "h5lens/sys.h"

#define MOST_LISTS 64

/* Lists in the order given, as typed; then their names. */
struct name_list {
	const char *given[MOST_LISTS];
	size_t n_given;
	char **name;
	size_t n, cap;
};

struct export_args {
	struct name_list tables, columns;
	const char *rows, *to;
	bool overwrite;
};

static const char to_stdout[] = "-";

/* --- where it goes ------------------------------------------------------------------ */

struct sink {
	const char *final;
	char *part; /* its name until it is whole */
	int fd;
};

static enum lens_status sink_open(struct sink *s, const char *final, bool overwrite,
				  struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;

	*s = (struct sink){ .final = final, .fd = STDOUT_FILENO };
	if (!strcmp(final, to_stdout))
		return LENS_OK;
	if (lens_file_exists(final) && (!overwrite || lens_store_is_hdf5(final)))
		return lens_error_at(err, LENS_ERR_INVALID, final, 0, 0,
				     overwrite ? "is an HDF5 file: it is not overwritten"
					       : "exists; --overwrite replaces it");
	LENS_TRY(lens_buf_printf(&b, err, "%s.part", final));
	s->part = b.data;
	s->fd = lens_sys_open(s->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return s->fd < 0 ? lens_error_sys(err, errno, s->part, "create") : LENS_OK;
}

static enum lens_status sink_write(void *ctx, const char *text, size_t n,
				   struct lens_error *err)
{
	const struct sink *s = ctx;

	if (lens_sys_write(s->fd, text, n))
		return lens_error_sys(err, errno, s->part ? s->part : "standard output",
				      "write");
	return LENS_OK;
}

/* The final name holds the whole file, or what it held before. */
static enum lens_status sink_close(struct sink *s, enum lens_status st, struct lens_error *err)
{
	if (s->part && s->fd >= 0) {
		if (st == LENS_OK && lens_sys_fsync(s->fd))
			st = lens_error_sys(err, errno, s->part, "write");
		if (lens_sys_close(s->fd) && st == LENS_OK)
			st = lens_error_sys(err, errno, s->part, "write");
		if (st == LENS_OK && lens_sys_rename(s->part, s->final))
			st = lens_error_sys(err, errno, s->final, "rename to");
		if (st != LENS_OK)
			lens_sys_unlink(s->part);
	}
	lens_free(s->part);
	return st;
}

/* --- names -------------------------------------------------------------------------- */

static enum lens_status add_name(struct name_list *l, const char *name, size_t n,
				 struct lens_error *err)
{
	char **v = lens_grow(l->name, l->n, &l->cap, sizeof(*v), err);

	if (!v)
		return LENS_ERR_NOMEM;
	l->name = v;
	v[l->n] = lens_calloc(n + 1, 1);
	if (!v[l->n])
		return lens_error_nomem(err, n + 1, 1);
	memcpy(v[l->n++], name, n);
	return LENS_OK;
}

/* "a,b" → a and b; a name with a comma in it is taken as a whole (is_name). */
static enum lens_status split(struct name_list *l, const struct lens_content *c,
			      bool (*is_name)(const struct lens_content *, const char *),
			      struct lens_error *err)
{
	size_t i, n;

	for (i = 0; i < l->n_given; i++) {
		const char *s = l->given[i];

		if (is_name(c, s)) {
			LENS_TRY(add_name(l, s, strlen(s), err));
			continue;
		}
		for (;; s += n + 1) {
			n = strcspn(s, ",");
			LENS_TRY(add_name(l, s, n, err));
			if (!s[n])
				break;
		}
	}
	return LENS_OK;
}

static void release_names(struct name_list *l)
{
	while (l->n)
		lens_free(l->name[--l->n]);
	lens_free(l->name);
}

static bool is_table(const struct lens_content *c, const char *name)
{
	return lens_export_table(c, name) != NULL;
}

static bool is_column(const struct lens_content *c, const char *name)
{
	size_t cell;

	return lens_content_column(c, name, &cell) != NULL;
}

static bool is_word(const struct name_list *l, const char *word)
{
	return l->n == 1 && !strcmp(l->name[0], word);
}

/* --tables all, or none given for a folder: all results. */
static enum lens_status all_tables(struct name_list *l, const struct lens_content *c,
				   struct lens_error *err)
{
	size_t i;

	release_names(l);
	*l = (struct name_list){ .n_given = 0 };
	for (i = 0; i < c->n; i++) {
		if (!strncmp(c->v[i].path, "/results/", 9))
			LENS_TRY(add_name(l, c->v[i].path + 9, strlen(c->v[i].path + 9), err));
	}
	return LENS_OK;
}

/* --- one file, or a folder of them ---------------------------------------------------- */

struct job {
	const char *file;
	const struct lens_content *c;
	const struct export_args *args;
	struct lens_export_options opt;
};

static enum lens_status write_sheet(const struct job *j, const char *final,
				    struct lens_error *err)
{
	struct lens_export_options opt = j->opt;
	enum lens_status st;
	struct sink s;

	opt.write = sink_write;
	opt.ctx = &s;
	st = sink_open(&s, final, j->args->overwrite, err);
	if (st == LENS_OK)
		st = lens_export(j->file, j->c, &opt, err);
	return sink_close(&s, st, err);
}

/* FOLDER/<name>.csv, where a slash in the name becomes a dot. */
static enum lens_status write_in(const struct job *j, const char *name, struct lens_error *err)
{
	struct lens_buf b = LENS_BUF_INIT;
	size_t folder = strlen(j->args->to);
	enum lens_status st;
	char *s;

	name += *name == '/';
	while (folder > 1 && j->args->to[folder - 1] == '/')
		folder--;
	st = lens_buf_printf(&b, err, "%.*s/%s.csv", (int)folder, j->args->to, name);
	for (s = b.data ? b.data + folder + 1 : NULL; s && *s; s++)
		*s = *s == '/' ? '.' : *s;
	if (st == LENS_OK)
		st = write_sheet(j, b.data, err);
	if (st == LENS_OK)
		fprintf(stderr, "h5lens: %s\n", b.data);
	lens_buf_release(&b);
	return st;
}

/* prompts.csv has all tables that fit into a prompt's row; each other has its own file. */
static enum lens_status write_folder(struct job *j, struct lens_error *err)
{
	const struct lens_content_entry *e;
	struct name_list plain = { .n_given = 0 };
	struct lens_export_options all = j->opt;
	enum lens_status st = LENS_OK;
	size_t i;

	if (lens_sys_mkdir(j->args->to, 0777) && errno != EEXIST)
		return lens_error_sys(err, errno, j->args->to, "create");
	for (i = 0; i < all.n_tables && st == LENS_OK; i++) {
		e = lens_export_table(j->c, all.table[i]);
		if (!e)
			st = lens_content_no_table(j->c, all.table[i], err);
		else if (lens_content_is_plain(e))
			st = add_name(&plain, all.table[i], strlen(all.table[i]), err);
	}
	j->opt.table = plain.name ? (const char *const *)plain.name : all.table;
	j->opt.n_tables = plain.n;
	if (st == LENS_OK)
		st = write_in(j, "prompts", err);
	j->opt.n_tables = 1;
	for (i = 0; i < all.n_tables && st == LENS_OK; i++) {
		j->opt.table = &all.table[i];
		if (!lens_content_is_plain(lens_export_table(j->c, all.table[i])))
			st = write_in(j, all.table[i], err);
	}
	release_names(&plain);
	return st;
}

/* What needs a folder, or more than one command, is said before anything is written. */
static enum lens_status check_tables(const struct job *j, struct lens_error *err)
{
	const struct lens_content_entry *e;
	size_t i;

	for (i = 0; j->opt.table && i < j->opt.n_tables; i++) {
		e = lens_export_table(j->c, j->opt.table[i]);
		if (!e)
			return lens_content_no_table(j->c, j->opt.table[i], err);
		if (j->opt.n_tables > 1 && !lens_content_is_plain(e))
			return lens_error_set(
				err, LENS_ERR_INVALID,
				"'%s' has axes of its own, so it takes a row for each cell, and "
				"no other table beside it: ask for it alone, or for a folder "
				"(-o DIR/), which gets a file for each",
				j->opt.table[i]);
	}
	return LENS_OK;
}

static bool is_folder(const char *path)
{
	struct stat sb;
	size_t n = strlen(path);

	return (n && path[n - 1] == '/') || (!stat(path, &sb) && S_ISDIR(sb.st_mode));
}

static const struct usage usage_of_export;

static enum lens_status export_all(struct job *j, struct name_list *tables,
				   struct name_list *columns, struct lens_error *err)
{
	const bool folder = is_folder(j->args->to);
	const bool none = is_word(tables, "none");

	if ((folder && !tables->n) || is_word(tables, "all"))
		LENS_TRY(all_tables(tables, j->c, err));
	if (none || tables->n || folder) {
		j->opt.table = (const char *const *)tables->name;
		j->opt.n_tables = none ? 0 : tables->n;
	}
	if (columns->n && !is_word(columns, "all")) {
		j->opt.column = (const char *const *)columns->name;
		j->opt.n_columns = is_word(columns, "none") ? 0 : columns->n;
	}
	if (folder)
		return write_folder(j, err);
	LENS_TRY(check_tables(j, err));
	return write_sheet(j, j->args->to, err);
}

static int export_file(const char *path, const void *args)
{
	const struct export_args *a = args;
	struct name_list tables = a->tables, columns = a->columns;
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_content c;
	struct job j = { .file = path, .c = &c, .args = a };
	enum lens_status st;
	int code;

	if (lens_content_read(path, &c, &err) != LENS_OK)
		return fail_output(path, &err);
	code = parse_rows(&usage_of_export, a->rows, c.n_prompts, &j.opt.first, &j.opt.n);
	if (code < 0) {
		st = split(&tables, &c, is_table, &err);
		if (st == LENS_OK)
			st = split(&columns, &c, is_column, &err);
		if (st == LENS_OK)
			st = export_all(&j, &tables, &columns, &err);
		code = st == LENS_OK ? EXIT_DONE : fail(&err);
	}
	release_names(&tables);
	release_names(&columns);
	lens_content_release(&c);
	return code;
}

/* --- the command line ------------------------------------------------------------------ */

static int take(void *ctx, const struct option_row *o, char *value)
{
	struct export_args *a = ctx;
	struct name_list *l = strcmp(o->name, "--tables") ? &a->columns : &a->tables;

	if (l->n_given == MOST_LISTS)
		return usage_error(&usage_of_export, "too many lists");
	l->given[l->n_given++] = value;
	return -1;
}

static const struct usage usage_of_export = {
	.synopsis = "h5lens export OUT.h5 [-o OUT.csv | -o DIR/ | -o -] [options]",
	.description =
		"Tables and columns as CSV (UTF-8, RFC 4180, a header line). Tables with one value "
		"a\n"
		"prompt, or one an answer, stand side by side, a row a prompt: prompt (its row in "
		"the\n"
		"file, from 0), text, answers, the CSV's other columns, then logit_diff,\n"
		"answer_rank_ANSWER, … A table with other axes takes a row for each of its cells: "
		"prompt,\n"
		"layer, …, value, with the axes' labels; places past a prompt's end are left out. "
		"It can\n"
		"only be asked for alone, or written to a folder: -o DIR/ makes DIR/prompts.csv of "
		"the\n"
		"former, and a file for each of the latter.\n"
		"Float values are the shortest text that reads back to the same float32 (float64) "
		"bits;\n"
		"what is not a number is NaN, infinities are inf and -inf. What is virtual is read "
		"from\n"
		"the shards. Of a sweep that is not finished, each shard in OUT.shards/ can be "
		"exported.",
	.least = 1,
	.most = 1,
	.take = take,
};

int cmd_export(int argc, char **argv)
{
	struct export_args a = { .to = to_stdout };
	const struct option_row options[] = {
		{ "-o", NULL, &a.to, "TO",
		  "a CSV file, a folder (with a slash at its end), or - (default)" },
		{ "--tables", NULL, NULL, "LIST",
		  "names as in /results (patch/resid_pre), or paths; all, none; default:\n"
		  "                         those with a row a prompt; for a folder all" },
		{ "--columns", NULL, NULL, "LIST",
		  "text, id, answers and columns of the CSV by name; all, none; default:\n"
		  "                         all in a row a prompt, none in a row a cell" },
		{ "--rows", NULL, &a.rows, "A:B", "prompts A to B-1, counted from 0" },
		{ "--overwrite", &a.overwrite, NULL, NULL, "replace files that exist" },
	};
	struct usage u = usage_of_export;
	const char *plain[1];
	int n, code;

	u.option = options;
	u.n_options = sizeof(options) / sizeof(*options);
	u.ctx = &a;
	code = parse_args(&u, argc, argv, plain, &n);
	if (code < 0)
		code = check_kind(&u, plain[0], false);
	return code < 0 ? guarded(export_file, plain[0], &a) : code;
}
