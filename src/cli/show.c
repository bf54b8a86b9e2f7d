/*
 * cli/show.c: `h5lens show OUT.h5`: the first prompts with their answers and results, the
 * summary, and with --by the results for each value of a column.
 */
#include "cli/table_private.h"

#define ROWS_SHOWN 10
#define ANSWERS_SHOWN 2

struct show_args {
	const char *rows, *by;
};

static const struct usage usage_of_show;

/* --- the rows -------------------------------------------------------------------------- */

/* A column of the table of rows: a cell of a data set, and how it is shown. */
struct shown {
	const char *path, *fmt; /* NULL: text; "%d": an integer */
	char head[LENS_LABEL + 8];
	bool quoted;
	size_t id, cell;
};

struct view {
	struct shown v[TABLE_MOST_COLUMNS];
	size_t n;
};

static void want(struct view *w, const struct lens_content_entry *e, size_t cell,
		 const char *head, const char *fmt)
{
	struct shown *s = &w->v[w->n];

	if (!e || w->n + 1 >= TABLE_MOST_COLUMNS)
		return;
	*s = (struct shown){ .path = e->path, .fmt = fmt, .cell = cell };
	snprintf(s->head, sizeof(s->head), "%s", head);
	w->n++;
}

/* The first results of each kind: of the first answer, or of it less the second. */
static void choose(const struct lens_content *c, struct view *w)
{
	static const struct {
		const char *name, *head, *fmt;
	} table[] = {
		{ "logit_diff", "logit_diff", "%.3f" }, { "answer_logprob", "logprob", "%.3f" },
		{ "answer_prob", "prob", "%.4f" },      { "answer_rank", "rank", "%d" },
		{ "answer_token_rank", "rank", "%d" },  { "loss", "loss", "%.3f" }
	};
	const struct lens_content_entry *e = lens_content_find(c, "/prompts/", "answer_text");
	char text[LENS_LABEL];
	size_t i;

	want(w, lens_content_find(c, "/prompts/", "text"), 0, "text", NULL);
	for (i = 0; e && e->rank == 2 && i < lens_min(e->extent[1], ANSWERS_SHOWN); i++) {
		want(w, e, i, lens_content_label(c, "answer", i, text), NULL);
		w->v[w->n - 1].quoted = true;
	}
	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		e = lens_content_find(c, "/results/", table[i].name);
		if (!strcmp(table[i].name, "answer_logprob") &&
		    lens_content_find(c, "/results/", "answer_prob"))
			continue;
		if (e && (e->rank == 1 || e->extent[1]))
			want(w, e, 0, table[i].head, table[i].fmt);
	}
}

static void add_shown(struct text_table *t, const struct shown *s, const struct lens_cells *b,
		      size_t row)
{
	size_t i = row * b->width + s->cell;
	struct lens_buf quoted = LENS_BUF_INIT;
	char text[32];

	if (b->text && s->quoted &&
	    lens_buf_printf(&quoted, NULL, "\"%s\"", b->text[i]) == LENS_OK)
		table_add(t, quoted.data);
	else if (b->text)
		table_add(t, b->text[i]);
	else if (b->integer) {
		snprintf(text, sizeof(text), "%lld", (long long)b->integer[i]);
		table_add(t, b->integer[i] < 0 ? "-" : text);
	} else
		table_number(t, s->fmt, b->real[i]);
	lens_buf_release(&quoted);
}

static enum lens_status fill_rows(struct lens_rows *r, const struct view *w, size_t first,
				  size_t n, struct text_table *t, struct lens_error *err)
{
	struct lens_cells block[TABLE_MOST_COLUMNS];
	size_t row, k, i, some;
	char text[32];

	for (row = first; row < first + n; row += some) {
		some = lens_min(w->n ? lens_rows_block(r, row) : n, first + n - row);
		for (k = 0; k < w->n; k++)
			LENS_TRY(lens_rows_read(r, w->v[k].id, row, some, &block[k], err));
		for (i = 0; i < some; i++) {
			snprintf(text, sizeof(text), "%zu", row + i);
			table_add(t, text);
			for (k = 0; k < w->n; k++)
				add_shown(t, &w->v[k], &block[k], i);
		}
	}
	return LENS_OK;
}

static enum lens_status open_view(struct lens_rows *r, struct view *w, struct lens_error *err)
{
	size_t k;

	for (k = 0; k < w->n; k++)
		LENS_TRY(lens_rows_add(r, w->v[k].path, &w->v[k].id, err));
	return LENS_OK;
}

static enum lens_status show_rows(const char *path, const struct lens_content *c, size_t first,
				  size_t n, struct lens_error *err)
{
	struct text_table t = { .elastic = 1, .right = { true } };
	struct view w = { .n = 0 };
	struct lens_rows *r;
	enum lens_status st;
	size_t k;

	choose(c, &w);
	t.n_columns = w.n + 1;
	table_add(&t, "prompt");
	for (k = 0; k < w.n; k++) {
		table_add(&t, w.v[k].head);
		t.right[k + 1] = w.v[k].fmt != NULL;
	}
	LENS_TRY(lens_rows_open(path, &r, err));
	st = open_view(r, &w, err);
	if (st == LENS_OK)
		st = fill_rows(r, &w, first, n, &t, err);
	st = lens_rows_close(r, st, err);
	if (st == LENS_OK && n < c->n_prompts)
		printf("prompts %zu to %zu of %zu\n", first, first + n - 1, c->n_prompts);
	if (st == LENS_OK)
		table_print(&t);
	return st;
}

/* --- by a column ------------------------------------------------------------------------ */

static void add_interval(struct text_table *t, const struct lens_group *v)
{
	char text[64];

	if (isnan(v->diff_half)) {
		table_number(t, "%.3f", v->diff_mean);
		return;
	}
	snprintf(text, sizeof(text), "%.3f ± %.3f", v->diff_mean, v->diff_half);
	table_add(t, text);
}

static void print_groups(const char *by, const struct lens_groups *g)
{
	struct text_table t = { .n_columns = 6,
				.right = { false, true, true, true, true, true } };
	const char *diff = g->any_tokens ? "log probability difference" : "logit difference";
	size_t i;

	table_add(&t, by);
	table_add(&t, "n");
	table_add(&t, "accuracy");
	table_add(&t, diff);
	table_add(&t, "top token");
	table_add(&t, "median rank");
	for (i = 0; i < g->n; i++) {
		const struct lens_group *v = &g->v[i];
		const double n = (double)v->n;

		table_add(&t, *v->value ? v->value : "\"\"");
		table_number(&t, "%.0f", n);
		table_number(&t, "%.1f %%", v->n_diff ? 100 * (double)v->positive / n : NAN);
		add_interval(&t, v);
		table_number(&t, "%.1f %%", v->n_rank ? 100 * (double)v->top1 / n : NAN);
		table_number(&t, "%.10g", v->median_rank);
	}
	printf("by %s\n", visible(by, strlen(by)));
	table_print(&t);
	printf("accuracy: the share of prompts whose %s is above 0; ± is the 95 %% interval of "
	       "the mean\n(Student's t, n − 1 degrees of freedom, prompts taken as independent); "
	       "top token and median\nrank are the first answer's%s\n",
	       diff, g->any_tokens ? ", its worst token's" : "");
}

static enum lens_status show_groups(const char *path, const struct lens_content *c,
				    const char *by, struct lens_error *err)
{
	struct lens_groups g = { .n = 0 };

	LENS_TRY(lens_groups_read(path, c, by, &g, err));
	print_groups(by, &g);
	lens_groups_release(&g);
	return LENS_OK;
}

/* --- the command ------------------------------------------------------------------------ */

static enum lens_status show_all(const char *path, const struct lens_content *c,
				 const struct show_args *a, size_t first, size_t n,
				 struct lens_error *err)
{
	struct lens_summary s;
	size_t cell;

	if (a->by && !lens_content_column(c, a->by, &cell))
		return lens_content_no_column(c, a->by, err);
	LENS_TRY(show_rows(path, c, first, n, err));
	LENS_TRY(lens_summary_read(path, &s, err));
	print_summary(&s);
	lens_summary_release(&s);
	return a->by ? show_groups(path, c, a->by, err) : LENS_OK;
}

static int show_file(const char *path, const void *args)
{
	const struct show_args *a = args;
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_content c;
	size_t first, n;
	int code;

	if (lens_content_read(path, &c, &err) != LENS_OK)
		return fail_output(path, &err);
	code = parse_rows(&usage_of_show, a->rows, c.n_prompts, &first, &n);
	if (!a->rows)
		n = lens_min(n, ROWS_SHOWN);
	if (code < 0)
		code = show_all(path, &c, a, first, n, &err) == LENS_OK ? EXIT_DONE
									: fail(&err);
	lens_content_release(&c);
	return code;
}

static const struct usage usage_of_show = {
	.synopsis = "h5lens show OUT.h5 [--rows A:B] [--by COLUMN]",
	.description =
		"The first ten prompts (or those of --rows) with two answers and their results, "
		"then the\n"
		"results of all prompts. With --by the results for each value of a column too: n, "
		"accuracy,\n"
		"the mean logit difference with its 95 % interval, the answer's median rank.",
	.least = 1,
	.most = 1,
};

int cmd_show(int argc, char **argv)
{
	struct show_args a = { .rows = NULL };
	const struct option_row options[] = {
		{ "--rows", NULL, &a.rows, "A:B", "prompts A to B-1, counted from 0" },
		{ "--by", NULL, &a.by, "COLUMN",
		  "a column of the CSV, an answer, text, length, …" },
	};
	struct usage u = usage_of_show;
	const char *plain[1];
	int n, code;

	u.option = options;
	u.n_options = sizeof(options) / sizeof(*options);
	code = parse_args(&u, argc, argv, plain, &n);
	if (code < 0)
		code = check_kind(&u, plain[0], false);
	return code < 0 ? guarded(show_file, plain[0], &a) : code;
}
