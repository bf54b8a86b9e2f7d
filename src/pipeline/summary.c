/*
 * pipeline/summary.c: the results of a finished file in a few numbers. They are
 * read back from the file, so that what is told is what is stored.
 */
#include "pipeline/pipeline_private.h"

#include <math.h>
#include <string.h>

/*
 * A dataset of the file, or nothing where it has none; of a chosen axis the first place
 * alone (the first answer), which extent then has as 1, and width as it was.
 */
struct table {
	double *v;
	size_t extent[LENS_MAX_RANK];
	int rank;
	size_t width;
};

struct choice {
	const char *path;
	int rank, first_of; /* the axis; 0: none */
};

/* Of n rows of [outer, width, inner] cells the first of width. */
static void take_first(const struct lens_cells *c, size_t n, size_t width, size_t inner,
		       double *out)
{
	size_t i, k, cells = n * c->width, from;

	for (i = 0; i < cells / (width * inner); i++) {
		for (k = 0; k < inner; k++) {
			from = i * width * inner + k;
			*out++ = c->real ? c->real[from] : (double)c->integer[from];
		}
	}
}

/* Cells of a row that t keeps; inner: those of each place of the chosen axis. */
static size_t shape(const struct choice *of, struct table *t, size_t *inner)
{
	size_t kept = 1;
	int i;

	t->width = of->first_of ? t->extent[of->first_of] : 1;
	if (of->first_of)
		t->extent[of->first_of] = 1;
	for (*inner = 1, i = 1; i < t->rank; i++) {
		kept *= t->extent[i];
		if (i > of->first_of)
			*inner *= t->extent[i];
	}
	return kept;
}

static enum lens_status read_blocks(struct lens_rows *r, size_t id, const struct choice *of,
				    struct table *t, struct lens_error *err)
{
	size_t row, n, inner, kept = shape(of, t, &inner);
	struct lens_cells c;

	t->v = lens_calloc(t->extent[0], kept * sizeof(*t->v));
	if (!t->v)
		return lens_error_nomem(err, t->extent[0], kept * sizeof(*t->v));
	for (row = 0; row < t->extent[0]; row += n) {
		n = lens_min(lens_rows_block(r, row), t->extent[0] - row);
		LENS_TRY(lens_rows_read(r, id, row, n, &c, err));
		take_first(&c, n, t->width, inner, t->v + row * kept);
	}
	return LENS_OK;
}

/* What is absent, of another rank or empty leaves t empty: no file has every table. */
static enum lens_status read_table(struct lens_rows *r, const struct choice *of,
				   struct table *t, struct lens_error *err)
{
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_dtype dtype;
	size_t id;
	bool odd;
	int i;

	memset(t, 0, sizeof(*t));
	if (lens_rows_add(r, of->path, &id, &why) != LENS_OK)
		return why.code == LENS_ERR_NOMEM ? lens_error_pass(err, &why) : LENS_OK;
	t->rank = lens_rows_shape(r, id, t->extent, &dtype);
	odd = t->rank != of->rank || dtype == LENS_STR;
	for (i = 0; i < t->rank; i++)
		odd = odd || !t->extent[i];
	if (odd)
		memset(t, 0, sizeof(*t));
	return odd ? LENS_OK : read_blocks(r, id, of, t, err);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Median of v[0], v[stride], … (n of them), −1 (not finite) left out; NaN if none is left. */
static double median(const double *v, size_t n, size_t stride, double *scratch)
{
	size_t i, kept = 0;

	for (i = 0; i < n; i++) {
		if (v[i * stride] >= 0)
			scratch[kept++] = v[i * stride];
	}
	if (!kept)
		return NAN;
	qsort(scratch, kept, sizeof(*scratch), ascending);
	return kept % 2 ? scratch[kept / 2] : (scratch[kept / 2 - 1] + scratch[kept / 2]) / 2;
}

static void summarize_diff(const struct table *t, struct lens_summary *s)
{
	size_t i, positive = 0, n = 0;
	double sum = 0;

	/* Against the first other answer. */
	for (i = 0; i < t->extent[0]; i++) {
		double d = t->v[i];

		if (isnan(d))
			continue;
		sum += d;
		positive += d > 0;
		n++;
	}
	s->logit_diff_mean = n ? sum / (double)n : NAN;
	s->logit_diff_positive = n ? (double)positive / (double)t->extent[0] : NAN;
}

static void summarize_top(const struct table *rank, struct lens_summary *s)
{
	size_t i, top = 0;

	s->n_answers = rank->width;
	for (i = 0; i < rank->extent[0]; i++)
		top += rank->v[i] == 0;
	s->top1 = rank->extent[0] ? (double)top / (double)rank->extent[0] : NAN;
}

/* The same of answers of any number of tokens, [prompt, answer, answer_pos]; −1: no token. */
static void summarize_tokens(const struct table *tokens, const struct table *rank,
			     struct lens_summary *s)
{
	size_t i, k, width = tokens->extent[2], top = 0;

	s->any_tokens = true;
	s->n_answers = tokens->width;
	s->top1 = NAN;
	if (memcmp(tokens->extent, rank->extent, sizeof(rank->extent)) != 0)
		return;
	for (i = 0; i < rank->extent[0]; i++) {
		for (k = 0; k < width && tokens->v[i * width + k] >= 0; k++) {
			if (rank->v[i * width + k] != 0)
				break;
		}
		top += k == width || tokens->v[i * width + k] < 0;
	}
	s->top1 = (double)top / (double)rank->extent[0];
}

/* Over the prompts that have one: more than one token, finite logits. */
static void summarize_loss(const struct table *t, struct lens_summary *s)
{
	size_t i, n = 0;
	double sum = 0;

	for (i = 0; i < t->extent[0]; i++) {
		if (isnan(t->v[i]))
			continue;
		sum += t->v[i];
		n++;
	}
	s->has_loss = t->v != NULL;
	s->loss_mean = n ? sum / (double)n : NAN;
}

static enum lens_status summarize_ranks(const char *file, const struct table *t,
					struct lens_summary *s, struct lens_error *err)
{
	size_t i, n;
	double *scratch;

	if (!t->v)
		return LENS_OK;
	s->n_layers = t->extent[1];
	s->median_rank = lens_calloc(s->n_layers, sizeof(*s->median_rank));
	scratch = lens_calloc(t->extent[0], sizeof(*scratch));
	if (!s->median_rank || !scratch) {
		lens_free(scratch);
		return lens_error_nomem(err, t->extent[0], sizeof(*scratch));
	}
	for (i = 0; i < s->n_layers; i++)
		s->median_rank[i] = median(t->v + i, t->extent[0], s->n_layers, scratch);
	lens_free(scratch);
	LENS_TRY(lens_store_read_strings(file, "/lens_layer", &s->layer, &n, err));
	return n == s->n_layers ? LENS_OK
				: lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
						"/lens_layer does not fit rank_per_layer");
}

/* The tables that the summary is of, in the order of tables[]. */
enum { LENGTH, DIFF, RANK, TOKENS, TOKEN_RANK, LAYERS, LOSS, FLAGS, N_TABLES };
static const struct choice tables[N_TABLES] = {
	[LENGTH] = { "/prompts/length", 1, 0 },
	[DIFF] = { "/results/logit_diff", 2, 1 },
	[RANK] = { "/results/answer_rank", 2, 1 },
	[TOKENS] = { "/prompts/answer_tokens", 3, 1 },
	[TOKEN_RANK] = { "/results/answer_token_rank", 3, 1 },
	[LAYERS] = { "/results/rank_per_layer", 3, 2 },
	[LOSS] = { "/results/loss", 1, 0 },
	[FLAGS] = { "/results/flags", 1, 0 },
};

static enum lens_status summarize(const char *file, const struct table *t,
				  struct lens_summary *s, struct lens_error *err)
{
	size_t i;

	/* This one is in every file of ours: without it the file cannot be read. */
	if (!t[LENGTH].rank)
		return lens_error_at(err, LENS_ERR_FORMAT, file, 0, 0,
				     "'/prompts/length' is missing or damaged");
	s->n_prompts = t[LENGTH].extent[0];
	summarize_diff(&t[DIFF], s);
	summarize_loss(&t[LOSS], s);
	if (t[TOKENS].v)
		summarize_tokens(&t[TOKENS], &t[TOKEN_RANK], s);
	else
		summarize_top(&t[RANK], s);
	for (i = 0; i < t[FLAGS].extent[0]; i++)
		s->n_flagged += ((unsigned)t[FLAGS].v[i] & LENS_FLAGS_NONFINITE) != 0;
	return summarize_ranks(file, &t[LAYERS], s, err);
}

enum lens_status lens_summary_read(const char *file, struct lens_summary *s,
				   struct lens_error *err)
{
	struct table t[N_TABLES] = { { .v = NULL } };
	enum lens_status st = LENS_OK;
	struct lens_rows *r;
	size_t i;

	memset(s, 0, sizeof(*s));
	LENS_TRY(lens_rows_open(file, &r, err));
	for (i = 0; i < N_TABLES && st == LENS_OK; i++)
		st = read_table(r, &tables[i], &t[i], err);
	st = lens_rows_close(r, st, err);
	if (st == LENS_OK)
		st = summarize(file, t, s, err);
	for (i = 0; i < N_TABLES; i++)
		lens_free(t[i].v);
	if (st != LENS_OK)
		lens_summary_release(s);
	return st;
}

void lens_summary_release(struct lens_summary *s)
{
	size_t i;

	if (s->layer) {
		for (i = 0; i < s->n_layers; i++)
			lens_free(s->layer[i]);
	}
	lens_free(s->layer);
	lens_free(s->median_rank);
	memset(s, 0, sizeof(*s));
}
