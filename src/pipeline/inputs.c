/*
 * pipeline/inputs.c: what a run reads: model, tokenizer, data and vector, opened and
 * checked. In: the experiment; out: all of it in memory, and its identity.
 */
#include "pipeline/pipeline_private.h"

#include <stdarg.h>

/* Keys that a query sees in the layers where attention is cut, in the least; 0: all. */
static size_t least_window(const struct lens_experiment *e, const struct lens_config *c)
{
	size_t layer;

	for (layer = 0; layer < c->n_layers; layer++) {
		if (c->local[layer] && lens_experiment_cuts_in(e, layer))
			return c->window;
	}
	return 0;
}

static struct lens_dataset_options dataset_options(const struct lens_experiment *e,
						   const struct lens_config *c,
						   const struct lens_tokenizer *tokenizer)
{
	static const char separators[] = { [LENS_SEPARATOR_COMMA] = ',',
					   [LENS_SEPARATOR_SEMICOLON] = ';',
					   [LENS_SEPARATOR_TAB] = '\t' };
	const bool cuts = lens_experiment_cuts(e);

	return (struct lens_dataset_options){
		.csv = e->data.spool ? e->data.spool : e->data.csv,
		.separator = separators[e->data.separator],
		.prompt_column = lens_prompt_column(e),
		.prompt_ids = e->data.tokens != NULL,
		.answer_ids = e->data.answers_as == LENS_ANSWERS_AS_IDS,
		.corrupted_column = e->data.corrupted,
		.resample = lens_experiment_resamples(e),
		.resample_column = e->ablate.resample,
		.resample_seed = e->ablate.seed,
		.answer_columns = (const char *const *)e->data.answers.v,
		.n_answers = e->data.answers.n,
		.any_tokens = e->data.answer_tokens == LENS_ANSWERS_OF_ANY,
		.read_pos_column = e->data.read_pos_column,
		.read_pos = e->data.read_pos,
		.find = e->data.find,
		.find_column = e->data.find_column,
		.nth = e->data.nth,
		.place = { cuts ? &e->knockout.from : NULL, cuts ? &e->knockout.to : NULL },
		.window = cuts ? least_window(e, c) : 0,
		.prepend_bos = e->data.prepend_bos,
		.skip_bad_rows = e->data.skip_bad_rows,
		.limit = e->data.limit,
		.n_ctx = c->n_ctx,
		.d_vocab = c->d_vocab,
		.d_vocab_out = lens_n_logits(c),
		.tokenizer = tokenizer,
	};
}

void lens_experiment_meet_model(struct lens_experiment *e)
{
	struct lens_config c;

	if (!e->model || lens_config_load(e->model, &c, NULL) != LENS_OK ||
	    !lens_weights_as_stored(&c))
		return;
	lens_experiment_as_stored(e);
	if (c.norms_folded || c.norm == LENS_NORM_NONE)
		e->weights.fold_ln = false; /* so that the file says what was done */
}

struct lens_model_options lens_model_options_of(const struct lens_experiment *e)
{
	return (struct lens_model_options){
		.processing = {
			.fold_ln = e->weights.fold_ln,
			.center_writing_weights = e->weights.center_writing_weights,
			.center_unembed = e->weights.center_unembed,
			.fold_value_biases = e->weights.fold_value_biases,
			.refactor_factored_attn_matrices =
				e->weights.refactor_factored_attn_matrices,
		},
		.tied_head = (enum lens_tied_head)e->tied_head, /* in the same order */
		.threads = lens_thread_count(e->threads),
	};
}

/* Between steps that take their time; workers look for themselves. */
static enum lens_status go_on(const struct lens_run_options *opt, struct lens_error *err)
{
	if (opt->stop && atomic_load(opt->stop))
		return lens_error_set(err, LENS_ERR_INTERRUPTED, "stopped by a signal");
	return LENS_OK;
}

/* Tells the user, who may not listen, what is shown in any case. */
void lens_run_warn(const struct lens_run_options *opt, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!opt->warn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	opt->warn(opt->ctx, text);
}

/* The token in front, with a warning where others would choose another. */
static enum lens_status choose_bos(const struct lens_opened *o, const struct lens_experiment *e,
				   const struct lens_run_options *opt, struct lens_error *err)
{
	struct lens_buf doubt = LENS_BUF_INIT;
	enum lens_status st;

	if (!e->data.prepend_bos)
		return LENS_OK;
	LENS_TRY(lens_tokenizer_choose_bos(o->tokenizer, e->data.bos, err));
	st = lens_tokenizer_bos_doubt(o->tokenizer, &doubt, err);
	if (st == LENS_OK && doubt.len)
		lens_run_warn(opt, "%s: data.bos chooses, data.prepend_bos: false does without",
			      doubt.data);
	lens_buf_release(&doubt);
	return st;
}

static enum lens_status open_vector(struct lens_opened *o, const struct lens_experiment *e,
				    const struct lens_config *c, struct lens_error *err)
{
	return e->steer.vector ? lens_vector_open(e->steer.vector, lens_steer_width(c, e),
						  &o->vector, err)
			       : LENS_OK;
}

/* Any of the files that a tokenizer is read from? */
static bool has_tokenizer_files(const char *dir)
{
	static const char *const name[] = { "tokenizer.json", "vocab.json", "merges.txt",
					    "tokenizer.model" };
	bool has = false;
	size_t i;

	for (i = 0; i < sizeof(name) / sizeof(*name) && !has; i++) {
		char *path = lens_path_join(dir, name[i]);

		has = path && lens_file_exists(path);
		lens_free(path);
	}
	return has;
}

/*
 * A folder without one, or one that we cannot read, will do where no text is to be made
 * tokens.
 */
static enum lens_status open_tokenizer(struct lens_opened *o, const struct lens_experiment *e,
				       const struct lens_run_options *opt,
				       struct lens_error *err)
{
	const bool needed = !e->data.tokens || e->data.prepend_bos ||
			    (e->data.answers.n && e->data.answers_as == LENS_ANSWERS_AS_TEXT);
	struct lens_error why = LENS_ERROR_INIT;
	enum lens_status st = lens_tokenizer_open(e->model, &o->tokenizer, &why);
	char text[1024];

	if (st == LENS_OK)
		return LENS_OK;
	if (needed && e->data.tokens)
		lens_error_add(&why, " (prompts of ids need a tokenizer for BOS, see "
				     "data.prepend_bos, and for answers, see data.answers_as)");
	else if (needed)
		lens_error_add(&why, " (without one, data.tokens takes prompts as token ids)");
	if (needed || st == LENS_ERR_NOMEM)
		return lens_error_pass(err, &why);
	if (has_tokenizer_files(e->model))
		lens_run_warn(opt, "no tokenizer is read, and none is needed: %s",
			      lens_error_format(&why, text, sizeof(text)));
	return LENS_OK;
}

/* On as many threads as there is memory for. */
static enum lens_status admit_model(void *ctx, const struct lens_config *c,
				    const struct lens_processing *p, size_t *threads,
				    struct lens_error *err)
{
	const struct lens_opened *o = ctx;

	return lens_plan_loading(c, p, &o->memory, threads, err);
}

static enum lens_status open_model(struct lens_opened *o, const struct lens_experiment *e,
				   const struct lens_run_options *opt, struct lens_error *err)
{
	struct lens_model_options m = lens_model_options_of(e);

	m.admit = admit_model;
	m.config_will_do = opt->dry_run;
	m.ctx = o;
	o->memory = (struct lens_available){ e->memory, LENS_MEMORY_GIVEN };
	if (!e->memory)
		o->memory = lens_memory_available("");
	LENS_TRY(lens_model_open(e->model, &m, &o->model, err));
	if (o->model->warning)
		lens_run_warn(opt, "%s", o->model->warning);
	return LENS_OK;
}

/* The cheap inputs come first: a bad row is found before the weights are read. */
static enum lens_status open_all(struct lens_opened *o, const struct lens_experiment *e,
				 const struct lens_run_options *opt, struct lens_error *err)
{
	struct lens_config config;

	LENS_TRY(lens_open_cpu(e->cpu, &o->in.level, err));
	LENS_TRY(lens_config_load(e->model, &config, err));
	LENS_TRY(open_vector(o, e, &config, err));
	LENS_TRY(open_tokenizer(o, e, opt, err));
	LENS_TRY(choose_bos(o, e, opt, err));
	o->data = dataset_options(e, &config, o->tokenizer);
	LENS_TRY(lens_prompts_load(&o->data, &o->prompts, o->report, err));
	LENS_TRY(go_on(opt, err));
	LENS_TRY(open_model(o, e, opt, err));
	return go_on(opt, err);
}

enum lens_status lens_inputs_open(struct lens_opened *o, const struct lens_experiment *e,
				  const struct lens_run_options *opt, struct lens_error *err)
{
	LENS_TRY(open_all(o, e, opt, err));
	o->in.experiment = e;
	o->in.data = &o->data;
	o->in.prompts = o->prompts;
	o->in.model = o->model;
	o->in.tokenizer = o->tokenizer;
	o->in.vector = &o->vector;
	o->in.n_skipped = o->report->n_bad;
	LENS_TRY(lens_identity(&o->in, &o->identity, err));
	o->in.identity = o->identity;
	return LENS_OK;
}

void lens_inputs_close(struct lens_opened *o)
{
	lens_model_destroy(o->model);
	lens_prompts_destroy(o->prompts);
	lens_tokenizer_destroy(o->tokenizer);
	lens_free(o->vector.v);
	lens_free(o->identity);
}
