/*
 * plan/plan.c: what a file holds: a dataset for each hook point and table that the
 * experiment asks for, links for aliases. In: model, prompts and experiment; out: the
 * plan of the whole sweep, or that of some of its rows.
 */
#include "plan/plan_private.h"

#include <stdio.h>
#include <string.h>

/* --- cache datasets ---------------------------------------------------------------- */

/* Of some positions, positions and queries are slots; keys are kept. */
static enum lens_axis stored_axis(const struct lens_plan *p, enum lens_axis axis)
{
	bool sliced = axis == LENS_AXIS_POS || axis == LENS_AXIS_QUERY;

	return sliced && p->capture.positions.kind != LENS_POS_ALL ? LENS_AXIS_SLOT : axis;
}

/* Scores and patterns, which have two axes of positions, stay by prompt. */
static bool stored_by_token(const struct lens_plan *p, enum lens_hook hook)
{
	return p->experiment->cache.layout == LENS_CACHE_RAGGED && !lens_hook_is_square(hook);
}

static void cache_path(const struct lens_plan *p, enum lens_hook hook, size_t layer,
		       char path[LENS_PATH])
{
	char name[LENS_HOOK_NAME];

	snprintf(path, LENS_PATH, "/%s/%s", stored_by_token(p, hook) ? "tokens" : "cache",
		 lens_hook_name(hook, layer, name));
}

static void add_hook(struct lens_plan *p, enum lens_hook hook, size_t layer)
{
	const struct lens_hook_info *h = lens_hook_info(hook);
	struct lens_planned *d = &p->dataset[p->n_datasets];
	bool by_token = stored_by_token(p, hook);
	int i;

	cache_path(p, hook, layer, d->path);
	d->from = LENS_FROM_HOOK;
	d->source = p->capture.n_specs++;
	d->long_name = h->long_name;
	d->dtype = lens_hook_dtype(hook);
	if (d->dtype == LENS_F32 && p->experiment->cache.dtype == LENS_CACHE_F16)
		d->dtype = LENS_F16;
	d->rank = h->n_axes + !by_token;
	d->axis[0] = LENS_AXIS_PROMPT;
	for (i = 0; i < h->n_axes; i++)
		d->axis[i + !by_token] = stored_axis(p, h->axis[i]);
	if (by_token) /* for the prompt and its position */
		d->axis[0] = LENS_AXIS_TOKEN;
	p->capture.spec[d->source] = (struct lens_capture_spec){
		.dataset = (int)p->n_datasets++,
		.hook = hook,
		.layer = layer,
		.dtype = d->dtype,
		.by_token = by_token,
		.rank = d->rank,
	};
	lens_hook_want(&p->hooks, hook, layer, LENS_WANT_ALL);
}

static void add_link(struct lens_plan *p, enum lens_hook hook, size_t layer,
		     enum lens_hook target, size_t target_layer)
{
	struct lens_planned_link *l = &p->link[p->n_links++];

	cache_path(p, hook, layer, l->path);
	cache_path(p, target, target_layer, l->target);
}

static void add_cache(struct lens_plan *p, const struct lens_hook_set *selected)
{
	size_t layer, target_layer;
	enum lens_hook target;
	int h;

	for (layer = 0; layer < selected->n_layers; layer++) {
		for (h = 0; h < LENS_HOOK_COUNT; h++) {
			enum lens_hook hook = (enum lens_hook)h;

			if (!lens_hook_wanted(selected, hook, layer))
				continue;
			/* A link, where what it is an alias of is stored too. */
			if (lens_hook_alias(&p->model->config, hook, layer, &target,
					    &target_layer) &&
			    lens_hook_wanted(selected, target, target_layer))
				add_link(p, hook, layer, target, target_layer);
			else
				add_hook(p, hook, layer);
		}
	}
}

/* --- tables ------------------------------------------------------------------------ */

static void add_table(struct lens_plan *p, enum lens_table table)
{
	const struct lens_table_type *t = lens_table_type(table, &p->tables);
	struct lens_planned *d = &p->dataset[p->n_datasets++];
	int i;

	snprintf(d->path, sizeof(d->path), "/results/%s", lens_table_name(table));
	d->from = LENS_FROM_TABLE;
	d->source = table;
	d->long_name = t->long_name;
	d->units = t->units;
	d->dtype = t->cache_dtype && p->experiment->cache.dtype == LENS_CACHE_F16 ? LENS_F16
										  : t->dtype;
	d->rank = t->n_axes + 1;
	d->axis[0] = LENS_AXIS_PROMPT;
	for (i = 0; i < t->n_axes; i++)
		d->axis[i + 1] = t->axis[i];
}

/* Why the model cannot have it; NULL: it can. */
static const char *impossible(const struct lens_config *c, const char *group)
{
	if ((c->attn_only || c->n_experts) &&
	    (!strcmp(group, "neuron_attrs") || !strcmp(group, "top_neurons")))
		return c->attn_only ? "the model has no neurons (attn_only)"
				    : "the model's MLPs are experts, whose neurons are not "
				      "shown";
	if (lens_n_logits(c) < c->d_vocab &&
	    (!strcmp(group, "loss") || !strcmp(group, "token_logprobs")))
		return "tokens from d_vocab_out on have no logit";
	return NULL;
}

/* Those that come with `all` or by default are left out where the model cannot have them. */
static enum lens_status choose_table(struct lens_plan *p, enum lens_table table,
				     struct lens_error *err)
{
	const char *group = lens_table_group(table);
	const char *why = impossible(&p->model->config, group);
	bool wants = lens_experiment_wants_table(p->experiment, group);

	if (wants && why && p->experiment->tables_listed)
		return lens_error_set(err, LENS_ERR_INVALID, "tables: %s: %s", group, why);
	p->tables.wanted[table] = wants && !why;
	p->any_table |= wants && !why;
	return LENS_OK;
}

static enum lens_status add_tables(struct lens_plan *p, struct lens_error *err)
{
	bool *wanted = p->tables.wanted;
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++)
		LENS_TRY(choose_table(p, (enum lens_table)i, err));
	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		if (!strcmp(lens_table_group((enum lens_table)i), "any"))
			wanted[i] = p->any_table;
		if (wanted[i])
			add_table(p, (enum lens_table)i);
	}
	if (p->any_table)
		lens_tables_hooks(p->model, &p->tables, &p->table_hooks);
	return LENS_OK;
}

/* --- interventions ----------------------------------------------------------------------- */

static void add_outcome(struct lens_plan *p, size_t outcome)
{
	const struct lens_outcome *o = &p->study.outcome[outcome];
	struct lens_planned *d = &p->dataset[p->n_datasets++];
	int i;

	snprintf(d->path, sizeof(d->path), "/results/%s", o->name);
	d->from = LENS_FROM_OUTCOME;
	d->source = outcome;
	d->long_name = o->long_name;
	d->units = o->units;
	d->dtype = o->dtype;
	d->rank = o->n_axes + 1;
	d->axis[0] = LENS_AXIS_PROMPT;
	for (i = 0; i < o->n_axes; i++)
		d->axis[i + 1] = o->axis[i];
}

struct lens_interventions_options lens_plan_interventions(const struct lens_plan *p,
							  size_t threads)
{
	return (struct lens_interventions_options){ .study = &p->study,
						    .sizes = p->sizes,
						    .batch_rows = p->batch_rows,
						    .threads = (int)threads };
}

/* --- the whole ---------------------------------------------------------------------- */

static size_t longest_continued(const struct lens_prompts *q)
{
	size_t row, i, most = 0;

	for (row = 0; q->n_answer_pos > 1 && row < q->n_rows; row++) {
		for (i = 0; i < q->n_answers; i++)
			most = lens_max(most, lens_continued_length(q, row, i));
	}
	return most;
}

void lens_plan_sizes(struct lens_plan *p)
{
	const struct lens_experiment *e = p->experiment;
	struct lens_positions *positions = &p->capture.positions;

	positions->kind = e->cache.positions;
	positions->list = e->cache.position;
	if (positions->kind == LENS_POS_ALL)
		positions->n_slots = p->prompts->max_length;
	else
		positions->n_slots =
			positions->kind == LENS_POS_LIST ? e->cache.n_positions : 1;
	p->capture.config = &p->model->config;
	p->capture.n_pos = p->prompts->max_length;
	p->capture.batch_rows = p->batch_rows;
	p->sizes = lens_model_sizes(&p->model->config);
	p->sizes.n_prompts = p->prompts->n_rows;
	p->sizes.n_pos = p->prompts->max_length;
	p->sizes.n_slots = positions->n_slots;
	p->sizes.n_tokens = lens_plan_tokens(p);
	p->sizes.n_answers = p->prompts->n_answers;
	p->sizes.n_answer_pos = p->prompts->n_answer_pos;
	p->sizes.answer = (const char *const *)e->data.answers.v;
	p->sizes.top_k = lens_min(lens_min(e->top_k, LENS_TOP_K_MAX), p->sizes.d_vocab);
	p->sizes.lens_mid = e->lens_mid;
	p->sizes.set = p->study.set_name;
	p->sizes.n_sets = p->study.n_sets;
	p->sizes.scale = e->steer.scale;
	p->sizes.n_scales = e->steer.n_scales;
	p->tables.sizes = p->sizes;
	p->tables.lens = e->lens;
	p->tables.lens_positions = e->lens_positions;
	p->tables.answer_tokens = e->data.answer_tokens;
	p->tables.max_continued = longest_continued(p->prompts);
	p->tables.share_prefixes = e->share_prefixes;
	p->tables.attrs_positions = e->attrs.positions;
	p->tables.batch_rows = p->batch_rows;
	p->tables.max_rows = p->max_packed;
}

/* The longest prompt has every position that any has. */
static enum lens_status check_list(const struct lens_plan *p, const char *key,
				   const long *position, size_t n, struct lens_error *err)
{
	long longest = (long)p->prompts->max_length;
	size_t i;

	for (i = 0; i < n; i++) {
		if (position[i] < -longest || position[i] >= longest)
			return lens_error_set(err, LENS_ERR_INVALID,
					      "%s: no prompt has a position %ld; the longest "
					      "has %ld tokens",
					      key, position[i], longest);
	}
	return LENS_OK;
}

static enum lens_status check_positions(const struct lens_plan *p, struct lens_error *err)
{
	const struct lens_experiment *e = p->experiment;

	LENS_TRY(lens_plan_check_tokens(p, err));
	LENS_TRY(
		check_list(p, "cache.positions", e->cache.position, e->cache.n_positions, err));
	LENS_TRY(check_list(p, "knockout.from", e->knockout.from.position, e->knockout.from.n,
			    err));
	LENS_TRY(check_list(p, "knockout.to", e->knockout.to.position, e->knockout.to.n, err));
	LENS_TRY(
		check_list(p, "patch.positions", e->patch.position, e->patch.n_positions, err));
	return check_list(p, "steer.positions", e->steer.positions.position,
			  e->steer.positions.n, err);
}

/* A key that says all needs a table that it changes. */
static enum lens_status check_read_at(const struct lens_plan *p, enum lens_positions_key key,
				      const char *name, struct lens_error *err)
{
	struct lens_buf names = LENS_BUF_INIT;
	enum lens_status st = LENS_OK;
	int i;

	for (i = 0; i < LENS_TABLE_COUNT; i++) {
		enum lens_table t = (enum lens_table)i;

		if (!lens_table_has_positions(t, key))
			continue;
		if (lens_experiment_wants_table(p->experiment, lens_table_group(t)))
			break;
		if (st == LENS_OK)
			st = lens_buf_printf(&names, err, "%s%s", names.len ? ", " : "",
					     lens_table_name(t));
	}
	if (st == LENS_OK && i == LENS_TABLE_COUNT)
		st = lens_error_set(err, LENS_ERR_INVALID,
				    "%s: all is for %s; tables asks for none of them", name,
				    names.data);
	lens_buf_release(&names);
	return st;
}

static enum lens_status check_lens(const struct lens_plan *p, struct lens_error *err)
{
	const struct lens_config *c = &p->model->config;

	if (p->experiment->lens_mid && !lens_hook_exists(c, LENS_HOOK_RESID_MID))
		return lens_error_set(err, LENS_ERR_INVALID,
				      "lens_mid: there is no stream between attention and MLP "
				      "in %s",
				      lens_why_no_hook(c));
	if (p->experiment->lens_positions == LENS_READ_AT_ALL)
		LENS_TRY(check_read_at(p, LENS_LENS_POSITIONS, "lens_positions", err));
	return LENS_OK;
}

static enum lens_status check_attrs(const struct lens_plan *p, struct lens_error *err)
{
	return p->experiment->attrs.positions == LENS_READ_AT_ALL
		       ? check_read_at(p, LENS_ATTRS_POSITIONS, "attrs.positions", err)
		       : LENS_OK;
}

/* What is stored, by what name and with which axes. */
static enum lens_status describe(struct lens_plan *p, const struct lens_hook_set *selected,
				 struct lens_error *err)
{
	size_t i, most = p->model->config.n_layers * LENS_HOOK_COUNT;

	p->dataset =
		lens_calloc(most + LENS_TABLE_COUNT + p->study.n_outcomes, sizeof(*p->dataset));
	p->link = lens_calloc(most, sizeof(*p->link));
	p->capture.spec = lens_calloc(most, sizeof(*p->capture.spec));
	if (!p->dataset || !p->link || !p->capture.spec)
		return lens_error_nomem(err, most, sizeof(*p->dataset));
	LENS_TRY(check_positions(p, err));
	LENS_TRY(check_lens(p, err));
	add_cache(p, selected);
	LENS_TRY(add_tables(p, err));
	for (i = 0; i < p->study.n_outcomes; i++)
		add_outcome(p, i);
	LENS_TRY(check_attrs(p, err));
	if (!p->n_datasets)
		return lens_error_set(err, LENS_ERR_INVALID,
				      "neither cache.hooks nor tables nor patch.grids asks for "
				      "anything%s",
				      p->prompts->n_answers ? ""
							    : " (without data.answers, tables "
							      "about answers have no content)");
	return LENS_OK;
}

static enum lens_status fill(struct lens_plan *p, struct lens_error *err)
{
	const struct lens_experiment *e = p->experiment;
	const struct lens_config *c = &p->model->config;
	struct lens_shape shape[LENS_SHAPES] = { { .made = false } };
	struct lens_hook_set selected = { 0 };
	enum lens_status st;

	st = lens_hook_set_init(&selected, c, (const char *const *)e->cache.hooks.v,
				e->cache.hooks.n, err);
	if (st == LENS_OK)
		st = lens_hook_set_init(&p->hooks, c, NULL, 0, err);
	if (st == LENS_OK)
		st = lens_hook_set_init(&p->table_hooks, c, NULL, 0, err);
	if (st == LENS_OK)
		st = describe(p, &selected, err);
	lens_hook_set_release(&selected);
	LENS_TRY(st);
	LENS_TRY(lens_plan_shapes(p, shape, err));
	lens_plan_take_shapes(p, shape);
	return lens_plan_index_tokens(p, err);
}

enum lens_status lens_plan_init(struct lens_plan *p, const struct lens_model *m,
				const struct lens_prompts *prompts,
				const struct lens_experiment *e, struct lens_error *err)
{
	enum lens_status st;

	*p = (struct lens_plan){ .model = m, .prompts = prompts, .experiment = e };
	st = lens_study_init(&p->study, m, e, err);
	if (st == LENS_OK) {
		lens_plan_blocks(p);
		lens_plan_sizes(p);
		st = fill(p, err);
	}
	if (st != LENS_OK)
		lens_plan_release(p);
	return st;
}

enum lens_status lens_plan_part(const struct lens_plan *whole, const struct lens_prompts *rows,
				struct lens_plan *out, struct lens_error *err)
{
	size_t n = whole->n_datasets, n_specs = whole->capture.n_specs;

	*out = *whole;
	out->whole = whole;
	out->prompts = rows;
	out->first_token = NULL;
	out->dataset = lens_calloc(n, sizeof(*out->dataset));
	out->capture.spec = lens_calloc(n_specs, sizeof(*out->capture.spec));
	if (!out->dataset || !out->capture.spec) {
		lens_plan_release(out);
		return lens_error_nomem(err, n, sizeof(*out->dataset));
	}
	memcpy(out->dataset, whole->dataset, n * sizeof(*out->dataset));
	if (n_specs)
		memcpy(out->capture.spec, whole->capture.spec,
		       n_specs * sizeof(*out->capture.spec));
	return LENS_OK;
}

void lens_plan_release(struct lens_plan *p)
{
	if (!p->whole) {
		lens_hook_set_release(&p->hooks);
		lens_hook_set_release(&p->table_hooks);
		lens_study_release(&p->study);
		lens_free(p->link);
	}
	lens_free(p->first_token);
	lens_free(p->capture.spec);
	lens_free(p->dataset);
	memset(p, 0, sizeof(*p));
}
