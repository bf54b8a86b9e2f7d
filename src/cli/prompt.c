/*
 * cli/prompt.c: `h5lens prompt`: what TransformerLens's utils.test_prompt shows.
 */
#include "cli/cli_private.h"

struct prompt_args {
	const char *dir, *text, *answer, *bos;
	size_t top;
	bool no_bos, raw, no_space;
	enum lens_cpu_choice cpu;
	enum lens_tied_head tied_head;
};

struct session {
	const struct prompt_args *args;
	struct lens_tokenizer *tok;
	struct lens_model *model;
	struct lens_ids tokens; /* the prompt, then all of the answer but its last */
	size_t n_prompt;        /* tokens of the prompt */
	struct lens_ids answer;
	size_t n; /* positions that are read: the answer's tokens, at least 1 */
	struct lens_tables *tables;
};

static enum lens_status tokenize(struct session *s, struct lens_error *err)
{
	const struct prompt_args *a = s->args;
	size_t i;

	if (!a->no_bos)
		LENS_TRY(push_bos(s->tok, a->bos, &s->tokens, err));
	LENS_TRY(lens_tokenizer_encode(s->tok, a->text, strlen(a->text), &s->tokens, err));
	s->n_prompt = s->tokens.n;
	if (!s->n_prompt)
		return lens_error_set(err, LENS_ERR_INVALID, "the prompt has no tokens");
	s->n = 1;
	if (!a->answer)
		return LENS_OK;
	LENS_TRY(lens_tokenizer_encode_continuation(s->tok, a->answer, strlen(a->answer),
						    &s->answer, err));
	if (!s->answer.n)
		return lens_error_set(err, LENS_ERR_INVALID, "the answer has no tokens");
	s->n = s->answer.n;
	for (i = 0; i + 1 < s->n; i++)
		LENS_TRY(lens_ids_push(&s->tokens, s->answer.v[i], err));
	return LENS_OK;
}

static enum lens_status check_tokens(const struct session *s, struct lens_error *err)
{
	const struct lens_config *c = &s->model->config;
	size_t i;

	if (s->tokens.n > c->n_ctx)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "%zu tokens are more than the model's context of %zu",
				      s->tokens.n, c->n_ctx);
	for (i = 0; i < s->tokens.n; i++) {
		if ((size_t)s->tokens.v[i] >= c->d_vocab)
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "token %d is past the model's vocabulary of %zu",
					      s->tokens.v[i], c->d_vocab);
	}
	for (i = 0; i < s->answer.n; i++) {
		if ((size_t)s->answer.v[i] >= lens_n_logits(c))
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "answer token %d is past the model's vocabulary",
					      s->answer.v[i]);
	}
	return LENS_OK;
}

static struct lens_tables_options table_options(const struct session *s)
{
	struct lens_tables_options o = {
		.wanted = { [LENS_TABLE_top_tokens] = true,
			    [LENS_TABLE_top_logits] = true,
			    [LENS_TABLE_top_probs] = true,
			    [LENS_TABLE_flags] = true },
		.sizes = lens_model_sizes(&s->model->config),
		.batch_rows = s->n,
		.threads = (int)lens_thread_count(0),
	};

	o.sizes.n_prompts = s->n;
	o.sizes.n_pos = s->tokens.n;
	o.sizes.n_answers = s->answer.n ? 1 : 0;
	o.sizes.top_k = lens_min(s->args->top, o.sizes.d_vocab);
	o.wanted[LENS_TABLE_answer_logit] = o.wanted[LENS_TABLE_answer_prob] =
		o.wanted[LENS_TABLE_answer_rank] = s->answer.n > 0;
	return o;
}

/* A batch of the prompt, and of the prompt with each beginning of the answer. */
static enum lens_status make_tables(struct session *s, struct lens_error *err)
{
	const struct lens_tables_options opt = table_options(s);
	const int32_t **tokens = lens_calloc(s->n, sizeof(*tokens));
	size_t i, *length = lens_calloc(s->n, sizeof(*length));
	const struct lens_tables_prompts in = {
		.tokens = tokens, .length = length, .answers = s->answer.v, .n = s->n
	};
	enum lens_status st;

	for (i = 0; tokens && length && i < s->n; i++) {
		tokens[i] = s->tokens.v;
		length[i] = s->n_prompt + i;
	}
	st = tokens && length ? lens_tables_once(s->model, &opt, &in, &s->tables, err)
			      : lens_error_nomem(err, s->n, sizeof(*length));
	lens_free(tokens);
	lens_free(length);
	return st;
}

static const char *piece(const struct session *s, int32_t id)
{
	struct lens_buf b = LENS_BUF_INIT;
	const char *text = "?";

	if (lens_tokenizer_decode_continuation(s->tok, &id, 1, &b, NULL) == LENS_OK && b.data)
		text = visible(b.data, b.len);
	lens_buf_release(&b);
	return text;
}

/* --- what is shown -------------------------------------------------------------- */

static void show_token(const struct session *s, double logit, double prob, int32_t id)
{
	printf("logit %7.2f  prob %6.2f %%  |%s|\n", logit, 100 * prob, piece(s, id));
}

/* Value i of a table of float32. */
static double value(const struct session *s, enum lens_table table, size_t i)
{
	return (double)((const float *)lens_tables_rows(s->tables, table))[i];
}

static void show_position(const struct session *s, size_t i)
{
	const int32_t *rank = lens_tables_rows(s->tables, LENS_TABLE_answer_rank);
	const int32_t *top = lens_tables_rows(s->tables, LENS_TABLE_top_tokens);
	size_t k, n = lens_min(s->args->top, lens_n_logits(&s->model->config));

	if (rank) {
		printf("answer token |%s|: rank %d  ", piece(s, s->answer.v[i]), rank[i]);
		show_token(s, value(s, LENS_TABLE_answer_logit, i),
			   value(s, LENS_TABLE_answer_prob, i), s->answer.v[i]);
	}
	for (k = i * n; k < (i + 1) * n; k++) {
		printf("  top %2zu  ", k - i * n);
		show_token(s, value(s, LENS_TABLE_top_logits, k),
			   value(s, LENS_TABLE_top_probs, k), top[k]);
	}
}

static void show(const struct session *s)
{
	size_t i;

	printf("prompt tokens:");
	for (i = 0; i < s->n_prompt; i++)
		printf(" |%s|", piece(s, s->tokens.v[i]));
	printf("\n");
	if (s->answer.n) {
		printf("answer tokens:");
		for (i = 0; i < s->answer.n; i++)
			printf(" |%s|", piece(s, s->answer.v[i]));
		printf("\n");
	}
	for (i = 0; i < s->n; i++)
		show_position(s, i);
}

static enum lens_status run_session(struct session *s, struct lens_error *err)
{
	struct lens_model_options p = { .tied_head = s->args->tied_head };
	struct lens_config config;
	enum lens_cpu_level level;

	LENS_TRY(lens_open_cpu(s->args->cpu, &level, err));
	LENS_TRY(lens_config_load(s->args->dir, &config, err));
	if (!s->args->raw && !lens_weights_as_stored(&config))
		p.processing = (struct lens_processing){ true, true, true, true, false };
	LENS_TRY(lens_tokenizer_open(s->args->dir, &s->tok, err));
	LENS_TRY(tokenize(s, err));
	LENS_TRY(lens_model_open(s->args->dir, &p, &s->model, err));
	if (s->model->warning)
		fprintf(stderr, "h5lens: warning: %s\n", s->model->warning);
	LENS_TRY(check_tokens(s, err));
	LENS_TRY(make_tables(s, err));
	show(s);
	return LENS_OK;
}

/* What is odd about prompt and answer; `run` tells the same of a row. */
static void hint(const struct prompt_args *a)
{
	size_t n = strlen(a->text), n_answer = a->answer ? strlen(a->answer) : 0;

	if (!n_answer)
		return;
	if (lens_begins_with_space(a->answer, n_answer) && lens_ends_with_space(a->text, n))
		fprintf(stderr, "h5lens: warning: the prompt ends in white space and the "
				"answer begins with it: together they have it twice\n");
}

/* value (NULL: the first) as an index into words, which ends with NULL; −1: none of them. */
static int word_of(const char *value, const char *const *words)
{
	int i;

	for (i = 0; value && words[i]; i++) {
		if (!strcmp(words[i], value))
			return i;
	}
	return value ? -1 : 0;
}

static int take_values(const struct usage *u, struct prompt_args *a, const char *top,
		       const char *cpu, const char *head)
{
	static const char *const cpus[] = { "auto", "avx2", "avx512", NULL };
	static const char *const heads[] = { "auto", "tied", "stored", NULL };
	int level = word_of(cpu, cpus), tied = word_of(head, heads);
	char *end;

	if (top) {
		a->top = strtoul(top, &end, 10);
		if (*end || !*top || *top == '-' || a->top > LENS_TOP_K_MAX)
			return usage_error(u, "--top takes a number up to %d", LENS_TOP_K_MAX);
	}
	if (level < 0)
		return usage_error(u, "--cpu takes auto, avx2 or avx512");
	if (tied < 0)
		return usage_error(u, "--tied-head takes auto, tied or stored");
	a->cpu = (enum lens_cpu_choice)level;
	a->tied_head = (enum lens_tied_head)tied;
	return -1;
}

static int prompt(struct prompt_args *a)
{
	struct lens_error err = LENS_ERROR_INIT;
	struct lens_buf answer = LENS_BUF_INIT;
	struct session s = { .args = a };
	enum lens_status st = LENS_OK;

	if (a->answer) {
		st = spaced(a->answer, a->no_space, &answer, &err);
		a->answer = answer.data;
	}
	hint(a);
	if (st == LENS_OK)
		st = run_session(&s, &err);
	lens_buf_release(&answer);
	lens_tables_destroy(s.tables);
	lens_ids_release(&s.tokens);
	lens_ids_release(&s.answer);
	lens_model_destroy(s.model);
	lens_tokenizer_destroy(s.tok);
	return st == LENS_OK ? EXIT_DONE : fail(&err);
}

int cmd_prompt(int argc, char **argv)
{
	struct prompt_args a = { .top = 10, .bos = "auto" };
	const char *top = NULL, *cpu = NULL, *head = NULL, *plain[2];
	const struct option_row options[] = {
		{ "--answer", NULL, &a.answer, "TEXT",
		  "rank, logit and probability of its tokens; a space is put in front,\n"
		  "                         as TransformerLens's test_prompt does, if it has none" },
		{ "--no-space", &a.no_space, NULL, NULL, "the answer as it is typed" },
		{ "--top", NULL, &top, "K", "so many top tokens (10)" },
		{ "--bos-token", NULL, &a.bos, "WHICH", "the BOS token, as data.bos has it" },
		{ "--no-bos", &a.no_bos, NULL, NULL, "do not prepend the BOS token" },
		{ "--raw-weights", &a.raw, NULL, NULL, "no weight processing" },
		{ "--tied-head", NULL, &head, "WHICH", "auto, tied or stored: what W_U is" },
		{ "--cpu", NULL, &cpu, "LEVEL", "auto, avx2 or avx512" },
	};
	const struct usage u = {
		.synopsis = "h5lens prompt DIR TEXT [--answer TEXT] [options]",
		.description =
			"One prompt: the top tokens that follow, and the rank, logit and\n"
			"probability of an answer. An answer of several tokens is read token "
			"by\n"
			"token, each after the ones before it.",
		.option = options,
		.n_options = sizeof(options) / sizeof(*options),
		.least = 2,
		.most = 2,
	};
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code < 0)
		code = take_values(&u, &a, top, cpu, head);
	if (code < 0)
		code = check_kind(&u, plain[0], true);
	if (code >= 0)
		return code;
	a.dir = plain[0];
	a.text = plain[1];
	return prompt(&a);
}
