/*
 * cli/prompt.c: `h5lens prompt`: what TransformerLens's utils.test_prompt shows.
 */
#include "cli/cli.h"

struct prompt_args {
	const char *dir, *text, *answer, *bos;
	size_t top;
	bool no_bos, raw;
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
	float *logits; /* [answer tokens (at least 1), V] */
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
	if (!a->answer)
		return LENS_OK;
	LENS_TRY(lens_tokenizer_encode_continuation(s->tok, a->answer, strlen(a->answer),
						    &s->answer, err));
	if (!s->answer.n)
		return lens_error_set(err, LENS_ERR_INVALID, "the answer has no tokens");
	for (i = 0; i + 1 < s->answer.n; i++)
		LENS_TRY(lens_ids_push(&s->tokens, s->answer.v[i], err));
	return LENS_OK;
}

/* Keeps the logits of the positions that predict the answer's tokens. */
static enum lens_status keep_logits(void *ctx, const struct lens_batch *b,
				    const struct lens_activation *a, struct lens_error *err)
{
	struct session *s = ctx;
	size_t i, n = s->answer.n ? s->answer.n : 1, v = s->model->config.d_vocab;

	(void)b;
	(void)err;
	for (i = 0; i < n; i++)
		memcpy(s->logits + i * v, a->data + (s->n_prompt - 1 + i) * a->stride,
		       v * sizeof(float));
	return LENS_OK;
}

static enum lens_status forward(struct session *s, struct lens_error *err)
{
	static const char *const hooks[] = { "logits" };
	const struct lens_config *c = &s->model->config;
	size_t length = s->tokens.n, offset = 0, rows = (length + 11) / 12 * 12, i;
	const int32_t *tokens = s->tokens.v;
	const struct lens_batch b = { .n_prompts = 1,
				      .tokens = &tokens,
				      .length = &length,
				      .offset = &offset,
				      .n_rows = rows };
	struct lens_hook_set set = { 0 };
	const struct lens_visitor v = { .hooks = &set, .visit = keep_logits, .ctx = s };
	struct lens_forward *f = NULL;
	enum lens_status st;

	if (length > c->n_ctx)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "%zu tokens are more than the model's context of %zu",
				      length, c->n_ctx);
	for (i = 0; i < length; i++) {
		if ((size_t)tokens[i] >= c->d_vocab)
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "token %d is past the model's vocabulary of %zu",
					      tokens[i], c->d_vocab);
	}
	s->logits = lens_calloc((s->answer.n ? s->answer.n : 1) * c->d_vocab, sizeof(float));
	if (!s->logits)
		return lens_error_nomem(err, c->d_vocab, sizeof(float));
	st = lens_hook_set_init(&set, c, hooks, 1, err);
	if (st == LENS_OK)
		st = lens_forward_create(s->model, &set, rows, length,
					 (int)lens_thread_count(0), &f, err);
	if (st == LENS_OK)
		st = lens_forward_run(f, &b, &v, err);
	lens_forward_destroy(f);
	lens_hook_set_release(&set);
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

static int32_t largest(const float *logit, size_t n, const bool *taken)
{
	size_t i;
	int32_t best = -1;

	for (i = 0; i < n; i++) {
		if (!taken[i] && (best < 0 || logit[i] > logit[best]))
			best = (int32_t)i;
	}
	return best;
}

static void show_token(const struct session *s, const float *logit, double sum_exp, float max,
		       int32_t id)
{
	printf("logit %7.2f  prob %6.2f %%  |%s|\n", (double)logit[id],
	       100 * exp((double)logit[id] - (double)max) / sum_exp, piece(s, id));
}

static enum lens_status show_position(const struct session *s, size_t i, struct lens_error *err)
{
	size_t k, v = s->model->config.d_vocab;
	const float *logit = s->logits + i * v;
	float max = lens_vec()->max_finite(v, logit);
	double sum = isnan(max) ? 0 : lens_vec()->sum_exp(v, logit, max);
	bool *taken;

	if (isnan(max))
		return lens_error_set(err, LENS_ERR_FORMAT, "the logits are not finite");
	if (s->answer.n) {
		printf("answer token |%s|: rank %zu  ", piece(s, s->answer.v[i]),
		       lens_vec()->count_above(v, logit, logit[s->answer.v[i]]));
		show_token(s, logit, sum, max, s->answer.v[i]);
	}
	taken = lens_calloc(v, sizeof(*taken));
	if (!taken)
		return lens_error_nomem(err, v, 1);
	for (k = 0; k < s->args->top && k < v; k++) {
		int32_t id = largest(logit, v, taken);

		taken[id] = true;
		printf("  top %2zu  ", k);
		show_token(s, logit, sum, max, id);
	}
	lens_free(taken);
	return LENS_OK;
}

static enum lens_status show(const struct session *s, struct lens_error *err)
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
	for (i = 0; i < (s->answer.n ? s->answer.n : 1); i++)
		LENS_TRY(show_position(s, i, err));
	return LENS_OK;
}

static enum lens_status run_session(struct session *s, struct lens_error *err)
{
	const bool on = !s->args->raw;
	const struct lens_model_options p = { .processing = { on, on, on, on, false },
					      .tied_head = s->args->tied_head };
	struct lens_config config;
	enum lens_cpu_level level;
	size_t i;

	LENS_TRY(lens_open_cpu(s->args->cpu, &level, err));
	LENS_TRY(lens_config_load(s->args->dir, &config, err));
	LENS_TRY(lens_tokenizer_open(s->args->dir, &s->tok, err));
	LENS_TRY(tokenize(s, err));
	LENS_TRY(lens_model_open(s->args->dir, &p, &s->model, err));
	if (s->model->warning)
		fprintf(stderr, "h5lens: warning: %s\n", s->model->warning);
	for (i = 0; i < s->answer.n; i++) {
		if ((size_t)s->answer.v[i] >= s->model->config.d_vocab)
			return lens_error_set(err, LENS_ERR_FORMAT,
					      "answer token %d is past the model's vocabulary",
					      s->answer.v[i]);
	}
	LENS_TRY(forward(s, err));
	return show(s, err);
}

/* What is odd about prompt and answer; `run` tells the same of a row. */
static void hint(const struct prompt_args *a)
{
	size_t n = strlen(a->text), n_answer = a->answer ? strlen(a->answer) : 0;

	if (!n_answer)
		return;
	if (!lens_begins_with_space(a->answer, n_answer))
		fprintf(stderr,
			"h5lens: note: the answer has no leading space; \" %s\" is "
			"usually what follows a prompt\n",
			visible(a->answer, n_answer));
	else if (lens_ends_with_space(a->text, n))
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

int cmd_prompt(int argc, char **argv)
{
	struct prompt_args a = { .top = 10, .bos = "auto" };
	const char *top = NULL, *cpu = NULL, *head = NULL, *plain[2];
	const struct option_row options[] = {
		{ "--answer", NULL, &a.answer, "TEXT",
		  "rank, logit and probability of its tokens" },
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
	struct lens_error err = LENS_ERROR_INIT;
	struct session s = { .args = &a };
	enum lens_status st;
	int n, code = parse_args(&u, argc, argv, plain, &n);

	if (code < 0)
		code = take_values(&u, &a, top, cpu, head);
	if (code < 0)
		code = check_kind(&u, plain[0], true);
	if (code >= 0)
		return code;
	a.dir = plain[0];
	a.text = plain[1];
	hint(&a);
	st = run_session(&s, &err);
	lens_free(s.logits);
	lens_ids_release(&s.tokens);
	lens_ids_release(&s.answer);
	lens_model_destroy(s.model);
	lens_tokenizer_destroy(s.tok);
	return st == LENS_OK ? EXIT_DONE : fail(&err);
}
